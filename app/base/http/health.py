"""Whether the process lives, and whether it takes deliveries."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from sqlalchemy import text

from app.base import db
from app.base.errors import Overloaded
from app.base.http.context import context_of
from app.base.http.credentials import LOOKUP_SECONDS
from app.base.http.problems import problem_responses

health_router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok", "degraded"] = Field(examples=["ok"])
    detail: str | None = Field(None, description="What is not well")


@health_router.get("/healthz", summary="Whether the process lives")
async def healthz() -> Health:
    """Open to everybody; touches nothing."""
    return Health(status="ok")


@health_router.get("/readyz", summary="Whether deliveries would be taken", responses={503: problem_responses()[503]})
async def readyz(request: Request) -> Health:
    """Open to everybody. While the database does not answer: 200 and `degraded` as long as the spool takes deliveries,
    so that whoever balances load keeps sending them; then 503.
    """
    context = context_of(request)
    try:
        if context.monitor.is_down:
            raise db.DatabaseDown  # noqa: TRY301  as if it had been asked
        async with asyncio.timeout(LOOKUP_SECONDS), context.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except Exception as error:
        if not db.is_unreachable(error):
            raise
        context.monitor.check_soon()
        if why_not := context.spool.why_not:
            raise Overloaded(f"the database does not answer, and {why_not}") from error
        return Health(status="degraded", detail="the database does not answer; deliveries go to the spool")
    return Health(status="ok")
