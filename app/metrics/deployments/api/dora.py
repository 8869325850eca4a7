"""DORA metrics of a period, each with n, an interval and its formula."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.base.http.auth import Reader
from app.base.http.context import Tx
from app.base.http.csv import CSV, Line, Table, cells, or_csv
from app.base.http.fields import Money, Name, PeriodDep, PeriodModel, rfc3339
from app.base.http.problems import problem_responses
from app.incidents.definitions import FORMULAS
from app.incidents.impact.rates import Rate
from app.metrics.deployments.causes import read_dora
from app.metrics.deployments.dora import MIN_CONFIDENCE, Dora, Durations, Failure, Ratio, cost_of_downtime
from app.metrics.deployments.links import Basis, Confidence

router = APIRouter()

FAILURES_AT_MOST = 500

Seconds = Annotated[float | None, Field(description="Null if nothing was recorded (not the same as 0)")]
Links = Annotated[
    list[str],
    Field(description="Links, relative to the URL of Aftermath, to the deployments or incidents behind the number"),
]


class DoraFilters(PeriodModel):
    service: str | None = Field(description="Null means all")
    environment: str | None = Field(description="Null means all production environments")
    min_confidence: Confidence = Field(description="Of the links that make a deployment a failed one")


class FrequencyModel(BaseModel):
    n: int
    days: float
    per_day: float | None
    low: float | None
    high: float | None
    dispersion: float = Field(
        description="Variance of the counts of days or weeks over their mean: they came as if in groups of this size"
    )
    formula: str
    links: Links


class DeploymentCountModel(BaseModel):
    n: int
    formula: str


class DurationsModel(BaseModel):
    """`low_seconds` and `high_seconds` bound the median. With fewer than 10 values, `values` lists them and there are
    no statistics.
    """

    n: int
    values: list[float] | None = Field(
        description="The individual values in ascending order; null if there are 10 or more"
    )
    median_seconds: Seconds
    low_seconds: Seconds
    high_seconds: Seconds
    p90_seconds: Seconds
    mean_seconds: Seconds
    pending: int = Field(description="Durations that have not ended yet")
    left_out: int = Field(description="Deployments, commits or incidents without a usable duration")
    formula: str
    links: Links


class LeadTimeModel(DurationsModel):
    without_commit_times: int = Field(description="Deployments without commit times, which are not included here")


class RatioModel(BaseModel):
    k: int
    n: int
    value: float | None = Field(description="k / n; null if n is 0 (not the same as a ratio of 0)")
    low: float | None
    high: float | None
    formula: str
    links: Links


class ReworkModel(RatioModel):
    unplanned_without_incident: int = Field(
        description="Unplanned deployments that name no incident; not counted in `k`"
    )


class CausedModel(BaseModel):
    incident: str
    basis: Basis
    confidence: Confidence


class FailureModel(BaseModel):
    deployment: str = Field(description="Key of the deployment")
    marked: bool = Field(description="A report marked it with `needed_intervention`, or a rollback took it back")
    incidents: list[CausedModel]


class UnlinkedModel(RatioModel):
    bases: dict[Basis, int] = Field(description="Number of linked incidents, by the basis of the link")
    confidences: dict[Confidence, int] = Field(description="Number of linked incidents, by the confidence of the link")


class FormulaCostModel(BaseModel):
    currency: str
    cost_per_hour: Money = Field(description="Expected")
    low: Money
    expected: Money
    high: Money


class CostFormulaModel(BaseModel):
    """The inputs of DORA's cost formula and the product."""

    deployments: int
    change_fail_rate: float | None
    mean_hours_to_recover: float | None
    amounts: list[FormulaCostModel]
    why_none: str | None = Field(description="Reason why there is no amount")
    formula: str


class DoraResponse(BaseModel):
    filters: DoraFilters
    deployment_frequency: FrequencyModel
    lead_time_for_changes: LeadTimeModel
    unchanged: DeploymentCountModel
    unknown_outcomes: DeploymentCountModel
    change_fail_rate: RatioModel
    change_fail_rate_of_all_links: RatioModel
    change_failures_per_day: FrequencyModel
    failures: list[FailureModel] = Field(description="The first 500 failed deployments")
    failed_deployment_recovery_time: DurationsModel
    time_to_recover: DurationsModel
    rework_rate: ReworkModel
    unlinked: UnlinkedModel
    cost: CostFormulaModel


def _rows(answer: DoraResponse) -> Iterator[Line]:
    line = cells(answer)
    for each in answer.cost.amounts:
        line |= cells(each, f"cost_{each.currency.lower()}")
    yield line


