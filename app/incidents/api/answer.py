"""The response model of an incident: its row, its measures and its cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Response
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.http.context import Now, Session, SettingsDep
from app.base.http.requests.fields import AtShown, MoneyRange
from app.base.schema import Incident, Row
from app.base.values.severity import SeverityName, severity_name
from app.incidents import relations
from app.incidents.actions import etag
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.impact import labor
from app.incidents.impact.individual import impacts_of
from app.incidents.impact.intervals import shown
from app.incidents.measures.measures import (
    Facts,
    IncidentStatus,
    MeasureStatus,
    Priority,
    detected_at,
    measures,
    priority,
    service,
    severity,
    status,
)
from app.incidents.reading import views
from app.incidents.reading.links import LinkKind
from app.settings import Settings

HARMED_THROUGHOUT = (
    "Whether users were affected between its alerts too: downtime and cost then include the gaps, at the worst severity"
)

IS_TEST = (
    "A person marked it as a test: it has no downtime and no cost, counts in no number, and requires no review. What "
    "Prometheus has counted already stays counted"
)

EXPECTED_TO_LAST = "Whether a person expects it to last for more than an hour; null: no one stated it"

Share = Annotated[Decimal, PlainSerializer(str, return_type=str)]


class MeasureModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    seconds: float | None = Field(description="Set if and only if the status is `recorded`")
    status: MeasureStatus
    reason: str | None


class CostModel(MoneyRange):
    """Low, expected and high, at the hourly rates of the service. Overlapping incidents split their common cost."""

    model_config = ConfigDict(from_attributes=True)


class ListedIncidentModel(BaseModel):
    id: UUID
    number: str = Field(examples=["INC-1"])
    title: str
    service: str
    environment: str | None = Field(description="Null: unknown, because its alerts name none")
    severity: SeverityName
    priority: Priority
    status: IncidentStatus
    sources: list[str]
    key: str = Field(
        description="The grouping key: alerts with the same key are grouped", examples=['service="checkout"']
    )
    labels: dict[str, str] = Field(description="The labels that all its alerts have in common")
    detected_at: AtShown
    impact_started_at: AtShown | None = Field(
        description="When users were first affected: as stated by a person, else from the `for` annotation of an alert"
    )
    acknowledged_at: AtShown | None
    acknowledged_by: str | None
    acknowledged_via: str | None = Field(
        description="How: the name of the source that reported it, or `api` or `page` for an acknowledgement that was "
        "recorded here. Null: unknown, as for those from before this was stored",
        examples=["pagerduty-prod"],
    )
    declared_at: AtShown | None = Field(description="When a person declared the response")
    first_public_at: AtShown | None = Field(description="Time of the first update on the status page")
    identified_at: AtShown | None
    mitigated_at: AtShown | None
    first_resolved_at: AtShown | None
    resolved_at: AtShown | None
    end_reason: str | None = Field(
        description="Why its last alert ended; `recovered`, `manual`, `reconciled` and `expired` are recoveries"
    )
    settled: bool = Field(description="Resolved long enough ago to be counted in the Prometheus histograms")
    reopened: int = Field(description="How often it was reopened after a recovery")
    alerts: int = Field(description="Alerts that sources reported, whether they fire or have ended")
    alerts_firing: int = Field(description="How many of these alerts have not ended")
    held_open: bool = Field(
        description="A person declared it, or reopened it after its alerts had ended, and no one has resolved it since"
    )
    firing_after_resolve: bool = Field(
        description="One of its alerts was ended by its source or a person, but was reported as firing after "
        "that. If its source keeps reporting it as firing for `refire_seconds`, an end that the source reported no "
        "longer counts"
    )
    merged_into: str | None = Field(
        description="The incident it was merged into; merged incidents are excluded from lists and metrics"
    )
    related: list[str] = Field(description="The incidents that a person marked as related to it", examples=[["INC-7"]])
    impact: Share | None = Field(
        description="Share of the hourly cost, as stated by a person; null: the share of the worst severity that fires "
        "at each time applies"
    )
    harmed_throughout: bool = Field(description=HARMED_THROUGHOUT)
    type: str | None = Field(
        description="The incident type that a person stated; null: the first whose matchers match, see `response`"
    )
    expected_to_last: bool | None = Field(description=EXPECTED_TO_LAST)
    test: bool = Field(description=IS_TEST)
    measures: dict[str, MeasureModel]
    downtime_seconds: float | None = Field(
        description="How long its alerts fired with an impact above 0, outside planned maintenance; not the same as "
        "`time_to_recover`, which includes the gaps between alerts. Null if it was merged into another"
    )
    cost: dict[str, CostModel] | None = Field(description="By currency; null (not 0) if the service has no rate")
    labor: dict[str, CostModel] | None = Field(
        description="Cost of the responders' time, never part of `cost`; null if it was not acknowledged before it "
        "ended, or `AFTERMATH_LABOR` is not set"
    )


class LinkModel(BaseModel):
    """A page about the incident that one of its alerts names."""

    model_config = ConfigDict(from_attributes=True)

    kind: LinkKind = Field(description="`alert` is where an alert was defined, or its graph")
    url: str = Field(examples=["https://wiki.example.org/runbooks/checkout"])


class IncidentModel(ListedIncidentModel):
    """An incident with the links that its alerts name."""

    links: list[LinkModel] = Field(
        description="Runbooks and dashboards from the annotations of its alerts, and the generator URLs of these; only "
        "`http` and `https`, from the first 50 alerts, at most 5 of each kind"
    )


async def models_of(
    session: AsyncSession, rows: Sequence[Incident], *, settings: Settings, now: datetime
) -> list[ListedIncidentModel]:
    """Runs a fixed number of statements, however many rows there are."""
    sources = await views.source_names(session)
    winners = await views.numbers(session, [row.merged_into for row in rows if row.merged_into is not None])
    related = await relations.related(session, [row.id for row in rows])
    held = await views.held_alerts(session, [row for row in rows if MANUAL_SOURCE_ID in row.source_ids])
    impacts = await impacts_of(await session.connection(), rows, now=now, weights=settings.impact)

    def model(row: Incident) -> ListedIncidentModel:
        facts, impact = Facts.of(row), impacts.get(row.id)
        work = labor.of_incident(facts, settings.labor, now=now) if settings.labor else {}
        derived = {
            "number": f"INC-{row.number}",
            "title": row.title_stated or row.title,
            "service": service(facts),
            "severity": severity_name(severity(facts)),
            "priority": priority(facts),
            "status": status(facts),
            "sources": [sources[id_] for id_ in row.source_ids if id_ != MANUAL_SOURCE_ID],
            "detected_at": detected_at(facts),
            "first_resolved_at": row.first_ended_at,
            "resolved_at": row.ended_at,
            "end_reason": row.end_reason if row.ended_at else None,
            "settled": row.settled_at is not None and row.ended_at is not None,
            "firing_after_resolve": row.fired_after_end_at is not None,
            "merged_into": f"INC-{winners[row.merged_into]}" if row.merged_into else None,
            "related": [f"INC-{number}" for number in related.get(row.id, ())],
            "alerts_firing": row.open_alerts - held.get(row.id, 0),
            "held_open": row.id in held,
            "impact": row.impact_stated,
            "type": row.type_stated,
            "expected_to_last": row.expected_to_last_stated,
            "harmed_throughout": bool(row.harmed_throughout_stated),
            "test": bool(row.test_stated),
            "measures": measures(facts),
            "downtime_seconds": impact and impact.downtime.total_seconds(),
            "cost": impact and (impact.cost or None),
            "labor": shown(work) or None,
        }
        return ListedIncidentModel.model_validate(columns_of(row, ListedIncidentModel) | derived)

    return list(map(model, rows))


def columns_of(row: Row, model: type[BaseModel]) -> dict[str, Any]:
    """The columns of the row that are also fields of the model."""
    return {name: getattr(row, name) for name in type(row).model_fields.keys() & model.model_fields.keys()}


@dataclass(slots=True)
class Answer:
    """Builds the response for one incident and sets its ETag."""

    session: Session
    settings: SettingsDep
    now: Now
    response: Response

    async def __call__(self, row: Incident) -> IncidentModel:
        self.response.headers["ETag"] = etag(row.version)
        [model] = await models_of(self.session, [row], settings=self.settings, now=self.now)
        return IncidentModel(**dict(model), links=await views.links(self.session, row))


Answering = Annotated[Answer, Depends()]
