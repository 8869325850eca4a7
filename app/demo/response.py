"""What people do about an incident of the demo: acknowledge, look for the cause, repair, comment. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from app.base.http.requests.fields import rfc3339
from app.demo.catalog import Service
from app.demo.facts import Action, Alert

LONGEST_UNNOTICED = timedelta(minutes=9)


@dataclass(frozen=True, slots=True)
class Pace:
    """How an incident goes. `is_severe`: people state milestones and tasks. `is_ignored`: nobody acknowledges it."""

    began_at: datetime
    ended_at: datetime
    acknowledged_after: timedelta
    is_severe: bool
    is_ignored: bool
    is_false_alarm: bool


def correspond(random: Random, service: Service, alert: Alert, pace: Pace) -> list[Action]:
    """In order of time. An incident that recovers sooner than anybody looks is not acknowledged."""
    by = random.choice(service.team)
    actions = list(_afterwards(random, alert, pace, by))
    acknowledged_at = pace.began_at + pace.acknowledged_after
    if not pace.is_ignored and acknowledged_at < pace.ended_at:
        note = random.choice([*_LOOKING, None, None, None])
        actions.append(Action("acknowledge", acknowledged_at, by, note))
        if pace.ended_at - acknowledged_at > timedelta(minutes=8):
            actions += _worked_on(random, service, pace, acknowledged_at, by)
    return sorted(actions, key=lambda action: action.at)


def _afterwards(random: Random, alert: Alert, pace: Pace, by: str) -> Iterator[Action]:
    """Actions that are recorded with hindsight."""
    if pace.is_false_alarm:
        yield Action("note", pace.ended_at, by, "Nothing was wrong: the threshold is too low for a quiet hour")
        yield Action("correct", pace.ended_at, by, detail={"severity": "sev5"})
    elif pace.is_severe and random.random() < 0.45:
        before = min(timedelta(seconds=round(random.lognormvariate(5.4, 0.7))), LONGEST_UNNOTICED)
        stated = {"impact_started_at": rfc3339(pace.began_at - before)}
        yield Action("correct", pace.ended_at, by, detail=stated)
    elif random.random() < 0.15:
        yield Action("note", pace.ended_at, by, random.choice(_AFTERWARDS).format(alert=alert.labels["alertname"]))


def _worked_on(random: Random, service: Service, pace: Pace, since: datetime, by: str) -> Iterator[Action]:
    """Between acknowledgement and recovery."""
    rest = pace.ended_at - since

    def after(share: float) -> datetime:
        at = since + share * rest
        return at.replace(microsecond=0)

    if not pace.is_severe:
        if random.random() < 0.35:
            yield Action("note", after(random.uniform(0.2, 0.8)), by, random.choice(_LOOKING))
        return
    cause, remedy = random.choice(_CAUSES)
    found = random.uniform(0.25, 0.65)
    yield Action("task", after(0.04), by, random.choice(_FIRST_LOOKS), {"effect": "none", "stage": "triage"})
    attempt, effect = random.choice(_ATTEMPTS)
    if found > 0.4 or effect == "negative":
        until = rfc3339(after(0.9 * found))
        detail = {"effect": effect, "stage": "investigation", "ended_at": until}
        yield Action("task", after(0.5 * found), random.choice(service.team), attempt, detail)
    if random.random() < 0.75:
        yield Action("identified", after(found), by, cause)
    repaired = random.uniform(found + 0.1, 0.95)
    yield Action("task", after(found + 0.05), by, remedy, {"effect": "positive", "ended_at": rfc3339(after(repaired))})
    if random.random() < 0.55:
        yield Action("mitigated", after(repaired), by)
    if random.random() < 0.4:
        yield Action("task", after(0.97), by, "Confirmed with support", {"effect": "unknown"})


_LOOKING = (
    "Looking at the dashboards",
    "Checking the last deployment",
    "Asked the database team",
    "Same as last week?",
    "On it",
)
_FIRST_LOOKS = (
    "Read the logs of the newest pod",
    "Compared the error rate of all zones",
    "Checked what was deployed today",
    "Asked support what customers see",
)
_ATTEMPTS = (
    ("Restarted the pods", "none"),
    ("Added two replicas", "none"),
    ("Emptied the cache, which made the database busier", "negative"),
    ("Failed over to the other zone and back", "unknown"),
    ("Raised the connection limit", "none"),
)
_CAUSES = (
    ("The connection pool is exhausted", "Raised the pool size and restarted"),
    ("A query scans the whole table since yesterday", "Created the missing index"),
    ("The provider has an outage of its own", "Switched to the second provider"),
    ("A certificate has expired", "Installed the new certificate"),
    ("One node loses packets", "Drained the node"),
    ("The cache is too small for the sale", "Doubled the cache"),
    ("A feature flag sends all traffic to the new path", "Turned the flag off"),
)
_AFTERWARDS = (
    "{alert} again; a ticket exists",
    "It recovered by itself",
    "The runbook was out of date and has been corrected",
)
