"""Reads how long incidents similar to one lasted."""

from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.base.schema import Incident
from app.incidents.grouping.law.episode import RECOVERIES
from app.incidents.grouping.signal import AlertClass
from app.incidents.measures.measures import Facts, service
from app.response.definition import LONG_SECONDS, SimilarLastedLonger, similar_lasted_longer

AT_MOST = 1000


async def read_similar(tx: AsyncConnection, row: Incident, *, now: datetime) -> SimilarLastedLonger:
    """How many of the newest similar incidents that began over an hour ago lasted longer than that. One statement.

    What ended sooner without a recovery is left out, because it may have gone on.
    """
    before = now - timedelta(seconds=LONG_SECONDS)
    of = {"id": row.id, "key": row.key_id, "service": service(Facts.of(row)), "before": before}
    found = (await tx.execute(_LASTED, of)).one()
    return similar_lasted_longer((found.key_longer, found.key_all), (found.service_longer, found.service_all))


def _lasted(name: str, condition: str) -> str:
    return f"""
           (SELECT count(*) FILTER (WHERE longer) AS {name}_longer,
                   count(*) AS {name}_all
              FROM (SELECT coalesce(ended_at - coalesce(impact_started_at, detected_at_stated, began_at)
                                    > interval '{LONG_SECONDS} seconds', true) AS longer,
                           end_reason = ANY('{{{",".join(sorted(RECOVERIES))}}}') AS recovered
                      FROM incident
                     WHERE {condition}
                       AND merged_into IS NULL
                       AND test_stated IS NOT TRUE
                       AND alert_class <> '{AlertClass.MONITORING}'
                       AND began_at < :before
                       AND id <> :id
                     ORDER BY began_at DESC NULLS LAST
                     LIMIT {AT_MOST}) AS one
             WHERE longer OR recovered) AS of_{name}"""  # noqa: S608  constants


_OF_KEY = _lasted("key", "key_id = :key")
_OF_SERVICE = _lasted("service", "coalesce(service_stated, service) = :service").replace(" NULLS LAST", "")
_LASTED = text(f"""
    SELECT *
      FROM {_OF_KEY},
           {_OF_SERVICE}
""")  # noqa: S608
