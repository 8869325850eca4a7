"""Numbers: comparisons of periods, durations, recovery, cost and delivery, with their definitions."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from app.base.errors import Invalid
from app.base.process.threads import off_loop
from app.base.values.severity import SEVERITIES
from app.incidents.definitions import DEFINITIONS
from app.incidents.definitions.model import DefinitionKind
from app.pages.numbers import sentences
from app.pages.numbers.query import DAYS, DEFAULT_DAYS, NumbersQuery, read_query
from app.pages.numbers.read import Choices, read_choices, read_numbers
from app.pages.numbers.view import span_query, view
from app.pages.web.frame import PageRequest, PageRoute, SignedIn, with_query

router = APIRouter(route_class=PageRoute, include_in_schema=False)

SERVICES_IN_A_LIST = 250  # above, the name of a service is typed


@router.get("/numbers")
async def numbers(asked: SignedIn) -> Response:
    try:
        query = read_query(asked.request.query_params, now=asked.now, zone=asked.zone)
        async with asked.turn():
            return await _numbers(asked, query)
    except Invalid as problem:
        return await _refused(asked, problem)


async def _numbers(asked: PageRequest, query: NumbersQuery) -> Response:
    async with asked.reading() as session:
        read = await read_numbers(session, query, now=asked.now, settings=asked.context.settings)

    def page() -> Response:
        sent = {
            "days": query.days,
            "from": None if query.days else asked.request.query_params.get("from"),
            "to": None if query.days else asked.request.query_params.get("to"),
            "service": query.service,
            "severity": query.severity,
            "environment": query.environment,
            "calendar": query.calendar,
        }
        return asked.page(
            "numbers.html",
            view=view(query, read, now=asked.now),
            delivery=read.delivery,
            words=sentences,
            incidents_in=lambda span: with_query("/incidents", span_query(query, span)),
            **_form(sent, read.choices),
        )

    return await off_loop(page)


KINDS = {
    DefinitionKind.MEASURE: "One incident",
    DefinitionKind.STATISTIC: "Statistics",
    DefinitionKind.METRIC: "Periods",
}


@router.get("/numbers/definitions")
async def definitions(asked: SignedIn, kind: Annotated[DefinitionKind, Query()] = DefinitionKind.MEASURE) -> Response:
    """Every number of the service: how it is computed, and what it cannot show. One page for each kind."""
    shown = [each for each in DEFINITIONS if each.kind is kind]
    return asked.page("definitions.html", definitions=shown, kind=kind, kinds=KINDS)


async def _refused(asked: PageRequest, problem: Invalid) -> Response:
    """The page without numbers: why, and the filters as they were sent."""
    async with asked.reading() as session:
        choices = await read_choices(session)
    return asked.page(
        "numbers.html",
        status=problem.status,
        view=None,
        refused=problem,
        **_form(dict(asked.request.query_params), choices),
    )


_FIELDS = ("days", "from", "to", "service", "severity", "environment", "calendar")


def _form(sent: Mapping[str, object], choices: Choices) -> dict[str, Any]:
    every = {name: sent.get(name) for name in _FIELDS}
    if not every["from"] and not every["to"] and str(every["days"]) not in map(str, DAYS):
        every["days"] = DEFAULT_DAYS
    return {"sent": every, "choices": choices, "severities": SEVERITIES, "days": DAYS, "longest": SERVICES_IN_A_LIST}
