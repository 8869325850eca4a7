"""SQL for changes: what was changed without being known to deploy anything, and deployments that changed nothing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import select

from app.base import schema
from app.base.errors import Conflict
from app.base.schema import Source
from app.base.values.facts import Change, key_of
from app.base.values.vocabulary import environment_of
from app.metrics.deployments.deployment import StoredChange


class ChangeConflict(Conflict):
    title = "Report contradicts another one"


async def record(
    tx: AsyncConnection, new: Change, *, source_id: int, now: datetime, strict: bool = False
) -> tuple[StoredChange, bool]:
    """Stores the change; returns it as stored, and whether it was new. The first report of an id counts.

    If `strict`, raises ChangeConflict for another report with the same id.
    """
    source = (await tx.execute(select(Source.name).where(Source.id == source_id))).scalar_one()
    values = asdict(new) | {
        "id": key_of(source, new.id),
        "reported_id": new.id,
        "source": source,
        "environment": environment_of(new.environment or ""),
        "received_at": now,
    }
    added = await tx.execute(upsert(schema.Change.__table__).values(values).on_conflict_do_nothing())
    stored = StoredChange(**(await tx.execute(_ONE, {"id": values["id"]})).mappings().one())
    if strict and not added.rowcount and any(getattr(stored, name) != values[name] for name in _STATED):
        message = (
            f"the change {stored.key!r} was reported with other values before; use another `id` for another change"
        )
        raise ChangeConflict(message)
    return stored, bool(added.rowcount)


async def handle_change(tx: AsyncConnection, new: Change, *, source_id: int, now: datetime) -> tuple[str, str]:
    """Takes a change from a webhook in the caller's transaction: its key, and the verdict."""
    stored, is_new = await record(tx, new, source_id=source_id, now=now)
    return stored.key, "recorded" if is_new else "repeated"


@dataclass(frozen=True, slots=True)
class Filters:
    """Any of the services and environments; none of them means all. Times are half-open."""

    service: Sequence[str] = ()
    environment: Sequence[str] = ()  # a word that names none stands for those without one
    start: datetime | None = None
    end: datetime | None = None
    text: str | None = None  # in the id, the summary, the version or the hash, whatever the case


async def changes(
    tx: AsyncConnection, filters: Filters, *, after: Sequence[Any] | None = None, oldest_first: bool = False, limit: int
) -> Sequence[StoredChange]:
    """Newest or oldest first. `after` is the time and the key of the last one before."""
    at, key = after or (None, None)
    found = await tx.execute(_LISTED[oldest_first], _bound(filters) | {"at": at, "key": key, "limit": limit})
    return [StoredChange(**row) for row in found.mappings()]


async def count_changes(tx: AsyncConnection, filters: Filters) -> int:
    return int((await tx.execute(_COUNTED, _bound(filters))).scalar_one())


def _bound(filters: Filters) -> dict[str, Any]:
    environments = [environment_of(word) or "" for word in filters.environment]
    return asdict(filters) | {"service": [*filters.service], "environment": environments}


_STATED = ("service", "happened_at", "summary", "environment", "version", "sha", "link")
_COLUMNS = f"{', '.join(_STATED)}, clock_ahead, source, id AS key"

_ONE = text(f"SELECT {_COLUMNS}, reported_id AS id, false AS deployment FROM change WHERE id = :id")  # noqa: S608


_MATCHES = """(CAST(:service AS text[]) = '{}' OR service = ANY(CAST(:service AS text[])))
            AND (CAST(:environment AS text[]) = '{}'
                 OR coalesce(environment, '') = ANY(CAST(:environment AS text[])))
            AND (CAST(:start AS timestamptz) IS NULL OR happened_at >= :start)
            AND (CAST(:end AS timestamptz) IS NULL OR happened_at < :end)"""
_CONTAINS = "(CAST(:text AS text) IS NULL OR strpos(lower(concat_ws(E'\\n', {})), lower(:text)) > 0)"
_OWN = f"{_MATCHES} AND {_CONTAINS.format('reported_id, summary, version, sha')}"
_SYNCS = f"unchanged AND {_MATCHES} AND {_CONTAINS.format('reported_id, version, sha')}"


def _listed(direction: str, beyond: str) -> TextClause:
    def page(columns: str, table: str, condition: str) -> str:
        return f"""
        (SELECT {columns}
           FROM {table}
          WHERE {condition}
            AND (   CAST(:at AS timestamptz) IS NULL
                 OR (happened_at, id) {beyond} (CAST(:at AS timestamptz), CAST(:key AS text)))
          ORDER BY happened_at {direction}, id {direction}
          LIMIT :limit)"""  # noqa: S608

    own = page(f"{_COLUMNS}, reported_id AS id, false AS deployment", "change", _OWN)
    syncs = page(
        f"{_COLUMNS.replace('summary', 'NULL AS summary')}, coalesce(reported_id, id) AS id, true AS deployment",
        "deployment",
        _SYNCS,
    )
    return text(f"{own} UNION ALL {syncs} ORDER BY happened_at {direction}, key {direction} LIMIT :limit")


_LISTED = {False: _listed("DESC", "<"), True: _listed("ASC", ">")}  # by whether the oldest come first
_COUNTED = text(f"""
    SELECT (SELECT count(*) FROM change WHERE {_OWN}) + (SELECT count(*) FROM deployment WHERE {_SYNCS})
""")  # noqa: S608
