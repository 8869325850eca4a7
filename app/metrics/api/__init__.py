"""Numbers over many incidents over HTTP, and the exposition for Prometheus.

Every number comes with its formula, its filters and links to the incidents behind it. A file for each kind of question;
`query` and `answer` have what they share.
"""

from fastapi import APIRouter

from app.metrics.api import compare, definitions, downtime, summary, timeseries, whatif
from app.metrics.prometheus import api as scrape

router = APIRouter(tags=["metrics"])
for _part in (summary, definitions, timeseries, compare, whatif, downtime, scrape):
    router.include_router(_part.router)
