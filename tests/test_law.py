"""The law, on the pure functions: properties first, then the cases that have names."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from app.incidents import lifecycle
from app.incidents.lifecycle import Alert, Course, Place, course_of, incidents_of, succession
from app.incidents.signal import End, EndReason, Episode, ends_of, latest, pending

DAY = datetime(2026, 8, 20, tzinfo=UTC)
LONG = timedelta(days=365)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def at(minute: float) -> datetime:
    return DAY + minutes(minute)


def recovered(minute: float) -> End:
    return End(at(minute), EndReason.RECOVERED)


def an_alert(
    start: float, end: float | None = None, *, series: int = 0, window: float = 5, max_span: timedelta = LONG
) -> Alert:
    return Alert(UUID(int=series), at(start), recovered(end) if end is not None else None, minutes(window), max_span)


@st.composite
def alert_sets(draw: st.DrawFn, *, window: float = 5, max_span: timedelta = LONG) -> list[Alert]:
    found: dict[tuple[int, int], Alert] = {}
    for _ in range(draw(st.integers(1, 12))):
        series, start = draw(st.integers(0, 3)), draw(st.integers(0, 80))
        length = draw(st.one_of(st.none(), st.integers(0, 25)))
        end = None if length is None else start + length
        found[series, start] = an_alert(start, end, series=series, window=window, max_span=max_span)
    return list(found.values())


def spans(groups: list[list[Alert]]) -> list[tuple[datetime, datetime | None]]:
    return [(course.began_at, course.ended_at) for course in map(course_of, groups)]


def components(alerts: list[Alert]) -> set[frozenset[Alert]]:
    """The law by brute force: connect every two alerts whose reaches meet, as `range_agg` would."""
    groups = [{alert} for alert in alerts]
    merged = True
    while merged:
        merged = False
        for one in groups:
            for other in groups:
                if one is not other and any(_meet(a, b) for a in one for b in other):
                    one.update(other)
                    groups.remove(other)
                    merged = True
                    break
            if merged:
                break
    return {frozenset(group) for group in groups}


def _meet(a: Alert, b: Alert) -> bool:
    a_until = a.ended_at + a.window if a.ended_at else datetime.max.replace(tzinfo=UTC)
    b_until = b.ended_at + b.window if b.ended_at else datetime.max.replace(tzinfo=UTC)
    return a.started_at <= b_until and b.started_at <= a_until


@given(alert_sets())
def test_incidents_are_the_connected_components(alerts: list[Alert]) -> None:
    assert {frozenset(group) for group in incidents_of(alerts)} == components(alerts)


@given(alert_sets(max_span=minutes(20)), st.randoms())
def test_order_does_not_matter(alerts: list[Alert], random: object) -> None:
    before = incidents_of(alerts)
    shuffled = list(alerts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert incidents_of(shuffled) == before


@given(alert_sets(), st.integers(0, 30))
def test_a_wider_window_never_gives_more_incidents(alerts: list[Alert], wider: int) -> None:
    widened = [Alert(a.series, a.started_at, a.end, a.window + minutes(wider), a.max_span, a.severity) for a in alerts]
    assert len(incidents_of(widened)) <= len(incidents_of(alerts))


@given(alert_sets())
def test_incidents_of_a_key_lie_more_than_a_window_apart(alerts: list[Alert]) -> None:
    groups = spans(incidents_of(alerts))
    for (_, ended_at), (began_at, _) in pairwise(groups):
        assert ended_at is not None
        assert began_at - ended_at > minutes(5)


@given(alert_sets(max_span=minutes(20)))
def test_max_span_caps_chains_but_tears_no_overlap(alerts: list[Alert]) -> None:
    for group in incidents_of(alerts):
        running: datetime | None = group[0].started_at
        for alert in group:
            if running is not None and alert.started_at > running:
                assert alert.started_at - group[0].started_at <= minutes(20)
            running = None if running is None or alert.ended_at is None else max(running, alert.ended_at)


@given(alert_sets(max_span=minutes(20)))
def test_the_short_cut_for_new_alerts_never_differs_from_the_law(alerts: list[Alert]) -> None:
    *known, new = alerts
    groups = incidents_of(known)
    newest = course_of(groups[-1]) if groups else None
    place = lifecycle.place(newest, new)
    after = incidents_of(alerts)
    if place is Place.UNCLEAR:
        return
    assert [course_of(group) for group in after[:-1]] == [
        course_of(group) for group in (groups if place is Place.OPENS else groups[:-1])
    ]
    expected = lifecycle.opened(new) if newest is None or place is Place.OPENS else lifecycle.joined(newest, new)
    assert course_of(after[-1]) == expected


@given(alert_sets(max_span=minutes(20)), st.integers(0, 40))
def test_the_short_cut_for_ends_never_differs_from_the_law(alerts: list[Alert], longer: int) -> None:
    groups = incidents_of(alerts)
    before = groups[-1][longer % len(groups[-1])]
    end = End((before.ended_at or before.started_at) + minutes(longer), EndReason.RECOVERED)
    course = lifecycle.ended(course_of(groups[-1]), before, end)
    assume(course is not None)
    after_alert = Alert(before.series, before.started_at, end, before.window, before.max_span, before.severity)
    after = incidents_of([after_alert if alert is before else alert for alert in alerts])
    assert [course_of(group) for group in after] == [*(course_of(group) for group in groups[:-1]), course]


def test_the_short_cuts_are_taken_where_they_matter() -> None:
    course = course_of([an_alert(0)])
    assert lifecycle.place(course, an_alert(3, series=1)) is Place.JOINS
    assert isinstance(lifecycle.ended(course, an_alert(0), recovered(10)), Course)


# — cases —


def test_begins_exactly_a_window_after_the_end_joins() -> None:
    assert len(incidents_of([an_alert(0, 10), an_alert(15, 20)])) == 1
    assert len(incidents_of([an_alert(0, 10), an_alert(15.01, 20)])) == 2


def test_fires_again_within_the_window_reopens() -> None:
    before = course_of([an_alert(0, 30)])
    after = course_of([an_alert(0, 30), an_alert(33)])
    assert (before.reopened, before.ended_at, before.first_ended_at) == (0, at(30), at(30))
    assert (after.reopened, after.ended_at, after.first_ended_at) == (1, None, at(30))


def test_a_late_alert_joins_two_incidents() -> None:
    two = [an_alert(0, 10), an_alert(30, 40)]
    assert len(incidents_of(two)) == 2
    assert len(incidents_of([*two, an_alert(12, 26)])) == 1


def test_a_late_end_tears_an_incident_apart() -> None:
    assert len(incidents_of([an_alert(0), an_alert(60, series=1)])) == 1
    assert len(incidents_of([an_alert(0, 10), an_alert(60, series=1)])) == 2


def test_endless_flapping_is_cut_at_max_span() -> None:
    flapping = [an_alert(start, start + 1, max_span=minutes(60)) for start in range(0, 180, 5)]
    assert [len(group) for group in incidents_of(flapping)] == [13, 13, 10]


def test_one_long_alert_is_not_cut_at_max_span() -> None:
    assert len(incidents_of([an_alert(0, 600, max_span=minutes(60)), an_alert(500, 550, max_span=minutes(60))])) == 1


# — series —


def episodes(*starts: float, named: dict[float, float] | None = None) -> list[Episode]:
    ends = named or {}
    return [Episode(at(start), recovered(ends[start]) if start in ends else None) for start in starts]


def test_a_later_episode_ends_one_that_is_still_open() -> None:
    assert ends_of(episodes(0, 10)) == [End(at(10), EndReason.SUPERSEDED), None]


def test_a_real_end_beats_a_guessed_one() -> None:
    assert ends_of(episodes(0, 10, named={0: 4})) == [recovered(4), None]


def test_a_start_told_inside_an_ended_episode_ends_with_it() -> None:
    """A peer whose clock differs, or a start that moved back by milliseconds: the second start is never resolved."""
    assert ends_of(episodes(0, 0.0001, named={0: 20})) == [recovered(20), recovered(20)]


def test_a_resolve_that_names_no_start_ends_the_newest_that_began_before_it() -> None:
    assert ends_of(episodes(0, 10, 30), [recovered(20)]) == [End(at(10), EndReason.SUPERSEDED), recovered(20), None]


def test_a_named_end_beats_loose_ones_and_of_those_the_earliest_counts() -> None:
    assert ends_of(episodes(0, named={0: 5}), [recovered(9), recovered(7)]) == [recovered(5)]
    assert ends_of(episodes(0), [recovered(9), recovered(7)]) == [recovered(7)]


def test_a_real_end_beats_a_guess_and_of_guesses_the_earliest_counts() -> None:
    early, late = End(at(20), EndReason.RECOVERED, guessed=True), End(at(30), EndReason.RECOVERED, guessed=True)
    for told in (early, late, recovered(10)), (late, recovered(10), early):
        assert latest(latest(told[0], told[1]), told[2]) == recovered(10)
    assert latest(late, early) == early
    # A guess does not cover another start, which may well go on.
    assert ends_of([Episode(at(0), late), Episode(at(5))])[1] is None


def test_a_persons_end_stands_unless_it_had_ended_before() -> None:
    by_hand = Episode(at(0), recovered(9), at(5))
    assert ends_of([by_hand]) == [End(at(5), EndReason.MANUAL)]
    assert ends_of([Episode(at(0), recovered(3), at(5))]) == [recovered(3)]


def test_the_annotation_for_is_read_as_prometheus_writes_durations() -> None:
    told = {
        text: pending({"for": text}) for text in ("5m", "1h30m", "90s", "250ms", "0s", "", "5", "m", "forever", "9w")
    }
    assert {text: length for text, length in told.items() if length is not None} == {
        "5m": minutes(5),
        "1h30m": minutes(90),
        "90s": minutes(1.5),
        "250ms": timedelta(milliseconds=250),
        "0s": timedelta(0),
    }


# — who keeps its id —


def test_of_joined_incidents_the_oldest_stays_and_of_torn_ones_the_earliest_part() -> None:
    old, young = UUID(int=100), UUID(int=200)
    a, b, c = ((UUID(int=n), at(n)) for n in range(3))
    joined = succession([[a, b]], {a: young, b: old}, {old: 1, young: 2})
    assert (joined.heirs, dict(joined.merged)) == ((old,), {young: 0})
    torn = succession([[a], [b], [c]], {a: old, b: old}, {old: 1})
    assert (torn.heirs, dict(torn.merged)) == ((old, None, None), {})
