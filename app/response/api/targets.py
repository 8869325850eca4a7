"""HTTP API of targets."""

from typing import Annotated

from fastapi import APIRouter, Body, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, model_validator

from app.base import schema
from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import At, AtShown, Input, Name, Words
from app.base.http.responses.problems import problem_responses
from app.base.values.severity import SeverityName, severity_name, severity_number
from app.incidents.impact.rates import THE_BEGINNING
from app.response.store import targets

router = APIRouter(prefix="/api/v1/targets", tags=["response"])

Seconds = Annotated[int, Field(ge=1, le=366 * 86_400)]
OfService = Annotated[
    Annotated[Words, StringConstraints(max_length=200)],
    Query(description="Empty: the targets of all services that have none of their own", examples=["checkout"]),
]


class TargetInput(Input):
    """At least one of the five must be agreed on."""

    severity: SeverityName = Field(examples=["sev1"])
    valid_from: At | None = Field(None, alias="from", description="Null: valid from the beginning of time")
    acknowledge_seconds: Seconds | None = Field(None, description="From detection to acknowledgement", examples=[300])
    update_seconds: Seconds | None = Field(
        None,
        description="The longest time without an update to stakeholders, between detection and end",
        examples=[1800],
    )
    resolve_seconds: Seconds | None = Field(None, description="From detection to recovery", examples=[14_400])
    responders: int | None = Field(None, ge=1, le=1000, description="How many people respond", examples=[3])
    review_seconds: Seconds | None = Field(
        None,
        description="From recovery to the review, in the business hours of `calendar` or else from Monday to Friday in "
        "UTC; null: none is required",
        examples=[86_400],
    )
    calendar: Name | None = Field(
        None,
        description="Durations are measured in the business hours of this calendar; null: by elapsed time, except "
        "`review_seconds`",
    )

    @model_validator(mode="after")
    def _agrees_on_something(self) -> "TargetInput":
        agreed = (
            self.acknowledge_seconds,
            self.update_seconds,
            self.resolve_seconds,
            self.responders,
            self.review_seconds,
        )
        if not any(agreed):
            message = (
                "needs at least one of `acknowledge_seconds`, `update_seconds`, `resolve_seconds`, `responders` and "
                "`review_seconds`"
            )
            raise ValueError(message)
        return self


def _once_each(found: list[TargetInput]) -> list[TargetInput]:
    if len({(each.severity, each.valid_from or THE_BEGINNING) for each in found}) < len(found):
        message = "two targets have the same `severity` and `from`; keep one of them"
        raise ValueError(message)
    return found


class TargetsInput(Input):
    targets: Annotated[list[TargetInput], AfterValidator(_once_each)] = Field(max_length=targets.TARGETS_AT_MOST)


class TargetResponse(BaseModel):
    service: str = Field(description="Empty: all services that have none of their own for this severity")
    severity: SeverityName
    valid_from: Annotated[AtShown | None, BeforeValidator(lambda at: None if at == THE_BEGINNING else at)] = Field(
        serialization_alias="from", description="Null: valid from the beginning of time"
    )
    acknowledge_seconds: int | None
    update_seconds: int | None
    resolve_seconds: int | None
    responders: int | None
    review_seconds: int | None
    calendar: str | None

    @classmethod
    def of(cls, row: schema.Target) -> "TargetResponse":
        return cls.model_validate(row.model_dump() | {"severity": severity_name(row.severity)})


class TargetsResponse(BaseModel):
    items: list[TargetResponse] = Field(description="By service, severity and time")


@router.get("", summary="List targets", responses=problem_responses())
async def list_targets(session: Session, _: Reader) -> TargetsResponse:
    """What was agreed on for each severity, such as times to acknowledge and to review. An incident is judged by the
    target that was in force when it was detected: that of its service, else that of all services.
    """
    return TargetsResponse(items=[TargetResponse.of(row) for row in await targets.list_targets(session)])


@router.put("", summary="Replace the targets of a service", responses=problem_responses(404))
async def put_targets(
    session: Session,
    body: Annotated[
        TargetsInput,
        Body(
            examples=[
                {
                    "targets": [
                        {
                            "severity": "sev1",
                            "acknowledge_seconds": 300,
                            "update_seconds": 1800,
                            "review_seconds": 86400,
                        },
                        {"severity": "sev1", "from": "2026-12-01T00:00:00Z", "acknowledge_seconds": 180},
                    ]
                }
            ]
        ),
    ],
    _: Writer,
    now: Now,
    service: OfService = "",
) -> TargetsResponse:
    """Replaces all targets of the service, or those for all services; an unknown service is created. Give each change
    of the agreement a `from`, so that earlier incidents are still judged by what was agreed on at their time.
    """
    rows = [target_row(service, each) for each in body.targets]
    return TargetsResponse(
        items=[TargetResponse.of(row) for row in await targets.put_targets(session, service, rows, now=now)]
    )


def target_row(service: str, target: TargetInput) -> schema.Target:
    number, since = severity_number(target.severity), target.valid_from or THE_BEGINNING
    return schema.Target(service=service, **target.model_dump() | {"severity": number, "valid_from": since})
