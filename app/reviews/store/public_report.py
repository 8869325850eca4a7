"""SQL for public reports: their versions, approval with another token, and what is published.

Constraints of the database hold the same rules: see `ReportVersion` and `PublicReport`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.access.tokens import Bearer
from app.base.errors import Conflict, Invalid, NotFound
from app.base.http.requests.fields import rfc3339
from app.base.process.threads import off_loop
from app.base.schema import PublicIncident, PublicReport, PublicUpdate, ReportVersion, Review
from app.base.text.public_words import clean
from app.incidents.grouping.write import count
from app.incidents.measures.measures import Weights
from app.reviews.lifecycle import ReviewState
from app.reviews.public_report.difference import LeftOut, left_out, sections_of, unified
from app.reviews.public_report.facts import PublicFacts, PublicText
from app.reviews.public_report.leaks import Leak, LeakKind, leaks
from app.reviews.public_report.outline import PublicOutline, public_report
from app.reviews.public_report.page import page
from app.reviews.report.markdown import markdown
from app.reviews.report.outline import Outline, report
from app.reviews.store import reviews
from app.reviews.store.known_words import known_words
from app.reviews.store.report import facts_of

VERSIONS_AT_MOST = 200
REPORTS_TALLY = "public_reports"  # by outcome: written, published or withdrawn


class ReportNotFound(NotFound):
    title = "Public report not found"


class ReviewIsNotHeld(Conflict):
    title = "Review is not held"


class NoPublicIncident(Conflict):
    title = "No public incident"


class NotTheNewest(Conflict):
    title = "Not the newest version"


class SameToken(Conflict):
    title = "Another token is needed"


class HasWarnings(Conflict):
    title = "Warnings are open"

    def __init__(self, found: Sequence[Leak]) -> None:
        super().__init__("remove or accept each warning: " + "; ".join(f"{one.kind} in {one.at}" for one in found))
        self.errors = [{"at": one.at, "why": one.kind} for one in found]


class NotApproved(Conflict):
    title = "Report is not approved"


class IsWithdrawn(Conflict):
    title = "Report was withdrawn"


class TooManyVersions(Conflict):
    title = "Too many versions"


class UnknownWarning(Invalid):
    title = "No such warning"


@dataclass(frozen=True, slots=True)
class Site:
    """The status page: its name, and the public address, if it is known."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning; `accepted` says by whom and when, None if it is open."""

    leak: Leak
    accepted: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Differences:
    """Lines of unified differences, and what of the internal report is not in the public one."""

    from_previous: Sequence[str]
    from_internal: Sequence[str]
    left_out: Sequence[LeftOut]


@dataclass(frozen=True, slots=True)
class NewVersion:
    """`public_incident`: None for the only one of the review. `based_on`: the version that the author has changed."""

    text: PublicText
    outline: PublicOutline
    author: str
    public_incident: UUID | None = None
    based_on: int | None = None


# — reading —


async def versions_of(session: AsyncSession, review: Review) -> Sequence[ReportVersion]:
    """Newest first, without their pages. Empty if there is no public report."""
    row = ReportVersion
    query = select(row).where(col(row.review_id) == review.id).order_by(col(row.version).desc())
    without = (defer(col(row.page)), defer(col(row.markdown)))  # type: ignore[arg-type]  # col() gives the mapped attribute
    return (await session.exec(query.options(*without))).all()


async def find_version(session: AsyncSession, review: Review, version: int | None = None) -> ReportVersion:
    """With its page; the newest one if `version` is None. Raises ReportNotFound."""
    row = ReportVersion
    query = select(row).where(col(row.review_id) == review.id).order_by(col(row.version).desc()).limit(1)
    if version is not None:
        query = query.where(col(row.version) == version)
    found = (await session.exec(query.execution_options(populate_existing=True))).one_or_none()
    if found is None:
        message = (
            "the review has no such version of a public report; GET "
            "/api/v1/reviews/{review}/public-report lists its versions"
        )
        raise ReportNotFound(message)
    return found


async def public_incidents_of(session: AsyncSession, review: Review) -> Sequence[PublicIncident]:
    """The public incidents about the incidents of the review, oldest first."""
    incidents = (await reviews.incidents_of(session, [review.id])).get(review.id, ())
    row = PublicIncident
    query = select(row).where(col(row.incident_id).in_([one.id for one in incidents]), col(row.withdrawn_at).is_(None))
    return (await session.exec(query.order_by(col(row.begins_at), col(row.id)))).all()


async def find_public_incident(session: AsyncSession, id_: UUID) -> PublicIncident:
    """Raises NoPublicIncident."""
    found = await session.get(PublicIncident, id_, populate_existing=True)
    if found is None or found.withdrawn_at is not None:
        message = "there is no such public incident, or it was withdrawn; GET /api/v1/status-page/incidents lists all"
        raise NoPublicIncident(message)
    return found


