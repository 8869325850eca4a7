"""DORA metrics of a period, each with n, an interval and its formula."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.base.http.access.auth import Reader
from app.base.http.context import Tx
from app.base.http.requests.fields import (
    SEVERAL_AT_MOST,
    EnvironmentFiltered,
    Money,
    MoneyRange,
    PeriodDep,
    PeriodModel,
)
from app.base.http.requests.filters import Services, ServicesFiltered
from app.base.http.responses.csv import CSV, Line, Table, cells, or_csv
from app.base.http.responses.numbers import DefinitionName, Number, RatioModel, Seconds
from app.base.http.responses.problems import problem_responses
from app.incidents.impact.rates import Rate
from app.metrics.deployments.causes import read_dora
from app.metrics.deployments.dora import MIN_CONFIDENCE, Dora, Durations, Failure, Frequency, Ratio, cost_of_downtime
from app.metrics.deployments.links import Basis, Confidence
from app.metrics.shapes import CountModel, PerDayModel, ValuesModel, statistics_model, window

router = APIRouter()

FAILURES_AT_MOST = 500

Links = Annotated[
    list[str],
    Field(description="Links, relative to the URL of Aftermath, to the deployments or incidents behind the number"),
]


class DoraFilters(ServicesFiltered):
    environment: list[str] = Field(
        description="Environments; empty means all production environments", examples=[["production"]]
    )
    min_confidence: Confidence = Field(description="Of the links that make a deployment a failed one")


class FrequencyModel(BaseModel):
    n: int
    days: Number
    per_day: PerDayModel
    definition: DefinitionName
    links: Links


class IntervalModel(BaseModel):
    low: Seconds | None = Field(description="Lower bound of the 95 % interval; null if unknown")
    high: Seconds | None = Field(description="Upper bound of the 95 % interval; null if unknown")


class DurationsModel(ValuesModel):
    median_interval: IntervalModel | None = Field(description="Null if there are fewer than 10 values")
    without_duration: int = Field(description="Deployments, commits or incidents without a usable duration")
    definition: DefinitionName
    links: Links


class LeadTimeModel(DurationsModel):
    without_commit_times: int = Field(description="Deployments without commit times, which are not included here")


class DefinedRatioModel(RatioModel):
    definition: DefinitionName
    links: Links


class ReworkModel(DefinedRatioModel):
    unplanned_without_incident: int = Field(
        description="Unplanned deployments that name no incident; not counted in `k`"
    )


class CausedModel(BaseModel):
    incident: str
    basis: Basis
    confidence: Confidence


class FailureModel(BaseModel):
    deployment: str = Field(description="Key of the deployment")
    marked: bool = Field(description="A report marked it with `needed_intervention`, or it was rolled back")
    incidents: list[CausedModel]


class UnlinkedModel(DefinedRatioModel):
    bases: dict[Basis, int] = Field(description="Number of linked incidents, by the basis of the link")
    confidences: dict[Confidence, int] = Field(description="Number of linked incidents, by the confidence of the link")


class FormulaCostModel(MoneyRange):
    cost_per_hour: Money = Field(description="Expected")


class CostFormulaModel(BaseModel):
    """The inputs of DORA's cost formula and the product."""

    deployments: int
    change_fail_rate: Number | None
    mean_hours_to_recover: Number | None
    amounts: dict[str, FormulaCostModel] | None = Field(
        description="By currency, never converted; null if there is no amount (not the same as 0)"
    )
    why_none: str | None = Field(description="Reason why there is no amount")
    definition: DefinitionName


class DoraResponse(PeriodModel):
    filters: DoraFilters
    deployment_frequency: FrequencyModel
    lead_time_for_changes: LeadTimeModel
    unchanged: CountModel
    unknown_outcomes: CountModel
    change_fail_rate: DefinedRatioModel
    change_fail_rate_of_all_links: DefinedRatioModel
    change_failures_per_day: FrequencyModel
    failures: list[FailureModel] = Field(description="The first 500 failed deployments")
    failed_deployment_recovery_time: DurationsModel
    time_to_recover: DurationsModel
    rework_rate: ReworkModel
    unlinked: UnlinkedModel
    cost: CostFormulaModel


def _rows(answer: DoraResponse) -> Iterator[Line]:
    yield cells(answer)


def _values(answer: DoraResponse) -> Iterator[Line]:
    place = cells(answer, only=("start", "end", "filters"))
    for name in ("lead_time_for_changes", "failed_deployment_recovery_time", "time_to_recover"):
        durations: DurationsModel = getattr(answer, name)
        for seconds in durations.values or ():
            yield place | {"number": name, "values": str(seconds)}


_VALUES = Table(_values, "One line per value of the durations with fewer than 10 values; `number` names the duration")


