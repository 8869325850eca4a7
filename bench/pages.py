"""Measures the web pages over a year of incidents: time, size and number of SQL statements.

A year until now with 100,000 incidents and 200 services, objectives, and one incident of 3,000 alerts, on the built-in
PostgreSQL. A tenth of the incidents is generated through the stores (`bench.history`); the others are copies of them in
other services. The service runs in its own process; a signed-in client asks for each page over
HTTP, one request after another, as a browser does. Times are compared with those of the sign-in page, which reads
nothing but the session. Statements are counted in the same application within this process.

    python -m bench.pages                    everything; a few minutes, most of it to generate the history
    python -m bench.pages --incidents 2000   shorter
    python -m bench.pages --data DIRECTORY   keeps the history there, or uses the one that is there
"""

import argparse
import asyncio
import os
import re
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urljoin

import httpx
import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db, schema
from app.base import postgres as embedded
from app.base.http.context import Context
from app.base.process.logs import Application, Receive, Scope, Send
from app.catalog.objectives import store as objectives
from app.incidents.grouping import decide as store
from app.incidents.grouping.batch import Incoming
from app.incidents.grouping.law.episode import minute
from app.incidents.grouping.rule import DEFAULT_RULE, decide
from app.incidents.grouping.signal import AlertClass, Signal, Status
from app.main import create_app, serving
from app.settings import Settings
from bench.history import AFTER, BUSIEST, FIRST, History
from bench.metrics import running
from tests.statements import counted

INCIDENTS, SERVICES, ROUNDS = 100_000, 200, 30
COPIES = 9  # of each generated incident
ALERTS_OF_LARGE = 3000
EMPTY = "/login"
TOKEN = secrets.token_urlsafe()  # of the application in this process
PAGE_MS, NUMBERS_MS = 150, 400  # goals for the 95th percentile
PAGE_BYTES, FIRST_VISIT_BYTES = 12_000, 90_000  # goals, compressed


@dataclass(frozen=True, slots=True)
class Page:
    label: str
    path: str
    goal_ms: float | None = None  # for the 95th percentile
    bytes_at_most: int | None = PAGE_BYTES


def pages(usual: int, large: int) -> list[Page]:
    """With the numbers of an incident of a few alerts, and of one of 3,000."""
    return [
        Page("overview", "/", PAGE_MS),
        Page("overview, 90 days", "/?days=90", NUMBERS_MS),
        Page("incidents", "/incidents", PAGE_MS),
        Page("incidents, all of the year", "/incidents?within=all", PAGE_MS),
        Page("incidents, not resolved", "/incidents?status=open&status=acknowledged", PAGE_MS),
        Page("incidents of one service", f"/incidents?within=90d&service={BUSIEST}", PAGE_MS),
        Page("incident", f"/incidents/INC-{usual}", PAGE_MS),
        Page("incident of 3,000 alerts", f"/incidents/INC-{large}", PAGE_MS),
        Page("declare", "/incidents/new", PAGE_MS),
        Page("numbers, 7 days", "/numbers?days=7", NUMBERS_MS),
        Page("numbers, 30 days", "/numbers?days=30", NUMBERS_MS),
        Page("numbers, 90 days", "/numbers?days=90", NUMBERS_MS),
        Page("numbers of one service", f"/numbers?days=90&service={BUSIEST}", NUMBERS_MS),
        Page("services", "/services", NUMBERS_MS),
        Page("service", f"/services/{BUSIEST}", NUMBERS_MS),
        Page("sources", "/sources", PAGE_MS),
        Page("source", "/sources/prod-eu", PAGE_MS),
        Page("quarantine", "/sources/quarantine", PAGE_MS),
        Page("rules", "/rules", PAGE_MS),
        Page("calendars", "/calendars", PAGE_MS),
        Page("incident types", "/response/types", PAGE_MS),
        Page("targets", "/response/targets", PAGE_MS),
        Page("playbooks", "/response/playbooks", PAGE_MS),
        Page("people", "/response/people", PAGE_MS),
        Page("tokens", "/tokens", PAGE_MS),
    ]


