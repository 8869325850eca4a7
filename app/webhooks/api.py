"""The doors, the quarantine and the sources over HTTP."""

import base64
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field, SecretStr, StringConstraints

from app.access import CHANGE_KINDS, SIGNED_CHANGE_KINDS, SourceRow, source_by_name
from app.errors import Conflict, Invalid
from app.incidents.signal import Verdict
from app.telemetry import TOLD
from app.web import (
    Admin,
    At,
    Contract,
    Name,
    Now,
    Page,
    Pages,
    Reader,
    Tx,
    Writer,
    admit,
    context_of,
    page_of,
    presented_token,
    problem_responses,
)
from app.webhooks import store
from app.webhooks.intake import Delivery, Intake, Receipt
from app.webhooks.source import Source
from app.webhooks.sources import SOURCES

router = APIRouter()

Kind = StrEnum("Kind", {kind.upper(): kind for kind in (*SOURCES, *CHANGE_KINDS)})  # type: ignore[misc]


# — doors —


class ReceiptModel(BaseModel):
    """Sent after the commit: what is told here is on disk."""

    delivery_id: UUID
    signals: int = Field(description="Alerts of the delivery that could be read")
    verdicts: dict[Verdict, int] = Field(
        description="What they did: opened, joined, repeated, resolved, reopened, merged, split, late, ignored, or "
        "quarantined for those that could not be read"
    )
    incidents: list[str] = Field(description="The incidents they are about")


_EXAMPLES = {
    "alertmanager": {
        "summary": "Alertmanager, one firing alert",
        "value": {
            "version": "4",
            "groupKey": '{}:{alertname="HighLatency"}',
            "truncatedAlerts": 0,
            "status": "firing",
            "receiver": "aftermath",
            "groupLabels": {"alertname": "HighLatency"},
            "commonLabels": {"alertname": "HighLatency", "service": "checkout", "severity": "critical"},
            "commonAnnotations": {},
            "externalURL": "http://alertmanager:9093",
            "alerts": [
                {
                    "status": "firing",
                    "labels": {"alertname": "HighLatency", "service": "checkout", "severity": "critical"},
                    "annotations": {"summary": "p99 above 2 s"},
                    "startsAt": "2026-08-20T10:00:15.123Z",
                    "endsAt": "0001-01-01T00:00:00Z",
                    "generatorURL": "http://prometheus:9090/graph",
                    "fingerprint": "251096a51337be7d",
                }
            ],
        },
    }
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}, "examples": _EXAMPLES}},
    }
}
_DOOR = """Takes one delivery of a sender and answers after it is durable.

An alert that cannot be read goes to quarantine, is counted as `quarantined`, and fails nothing else. Overload and an
unreachable database are 503 with `Retry-After`; only a body that is not JSON of this kind at all is 400."""
_DOOR_PROBLEMS = problem_responses(400, 413, 415)


def intake_of(request: Request) -> Intake:
    intake: Intake = request.app.state.intake
    return intake


async def _take(request: Request, kind: Source, now: datetime, token: str | None) -> Receipt:
    source, body = await admit(request, kind.kind, kind.verify, now=now, token=token or presented_token(request))
    reading = kind.read(body, received_at=now)
    receipt = await intake_of(request).take(Delivery(source.id, source.name, now, reading, body))
    request.scope[TOLD] = {"source": source.id, "delivery": receipt.delivery_id, **receipt.verdicts}
    return receipt


