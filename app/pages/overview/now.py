"""What the overview says about this moment: what is open, and whether alerts arrive. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.incidents.reading.listing import ListedIncident, OpenNow
from app.ingest.health.judgment import Reason, SourceStatus, judge, rank
from app.ingest.health.store import SourceReading

BLIND_SPOTS_AT_MOST = 3


@dataclass(frozen=True, slots=True)
class BlindSpots:
    """Alerts may be missing. `reasons` are missing heartbeats, each with the name of its source, at most a few;
    `incidents` are failures that the monitoring itself has reported.
    """

    reasons: Sequence[tuple[str, Reason]]
    more: int
    incidents: Sequence[ListedIncident]
    since: datetime | None

    def __bool__(self) -> bool:
        return bool(self.reasons or self.incidents)


def blind_spots(readings: Sequence[SourceReading], is_open: OpenNow) -> BlindSpots:
    missing = [
        (reading.source.name, reason)
        for reading in readings
        for reason in judge(reading.observed)[1]
        if reason.reason == "heartbeat_missing"
    ]
    missing.sort(key=lambda found: (found[1].since is None, found[1].since))
    since = [reason.since for _, reason in missing if reason.since] or [each.detected_at for each in is_open.monitoring]
    return BlindSpots(
        missing[:BLIND_SPOTS_AT_MOST],
        max(0, len(missing) - BLIND_SPOTS_AT_MOST),
        is_open.monitoring[:BLIND_SPOTS_AT_MOST],
        min(since, default=None),
    )


@dataclass(frozen=True, slots=True)
class OpenIncident:
    incident: ListedIncident
    seconds: float  # since it was detected


@dataclass(frozen=True, slots=True)
class OpenIncidents:
    rows: Sequence[OpenIncident]
    count: int
    not_acknowledged: int


def open_incidents(found: OpenNow, *, now: datetime) -> OpenIncidents:
    return OpenIncidents(
        [OpenIncident(each, max(0.0, (now - each.detected_at).total_seconds())) for each in found.rows],
        found.acknowledged + found.not_acknowledged,
        found.not_acknowledged,
    )


@dataclass(frozen=True, slots=True)
class SourcesLine:
    """The state of all sources in one line. `reason` is the worst, of the source `name`."""

    count: int
    troubled: int
    status: SourceStatus
    name: str | None = None
    reason: Reason | None = None


def sources_line(readings: Sequence[SourceReading]) -> SourcesLine:
    judged = [(reading.source.name, *judge(reading.observed)) for reading in readings]
    troubled = sorted(
        (each for each in judged if each[1] is not SourceStatus.HEALTHY), key=lambda each: rank(each[1]), reverse=True
    )
    if not troubled:
        return SourcesLine(len(judged), 0, SourceStatus.HEALTHY)
    name, status, reasons = troubled[0]
    return SourcesLine(len(judged), len(troubled), status, name, reasons[0])
