"""HTTP API of quarantined deliveries and of sources."""

import logging
from collections.abc import AsyncIterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, StringConstraints
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.access import tokens
from app.base.errors import Invalid
from app.base.http.access.auth import Admin, Reader, Writer
from app.base.http.context import Now, Session, context_of
from app.base.http.requests.fields import AtShown, Input, Name, Secret
from app.base.http.requests.filters import Contained, Sorted, Sources, TimeSort
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.base.schema import Source
from app.incidents.grouping.rule import OptionalRecovery
from app.incidents.grouping.signal import Verdict
from app.ingest import quarantine
from app.ingest.intake import store
from app.ingest.quarantine import ListedItem
from app.ingest.replay import replay as replay_item
from app.ingest.senders import SENDERS
from app.ingest.service import ingest_of

log = logging.getLogger("aftermath.ingest")
router = APIRouter()

RAW_CHUNK_BYTES = 2**19

SenderKind = StrEnum("SenderKind", {kind.upper(): kind for kind in SENDERS})  # type: ignore[misc]


# — quarantine —


class QuarantineItem(BaseModel):
    id: int
    source: str
    delivery_id: UUID
    received_at: AtShown
    reason: str = Field(description="Why it could not be read, as an identifier", examples=["bad_time"])
    detail: str
    size_bytes: int = Field(description="Size of what was received; `GET /api/v1/quarantine/{id}/raw` returns it")
    attempts: int = Field(description="Replays that failed; `reason` and `detail` are those of the last one")
    replayed_at: AtShown | None


class QuarantineDetails(QuarantineItem):
    headers: dict[str, str] = Field(description="Headers of its request, except those that may contain a secret")


def _shown(listed: ListedItem) -> dict[str, object]:
    return listed.item.model_dump(exclude={"raw"}) | {"source": listed.source, "size_bytes": listed.size}


ItemId = Annotated[int, Path(ge=1, lt=2**63)]


