"""Reviews of incidents: what a team learned, what it will do, and the report about it.

Pure modules decide: `lifecycle` (states and what is missing), `wording`, `prompts`, `action_item`, `requirement`,
`effect`, and those in `report/` and `public_report/` (the one for customers). `store/` has the SQL and `api/` the
routes.
"""
