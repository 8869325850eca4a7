"""What follows from the updates of public incidents, and what the incidents of services suggest."""

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.status_page.component import OpenIncident, Status, propose, summary
from app.status_page.public_incident import (
    PublicIncident,
    PublicStage,
    Spell,
    ended,
    next_update_due,
    spells,
    stage,
    status_of,
    statuses,
)
from tests.status_page.builders import (
    DEGRADED,
    MAINTENANCE,
    MAJOR,
    OPERATIONAL,
    PARTIAL,
    at,
    maintenance,
    problem,
    update,
)

NOW = at("18:00")


def test_a_status_lasts_from_the_beginning_of_the_problem_to_its_end_not_from_update_to_update() -> None:
    """People publish later than a problem begins, and resolve it later than it ends."""
    found = problem(
        update(at("10:12"), "investigating", {"Payments": PARTIAL}),
        update(at("10:30"), "identified", {"Payments": MAJOR}),
        update(at("11:40"), "resolved"),
        begins_at=at("10:00"),
        ends_at=at("11:00"),
    )
    assert spells(found, NOW) == [
        Spell("Payments", at("10:00"), at("10:30"), PARTIAL),
        Spell("Payments", at("10:30"), at("11:00"), MAJOR),
    ]
    assert status_of(found, NOW) == {"Payments": OPERATIONAL}


def test_a_problem_may_come_back() -> None:
    found = problem(
        update(at("10:00"), "investigating", {"Payments": MAJOR}),
        update(at("10:20"), "resolved"),
        update(at("10:50"), "investigating", {"Payments": DEGRADED}),
    )
    assert (stage(found, NOW), ended(found, NOW)) == (PublicStage.INVESTIGATING, None)
    assert spells(found, NOW) == [
        Spell("Payments", at("10:00"), at("10:20"), MAJOR),
        Spell("Payments", at("10:50"), None, DEGRADED),
    ]


def test_a_note_after_the_end_moves_nothing() -> None:
    """What was published about it afterwards, when it ended later than somebody said."""
    found = problem(
        update(at("10:00"), "investigating", {"Payments": MAJOR}),
        update(at("10:20"), "resolved"),
        update(at("15:00"), "resolved", body="What happened."),
        ends_at=at("10:30"),
    )
    assert spells(found, NOW) == [Spell("Payments", at("10:00"), at("10:30"), MAJOR)]


def test_several_problems_at_once_give_a_component_the_worst_status() -> None:
    slow = problem(update(at("10:00"), "investigating", {"Payments": DEGRADED, "Search": DEGRADED}), title="Slow")
    down = problem(update(at("11:00"), "identified", {"Payments": MAJOR}), title="Down")
    over = problem(update(at("09:00"), "investigating", {"Search": MAJOR}), update(at("09:30"), "resolved"), title="X")
    assert statuses([slow, down, over], NOW) == {"Payments": MAJOR, "Search": DEGRADED}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("09:59", (PublicStage.SCHEDULED, {"Website": OPERATIONAL})),
        ("10:00", (PublicStage.IN_PROGRESS, {"Website": MAINTENANCE})),
        ("11:59", (PublicStage.IN_PROGRESS, {"Website": MAINTENANCE})),
        ("12:00", (PublicStage.COMPLETED, {"Website": OPERATIONAL})),
    ],
)
def test_maintenance_begins_and_ends_by_its_schedule(now: str, expected: object) -> None:
    planned = maintenance(at("10:00"), at("12:00"), update(at("08:00"), "scheduled", {"Website": MAINTENANCE}))
    assert (stage(planned, at(now)), status_of(planned, at(now))) == expected


def test_maintenance_that_a_person_began_goes_on_until_a_person_completes_it() -> None:
    published = (update(at("08:00"), "scheduled", {"Website": MAINTENANCE}), update(at("10:05"), "in_progress"))
    running = maintenance(at("10:00"), at("12:00"), *published)
    assert status_of(running, at("13:00")) == {"Website": MAINTENANCE}
    done = maintenance(at("10:00"), at("12:00"), *published, update(at("13:10"), "completed"), ends_at=at("13:10"))
    assert spells(done, NOW) == [Spell("Website", at("10:00"), at("13:10"), MAINTENANCE)]


