"""HTTP routes for metrics, one file per kind of query; `query` and `answer` hold the shared parts.

Every number names its definition and comes with its filters; links lead to the incidents behind it.
"""

from fastapi import APIRouter

from app.base.http.limits.turns import IN_TURN
from app.metrics.api import action_items, compare, definitions, downtime, summary, timeseries, whatif
from app.metrics.prometheus import api as scrape

router = APIRouter(tags=["metrics"])
for _part in (summary, timeseries, compare, whatif, downtime, action_items):
    router.include_router(_part.router, dependencies=[IN_TURN])
for _cheap in (definitions, scrape):
    router.include_router(_cheap.router)
