"""What the page of an incident shows, from what was read. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from app.base.values.facts import Outcome
from app.base.values.times import Span
from app.incidents.grouping.law.episode import RECOVERIES
from app.incidents.grouping.signal import AlertClass, EndReason
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import notes
from app.incidents.history.path import Path, path_of
from app.incidents.impact import labor
from app.incidents.impact.individual import DetailedImpact
from app.incidents.impact.intervals import Shown, shown
from app.incidents.impact.rates import rate_at
from app.incidents.measures.measures import (
    MEASURES,
    Facts,
    IncidentStatus,
    Measured,
    MeasureStatus,
    began,
    detected_at,
    measures,
    service,
    severity,
    status,
)
from app.incidents.reading.links import Link as Outside
from app.incidents.reading.links import LinkKind, links_of
from app.ingest.senders import SENDERS
from app.metrics.deployments.deployment import Deployment
from app.metrics.deployments.links import Basis, Link
from app.pages import words
from app.pages.incidents.evidence import (
    TEXT_AT_MOST,
    TEXT_OF_ALL_AT_MOST,
    AlertRow,
    ShownSilence,
    alert_rows,
    lane_words,
    shown_silences,
)
from app.pages.incidents.panel import Panel, panel
from app.pages.incidents.read import Everything, FoundIncident, current_entries
from app.pages.incidents.timeline import END_REASONS, Line, lines
from app.pages.incidents.timeline import Shown as ShownTime
from app.pages.plots import course as plot
from app.reviews.store.waiting import OfIncident
from app.settings import Settings

INTERVALS_AT_MOST = 20
SHOWN_MEASURES = ("time_to_detect", "time_to_acknowledge", "time_to_mitigate", "time_to_recover")

BASES = {
    Basis.STATED: "stated by a person",
    Basis.LABEL: "named by its alerts",
    Basis.VERSION: "its version is named by the labels",
    Basis.LAST_DEPLOYMENT: "the last deployment before it, a guess",
    Basis.RECENT: "deployed in the 24 hours before",
}
LINK_KINDS = {LinkKind.RUNBOOK: "Runbook", LinkKind.DASHBOARD: "Dashboard", LinkKind.ALERT: "Alert"}


@dataclass(frozen=True, slots=True)
class Priced:
    """A time with impact, and what an hour of complete outage costs then: the expected amount by currency."""

    span: Span
    impact: Decimal
    rates: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class View:
    found: FoundIncident
    reviews: Sequence[OfIncident]
    title: str
    service: str
    severity: int
    status: IncidentStatus
    declared: bool
    monitoring: bool
    began_at: datetime
    detected_at: datetime
    recovered: bool
    end_words: str | None  # why it ended, unless all its alerts were reported to have ended
    measures: Mapping[str, Measured]
    downtime: timedelta
    cost: Mapping[str, Shown] | None
    labor: Mapping[str, Shown] | None
    priced: Sequence[Priced]
    more_priced: int
    link: Link | None
    choices: Sequence[Deployment]
    course: plot.Course
    path: Path
    series: int
    cut_lanes: bool
    lines: Sequence[Line]
    alerts: Sequence[AlertRow]
    silences: Sequence[ShownSilence]
    links: Sequence[Outside]
    window: timedelta | None
    acknowledged_via: str | None  # by which way, in words
    panel: Panel

    @property
    def is_open(self) -> bool:
        return self.status is not IncidentStatus.RESOLVED


def view(
    read: Everything, *, settings: Settings, zone: ZoneInfo, shown_time: ShownTime, all_alerts: bool, now: datetime
) -> View:
    row, facts = read.found.row, read.facts
    measured = measures(facts, now=now)
    tasks = [notes.task_of(entry) for entry in current_entries(read.entries, row.id, TimelineKind.TASK)]
    path = path_of(facts, tasks, now=now)
    numbers = {step.task.entry: number for number, step in enumerate(path.steps, 1)}
    worked = labor.of_incident(facts, settings.labor, now=now) if settings.labor else {}
    recovered = facts.ended_at is not None and facts.end_reason in RECOVERIES
    priced = _priced(read.impact)
    return View(
        found=read.found,
        reviews=read.reviews,
        title=row.title_stated or row.title,
        service=service(facts),
        severity=severity(facts),
        status=status(facts),
        declared=row.declared,
        monitoring=facts.alert_class is AlertClass.MONITORING,
        began_at=began(facts),
        detected_at=detected_at(facts),
        recovered=recovered,
        end_words=_end_words(facts),
        measures={name: measured[name] for name in SHOWN_MEASURES},
        downtime=read.impact.impact.downtime,
        cost=read.impact.impact.cost or None,
        labor=shown(worked) or None,
        priced=priced[:INTERVALS_AT_MOST],
        more_priced=max(0, len(priced) - INTERVALS_AT_MOST),
        link=read.link,
        choices=read.choices,
        course=plot.course(_history(read, facts, measured, path, numbers, now=now, recovered=recovered), zone),
        path=path,
        series=read.evidence.series,
        cut_lanes=any(len(lane.spans) >= plot.ALERTS_AT_MOST // plot.LANES_AT_MOST for lane in read.evidence.lanes),
        lines=lines(read.entries, row.id, numbers=numbers, detected_at=detected_at(facts), shown=shown_time),
        alerts=alert_rows(
            read.evidence.alerts, row.labels, characters=TEXT_OF_ALL_AT_MOST if all_alerts else TEXT_AT_MOST
        ),
        silences=shown_silences(read.evidence),
        links=links_of((alert.link, alert.annotations) for alert in read.evidence.alerts),
        window=_window(read),
        acknowledged_via=_way(read.found),
        panel=panel(
            read.response, declared_by=_declared_by(read), time_to_declare=measured["time_to_declare"], now=now
        ),
    )


def _declared_by(read: Everything) -> str | None:
    """The person who declared the response; the first declaration counts."""
    entries = current_entries(read.entries, read.found.row.id, TimelineKind.DECLARED)
    return next((each.by for each in entries if each.at == read.found.row.declared_at), None)


def _way(found: FoundIncident) -> str | None:
    """By which way it was acknowledged."""
    via, kind = found.row.acknowledged_via, found.acknowledged_in
    if via is None or kind is None:
        return None if via is None else _WAYS_HERE.get(via, f"source {words.cut(via, 60)}")
    return f"{SENDERS[kind].name if kind in SENDERS else kind} (source {words.cut(via, 60)})"


_WAYS_HERE = {"page": "this page", "api": "the API"}


def _end_words(facts: Facts) -> str | None:
    if facts.ended_at is None or facts.end_reason in {None, EndReason.RECOVERED}:
        return None
    return END_REASONS[str(facts.end_reason)]


def _window(read: Everything) -> timedelta | None:
    alerts = read.evidence.alerts
    return timedelta(seconds=alerts[0].window_seconds) if alerts else None


def _priced(found: DetailedImpact) -> list[Priced]:
    """Times with impact; those that follow each other with the same impact and rates are one."""
    currencies = sorted({rate.currency for rate in found.rates})
    priced: list[Priced] = []
    for span, impact in found.parts:
        begun = {currency: rate_at(found.rates, currency, span.start) for currency in currencies}
        rates = {currency: rate.expected for currency, rate in begun.items() if rate is not None}
        last = priced[-1] if priced else None
        if last and (last.span.end, last.impact, last.rates) == (span.start, impact, rates):
            priced[-1] = Priced(Span(last.span.start, span.end), impact, rates)
        else:
            priced.append(Priced(span, impact, rates))
    return priced


# — the course —


def _history(
    read: Everything,
    facts: Facts,
    measured: Mapping[str, Measured],
    path: Path,
    numbers: Mapping[int, int],
    *,
    now: datetime,
    recovered: bool,
) -> plot.History:
    until = facts.ended_at or max(now, detected_at(facts))
    began_at = min(began(facts), facts.began_at, detected_at(facts))
    named = (
        ("impact", facts.impact_started_at),
        ("detected", detected_at(facts)),
        ("acknowledged", facts.acknowledged_at),
        ("cause found", facts.identified_at),
        ("mitigated", facts.mitigated_at),
        ("recovered" if recovered else "ended", facts.ended_at),
    )
    deployment = read.link.deployment if read.link else None
    return plot.History(
        began_at=began_at,
        ended_at=max(until, began_at),
        recovered_at=facts.ended_at if recovered else None,
        moments=[plot.Moment(name, at) for name, at in named if at is not None],
        deployed=plot.Moment(f"{deployed_words(deployment)} deployed", deployment.began_at) if deployment else None,
        path=[plot.Point(point.at, point.level) for point in path.points],
        tasks=[
            plot.Task(
                numbers[step.task.entry], step.task.takes_effect_at, step.task.effect.value, step.level, step.task.text
            )
            for step in path.steps
        ],
        measures=_measures(facts, measured),
        deployments=[
            plot.Moment(deployed_words(each), each.began_at)
            for each in sorted(read.deployed, key=lambda each: each.began_at)
            if each.service == service(facts) and each.outcome not in {Outcome.PENDING, Outcome.CANCELED}
        ],
        series=[
            plot.Series(*lane_words(lane, read.found.row.labels), [plot.Firing(*span) for span in lane.spans])
            for lane in read.evidence.lanes
        ],
    )


def deployed_words(deployment: Deployment) -> str:
    return words.cut(words.visible(deployment.version or deployment.reported_id), 20)


def _measures(facts: Facts, measured: Mapping[str, Measured]) -> list[plot.Measure]:
    """The measures that have a length. A mitigation that no one stated is not drawn."""
    found = []
    for measure in MEASURES:
        start = measure.since(facts)
        if measure.name not in SHOWN_MEASURES or start is None:
            continue
        seconds, state, _, so_far = measured[measure.name]
        if seconds is not None:
            extent: plot.Extent = "recorded"
        elif so_far is not None and measure.name != "time_to_mitigate":
            seconds, extent = so_far, "running" if state is MeasureStatus.PENDING else "censored"
        else:
            continue
        end = start + timedelta(seconds=seconds)
        found.append(plot.Measure(measure.label, start, end, extent, words.duration(seconds)))
    return found
