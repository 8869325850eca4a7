"""Declaring an incident that monitoring did not detect."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlmodel import col, select

from app.base.access.tokens import Scope
from app.base.errors import Invalid
from app.base.schema import IncidentType, Service
from app.base.values.severity import severity_number
from app.incidents import actions
from app.incidents.api.actions import Declaration, IncidentAmendment
from app.incidents.history.timeline import Attribution
from app.pages.incidents.page import address_of
from app.pages.web.forms import entered_time, parsed
from app.pages.web.frame import PageRequest, PageRoute, Refusal, SignedIn, see_other

router = APIRouter(prefix="/incidents", route_class=PageRoute, include_in_schema=False)

SERVICES_AT_MOST = 500  # suggested
SEVERITIES = (
    ("sev1", "complete outage"),
    ("sev2", "major function broken"),
    ("sev3", "minor problem"),
    ("sev4", "redundant component"),
    ("sev5", "false alarm"),
)


@router.get("/new")
async def empty(asked: SignedIn, service: Annotated[str, Query(max_length=200)] = "") -> Response:
    asked.person.require(Scope.WRITE)
    return await _form(asked, None, service)


@router.post("")
async def submit(asked: SignedIn) -> Response:
    form = await asked.form()
    try:
        declaration = parsed(
            Declaration,
            {
                "title": form.get("title", "").strip(),
                "service": form.get("service", "").strip(),
                "environment": form.get("environment", "").strip() or None,
                "severity": form.get("severity", ""),
                "impact_started_at": entered_time(form.get("impact_started_at", ""), asked.zone),
                "detected_at": entered_time(form.get("detected_at", ""), asked.zone),
                "by": asked.person.name,
                "note": form.get("note", "").strip() or None,
            },
        )
        async with asked.session() as session:
            declared = await actions.declare(
                session,
                title=declaration.title,
                service=declaration.service,
                environment=declaration.environment,
                severity=severity_number(declaration.severity),
                impact_started_at=declaration.impact_started_at,
                attribution=Attribution(declaration.detected_at or asked.now, declaration.by, declaration.note),
                now=asked.now,
            )
            if type_name := form.get("type", ""):
                amendment = parsed(IncidentAmendment, {"type": type_name})
                changes = {"type": amendment.type}
                await actions.amend(session, declared.id, changes, by=declaration.by, if_match=None, now=asked.now)
            number = declared.number
    except Invalid as problem:
        return await _form(asked, Refusal(problem, form), "")
    return see_other(address_of(number))


async def _form(asked: PageRequest, refused: Refusal | None, service: str) -> Response:
    async with asked.reading() as session:
        query = select(Service.name).order_by(col(Service.name)).limit(SERVICES_AT_MOST)
        services: Sequence[str] = (await session.exec(query)).all()
        name = col(IncidentType.name)
        types: Sequence[str] = (await session.exec(select(IncidentType.name).order_by(name))).all()
    return asked.page(
        "declare.html",
        status=refused.status if refused else 200,
        services=services,
        service=service,
        types=types,
        severities=SEVERITIES,
        refused=refused,
    )
