"""SQL for reviews, their incidents and participants, and the steps of their life."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, exists, text
from sqlmodel import col, delete, func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.base.errors import Conflict, Forbidden, Invalid, NotFound, PreconditionFailed
from app.base.schema import ActionItem, Finding, Incident, Review, ReviewIncident, ReviewParticipant
from app.base.values.ids import new_id
from app.incidents import actions
from app.incidents.actions import Ref, etag, not_in_the_future
from app.incidents.grouping.decide import lock_keys
from app.incidents.grouping.reviewed import derive_reviewed
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.incidents.grouping.write import count
from app.incidents.history import timeline
from app.reviews import lifecycle
from app.reviews.action_item import ItemState
from app.reviews.lifecycle import BEFORE, FindingKind, Part, Participant, ReviewState

INCIDENTS_AT_MOST, PARTICIPANTS_AT_MOST = 100, 100
FOLLOW_UP_AFTER = timedelta(days=30)
REQUIRED_TALLY = "reviews_required"  # by outcome: held, late or dropped


class ReviewNotFound(NotFound):
    title = "Review not found"


class NotInThisState(Conflict):
    title = "Review is in another state"


class SomethingIsMissing(Conflict):
    title = "Something is missing"

    def __init__(self, missing: Sequence[lifecycle.Missing]) -> None:
        super().__init__("; ".join(map(str, missing)))
        self.errors = [{"at": one.at, "why": one.why} for one in missing]


class ReviewIsRequired(Forbidden):
    title = "Review is required"


class UnknownParticipant(Invalid):
    title = "Not a participant"


@dataclass(frozen=True, slots=True)
class Filters:
    """None or empty matches all."""

    states: frozenset[ReviewState] = frozenset()
    required: bool | None = None
    overdue: bool | None = None
    facilitator: Collection[str] = ()
    service: Collection[str] = ()
    incident: Ref | None = None
    since: datetime | None = None  # held, or of drafts due, from then on
    until: datetime | None = None  # and before that
    text: str | None = None  # in the title, whatever the case


async def find(session: AsyncSession, ref: Ref) -> Review:
    """Raises ReviewNotFound."""
    column = col(Review.id) if isinstance(ref, UUID) else col(Review.number)
    found = (await session.exec(select(Review).where(column == ref))).one_or_none()
    if found is None:
        message = "no review has this id or number; GET /api/v1/reviews lists all reviews"
        raise ReviewNotFound(message)
    return found


async def hold_row(session: AsyncSession, ref: Ref, if_match: str | None = None) -> Review:
    """Locks the review until the transaction ends. Raises ReviewNotFound or PreconditionFailed."""
    review = await find(session, ref)
    # FOR NO KEY UPDATE: a split of incidents links its parts to the review, and need not wait.
    await session.refresh(review, with_for_update={"key_share": True})
    require_version(review.version, if_match)
    return review


def require_version(version: int, if_match: str | None) -> None:
    """Raises PreconditionFailed."""
    wanted = {one.strip() for one in if_match.split(",")} if if_match is not None else {"*"}
    if wanted.isdisjoint({"*", etag(version)}):
        message = f"it is at version {etag(version)}; fetch it again and retry"
        raise PreconditionFailed(message)


async def list_reviews(
    session: AsyncSession, filters: Filters, *, before: int | None, limit: int, now: datetime
) -> Sequence[Review]:
    """Newest first."""
    query = (await matching(session, filters, now=now)).order_by(col(Review.number).desc()).limit(limit)
    if before is not None:
        query = query.where(col(Review.number) < before)
    return (await session.exec(query)).all()


async def matching(session: AsyncSession, filters: Filters, *, now: datetime) -> SelectOfScalar[Review]:
    """The query for them, without an order. Raises IncidentNotFound."""
    query = select(Review).where(*_conditions_of_texts(filters))
    if filters.states:
        query = query.where(col(Review.state).in_(filters.states))
    if filters.required is not None:
        query = query.where((func.cardinality(col(Review.required_because)) > 0) == filters.required)
    if filters.overdue is not None:
        is_overdue = (col(Review.state) == ReviewState.DRAFT) & (func.coalesce(col(Review.due_at), now) < now)
        query = query.where(is_overdue == filters.overdue)
    moment = func.coalesce(col(Review.held_at), col(Review.due_at))
    if filters.since is not None:
        query = query.where(moment >= filters.since)
    if filters.until is not None:
        query = query.where(moment < filters.until)
    if filters.service or filters.incident is not None:
        about = (
            select(ReviewIncident.review_id)
            .join(Incident, col(Incident.id) == col(ReviewIncident.incident_id))
            .where(col(ReviewIncident.review_id) == col(Review.id))
        )
        if filters.service:
            service = func.coalesce(col(Incident.service_stated), col(Incident.service))
            about = about.where(service.in_(filters.service))
        if filters.incident is not None:
            named = await actions.find(session, filters.incident)
            living = named.merged_into or named.id
            about = about.where(or_(col(Incident.id) == living, col(Incident.merged_into) == living))
        query = query.where(exists(about))
    return query


def _conditions_of_texts(filters: Filters) -> Iterator[ColumnElement[bool]]:
    if filters.text:
        yield col(Review.title).icontains(filters.text, autoescape=True)
    if filters.facilitator:
        yield col(Review.facilitator).in_(filters.facilitator)


async def create(
    session: AsyncSession, values: Mapping[str, Any], incidents: Sequence[Ref], *, now: datetime
) -> Review:
    """A draft about these incidents. Raises IncidentNotFound."""
    review = draft(now=now, **values)
    session.add(review)
    await session.flush()
    await session.refresh(review)
    await set_incidents(session, review, incidents)
    return review


def draft(*, now: datetime, **values: Any) -> Review:
    """A new draft, not stored yet."""
    empty = {"summary": "", "customer_impact": "", "resolution": "", "required_because": []}
    return Review(**empty | values, id=new_id(now), state=ReviewState.DRAFT, version=1, created_at=now, updated_at=now)


async def amend(session: AsyncSession, review: Review, values: Mapping[str, Any], *, now: datetime) -> None:
    """Changes columns of a review that is held with `hold_row`."""
    for name, value in values.items():
        setattr(review, name, value)
    if "begins_at" in values or "ends_at" in values:
        require_time_frame(review.begins_at, review.ends_at)
    await touch(session, review, now=now)


def require_time_frame(begins_at: datetime | None, ends_at: datetime | None) -> None:
    """Raises Invalid."""
    if (begins_at is None) != (ends_at is None):
        message = "a time frame needs both `begins_at` and `ends_at`"
        raise Invalid(message)
    if begins_at is not None and ends_at is not None and not timedelta() < ends_at - begins_at <= timedelta(days=30):
        message = "a time frame ends after it begins, and at most 30 days later"
        raise Invalid(message)


async def touch(session: AsyncSession, review: Review, *, now: datetime) -> None:
    """Gives the review its next version."""
    review.version += 1
    review.updated_at = now
    await session.flush()


# — incidents —


async def incidents_of(session: AsyncSession, reviews: Collection[UUID]) -> Mapping[UUID, Sequence[Incident]]:
    """The incidents that each review is about, oldest first; a merged one is replaced by the one it was merged into."""
    named = Incident.__table__.alias("named")
    query = (
        select(ReviewIncident.review_id, Incident)
        .join(named, named.c.id == col(ReviewIncident.incident_id))
        .join(Incident, col(Incident.id) == func.coalesce(named.c.merged_into, named.c.id))
        .where(col(ReviewIncident.review_id).in_(reviews))
        .order_by(col(Incident.began_at), col(Incident.number))
        .execution_options(populate_existing=True)
    )
    found: dict[UUID, dict[UUID, Incident]] = defaultdict(dict)
    for review_id, incident in await session.exec(query):
        found[review_id][incident.id] = incident
    return {review_id: list(incidents.values()) for review_id, incidents in found.items()}


async def set_incidents(session: AsyncSession, review: Review, refs: Sequence[Ref]) -> None:
    """Replaces the incidents that the review is about; a merged one by the one it was merged into.

    Raises IncidentNotFound.
    """
    before = {one.id for one in (await incidents_of(session, [review.id])).get(review.id, ())}
    named = [await actions.find(session, ref) for ref in refs]
    after = {one.merged_into or one.id for one in named}
    await session.exec(delete(ReviewIncident).where(col(ReviewIncident.review_id) == review.id))
    session.add_all(ReviewIncident(review_id=review.id, incident_id=id_) for id_ in sorted(after))
    await derive(session, before | after)


async def derive(session: AsyncSession, incidents: Collection[UUID]) -> None:
    """Derives when these incidents were reviewed and ready, after a change of their reviews or action items."""
    await session.flush()
    if not incidents:
        return
    tx = await session.connection()
    keys = await session.exec(select(Incident.key_id).where(col(Incident.id).in_(incidents)))
    # Of two changes at once, the second sees the first one's: both take these locks.
    await lock_keys(tx, sorted(keys.all()))
    await derive_reviewed(tx, sorted(incidents))


async def derive_of(session: AsyncSession, review_id: UUID) -> None:
    """The same for all incidents of a review."""
    await derive(session, [one.id for one in (await incidents_of(session, [review_id])).get(review_id, ())])


async def proposed_incidents(session: AsyncSession, review: Review, incidents: Sequence[Incident]) -> Sequence[int]:
    """Numbers of other incidents worth a look: those in the time frame, or those of the same services at the same
    time. At most 20.
    """
    found = await (await session.connection()).execute(
        _PROPOSED,
        {
            "ids": [one.id for one in incidents],
            "since": review.begins_at,
            "until": review.ends_at,
        },
    )
    return list(found.scalars())


_PROPOSED = text("""
    SELECT DISTINCT other.number
      FROM incident AS other
     WHERE other.merged_into IS NULL
       AND other.test_stated IS NOT TRUE
       AND other.alert_class <> 'monitoring'
       AND NOT other.id = ANY(CAST(:ids AS uuid[]))
       AND (other.began_at < CAST(:until AS timestamptz)
            AND coalesce(other.ended_at, 'infinity') > CAST(:since AS timestamptz)
            OR EXISTS (SELECT
                         FROM incident AS known
                        WHERE known.id = ANY(CAST(:ids AS uuid[]))
                          AND coalesce(known.service_stated, known.service)
                              = coalesce(other.service_stated, other.service)
                          AND tstzrange(known.began_at, known.ended_at, '[]')
                              && tstzrange(other.began_at, other.ended_at, '[]')))
     ORDER BY other.number
     LIMIT 20
