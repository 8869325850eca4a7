"""Sends a load of alerts to a server with Debian's `wrk` and records which requests were answered.

Bodies are those of Alertmanager, about 1.4 KB with one alert and 21 KB with twenty. The contents of a body follow from
its number, so that its alerts are known afterwards; `load.lua` fills in the digits. Bodies not answered with 2xx are
not counted.
"""

import json
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import psutil  # type: ignore[import-untyped]

from tests.processes import a_process, program

LUA = Path(__file__).with_suffix(".lua")
# Alert 0 of a load with `first_ms` 0 starts here, each further one a millisecond later: yesterday, so that no time is
# in the future, and within one day, so that only the time of day changes.
DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
PATIENCE_SECONDS = 30  # time to wait for the last responses

Mode = Literal["new", "repeats", "half", "resolved"]


# — what is sent —


@dataclass(frozen=True, slots=True)
class Load:
    """Loads of the same `run` send the same alerts; other runs have other fingerprints and other keys.

    `new`: every alert is new and firing, from body `first` up to body `known` if given. `repeats`: the first `known`
    bodies of the run, over and over. `half`: half of the alerts are new, half are resolves of the first `known` bodies.
    `resolved`: `known` bodies of new alerts that have already ended.

    `offered`: bodies per second, evenly; 0 means as many as are answered.
    """

    run: int
    alerts: int
    seconds: float
    mode: Mode = "new"
    keys: int = 1000
    connections: int = 64
    first: int = 0
    known: int = 0
    first_ms: int = 0
    offered: float = 0.0
    spread: bool = False  # the alerts of a body have different keys, as if Alertmanager did not group by them

    def contents(self, turn: int) -> tuple[range, range | None] | None:
        """The ids in body `turn` and, for a resolve, their ends in milliseconds. Mirrors `contents` in load.lua."""
        match self.mode:
            case "new":
                return (
                    (self._ids(self.first + turn), None) if not self.known or self.first + turn < self.known else None
                )
            case "repeats":
                return self._ids(turn % self.known), None
            case "resolved":
                return (self._ids(turn), self._ids(turn + self.known)) if turn < self.known else None
            case "half":
                round_, key = divmod(turn, self.keys)
                if round_ % 2 == 0:
                    return self._ids(self.known + turn), None
                earlier = (round_ - 1) // 2 * self.keys + key
                return (self._ids(earlier), self._ids(self.known + turn)) if earlier < self.known else None

    @property
    def opening(self) -> "Load":
        """One firing alert per key, so that later new alerts join an open incident, as most do in an alert storm."""
        return replace(
            self,
            mode="new",
            connections=min(64, self.keys),
            first=0,
            known=self.keys,
            seconds=PATIENCE_SECONDS,
            offered=0.0,
        )

    @property
    def joining(self) -> "Load":
        """New alerts after `opening`."""
        return replace(self, mode="new", first=self.keys, known=0)

    def _ids(self, body: int) -> range:
        return range(body * self.alerts, (body + 1) * self.alerts)

    def at(self, milliseconds: int) -> datetime:
        return DAY + timedelta(milliseconds=self.first_ms + milliseconds)

    @property
    def service(self) -> str:
        return f"shop-{self.run:04x}-"


# Placeholders for digits, in characters that occur nowhere else: alert id, key, start and end as times of day.
ID, KEY, START, END = "~" * 12, "^" * 6, "||:||:||.|||", "@@:@@:@@.@@@"


def _labels(load: Load) -> dict[str, str]:
    return {
        "alertname": "HighErrorRate",
        "cluster": "eu-west-1a",
        "container": "storefront",
        "endpoint": "http-metrics",
        "environment": "production",
        "instance": f"storefront-{ID}.shop.svc.cluster.local:8080",
        "job": "kubernetes-pods",
        "namespace": "shop",
        "pod": f"storefront-{ID}",
        "prometheus": "monitoring/prometheus-k8s",
        "service": f"{load.service}{KEY}",
        "severity": "critical",
        "team": "storefront",
    }