def _values(answer: DoraResponse) -> Iterator[Line]:
    place = cells(answer.filters)
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
    service: Annotated[Name | None, Query(examples=["checkout"])] = None,
    environment: Annotated[Name | None, Query(description="Defaults to all production environments")] = None,
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
        tx, period, service=service, environment=environment, min_confidence=min_confidence
    )
    asked = {"from": rfc3339(period.start), "to": rfc3339(period.end)} | ({"service": service} if service else {})
    incidents = [f"/api/v1/incidents?{urlencode(asked)}"]
    # Without an environment the numbers cover production, which may consist of several environments.
    of = {"environment": environment} if environment else {}
    deployments = [f"/api/v1/deployments?{urlencode(asked | of)}"]
    failures = numbers.failures[:FAILURES_AT_MOST]
    behind = [f"/api/v1/deployments/{failure.deployment.id}" for failure in failures]
    caused = sorted({number for failure in failures for number, _link in failure.links})
    return DoraResponse(
        filters=DoraFilters(
            start=period.start,
            end=period.end,
            service=service,
            environment=environment,
            min_confidence=min_confidence,
        ),
        deployment_frequency=FrequencyModel(
            **asdict(numbers.frequency),
            formula=FORMULAS["deployment_frequency"],
            links=[f"{link}&outcome=succeeded" for link in deployments],
        ),
        lead_time_for_changes=LeadTimeModel(
            **_durations(numbers.lead_time, "lead_time_for_changes", deployments),
            without_commit_times=numbers.without_commit_times,
        ),
        change_fail_rate=RatioModel(**_ratio(numbers.change_fail_rate, "change_fail_rate", [*deployments, *behind])),
        change_fail_rate_of_all_links=RatioModel(
            **_ratio(numbers.change_fail_rate_of_all_links, "change_fail_rate_of_all_links", deployments)
        ),
        change_failures_per_day=FrequencyModel(
            **asdict(numbers.change_failures), formula=FORMULAS["change_failures_per_day"], links=behind
        ),
        unchanged=DeploymentCountModel(n=numbers.unchanged, formula=FORMULAS["unchanged"]),
        unknown_outcomes=DeploymentCountModel(n=numbers.unknown_outcomes, formula=FORMULAS["unknown_outcomes"]),
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


def _durations(each: Durations, name: str, links: list[str]) -> dict[str, Any]:
    return {
        "n": each.n,
        "values": None if each.values is None else list(each.values),
        "median_seconds": each.median,
        "low_seconds": each.low,
        "high_seconds": each.high,
        "p90_seconds": each.p90,
        "mean_seconds": None if each.mean is None or each.values is not None else float(each.mean),
        "pending": each.pending,
        "left_out": each.left_out,
        "formula": FORMULAS[name],
        "links": links,
    }


def _ratio(each: Ratio, name: str, links: list[str]) -> dict[str, Any]:
    return asdict(each) | {"formula": FORMULAS[name], "links": links}


def _failure(failure: Failure) -> FailureModel:
    return FailureModel(
        deployment=failure.deployment.id,
        marked=failure.marked,
        incidents=[
            CausedModel(incident=f"INC-{number}", basis=link.basis, confidence=link.confidence)
            for number, link in failure.links
        ],
    )


def _cost(numbers: Dora, rates: Sequence[Rate], service: str | None) -> CostFormulaModel:
    rate, recovery = numbers.change_fail_rate, numbers.failed_deployment_recovery_time
    hours = None if recovery.mean is None else recovery.mean / 3600
    why_none = None
    if service is None:
        why_none = "select one service: the hourly cost of an outage differs between services"
    elif not rates:
        why_none = "the service has no rate"
    elif rate.n == 0:
        why_none = "nothing was deployed"
    elif hours is None and rate.k:
        why_none = "no failed deployment has a time to recover"
    amounts = [] if why_none else [_amount(each, rate, hours or Decimal(0)) for each in rates]
    return CostFormulaModel(
        deployments=numbers.finished,
        change_fail_rate=rate.value,
        mean_hours_to_recover=None if hours is None else float(hours),
        amounts=amounts,
        why_none=why_none,
        formula=FORMULAS["dora_cost"],
    )


def _amount(each: Rate, rate: Ratio, hours: Decimal) -> FormulaCostModel:
    share = Decimal(rate.k) / rate.n
    return FormulaCostModel(
        currency=each.currency,
        cost_per_hour=each.expected,
        low=cost_of_downtime(rate.n, share, hours, each.low),
        expected=cost_of_downtime(rate.n, share, hours, each.expected),
        high=cost_of_downtime(rate.n, share, hours, each.high),
    )
