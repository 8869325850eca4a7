"""Components and public incidents for tests, with times of one day."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid5

from app.status_page.component import Component, Status, Uptime
from app.status_page.public_incident import PublicIncident, PublicKind, PublicStage, Update

DAY = date(2026, 11, 30)
NAMESPACE = UUID(int=1)
MAJOR, PARTIAL, DEGRADED = Status.MAJOR_OUTAGE, Status.PARTIAL_OUTAGE, Status.DEGRADED_PERFORMANCE
OPERATIONAL, MAINTENANCE = Status.OPERATIONAL, Status.UNDER_MAINTENANCE


def at(clock: str, day: int = 0) -> datetime:
    hours, _, minutes = clock.partition(":")
    return datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) + timedelta(
        days=day, hours=int(hours), minutes=int(minutes)
    )


def update(when: datetime, stage: str, components: Mapping[str, Status] | None = None, body: str = "Words.") -> Update:
    return Update(uuid5(NAMESPACE, f"{when}{stage}{body}"), when, PublicStage(stage), body, components or {}, when)


def problem(
    *updates: Update,
    title: str = "Card payments fail",
    begins_at: datetime | None = None,
    ends_at: datetime | None = None,
    updated_at: datetime | None = None,
) -> PublicIncident:
    return PublicIncident(
        uuid5(NAMESPACE, title),
        PublicKind.INCIDENT,
        title,
        begins_at or updates[0].at,
        ends_at,
        None,
        updates[0].at,
        updated_at or updates[-1].at,
        updates,
    )


def maintenance(begins_at: datetime, scheduled_to: datetime, *updates: Update, **more: datetime) -> PublicIncident:
    return PublicIncident(
        uuid5(NAMESPACE, f"{begins_at}"),
        PublicKind.MAINTENANCE,
        "Database upgrade",
        begins_at,
        more.get("ends_at"),
        scheduled_to,
        updates[0].at,
        updates[-1].at,
        updates,
    )


def component(name: str = "Payments", uptime: Uptime = Uptime.PUBLISHED, **more: object) -> Component:
    values: dict[str, object] = {
        "description": "",
        "section": None,
        "position": 1,
        "since": date(2026, 1, 1),
        "created_at": at("00:00"),
        "updated_at": at("00:00"),
        **more,
    }
    return Component(name=name, uptime=uptime, **values)  # type: ignore[arg-type]