@router.get(
    "/api/v1/quarantine",
    response_model=CountedPage[QuarantineItem],
    responses=problem_responses(),
    tags=["webhooks"],
    summary="List quarantined items",
)
async def list_quarantine(
    _: Reader,
    session: Session,
    paging: Pages,
    source: Sources = [],  # noqa: B006  fastapi copies it
    replayed: Annotated[bool, Query(description="Also list items that have been replayed")] = False,  # noqa: FBT002  a query
    q: Contained = None,
    sort: Sorted = TimeSort.NEWEST,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[QuarantineItem]:
    """Alerts and deployment reports that could not be read or applied, without what was received. `q` is searched in
    `reason` and `detail`.
    """
    filters = quarantine.Filters(waiting=not replayed, sources=source, text=q)
    key, oldest_first = paging.after_in(sort, int), sort is TimeSort.OLDEST
    rows = await quarantine.listed(
        session, filters, after=key[0] if key else None, oldest_first=oldest_first, limit=paging.limit + 1
    )
    items, cursor = page_of(rows, paging, lambda row: (sort.value, row.item.id))
    return CountedPage(
        items=[QuarantineItem.model_validate(_shown(row)) for row in items],
        next_cursor=cursor,
        total=await quarantine.count(session, filters) if count else None,
    )


class QuarantineDeletion(BaseModel):
    items: int = Field(description="Number of deleted items")
    stored_bytes: int = Field(description="Disk space that they took up, as counted for the quota")


@router.delete(
    "/api/v1/quarantine",
    responses=problem_responses(404),
    tags=["webhooks"],
    summary="Delete all quarantined items of a source",
)
async def delete_quarantine(
    by: Writer, session: Session, source: Annotated[Name, Query(description="The source", examples=["prod"])]
) -> QuarantineDeletion:
    """Deletes everything that this source has in quarantine, replayed or not. Items that were not replayed are lost."""
    deleted = await quarantine.delete_all(session, (await tokens.source_by_name(session, source)).id)
    log.info("%s deleted %d items from the quarantine of %s", by.name, deleted.items, source)
    return QuarantineDeletion(items=deleted.items, stored_bytes=deleted.stored_bytes)


@router.get(
    "/api/v1/quarantine/{id}",
    responses=problem_responses(404),
    tags=["webhooks"],
    summary="Get a quarantined item",
)
async def get_quarantined(_: Reader, session: Session, id: ItemId) -> QuarantineDetails:  # noqa: A002
    """Returns why it is in quarantine, and the headers of its request."""
    listed, headers = await quarantine.find(session, id)
    return QuarantineDetails.model_validate(_shown(listed) | {"headers": headers})


@router.get(
    "/api/v1/quarantine/{id}/raw",
    response_class=StreamingResponse,
    responses=problem_responses(404)
    | {
        200: {
            "description": "The bytes as received: the part of the body that could not be read, or the whole body",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
    tags=["webhooks"],
    summary="Get what was received",
)
async def get_quarantined_raw(request: Request, _: Reader, id: ItemId) -> StreamingResponse:  # noqa: A002
    """Returns the bytes of a quarantined item, unchanged, as a download."""
    engine = context_of(request).engine
    async with db.read_session(engine) as session:
        size = (await quarantine.find(session, id))[0].size

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, size, RAW_CHUNK_BYTES):
            async with db.read_session(engine) as session:  # one per part: a slow client does not hold a connection
                part = await quarantine.sent(session, id, at=at, size=RAW_CHUNK_BYTES)
            yield part

    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f'attachment; filename="quarantine-{id}"',
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(parts(), media_type="application/octet-stream", headers=headers)


@router.delete(
    "/api/v1/quarantine/{id}",
    status_code=204,
    responses=problem_responses(404),
    tags=["webhooks"],
    summary="Delete a quarantined item",
)
async def delete_quarantined(by: Writer, session: Session, id: ItemId) -> None:  # noqa: A002
    """An item that was not replayed is lost."""
    await quarantine.delete_item(session, id)
    log.info("%s deleted item %d from quarantine", by.name, id)


class ReplayModel(BaseModel):
    """What the response to the delivery would have been."""

    delivery_id: UUID
    signals: int = Field(description="Number of alerts that could be read")
    verdicts: dict[str, int] = Field(
        description="As in the response to a delivery; for a deployment: recorded, repeated, ignored or quarantined"
    )
    incidents: list[str] = Field(description="Numbers of the incidents to which the alerts belong")
    deployment: str | None = Field(None, description="Key of the deployment, if the item is a deployment report")


@router.post(
    "/api/v1/quarantine/{id}/replay",
    response_model=ReplayModel,
    responses=problem_responses(404, 409),
    tags=["webhooks"],
    summary="Replay a quarantined item",
)
async def replay_quarantined(
    request: Request,
    _: Writer,
    session: Session,
    now: Now,
    id: ItemId,  # noqa: A002
) -> ReplayModel:
    """Processes the item again, for example after an update that can read it. What still cannot be read stays in
    quarantine under the same id, with one more attempt. Times that the sender omitted default to when the item was
    first received.
    """
    item, stored, source = await quarantine.begin_replay(session, id)
    receipt, rejected = await replay_item(session, ingest_of(request).flusher, item, stored, source)
    quarantine.end_replay(session, item, rejected, now=now)
    return ReplayModel(
        delivery_id=receipt.delivery_id,
        signals=receipt.signals,
        verdicts=receipt.verdicts | ({Verdict.QUARANTINED.value: len(rejected)} if rejected else {}),
        incidents=receipt.incidents,
        deployment=next(iter(receipt.deployments), None),
    )


# — sources —


SIGNED = frozenset(kind for kind, sender in SENDERS.items() if sender.verify)  # kinds


class SourceSettings(Input):
    kind: SenderKind = Field(examples=["grafana"])
    hmac_secret: Secret | None = Field(
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
    recoveries: list[OptionalRecovery] = Field(
        [],
        max_length=2,
        description="Ends that count as recoveries for this source's alerts, although in general they do not: alerts "
        "of Grafana rules with a filter end like this when all is well. They then end as `recovered`. A rule can set "
        "it "
        "for some alerts only",
    )
    refire_seconds: int = Field(
        900,
        ge=60,
        le=86400,
        description="If a source still reports an alert as firing this long after it reported the end, that end no "
        "longer counts: the incident is open again, without a gap. Use at least a minute more than the longest delay "
        "of a delivery, for example by a slow peer: times of receipt are rounded to minutes",
    )
    correlation_label: Annotated[str, StringConstraints(pattern=r"^[^\x00]{1,1024}$")] | None = Field(
        None,
        description="Label whose value is the key of an alert in other tools (PagerDuty's dedup key, Opsgenie's "
        "alias, Splunk On-Call's entity id), so that acknowledgements there find its incident. Null, or an alert "
        "without the label: the key that the sender reports, which for Alertmanager and Grafana is derived from the "
        "group key",
        examples=["incident_key"],
    )


class SourceModel(BaseModel):
    name: str
    kind: str
    signed: bool = Field(description="Whether deliveries must be signed")
    hmac_header: str | None
    hmac_timestamp_header: str | None
    stale_seconds: int | None
    recoveries: list[OptionalRecovery]
    refire_seconds: int
    correlation_label: str | None
    created_at: AtShown


def _source_model(row: Source) -> SourceModel:
    return SourceModel.model_validate(row.model_dump() | {"signed": row.hmac_secret is not None})


@router.get(
    "/api/v1/sources",
    response_model=CountedPage[SourceModel],
    responses=problem_responses(),
    tags=["sources"],
    summary="List sources",
)
async def list_sources(
    _: Reader,
    session: Session,
    paging: Pages,
    q: Contained = None,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[SourceModel]:
    """The systems that may send deliveries, sorted by name."""
    rows = await tokens.list_sources(session, containing=q, after=paging.after_name(), limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row.name,))
    return CountedPage(
        items=[_source_model(row) for row in items],
        next_cursor=cursor,
        total=await tokens.count_sources(session, containing=q) if count else None,
    )


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
    """Sets how deliveries of this source must be signed, when an alert that it no longer resends is closed, when an
    alert that it still reports as firing is reopened, which ends are recoveries, and which label links its alerts to
    acknowledgements in other tools.

    Omitted fields are reset to their defaults. Create its tokens with `aftermath token create`.
    """
    changed = await change_source(session, name, settings, now=now)
    context_of(request).credentials.forget_source(name)
    return _source_model(changed)


@router.delete(
    "/api/v1/sources/{name}",
    status_code=204,
    responses=problem_responses(404, 409),
    tags=["sources"],
    summary="Delete a source",
)
async def delete_source(request: Request, by: Admin, session: Session, now: Now, name: Name) -> None:
    """Only a source that has never delivered anything, such as a misspelled one, and has no valid token. Its revoked
    and expired tokens are deleted too.
    """
    await store.delete_source(session, name, now=now)
    context_of(request).credentials.forget_source(name)
    log.info("%s deleted the source %s", by.name, name)


async def change_source(session: AsyncSession, name: str, settings: SourceSettings, *, now: datetime) -> Source:
    """Creates or changes a source. Then call `Credentials.forget_source`. Raises Invalid and SourceOfOtherKind."""
    if settings.hmac_secret is not None and settings.kind not in SIGNED:
        message = f"sources of kind {settings.kind.value!r} do not sign deliveries; omit hmac_secret"
        raise Invalid(message)
    source = Source(
        name=name,
        kind=settings.kind.value,
        hmac_secret=None if settings.hmac_secret is None else settings.hmac_secret.get_secret_value(),
        hmac_header=settings.hmac_header,
        hmac_timestamp_header=settings.hmac_timestamp_header,
        stale_seconds=settings.stale_seconds,
        recoveries=sorted(set(settings.recoveries)),
        refire_seconds=settings.refire_seconds,
        correlation_label=settings.correlation_label,
        created_at=now,
    )
    return await store.put_source(session, source)
