"""The page of one source: its health in full, its settings, its heartbeats and its reconciler."""

import shlex
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import SecretStr
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.access.tokens import Scope, source_by_name
from app.base.errors import Invalid, Problem
from app.base.http.requests.fields import Name
from app.base.schema import Reconciler, Source
from app.ingest import quarantine
from app.ingest.endpoints.api import SIGNED, SourceSettings, change_source
from app.ingest.health import heartbeat, store
from app.ingest.health.api import ReconcilerSettings, reconcile, require_permitted
from app.ingest.health.reconcile import store as reconcilers
from app.ingest.health.watch import apply
from app.ingest.senders import SENDERS
from app.ingest.service import ingest_of
from app.pages.sources.read import SourceFacts, address_of, facts_of, shared
from app.pages.web.connect import receiver, service_address
from app.pages.web.forms import Form, parsed
from app.pages.web.frame import PageRequest, Refusal, SegmentPageRoute, SignedIn, see_other

HEARTBEATS_AT_MOST = 100
OPTIONAL_RECOVERIES = {
    "missing_series": "the series is missing",
    "no_data": "there is no data",
}


router = APIRouter(route_class=SegmentPageRoute, include_in_schema=False)

NameInPath = Annotated[Name, Path()]


@router.get("/sources/{name}")
async def source(asked: SignedIn, name: NameInPath) -> Response:
    return await _page(asked, name)


async def _page(asked: PageRequest, name: str, refused: Refusal | None = None, form: str = "") -> Response:
    quota = asked.context.settings.quarantine_bytes
    async with asked.reading() as session:
        stored = await source_by_name(session, name)
        reading = await store.read(session, stored, now=asked.now, quarantine_quota=quota)
        [found] = facts_of(asked, [reading])
        reconciler = await session.get(Reconciler, found.reading.source.id)
    return asked.page(
        "source.html",
        status=refused.status if refused else 200,
        one=found,
        settings=found.reading.source,
        columns=_columns(found),
        heartbeats=found.heartbeats[:HEARTBEATS_AT_MOST],
        reconciler=reconciler,
        peers={peer.url: peer for peer in found.reading.peers},
        is_reconcilable=found.kind == "alertmanager",
        is_signable=found.kind in SIGNED,
        optional_recoveries=OPTIONAL_RECOVERIES,
        refused=refused,
        form=form,
        quoted_name=shlex.quote(found.name),  # in a command that people copy
        receiver=receiver(asked) if found.kind == "alertmanager" else None,
        endpoint=service_address(asked) + SENDERS[found.kind].endpoints[0].path if found.kind in SENDERS else None,
        **shared(asked),
    )


@dataclass(frozen=True, slots=True)
class Columns:
    """What signals did in three spans of time. None: the source has not been observed for that long."""

    verdicts: list[str]  # most frequent first
    last_hour: dict[str, int] | None
    last_day: dict[str, int] | None
    since_created: dict[str, int]


def _columns(found: SourceFacts) -> Columns:
    reading = found.reading
    total = dict(reading.since_created.verdicts)
    return Columns(
        sorted(total, key=lambda verdict: (-total[verdict], verdict)),
        None if reading.last_hour is None else dict(reading.last_hour.verdicts),
        None if reading.last_day is None else dict(reading.last_day.verdicts),
        total,
    )


# — settings —


@router.post("/sources/{name}/settings")
async def change_settings(asked: SignedIn, name: NameInPath) -> Response:
    form = await asked.form(Scope.ADMIN)
    try:
        async with asked.session() as session:
            stored = await source_by_name(session, name)
            await session.refresh(stored, with_for_update=True)  # its secret may be kept
            await change_source(session, name, _settings(stored, form), now=asked.now)
    except Problem as problem:
        return await _page(asked, name, Refusal(problem, form), "settings")
    asked.context.credentials.forget_source(name)
    return see_other(address_of(name) + "#settings")