@dataclass(slots=True)
class Measured:
    page: Page
    milliseconds: list[float]
    processor: float = 0.0  # milliseconds per request, of the service and PostgreSQL
    size: int = 0  # bytes of HTML
    compressed: int = 0
    statements: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def p95(self) -> float:
        return sorted(self.milliseconds)[-(-95 * len(self.milliseconds) // 100) - 1]

    def missed(self) -> Iterator[str]:
        """The goals that it misses."""
        if self.page.goal_ms is not None and self.p95 > self.page.goal_ms:
            yield f"{self.page.label} takes {self.p95:.0f} ms (p95), goal {self.page.goal_ms:.0f}"
        if self.page.bytes_at_most is not None and self.compressed > self.page.bytes_at_most:
            yield f"{self.page.label} has {self.compressed / 1e3:.1f} kB, goal {self.page.bytes_at_most / 1e3:.0f}"


async def main(incidents: int, rounds: int, data: Path | None) -> None:
    out = Console(width=120) if not sys.stdout.isatty() else Console()
    with tempfile.TemporaryDirectory(prefix="aftermath-bench-") as directory:
        cluster = data or Path(directory) / "data"
        async with await embedded.start(cluster) as server:
            url = server.url("postgres")
            engine = db.connect(url)
            await db.migrate(engine)
            settings = Settings.model_validate(
                {"database_url": url, "data_dir": directory, "log_level": "error", "admin_token": TOKEN}
            )
            await _make(engine, settings, incidents, out)
            every = pages(*await _known(engine))
            statements = await _statements(settings, every)
            async with running(url, Path(directory)) as service:
                missing = [page.path for page in every if page.path not in statements]
                found = [page for page in every if page.path in statements]
                await _sign_in(service.client, service.token)
                spent = Spent(service.process, psutil.Process(_postmaster(cluster)))
                empty = await _ask(service.client, Page("empty page", EMPTY), rounds, spent)
                measured = [
                    replace(await _ask(service.client, page, rounds, spent), statements=statements[page.path])
                    for page in track(found, "pages", console=out, transient=True)
                ]
                first_visit = await _first_visit(service.client)
            await engine.dispose()
    out.print(_table(empty, measured, incidents))
    _conclude(measured, first_visit, missing, out)


# — the history —


async def _make(engine: AsyncEngine, settings: Settings, incidents: int, out: Console) -> None:
    """Until now; nothing if the database has a history already."""
    async with engine.connect() as connection:
        if (await connection.execute(select(func.count()).select_from(schema.Incident))).scalar_one():
            return
    now = datetime.now(UTC).replace(microsecond=0)
    history = History(engine, settings, first=now - (AFTER - FIRST), services=SERVICES)
    await history.make(incidents // (COPIES + 1), out)
    async with db.transaction(engine) as tx:
        for statement in _copying():
            await tx.execute(text(statement), {"copies": COPIES, "services": SERVICES})
    async with db.session(engine) as session:
        for number in range(0, SERVICES, 2):
            await objectives.put_objective(session, _objective(number, now))
    labels = {"alertname": "PodCrashLooping", "service": BUSIEST, "severity": "error", "cell": "storm"}
    storm = [
        Incoming(
            Signal(f"storm-{place}", Status.FIRING, now - timedelta(hours=2), labels=labels | {"pod": f"web-{place}"}),
            history.sources[0],
            decide(DEFAULT_RULE, labels, AlertClass.SERVICE),
            now,
            minute(now),
        )
        for place in range(ALERTS_OF_LARGE)
    ]
    async with db.transaction(engine) as tx:
        await store.apply(tx, storm, now=now)
    async with engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).exec_driver_sql("VACUUM ANALYZE")


def _copying() -> Iterator[str]:
    """Statements that copy all incidents with their alerts and timelines, each copy to the services after theirs.

    Times stay the same, so that the stored stretches hold for the copies too.
    """
    new_key = {"key_id": "md5(seed.key_id::text || copy)::uuid"}
    new_incident = {"incident_id": "md5(seed.incident_id::text || copy)::uuid"}
    place = "(substr(seed.service, length('service-') + 1)::integer + copy) % :services"
    new: Sequence[tuple[type[schema.Row], Mapping[str, str], str]] = (
        (
            schema.Incident,
            new_key
            | {
                "id": "md5(seed.id::text || copy)::uuid",
                "number": "nextval('incident_number')",
                "service": f"'service-' || lpad(({place})::text, greatest(2, length(({place})::text)), '0')",
            },
            "seed.merged_into IS NULL",
        ),
        (schema.Alert, new_key | new_incident | {"series": "md5(seed.series::text || copy)::uuid"}, "true"),
        (schema.TimelineEntry, new_incident, "seed.corrects IS NULL AND seed.idempotency_key IS NULL"),
    )
    for row, changed, which in new:
        table = row.metadata.tables[str(row.__tablename__)]
        columns = [each.name for each in table.columns if each.computed is None and each.identity is None]
        values = [changed.get(name, f"seed.{name}") for name in columns]
        yield f"""
            INSERT INTO {table.name} ({", ".join(f'"{name}"' for name in columns)})
            SELECT {", ".join(values)}
              FROM {table.name} AS seed, generate_series(1, CAST(:copies AS integer)) AS copy
             WHERE {which}
               AND {_LIVE[row]}
        """  # noqa: S608  names of our own tables


_IS_LIVE = "EXISTS (SELECT FROM incident WHERE incident.id = seed.incident_id AND incident.merged_into IS NULL)"
_LIVE = {schema.Incident: "true", schema.Alert: _IS_LIVE, schema.TimelineEntry: _IS_LIVE}


def _objective(number: int, now: datetime) -> schema.Objective:
    windows = ({"rolling_days": 30}, {"rolling_days": 90}, {"calendar": "quarter"}, {"calendar": "month"})
    return schema.Objective(
        service=f"service-{number:02}",
        target=Decimal("0.99"),
        weighted=number % 4 == 0,
        **windows[number // 2 % len(windows)],
        created_at=now,
        updated_at=now,
    )


async def _known(engine: AsyncEngine) -> tuple[int, int]:
    """The numbers of a usual and of the largest incident."""
    incident = schema.Incident.__table__.c
    async with engine.connect() as connection:
        usual = select(incident.number).where(incident.merged_into.is_(None), incident.acknowledged_at.is_not(None))
        largest = select(incident.number).order_by(incident.alerts.desc())
        return (
            (await connection.execute(usual.order_by(incident.began_at.desc()).limit(1))).scalar_one(),
            (await connection.execute(largest.limit(1))).scalar_one(),
        )


# — the requests —


async def _statements(settings: Settings, every: Sequence[Page]) -> dict[str, int]:
    """How many SQL statements each page takes, by path; pages that do not exist are left out."""
    found: dict[str, int] = {}
    async with _in_process(settings) as (client, context):
        await _sign_in(client, TOKEN)
        for page in every:
            with counted(context.engine) as statements:
                answer = await client.get(page.path)
            if answer.status_code != 404:
                found[page.path] = len(statements)
    return found


@asynccontextmanager
async def _in_process(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Context]]:
    async with serving(settings) as context:
        transport = httpx.ASGITransport(app=_in_state(create_app(settings), context))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client, context


def _in_state(app: Application, context: Context) -> Application:
    """Adds what the server would provide."""

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"context": context}}, receive, send)

    return with_state


