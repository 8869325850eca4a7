"""Whether the database answers, as this process last saw it."""

import asyncio
import logging
from contextlib import suppress
from typing import Self

from sqlalchemy import text

from app.base.db.engine import connect, is_unreachable

log = logging.getLogger("aftermath.db")

PROBE_SECONDS = 1.0  # how often a database that is down is probed
HANGS_SECONDS = 2.0  # a server that takes longer to answer a probe is down too
PROBE_AT_MOST_SECONDS = 20.0  # of several hosts some may not answer at all


class DatabaseDown(ConnectionError):
    """The database is known to be down; it was not tried again."""


class DatabaseMonitor:
    """Whether the database answers and can be written to, as this process last saw it.
    `async with DatabaseMonitor(url) as monitor:`

    Code that fails to reach the database reports it here, and all others rely on that until a probe succeeds. A probe
    opens its own connection: a pool that is busy with slow queries does not mean that the database is down.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._down = asyncio.Event()
        self._check_wanted = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watch = asyncio.create_task(self._watch_for_ever(), name="database monitor")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch

    @property
    def task(self) -> asyncio.Task[None]:
        """Runs until the block ends. Without it nothing notices that the database goes down, or is up again."""
        assert self._watch is not None, "within the block"
        return self._watch

    @property
    def is_down(self) -> bool:
        return self._down.is_set()

    def mark_down(self) -> None:
        """A connection broke or was refused: the database is down until a probe succeeds."""
        if not self.is_down:
            log.warning("the database does not answer")
        self._down.set()
        self._check_wanted.set()

    def check_soon(self) -> None:
        """Something took too long: the database is down only if a probe fails."""
        self._check_wanted.set()

    async def until_down(self) -> None:
        await self._down.wait()

    async def _watch_for_ever(self) -> None:
        while True:
            await self._check_wanted.wait()
            while not await self._probed():
                self.mark_down()
                await asyncio.sleep(PROBE_SECONDS)
            self._check_wanted.clear()
            if self.is_down:
                log.warning("the database answers again")
                self._down.clear()

    async def _probed(self) -> bool:
        probe = asyncio.create_task(self._answers(), name="probe")
        try:
            await asyncio.wait({probe}, timeout=HANGS_SECONDS)
            if not probe.done():
                self.mark_down()
            return await probe
        finally:
            probe.cancel()

    async def _answers(self) -> bool:
        engine = connect(self._url, pool_size=1)
        try:
            async with asyncio.timeout(PROBE_AT_MOST_SECONDS), engine.connect() as connection:
                # A standby answers too, but takes nothing.
                read_only = (await connection.execute(text("SHOW transaction_read_only"))).scalar_one()
                return str(read_only) == "off"
        except Exception as error:
            if not is_unreachable(error):
                log.exception("the database cannot be probed")
            return False
        finally:
            await engine.dispose()
