"""The composition root: settings in, an application out."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db, tokens
from app.base import logs as telemetry
from app.base.db import partitions
from app.base.http import auth, health, problems
from app.base.http.context import Context
from app.base.http.server import DOORS
from app.base.spool import Spool
from app.catalog.calendars import api as calendars_api
from app.catalog.maintenance import api as maintenance_api
from app.catalog.objectives import api as objectives_api
from app.catalog.rules import api as rules_api
from app.catalog.rules import store as rules_store
from app.catalog.services import api as services_api
from app.incidents import api as incidents_api
from app.ingest import api as webhooks_api
from app.ingest import webhook as door
from app.ingest.health import api as feed_api
from app.ingest.health.watch import reconcile_for_ever, watch_for_ever
from app.ingest.intake import Intake
from app.ingest.webhook import DirectDoors
from app.metrics import api as metrics_api
from app.metrics.deployments import api as deployments_api
from app.metrics.deployments import store as deployments_store
from app.metrics.prometheus import ratios, settle
from app.settings import Settings

log = logging.getLogger("aftermath")

TEND_SECONDS = 3600
LOCK_NOT_AVAILABLE = "55P03"


def create_app(settings: Settings) -> FastAPI:
    """The application; it serves once `serving` (its lifespan) has begun."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, DirectDoors]]:
        async with serving(app, settings):
            # The server has this as its state, and hands it to every connection.
            yield {DOORS: DirectDoors(app.state.context, app.state.intake)}

    app = FastAPIOffline(  # whose /docs has its scripts from here
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs/assets",
        title="Aftermath",
        version="0.1.0",
        summary="The math after the outage: alerts become incidents, incidents become honest numbers.",
        lifespan=lifespan,
        redirect_slashes=False,
        # It would look for its configuration at every request, and tell of exceptions with their messages.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for router in (
        door.router,
        webhooks_api.router,
        feed_api.router,
        incidents_api.router,
        services_api.router,
        rules_api.router,
        maintenance_api.router,
        objectives_api.router,
        calendars_api.router,
        metrics_api.router,
        deployments_api.router,
        health.health_router,
    ):
        app.include_router(router)
    problems.install_problems(app)
    problems.describe(app)
    # The doors stand before all that FastAPI does around a request: it takes longer than a delivery.
    behind = app.build_middleware_stack
    app.build_middleware_stack = lambda: telemetry.OneLinePerRequest(door.Doors(behind()))  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def serving(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    """Connections, the intake and the background work, for as long as the block runs."""
    assert settings.database_url is not None, "the command line starts the built-in PostgreSQL and passes its address"
    engine = db.connect(settings.database_url.get_secret_value())
    # Connections of their own for the doors: slow questions must not keep alerts waiting.
    doors = db.connect(settings.database_url.get_secret_value(), pool_size=4, few_rows=True)
    digest = tokens.digest_of(settings.admin_token.get_secret_value()) if settings.admin_token else None
    app.state.ratios = ratios.RecentRatios()
    # Batches make tens of thousands of objects that die together: with the default thresholds the collector would walk
    # everything that lives, many times a second.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    async with (
        db.Reach(settings.database_url.get_secret_value()) as reach,
        Spool.at(settings.data_dir, max_bytes=settings.spool_max_bytes) as spool,
        Intake(
            doors,
            rules_store.rules,
            reach=reach,
            spool=spool,
            batch_alerts=settings.batch_alerts,
            queue_alerts=settings.queue_alerts,
            queue_seconds=settings.queue_seconds,
            take_change=deployments_api.doors.replay,
        ) as intake,
    ):
        app.state.intake = intake
        app.state.context = context = Context(settings, engine, reach, spool, digest)
        background = [
            asyncio.create_task(_settle_for_ever(engine, settings), name="settle"),
            asyncio.create_task(_tend_for_ever(engine, settings), name="tend"),
            asyncio.create_task(
                reconcile_for_ever(engine, intake, interval_seconds=settings.watch_interval_seconds), name="reconcile"
            ),
            asyncio.create_task(
                watch_for_ever(engine, intake, interval_seconds=settings.watch_interval_seconds), name="watch"
            ),
            asyncio.create_task(auth.remember_for_ever(context), name="remember"),
        ]
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            for task in background:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
    await doors.dispose()
    await engine.dispose()


async def _settle_for_ever(engine: AsyncEngine, settings: Settings) -> None:
    while True:
        await asyncio.sleep(settings.settle_interval_seconds)
        try:
            async with db.transaction(engine) as tx:
                await settle.settle(
                    tx, now=datetime.now(UTC), allowed_lateness=settings.allowed_lateness, weights=settings.impact
                )
            async with db.transaction(engine) as tx:
                await deployments_store.count_failures(tx, now=datetime.now(UTC))
        except Exception as error:
            if not db.is_unreachable(error):
                log.exception("settling failed")


async def _tend_for_ever(engine: AsyncEngine, settings: Settings) -> None:
    keep = {
        "alert": timedelta(days=settings.retention_alerts_days),
        "delivery": timedelta(days=settings.retention_deliveries_days),
    }
    while True:
        try:
            async with db.transaction(engine) as tx:
                for done in await partitions.tend(tx, now=datetime.now(UTC), keep=keep):
                    log.info(done)
        except Exception as error:
            if db.state_of(error) == LOCK_NOT_AVAILABLE:
                log.info("the doors were busy; partitions are looked after later")
            elif not db.is_unreachable(error):
                log.exception("looking after partitions failed")
        await asyncio.sleep(TEND_SECONDS)


def create_from_environment() -> FastAPI:
    """What worker processes import: `uvicorn app.main:create_from_environment --factory`."""
    settings = Settings()
    telemetry.configure(settings.log_level)
    return create_app(settings)
