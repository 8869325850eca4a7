"""Whether the demo is in a database, how it gets in, and how it gets out.

Everything that the demo creates has a name of its own, so it is only played where none of these names is in use. Its
sources are marked by a token that was created together with them; what else bears its names was then created by the
demo, or was recorded about its services since. Its alerts are grouped by a rule of its own, and grouping keys contain
the rule, so its incidents have no alerts of others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.access import tokens
from app.base.access.tokens import Scope
from app.base.commands import REMOVE_DEMO
from app.base.errors import Problem
from app.base.schema import Calendar, Maintenance, Rule, Service, Source, Token
from app.demo.catalog import CALENDAR, HEARTBEAT_RULE, MAINTENANCE, RULE, SERVICES, SOURCES

MARK = "aftermath demo"  # the name of its tokens
_SERVICES = [service.name for service in SERVICES]


class AlreadyPlayed(Problem):
    """The demo is in the database."""


class NotPlayed(Problem):
    """The demo is not in the database."""


class NameInUse(Problem):
    """Something else has a name of the demo."""


@dataclass(frozen=True, slots=True)
class Access:
    """The tokens with which the demo is played: that of an admin, and one for each source."""

    admin: str
    sources: Mapping[str, str]


async def enter(engine: AsyncEngine, *, now: datetime) -> Access:
    """Creates the sources of the demo, and tokens that are valid until `leave`. Raises AlreadyPlayed or NameInUse."""
    async with db.session(engine) as session:
        await (await session.connection()).execute(_ONE_AT_A_TIME)
        if played_at := await _played_at(session):
            raise AlreadyPlayed(
                f"the demo was played on {played_at:%Y-%m-%d at %H:%M} UTC; remove it first with `{REMOVE_DEMO}`"
            )
        if taken := await _taken(session):
            raise NameInUse(
                f"the demo needs these names, which are in use: {', '.join(taken)}. It would change your data, so "
                "nothing was loaded; use another database (AFTERMATH_DATA_DIR or AFTERMATH_DATABASE_URL)"
            )
        admin = await tokens.create_token(session, MARK, Scope.ADMIN, now=now)
        of_sources = {
            source: await tokens.create_token(session, MARK, Scope.INGEST, now=now, source_name=source, kind=kind)
            for source, kind in SOURCES.items()
        }
    return Access(admin, of_sources)


async def leave(engine: AsyncEngine, access: Access, *, now: datetime) -> None:
    """Revokes the tokens of the sources, which keep marking them, and deletes that of the admin."""
    async with db.session(engine) as session:
        for token in access.sources.values():
            await tokens.revoke_token(session, tokens.id_of(token) or "", now=now)
        await session.exec(delete(Token).where(col(Token.id) == tokens.id_of(access.admin)))


@dataclass(frozen=True, slots=True)
class Removed:
    incidents: int
    deployments: int


async def remove(engine: AsyncEngine) -> Removed:
    """Deletes the demo, and whatever was recorded about its services since. Raises NotPlayed."""
    async with db.session(engine) as session:
        tx = await session.connection()
        await tx.execute(_ONE_AT_A_TIME)
        played_at = await _played_at(session)
        if played_at is None:
            raise NotPlayed("the demo is not in this database, so there is nothing to remove")
        of = {
            "sources": list(SOURCES),
            "services": _SERVICES,
            "rules": [RULE, HEARTBEAT_RULE],
            "mark": MARK,
            "played_at": played_at,
            "calendar": CALENDAR,
            "maintenance": MAINTENANCE,
        }
        for job in ("settle", "watch", "reviews"):
            await tx.execute(_WAIT_FOR, {"job": f"aftermath.{job}"})
        counts = {name: (await tx.execute(text(sql), _bound(sql, of))).rowcount for name, sql in _DELETE.items()}
    return Removed(counts["incident"], counts["deployment"])


async def _played_at(session: AsyncSession) -> datetime | None:
    """When the sources of the demo were created, None if they do not exist or are not the demo's."""
    query = (
        select(Source.created_at)
        .join(Token, col(Token.source_id) == Source.id)
        .where(col(Source.name).in_(SOURCES), Token.name == MARK, Token.created_at == Source.created_at)
    )
    return (await session.exec(query)).first()


async def _taken(session: AsyncSession) -> list[str]:
    """The names of the demo that are in use, with the kind of thing that has them."""
    found: list[str] = []
    for kind, column, names in (
        ("source", col(Source.name), [*SOURCES]),
        ("service", col(Service.name), _SERVICES),
        ("rule", col(Rule.name), [RULE, HEARTBEAT_RULE]),
        ("calendar", col(Calendar.name), [CALENDAR]),
        ("maintenance", col(Maintenance.name), [MAINTENANCE]),
    ):
        query = select(column).where(column.in_(names)).order_by(column)
        found += [f"{kind} {name!r}" for name in (await session.exec(query)).all()]
    return found


def _bound(statement: str, values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if f":{name}" in statement}


_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('aftermath.demo'))")
_WAIT_FOR = text("SELECT pg_advisory_xact_lock(hashtext(:job))")

_OF_SOURCES = "source_id IN (SELECT id FROM source WHERE name = ANY(CAST(:sources AS text[])))"
_OF_INCIDENTS = "incident_id IN (SELECT id FROM demo_incident)"
_OF_REPORTS = f"""
    (review_id IN (SELECT id FROM demo_review)
     OR public_incident_id IN (SELECT id FROM public_incident WHERE {_OF_INCIDENTS}))
"""
_OF_SERVICES = "service IN (SELECT name FROM demo_service)"
_DEPLOYED = f"({_OF_SERVICES} OR source = ANY(CAST(:sources AS text[])))"

