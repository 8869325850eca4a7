"""SQL for rules. Changes only affect later alerts: each alert keeps the decision of its rule."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, delete, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db, schema
from app.base.errors import Conflict, NotFound
from app.incidents.grouping.rule import DEFAULT_NAME, DEFAULT_RULE, Rule, ordered, parse_matcher


class RuleNotFound(NotFound):
    title = "Rule not found"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no rule {name!r}; GET /api/v1/rules lists all rules")


class DefaultRuleProtected(Conflict):
    title = "The default rule cannot be changed this way"


async def rules(tx: AsyncConnection) -> tuple[Rule, ...]:
    """All rules in the order in which they are tried. The default rule always exists and is last."""
    async with db.session_within(tx) as session:
        return ordered(_rule(row) for row in await session.exec(select(schema.Rule)))


async def list_rules(session: AsyncSession, *, after: tuple[int, str] | None, limit: int) -> Sequence[schema.Rule]:
    """Rules after the position and name in `after`, sorted by both."""
    place = tuple_(col(schema.Rule.position), col(schema.Rule.name))
    query = select(schema.Rule).order_by(*place).limit(limit)
    if after is not None:
        query = query.where(place > tuple_(*after))
    return (await session.exec(query)).all()


async def find_rule(session: AsyncSession, name: str) -> schema.Rule:
    """Raises RuleNotFound."""
    found = await session.get(schema.Rule, name)
    if found is None:
        raise RuleNotFound(name)
    return found


async def put_rule(session: AsyncSession, rule: schema.Rule) -> tuple[schema.Rule, bool]:
    """The stored rule, and whether it is new; raises DefaultRuleProtected."""
    if (rule.name == DEFAULT_NAME) != (rule.position == DEFAULT_RULE.position):
        message = (
            f"position {DEFAULT_RULE.position} is reserved for the rule `{DEFAULT_NAME}`, which is always tried last"
        )
        raise DefaultRuleProtected(message)
    if rule.name == DEFAULT_NAME and rule.matchers:
        message = (
            f"the rule `{DEFAULT_NAME}` cannot have matchers, because it applies to every alert that no other rule "
            "matches; create another rule instead"
        )
        raise DefaultRuleProtected(message)
    return await db.upsert(session, rule)


async def delete_rule(session: AsyncSession, name: str) -> None:
    """Raises RuleNotFound or DefaultRuleProtected."""
    if name == DEFAULT_NAME:
        message = (
            f"the rule `{DEFAULT_NAME}` applies to every alert that no other rule matches; it can be changed but not "
            "deleted"
        )
        raise DefaultRuleProtected(message)
    deleted = await session.exec(delete(schema.Rule).where(col(schema.Rule.name) == name))
    if deleted.rowcount == 0:
        raise RuleNotFound(name)


def _rule(row: schema.Rule) -> Rule:
    return Rule(
        name=row.name,
        position=row.position,
        matchers=tuple(parse_matcher(matcher) for matcher in row.matchers),
        key_labels=tuple(row.key_labels),
        window=timedelta(seconds=row.window_seconds),
        max_span=timedelta(seconds=row.max_span_seconds),
        ignored_labels=tuple(row.ignored_labels),
        service_labels=tuple(row.service_labels),
        severity_labels=tuple(row.severity_labels),
        severities={word: int(severity.removeprefix("sev")) for word, severity in row.severities.items()},
        heartbeat=None if row.heartbeat_seconds is None else timedelta(seconds=row.heartbeat_seconds),
    )
