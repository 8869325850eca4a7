"""The report at the end of the demo: the numbers of its quarter, what changed, and next steps."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from app.base.commands import REMOVE_DEMO
from app.base.http.requests.fields import rfc3339
from app.demo.facts import Quarter

MONTH = timedelta(days=30)
Ask = Callable[..., Awaitable[Any]]


async def print_report(ask: Ask, out: Console, played: Quarter, *, deliveries: Counter[str], url: str) -> None:
    """Asks the service for the numbers. They include what else is in its database."""
    period = {"from": rfc3339(played.begins_at), "to": rfc3339(played.ends_at)}
    summary = await ask("GET", "/api/v1/metrics/summary", params={**period, "group_by": "service"})
    out.print(f"\n{deliveries.total()} deliveries of {len(deliveries)} sources.\n", highlight=False)
    out.print(_table(summary))
    never = summary["total"]["measures"]["time_to_acknowledge"]["censored"]
    out.print("TTA: time from detection to the first acknowledgement. TTR: time from start to recovery. Medians.")
    out.print(
        f"{never} incidents ended unacknowledged: they have no TTA, which is not the same as 0.\n", highlight=False
    )
    out.print("Are we getting better? The last 30 days against the 30 days before:\n")
    for measure in ("time_to_acknowledge", "time_to_recover"):
        found = await compared(ask, measure, played)
        out.print(f"  {measure}: [bold]{found['verdict']}[/] ({found['reason']})", highlight=False, soft_wrap=True)
    out.print(f"\nIn a browser: {url}/", highlight=False, soft_wrap=True)
    out.print(f"To remove the demo and nothing else: {REMOVE_DEMO}", highlight=False)


async def compared(ask: Ask, measure: str, played: Quarter) -> Any:
    """The response of the comparison."""
    middle = played.ends_at - MONTH
    sides = {"a_from": middle - MONTH, "a_to": middle, "b_from": middle, "b_to": played.ends_at}
    times = {name: rfc3339(at) for name, at in sides.items()}
    return await ask("GET", "/api/v1/metrics/compare", params={"measure": measure, **times})


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("service")
    for name in ("incidents", "open", "TTA", "TTR", "downtime", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for numbers in summary["groups"]:
        table.add_row(*numbers["filters"]["service"], *_cells(numbers))
    table.add_section()
    table.add_row("all", *_cells(summary["total"]))
    return table


def _cells(numbers: Mapping[str, Any]) -> list[str]:
    measures = numbers["measures"]
    return [
        str(numbers["incidents"]["value"]),
        str(numbers["open"]["value"]),
        _median(measures["time_to_acknowledge"]),
        _median(measures["time_to_recover"]),
        _duration(numbers["downtime"]["seconds"]),
        _cost(numbers["cost"]),
    ]


def _median(measure: Mapping[str, Any]) -> str:
    statistics = measure["statistics"]
    return "—" if statistics is None else _duration(statistics["median"])


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} m" if minutes >= 60 else f"{minutes} m"


def _cost(cost: Mapping[str, Any]) -> str:
    amounts: Mapping[str, Mapping[str, str]] = cost["amounts"] or {}
    lines = [f"{currency} {Decimal(amount['expected']):,.0f}" for currency, amount in amounts.items()]
    return "\n".join(lines) or ("no rate" if cost["services_without_rate"] else "—")
