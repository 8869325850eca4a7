"""What a team has agreed on about an incident and its review, and the outcome. Pure.

`app/response` derives it from types and targets, and `app/reviews` acts on it; `app/main.py` connects the two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.incidents.measures.business_hours import BusinessHours


@dataclass(frozen=True, slots=True)
class Agreement:
    """`by_type` and `by_target`: whether the incident's type, and the target of its severity, require a review; None if
    they leave it open. It is due `due_after` the end of the incident, in the business `hours`; None: Monday to Friday.
    """

    by_type: bool | None = None
    by_target: bool | None = None
    due_after: timedelta | None = None
    hours: BusinessHours | None = None


NO_AGREEMENT = Agreement()


@dataclass(frozen=True, slots=True)
class AgreementOutcome:
    """The outcome of each target by its name, and the exit criteria that are not met."""

    targets: Mapping[str, str]
    open_criteria: Sequence[str]
