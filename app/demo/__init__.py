"""`aftermath demo`: a believable day of alerts through the real doors, so that a newcomer sees numbers.

`the_day` is the script, and pure: what monitoring sends and people say in the 24 hours up to a moment. `play` performs
it. Every alert carries `environment="demo"`, so that it never joins an incident of your own, and `demo_day`, the end of
its day: by that a second play finds the first and repeats the same day, which changes nothing.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Literal

import httpx
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from app.base.errors import Problem
from app.base.http.fields import rfc3339
from app.incidents.grouping.signal import fingerprint_of

DAY = timedelta(days=1)


class CannotPlay(Problem):
    """Why, and what to do."""


async def play(
    url: str,
    token: str,
    seconds: float,
    out: Console,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    now: datetime | None = None,
) -> None:
    """Performs the day that ends now, or the one that was played less than a day ago, in about so many seconds.

    Raises CannotPlay.
    """
    now = (now or datetime.now(UTC)).replace(microsecond=0)
    url = url.rstrip("/")
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, transport=transport) as client:
            player = _Player(client)
            played = await player.last_day()
            is_known = played is not None and now - played < DAY
            ends_at = played if played is not None and is_known else now
            steps = the_day(ends_at)
            if played is not None and not is_known:
                steps = [*the_morning_after(played), *steps]
            out.print(
                f"Playing the 24 hours up to {ends_at:%Y-%m-%d %H:%M} UTC against {url}"
                + (", again: it has been played before, and nothing changes." if is_known else "."),
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            await _perform(player, steps, seconds, out)
            await _tell_numbers(player, ends_at, url, out)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise CannotPlay(
            f"no answer from {url} ({type(error).__name__}): start the service with `make run`, "
            "or say with --url where it is"
        ) from None


# — the script —


@dataclass(frozen=True, slots=True)
class Alert:
    """One episode as its rule sees it. Without `ended_at` it still fires when the day ends."""

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
    """Somebody tells whose service it is, and what an hour of its outage costs."""

    at: datetime
    service: str
    owner: str
    rates: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Monitoring knocks. `unreadable`: something in it goes to quarantine."""

    at: datetime
    kind: Literal["alertmanager", "grafana"]
    body: dict[str, Any]
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Declared:
    """A person sees trouble that monitoring does not."""

    at: datetime
    service: str
    title: str
    severity: str
    impact_started_at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Word:
    """A person says something of the incident in which this alert fired, or of the one that was declared."""

    at: datetime
    about: Alert | Declared
    says: Literal["acknowledge", "resolve", "identified", "mitigated"]
    by: str
    note: str | None = None


Step = Described | Delivery | Declared | Word


def the_day(now: datetime) -> list[Step]:
    """What happens in the 24 hours up to `now`, in order of time. The same `now` gives the same day."""
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
    # Further apart than the window: two incidents, until an alert between them is heard of.
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
    told = [*_deliveries(from_prometheus, ALERTMANAGER, now), *_deliveries([few_orders, queue], GRAFANA, now)]
    steps: list[Step] = [
        *_services(at(0), at(12)),
        *told,
        *_second_peer(told, at(8), at(12)),
        # From a data centre that was cut off: what it tells is over and fits between two incidents.
        Delivery(at(14, 10), "alertmanager", _body(ALERTMANAGER, [replica], at(14, 10))),
        _from_a_script(script, at(11, 40)),
        refused,
        Word(at(2, 12), logins, "acknowledge", "ada"),
        Word(at(4, 5), slow[0], "acknowledge", "barbara"),
        Word(at(6, 6), errors[0], "acknowledge", "ada", "Looking at the release of six o'clock"),
        Word(at(6, 15), errors[0], "identified", "ada", "The new release leaks connections"),
        Word(at(6, 39), errors[0], "mitigated", "ada", "Rolled back"),
        Word(at(8, 6), disks[1], "acknowledge", "barbara"),
        Word(at(10, 7), refused, "acknowledge", "grace"),
        Word(at(10, 22), gateway, "acknowledge", "grace", "The page went to somebody on leave"),
        Word(at(10, 40), refused, "identified", "grace", "The gateway changed its certificate"),
        Word(at(11, 5), refused, "mitigated", "edsger", "New certificate is trusted"),
        Word(at(11, 25), refused, "resolve", "grace", "Support confirms"),
        Word(at(13, 14), index[0], "acknowledge", "barbara"),
        Word(at(15, 6), sessions, "acknowledge", "edsger"),
        Word(at(15, 35), sessions, "resolve", "edsger", "Failed over; the alert looks back an hour and fires on"),
        Word(at(18, 7), disks[3], "acknowledge", "edsger"),
        Word(at(17, 21), queue, "acknowledge", "barbara"),
    ]
    return sorted(steps, key=lambda step: step.at)


