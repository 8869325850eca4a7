"""How fast alerts are taken, beside what else would take them, and whether what was answered is there.

    python -m bench.ingest --quick              the ratios, one round; some 40 seconds
    python -m bench.ingest                      three rounds, then one thing varied at a time; several minutes
    python -m bench.ingest --history 5000000    also before and after that many alerts are stored; much longer

The service runs as a user starts it: `aftermath serve`, a data directory of its own, the built-in PostgreSQL, durable.
Debian's `wrk` posts what Alertmanager posts (`ingest.lua`), one alert a body or twenty, on the same machine. In the
same round, so that noise hits all, the same bodies go to an ASGI app that only reads them, the same alerts to Debian's
Alertmanager, the same rows into the same table by COPY and by a bare upsert. Machines differ and are noisy: ratios
within a round are what counts.

After each load the database is compared with what was answered: every alert of a body that was answered 2xx is there
once, with its times; beyond those only alerts of bodies that were not answered; the incidents are those of the law.
"""

import argparse
import asyncio
import json
import re
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import UUID

import asyncpg
import httpx
import psutil  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app import embedded
from app.cli import DATABASE
from app.incidents import lifecycle
from app.incidents.signal import End, EndReason
from tests.processes import RunningService, Service, a_process, an_alertmanager, free_port, program, until

LUA = Path(__file__).with_suffix(".lua")
# Alert 0 of a load that begins at 0 ms starts here, each further one a millisecond later: long ago, so that no time is
# in the future, and on one day, so that only the time of day changes.
DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
NOON_MS = 12 * 3_600_000
PATIENCE_SECONDS = 30  # for the last answers

Mode = Literal["new", "repeats", "half", "resolved"]
T = TypeVar("T")


# — what is sent —


@dataclass(frozen=True, slots=True)
class Load:
    """Loads of the same `run` tell of the same alerts; those of another have other fingerprints and other keys.

    `new`: every alert is new and fires. `repeats`: the first `known` bodies of the run, again and again. `half`: half
    of the alerts are new, half are resolves of the first `known` bodies. `resolved`: `known` bodies of new alerts that
    are over.
    """

    run: int
    alerts: int
    seconds: float
    mode: Mode = "new"
    keys: int = 1000
    connections: int = 64
    known: int = 0
    first_ms: int = 0
    spread: bool = False  # the alerts of a body have different keys, as if Alertmanager did not group by them

    def told(self, turn: int) -> tuple[range, range | None] | None:
        """The ids in body `turn`, and, of a resolve, the milliseconds at which they ended. As `told` in ingest.lua."""
        match self.mode:
            case "new":
                return self._ids(turn), None
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

    def _ids(self, body: int) -> range:
        return range(body * self.alerts, (body + 1) * self.alerts)

    def at(self, milliseconds: int) -> datetime:
        return DAY + timedelta(milliseconds=self.first_ms + milliseconds)

    @property
    def service(self) -> str:
        return f"shop-{self.run:04x}-"


# Places for digits, in characters that occur nowhere else: id of the alert, key, start and end as times of day.
ID, KEY, START, END = "~" * 12, "^" * 4, "||:||:||.|||", "@@:@@:@@.@@@"


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
    """As Alertmanager posts it: the alerts of one group."""
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


def _posted_alerts(load: Load, *, resolved: bool) -> object:
    """The same alerts as Prometheus posts them to Alertmanager: a firing one says until when to believe it."""
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
    """Where a load goes, and as what."""

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
    """What ingest.lua loads: the parameters, and templates with the places of their digits."""
    firing = target.request(load, resolved=False)
    resolved = firing if load.mode in {"new", "repeats"} else target.request(load, resolved=True)
    parameters = {
        "mode": json.dumps(load.mode),
        "seconds": load.seconds,
        "connections": load.connections,
        "alerts": load.alerts,
        "keys": load.keys,
        "known": load.known,
        "first_ms": load.first_ms,
        "spread": str(load.spread).lower(),
        "firing": _lua_template(firing, load.alerts),
        "resolved": _lua_template(resolved, load.alerts),
    }
    return "return {" + ", ".join(f"{name} = {value}" for name, value in parameters.items()) + "}\n"


