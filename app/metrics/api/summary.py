"""The summary of a period, as JSON and as CSV."""

import csv
from collections.abc import Iterator
from io import StringIO

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field

from app.metrics import store
from app.metrics.api.answer import NumbersModel, numbers_model
from app.metrics.api.question import GROUPS_AT_MOST, HORIZON, Asked, Grouping, Horizon
from app.metrics.statistics import GroupBy
from app.web import Knobs, Now, Reader, Tx, problem_responses, rfc3339, spreadsheet_text

router = APIRouter()


class SummaryAnswer(BaseModel):
    group_by: GroupBy | None
    total: NumbersModel
    groups: list[NumbersModel] = Field(description="Those that had incidents; the largest if there are too many")
    groups_left_out: int


@router.get("/api/v1/metrics/summary", summary="Numbers of a period", responses=problem_responses())
async def summary(
    _: Reader,
    tx: Tx,
    now: Now,
    settings: Knobs,
    asked: Asked,
    group_by: Grouping = None,
    horizon: Horizon = HORIZON,
) -> SummaryAnswer:
    """How many incidents, how long they took, how long services were down and what it cost. An incident belongs to the
    period of its detection; downtime and cost are cut at the ends of the period. What each number means and what it
    cannot tell say the definitions.
    """
    total, groups = await store.numbers(
        tx,
        asked.scope,
        group_by,
        now=now,
        weights=settings.impact,
        include_non_recoveries=asked.include_non_recoveries,
        horizon=horizon,
    )
    places = sorted(range(len(groups)), key=lambda place: groups[place].incidents, reverse=True)[:GROUPS_AT_MOST]
    largest = [groups[place] for place in sorted(places)]
    return SummaryAnswer(
        group_by=group_by,
        total=numbers_model(total, asked),
        groups=[numbers_model(group, asked) for group in largest],
        groups_left_out=len(groups) - len(largest),
    )


@router.get(
    "/api/v1/metrics/summary.csv",
    summary="Numbers of a period, as CSV",
    response_class=PlainTextResponse,
    responses=problem_responses()
    | {
        200: {
            "description": "Comma-separated, with a header, in UTF-8",
            "content": {
                "text/csv": {
                    "schema": {"type": "string"},
                    "example": "from,to,service,…,number,statistic,unit,value,low,high\r\n",
                }
            },
        }
    },
)
async def summary_csv(
    reader: Reader,
    tx: Tx,
    now: Now,
    settings: Knobs,
    asked: Asked,
    group_by: Grouping = None,
    horizon: Horizon = HORIZON,
) -> Response:
    """The summary, one row for each number and statistic: first of the whole, then of each group. An empty value: there
    is none. Text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    answer = await summary(reader, tx, now, settings, asked, group_by, horizon)
    sheet = StringIO()
    writer = csv.writer(sheet)
    writer.writerow(_COLUMNS)
    for numbers in (answer.total, *answer.groups):
        filters = numbers.filters
        place = (
            rfc3339(filters.since),
            rfc3339(filters.until),
            *(
                text and spreadsheet_text(text)
                for text in (filters.service, filters.severity, filters.source, filters.owner)
            ),
            filters.hour_of_week,
        )
        writer.writerows((*place, *row) for row in _rows(numbers))
    headers = {"Content-Disposition": 'attachment; filename="summary.csv"'}
    return Response(sheet.getvalue(), media_type="text/csv", headers=headers)


_COLUMNS = (
    "from",
    "to",
    "service",
    "severity",
    "source",
    "owner",
    "hour_of_week",
    "number",
    "statistic",
    "unit",
    "value",
    "low",
    "high",
)
_COUNTS = ("n", "pending", "censored", "invalid")
_DURATIONS = ("median", "p90", "p95", "geometric_mean", "mean")


def _rows(numbers: NumbersModel) -> Iterator[tuple[object, ...]]:
    """From the column `number` on."""
    yield "incidents", "count", "incidents", numbers.incidents.value, None, None
    yield "open", "count", "incidents", numbers.open.value, None, None
    for name, of in numbers.measures.items():
        for count in _COUNTS:
            yield name, count, "incidents", getattr(of, count), None, None
        yield name, "excluded", "incidents", sum(of.excluded.values()), None, None
        for statistic in _DURATIONS:
            yield name, statistic, "seconds", getattr(of, statistic), None, None
        for statistic, found in (
            ("kaplan_meier_median", of.kaplan_meier_median),
            ("restricted_mean", of.restricted_mean),
        ):
            yield name, statistic, "seconds", *((found.seconds, found.low, found.high) if found else (None, None, None))
    yield "downtime", "sum", "seconds", numbers.downtime.seconds, None, None
    for currency, amount in (numbers.cost.amounts or {}).items():
        shown = (f"{each:.2f}" for each in (amount.expected, amount.low, amount.high))
        yield "cost", "sum", spreadsheet_text(currency), *shown
