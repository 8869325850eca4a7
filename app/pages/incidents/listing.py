"""The list of incidents: its filters, which are its address, its pages, and the durations of all rows on one axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Response
from pydantic import Field
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.datastructures import QueryParams

from app.base.errors import Invalid
from app.base.http.requests.fields import Input, Name, Words
from app.base.http.requests.paging import Paging, cursor_of
from app.base.values.severity import SEVERITIES, SeverityName, severity_number
from app.base.values.vocabulary import UNKNOWN_ENVIRONMENT, environment_of
from app.incidents.api.incidents import csv_of
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.grouping.law.episode import RECOVERIES
from app.incidents.grouping.signal import EndReason
from app.incidents.measures.measures import IncidentStatus
from app.incidents.reading import listing
from app.incidents.reading.listing import ListedIncident
from app.incidents.reading.views import Filters
from app.pages.incidents.timeline import END_REASONS
from app.pages.plots.axes import DurationAxis, Tick, duration_axis
from app.pages.web.forms import entered_time, parsed
from app.pages.web.frame import PageRoute, SignedIn

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ROWS = 25
LABEL_WIDTH = 15  # percent of the plot, for the label of a tick
OPTIONS_AT_MOST = 500  # services or sources to choose from

WITHIN = {
    "24h": ("24 hours", timedelta(hours=24)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
    "90d": ("90 days", timedelta(days=90)),
    "all": ("all time", None),
}
DEFAULT_WITHIN: Literal["30d"] = "30d"


class Query(Input):
    """The address of a list. `from` and `to`, in the zone of the reader, take the place of `within`."""

    within: Literal["24h", "7d", "30d", "90d", "all"] = DEFAULT_WITHIN
    since: str = Field("", alias="from", max_length=40)
    until: str = Field("", alias="to", max_length=40)
    status: frozenset[IncidentStatus] = frozenset()
    severity: SeverityName | None = None
    service: Name | None = None
    environment: Name | None = None
    source: Name | None = None
    label: list[Words] = Field([], max_length=10)
    before: str | None = Field(None, max_length=1000)
    after: str | None = Field(None, max_length=1000)
    format: Literal["csv"] | None = None


_SEVERAL = {"status", "label"}


@dataclass(frozen=True, slots=True)
class Selection:
    """`query` is the address in normal form, without the page; entries without a value are left out."""

    filters: Filters
    query: Sequence[tuple[str, str]]
    narrowing: Sequence[str]  # the filters that leave incidents out, in words


def _parsed(params: QueryParams) -> Query:
    """Raises Invalid."""
    values: dict[str, Any] = {}
    for name in params:
        given = [value for value in params.getlist(name) if value.strip()]
        if given:
            values[name] = given if name in _SEVERAL else given[-1]
    return parsed(Query, values)


def selection(query: Query, zone: ZoneInfo, now: datetime) -> Selection:
    """Raises Invalid."""
    since, until = entered_time(query.since, zone), entered_time(query.until, zone)
    if since and until and since > until:
        raise Invalid("the start of the period must not be after its end")
    if query.since or query.until:
        pairs = [("from", query.since), ("to", query.until)]
        narrowing = ["the time"]
    else:
        name, length = WITHIN[query.within]
        since = now - length if length else None
        pairs = [("within", "" if query.within == DEFAULT_WITHIN else query.within)]
        narrowing = [f"the time ({name})"] if length else []
    single = ("severity", "service", "environment", "source")
    pairs += [("status", status) for status in sorted(query.status)]
    pairs += [(name, getattr(query, name) or "") for name in single]
    pairs += [("label", label) for label in query.label]
    narrowing += ["the status"] if query.status else []
    narrowing += [f"the {name}" for name in single if getattr(query, name)]
    narrowing += ["the label" if len(query.label) == 1 else "the labels"] if query.label else []
    filters = Filters(
        status=query.status,
        service=[query.service] if query.service else [],
        environment=[environment_of(query.environment) or UNKNOWN_ENVIRONMENT] if query.environment else [],
        severity=[severity_number(query.severity)] if query.severity else [],
        source=[query.source] if query.source else [],
        detected_from=since,
        detected_to=until,
        labels=[_label(label) for label in query.label],
    )
    return Selection(filters, [pair for pair in pairs if pair[1]], narrowing)


def _label(entered: str) -> tuple[str, str]:
    name, equals, value = entered.strip().partition("=")
    if not name or not equals:
        raise Invalid("enter a label as name=value, for example team=shop")
    return name.strip(), value.strip()


# — rows —

End = Literal["recovered", "open", "acknowledged", "ended"]


@dataclass(frozen=True, slots=True)
class Row:
    """An incident with its line in the plot, in percent of the width. `ended`: not by a recovery."""

    incident: ListedIncident
    seconds: float
    end_x: float
    end: End
    acknowledged_x: float | None
    end_words: str | None


def rows_of(incidents: Sequence[ListedIncident], now: datetime) -> tuple[DurationAxis, list[Row]]:
    lengths = [_seconds(each, now) for each in incidents]
    axis = duration_axis(lengths)
    return axis, [_row(each, seconds, axis) for each, seconds in zip(incidents, lengths, strict=True)]


def _spaced(ticks: Sequence[Tick]) -> list[Tick]:
    """The ticks whose labels do not touch, in a plot that is a fifth of the page."""
    spaced: list[Tick] = []
    for tick in ticks:
        if not spaced or tick.x - spaced[-1].x >= LABEL_WIDTH:
            spaced.append(tick)
    return spaced


def _row(incident: ListedIncident, seconds: float, axis: DurationAxis) -> Row:
    reason = EndReason(incident.end_reason) if incident.end_reason else None
    end: End = "ended"
    if incident.resolved_at is None:
        end = "acknowledged" if incident.acknowledged_at else "open"
    elif reason is None or reason in RECOVERIES:
        end = "recovered"
    acknowledged = incident.measures["time_to_acknowledge"].seconds
    if acknowledged is not None:  # counted from detection, but the line begins with the impact
        acknowledged += incident.measures["time_to_detect"].seconds or 0
    return Row(
        incident,
        seconds,
        axis.x(seconds),
        end,
        None if acknowledged is None or acknowledged < axis.low else axis.x(acknowledged),
        END_REASONS[reason] if reason is not None and reason is not EndReason.RECOVERED else None,
    )


def _seconds(incident: ListedIncident, now: datetime) -> float:
    """Time to recover, or how long it has lasted so far."""
    recovered = incident.measures["time_to_recover"]
    if recovered.seconds is not None:
        return recovered.seconds
    if recovered.censored_seconds is not None:
        return recovered.censored_seconds
    return max(0.0, ((incident.resolved_at or now) - incident.detected_at).total_seconds())


# — routes —

_OPTIONS = text(f"""
    (SELECT 'service' AS kind, name FROM service ORDER BY name LIMIT {OPTIONS_AT_MOST})
     UNION ALL
    (SELECT 'source', name FROM source WHERE id <> {MANUAL_SOURCE_ID} ORDER BY name LIMIT {OPTIONS_AT_MOST})
