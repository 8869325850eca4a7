"""SQL for the effect of action items: incidents of the same kind before and after."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import ActionItem
from app.base.values.times import Span
from app.reviews.action_item import ItemState
from app.reviews.effect import RateRatio, rate_ratio, windows


@dataclass(frozen=True, slots=True)
class Effect:
    """`key`: incidents with the grouping keys of those it comes from. `factor`: reviewed incidents with its finding's
    factor, None without one; and the reviewed share of all incidents in each window, None without incidents.
    """

    before: Span
    after: Span
    key: RateRatio
    factor: RateRatio | None
    reviewed_before: float | None
    reviewed_after: float | None
    left_out: list[int]  # numbers of the incidents it comes from


async def effect_of(session: AsyncSession, item: ActionItem, *, now: datetime) -> Effect | None:
    """None unless it is done. Two statements."""
    if item.state != ItemState.DONE or item.closed_at is None:
        return None
    before, after = windows(item.closed_at, now=now)
    tx = await session.connection()
    parameters: Mapping[str, Any] = {
        "review": item.review_id,
        "incident": item.incident_id,
        "finding": item.finding_id,
        "since": before.start,
        "done_at": item.closed_at,
        "until": after.end,
    }
    left_out = list((await tx.execute(_ORIGINS, {name: parameters[name] for name in ("review", "incident")})).scalars())
    found = (await tx.execute(_COUNTS, parameters)).one()
    return Effect(
        before,
        after,
        rate_ratio(found.key_before, found.key_after),
        None if found.factor is None else rate_ratio(found.factor_before, found.factor_after),
        found.reviewed_before / found.before if found.before else None,
        found.reviewed_after / found.after if found.after else None,
        left_out,
    )


# The incidents it comes from that were not merged away, with those merged into them.
_ORIGIN = """
    SELECT DISTINCT living.id, living.key_id, living.number
      FROM (SELECT incident_id
              FROM review_incident
             WHERE review_id = CAST(:review AS uuid)
             UNION ALL
            SELECT CAST(:incident AS uuid)) AS linked
      JOIN incident AS named ON named.id = linked.incident_id
      JOIN incident AS living ON living.id = coalesce(named.merged_into, named.id)
"""

_ORIGINS = text(f"SELECT number FROM ({_ORIGIN}) AS origin ORDER BY number")  # noqa: S608

_COUNTS = text(f"""
    WITH origin AS MATERIALIZED ({_ORIGIN}), wanted AS (
        SELECT factor
          FROM finding
         WHERE id = CAST(:finding AS uuid)
    ), counted AS MATERIALIZED (
        SELECT incident.id, incident.key_id, incident.reviewed_at IS NOT NULL AS reviewed,
               coalesce(detected_at_stated, began_at) >= CAST(:done_at AS timestamptz) AS is_after
          FROM incident
         WHERE merged_into IS NULL
           AND test_stated IS NOT TRUE
           AND alert_class <> 'monitoring'
           AND coalesce(detected_at_stated, began_at) >= CAST(:since AS timestamptz)
           AND coalesce(detected_at_stated, began_at) < CAST(:until AS timestamptz)
           AND id NOT IN (SELECT id FROM origin)
    ), judged AS (
        SELECT counted.*,
               key_id IN (SELECT key_id FROM origin) AS of_key,
               reviewed AND EXISTS (
                   SELECT
                     FROM incident AS member
                     JOIN review_incident ON review_incident.incident_id = member.id
                     JOIN review ON review.id = review_incident.review_id AND review.held_at IS NOT NULL
                     JOIN finding ON finding.review_id = review.id
                     JOIN wanted ON wanted.factor = finding.factor
                    WHERE member.id = counted.id
                       OR member.merged_into = counted.id) AS of_factor
          FROM counted
    )
    SELECT (SELECT factor FROM wanted) AS factor,
           count(*) FILTER (WHERE NOT is_after) AS before,
           count(*) FILTER (WHERE is_after) AS after,
           count(*) FILTER (WHERE of_key AND NOT is_after) AS key_before,
           count(*) FILTER (WHERE of_key AND is_after) AS key_after,
           count(*) FILTER (WHERE of_factor AND NOT is_after) AS factor_before,
           count(*) FILTER (WHERE of_factor AND is_after) AS factor_after,
           count(*) FILTER (WHERE reviewed AND NOT is_after) AS reviewed_before,
           count(*) FILTER (WHERE reviewed AND is_after) AS reviewed_after
      FROM judged
""")  # noqa: S608
