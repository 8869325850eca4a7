"""Numbers over many incidents: summaries, comparisons, what-if, DORA, and the scrape. A folder for each question.

The way of a summary: `api/summary.py` has the route, and `api/query.py` makes a `MetricsQuery` (`query.py`) of its
parameters. `summary/store.py` reads the incidents of the period in columns, their rates and planned maintenance (SQL of
`app/incidents/impact/store.py`), and has them computed in a thread by `summary/numbers.py`: measures by
`app/incidents/measures/vectorized.py`, downtime and cost by `app/incidents/impact/sweep.py`, statistics of each measure
by `summary/summaries.py` and `summary/survival.py`. Then it adds the labor (`summary/labor.py`). `api/answer.py` gives
each number its formula (`app/incidents/definitions/`) and its links, and the route returns that.
"""
