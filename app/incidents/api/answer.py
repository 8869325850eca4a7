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

from app.base.http.context import Knobs, Now, Session
from app.base.http.fields import At, MoneyRange
from app.base.schema import Incident, Row
from app.base.severity import SeverityName, severity_name
from app.incidents import views
from app.incidents.actions import etag
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.impact import labor
from app.incidents.impact.intervals import shown
from app.incidents.impact.store import costs_of
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
from app.settings import Settings

Share = Annotated[Decimal, PlainSerializer(str, return_type=str)]


class MeasureModel(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    seconds: float | None = Field(description="Set if and only if the status is `recorded`")
    status: MeasureStatus
    reason: str | None


class CostModel(MoneyRange):
    """Low, expected and high, at the hourly rates of the service. Overlapping incidents split their common cost."""

    model_config = ConfigDict(from_attributes=True)


class IncidentModel(BaseModel):
    id: UUID
    number: str = Field(examples=["INC-1"])
    title: str
    service: str
    severity: SeverityName
    priority: Priority
    status: IncidentStatus
    sources: list[str]
    key: str = Field(
        description="The grouping key: alerts with the same key are grouped", examples=['service="checkout"']
    )
    labels: dict[str, str] = Field(description="The labels that all its alerts have in common")
    detected_at: At
    impact_started_at: At | None = Field(
        description="When users were first affected: as stated by a person, else from the `for` annotation of an alert"
    )
    acknowledged_at: At | None
    acknowledged_by: str | None
    identified_at: At | None
    mitigated_at: At | None
    first_resolved_at: At | None
    resolved_at: At | None
    end_reason: str | None = Field(
        description="Why its last alert ended; `recovered`, `superseded`, `manual` and `reconciled` are recoveries"
    )
    settled: bool = Field(description="Resolved long enough ago to be counted in the Prometheus histograms")
    reopened: int = Field(description="How often it was reopened after a recovery")
    alerts: int
    open_alerts: int
    still_firing: bool = Field(description="A person resolved it, but its alerts are still reported as firing")
    merged_into: str | None = Field(
        description="The incident it was merged into; merged incidents are excluded from lists and metrics"
    )
    impact: Share | None = Field(
        description="Share of the hourly cost, as stated by a person; null: the share of the severity applies"
    )
    measures: dict[str, MeasureModel]
    cost: dict[str, CostModel] | None = Field(description="By currency; null (not 0) if the service has no rate")
    labor: dict[str, CostModel] | None = Field(
        description="Cost of the responders' time, never part of `cost`; null if it was not acknowledged before it "
        "ended, or `AFTERMATH_LABOR` is not set"
    )


async def models_of(
    session: AsyncSession, rows: Sequence[Incident], *, settings: Settings, now: datetime
) -> list[IncidentModel]:
    """Runs a fixed number of statements, however many rows there are."""
    sources = await views.source_names(session)
    winners = await views.numbers(session, [row.merged_into for row in rows if row.merged_into is not None])
    costs = await costs_of(await session.connection(), rows, now=now, weights=settings.impact)

    def model(row: Incident) -> IncidentModel:
        facts = Facts.of(row)
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
            "settled": row.settled_at is not None,
            "merged_into": f"INC-{winners[row.merged_into]}" if row.merged_into else None,
            "impact": row.impact_stated,
            "measures": measures(facts),
            "cost": costs.get(row.id),
            "labor": shown(work) or None,
        }
        return IncidentModel.model_validate(columns_of(row, IncidentModel) | derived)

    return list(map(model, rows))


def columns_of(row: Row, model: type[BaseModel]) -> dict[str, Any]:
    """The columns of the row that are also fields of the model."""
    return {name: getattr(row, name) for name in type(row).model_fields.keys() & model.model_fields.keys()}


@dataclass(slots=True)
class Answer:
    """Builds the response for one incident and sets its ETag."""

    session: Session
    settings: Knobs
    now: Now
    response: Response

    async def __call__(self, row: Incident) -> IncidentModel:
        self.response.headers["ETag"] = etag(row.version)
        [model] = await models_of(self.session, [row], settings=self.settings, now=self.now)
        return model


Answering = Annotated[Answer, Depends()]
