"""Queries over a long history: their indexes, their number of statements, and their effect on other requests.

History is generated like that of `make bench`, through the stores and in order of time, like real history. The
explained statements are those of the routes, with their values.
"""

import gc
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from rich.console import Console
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.main import serving
from app.settings import Settings
from bench.history import AFTER, History
from bench.metrics import METRICS, YEAR, described_routes, questions_of
from tests.conftest import ADMIN_TOKEN, TEMPLATE, client_of

INCIDENTS = 3000
MONTH = {"from": (AFTER - timedelta(days=30)).isoformat(), "to": AFTER.isoformat()}
TWO_MONTHS = {
    "a_from": (AFTER - timedelta(days=60)).isoformat(),
    "a_to": MONTH["from"],
    "b_from": MONTH["from"],
    "b_to": MONTH["to"],
    "measure": "time_to_recover",
}
RARE = "service-20"
GROWING = re.compile("incident|alert_past|alert_[0-9]+|timeline")  # the fastest-growing tables


@pytest.fixture(scope="module")
async def history_url(server: str) -> AsyncIterator[str]:
    """A database with a year of incidents, analyzed."""
    name = f"history_{uuid4().hex}"
    url = make_url(server).set(database=name)
    maintenance = db.connect(server, pool_size=1)
    async with maintenance.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"'))
        engine = db.connect(url.render_as_string(hide_password=False))
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        await History(engine, Settings.model_validate({"database_url": plain})).make(INCIDENTS, Console(quiet=True))
        async with engine.connect() as within:
            inside = await within.execution_options(isolation_level="AUTOCOMMIT")
            for statement in _IN_ORDER:
                await inside.execute(text(statement))
        await engine.dispose()
        yield plain
        await autocommit.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    await maintenance.dispose()


_IN_ORDER = (
    "CREATE INDEX in_order ON incident (began_at)",
    "CLUSTER incident USING in_order",
    "DROP INDEX in_order",
    "VACUUM ANALYZE",
)
Asked = tuple[httpx.AsyncClient, AsyncEngine]


@pytest.fixture(scope="module")
async def asked(history_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asked]:
    """The app on that database, and its engine."""
    settings = Settings.model_validate(
        {
            "database_url": history_url,
            "admin_token": ADMIN_TOKEN,
            "data_dir": tmp_path_factory.mktemp("data"),
            "settle_interval_seconds": 3600,
            "watch_interval_seconds": 3600,
        }
    )
    async with serving(settings) as context, client_of(context) as client:
        yield client, context.engine


# — indexes —


async def _statements(asked: Asked, path: str, parameters: Mapping[str, str]) -> list[tuple[str, Any]]:
    """The statements of a route, with their values."""
    client, engine = asked
    sent: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        if _ASKING.get():
            sent.append((statement, values))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    asking = _ASKING.set(True)
    answer = await client.get(path, params=parameters)
    _ASKING.reset(asking)
    event.remove(engine.sync_engine, "before_cursor_execute", note)
    assert answer.status_code == 200, answer.text
    return sent


_ASKING = ContextVar("asking", default=False)  # not in background jobs


