"""Drafts the reviews that incidents require: once per incident, however many processes run."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Protocol
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.process.threads import off_loop
from app.base.schema import Incident, Objective, Review, ReviewIncident
from app.incidents.agreement import NO_AGREEMENT, Agreement
from app.incidents.grouping.decide import lock_keys
from app.incidents.impact import availability
from app.incidents.impact.store import FACTS_OF_INCIDENT, failing_within, in_service_since, planned_within
from app.incidents.measures.measures import Facts, Weights, service, severity
from app.reviews.lifecycle import Part, Participant, Reason, ReviewState
from app.reviews.requirement import RECURRENCE_WITHIN, RECURRENCES, Ended, due_at, reasons
from app.reviews.store import reviews

# An incident that ended longer ago gets no draft: a new rule is no reason to review the past.
LOOKBACK = timedelta(days=7)
AT_ONCE = 500
LINKED_AT_MOST = 20  # incidents of a key that recurs


class _Row(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def number(self) -> int: ...
    @property
    def began_at(self) -> datetime: ...
    @property
    def ended_at(self) -> datetime: ...
    @property
    def key_id(self) -> UUID: ...
    @property
    def occurrences(self) -> int: ...
    @property
    def recurrence_reviewed(self) -> bool: ...
    @property
    def draft_id(self) -> UUID | None: ...
    @property
    def reviewed(self) -> bool: ...
    @property
    def is_test(self) -> bool: ...


AgreementsOf = Callable[[AsyncSession, Collection[UUID]], Awaitable[Mapping[UUID, Agreement]]]


@dataclass(frozen=True, slots=True)
class Requirements:
    """Decides which incidents require a review. `agreements_of` reads what was agreed on about incidents."""

    agreements_of: AgreementsOf
    weights: Weights

    async def draft(self, engine: AsyncEngine, *, now: datetime) -> int:
        """Drafts a review for each ended incident that requires one and has none; returns how many.

        Also updates why the drafts are required, for example after a correction of the severity. Each change is a
        transaction of its own, which finds out whether another process or a person was faster.
        """
        async with db.session(engine) as session:
            tx = await session.connection()
            if not (await tx.execute(_ALONE)).scalar_one():
                return 0  # another process reads the same
            parameters = {"since": now - LOOKBACK, "at_most": AT_ONCE, "explained": None}
            rows = (await tx.execute(_ENDED_LATELY, parameters)).all()
            judged = await self._judged(session, rows, set(), now=now)
            changed = await self._changed(session, {row.draft_id for row in rows if row.draft_id}, now=now)
        drafted = 0
        for row, why, agreement in judged:
            if why and not row.reviewed:
                async with db.session(engine) as session:
                    drafted += await _draft(session, row, why, agreement, now=now)
        for review_id, wanted in changed.items():
            async with db.session(engine) as session:
                await _correct(session, review_id, wanted, now=now)
        return drafted

    async def _changed(
        self, session: AsyncSession, drafts: Collection[UUID], *, now: datetime
    ) -> Mapping[UUID, list[Reason]]:
        """The drafts that are required for other reasons than they say, with all reasons.

        All incidents of a draft are judged, also those that ended long ago; while one of them is open, nothing changes.
        A recurrence stays a reason: its other incidents are part of the review.
        """
        if not drafts:
            return {}
        incidents = await reviews.incidents_of(session, drafts)
        ids = {one.id for each in incidents.values() for one in each}
        rows = (await (await session.connection()).execute(_ENDED_OF, {"ids": sorted(ids), "explained": None})).all()
        whys = {row.id: why for row, why, _ in await self._judged(session, rows, set(), now=now)}
        found: dict[UUID, list[Reason]] = {}
        for review in (await session.exec(select(Review).where(col(Review.id).in_(drafts)))).all():
            about = incidents.get(review.id, ())
            if any(one.ended_at is None for one in about):
                continue
            kept = {Reason.RECURRENCE} & {Reason(one) for one in review.required_because}
            wanted = kept.union(*(whys.get(one.id, ()) for one in about))
            if wanted != set(review.required_because):
                found[review.id] = [reason for reason in Reason if reason in wanted]
        return found

    async def explain(self, session: AsyncSession, review: Review, *, now: datetime) -> None:
        """States in a new draft why its incidents require it and, unless a person did, when it is due."""
        ids = [one.id for one in (await reviews.incidents_of(session, [review.id])).get(review.id, ())]
        parameters = {"ids": ids, "explained": review.id}
        rows = (await (await session.connection()).execute(_ENDED_OF, parameters)).all()
        judged = await self._judged(session, rows, set(), now=now)
        whys = {reason for _, why, _ in judged for reason in why}
        review.required_because = [reason for reason in Reason if reason in whys]
        due = [due_at(row.ended_at, severity(Facts.of(row)), agreement) for row, why, agreement in judged if why]
        review.due_at = review.due_at or min(due, default=None)
        await session.flush()

    async def _judged(
        self, session: AsyncSession, rows: Sequence[_Row], recurring: set[UUID], *, now: datetime
    ) -> list[tuple[_Row, Sequence[Reason], Agreement]]:
        """Each incident with the reasons for its review; a test has none. Of several with a key that recurs, the first
        has that reason; such keys are added to `recurring`.
        """
        agreements = await self.agreements_of(session, [row.id for row in rows])
        burned = await _burned(session, rows, now=now, weights=self.weights)
        found: list[tuple[_Row, Sequence[Reason], Agreement]] = []
        for row in rows:
            agreement = agreements.get(row.id, NO_AGREEMENT)
            ended = Ended(
                severity(Facts.of(row)),
                burned.get(row.number, Fraction(0)),
                row.occurrences,
                row.recurrence_reviewed or row.key_id in recurring,
                agreement,
            )
            why = [] if row.is_test else reasons(ended)
            if Reason.RECURRENCE in why and not row.reviewed:
                recurring.add(row.key_id)
            found.append((row, why, agreement))
        return found


async def _draft(
    session: AsyncSession, row: _Row, why: Sequence[Reason], agreement: Agreement, *, now: datetime
) -> bool:
    """Whether it was drafted: not if the incident has a review by now, or is open again."""
    tx = await session.connection()
    await lock_keys(tx, [row.key_id])
    still = (await tx.execute(_ENDED_OF, {"ids": [row.id], "explained": None})).one_or_none()
    if still is None or still.reviewed or still.is_test:
        return False
    why = [reason for reason in why if reason is not Reason.RECURRENCE or not still.recurrence_reviewed]
    if not why:
        return False
    incident = (await session.exec(select(Incident).where(col(Incident.id) == row.id))).one()
    facts = Facts.of(incident)
    assert facts.ended_at is not None, "only of incidents that have ended"
    linked = {incident.id}
    if Reason.RECURRENCE in why:
        since = facts.ended_at - RECURRENCE_WITHIN
        parameters = {"key": incident.key_id, "since": since, "until": facts.ended_at, "at_most": LINKED_AT_MOST}
        linked.update((await (await session.connection()).execute(_UNREVIEWED_OF_KEY, parameters)).scalars())
    title = incident.title_stated or incident.title
    review = reviews.draft(
        now=now,
        title=f"{service(facts)}: {title}"[:200],  # its incidents may differ in severity
        required_because=list(why),
        drafted_for=incident.id,
        due_at=due_at(facts.ended_at, severity(facts), agreement),
    )
    session.add(review)
    await session.flush()
    session.add_all(ReviewIncident(review_id=review.id, incident_id=id_) for id_ in sorted(linked))
    people = await reviews.people_in(session, linked)
    roles = await reviews.roles_in(session, linked)
    await reviews.set_participants(session, review.id, proposed_participants(people, roles))
    await reviews.derive(session, linked)
    return True


def proposed_participants(
    people: Mapping[str, Collection[str]], roles: Mapping[str, Collection[str]]
) -> list[Participant]:
    """Everyone in the timelines: those who held a role by it, the first who acknowledged as first responder."""
    first = next((person for person, kinds in people.items() if "acknowledged" in kinds), None)

    def part(person: str) -> Part:
        held = roles.get(person, ())
        if role := next((each for each in _PARTS if each in held), None):
            return _PARTS[role]
        return Part.FIRST_RESPONDER if person == first else Part.ESCALATION

    return [Participant(one, part(one)) for one in [*people][: reviews.PARTICIPANTS_AT_MOST]]


_PARTS = {"commander": Part.COMMANDER, "communications": Part.COMMUNICATIONS, "scribe": Part.NOTE_TAKER}


async def _correct(session: AsyncSession, review_id: UUID, wanted: list[Reason], *, now: datetime) -> None:
    review = await reviews.hold_row(session, review_id)
    if review.state == ReviewState.DRAFT and review.required_because != wanted:
        review.required_because = list(wanted)
        await reviews.touch(session, review, now=now)


# — error budgets —


async def _burned(
    session: AsyncSession, rows: Sequence[_Row], *, now: datetime, weights: Weights
) -> dict[int, Fraction]:
    """The share of its service's error budget that each incident burned, by number. Only of services with one."""
    services = {service(Facts.of(row)) for row in rows if not row.reviewed or row.draft_id is not None}
    objectives = await session.exec(select(Objective).where(col(Objective.service).in_(services)))
    found: dict[int, Fraction] = {}
    for stored in objectives.all():
        objective = availability.Objective.of(stored.model_dump())
        numbers: dict[datetime, set[int]] = defaultdict(set)
        for row in rows:
            if service(Facts.of(row)) == objective.service:
                numbers[_judged_at(objective, row, now=now)].add(row.number)
        for at, those in numbers.items():
            burned = await _burned_of(await session.connection(), objective, now=at, weights=weights)
            found |= {number: share for number, share in burned.items() if number in those}
    return found