async def _sign_in(client: httpx.AsyncClient, token: str) -> None:
    origin = str(client.base_url).rstrip("/")
    answer = await client.post("/login", data={"token": token, "name": "bench"}, headers={"Origin": origin})
    if answer.status_code != 303:
        message = f"could not sign in: {answer.status_code} {answer.text[:500]}"
        raise RuntimeError(message)


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor time of the service and of PostgreSQL, which depends less on other work than elapsed time."""

    service: psutil.Process
    postmaster: psutil.Process

    def milliseconds(self) -> float:
        every = (self.service, self.postmaster, *self.postmaster.children())
        return float(sum(1e3 * (each.cpu_times().user + each.cpu_times().system) for each in every))


def _postmaster(cluster: Path) -> int:
    [pid] = cluster.rglob("postmaster.pid")
    return int(pid.read_text().splitlines()[0])


async def _ask(client: httpx.AsyncClient, page: Page, rounds: int, spent: Spent) -> Measured:
    found = Measured(page, [])
    headers = {"Cookie": ""} if page.path == EMPTY else {}  # with a session it would lead to the overview
    before = 0.0
    for place in range(-2, rounds):
        if place == 0:
            before = spent.milliseconds()
        began = time.perf_counter()
        answer = await client.get(page.path, headers=headers)
        milliseconds = 1e3 * (time.perf_counter() - began)
        if answer.status_code != 200:
            message = f"{page.path}: {answer.status_code} {answer.text[:500]}"
            raise RuntimeError(message)
        if place >= 0:
            found.milliseconds.append(milliseconds)
        found.size, found.compressed = len(answer.content), answer.num_bytes_downloaded
    found.processor = (spent.milliseconds() - before) / rounds
    return found


async def _first_visit(client: httpx.AsyncClient) -> int:
    """Bytes of the overview (or of the sign-in page, if there is none yet) with everything that it refers to."""
    page = await client.get("/")
    if page.status_code != 200:
        page = await client.get(EMPTY, headers={"Cookie": ""})
    total = page.num_bytes_downloaded
    waiting, known = [(str(page.url), page.text)], set[str]()
    while waiting:
        base, text = waiting.pop()
        for address in re.findall(r"""(?:src|href)="([^"]*/static/[^"]+)"|url\(["']?([^"')]+)""", text):
            absolute = urljoin(base, next(filter(None, address)))
            if absolute not in known:
                known.add(absolute)
                part = await client.get(absolute)
                total += part.num_bytes_downloaded
                if part.headers["content-type"].startswith("text/css"):
                    waiting.append((absolute, part.text))
    return total


# — the result —


def _table(empty: Measured, measured: Sequence[Measured], incidents: int) -> Table:
    title = f"Pages over a year of {incidents:,} incidents and {SERVICES} services"
    table = Table("page", title=title, title_justify="left")
    for name in ("p50 ms", "p95 ms", "processor ms", "times an empty page", "statements", "HTML kB", "compressed kB"):
        table.add_column(name, justify="right")
    for each in (empty, *measured):
        late = each.page.goal_ms is not None and each.p95 > each.page.goal_ms
        large = each.page.bytes_at_most is not None and each.compressed > each.page.bytes_at_most
        table.add_row(
            each.page.label,
            f"{each.median:,.1f}",
            f"[{'yellow' if late else 'green'}]{each.p95:,.1f}",
            f"{each.processor:,.0f}",
            f"{each.median / empty.median:.1f}",
            str(each.statements or ""),
            f"{each.size / 1e3:,.1f}",
            f"[{'yellow' if large else 'green'}]{each.compressed / 1e3:,.1f}",
        )
    return table


def _conclude(measured: Sequence[Measured], first_visit: int, missing: Sequence[str], out: Console) -> None:
    missed = [goal for each in measured for goal in each.missed()]
    if first_visit > FIRST_VISIT_BYTES:
        missed.append(f"the first visit takes {first_visit / 1e3:.0f} kB, goal {FIRST_VISIT_BYTES / 1e3:.0f}")
    out.print(f"First visit: {first_visit / 1e3:.1f} kB compressed, with everything it refers to.")
    out.print(f"Goals missed: {'; '.join(missed) or 'none'}.")
    if missing:
        out.print(f"Not in this version: {', '.join(missing)}.")
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    out.print(f"{os.cpu_count()} cores, load average {busy} over 1, 5 and 15 minutes, including this bench.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--incidents", type=int, default=INCIDENTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--data", type=Path, help="directory of the built-in PostgreSQL to keep or use")
    chosen = parser.parse_args()
    asyncio.run(main(chosen.incidents, chosen.rounds, chosen.data))
