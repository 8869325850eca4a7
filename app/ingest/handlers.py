"""Types of the functions with which other areas store a delivery's deployments and acknowledgements.

They run in the transaction of the delivery. `app/main.py` passes the functions, because ingest may not import those
areas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.facts import Acknowledgement, Report


class HandleReport(Protocol):
    """Stores a report. Returns the id of its deployment, and a verdict such as `recorded` or `repeated`."""

    async def __call__(self, tx: AsyncConnection, new: Report, *, source_id: int, now: datetime) -> tuple[str, str]: ...


class HandleAcknowledgements(Protocol):
    """Stores acknowledgements, and places them once their incident exists."""

    async def __call__(
        self, tx: AsyncConnection, new: Sequence[Acknowledgement], *, source_id: int, now: datetime
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Handlers:
    """One for each kind of fact."""

    deployments: HandleReport
    acknowledgements: HandleAcknowledgements
