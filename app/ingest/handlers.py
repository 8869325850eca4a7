"""Types of the functions with which other areas store a delivery's deployments, changes, reactions and issues.

They run in the transaction of the delivery. `app/main.py` passes the functions, because ingest may not import those
areas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.values.facts import Change, IssueEvent, Reaction, Report


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


class HandleIssue(Protocol):
    """Stores the state of an issue. Returns the number of its action item if there is one, and a verdict: `recorded`,
    `repeated` (nothing new, or older than what is known), or `waiting` for an action item with its link.
    """

    async def __call__(self, tx: AsyncConnection, new: IssueEvent, *, now: datetime) -> tuple[str | None, str]: ...


@dataclass(frozen=True, slots=True)
class Handlers:
    """One for each kind of fact."""

    deployments: HandleReport
    changes: HandleChange
    reactions: HandleReactions
    issues: HandleIssue
