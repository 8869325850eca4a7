"""What a batch of signals makes of alerts and incidents: the laws of `signal.py` and `lifecycle.py` on rows.

Pure: rows as they were read go in, the same rows as they shall be written come out, with a verdict for every signal.
`store.py` reads and writes around it.
"""

import hashlib
import os
import random
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from asyncpg.pgproto import pgproto
from msgspec.structs import replace

from app.incidents.grouping import lifecycle
from app.incidents.grouping.lifecycle import Course, Place
from app.incidents.grouping.rule import Decision
from app.incidents.grouping.signal import (
    INFERRED,
    End,
    EndReason,
    Episode,
    Signal,
    Status,
    Verdict,
    carried,
    ends_of,
    latest,
    lone_end,
    pending,
)

PEOPLE = 0  # the source of what persons declare or hold open

# A repeat is written down only when the one before is this long ago: most of what senders send are repeats, and a row
# that does not change costs nothing.
LAST_SEEN_PRECISION = timedelta(minutes=1)


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A signal with where it came from and what its rule decided."""

    signal: Signal
    source_id: int
    decision: Decision
    received_at: datetime


class Outcome(msgspec.Struct, frozen=True, gc=False):
    verdict: Verdict
    incident: int | None = None  # its number


def new_id(at: datetime) -> UUID:
    """A UUID of version 7, the driver's own kind, which is made in half the time or less: random after the time it
    begins with, so that what is new lies together in an index. With ids that are random all through nearly every row
    would be the first since a checkpoint to change its page, and write all of that to the log.

    Not from the system's source of randomness each time, which takes longer than to read a small body: ids are no
    secrets.
    """
    milliseconds = int(at.timestamp() * 1000)
    octets = milliseconds << 80 | _VERSION_7 | _random.getrandbits(80) & _RANDOM
    return pgproto.UUID(octets.to_bytes(16, "big"))


_random = random.Random(os.urandom(64))  # noqa: S311
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(64)))
_VERSION_7 = 0x7 << 76 | 0b10 << 62
_RANDOM = (1 << 80) - 1 & ~(0xF << 76 | 0b11 << 62)


def series_of(source_id: int, fingerprint: str) -> UUID:
    digest = hashlib.blake2b(b"%d\0" % source_id + fingerprint.encode(), digest_size=16).digest()
    return pgproto.UUID(digest)


# Looked up once: the member of an enum takes as long to find as a small function takes.
_FIRING = Status.FIRING
_OPENED, _JOINED, _REPEATED, _IGNORED = Verdict.OPENED, Verdict.JOINED, Verdict.REPEATED, Verdict.IGNORED
_OPENS, _UNCLEAR = Place.OPENS, Place.UNCLEAR


# — what a batch works on —


class AlertRow(msgspec.Struct, eq=False):
    """A row of `alert`, and what the batch makes of it."""

    series: UUID
    started_at: datetime
    source_id: int
    key_id: UUID
    incident_id: UUID | None
    window: timedelta
    max_span: timedelta
    severity: int
    real_end: End | None = None
    manual_end_at: datetime | None = None
    end: End | None = None
    named_end: End | None = None  # what senders told of this start, before the law of the series
    labels: Mapping[str, str] | None = None  # not read where nobody asks
    incoming: Incoming | None = None  # the first signal that told of it; set on new rows only
    told_again: bool = False
    last_seen_at: datetime | None = None
    impact_told_at: datetime | None = None
    before: "tuple[End | None] | None" = None  # the end it had, once that has changed
    caused: list[int] = msgspec.field(default_factory=list)  # indices of the signals that changed it
    sender_ended: bool = False  # whatever people say: no sender says that it is still firing
    stored: tuple[object, ...] = ()  # what of it may change, as it was read
    seen_before_at: datetime | None = None  # `last_seen_at` as it was read
    number: int | None = None  # of the incident it was read with

    @property
    def new(self) -> bool:
        return self.incoming is not None

    @property
    def dirty(self) -> bool:
        return self.stored != self.changeable() or (
            self.last_seen_at is not None
            and self.seen_before_at is not None
            and self.last_seen_at - self.seen_before_at >= LAST_SEEN_PRECISION
        )

    def changeable(self) -> tuple[object, ...]:
        return (self.incident_id, self.real_end, self.manual_end_at, self.end, self.sender_ended)

    def as_law(self, end: End | None) -> lifecycle.Alert:
        return lifecycle.Alert(
            self.series,
            self.started_at,
            end,
            self.window,
            self.max_span,
            self.severity,
            self.source_id == PEOPLE,
            self.impact_told_at,
        )


class IncidentRow(msgspec.Struct, eq=False):
    """A row of `incident`, and what the batch makes of it."""

    id: UUID
    number: int | None
    key_id: UUID
    key: str
    rule: str
    title: str
    service: str
    alert_class: str
    labels: dict[str, str]
    source_ids: set[int]
    course: Course
    still_firing: bool = False
    settled: bool = False
    declared: bool = False
    new: bool = False
    dirty: bool = False
    common_changed: bool = False  # `labels` or `source_ids`


@dataclass(slots=True)
class Batch:
    now: datetime
    rows: list[AlertRow] = field(default_factory=list)  # each alert once
    incidents: dict[UUID, IncidentRow] = field(default_factory=dict)
    newest: dict[UUID, IncidentRow] = field(default_factory=dict)
    loose_ends: list[tuple[UUID, End]] = field(default_factory=list)
    merged: dict[UUID, UUID] = field(default_factory=dict)  # loser → winner
    torn: dict[UUID, list[IncidentRow]] = field(default_factory=lambda: defaultdict(list))  # origin → torn-off parts
    timeline: list[tuple[UUID, datetime, str, dict[str, object] | None]] = field(default_factory=list)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    shown: dict[int, AlertRow] = field(default_factory=dict)  # by index of signal: the alert it is about
    corrections: int = 0

    def rows_by_start(self) -> dict[tuple[UUID, datetime], AlertRow]:
        return {(row.series, row.started_at): row for row in self.rows}

    def tell(self, incident: UUID, at: datetime, kind: str, detail: dict[str, object] | None = None) -> None:
        self.timeline.append((incident, at, kind, detail))


# — the law of series —


def fold(
    batch: Batch, series: UUID, rows: list[AlertRow], loose: list[End], incoming: Sequence[Incoming], indices: list[int]
) -> None:
    """Finds or makes the alert of every signal of one series; `rows` and `loose` are what is known of it, and grow.

    Signals that name a start come first: what the others are about depends on them.
    """
    unnamed: list[int] = []
    for index in indices:
        one = incoming[index]
        signal = one.signal
        if signal.started_at is None:
            unnamed.append(index)
        elif signal.end_reason in INFERRED:
            _infer_end(batch, _row_at(rows, signal.started_at), signal, index)
        else:
            row = _row_of(batch, rows, series, signal.started_at, one, index)
            if signal.status is _FIRING:
                _see_again(row, one.received_at, index)
            elif _believe(row, _end_of(signal)):
                row.caused.append(index)
                batch.verdicts.setdefault(index, Verdict.RESOLVED)
            batch.verdicts.setdefault(index, _REPEATED)
    derive(rows, loose)
    for index in unnamed:
        one = incoming[index]
        if one.signal.status is Status.RESOLVED:
            _take_loose_end(batch, series, rows, loose, _end_of(one.signal), index)
        elif rows and _is_going_on(rows[-1]):
            row = _row_of(batch, rows, series, rows[-1].started_at, one, index)
            _see_again(row, one.received_at, index)
            batch.verdicts.setdefault(index, Verdict.REPEATED)
        else:
            _row_of(batch, rows, series, one.received_at, one, index)
            batch.verdicts.setdefault(index, Verdict.REPEATED)
        derive(rows, loose)


def _is_going_on(row: AlertRow) -> bool:
    """As far as its sender has told: that a person ended it, or we inferred it, makes no new alert of a repeat."""
    if row.end is None or row.end.reason in INFERRED:
        return True
    return row.manual_end_at is not None and not row.sender_ended


def _believe(row: AlertRow, end: End) -> bool:
    """Whether this end changes what is known of those that name the alert."""
    if end == row.named_end or end != latest(row.named_end, end):
        return False
    row.named_end = end
    return True


def _infer_end(batch: Batch, row: AlertRow | None, signal: Signal, index: int) -> None:
    """An end that nobody told holds only if the alert was not told of since; it tells of no alert itself."""
    if row is None or row.last_seen_at is None:
        return
    end = _end_of(signal)
    if max(row.last_seen_at, row.started_at) <= end.at and _believe(row, end):
        row.caused.append(index)
        batch.shown[index] = row
        batch.verdicts[index] = Verdict.RESOLVED


def _see_again(row: AlertRow, at: datetime, index: int) -> None:
    """An alert that is told of after an inferred end has not ended: the guess gives way."""
    known = row.named_end
    if known is not None and known.reason in INFERRED and at > known.at:
        row.named_end = None
        row.caused.append(index)


def _row_of(
    batch: Batch, rows: list[AlertRow], series: UUID, started_at: datetime, one: Incoming, index: int
) -> AlertRow:
    """The alert with this start, made if it is new; notes that this signal has told of it."""
    row = _row_at(rows, started_at)
    if row is None:
        decision = one.decision
        row = AlertRow(
            series=series,
            started_at=started_at,
            source_id=one.source_id,
            key_id=decision.key_id,
            incident_id=None,
            window=decision.window,
            max_span=decision.max_span,
            severity=decision.severity,
            labels=one.signal.labels,
            incoming=one,
            caused=[index],
        )
        if length := pending(one.signal.annotations):
            row.impact_told_at = started_at - length
        batch.rows.append(row)
        insort(rows, row, key=_start)
        batch.verdicts[index] = _JOINED  # until its incident is known
    else:
        row.told_again = True
    if row.last_seen_at is None or row.last_seen_at < one.received_at:
        row.last_seen_at = one.received_at
    batch.shown[index] = row
    return row


def _row_at(rows: list[AlertRow], started_at: datetime) -> AlertRow | None:
    """By its start among those of a series, which are in order of start."""
    place = bisect_left(rows, started_at, key=_start)
    return rows[place] if place < len(rows) and rows[place].started_at == started_at else None


def _start(row: AlertRow) -> datetime:
    return row.started_at


# Ends that are times of arrival.
_GUESSED = frozenset({"ends_unknown", "ends_clamped"})


def _end_of(signal: Signal) -> End:
    assert signal.ended_at is not None, "a resolve carries its end"
    guessed = signal.end_reason in INFERRED or not _GUESSED.isdisjoint(signal.flags)
    return End(signal.ended_at, signal.end_reason or EndReason.RECOVERED, guessed)


def _take_loose_end(batch: Batch, series: UUID, rows: list[AlertRow], loose: list[End], end: End, index: int) -> None:
    target = max((row for row in rows if row.started_at <= end.at), key=lambda row: row.started_at, default=None)
    if target is None:
        batch.verdicts[index] = Verdict.IGNORED  # nothing to end yet: it waits
    else:
        batch.shown[index] = target
        batch.verdicts[index] = Verdict.REPEATED
    if not any(known.at == end.at for known in loose):
        loose.append(end)
        batch.loose_ends.append((series, end))
        if target is not None:
            target.caused.append(index)
            batch.verdicts[index] = Verdict.RESOLVED


def derive(rows: list[AlertRow], loose: Sequence[End]) -> None:
    """Gives every alert of a series, in order of start, the end that the law of the series gives it."""
    if len(rows) == 1 and not loose:
        [row] = rows
        by_sender = lone_end(row.named_end)
        end = lone_end(row.named_end, row.manual_end_at) if row.manual_end_at else by_sender
        _give_end(row, row.named_end, by_sender, end)
        return
    episodes = [Episode(row.started_at, row.named_end, row.manual_end_at) for row in rows]
    ends = by_senders = ends_of(episodes, loose)
    if any(row.manual_end_at for row in rows):
        by_senders = ends_of([replace(episode, manual_end_at=None) for episode in episodes], loose)
    for row, real_end, by_sender, end in zip(rows, carried(episodes), by_senders, ends, strict=True):
        _give_end(row, real_end, by_sender, end)


def _give_end(row: AlertRow, real_end: End | None, by_sender: End | None, end: End | None) -> None:
    """`by_sender`: the end that it would have, whatever people say."""
    row.real_end = real_end
    # Ended by hand and now by its sender: no end moves, but the incident may no longer be `still_firing`.
    confirmed = row.manual_end_at is not None and not row.sender_ended and by_sender is not None
    row.sender_ended = by_sender is not None
    if end != row.end or confirmed:
        if row.incoming is None and row.before is None:
            row.before = (row.end,)
        row.end = end


# — the law of incidents, by short cut —


def by_short_cut(batch: Batch, newest: IncidentRow | None, rows: Sequence[AlertRow]) -> bool:
    """Whether the newest incident alone told where the alerts of one key belong; if not, nothing has been changed."""
    ending = [row for row in rows if row.incoming is None]
    starting = [row for row in rows if row.incoming is not None]
    if len(rows) > 1:
        ending.sort(key=lambda row: (row.end is None, row.end and row.end.at))
        starting.sort(key=lambda row: (row.started_at, row.series))
    course = newest.course if newest else None
    for row in ending:
        before = row.before[0] if row.before else None
        if newest is None or course is None or row.incident_id != newest.id or row.end is None:
            return False
        course = lifecycle.ended(course, row.as_law(before), row.end)
        if course is None:
            return False
    ended = course
    steps: list[tuple[AlertRow, bool, Course]] = []
    for row in starting:
        alert = row.as_law(row.end)
        place = lifecycle.place(course, alert)
        if place is _UNCLEAR:
            return False
        opens = course is None or place is _OPENS
        course = lifecycle.opened(alert) if course is None or opens else lifecycle.joined(course, alert)
        steps.append((row, opens, course))
    began = newest.course if newest else None
    if newest is not None and ended is not None and ending:
        newest.course = ended
        _verdict_of_changes(batch, newest, ending, Verdict.RESOLVED)
    _take_short_cut(batch, newest, began, steps)
    return True


def _take_short_cut(
    batch: Batch, incident: IncidentRow | None, before: Course | None, steps: Sequence[tuple[AlertRow, bool, Course]]
) -> None:
    """`before`: the course of the incident before this batch."""
    for row, opens, after in steps:
        if opens or incident is None:
            if incident is not None and before is not None:
                _note_move(batch, incident, before)
            incident = _new_incident(batch, row, after)
            before = replace(after, open_alerts=1)  # so that its end, if it has one, is told
            batch.tell(incident.id, row.started_at, "opened")
            verdict = _OPENED
        else:
            assert before is not None, "an incident has a course"
            verdict = _JOINED
            if after.reopened > incident.course.reopened or (before.ended_at and not after.ended_at):
                verdict = Verdict.REOPENED
                _note_move(batch, incident, before)
                before = incident.course
            _take_in(incident, row)
            incident.course = after
        row.incident_id = incident.id
        _verdict_of_changes(batch, incident, [row], verdict)
    if incident is not None and before is not None:
        _note_move(batch, incident, before)


def _new_incident(batch: Batch, row: AlertRow, course: Course) -> IncidentRow:
    incoming = row.incoming
    assert incoming is not None, "a new incident begins with a new alert, or is torn off a known one"
    labels = dict(incoming.signal.labels)
    decision = incoming.decision
    incident = IncidentRow(
        id=new_id(batch.now),
        number=None,
        key_id=row.key_id,
        key=decision.key,
        rule=decision.rule,
        title=title_of(incoming.signal, decision.service),
        service=decision.service,
        alert_class=str(incoming.signal.alert_class),
        labels=labels,
        source_ids={row.source_id},
        course=course,
        new=True,
        dirty=True,
    )
    batch.incidents[incident.id] = incident
    return incident


def title_of(signal: Signal, service: str) -> str:
    """What a person reads first: the name of the alert, and its summary if it says more."""
    name = signal.labels.get("rulename") or signal.labels.get("alertname") or service
    summary = signal.annotations.get("summary") or signal.annotations.get("title") or ""
    return f"{name}: {summary}"[:300] if summary and summary != name else name[:300]


def _take_in(incident: IncidentRow, row: AlertRow) -> None:
    labels = row.labels or {}
    if not incident.labels.items() <= labels.items():
        incident.labels = {name: value for name, value in incident.labels.items() if labels.get(name) == value}
        incident.common_changed = True
    if row.source_id not in incident.source_ids:
        incident.source_ids.add(row.source_id)
        incident.common_changed = True


def _note_move(batch: Batch, incident: IncidentRow, before: Course) -> None:
    """Tells the timeline what it means that an incident's course is no longer the one before."""
    course = incident.course
    if course == before:
        return
    incident.dirty = True
    had_ended_at, ended_at = before.ended_at, course.ended_at
    if course.reopened > before.reopened or (had_ended_at is not None and ended_at is None):
        batch.tell(incident.id, course.island_at, "reopened")
    if ended_at is not None and ended_at != had_ended_at:
        batch.tell(incident.id, ended_at, "resolved", {"reason": str(course.end_reason)})
    if incident.settled and (
        (before.began_at, had_ended_at, before.reopened) != (course.began_at, ended_at, course.reopened)
    ):
        batch.corrections += 1