_ANNOTATIONS = {
    "summary": "More than 5 % of the requests of a storefront fail",
    "description": "For ten minutes more than one in twenty requests has been answered with a 5xx. Users see errors.",
    "runbook_url": "https://runbooks.example.com/storefront/high-error-rate",
}
_GENERATOR = (
    "http://prometheus-k8s-0:9090/graph?g0.expr=sum+by%28service%2Cpod%29+%28rate%28http_requests_total"
    "%7Bcode%3D~%225..%22%7D%5B5m%5D%29%29+%2F+sum+by%28service%2Cpod%29+%28rate%28http_requests_total%5B5m"
    "%5D%29%29+%3E+0.05&g0.tab=1"
)


def _webhook(load: Load, *, resolved: bool) -> object:
    """A body as Alertmanager posts it: the alerts of one group."""
    labels = _labels(load)
    shared = {name: value for name, value in labels.items() if ID not in value and not (load.spread and KEY in value)}
    group = {name: shared[name] for name in ("alertname", "service") if name in shared}
    status = "resolved" if resolved else "firing"
    alert = {
        "status": status,
        "labels": labels,
        "annotations": _ANNOTATIONS,
        "startsAt": f"{DAY:%Y-%m-%d}T{START}Z",
        "endsAt": f"{DAY:%Y-%m-%d}T{END}Z" if resolved else "0001-01-01T00:00:00Z",
        "generatorURL": _GENERATOR,
        "fingerprint": f"{load.run:04x}{ID}",
    }
    return {
        "receiver": "aftermath",
        "status": status,
        "alerts": [alert] * load.alerts,
        "groupLabels": group,
        "commonLabels": shared,
        "commonAnnotations": _ANNOTATIONS,
        "externalURL": "http://alertmanager-main-0:9093",
        "version": "4",
        "groupKey": "{}:{" + ", ".join(f'{name}="{value}"' for name, value in group.items()) + "}",
        "truncatedAlerts": 0,
    }


def posted_alerts(load: Load, *, resolved: bool) -> object:
    """The same alerts as Prometheus posts them to Alertmanager: `endsAt` of a firing alert is when it expires."""
    assert not resolved
    alert = {
        "labels": _labels(load),
        "annotations": _ANNOTATIONS,
        "startsAt": f"{DAY:%Y-%m-%d}T{START}Z",
        "endsAt": f"{DAY + timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}",
        "generatorURL": _GENERATOR,
    }
    return [alert] * load.alerts


@dataclass(frozen=True, slots=True)
class Target:
    """Where a load is sent, and in which format."""

    port: int
    path: str = "/"
    token: str = "none"  # noqa: S105
    body: Callable[..., object] = _webhook

    def request(self, load: Load, *, resolved: bool) -> str:
        body = json.dumps(self.body(load, resolved=resolved), separators=(",", ":"))
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nUser-Agent: Alertmanager/0.27.0\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )


def _lua_of(load: Load, target: Target) -> str:
    """The file that load.lua reads: parameters, and templates with the positions of their digits."""
    firing = target.request(load, resolved=False)
    resolved = firing if load.mode in {"new", "repeats"} else target.request(load, resolved=True)
    parameters = {
        "mode": json.dumps(load.mode),
        "seconds": load.seconds,
        "connections": load.connections,
        "alerts": load.alerts,
        "keys": load.keys,
        "first": load.first,
        "known": load.known,
        "first_ms": load.first_ms,
        "interval": load.connections / load.offered if load.offered else 0,
        "spread": str(load.spread).lower(),
        "firing": _lua_template(firing, load.alerts),
        "resolved": _lua_template(resolved, load.alerts),
    }
    return "return {" + ", ".join(f"{name} = {value}" for name, value in parameters.items()) + "}\n"


def _lua_template(request: str, alerts: int) -> str:
    assert request.isascii(), "JSON and Lua escape only ASCII characters alike"
    slots = {"ids": ID, "keys": KEY, "starts": START, "ends": END}
    places = {name: [found.start() for found in re.finditer(re.escape(slot), request)] for name, slot in slots.items()}
    lists = (
        # Each position with the index of its alert; in the envelope, only the key has positions.
        f"{name} = {{{', '.join(f'{{{at}, {order * alerts // len(found)}}}' for order, at in enumerate(found))}}}"
        for name, found in places.items()
    )
    return f"{{request = {json.dumps(request)}, {', '.join(lists)}}}"


