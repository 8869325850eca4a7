"""Reviews, action items and reports for customers as a scrape shows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

REVIEW_STATES = ("draft", "held", "published", "closed", "dropped")
ITEM_STATES = ("open", "in_progress", "done", "dropped")
REQUIRED_OUTCOMES = ("held", "late", "dropped")
PRIORITIES = ("1", "2", "3", "none")
ISSUE_VERDICTS = ("recorded", "repeated", "waiting")
REPORT_OUTCOMES = ("written", "published", "withdrawn")
REQUIRED_TALLY, COMPLETED_TALLY, ISSUES_TALLY = "reviews_required", "action_items_completed", "issue_events"
REPORTS_TALLY = "public_reports"


@dataclass(frozen=True, slots=True)
class ReviewNumbers:
    """Action items by state and priority; times by priority, only where there is one."""

    reviews: Mapping[str, int]  # by state
    overdue: int
    oldest_due_at: datetime | None
    items: Mapping[tuple[str, str], int]
    items_overdue: Mapping[str, int]
    oldest_open_at: Mapping[str, datetime]
    reports_waiting: int


async def read_review_numbers(tx: AsyncConnection) -> ReviewNumbers:
    """Three statements."""
    reviews = (await tx.execute(_REVIEWS)).all()
    items = (await tx.execute(_ITEMS)).all()
    overdue = dict.fromkeys(PRIORITIES, 0)
    oldest: dict[str, datetime] = {}
    for row in items:
        overdue[row.priority] += row.overdue
        if row.oldest_at is not None:
            oldest[row.priority] = min(row.oldest_at, oldest.get(row.priority, row.oldest_at))
    return ReviewNumbers(
        reviews=dict.fromkeys(REVIEW_STATES, 0) | {row.state: row.n for row in reviews},
        overdue=sum(row.overdue for row in reviews),
        oldest_due_at=min((row.due_at for row in reviews if row.due_at is not None), default=None),
        items={(state, priority): 0 for state in ITEM_STATES for priority in PRIORITIES}
        | {(row.state, row.priority): row.n for row in items},
        items_overdue=overdue,
        oldest_open_at=oldest,
        reports_waiting=(await tx.execute(_REPORTS_WAITING)).scalar_one(),
    )


_REVIEWS = text("""
    SELECT state, count(*) AS n,
           count(*) FILTER (WHERE state = 'draft' AND due_at < now()) AS overdue,
           min(due_at) FILTER (WHERE state = 'draft') AS due_at
      FROM review
     GROUP BY state
""")

_ITEMS = text("""
    SELECT state, coalesce(priority::text, 'none') AS priority, count(*) AS n,
           count(*) FILTER (WHERE closed_at IS NULL AND due_at < now()) AS overdue,
           min(created_at) FILTER (WHERE closed_at IS NULL) AS oldest_at
      FROM action_item
     GROUP BY 1, 2
""")

# Of each review the newest version, if it can still be published.
_REPORTS_WAITING = text("""
    SELECT count(*)
      FROM report_version AS newest
      JOIN review ON review.id = newest.review_id
      JOIN public_incident ON public_incident.id = newest.public_incident_id
     WHERE newest.approved_at IS NULL
       AND newest.created_at < now() - interval '1 day'
       AND review.state NOT IN ('draft', 'dropped')
       AND public_incident.withdrawn_at IS NULL
       AND NOT EXISTS (SELECT FROM report_version AS newer
                        WHERE newer.review_id = newest.review_id
                          AND newer.version > newest.version)
""")
