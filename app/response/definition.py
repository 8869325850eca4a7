"""A reading of what an incident is: it affects customers, was not planned, and lasts for more than an hour.

Pure: no clock, no I/O, no settings. Teams disagree about this definition, so it filters nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.incidents.definitions.shares import Share, share
from app.incidents.measures.measures import Facts, began, measures

LONG_SECONDS = 3600


class Met(StrEnum):
    MET = "met"
    NOT_MET = "not_met"
    NOT_YET = "not_yet"


class Similar(StrEnum):
    """What makes incidents similar."""

    KEY = "key"  # those of its grouping key
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class SimilarLastedLonger:
    """How many similar incidents lasted for more than an hour. It informs, and decides nothing."""

    of: Similar
    share: Share


def similar_lasted_longer(of_key: tuple[int, int], of_service: tuple[int, int]) -> SimilarLastedLonger:
    """The share of the same key if there are enough incidents, else of the service. Each pair is how many lasted
    longer, and how many there are.
    """
    same_key = share(*of_key)
    if same_key.value is not None:
        return SimilarLastedLonger(Similar.KEY, same_key)
    return SimilarLastedLonger(Similar.SERVICE, share(*of_service))


@dataclass(frozen=True, slots=True)
class Definition:
    """`beyond_an_hour` is None while it is not known."""

    affects_customers: bool
    unplanned: bool
    beyond_an_hour: bool | None

    @property
    def met(self) -> Met:
        parts = (self.affects_customers, self.unplanned, self.beyond_an_hour)
        if False in parts:
            return Met.NOT_MET
        return Met.NOT_YET if None in parts else Met.MET


def beyond_an_hour(facts: Facts, expected_to_last: bool | None, *, now: datetime) -> bool | None:  # noqa: FBT001
    """Whether it lasted longer than an hour; for a younger open one, whether a person expects that."""
    if facts.ended_at is None:
        return True if (now - began(facts)).total_seconds() > LONG_SECONDS else expected_to_last
    recovery = measures(facts, include_non_recoveries=True)["time_to_recover"]
    return None if recovery.seconds is None else recovery.seconds > LONG_SECONDS
