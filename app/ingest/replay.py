"""Reads stored requests again with their sender, and replays quarantined items."""

import logging
from functools import partial

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.errors import Conflict, Problem
from app.base.process.threads import off_loop_if_large
from app.base.schema import Quarantine, Source, StoredRequest
from app.ingest.intake.attempts import KeepsChanging
from app.ingest.intake.flush import Delivery, Flusher
from app.ingest.intake.poison import without_poison
from app.ingest.sender import Part, Reading, Receipt, Rejected, Request
from app.ingest.senders import SENDERS

log = logging.getLogger("aftermath.ingest")


class StillDamaged(Conflict):
    title = "Item cannot be replayed"


def read_again(kind: str, request: Request) -> Reading:
    """Like `Sender.read`, but a request that its sender no longer accepts becomes one rejected part."""
    try:
        return SENDERS[kind].read(request)
    except (KeyError, Problem) as error:  # another version accepted it
        return Reading(rejected=(Rejected("unrecognized_body", type(error).__name__),))


async def replay(
    session: AsyncSession, flusher: Flusher, item: Quarantine, stored: StoredRequest, source: Source
) -> tuple[Receipt, tuple[Rejected, ...]]:
    """Reads an item again and applies what is readable, in the caller's transaction. Also returns what is rejected.

    Raises StillDamaged.
    """
    if item.reason == "damaged_in_spool":
        message = (
            "this item was corrupted on disk; repair `raw` (it may contain several deliveries) and post it to the "
            "webhook endpoint"
        )
        raise StillDamaged(message)
    part = None if item.part_start is None or item.part_length is None else Part(item.part_start, item.part_length)
    request = Request(
        stored.body,
        item.received_at,
        source.name,
        stored.headers,
        stored.query,
        stored.path,
        stored.method,
        stored.endpoint,
        part,
    )
    reading = await off_loop_if_large(len(request.body), read_again, source.kind, request)
    nothing = Receipt(item.delivery_id, 0, {}, [])
    if not (reading.signals or reading.needs_handlers or reading.ignored):
        return nothing, reading.rejected
    usable = Reading(
        reading.signals,
        deployments=reading.deployments,
        changes=reading.changes,
        reactions=reading.reactions,
        issues=reading.issues,
        ignored=reading.ignored,
        alerts=reading.alerts,
        positions=reading.positions,
    )
    delivery = Delivery(source.id, source.name, item.received_at, usable, request, source.kind)
    tx = await session.connection()
    try:
        return await _apply(flusher, tx, delivery), reading.rejected
    except Exception as error:
        if db.is_unreachable(error) or db.is_contended(error) or isinstance(error, KeepsChanging):
            raise
        log.exception("a replayed item cannot be applied")
        detail = type(error).__name__
    harmless = await without_poison(usable, partial(flusher.can_apply, delivery), detail=detail)
    if harmless is None:
        return nothing, (Rejected("cannot_apply", detail, item.raw, part),)
    delivery.reading = replace(harmless, rejected=())
    return await _apply(flusher, tx, delivery), reading.rejected + harmless.rejected


async def _apply(flusher: Flusher, tx: AsyncConnection, delivery: Delivery) -> Receipt:
    receipt = await flusher.apply(tx, delivery)
    assert isinstance(receipt, Receipt), "nothing of it goes to quarantine"
    return receipt
