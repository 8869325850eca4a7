"""The Prometheus endpoint, and the background counting that keeps scrapes cheap.

How a scrape is served: in one transaction, `snapshot.py` reads counters, gauges and settled incidents, and `ratios.py`,
at most twice a minute, reads the incidents of the last weeks (SQL from `app/incidents/impact/store.py`), from which
`app/incidents/impact/availability.py` computes availability and error budgets; `others.py` reads the gauges of other
areas. In a thread, `exposition.py` renders all of it as text, with names, types and help texts from `families.py`. The
route is in `api.py`.

In the background, `settle.py` counts each incident once after it has settled, and `app/metrics/deployments/causes.py`
counts each failed deployment, into the tables that the snapshot reads.
"""
