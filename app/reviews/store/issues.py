"""SQL for the states of issues in trackers, which action items follow.

One row per issue has the latest change of its state. Which one that is depends only on the changes themselves, so they
may arrive in any order and repeatedly. A row without an action item waits for seven days: its link may be added later.
"""

from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select

from app.base import db
from app.base.schema import ActionItem, Issue
from app.base.values.facts import IssueEvent, IssueState
from app.incidents.grouping.write import count
from app.reviews.action_item import ItemState, normalized_link
from app.reviews.store import action_items

KEPT = timedelta(days=7)
EVENTS_TALLY = "issue_events"  # by verdict


async def handle_issue(tx: AsyncConnection, new: IssueEvent, *, now: datetime) -> tuple[str | None, str]:
    """Takes an event from a webhook in the caller's transaction: the number of its action item, and the verdict."""
    link = normalized_link(new.link)
    row = {
        "link": link,
        "state": new.state,
        "at": new.at,
        "since": min(new.since or new.at, new.at),
        "by": new.by,
        "reason": (new.reason or "closed in the tracker") if new.state is IssueState.DROPPED else None,
        "created": new.created,
        "received_at": now,
    }
    async with db.session_within(tx) as session:
        await action_items.lock_issue(session, link)
        followed_at = (await session.exec(select(Issue.at).where(col(Issue.link) == link))).first()
        is_new = (await tx.execute(_RECORD, row)).rowcount > 0
        item = (await session.exec(select(ActionItem).where(col(ActionItem.link) == link))).first()
        if item is not None:
            await action_items.hold(session, item)
        if item is None or item.link != link:  # it may just have got another one
            number, verdict = None, "waiting"
        else:
            number, verdict = f"AI-{item.number}", "recorded" if is_new else "repeated"
            was = ItemState(item.state)
            if is_new and await action_items.follow_issue(session, item, followed_at=followed_at):
                item.version += 1
                item.updated_at = now
                await action_items.changed(session, item, was)
    await count(tx, [(EVENTS_TALLY, "", verdict, 1)])
    return number, verdict


async def drop_waiting(tx: AsyncConnection, *, now: datetime) -> None:
    """Drops the issues received more than seven days ago that still have no action item."""
    await tx.execute(_DROP, {"before": now - KEPT})


# A change of the state counts more than that the issue was created. The words after the time decide between changes at
# the same time, so that their order of arrival does not.
_RECORD = text("""
    INSERT INTO issue AS known (link, state, at, since, by, reason, created, received_at)
    VALUES (:link, :state, :at, :since, :by, :reason, :created, :received_at)
        ON CONFLICT (link)
        DO UPDATE SET state = excluded.state,
                      at = excluded.at,
                      since = excluded.since,
                      by = excluded.by,
                      reason = excluded.reason,
                      created = excluded.created,
                      received_at = excluded.received_at
         WHERE (NOT excluded.created, excluded.at, excluded.state, excluded.since,
                coalesce(excluded.by, ''), coalesce(excluded.reason, ''))
             > (NOT known.created, known.at, known.state, known.since,
                coalesce(known.by, ''), coalesce(known.reason, ''))
""")

_DROP = text("""
    DELETE FROM issue
     WHERE received_at < :before
       AND NOT EXISTS (SELECT
                         FROM action_item
                        WHERE action_item.link = issue.link)
""")
