"""Monitors whether the database responds."""

import asyncio
import logging
from contextlib import suppress
from typing import Self

from sqlalchemy import text

from app.base.db.engine import connect, is_unreachable

log = logging.getLogger("aftermath.db")

PROBE_SECONDS = 1.0  # interval between probes while the database is down
HANGS_SECONDS = 2.0  # a database that takes longer to answer a probe counts as down
PROBE_AT_MOST_SECONDS = 20.0  # time limit for a probe of all hosts, some of which may not answer


class DatabaseDown(ConnectionError):
    """The database is known to be down, so it was not tried again."""


class DatabaseMonitor:
    """Whether the database responds and is writable, as last seen by this process.
    `async with DatabaseMonitor(url) as monitor:`

    Code that cannot reach the database reports it here; all other code relies on that until a probe succeeds. Probes
    open their own connection, because a pool that is busy with slow queries does not mean that the database is down.
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
        """Runs until the block ends. If it stops, outages and recoveries of the database are no longer noticed."""
        assert self._watch is not None, "within the block"
        return self._watch

    @property
    def is_down(self) -> bool:
        return self._down.is_set()

    def mark_down(self) -> None:
        """Reports a broken or refused connection: the database counts as down until a probe succeeds."""
        if not self.is_down:
            log.warning("the database is not responding")
        self._down.set()
        self._check_wanted.set()

    def check_soon(self) -> None:
        """Reports a slow operation: the database counts as down only if a probe fails."""
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
                log.warning("the database is responding again")
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
                # A standby also responds, but is not writable.
                read_only = (await connection.execute(text("SHOW transaction_read_only"))).scalar_one()
                return str(read_only) == "off"
        except Exception as error:
            if not is_unreachable(error):
                log.exception("unexpected error while probing the database")
            return False
        finally:
            await engine.dispose()
