"""Numbers over many incidents: summaries, comparisons, what-if, DORA and the Prometheus scrape, one folder each.

How a summary is computed: `api/query.py` turns the parameters of the route in `api/summary.py` into a `MetricsQuery`
(`query.py`). `summary/store.py` reads the period's incidents as columns, with their rates and planned maintenance (SQL
from `app/incidents/impact/store.py`). In a thread, `summary/numbers.py` computes measures with
`app/incidents/measures/vectorized.py`, downtime and cost with `app/incidents/impact/sweep.py`, and the statistics of
each measure with `summary/summaries.py` and `summary/survival.py`. `summary/labor.py` adds the cost of labor. In
`api/answer.py` each number names its definition (`app/incidents/definitions/`), with links to the incidents behind it.
"""
