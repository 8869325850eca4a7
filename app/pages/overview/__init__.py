"""The overview: what is open, whether alerts arrive, and how the last weeks were."""

from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum
from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.base.commands import PLAY_DEMO
from app.base.process.threads import off_loop
from app.base.values.times import Span
from app.ingest.health.judgment import Reason
from app.ingest.health.wording import observation
from app.pages.overview import figures, now
from app.pages.overview.read import has_incidents, read_overview
from app.pages.web.connect import receiver
from app.pages.web.frame import PageRequest, PageRoute, SignedIn

router = APIRouter(route_class=PageRoute, include_in_schema=False)


class Days(IntEnum):
    """How long a period may be."""

    WEEK = 7
    MONTH = 30
    QUARTER = 90


@router.get("/")
async def overview(asked: SignedIn, days: Annotated[Days, Query()] = Days.MONTH) -> Response:
    async with asked.turn():
        return await _overview(asked, days)


async def _overview(asked: PageRequest, days: Days) -> Response:
    settings = asked.context.settings
    period = Span(asked.now - timedelta(days=days), asked.now)
    async with asked.reading() as session:
        found = await read_overview(session, period, now=asked.now, settings=settings)
        if not len(found.periods.read.columns) and not await has_incidents(session):
            return _first_steps(asked, now.sources_line(found.sources))

    def page() -> Response:
        return asked.page(
            "overview.html",
            observed=_wording(asked),
            days=days.value,
            choices=[each.value for each in Days],
            period=period,
            blind=now.blind_spots(found.sources, found.open_now),
            open_now=now.open_incidents(found.open_now, now=asked.now),
            sources=now.sources_line(found.sources),
            learning=found.learning,
            figures=figures.figures_of(found.periods),
            services=figures.services_of(found, period, asked.zone),
        )

    return await off_loop(page)


def _first_steps(asked: PageRequest, sources: now.SourcesLine) -> Response:
    return asked.page(
        "overview_empty.html",
        observed=_wording(asked),
        sources=sources,
        snippet=receiver(asked),
        play_demo=PLAY_DEMO,
    )


def _wording(asked: PageRequest) -> Callable[[Reason], str]:
    """Writes the observation behind a reason, with times as the viewer reads them."""

    def words(reason: Reason) -> str:
        return observation(reason, lambda moment: asked.shown(moment, "clock")).replace("`", "")

    return words
