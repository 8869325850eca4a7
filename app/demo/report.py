"""The report at the end of the demo: the numbers of its day, and next steps."""

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def print_report(
    out: Console,
    summary: Mapping[str, Any],
    verdicts: Counter[str],
    *,
    deliveries: int,
    busiest: str,
    period: Mapping[str, str],
    url: str,
) -> None:
    """`summary` is the response of /api/v1/metrics/summary for `period`; `busiest` is the number of an incident."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("service")
    for name in ("incidents", "open", "TTA", "TTR", "downtime", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for numbers in summary["groups"]:
        table.add_row(numbers["filters"]["service"], *_cells(numbers))
    table.add_section()
    table.add_row("all", *_cells(summary["total"]))
    counted = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common())
    never = summary["total"]["measures"]["time_to_acknowledge"]["censored"]
    for text in (
        f"\n{deliveries} deliveries. Verdicts: {counted}.\n",
        table,
        "TTA: time from detection to the first acknowledgement. TTR: time from start to recovery.",
        "With ten values or more the median is shown, otherwise the smallest and largest value.",
        f"{never} incidents ended unacknowledged: they have no TTA, which is not the same as 0.\n",
        "Try these next, with your token:\n",
    ):
        out.print(text, highlight=False)
    for path in (
        "/api/v1/incidents?status=open",
        f"/api/v1/incidents/{busiest}",
        f"/api/v1/incidents/{busiest}/timeline",
        f"/api/v1/metrics/summary?from={period['from']}&to={period['to']}&group_by=service",
        "/metrics",
    ):
        out.print(f'  curl -H "Authorization: Bearer $TOKEN" "{url}{path}"', highlight=False, soft_wrap=True)
    out.print(f"\nIn a browser, without a token: {url}/docs", highlight=False, soft_wrap=True)


def _cells(numbers: Mapping[str, Any]) -> list[str]:
    measures = numbers["measures"]
    return [
        str(numbers["incidents"]["value"]),
        str(numbers["open"]["value"]),
        _typical(measures["time_to_acknowledge"]),
        _typical(measures["time_to_recover"]),
        _duration(numbers["downtime"]["seconds"]),
        _cost(numbers["cost"]),
    ]


def _typical(measure: Mapping[str, Any]) -> str:
    """The median if there is one, else the smallest and largest value."""
    if measure["median"] is not None:
        return f"median {_duration(measure['median'])}"
    minutes = sorted({round(seconds / 60) for seconds in measure["values"] or ()})
    return f"{'–'.join(map(str, {minutes[0]: 0, minutes[-1]: 0}))} m" if minutes else "—"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} m" if minutes >= 60 else f"{minutes} m"


def _cost(cost: Mapping[str, Any]) -> str:
    amounts: Mapping[str, Mapping[str, str]] = cost["amounts"] or {}
    lines = [f"{currency} {Decimal(amount['expected']):,.0f}" for currency, amount in amounts.items()]
    return "\n".join(lines) or ("no rate" if cost["services_without_rate"] else "—")
