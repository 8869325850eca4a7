"""The composition root: builds the application from the settings and starts the background jobs."""

import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi_offline import FastAPIOffline
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import __version__
from app.base import db
from app.base.access import web_sessions
from app.base.db import partitions
from app.base.http import health
from app.base.http.access.credentials import Clock, Credentials
from app.base.http.context import Context
from app.base.http.limits.bodies import BytesInFlight
from app.base.http.limits.guard import Guard
from app.base.http.limits.turns import Turns
from app.base.http.requests.strict import STRICT
from app.base.http.responses import problems
from app.base.http.responses.chosen import ChosenFields
from app.base.http.responses.encoding import Gzip
from app.base.outgoing import OutgoingClient
from app.base.process import logs
from app.base.process.jobs import Jobs
from app.base.process.memory import GIVE_BACK_SECONDS, give_memory_back
from app.base.process.spool import Spool
from app.catalog.calendars import api as calendars_api
from app.catalog.maintenance import api as maintenance_api
from app.catalog.objectives import api as objectives_api
from app.catalog.rules import api as rules_api
from app.catalog.rules import store as rules_store
from app.catalog.services import api as services_api
from app.incidents import api as incidents_api
from app.incidents.history.reactions import record_reactions, retry_and_drop_reactions
from app.ingest import quarantine
from app.ingest.alertmanager import queries as alertmanager_queries
from app.ingest.endpoints import api as ingest_api
from app.ingest.endpoints import tokens as tokens_api
from app.ingest.endpoints import webhook
from app.ingest.endpoints.webhook import WebhookApp
from app.ingest.handlers import Handlers
from app.ingest.health import api as source_health_api
from app.ingest.health.reconcile.poll import reconcile_all
from app.ingest.health.reconcile.store import delete_old_silences
from app.ingest.health.watch import AWAY, watch
from app.ingest.intake.flush import Flusher
from app.ingest.service import Ingest, ingesting
from app.metrics import api as metrics_api
from app.metrics.deployments import api as deployments_api
from app.metrics.deployments import causes, changes
from app.metrics.deployments import store as deployments_store
from app.metrics.prometheus import ratios, settle
from app.metrics.prometheus.others import Gauges, RecentGauges
from app.openapi import install_document, operation_id
from app.pages import install_pages
from app.pages.web.session import Attempts
from app.response import api as response_api
from app.response.store import prometheus as response_metrics
from app.response.store.review_agreements import agreement_outcomes, review_agreements
from app.reviews import api as reviews_api
from app.reviews.store import issues
from app.reviews.store.required import Requirements
from app.reviews.store.responses import Responses
from app.search import api as search_api
from app.settings import Settings
from app.status_page import api as status_page_api
from app.status_page.jobs import keep_status_page
from app.status_page.public import PublicPages
from app.status_page.published import StatusPage
from app.status_page.store.numbers import read_gauges as status_page_gauges

log = logging.getLogger("aftermath")

PARTITIONS_SECONDS = 3600.0  # interval between maintenance runs of the partitions
RETENTION_SECONDS = 3600.0  # interval between deletions of old items from quarantine
REQUIRED_SECONDS = 60.0  # shortest interval between judgments of which incidents require a review
REFRESH_SECONDS = 60.0  # interval between loads of all tokens and sources
LOCK_NOT_AVAILABLE = "55P03"


REST_BODY_BYTES = 2**20
HANDLERS = Handlers(
    deployments=deployments_store.handle_report,
    changes=changes.handle_change,
    reactions=record_reactions,
    issues=issues.handle_issue,
)


def create_app(settings: Settings, *, on_end: Callable[[], None] | None = None) -> logs.Application:
    """The whole service as one ASGI application. Its lifespan runs `serving` and adds the context to each request.

    `on_end` is called when a part of the process has stopped, so that it must be restarted.
    """
    inner: logs.Application = Gzip(ChosenFields(create_api(settings, on_end=on_end)))
    if settings.status_page:
        inner = PublicPages(inner)
    api = Guard(inner, at_most=REST_BODY_BYTES, larger=response_api.LARGER_BODIES)
    return logs.OneLinePerRequest(WebhookApp(alertmanager_queries.AlertmanagerQueries(api)))


