"""Measures how fast alerts are ingested, compared with alternatives, and checks that acknowledged alerts are stored.

    python -m bench.ingest --quick              ratios only, one round; about a minute
    python -m bench.ingest                      three rounds, then one parameter varied at a time; several minutes
    python -m bench.ingest --history 5000000    with that many alerts stored, and without; much longer

The service runs as a user starts it: `aftermath serve` with its own data directory and the built-in, durable
PostgreSQL. Debian's `wrk` posts Alertmanager bodies (`load.py`) with one or twenty alerts from the same machine. In the
same round, so that noise affects all alike, the same bodies go to an ASGI app that only reads them, the same alerts to
Debian's Alertmanager, and the same rows into the same table by COPY and by a bare upsert. Machines differ and are
noisy, so only ratios within a round are meaningful.

After each load the database is compared with the responses: every alert in a body answered with 2xx is stored once,
with its times; other stored alerts come only from bodies without a 2xx response; incidents match the law.
"""

import argparse
import asyncio
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.base import postgres as embedded
from app.base.db import DATABASE
from bench.check import Wrong, check_counters, check_stored
from bench.load import Answered, Load, LoadFailed, Target, drive, posted_alerts
from tests.processes import RunningService, Service, a_process, an_alertmanager, free_port, program, until

NOON_MS = 12 * 3_600_000

T = TypeVar("T")


# — what it cost —


@dataclass(frozen=True, slots=True)
class Figures:
    """Results of one load. CPU figures are shares of one core."""

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

    @property
    def cpu_us_per_alert(self) -> float:
        """CPU time of the service and its PostgreSQL together."""
        return 1e6 * (self.cpu["service"] + self.cpu.get("postgres", 0.0)) / self.per_second


Processes = Callable[[], Mapping[str, Sequence[psutil.Process]]]