def _add_door(kind: Source) -> None:
    async def take(request: Request, now: Now) -> Receipt:
        return await _take(request, kind, now, None)

    async def take_with_token(
        request: Request, now: Now, token: Annotated[str, Path(description="A token of scope `ingest`", max_length=200)]
    ) -> Receipt:
        return await _take(request, kind, now, token)

    for method in ("POST", "PUT"):
        common = {
            "methods": [method],
            "response_model": ReceiptModel,
            "responses": _DOOR_PROBLEMS,
            "tags": ["webhooks"],
            "description": f"{_DOOR}\n\n{kind.describes}",
            "openapi_extra": _BODY | {"security": [{"bearer": []}, {"basic": []}]},
        }
        router.add_api_route(
            f"/webhooks/{kind.kind}",
            take,
            summary=f"Deliver from {kind.kind.capitalize()}" + (" (PUT)" if method == "PUT" else ""),
            operation_id=f"{method.lower()}_{kind.kind}",
            **common,  # type: ignore[arg-type]
        )
        router.add_api_route(
            f"/webhooks/{kind.kind}/{{token}}",
            take_with_token,
            summary=f"Deliver from {kind.kind.capitalize()}, token in the path" + (" (PUT)" if method == "PUT" else ""),
            operation_id=f"{method.lower()}_{kind.kind}_with_token",
            **(common | {"openapi_extra": _BODY | {"security": []}}),  # type: ignore[arg-type]
        )


for _kind in SOURCES.values():
    _add_door(_kind)


# — quarantine —


class QuarantineItem(BaseModel):
    id: int
    source: str
    delivery_id: UUID
    received_at: At
    reason: str = Field(description="Why it could not be read, one word", examples=["bad_time"])
    detail: str
    raw: str = Field(description="What was sent, byte for byte as UTF-8, else as base64")
    raw_encoding: Literal["utf-8", "base64"]
    replayed_at: At | None


def _shown(item: store.Quarantined) -> QuarantineItem:
    try:
        raw, encoding = item.raw.decode(), "utf-8"
    except UnicodeDecodeError:
        raw, encoding = base64.b64encode(item.raw).decode(), "base64"
    return QuarantineItem.model_validate(
        {
            "id": item.id,
            "source": item.source,
            "delivery_id": item.delivery_id,
            "received_at": item.received_at,
            "reason": item.reason,
            "detail": item.detail,
            "raw": raw,
            "raw_encoding": encoding,
            "replayed_at": item.replayed_at,
        }
    )


@router.get(
    "/api/v1/quarantine",
    response_model=Page[QuarantineItem],
    responses=problem_responses(),
    tags=["webhooks"],
    summary="List what could not be read",
)
async def list_quarantine(
    _: Reader,
    tx: Tx,
    paging: Pages,
    source: Annotated[Name | None, Query(description="Of this source only")] = None,
    replayed: Annotated[bool, Query(description="Also what has been replayed")] = False,  # noqa: FBT002  a query
) -> Page[QuarantineItem]:
    """Alerts kept raw because they could not be read, newest first."""
    key = paging.after(int)
    rows = await store.quarantined(
        tx, waiting=not replayed, source_name=source, before=key[0] if key else None, limit=paging.limit + 1
    )
    items, cursor = page_of(rows, paging, lambda item: (item.id,))
    return Page(items=[_shown(item) for item in items], next_cursor=cursor)


class NotAnAlert(Conflict):
    title = "Cannot be replayed here"


@router.post(
    "/api/v1/quarantine/{id}/replay",
    response_model=ReceiptModel,
    responses=problem_responses(404, 409),
    tags=["webhooks"],
    summary="Read an item again",
)
async def replay(
    request: Request,
    _: Writer,
    tx: Tx,
    now: Now,
    id: Annotated[int, Path(ge=1, lt=2**63)],  # noqa: A002
) -> Receipt:
    """Reads the item as if it came now, for instance after an update that understands it. What is still unreadable
    goes to quarantine again, under a new id. Times that the sender left out are those of the first arrival.
    """
    item = await store.begin_replay(tx, id)
    if item.kind not in SOURCES:
        message = f"it told of a deployment: mend its `raw` and send it to /webhooks/{item.kind} again"
        raise NotAnAlert(message)
    kind = SOURCES[item.kind]
    reading = kind.read(_as_delivery(item), received_at=item.received_at)
    delivery = Delivery(item.source_id, item.source, item.received_at, reading, item.raw)
    receipt = await intake_of(request).replay(tx, delivery)
    await store.end_replay(tx, id, now=now)
    return receipt


