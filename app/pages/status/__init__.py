"""The inside of the status page: components, what to publish, public incidents and their updates.

What customers see of it is app/status_page.
"""

from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4, uuid5

from fastapi import APIRouter, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.errors import Invalid, Problem
from app.base.http.requests.fields import UNSTORABLE
from app.base.http.requests.paging import Pages, cursor_of
from app.pages.web import fields
from app.pages.web.forms import Form, entered_time, parsed
from app.pages.web.frame import PageRequest, Refusal, SegmentPageRoute, SignedIn, see_other
from app.status_page.api import (
    ComponentInput,
    ComponentName,
    PublicId,
    PublicIncidentAmendment,
    PublicIncidentInput,
    UpdateCorrection,
    UpdateId,
    UpdateInput,
    component_row,
    stated,
)
from app.status_page.component import Status, Uptime
from app.status_page.public_incident import OVER, STAGES, PublicKind, stage, status_of
from app.status_page.store import components, incidents
from app.status_page.store.incidents import NewIncident

router = APIRouter(route_class=SegmentPageRoute, include_in_schema=False)

ADDRESS = "/status-page"
INCIDENTS_ON_PAGE = 25
LONGEST_KEY = 200
KEYS = UUID("5f1b6e0e-6a55-4d1c-9c0f-0c6a7f5b2f7d")  # the namespace of ids made from keys of forms
ROWS = range(1, 4)  # components that one form sets; an update may follow with others


@router.get(ADDRESS)
async def show_status_page(asked: SignedIn, paging: Pages) -> Response:
    key = paging.after(datetime, str)
    return await _overview(asked, key)


@router.post(ADDRESS + "/components")
async def create_component(asked: SignedIn) -> Response:
    form = await asked.form()
    return await _changed(asked, form, partial(_put_component, asked, form, None))


@router.post(ADDRESS + "/components/{name}")
async def change_component(asked: SignedIn, name: ComponentName) -> Response:
    form = await asked.form()
    return await _changed(asked, form, partial(_put_component, asked, form, name))


@router.post(ADDRESS + "/components/{name}/delete")
async def delete_component(asked: SignedIn, name: ComponentName) -> Response:
    form = await asked.form()
    return await _changed(asked, form, partial(components.delete_component, name=name))


@router.post(ADDRESS + "/incidents")
async def publish_incident(asked: SignedIn) -> Response:
    form = await asked.form()
    try:
        body = parsed(PublicIncidentInput, _incident_values(form, partial(_moment, asked, form)))
        first = body.first.new(asked.person.name, "page")
        new = NewIncident(
            body.kind,
            body.title,
            first,
            incident=body.incident,
            begins_at=body.begins_at,
            scheduled_to=body.scheduled_to,
            id=body.id,
        )
        async with asked.session() as session:
            found, _ = await incidents.publish(session, new, now=asked.now)
    except Problem as problem:
        return await _overview(asked, refused=Refusal(problem, form))
    return see_other(f"{ADDRESS}/incidents/{found.row.id}")


@router.get(ADDRESS + "/incidents/{public_id}")
async def show_incident(asked: SignedIn, public_id: PublicId) -> Response:
    return await _one(asked, public_id)


@router.post(ADDRESS + "/incidents/{public_id}")
async def amend_incident(asked: SignedIn, public_id: PublicId) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        found = await incidents.find_public(session, public_id)
        values: dict[str, Any] = {"title": form.get("title", "").strip()}
        names = ("begins_at", "scheduled_to") if found.row.kind == PublicKind.MAINTENANCE else ("begins_at", "ends_at")
        for name in names:
            at = _moment(asked, form, name)
            # A field has whole minutes: what was not changed keeps its seconds.
            if form.get(name, "") != form.get(f"was_{name}", ""):
                values[name] = at
        await incidents.amend(session, public_id, stated(parsed(PublicIncidentAmendment, values)), now=asked.now)

    return await _changed_one(asked, form, public_id, change)


@router.post(ADDRESS + "/incidents/{public_id}/updates")
async def publish_update(asked: SignedIn, public_id: PublicId) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        body = parsed(UpdateInput, _update_values(form, partial(_moment, asked, form)) | {"id": _key(form)})
        new = body.new(asked.person.name, "page")
        await incidents.add_update(session, public_id, new, now=asked.now)

    return await _changed_one(asked, form, public_id, change)


@router.post(ADDRESS + "/incidents/{public_id}/updates/{update_id}")
async def correct_update(asked: SignedIn, public_id: PublicId, update_id: UpdateId) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        values: dict[str, Any] = {"body": form.get("body", "")}
        if form.get("at", "") != form.get("was_at", ""):
            values["at"] = _moment(asked, form, "at")
        body = stated(parsed(UpdateCorrection, values))
        await incidents.correct_update(session, public_id, update_id, body, by=asked.person.name, now=asked.now)

    return await _changed_one(asked, form, public_id, change)


@router.post(ADDRESS + "/incidents/{public_id}/withdraw")
async def withdraw_incident(asked: SignedIn, public_id: PublicId) -> Response:
    form = await asked.form()
    change = partial(incidents.withdraw, id_=public_id, by=asked.person.name, now=asked.now)
    return await _changed_one(asked, form, public_id, change)


