"""Services: the list, one service with its owner, rates, objective and maintenance, and the forms that change them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.errors import Conflict, Invalid, Problem
from app.base.http.requests.fields import WEEKDAYS, Input, Name, ServiceName, rfc3339
from app.base.http.requests.paging import Pages, cursor_of
from app.base.values.currency import CURRENCIES
from app.catalog.objectives import store as objectives
from app.catalog.objectives.api import CalendarInput, ObjectiveInput, RollingInput, objective_row
from app.catalog.services import store
from app.catalog.services.api import RateInput, ServiceInput, rate_row, service_row
from app.incidents.impact.availability import Budget, from_then_on
from app.incidents.impact.intervals import shown
from app.incidents.impact.rates import THE_BEGINNING
from app.pages.catalog import planned
from app.pages.catalog.read import OneService, ServiceList, read_list, read_service
from app.pages.plots.budget import BurnDown, burn_down
from app.pages.web import fields
from app.pages.web.forms import Form, parsed, shown_time
from app.pages.web.frame import Change, PageRequest, Refusal, SegmentPageRoute, SignedIn, see_other

router = APIRouter(route_class=SegmentPageRoute, include_in_schema=False)

BURNED_AT_MOST = 10  # incidents in the table beside the burn-down
SEGMENT_AT_MOST = 200


def address_of(name: str) -> str:
    return f"/services/{quote(name, safe='')}"


class NewService(Input):
    name: Name


# — the list —


@router.get("/services")
async def show_services(asked: SignedIn, paging: Pages) -> Response:
    return await _list(asked, paging.after_name())


@router.post("/services")
async def add_service(asked: SignedIn) -> Response:
    form = await asked.form()
    try:
        name = parsed(NewService, {"name": form.get("name", "").strip()}).name
        body = parsed(ServiceInput, {"owner": _text(form, "owner")})
        async with asked.session() as session:
            _, is_new = await store.put_service(session, service_row(name, body, asked.now))
            if not is_new:
                message = "there is already a service with this name"
                raise Conflict(message)
    except Problem as problem:
        return await _list(asked, "", Refusal(problem, form))
    return see_other(address_of(name))


async def _list(asked: PageRequest, after: str, refused: Refusal | None = None) -> Response:
    async with asked.turn(), asked.reading() as session:
        found = await read_list(session, after=after, now=asked.now, settings=asked.context.settings)
    return asked.page(
        "services.html",
        status=refused.status if refused else 200,
        found=found,
        costs=[shown(row.numbers.cost) if row.numbers and row.numbers.cost else {} for row in found.rows],
        after=after,
        next_cursor=_cursor(found),
        refused=refused,
    )


def _cursor(found: ServiceList) -> str | None:
    return cursor_of(found.rows[-1].service.name) if found.has_more else None


# — one service —


@dataclass(frozen=True, slots=True)
class RateRow:
    """A rate with when it applies; `since` is None if it is valid from the beginning of time."""

    rate: schema.ServiceRate
    since: datetime | None
    until: datetime | None
    is_current: bool

    @property
    def id(self) -> str:
        """Identifies the rate in forms."""
        return f"{self.rate.currency}-{rfc3339(self.since) if self.since else ''}"


def rate_rows(rates: Sequence[schema.ServiceRate], now: datetime) -> list[RateRow]:
    """By currency, the latest first. Each is valid until the next one in its currency."""
    found, until = list[RateRow](), dict[str, datetime]()
    for rate in sorted(rates, key=lambda rate: (rate.currency, rate.valid_from), reverse=True):
        since, end = rate.valid_from, until.get(rate.currency)
        is_current = since <= now and (end is None or now < end)
        found.append(RateRow(rate, None if since == THE_BEGINNING else since, end, is_current))
        until[rate.currency] = since
    return sorted(found, key=lambda row: row.rate.currency)


@router.get("/services/{name}")
async def show_service(asked: SignedIn, name: ServiceName) -> Response:
    return await _page(asked, name)


async def _page(asked: PageRequest, name: str, refused: Refusal | None = None) -> Response:
    """`refused` belongs to the form that its field `form` names."""
    async with asked.turn(), asked.reading() as session:
        one = await read_service(session, name, now=asked.now, settings=asked.context.settings)
    return asked.page(
        "service.html",
        status=refused.status if refused else 200,
        one=one,
        address=address_of(name),
        rates=rate_rows(one.rates, asked.now),
        cost=shown(one.numbers.cost) if one.numbers.cost else {},
        budget=one.budget,
        burned=None if one.budget is None else _burned(one.budget, asked),
        burned_at_most=BURNED_AT_MOST,
        windows=[planned.PlannedWindow.of(row, name, asked.now) for row in one.maintenance],
        links=_link_lines(one),
        percent=fields.percent,
        currencies=sorted(CURRENCIES),
        weekdays=WEEKDAYS,
        today=asked.now.astimezone(asked.zone).date().isoformat(),
        refused=refused,
    )


def _burned(budget: Budget, asked: PageRequest) -> BurnDown | None:
    """None without a budget, or before it begins."""
    counted = from_then_on(budget.period, budget.in_service_since)
    if not budget.seconds or asked.now <= counted.start:
        return None
    course = [(at, float(burned)) for at, burned in budget.course]
    return burn_down(
        course, float(budget.seconds), since=counted.start, until=counted.end, now=asked.now, zone=asked.zone
    )


def _link_lines(one: OneService) -> str:
    return "\n".join(f"{link['title']} {link['url']}" for link in one.service.links)


async def _changed(asked: PageRequest, name: str, form: Form, part: str, change: Change) -> Response:
    """Makes one change and shows that part of the page; if it was refused, the page with what was entered."""
    return await asked.change(change, form, then=f"{address_of(name)}#{part}", refused=partial(_page, asked, name))


def _text(form: Form, field: str) -> str | None:
    """The text that was entered; None if it is empty."""
    return form.get(field, "").strip() or None


@router.post("/services/{name}")
async def change_service(asked: SignedIn, name: ServiceName) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        body = parsed(
            ServiceInput,
            {
                "owner": _text(form, "owner"),
                "links": _links(form.get("links", "")),
                "in_service_since": asked.moment(form, "since"),
            },
        )
        await store.find_service(session, name)
        await store.put_service(session, service_row(name, body, asked.now))

    return await _changed(asked, name, form, "main", change)


def _links(text: str) -> Sequence[Mapping[str, str]]:
    """A title and an address a line. Raises Invalid."""
    found = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        title, _, url = line.rpartition(" ")
        if "://" not in url:
            message = (
                "write one link per line, as a title and a URL, for example: Runbook https://wiki.example.org/checkout"
            )
            raise Invalid(message)
        found.append({"title": title.strip() or url[:SEGMENT_AT_MOST], "url": url})
    return found


# — rates —


@router.post("/services/{name}/rates")
async def put_rate(asked: SignedIn, name: ServiceName) -> Response:
    """Adds a rate, or changes the one that the form names."""
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        body = parsed(
            RateInput,
            {
                "from": asked.moment(form, "from"),
                "currency": form.get("currency", "").strip().upper(),
                **{field: form.get(field, "").strip() for field in ("low", "expected", "high")},
            },
        )
        await store.change_rate(session, name, _rate_key(form), rate_row(name, body), now=asked.now)

    return await _changed(asked, name, form, "rates", change)


@router.post("/services/{name}/rates/remove")
async def remove_rate(asked: SignedIn, name: ServiceName) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        await store.change_rate(session, name, _rate_key(form) or ("", asked.now), None, now=asked.now)

    return await _changed(asked, name, form, "rates", change)


def _rate_key(form: Form) -> store.RateKey | None:
    """The rate that a form changes; None: it adds one."""
    if not form.get("was_currency"):
        return None
    return form["was_currency"], shown_time(form, "from") or THE_BEGINNING


# — the objective —


@router.post("/services/{name}/objective")
async def put_objective(asked: SignedIn, name: ServiceName) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        body = parsed(ObjectiveInput, _objective_values(form))
        await objectives.put_objective(session, objective_row(name, body, asked.now))

    return await _changed(asked, name, form, "objective", change)


def _objective_values(form: Form) -> dict[str, Any]:
    """Raises Invalid."""
    window = form.get("window", "rolling")
    # Checked here, because of several alternatives pydantic would name every one that does not fit.
    chosen: RollingInput | CalendarInput
    if window == "rolling":
        chosen = parsed(RollingInput, {"rolling_days": form.get("rolling_days", "").strip()})
    else:
        chosen = parsed(CalendarInput, {"calendar": window})
    return {
        "target": fields.ratio_of(form.get("target", ""), "target"),
        "window": chosen,
        "weighted": "weighted" in form,
        "environment": _text(form, "environment"),
    }


@router.post("/services/{name}/objective/remove")
async def remove_objective(asked: SignedIn, name: ServiceName) -> Response:
    form = await asked.form()
    return await _changed(asked, name, form, "objective", lambda session: objectives.delete_objective(session, name))


# — maintenance —


@router.post("/services/{name}/maintenance")
async def plan_maintenance(asked: SignedIn, name: ServiceName) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        services = [] if form.get("covers") == "all" else [name]
        body = planned.entered_maintenance(form, services, partial(asked.moment, form))
        await planned.add(session, body, now=asked.now)

    return await _changed(asked, name, form, "maintenance", change)


@router.post("/services/{name}/maintenance/{window}")
async def change_maintenance(asked: SignedIn, name: ServiceName, window: Name) -> Response:
    form = await asked.form()

    async def change(session: AsyncSession) -> None:
        await planned.change(session, window, form, partial(asked.moment, form), now=asked.now)

    return await _changed(asked, name, form, "maintenance", change)


@router.post("/services/{name}/maintenance/{window}/end")
async def end_maintenance(asked: SignedIn, name: ServiceName, window: Name) -> Response:
    form = await asked.form()
    return await _changed(asked, name, form, "maintenance", lambda session: planned.end(session, window, now=asked.now))


@router.post("/services/{name}/maintenance/{window}/remove")
async def remove_maintenance(asked: SignedIn, name: ServiceName, window: Name) -> Response:
    form = await asked.form()
    return await _changed(asked, name, form, "maintenance", lambda session: planned.remove(session, window))
