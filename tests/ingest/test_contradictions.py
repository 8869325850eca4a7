"""Which reports of one source contradict each other, purely."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle

import pytest

from app.incidents.grouping.signal import Signal, Status
from app.ingest.intake.contradictions import Contradictions

A, B = "https://tenant-a.example", "https://tenant-b.example"
TEN = datetime(2026, 8, 20, 10, tzinfo=UTC)


def at(minute: float) -> datetime:
    return TEN + timedelta(minutes=minute)


def firing(since: float, fingerprint: str = "f") -> Signal:
    return Signal(fingerprint, Status.FIRING, at(since))


def resolved(since: float, until: float, fingerprint: str = "f") -> Signal:
    return Signal(fingerprint, Status.RESOLVED, at(since), at(until))


Reports = Sequence[tuple[str | None, Signal, float]]  # sender, signal, minute of arrival


def contradictions(reports: Reports, **how: int) -> list[str]:
    seen = Contradictions(**how)
    return [found for sender, signal, minute in reports for found in seen.in_delivery(1, sender, [signal], at(minute))]


@pytest.mark.parametrize(
    "reports",
    [
        [(A, firing(0), 0), (B, firing(10), 10), (A, resolved(0, 20), 20)],
        [(B, firing(10), 10), (A, resolved(0, 20), 20)],
        [(B, firing(0), 10), (A, resolved(5, 20), 20)],
        [(A, resolved(0, 20), 20), (B, firing(10), 20)],
        [(A, firing(0), 0), (B, resolved(0, 20), 20), (A, firing(0), 30)],
    ],
    ids=["A ends B's", "A's firing unseen", "the later one ends", "B goes on firing", "the same start, much later"],
)
def test_another_sender_with_the_opposite_state_contradicts(reports: Reports) -> None:
    assert contradictions(reports) == [f"{A} and {B}"]


@pytest.mark.parametrize(
    "reports",
    [
        [(A, firing(0), 0), (B, firing(0), 5), (B, resolved(0, 20), 20), (A, resolved(0, 20), 21)],
        [(A, firing(0), 0), (B, resolved(0, 20), 20), (A, firing(0), 20.5)],
        [(A, firing(0), 0), (B, resolved(0, 20), 20), (A, firing(25), 25), (B, resolved(25, 30), 30)],
        [(A, firing(0), 0), (B, firing(1), 1), (A, resolved(0, 20), 20)],
        [(A, firing(25), 25), (B, resolved(0, 20), 26)],
        [(A, firing(0), 0), (A, resolved(0, 20), 20), (A, firing(0), 60)],
        [(A, firing(0), 0), (A, firing(30), 30), (A, firing(0), 31), (A, resolved(30, 40), 40)],
    ],
    ids=[
        "peers take turns",
        "a slow peer",
        "the alert fires again",
        "replicas evaluate a minute apart",
        "a late retry of the episode before",
        "one sender corrects itself",
        "one late retry of one sender",
    ],
)
def test_peers_of_one_cluster_do_not_contradict_each_other(reports: Reports) -> None:
    assert contradictions(reports) == []


@pytest.mark.parametrize("sender", [A, None])
def test_senders_with_one_address_contradict_each_other_by_taking_turns(sender: str | None) -> None:
    turns = [(sender, firing(start), minute) for start, minute in zip(cycle([0, 10]), range(20, 26), strict=False)]
    assert contradictions(turns) == [sender or "?"] * 3


def test_sources_and_alerts_are_distinguished() -> None:
    seen = Contradictions()
    seen.in_delivery(1, B, [firing(10), firing(10, "g")], at(10))
    assert seen.in_delivery(2, A, [resolved(0, 20)], at(20)) == []
    assert seen.in_delivery(1, A, [resolved(0, 20, "h"), resolved(0, 20)], at(20)) == [f"{A} and {B}"]


def test_memory_is_bounded() -> None:
    seen = Contradictions(remembered=10)
    for number in range(1000):
        seen.in_delivery(1, A, [firing(0, str(number))], at(0))
    assert len(seen._latest) + len(seen._earlier) <= 20
    assert seen.in_delivery(1, B, [resolved(-10, 5, "999")], at(5)) == [f"{A} and {B}"]