# — what was answered —


@dataclass(frozen=True, slots=True)
class Answered:
    """Everything a load sent. `refused` maps turns not answered with 2xx to the status; 0 means no response."""

    load: Load
    sent: Sequence[int]  # bodies, by connection
    refused: Mapping[int, int]
    seconds: float
    latencies_us: Sequence[int]

    def again(self, mode: Mode) -> Load:
        """A load about the alerts that this load of new alerts, and those before it, sent."""
        return replace(self.load, mode=mode, first=0, known=self.load.first + min(self.sent) * self.load.connections)

    @property
    def webhooks(self) -> int:
        """Number of webhook requests answered with 2xx."""
        return sum(self.sent) - len(self.refused)

    @property
    def alerts(self) -> int:
        return self.webhooks * self.load.alerts

    @property
    def per_second(self) -> float:
        """Alerts per second."""
        return self.alerts / self.seconds

    def latency_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies_us)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] / 1000

    def turns(self) -> Iterator[int]:
        for connection, sent in enumerate(self.sent):
            yield from range(connection, connection + self.load.connections * sent, self.load.connections)


class LoadFailed(Exception):
    """wrk failed to produce a load."""


def drive(load: Load, target: Target, directory: Path) -> tuple[Answered, float]:
    """Runs the load; returns the responses and the CPU seconds that wrk used. Raises LoadFailed."""
    parameters = directory / "load.lua"
    parameters.write_text(_lua_of(load, target))
    command = [
        *(program("wrk"), f"-t{load.connections}", f"-c{load.connections}"),
        *(f"-d{int(load.seconds) + PATIENCE_SECONDS}s", f"--timeout={PATIENCE_SECONDS}s", "-s", str(LUA)),
        *(f"http://127.0.0.1:{target.port}{target.path}", str(parameters)),
    ]
    before = _cpu_of_children()
    with a_process(command, directory / "wrk.log") as wrk:
        _end_when_done(wrk.process.pid)
        wrk.process.wait(PATIENCE_SECONDS * 2)
    return _answered(load, wrk.log()), _cpu_of_children() - before


def _end_when_done(pid: int) -> None:
    """Stops wrk when its threads have ended; otherwise its main thread sleeps for the whole duration.

    Only after it has been the only thread for a while, because early threads may end before the last ones start.
    """
    alone = 0
    with suppress(psutil.NoSuchProcess):
        wrk = psutil.Process(pid)
        while (status := wrk.status()) != psutil.STATUS_ZOMBIE:
            alone = alone + 1 if status == psutil.STATUS_SLEEPING and wrk.num_threads() == 1 else 0
            if alone == 5:
                wrk.send_signal(signal.SIGINT)
                alone = 0
            time.sleep(0.02)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _answered(load: Load, output: str) -> Answered:
    sent, latencies, refused = [0] * load.connections, list[int](), dict[int, int]()
    began, ended = list[float](), list[float]()
    for line in re.findall(r"^CONNECTION (.*)$", output, re.MULTILINE):
        counts, refusals, micros = line.split(";")
        connection, number, acknowledged, began_at, ended_at = counts.split()
        sent[int(connection)] = int(number)
        for refusal in filter(None, refusals.split(",")):
            turn, status = map(int, refusal.split(":"))
            refused[int(connection) + load.connections * turn] = status
        latencies += map(int, filter(None, micros.split(",")))
        if int(acknowledged):
            began.append(float(began_at))
            ended.append(float(ended_at))
    if not latencies:
        raise LoadFailed(f"no request was answered; output of wrk:\n{output[:2000]}")
    if not began:
        raise LoadFailed(f"no request was answered with 2xx; statuses: {sorted(set(refused.values()))}")
    return Answered(load, sent, refused, max(ended) - min(began), latencies)
