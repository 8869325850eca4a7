"""Dependencies of routes: the context of the process, one transaction and one `now` per request."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.http.access.credentials import Credentials
from app.base.http.limits.bodies import BytesInFlight
from app.base.outgoing import OutgoingClient
from app.base.process.jobs import Jobs
from app.base.process.spool import Spool
from app.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """Shared objects of one process. The application's lifespan puts the context into the state of every request."""

    settings: Settings
    engine: AsyncEngine
    monitor: db.DatabaseMonitor
    spool: Spool
    jobs: Jobs
    credentials: Credentials
    in_flight: BytesInFlight
    outgoing: OutgoingClient
    parts: Mapping[type, object]  # objects private to one slice, by class

    def part(self, kind: type[T]) -> T:
        found = self.parts[kind]
        assert isinstance(found, kind)
        return found


def context_of(request: Request) -> Context:
    context: Context = request.state.context
    return context


async def _transaction(request: Request) -> AsyncIterator[AsyncConnection]:
    opened = db.read_transaction if _only_reads(request) else db.transaction
    async with opened(context_of(request).engine) as connection:
        yield connection


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    opened = db.read_session if _only_reads(request) else db.session
    async with opened(context_of(request).engine) as rows:
        yield rows


def _only_reads(request: Request) -> bool:
    return request.method in {"GET", "HEAD"}


def _now() -> datetime:
    return datetime.now(UTC)


def _outgoing(request: Request) -> OutgoingClient:
    return context_of(request).outgoing


def _settings(request: Request) -> Settings:
    return context_of(request).settings


# scope="function": commit before the response leaves, so that a 2xx is never a lost write.
# A route takes one of the two: each is a transaction of its own. For a GET or HEAD request, it cannot write, and sees
# one state of the database, however many statements the response takes.
Tx = Annotated[AsyncConnection, Depends(_transaction, scope="function")]
Session = Annotated[AsyncSession, Depends(_session, scope="function")]
Now = Annotated[datetime, Depends(_now)]
OutgoingDep = Annotated[OutgoingClient, Depends(_outgoing)]
SettingsDep = Annotated[Settings, Depends(_settings)]
