"""Numbers over many incidents over HTTP, and the exposition for Prometheus.

Every number says by which formula and filters it came about, and where the incidents behind it are listed. A file for
each kind of question; what they share of questions and answers is in `question` and `answer`.
"""

from fastapi import APIRouter

from app.metrics.api import compare, definitions, downtime, summary, timeseries, whatif
from app.metrics.prometheus import api as scrape

router = APIRouter(tags=["metrics"])
for _part in (summary, definitions, timeseries, compare, whatif, downtime, scrape):
    router.include_router(_part.router)
