"""Dependencies of routes: one transaction, committed before the response leaves."""

from types import SimpleNamespace
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import Receive, Scope, Send

from app.base import db
from app.base.http.context import Now, Session, Tx
from app.base.schema import TimelineEntry
from tests.base.test_schema import an_incident


@pytest.mark.parametrize("path", ["/by-session", "/by-connection"])
async def test_a_commit_that_fails_is_never_answered_with_success(engine: AsyncEngine, path: str) -> None:
    """The constraint is deferred: the incident that the entry names is looked up at the commit."""
    api = FastAPI()

    @api.post("/by-session")
    async def by_session(session: Session, now: Now, incident: UUID) -> None:
        session.add(TimelineEntry(incident_id=incident, at=now, recorded_at=now, kind="note"))

    @api.post("/by-connection")
    async def by_connection(tx: Tx, now: Now, incident: UUID) -> None:
        entry = {"incident_id": incident, "at": now, "recorded_at": now, "kind": "note"}
        await tx.execute(insert(TimelineEntry.__table__).values(**entry))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await api({**scope, "state": {"context": SimpleNamespace(engine=engine)}}, receive, send)

    async with db.session(engine) as session:
        session.add(known := an_incident())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post(path, params={"incident": str(known.id)})).status_code == 200
        assert (await client.post(path, params={"incident": str(uuid4())})).status_code == 500