async def differences(
    session: AsyncSession, review: Review, row: ReportVersion, *, now: datetime, weights: Weights
) -> Differences:
    """From the version before, and from the internal report as it is now."""
    before = "" if row.version == 1 else (await find_version(session, review, row.version - 1)).markdown
    facts = await facts_of(session, review, now=now, weights=weights)
    after = row.markdown

    def compared() -> Differences:
        internal = [(title, markdown(one)) for title, one in sections_of(report(facts, Outline.GUIDE))]
        whole = "\n".join(words for _, words in internal)
        return Differences(unified(before, after), unified(whole, after), left_out(internal, after))

    return await off_loop(compared)


async def warnings_of(session: AsyncSession, review: Review, row: ReportVersion, site: Site) -> list[Warned]:
    """The warnings of the check for leaks as of now, in order of the text."""
    known = await known_words(session, review, components=await components_of(session, row), site=site.url)
    written = PublicText.of(row.text)
    found = await off_loop(lambda: leaks(written, known))
    accepted = {_key(one): one for one in row.accepted}
    return [Warned(leak, accepted.get(leak)) for leak in found]


def _key(accepted: Mapping[str, str]) -> Leak:
    return Leak(accepted["at"], LeakKind(accepted["kind"]), accepted["words"])


async def components_of(session: AsyncSession, row: ReportVersion) -> Sequence[str]:
    return await _components(session, row.public_incident_id)


async def _components(session: AsyncSession, public_incident: UUID) -> Sequence[str]:
    """In the order in which its updates name them."""
    update = PublicUpdate
    query = select(update.components).where(col(update.public_incident_id) == public_incident)
    found = await session.exec(query.order_by(col(update.at), col(update.recorded_at), col(update.id)))
    return list(dict.fromkeys(clean(name) for components in found for name in components))


# — writing —


async def write(
    session: AsyncSession, review: Review, new: NewVersion, *, token: Bearer, site: Site, now: datetime
) -> tuple[ReportVersion, bool]:
    """The newest version, and whether it is new: the same content makes none. `review` is held with
    `reviews.hold_row`, which serializes versions.

    Raises ReviewIsNotHeld, NoPublicIncident, NotTheNewest or TooManyVersions.
    """
    _require_held(review)
    known = await versions_of(session, review)
    newest = known[0] if known else None
    if new.based_on is not None and new.based_on != (newest.version if newest else 0):
        message = "someone has written another version in the meantime; look at it first"
        raise NotTheNewest(message)
    about = await _about(session, review, new.public_incident, newest)
    facts = PublicFacts(new.text, await _components(session, about.id), about.begins_at, about.ends_at)
    made = public_report(facts, new.outline)
    content = page(made, site.name, about.id)
    digest = hashlib.sha256(content).digest()
    if newest is not None:
        is_same = (newest.digest, newest.text, newest.outline) == (digest, new.text.as_json(), new.outline)
        if is_same and newest.withdrawn_at is None:
            return await find_version(session, review), False
        if newest.version >= VERSIONS_AT_MOST:
            raise TooManyVersions(f"a public report has at most {VERSIONS_AT_MOST} versions")
    row = ReportVersion(
        report_id=newest.report_id if newest else uuid4(),
        version=newest.version + 1 if newest else 1,
        review_id=review.id,
        public_incident_id=about.id,
        outline=new.outline,
        text=new.text.as_json(),
        markdown=markdown(made),
        page=content,
        digest=digest,
        accepted=_still_accepted(newest, new.text),
        author=new.author,
        author_token=token.id,
        created_at=now,
    )
    session.add(row)
    await session.flush()
    await _count(session, "written")
    return row, True


def _still_accepted(before: ReportVersion | None, written: PublicText) -> list[dict[str, Any]]:
    """Acceptances of fields whose text has not changed."""
    if before is None:
        return []
    old = dict(PublicText.of(before.text).by_field())
    same = {field for field, words in written.by_field() if old[field] == words}
    return [one for one in before.accepted if one["at"] in same]


async def _about(
    session: AsyncSession, review: Review, chosen: UUID | None, newest: ReportVersion | None
) -> PublicIncident:
    if chosen is None and newest is not None:
        chosen = newest.public_incident_id
    if chosen is not None:
        return await find_public_incident(session, chosen)
    found = await public_incidents_of(session, review)
    if len(found) != 1:
        message = (
            "choose the `public_incident` that the report is about; a past one can still be published on the status "
            "page, with its times"
        )
        raise NoPublicIncident(message)
    return found[0]


