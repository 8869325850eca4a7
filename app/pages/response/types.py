"""Incident types: the list in the order in which they are tried, and one type with its form."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.access.tokens import Scope
from app.base.errors import Conflict, Problem
from app.base.http.requests.paging import Pages, page_of
from app.pages.web import fields
from app.pages.web.forms import Form, parsed
from app.pages.web.frame import PageRequest, PageRoute, Refusal, SignedIn, see_other
from app.response.api.types import USUAL_POSITION, IncidentTypeInput, TypeName, type_row
from app.response.store import types as store

router = APIRouter(prefix="/response/types", route_class=PageRoute, include_in_schema=False)

NEW = "_new"  # no type can have this name
REVIEWS = {"by_severity": "as the severity says", "required": "always", "never": "never"}
_LISTS = ("exit_criteria", "roles", "steps")

# What the form of the first type shows, to be changed.
_PROPOSED: Mapping[str, str] = {
    "exit_criteria": "Users have had no trouble for 10 minutes\nStakeholders are informed",
    "roles": "commander\ncommunications\nscribe",
    "channels": "slack #inc-{number}\nphone Bridge 1",
    "steps": "Look at the deployments of the last hour\nDecide on the first update to stakeholders",
    "updates": "30 m",
}


@router.get("")
async def show_types(asked: SignedIn, paging: Pages) -> Response:
    after = paging.after(int, str)
    async with asked.reading() as session:
        found = await store.list_types(session, after=(after[0], after[1]) if after else None, limit=paging.limit + 1)
    rows, next_cursor = page_of(found, paging, lambda each: (each.position, each.name))
    return asked.page(
        "response_types.html",
        types=rows,
        reviews=REVIEWS,
        every=fields.exact,
        is_first_page=after is None,
        next_cursor=next_cursor,
    )


@router.get(f"/{NEW}")
async def new_type(asked: SignedIn) -> Response:
    asked.person.require(Scope.WRITE)
    return await _page(asked, None)


@router.get("/{name}")
async def show_type(asked: SignedIn, name: TypeName) -> Response:
    return await _page(asked, name)


@router.post(f"/{NEW}")
async def create_type(asked: SignedIn) -> Response:
    form = await asked.form()
    try:
        name = fields.new_name(form)
        async with asked.session() as session:
            if not await _put(asked, session, name, form):
                message = "there is already an incident type with this name"
                raise Conflict(message)
    except Problem as problem:
        return await _page(asked, None, Refusal(problem, form))
    return see_other(f"/response/types#{name}")


@router.post("/{name}")
async def change_type(asked: SignedIn, name: TypeName) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        await store.find_type(session, name)
        await _put(asked, session, name, form)

    return await asked.change(change, form, then=f"/response/types#{name}", refused=partial(_page, asked, name))


async def _put(asked: PageRequest, session: AsyncSession, name: str, form: Form) -> bool:
    """Whether the type is new."""
    row = type_row(name, entered_type(form))
    row.created_at = row.updated_at = asked.now
    return (await store.put_type(session, row))[1]


@router.post("/{name}/delete")
async def delete_type(asked: SignedIn, name: TypeName) -> Response:
    form = await asked.form()
    change = partial(store.delete_type, name=name)
    return await asked.change(change, form, then="/response/types", refused=partial(_page, asked, name))


async def _page(asked: PageRequest, name: str | None, refused: Refusal | None = None) -> Response:
    """`name` is None for a new type."""
    row = None
    if name is not None:
        async with asked.reading() as session:
            row = await store.find_type(session, name)
    return asked.page(
        "response_type.html",
        status=refused.status if refused else 200,
        type=row,
        values=_values(row),
        reviews=REVIEWS,
        refused=refused,
    )


# — the form —


def _values(row: schema.IncidentType | None) -> Mapping[str, Any]:
    """The values of the fields of the form."""
    if row is None:
        return {"position": USUAL_POSITION, "matchers": "", "description": "", "review": "by_severity", **_PROPOSED}
    return {
        "position": row.position,
        "matchers": "\n".join(row.matchers),  # they have quotes of their own
        "description": row.description,
        "review": row.review,
        "channels": "\n".join(channel_line(each) for each in row.channels),
        "updates": "" if row.update_seconds is None else fields.exact(row.update_seconds),
        **{name: fields.lines(getattr(row, name)) for name in _LISTS},
    }


def channel_line(channel: Mapping[str, str | None]) -> str:
    """`slack #inc-{number} https://…`."""
    parts = (channel["kind"], fields.part(channel["name"] or "", "://"), channel["link"])
    return " ".join(filter(None, parts))


def channel_of(line: str) -> Mapping[str, str | None]:
    """Reads what `channel_line` writes."""
    kind, _, rest = (each.strip() for each in line.partition(" "))
    if rest.startswith('"'):
        name, link = fields.part_of(rest, " ")
    else:
        before, _, last = rest.rpartition(" ")
        name, link = (before.strip(), last) if "://" in last and before.strip() else (rest, "")
    return {"kind": kind, "name": name, "link": link or None}


def entered_type(form: Form) -> IncidentTypeInput:
    """Raises Invalid."""
    lines = {name: form.get(name, "").split("\n") for name in ("matchers", "channels")}
    updates = form.get("updates", "").strip()
    return parsed(
        IncidentTypeInput,
        {
            "position": form.get("position", "").strip() or USUAL_POSITION,
            "matchers": [line.strip() for line in lines["matchers"] if line.strip()],
            "channels": [channel_of(line.strip()) for line in lines["channels"] if line.strip()],
            "description": form.get("description", "").strip(),
            "update_seconds": fields.seconds_of(updates, "updates") if updates else None,
            "review": form.get("review", ""),
            **{name: fields.entries(form.get(name, "")) for name in _LISTS},
        },
    )
