"""When an update to stakeholders is due."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.fact import Fact
from app.response.updates import Updates, cadence, updates_of

START = datetime(2026, 8, 20, 10, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


def update(minutes: int, audience: str = "stakeholders", next_at: int | None = None) -> Fact:
    promised = None if next_at is None else at(next_at).isoformat()
    return Fact(minutes, at(minutes), TimelineKind.UPDATE, detail={"audience": audience, "next_at": promised})


@pytest.mark.parametrize(
    ("of_type", "of_target", "severity", "expected"),
    [
        (600, 900, 1, timedelta(minutes=10)),
        (None, 900, 1, timedelta(minutes=15)),
        (None, None, 1, HALF_HOUR),
        (None, None, 2, HALF_HOUR),
        (None, None, 3, None),
        (None, 900, 5, timedelta(minutes=15)),
    ],
)
def test_the_cadence_is_that_of_the_type_else_the_target_else_the_usual_one(
    of_type: int | None, of_target: int | None, severity: int, expected: timedelta | None
) -> None:
    assert cadence(of_type, of_target, severity) == expected


def test_the_first_update_is_due_one_cadence_after_detection() -> None:
    found = updates_of([], HALF_HOUR, detected_at=START, ended_at=None, now=at(40))
    assert found == Updates(HALF_HOUR, None, at(30), timedelta(minutes=10), timedelta(minutes=40))


def test_each_update_moves_the_next_one() -> None:
    facts = [update(20), update(50)]
    found = updates_of(facts, HALF_HOUR, detected_at=START, ended_at=None, now=at(60))
    assert found == Updates(HALF_HOUR, at(50), at(80), timedelta(), HALF_HOUR)


def test_a_promised_time_replaces_the_cadence() -> None:
    for cadence_, promised in ((HALF_HOUR, 200), (HALF_HOUR, 25), (None, 60)):
        found = updates_of([update(20, next_at=promised)], cadence_, detected_at=START, ended_at=None, now=at(70))
        assert found.next_due_at == at(promised)
        assert found.overdue == max(timedelta(), at(70) - at(promised))
    found = updates_of([update(20, next_at=200), update(30)], HALF_HOUR, detected_at=START, ended_at=None, now=at(31))
    assert found.next_due_at == at(60), "the last update promised nothing"


def test_updates_to_responders_do_not_count() -> None:
    found = updates_of([update(20, "responders")], HALF_HOUR, detected_at=START, ended_at=None, now=at(25))
    assert (found.last_at, found.next_due_at) == (None, at(30))


def test_nothing_is_due_after_the_end() -> None:
    facts = [update(20, next_at=500)]
    found = updates_of(facts, HALF_HOUR, detected_at=START, ended_at=at(60), now=at(600))
    assert found == Updates(HALF_HOUR, at(20), None, timedelta(), timedelta(minutes=40))


@given(st.lists(st.integers(-100, 200), unique=True, max_size=8), st.randoms(use_true_random=False))
def test_any_order_of_recording_gives_the_same(minutes: list[int], random: object) -> None:
    shuffled = [*minutes]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    facts = [
        Fact(entry, at(one), TimelineKind.UPDATE, detail={"audience": "stakeholders", "next_at": None})
        for entry, one in enumerate(shuffled)
    ]
    found = updates_of(facts, HALF_HOUR, detected_at=START, ended_at=at(100), now=at(300))
    ordered = updates_of([update(one) for one in minutes], HALF_HOUR, detected_at=START, ended_at=at(100), now=at(300))
    assert found == ordered
    assert timedelta() <= found.longest_gap <= timedelta(minutes=100)
