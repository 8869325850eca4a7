"""The data that a batch works on: signals with their decisions, and rows of alerts and incidents.

Pure. `read.py` builds the rows from the database, `law/series.py` and `law/placement.py` change them, and `write.py`
stores the changes.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from app.incidents.grouping.law import lifecycle
from app.incidents.grouping.law.episode import NOT_BY_SOURCE, REFIRE, End, Episode, ReportedEnd, fired_after_end
from app.incidents.grouping.law.lifecycle import IncidentState
from app.incidents.grouping.rule import Decision
from app.incidents.grouping.signal import Signal, Verdict
from app.incidents.grouping.timeline_kind import TimelineKind

MANUAL_SOURCE_ID = 0  # the source of alerts that people declare or hold open

# The stored time of the last report may be this much too early, because repeats within a minute are not stored.
LAST_SEEN_PRECISION = timedelta(minutes=1)


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """A signal with its source and the decision of its rule.

    `reported_at` is its report time: when it was first received, in whole minutes. So a repeat changes a row at most
    once a minute: most signals are repeats, and not writing a row is free. `refire` is a setting of the source.
    """

    signal: Signal
    source_id: int
    decision: Decision
    received_at: datetime
    reported_at: datetime
    refire: timedelta = REFIRE


class SignalOutcome(msgspec.Struct, frozen=True, gc=False):
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
    last_seen_at: datetime | None = None
    impact_started_at_reported: datetime | None = None
    sender_ended: bool = False  # according to its senders, regardless of manual ends
    end_reported_at: datetime | None = None
    covered: bool = False  # an earlier alert of the series reaches beyond its start
    correlations: Sequence[UUID] | None = None  # in order; see `signal.with_correlation`


class AlertRow(AlertColumns, eq=False, kw_only=True):
    """A row of `alert`, with the changes made by the batch."""

    window: timedelta
    max_span: timedelta
    episode: Episode
    end: End | None = None
    labels: Mapping[str, str] | None = None  # read only when needed
    incoming: Incoming | None = None  # the first signal of the alert; set only on new rows
    caused: list[int] = msgspec.field(default_factory=list)  # indices of the signals that began or ended the alert
    fired: tuple[int, ...] = ()  # … that reported it as firing although it had ended
    stored: "Changeable | None" = None  # as read
    number: int | None = None  # of its incident when it was read

    @property
    def new(self) -> bool:
        return self.incoming is not None

    @property
    def dirty(self) -> bool:
        return self.stored is None or self.stored != self.changeable()

    def changeable(self) -> "Changeable":
        return (
            self.end,
            self.severity,
            self.episode,
            self.end_reported_at,
            self.incident_id,
            self.sender_ended,
            self.covered,
            self.correlations,
        )

    def as_law(self) -> lifecycle.Alert:
        return self._as_law(self.end, self.severity, fired_after_end(self.episode.fired_at, self.end_reported_at))

    @property
    def before(self) -> lifecycle.Alert | None:
        """The alert as the law knew it before, if that has changed; None for a new alert."""
        if self.stored is None:
            return None
        end, severity, episode, end_reported_at, *_ = self.stored
        fired_after_end_at = fired_after_end(episode.fired_at, end_reported_at)
        if end == self.end and severity == self.severity:
            if episode is self.episode and end_reported_at == self.end_reported_at:
                return None
            if fired_after_end_at == fired_after_end(self.episode.fired_at, self.end_reported_at):
                return None
        return self._as_law(end, severity, fired_after_end_at)

    @property
    def moved(self) -> bool:
        """Whether it has ended, is open again, or has another end than before."""
        return self.stored is None or self.stored[0] != self.end

    @property
    def correlated_otherwise(self) -> bool:
        """Whether it has begun, has another end or incident than before, or has another correlation."""
        stored = self.stored
        return (
            stored is None
            or stored[0] != self.end
            or stored[4] is not self.incident_id
            or stored[-1] is not self.correlations
        )

    @property
    def voided(self) -> bool:
        """Whether an end that its source reported is void by now."""
        before = self.stored[0] if self.stored is not None else None
        return before is not None and self.end is None and before.reason not in NOT_BY_SOURCE

    def _as_law(self, end: End | None, severity: int, fired_after_end_at: datetime | None) -> lifecycle.Alert:
        return lifecycle.Alert(
            self.series,
            self.started_at,
            end,
            self.window,
            self.max_span,
            severity,
            self.source_id == MANUAL_SOURCE_ID,
            self.impact_started_at_reported,
            fired_after_end_at,
        )


# What a batch may change in a row of `alert`, except `last_seen_at`, which is written along. A plain tuple, because two
# are made for every repeat.
Changeable = tuple[End | None, int, Episode, datetime | None, UUID | None, bool, bool, Sequence[UUID] | None]


class KnownSeries(msgspec.Struct):
    """The alerts of one series in order of start, and its unmatched resolves."""

    alerts: list[AlertRow] = msgspec.field(default_factory=list)
    unmatched: list[ReportedEnd] = msgspec.field(default_factory=list)


class IncidentColumns(msgspec.Struct, eq=False):
    """Columns of `incident` as read from the database, except those in `IncidentState`."""

    id: UUID
    number: int | None
    key_id: UUID
    key: str
    rule: str
    title: str
    service: str
    alert_class: str
    declared: bool = False
    environment: str | None = None


class IncidentRow(IncidentColumns, eq=False, kw_only=True):
    """A row of `incident`, with the changes made by the batch."""

    labels: dict[str, str]
    source_ids: set[int]
    state: IncidentState
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
    unmatched_resolves: dict[tuple[UUID, datetime], ReportedEnd] = field(default_factory=dict)  # by series and end
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


def contradictions(batch: Batch) -> frozenset[int]:
    """The signals, by index, that voided an end which the source of their alert had reported."""
    return frozenset(row.fired[0] for row in batch.rows if row.fired and row.voided)


def verdict_of(batch: Batch, index: int) -> Verdict:
    """The verdict on the signal at `index`."""
    return batch.verdicts.get(index, Verdict.IGNORED)


def outcome_of(batch: Batch, index: int) -> SignalOutcome:
    """The verdict and the number of the alert's incident; the number of a new incident is known once it is written."""
    verdict = verdict_of(batch, index)
    row = batch.shown.get(index)
    if row is None or row.incident_id is None:
        return SignalOutcome(verdict)
    known = batch.incidents.get(batch.merged.get(row.incident_id, row.incident_id))
    return SignalOutcome(verdict, known.number if known else row.number)
