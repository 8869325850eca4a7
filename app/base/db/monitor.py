"""Whether the database answers, as this process last saw it."""

import asyncio
import logging
from contextlib import suppress
from typing import Self

from sqlalchemy import text

from app.base.db.engine import connect, is_unreachable

log = logging.getLogger("aftermath.db")

PROBE_SECONDS = 1.0  # how often a database that is away is asked for
HANGS_SECONDS = 2.0  # a server that takes longer to answer a probe is away too
PROBE_AT_MOST_SECONDS = 20.0  # of several hosts some may say nothing at all


class Away(ConnectionError):
    """The database is known to be away; nobody waited to learn it again."""


class Reach:
    """Whether the database answers and can be written to, as this process last saw it. `async with Reach(url):`

    Who fails to reach it says so, and everybody goes by it until a probe of our own succeeds. Probes have a connection
    of their own: a pool that is busy with slow questions is no database that is away.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lost = asyncio.Event()
        self._suspected = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watch = asyncio.create_task(self._watch_for_ever(), name="reach")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch

    @property
    def away(self) -> bool:
        return self._lost.is_set()

    def lost(self) -> None:
        """A connection broke or was refused: away, until a probe succeeds."""
        if not self.away:
            log.warning("the database does not answer")
        self._lost.set()
        self._suspected.set()

    def suspect(self) -> None:
        """Something took too long: away only if a probe fails."""
        self._suspected.set()

    async def until_lost(self) -> None:
        await self._lost.wait()

    async def _watch_for_ever(self) -> None:
        while True:
            await self._suspected.wait()
            while not await self._probed():
                self.lost()
                await asyncio.sleep(PROBE_SECONDS)
            self._suspected.clear()
            if self.away:
                log.warning("the database answers again")
                self._lost.clear()

    async def _probed(self) -> bool:
        probe = asyncio.create_task(self._answers(), name="probe")
        try:
            await asyncio.wait({probe}, timeout=HANGS_SECONDS)
            if not probe.done():
                self.lost()
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
