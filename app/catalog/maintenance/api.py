"""HTTP API of planned maintenance."""

from datetime import date, datetime, time
from typing import Annotated

from fastapi import APIRouter, Body, Path, Response
from pydantic import BaseModel, Field, StringConstraints, model_validator

from app.base import schema
from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session
from app.base.http.requests.fields import (
    WEEKDAYS,
    At,
    AtShown,
    Date,
    Input,
    LocalTime,
    Name,
    Slug,
    Weekday,
    Words,
    Zone,
)
from app.base.http.requests.filters import Contained
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.catalog.maintenance import store
from app.incidents.impact.maintenance import Window, coming

router = APIRouter(prefix="/api/v1/maintenance", tags=["maintenance"])


# — the contract —

MaintenanceName = Annotated[
    Slug,
    Path(description="Letters, digits, `.`, `_` and `-`", examples=["sunday-patching"]),
]


class OnceInput(Input):
    since: At = Field(alias="from")
    until: At = Field(alias="to", description="Exclusive")

    @model_validator(mode="after")
    def _ordered(self) -> "OnceInput":
        if self.since >= self.until:
            message = "`from` must be before `to`"
            raise ValueError(message)
        return self


class RecurringInput(Input):
    """A start time that a clock change skips uses the offset before the change; of a repeated one, the first counts."""

    weekdays: list[Weekday] = Field(min_length=1, max_length=7, description="Days on which it starts, in `zone`")
    start_time: LocalTime = Field(description="Local time in `zone`", examples=["02:30"])
    duration_seconds: int = Field(ge=60, le=7 * 24 * 3600, description="Elapsed time, regardless of clock changes")
    zone: Zone
    first_date: Date
    last_date: Date | None = Field(None, description="Inclusive; null: until further notice")

    @model_validator(mode="after")
    def _ordered(self) -> "RecurringInput":
        if self.last_date is not None and self.last_date < self.first_date:
            message = "`last_date` must not be before `first_date`"
            raise ValueError(message)
        return self


class MaintenanceInput(Input):
    """Set either `once` or `recurring`."""

    services: list[Name] = Field([], max_length=500, description="Empty: all services, including future ones")
    reason: Annotated[Words, StringConstraints(min_length=1, max_length=1000)]
    once: OnceInput | None = None
    recurring: RecurringInput | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "MaintenanceInput":
        if (self.once is None) == (self.recurring is None):
            message = "set either `once` or `recurring`, and not both"
            raise ValueError(message)
        return self


class OccurrenceResponse(BaseModel):
    since: AtShown = Field(serialization_alias="from")
    until: AtShown = Field(serialization_alias="to", description="Exclusive")


class RecurringResponse(BaseModel):
    """See `RecurringInput`."""

    weekdays: list[str]
    start_time: str
    duration_seconds: int
    zone: str
    first_date: date
    last_date: date | None


class MaintenanceResponse(BaseModel):
    name: str
    services: list[str]
    reason: str
    once: OccurrenceResponse | None
    recurring: RecurringResponse | None
    next: OccurrenceResponse | None = Field(description="The current or next occurrence; null: all are over")
    created_at: AtShown
    updated_at: AtShown


# — the routes —


@router.get("", summary="List planned maintenance", responses=problem_responses())
async def list_maintenance(
    session: Session,
    now: Now,
    paging: Pages,
    _: Reader,
    q: Contained = None,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[MaintenanceResponse]:
    """Sorted by name."""
    found = await store.list_maintenance(session, q, after=paging.after_name(), limit=paging.limit + 1)
    page, next_cursor = page_of(found, paging, lambda row: (row.name,))
    return CountedPage(
        items=[_shown(row, now) for row in page],
        next_cursor=next_cursor,
        total=await store.count_maintenance(session, q) if count else None,
    )


@router.get("/{name}", summary="Get planned maintenance", responses=problem_responses(404))
async def get_maintenance(session: Session, now: Now, name: MaintenanceName, _: Reader) -> MaintenanceResponse:
    """Returns its services, times and reason."""
    return _shown(await store.find_maintenance(session, name), now)


@router.put(
    "/{name}", summary="Plan maintenance", responses=problem_responses() | {201: {"model": MaintenanceResponse}}
)
async def put_maintenance(
    session: Session,
    now: Now,
    name: MaintenanceName,
    body: Annotated[
        MaintenanceInput,
        Body(
            examples=[
                {
                    "services": ["checkout"],
                    "reason": "Database patching",
                    "recurring": {
                        "weekdays": ["sunday"],
                        "start_time": "02:30",
                        "duration_seconds": 7200,
                        "zone": "Europe/Berlin",
                        "first_date": "2026-01-01",
                    },
                },
                {
                    "reason": "Move to the new data center",
                    "once": {"from": "2026-08-22T20:00:00Z", "to": "2026-08-23T04:00:00Z"},
                },
            ]
        ),
    ],
    response: Response,
    _: Writer,
) -> MaintenanceResponse:
    """Failures during maintenance do not count toward downtime, cost or spent error budget, and are shown separately.
    Past numbers are recomputed, except Prometheus counters, which use the maintenance known when an incident settles.
    Returns 201 if the maintenance is new.
    """
    row, is_new = await store.put_maintenance(session, maintenance_row(name, body, now))
    response.status_code = 201 if is_new else 200
    return _shown(row, now)


@router.delete("/{name}", summary="Delete maintenance", status_code=204, responses=problem_responses(404))
async def delete_maintenance(session: Session, name: MaintenanceName, _: Writer) -> None:
    """Numbers are recomputed as if it had never been planned. To end recurring maintenance, set `last_date` instead."""
    await store.delete_maintenance(session, name)


def maintenance_row(name: str, body: MaintenanceInput, now: datetime) -> schema.Maintenance:
    row = schema.Maintenance(
        name=name, services=sorted(set(body.services)), reason=body.reason, created_at=now, updated_at=now
    )
    if body.once is not None:
        row.begins_at, row.ends_at = body.once.since, body.once.until
    if body.recurring is not None:
        row.weekdays = sorted({WEEKDAYS.index(day) for day in body.recurring.weekdays})
        row.start_time = time.fromisoformat(body.recurring.start_time)
        row.duration_seconds = body.recurring.duration_seconds
        row.zone = body.recurring.zone
        row.first_date, row.last_date = body.recurring.first_date, body.recurring.last_date
    return row


def _shown(row: schema.Maintenance, now: datetime) -> MaintenanceResponse:
    values = row.model_dump()
    once = recurring = None
    if row.weekdays is None:
        once = {"since": row.begins_at, "until": row.ends_at}
    else:
        recurring = {name: values[name] for name in RecurringInput.model_fields} | {
            "weekdays": [WEEKDAYS[day] for day in row.weekdays],
            "start_time": f"{row.start_time:%H:%M}",
        }
    next_ = coming(Window.of(values), now)
    return MaintenanceResponse.model_validate(
        values
        | {
            "once": once,
            "recurring": recurring,
            "next": None if next_ is None else OccurrenceResponse(since=next_.start, until=next_.end),
        }
    )
