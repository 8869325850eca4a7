"""Checks that everything answered with 2xx is stored: nothing missing or duplicated, incidents as the law requires."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from app.incidents.grouping.law import lifecycle
from app.incidents.grouping.law.episode import End, fired_after_end
from app.incidents.grouping.signal import EndReason
from bench.load import Answered


class Wrong(Exception):
    """The stored data does not match the responses."""


def check_counters(answered: Answered, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Checks that the counters increased by the number of answered deliveries and signals. Raises Wrong."""
    unanswered = len(answered.refused)
    for name, each in (("deliveries", 1), ("signals", answered.load.alerts)):
        counted = after[name] - before[name]
        if not answered.webhooks * each <= counted <= (answered.webhooks + unanswered) * each:
            raise Wrong(f"{answered.webhooks} bodies of {each} {name} were acknowledged, but {counted} were counted")


async def check_stored(connection: asyncpg.Connection, answers: Sequence[Answered]) -> None:
    """Compares the stored alerts and incidents of one run with everything it sent. Raises Wrong."""
    load = answers[0].load
    since = load.at(0)
    alerts = list(map(dict, await connection.fetch(_ALERTS, load.service, f"{load.run:04x}", since)))
    incidents = list(map(dict, await connection.fetch(_INCIDENTS, load.service, since)))
    differences = [*stored_differs(answers, alerts), *law_differs(alerts, incidents)]
    if differences:
        raise Wrong("; ".join(differences))


_ALERTS = """
    SELECT alert.*
      FROM alert
     WHERE alert.key_id IN (SELECT incident.key_id FROM incident WHERE starts_with(incident.service, $1))
       AND starts_with(alert.fingerprint, $2)
       AND alert.started_at >= $3
"""
_INCIDENTS = """
    SELECT *
      FROM incident
     WHERE starts_with(service, $1)
       AND began_at >= $2
       AND merged_into IS NULL
     ORDER BY key_id, began_at
"""


def stored_differs(answers: Sequence[Answered], alerts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    load = answers[0].load
    sure, unsure = _sent_alerts(answers)
    stored = [int(alert["fingerprint"][4:]) for alert in alerts]
    once = set(stored)
    if missing := sure.keys() - once:
        yield f"{len(missing)} of {len(sure)} alerts that were answered with 2xx are missing, such as {min(missing)}"
    if len(once) != len(stored):
        yield f"{len(stored) - len(once)} alerts are stored twice"
    if strangers := once - sure.keys() - unsure:
        yield f"{len(strangers)} stored alerts were never sent, such as {min(strangers)}"
    if moved := [id_ for id_, alert in zip(stored, alerts, strict=True) if alert["started_at"] != load.at(id_)]:
        yield f"{len(moved)} alerts have a different start than sent, such as {min(moved)}"
    ends = {id_: alert["ended_at"] for id_, alert in zip(stored, alerts, strict=True)}
    if differ := [id_ for id_ in sure.keys() & once - unsure if ends[id_] != sure[id_]]:
        yield f"{len(differ)} alerts have a different end than sent, such as {min(differ)}"


def _sent_alerts(answers: Sequence[Answered]) -> tuple[dict[int, datetime | None], set[int]]:
    """The alerts in bodies answered with 2xx, with their ends, and the alerts in all other bodies."""
    sure: dict[int, datetime | None] = {}
    unsure = set[int]()
    for answered in answers:
        for turn in answered.turns():
            body = answered.load.contents(turn)
            assert body is not None, "every body that was sent has contents"
            ids, ends = body
            if turn in answered.refused:
                unsure.update(ids)
            elif ends is None:
                sure |= {id_: None for id_ in ids if id_ not in sure}
            else:
                sure.update(zip(ids, map(answered.load.at, ends), strict=True))
    return sure, unsure


def law_differs(alerts: Iterable[Mapping[str, Any]], incidents: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Compares stored incidents with those that the law derives from the stored alerts."""
    by_key: dict[UUID, list[lifecycle.Alert]] = defaultdict(list)
    for alert in alerts:
        by_key[alert["key_id"]].append(
            lifecycle.Alert(
                alert["series"],
                alert["started_at"],
                End(alert["ended_at"], EndReason(alert["end_reason"])) if alert["ended_at"] else None,
                timedelta(seconds=alert["window_seconds"]),
                timedelta(seconds=alert["max_span_seconds"]),
                alert["severity"],
                impact_started_at_reported=alert["impact_started_at_reported"],
                fired_after_end_at=fired_after_end(alert["fired_at"], alert["end_reported_at"]),
            )
        )
    lawful = {
        (key, state.began_at): state
        for key, of_key in by_key.items()
        for state in map(lifecycle.incident_state, lifecycle.incidents_of(of_key))
    }
    stored = {(row["key_id"], row["began_at"]): _state(row) for row in incidents}
    if stored != lawful:
        other = sum(lawful.get(place) != state for place, state in stored.items())
        yield f"{len(lawful)} incidents expected by the law, {len(stored)} stored, of which {other} differ"


def _state(row: Mapping[str, Any]) -> lifecycle.IncidentState:
    return lifecycle.IncidentState(
        began_at=row["began_at"],
        last_start_at=row["last_start_at"],
        stretch_began_at=row["stretch_began_at"],
        first_ended_at=row["first_ended_at"],
        last_end=End(row["last_end_at"], EndReason(row["end_reason"])) if row["last_end_at"] else None,
        reach_at=row["reach_at"],
        reopened=row["reopened"],
        alerts=row["alerts"],
        open_alerts=row["open_alerts"],
        severity=row["severity"],
        impact_started_at_reported=row["impact_started_at_reported"],
        fired_after_end_at=row["fired_after_end_at"],
    )
