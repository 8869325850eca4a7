"""The doors that tell of deployments: a report in, durable, and its verdict out."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.http.auth import presented_token
from app.base.http.context import Now, context_of
from app.base.http.deliveries import admit, keep
from app.base.http.problems import problem_responses
from app.base.ids import new_id
from app.base.logs import LOG_FIELDS
from app.base.spool import Kept
from app.metrics.deployments import store
from app.metrics.deployments.deployment import Report
from app.metrics.deployments.source import Ignored, Rejected, Source, read
from app.metrics.deployments.sources import SOURCES

router = APIRouter()


class DeploymentReceipt(BaseModel):
    """Sent after the commit: what is told here is on disk."""

    delivery_id: UUID
    verdict: Literal["recorded", "repeated", "ignored", "quarantined"] = Field(
        description="New, known already, not about a deployment, or unreadable and kept"
    )
    deployment: str | None = Field(description="The id of the deployment it is about")
    reason: str | None = Field(description="Why it was ignored or quarantined")


class DeploymentSpooled(BaseModel):
    """Sent once the report is on disk, while the database is away."""

    delivery_id: UUID
    spooled: Literal[True] = Field(True, description="What it does will be seen when the database is back")


_DOOR = """Takes one report of a deployment and answers after it is durable.

What is JSON but cannot be read goes to quarantine and is answered with 200 all the same: no sender mends a body because
of a status. While the database is away reports go to the spool and are answered 202; a full spool is 503 with
`Retry-After`."""

PATIENCE_SECONDS = 5.0  # with a database that hangs; GitHub waits 10


async def _take(request: Request, kind: Source, now: datetime, token: str | None) -> DeploymentReceipt | JSONResponse:
    if token is None and kind.token_header is not None:
        token = request.headers.get(kind.token_header)
    context, delivery_id = context_of(request), new_id(now)
    token = token or presented_token(request)
    source, body = await admit(context, request, kind.kind, kind.verify, now=now, token=token)
    said = read(kind, body, headers=request.headers, source=source.name, received_at=now)
    request.scope[LOG_FIELDS] = fields = {"source": source.id, "delivery": delivery_id}
    try:
        if context.monitor.is_down:
            raise db.DatabaseDown  # noqa: TRY301  as if it had been asked
        async with asyncio.timeout(PATIENCE_SECONDS), db.session(context.engine) as session:
            receipt = await _tell(session, said, body, delivery_id, source_id=source.id, source=source.name, now=now)
    except Exception as error:
        # What says nothing of a deployment is no loss.
        if not db.is_unreachable(error) or isinstance(said, Ignored):
            raise
        context.monitor.check_soon()
        # Whether its commit came through or not is unknown; the drain knows it again by its id.
        await keep(context.spool, Kept(delivery_id, kind.kind, source.name, now, body))
        fields["spooled"] = 1
        return JSONResponse(DeploymentSpooled(delivery_id=delivery_id).model_dump(mode="json"), 202)
    fields["verdict"] = receipt.verdict
    return receipt


async def _tell(
    session: AsyncSession,
    said: Report | Ignored | Rejected,
    body: bytes,
    delivery_id: UUID,
    *,
    source_id: int,
    source: str,
    now: datetime,
) -> DeploymentReceipt:
    receipt = DeploymentReceipt(delivery_id=delivery_id, verdict="ignored", deployment=None, reason=None)
    match said:
        case Report():
            whole, is_new = await store.report(session, said, source_id=source_id, now=now)
            receipt.deployment, receipt.verdict = whole.id, "recorded" if is_new else "repeated"
        case Ignored():
            receipt.reason = said.reason
        case Rejected():
            receipt.reason, receipt.verdict = said.reason, "quarantined"
    await store.record_delivery(
        session,
        delivery_id=receipt.delivery_id,
        source_id=source_id,
        source=source,
        verdict=receipt.verdict,
        rejected=said if isinstance(said, Rejected) else None,
        body=body,
        now=now,
    )
    return receipt


async def replay(
    tx: AsyncConnection,
    kind: str,
    body: bytes,
    *,
    source_id: int,
    source: str,
    received_at: datetime,
    delivery_id: UUID | None = None,
) -> tuple[UUID, str, str | None]:
    """Reads a body from quarantine or from the spool as if it came anew at that time: the delivery, its verdict, and
    the deployment.

    Headers are not kept: of GitHub's events only `deployment_status` is, and a form begins as one.
    """
    headers = {"content-type": "application/x-www-form-urlencoded"} if body.startswith(b"payload=") else {}
    said = read(SOURCES[kind], body, headers=headers, source=source, received_at=received_at)
    async with db.session_within(tx) as session:
        receipt = await _tell(
            session, said, body, delivery_id or new_id(received_at), source_id=source_id, source=source, now=received_at
        )
    return receipt.delivery_id, receipt.verdict, receipt.deployment


def _add_door(kind: Source) -> None:
    async def take(request: Request, now: Now) -> DeploymentReceipt | JSONResponse:
        return await _take(request, kind, now, None)

    async def take_with_token(
        request: Request, now: Now, token: Annotated[str, Path(description="A token of scope `ingest`", max_length=200)]
    ) -> DeploymentReceipt | JSONResponse:
        return await _take(request, kind, now, token)

    body = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}, "example": dict(kind.example)}},
        }
    }
    operation = kind.kind.replace("-", "_")
    for method in ("POST", "PUT"):
        shown = " (PUT)" if method == "PUT" else ""
        common: dict[str, Any] = {
            "methods": [method],
            "response_model": DeploymentReceipt,
            "responses": problem_responses(400, 413, 415)
            | {202: {"model": DeploymentSpooled, "description": "Kept on disk until the database is back"}},
            "tags": ["deployments"],
            "description": f"{_DOOR}\n\n{kind.describes}",
        }
        router.add_api_route(
            f"/webhooks/{kind.kind}",
            take,
            summary=f"Deliver from {kind.name}{shown}",
            operation_id=f"{method.lower()}_{operation}",
            openapi_extra=body | {"security": [{"bearer": []}, {"basic": []}]},
            **common,
        )
        router.add_api_route(
            f"/webhooks/{kind.kind}/{{token}}",
            take_with_token,
            summary=f"Deliver from {kind.name}, token in the path{shown}",
            operation_id=f"{method.lower()}_{operation}_with_token",
            openapi_extra=body | {"security": []},
            **common,
        )


for _kind in SOURCES.values():
    _add_door(_kind)
