"""What Prometheus exports about the status page."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from app.base import db
from app.status_page.component import Status
from app.status_page.content import Content, state
from app.status_page.public_incident import next_update_due
from app.status_page.published import component_of
from app.status_page.store.components import all_components
from app.status_page.store.incidents import everything_public


async def read_gauges(tx: AsyncConnection, now: datetime) -> Mapping[str, Mapping[tuple[str, ...], float]]:
    """By name without `aftermath_`. Four statements."""
    async with db.session_within(tx) as session:
        components = [component_of(row) for row in await all_components(session)]
        found = state(Content(components, await everything_public(session)), now)
    counts = Counter(found.statuses.values())
    overdue = [each for each in found.problems if (due := next_update_due(each)) is not None and due < now]
    return {
        "components": {(str(status),): float(counts[status]) for status in Status},
        "public_incidents_open": {(): float(len(found.problems))},
        "public_updates_overdue": {(): float(len(overdue))},
    }