def create_api(settings: Settings, *, on_end: Callable[[], None] | None = None) -> FastAPI:
    """The application without the webhooks, which it only documents, and without the public pages."""

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[dict[str, Context]]:
        for _ in iter_route_contexts(api.routes):
            pass  # completes the routes now: FastAPI would do so during the first requests, for a second
        async with serving(settings, on_end=on_end) as context:
            yield {"context": context}

    api = FastAPIOffline(  # serves the scripts of /docs locally
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs/assets",
        title="Aftermath",
        version=__version__,
        summary="The math after the outage: alerts become incidents, incidents become honest numbers.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        # It would look up its configuration on every request and export exceptions with their messages.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    for router in (webhook.router, alertmanager_queries.router, health.health_router):
        api.include_router(router)
    for router in (
        ingest_api.router,
        tokens_api.router,
        source_health_api.router,
        incidents_api.router,
        response_api.router,
        services_api.router,
        rules_api.router,
        maintenance_api.router,
        objectives_api.router,
        calendars_api.router,
        reviews_api.router,
        search_api.router,
        status_page_api.router,
        metrics_api.router,
        deployments_api.router,
    ):
        api.include_router(router, dependencies=[STRICT])
    install_document(api)
    problems.install_problems(api)
    install_pages(api)
    return api


@asynccontextmanager
async def serving(
    settings: Settings, *, clock: Clock = time.monotonic, on_end: Callable[[], None] | None = None
) -> AsyncIterator[Context]:
    """Runs connections, ingest and background jobs during the block. `clock` controls the refresh of cached tokens and
    sources; `on_end` is called when a task that must keep running has stopped.
    """
    assert settings.database_url is not None, "the command line starts the built-in PostgreSQL and passes its address"
    url = settings.database_url.get_secret_value()
    engine = db.connect(url)
    async with (
        db.DatabaseMonitor(url) as monitor,
        Spool.at(settings.data_dir, max_bytes=settings.spool_max_bytes) as spool,
        ingesting(settings, url, rules_store.rules, HANDLERS, monitor=monitor, spool=spool) as ingest,
        Jobs(on_end) as jobs,
    ):
        credentials = Credentials(
            engine,
            monitor,
            admin_token=settings.admin_token.get_secret_value() if settings.admin_token else None,
            trust_seconds=settings.spool_trust_seconds,
            clock=clock,
        )
        proxy = settings.outbound_proxy
        outgoing = OutgoingClient(settings.outbound_allow or "", proxy=proxy.get_secret_value() if proxy else None)
        status_page = StatusPage.of(settings, engine)
        jobs.watch(monitor.task, *ingest.tasks)
        requirements = Requirements(review_agreements, settings.impact)
        _start_jobs(jobs, settings, engine, ingest.flusher, credentials, outgoing, requirements)
        keep_status_page(jobs, settings, engine, status_page)
        yield Context(
            settings,
            engine,
            monitor,
            spool,
            jobs,
            credentials,
            BytesInFlight(max(settings.max_bytes_in_flight, settings.max_body_bytes)),
            outgoing,
            {
                Ingest: ingest,
                Turns: Turns(settings.concurrent_queries),
                Attempts: Attempts(),
                ratios.RecentRatios: ratios.RecentRatios(),
                RecentGauges: RecentGauges(_read_gauges),
                Requirements: requirements,
                Responses: Responses(agreement_outcomes),
                StatusPage: status_page,
            },
        )
    await engine.dispose()


async def _read_gauges(tx: AsyncConnection, services: Sequence[str], now: datetime) -> Gauges:
    return {**await response_metrics.read_gauges(tx, services, now), **await status_page_gauges(tx, now)}


async def _delete_expired_sessions(engine: AsyncEngine) -> None:
    async with db.session(engine) as session:
        await web_sessions.delete_expired(session, now=datetime.now(UTC))


async def _delete_old_silences(engine: AsyncEngine, keep: timedelta) -> None:
    async with db.session(engine) as session:
        await delete_old_silences(session, datetime.now(UTC) - keep)


async def _drop_waiting_issues(engine: AsyncEngine) -> None:
    async with db.transaction(engine) as tx:
        await issues.drop_waiting(tx, now=datetime.now(UTC))


async def _draft_reviews(engine: AsyncEngine, requirements: Requirements) -> None:
    await requirements.draft(engine, now=datetime.now(UTC))


def _start_jobs(
    jobs: Jobs,
    settings: Settings,
    engine: AsyncEngine,
    flusher: Flusher,
    credentials: Credentials,
    outgoing: OutgoingClient,
    requirements: Requirements,
) -> None:
    """Starts the work that the service does without a request."""
    settle_seconds, watch_seconds = settings.settle_interval_seconds, settings.watch_interval_seconds
    away = max(AWAY, 3 * timedelta(seconds=watch_seconds))
    keep = {
        "alert": timedelta(days=settings.retention_alerts_days),
        "delivery": timedelta(days=settings.retention_deliveries_days),
    }

    async def settle_incidents() -> None:
        async with db.transaction(engine) as tx:
            await settle.settle(
                tx,
                now=datetime.now(UTC),
                allowed_lateness=settings.allowed_lateness,
                weights=settings.impact,
                also=response_metrics.count_outcomes,
            )

    async def place_reactions() -> None:
        async with db.transaction(engine) as tx:
            await retry_and_drop_reactions(tx, now=datetime.now(UTC))

    async def count_failures() -> None:
        async with db.transaction(engine) as tx:
            await causes.count_failures(tx, now=datetime.now(UTC))

    async def watch_sources() -> None:
        await watch(engine, flusher, now=datetime.now(UTC), away=away)

    async def reconcile_sources() -> None:
        await reconcile_all(engine, flusher, outgoing, now=datetime.now(UTC))

    async def maintain_partitions() -> None:
        async with db.transaction(engine) as tx:
            for done in await partitions.maintain(tx, now=datetime.now(UTC), keep=keep):
                log.info(done)

    async def delete_old_quarantine() -> None:
        before = datetime.now(UTC) - timedelta(days=settings.retention_quarantine_days)
        async with db.session(engine) as session:
            deleted = await quarantine.delete_old(session, before)
        if deleted.items:
            log.info("deleted %d items received before %s from quarantine", deleted.items, before.isoformat())

    jobs.every(settle_seconds, "settle", settle_incidents)
    jobs.every(settle_seconds, "count failed deployments", count_failures)
    jobs.every(settle_seconds, "place reactions", place_reactions)
    jobs.every(
        max(settle_seconds, REQUIRED_SECONDS), "draft required reviews", partial(_draft_reviews, engine, requirements)
    )

    jobs.every(GIVE_BACK_SECONDS, "give memory back", give_memory_back)
    jobs.every(watch_seconds, "watch", watch_sources)
    jobs.every(watch_seconds, "reconcile", reconcile_sources)
    jobs.every(REFRESH_SECONDS, "refresh credentials", credentials.refresh, at_once=True)
    jobs.every(RETENTION_SECONDS, "delete old quarantine", delete_old_quarantine, at_once=True)
    jobs.every(RETENTION_SECONDS, "drop waiting issues", partial(_drop_waiting_issues, engine))
    jobs.every(RETENTION_SECONDS, "delete old silences", partial(_delete_old_silences, engine, keep["alert"]))
    jobs.every(RETENTION_SECONDS, "delete expired sessions", partial(_delete_expired_sessions, engine))
    jobs.every(
        PARTITIONS_SECONDS,
        "maintain partitions",
        maintain_partitions,
        at_once=True,
        expected={LOCK_NOT_AVAILABLE: "the tables are in use; will retry"},
    )
