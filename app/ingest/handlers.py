"""How other areas take the facts of a delivery that are not alerts, in the transaction of the delivery."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.facts import Acknowledgement, Report


class HandleReport(Protocol):
    """Stores a report of a deployment: the id of the deployment, and a verdict such as `recorded` or `repeated`."""

    async def __call__(self, tx: AsyncConnection, new: Report, *, source_id: int, now: datetime) -> tuple[str, str]: ...


class HandleAcknowledgements(Protocol):
    """Stores acknowledgements, and applies them once their incident exists."""

    async def __call__(
        self, tx: AsyncConnection, new: Sequence[Acknowledgement], *, source_id: int, now: datetime
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Handlers:
    """One for each kind of fact."""

    deployments: HandleReport
    acknowledgements: HandleAcknowledgements
