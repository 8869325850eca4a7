"""The Prometheus endpoint, `GET /metrics`."""

import asyncio
from datetime import datetime

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app.base import db
from app.base.http.access.auth import Reader
from app.base.http.context import Now, context_of
from app.base.http.responses.problems import problem_responses
from app.base.process.threads import off_loop
from app.metrics.prometheus import exposition
from app.metrics.prometheus.others import Gauges, RecentGauges
from app.metrics.prometheus.ratios import Ratios, RecentRatios
from app.metrics.prometheus.snapshot import Snapshot, read_snapshot

router = APIRouter()


@router.get(
    "/metrics",
    summary="Scrape metrics for Prometheus",
    response_class=PlainTextResponse,
    responses=problem_responses()
    | {
        200: {
            "description": "Prometheus text format, or OpenMetrics if the `Accept` header prefers it",
            "content": {
                "text/plain": {
                    "schema": {"type": "string"},
                    "example": 'aftermath_incidents_open{service="checkout",severity="sev1"} 1.0\n',
                },
                "application/openmetrics-text": {"schema": {"type": "string"}},
            },
        }
    },
)
async def scrape(_: Reader, now: Now, request: Request) -> Response:
    """Counters and histograms include incidents once they have settled, and never decrease. All processes and replicas
    export the same `aftermath_…` values, except `aftermath_database_up` and `aftermath_spool_…`, which describe the
    machine that responds. `process_…` and `python_…` describe the process. While the database is unavailable, only
    these exceptions are exported.
    """
    context = context_of(request)
    snapshot = ratios = gauges = None
    if not context.monitor.is_down:
        limit = asyncio.timeout(TIMEOUT_SECONDS)
        try:
            async with limit:
                snapshot, ratios, gauges = await _of_database(request, now)
        except Exception as error:
            # A statement that is canceled may fail with another error, such as that of its rollback.
            if not (limit.expired() or db.is_unreachable(error)):
                raise
            context.monitor.check_soon()
    local = exposition.LocalMetrics(await context.spool.depth(), context.settings.spool_max_bytes)
    accept = request.headers.get("accept", "")
    body, content_type = await off_loop(exposition.text, snapshot, accept, ratios, local, gauges)
    return Response(body, media_type=content_type)


TIMEOUT_SECONDS = 8.0  # Prometheus times out after ten; the spool metrics matter most while the database hangs


async def _of_database(request: Request, now: datetime) -> tuple[Snapshot, Ratios, Gauges]:
    context = context_of(request)
    recent = context.part(RecentRatios)
    async with db.read_transaction(context.engine) as tx:
        snapshot = await read_snapshot(tx, services_at_most=context.settings.metrics_services)
        ratios = await recent.of(tx, snapshot.services, now=now, weights=context.settings.impact)
        return snapshot, ratios, await context.part(RecentGauges).of(tx, snapshot.services, now=now)
