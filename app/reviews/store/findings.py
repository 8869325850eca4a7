"""SQL for findings and for factors, the words that findings of many reviews share."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, delete, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.errors import Conflict, Invalid, NotFound
from app.base.schema import Factor, Finding, Review
from app.base.values.ids import new_id
from app.reviews.lifecycle import FindingKind

FINDINGS_AT_MOST = 100
FACTORS_AT_MOST = 1000


class FindingNotFound(NotFound):
    title = "Finding not found"


class TooManyFindings(Conflict):
    title = "Too many findings"


class UnknownFactor(Invalid):
    title = "Unknown factor"


class UnknownEntry(Invalid):
    title = "Unknown timeline entry"


class FactorNotFound(NotFound):
    title = "Factor not found"


class FactorIsUsed(Conflict):
    title = "Factor is used"


async def findings_of(session: AsyncSession, review_id: UUID) -> Sequence[Finding]:
    """In order."""
    query = select(Finding).where(col(Finding.review_id) == review_id)
    return (await session.exec(query.order_by(col(Finding.position), col(Finding.id)))).all()


async def find(session: AsyncSession, review: Review, id_: UUID) -> Finding:
    """Raises FindingNotFound."""
    found = await session.get(Finding, id_)
    if found is None or found.review_id != review.id:
        message = "the review has no finding with this id; GET /api/v1/reviews/{review} lists its findings"
        raise FindingNotFound(message)
    return found


async def add(session: AsyncSession, review: Review, values: Mapping[str, Any], *, now: datetime) -> Finding:
    """Adds a finding at the end of a review that is held with `reviews.hold_row`.

    Raises TooManyFindings, UnknownFactor or UnknownEntry.
    """
    findings = Finding
    known, last = (
        await session.exec(
            select(func.count(), func.coalesce(func.max(findings.position), 0)).where(
                col(findings.review_id) == review.id
            )
        )
    ).one()
    if known >= FINDINGS_AT_MOST:
        message = f"a review has at most {FINDINGS_AT_MOST} findings; remove one, or merge some of them"
        raise TooManyFindings(message)
    finding = Finding(
        **await _checked(session, review, values),
        id=new_id(now),
        review_id=review.id,
        position=last + 1,
        created_at=now,
        updated_at=now,
    )
    session.add(finding)
    await session.flush()
    return finding


async def amend(
    session: AsyncSession, review: Review, finding: Finding, values: Mapping[str, Any], *, now: datetime
) -> None:
    """Raises UnknownFactor, UnknownEntry or Invalid."""
    checked = await _checked(session, review, values)
    if (checked.get("kind", finding.kind) == FindingKind.FACTOR) != (checked.get("factor", finding.factor) is not None):
        message = "a finding of kind `factor` needs a `factor`, and other kinds must not have one"
        raise Invalid(message)
    for name, value in checked.items():
        setattr(finding, name, value)
    finding.updated_at = now
    await session.flush()


async def remove(session: AsyncSession, finding: Finding) -> None:
    """Its action items stay, without a finding."""
    await session.delete(finding)
    await session.flush()


async def _checked(session: AsyncSession, review: Review, values: Mapping[str, Any]) -> dict[str, Any]:
    checked = dict(values)
    if checked.get("factor") is not None:
        checked["factor"] = await _current_factor(session, checked["factor"])
    if checked.get("timeline_id") is not None:
        known = await (await session.connection()).execute(
            _ENTRY, {"entry": checked["timeline_id"], "review": review.id}
        )
        if known.first() is None:
            message = "`timeline_entry` must be an entry in the timeline of one of the review's incidents"
            raise UnknownEntry(message)
    return checked


_ENTRY = text("""
    SELECT 1
      FROM timeline
      JOIN review_incident ON review_incident.review_id = :review
      JOIN incident AS named ON named.id = review_incident.incident_id
     WHERE timeline.id = :entry
       AND timeline.incident_id = coalesce(named.merged_into, named.id)
""")


# — factors —


async def _current_factor(session: AsyncSession, name: str) -> str:
    known = await session.get(Factor, name)
    if known is not None:
        return known.replaced_by or known.name
    names = (await session.exec(select(Factor.name).where(col(Factor.replaced_by).is_(None)))).all()
    near = get_close_matches(name[:200].lower(), names, 3, 0.4)
    message = "there is no such factor; create it with PUT /api/v1/factors/{name}"
    if near:
        message += f", or use {' or '.join(f'`{one}`' for one in near)}"
    raise UnknownFactor(message)


async def list_factors(
    session: AsyncSession, containing: str | None = None, *, after: str, limit: int
) -> Sequence[tuple[Factor, int]]:
    """Those whose names contain the text, with the number of findings of each, by name."""
    query = (
        select(Factor, func.count(col(Finding.id)))
        .join(Finding, col(Finding.factor) == col(Factor.name), isouter=True)
        .where(col(Factor.name) > after, db.containing(containing, Factor.name))
        .group_by(col(Factor.name))
        .order_by(col(Factor.name))
        .limit(limit)
    )
    return (await session.exec(query)).all()


async def count_factors(session: AsyncSession, containing: str | None = None) -> int:
    return await db.total(session, select(Factor).where(db.containing(containing, Factor.name)))


async def find_factor(session: AsyncSession, name: str) -> tuple[Factor, int]:
    """With the number of its findings. Raises FactorNotFound."""
    found = await session.get(Factor, name)
    if found is None:
        message = "there is no such factor; GET /api/v1/factors lists them all"
        raise FactorNotFound(message)
    counted = select(func.count()).select_from(Finding).where(col(Finding.factor) == name)
    return found, (await session.exec(counted)).one()


async def put_factor(session: AsyncSession, factor: Factor) -> tuple[Factor, int, bool]:
    """The stored factor, the number of its findings, and whether it is new.

    If another factor replaces it, its findings move to that one. Raises UnknownFactor.
    """
    if factor.replaced_by is not None:
        factor.replaced_by = await _current_factor(session, factor.replaced_by)
        if factor.replaced_by == factor.name:
            message = "`replaced_by` must be another factor: a factor cannot replace itself"
            raise Invalid(message)
    stored, is_new = await db.upsert(session, factor)
    if is_new and (await session.exec(select(func.count()).select_from(Factor))).one() > FACTORS_AT_MOST:
        message = f"there can be at most {FACTORS_AT_MOST} factors; delete one that is not used"
        raise Conflict(message)
    if stored.replaced_by is not None:
        to = stored.replaced_by
        await session.exec(update(Finding).where(col(Finding.factor) == stored.name).values(factor=to))
        await session.exec(update(Factor).where(col(Factor.replaced_by) == stored.name).values(replaced_by=to))
    found, findings = await find_factor(session, stored.name)
    return found, findings, is_new


async def delete_factor(session: AsyncSession, name: str) -> None:
    """Raises FactorNotFound or FactorIsUsed."""
    _, findings = await find_factor(session, name)
    factor = Factor
    replaces = (await session.exec(select(factor.name).where(col(factor.replaced_by) == name).limit(1))).first()
    if findings or replaces is not None:
        message = "findings use this factor, or it replaces another factor; set its `replaced_by` instead"
        raise FactorIsUsed(message)
    await session.exec(delete(Factor).where(col(Factor.name) == name))
