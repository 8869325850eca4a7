"""Repeats transactions that conflict with others."""

import asyncio
import random
from typing import Protocol, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.errors import Overloaded
from app.incidents.grouping.write import BatchConflict

ATTEMPTS = 10
PAUSE_SECONDS = 0.01  # at most, before the second attempt; it doubles with each, about five seconds in total

T_co = TypeVar("T_co", covariant=True)


class KeepsChanging(Overloaded):
    """The same alerts keep changing under a batch. The database is well, so the sender should simply try again."""

    def __init__(self) -> None:
        super().__init__("other deliveries keep changing the same alerts; retry later")


class _Work(Protocol[T_co]):
    async def __call__(self, also_lock: frozenset[UUID], /, *, again: bool) -> T_co: ...


async def in_savepoint(tx: AsyncConnection, work: _Work[T_co]) -> T_co:
    """Repeats the batch after a BatchConflict. Raises KeepsChanging."""
    also_lock: frozenset[UUID] = frozenset()
    for attempt in range(ATTEMPTS):
        try:
            async with tx.begin_nested():
                return await work(also_lock, again=attempt > 0)
        except BatchConflict as conflict:
            also_lock |= conflict.keys
    raise KeepsChanging


async def pause_before(attempt: int) -> None:
    """Waits a random time, so that transactions that conflicted do not meet again."""
    if attempt:
        await asyncio.sleep(random.uniform(0, PAUSE_SECONDS * 2 ** (attempt - 1)))  # noqa: S311  not a secret
