"""The data that a batch works on: signals with their decisions, and rows of alerts and incidents.

Pure. `read.py` builds the rows from the database, `series.py` and `placement.py` change them, and `write.py` stores the
changes.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from app.incidents.grouping import lifecycle
from app.incidents.grouping.lifecycle import Course
from app.incidents.grouping.rule import Decision
from app.incidents.grouping.signal import End, Signal, Verdict
from app.incidents.grouping.timeline import TimelineKind

MANUAL_SOURCE_ID = 0  # the source of alerts that people declare or hold open

# Store a repeat only if the previous one is at least this old: most signals are repeats, and not writing a row is free.
LAST_SEEN_PRECISION = timedelta(minutes=1)


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A signal with its source and the decision of its rule."""

    signal: Signal
    source_id: int
    decision: Decision
    received_at: datetime


class Outcome(msgspec.Struct, frozen=True, gc=False):
    verdict: Verdict
    incident: int | None = None  # number


class AlertColumns(msgspec.Struct, eq=False):
    """Columns of `alert` as read from the database."""

    series: UUID
    started_at: datetime
    source_id: int
    key_id: UUID
    incident_id: UUID | None
    severity: int
    manual_end_at: datetime | None = None
    last_seen_at: datetime | None = None
    impact_started_at_reported: datetime | None = None
    sender_ended: bool = False  # according to its senders, regardless of manual ends


class AlertRow(AlertColumns, eq=False, kw_only=True):
    """A row of `alert`, with the changes made by the batch."""

    window: timedelta
    max_span: timedelta
    real_end: End | None = None
    end: End | None = None
    named_end: End | None = None  # the end that senders reported for this start, before `compute_ends`
    labels: Mapping[str, str] | None = None  # read only when needed
    incoming: Incoming | None = None  # the first signal of the alert; set only on new rows
    seen_again: bool = False
    before: "tuple[End | None] | None" = None  # the previous end, set when the end changes
    caused: list[int] = msgspec.field(default_factory=list)  # indices of the signals that changed the alert
    stored: tuple[object, ...] = ()  # the values of `changeable()` as read
    seen_before_at: datetime | None = None  # `last_seen_at` as read
    number: int | None = None  # of its incident when it was read

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
            self.source_id == MANUAL_SOURCE_ID,
            self.impact_started_at_reported,
        )


class KnownSeries(msgspec.Struct):
    """The alerts of one series in order of start, and its unmatched resolves."""

    alerts: list[AlertRow] = msgspec.field(default_factory=list)
    unmatched: list[End] = msgspec.field(default_factory=list)


class IncidentColumns(msgspec.Struct, eq=False):
    """Columns of `incident` as read from the database, except those in `Course`."""

    id: UUID
    number: int | None
    key_id: UUID
    key: str
    rule: str
    title: str
    service: str
    alert_class: str
    still_firing: bool = False
    declared: bool = False


class IncidentRow(IncidentColumns, eq=False, kw_only=True):
    """A row of `incident`, with the changes made by the batch."""

    labels: dict[str, str]
    source_ids: set[int]
    course: Course
    settled: bool = False
    new: bool = False
    dirty: bool = False
    common_changed: bool = False  # `labels` or `source_ids`


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A timeline entry derived from alerts. The fields are columns."""

    incident_id: UUID
    at: datetime
    kind: TimelineKind
    detail: Mapping[str, object] | None = None


@dataclass(slots=True)
class Batch:
    """The state of one batch. `new_id` creates ids for new incidents from `now`."""

    now: datetime
    new_id: Callable[[datetime], UUID]
    rows: list[AlertRow] = field(default_factory=list)  # each alert once
    incidents: dict[UUID, IncidentRow] = field(default_factory=dict)
    unmatched_resolves: list[tuple[UUID, End]] = field(default_factory=list)
    merged: dict[UUID, UUID] = field(default_factory=dict)  # loser → winner
    split: dict[UUID, list[IncidentRow]] = field(default_factory=lambda: defaultdict(list))  # origin → split-off parts
    timeline: list[Entry] = field(default_factory=list)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    shown: dict[int, AlertRow] = field(default_factory=dict)  # the alert of each signal, by index
    corrections: int = 0

    def adopt(self, found: Iterable[AlertRow]) -> list[AlertRow]:
        """Adds alerts to the batch; returns them in order, using the existing row for alerts already in the batch."""
        had = {(row.series, row.started_at): row for row in self.rows}
        if not had:
            rows = list(found)
            self.rows += rows
            return rows
        rows = []
        for row in found:
            existing = had.get((row.series, row.started_at))
            if existing is None:
                self.rows.append(row)
                rows.append(row)
            else:
                existing.labels = row.labels if existing.labels is None else existing.labels
                rows.append(existing)
        return rows

    def add_incidents(self, found: Iterable[IncidentRow]) -> None:
        self.incidents.update((incident.id, incident) for incident in found)

    def record(self, incident: UUID, at: datetime, kind: TimelineKind, detail: dict[str, object] | None = None) -> None:
        self.timeline.append(Entry(incident, at, kind, detail))


def verdict_of(batch: Batch, index: int) -> Verdict:
    """The verdict on the signal at `index`."""
    return batch.verdicts.get(index, Verdict.IGNORED)


def outcome_of(batch: Batch, index: int) -> Outcome:
    """The verdict and the number of the alert's incident; the number of a new incident is known once it is written."""
    verdict = verdict_of(batch, index)
    row = batch.shown.get(index)
    if row is None or row.incident_id is None:
        return Outcome(verdict)
    known = batch.incidents.get(batch.merged.get(row.incident_id, row.incident_id))
    return Outcome(verdict, known.number if known else row.number)
