"""What people do about the response on the page of an incident. Each form records what the REST route of the same fact
records.
"""

from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Invalid
from app.base.http.requests.fields import IncidentInPath
from app.incidents import actions
from app.incidents.actions import Ref
from app.incidents.api.actions import IncidentAmendment
from app.incidents.api.facts import CriterionFact, ImpactFact, JoinedFact, RoomFact, UpdateFact
from app.incidents.api.timeline import stated
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import notes
from app.incidents.history.details import detail_in
from app.incidents.history.timeline import Attribution, facts_of
from app.pages.incidents.forms import action_of, amend, done, key_of, text_in, time_in
from app.pages.web.forms import Form, parsed
from app.pages.web.frame import PageRequest, PageRoute, SignedIn
from app.response.api.declaring import ResponseDeclaration
from app.response.api.response import RoleInput
from app.response.roles import HELD_BY_MANY, holdings
from app.response.store import response as store

router = APIRouter(prefix="/incidents/{id}", route_class=PageRoute, include_in_schema=False)

Fact = CriterionFact | ImpactFact | JoinedFact | RoomFact | UpdateFact


@router.post("/declare")
async def declare(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        row = await actions.find(session, ref)
        action = action_of(asked, form, not_before=actions.detected_at(row))
        declaration = parsed(
            ResponseDeclaration,
            action.model_dump() | {"type": text_in(form, "type"), "commander": text_in(form, "commander")},
        )
        await store.declare(
            session,
            ref,
            Attribution(declaration.at or asked.now, declaration.by, declaration.note),
            at_stated=declaration.at is not None,
            type_name=declaration.type,
            commander=declaration.commander,
            responders=[],
            now=asked.now,
        )

    return await done(asked, ref, "declare", act, show="#response")


@router.post("/type")
async def state_type(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        lasts = form.get("expected_to_last", "")
        if lasts not in _LASTS:
            raise Invalid("choose whether the incident will last for more than an hour")
        values = {"type": text_in(form, "type"), "expected_to_last": _LASTS[lasts]}
        await amend(asked, session, ref, form, parsed(IncidentAmendment, values))

    return await done(asked, ref, "type", act, show="#response")


_LASTS = {"": None, "yes": True, "no": False}


# — roles —


@router.post("/roles")
async def take_role(asked: SignedIn, ref: IncidentInPath) -> Response:
    """Takes a role, from the person whom the form showed as its holder, if it still is so."""
    return await _assign(asked, ref, holds=True)


@router.post("/roles/leave")
async def leave_role(asked: SignedIn, ref: IncidentInPath) -> Response:
    """The holder whom the form showed lays the role down; of a shared one, the person who was entered."""
    return await _assign(asked, ref, holds=False)


async def _assign(asked: PageRequest, ref: Ref, *, holds: bool) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        holder = text_in(form, "holder")
        name = (text_in(form, "role") or "").lower().replace(" ", "_")
        values: dict[str, Any] = {
            "role": name,
            "person": text_in(form, "person") if holds or holder is None else holder,
            "from": holder if holds else None,
            "at": await _at(asked, session, ref, form, name),
            "by": asked.person.name,
            "holds": holds,
        }
        role = parsed(RoleInput, {name: value for name, value in values.items() if value is not None})
        await store.assign(
            session,
            ref,
            role.role,
            role.person,
            Attribution(role.at or asked.now, role.by),
            holds=role.holds,
            instead_of=role.instead_of,
            at_stated=role.at is not None,
            if_vacant=holds and holder is None and role.role not in HELD_BY_MANY,
            now=asked.now,
        )

    return await done(asked, ref, "roles", act, show="#response")


async def _at(asked: PageRequest, session: AsyncSession, ref: Ref, form: Form, role: str) -> datetime | None:
    """The time that was entered. Forms have no seconds: in the minute in which the role was taken or the incident
    ended, it is the last of these events.
    """
    at = time_in(asked, form)
    if at is None:
        return None
    row = await actions.find(session, ref)
    facts = (await facts_of(await session.connection(), [row.id], [TimelineKind.ROLE])).get(row.id, ())
    taken = [one.begins_at for one in holdings(facts) if one.role == role]
    ended = [] if row.ended_at is None else [row.ended_at]
    return max((event for event in (*taken, *ended) if at <= event < at + timedelta(minutes=1)), default=at)


# — other facts —


async def _record(asked: PageRequest, session: AsyncSession, ref: Ref, fact: Fact, key: str | None) -> None:
    kind = TimelineKind(fact.kind)
    attribution = Attribution(fact.at or asked.now, fact.by, fact.note)
    detail = detail_in(kind, fact)
    await notes.add_fact(session, ref, kind, attribution, detail, key=key, stated=stated(fact), now=asked.now)


def _values(asked: PageRequest, form: Form, kind: TimelineKind, *names: str) -> dict[str, Any]:
    """The fields of a fact; those that are empty are left out."""
    entered = {"note": text_in(form, "note"), "at": time_in(asked, form), **{n: text_in(form, n) for n in names}}
    return {"kind": kind, "by": asked.person.name} | {n: value for n, value in entered.items() if value is not None}


@router.post("/joined")
async def join(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        values = _values(asked, form, TimelineKind.JOINED, "person", "how", "channel")
        await _record(asked, session, ref, parsed(JoinedFact, values), key_of(form))

    return await done(asked, ref, "joined", act, show="#response")


@router.post("/updates")
async def update(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        values = _values(asked, form, TimelineKind.UPDATE, "audience", "status", "conditions", "actions", "needs")
        if "note" not in values:
            raise Invalid("update: enter what you communicated")
        fact = parsed(UpdateFact, values | {"next_at": time_in(asked, form, "next_at")})
        await _record(asked, session, ref, fact, key_of(form))

    return await done(asked, ref, "updates", act, show="#response")


@router.post("/criteria")
async def criterion(asked: SignedIn, ref: IncidentInPath) -> Response:
    """A button names the criterion: `met`, or `open` if it is not met any more."""

    async def act(session: AsyncSession, form: Form) -> None:
        met = "met" in form
        values = {
            "kind": TimelineKind.CRITERION,
            "criterion": form.get("met" if met else "open", ""),
            "met": met,
            "by": asked.person.name,
        }
        await _record(asked, session, ref, parsed(CriterionFact, values), None)

    return await done(asked, ref, "criteria", act, show="#response")


@router.post("/room")
async def room(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        values = _values(asked, form, TimelineKind.ROOM, "channel", "why")
        await _record(asked, session, ref, parsed(RoomFact, values), None)

    return await done(asked, ref, "room", act, show="#response")


@router.post("/customers")
async def customers(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        values = _values(asked, form, TimelineKind.IMPACT, "customers", "support_requests", "share", "what")
        for name in ("customers", "support_requests"):
            if name in values:
                values[name] = values[name].replace(",", "").replace(" ", "")
        await _record(asked, session, ref, parsed(ImpactFact, values), key_of(form))

    return await done(asked, ref, "customers", act, show="#response")
