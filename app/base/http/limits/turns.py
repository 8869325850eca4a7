"""Limits how many expensive requests compute at once, so that they neither delay cheap ones nor fill the memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, Request

from app.base.errors import Overloaded
from app.base.http.access.auth import Reader
from app.base.http.context import context_of

WAIT_SECONDS = 10.0


class Turns:
    """Holds no connection to the database while a request waits: cheap requests use the same few connections."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._free = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Raises Overloaded after ten seconds of waiting."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            message = (
                f"{self._at_once} large requests are being computed (AFTERMATH_CONCURRENT_QUERIES); retry later, send "
                "one request at a time, or ask for shorter periods"
            )
            raise Overloaded(message) from None
        try:
            yield
        finally:
            self._free.release()


async def _turn(request: Request, _: Reader) -> AsyncIterator[None]:
    async with context_of(request).part(Turns).one():
        yield


# For routers: comes after the check of the token and before everything else. It ends before the response is sent, so
# that a slow client takes no turn from others.
IN_TURN = Depends(_turn, scope="function")