def _lua_template(request: str, alerts: int) -> str:
    assert request.isascii(), "JSON's escapes are Lua's, but for those of other characters"
    slots = {"ids": ID, "keys": KEY, "starts": START, "ends": END}
    places = {name: [found.start() for found in re.finditer(re.escape(slot), request)] for name, slot in slots.items()}
    lists = (
        # The alert that a place belongs to; the envelope has places for the key of all only.
        f"{name} = {{{', '.join(f'{{{at}, {order * alerts // len(found)}}}' for order, at in enumerate(found))}}}"
        for name, found in places.items()
    )
    return f"{{request = {json.dumps(request)}, {', '.join(lists)}}}"


# — what was answered —


@dataclass(frozen=True, slots=True)
class Answered:
    """All that a load sent. `refused` are the turns that were not answered 2xx, with the status; 0: not at all."""

    load: Load
    sent: Sequence[int]  # bodies, by connection
    refused: Mapping[int, int]
    seconds: float
    latencies_us: Sequence[int]

    @property
    def webhooks(self) -> int:
        """Answered 2xx."""
        return sum(self.sent) - len(self.refused)

    @property
    def alerts(self) -> int:
        return self.webhooks * self.load.alerts

    @property
    def per_second(self) -> float:
        """Alerts."""
        return self.alerts / self.seconds

    def latency_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies_us)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] / 1000

    def turns(self) -> Iterator[int]:
        for connection, sent in enumerate(self.sent):
            yield from range(connection, connection + self.load.connections * sent, self.load.connections)


class LoadFailed(Exception):
    """wrk could not do its work."""


def drive(load: Load, target: Target, directory: Path) -> tuple[Answered, float]:
    """Puts the load on the target; also the seconds of CPU that wrk took. Raises LoadFailed."""
    parameters = directory / "load.lua"
    parameters.write_text(_lua_of(load, target))
    command = [
        *(program("wrk"), f"-t{load.connections}", f"-c{load.connections}"),
        *(f"-d{int(load.seconds) + PATIENCE_SECONDS}s", f"--timeout={PATIENCE_SECONDS}s", "-s", str(LUA)),
        *(f"http://127.0.0.1:{target.port}{target.path}", str(parameters)),
    ]
    before = _cpu_of_children()
    with a_process(command, directory / "wrk.log") as wrk:
        _end_when_done(wrk.process.pid, not_before=time.monotonic() + load.seconds)
        wrk.process.wait(PATIENCE_SECONDS * 2)
    return _answered(load, wrk.log()), _cpu_of_children() - before


def _end_when_done(pid: int, *, not_before: float) -> None:
    """Wrk sleeps for as long as it was told, whatever its threads do: when they have ended, it is woken."""
    with suppress(psutil.NoSuchProcess):
        wrk = psutil.Process(pid)
        while wrk.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)
            if time.monotonic() > not_before and wrk.num_threads() == 1:
                wrk.send_signal(signal.SIGINT)
                return


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _answered(load: Load, said: str) -> Answered:
    sent, latencies, refused = [0] * load.connections, list[int](), dict[int, int]()
    began, ended = list[float](), list[float]()
    for line in re.findall(r"^CONNECTION (.*)$", said, re.MULTILINE):
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
        raise LoadFailed(f"nothing was answered; wrk said:\n{said[:2000]}")
    if not began:
        raise LoadFailed(f"nothing was answered 2xx, but {sorted(set(refused.values()))}")
    return Answered(load, sent, refused, max(ended) - min(began), latencies)


# — what it cost —


@dataclass(frozen=True, slots=True)
class Figures:
    """What one load showed. Shares are of one core."""

    name: str
    answered: Answered
    cpu: Mapping[str, float]
    memory_mb: Mapping[str, float]
    wal_per_alert: float | None = None

    @property
    def per_second(self) -> float:
        return self.answered.per_second

    @property
    def p99(self) -> float:
        return self.answered.latency_ms(99)


Processes = Callable[[], Mapping[str, Sequence[psutil.Process]]]


