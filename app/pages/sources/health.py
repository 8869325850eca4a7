"""The page of all sources: which of them deliver, and what is wrong with the others."""

from collections.abc import Sequence

from fastapi import APIRouter, Response

from app.ingest.health import store
from app.ingest.health.judgment import SourceStatus, rank
from app.pages.sources.read import facts_of, shared
from app.pages.web.connect import receiver
from app.pages.web.frame import PageRoute, SignedIn

IN_FULL_AT_MOST = 25  # sources; of the others there is one line each

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/sources")
async def sources(asked: SignedIn) -> Response:
    quota = asked.context.settings.quarantine_bytes
    async with asked.reading() as session:
        readings = await store.read_all(session, now=asked.now, quarantine_quota=quota)
    found = facts_of(asked, readings)
    return asked.page(
        "sources.html",
        sources=found[:IN_FULL_AT_MOST],
        others=found[IN_FULL_AT_MOST:],
        tally=tally([one.status for one in found]),
        waiting=sum(one.waiting for one in found),
        nothing_yet=not any(one.was_seen for one in found),
        receiver=receiver(asked),
        **shared(asked),
    )


def tally(statuses: Sequence[SourceStatus]) -> str:
    """`All 4 sources deliver`, or `1 source is failing, 2 are healthy`: worst first."""
    total = len(statuses)
    if all(status is SourceStatus.HEALTHY for status in statuses):
        return "The source delivers" if total == 1 else f"All {total} sources deliver"
    counted = [(statuses.count(status), _WORDS[status]) for status in sorted(SourceStatus, key=rank, reverse=True)]
    parts = [f"{number} {one if number == 1 else many}" for number, (one, many) in counted if number]
    first, _, rest = parts[0].partition(" ")
    noun = "source" if first == "1" else "sources"
    return ", ".join([f"{first} {noun} {rest}", *parts[1:]])


_WORDS = {
    SourceStatus.FAILING: ("is failing", "are failing"),
    SourceStatus.DEGRADED: ("is degraded", "are degraded"),
    SourceStatus.NEVER_SEEN: ("has not sent anything yet", "have not sent anything yet"),
    SourceStatus.HEALTHY: ("is healthy", "are healthy"),
}
