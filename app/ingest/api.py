"""HTTP API of quarantined deliveries and of sources."""

import base64
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field, SecretStr, StringConstraints

from app.base import tokens
from app.base.errors import Invalid
from app.base.http.auth import Admin, Reader, Writer
from app.base.http.context import Now, Session, context_of
from app.base.http.fields import At, Contract, Name
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.base.schema import Quarantine, Source, StoredRequest
from app.incidents.grouping.signal import Verdict
from app.ingest import store
from app.ingest.replay import replay as replay_item
from app.ingest.senders import SENDERS
from app.ingest.service import ingest_of

router = APIRouter()

Kind = StrEnum("Kind", {kind.upper(): kind for kind in SENDERS})  # type: ignore[misc]


# — quarantine —


class QuarantineItem(BaseModel):
    id: int
    source: str
    delivery_id: UUID
    received_at: At
    reason: str = Field(description="Why it could not be read, as an identifier", examples=["bad_time"])
    detail: str
    raw: str = Field(description="The bytes as received: as text if they are valid UTF-8, else as base64")
    raw_encoding: Literal["utf-8", "base64"]
    headers: dict[str, str] = Field(description="Headers of its request, except those that may contain a secret")
    attempts: int = Field(description="Replays that failed; `reason` and `detail` are those of the last one")
    replayed_at: At | None


def _shown(item: Quarantine, stored: StoredRequest, source: Source) -> QuarantineItem:
    sent = stored.body if item.raw is None else item.raw
    try:
        raw, encoding = sent.decode(), "utf-8"
    except UnicodeDecodeError:
        raw, encoding = base64.b64encode(sent).decode(), "base64"
    return QuarantineItem.model_validate(
        {
            "id": item.id,
            "source": source.name,
            "delivery_id": item.delivery_id,
            "received_at": item.received_at,
            "reason": item.reason,
            "detail": item.detail,
            "raw": raw,
            "raw_encoding": encoding,
            "headers": stored.headers,
            "attempts": item.attempts,
            "replayed_at": item.replayed_at,
        }
    )


@router.get(
    "/api/v1/quarantine",
    response_model=Page[QuarantineItem],
    responses=problem_responses(),
    tags=["webhooks"],
    summary="List quarantined items",
)
async def list_quarantine(
    _: Reader,
    session: Session,
    paging: Pages,
    source: Annotated[Name | None, Query(description="Only items from this source")] = None,
    replayed: Annotated[bool, Query(description="Also list items that have been replayed")] = False,  # noqa: FBT002  a query
) -> Page[QuarantineItem]:
    """Alerts and deployment reports that could not be read or applied, as received, newest first."""
    key = paging.after(int)
    rows = await store.quarantined(
        session, waiting=not replayed, source_name=source, before=key[0] if key else None, limit=paging.limit + 1
    )
    items, cursor = page_of(rows, paging, lambda row: (row[0].id,))
    return Page(items=[_shown(*row) for row in items], next_cursor=cursor)


class ReplayModel(BaseModel):
    """What the response to the delivery would have been."""

    delivery_id: UUID
    signals: int = Field(description="Number of alerts that could be read")
    verdicts: dict[str, int] = Field(
        description="As in the response to a delivery; for a deployment: recorded, repeated, ignored or quarantined"
    )
    incidents: list[str] = Field(description="Numbers of the incidents to which the alerts belong")
    deployment: str | None = Field(None, description="Id of the deployment, if the item is a deployment report")


