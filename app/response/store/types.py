"""SQL for incident types."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.base import db, schema
from app.base.errors import Conflict, NotFound
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.grouping.rule import parse_matcher
from app.response.plan import Channel, IncidentType, ReviewRule

TYPES_AT_MOST = 200


class IncidentTypeNotFound(NotFound):
    title = "Incident type not found"

    def __init__(self) -> None:
        super().__init__("no incident type has this name; GET /api/v1/incident-types lists all types")


class TooManyTypes(Conflict):
    title = "Too many incident types"


async def list_types(
    session: AsyncSession,
    containing: str | None = None,
    *,
    after: tuple[int, str] | None = None,
    limit: int | None = None,
) -> Sequence[schema.IncidentType]:
    """In the order in which they are tried; `after` is the position and name of the last one read. Their names contain
    the text.
    """
    position, name = col(schema.IncidentType.position), col(schema.IncidentType.name)
    query = _matching(containing).order_by(position, name).limit(limit)
    if after is not None:
        query = query.where((position > after[0]) | ((position == after[0]) & (name > after[1])))
    return (await session.exec(query)).all()


async def count_types(session: AsyncSession, containing: str | None = None) -> int:
    return await db.total(session, _matching(containing))


def _matching(containing: str | None) -> SelectOfScalar[schema.IncidentType]:
    return select(schema.IncidentType).where(db.containing(containing, schema.IncidentType.name))


async def source_names(session: AsyncSession) -> Mapping[int, str]:
    """By id, without that of people. Matchers of types may ask for them."""
    source = schema.Source
    return dict((await session.exec(select(source.id, source.name).where(col(source.id) != MANUAL_SOURCE_ID))).all())


async def find_type(session: AsyncSession, name: str) -> schema.IncidentType:
    """Raises IncidentTypeNotFound."""
    found = await session.get(schema.IncidentType, name)
    if found is None:
        raise IncidentTypeNotFound
    return found


async def put_type(session: AsyncSession, row: schema.IncidentType) -> tuple[schema.IncidentType, bool]:
    """The stored type, and whether it is new. Raises TooManyTypes."""
    known = {each.name for each in await list_types(session)}
    if row.name not in known and len(known) >= TYPES_AT_MOST:
        message = f"there are {len(known)} incident types already; delete one that is not used"
        raise TooManyTypes(message)
    return await db.upsert(session, row)


async def delete_type(session: AsyncSession, name: str) -> None:
    """Raises IncidentTypeNotFound."""
    deleted = await session.exec(delete(schema.IncidentType).where(col(schema.IncidentType.name) == name))
    if deleted.rowcount == 0:
        raise IncidentTypeNotFound


async def all_types(session: AsyncSession) -> list[IncidentType]:
    """One statement."""
    return [type_of_row(row.model_dump()) for row in await list_types(session)]


def type_of_row(row: Mapping[str, Any]) -> IncidentType:
    """The plan in a row, given as its columns."""
    return IncidentType(
        name=row["name"],
        position=row["position"],
        matchers=tuple(parse_matcher(text) for text in row["matchers"]),
        exit_criteria=tuple(row["exit_criteria"]),
        roles=tuple(row["roles"]),
        channels=tuple(Channel(one["kind"], one["name"], one["link"]) for one in row["channels"]),
        steps=tuple(row["steps"]),
        update_seconds=row["update_seconds"],
        review=ReviewRule(row["review"]),
    )
