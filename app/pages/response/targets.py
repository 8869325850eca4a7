"""Targets: the effort agreed on for each severity, and how it has changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import StringConstraints
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.errors import Invalid
from app.base.http.requests.fields import Input, Words
from app.base.values.severity import SEVERITIES, severity_number
from app.incidents.impact.rates import THE_BEGINNING
from app.pages.web import fields
from app.pages.web.forms import Form, parsed, shown_time
from app.pages.web.frame import Change, PageRequest, PageRoute, Refusal, SignedIn
from app.response.api.targets import TargetInput, target_row
from app.response.store import targets as store

router = APIRouter(prefix="/response/targets", route_class=PageRoute, include_in_schema=False)

SUGGESTED_AT_MOST = 500

DURATIONS = {
    "acknowledge": "Acknowledge within",
    "update": "Update every",
    "resolve": "Recover within",
    "review": "Review within",
}


class _Place(Input):
    """`service` is empty for all services."""

    service: Annotated[Words, StringConstraints(max_length=200)]


@dataclass(frozen=True, slots=True)
class TargetRow:
    """A target with when it applies; `since` is None if it is valid from the beginning of time."""

    target: schema.Target
    since: datetime | None
    until: datetime | None
    is_current: bool

    @property
    def id(self) -> str:
        """Identifies the target in forms."""
        since = self.since.isoformat() if self.since else ""
        return f"target-{self.target.severity}-{since}-{self.target.service}"

    def duration(self, name: str) -> str:
        """As it is entered; empty if nothing is agreed on."""
        seconds = getattr(self.target, f"{name}_seconds")
        return "" if seconds is None else fields.exact(seconds)


def target_rows(targets: Sequence[schema.Target], now: datetime) -> list[TargetRow]:
    """By service and severity, the latest first. Each is valid until the next one of the same."""
    found, until = list[TargetRow](), dict[tuple[str, int], datetime]()
    for each in sorted(targets, key=lambda each: each.valid_from, reverse=True):
        place, since = (each.service, each.severity), each.valid_from
        end = until.get(place)
        is_current = since <= now and (end is None or now < end)
        found.append(TargetRow(each, None if since == THE_BEGINNING else since, end, is_current))
        until[place] = since
    return sorted(found, key=lambda row: (row.target.service, row.target.severity))


@router.get("")
async def show_targets(asked: SignedIn) -> Response:
    return await _page(asked)


async def _page(asked: PageRequest, refused: Refusal | None = None) -> Response:
    """`refused` belongs to the form that its field `form` names."""
    service, calendar = col(schema.Service.name), col(schema.Calendar.name)
    async with asked.reading() as session:
        found = await store.list_targets(session)
        services = (await session.exec(select(schema.Service.name).order_by(service).limit(SUGGESTED_AT_MOST))).all()
        calendars = (await session.exec(select(schema.Calendar.name).order_by(calendar).limit(SUGGESTED_AT_MOST))).all()
    return asked.page(
        "targets.html",
        status=refused.status if refused else 200,
        rows=target_rows(found, asked.now),
        durations=DURATIONS,
        severities=SEVERITIES,
        services=services,
        calendars=calendars,
        refused=refused,
    )


async def _changed(asked: PageRequest, form: Form, change: Change) -> Response:
    async def refused(refusal: Refusal) -> Response:
        return await _page(asked, refusal)

    return await asked.change(change, form, then="/response/targets", refused=refused)


@router.post("")
async def put_target(asked: SignedIn) -> Response:
    """Adds a target, or changes the one that the form names."""
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        place = parsed(_Place, {"service": form.get("service", "").strip()})
        row = target_row(place.service, entered_target(asked, form))
        await store.change_target(session, _key(form), row)

    return await _changed(asked, form, change)


@router.post("/remove")
async def remove_target(asked: SignedIn) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        await store.change_target(session, _key(form) or ("", 0, asked.now), None)

    return await _changed(asked, form, change)


def _key(form: Form) -> store.TargetKey | None:
    """The target that a form changes; None: it adds one. Raises Invalid."""
    if not form.get("was_severity"):
        return None
    if form["was_severity"] not in SEVERITIES:
        raise Invalid("open the page again and repeat this there")
    return form.get("was_service", ""), severity_number(form["was_severity"]), shown_time(form, "from") or THE_BEGINNING


def entered_target(asked: PageRequest, form: Form) -> TargetInput:
    """Raises Invalid."""
    values: dict[str, Any] = {
        "severity": form.get("severity", ""),
        "from": asked.moment(form, "from"),
        "responders": form.get("responders", "").strip() or None,
        "calendar": form.get("calendar", "").strip() or None,
    }
    for name, words in DURATIONS.items():
        entered = form.get(name, "").strip()
        values[f"{name}_seconds"] = fields.seconds_of(entered, words.lower()) if entered else None
    if not any(values[name] for name in (*(f"{each}_seconds" for each in DURATIONS), "responders")):
        raise Invalid("enter at least one target: a time, or how many people respond")
    return parsed(TargetInput, values)
