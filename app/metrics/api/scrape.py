"""What Prometheus reads."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from app.metrics import exposition, store
from app.metrics.store import RecentRatios
from app.web import Knobs, Now, Reader, Tx, problem_responses

router = APIRouter()


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses=problem_responses()
    | {
        200: {
            "description": "In the text format, or OpenMetrics if the Accept header prefers it",
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
async def metrics(_: Reader, tx: Tx, now: Now, settings: Knobs, request: Request) -> Response:
    """Counters and histograms count incidents once they have settled, and never fall. `aftermath_…` is equal on every
    process and replica; `process_…` and `python_…` are of the one that answers.
    """
    snapshot = await store.snapshot(tx, services_at_most=settings.metrics_services)
    recent: RecentRatios = request.app.state.ratios
    ratios = await recent.of(tx, snapshot.services, now=now, weights=settings.impact)
    body, content_type = exposition.text(snapshot, request.headers.get("accept", ""), ratios)
    return Response(body, media_type=content_type)