def test_canceled_maintenance_never_was() -> None:
    canceled = maintenance(
        at("10:00"),
        at("12:00"),
        update(at("08:00"), "scheduled", {"Website": MAINTENANCE}),
        update(at("09:00"), "completed"),
        ends_at=at("10:00"),
    )
    assert (spells(canceled, NOW), stage(canceled, at("10:30"))) == ([], PublicStage.COMPLETED)


def test_while_a_problem_is_young_an_update_is_due_every_twenty_minutes() -> None:
    first = update(at("10:00"), "investigating")
    assert next_update_due(problem(first)) == at("10:20")
    assert next_update_due(problem(first, update(at("11:50"), "identified"))) == at("12:10")
    assert next_update_due(problem(first, update(at("12:00"), "monitoring"))) is None
    assert next_update_due(problem(first, update(at("10:10"), "resolved"))) is None


stages = st.sampled_from(["investigating", "identified", "monitoring", "resolved"])
some_statuses = st.dictionaries(st.sampled_from("AB"), st.sampled_from([*Status]), max_size=2)


@st.composite
def problems(draw: st.DrawFn) -> PublicIncident:
    times = sorted(draw(st.lists(st.integers(0, 900), min_size=1, max_size=6)))
    published = [update(at("02:00") + timedelta(minutes=each), draw(stages), draw(some_statuses)) for each in times]
    begins_at = published[0].at + timedelta(minutes=draw(st.integers(-60, 60)))
    over = published[-1].stage is PublicStage.RESOLVED
    lasted = draw(st.integers(0, 600))
    return problem(
        *published, begins_at=begins_at, ends_at=min(NOW, begins_at + timedelta(minutes=lasted)) if over else None
    )


@given(problems())
def test_spells_lie_within_the_problem_and_never_overlap(found: PublicIncident) -> None:
    over_at = ended(found, NOW)
    for name in "AB":
        mine = [spell for spell in spells(found, NOW) if spell.component == name]
        assert all(spell.start >= found.begins_at and spell.status is not OPERATIONAL for spell in mine)
        assert all(spell.end is not None and spell.start < spell.end for spell in mine[:-1])
        assert all(one.end is not None and one.end <= other.start for one, other in pairwise(mine))
        if over_at is not None:
            assert all(spell.end is not None and spell.end <= max(over_at, found.begins_at) for spell in mine)
            assert status_of(found, NOW).get(name, OPERATIONAL) is OPERATIONAL


# — proposals —


def an_incident(service: str, severity: int, number: int = 1) -> OpenIncident:
    return OpenIncident(number, service, severity, at("10:00"))


@pytest.mark.parametrize(
    ("severities", "expected"),
    [((), OPERATIONAL), ((4, 5), OPERATIONAL), ((3,), DEGRADED), ((3, 2), PARTIAL), ((2, 1, 4), MAJOR)],
)
def test_the_worst_open_incident_of_the_services_is_proposed(severities: tuple[int, ...], expected: Status) -> None:
    running = [an_incident("shop", severity, number) for number, severity in enumerate(severities)]
    found = propose(["shop"], [*running, an_incident("other", 1, 99)], ())
    assert found.status is expected
    assert [each.severity for each in found.incidents] == sorted(one for one in severities if one <= 3)


def test_incidents_during_planned_maintenance_are_a_part_of_it() -> None:
    running = [an_incident("shop", 1, 1), an_incident("cards", 3, 2)]
    assert propose(["shop"], running, {"shop"}).status is MAINTENANCE
    assert propose(["shop", "cards"], running, {"shop"}).status is DEGRADED


def test_the_summary_never_says_that_all_is_well_while_a_problem_is_open_or_nothing_is_known() -> None:
    assert summary([OPERATIONAL, OPERATIONAL], problems=False) == "All systems operational"
    assert summary([OPERATIONAL], problems=True) == "We are looking into a problem"
    assert summary([], problems=False) == "No problem is known"
    assert summary([MAJOR, OPERATIONAL], problems=True) == "Major outage of some systems"
    assert summary([MAJOR, MAJOR], problems=True) == "Major outage"