def _judged_at(objective: availability.Objective, row: _Row, *, now: datetime) -> datetime:
    """The time as of which the budget that an incident burned is judged: one at which the window contains the whole
    incident. Many incidents share it, so that few budgets are computed.
    """
    if row.began_at >= objective.period(now).start:
        return now
    end = objective.period(row.ended_at).end
    return min(now, end - timedelta(microseconds=1)) if end > row.ended_at else row.ended_at


async def _burned_of(
    tx: AsyncConnection, objective: availability.Objective, *, now: datetime, weights: Weights
) -> dict[int, Fraction]:
    within = availability.reach(objective, now)
    names = [objective.service]
    failing = await failing_within(tx, within, names, environment=objective.environment, now=now, weights=weights)
    planned = await planned_within(tx, names, within)
    since = await in_service_since(tx, names)

    def work() -> dict[int, Fraction]:
        budget = availability.budget(
            objective,
            failing.get(objective.service, ()),
            planned.get(objective.service, ()),
            since=since.get(objective.service),
            now=now,
        )
        whole = Fraction(budget.seconds)
        return {number: Fraction(seconds) / whole for number, seconds in budget.incidents} if whole else {}

    return await off_loop(work)


# — statements —

_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtext('aftermath.reviews'))")

# Which reviews an incident has: any but a dropped one, or one that was once drafted for it. Oldest end first.
_LINKED = """
    SELECT review.id
      FROM incident AS member
      JOIN review_incident ON review_incident.incident_id = member.id
      JOIN review ON review.id = review_incident.review_id
     WHERE (member.id = incident.id OR member.merged_into = incident.id)
"""
_RECENT = f"""
    SELECT other.id
      FROM incident AS other
     WHERE other.key_id = incident.key_id
       AND other.merged_into IS NULL
       AND other.test_stated IS NOT TRUE
       AND other.began_at <= incident.began_at
       AND other.began_at > incident.ended_at - interval '{RECURRENCE_WITHIN.days} days'
"""  # noqa: S608
_ENDED = f"""
    SELECT ended.*,
           ({_LINKED.replace("incident.id", "ended.id")} AND review.state = 'draft' ORDER BY review.number LIMIT 1)
               AS draft_id
      FROM (SELECT incident.number, incident.key_id, incident.test_stated IS TRUE AS is_test, {FACTS_OF_INCIDENT},
                   EXISTS ({_LINKED} AND review.state <> 'dropped')
                   OR EXISTS (SELECT
                                FROM incident AS member
                                JOIN review ON review.drafted_for = member.id
                               WHERE (member.id = incident.id OR member.merged_into = incident.id)) AS reviewed,
                   (SELECT count(*) FROM ({_RECENT} LIMIT {RECURRENCES}) AS recent) AS occurrences,
                   EXISTS (SELECT
                             FROM ({_RECENT}) AS recent
                             JOIN incident AS member ON (member.id = recent.id OR member.merged_into = recent.id)
                             JOIN review_incident ON review_incident.incident_id = member.id
                             JOIN review ON review.id = review_incident.review_id
                            WHERE review.state <> 'dropped'
                              AND review.id IS DISTINCT FROM CAST(:explained AS uuid)) AS recurrence_reviewed
              FROM incident
             WHERE merged_into IS NULL
               AND alert_class <> 'monitoring'
               AND %s) AS ended
"""  # noqa: S608
# Those that surely need a draft come first, so that none waits behind others.
_ENDED_LATELY = text(
    _ENDED % "ended_at >= :since"
    + """
     ORDER BY (NOT reviewed AND coalesce(severity_stated, severity) <= 2) DESC, ended_at DESC, number
     LIMIT :at_most
"""
)
_ENDED_OF = text(_ENDED % "ended_at IS NOT NULL AND incident.id = ANY(CAST(:ids AS uuid[]))")

_UNREVIEWED_OF_KEY = text("""
    SELECT id
      FROM incident
     WHERE key_id = :key
       AND merged_into IS NULL
       AND test_stated IS NOT TRUE
       AND began_at > :since
       AND began_at <= :until
       AND reviewed_at IS NULL
     ORDER BY began_at DESC
     LIMIT :at_most
""")