async def _scans(asked: Asked, path: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
    """The nodes of all plans that read a growing table."""
    found: list[dict[str, Any]] = []

    def walk(node: dict[str, Any]) -> None:
        if GROWING.fullmatch(node.get("Relation Name", "")) or "Bitmap Index" in node["Node Type"]:
            found.append(node)
        for below in node.get("Plans", ()):
            walk(below)

    async with asked[1].connect() as connection:
        for statement, values in await _statements(asked, path, parameters):
            explained = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
            [plan] = explained.scalar_one()
            walk(plan["Plan"])
    return found


def _whole_tables(scans: Sequence[Mapping[str, Any]]) -> list[str]:
    """Large tables that are read in full."""
    return [
        scan["Relation Name"] for scan in scans if scan["Node Type"] == "Seq Scan" and scan["Rows Removed by Filter"]
    ]


ONE_SERVICE, ONE_MONTH = YEAR | {"service": RARE}, MONTH
WHATIF = {"time_to_recover": "-20%"}


@pytest.mark.parametrize(
    ("path", "parameters", "indexes"),
    [
        *(
            (f"{METRICS}{path}", of | more, {index})
            for path, more in (
                ("summary", {}),
                ("timeseries", {"interval": "week"}),
                ("downtime", {}),
                ("availability", {}),
                ("whatif", WHATIF),
            )
            for of, index in ((ONE_SERVICE, "incident_by_service"), (ONE_MONTH, "incident_by_end"))
        ),
        (f"{METRICS}compare", TWO_MONTHS, {"incident_by_time"}),
        (f"{METRICS}compare", TWO_MONTHS | {"service": RARE}, {"incident_by_service"}),
        (f"{METRICS}dora", ONE_MONTH, {"incident_by_time", "alert_past_started_at_incident_id_idx"}),
        (
            f"{METRICS}dora",
            ONE_MONTH | {"service": RARE},
            {"incident_by_service", "alert_past_started_at_incident_id_idx"},
        ),
        ("/api/v1/incidents/INC-7", {}, {"incident_number_is_unique"}),
        ("/api/v1/incidents/INC-7/alerts", {}, {"alert_past_key_id_started_at_idx"}),
        ("/api/v1/incidents/INC-7/timeline", {}, {"timeline_by_incident"}),
        ("/api/v1/incidents/INC-7/cause", {}, {"alert_past_key_id_started_at_idx", "timeline_of_causes"}),
        ("/metrics", {}, {"incident_unsettled"}),
    ],
)
async def test_a_narrow_question_reads_by_indexes(
    asked: Asked, path: str, parameters: dict[str, str], indexes: set[str]
) -> None:
    scans = await _scans(asked, path, parameters)
    assert _whole_tables(scans) == []
    assert indexes <= {scan["Index Name"] for scan in scans if "Index Name" in scan}


# — statements —


async def test_no_query_scans_a_table_more_than_twice_or_runs_a_statement_per_row(asked: Asked) -> None:
    """Queries about a year of all services; comparisons have two periods."""
    for question in questions_of(await described_routes(asked[0])):
        sent = await _statements(asked, question.path, question.parameters)
        # The gauges of the response, reviews and the status page take half of those of a scrape, once in 30 seconds.
        assert len(sent) <= (34 if question.path == "/metrics" else 6), question
        scans = await _scans(asked, question.path, question.parameters)
        whole = [scan["Relation Name"] for scan in scans if scan["Node Type"] == "Seq Scan"]
        # 0: planned for an empty month, and not needed.
        assert all(scan["Actual Loops"] <= 1 for scan in scans if scan["Node Type"] == "Seq Scan"), question
        assert all(whole.count(table) <= 2 for table in whole), question


# — effect on other requests —


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("summary", {"group_by": "hour_of_week"}),
        ("timeseries", {"interval": "week", "group_by": "service"}),
        ("timeseries", {"interval": "day", "format": "csv"}),
        ("../../../metrics", {}),
    ],
)
async def test_most_of_a_long_query_runs_in_a_thread(asked: Asked, path: str, parameters: dict[str, str]) -> None:
    """Computation on the event loop delays webhooks. CPU time of this thread and of all threads."""
    client, _ = asked
    ask = {"params": {} if path.endswith("/metrics") else YEAR | parameters}
    await client.get(f"{METRICS}{path}", **ask)  # type: ignore[arg-type]
    here, everywhere = time.thread_time(), time.process_time()
    answer = await client.get(f"{METRICS}{path}", **ask)  # type: ignore[arg-type]
    here, everywhere = time.thread_time() - here, time.process_time() - everywhere
    assert answer.status_code == 200, answer.text
    assert here < everywhere / 5


async def test_repeating_a_query_takes_no_more_memory(asked: Asked) -> None:
    client, _ = asked
    parameters = YEAR | {"group_by": "service"}
    size = 0

    async def ask(times: int) -> int:
        nonlocal size
        for _ in range(times):
            size = len((await client.get(f"{METRICS}summary", params=parameters)).content)
        gc.collect()
        return int(psutil.Process().memory_info().rss)

    before = await ask(10)
    after = await ask(50)
    # A process that kept the bytes of each response would have grown by all of them.
    assert after - before < 50 * size / 4, (before, after, size)