@router.get(
    "/api/v1/metrics/dora",
    response_model=DoraResponse,
    responses=problem_responses() | CSV,
    tags=["metrics"],
    summary="Show DORA metrics of a period",
)
@or_csv(_rows, lines="One line", tables={"values": _VALUES})
async def get_dora(
    _: Reader,
    tx: Tx,
    period: PeriodDep,
    service: Services = [],  # noqa: B006  fastapi copies it, as the other list
    environment: Annotated[
        list[EnvironmentFiltered],
        Query(
            description="Defaults to all production environments; may be repeated",
            max_length=SEVERAL_AT_MOST,
            examples=[["production"]],
        ),
    ] = [],  # noqa: B006
    min_confidence: Annotated[
        Confidence,
        Query(
            description="A deployment counts as failed if it caused an incident by a link of at least this confidence; "
            "`low` includes guesses by time alone"
        ),
    ] = MIN_CONFIDENCE,
) -> DoraResponse:
    """Deployment frequency, lead time for changes, change fail rate, recovery time and rework rate, each with n, a 95 %
    interval and its formula. Compare a service with its own past, not with other services.
    """
    numbers, rates = await read_dora(
        tx, period, services=service, environments=environment, min_confidence=min_confidence
    )
    asked = window(period) | {"service": service}
    incidents = [f"/api/v1/incidents?{urlencode(asked, doseq=True)}"]
    # Without an environment the numbers cover production, which may consist of several environments.
    deployments = [f"/api/v1/deployments?{urlencode(asked | {'environment': environment}, doseq=True)}"]
    failures = numbers.failures[:FAILURES_AT_MOST]
    behind = [f"/api/v1/deployments/{failure.deployment.id}" for failure in failures]
    caused = sorted({number for failure in failures for number, _link in failure.links})
    return DoraResponse(
        start=period.start,
        end=period.end,
        filters=DoraFilters(service=service, environment=environment, min_confidence=min_confidence),
        deployment_frequency=_frequency(
            numbers.frequency, "deployment_frequency", [f"{link}&outcome=succeeded" for link in deployments]
        ),
        lead_time_for_changes=LeadTimeModel(
            **_durations(numbers.lead_time, "lead_time_for_changes", deployments),
            without_commit_times=numbers.without_commit_times,
        ),
        change_fail_rate=DefinedRatioModel(
            **_ratio(numbers.change_fail_rate, "change_fail_rate", [*deployments, *behind])
        ),
        change_fail_rate_of_all_links=DefinedRatioModel(
            **_ratio(numbers.change_fail_rate_of_all_links, "change_fail_rate_of_all_links", deployments)
        ),
        change_failures_per_day=_frequency(numbers.change_failures, "change_failures_per_day", behind),
        unchanged=CountModel(value=numbers.unchanged, definition="unchanged"),
        unknown_outcomes=CountModel(value=numbers.unknown_outcomes, definition="unknown_outcomes"),
        failures=[_failure(failure) for failure in failures],
        failed_deployment_recovery_time=DurationsModel(
            **_durations(
                numbers.failed_deployment_recovery_time,
                "failed_deployment_recovery_time",
                [f"/api/v1/incidents/INC-{number}" for number in caused],
            )
        ),
        time_to_recover=DurationsModel(**_durations(numbers.time_to_recover, "dora_time_to_recover", incidents)),
        rework_rate=ReworkModel(
            **_ratio(numbers.rework_rate, "rework_rate", deployments),
            unplanned_without_incident=numbers.unplanned_without_incident,
        ),
        unlinked=UnlinkedModel(
            **_ratio(numbers.unlinked, "unlinked", incidents),
            bases=dict(numbers.bases),
            confidences=dict(numbers.confidences),
        ),
        cost=_cost(numbers, rates, service),
    )


def _frequency(each: Frequency, definition: str, links: list[str]) -> FrequencyModel:
    return FrequencyModel(
        n=each.n,
        days=each.days,
        per_day=PerDayModel(value=each.per_day, low=each.low, high=each.high, dispersion=each.dispersion),
        definition=definition,
        links=links,
    )


def _durations(each: Durations, definition: str, links: list[str]) -> dict[str, Any]:
    return {
        "n": each.n,
        "values": None if each.values is None else list(each.values),
        "statistics": statistics_model(each.typical),
        "median_interval": each.typical and IntervalModel(low=each.low, high=each.high),
        "pending": each.pending,
        "without_duration": each.left_out,
        "definition": definition,
        "links": links,
    }


def _ratio(each: Ratio, definition: str, links: list[str]) -> dict[str, Any]:
    return asdict(each) | {"definition": definition, "links": links}


def _failure(failure: Failure) -> FailureModel:
    return FailureModel(
        deployment=failure.deployment.id,
        marked=failure.marked,
        incidents=[
            CausedModel(incident=f"INC-{number}", basis=link.basis, confidence=link.confidence)
            for number, link in failure.links
        ],
    )


def _cost(numbers: Dora, rates: Sequence[Rate], services: Sequence[str]) -> CostFormulaModel:
    rate, recovery = numbers.change_fail_rate, numbers.failed_deployment_recovery_time
    hours = None if recovery.mean is None else recovery.mean / 3600
    why_none = None
    if len(services) != 1:
        why_none = "select one service: the hourly cost of an outage differs between services"
    elif not rates:
        why_none = "the service has no rate"
    elif rate.n == 0:
        why_none = "nothing was deployed"
    elif hours is None and rate.k:
        why_none = "no failed deployment has a time to recover"
    amounts = None if why_none else {each.currency: _amount(each, rate, hours or Decimal(0)) for each in rates}
    return CostFormulaModel(
        deployments=numbers.finished,
        change_fail_rate=rate.value,
        mean_hours_to_recover=None if hours is None else float(hours),
        amounts=amounts,
        why_none=why_none,
        definition="dora_cost",
    )


def _amount(each: Rate, rate: Ratio, hours: Decimal) -> FormulaCostModel:
    share = Decimal(rate.k) / rate.n
    return FormulaCostModel(
        cost_per_hour=each.expected,
        low=cost_of_downtime(rate.n, share, hours, each.low),
        expected=cost_of_downtime(rate.n, share, hours, each.expected),
        high=cost_of_downtime(rate.n, share, hours, each.high),
    )