def _cpu(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            # Of children that have ended: PostgreSQL's autovacuum comes and goes.
            total += used.user + used.system + used.children_user + used.children_system
    return total


def _memory_mb(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss / 2**20  # of what is shared, a share
    return total


def measured(name: str, load: Load, target: Target, processes: Processes, directory: Path) -> Figures:
    before = {group: _cpu(members) for group, members in processes().items()}
    began, busy, own = time.perf_counter(), _busy(), time.process_time()
    answered, of_wrk = drive(load, target, directory)
    groups = processes()
    used = {group: _cpu(members) - before[group] for group, members in groups.items()} | {"wrk": of_wrk}
    others = _busy() - busy - sum(used.values()) - (time.process_time() - own)
    return Figures(
        name,
        answered,
        {group: seconds / answered.seconds for group, seconds in used.items()}
        | {"others": max(0.0, others / (time.perf_counter() - began))},
        {group: _memory_mb(members) for group, members in groups.items()},
    )


def _busy() -> float:
    """Seconds that all processors of this machine have worked."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


# — the service —


@dataclass
class Loaded:
    """A running service, what it has been told, and whether it holds that."""

    running: RunningService
    directory: Path
    runs: Iterator[int]
    told: dict[int, list[Answered]] = field(default_factory=lambda: defaultdict(list))

    @property
    def target(self) -> Target:
        assert self.running.snippet, "the first start prints a receiver"
        token = self.running.snippet.partition("credentials: ")[2].strip()
        return Target(self.running.service.port, "/webhooks/alertmanager", token)

    def processes(self) -> Mapping[str, Sequence[psutil.Process]]:
        postgres = self.running.service.postgres()
        of_postgres = {process.pid for process in postgres}
        main = psutil.Process(self.running.process.pid)
        ours = [one for one in (main, *main.children(recursive=True)) if one.pid not in of_postgres]
        return {"service": ours, "postgres": postgres}

    def ask(self, question: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Of its database."""
        address = embedded.running(self.running.service.data_dir)
        assert address is not None, "it runs"

        async def asked() -> T:
            connection = await asyncpg.connect(
                host=str(address.socket_directory), user=embedded.ROLE, password=address.password, database=DATABASE
            )
            try:
                return await question(connection)
            finally:
                await connection.close()

        return asyncio.run(asked())

    def put(self, name: str, load: Load) -> Figures:
        """The load, and the check after it. Raises Wrong."""
        counted, wal = self._counted(), self.ask(_wal)
        figures = measured(name, load, self.target, self.processes, self.directory)
        wal = self.ask(_wal) - wal
        answered = figures.answered
        self.told[load.run].append(answered)
        check_counters(answered, counted, self._counted)
        self.ask(lambda connection: check_stored(connection, self.told[load.run]))
        return replace(figures, wal_per_alert=wal / answered.alerts)

    def _counted(self) -> dict[str, int]:
        """Webhooks and alerts, as Prometheus is told."""
        with self.running.client() as client:
            text = client.get("/metrics").raise_for_status().text
        counted = {"deliveries": 0, "signals": 0}
        for family in text_string_to_metric_families(text):
            name = family.name.removeprefix("aftermath_")
            if name in counted:
                counted[name] += sum(int(sample.value) for sample in family.samples if sample.name.endswith("_total"))
        return counted


@contextmanager
def a_service(directory: Path, *, workers: int = 1) -> Iterator[Loaded]:
    """New and warm."""
    directory.mkdir()
    service = Service(directory, {"AFTERMATH_LOG_LEVEL": "warning", "AFTERMATH_WORKERS": str(workers)})
    with service.serve() as running:
        loaded = Loaded(running, directory, iter(range(1, 2**16)))
        for alerts in (1, 20):
            loaded.put("warming up", Load(next(loaded.runs), alerts, 1.0))
        yield loaded
        running.stop()


async def _wal(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'"))


# — is it there? —


class Wrong(Exception):
    """The service holds something else than what it answered."""


def check_counters(answered: Answered, before: Mapping[str, int], count: Callable[[], Mapping[str, int]]) -> None:
    """Prometheus is told of as many deliveries and signals as were answered, and of none twice. Raises Wrong."""
    unanswered = len(answered.refused)
    at_least = {"deliveries": answered.webhooks, "signals": answered.alerts}
    at_most = {
        "deliveries": answered.webhooks + unanswered,
        "signals": answered.alerts + unanswered * answered.load.alerts,
    }
    seen: dict[str, int] = {}

    def are_told() -> bool:
        now = count()
        seen.update({name: now[name] - before[name] for name in at_least})
        return all(at_least[name] <= seen[name] for name in at_least)

    with suppress(AssertionError):
        until(are_told, "all are counted", within=5)
    if any(not at_least[name] <= seen[name] <= at_most[name] for name in at_least):
        raise Wrong(f"answered: {at_least}, not answered: {unanswered}; counted by the service: {seen}")


async def check_stored(connection: asyncpg.Connection, told: Sequence[Answered]) -> None:
    """The alerts and incidents of one run against all that it was told. Raises Wrong."""
    load = told[0].load
    since = load.at(0)
    alerts = list(map(dict, await connection.fetch(_ALERTS, load.service, f"{load.run:04x}", since)))
    incidents = list(map(dict, await connection.fetch(_INCIDENTS, load.service, since)))
    differences = [*stored_differs(told, alerts), *law_differs(alerts, incidents)]
    if differences:
        raise Wrong("; ".join(differences))


_ALERTS = """
    SELECT alert.*
      FROM alert
     WHERE alert.key_id IN (SELECT incident.key_id FROM incident WHERE starts_with(incident.service, $1))
       AND starts_with(alert.fingerprint, $2)
       AND alert.started_at >= $3
"""
_INCIDENTS = """
    SELECT *
      FROM incident
     WHERE starts_with(service, $1)
       AND began_at >= $2
       AND merged_into IS NULL
     ORDER BY key_id, began_at
"""


def stored_differs(told: Sequence[Answered], alerts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    load = told[0].load
    sure, unsure = _told_of(told)
    stored = [int(alert["fingerprint"][4:]) for alert in alerts]
    once = set(stored)
    if missing := sure.keys() - once:
        yield f"{len(missing)} of {len(sure)} alerts that were answered 2xx are missing, such as {min(missing)}"
    if len(once) != len(stored):
        yield f"{len(stored) - len(once)} alerts are there twice"
    if strangers := once - sure.keys() - unsure:
        yield f"{len(strangers)} alerts are there that nobody sent, such as {min(strangers)}"
    if moved := [id_ for id_, alert in zip(stored, alerts, strict=True) if alert["started_at"] != load.at(id_)]:
        yield f"{len(moved)} alerts have another start than was told, such as {min(moved)}"
    ends = {id_: alert["ended_at"] for id_, alert in zip(stored, alerts, strict=True)}
    if differ := [id_ for id_ in sure.keys() & once - unsure if ends[id_] != sure[id_]]:
        yield f"{len(differ)} alerts have another end than was told, such as {min(differ)}"


def _told_of(told: Sequence[Answered]) -> tuple[dict[int, datetime | None], set[int]]:
    """The alerts that were acknowledged, with their ends; and those of bodies that were not."""
    sure: dict[int, datetime | None] = {}
    unsure = set[int]()
    for answered in told:
        for turn in answered.turns():
            body = answered.load.told(turn)
            assert body is not None, "only what there is to tell is sent"
            ids, ends = body
            if turn in answered.refused:
                unsure.update(ids)
            elif ends is None:
                sure |= {id_: None for id_ in ids if id_ not in sure}
            else:
                sure.update(zip(ids, map(answered.load.at, ends), strict=True))
    return sure, unsure


def law_differs(alerts: Iterable[Mapping[str, Any]], incidents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Stored incidents against the law, applied afresh to the stored alerts."""
    by_key: dict[UUID, list[lifecycle.Alert]] = defaultdict(list)
    for alert in alerts:
        by_key[alert["key_id"]].append(
            lifecycle.Alert(
                alert["series"],
                alert["started_at"],
                End(alert["ended_at"], EndReason(alert["end_reason"])) if alert["ended_at"] else None,
                timedelta(seconds=alert["window_seconds"]),
                timedelta(seconds=alert["max_span_seconds"]),
                alert["severity"],
                impact_told_at=alert["impact_told_at"],
            )
        )
    lawful = {
        (key, course.began_at): course
        for key, of_key in by_key.items()
        for course in map(lifecycle.course_of, lifecycle.incidents_of(of_key))
    }
    stored = {(row["key_id"], row["began_at"]): _course(row) for row in incidents}
    if stored != lawful:
        other = sum(lawful.get(place) != course for place, course in stored.items())
        yield f"{len(lawful)} incidents by the law, {len(stored)} stored, of which {other} differ"


def _course(row: Mapping[str, Any]) -> lifecycle.Course:
    return lifecycle.Course(
        began_at=row["began_at"],
        last_start_at=row["last_start_at"],
        island_at=row["island_at"],
        first_ended_at=row["first_ended_at"],
        last_end=End(row["last_end_at"], EndReason(row["end_reason"])) if row["last_end_at"] else None,
        reach_at=row["reach_at"],
        reopened=row["reopened"],
        alerts=row["alerts"],
        open_alerts=row["open_alerts"],
        severity=row["severity"],
        impact_told_at=row["impact_told_at"],
    )


# — what else would take them —


async def bare(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Awaitable[None]]
) -> None:
    """An ASGI app that reads a body and answers 200: what HTTP alone costs, and the generator with it."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def bare_app(load: Load, directory: Path) -> Figures:
    port = free_port()
    command = [
        *(sys.executable, "-m", "uvicorn", "bench.ingest:bare", "--port", str(port), "--lifespan", "off"),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"),
    ]
    with a_process(command, directory / "bare.log") as running:
        until(lambda: httpx.get(f"http://127.0.0.1:{port}").status_code == 200, "the bare app answers")
        process = psutil.Process(running.process.pid)
        return measured("bare ASGI app", load, Target(port), lambda: {"service": [process]}, directory)


_ALERTMANAGER = """
route:
  receiver: nobody
  group_by: [alertname, service]
receivers:
  - name: nobody
"""


def alertmanager(load: Load, directory: Path) -> Figures:
    """Debian's, without a cluster, new and warm. Raises Wrong if it counts other alerts than it answered."""
    with (
        tempfile.TemporaryDirectory(dir=directory) as own,
        an_alertmanager(Path(own), _ALERTMANAGER, port := free_port()) as client,
    ):
        [process] = [one for one in psutil.Process().children() if str(port) in " ".join(one.cmdline())]
        target = Target(port, "/api/v2/alerts", body=_posted_alerts)

        def received() -> int:
            families = text_string_to_metric_families(client.get("/metrics").text)
            samples = [sample for family in families for sample in family.samples]
            return int(sum(one.value for one in samples if one.name == "alertmanager_alerts_received_total"))

        drive(replace(load, run=load.run + 2**15, seconds=1.0), target, directory)
        before = received()
        figures = measured("Alertmanager", load, target, lambda: {"service": [process]}, directory)
        taken, answered = received() - before, figures.answered
        if not answered.alerts <= taken <= answered.alerts + len(answered.refused) * load.alerts:
            raise Wrong(f"Alertmanager answered {answered.alerts} alerts and received {taken}")
        return figures


async def limits(connection: asyncpg.Connection, load: Load, rows: int = 50_000) -> dict[str, float]:
    """Rows per second into the table of alerts, on one connection, a transaction a batch: rows that the load left
    there, each made another by its series. What is sent is made ready before.
    """
    columns = [name for [name] in await connection.fetch(_COLUMNS)]
    others = ", ".join("gen_random_uuid() AS series" if name == "series" else f'"{name}"' for name in columns)
    run = f"{load.run:04x}"
    count = min(
        rows, int(await connection.fetchval("SELECT count(*) FROM alert WHERE starts_with(fingerprint, $1)", run))
    )
    await connection.execute(
        f"""CREATE TEMP TABLE again AS
            SELECT row_number() OVER () AS number, one.*
              FROM (SELECT {others} FROM alert WHERE starts_with(fingerprint, '{run}') LIMIT {count}) AS one"""  # noqa: S608
    )
    per_second = {}
    for size in (500, 64):
        await connection.execute("UPDATE again SET series = gen_random_uuid()")
        batches = [row[0] for row in await connection.fetch(_AS_JSON, size)]
        per_second[f"upsert of {size}"] = count / await _timed(connection.execute(_UPSERT, batch) for batch in batches)
        if size == 500:
            per_second["upsert of 500 present"] = count / await _timed(
                connection.execute(_UPSERT, batch) for batch in batches
            )
    await connection.execute("UPDATE again SET series = gen_random_uuid()")
    names = ", ".join(f'"{name}"' for name in columns)
    copies = []
    for first in range(0, count, 500):
        copies.append(BytesIO())
        await connection.copy_from_query(
            f"SELECT {names} FROM again WHERE number > {first} AND number <= {first} + 500",  # noqa: S608
            output=copies[-1],
        )
        copies[-1].seek(0)
    per_second["COPY of 500"] = count / await _timed(
        connection.copy_to_table("alert", source=one, columns=columns) for one in copies
    )
    return per_second


_COLUMNS = """
    SELECT attname
      FROM pg_attribute
     WHERE attrelid = 'alert'::regclass
       AND attnum > 0
       AND NOT attisdropped
       AND attgenerated = ''
     ORDER BY attnum
"""
_AS_JSON = """
    SELECT json_agg(to_jsonb(again) - 'number')::text
      FROM again
     GROUP BY (number - 1) / $1::integer
"""
_UPSERT = """
    INSERT INTO alert
    SELECT * FROM jsonb_populate_recordset(CAST(NULL AS alert), CAST($1::text AS jsonb))
        ON CONFLICT ON CONSTRAINT alert_pkey
        DO UPDATE SET ended_at = excluded.ended_at, last_seen_at = excluded.last_seen_at
"""


async def _timed(statements: Iterable[Awaitable[object]]) -> float:
    began = time.perf_counter()
    for statement in statements:
        await statement
    return time.perf_counter() - began


# — a round —

BATCHES = ("upsert of 500", "upsert of 64", "upsert of 500 present", "COPY of 500")


@dataclass(frozen=True, slots=True)
class Round:
    """All that is compared with one another, one after another; keys name what was measured and the alerts a body."""

    loads: Mapping[tuple[str, int], Figures]
    limits: Mapping[str, float]


def a_round(directory: Path, seconds: float, step: Callable[[str], None]) -> Round:
    loads: dict[tuple[str, int], Figures] = {}
    with a_service(directory) as service:
        for alerts in (1, 20):
            load = Load(next(service.runs), alerts, seconds)
            step(f"bare ASGI app, {alerts} a body")
            loads["bare", alerts] = bare_app(load, directory)
            step(f"Alertmanager, {alerts} a body")
            loads["alertmanager", alerts] = alertmanager(load, directory)
            step(f"service, {alerts} a body, new")
            loads["new", alerts] = service.put("new", load)
            step(f"service, {alerts} a body, repeats")
            loads["repeats", alerts] = service.put("repeats", repeats_of(loads["new", alerts].answered))
        step("the same rows by upsert and COPY")
        last = loads["new", 20].answered.load
        limit = service.ask(lambda connection: limits(connection, last))
    return Round(loads, limit)


def repeats_of(answered: Answered) -> Load:
    return replace(answered.load, mode="repeats", known=min(answered.sent) * answered.load.connections)


def half_of(answered: Answered) -> Load:
    return replace(answered.load, mode="half", known=min(answered.sent) * answered.load.connections)


# — one thing varied at a time —

VARIATIONS: Mapping[str, Mapping[str, Any]] = {
    "one hot key": {"keys": 1},
    "a key for each alert": {"spread": True},
    "1 connection": {"connections": 1},
    "16 connections": {"connections": 16},
    "256 connections": {"connections": 256},
}


def variations(directory: Path, seconds: float, step: Callable[[str], None]) -> Iterator[Figures]:
    with a_service(directory / "one") as service:
        for alerts in (1, 20):
            for name, changed in VARIATIONS.items():
                step(f"{name}, {alerts} a body")
                yield service.put(name, Load(next(service.runs), alerts, seconds, **changed))
            step(f"half resolves, {alerts} a body")
            fired = service.put("to be resolved", Load(next(service.runs), alerts, seconds))
            yield service.put("half resolves", half_of(fired.answered))
    with a_service(directory / "two", workers=2) as service:
        for alerts in (1, 20):
            step(f"2 workers, {alerts} a body")
            new = service.put("2 workers", Load(next(service.runs), alerts, seconds))
            yield new
            yield service.put("2 workers, repeats", repeats_of(new.answered))


# — what came out —


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio that is to be reached: at least `wanted`, or at most."""

    name: str
    ratios: Sequence[float]  # a round each
    wanted: float
    at_most: bool = False

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def missed_by(self) -> float:
        """A share of what is wanted; 0 where it is reached."""
        over = self.ratio / self.wanted - 1
        return max(0.0, over if self.at_most else -over)


def goals_of(rounds: Sequence[Round]) -> list[Goal]:
    def rate(one: Round, what: str, alerts: int) -> float:
        return one.loads[what, alerts].per_second

    def p99(one: Round, what: str, alerts: int) -> float:
        return one.loads[what, alerts].p99

    def wal(one: Round, what: str, alerts: int) -> float:
        return one.loads[what, alerts].wal_per_alert or 0.0

    goals = []
    for alerts, wanted in ((20, 1.5), (1, 1.0)):
        of_both = [(one, "new", alerts) for one in rounds], [(one, "alertmanager", alerts) for one in rounds]
        goals += [
            Goal(f"alerts/s, service ÷ Alertmanager, {alerts} a body", _ratios(rate, *of_both), wanted),
            Goal(f"p99, service ÷ Alertmanager, {alerts} a body", _ratios(p99, *of_both), 1.0, at_most=True),
        ]
    upserts = [rate(one, "new", 20) / one.limits["upsert of 500"] for one in rounds]
    goals.append(Goal("alerts/s, service at 20 a body ÷ bare upsert of 500", upserts, 0.5))
    for alerts in (20, 1):
        of_both = [(one, "repeats", alerts) for one in rounds], [(one, "new", alerts) for one in rounds]
        goals += [
            Goal(f"alerts/s, repeats ÷ new, {alerts} a body", _ratios(rate, *of_both), 1.0),
            Goal(f"WAL an alert, repeats ÷ new, {alerts} a body", _ratios(wal, *of_both), 0.1, at_most=True),
        ]
    return goals


Place = tuple[Round, str, int]


def _ratios(value: Callable[[Round, str, int], float], above: Sequence[Place], below: Sequence[Place]) -> list[float]:
    return [value(*one) / value(*other) for one, other in zip(above, below, strict=True)]


def shown_goals(goals: Sequence[Goal]) -> Table:
    table = Table("ratio, medians of rounds", "of each round", "median", "wanted", "", title="Goals")
    for goal in goals:
        sign = "≤" if goal.at_most else "≥"
        verdict = f"[red]missed by {goal.missed_by:.0%}" if goal.missed_by else "[green]reached"
        each = " ".join(f"{ratio:.2f}" for ratio in goal.ratios)
        table.add_row(goal.name, each, f"{goal.ratio:.2f}", f"{sign} {goal.wanted:g}", verdict)
    return table


def shown_figures(title: str, rows: Sequence[Figures]) -> Table:
    """Shares of CPU in percent of one core; `others` is what else the machine did, so how far to trust the row."""
    columns = ("load", "a body", "alerts/s", "webhooks/s", "p50 ms", "p99 ms", "not 2xx")
    table = Table(
        *columns, "CPU %: service", "postgres", "wrk", "others", "MB: service", "postgres", "WAL B/alert", title=title
    )
    for row in rows:
        answered = row.answered
        table.add_row(
            row.name,
            str(answered.load.alerts),
            f"{row.per_second:,.0f}",
            f"{answered.webhooks / answered.seconds:,.0f}",
            f"{answered.latency_ms(50):.1f}",
            f"{row.p99:.1f}",
            str(len(answered.refused)),
            *(
                f"{row.cpu[group]:.0%}".rstrip("%") if group in row.cpu else ""
                for group in ("service", "postgres", "wrk", "others")
            ),
            *(f"{row.memory_mb[group]:.0f}" if group in row.memory_mb else "" for group in ("service", "postgres")),
            "" if row.wal_per_alert is None else f"{row.wal_per_alert:,.0f}",
        )
    return table


def shown_limits(rounds: Sequence[Round]) -> Table:
    table = Table("one connection, a transaction a batch", "rows/s, each round", title="The table of alerts alone")
    for name in rounds[0].limits:
        table.add_row(name, " ".join(f"{one.limits[name]:,.0f}" for one in rounds))
    return table


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("bench.ingest", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round and nothing varied")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load")
    asked = parser.parse_args(arguments)
    rounds = 1 if asked.quick else asked.rounds
    out = Console(width=None if sys.stdout.isatty() else 170)
    try:
        for name in ("wrk", "prometheus-alertmanager"):
            program(name)
        with tempfile.TemporaryDirectory(prefix="aftermath-bench-") as scratch, _progress(out) as step:
            directory = Path(scratch)
            done = [a_round(directory / f"round-{number}", asked.seconds, step) for number in range(rounds)]
            varied = [] if asked.quick else list(variations(directory, asked.seconds, step))
    except (FileNotFoundError, LoadFailed, Wrong) as error:
        out.print(f"[red]{error}", highlight=False)
        return 1
    out.print(shown_figures("Rounds", [figures for one in done for figures in one.loads.values()]))
    if varied:
        out.print(shown_figures("One thing varied", varied))
    out.print(shown_limits(done))
    out.print(shown_goals(goals_of(done)))
    out.print("After each load the database held exactly what was answered, and its incidents were those of the law.")
    return 0


@contextmanager
def _progress(out: Console) -> Iterator[Callable[[str], None]]:
    with Progress(console=out, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, description=text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
