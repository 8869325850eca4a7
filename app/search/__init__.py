"""Search: incidents, reviews, findings, action items and services, by words and by number.

`question` and `result` are pure; `store` has the SQL and `api` the route.
"""