@router.post(
    "/api/v1/quarantine/{id}/replay",
    response_model=ReplayModel,
    responses=problem_responses(404, 409),
    tags=["webhooks"],
    summary="Replay a quarantined item",
)
async def replay(
    request: Request,
    _: Writer,
    session: Session,
    now: Now,
    id: Annotated[int, Path(ge=1, lt=2**63)],  # noqa: A002
) -> ReplayModel:
    """Processes the item again, for example after an update that can read it. Whatever still cannot be read stays in
    quarantine under the same id, with one more attempt. Times that the sender omitted default to when the item was
    first received.
    """
    item, stored, source = await store.begin_replay(session, id)
    receipt, rejected = await replay_item(session, ingest_of(request).flusher, item, stored, source)
    store.end_replay(session, item, rejected, now=now)
    return ReplayModel(
        delivery_id=receipt.delivery_id,
        signals=receipt.signals,
        verdicts=receipt.verdicts | ({Verdict.QUARANTINED.value: len(rejected)} if rejected else {}),
        incidents=receipt.incidents,
        deployment=next(iter(receipt.deployments), None),
    )


# — sources —


_SIGNED = frozenset(kind for kind, sender in SENDERS.items() if sender.verify)


class SourceSettings(Contract):
    kind: Kind = Field(examples=["grafana"])
    hmac_secret: SecretStr | None = Field(
        None,
        description="Deliveries must be signed with this secret; write-only; null: no signature is required",
        max_length=500,
    )
    hmac_header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")] | None = Field(
        None, description="Header that contains the signature; null: the sender's default"
    )
    hmac_timestamp_header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")] | None = Field(
        None, description="Header that contains the signed timestamp; null: no timestamp is signed"
    )
    stale_seconds: int | None = Field(
        None,
        ge=300,
        le=30 * 24 * 3600,
        description="An alert that its source has not resent for longer than this is closed with the end reason "
        "`timeout`, which does not count as a recovery; if it is resent later, it is open again. Use several times the "
        "sender's repeat_interval. Null: an alert stays open until it is resolved by its source or by a person",
    )


class SourceModel(BaseModel):
    name: str
    kind: str
    signed: bool = Field(description="Whether deliveries must be signed")
    hmac_header: str | None
    hmac_timestamp_header: str | None
    stale_seconds: int | None
    created_at: At


def _source_model(row: Source) -> SourceModel:
    return SourceModel.model_validate(row.model_dump() | {"signed": row.hmac_secret is not None})


@router.get(
    "/api/v1/sources",
    response_model=Page[SourceModel],
    responses=problem_responses(),
    tags=["sources"],
    summary="List sources",
)
async def list_sources(_: Reader, session: Session, paging: Pages) -> Page[SourceModel]:
    """The systems that may send deliveries, sorted by name."""
    rows = await tokens.list_sources(session, after=paging.after_name(), limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row.name,))
    return Page(items=[_source_model(row) for row in items], next_cursor=cursor)


@router.get(
    "/api/v1/sources/{name}",
    response_model=SourceModel,
    responses=problem_responses(404),
    tags=["sources"],
    summary="Get a source",
)
async def get_source(_: Reader, session: Session, name: Name) -> SourceModel:
    """Returns its kind and settings. Secrets are not returned."""
    return _source_model(await tokens.source_by_name(session, name))


@router.put(
    "/api/v1/sources/{name}",
    response_model=SourceModel,
    responses=problem_responses(409),
    tags=["sources"],
    summary="Create or change a source",
)
async def put_source(
    request: Request, _: Admin, session: Session, now: Now, name: Name, settings: SourceSettings
) -> SourceModel:
    """Sets how deliveries of this source must be signed, and when an alert that it no longer resends is closed.
    Omitted fields are reset to their defaults. Create its tokens with `aftermath token create`.
    """
    if settings.hmac_secret is not None and settings.kind not in _SIGNED:
        message = f"sources of kind {settings.kind.value!r} do not sign deliveries; omit hmac_secret"
        raise Invalid(message)
    source = Source(
        name=name,
        kind=settings.kind.value,
        hmac_secret=settings.hmac_secret.get_secret_value() if settings.hmac_secret else None,
        hmac_header=settings.hmac_header,
        hmac_timestamp_header=settings.hmac_timestamp_header,
        stale_seconds=settings.stale_seconds,
        created_at=now,
    )
    changed = await store.put_source(session, source)
    context_of(request).credentials.forget_source(name)
    return _source_model(changed)