def _as_delivery(item: store.Quarantined) -> bytes:
    """One alert wrapped as a delivery of its own, those beyond the limit as another; a whole body as it is."""
    if item.reason == "too_many_alerts":
        return b'{"version":"4","alerts":' + item.raw + b"}"
    return item.raw if _is_body(item.raw) else b'{"version":"4","alerts":[' + item.raw + b"]}"


def _is_body(raw: bytes) -> bool:
    """Only a whole body has `alerts`, or `ruleId` as legacy Grafana's, at its top."""
    try:
        return not _TOP.decode(raw).keys().isdisjoint({"alerts", "ruleId"})
    except msgspec.ValidationError:
        return False
    except (msgspec.DecodeError, RecursionError):
        return b'"alerts"' in raw[:100_000]


_TOP = msgspec.json.Decoder(dict[str, msgspec.Raw])


# — sources —


_SIGNED = {*(kind for kind, source in SOURCES.items() if source.verify), *SIGNED_CHANGE_KINDS}


class SourceSettings(Contract):
    kind: Kind = Field(examples=["grafana"])
    hmac_secret: SecretStr | None = Field(
        None, description="Deliveries must be signed with it; write-only; null: no signature asked", max_length=500
    )
    hmac_header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")] | None = Field(
        None, description="Header of the signature; null: the sender's default"
    )
    hmac_timestamp_header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")] | None = Field(
        None, description="Header of the signed time; null: the signature has none"
    )


class SourceModel(BaseModel):
    name: str
    kind: str
    signed: bool = Field(description="Whether deliveries must be signed")
    hmac_header: str | None
    hmac_timestamp_header: str | None
    created_at: At


def _source_model(row: SourceRow) -> SourceModel:
    return SourceModel(
        name=row.name,
        kind=row.kind,
        signed=row.hmac_secret is not None,
        hmac_header=row.hmac_header,
        hmac_timestamp_header=row.hmac_timestamp_header,
        created_at=row.created_at,
    )


@router.get(
    "/api/v1/sources",
    response_model=Page[SourceModel],
    responses=problem_responses(),
    tags=["sources"],
    summary="List sources",
)
async def list_sources(_: Reader, tx: Tx, paging: Pages) -> Page[SourceModel]:
    """The monitoring systems that may send, by name."""
    key = paging.after(str)
    rows = await store.sources(tx, after=key[0] if key else None, limit=paging.limit + 1)
    items, cursor = page_of(rows, paging, lambda row: (row.name,))
    return Page(items=[_source_model(row) for row in items], next_cursor=cursor)


@router.get(
    "/api/v1/sources/{name}",
    response_model=SourceModel,
    responses=problem_responses(404),
    tags=["sources"],
    summary="Get a source",
)
async def get_source(_: Reader, tx: Tx, name: Name) -> SourceModel:
    """One monitoring system that may send."""
    return _source_model(await source_by_name(tx, name))


@router.put(
    "/api/v1/sources/{name}",
    response_model=SourceModel,
    responses=problem_responses(409),
    tags=["sources"],
    summary="Create or change a source",
)
async def put_source(request: Request, _: Admin, tx: Tx, now: Now, name: Name, settings: SourceSettings) -> SourceModel:
    """Sets how deliveries of this source must be signed. Its tokens are made by `aftermath token create`."""
    if settings.hmac_secret is not None and settings.kind not in _SIGNED:
        message = f"senders of kind {settings.kind.value!r} do not sign; leave hmac_secret out"
        raise Invalid(message)
    signature = {
        "hmac_secret": settings.hmac_secret.get_secret_value() if settings.hmac_secret else None,
        "hmac_header": settings.hmac_header,
        "hmac_timestamp_header": settings.hmac_timestamp_header,
    }
    changed = await store.put_source(tx, name, settings.kind.value, signature=signature, now=now)
    context_of(request).known_sources.pop(name, None)
    return _source_model(changed)
