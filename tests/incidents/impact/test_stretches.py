"""Impact follows the alerts: stretches and impact compared with the definition, moment by moment."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from app.base.values.severity import severity_name
from app.base.values.times import MICROSECOND, Span
from app.incidents.grouping.signal import AlertClass
from app.incidents.impact.columns import StretchColumns, impact_columns
from app.incidents.impact.intervals import ImpactInterval, costs, downtime, impact_intervals
from app.incidents.impact.rates import Rate
from app.incidents.impact.stretches import OPEN_END, Stretch, packed, stretches, unpacked
from app.incidents.measures import measures
from app.incidents.measures.measures import Facts
from app.incidents.measures.vectorized import Columns, microseconds
from tests.incidents.measures.test_measures import DAY, WEIGHTS, at

NOW = at("30:00")
INCIDENT = UUID(int=1)
ALL_TIME = Span(at("-99:00"), at("99:00"))


def an_alert(began: str, ended: str | None, severity: int = 1) -> Stretch:
    return Stretch(at(began), at(ended) if ended else None, severity)


def facts_of(alerts: Sequence[Stretch], **stated: object) -> Facts:
    """The facts of the incident that these alerts make up."""
    end = [each.end for each in alerts]
    known = Facts(
        began_at=min(each.start for each in alerts),
        service="checkout",
        severity=min(each.severity for each in alerts),
        ended_at=None if None in end else max(end for end in end if end),
    )
    return replace(known, **stated)  # type: ignore[arg-type]


def whole(facts: Facts) -> list[Stretch]:
    """The stretches of an incident of one alert, which may have stated since when."""
    reported = None if facts.impact_started_at_stated else facts.impact_started_at
    return [Stretch(min(facts.began_at, reported or facts.began_at), facts.ended_at, facts.severity)]


def impact_of(alerts: Sequence[Stretch], **stated: object) -> list[ImpactInterval]:
    return impact_intervals(INCIDENT, facts_of(alerts, **stated), stretches(alerts), now=NOW, weights=WEIGHTS)


def shown(found: Sequence[ImpactInterval]) -> list[tuple[str, str, str]]:
    def clock(when: datetime) -> str:
        minutes = (when - DAY) // timedelta(minutes=1)
        return f"{minutes // 60:02}:{minutes % 60:02}"

    return [(clock(each.span.start), clock(each.span.end), str(each.impact)) for each in found]


# — examples —

FLAPPING = [
    Stretch(at("10:00") + timedelta(minutes=6 * number), at("10:01") + timedelta(minutes=6 * number), 1)
    for number in range(20)
]


def test_five_critical_minutes_in_a_ten_hour_warning_are_five_critical_minutes() -> None:
    alerts = [an_alert("10:00", "20:00", 3), an_alert("12:00", "12:05", 1)]
    assert shown(impact_of(alerts)) == [("10:00", "12:00", "0.1"), ("12:00", "12:05", "1"), ("12:05", "20:00", "0.1")]
    rate = Rate("checkout", at("00:00"), "EUR", *[Decimal(1200)] * 3)
    cost = costs(impact_of(alerts), [rate]).services["checkout"]["EUR"].expected
    assert cost == 1200 * (Fraction(5, 60) + Fraction(595, 600))


def test_an_alert_that_fires_twenty_times_for_a_minute_is_down_for_twenty_minutes() -> None:
    assert downtime((each.span for each in impact_of(FLAPPING)), ALL_TIME) == timedelta(minutes=20)
    throughout = impact_of(FLAPPING, harmed_throughout_stated=True)
    assert downtime((each.span for each in throughout), ALL_TIME) == timedelta(minutes=115)


STATED = [an_alert("10:00", "10:10", 3), an_alert("10:20", "10:30", 2)]


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, [("10:00", "10:10", "0.1"), ("10:20", "10:30", "0.5")]),
        ({"severity_stated": 1}, [("10:00", "10:10", "1"), ("10:20", "10:30", "1")]),
        ({"impact_stated": Decimal("0.3")}, [("10:00", "10:10", "0.3"), ("10:20", "10:30", "0.3")]),
        (
            {"impact_stated": Decimal("0.3"), "severity_stated": 1},
            [("10:00", "10:10", "0.3"), ("10:20", "10:30", "0.3")],
        ),
        (
            {"harmed_throughout_stated": True},
            [("10:00", "10:10", "0.1"), ("10:10", "10:20", "0.5"), ("10:20", "10:30", "0.5")],
        ),
        (
            {"harmed_throughout_stated": True, "severity_stated": 3},
            [("10:00", "10:10", "0.1"), ("10:10", "10:20", "0.1"), ("10:20", "10:30", "0.1")],
        ),
        (
            {"impact_started_at_stated": at("09:50")},
            [("09:50", "10:00", "0.1"), ("10:00", "10:10", "0.1"), ("10:20", "10:30", "0.5")],
        ),
        (
            {"detected_at_stated": at("09:50")},
            [("09:50", "10:00", "0.1"), ("10:00", "10:10", "0.1"), ("10:20", "10:30", "0.5")],
        ),
        (
            {"impact_started_at_stated": at("10:05"), "detected_at_stated": at("09:50")},
            [("10:05", "10:10", "0.1"), ("10:20", "10:30", "0.5")],
        ),
        (
            {"impact_started_at_stated": at("09:30"), "detected_at_stated": at("09:50")},
            [("09:30", "10:00", "0.1"), ("10:00", "10:10", "0.1"), ("10:20", "10:30", "0.5")],
        ),
        ({"detected_at_stated": at("10:05")}, [("10:00", "10:10", "0.1"), ("10:20", "10:30", "0.5")]),
        (
            {"impact_started_at_stated": at("10:15"), "harmed_throughout_stated": True},
            [("10:15", "10:20", "0.5"), ("10:20", "10:30", "0.5")],
        ),
        ({"impact_started_at_stated": at("10:15")}, [("10:20", "10:30", "0.5")]),
        ({"impact_started_at_stated": at("10:45")}, [("10:30", "10:30", "0.5")]),
        ({"alert_class": AlertClass.MONITORING}, [("10:00", "10:10", "0"), ("10:20", "10:30", "0")]),
    ],
)
def test_what_people_state(stated: dict[str, object], expected: list[tuple[str, str, str]]) -> None:
    assert shown(impact_of(STATED, **stated)) == expected


def test_an_open_alert_has_impact_until_now_and_one_from_a_clock_ahead_not_yet() -> None:
    assert shown(impact_of([an_alert("29:00", None)])) == [("29:00", "30:00", "1")]
    assert shown(impact_of([an_alert("30:05", None)])) == [("30:00", "30:00", "1")]


def test_an_alert_without_duration_keeps_the_first_start_and_its_severity() -> None:
    alerts = [an_alert("10:00", "10:00", 1), an_alert("10:10", "10:20", 3)]
    assert stretches(alerts) == alerts
    assert shown(impact_of(alerts, impact_started_at_stated=at("09:50"))) == [
        ("09:50", "10:00", "1"),
        ("10:10", "10:20", "0.1"),
    ]
    assert stretches([an_alert("10:00", "10:10", 3), an_alert("10:05", "10:05", 1)]) == [an_alert("10:00", "10:10", 3)]


# — properties —

minutes = st.integers(0, 600)
lasting = st.none() | st.integers(0, 90)


@st.composite
def an_episode(draw: st.DrawFn, lasting: st.SearchStrategy[int | None] = lasting) -> Stretch:
    start = DAY + timedelta(minutes=draw(minutes), microseconds=draw(st.sampled_from((0, 1))))
    lasted = draw(lasting)
    return Stretch(start, None if lasted is None else start + timedelta(minutes=lasted), draw(st.integers(1, 5)))


episodes = st.lists(an_episode(), min_size=1, max_size=8)
ended_episodes = st.lists(an_episode(st.integers(0, 90)), min_size=1, max_size=8)
# Round enough that statements and alerts share moments.
times = st.none() | minutes.map(lambda minute: DAY + timedelta(minutes=minute - 30))
statements = st.fixed_dictionaries(
    {},
    optional={
        "severity_stated": st.none() | st.integers(1, 5),
        "impact_stated": st.none() | st.sampled_from(("0", "0.25", "1")).map(Decimal),
        "impact_started_at_stated": times,
        "detected_at_stated": times,
        "harmed_throughout_stated": st.none() | st.booleans(),
        "alert_class": st.sampled_from(AlertClass),
    },
)


def impact_at(alerts: Sequence[Stretch], facts: Facts, when: datetime) -> Decimal:
    """The definition, for one moment."""
    first = min(each.start for each in alerts)
    last = max(each.end or NOW for each in alerts)
    firing = [each.severity for each in alerts if each.start <= when and (each.end is None or when < each.end)]
    stated = facts.impact_started_at_stated
    since = stated or facts.detected_at_stated
    if facts.alert_class is AlertClass.MONITORING or (stated is not None and when < stated):
        return Decimal(0)
    if firing:
        severity = min(firing)
    elif since is not None and since <= when < first:
        lasting = [each.severity for each in alerts if each.start == first != each.end]
        severity = min(lasting or [each.severity for each in alerts if each.start == first])
    elif facts.harmed_throughout_stated and first <= when < last:
        severity = facts.severity
    else:
        return Decimal(0)
    if facts.impact_stated is not None:
        return facts.impact_stated
    return WEIGHTS[severity_name(facts.severity_stated or severity)]


def by_brute_force(alerts: Sequence[Stretch], facts: Facts) -> Fraction:
    """The integral of the impact over all moments between which nothing changes, in seconds."""
    end = [NOW if each.end is None else each.end for each in alerts]
    stated = [facts.impact_started_at_stated, facts.detected_at_stated]
    moments = sorted({each.start for each in alerts} | set(end) | {at for at in stated if at is not None})
    return sum(
        (
            Fraction(impact_at(alerts, facts, start)) * Fraction((end - start) // MICROSECOND, 10**6)
            for start, end in pairwise(moments)
        ),
        Fraction(0),
    )


def integral(found: Sequence[ImpactInterval]) -> Fraction:
    return sum(
        (Fraction(each.impact) * Fraction((each.span.end - each.span.start) // MICROSECOND, 10**6) for each in found),
        Fraction(0),
    )


@given(episodes, statements)
def test_impact_is_the_integral_over_the_alerts(alerts: list[Stretch], stated: dict[str, object]) -> None:
    facts = facts_of(alerts, **stated)
    found = impact_of(alerts, **stated)
    assert integral(found) == by_brute_force(alerts, facts)
    assert all(one.span.end <= other.span.start for one, other in pairwise(found)), "in order, without overlaps"
    for each in found:
        if each.span.start < each.span.end:
            assert each.impact == impact_at(alerts, facts, each.span.start)


@given(episodes)
def test_impact_is_never_more_than_the_worst_severity_from_begin_to_end(alerts: list[Stretch]) -> None:
    facts = facts_of(alerts)
    whole = Span(measures.began(facts), facts.ended_at or NOW)
    worst = [ImpactInterval(INCIDENT, "checkout", whole, measures.impact(facts, facts.severity, WEIGHTS))]
    assert integral(impact_of(alerts)) <= integral(worst)
    down = [[each.span for each in those if each.impact] for those in (impact_of(alerts), worst)]
    assert downtime(down[0], ALL_TIME) <= downtime(down[1], ALL_TIME)


@given(episodes, st.integers(1, 5), st.sampled_from(("0", "0.25", "1")).map(Decimal))
def test_a_stated_severity_or_impact_replaces_every_alerts_and_fills_no_gaps(
    alerts: list[Stretch], severity: int, impact: Decimal
) -> None:
    lasted = downtime((each.span for each in impact_of(alerts)), ALL_TIME)
    for stated, share in (
        ({"severity_stated": severity}, WEIGHTS[severity_name(severity)]),
        ({"severity_stated": severity, "impact_stated": impact}, impact),
    ):
        found = impact_of(alerts, **stated)
        assert {each.impact for each in found} == {share}
        assert downtime((each.span for each in found), ALL_TIME) == lasted


RATES = [
    Rate("checkout", DAY, "EUR", Decimal("0.01"), Decimal("1234.56"), Decimal(10**6)),
    Rate("checkout", DAY + timedelta(minutes=77), "EUR", Decimal(1), Decimal("7.77"), Decimal(8)),
]


@given(episodes, st.lists(st.integers(0, 2), min_size=8, max_size=8))
def test_merging_and_splitting_incidents_changes_no_total(alerts: list[Stretch], parts: list[int]) -> None:
    """Whichever incidents the alerts are in, the service pays the same: to the cent, and to any fraction of it."""
    split = [[each for each, part in zip(alerts, parts, strict=False) if part == number] for number in range(3)]
    of_parts = [
        each
        for number, those in enumerate(split)
        if those
        for each in impact_intervals(UUID(int=number), facts_of(those), stretches(those), now=NOW, weights=WEIGHTS)
    ]
    assert costs(of_parts, RATES).services == costs(impact_of(alerts), RATES).services
    down = [[each.span for each in every if each.impact] for every in (of_parts, impact_of(alerts))]
    assert downtime(down[0], ALL_TIME) == downtime(down[1], ALL_TIME)


@given(ended_episodes, st.integers(1, 9))
def test_cutting_an_alert_in_two_changes_no_total(alerts: list[Stretch], tenths: int) -> None:
    first, *others = alerts
    assert first.end is not None
    cut = first.start + (first.end - first.start) * tenths / 10
    assume(first.start < cut < first.end)
    halves = [first._replace(end=cut), first._replace(start=cut)]
    assert stretches([*others, *halves]) == stretches(alerts)


@given(episodes)
def test_stretches_of_stretches_are_the_same_and_as_bytes_too(alerts: list[Stretch]) -> None:
    found = stretches(alerts)
    assert stretches(found) == stretches(reversed(alerts)) == stretches([*alerts, *alerts]) == found
    assert unpacked(packed(found)) == found


@given(st.lists(st.tuples(episodes, statements), max_size=6))
@example([([an_alert("30:05", None)], {}), ([an_alert("10:00", "11:00")], {"impact_started_at_stated": at("12:00")})])
def test_impact_of_many_incidents_is_that_of_each(every: list[tuple[list[Stretch], dict[str, object]]]) -> None:
    facts = [facts_of(alerts, **stated) for alerts, stated in every]
    columns = Columns.of(range(len(every)), facts)
    known = [stretches(alerts) for alerts, _ in every]
    found = impact_columns(columns, StretchColumns.of(known), now=NOW, weights=WEIGHTS)
    expected = [
        (place, microseconds(each.span.start), microseconds(each.span.end), each.impact)
        for place, (one, alerts) in enumerate(zip(facts, known, strict=True))
        for each in impact_intervals(INCIDENT, one, alerts, now=NOW, weights=WEIGHTS)
    ]
    rows = zip(found.incident, found.start, found.end, found.impact, strict=True)
    assert [(int(which), int(b), int(e), Decimal(int(i)) / found.scale) for which, b, e, i in rows] == expected
    assert [columns.service.values[code] for code in found.service] == ["checkout"] * len(expected)


def test_an_open_end_is_later_than_every_time() -> None:
    assert microseconds(datetime.max.replace(tzinfo=DAY.tzinfo)) < OPEN_END
