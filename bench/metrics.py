"""How long does each question about numbers take, and how does that grow with history?

A year of incidents (`bench.history`) on the built-in PostgreSQL, and the service in a process of its own, asked over
HTTP. Every metrics route that the service describes is asked, about one service (the one with most incidents) and about
all; the table shows medians. Then the same questions are asked again and again, to see whether the process grows.

    python -m bench.metrics            1,000, 10,000 and 100,000 incidents: four minutes, most of them to make history
    python -m bench.metrics 1000 5000  shorter
"""

import asyncio
import os
import secrets
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app import db, embedded
from app.settings import Settings
from bench.history import AFTER, BUSIEST, FIRST, History

SIZES = (1_000, 10_000, 100_000)
ROUNDS = 5
AGAIN = 10  # times all questions, when memory is looked at

YEAR = {"from": FIRST.isoformat(), "to": AFTER.isoformat()}
HALVES = {
    "a_from": FIRST.isoformat(),
    "a_to": (FIRST + timedelta(days=182)).isoformat(),
    "b_from": (FIRST + timedelta(days=182)).isoformat(),
    "b_to": AFTER.isoformat(),
}
METRICS = "/api/v1/metrics/"


@dataclass(frozen=True, slots=True)
class Question:
    path: str
    parameters: dict[str, str]

    def __str__(self) -> str:
        more = [
            f"by {value}" if name == "group_by" else value
            for name, value in self.parameters.items()
            if name not in YEAR | HALVES
        ]
        return " ".join([self.path.removeprefix(METRICS), *more])


def _questions(routes: Sequence[str]) -> list[Question]:
    """Of one service or of all; each route that is described, and those with much to choose from in several ways."""
    whatif = {"time_to_recover": "-20%", "time_to_acknowledge": "-5m"}
    known: dict[str, list[dict[str, str]]] = {
        "summary": [{}, *({"group_by": name} for name in ("service", "severity", "source", "owner", "hour_of_week"))],
        "summary.csv": [{}, {"group_by": "hour_of_week"}],
        "timeseries": [
            {"interval": "day"},
            {"interval": "month", "group_by": "severity"},
            {"interval": "week", "group_by": "service"},
        ],
        "compare": [HALVES | {"measure": "time_to_recover"}],
        "compare.csv": [HALVES | {"measure": "time_to_recover"}],
        "whatif": [whatif],
        "whatif.csv": [whatif],
        "definitions": [{}],
    }
    return [
        Question(path, parameters if "a_from" in parameters else YEAR | parameters)
        for path in routes
        for parameters in known.get(path.removeprefix(METRICS), [{}])
    ]


async def main(sizes: Sequence[int]) -> None:
    out = Console()
    with tempfile.TemporaryDirectory(prefix="aftermath-bench-") as directory:
        async with await embedded.start(Path(directory) / "data") as server:
            url = server.url("postgres")
            engine = db.connect(url)
            await db.migrate(engine)
            history = History(engine, Settings.model_validate({"database_url": url}))
            found: dict[tuple[str, str], list[float]] = {}
            for size in sizes:
                await history.make(size, out)
                async with _service(url, Path(directory)) as (client, process):
                    questions = _questions(await _routes(client))
                    asked = [(question, scope) for scope in (BUSIEST, "all") for question in questions]
                    for question, scope in track(asked, f"questions about {size:,}", console=out, transient=True):
                        median = await _median(client, question, scope)
                        found.setdefault((str(question), scope), []).append(median)
                    if size == sizes[-1]:
                        grown = await _memory(client, process, questions)
            await engine.dispose()
    out.print(_table(sizes, found))
    out.print(grown)


async def _routes(client: httpx.AsyncClient) -> list[str]:
    described = (await client.get("/openapi.json")).json()["paths"]
    return [path for path in described if path.startswith(METRICS)] + ["/metrics"]


async def _median(client: httpx.AsyncClient, question: Question, scope: str) -> float:
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await _ask(client, question, scope)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


async def _ask(client: httpx.AsyncClient, question: Question, scope: str) -> None:
    answer = await client.get(
        question.path, params=question.parameters | ({} if scope == "all" else {"service": scope})
    )
    if answer.status_code != 200:
        message = f"{question} of {scope}: {answer.status_code} {answer.text[:500]}"
        raise RuntimeError(message)


async def _memory(client: httpx.AsyncClient, process: psutil.Process, questions: Sequence[Question]) -> str:
    """After one round, which fills what is filled once, and after more of them."""
    sizes = []
    for rounds in (1, AGAIN):
        for _ in range(rounds):
            for question in questions:
                await _ask(client, question, "all")
        sizes.append(process.memory_info().rss / 2**20)
    asked = AGAIN * len(questions)
    return f"Memory of the service: {sizes[0]:.0f} MiB, after {asked} questions more {sizes[1]:.0f} MiB."


@asynccontextmanager
async def _service(url: str, directory: Path) -> AsyncIterator[tuple[httpx.AsyncClient, psutil.Process]]:
    """`aftermath serve` on a free port of the loopback, and a client that may ask."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_urlsafe()
    variables = {
        "AFTERMATH_DATABASE_URL": url,
        "AFTERMATH_PORT": str(port),
        "AFTERMATH_ADMIN_TOKEN": token,
        "AFTERMATH_LOG_LEVEL": "error",
    }
    with (directory / "service.log").open("ab") as log:
        served = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app.cli", "serve", env=os.environ | variables, stdout=log, stderr=log
        )
        try:
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as client:
                await _until_ready(client, served)
                yield client, psutil.Process(served.pid)
        finally:
            served.terminate()
            await served.wait()


async def _until_ready(client: httpx.AsyncClient, served: asyncio.subprocess.Process) -> None:
    for _ in range(300):
        if served.returncode is not None:
            break
        try:
            if (await client.get("/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    message = "the service did not start"
    raise RuntimeError(message)


def _table(sizes: Sequence[int], found: dict[tuple[str, str], list[float]]) -> Table:
    table = Table("question, one year", "of", title="Median milliseconds")
    for size in sizes:
        table.add_column(f"{size:,}", justify="right")
    table.add_column(f"{sizes[-1] // sizes[0]:,} times the incidents", justify="right")
    for (question, scope), medians in found.items():
        shown = [f"{median * 1e3:,.0f}" for median in medians]
        table.add_row(question, scope, *shown, f"{medians[-1] / medians[0]:.1f} times as long")
    return table


if __name__ == "__main__":
    asyncio.run(main([int(size) for size in sys.argv[1:]] or SIZES))
