"""Background jobs: work that is repeated while the service runs, and whose state health can ask for."""

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
    """The state of one job. `error` is the class of the error that ended its latest round, None if that succeeded."""

    name: str
    failures_in_a_row: int = 0
    error: str | None = None
    ended: bool = False


class Jobs:
    """`async with Jobs() as jobs: jobs.every(10, "settle", work)`; leaving the block cancels all jobs.

    A round that fails is logged, and the next one follows after the usual pause. While the database is unreachable a
    round ends early and quietly, because the database monitor has already logged it.
    """

    def __init__(self) -> None:
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
        """Starts a job: a pause of `seconds`, then `work`, again and again; with `at_once` the work comes first.

        `expected` maps SQLSTATEs to log messages: such a failure is part of normal operation, logged as information.
        """
        job = Job(name)
        task = asyncio.create_task(_repeat(job, seconds, work, expected, at_once=at_once), name=name)
        self._tasks.append(task)
        self._watch(job, task)

    def watch(self, *tasks: asyncio.Task[None]) -> None:
        """Watches tasks of other components. They have ended, like a job, if they end before this block does."""
        for task in tasks:
            self._watch(Job(task.get_name()), task)

    @property
    def ended(self) -> Sequence[str]:
        """Names of jobs that have stopped although the service runs. Only a restart brings them back."""
        return [job.name for job in self._jobs.values() if job.ended]

    @property
    def failing(self) -> Sequence[Job]:
        """Jobs whose latest round failed, for another reason than an unreachable database."""
        return [job for job in self._jobs.values() if job.error]

    def _watch(self, job: Job, task: asyncio.Task[None]) -> None:
        assert job.name not in self._jobs, f"there are two jobs named {job.name}"
        self._jobs[job.name] = job

        def done(task: asyncio.Task[None]) -> None:
            if not self._closing:
                job.ended = True
                error = None if task.cancelled() else task.exception()
                log.critical("%s has stopped; restart this process", job.name, exc_info=error)

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
        job.failures_in_a_row += 1
        job.error = type(error).__name__
        log.exception("%s failed, %d times in a row", job.name, job.failures_in_a_row)
    else:
        job.failures_in_a_row, job.error = 0, None
