"""Health of the process: liveness (`/healthz`) and readiness (`/readyz`) probes."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy import text

from app import __version__
from app.base import db
from app.base.errors import Overloaded, Stopped
from app.base.http.access.credentials import LOOKUP_SECONDS
from app.base.http.context import context_of
from app.base.http.responses.problems import problem_responses
from app.base.process.jobs import Jobs
from app.base.process.spool import Depth

health_router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok", "degraded"] = Field(examples=["ok"])
    detail: str | None = Field(
        None,
        description="What is degraded",
        examples=["settle has failed 3 times in a row (InternalError); see the log for the error"],
    )
    version: str = Field(__version__, description="Version of the responding process")


@health_router.get("/healthz", summary="Check liveness", responses={503: problem_responses()[503]})
async def check_liveness(request: Request) -> Health:
    """Requires no token and does not use the database. 503 if a part of the process has stopped: restart the process.
    200 and `degraded` while a background job is failing, because its next run may succeed.
    """
    jobs = context_of(request).jobs
    _require_all_running(jobs)
    if failing := jobs.failing:
        failures = ", ".join(f"{job.name} has failed {_times(job.failures_in_a_row)} ({job.error})" for job in failing)
        return Health(status="degraded", detail=f"{failures}; see the log for the error")
    return Health(status="ok")


def _require_all_running(jobs: Jobs) -> None:
    """Raises Stopped."""
    if ended := jobs.ended:
        names = " and ".join(f"`{name}`" for name in ended)
        raise Stopped(f"{names} {'has' if len(ended) == 1 else 'have'} stopped; restart this process")


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times in a row"


@health_router.get("/readyz", summary="Check readiness", responses={503: problem_responses()[503]})
async def check_readiness(request: Request) -> Health:
    """Requires no token. Reports whether this process accepts deliveries. While the database is unavailable: 200 and
    `degraded` as long as the spool accepts deliveries, so that load balancers keep sending them; after that 503.
    Also 200 and `degraded` while deliveries from an outage wait in the spool: numbers do not include them yet.
    """
    context = context_of(request)
    _require_all_running(context.jobs)
    try:
        if context.monitor.is_down:
            raise db.DatabaseDown  # noqa: TRY301  handled like a failed query
        async with asyncio.timeout(LOOKUP_SECONDS), context.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except Exception as error:
        if not db.is_unreachable(error):
            raise
        context.monitor.check_soon()
        if reason := context.spool.unavailable_because:
            raise Overloaded(f"the database is unavailable, and {reason}") from error
        waiting = _waiting(await context.spool.recent_depth())
        return Health(status="degraded", detail=f"the database is unavailable; deliveries go to the spool{waiting}")
    if waiting := _waiting(await context.spool.recent_depth()):
        return Health(status="degraded", detail=f"the spool is being applied{waiting}")
    return Health(status="ok")


def _waiting(depth: Depth) -> str:
    if not depth.records:
        return ""
    number = "1 delivery in it is" if depth.records == 1 else f"{depth.records} deliveries in it are"
    return f"; {number} not yet applied, and missing from all numbers"
