"""Measures how long each metrics query takes, how that grows with history, and its effect on memory and other requests.

A year of incidents (`bench.history`) on the built-in PostgreSQL, with the service in its own process, queried over
HTTP. Every metrics route in the OpenAPI description is queried for one service (the one with the most incidents) and
for all. The tables show medians and how they grow with history. For the largest history they also show the additional
memory used while a query is computed, how long another request waits meanwhile (sent repeatedly; the longest counts),
and whether the process grows when queries are repeated.

    python -m bench.metrics            1,000, 10,000 and 100,000 incidents: ten minutes, half of it to generate them
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
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.base import db
from app.base import postgres as embedded
from app.settings import Settings
from bench.history import AFTER, BUSIEST, FIRST, History

SIZES = (1_000, 10_000, 100_000)
ROUNDS = 5
AGAIN = 5  # repetitions of all queries in the memory test
THE_SAME = 50  # repetitions of one query in the memory test
UNNOTICED = 0.4  # seconds that a response may take without being noticed
WIDTH = 120

YEAR = {"from": FIRST.isoformat(), "to": AFTER.isoformat()}
HALVES = {
    "a_from": FIRST.isoformat(),
    "a_to": (FIRST + timedelta(days=182)).isoformat(),
    "b_from": (FIRST + timedelta(days=182)).isoformat(),
    "b_to": AFTER.isoformat(),
}
METRICS = "/api/v1/metrics/"
PLAIN = {"/metrics", f"{METRICS}definitions"}  # routes without parameters


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


def questions_of(routes: Sequence[str]) -> list[Question]:
    """Every described route; routes with many parameters in several variants."""
    whatif = {"time_to_recover": "-20%", "time_to_acknowledge": "-5m"}
    known: dict[str, list[dict[str, str]]] = {
        "summary": [
            {},
            *({"group_by": name} for name in ("service", "severity", "source", "owner", "hour_of_week")),
            {"group_by": "hour_of_week", "measure": "time_to_recover"},
            {"format": "csv"},
            {"format": "csv", "group_by": "hour_of_week"},
        ],
        "timeseries": [
            {"interval": "day"},
            {"interval": "day", "measure": "time_to_recover"},
            {"interval": "month", "group_by": "severity"},
            {"interval": "week", "group_by": "service"},
        ],
        "compare": [HALVES | {"measure": "time_to_recover"}, HALVES | {"measure": "time_to_recover", "format": "csv"}],
        "whatif": [whatif, whatif | {"format": "csv"}],
    }
    return [
        Question(path, parameters if "a_from" in parameters or path in PLAIN else YEAR | parameters)
        for path in routes
        for parameters in known.get(path.removeprefix(METRICS), [{}])
    ]


@dataclass(slots=True)
class Found:
    """Results of one query and scope. `memory` is in MiB above that of a freshly started process."""

    medians: list[float] = field(default_factory=list)  # seconds, by size
    memory: float = 0.0
    waited: float = 0.0  # seconds, the longest wait of another request

    @property
    def growth(self) -> float:
        return self.medians[-1] / self.medians[0]


Results = dict[tuple[str, str], Found]


async def main(sizes: Sequence[int]) -> None:
    out = Console(width=WIDTH) if not sys.stdout.isatty() else Console()
    results: Results = {}
    remarks: list[str] = []
    with tempfile.TemporaryDirectory(prefix="aftermath-bench-") as directory:
        async with await embedded.start(Path(directory) / "data") as server:
            url = server.url("postgres")
            engine = db.connect(url)
            await db.migrate(engine)
            history = History(engine, Settings.model_validate({"database_url": url}))
            for size in sizes:
                await history.make(size, out)
                async with running(url, Path(directory)) as service:
                    questions = questions_of(await described_routes(service.client))
                    await _measure(service, questions, size, results, out)
                    remarks.append(f"{service.resident():,.0f} MiB after the queries over {size:,} incidents")
                    if size == sizes[-1]:
                        await _look_at_others(service, questions, results, out)
                        remarks += await _ask_again(service, questions, out)
            for question in track(questions, "memory per query", console=out, transient=True):
                async with running(url, Path(directory)) as service:
                    results[str(question), "all"].memory = await _memory(service, question)
            await engine.dispose()
    for scope in (BUSIEST, "all"):
        out.print(_table(scope, sizes, results))
    _conclude(sizes, results, remarks, out)


@dataclass(frozen=True, slots=True)
class Service:
    client: httpx.AsyncClient
    process: psutil.Process
    token: str

    def resident(self) -> float:
        """MiB."""
        return float(self.process.memory_info().rss) / 2**20

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak(self) -> float:
        """Peak memory in MiB since it was last reset."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10

    async def ask(self, question: Question, scope: str) -> float:
        """Seconds the query took."""
        began = time.perf_counter()
        parameters = question.parameters | ({} if scope == "all" else {"service": scope})
        answer = await self.client.get(question.path, params=parameters)
        if answer.status_code != 200:
            message = f"{question} of {scope}: {answer.status_code} {answer.text[:500]}"
            raise RuntimeError(message)
        return time.perf_counter() - began


