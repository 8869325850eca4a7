"""Reads stored requests again with their sender, and replays quarantined items."""

import logging

from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.errors import Conflict, NotThisKind
from app.base.schema import Quarantine, Source, StoredRequest
from app.ingest.flush import Delivery, Flusher
from app.ingest.sender import Part, Reading, Receipt, Rejected, Request
from app.ingest.senders import SENDERS

log = logging.getLogger("aftermath.ingest")


class Damaged(Conflict):
    title = "Item cannot be replayed"


def read_again(kind: str, request: Request) -> Reading:
    """Like `Sender.read`, but a request that its sender no longer accepts becomes one rejected part."""
    try:
        return SENDERS[kind].read(request)
    except (KeyError, NotThisKind) as error:  # another version accepted it
        return Reading(rejected=(Rejected("not_this_kind", type(error).__name__),))


async def replay(
    session: AsyncSession, flusher: Flusher, item: Quarantine, stored: StoredRequest, source: Source
) -> tuple[Receipt, tuple[Rejected, ...]]:
    """Reads an item again and applies what is readable, in the caller's transaction. Also returns what is rejected.

    Raises Damaged.
    """
    if item.reason == "damaged_in_spool":
        message = (
            "this item was corrupted on disk; repair `raw` (it may contain several deliveries) and post it to the "
            "webhook endpoint"
        )
        raise Damaged(message)
    part = None if item.part_start is None or item.part_length is None else Part(item.part_start, item.part_length)
    request = Request(stored.body, item.received_at, source.name, stored.headers, stored.query, stored.path, part)
    reading = read_again(source.kind, request)
    nothing = Receipt(item.delivery_id, 0, {}, [])
    if not (reading.signals or reading.needs_handlers or reading.ignored):
        return nothing, reading.rejected
    usable = Reading(
        reading.signals,
        deployments=reading.deployments,
        acknowledgements=reading.acknowledgements,
        ignored=reading.ignored,
    )
    delivery = Delivery(source.id, source.name, item.received_at, usable, request, source.kind)
    try:
        return await flusher.replay(await session.connection(), delivery), reading.rejected
    except Exception as error:
        if db.is_unreachable(error):
            raise
        log.exception("a replayed item cannot be applied")
        again = Rejected("cannot_apply", type(error).__name__, item.raw, part)
        return nothing, (again,)
