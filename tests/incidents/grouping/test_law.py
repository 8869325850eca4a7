"""The law in the pure functions: properties first, then named cases."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.base.values.ids import new_id
from app.incidents.grouping.batch import AlertRow, Batch, IncidentRow, Incoming
from app.incidents.grouping.law import lifecycle
from app.incidents.grouping.law.episode import End, Episode
from app.incidents.grouping.law.lifecycle import (
    Alert,
    IncidentState,
    Placement,
    incident_state,
    incidents_of,
    succession,
)
from app.incidents.grouping.law.placement import place_by_newest, regroup
from app.incidents.grouping.rule import Decision
from app.incidents.grouping.signal import EndReason, Signal, Status, pending

DAY = datetime(2026, 8, 20, tzinfo=UTC)
LONG = timedelta(days=365)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def at(minute: float) -> datetime:
    return DAY + minutes(minute)


def recovered(minute: float) -> End:
    return End(at(minute), EndReason.RECOVERED)


def an_alert(
    start: float,
    end: float | None = None,
    *,
    series: int = 0,
    window: float = 5,
    max_span: timedelta = LONG,
    reason: EndReason = EndReason.RECOVERED,
    severity: int = 3,
    fired_after: int | None = None,
) -> Alert:
    return Alert(
        UUID(int=series),
        at(start),
        End(at(end), reason) if end is not None else None,
        minutes(window),
        max_span,
        severity,
        fired_after_end_at=None if fired_after is None or end is None else at(fired_after),
    )


reasons = st.sampled_from([EndReason.RECOVERED, EndReason.RECOVERED, EndReason.TIMEOUT, EndReason.SUPERSEDED])
fired_after = st.one_of(st.none(), st.none(), st.integers(90, 93))


@st.composite
def alert_sets(draw: st.DrawFn, *, window: float = 5, max_span: timedelta = LONG) -> list[Alert]:
    found: dict[tuple[int, int], Alert] = {}
    for _ in range(draw(st.integers(1, 12))):
        series, start = draw(st.integers(0, 3)), draw(st.integers(0, 80))
        length = draw(st.one_of(st.none(), st.integers(0, 25)))
        end = None if length is None else start + length
        found[series, start] = an_alert(
            start,
            end,
            series=series,
            window=window,
            max_span=max_span,
            reason=draw(reasons),
            severity=draw(st.integers(2, 4)),
            fired_after=draw(fired_after),
        )
    return list(found.values())


def spans(groups: list[list[Alert]]) -> list[tuple[datetime, datetime | None]]:
    return [(state.began_at, state.ended_at) for state in map(incident_state, groups)]


def components(alerts: list[Alert]) -> set[frozenset[Alert]]:
    """The law by brute force: connects every two alerts whose intervals meet, as `range_agg` does."""
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
def test_max_span_caps_chains_but_splits_no_overlap(alerts: list[Alert]) -> None:
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
    newest = incident_state(groups[-1]) if groups else None
    place = lifecycle.classify(newest, new)
    after = incidents_of(alerts)
    if place is Placement.UNCLEAR:
        return
    assert [incident_state(group) for group in after[:-1]] == [
        incident_state(group) for group in (groups if place is Placement.OPENS else groups[:-1])
    ]
    expected = lifecycle.opened(new) if newest is None or place is Placement.OPENS else lifecycle.joined(newest, new)
    assert incident_state(after[-1]) == expected


@given(
    alert_sets(max_span=minutes(20)),
    st.integers(0, 20),
    st.one_of(st.none(), st.integers(-5, 40)),
    reasons,
    st.integers(0, 1),
    fired_after,
)
def test_the_short_cut_for_changes_never_differs_from_the_law(
    alerts: list[Alert],
    which: int,
    longer: int | None,
    reason: EndReason,
    worse: int,
    fired: int | None,
) -> None:
    groups = incidents_of(alerts)
    before = groups[-1][which % len(groups[-1])]
    end = before.end
    if longer is not None:
        end = End(max(before.started_at, (before.ended_at or before.started_at) + minutes(longer)), reason)
    changed = msgspec.structs.replace(
        before,
        end=end,
        severity=before.severity - worse,
        fired_after_end_at=None if fired is None or end is None else at(fired),
    )
    state = lifecycle.changed(incident_state(groups[-1]), before, changed)
    assume(state is not None)
    after = incidents_of([changed if alert is before else alert for alert in alerts])
    assert [incident_state(group) for group in after] == [*(incident_state(group) for group in groups[:-1]), state]


def test_the_short_cuts_are_taken_where_they_matter() -> None:
    state = incident_state([an_alert(0)])
    assert lifecycle.classify(state, an_alert(3, series=1)) is Placement.JOINS
    assert isinstance(lifecycle.changed(state, an_alert(0), an_alert(0, 10)), IncidentState)
    ended = incident_state([an_alert(0, 10, fired_after=20)])
    still = lifecycle.changed(ended, an_alert(0, 10, fired_after=20), an_alert(0, 10, fired_after=21))
    assert still == incident_state([an_alert(0, 10, fired_after=21)])
    worse = lifecycle.changed(state, an_alert(0), an_alert(0, severity=1))
    assert worse == incident_state([an_alert(0, severity=1)])


def test_an_incident_ends_with_its_latest_end_whatever_the_reason() -> None:
    """One alert recovers at 20, the other is not resent any more after 50."""
    state = incident_state([an_alert(0, 20), an_alert(10, 50, series=1, reason=EndReason.TIMEOUT)])
    assert (state.ended_at, state.end_reason) == (at(50), EndReason.TIMEOUT)
    simultaneous = [an_alert(0, 50, reason=EndReason.SUPERSEDED, series=1), an_alert(0, 50)]
    assert incident_state(simultaneous).end_reason == EndReason.RECOVERED


# — the rows of one key: short cut and law —

LABELS = [{"job": job, "zone": zone, "pod": f"{job}{zone}"} for job in "ab" for zone in "ab"]


@dataclass(frozen=True, slots=True)
class Reported:
    """An alert of the key, and its change in a batch: new, or ended by now."""

    series: int
    start: int
    length: int | None
    known: bool
    ends: int | None  # of a known open alert
    labels: int
    source: int
    fires: int | None = None  # a known one is reported again


@st.composite
def reports(draw: st.DrawFn) -> list[Reported]:
    reported = st.builds(
        Reported,
        series=st.integers(0, 5),
        start=st.integers(0, 40),
        length=st.one_of(st.none(), st.integers(0, 10)),
        known=st.booleans(),
        ends=st.one_of(st.none(), st.integers(0, 70)),
        labels=st.integers(0, 3),
        source=st.integers(1, 2),
        fires=st.one_of(st.none(), st.none(), st.integers(55, 65)),
    )
    return draw(st.lists(reported, min_size=1, max_size=7, unique_by=lambda one: (one.series, one.start)))


Members = frozenset[tuple[UUID, datetime]]


class Key:
    """The rows of one key after `reported`, computed each time; the caller chooses how incidents are derived."""

    def __init__(self, reported: list[Reported]) -> None:
        self.batch = Batch(DAY, new_id)
        self.rows = [_row(number, one) for number, one in enumerate(reported)]
        known = [row for row, one in zip(self.rows, reported, strict=True) if one.known]
        before = Batch(DAY, new_id)
        if known:
            regroup(before, [], known, known)
        for number, incident in enumerate(sorted(before.incidents.values(), key=_began), 1):
            incident.number, incident.new, incident.dirty = number, False, False
        for row, one in zip(self.rows, reported, strict=True):
            if one.known:
                row.incoming = None
                row.caused.clear()
                row.stored = row.changeable()
            if one.known and row.end is None and one.ends is not None:
                row.end, row.end_reported_at = recovered(one.start + one.ends), at(60)
                row.caused.append(self.rows.index(row))
            if one.known and one.fires is not None:
                row.episode = msgspec.structs.replace(row.episode, fired_at=at(one.fires))
                row.severity = min(row.severity, one.fires % 3 + 1)
                row.fired = (self.rows.index(row),)
        self.known = sorted(before.incidents.values(), key=_began)
        self.batch.incidents = dict(before.incidents)
        self.changed = [row for row in self.rows if row.new or row.before is not None]

    def place_by_newest(self) -> bool:
        return place_by_newest(self.batch, self.known[-1] if self.known else None, self.changed)

    def place_by_law(self) -> None:
        regroup(self.batch, self.known, self.rows, self.changed)

    def incidents(self) -> list[tuple[Members, IncidentState, dict[str, str], set[int]]]:
        alive = [one for one in self.batch.incidents.values() if one.id not in self.batch.merged]
        return [
            (
                frozenset((row.series, row.started_at) for row in self.rows if row.incident_id == one.id),
                one.state,
                one.labels,
                one.source_ids,
            )
            for one in sorted(alive, key=_began)
        ]

    def kinds(self) -> list[tuple[datetime, str]]:
        return sorted((entry.at, str(entry.kind)) for entry in self.batch.timeline)


def _began(incident: IncidentRow) -> datetime:
    return incident.state.began_at


def _row(number: int, one: Reported) -> AlertRow:
    end = None if one.length is None else recovered(one.start + one.length)
    signal = Signal(str(one.series), Status.FIRING, at(one.start), labels=LABELS[one.labels])
    return AlertRow(
        UUID(int=one.series),
        at(one.start),
        one.source,
        KEY,
        None,
        3,
        window=minutes(5),
        max_span=minutes(20),
        episode=Episode(at(one.start), DAY),
        end=end,
        end_reported_at=None if end is None else at(60),
        labels=signal.labels,
        incoming=Incoming(signal, one.source, DECISION, DAY, DAY),
        caused=[number],
    )


KEY = UUID(int=1000)
DECISION = Decision("default", "shop", 3, "", KEY, minutes(5), minutes(20))


@settings(max_examples=400)
@given(reports())
def test_the_short_cut_of_a_key_never_differs_from_its_law(reported: list[Reported]) -> None:
    by_cut, by_the_law, before = Key(reported), Key(reported), Key(reported)
    assume(by_cut.changed)
    if not by_cut.place_by_newest():
        assert (by_cut.incidents(), by_cut.kinds()) == (before.incidents(), [])
        return
    by_the_law.place_by_law()
    assert by_cut.incidents() == by_the_law.incidents()
    if len(by_cut.changed) == 1:
        assert by_cut.batch.verdicts == by_the_law.batch.verdicts
        assert by_cut.kinds() == by_the_law.kinds()


def test_the_short_cut_of_a_key_is_taken_where_it_matters() -> None:
    """One open incident: an alert joins it, two do, one ends, one ends while another begins."""
    known = Reported(0, 0, None, known=True, ends=None, labels=0, source=1)
    one, other = (Reported(series, 3, None, known=False, ends=None, labels=1, source=2) for series in (1, 2))
    ended = replace(known, ends=10)
    for reported in [one], [known, one], [known, one, other], [ended], [ended, one]:
        assert Key(reported).place_by_newest()


# — cases —


def test_begins_exactly_a_window_after_the_end_joins() -> None:
    assert len(incidents_of([an_alert(0, 10), an_alert(15, 20)])) == 1
    assert len(incidents_of([an_alert(0, 10), an_alert(15.01, 20)])) == 2


def test_fires_again_within_the_window_reopens() -> None:
    before = incident_state([an_alert(0, 30)])
    after = incident_state([an_alert(0, 30), an_alert(33)])
    assert (before.reopened, before.ended_at, before.first_ended_at) == (0, at(30), at(30))
    assert (after.reopened, after.ended_at, after.first_ended_at) == (1, None, at(30))


def test_a_late_alert_joins_two_incidents() -> None:
    two = [an_alert(0, 10), an_alert(30, 40)]
    assert len(incidents_of(two)) == 2
    assert len(incidents_of([*two, an_alert(12, 26)])) == 1


def test_a_late_end_splits_an_incident() -> None:
    assert len(incidents_of([an_alert(0), an_alert(60, series=1)])) == 1
    assert len(incidents_of([an_alert(0, 10), an_alert(60, series=1)])) == 2


def test_endless_flapping_is_cut_at_max_span() -> None:
    flapping = [an_alert(start, start + 1, max_span=minutes(60)) for start in range(0, 180, 5)]
    assert [len(group) for group in incidents_of(flapping)] == [13, 13, 10]


def test_one_long_alert_is_not_cut_at_max_span() -> None:
    assert len(incidents_of([an_alert(0, 600, max_span=minutes(60)), an_alert(500, 550, max_span=minutes(60))])) == 1


def test_the_annotation_for_is_read_as_prometheus_writes_durations() -> None:
    reported = {
        text: pending({"for": text}) for text in ("5m", "1h30m", "90s", "250ms", "0s", "", "5", "m", "forever", "9w")
    }
    assert {text: length for text, length in reported.items() if length is not None} == {
        "5m": minutes(5),
        "1h30m": minutes(90),
        "90s": minutes(1.5),
        "250ms": timedelta(milliseconds=250),
        "0s": timedelta(0),
    }


# — which incident keeps its id —


def test_a_merge_keeps_the_oldest_incident_and_a_split_the_earliest_part() -> None:
    old, young = UUID(int=100), UUID(int=200)
    a, b, c = ((UUID(int=n), at(n)) for n in range(3))
    joined = succession([[a, b]], {a: young, b: old}, {old: 1, young: 2})
    assert (joined.heirs, dict(joined.merged)) == ((old,), {young: 0})
    split = succession([[a], [b], [c]], {a: old, b: old}, {old: 1})
    assert (split.heirs, dict(split.merged)) == ((old, None, None), {})
