"""The status page: what customers see of the services, in words that people chose for them.

Internal facts and public words are apart. People, and `automatic.py` where they asked for it, write components, public
incidents and updates: `store/` has their SQL and measures downtime, and `api.py` has their routes. The public side
reads only public columns, with a database role that may read nothing else (`published.py`), and serves what
it has rendered from memory (`public.py`), also while the database is away.

Pure: `component.py` (statuses and proposals), `public_incident.py` (what follows from updates), `uptime.py` (the
arithmetic of days), `content.py` (all that is public), and in `rendering/`: `page.py` (HTML), `statuspage.py` (JSON in
the shape of Statuspage's API, version 2), `feed.py` (Atom and RSS).
"""