def _require_held(review: Review) -> None:
    if review.state in {ReviewState.DRAFT, ReviewState.DROPPED}:
        message = f"REV-{review.number} is `{review.state}`; a public report requires a review that was held"
        raise ReviewIsNotHeld(message)


async def accept(
    session: AsyncSession,
    review: Review,
    row: ReportVersion,
    leak: Leak,
    *,
    by: str,
    token: Bearer,
    site: Site,
    now: datetime,
) -> ReportVersion:
    """Records that a person has looked at a warning, and that these words may be public. Repeating it changes nothing.

    Raises UnknownWarning or NotTheNewest.
    """
    await _require_newest(session, review, row)
    found = next((one for one in await warnings_of(session, review, row, site) if one.leak == leak), None)
    if found is None:
        message = "the version has no such warning; its warnings are in the response to GET"
        raise UnknownWarning(message)
    if found.accepted is None:
        named = {"at": leak.at, "kind": str(leak.kind), "words": leak.words}
        row.accepted = [*row.accepted, {**named, "by": by, "token": token.id, "accepted_at": rfc3339(now)}]
        await session.flush()
    return row


async def approve(
    session: AsyncSession, review: Review, row: ReportVersion, *, by: str, token: Bearer, site: Site, now: datetime
) -> ReportVersion:
    """Approves the newest version as it is. Repeating it changes nothing.

    Raises NotTheNewest, SameToken or HasWarnings.
    """
    await _require_newest(session, review, row)
    if token.id == row.author_token:
        message = (
            "the author's token cannot approve it; approve it with another token, which `aftermath token create "
            "--scope write` creates"
        )
        raise SameToken(message)
    if row.approved_at is None:
        await _require_no_warnings(session, review, row, site)
        row.approved_at, row.approved_by, row.approved_token = max(now, row.created_at), by, token.id
        row.approved_digest = row.digest
        await session.flush()
    return row


async def publish(
    session: AsyncSession, review: Review, row: ReportVersion, *, by: str, token: Bearer, site: Site, now: datetime
) -> ReportVersion:
    """It stands at the public address of the report from now on. Repeating it changes nothing.

    Raises ReviewIsNotHeld, NotApproved, IsWithdrawn, NotTheNewest, NoPublicIncident or HasWarnings.
    """
    _require_held(review)
    if row.approved_at is None:
        message = "no one has approved this version; it needs a token other than the author's"
        raise NotApproved(message)
    if row.withdrawn_at is not None:
        message = "this version was withdrawn; write a new version, which needs its own approval"
        raise IsWithdrawn(message)
    if any(one.version > row.version and one.published_at for one in await versions_of(session, review)):
        message = "a newer version has been published; write a new version instead"
        raise NotTheNewest(message)
    if row.published_at is not None:
        return row
    await find_public_incident(session, row.public_incident_id)
    await _require_no_warnings(session, review, row, site)
    row.published_at, row.published_by, row.published_token = max(now, row.approved_at), by, token.id
    await session.flush()
    await session.merge(
        PublicReport(
            id=row.report_id,
            version=row.version,
            public_incident_id=row.public_incident_id,
            title=row.text["title"],
            page=row.page,
            digest=row.digest,
            published_at=row.published_at,
            withdrawn_at=None,
        )
    )
    await session.flush()
    await _count(session, "published")
    return row


async def withdraw(session: AsyncSession, review: Review, *, by: str, token: Bearer, now: datetime) -> ReportVersion:
    """Nothing of it is public any more; its address says so. Repeating it changes nothing. Raises ReportNotFound."""
    published = next((one for one in await versions_of(session, review) if one.published_at is not None), None)
    if published is None:
        message = "no version of a public report has been published; publish an approved version first"
        raise ReportNotFound(message)
    row = await find_version(session, review, published.version)
    if row.withdrawn_at is None:
        assert row.published_at is not None, "chosen because it was"
        row.withdrawn_at, row.withdrawn_by, row.withdrawn_token = max(now, row.published_at), by, token.id
        public = await session.get_one(PublicReport, row.report_id)
        public.page, public.title, public.withdrawn_at = None, None, row.withdrawn_at
        await session.flush()
        await _count(session, "withdrawn")
    return row


async def _count(session: AsyncSession, outcome: str) -> None:
    await count(await session.connection(), [(REPORTS_TALLY, "", outcome, 1)])


async def _require_newest(session: AsyncSession, review: Review, row: ReportVersion) -> None:
    if (newest := (await versions_of(session, review))[0].version) != row.version:
        raise NotTheNewest(f"version {newest} is the newest one, and only that can be changed or approved")


async def _require_no_warnings(session: AsyncSession, review: Review, row: ReportVersion, site: Site) -> None:
    still_open = [one.leak for one in await warnings_of(session, review, row, site) if one.accepted is None]
    if still_open:
        raise HasWarnings(still_open)
