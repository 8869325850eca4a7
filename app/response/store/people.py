"""SQL for people and delegates."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.base import db
from app.base.errors import Conflict, Invalid, NotFound
from app.base.schema import Delegate, Person
from app.base.values.times import Span

ROLES_AT_MOST = 1000  # of delegates, each for one owner


class PersonNotFound(NotFound):
    title = "Person not found"

    def __init__(self) -> None:
        super().__init__("no person has this name; GET /api/v1/people lists all people")


class PersonIsADelegate(Conflict):
    title = "Person is a delegate"


class UnknownPerson(Invalid):
    title = "Unknown person"


class TooManyDelegates(Conflict):
    title = "Too many roles with delegates"


async def list_people(
    session: AsyncSession, containing: str | None = None, *, after: str, limit: int
) -> Sequence[Person]:
    """People with names greater than `after` that contain the text, sorted by name."""
    name = col(Person.name)
    return (await session.exec(_matching(containing).where(name > after).order_by(name).limit(limit))).all()


async def count_people(session: AsyncSession, containing: str | None = None) -> int:
    return await db.total(session, _matching(containing))


def _matching(containing: str | None) -> SelectOfScalar[Person]:
    return select(Person).where(db.containing(containing, Person.name))


async def find_person(session: AsyncSession, name: str) -> Person:
    """Raises PersonNotFound."""
    found = await session.get(Person, name)
    if found is None:
        raise PersonNotFound
    return found


async def put_person(session: AsyncSession, person: Person) -> tuple[Person, bool]:
    """The stored person, and whether they are new."""
    return await db.upsert(session, person)


async def delete_person(session: AsyncSession, name: str) -> None:
    """Raises PersonNotFound or PersonIsADelegate."""
    found = await session.get(Person, name, with_for_update=True)
    if found is None:
        raise PersonNotFound
    roles = (await session.exec(select(Delegate.role).where(Delegate.person == name).distinct())).all()
    if roles:
        message = f"the person is a delegate for {', '.join(sorted(roles))}; remove them from the delegates first"
        raise PersonIsADelegate(message)
    await session.delete(found)


async def put_delegates(session: AsyncSession, role: str, owner: str, people: Sequence[str]) -> None:
    """Replaces the delegates for a role and an owner; none removes them. Raises UnknownPerson or TooManyDelegates."""
    # The locks serialize this with the deletion of one of them.
    query = select(Person.name).where(col(Person.name).in_(people)).order_by(col(Person.name))
    known = (await session.exec(query.with_for_update(key_share=True))).all()
    if missing := [place for place, person in enumerate(people, 1) if person not in known]:
        places = ", ".join(map(str, missing))
        message = f"entry {places} of `people` is not a known person; add them with PUT /api/v1/people/{{name}}"
        raise UnknownPerson(message)
    others = await delegates(session)
    if people and (role, owner) not in others and len(others) >= ROLES_AT_MOST:
        message = f"there are delegates for {len(others)} roles already; remove one first"
        raise TooManyDelegates(message)
    await session.exec(delete(Delegate).where(col(Delegate.role) == role, col(Delegate.owner) == owner))
    session.add_all(
        Delegate(role=role, owner=owner, position=place, person=person) for place, person in enumerate(people, 1)
    )
    await session.flush()


async def delegates(session: AsyncSession) -> Mapping[tuple[str, str], Sequence[str]]:
    """All of them in order, by role and owner."""
    order = (col(Delegate.role), col(Delegate.owner), col(Delegate.position))
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in await session.exec(select(Delegate).order_by(*order)):
        found[each.role, each.owner].append(each.person)
    return found


async def absences(session: AsyncSession) -> Mapping[str, Sequence[Span]]:
    """When each delegate is away."""
    query = select(Person.name, Person.away).where(col(Person.name).in_(select(Delegate.person)))
    return {name: absences_in(away) for name, away in await session.exec(query)}


def absences_in(away: Iterable[Mapping[str, str]]) -> list[Span]:
    return [Span(datetime.fromisoformat(one["from"]), datetime.fromisoformat(one["to"])) for one in away]
