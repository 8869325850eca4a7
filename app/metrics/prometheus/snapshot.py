"""Reads everything a scrape needs from the database, except for the ratios (`ratios.py`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from app.base.schema import Source
from app.base.values.vocabulary import UNKNOWN_ENVIRONMENT
from app.metrics.prometheus.reviews import ReviewNumbers, read_review_numbers

OTHER = "other"
TARGET_OUTCOMES, CHAT_MESSAGES = "target_outcomes", "chat_messages"  # tallies of the response
TASKS, UNKNOWN_PHASE = "tasks", "unknown"  # a tally, and its phase while the identification is not stated
ENVIRONMENTS_AT_MOST = 20
ENVIRONMENT = f"coalesce(environment, '{UNKNOWN_ENVIRONMENT}')"


def shown_environment(column: str) -> str:
    """An SQL expression for the environment as exported; `:environments` are those exported separately."""
    return f"CASE WHEN {column} = ANY(CAST(:environments AS text[])) THEN {column} ELSE '{OTHER}' END"


class Tally(Protocol):
    """A database row, used as it is: converting thousands of them would block the event loop."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...  # for deployments the service, for tasks the phase, …
    @property
    def label(self) -> str: ...
    @property
    def value(self) -> float | Decimal: ...


class Unsettled(Protocol):
    """A row: the incidents of one service, environment and severity that are open or not yet settled."""

    @property
    def service(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def severity(self) -> int: ...
    @property
    def open(self) -> int: ...
    @property
    def unacknowledged(self) -> int: ...
    @property
    def oldest_at(self) -> datetime | None: ...  # open ones
    @property
    def oldest_unacknowledged_at(self) -> datetime | None: ...


class SettledMeasure(Protocol):
    """A row: `n` values of one measure in one bucket."""

    @property
    def measure(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def severity(self) -> int: ...
    @property
    def bucket(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def seconds(self) -> Decimal: ...


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """The heartbeats of one source."""

    last_at: datetime  # of the heartbeat that has been silent for the longest
    missing: int


@dataclass(frozen=True, slots=True)
class OpenAlerts:
    """The open alerts of one source."""

    alerts_open: int
    alerts_unrefreshed: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Services and environments beyond their limits are folded into `other`; which ones never changes.

    The cost of reading it does not depend on the number of settled incidents.
    """

    services: Sequence[str]  # exported separately
    folded: int  # number of services folded into `other`
    sources: Sequence[str]
    tallies: Sequence[Tally]
    unsettled: Sequence[Unsettled]
    measures: Sequence[SettledMeasure]
    downtime: Mapping[str, Decimal]  # by service
    cost: Mapping[tuple[str, str], Decimal]  # by service and currency
    quarantine: Mapping[str, int]  # waiting, by source
    peers: Mapping[tuple[str, str], int]  # by source, and `answering` or `silent`
    heartbeats: Mapping[str, Heartbeats]  # by source
    alerts: Mapping[str, OpenAlerts]  # by source
    reviews: ReviewNumbers


async def read_snapshot(tx: AsyncConnection, *, services_at_most: int) -> Snapshot:
    """Fifteen statements."""
    own = (await tx.execute(_OWN_SERVICES, {"at_most": services_at_most})).all()
    services: list[str] = [name for name, _ in own]
    bound = {"own": services}
    places = bound | {"environments": await exported_environments(tx)}
    sources = await tx.execute(select(col(Source.name)).where(col(Source.kind) != "person").order_by(col(Source.name)))
    return Snapshot(
        services=services,
        folded=own[0].known - len(own) if own else 0,
        sources=list(sources.scalars()),
        tallies=(await tx.execute(_TALLIES)).all(),
        unsettled=(await tx.execute(_UNSETTLED, places)).all(),
        measures=(await tx.execute(_SETTLED_MEASURES, bound)).all(),
        downtime={row.service: row.seconds for row in await tx.execute(_SETTLED_DOWNTIME, bound)},
        cost={(row.service, row.currency): row.amount for row in await tx.execute(_SETTLED_COST, bound)},
        quarantine={row.source: row.waiting for row in await tx.execute(_QUARANTINE)},
        peers={
            (source_, state): count
            for source_, answering, silent in await tx.execute(_PEERS)
            for state, count in (("answering", answering), ("silent", silent))
        },
        heartbeats={source_: Heartbeats(*row) for source_, *row in await tx.execute(_HEARTBEATS)},
        alerts={source_: OpenAlerts(*row) for source_, *row in await tx.execute(_ALERTS)},
        reviews=await read_review_numbers(tx),
    )


async def exported_environments(tx: AsyncConnection) -> list[str]:
    """The environments that are exported separately: first those that have been so far."""
    return list((await tx.execute(_ENVIRONMENTS, {"at_most": ENVIRONMENTS_AT_MOST})).scalars())


_ENVIRONMENTS = text(f"""
    SELECT environment
      FROM (SELECT environment, 0 AS place
              FROM settled_in_environment
             UNION ALL
            SELECT {ENVIRONMENT}, 1
              FROM incident
             WHERE merged_into IS NULL
               AND test_stated IS NOT TRUE
               AND (ended_at IS NULL OR settled_at IS NULL)) AS known
     WHERE environment <> '{OTHER}'
     GROUP BY environment
     ORDER BY min(place), environment
     LIMIT :at_most
""")  # noqa: S608

# By age, so that a new service never displaces one that is already exported.
_OWN_SERVICES = text("""
    SELECT name, (SELECT count(*) FROM service) AS known
      FROM service
     ORDER BY first_seen_at, name
     LIMIT :at_most
""")

# Summed as numeric, which is exact: otherwise the order of rows could make a counter decrease in its last digit.
_TALLIES = text("""
    SELECT name, source, label,
           CASE WHEN name = 'last_delivery' THEN max(value) ELSE sum(value::numeric) END AS value
      FROM tally
     GROUP BY name, source, label
     ORDER BY name, source, label
""")


def _shown(column: str) -> str:
    return f"CASE WHEN {column} = ANY(CAST(:own AS text[])) THEN {column} ELSE '{OTHER}' END AS service"


# Open incidents may have settled before (a late alert reopened them). Each half of the OR has its own index.
_UNSETTLED = text(f"""
    SELECT {_shown("coalesce(service_stated, service)")},
           {shown_environment(ENVIRONMENT)} AS environment,
           coalesce(severity_stated, severity) AS severity,
           count(*) FILTER (WHERE ended_at IS NULL) AS open,
           count(*) FILTER (WHERE ended_at IS NULL AND acknowledged_at IS NULL) AS unacknowledged,
           min(coalesce(detected_at_stated, began_at)) FILTER (WHERE ended_at IS NULL) AS oldest_at,
           min(coalesce(detected_at_stated, began_at)) FILTER (WHERE ended_at IS NULL AND acknowledged_at IS NULL)
               AS oldest_unacknowledged_at
      FROM incident
     WHERE merged_into IS NULL
       AND test_stated IS NOT TRUE
       AND (ended_at IS NULL OR settled_at IS NULL)
     GROUP BY 1, 2, 3
     ORDER BY 1, 2, 3
""")  # noqa: S608

_SETTLED_MEASURES = text(f"""
    SELECT measure, {_shown("service")}, environment, severity, bucket,
           sum(count)::bigint AS n,
           sum(seconds::numeric) AS seconds
      FROM (SELECT measure, service, environment, severity, bucket, count, seconds
              FROM settled_in_environment
             UNION ALL
            SELECT measure, service, '{UNKNOWN_ENVIRONMENT}', severity, bucket, count, seconds
              FROM settled_measure) AS settled
     GROUP BY 1, 2, 3, 4, 5
     ORDER BY 1, 2, 3, 4, 5
""")  # noqa: S608

_SETTLED_DOWNTIME = text(f"""
    SELECT {_shown("service")}, sum(seconds) AS seconds
      FROM settled_downtime
     GROUP BY 1
""")  # noqa: S608

# Every service with a rate, at 0 until its first outage.
_SETTLED_COST = text(f"""
    SELECT {_shown("service")}, currency, sum(amount) AS amount
      FROM (SELECT service, currency, amount
              FROM settled_cost
             UNION ALL
            SELECT service, currency, 0
              FROM service_rate) AS known
     GROUP BY 1, 2
     ORDER BY 1, 2
""")  # noqa: S608

_QUARANTINE = text("""
    SELECT source.name AS source, count(*) AS waiting
      FROM quarantine
      JOIN source ON source.id = quarantine.source_id
     WHERE quarantine.replayed_at IS NULL
     GROUP BY source.name
""")


_PEERS = text("""
    SELECT source.name AS source, count(*) FILTER (WHERE peer.error IS NULL) AS answering,
           count(*) FILTER (WHERE peer.error IS NOT NULL) AS silent
      FROM peer
      JOIN source ON source.id = peer.source_id
     GROUP BY source.name
""")

_HEARTBEATS = text("""
    SELECT source.name AS source, min(heartbeat.last_at) AS last_at,
           count(*) FILTER (WHERE heartbeat.missing_since IS NOT NULL AND heartbeat.returned_at IS NULL) AS missing
      FROM heartbeat
      JOIN source ON source.id = heartbeat.source_id
     GROUP BY source.name
""")

# From the latest sample, because counting takes time proportional to the number of alerts.
_ALERTS = text("""
    SELECT source.name AS source, latest.open_alerts AS alerts_open, latest.unrefreshed AS alerts_unrefreshed
      FROM source
     CROSS JOIN LATERAL (
           SELECT *
             FROM feed_sample
            WHERE feed_sample.source_id = source.id
            ORDER BY at DESC
            LIMIT 1
           ) AS latest
     WHERE source.kind <> 'person'
""")