""")  # noqa: S608


@router.get("/incidents")
async def show(asked: SignedIn) -> Response:
    """With `format=csv` the same as REST's export, for the session of a browser."""
    problem = None
    params = asked.request.query_params
    try:
        query = _parsed(params)
        chosen = selection(query, asked.zone, asked.now)
        if query.format == "csv":
            return await csv_of(asked.context.engine, asked.context.settings, chosen.filters, now=asked.now)
        before, after = (_key(cursor) for cursor in (query.before, query.after))
    except Invalid as invalid:
        problem = invalid
        query, before, after = Query(), None, None
        chosen = selection(query, asked.zone, asked.now)
    found = listing.Listing((), None, None)
    async with asked.reading() as session:
        options = await _options(session)
        if problem is None:
            found = await listing.listed(
                session,
                chosen.filters,
                before=before,
                after=after,
                limit=ROWS,
                now=asked.now,
                weights=asked.context.settings.impact,
            )
    axis, rows = rows_of(found.rows, asked.now)
    return asked.page(
        "incidents.html",
        status=problem.status if problem else 200,
        problem=problem,
        chosen=chosen,
        default_within=DEFAULT_WITHIN,
        entered=params,
        within=[
            *_BY_DATES[: bool(params.get("from") or params.get("to"))],
            *((name, shown) for name, (shown, _) in WITHIN.items()),
        ],
        statuses=[status.value for status in IncidentStatus],
        severities=[(name, name) for name in SEVERITIES],
        options=options,
        sources=_choices(options["source"], params.get("source")),
        labels=[*filter(None, params.getlist("label")), ""][:11],
        csv="/incidents?" + urlencode([*chosen.query, ("format", "csv")]),
        first="/incidents?" + urlencode(chosen.query),
        axis=axis,
        ticks=_spaced(axis.ticks()),
        rows=rows,
        is_first=not (before or after),
        older=_address(chosen, before=found.older) if found.older else None,
        newer=_address(chosen, after=found.newer) if found.newer else None,
    )


_BY_DATES = [("", "the dates below")]


def _choices(names: Sequence[str], chosen: str | None) -> list[tuple[str, str]]:
    """The chosen name too, even if there is no such source."""
    missing = [chosen] if chosen and chosen not in names else []
    return [("", "any"), *((name, name) for name in [*names, *missing])]


def _key(cursor: str | None) -> tuple[datetime, int] | None:
    key = Paging(cursor=cursor).after(datetime, int)
    return (key[0], key[1]) if key else None


def _address(chosen: Selection, **key: tuple[datetime, int]) -> str:
    pairs = [*chosen.query, *((name, cursor_of(*value)) for name, value in key.items())]
    return "/incidents?" + urlencode(pairs)


async def _options(session: AsyncSession) -> Mapping[str, Sequence[str]]:
    """The names to choose from, in one statement."""
    options: dict[str, list[str]] = {"service": [], "source": []}
    for kind, name in await (await session.connection()).execute(_OPTIONS):
        options[kind].append(name)
    return options