# — pages —


async def _overview(
    asked: PageRequest, before: tuple[Any, ...] | None = None, refused: Refusal | None = None
) -> Response:
    key = (before[0], _uuid(before[1])) if before else None
    async with asked.reading() as session:
        overseen = await components.component_overviews(session, now=asked.now)
        found = await incidents.list_public(session, after=key, limit=INCIDENTS_ON_PAGE + 1)
    page = found[:INCIDENTS_ON_PAGE]
    last = page[-1].row if len(found) > INCIDENTS_ON_PAGE else None
    return asked.page(
        "status_page.html",
        status=refused.status if refused else 200,
        overseen=overseen,
        names=[each.row.name for each in overseen],
        found=[(each, stage(each.public(), asked.now)) for each in page],
        over=OVER,
        next_cursor=cursor_of(last.begins_at, str(last.id)) if last else None,
        is_first_page=before is None,
        is_public=asked.context.settings.status_page,
        stages=STAGES,
        rows=ROWS,
        statuses=list(Status),
        uptimes=list(Uptime),
        key=str(uuid4()),
        today=asked.now.astimezone(UTC).date().isoformat(),
        lines=fields.lines,
        refused=refused,
    )


async def _one(asked: PageRequest, public_id: UUID, refused: Refusal | None = None) -> Response:
    async with asked.reading() as session:
        found = await incidents.find_public(session, public_id)
        known = [each.name for each in await components.all_components(session)]
    public = found.public()
    now = status_of(public, asked.now)
    # First the components that it names.
    names = [name for name in now if name in known] + [name for name in known if name not in now]
    return asked.page(
        "public_incident.html",
        status=refused.status if refused else 200,
        found=found,
        stage=stage(public, asked.now),
        over=OVER,
        components=now,
        names=names,
        stages=STAGES,
        rows=ROWS,
        statuses=list(Status),
        is_public=asked.context.settings.status_page,
        key=str(uuid4()),
        refused=refused,
    )


async def _changed(asked: PageRequest, form: Form, change: Any) -> Response:
    async def refused(refusal: Refusal) -> Response:
        return await _overview(asked, refused=refusal)

    return await asked.change(change, form, then=ADDRESS, refused=refused)


async def _changed_one(asked: PageRequest, form: Form, public_id: UUID, change: Any) -> Response:
    return await asked.change(
        change, form, then=f"{ADDRESS}/incidents/{public_id}", refused=partial(_one, asked, public_id)
    )


# — forms —


class _NewComponent(ComponentInput):
    name: ComponentName


async def _put_component(asked: PageRequest, form: Form, name: str | None, session: AsyncSession) -> None:
    """Raises Invalid, UnknownService, ComponentNotFound or TooManyComponents."""
    values: dict[str, Any] = {
        "name": form.get("name", "").strip() if name is None else name,
        "description": form.get("description", "").strip(),
        "section": form.get("section", "").strip() or None,
        "position": form.get("position", "").strip(),
        "services": fields.entries(form.get("services", "")),
        "automatic": "automatic" in form,
        "uptime": form.get("uptime", ""),
        "since": form.get("since", "").strip() or asked.now.astimezone(UTC).date().isoformat(),
    }
    body = parsed(_NewComponent, values)
    if name is not None:
        session.expunge(await components.find_component(session, name))
    elif await session.get(schema.Component, body.name) is not None:
        message = "there is already a component with this name"
        raise Invalid(message)
    assert body.since is not None
    await components.put_component(session, component_row(body.name, body, body.since, asked.now))


def _incident_values(form: Form, moment: Any) -> dict[str, Any]:
    """Raises Invalid."""
    is_maintenance = form.get("kind") == PublicKind.MAINTENANCE
    values: dict[str, Any] = {
        "id": _key(form),
        "kind": form.get("kind", ""),
        "title": form.get("title", "").strip(),
        "begins_at": moment("begins_at"),
        "first": _update_values(form, moment),
    }
    if is_maintenance:
        values["scheduled_to"] = moment("scheduled_to")
    elif reference := form.get("incident", "").strip():
        values["incident"] = reference
    return values


def _update_values(form: Form, moment: Any) -> dict[str, Any]:
    """Raises Invalid."""
    return {
        "status": form.get("status", ""),
        "body": form.get("body", ""),
        "at": moment("at"),
        "components": {
            name: form.get(f"status_{n}", Status.UNDER_MAINTENANCE)
            for n in ROWS
            if (name := form.get(f"component_{n}", "").strip())
        },
    }


def _key(form: Form) -> str:
    """An id that is the same if the form is sent twice. Raises Invalid."""
    key = form.get("key", "")
    if not key or len(key) > LONGEST_KEY or UNSTORABLE.search(key):
        raise Invalid("the form is incomplete (it has no key); open the page again")
    return str(uuid5(KEYS, key))


def _moment(asked: PageRequest, form: Form, name: str) -> datetime | None:
    return entered_time(form.get(name, "").strip(), asked.zone)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        return UUID(int=0)
