"""The SQL of rules. A change affects later alerts only: each alert keeps what its rule decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, delete, literal_column, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.errors import Conflict, NotFound
from app.base.schema import rule as rule_table
from app.incidents.grouping.rule import DEFAULT_NAME, DEFAULT_RULE, Rule, ordered, parse_matcher


class RuleNotFound(NotFound):
    title = "No such rule"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no rule {name!r}; GET /api/v1/rules lists them")


class DefaultRuleStays(Conflict):
    title = "The default rule stays"


@dataclass(frozen=True, slots=True)
class KnownRule:
    rule: Rule
    created_at: datetime
    updated_at: datetime


async def rules(tx: AsyncConnection) -> tuple[Rule, ...]:
    """All, in the order in which they are asked; the default rule is last and never missing."""
    return ordered(known.rule for known in await _known(tx, select(rule_table)))


async def list_rules(tx: AsyncConnection, *, after: tuple[int, str] | None, limit: int) -> Sequence[KnownRule]:
    """By position and name, those behind `after`."""
    place = tuple_(rule_table.c.position, rule_table.c.name)
    query = select(rule_table).order_by(rule_table.c.position, rule_table.c.name).limit(limit)
    return await _known(tx, query if after is None else query.where(place > tuple_(*after)))


async def find_rule(tx: AsyncConnection, name: str) -> KnownRule:
    """Raises RuleNotFound."""
    for known in await _known(tx, select(rule_table).where(rule_table.c.name == name)):
        return known
    raise RuleNotFound(name)


async def put_rule(tx: AsyncConnection, rule: Rule, *, now: datetime) -> tuple[KnownRule, bool]:
    """The rule, and whether it is new; raises DefaultRuleStays."""
    if (rule.name == DEFAULT_NAME) != (rule.position == DEFAULT_RULE.position):
        message = (
            f"position {DEFAULT_RULE.position} is that of the rule `{DEFAULT_NAME}` and of no other: it is asked last"
        )
        raise DefaultRuleStays(message)
    if rule.name == DEFAULT_NAME and rule.matchers:
        message = f"the rule `{DEFAULT_NAME}` takes every alert that no other takes, so it has no matchers; add a rule"
        raise DefaultRuleStays(message)
    stated = {
        "position": rule.position,
        "matchers": [str(matcher) for matcher in rule.matchers],
        "key_labels": list(rule.key_labels),
        "window_seconds": _seconds(rule.window),
        "max_span_seconds": _seconds(rule.max_span),
        "ignored_labels": list(rule.ignored_labels),
        "service_labels": list(rule.service_labels),
        "severity_labels": list(rule.severity_labels),
        "severities": {word: f"sev{severity}" for word, severity in rule.severities.items()},
        "heartbeat_seconds": rule.heartbeat and _seconds(rule.heartbeat),
        "updated_at": now,
    }
    query = (
        upsert(rule_table)
        .values(name=rule.name, created_at=now, **stated)
        .on_conflict_do_update(index_elements=["name"], set_=stated)
        # A row that an upsert has inserted was never locked or deleted by anyone.
        .returning(*rule_table.c, literal_column("xmax = 0").label("is_new"))
    )
    row = (await tx.execute(query)).one()
    return _known_rule(row), row.is_new


async def delete_rule(tx: AsyncConnection, name: str) -> None:
    """Raises RuleNotFound or DefaultRuleStays."""
    if name == DEFAULT_NAME:
        message = f"the rule `{DEFAULT_NAME}` takes every alert that no other takes; it can be changed but not deleted"
        raise DefaultRuleStays(message)
    deleted = await tx.execute(delete(rule_table).where(rule_table.c.name == name))
    if deleted.rowcount == 0:
        raise RuleNotFound(name)


async def _known(tx: AsyncConnection, query: Select[Any]) -> Sequence[KnownRule]:
    return [_known_rule(row) for row in await tx.execute(query)]


def _known_rule(row: Row[Any]) -> KnownRule:
    return KnownRule(
        Rule(
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
        ),
        row.created_at,
        row.updated_at,
    )


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())
