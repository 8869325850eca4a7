"""Types of the functions with which other areas store a delivery's deployments, changes and reactions.

They run in the transaction of the delivery. `app/main.py` passes the functions, because ingest may not import those
areas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.facts import Change, Reaction, Report


class HandleReport(Protocol):
    """Stores a report. Returns the key of its deployment, and a verdict such as `recorded` or `repeated`."""

    async def __call__(self, tx: AsyncConnection, new: Report, *, source_id: int, now: datetime) -> tuple[str, str]: ...


class HandleChange(Protocol):
    """Stores a change. Returns its key, and a verdict such as `recorded` or `repeated`."""

    async def __call__(self, tx: AsyncConnection, new: Change, *, source_id: int, now: datetime) -> tuple[str, str]: ...


class HandleReactions(Protocol):
    """Stores reactions of people, and places them once their incident exists."""

    async def __call__(
        self, tx: AsyncConnection, new: Sequence[Reaction], *, source_id: int, now: datetime
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Handlers:
    """One for each kind of fact."""

    deployments: HandleReport
    changes: HandleChange
    reactions: HandleReactions
