"""Measures whether readers of the public status page slow ingest down.

    python -m bench.status                            about ten minutes
    python -m bench.status --pairs 20 --seconds 15    smaller intervals; about half an hour

Alerts come alone in their bodies, at about half of the rate that the machine takes, which is measured first, and as
fast as they are answered. Each load runs with and without 200 requests a second for `/status`, in pairs of alternating
order, so that noise and the growth of the database affect both alike. The result is the ratio, with readers ÷ without:
the geometric mean of the pairs with its 95 % confidence interval. Processor time is that of the service and PostgreSQL,
for alerts and readers together.
"""

import argparse
import math
import re
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scipy import stats

from bench.check import Wrong
from bench.ingest import Figures, Loaded, a_service
from bench.load import Load, LoadFailed
from tests.processes import a_process, program

LUA = Path(__file__).with_name("readers.lua")
READERS = 20  # with ten requests a second each
PATIENCE_SECONDS = 600
SHARE_OFFERED = 0.5

Pair = tuple[Figures, Figures]  # without readers, and with them

MEASURED: Mapping[str, Callable[[Figures], float]] = {
    "alerts/s": lambda found: found.per_second,
    "p50": lambda found: found.answered.latency_ms(50),
    "p99": lambda found: found.p99,
    "processor time an alert": lambda found: found.cpu_us_per_alert,
}


@contextmanager
def readers(url: str, log_file: Path, rates: list[float]) -> Iterator[None]:
    """Readers during the block; adds how many requests a second were answered. Raises Wrong for errors among them."""
    command = [
        program("wrk"),
        "-t1",
        f"-c{READERS}",
        "--timeout=30",
        f"-d{PATIENCE_SECONDS}s",
        "-s",
        str(LUA),
        f"{url}/status",
    ]
    with a_process(command, log_file) as wrk:
        yield
        wrk.process.send_signal(signal.SIGINT)
        wrk.process.wait(10)
    found = re.search(r"^Requests/sec:\s*([\d.]+)$", wrk.log(), re.MULTILINE)
    if found is None or "Non-2xx" in wrk.log() or "Socket errors" in wrk.log():
        raise Wrong(f"not all readers were answered; output of wrk:\n{wrk.log()[:2000]}")
    rates.append(float(found[1]))


def a_pair(service: Loaded, load: Load, rates: list[float], *, readers_first: bool) -> Pair:
    found: dict[bool, Figures] = {}
    for with_readers in (readers_first, not readers_first):
        this = replace(load, run=next(service.runs))
        if with_readers:
            with readers(service.running.service.url, service.directory / "readers.log", rates):
                found[True] = service.put_new("with readers", this)
        else:
            found[False] = service.put_new("without", this)
    return found[False], found[True]


def ratio(pairs: Sequence[Pair], measure: Callable[[Figures], float]) -> tuple[float, float, float]:
    """With readers ÷ without: geometric mean, and its 95 % confidence interval."""
    logs = [math.log(measure(after) / measure(before)) for before, after in pairs]
    mean = statistics.mean(logs)
    margin = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - margin), math.exp(mean + margin)


def shown(title: str, pairs: Sequence[Pair]) -> Table:
    table = Table("", "without, median", "with, median", "ratio", "95 % interval", title=title)
    for name, measure in MEASURED.items():
        mean, low, high = ratio(pairs, measure)
        medians = (statistics.median(map(measure, side)) for side in zip(*pairs, strict=True))
        table.add_row(name, *(f"{median:,.1f}" for median in medians), f"{mean:.3f}", f"{low:.3f} to {high:.3f}")
    others = max(found.cpu["others"] for pair in pairs for found in pair)
    table.caption = f"Latencies in ms, processor time in µs. Other work took up to {others:.0%} of a core."
    return table


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("bench.status", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10, help="of each load; at least two")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of each load")
    asked = parser.parse_args(arguments)
    if asked.pairs < 2:
        parser.error("an interval needs at least two pairs")
    out = Console(width=None if sys.stdout.isatty() else 120)
    rates: list[float] = []
    try:
        with (
            tempfile.TemporaryDirectory(prefix="aftermath-bench-") as scratch,
            a_service(Path(scratch) / "one", AFTERMATH_STATUS_PAGE="true") as service,
        ):
            full = Load(0, 1, asked.seconds)
            capacity = service.put_new("capacity", replace(full, run=next(service.runs))).per_second
            half = replace(full, offered=capacity * SHARE_OFFERED)
            for title, load in ((f"{half.offered:,.0f} alerts/s offered", half), ("As fast as answered", full)):
                pairs = [a_pair(service, load, rates, readers_first=bool(number % 2)) for number in range(asked.pairs)]
                out.print(shown(title, pairs))
    except (FileNotFoundError, LoadFailed, Wrong) as error:
        out.print(f"[red]{error}", highlight=False)
        return 1
    out.print(f"The readers got {min(rates):,.0f} to {max(rates):,.0f} pages a second.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
