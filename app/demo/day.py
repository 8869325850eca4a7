"""The script of the demo: deliveries and actions of the 24 hours up to a given time. Pure."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Literal

from app.base.http.fields import rfc3339
from app.incidents.grouping.signal import fingerprint_of

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Alert:
    """One episode of an alerting rule. Without `ended_at`, it is still firing when the day ends."""

    labels: Mapping[str, str]
    summary: str
    started_at: datetime
    ended_at: datetime | None
    pending: str  # the rule's `for:`

    @property
    def service(self) -> str:
        return self.labels["service"]

    @property
    def name(self) -> str:
        return self.labels["alertname"]


@dataclass(frozen=True, slots=True)
class Described:
    """A person records the owner of a service and what an hour of its outage costs."""

    at: datetime
    service: str
    owner: str
    rates: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A sender posts to its webhook. `unreadable`: one of the alerts goes to quarantine."""

    at: datetime
    kind: Literal["alertmanager", "grafana"]
    body: dict[str, Any]
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Declared:
    """A person declares an incident that monitoring does not see."""

    at: datetime
    service: str
    title: str
    severity: str
    impact_started_at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Action:
    """A person acts on the incident of this alert, or on the one that was declared."""

    at: datetime
    about: Alert | Declared
    kind: Literal["acknowledge", "resolve", "identified", "mitigated"]
    by: str
    note: str | None = None


Step = Described | Delivery | Declared | Action


def the_day(now: datetime) -> list[Step]:
    """All steps in the 24 hours up to `now`, in chronological order. The same `now` always gives the same day."""
    script = _Script(now)
    at, alert, flapping = script.at, script.alert, script.flapping

    logins = alert("accounts", "LoginsFail", "critical", "41 % of logins fail", at(2, 10), at(2, 31))
    sessions = alert(
        "accounts", "SessionStoreSlow", "warning", "p99 of the session store is 900 ms", at(15), at(16, 40)
    )
    export = alert("reports", "NightlyExportFailed", "error", "the export has not finished", at(3, 20), at(4, 50))
    # Every gap is shorter than the window of five minutes: one incident that comes back twice.
    slow = flapping(
        "search", "HighLatency", "p99 above 2 s", (at(4), at(4, 12)), (at(4, 15), at(4, 20)), (at(4, 23), at(4, 41))
    )
    errors = [
        alert("checkout", "HighErrorRate", "critical", f"checkout-{pod} answers 500", at(6, 2 + pod), at(6, 40 + pod))
        for pod in (1, 2)
    ]
    crashing = alert("checkout", "PodCrashLooping", "warning", "checkout-2 restarts", at(6, 20), at(6, 47))
    few_orders = alert("checkout", "FewOrders", "high", "orders are 60 % below last week", at(6, 8), at(6, 52))
    gateway = alert("payments", "CardGatewayTimeouts", "high", "12 % of calls time out", at(9, 30), at(10, 50))
    refused = Declared(at(10, 5), "payments", "Some card payments are refused", "sev2", at(9, 48), "grace")
    # Further apart than the window: two incidents, until a late alert merges them.
    index = [
        alert("search", "IndexStale", "high", "the index is 20 minutes old", at(13, 10), at(13, 22)),
        alert("search", "IndexStale", "high", "the index is 20 minutes old", at(13, 40), at(13, 52)),
    ]
    replica = alert("search", "ReplicaLagging", "warning", "replica 3 is behind", at(13, 19), at(13, 43))
    queue = alert("orders", "QueueTooLong", "high", "4,211 orders are waiting", at(17), at(17, 45))
    brief = alert("checkout", "HighLatency", "warning", "p99 above 2 s", at(19, 30), at(19, 39))
    disks = [
        alert(
            "reports", "DiskAlmostFull", "minor", "less than 10 % are free", began, began + script.some_minutes(8, 30)
        )
        for began in (at(5, 30), at(8), at(12), at(18), at(21))
    ]
    still = alert("payments", "CardGatewayTimeouts", "critical", "38 % of calls time out", at(23, 35), None)

    from_prometheus = [logins, sessions, export, *slow, *errors, crashing, gateway, *index, brief, *disks, still]
    posted = [*_deliveries(from_prometheus, ALERTMANAGER, now), *_deliveries([few_orders, queue], GRAFANA, now)]
    steps: list[Step] = [
        *_services(at(0), at(12)),
        *posted,
        *_second_peer(posted, at(8), at(12)),
        # Late, from a disconnected data center: the alert has already ended and merges two incidents.
        Delivery(at(14, 10), "alertmanager", _body(ALERTMANAGER, [replica], at(14, 10))),
        _from_a_script(script, at(11, 40)),
        refused,
        Action(at(2, 12), logins, "acknowledge", "ada"),
        Action(at(4, 5), slow[0], "acknowledge", "barbara"),
        Action(at(6, 6), errors[0], "acknowledge", "ada", "Checking the 06:00 release"),
        Action(at(6, 15), errors[0], "identified", "ada", "The new release leaks connections"),
        Action(at(6, 39), errors[0], "mitigated", "ada", "Rolled back"),
        Action(at(8, 6), disks[1], "acknowledge", "barbara"),
        Action(at(10, 7), refused, "acknowledge", "grace"),
        Action(at(10, 22), gateway, "acknowledge", "grace", "The on-call engineer was on leave"),
        Action(at(10, 40), refused, "identified", "grace", "The gateway changed its certificate"),
        Action(at(11, 5), refused, "mitigated", "edsger", "New certificate is trusted"),
        Action(at(11, 25), refused, "resolve", "grace", "Support confirms"),
        Action(at(13, 14), index[0], "acknowledge", "barbara"),
        Action(at(15, 6), sessions, "acknowledge", "edsger"),
        Action(at(15, 35), sessions, "resolve", "edsger", "Failed over; the alert covers an hour and keeps firing"),
        Action(at(18, 7), disks[3], "acknowledge", "edsger"),
        Action(at(17, 21), queue, "acknowledge", "barbara"),
    ]
    return sorted(steps, key=lambda step: step.at)


