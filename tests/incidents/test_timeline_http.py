"""The timeline over HTTP: its filters, and the whole of it as CSV and as Markdown."""

import csv
import json
from io import StringIO
from typing import Any

import httpx
import pytest

from app.incidents.api import export
from app.incidents.history.path import Phase
from tests.incidents.test_api import act, clock, deliver, firing, resolved
from tests.incidents.test_corrections import revise, timeline
from tests.reviews.test_reviews import new_review, step

TIMELINE = "/api/v1/incidents/INC-1/timeline"


async def note(client: httpx.AsyncClient, text: str, at: str) -> dict[str, Any]:
    answer = await client.post(TIMELINE, json={"note": text, "at": clock(at), "by": "ada"})
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def got(client: httpx.AsyncClient, **params: Any) -> httpx.Response:
    answer = await client.get(TIMELINE, params=params)
    assert answer.status_code == 200, answer.text
    return answer


async def notes(client: httpx.AsyncClient, *phases: str) -> list[str]:
    found = (await got(client, phase=phases, kind="note")).json()["items"]
    return [entry["note"] for entry in found]


async def test_the_timeline_is_filtered_by_phase(client: httpx.AsyncClient) -> None:
    """At each border, and equal to the phase that each entry shows."""
    await deliver(client, resolved("10:00", "10:30"))
    for at in ("09:59", "10:00", "10:09", "10:10", "10:30", "10:31", "11:00", "11:01"):
        await note(client, at, at)
    assert await notes(client, "response") == await notes(client, "remediation") == [], "the cause is not stated"
    assert await notes(client, "analysis") == ["10:31", "11:00", "11:01"]
    await act(client, "milestones", milestone="identified", at=clock("10:10"))
    await new_review(client, incidents=["INC-1"])
    await step(client, "hold", facilitator=None, held_at=clock("11:00"))
    assert {phase: await notes(client, phase) for phase in Phase} == {
        "detection": ["09:59"],
        "response": ["10:00", "10:09"],
        "remediation": ["10:10", "10:30"],
        "analysis": ["10:31", "11:00"],
        "readiness": ["11:01"],
    }
    assert await notes(client, "readiness", "detection") == ["09:59", "11:01"]
    entries = await timeline(client)
    for phase in Phase:
        shown = [entry["id"] for entry in entries if entry["phase"] == phase]
        assert [entry["id"] for entry in (await got(client, phase=phase)).json()["items"]] == shown
    first = (await got(client, phase="response", kind="note", limit=1)).json()
    rest = (await got(client, phase="response", kind="note", cursor=first["next_cursor"])).json()
    assert [entry["note"] for entry in rest["items"]] == ["10:09"]
    assert (await client.get(TIMELINE, params={"phase": "later"})).status_code == 422


async def test_an_open_incident_has_no_phase_after_remediation(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "milestones", milestone="identified", at=clock("10:10"))
    await note(client, "n", "10:20")
    assert [await notes(client, phase) for phase in Phase] == [[], [], ["n"], [], []]


async def test_the_whole_timeline_is_exported(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "CHUNK", 2)
    await deliver(client, resolved("10:00", "10:30"))
    await note(client, "=1+1 | *not bold* <b>", "10:05")
    task = {"text": "Restarted it", "effect": "positive", "at": clock("10:06"), "command": "restart", "by": "ben"}
    added = (await client.post("/api/v1/incidents/INC-1/tasks", json=task)).json()
    await revise(client, added, effect="none", why="it was slow before")
    await act(client, "facts", status=201, kind="joined", person="cy", how="asked", at=clock("10:07"), by="ada")
    entries = await timeline(client)
    assert len(entries) == 6

    sheet = await got(client, format="csv", limit=1)
    assert sheet.headers["content-type"] == "text/csv; charset=utf-8"
    assert sheet.headers["content-disposition"] == 'attachment; filename="INC-1-timeline.csv"'
    rows = list(csv.DictReader(StringIO(sheet.text, newline=""), strict=True))
    for row, entry in zip(rows, entries, strict=True):
        for name in ("id", "at", "recorded_at", "kind", "phase", "by"):
            assert row[name] == str(entry[name] or "")
        assert json.loads(row["detail"] or "null") == entry["detail"]
        assert row["revision_status"] == (entry["revision"] or {"status": ""})["status"]
    assert [row["note"] for row in rows if row["kind"] == "note"] == ["'=1+1 | *not bold* <b>"]
    assert [row["revision_why"] for row in rows if row["revision_why"]] == ["it was slow before"]

    text = (await got(client, format="md")).text
    assert (await got(client, format="md")).headers["content-type"] == "text/markdown; charset=utf-8"
    assert text.startswith("# Timeline of INC-1: ")
    assert "| 2026-08-20 10:05:00 |  | note; =1+1 \\| \\*not bold\\* &lt;b> | ada |\n" in text
    assert "~~task; effect: positive; command: restart; Restarted it~~ (corrected: it was slow before)" in text
    assert "joined; cy was asked to help" in text
    assert text.count("\n| 2026") == 6

    only = await got(client, format="csv", kind="task")
    assert only.text.count("Restarted it") == 2
    for accept, expected in (
        ("text/csv", sheet.text),
        ("text/markdown;q=0.9, */*", text),
        ("*/*", None),
        ("application/json, text/csv", None),
    ):
        answer = await client.get(TIMELINE, headers={"Accept": accept})
        assert expected in {None, answer.text}
        assert answer.headers["content-type"].startswith("application/json") == (expected is None)
    assert (await client.get(f"{TIMELINE}?format=pdf")).status_code == 422
    assert (await client.get("/api/v1/incidents/INC-99/timeline?format=csv")).status_code == 404
