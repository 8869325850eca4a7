"""HTTP routes for metrics, one file per kind of question; `query` and `answer` hold the shared parts.

Every number comes with its formula, its filters and links to the incidents behind it.
"""

from fastapi import APIRouter

from app.metrics.api import compare, definitions, downtime, summary, timeseries, whatif
from app.metrics.prometheus import api as scrape

router = APIRouter(tags=["metrics"])
for _part in (summary, definitions, timeseries, compare, whatif, downtime, scrape):
    router.include_router(_part.router)
