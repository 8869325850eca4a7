"""SQL of search: one statement.

What people write is found by the words of full-text indexes, whatever its age. Titles made of alerts have no such index
(docs/decisions.md), so the newest incidents are read instead, a bounded number.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Protocol

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.schema.search import (
    TITLE_IS_BY_A_PERSON,
    WORDS_OF_ACTION_ITEM,
    WORDS_OF_FINDING,
    WORDS_OF_INCIDENT,
    WORDS_OF_REVIEW,
)
from app.search.question import Question, ResultKind
from app.search.result import Result, ranked, snippet

RESULTS_AT_MOST = 100
INCIDENTS_READ = 100_000  # the newest ones
SERVICES_READ = 20_000


@dataclass(frozen=True, slots=True)
class SearchResults:
    """The best results. `incidents_since`: incidents that began before were found only by number, or by a title that a
    person wrote; None if there are none.
    """

    results: Sequence[Result]
    more: bool
    incidents_since: datetime | None


class _Row(Protocol):
    """A row of the statement: the columns of its parts."""

    @property
    def kind(self) -> str: ...
    @property
    def number(self) -> int | None: ...
    @property
    def name(self) -> str | None: ...
    @property
    def title(self) -> str: ...
    @property
    def body(self) -> str | None: ...
    @property
    def at(self) -> datetime: ...
    @property
    def service(self) -> str | None: ...
    @property
    def state(self) -> str | None: ...
    @property
    def severity(self) -> int | None: ...
    @property
    def review(self) -> int | None: ...
    @property
    def incident(self) -> int | None: ...
    @property
    def tier(self) -> int: ...


async def search(tx: AsyncConnection, asked: Question, kinds: Collection[ResultKind], *, limit: int) -> SearchResults:
    """The best results of these kinds (empty: of all). One statement; none if there is nothing to look for."""
    parts = [_BY_NUMBER[kind] for kind in ResultKind if kind in (kinds or ResultKind) and asked.numbers.get(kind)]
    if asked.words:
        parts += [part for kind in ResultKind if kind in (kinds or ResultKind) for part in _BY_WORDS[kind]]
    if not parts:
        return SearchResults([], more=False, incidents_since=None)
    values = {
        "phrase": asked.phrase,
        "first": asked.words[0] if asked.words else "",
        "patterns": [f"%{word}%" for word in asked.words],
        "query": " & ".join(f"'{word}':*" for word in asked.words),
        "limit": limit + 1,
        "incidents_read": INCIDENTS_READ,
        "services_read": SERVICES_READ,
    } | {f"{kind}_numbers": list(numbers) for kind, numbers in asked.numbers.items()}
    statement, names = _statement(tuple(parts))
    rows = (await tx.execute(statement, {name: values[name] for name in names})).all()
    since = next((row.at for row in rows if row.kind == _OLDER), None)
    # Of two rows for one thing, the better one counts.
    best = {
        (row.kind, row.number, row.name): _result(row, asked)
        for row in sorted(rows, key=lambda row: -row.tier)
        if row.kind != _OLDER
    }
    results = ranked(best.values())
    return SearchResults(results[:limit], len(results) > limit, since)


def _result(row: _Row, asked: Question) -> Result:
    body = snippet(row.body, asked.words) if row.body else None
    is_finding = row.kind == ResultKind.FINDING
    return Result(
        kind=ResultKind(row.kind),
        tier=row.tier,
        number=row.number,
        name=row.name,
        title=(body or "") if is_finding else row.title,
        snippet=None if is_finding else body,
        at=row.at,
        service=row.service,
        state=row.state,
        severity=row.severity,
        review=row.review,
        incident=row.incident,
    )


_OLDER = "older"


@cache
def _statement(parts: tuple[str, ...]) -> tuple[TextClause, frozenset[str]]:
    """The parts as one statement, and the names of its parameters."""
    statement = text("\n UNION ALL\n".join(_of_part(name) for name in parts))
    return statement, frozenset(statement.compile().params)


def _of_part(name: str) -> str:
    tier = "0" if name.endswith(" numbers") else _TIER
    return f"""
    (SELECT kind, number, name, left(title, 1000) AS title, {_WINDOW} AS body, at, service, state, severity, review,
            incident, {tier} AS tier
       FROM ({_PARTS[name]}) AS part
      ORDER BY tier, at DESC
      LIMIT :limit)"""  # noqa: S608  constants of this file


# How well a title matches; 4: the words are elsewhere, or further apart.
_TIER = """CASE WHEN lower(title) = :phrase THEN 1
                 WHEN starts_with(lower(title), :phrase) THEN 2
                 WHEN lower(title) LIKE ALL(CAST(:patterns AS text[])) THEN 3
                 ELSE 4 END"""
_WINDOW = "substring(body FROM greatest(1, strpos(lower(body), :first) - 200) FOR 600)"

_INCIDENT = """
    SELECT 'incident' AS kind, number, NULL AS name, coalesce(title_stated, title) AS title, NULL AS body,
           began_at AS at, coalesce(service_stated, service) AS service,
           CASE WHEN ended_at IS NOT NULL THEN 'resolved'
                WHEN acknowledged_at IS NULL THEN 'open'
                ELSE 'acknowledged' END AS state,
           coalesce(severity_stated, severity) AS severity, NULL::bigint AS review, NULL::bigint AS incident
      FROM incident"""
_REVIEW = """
    SELECT 'review' AS kind, number, NULL AS name, title,
           summary || ' ' || customer_impact || ' ' || resolution AS body,
           created_at AS at, NULL AS service, state, NULL::smallint AS severity, number AS review,
           NULL::bigint AS incident
      FROM review"""
_FINDING = """
    SELECT 'finding' AS kind, NULL::bigint AS number, found.id::text AS name, found.text AS title, found.text AS body,
           found.created_at AS at, NULL AS service, found.kind AS state, NULL::smallint AS severity,
           review.number AS review, NULL::bigint AS incident
      FROM (SELECT * FROM finding WHERE {where}) AS found
      JOIN review ON review.id = found.review_id"""
_ACTION_ITEM = """
    SELECT 'action_item' AS kind, found.number, NULL AS name, found.title, found.done_when AS body,
           found.created_at AS at, NULL AS service, found.state, NULL::smallint AS severity, review.number AS review,
           incident.number AS incident
      FROM (SELECT * FROM action_item WHERE {where}) AS found
      LEFT JOIN review ON review.id = found.review_id
      LEFT JOIN incident AS named ON named.id = found.incident_id
      LEFT JOIN incident ON incident.id = coalesce(named.merged_into, named.id)"""
_SERVICE = """
    SELECT 'service' AS kind, NULL::bigint AS number, name, name AS title, owner AS body, first_seen_at AS at,
           NULL AS service, NULL AS state, NULL::smallint AS severity, NULL::bigint AS review, NULL::bigint AS incident
      FROM (SELECT name, owner, first_seen_at FROM service ORDER BY name LIMIT :services_read) AS service
     WHERE lower(name || ' ' || coalesce(owner, '')) LIKE ALL(CAST(:patterns AS text[]))"""
_NEWEST = """merged_into IS NULL
     ORDER BY began_at DESC, number DESC"""
_MATCHES = "@@ to_tsquery('simple', :query)"

_PARTS: Mapping[str, str] = {
    "incident numbers": f"{_INCIDENT} WHERE number = ANY(CAST(:incident_numbers AS bigint[]))",
    "incidents": f"""
    SELECT *
      FROM ({_INCIDENT} WHERE {_NEWEST} LIMIT :incidents_read) AS recent
     WHERE lower(title || ' ' || service) LIKE ALL(CAST(:patterns AS text[]))""",  # noqa: S608  constants of this file
    "incidents with a title by a person": f"""
    {_INCIDENT} WHERE merged_into IS NULL AND {TITLE_IS_BY_A_PERSON} AND {WORDS_OF_INCIDENT} {_MATCHES}""",
    # When the newest one began that is not read.
    "older incidents": f"""
    SELECT '{_OLDER}' AS kind, number, name, title, body, at, service, state, severity, review, incident
      FROM ({_INCIDENT} WHERE {_NEWEST} OFFSET :incidents_read LIMIT 1) AS older""",  # noqa: S608
    "review numbers": f"{_REVIEW} WHERE number = ANY(CAST(:review_numbers AS bigint[]))",
    "reviews": f"{_REVIEW} WHERE {WORDS_OF_REVIEW} {_MATCHES}",
    "findings": _FINDING.format(where=f"{WORDS_OF_FINDING} {_MATCHES}"),
    "action item numbers": _ACTION_ITEM.format(where="number = ANY(CAST(:action_item_numbers AS bigint[]))"),
    "action items": _ACTION_ITEM.format(where=f"{WORDS_OF_ACTION_ITEM} {_MATCHES}"),
    "services": _SERVICE,
}
_BY_NUMBER = {
    ResultKind.INCIDENT: "incident numbers",
    ResultKind.REVIEW: "review numbers",
    ResultKind.ACTION_ITEM: "action item numbers",
}
_BY_WORDS = {
    ResultKind.SERVICE: ("services",),
    ResultKind.INCIDENT: ("incidents", "incidents with a title by a person", "older incidents"),
    ResultKind.REVIEW: ("reviews",),
    ResultKind.FINDING: ("findings",),
    ResultKind.ACTION_ITEM: ("action items",),
}
