"""The composition root: settings in, an application out."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db, logs
from app.base.db import partitions
from app.base.http import health, problems
from app.base.http.body_limit import BodyLimit
from app.base.http.context import Context
from app.base.http.credentials import Clock, Credentials
from app.base.spool import Spool
from app.catalog.calendars import api as calendars_api
from app.catalog.maintenance import api as maintenance_api
from app.catalog.objectives import api as objectives_api
from app.catalog.rules import api as rules_api
from app.catalog.rules import store as rules_store
from app.catalog.services import api as services_api
from app.incidents import api as incidents_api
from app.ingest import api as ingest_api
from app.ingest import webhook
from app.ingest.health import api as source_health_api
from app.ingest.health.watch import reconcile_for_ever, watch_for_ever
from app.ingest.service import Ingest, ingesting
from app.ingest.webhook import WebhookApp
from app.metrics import api as metrics_api
from app.metrics.deployments import api as deployments_api
from app.metrics.deployments.causes import count_failures
from app.metrics.prometheus import ratios, settle
from app.settings import Settings

log = logging.getLogger("aftermath")

TEND_SECONDS = 3600
REFRESH_SECONDS = 60.0  # between two loads of all tokens and sources
LOCK_NOT_AVAILABLE = "55P03"


REST_BODY_BYTES = 2**20


def create_app(settings: Settings) -> logs.Application:
    """The whole service as one ASGI application. Its lifespan starts `serving`, and puts the context into the state of
    every request.
    """
    api = BodyLimit(create_api(settings), at_most=REST_BODY_BYTES, except_below="/webhooks/")
    return logs.OneLinePerRequest(WebhookApp(api))


def create_api(settings: Settings) -> FastAPI:
    """Everything but the webhooks for alerts, which it only describes."""

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[dict[str, Context]]:
        problems.openapi_document(api)  # from now on /openapi.json serves the complete one
        async with serving(settings) as context:
            yield {"context": context}

    api = FastAPIOffline(  # serves the scripts of /docs itself
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs/assets",
        title="Aftermath",
        version="0.1.0",
        summary="The math after the outage: alerts become incidents, incidents become honest numbers.",
        lifespan=lifespan,
        redirect_slashes=False,
        # It would look for its configuration at every request, and report exceptions with their messages.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for router in (
        webhook.router,
        ingest_api.router,
        source_health_api.router,
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
        api.include_router(router)
    problems.install_problems(api)
    return api


@asynccontextmanager
async def serving(settings: Settings, *, clock: Clock = time.monotonic) -> AsyncIterator[Context]:
    """Connections, the ingest and the background work, for as long as the block runs. `clock` decides when known tokens
    and sources are looked up again.
    """
    assert settings.database_url is not None, "the command line starts the built-in PostgreSQL and passes its address"
    url = settings.database_url.get_secret_value()
    engine = db.connect(url)
    async with (
        db.DatabaseMonitor(url) as monitor,
        Spool.at(settings.data_dir, max_bytes=settings.spool_max_bytes) as spool,
        ingesting(
            settings, url, rules_store.rules, deployments_api.doors.replay, monitor=monitor, spool=spool
        ) as ingest,
    ):
        credentials = Credentials(
            engine,
            monitor,
            admin_token=settings.admin_token.get_secret_value() if settings.admin_token else None,
            trust_seconds=settings.spool_trust_seconds,
            clock=clock,
        )
        flusher = ingest.flusher
        background = [
            asyncio.create_task(_settle_for_ever(engine, settings), name="settle"),
            asyncio.create_task(_tend_for_ever(engine, settings), name="tend"),
            asyncio.create_task(
                reconcile_for_ever(engine, flusher, interval_seconds=settings.watch_interval_seconds), name="reconcile"
            ),
            asyncio.create_task(
                watch_for_ever(engine, flusher, interval_seconds=settings.watch_interval_seconds), name="watch"
            ),
            asyncio.create_task(_refresh_credentials_for_ever(credentials), name="refresh credentials"),
        ]
        try:
            yield Context(
                settings,
                engine,
                monitor,
                spool,
                credentials,
                {Ingest: ingest, ratios.RecentRatios: ratios.RecentRatios()},
            )
        finally:
            for task in background:
                task.cancel()
            for task in background:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
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
                await count_failures(tx, now=datetime.now(UTC))
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
                log.info("the ingest was busy; partitions are maintained later")
            elif not db.is_unreachable(error):
                log.exception("maintaining partitions failed")
        await asyncio.sleep(TEND_SECONDS)


async def _refresh_credentials_for_ever(credentials: Credentials) -> None:
    while True:
        try:
            await credentials.refresh()
        except Exception as error:
            if not db.is_unreachable(error):
                log.exception("tokens and sources cannot be loaded")
        await asyncio.sleep(REFRESH_SECONDS)
