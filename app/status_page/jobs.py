"""The background jobs of the status page."""

from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.process.jobs import Jobs
from app.settings import Settings
from app.status_page.automatic import keep_up
from app.status_page.published import REFRESH_SECONDS, StatusPage
from app.status_page.store.measured import measure
from app.status_page.uptime import DAYS

RECENT_DAYS, RECENT_SECONDS = 2, 60.0
ALL_SECONDS = 3600.0  # corrections and maintenance change the past


def keep_status_page(jobs: Jobs, settings: Settings, engine: AsyncEngine, page: StatusPage) -> None:
    """Starts the jobs. They follow incidents also while the page is off, so that it is right when it is turned on."""
    delay = timedelta(seconds=settings.status_delay_seconds)

    async def follow() -> None:
        async with db.session(engine) as session:
            await keep_up(session, publishes=settings.status_page, delay=delay, now=datetime.now(UTC))

    async def measure_days(days: int) -> None:
        async with db.session(engine) as session:
            await measure(session, days=days, now=datetime.now(UTC), weights=settings.impact)

    async def refresh() -> None:
        await page.refresh(datetime.now(UTC))

    jobs.every(settings.settle_interval_seconds, "follow incidents on the status page", follow)
    if settings.status_page:
        jobs.every(REFRESH_SECONDS, "read the status page", refresh, at_once=True)
        jobs.every(RECENT_SECONDS, "measure components", partial(measure_days, RECENT_DAYS), at_once=True)
        jobs.every(ALL_SECONDS, "measure components again", partial(measure_days, DAYS), at_once=True)