""")


async def people_in(session: AsyncSession, incidents: Collection[UUID]) -> Mapping[str, Sequence[str]]:
    """People in the timelines of these incidents, as author or by name, with the kinds of these entries."""
    found: dict[str, list[str]] = defaultdict(list)
    for person, kind in await (await session.connection()).execute(_PEOPLE, {"ids": list(incidents)}):
        found[person].append(kind)
    return found


_PEOPLE = text(f"""
    SELECT person, kind
      FROM timeline
     CROSS JOIN unnest(ARRAY[CASE WHEN kind IN ('joined', 'role') THEN detail ->> 'person' END, by]) AS person
     WHERE incident_id = ANY(CAST(:ids AS uuid[]))
       AND person IS NOT NULL
       AND {IS_CURRENT}
     GROUP BY person, kind
     ORDER BY min(at), person, kind
     LIMIT 500
""")  # noqa: S608


async def roles_in(session: AsyncSession, incidents: Collection[UUID]) -> Mapping[str, Collection[str]]:
    """The roles that each person held in these incidents."""
    found: dict[str, set[str]] = defaultdict(set)
    facts = await timeline.facts_of(await session.connection(), incidents, [TimelineKind.ROLE])
    for fact in chain.from_iterable(facts.values()):
        if fact["holds"]:
            found[fact["person"]].add(fact["role"])
    return found


# — participants —


async def participants_of(session: AsyncSession, review_id: UUID) -> Sequence[Participant]:
    """By name."""
    row = ReviewParticipant
    query = select(row).where(col(row.review_id) == review_id).order_by(col(row.person))
    return [Participant(one.person, Part(one.part), one.attended) for one in await session.exec(query)]


async def set_participants(session: AsyncSession, review_id: UUID, participants: Sequence[Participant]) -> None:
    """Replaces all participants; of several with the same name the last one counts."""
    await session.exec(delete(ReviewParticipant).where(col(ReviewParticipant.review_id) == review_id))
    named = {one.person: one for one in participants}
    session.add_all(
        ReviewParticipant(review_id=review_id, person=one.person, part=one.part, attended=one.attended)
        for one in named.values()
    )
    await session.flush()


# — the steps of its life —


async def for_next_step(session: AsyncSession, review: Review) -> lifecycle.Review:
    """The review as `lifecycle.missing` takes it."""
    kinds = await session.exec(select(Finding.kind).where(col(Finding.review_id) == review.id))
    items = await session.exec(
        select(ActionItem).where(col(ActionItem.review_id) == review.id).order_by(col(ActionItem.number))
    )
    return lifecycle.Review(
        state=ReviewState(review.state),
        facilitator=review.facilitator,
        summary=review.summary,
        kinds=[FindingKind(kind) for kind in kinds],
        items=[
            lifecycle.Item(f"AI-{one.number}", ItemState(one.state), one.owner, one.priority, one.effective)
            for one in items
        ],
        nothing_now_because=review.nothing_now_because,
    )


async def hold(
    session: AsyncSession,
    review: Review,
    *,
    held_at: datetime,
    duration_seconds: int | None,
    attended: Sequence[str] | None,
    without_facilitator: bool,
    now: datetime,
) -> None:
    """Records that the review took place. Raises NotInThisState, InTheFuture, SomethingIsMissing or
    UnknownParticipant.
    """
    _require(review, ReviewState.DRAFT)
    not_in_the_future(held_at, now, field="held_at")
    if not without_facilitator:
        await _require_complete(session, review)
    if attended is not None:
        participants = await participants_of(session, review.id)
        if set(attended) - {one.person for one in participants}:
            message = "`attended` names someone who is not a participant; add them to `participants` first"
            raise UnknownParticipant(message)
        marked = [Participant(one.person, one.part, one.person in attended) for one in participants]
        await set_participants(session, review.id, marked)
    review.state = ReviewState.HELD
    review.held_at = held_at
    review.duration_seconds = duration_seconds or review.duration_seconds
    review.follow_up_at = review.follow_up_at or held_at + FOLLOW_UP_AFTER
    late = review.due_at is not None and held_at > review.due_at
    await _count_once(session, review, "late" if late else "held", now=now)
    await _moved(session, review, now=now)


async def publish(session: AsyncSession, review: Review, *, now: datetime) -> None:
    """Raises NotInThisState or SomethingIsMissing, which lists everything."""
    _require(review, ReviewState.HELD)
    await _require_complete(session, review)
    assert review.held_at is not None, "it was held"
    review.state, review.published_at = ReviewState.PUBLISHED, max(now, review.held_at)
    await _moved(session, review, now=now)


async def close(session: AsyncSession, review: Review, *, now: datetime) -> None:
    """Raises NotInThisState or SomethingIsMissing, which lists everything."""
    _require(review, ReviewState.PUBLISHED)
    await _require_complete(session, review)
    assert review.published_at is not None, "it was published"
    review.state, review.closed_at = ReviewState.CLOSED, max(now, review.published_at)
    await _moved(session, review, now=now)


async def drop(session: AsyncSession, review: Review, *, because: str, admin: bool, now: datetime) -> None:
    """Records that a draft will not be held. Raises NotInThisState or ReviewIsRequired."""
    _require(review, ReviewState.DRAFT)
    if review.required_because and not admin:
        message = "this review is required, so dropping it needs a token with scope `admin`"
        raise ReviewIsRequired(message)
    review.state, review.dropped_because = ReviewState.DROPPED, because
    await _count_once(session, review, "dropped", now=now)
    await _moved(session, review, now=now)


async def reopen(session: AsyncSession, review: Review, *, now: datetime) -> None:
    """Takes the latest step back. A draft does not change."""
    match review.state:
        case ReviewState.HELD:
            review.held_at = None
        case ReviewState.PUBLISHED:
            review.published_at = None
        case ReviewState.CLOSED:
            review.closed_at = None
        case ReviewState.DROPPED:
            review.dropped_because = None
        case _:
            return
    review.state = BEFORE[ReviewState(review.state)]
    await _moved(session, review, now=now)


async def _count_once(session: AsyncSession, review: Review, outcome: str, *, now: datetime) -> None:
    """Counts the outcome of a required review, unless one was counted before it was reopened."""
    if review.required_because and review.required_counted_at is None:
        review.required_counted_at = now
        await count(await session.connection(), [(REQUIRED_TALLY, "", outcome, 1)])


async def _moved(session: AsyncSession, review: Review, *, now: datetime) -> None:
    await touch(session, review, now=now)
    await derive_of(session, review.id)


def _require(review: Review, state: ReviewState) -> None:
    if review.state != state:
        message = f"REV-{review.number} is `{review.state}`, but this step requires a review that is `{state}`"
        raise NotInThisState(message)


async def _require_complete(session: AsyncSession, review: Review) -> None:
    if found := lifecycle.missing(await for_next_step(session, review)):
        raise SomethingIsMissing(found)