def the_morning_after(ended_at: datetime) -> list[Step]:
    """The all-clear for what still fired when the day that ended then was over."""
    last: dict[str, Delivery] = {}
    for step in the_day(ended_at):
        if isinstance(step, Delivery) and not step.unreadable:
            last[step.body["groupKey"]] = step
    fixed_at = ended_at + timedelta(minutes=20)
    return [
        Delivery(fixed_at, step.kind, step.body | {"status": "resolved", "alerts": _all_clear(step.body, fixed_at)})
        for step in last.values()
        if any(alert["status"] == "firing" for alert in step.body["alerts"])
    ]


def _all_clear(body: Mapping[str, Any], at: datetime) -> list[dict[str, Any]]:
    return [
        alert | {"status": "resolved", "endsAt": rfc3339(at)} for alert in body["alerts"] if alert["status"] == "firing"
    ]


class _Script:
    """Times and alerts of one day. Seconds are at random, but always the same."""

    def __init__(self, ends_at: datetime) -> None:
        self.begins_at = ends_at - DAY
        self.labels = {"environment": "demo", "demo_day": rfc3339(ends_at)}
        self.random = random.Random(1906)  # noqa: S311  for looks, not for secrets

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
    """All but `reports`: it appears by itself, and has no cost, which is not 0."""

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


# — how senders tell —


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
        Delivery(at, sender.kind, _body(sender, told, at))
        for _, grouped in groupby(sorted(alerts, key=group), key=group)
        for at, told in _told(list(grouped), sender, until)
    ]


def _told(alerts: Sequence[Alert], sender: Sender, until: datetime) -> Iterator[tuple[datetime, list[Alert]]]:
    """When a sender tells of one group, and of what: each time all that fires, and what ended since it last told."""
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


def _second_peer(told: Iterable[Delivery], since: datetime, until: datetime) -> list[Delivery]:
    """For some hours the two Alertmanagers of a pair do not hear of one another, and both tell everything."""
    return [
        Delivery(step.at + timedelta(seconds=15), step.kind, step.body | {"externalURL": "http://alertmanager-1:9093"})
        for step in told
        if step.kind == "alertmanager" and since <= step.at < until
    ]


def _from_a_script(script: _Script, at: datetime) -> Delivery:
    """Somebody's own backup script, which writes the day before the month. Only the alert it spoils is put aside."""
    before = timedelta(minutes=10)
    good = script.alert("reports", "BackupFailed", "warning", "no space left on device", at - before, at)
    spoilt = _shown(script.alert("reports", "BackupLate", "warning", "backup of yesterday", at - before, None), at)
    body = _body(ALERTMANAGER, [good], at + before)
    spoilt["startsAt"] = f"{at:%d/%m/%Y %H:%M}"
    return Delivery(
        at + before, "alertmanager", body | {"status": "firing", "alerts": [*body["alerts"], spoilt]}, unreadable=True
    )


# — the performance —


async def _perform(player: "_Player", steps: Sequence[Step], seconds: float, out: Console) -> None:
    began_at, length = steps[0].at, steps[-1].at - steps[0].at
    began = time.monotonic()
    columns = (TextColumn("{task.fields[hour]}"), BarColumn(None), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, console=out, transient=True) as progress:
        bar = progress.add_task("", total=length.total_seconds(), hour="")
        for step in steps:
            passed = step.at - began_at
            await asyncio.sleep(max(0.0, began + passed / length * seconds - time.monotonic()))
            line = await player.do(step)
            progress.update(bar, completed=passed.total_seconds(), hour=f"{step.at:%H:%M}")
            if line is not None:
                out.print(f"{step.at:%H:%M}  {line}", highlight=False, markup=False, soft_wrap=True)


