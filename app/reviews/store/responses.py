"""What reviews show about the response to their incidents; `main` passes the function that reads it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Incident
from app.incidents.agreement import Kept

KeptOf = Callable[[AsyncSession, Sequence[Incident], datetime], Awaitable[Mapping[UUID, Kept]]]


@dataclass(frozen=True, slots=True)
class Responses:
    """`kept_of` reads what became of what was agreed on about each of these incidents."""

    kept_of: KeptOf