def the_morning_after(ended_at: datetime) -> list[Step]:
    """Resolved notifications for all alerts still firing at the end of the day."""
    last: dict[str, Delivery] = {}
    for step in the_day(ended_at):
        if isinstance(step, Delivery) and not step.unreadable:
            last[step.body["groupKey"]] = step
    fixed_at = ended_at + timedelta(minutes=20)
    return [
        Delivery(fixed_at, step.kind, step.body | {"status": "resolved", "alerts": _resolved(step.body, fixed_at)})
        for step in last.values()
        if any(alert["status"] == "firing" for alert in step.body["alerts"])
    ]


def _resolved(body: Mapping[str, Any], at: datetime) -> list[dict[str, Any]]:
    return [
        alert | {"status": "resolved", "endsAt": rfc3339(at)} for alert in body["alerts"] if alert["status"] == "firing"
    ]


class _Script:
    """Times and alerts of one day, with the same pseudo-random seconds each time."""

    def __init__(self, ends_at: datetime) -> None:
        self.begins_at = ends_at - DAY
        self.labels = {"environment": "demo", "demo_day": rfc3339(ends_at)}
        self.random = random.Random(1906)  # noqa: S311  not used for secrets

    def at(self, hour: int, minute: int = 0) -> datetime:
        return self.begins_at + timedelta(hours=hour, minutes=minute)

    def some_minutes(self, least: int, most: int) -> timedelta:
        return timedelta(minutes=self.random.uniform(least, most))

    def alert(
        self, service: str, name: str, severity: str, summary: str, began: datetime, ended: datetime | None
    ) -> Alert:
        labels = {"alertname": name, "service": service, "severity": severity, **self.labels}
        if summary.startswith(f"{service}-"):
            labels["instance"] = summary.split(maxsplit=1)[0]
        shift = timedelta(milliseconds=self.random.randrange(30_000))
        pending = self.random.choice(["1m", "2m", "5m"])
        return Alert(labels, summary, began + shift, None if ended is None else ended + shift, pending)

    def flapping(self, service: str, name: str, summary: str, *episodes: tuple[datetime, datetime]) -> list[Alert]:
        return [self.alert(service, name, "warning", summary, began, ended) for began, ended in episodes]


def _services(at: datetime, sale_at: datetime) -> list[Step]:
    """All services except `reports`, which its first alert creates. It has no rate: its cost is unknown, not 0."""

    def rate(currency: str, low: int, expected: int, high: int, **since: str) -> Mapping[str, str]:
        return {"currency": currency, "low": str(low), "expected": str(expected), "high": str(high), **since}

    sale = {"from": rfc3339(sale_at)}
    return [
        Described(at, "accounts", "Identity", (rate("EUR", 300, 900, 2_000),)),
        Described(
            at, "checkout", "Shop", (rate("EUR", 4_000, 9_000, 20_000), rate("EUR", 6_000, 14_000, 30_000, **sale))
        ),
        Described(at, "payments", "Payments", (rate("EUR", 1_000, 2_500, 6_000), rate("USD", 3_000, 8_000, 25_000))),
        Described(at, "search", "Discovery", (rate("EUR", 500, 1_500, 4_000),)),
        Described(at, "orders", "Logistics", (rate("USD", 200, 600, 1_500),)),
    ]