TOLD_AS = {
    "acknowledge": ("acknowledged_at", "acknowledges"),
    "identified": ("identified_at", "knows the cause of"),
    "mitigated": ("mitigated_at", "has ended the harm of"),
    "resolve": ("resolved_at", "resolves"),
}


class _Player:
    """Does each step over HTTP, and keeps count of what the doors answered."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.deliveries = 0
        self.verdicts: Counter[str] = Counter()

    async def last_day(self) -> datetime | None:
        """When the day ended that was played last."""
        page = await self.ask("GET", "/api/v1/incidents", params={"label": "environment=demo", "limit": "500"})
        days = [item["labels"]["demo_day"] for item in page["items"] if "demo_day" in item["labels"]]
        return max(map(datetime.fromisoformat, days), default=None)

    async def do(self, step: Step) -> str | None:
        """What came of it in one line, or None where that is not worth one."""
        match step:
            case Described():
                return await self._describe(step)
            case Delivery():
                return await self._deliver(step)
            case Declared():
                return await self._declare(step)
            case Word():
                return await self._say(step)

    async def _describe(self, step: Described) -> str | None:
        path = f"/api/v1/services/{step.service}"
        known = await self._try("GET", path)
        if known.status_code == httpx.codes.OK and known.json()["owner"] is not None:
            return None  # by us, or yours of the same name: its rates are not ours to change
        await self.ask("PUT", path, json={"owner": step.owner})
        await self.ask("PUT", f"{path}/rates", json=step.rates)
        expected = " and ".join(f"{rate['currency']} {rate['expected']}" for rate in step.rates if "from" not in rate)
        return f"{step.service}: an hour of outage costs {expected}"

    async def _deliver(self, step: Delivery) -> str | None:
        if step.unreadable and await self._is_in_quarantine(step):
            return None
        receipt = await self.ask("POST", f"/webhooks/{step.kind}", json=step.body)
        self.deliveries += 1
        self.verdicts.update(receipt["verdicts"])
        news = [verdict for verdict in receipt["verdicts"] if verdict not in {"repeated", "joined"}]
        if not news:
            return None
        group = step.body["groupLabels"]
        about = ", ".join(receipt["incidents"])
        return f"{group['service']}: {group['alertname']} of {about}: {', '.join(news)}"

    async def _is_in_quarantine(self, step: Delivery) -> bool:
        page = await self.ask("GET", "/api/v1/quarantine", params={"replayed": "true", "limit": "500"})
        spoilt = step.body["alerts"][-1]
        return any(spoilt["fingerprint"] in item["raw"] and spoilt["startsAt"] in item["raw"] for item in page["items"])

    async def _declare(self, step: Declared) -> str | None:
        if await self._incident_of(step) is not None:
            return None
        declared = await self.ask(
            "POST",
            "/api/v1/incidents",
            json={
                "title": step.title,
                "service": step.service,
                "severity": step.severity,
                "impact_started_at": rfc3339(step.impact_started_at),
                "detected_at": rfc3339(step.at),
                "by": step.by,
            },
        )
        return f"{step.service}: {step.by} declares {declared['number']}, {step.title!r}"

    async def _say(self, step: Word) -> str | None:
        incident = await self._incident_of(step.about, step.at)
        field, says = TOLD_AS[step.says]
        if incident is None or incident[field] == rfc3339(step.at):
            return None
        word = {"at": rfc3339(step.at), "by": step.by, "note": step.note}
        path = f"/api/v1/incidents/{incident['number']}/{step.says}"
        if step.says in {"identified", "mitigated"}:
            path, word = f"/api/v1/incidents/{incident['number']}/milestones", word | {"milestone": step.says}
        answer = await self._try("POST", path, json=word)
        if answer.status_code == httpx.codes.CONFLICT:
            return None  # somebody has said otherwise since the day was played before
        self._read(answer)
        note = f": {step.note}" if step.note else ""
        return f"{step.about.service}: {step.by} {says} {incident['number']}{note}"

    async def _incident_of(self, about: Alert | Declared, at: datetime | None = None) -> Any:
        """Of an alert the newest incident that had begun by then; None if there is none."""
        if isinstance(about, Declared):
            asked: dict[str, Any] = {"from": rfc3339(about.at), "to": rfc3339(about.at + timedelta(seconds=1))}
        else:
            labels = [f"{name}={about.labels[name]}" for name in ("alertname", "demo_day")]
            asked = {"label": labels, "to": rfc3339(at or about.started_at)}
        page = await self.ask("GET", "/api/v1/incidents", params={"service": about.service, **asked})
        found = [item for item in page["items"] if isinstance(about, Alert) or item["title"] == about.title]
        return found[0] if found else None

    async def ask(self, method: str, path: str, **parts: Any) -> Any:
        """The answer as JSON. Raises CannotPlay if it is not a good one."""
        return self._read(await self._try(method, path, **parts))

    async def _try(self, method: str, path: str, **parts: Any) -> httpx.Response:
        return await self.client.request(method, path, **parts)

    def _read(self, answer: httpx.Response) -> Any:
        try:
            document = answer.json()
        except ValueError:
            raise CannotPlay(f"what answers at {self.client.base_url} is not Aftermath: name it with --url") from None
        if answer.is_success:
            return document
        why = document.get("detail", "") if isinstance(document, dict) else ""
        if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise CannotPlay(
                f"refused: {why}. The demo needs an admin token: the first start of the service printed one, "
                "and `aftermath token create demo --scope admin` makes another"
            )
        raise CannotPlay(f"{answer.request.method} {answer.request.url.path} was answered {answer.status_code}: {why}")


# — the numbers —


async def _tell_numbers(player: _Player, ends_at: datetime, url: str, out: Console) -> None:
    period = {"from": rfc3339(ends_at - DAY), "to": rfc3339(ends_at)}
    summary = await player.ask("GET", "/api/v1/metrics/summary", params={**period, "group_by": "service"})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("service")
    for name in ("incidents", "open", "TTA", "TTR", "downtime", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for numbers in summary["groups"]:
        table.add_row(numbers["filters"]["service"], *_cells(numbers))
    table.add_section()
    table.add_row("all", *_cells(summary["total"]))
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in player.verdicts.most_common())
    never = summary["total"]["measures"]["time_to_acknowledge"]["censored"]
    for text in (
        f"\n{player.deliveries} deliveries. What their alerts did: {verdicts}.\n",
        table,
        "TTA: from detection to the first acknowledgement. TTR: from the beginning to recovery.",
        "Shown are the least and the most; from ten values on the median.",
        f"{never} incidents ended unacknowledged: they have no TTA, which is not 0.\n",
        "Look at these next, with your token:\n",
    ):
        out.print(text, highlight=False)
    page = await player.ask("GET", "/api/v1/incidents", params={**period, "limit": "500"})
    busiest = max(page["items"], key=lambda item: (item["reopened"], item["alerts"]))["number"]
    for path in (
        "/api/v1/incidents?status=open",
        f"/api/v1/incidents/{busiest}",
        f"/api/v1/incidents/{busiest}/timeline",
        f"/api/v1/metrics/summary?from={period['from']}&to={period['to']}&group_by=service",
        "/metrics",
    ):
        out.print(f'  curl -H "Authorization: Bearer $TOKEN" "{url}{path}"', highlight=False, soft_wrap=True)
    out.print(f"\nAnd in a browser, without: {url}/docs", highlight=False, soft_wrap=True)


def _cells(numbers: Mapping[str, Any]) -> list[str]:
    measures = numbers["measures"]
    return [
        str(numbers["incidents"]["value"]),
        str(numbers["open"]["value"]),
        _typical(measures["time_to_acknowledge"]),
        _typical(measures["time_to_recover"]),
        _duration(numbers["downtime"]["seconds"]),
        _cost(numbers["cost"]),
    ]


def _typical(measure: Mapping[str, Any]) -> str:
    """The median where there is one; of few values the least and the most."""
    if measure["median"] is not None:
        return f"median {_duration(measure['median'])}"
    minutes = sorted({round(seconds / 60) for seconds in measure["values"] or ()})
    return f"{'–'.join(map(str, {minutes[0]: 0, minutes[-1]: 0}))} m" if minutes else "—"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} m" if minutes >= 60 else f"{minutes} m"


def _cost(cost: Mapping[str, Any]) -> str:
    amounts: Mapping[str, Mapping[str, str]] = cost["amounts"] or {}
    lines = [f"{currency} {Decimal(amount['expected']):,.0f}" for currency, amount in amounts.items()]
    return "\n".join(lines) or ("no rate" if cost["services_without_rate"] else "—")
