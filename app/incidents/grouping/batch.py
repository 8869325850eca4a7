"""What a batch works on: signals with their decisions, and rows of alerts and incidents.

Pure. `read.py` makes the rows of what is stored, the laws change them (`series.py`, `placement.py`), and `write.py`
stores what has changed.
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

PEOPLE = 0  # the source of what persons declare or hold open

# A repeat is stored only when the one before is this long ago: most signals are repeats, and a row that does not change
# costs nothing.
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


class AlertColumns(msgspec.Struct, eq=False):
    """Columns of `alert`, as they are read."""

    series: UUID
    started_at: datetime
    source_id: int
    key_id: UUID
    incident_id: UUID | None
    severity: int
    manual_end_at: datetime | None = None
    last_seen_at: datetime | None = None
    impact_told_at: datetime | None = None
    sender_ended: bool = False  # whatever people say: no sender reports that it is still firing


class AlertRow(AlertColumns, eq=False, kw_only=True):
    """A row of `alert`, and what the batch makes of it."""

    window: timedelta
    max_span: timedelta
    real_end: End | None = None
    end: End | None = None
    named_end: End | None = None  # what senders reported for this start, before the law of the series
    labels: Mapping[str, str] | None = None  # read only where they are needed
    incoming: Incoming | None = None  # the first signal that reported it; set on new rows only
    seen_again: bool = False
    before: "tuple[End | None] | None" = None  # the end it had, once that has changed
    caused: list[int] = msgspec.field(default_factory=list)  # indices of the signals that changed it
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


class KnownSeries(msgspec.Struct):
    """What is known of one series: its alerts in order of start, and its unmatched resolves."""

    alerts: list[AlertRow] = msgspec.field(default_factory=list)
    loose: list[End] = msgspec.field(default_factory=list)


class IncidentColumns(msgspec.Struct, eq=False):
    """Columns of `incident`, as they are read; those of its course are the fields of `Course`."""

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
    """A row of `incident`, and what the batch makes of it."""

    labels: dict[str, str]
    source_ids: set[int]
    course: Course
    settled: bool = False
    new: bool = False
    dirty: bool = False
    common_changed: bool = False  # `labels` or `source_ids`


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An entry of the timeline that follows from alerts. The fields are columns."""

    incident_id: UUID
    at: datetime
    kind: TimelineKind
    detail: Mapping[str, object] | None = None


@dataclass(slots=True)
class Batch:
    """`new_id` makes the ids of new incidents, from `now`."""

    now: datetime
    new_id: Callable[[datetime], UUID]
    rows: list[AlertRow] = field(default_factory=list)  # each alert once
    incidents: dict[UUID, IncidentRow] = field(default_factory=dict)
    loose_ends: list[tuple[UUID, End]] = field(default_factory=list)
    merged: dict[UUID, UUID] = field(default_factory=dict)  # loser → winner
    split: dict[UUID, list[IncidentRow]] = field(default_factory=lambda: defaultdict(list))  # origin → split-off parts
    timeline: list[Entry] = field(default_factory=list)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    shown: dict[int, AlertRow] = field(default_factory=dict)  # by index of signal: the alert it is about
    corrections: int = 0

    def adopt(self, found: Iterable[AlertRow]) -> list[AlertRow]:
        """The same alerts, each as the row that the batch has of it already, if it has one."""
        had = {(row.series, row.started_at): row for row in self.rows}
        if not had:
            rows = list(found)
            self.rows += rows
            return rows
        rows = []
        for row in found:
            known = had.get((row.series, row.started_at))
            if known is None:
                self.rows.append(row)
                rows.append(row)
            else:
                known.labels = row.labels if known.labels is None else known.labels
                rows.append(known)
        return rows

    def add_incidents(self, found: Iterable[IncidentRow]) -> None:
        self.incidents.update((incident.id, incident) for incident in found)

    def record(self, incident: UUID, at: datetime, kind: TimelineKind, detail: dict[str, object] | None = None) -> None:
        self.timeline.append(Entry(incident, at, kind, detail))


def verdict_of(batch: Batch, index: int) -> Verdict:
    """What the signal at `index` did."""
    return batch.verdicts.get(index, Verdict.IGNORED)


def outcome_of(batch: Batch, index: int) -> Outcome:
    """The same, and the number of the incident that its alert is now part of: once it is written, if it is new."""
    verdict = verdict_of(batch, index)
    row = batch.shown.get(index)
    if row is None or row.incident_id is None:
        return Outcome(verdict)
    known = batch.incidents.get(batch.merged.get(row.incident_id, row.incident_id))
    return Outcome(verdict, known.number if known else row.number)
