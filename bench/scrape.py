"""Does the cost of a scrape grow with history? Times `GET /metrics` with 1,000 and with 100,000 settled incidents.

Incidents are made through the store, as deliveries would, then settled as the service does. Everything that a scrape
reads is on the same built-in PostgreSQL; the request goes through the whole app, without a socket.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from app import db, embedded
from app.incidents import store
from app.incidents.batch import Incoming
from app.incidents.rule import DEFAULT_RULE, decide
from app.incidents.signal import EndReason, Signal, Status
from app.main import create_app, serving
from app.metrics.store import settle
from app.settings import Settings

HISTORY = (1_000, 100_000)
SERVICES = 50
SCRAPES = 40
BATCH = 500
TOKEN = "a-token-of-the-benchmark"  # noqa: S105


async def main() -> None:
    out = Console()
    table = Table("settled incidents", "scrape, median ms", "slowest ms", "body, KiB", title="GET /metrics")
    medians = []
    with tempfile.TemporaryDirectory(prefix="aftermath-bench-") as directory:
        async with await embedded.start(Path(directory) / "data") as server:
            engine = db.connect(server.url("postgres"))
            await db.migrate(engine)
            settings = Settings.model_validate({"database_url": server.url("postgres"), "admin_token": TOKEN})
            made = 0
            async with _client(settings) as client:
                for total in HISTORY:
                    made = await _make_history(engine, settings, made, total, out)
                    seconds, size = await _scrape(client)
                    medians.append(statistics.median(seconds))
                    table.add_row(
                        f"{total:,}", f"{medians[-1] * 1e3:.1f}", f"{max(seconds) * 1e3:.1f}", f"{size / 1024:.0f}"
                    )
            await engine.dispose()
    out.print(table)
    growth = medians[-1] / medians[0]
    out.print(f"With {HISTORY[-1] // HISTORY[0]} times the history a scrape takes {growth:.2f} times as long.")


@asynccontextmanager
async def _client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings)
    async with (
        serving(app, settings.model_copy(update={"settle_interval_seconds": 3600.0})),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://aftermath.bench",
            headers={"Authorization": f"Bearer {TOKEN}"},
        ) as client,
    ):
        yield client


async def _make_history(engine: AsyncEngine, settings: Settings, made: int, total: int, out: Console) -> int:
    """Incidents of an hour each, two hours apart within a service, until there are `total`; all settled."""
    with Progress(console=out, transient=True) as progress:
        task = progress.add_task(f"{total:,} incidents", total=total, completed=made)
        while made < total:
            size = min(BATCH, total - made)
            async with db.transaction(engine) as tx:
                await store.apply(tx, [_resolved(made + index) for index in range(size)], now=_LONG_AFTER)
            made += size
            progress.update(task, completed=made)
        while True:
            async with db.transaction(engine) as tx:
                if not await settle(
                    tx, now=_LONG_AFTER, allowed_lateness=settings.allowed_lateness, weights=settings.impact
                ):
                    break
    async with engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.exec_driver_sql("VACUUM ANALYZE")
    return made


_FIRST = datetime(2020, 1, 1, tzinfo=UTC)
_LONG_AFTER = datetime(2026, 1, 1, tzinfo=UTC)


def _resolved(number: int) -> Incoming:
    labels = {"alertname": "Slow", "service": f"service-{number % SERVICES}", "severity": "critical"}
    started_at = _FIRST + timedelta(hours=2) * (number // SERVICES)
    signal = Signal(
        f"{number:016x}",
        Status.RESOLVED,
        started_at,
        started_at + timedelta(hours=1),
        labels=labels,
        end_reason=EndReason.RECOVERED,
    )
    return Incoming(signal, 1, decide(DEFAULT_RULE, labels, signal.alert_class), _LONG_AFTER)


async def _scrape(client: httpx.AsyncClient) -> tuple[list[float], int]:
    seconds, body = [], b""
    for _ in range(SCRAPES):
        began = time.perf_counter()
        answer = await client.get("/metrics")
        seconds.append(time.perf_counter() - began)
        answer.raise_for_status()
        body = answer.content
    return seconds[SCRAPES // 10 :], len(body)


if __name__ == "__main__":
    asyncio.run(main())
