"""HTTP API of what-if scenarios."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.base.http.access.auth import Reader
from app.base.http.context import Now, SettingsDep, Tx
from app.base.http.requests.fields import MoneyRange, PeriodDep, PeriodModel
from app.base.http.requests.filters import Services, SeveritiesFiltered, severity_numbers
from app.base.http.responses.csv import CSV, Line, cells, or_csv
from app.base.http.responses.numbers import DefinitionName, Seconds
from app.base.http.responses.problems import problem_responses
from app.base.values.severity import SeverityName
from app.metrics.api.answer import Amounts, Links, links_of, money_ranges
from app.metrics.api.query import GROUPS_AT_MOST, bounds_in
from app.metrics.query import Filters, MetricsQuery
from app.metrics.whatif import scenario
from app.metrics.whatif.scenario import ASSUMPTIONS, Adjustments, BeforeAndAfter, change
from app.metrics.whatif.store import read_what_if

router = APIRouter()


class OutcomeModel(BaseModel):
    before: Amounts
    after: Amounts
    difference: Annotated[
        dict[str, MoneyRange] | None,
        Field(description="`after` minus `before`, so savings are negative; null if no rate was known"),
    ]
    downtime_before_seconds: Seconds
    downtime_after_seconds: Seconds


class ServiceOutcomeModel(OutcomeModel):
    service: str


class WhatIfFilters(SeveritiesFiltered):
    severity: list[SeverityName] = Field(description="Severities of the incidents that are changed; empty means all")


class WhatIfResponse(PeriodModel):
    filters: WhatIfFilters
    changes: dict[str, str] = Field(description="The changes as requested", examples=[{"time_to_recover": "-20%"}])
    incidents: int = Field(description="Incidents of that severity with impact in the period")
    applied: dict[str, int] = Field(description="Number of those incidents each change applies to")
    total: OutcomeModel
    services: list[ServiceOutcomeModel] = Field(description="The first 500 services by name")
    services_left_out: int
    definition: DefinitionName
    assumptions: list[str]
    links: Links


ChangeText = Annotated[
    str | None, Query(max_length=30, examples=["-20%"], description="Change such as `-20%`, `+10%` or `-5m`")
]


def _rows(answer: WhatIfResponse) -> Iterator[Line]:
    yield cells(answer)
    for each in answer.services:
        yield cells(answer, only=("start", "end", "filters", "changes")) | cells(each)


@router.get("/api/v1/metrics/whatif", summary="Show what a period would have cost", responses=problem_responses() | CSV)
@or_csv(_rows, lines="One line for the total, then one per service")
async def get_what_if(
    _: Reader,
    tx: Tx,
    now: Now,
    settings: SettingsDep,
    period: PeriodDep,
    service: Services = [],  # noqa: B006  fastapi copies it, as the other list
    time_to_detect: ChangeText = None,
    time_to_acknowledge: ChangeText = None,
    time_to_recover: ChangeText = None,
    incidents: Annotated[
        str | None, Query(max_length=30, examples=["-10%"], description="Change such as `-10%`")
    ] = None,
    severity: Annotated[
        list[SeverityName],
        Query(
            description="Change only incidents of this severity; cost and downtime still include all incidents. May be "
            "repeated"
        ),
    ] = [],  # noqa: B006
) -> WhatIfResponse:
    """Estimates cost and downtime with faster or slower detection, acknowledgement or recovery, or with fewer
    incidents, by moving the ends of the recorded incidents and pricing them again. `assumptions` lists the assumptions.
    """
    asked = {
        name: text
        for name, text in (
            ("time_to_detect", time_to_detect),
            ("time_to_acknowledge", time_to_acknowledge),
            ("time_to_recover", time_to_recover),
            ("incidents", incidents),
        )
        if text is not None
    }
    changes = Adjustments(
        **{name: change(text, name=name, absolute=name != "incidents") for name, text in asked.items()},
        severity=severity_numbers(severity),
    )
    query = MetricsQuery(period, Filters(service=tuple(service)), bounds=bounds_in(settings))
    found = await read_what_if(tx, query, changes, now=now, weights=settings.impact)
    shown = islice(found.services.items(), GROUPS_AT_MOST)
    services = [ServiceOutcomeModel(service=name, **_outcome(each).model_dump()) for name, each in shown]
    return WhatIfResponse(
        start=period.start,
        end=period.end,
        filters=WhatIfFilters(service=service, severity=severity),
        changes={name: text.replace(" ", "+") for name, text in asked.items()},
        incidents=found.incidents,
        applied=dict(found.applied),
        total=_outcome(found.whole),
        services=services,
        services_left_out=len(found.services) - len(services),
        definition="whatif",
        assumptions=list(ASSUMPTIONS),
        links=links_of(replace(query, filters=Filters(service=tuple(service), severity=changes.severity))),
    )


def _outcome(outcome: BeforeAndAfter) -> OutcomeModel:
    before, after, difference = (
        money_ranges(scenario.shown(cost)) or None for cost in (outcome.before, outcome.after, outcome.difference)
    )
    return OutcomeModel(
        before=before,
        after=after,
        difference=difference,
        downtime_before_seconds=outcome.downtime_before.total_seconds(),
        downtime_after_seconds=outcome.downtime_after.total_seconds(),
    )
