"""SQL for rules. Changes only affect later alerts: each alert keeps the decision of its rule."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, delete, select, tuple_
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.base import db, schema
from app.base.errors import Conflict, NotFound
from app.base.process.threads import off_loop
from app.catalog.rules.order import Place, moved
from app.catalog.rules.trial import Comparison, PastAlert, compare
from app.incidents.grouping.batch import MANUAL_SOURCE_ID
from app.incidents.grouping.rule import DEFAULT_NAME, DEFAULT_RULE, Rule, Rules, ordered, parse_matcher
from app.incidents.grouping.signal import AlertClass


class RuleNotFound(NotFound):
    title = "Rule not found"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no rule {name!r}; GET /api/v1/rules lists all rules")


class DefaultRuleProtected(Conflict):
    title = "The default rule cannot be changed this way"


async def rules(tx: AsyncConnection) -> tuple[Rule, ...]:
    """All rules in the order in which they are tried. The default rule always exists and is last."""
    async with db.session_within(tx) as session:
        return ordered(rule_of(row) for row in await session.exec(select(schema.Rule)))


async def list_rules(
    session: AsyncSession, containing: str | None = None, *, after: tuple[int, str] | None, limit: int
) -> Sequence[schema.Rule]:
    """Rules after the position and name in `after` whose names contain the text, sorted by both."""
    place = tuple_(col(schema.Rule.position), col(schema.Rule.name))
    query = _matching(containing).order_by(*place).limit(limit)
    if after is not None:
        query = query.where(place > tuple_(*after))
    return (await session.exec(query)).all()


async def count_rules(session: AsyncSession, containing: str | None = None) -> int:
    return await db.total(session, _matching(containing))


def _matching(containing: str | None) -> SelectOfScalar[schema.Rule]:
    return select(schema.Rule).where(db.containing(containing, schema.Rule.name))


async def find_rule(session: AsyncSession, name: str) -> schema.Rule:
    """Raises RuleNotFound."""
    found = await session.get(schema.Rule, name)
    if found is None:
        raise RuleNotFound(name)
    return found


async def put_rule(session: AsyncSession, rule: schema.Rule) -> tuple[schema.Rule, bool]:
    """The stored rule, and whether it is new; raises DefaultRuleProtected."""
    _require_allowed(rule)
    return await db.upsert(session, rule)


async def delete_rule(session: AsyncSession, name: str) -> None:
    """Raises RuleNotFound or DefaultRuleProtected."""
    _require_deletable(name)
    deleted = await session.exec(delete(schema.Rule).where(col(schema.Rule.name) == name))
    if deleted.rowcount == 0:
        raise RuleNotFound(name)


async def move_rule(session: AsyncSession, name: str, steps: int, *, now: datetime) -> None:
    """Lets the rule be tried that many rules later, or earlier if negative. Others change only if they must.

    Raises RuleNotFound or DefaultRuleProtected.
    """
    # Locked in the order of names, so that concurrent moves wait instead of deadlocking.
    query = select(schema.Rule).order_by(col(schema.Rule.name)).with_for_update()
    known = {rule.name: rule for rule in await session.exec(query)}
    if name not in known:
        raise RuleNotFound(name)
    default = known.pop(DEFAULT_NAME, None)
    if default is not None and name == DEFAULT_NAME:
        message = f"the rule `{DEFAULT_NAME}` is always tried last"
        raise DefaultRuleProtected(message)
    for each, position in moved([Place(rule.position, rule.name) for rule in known.values()], name, steps).items():
        known[each].position, known[each].updated_at = position, now
        _require_allowed(known[each])


def _require_allowed(rule: schema.Rule) -> None:
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


def _require_deletable(name: str) -> None:
    if name == DEFAULT_NAME:
        message = (
            f"the rule `{DEFAULT_NAME}` applies to every alert that no other rule matches; it can be changed but not "
            "deleted"
        )
        raise DefaultRuleProtected(message)


def rule_of(row: schema.Rule) -> Rule:
    """The rule in a row. Raises InvalidMatcher."""
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
        environment_labels=tuple(row.environment_labels),
        environment=row.environment,
        heartbeat=None if row.heartbeat_seconds is None else timedelta(seconds=row.heartbeat_seconds),
        opens_incidents=row.opens_incidents,
        recoveries=frozenset(row.recoveries),
    )


# — trying rules —

TRIED_ALERTS, TRIED_BYTES = 20_000, 16 * 2**20  # of labels


@dataclass(frozen=True, slots=True)
class Trial:
    """The effect that changes of rules would have had on the incidents that ran since `since`.

    Of these, the newest that together have at most `TRIED_ALERTS` alerts are compared, and `left_out` are not.
    `titles` has those of the compared ones by number.
    """

    since: datetime
    left_out: int
    titles: Mapping[int, str]
    comparison: Comparison


async def try_rules(tx: AsyncConnection, changes: Mapping[str, schema.Rule | None], *, since: datetime) -> Trial:
    """Compares the present rules with those after `changes`: by name a rule to create or replace, or None to delete it.

    Changes nothing. Three statements. Raises RuleNotFound or DefaultRuleProtected.
    """
    present = {rule.name: rule for rule in await rules(tx)}
    proposed = dict(present)
    for name, rule in changes.items():
        if rule is None:
            _require_deletable(name)
            if proposed.pop(name, None) is None:
                raise RuleNotFound(name)
        else:
            _require_allowed(rule)
            proposed[name] = rule_of(rule)
    limits = {"since": since, "alerts": TRIED_ALERTS, "bytes": TRIED_BYTES}
    incidents = (await tx.execute(_RECENT_INCIDENTS, limits)).all()
    titles = {row.number: row.title for row in incidents if row.number is not None}
    found = (await tx.execute(_ALERTS_OF, {"numbers": list(titles)})).all() if titles else []

    def work() -> Comparison:
        return compare(_past(found), Rules(present.values()), Rules(proposed.values()))

    return Trial(since, incidents[0].incidents - len(titles), titles, await off_loop(work))


class _AlertRow(Protocol):
    """An alert with its labels as JSON, and the number of its incident."""

    @property
    def series(self) -> UUID: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def ended_at(self) -> datetime | None: ...
    @property
    def alert_class(self) -> str: ...
    @property
    def labels(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def source_id(self) -> int: ...


def _past(rows: Iterable[_AlertRow]) -> Iterator[PastAlert]:
    labels = msgspec.json.Decoder(dict[str, str])
    for row in rows:
        yield PastAlert(
            row.series,
            row.started_at,
            row.ended_at,
            AlertClass(row.alert_class),
            labels.decode(row.labels),
            row.number,
            row.source_id == MANUAL_SOURCE_ID,
        )


_BELONGS = """alert.key_id = incident.key_id
       AND alert.started_at BETWEEN incident.began_at AND incident.last_start_at
       AND alert.incident_id = incident.id"""

# The incidents that ran since then, without those that people declared: their number, and the newest that fit.
# `ended_at` has an upper bound so that PostgreSQL expects few rows, see incidents/impact/store.py.
_RECENT_INCIDENTS = text(f"""
    WITH recent AS (
        SELECT id, key_id, number, coalesce(title_stated, title) AS title, began_at, last_start_at,
               sum(alerts) OVER (ORDER BY began_at DESC, number DESC) AS alerts_so_far
          FROM incident
         WHERE merged_into IS NULL
           AND alerts > 0
           AND (ended_at IS NULL OR ended_at BETWEEN :since AND 'infinity')
    ), sized AS (
        SELECT incident.number, incident.title,
               sum(size.bytes) OVER (ORDER BY incident.began_at DESC, incident.number DESC) AS bytes_so_far
          FROM recent AS incident
         CROSS JOIN LATERAL (
               SELECT coalesce(sum(octet_length(CAST(alert.labels AS text))), 0) AS bytes
                 FROM alert
                WHERE {_BELONGS}
               ) AS size
         WHERE alerts_so_far <= :alerts
    )
    SELECT total.incidents, sized.number, sized.title
      FROM (SELECT count(*) AS incidents FROM recent) AS total
      LEFT JOIN sized ON bytes_so_far <= :bytes
""")  # noqa: S608

_ALERTS_OF = text(f"""
    SELECT alert.series, alert.started_at, alert.ended_at, alert.alert_class, CAST(alert.labels AS text) AS labels,
           incident.number, alert.source_id
      FROM incident
      JOIN alert
        ON {_BELONGS}
     WHERE incident.number = ANY(CAST(:numbers AS bigint[]))
     ORDER BY alert.started_at, alert.series
""")  # noqa: S608