async def _measure(service: Service, questions: Sequence[Question], size: int, results: Results, out: Console) -> None:
    asked = [(question, scope) for scope in (BUSIEST, "all") for question in questions]
    for question, scope in track(asked, f"queries over {size:,} incidents", console=out, transient=True):
        seconds = [await service.ask(question, scope) for _ in range(ROUNDS)]
        results.setdefault((str(question), scope), Found()).medians.append(statistics.median(seconds))


async def _memory(service: Service, question: Question) -> float:
    """MiB. Uses a freshly started process, because a process does not give memory back."""
    await service.ask(OTHER, "all")
    service.forget_peak()
    before = service.resident()
    await service.ask(question, "all")
    return service.peak() - before


async def _look_at_others(service: Service, questions: Sequence[Question], results: Results, out: Console) -> None:
    """How long other requests wait during a query for all services."""
    for question in track(questions, "wait of other requests", console=out, transient=True):
        found = results[str(question), "all"]
        waits: list[float] = []
        asking = asyncio.create_task(service.ask(question, "all"))
        while not asking.done():
            waits.append(await service.ask(OTHER, "all"))
            await asyncio.sleep(0.005)
        await asking
        found.waited = max(waits)


OTHER = Question("/healthz", {})


async def _ask_again(service: Service, questions: Sequence[Question], out: Console) -> list[str]:
    """Whether the process grows when queries are repeated."""
    before = service.resident()
    for question in track(list(questions) * AGAIN, "all queries repeatedly", console=out, transient=True):
        await service.ask(question, "all")
    between = service.resident()
    [one] = [question for question in questions if str(question) == "summary by service"]
    for question in track([one] * THE_SAME, "one query repeatedly", console=out, transient=True):
        await service.ask(question, "all")
    return [
        f"{before:,.0f} MiB, after {AGAIN * len(questions)} more queries {between:,.0f} MiB",
        f"after `{one}` another {THE_SAME} times {service.resident():,.0f} MiB",
    ]


async def described_routes(client: httpx.AsyncClient) -> list[str]:
    described = (await client.get("/openapi.json")).json()["paths"]
    return [path for path in described if path.startswith(METRICS)] + ["/metrics"]


@asynccontextmanager
async def running(url: str, directory: Path) -> AsyncIterator[Service]:
    """`aftermath serve` on a free loopback port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_urlsafe()
    variables = {
        "AFTERMATH_DATABASE_URL": url,
        "AFTERMATH_PORT": str(port),
        "AFTERMATH_ADMIN_TOKEN": token,
        "AFTERMATH_DATA_DIR": str(directory / "service"),
        "AFTERMATH_LOG_LEVEL": "error",
    }
    with (directory / "service.log").open("ab") as log:
        served = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("aftermath"),
            "serve",
            env=os.environ | variables,
            stdout=log,
            stderr=log,
        )
        try:
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as client:
                await _until_ready(client, served, directory / "service.log")
                yield Service(client, psutil.Process(served.pid), token)
        finally:
            served.terminate()
            await served.wait()


async def _until_ready(client: httpx.AsyncClient, served: asyncio.subprocess.Process, log: Path) -> None:
    for _ in range(1200):
        if served.returncode is not None:
            break
        try:
            if (await client.get("/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    message = f"the service did not start: {_tail(log)}"
    raise RuntimeError(message)


def _tail(log: Path) -> str:
    return log.read_text()[-2000:]


def _table(scope: str, sizes: Sequence[int], results: Results) -> Table:
    of = "all services" if scope == "all" else f"one service, {scope}"
    table = Table("one year", title=f"Milliseconds for {of}", title_justify="left")
    for size in sizes:
        table.add_column(f"{size:,}", justify="right")
    table.add_column(f"growth with {sizes[-1] // sizes[0]:,} times the history", justify="right")
    if scope == "all":
        table.add_column("others wait", justify="right")
        table.add_column("memory", justify="right")
    for (question, of_scope), found in results.items():
        if of_scope != scope:
            continue
        shown = [f"[{'yellow' if median > UNNOTICED else 'green'}]{median * 1e3:,.0f}" for median in found.medians]
        more = [f"{found.waited * 1e3:,.0f}", f"{found.memory:,.0f} MiB"] if scope == "all" else []
        table.add_row(question, *shown, f"{found.growth:.1f} times as long", *more)
    return table


def _conclude(sizes: Sequence[int], results: Results, remarks: Sequence[str], out: Console) -> None:
    slow = [f"{question} of {scope}" for (question, scope), found in results.items() if found.medians[-1] > UNNOTICED]
    within = f"{len(results) - len(slow)} of {len(results)} queries over {sizes[-1]:,} incidents"
    out.print(f"{within} are answered within {UNNOTICED * 1e3:.0f} ms; slower: {', '.join(slow) or 'none'}.")
    out.print(f"Memory of the service: {'; '.join(remarks)}.")
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    out.print(f"{os.cpu_count()} cores, load average {busy} over 1, 5 and 15 minutes, including this bench.")


if __name__ == "__main__":
    asyncio.run(main([int(size) for size in sys.argv[1:]] or SIZES))