def _cpu(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            # Include children that have ended, such as PostgreSQL's autovacuum workers.
            total += used.user + used.system + used.children_user + used.children_system
    return total


def _memory_mb(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss / 2**20  # shared memory counts proportionally
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
    """Seconds that all processors of this machine have been busy."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


# — the service —


@dataclass
class Loaded:
    """A running service, with the loads sent to it, checked after each load."""

    running: RunningService
    directory: Path
    runs: Iterator[int]
    answers: dict[tuple[int, int], list[Answered]] = field(default_factory=lambda: defaultdict(list))

    @property
    def target(self) -> Target:
        assert self.running.snippet, "the first start prints a receiver configuration"
        token = self.running.snippet.partition("credentials: ")[2].strip()
        return Target(self.running.service.port, "/webhooks/alertmanager", token)

    def processes(self) -> Mapping[str, Sequence[psutil.Process]]:
        postgres = self.running.service.postgres()
        of_postgres = {process.pid for process in postgres}
        main = psutil.Process(self.running.process.pid)
        ours = [one for one in (main, *main.children(recursive=True)) if one.pid not in of_postgres]
        return {"service": ours, "postgres": postgres}

    def ask(self, question: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Runs a query on its database."""
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
        """Runs the load and checks the result. Raises Wrong."""
        counted, wal = self._counted(), self.ask(_wal)
        figures = measured(name, load, self.target, self.processes, self.directory)
        wal = self.ask(_wal) - wal
        answered = figures.answered
        check_counters(answered, counted, self._counted())
        answers = self.answers[load.run, load.first_ms]
        answers.append(answered)
        self.ask(lambda connection: check_stored(connection, answers))
        return replace(figures, wal_per_alert=wal / answered.alerts)

    def put_new(self, name: str, load: Load) -> Figures:
        """New alerts for keys that have an open incident."""
        self.put("opening", load.opening)
        return self.put(name, load.joining)

    def _counted(self) -> dict[str, int]:
        """Deliveries and signals according to `GET /metrics`, which leaves them out while the database does not respond
        in time.
        """

        def complete() -> str | None:
            text = client.get("/metrics").raise_for_status().text
            return text if re.search(r"^aftermath_database_up 1", text, re.MULTILINE) else None

        with self.running.client() as client:
            text = until(complete, "all metrics are exported")
        counted = {"deliveries": 0, "signals": 0}
        for name, value in re.findall(r"^aftermath_(deliveries|signals)_total\{.*\} (\S+)$", text, re.MULTILINE):
            counted[name] += int(float(value))
        return counted


@contextmanager
def a_service(directory: Path, *, workers: int = 1, **settings: str) -> Iterator[Loaded]:
    """A new service, warmed up. `settings` are more environment variables."""
    directory.mkdir()
    service = Service(directory, {"AFTERMATH_LOG_LEVEL": "warning", "AFTERMATH_WORKERS": str(workers), **settings})
    with service.serve() as running:
        loaded = Loaded(running, directory, iter(range(1, 2**16)))
        for alerts in (1, 20):
            loaded.put("warming up", Load(next(loaded.runs), alerts, 1.0))
        yield loaded
        running.stop()


async def _wal(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'"))


# — what else would take them —


async def bare(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Awaitable[None]]
) -> None:
    """An ASGI app that only reads the body and answers 200: the cost of HTTP and the load generator alone."""
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
    """Debian's Alertmanager without a cluster, warmed up. Raises Wrong if its counter does not match its responses."""
    with (
        tempfile.TemporaryDirectory(dir=directory) as own,
        an_alertmanager(Path(own), _ALERTMANAGER, port := free_port()) as client,
    ):
        [process] = [one for one in psutil.Process().children() if str(port) in " ".join(one.cmdline())]
        target = Target(port, "/api/v2/alerts", body=posted_alerts)

        def received() -> int:
            exposition = client.get("/metrics", timeout=60).text
            values = re.findall(r"^alertmanager_alerts_received_total\{.*\} (\S+)$", exposition, re.MULTILINE)
            return int(sum(map(float, values)))

        drive(load.opening, target, directory)
        before = received()
        figures = measured("Alertmanager", load.joining, target, lambda: {"service": [process]}, directory)
        taken, answered = received() - before, figures.answered
        if not answered.alerts <= taken <= answered.alerts + len(answered.refused) * load.alerts:
            raise Wrong(f"Alertmanager acknowledged {answered.alerts} alerts but counted {taken}")
        return figures


async def limits(connection: asyncpg.Connection, load: Load, rows: int = 50_000) -> dict[str, float]:
    """Rows per second written to the alert table, on one connection, one transaction per batch. The rows are those that
    the load stored, each with a new series; they are encoded beforehand.
    """
    columns = [name for name, _ in await connection.fetch(_COLUMNS, "alert")]
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
    SELECT attname, format_type(atttypid, NULL) AS type
      FROM pg_attribute
     WHERE attrelid = $1::text::regclass
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


@dataclass(frozen=True, slots=True)
class Round:
    """Everything that is compared, in turn; keys are the name of the measurement and the alerts per body."""

    loads: Mapping[tuple[str, int], Figures]
    limits: Mapping[str, float]


TWO = ", 2 workers"


def a_round(directory: Path, seconds: float, step: Callable[[str], None], *, keys: int = 1000) -> Round:
    loads: dict[tuple[str, int], Figures] = {}
    directory.mkdir()

    def served(service: Loaded, load: Load, workers: str) -> None:
        for what in (f"new{workers}", f"repeats{workers}"):
            step(f"service, {load.alerts} a body, {what}")
            loads[what, load.alerts] = (
                service.put_new(what, load)
                if what.startswith("new")
                else service.put(what, loads[f"new{workers}", load.alerts].answered.again("repeats"))
            )

    with a_service(directory / "two", workers=2) as service:
        for alerts in (1, 20):
            served(service, Load(next(service.runs), alerts, seconds, keys=keys), TWO)
    with a_service(directory / "one") as service:
        for alerts in (1, 20):
            load = Load(next(service.runs), alerts, seconds, keys=keys)
            step(f"bare ASGI app, {alerts} a body")
            loads["bare", alerts] = bare_app(load, directory)
            step(f"Alertmanager, {alerts} a body")
            loads["alertmanager", alerts] = alertmanager(load, directory)
            served(service, load, "")
        step("the same rows by upsert and COPY")
        last = loads["new", 20].answered.load
        limit = service.ask(lambda connection: limits(connection, last))
    return Round(loads, limit)


# — one thing varied at a time —

VARIATIONS: Mapping[str, Mapping[str, Any]] = {
    "1,000 keys, 64 connections": {},
    "one hot key": {"keys": 1},
    "a key for each alert of a body": {"spread": True},
    "1 connection": {"connections": 1},
    "16 connections": {"connections": 16},
    "256 connections": {"connections": 256},
}


def variations(directory: Path, seconds: float, step: Callable[[str], None]) -> Iterator[Figures]:
    with a_service(directory) as service:
        for alerts in (1, 20):
            for name, changed in VARIATIONS.items():
                step(f"{name}, {alerts} a body")
                yield service.put_new(name, Load(next(service.runs), alerts, seconds, **changed))
            step(f"an incident for each body, {alerts} a body")
            yield service.put("an incident for each body", Load(next(service.runs), alerts, seconds, keys=10**6))
            step(f"half resolves, {alerts} a body")
            fired = service.put_new("to be resolved", Load(next(service.runs), alerts, seconds))
            yield service.put("half resolves", fired.answered.again("half"))


# — with history —

FIRST_SEEDED = 1000  # number of the first seeded run; 03e8 in fingerprints and keys
SEEDS = 10_000  # alerts per run sent through the service; the history consists of copies of them, each further back
APART = timedelta(minutes=10)  # keeps the incidents of a key more than a window apart


def with_history(
    directory: Path, seconds: float, stored: int, rounds: int, step: Callable[[str], None]
) -> Iterator[tuple[Figures, Figures]]:
    """The same load on an almost empty service and on one that holds `stored` alerts, in turn.

    The loads use the series and keys of the history, as recurring alerts do.
    """
    sizes = (1, 20)
    runs = range(FIRST_SEEDED, FIRST_SEEDED + rounds * len(sizes))
    bodies = min(SEEDS, stored // len(runs) // 2) // 10
    seed = Load(0, 10, max(2.0, bodies / 20), mode="resolved", known=bodies)
    with a_service(directory / "empty") as empty, a_service(directory / "full") as full:
        for run in runs:
            step(f"the first {bodies * 10:,} alerts of run {run + 1 - FIRST_SEEDED} of {len(runs)}")
            for service in (empty, full):
                service.put("seed", replace(seed, run=run))
        full.ask(lambda connection: multiply(connection, stored // (bodies * 10 * len(runs)), step))
        # After a checkpoint, the first change of each page logs the whole page; get past that before measuring.
        step("pages in use")
        for service in (empty, full):
            service.put_new("pages in use", Load(next(service.runs), 20, 3 * seconds))
        for run, alerts in zip(runs, sizes * rounds, strict=True):
            load = Load(run, alerts, seconds, first_ms=NOON_MS)
            step(f"{alerts} a body, with and without history")
            both = [service.put_new("new", load) for service in (empty, full)]
            yield both[0], replace(both[1], name=f"new, {stored:,} stored")
            both = [
                service.put("repeats", one.answered.again("repeats"))
                for service, one in zip((empty, full), both, strict=True)
            ]
            yield both[0], replace(both[1], name=f"repeats, {stored:,} stored")


async def multiply(connection: asyncpg.Connection, copies: int, step: Callable[[str], None]) -> None:
    """Copies the seeded runs, their incidents and all deliveries, each copy further back in time. Raises Wrong."""
    inserts = [await _copier(connection, *one) for one in _COPIED]
    for first in range(1, copies + 1, 5):
        last = min(first + 4, copies)
        step(f"history: copy {last} of {copies}")
        for insert in inserts:
            await connection.execute(insert, first, last, APART)
    step("history: VACUUM, and the law")
    await connection.execute("VACUUM (ANALYZE)")
    await connection.execute("CHECKPOINT")
    if differing := await connection.fetchval(_UNLAWFUL):
        raise Wrong(f"{differing} incidents of the history violate the law")


# Tables, the rows to copy, and new values for columns that are neither times nor copied unchanged.
_COPIED: Sequence[tuple[str, str, Mapping[str, str]]] = (
    ("alert", "fingerprint >= '03e8'", {"incident_id": "md5(incident_id::text || copy)::uuid"}),
    (
        "incident",
        "service >= 'shop-03e8'",
        {
            "id": "md5(id::text || copy)::uuid",
            "number": "nextval('incident_number')",
            "settled_at": "coalesce(settled_at, now())",  # long ago
        },
    ),
    ("delivery", "true", {"id": "gen_random_uuid()"}),
)


async def _copier(connection: asyncpg.Connection, table: str, which: str, changed: Mapping[str, str]) -> str:
    """A statement that inserts copies $1 to $2 of the current rows, each $3 further back."""
    await connection.execute(f"CREATE TEMP TABLE seed_{table} AS SELECT * FROM {table} WHERE {which}")  # noqa: S608
    columns = {row["attname"]: str(row["type"]) for row in await connection.fetch(_COLUMNS, table)}
    earlier = {name: f'"{name}" - copy * $3::interval' for name, type_ in columns.items() if type_ == _TIME}
    values = [changed.get(name) or earlier.get(name) or f'"{name}"' for name in columns]
    return f"""
        INSERT INTO {table} ({", ".join(f'"{name}"' for name in columns)})
        SELECT {", ".join(values)}
          FROM seed_{table}, generate_series($1::integer, $2) AS copy"""  # noqa: S608


_TIME = "timestamp with time zone"
_UNLAWFUL = """
    SELECT count(*)
      FROM (SELECT key_id, lower(component) AS began_at, upper(component) - interval '5 minutes' AS ended_at
              FROM (SELECT key_id, unnest(range_agg(tstzrange(started_at, ended_at + interval '5 minutes', '[]')))
                        AS component
                      FROM alert
                     WHERE fingerprint >= '03e8'
                     GROUP BY key_id) AS components) AS lawful
      FULL JOIN (SELECT key_id, began_at, ended_at FROM incident WHERE service >= 'shop-03e8') AS stored
     USING (key_id, began_at, ended_at)
     WHERE lawful IS NULL
        OR stored IS NULL
"""


# — what came out —


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal: at least `wanted`, or at most if `at_most`. The median of the rounds counts."""

    name: str
    values: Sequence[float]  # of each round
    wanted: float
    at_most: bool = False

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def missed_by(self) -> float:
        """As a share of `wanted`; 0 if the goal is reached."""
        over = self.value / self.wanted - 1
        return max(0.0, over if self.at_most else -over)


Value = Callable[[Figures], float]
_RATE: Value = attrgetter("per_second")
_P99: Value = attrgetter("p99")
_WAL: Value = attrgetter("wal_per_alert")


def goals_of(rounds: Sequence[Round]) -> list[Goal]:
    """Ratios, which should hold on other machines too."""

    def ratios(value: Value, what: str, other: str, alerts: int) -> list[float]:
        return [value(one.loads[what, alerts]) / value(one.loads[other, alerts]) for one in rounds]

    goals = []
    for workers in ("", TWO):
        new, repeats = f"new{workers}", f"repeats{workers}"
        upserts = [_RATE(one.loads[new, 20]) / one.limits["upsert of 500"] for one in rounds]
        goals.append(Goal(f"alerts/s, service ÷ bare upsert of 500, 20 a body{workers}", upserts, 0.5))
        for alerts, ahead in ((20, 1.5), (1, 1.0)):
            rates, p99s = (ratios(value, new, "alertmanager", alerts) for value in (_RATE, _P99))
            again, wal = (ratios(value, repeats, new, alerts) for value in (_RATE, _WAL))
            goals += [
                Goal(f"alerts/s, service ÷ Alertmanager, {alerts} a body{workers}", rates, ahead),
                Goal(f"p99, service ÷ Alertmanager, {alerts} a body{workers}", p99s, 1.0, at_most=True),
                Goal(f"alerts/s, repeats ÷ new, {alerts} a body{workers}", again, 1.0),
                # Next to none.
                Goal(f"WAL an alert, repeats ÷ new, {alerts} a body{workers}", wal, 0.1, at_most=True),
            ]
    return goals


def absolute_goals_of(rounds: Sequence[Round]) -> list[Goal]:
    """Goals for two otherwise idle cores."""
    return [
        Goal(f"{what}, {new}, {alerts} a body", [value(one.loads[new, alerts]) for one in rounds], wanted, at_most)
        for new in ("new", f"new{TWO}")
        for what, value, alerts, wanted, at_most in (
            ("alerts/s", _RATE, 20, 20_000, False),
            ("alerts/s", _RATE, 1, 8_000, False),
            ("p99 ms", _P99, 20, 150, True),
            ("p99 ms", _P99, 1, 150, True),
        )
    ]


def history_goals_of(pairs: Sequence[tuple[Figures, Figures]]) -> list[Goal]:
    """An alert may cost 30 % more with history."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for empty, full in pairs:
        ratios[f"{empty.name}, {empty.answered.load.alerts} a body"].append(empty.per_second / full.per_second)
    return [
        Goal(f"time an alert, with ÷ without history: {name}", values, 1.3, at_most=True)
        for name, values in ratios.items()
    ]


def shown_goals(title: str, goals: Sequence[Goal]) -> Table:
    table = Table("", "each round", "median", "wanted", "", title=title)
    for goal in goals:
        verdict = f"[red]missed by {goal.missed_by:.0%}" if goal.missed_by else "[green]reached"
        each = "  ".join(f"{value:,.4g}" for value in goal.values)
        wanted = f"{'≤' if goal.at_most else '≥'} {goal.wanted:,g}"
        table.add_row(goal.name, each, f"{goal.value:,.4g}", wanted, verdict)
    return table


def shown_figures(title: str, rows: Sequence[Figures]) -> Table:
    """CPU is in percent of one core; `others` is unrelated work on the machine, which makes a row less reliable.
    µs/alert is the CPU time of service and PostgreSQL.
    """
    columns = ("load", "a body", "alerts/s", "webhooks/s", "p50 ms", "p99 ms", "not 2xx")
    table = Table(
        *columns,
        "CPU %: service",
        "postgres",
        "wrk",
        "others",
        "µs/alert",
        "MB: service",
        "postgres",
        "WAL B/alert",
        title=title,
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
            f"{row.cpu_us_per_alert:,.0f}",
            *(f"{row.memory_mb[group]:.0f}" if group in row.memory_mb else "" for group in ("service", "postgres")),
            "" if row.wal_per_alert is None else f"{row.wal_per_alert:,.0f}",
        )
    return table


def shown_limits(rounds: Sequence[Round]) -> Table:
    table = Table(
        "one connection, one transaction per batch", "rows/s, each round", title="Writing to the alert table only"
    )
    for name in rounds[0].limits:
        table.add_row(name, " ".join(f"{one.limits[name]:,.0f}" for one in rounds))
    return table


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("bench.ingest", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, no variations")
    parser.add_argument("--history", type=int, metavar="N", help="measure only with N alerts stored and without")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="duration of each load")
    asked = parser.parse_args(arguments)
    out = Console(width=None if sys.stdout.isatty() else 180)
    try:
        for name in ("wrk", "prometheus-alertmanager"):
            program(name)
        with tempfile.TemporaryDirectory(prefix="aftermath-bench-") as scratch, _progress(out) as step:
            for table in _measure(asked, Path(scratch), step):
                out.print(table)
    except (FileNotFoundError, LoadFailed, Wrong) as error:
        out.print(f"[red]{error}", highlight=False)
        return 1
    out.print("After each load the database matched the responses exactly, and its incidents matched the law.")
    return 0


def _measure(asked: argparse.Namespace, directory: Path, step: Callable[[str], None]) -> Iterator[Table]:
    if asked.history:
        pairs = list(with_history(directory, asked.seconds, asked.history, asked.rounds, step))
        yield shown_figures("With history and without", [figures for pair in pairs for figures in pair])
        yield shown_goals("Goals", history_goals_of(pairs))
        return
    rounds = [
        a_round(directory / f"round-{number}", asked.seconds, step)
        for number in range(1 if asked.quick else asked.rounds)
    ]
    yield shown_figures("Rounds", [figures for one in rounds for figures in one.loads.values()])
    if not asked.quick:
        yield shown_figures("One thing varied", list(variations(directory / "varied", asked.seconds, step)))
    yield shown_limits(rounds)
    yield shown_goals("Goals", goals_of(rounds))
    yield shown_goals("Goals for two otherwise idle cores", absolute_goals_of(rounds))


@contextmanager
def _progress(out: Console) -> Iterator[Callable[[str], None]]:
    with Progress(console=out, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, description=text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
