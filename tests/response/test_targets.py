"""Whether an incident met what was agreed on when it was detected."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.incidents.grouping.signal import AlertClass, EndReason
from app.incidents.measures.measures import Facts
from app.response.targets import Agreements, Judged, Target, TargetOutcome, Verdict, judge

START = datetime(2026, 8, 20, 10, tzinfo=UTC)
LONG_AGO = START - timedelta(days=100)
RECOVERED = EndReason.RECOVERED
MET, MISSED, PENDING, CANNOT_TELL = (
    TargetOutcome.MET,
    TargetOutcome.MISSED,
    TargetOutcome.PENDING,
    TargetOutcome.CANNOT_TELL,
)
AGREED = Target("", 1, LONG_AGO, acknowledge_seconds=300, update_seconds=1800, resolve_seconds=3600)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def facts(**values: Any) -> Facts:
    return replace(Facts(START, "web", 1), **values)


def judged(what: Judged, *, now: datetime, updates: list[datetime] | None = None, **values: Any) -> Verdict:
    return judge(facts(**values), AGREED, updates or [], now=now)[what]


@pytest.mark.parametrize(
    ("values", "now", "outcome", "seconds"),
    [
        ({"acknowledged_at": at(5)}, at(9), MET, 300),
        ({"acknowledged_at": at(6)}, at(9), MISSED, 360),
        ({"acknowledged_at": at(-1)}, at(9), CANNOT_TELL, None),
        ({}, at(4), PENDING, 240),
        ({}, at(6), MISSED, 360),
        ({}, at(-6), PENDING, 0),
        ({"ended_at": at(4), "end_reason": RECOVERED}, at(99), CANNOT_TELL, None),
        ({"ended_at": at(6), "end_reason": RECOVERED}, at(99), MISSED, None),
        ({"ended_at": at(6), "end_reason": EndReason.TIMEOUT}, at(99), MISSED, None),
        ({"ended_at": at(6), "end_reason": EndReason.ENDS_BEFORE_START}, at(99), CANNOT_TELL, None),
        ({"acknowledged_at": at(5), "alert_class": AlertClass.MONITORING}, at(9), CANNOT_TELL, None),
        ({"acknowledged_at": at(5), "merged": True}, at(9), CANNOT_TELL, None),
    ],
)
def test_acknowledgement(values: dict[str, Any], now: datetime, outcome: TargetOutcome, seconds: float | None) -> None:
    assert judged(Judged.ACKNOWLEDGE, now=now, **values) == Verdict(300, outcome, seconds)


@pytest.mark.parametrize(
    ("values", "now", "outcome", "seconds"),
    [
        ({"ended_at": at(60), "end_reason": RECOVERED}, at(99), MET, 3600),
        ({"ended_at": at(61), "end_reason": RECOVERED}, at(99), MISSED, 3660),
        ({"ended_at": at(61), "end_reason": EndReason.MANUAL}, at(99), MISSED, 3660),
        ({"ended_at": at(60), "end_reason": RECOVERED, "impact_started_at": at(-60)}, at(99), MET, 3600),
        ({"ended_at": at(60), "end_reason": RECOVERED, "detected_at_stated": at(-1)}, at(99), MISSED, 3660),
        ({"ended_at": at(99), "end_reason": EndReason.MISSING_SERIES}, at(99), CANNOT_TELL, None),
        ({"ended_at": at(59), "end_reason": EndReason.SUPERSEDED}, at(99), CANNOT_TELL, None),
        ({"ended_at": at(61), "end_reason": EndReason.SUPERSEDED}, at(99), MISSED, None),
        ({}, at(59), PENDING, 3540),
        ({}, at(61), MISSED, 3660),
    ],
)
def test_recovery(values: dict[str, Any], now: datetime, outcome: TargetOutcome, seconds: float | None) -> None:
    assert judged(Judged.RESOLVE, now=now, **values) == Verdict(3600, outcome, seconds)


@pytest.mark.parametrize(
    ("updates", "values", "now", "outcome", "seconds"),
    [
        ([], {"ended_at": at(29), "end_reason": RECOVERED}, at(99), MET, 1740),
        ([], {"ended_at": at(31), "end_reason": RECOVERED}, at(99), MISSED, 1860),
        ([at(20), at(50)], {"ended_at": at(60), "end_reason": RECOVERED}, at(99), MET, 1800),
        ([at(50), at(15)], {"ended_at": at(60), "end_reason": RECOVERED}, at(99), MISSED, 2100),
        ([at(-5), at(70)], {"ended_at": at(60), "end_reason": RECOVERED}, at(99), MISSED, 3600),
        ([at(20)], {}, at(50), PENDING, 1800),
        ([at(20)], {}, at(51), MISSED, 1860),
    ],
)
def test_updates(
    updates: list[datetime], values: dict[str, Any], now: datetime, outcome: TargetOutcome, seconds: float
) -> None:
    assert judged(Judged.UPDATE, now=now, updates=updates, **values) == Verdict(1800, outcome, seconds)


def test_without_a_target_nothing_is_agreed() -> None:
    nothing = Verdict(None, TargetOutcome.NOT_AGREED)
    assert set(judge(facts(), None, [], now=at(5)).values()) == {nothing}
    only_update = Target("", 1, LONG_AGO, update_seconds=1800)
    found = judge(facts(), only_update, [], now=at(5))
    assert (found[Judged.ACKNOWLEDGE], found[Judged.UPDATE].outcome) == (nothing, PENDING)


def test_another_clock_can_measure() -> None:
    found = judge(facts(acknowledged_at=at(50)), AGREED, [], now=at(99), elapsed=lambda a, b: (b - a).seconds / 10)
    assert found[Judged.ACKNOWLEDGE] == Verdict(300, MET, 300)


def test_the_target_in_force_at_detection_counts() -> None:
    before, after = Target("", 1, LONG_AGO, acknowledge_seconds=1), Target("", 1, at(0), acknowledge_seconds=2)
    own = Target("web", 1, at(60), acknowledge_seconds=3)
    other = Target("", 2, LONG_AGO, acknowledge_seconds=4)
    agreements = Agreements([own, after, other, before])

    def agreed(**values: Any) -> int | None:
        found = agreements.of(facts(**values))
        return found.acknowledge_seconds if found else None

    assert agreed(began_at=at(-1)) == 1
    assert agreed(began_at=at(0)) == 2
    assert agreed(began_at=at(0), detected_at_stated=at(-1)) == 1
    assert agreed(began_at=at(60)) == 3
    assert agreed(began_at=at(60), service_stated="search") == 2
    assert agreed(began_at=at(60), severity_stated=2) == 4
    assert agreed(began_at=at(60), severity=3) is None
    assert agreed(began_at=LONG_AGO - timedelta(days=1)) is None
