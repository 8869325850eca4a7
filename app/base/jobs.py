"""Background jobs: each repeats one piece of work while the service runs; health can ask how it is doing."""

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
    """How one job is doing. `error` is the class of the error that ended its latest round, None if it went well."""

    name: str
    rounds: int = 0
    failures_in_a_row: int = 0
    error: str | None = None
    ended: bool = False


class Jobs:
    """`async with Jobs() as jobs: jobs.every(10, "settle", work)`; leaving the block cancels all of them.

    A round that fails is logged and the next one comes after the usual pause. While the database is unreachable a
    round ends early and quietly, because the database monitor has already logged it.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
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
        job = self._jobs[name] = Job(name)
        task = asyncio.create_task(self._repeat(job, seconds, work, at_once, expected), name=name)
        task.add_done_callback(lambda _: setattr(job, "ended", True))
        self._tasks.append(task)

    @property
    def ended(self) -> Sequence[str]:
        """Jobs that have stopped although the service runs. Only a restart brings them back."""
        return [job.name for job in self._jobs.values() if job.ended]

    @property
    def failing(self) -> Sequence[Job]:
        """Jobs whose latest round failed, for another reason than an unreachable database."""
        return [job for job in self._jobs.values() if job.error]

    async def _repeat(
        self,
        job: Job,
        seconds: float,
        work: Work,
        at_once: bool,  # noqa: FBT001
        expected: Mapping[str, str],
    ) -> None:
        if not at_once:
            await asyncio.sleep(seconds)
        while True:
            await _run_round(job, work, expected)
            await asyncio.sleep(seconds)


async def _run_round(job: Job, work: Work, expected: Mapping[str, str]) -> None:
    job.rounds += 1
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