def _settings(stored: Source, form: Form) -> SourceSettings:
    """Raises Invalid."""
    values = {
        "kind": stored.kind,
        "stale_seconds": form.get("stale_seconds", "").strip() or None,
        "refire_seconds": form.get("refire_seconds", "").strip(),
        "correlation_label": form.get("correlation_label", "").strip() or None,
        "recoveries": [one for one in OPTIONAL_RECOVERIES if form.get(f"recovers_{one}")],
    }
    if stored.kind in SIGNED:
        values |= {
            "hmac_secret": _secret(form, stored.hmac_secret),
            "hmac_header": form.get("hmac_header", "").strip() or None,
            "hmac_timestamp_header": form.get("hmac_timestamp_header", "").strip() or None,
        }
    return parsed(SourceSettings, values)


def _secret(form: Form, stored: str | None) -> str | None:
    """The secret to store: a page never shows the stored one, so a form cannot send it. Raises Invalid."""
    match form.get("secret_is"):
        case "kept":
            return stored
        case "new":
            if not form.get("secret"):
                raise Invalid("enter the new secret, or choose another option")
            return form["secret"]
        case _:
            return None


# — reconciler —


@router.post("/sources/{name}/reconciler")
async def change_reconciler(asked: SignedIn, name: NameInPath) -> Response:
    form = await asked.form(Scope.ADMIN)
    try:
        settings = parsed(ReconcilerSettings, _reconciler(form))
        await require_permitted(asked.context.outgoing, settings)
        async with asked.session() as session:
            if form.get("secret_is") == "kept":
                settings.secret = await _stored_secret(session, name, settings)
            await reconcile(session, name, settings)
    except Problem as problem:
        return await _page(asked, name, Refusal(problem, form), "reconciler")
    return see_other(address_of(name) + "#reconciler")


def _reconciler(form: Form) -> dict[str, object]:
    """Raises Invalid."""
    numbers = {field: form[field].strip() for field in ("poll_seconds", "absences", "grace_seconds") if field in form}
    return numbers | {
        "peers": form.get("peers", "").split(),
        "receiver": form.get("receiver", "").strip() or None,
        "username": form.get("username", "").strip() or None,
        "secret": _secret(form, None),
    }


async def _stored_secret(session: AsyncSession, name: str, settings: ReconcilerSettings) -> SecretStr | None:
    """Raises Invalid if it would be sent to an address for which no one has entered it: secrets cannot be read."""
    found = await session.get(Reconciler, (await source_by_name(session, name)).id, with_for_update=True)
    if found is None or found.secret is None:
        return None
    if not set(settings.peers) <= set(found.peers):
        raise Invalid("enter the secret again: it would be sent to an address to which it was not sent before")
    return SecretStr(found.secret)


@router.post("/sources/{name}/stop-reconciling")
async def stop_reconciling(asked: SignedIn, name: NameInPath) -> Response:
    form = await asked.form(Scope.ADMIN)
    try:
        async with asked.session() as session:
            await reconcilers.remove(session, await source_by_name(session, name))
    except Problem as problem:
        return await _page(asked, name, Refusal(problem, form), "reconciler")
    return see_other(address_of(name) + "#reconciler")


# — heartbeats and quarantine —


@router.post("/sources/{name}/forget-heartbeat")
async def forget_heartbeat(asked: SignedIn, name: NameInPath) -> Response:
    form = await asked.form(Scope.WRITE)
    try:
        async with asked.session() as session:
            beats = await store.heartbeat_of(session, await source_by_name(session, name), form.get("fingerprint", ""))
            transition = heartbeat.forget(beats, now=asked.now)
            await apply(session, ingest_of(asked.request).flusher, beats, transition, now=asked.now)
    except Problem as problem:
        return await _page(asked, name, Refusal(problem, form), "heartbeats")
    return see_other(address_of(name) + "#heartbeats")


@router.post("/sources/{name}/empty-quarantine")
async def empty_quarantine(asked: SignedIn, name: NameInPath) -> Response:
    await asked.form(Scope.WRITE)
    async with asked.session() as session:
        await quarantine.delete_all(session, (await source_by_name(session, name)).id)
    return see_other(address_of(name) + "#quarantine")
