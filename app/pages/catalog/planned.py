"""Planned maintenance on the page of a service: when it takes place, planning it and ending it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.errors import Conflict
from app.base.http.requests.fields import WEEKDAYS
from app.base.values.times import Span
from app.catalog.maintenance import store
from app.catalog.maintenance.api import MaintenanceInput, OnceInput, RecurringInput, maintenance_row
from app.incidents.impact.maintenance import Window, coming
from app.pages.web import fields
from app.pages.web.forms import Form, parsed

State = Literal["running", "coming", "over"]


@dataclass(frozen=True, slots=True)
class PlannedWindow:
    """`others` are the other services that it covers; `for_all`: it covers every service. `next` is the running or next
    occurrence, None if all are over.
    """

    row: schema.Maintenance
    others: tuple[str, ...]
    next: Span | None
    state: State

    @classmethod
    def of(cls, row: schema.Maintenance, service: str, now: datetime) -> "PlannedWindow":
        following = coming(Window.of(row.model_dump()), now)
        state: State = "over" if following is None else "running" if following.start <= now else "coming"
        return cls(row, tuple(name for name in row.services if name != service), following, state)

    @property
    def days(self) -> list[str]:
        return [WEEKDAYS[day] for day in self.row.weekdays or ()]

    @property
    def lasts(self) -> str:
        """How long each occurrence lasts, as it is entered."""
        return fields.exact(self.row.duration_seconds) if self.row.duration_seconds else ""

    @property
    def for_all(self) -> bool:
        return not self.row.services

    @property
    def recurs(self) -> str | None:
        """`Sundays and Mondays at 02:30 (Europe/Berlin), for 2 h`; None if it takes place once."""
        row = self.row
        if row.weekdays is None or row.start_time is None or row.duration_seconds is None:
            return None
        days = [f"{WEEKDAYS[day].capitalize()}s" for day in row.weekdays]
        named = (
            "Every day" if len(days) == len(WEEKDAYS) else " and ".join(filter(None, (", ".join(days[:-1]), days[-1])))
        )
        return f"{named} at {row.start_time:%H:%M} ({row.zone}), for {fields.exact(row.duration_seconds)}"


# — forms —


def entered_maintenance(
    form: Form, services: Sequence[str], moment: Callable[[str], datetime | None]
) -> MaintenanceInput:
    """`services` are those that it covers; none: all. `moment` reads a field with a time. Raises Invalid."""
    values: dict[str, Any] = {
        "services": services,
        "reason": form.get("reason", "").strip(),
    }
    if form.get("kind") == "recurring":
        values["recurring"] = parsed(
            RecurringInput,
            {
                "weekdays": [day for day in WEEKDAYS if form.get(day)],
                "start_time": form.get("start_time", "").strip(),
                "duration_seconds": fields.seconds_of(form.get("duration", ""), "duration"),
                "zone": form.get("zone", "").strip(),
                "first_date": form.get("first_date", "").strip(),
                "last_date": form.get("last_date", "").strip() or None,
            },
        )
    else:
        values["once"] = parsed(OnceInput, {"from": moment("from"), "to": moment("to")})
    return parsed(MaintenanceInput, values)


async def add(session: AsyncSession, body: MaintenanceInput, *, now: datetime) -> None:
    """Gives it a name made from its reason. Raises Conflict."""
    plain = re.sub(r"[^a-z0-9]+", "-", body.reason.lower()).strip("-")[:60].rstrip("-") or "maintenance"
    name = f"{plain}-{now:%Y%m%d-%H%M%S}"
    _, is_new = await store.put_maintenance(session, maintenance_row(name, body, now))
    if not is_new:
        message = "the same maintenance was planned a moment ago"
        raise Conflict(message)


async def change(
    session: AsyncSession, name: str, form: Form, moment: Callable[[str], datetime | None], *, now: datetime
) -> None:
    """It covers the same services as before. Raises Invalid or MaintenanceNotFound."""
    row = await store.find_maintenance(session, name)
    body = entered_maintenance(form, row.services, moment)
    await store.put_maintenance(session, maintenance_row(name, body, now))


async def end(session: AsyncSession, name: str, *, now: datetime) -> None:
    """Ends it now if it is running once, and lets no further occurrence begin if it recurs. What has not begun at all
    is removed. Raises MaintenanceNotFound.
    """
    row = await store.find_maintenance(session, name)
    if row.zone is not None and row.first_date is not None and row.start_time is not None:
        local = now.astimezone(ZoneInfo(row.zone))
        last = local.date() if local.time() >= row.start_time else local.date() - timedelta(days=1)
        row.last_date = last if row.last_date is None else min(last, row.last_date)
        has_begun = row.first_date <= row.last_date
    else:
        assert row.begins_at is not None
        assert row.ends_at is not None
        row.ends_at = min(now, row.ends_at)
        has_begun = row.begins_at < row.ends_at
    if has_begun:
        row.updated_at = now
    else:
        session.expunge(row)
        await store.delete_maintenance(session, name)


async def remove(session: AsyncSession, name: str) -> None:
    """As if it had never been planned. Raises MaintenanceNotFound."""
    await store.delete_maintenance(session, name)