def _verdict_of_changes(batch: Batch, incident: IncidentRow, rows: Sequence[AlertRow], verdict: Verdict) -> None:
    """What the signals that changed these alerts did; of an alert's signals the first made it, later ones ended it."""
    for row in rows:
        for place, index in enumerate(row.caused):
            if incident.settled:
                batch.verdicts[index] = Verdict.LATE
            elif place == 0 or not row.new:
                batch.verdicts[index] = verdict


# — the law of incidents itself, where the newest incident could not tell —


def reach(row: AlertRow, end: End | None) -> datetime | None:
    return end.at + row.window if end else None


def by_law(batch: Batch, known: Sequence[IncidentRow], rows: Sequence[AlertRow], changed: Sequence[AlertRow]) -> None:
    """The law on the chains of one key: moves alerts, courses and ids."""
    by_id = {(row.series, row.started_at): row for row in rows}
    groups = lifecycle.incidents_of(row.as_law(row.end) for row in rows)
    was_in = {place: row.incident_id for place, row in by_id.items() if row.incident_id is not None}
    age = {incident.id: incident.number or 0 for incident in known}
    places = [[(alert.series, alert.started_at) for alert in group] for group in groups]
    heirs = lifecycle.succession(places, was_in, age)
    touched = {(row.series, row.started_at): row for row in changed}
    kept: list[IncidentRow] = []
    for group, members, heir in zip(groups, places, heirs.heirs, strict=True):
        course = lifecycle.course_of(group)
        member_rows = [by_id[member] for member in members]
        # Whatever happens to counted history is counted as a correction, never counted again.
        settled = any(batch.incidents[was_in[m]].settled for m in members if m in was_in)
        if heir is not None:
            incident = batch.incidents[heir]
            before, incident.course = incident.course, course
            _note_move(batch, incident, before)
        elif any(member in was_in for member in members):
            origin = batch.incidents[next(was_in[member] for member in members if member in was_in)]
            incident = _torn_off(batch, origin, course)
            batch.torn[origin.id].append(incident)
            batch.tell(origin.id, course.began_at, "split", {"into": str(incident.id)})
            batch.tell(incident.id, course.began_at, "split", {"from": str(origin.id)})
            batch.corrections += settled
        else:
            incident = _new_incident(batch, member_rows[0], course)
            batch.tell(incident.id, course.began_at, "opened")
            if course.ended_at is not None:
                batch.tell(incident.id, course.ended_at, "resolved", {"reason": str(course.end_reason)})
        incident.settled = settled
        incident.dirty = True
        incident.still_firing = any(
            row.manual_end_at and not row.sender_ended and row.told_again and not row.new for row in member_rows
        ) or (incident.still_firing and any(row.manual_end_at and not row.sender_ended for row in member_rows))
        first, *rest = member_rows
        incident.labels = dict(first.labels or {})
        incident.source_ids = {first.source_id}
        incident.common_changed = True
        for row in rest:
            _take_in(incident, row)
        for row in member_rows:
            row.incident_id = incident.id
        kept.append(incident)
    for loser, index in heirs.merged.items():
        winner = kept[index]
        batch.merged[loser] = winner.id
        batch.tell(winner.id, winner.course.began_at, "merged", {"from": str(loser)})
        batch.corrections += batch.incidents[loser].settled
    _verdicts_by_law(batch, kept, places, heirs, was_in, touched)


