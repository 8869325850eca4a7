"""SQL for messages of a chat: each becomes an entry of the timeline, once, whatever is imported again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.db.recordset import as_json
from app.base.schema import Incident
from app.incidents.actions import Ref, hold
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.grouping.write import count
from app.incidents.history.details import Said
from app.incidents.history.timeline import require_room
from app.response.chat import ChatFormat, ChatReading, Message, Skipped

AROUND = timedelta(hours=1)  # taken before detection and after the end, if no period is stated
CHAT_MESSAGES = "chat_messages"  # a tally, by format and outcome
# In `sent_to`, so that an idempotency key made from the id of a message is unique over all incidents.
_CHAT = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Imported:
    """`known`: already in this incident; `elsewhere`: already in another one. `redacted`: messages with secrets."""

    taken: int
    known: int
    elsewhere: int
    redacted: int
    skipped: Mapping[Skipped, int]


async def import_chat(
    session: AsyncSession,
    ref: Ref,
    format_: ChatFormat,
    reading: ChatReading,
    *,
    since: datetime | None,
    until: datetime | None,
    now: datetime,
) -> Imported:
    """Stores the messages of the period `[since, until)` that are not stored yet.

    Four statements besides the lock. Raises IncidentNotFound, MergedAway or TimelineIsFull.
    """
    row = await hold(session, ref)
    chosen = _chosen(row, reading.messages, since, until, now)
    rows = [
        {
            "key": message.id,
            "at": message.at,
            "by": message.author,
            "note": message.text,
            "detail": Said(room=message.room).model_dump(mode="json"),
        }
        for message in chosen
    ]
    tx = await session.connection()
    values = {"rows": as_json(rows), "incident": row.id, "chat": _CHAT, "now": now}
    if taken := (await tx.execute(_ADD, values)).rowcount:
        await require_room(session, row.id, TimelineKind.SAID, 0)
    keys = {"keys": [each.id for each in chosen], "chat": _CHAT, "incident": row.id}
    here, elsewhere = (await tx.execute(_WHERE, keys)).one()
    skipped = Counter(reading.skipped)
    if outside := len(reading.messages) - len(chosen):
        skipped[Skipped.OUTSIDE] += outside
    redacted = sum(message.had_secrets for message in chosen)
    found = Imported(taken, here - taken, elsewhere, redacted, skipped)
    outcomes = {
        "taken": found.taken,
        "known": found.known + found.elsewhere,
        "skipped": sum(skipped.values()),
        "bad": len(reading.bad),
    }
    await count(tx, [(CHAT_MESSAGES, str(format_), name, number) for name, number in outcomes.items() if number])
    return found


def _chosen(
    row: Incident, messages: Sequence[Message], since: datetime | None, until: datetime | None, now: datetime
) -> list[Message]:
    if since is None and until is None:
        since, until = row.began_at - AROUND, (row.ended_at or now) + AROUND
    return [each for each in messages if (since is None or since <= each.at) and (until is None or each.at < until)]


_ADD = text(f"""
    INSERT INTO timeline (incident_id, at, recorded_at, kind, by, note, detail, idempotency_key, sent_to)
    SELECT :incident, at, :now, '{TimelineKind.SAID}', by, note, detail, key, :chat
      FROM json_to_recordset(CAST(:rows AS json))
        AS new (key text, at timestamptz, by text, note text, detail jsonb)
     ORDER BY at, key
        ON CONFLICT (idempotency_key, sent_to) WHERE idempotency_key IS NOT NULL
        DO NOTHING
""")  # noqa: S608  the kind is a constant

_WHERE = text("""
    SELECT count(*) FILTER (WHERE incident_id = :incident) AS here,
           count(*) FILTER (WHERE incident_id <> :incident) AS elsewhere
      FROM timeline
     WHERE idempotency_key = ANY(CAST(:keys AS text[]))
       AND sent_to = :chat
""")
