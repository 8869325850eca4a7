"""What reviews show about the response to their incidents; `main` passes the function that reads it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Incident
from app.incidents.agreement import AgreementOutcome

OutcomesOf = Callable[[AsyncSession, Sequence[Incident], datetime], Awaitable[Mapping[UUID, AgreementOutcome]]]


@dataclass(frozen=True, slots=True)
class Responses:
    """`outcomes_of` reads whether these incidents kept to what was agreed on about them."""

    outcomes_of: OutcomesOf
