"""Background jobs: work repeated while the service runs, with a state that health checks can read."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from app.base import db

log = logging.getLogger("aftermath.jobs")

Work = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Job:
    """The state of one job. `error` is the class of the error that ended its latest run, None if that succeeded."""

    name: str
    failures_in_a_row: int = 0
    error: str | None = None
    ended: bool = False


class Jobs:
    """`async with Jobs() as jobs: jobs.every(10, "settle", work)`; leaving the block cancels all jobs.

    A failed run is logged, and the next one follows after the usual pause. While the database is unreachable, failed
    runs are not logged, because the database monitor has already logged the outage. `on_end` is called when a job
    stops, which only a bug can cause.
    """

    def __init__(self, on_end: Callable[[], None] | None = None) -> None:
        self._on_end = on_end
        self._jobs: dict[str, Job] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def every(
        self,
        seconds: float,
        name: str,
        work: Work,
        *,
        at_once: bool = False,
        expected: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Starts a job that runs `work` after every pause of `seconds`. With `at_once` the first run is immediate.

        `expected` maps SQLSTATEs to log messages: these failures are part of normal operation and logged at info level.
        """
        job = Job(name)
        task = asyncio.create_task(_repeat(job, seconds, work, expected, at_once=at_once), name=name)
        self._tasks.append(task)
        self._watch(job, task)

    def watch(self, *tasks: asyncio.Task[None]) -> None:
        """Watches tasks of other components. A task that ends before this block counts as an ended job."""
        for task in tasks:
            self._watch(Job(task.get_name()), task)

    @property
    def ended(self) -> Sequence[str]:
        """Names of jobs that have stopped while the service is running. Only a restart starts them again."""
        return [job.name for job in self._jobs.values() if job.ended]

    @property
    def failing(self) -> Sequence[Job]:
        """Jobs whose latest run failed for a reason other than an unreachable database."""
        return [job for job in self._jobs.values() if job.error]

    def _watch(self, job: Job, task: asyncio.Task[None]) -> None:
        assert job.name not in self._jobs, f"there are two jobs named {job.name}"
        self._jobs[job.name] = job

        def done(task: asyncio.Task[None]) -> None:
            if not self._closing:
                job.ended = True
                error = None if task.cancelled() else task.exception()
                log.critical("job %s has stopped; restart this process", job.name, exc_info=error)
                if self._on_end:
                    self._on_end()

        task.add_done_callback(done)


async def _repeat(job: Job, seconds: float, work: Work, expected: Mapping[str, str], *, at_once: bool) -> None:
    if not at_once:
        await asyncio.sleep(seconds)
    while True:
        await _run_round(job, work, expected)
        await asyncio.sleep(seconds)


async def _run_round(job: Job, work: Work, expected: Mapping[str, str]) -> None:
    try:
        await work()
    except Exception as error:
        if db.is_unreachable(error):
            return
        if message := expected.get(db.state_of(error)):
            log.info("%s: %s", job.name, message)
            return
        if db.is_contended(error):
            log.warning(
                "job %s was interrupted by a conflicting transaction (%s) and will retry", job.name, db.state_of(error)
            )
            return
        job.failures_in_a_row += 1
        job.error = type(error).__name__
        log.exception("job %s failed; consecutive failures: %d", job.name, job.failures_in_a_row)
    else:
        job.failures_in_a_row, job.error = 0, None