def _verdicts_by_law(
    batch: Batch,
    kept: Sequence[IncidentRow],
    places: Sequence[Sequence[tuple[UUID, datetime]]],
    heirs: lifecycle.Succession,
    was_in: Mapping[tuple[UUID, datetime], UUID],
    touched: Mapping[tuple[UUID, datetime], AlertRow],
) -> None:
    told = {(incident, kind) for incident, _at, kind, _detail in batch.timeline}
    for index, (incident, members) in enumerate(zip(kept, places, strict=True)):
        changed = [touched[member] for member in members if member in touched]
        came_from = {was_in[member] for member in members if member in was_in}
        if index in heirs.merged.values():
            verdict = Verdict.MERGED
        elif came_from & batch.torn.keys():
            verdict = Verdict.SPLIT
        elif incident.new:
            verdict = Verdict.OPENED
        elif not any(row.new for row in changed):
            verdict = Verdict.REOPENED if any(row.end is None for row in changed) else Verdict.RESOLVED
        else:
            verdict = Verdict.REOPENED if (incident.id, "reopened") in told else Verdict.JOINED
        _verdict_of_changes(batch, incident, changed, verdict)


def _torn_off(batch: Batch, origin: IncidentRow, course: Course) -> IncidentRow:
    incident = IncidentRow(
        id=new_id(batch.now),
        number=None,
        key_id=origin.key_id,
        key=origin.key,
        rule=origin.rule,
        title=origin.title,
        service=origin.service,
        alert_class=origin.alert_class,
        labels=dict(origin.labels),
        source_ids=set(origin.source_ids),
        course=course,
        new=True,
        dirty=True,
    )
    batch.incidents[incident.id] = incident
    return incident


# — what is told —


def note_still_firing(batch: Batch) -> None:
    """A repeat of an alert that a person has ended reopens nothing, but the incident says so."""
    for row in batch.shown.values():
        if row.manual_end_at and not row.sender_ended and row.told_again and row.incident_id:
            incident = batch.incidents[row.incident_id]
            incident.dirty |= not incident.still_firing
            incident.still_firing = True


def verdict_of(batch: Batch, index: int) -> Verdict:
    """What the signal at `index` did."""
    return batch.verdicts.get(index, _IGNORED)


def outcome_of(batch: Batch, index: int) -> Outcome:
    """The same, and the number of the incident that its alert is part of now: once it is written, if it is new."""
    verdict = verdict_of(batch, index)
    row = batch.shown.get(index)
    if row is None or row.incident_id is None:
        return Outcome(verdict)
    known = batch.incidents.get(batch.merged.get(row.incident_id, row.incident_id))
    return Outcome(verdict, known.number if known else row.number)
