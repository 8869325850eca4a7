"""The page of one incident."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Query, Response

from app.base.http.requests.fields import IncidentInPath
from app.base.http.requests.paging import Paging, cursor_of
from app.base.values.severity import SEVERITIES
from app.incidents.actions import Ref
from app.incidents.history.path import Stage
from app.incidents.history.timeline import fact_of
from app.incidents.measures.measures import Facts, detected_at
from app.pages import words
from app.pages.incidents.panel import impact_words
from app.pages.incidents.read import everything, find, recorded
from app.pages.incidents.timeline import EFFECTS, Line, lines
from app.pages.incidents.view import BASES, LINK_KINDS, View, view
from app.pages.web.frame import PageRequest, PageRoute, Refusal, SignedIn, see_other, with_query

router = APIRouter(route_class=PageRoute, include_in_schema=False)

LABELS_AT_MOST = 40  # of those that all alerts have in common

Cursor = Annotated[str | None, Query(max_length=1000)]


def address_of(number: int) -> str:
    return f"/incidents/INC-{number}"


@dataclass(frozen=True, slots=True)
class PageSelection:
    """The selection in the address: all alerts from a key on, an entry that is being corrected, or the incident that
    the reader came from because it was merged.
    """

    all_alerts: bool = False
    after: str | None = None
    entry: int | None = None
    came_from: int | None = None


@router.get("/incidents/{id}")
async def show(
    asked: SignedIn,
    ref: IncidentInPath,
    alerts: Annotated[str, Query(max_length=10)] = "",
    after: Cursor = None,
    entry: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    merged: Annotated[int | None, Query(ge=1, lt=10**18)] = None,
) -> Response:
    return await incident_page(asked, ref, PageSelection(alerts == "all", after, entry, merged))


ENTRIES_ON_A_PAGE = 500


@router.get("/incidents/{id}/timeline")
async def timeline(asked: SignedIn, ref: IncidentInPath, cursor: Cursor = None) -> Response:
    """Everything that was recorded, also of incidents with more entries than their page shows."""
    after = Paging(limit=ENTRIES_ON_A_PAGE, cursor=cursor).after(int)
    async with asked.reading() as session:
        found = await find(session, ref)
        facts, entries = await recorded(
            session, found.row.id, after=after[0] if after else 0, limit=ENTRIES_ON_A_PAGE + 1
        )
    shown = set(facts[:ENTRIES_ON_A_PAGE])
    those = lines(
        (entry for entry in entries if fact_of(entry) in shown),
        found.row.id,
        numbers={},
        detected_at=detected_at(Facts.of(found.row)),
        shown=asked.shown,
    )
    return asked.page(
        "timeline.html",
        found=found,
        lines=those,
        days=_days(those, asked),
        effects=EFFECTS,
        minute=_minute(asked),
        at_most=ENTRIES_ON_A_PAGE,
        is_first_page=after is None,
        next_cursor=cursor_of(facts[ENTRIES_ON_A_PAGE - 1]) if len(facts) > ENTRIES_ON_A_PAGE else None,
    )


def _minute(asked: PageRequest) -> Callable[[datetime], str]:
    return lambda at: f"{at.astimezone(asked.zone):%H:%M}"


async def incident_page(
    asked: PageRequest, ref: Ref, looking: PageSelection, *, refused: Refusal | None = None, action: str = ""
) -> Response:
    """The page; with `refused`, the form of this `action` is open and shows what was entered."""
    settings = asked.context.settings
    after = Paging(cursor=looking.after).after(datetime, UUID) if looking.all_alerts else None
    async with asked.reading() as session:
        found = await find(session, ref)
        if found.winner is not None and refused is None:
            return see_other(with_query(address_of(found.winner), {"merged": found.row.number}))
        if found.winner is not None:
            looking = PageSelection(came_from=found.row.number)
            found = await find(session, found.winner)
        read = await everything(
            session, found, all_alerts=looking.all_alerts, after=after, now=asked.now, weights=settings.impact
        )
    shown = view(
        read,
        settings=settings,
        zone=asked.zone,
        shown_time=asked.shown,
        all_alerts=looking.all_alerts,
        now=asked.now,
    )
    return _rendered(asked, shown, looking, read.evidence.next_key, read.more_entries, refused, action)


def _rendered(
    asked: PageRequest,
    it: View,
    looking: PageSelection,
    next_key: tuple[datetime, UUID] | None,
    more_entries: bool,  # noqa: FBT001
    refused: Refusal | None,
    action: str,
) -> Response:
    row = it.found.row
    clock = _clock(it, asked)
    labels = sorted(row.labels.items())
    older = {"alerts": "all", "after": cursor_of(*next_key) if looking.all_alerts and next_key else None}
    return asked.page(
        "incident.html",
        status=refused.status if refused else 200,
        it=it,
        bases=BASES,
        link_kinds=LINK_KINDS,
        effects=EFFECTS,
        stages=list(Stage),
        severities=SEVERITIES,
        clock=clock,
        percent=lambda share: f"{float(share * 100):.4g}{words.NARROW}%",
        minute=_minute(asked),
        span_words=_span_words(it, asked),
        days=_days(it.lines, asked),
        course_rows=_course_rows(it),
        correcting=_correcting(action) or looking.entry,
        came_from=looking.came_from,
        all_alerts=looking.all_alerts,
        after=looking.after,
        older_alerts=with_query(address_of(row.number), older) + "#alerts" if next_key else None,
        without_texts=sum(one.texts is None for one in it.alerts),
        labels=[(words.cut(name, 100), words.cut(value, 1000)) for name, value in labels[:LABELS_AT_MOST]],
        more_labels=max(0, len(labels) - LABELS_AT_MOST),
        more_entries=more_entries,
        new_key=str(uuid4()),
        refused=in_words(refused, asked) if refused else None,
        refused_action=(refused.form.get("form") if refused else None) or action,
        customer_words=impact_words(asdict(it.panel.response.impact)),
    )


def _correcting(action: str) -> int | None:
    found = re.fullmatch(r"timeline/(\d+)/(correct|withdraw)", action)
    return int(found[1]) if found else None


def _clock(it: View, asked: PageRequest) -> Callable[[datetime], str]:
    """Times as on the axis: with their day if the incident has several."""
    times = [it.began_at, it.found.row.ended_at or asked.now, *(each.moment.at for each in it.course.moments)]
    days = {at.astimezone(asked.zone).date() for at in times}
    form = "%H:%M" if len(days) == 1 else "%-d\u00a0%b\u00a0%H:%M"
    return lambda at: at.astimezone(asked.zone).strftime(form)


def _span_words(it: View, asked: PageRequest) -> str:
    """`Saturday 28 November 2026, 10:07 to 11:18`"""
    end = it.found.row.ended_at
    began, ended = (at.astimezone(asked.zone) for at in (it.detected_at, end or asked.now))
    year = "" if began.year == asked.now.astimezone(asked.zone).year else f" {began:%Y}"
    return f"{began:%a %-d %b}{year}, {began:%H:%M} to " + (
        f"{ended:%H:%M}" if began.date() == ended.date() else f"{ended:%a %-d %b, %H:%M}"
    )


def _days(lines: Sequence[Line], asked: PageRequest) -> list[str]:
    """Before each line: the day, if it is another one than before; nothing if all is today."""
    days = [line.at.astimezone(asked.zone).date() for line in lines]
    today = asked.now.astimezone(asked.zone).date()
    if set(days) <= {today}:
        return [""] * len(days)
    return [
        ""
        if index and days[index - 1] == day
        else f"{day:%A %-d %B}" + ("" if day.year == today.year else f" {day.year}")
        for index, day in enumerate(days)
    ]


def _course_rows(it: View) -> list[tuple[datetime, str, str]]:
    """The plot in words, by time."""
    rows = [(each.moment.at, each.moment.name, "") for each in it.course.moments]
    rows += [
        (
            step.task.takes_effect_at,
            f"task {number}, {EFFECTS[step.task.effect][1]}: {words.cut(step.task.text, 80)}",
            str(step.level).replace("-", "\u2212"),
        )
        for number, step in enumerate(it.path.steps, 1)
    ]
    rows += [(each.moment.at, f"{each.moment.name} deployed", "") for each in it.course.deployments]
    for lane in it.course.lanes:
        name = f"{lane.series.name} {lane.series.detail}".strip()
        rows += [(each.start, f"{name} fires (sev{each.severity})", "") for each in lane.series.firings[:1]]
    return sorted(rows, key=lambda row: row[0])


# — refusals —

_TIMES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)")
_ON_PAGES = {
    "PreconditionFailed": "someone changed this incident in the meantime; review the current values, then save again",
}


_OF_REST = {"`": "", "PATCH the": "correct the", "fetch the response again": "look at what is there now"}


@dataclass(frozen=True, slots=True)
class InWords(Refusal):
    """With times in the zone of the reader, and for people instead of clients of REST."""

    text: str

    @property
    def detail(self) -> str:
        return self.text


def in_words(refused: Refusal, asked: PageRequest) -> Refusal:
    problem = refused.problem
    text = _ON_PAGES.get(type(problem).__name__, problem.detail)
    text = _TIMES.sub(lambda found: asked.shown(datetime.fromisoformat(found[0]), "seconds"), text)
    for of_rest, here in _OF_REST.items():
        text = text.replace(of_rest, here)
    return InWords(problem, refused.form, text)
