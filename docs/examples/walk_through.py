# %% [markdown]
"""A walk through the API, as an SRE would take it on the first day.

It connects a source, finds what is open, acknowledges two incidents at once, corrects a time, asks whether last month
was better than the month before, and exports a CSV. It needs a running service, its admin token, and `httpx`:

    AFTERMATH_URL=http://127.0.0.1:8080 AFTERMATH_TOKEN=aft_… python docs/examples/walk_through.py

Editors that know `# %%` run it cell by cell, like a notebook.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

aftermath = httpx.Client(
    base_url=os.environ.get("AFTERMATH_URL", "http://127.0.0.1:8080"),
    headers={"Authorization": f"Bearer {os.environ['AFTERMATH_TOKEN']}"},
    event_hooks={"response": [lambda response: response.read() and response.raise_for_status()]},
)

# %% [markdown]
# ## Connect a source
#
# A source is one system that sends alerts. It is created with its first token, whose secret is shown once. Put it into
# the configuration of the sender; here the script itself sends what Alertmanager would send.

# %%
created = aftermath.post(
    "/api/v1/tokens",
    json={"name": "alertmanager-eu", "scope": "ingest", "source": "alertmanager-eu", "kind": "alertmanager"},
).json()
print(f"Alertmanager sends to {aftermath.base_url.join('/webhooks/alertmanager')} with the token {created['id']}")

# %%
now = datetime.now(UTC)


def firing(alert: str, service: str, minutes_ago: int) -> dict[str, object]:
    return {
        "status": "firing",
        "labels": {"alertname": alert, "service": service, "environment": "production", "severity": "critical"},
        "annotations": {"summary": f"{service} is failing"},
        "startsAt": (now - timedelta(minutes=minutes_ago)).isoformat(),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "https://prometheus.example.org/graph",
        "fingerprint": f"{alert}-{service}".lower(),
    }


receipt = aftermath.post(
    "/webhooks/alertmanager",
    headers={"Authorization": f"Bearer {created['token']}"},
    json={
        "version": "4",
        "groupKey": "{}:{}",
        "status": "firing",
        "receiver": "aftermath",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "https://alertmanager.example.org",
        "truncatedAlerts": 0,
        "alerts": [firing("HighErrorRate", "checkout", 12), firing("QueueIsFull", "mail", 9)],
    },
).json()
print(f"The two alerts opened {' and '.join(receipt['incidents'])}")

# %% [markdown]
# ## What is open?
#
# `open` means that no one has acknowledged it yet.

# %%
mine = {"status": "open", "source": "alertmanager-eu"}
open_incidents = aftermath.get("/api/v1/incidents", params=mine).json()["items"]
for incident in open_incidents:
    print(f"{incident['number']}  {incident['severity']}  {incident['service']:10}  since {incident['detected_at']}")

# %% [markdown]
# ## Acknowledge both
#
# Both incidents are acknowledged in the name of ada. Without `by`, the name of the token counts.

# %%
numbers = [incident["number"] for incident in open_incidents]
aftermath.post("/api/v1/incidents/acknowledge", json={"incidents": numbers, "by": "ada"})
print(f"Still open: {len(aftermath.get('/api/v1/incidents', params=mine).json()['items'])}")

# %% [markdown]
# ## Correct a time
#
# Customers wrote before the alert fired. Only a person knows that, so a person states it; the number that follows from
# it changes at once, and the timeline keeps who said so.

# %%
checkout = next(incident for incident in open_incidents if incident["service"] == "checkout")
noticed_at = datetime.fromisoformat(checkout["detected_at"]) - timedelta(minutes=7)
corrected = aftermath.patch(
    f"/api/v1/incidents/{checkout['number']}", json={"impact_started_at": noticed_at.isoformat(), "by": "ada"}
).json()
print(f"Time to detect: {corrected['measures']['time_to_detect']['seconds'] / 60:.0f} minutes")

# %% [markdown]
# ## Was last month better than the month before?
#
# The verdict is `better` or `worse` only if chance is an unlikely explanation; otherwise it is `cannot_tell`, with the
# reason.

# %%
month = timedelta(days=30)
comparison = aftermath.get(
    "/api/v1/metrics/compare",
    params={
        "measure": "time_to_recover",
        "a_from": (now - 2 * month).isoformat(),
        "a_to": (now - month).isoformat(),
        "b_from": (now - month).isoformat(),
        "b_to": now.isoformat(),
    },
).json()
print(f"Verdict: {comparison['verdict']}. {comparison['reason']}")

# %% [markdown]
# ## A CSV for the meeting

# %%
sheet = aftermath.get("/api/v1/incidents", params={"source": "alertmanager-eu", "format": "csv"}).text
Path("incidents.csv").write_text(sheet)
print(f"incidents.csv has {len(sheet.splitlines()) - 1} incidents and {len(sheet.splitlines()[0].split(','))} columns")
aftermath.close()