# — how senders deliver —


@dataclass(frozen=True, slots=True)
class Sender:
    kind: Literal["alertmanager", "grafana"]
    address: str
    group_wait: timedelta
    group_interval: timedelta
    repeat_interval: timedelta


ALERTMANAGER = Sender(
    "alertmanager",
    "http://alertmanager-0:9093",
    group_wait=timedelta(seconds=10),
    group_interval=timedelta(minutes=1),
    repeat_interval=timedelta(minutes=30),
)
GRAFANA = Sender(
    "grafana",
    "https://grafana.example.com/",
    group_wait=timedelta(seconds=30),
    group_interval=timedelta(minutes=5),
    repeat_interval=timedelta(hours=4),
)


def _deliveries(alerts: Iterable[Alert], sender: Sender, until: datetime) -> list[Delivery]:
    def group(alert: Alert) -> tuple[str, str]:
        return alert.name, alert.service

    return [
        Delivery(at, sender.kind, _body(sender, notified, at))
        for _, grouped in groupby(sorted(alerts, key=group), key=group)
        for at, notified in _notifications(list(grouped), sender, until)
    ]


def _notifications(alerts: Sequence[Alert], sender: Sender, until: datetime) -> Iterator[tuple[datetime, list[Alert]]]:
    """Times of the notifications for one group, with the alerts firing then or ended since the previous one."""
    fired: set[int] = set()
    at = last = min(alert.started_at for alert in alerts) + sender.group_wait
    while at <= until:
        firing = {
            place
            for place, alert in enumerate(alerts)
            if alert.started_at <= at and (alert.ended_at is None or at < alert.ended_at)
        }
        if firing != fired or (firing and at - last >= sender.repeat_interval):
            yield at, [alerts[place] for place in sorted(firing | fired)]
            fired, last = firing, at
        later = [alert.started_at for alert in alerts if alert.started_at > at]
        if firing:
            at += sender.group_interval
        elif later:
            at = min(later) + sender.group_wait
        else:
            return


def _body(sender: Sender, alerts: Sequence[Alert], at: datetime) -> dict[str, Any]:
    shown = [_shown(alert, at) for alert in alerts]
    is_firing = any(alert["status"] == "firing" for alert in shown)
    group = {"alertname": alerts[0].name, "service": alerts[0].service}
    body: dict[str, Any] = {
        "receiver": "aftermath",
        "status": "firing" if is_firing else "resolved",
        "alerts": shown,
        "groupLabels": group,
        "commonLabels": group,
        "commonAnnotations": {},
        "externalURL": sender.address,
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{alerts[0].name}", service="{alerts[0].service}"}}',
        "truncatedAlerts": 0,
    }
    if sender.kind == "grafana":
        title = f"[{'FIRING' if is_firing else 'RESOLVED'}:{len(shown)}] {alerts[0].name}"
        body |= {"version": "1", "orgId": 1, "title": title, "state": "alerting" if is_firing else "ok", "message": ""}
    return body


def _shown(alert: Alert, at: datetime) -> dict[str, Any]:
    is_over = alert.ended_at is not None and alert.ended_at <= at
    return {
        "status": "resolved" if is_over else "firing",
        "labels": dict(alert.labels),
        "annotations": {"summary": alert.summary, "for": alert.pending},
        "startsAt": rfc3339(alert.started_at),
        "endsAt": rfc3339(alert.ended_at) if is_over and alert.ended_at else "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": fingerprint_of(alert.labels),
    }


def _second_peer(posted: Iterable[Delivery], since: datetime, until: datetime) -> list[Delivery]:
    """For some hours, the two peers of an Alertmanager pair are partitioned and both send everything."""
    return [
        Delivery(step.at + timedelta(seconds=15), step.kind, step.body | {"externalURL": "http://alertmanager-1:9093"})
        for step in posted
        if step.kind == "alertmanager" and since <= step.at < until
    ]


def _from_a_script(script: _Script, at: datetime) -> Delivery:
    """From a custom backup script that writes dates as dd/mm. Only the unreadable alert goes to quarantine."""
    before = timedelta(minutes=10)
    good = script.alert("reports", "BackupFailed", "warning", "no space left on device", at - before, at)
    unreadable = _shown(script.alert("reports", "BackupLate", "warning", "backup of yesterday", at - before, None), at)
    body = _body(ALERTMANAGER, [good], at + before)
    unreadable["startsAt"] = f"{at:%d/%m/%Y %H:%M}"
    return Delivery(
        at + before,
        "alertmanager",
        body | {"status": "firing", "alerts": [*body["alerts"], unreadable]},
        unreadable=True,
    )