# In order. Services that others report incidents about stay, with their counters.
_DELETE = {
    "incidents": """
        CREATE TEMPORARY TABLE demo_incident ON COMMIT DROP AS
        SELECT id, key_id
          FROM incident
         WHERE rule = ANY(CAST(:rules AS text[]))
            OR rule = 'declared'
           AND service = ANY(CAST(:services AS text[]))
    """,
    "services": """
        CREATE TEMPORARY TABLE demo_service ON COMMIT DROP AS
        SELECT name
          FROM service
         WHERE name = ANY(CAST(:services AS text[]))
           AND NOT EXISTS (SELECT
                             FROM incident
                            WHERE service.name IN (incident.service, incident.service_stated)
                              AND incident.id NOT IN (SELECT id FROM demo_incident))
    """,
    "reviews": f"""
        CREATE TEMPORARY TABLE demo_review ON COMMIT DROP AS
        SELECT id
          FROM review
         WHERE drafted_for IN (SELECT id FROM demo_incident)
            OR EXISTS (SELECT FROM review_incident WHERE review_id = review.id AND {_OF_INCIDENTS})
           AND NOT EXISTS (SELECT FROM review_incident WHERE review_id = review.id AND NOT {_OF_INCIDENTS})
    """,
    "action_item": f"""
        DELETE FROM action_item
         WHERE review_id IN (SELECT id FROM demo_review)
            OR review_id IS NULL
           AND {_OF_INCIDENTS}
    """,
    "action_item_kept": f"UPDATE action_item SET incident_id = NULL WHERE {_OF_INCIDENTS}",
    "public_report": f"""
        DELETE FROM public_report
         WHERE id IN (SELECT report_id FROM report_version WHERE {_OF_REPORTS})
    """,
    "report_version": f"""
        DELETE FROM report_version
         WHERE report_id IN (SELECT report_id FROM report_version WHERE {_OF_REPORTS})
    """,
    "review": "DELETE FROM review WHERE id IN (SELECT id FROM demo_review)",
    "review_incident": f"DELETE FROM review_incident WHERE {_OF_INCIDENTS}",
    "unmatched_resolve": """
        DELETE FROM unmatched_resolve
         WHERE series IN (SELECT series FROM alert WHERE key_id IN (SELECT key_id FROM demo_incident))
    """,
    "alert": "DELETE FROM alert WHERE key_id IN (SELECT key_id FROM demo_incident)",
    "timeline": f"DELETE FROM timeline WHERE {_OF_INCIDENTS}",
    "incident_relation": f"""
        DELETE FROM incident_relation
         WHERE {_OF_INCIDENTS}
            OR other_id IN (SELECT id FROM demo_incident)
    """,
    "public_update": f"""
        DELETE FROM public_update
         WHERE public_incident_id IN (SELECT id FROM public_incident WHERE {_OF_INCIDENTS})
    """,
    "public_incident": f"DELETE FROM public_incident WHERE {_OF_INCIDENTS}",
    "incident": "DELETE FROM incident WHERE id IN (SELECT id FROM demo_incident)",
    "reaction": f"DELETE FROM reaction WHERE {_OF_SOURCES}",
    "acknowledgement": f"DELETE FROM acknowledgement WHERE {_OF_SOURCES}",
    "delivery": f"DELETE FROM delivery WHERE received_at >= :played_at AND {_OF_SOURCES}",
    "stored_request": f"DELETE FROM stored_request WHERE {_OF_SOURCES}",
    "heartbeat": f"DELETE FROM heartbeat WHERE {_OF_SOURCES}",
    "feed_sample": f"DELETE FROM feed_sample WHERE {_OF_SOURCES}",
    "reconciler": f"DELETE FROM reconciler WHERE {_OF_SOURCES}",
    "deployment_report": f"""
        DELETE FROM deployment_report
         WHERE deployment_id IN (SELECT id FROM deployment WHERE {_DEPLOYED})
    """,
    "deployment": f"DELETE FROM deployment WHERE {_DEPLOYED}",
    "change": f"DELETE FROM change WHERE {_DEPLOYED}",
    **{
        table: f"DELETE FROM {table} WHERE {_OF_SERVICES}"
        for table in (
            "settled_in_environment",
            "settled_measure",
            "settled_downtime",
            "settled_cost",
            "service_rate",
            "objective",
        )
    },
    "tally": """
        DELETE FROM tally
         WHERE source IN (SELECT name FROM demo_service)
            OR source = ANY(CAST(:sources AS text[]))
    """,
    "service": "DELETE FROM service WHERE name IN (SELECT name FROM demo_service)",
    "maintenance": "DELETE FROM maintenance WHERE name = :maintenance",
    "calendar": "DELETE FROM calendar WHERE name = :calendar",
    "rule": "DELETE FROM rule WHERE name = ANY(CAST(:rules AS text[]))",
    "token": f"""
        DELETE FROM token
         WHERE {_OF_SOURCES}
            OR name = :mark
           AND created_at = :played_at
    """,
    "source": "DELETE FROM source WHERE name = ANY(CAST(:sources AS text[]))",
}
