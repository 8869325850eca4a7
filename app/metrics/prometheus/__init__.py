"""The scrape, and the counting that makes it cheap.

The way of a scrape: `api.py` has the route. In one transaction `snapshot.py` reads counters, gauges and settled
incidents, and `ratios.py`, at most twice a minute, the incidents of the last weeks (SQL of
`app/incidents/impact/store.py`), from which `app/incidents/impact/availability.py` computes availability and error
budgets. `exposition.py` writes all of it as text, in a thread, with names, types and help of `families.py`.

In the background `settle.py` counts each incident once, after it has settled, and
`app/metrics/deployments/causes.py` each failed deployment, into what the snapshot reads.
"""
