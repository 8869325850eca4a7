"""Who holds which role, as a pure function of facts recorded in any order."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from app.base.values.times import Span
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.fact import Fact
from app.response.roles import (
    HELD_BY_MANY,
    Holding,
    Participant,
    SinglePoint,
    delegates_of,
    first_alerted,
    first_responder,
    handovers,
    holders,
    holdings,
    participants,
    single_points_of_failure,
    suggested,
)

START = datetime(2026, 8, 20, 10, tzinfo=UTC)


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


def role(minutes: int, name: str, person: str, *, holds: bool = True, entry: int = 0) -> Fact:
    detail = {"role": name, "person": person, "holds": holds}
    return Fact(entry or minutes, at(minutes), TimelineKind.ROLE, detail=detail)


def fact(minutes: int, kind: TimelineKind, by: str | None = None, **detail: Any) -> Fact:
    return Fact(minutes, at(minutes), kind, by, detail=detail or None)


def test_taking_a_role_ends_the_holding_of_the_one_before() -> None:
    facts = [role(1, "commander", "ada"), role(5, "commander", "ben"), role(9, "commander", "ben", holds=False)]
    found = holdings(facts)
    assert found == [
        Holding("commander", "ada", at(1), at(5)),
        Holding("commander", "ben", at(5), at(9)),
    ]
    assert (holders(found, "commander"), handovers(found)) == ([], 1)


def test_many_people_respond_at_a_time() -> None:
    facts = [role(1, "responder", "ada"), role(2, "responder", "ben"), role(3, "responder", "ada", holds=False)]
    found = holdings(facts)
    assert found == [Holding("responder", "ada", at(1), at(3)), Holding("responder", "ben", at(2))]
    assert (holders(found, "responder"), handovers(found)) == (["ben"], 0)


def test_a_role_that_nobody_held_in_between_was_not_handed_over() -> None:
    facts = [role(1, "scribe", "ada"), role(2, "scribe", "ada", holds=False), role(3, "scribe", "ben")]
    assert handovers(holdings(facts)) == 0


def test_laying_down_what_one_does_not_hold_changes_nothing() -> None:
    facts = [role(1, "commander", "ada"), role(2, "commander", "ben", holds=False), role(3, "commander", "ada")]
    assert holdings(facts) == [Holding("commander", "ada", at(1))]


_facts = st.lists(
    st.builds(
        role,
        st.integers(1, 10**6),
        st.sampled_from(["commander", "scribe", "responder"]),
        st.sampled_from(["ada", "ben", "cy"]),
        holds=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda each: each.at,
)


@given(_facts, st.randoms(use_true_random=False))
@example([role(1, "commander", "ada"), role(2, "commander", "ben"), role(3, "commander", "ada")], None)
def test_any_order_of_recording_gives_the_same_history(facts: list[Fact], random: Any) -> None:
    shuffled = [*facts]
    if random is not None:
        random.shuffle(shuffled)
    recorded = [Fact(entry, each.at, each.kind, detail=each.detail) for entry, each in enumerate(shuffled, 1)]
    assert holdings(recorded) == holdings(facts)


@given(_facts)
def test_one_person_at_a_time_holds_a_role_that_is_not_held_by_many(facts: list[Fact]) -> None:
    found = holdings(facts)
    keys = {(each.role, each.person if each.role in HELD_BY_MANY else None) for each in found}
    for name, person in keys:
        of_role = [each for each in found if each.role == name and person in {None, each.person}]
        for before, after in pairwise(of_role):
            assert before.ends_at is not None
            assert before.begins_at < before.ends_at <= after.begins_at


# — who is there —


def test_people_are_seen_when_they_first_join_or_act() -> None:
    facts = [
        fact(4, TimelineKind.JOINED, "ada", person="ben", how="asked"),
        fact(2, TimelineKind.TASK, "ben", effect="none"),
        fact(1, TimelineKind.JOINED, "ada", person="cathy", how="alerted"),
        fact(3, TimelineKind.ACKNOWLEDGED, "cathy"),
        role(5, "scribe", "dan"),
        role(6, "scribe", "eve", holds=False),
        fact(7, TimelineKind.TASK, None, effect="none"),
    ]
    assert participants(facts) == [
        Participant("cathy", at(1), "alerted"),
        Participant("ben", at(2), "asked"),
        Participant("dan", at(5), None),
    ]
    assert (first_alerted(facts), first_responder(facts)) == ("cathy", "ben")
    assert (first_alerted([]), first_responder([])) == (None, None)


# — delegates —


NOW = at(0)
DAY = timedelta(days=1)
DELEGATES: dict[tuple[str, str], Sequence[str]] = {
    ("commander", ""): ["ada", "ben", "cy"],
    ("commander", "Payments"): ["dan", "eve"],
    ("scribe", ""): ["ada"],
}


def test_delegates_of_the_owner_come_before_those_of_all() -> None:
    assert delegates_of(DELEGATES, "commander", "Payments") == ["dan", "eve"]
    assert delegates_of(DELEGATES, "commander", "Search") == ["ada", "ben", "cy"]
    assert delegates_of(DELEGATES, "communications", "Search") == ()


def test_the_first_delegate_who_is_neither_away_nor_busy_is_suggested() -> None:
    away = {"ada": [Span(NOW - DAY, NOW + DAY)], "cy": [Span(NOW - DAY, NOW)]}
    assert suggested(["ada", "ben", "cy"], away, set(), now=NOW) == "ben"
    assert suggested(["ada", "ben", "cy"], away, {"ben"}, now=NOW) == "cy"
    assert suggested(["ada", "ben"], away, {"ben"}, now=NOW) is None


def test_a_role_with_fewer_than_two_people_for_the_next_week_is_a_single_point_of_failure() -> None:
    away = {"eve": [Span(NOW + 6 * DAY, NOW + 9 * DAY)], "ben": [Span(NOW + 7 * DAY, NOW + 9 * DAY)]}
    assert single_points_of_failure(DELEGATES, away, now=NOW) == [
        SinglePoint("commander", "Payments", ["dan"]),
        SinglePoint("scribe", "", ["ada"]),
    ]
