"""Tasks and idempotency keys over HTTP, with corrections, merges and splits."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.incidents.history import notes
from app.incidents.history.path import Effect
from tests.conftest import ClientAs
from tests.incidents.test_api import clock, deliver, firing, resolved
from tests.incidents.test_corrections import revise, timeline


async def post(
    client: httpx.AsyncClient,
    what: str = "tasks",
    number: int = 1,
    status: int = 201,
    key: str | None = None,
    **body: Any,
) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = await client.post(f"/api/v1/incidents/INC-{number}/{what}", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def path(client: httpx.AsyncClient, number: int = 1) -> dict[str, Any]:
    answer = await client.get(f"/api/v1/incidents/INC-{number}/path")
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def texts(found: dict[str, Any]) -> list[str]:
    return [task["text"] for task in found["tasks"]]


# — tasks —


async def test_the_tasks_of_an_incident_are_bounded(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.incidents.history.timeline.TASKS_AT_MOST", 3)
    await deliver(client, firing("10:00"))
    first = await post(client, text="one", effect="none", key="k")
    await revise(client, first, note="first")
    await post(client, text="three", effect="none")
    refused = await post(client, text="four", effect="none", status=409)
    assert refused["detail"].startswith("an incident has at most 3 tasks, with their corrections")
    assert (await post(client, text="one", effect="none", key="k"))["id"] == first["id"]
    assert sorted(texts(await path(client))) == ["first", "three"]
    await post(client, "timeline", note="another kind of entry")


async def test_the_timeline_of_an_incident_is_bounded(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full one can still be acknowledged and resolved; the entry `opened` counts too."""
    monkeypatch.setattr("app.incidents.history.timeline.ENTRIES_AT_MOST", 3)
    await deliver(client, firing("10:00"))
    for n in range(2):
        await post(client, "timeline", note=str(n))
    for refused in (
        await post(client, "timeline", status=409, note="too many"),
        await post(client, "tasks", status=409, text="too many", effect="none"),
    ):
        assert refused["type"].endswith("timeline-is-full")
        assert refused["detail"].startswith("the timeline of an incident has at most 3 entries")
    for action in ("acknowledge", "resolve"):
        answer = await client.post(f"/api/v1/incidents/INC-1/{action}", json={})
        assert answer.status_code == 200, answer.text
    assert len(await timeline(client)) == 5


async def test_a_task_is_an_entry_of_the_timeline(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    added = await post(
        client,
        text="Restarted the workers",
        effect="positive",
        at=clock("10:05"),
        ended_at=clock("10:07"),
        stage="triage",
        link="https://wiki.example.org/restart",
        by="ada",
    )
    assert [entry["kind"] for entry in await timeline(client)] == ["opened", "task"]
    assert [added] == await timeline(client, kind="task")
    assert (added["at"], added["by"], added["note"], added["phase"]) == (
        clock("10:05"),
        "ada",
        "Restarted the workers",
        None,
    )
    assert added["detail"] == {
        "effect": "positive",
        "ended_at": clock("10:07"),
        "stage": "triage",
        "link": "https://wiki.example.org/restart",
        "command": None,
        "playbook": None,
    }


async def test_a_task_has_its_command_without_secrets_and_the_playbook_that_was_followed(
    client: httpx.AsyncClient,
) -> None:
    await deliver(client, firing("10:00"))
    answer = await client.put("/api/v1/services/checkout/playbooks/restart", json={"body": "Restart it"})
    assert answer.status_code == 201, answer.text
    followed = {"service": "checkout", "name": "restart", "version": 1}
    command, key = "psql postgresql://shop:hunter2@db-1 -c 'SELECT 1'", str(uuid4())
    body: dict[str, Any] = {
        "text": "Asked the database",
        "at": clock("10:05"),
        "command": command,
        "playbook": followed,
    }
    added = await post(client, key=key, **body)
    kept = "psql postgresql://[redacted]@db-1 -c 'SELECT 1'"
    assert (added["detail"]["command"], added["detail"]["playbook"]) == (kept, followed)
    assert await post(client, key=key, **body) == added, "the same request, although its secret is not stored"
    await revise(client, added, command="restart --token s.1234")
    await revise(client, added, playbook=followed)
    assert len(await timeline(client, kind="task")) == 2, "a correction that changes nothing is not recorded"
    [task] = (await path(client))["tasks"]
    assert (task["command"], task["playbook"]) == ("restart --token [redacted]", followed)


async def test_a_task_of_an_earlier_version_of_the_service_is_corrected_like_others(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await deliver(client, firing("10:00"))
    key = str(uuid4())
    added = await post(client, key=key, text="t", at=clock("10:05"))
    async with db.transaction(engine) as tx:
        await tx.execute(text("UPDATE timeline SET detail = detail - 'command' - 'playbook' WHERE kind = 'task'"))
    assert (await post(client, key=key, text="t", at=clock("10:05")))["id"] == added["id"]
    await revise(client, added, effect="unknown")
    assert len(await timeline(client, kind="task")) == 1
    await revise(client, added, command="top")
    assert [(task["command"], task["playbook"]) for task in (await path(client))["tasks"]] == [("top", None)]


async def test_a_task_needs_only_a_text(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    added = await post(client, text="Looked at the graphs")
    assert (added["by"], added["at"]) == ("admin", added["recorded_at"])
    assert added["detail"] == dict.fromkeys(("ended_at", "stage", "link", "command", "playbook")) | {
        "effect": "unknown"
    }
    ended = await post(client, text="Looked again", ended_at=clock("10:05"))
    assert (ended["at"], ended["detail"]["ended_at"]) == (clock("10:05"), clock("10:05"))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"text": "t", "at": clock("10:05"), "ended_at": clock("10:04")}, "ends-before-it-began"),
        ({"text": "t", "ended_at": "2199-01-01T00:00:00Z"}, "in-the-future"),
        ({"text": "t", "at": "2199-01-01T00:00:00Z"}, "in-the-future"),
        ({"text": ""}, "invalid"),
        ({}, "invalid"),
        ({"text": "t", "effect": "good"}, "invalid"),
        ({"text": "t", "impact": "positive"}, "invalid"),
        ({"text": "t", "stage": "response"}, "invalid"),
        ({"text": "t", "link": "javascript:alert(1)"}, "invalid"),
        ({"text": "t", "link": "ftp://example.org/x"}, "invalid"),
        ({"text": "t", "command": ""}, "invalid"),
        ({"text": "t", "command": "x" * 4001}, "invalid"),
        ({"text": "t", "playbook": {"service": "shop", "name": "restart"}}, "invalid"),
        ({"text": "t", "playbook": {"service": "shop", "name": "restart", "version": 0}}, "invalid"),
        ({"text": "t", "playbook": {"service": "shop", "name": "restart", "version": 1}}, "unknown-playbook"),
    ],
)
async def test_a_wrong_task_is_refused(client: httpx.AsyncClient, body: dict[str, Any], kind: str) -> None:
    await deliver(client, firing("10:00"))
    problem = await post(client, status=422, **body)
    assert problem["type"] == f"urn:aftermath:problem:{kind}"
    assert await timeline(client, kind="task") == []


async def test_tasks_are_corrected_and_withdrawn_with_the_original_kept(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    original = await post(client, text="restated", at=clock("10:05"), by="ada")
    other = await post(client, text="Wrong incident", effect="negative", at=clock("10:06"))
    await revise(client, original, note="Restarted", effect="positive", ended_at=clock("10:09"), by="bob", why="review")
    await revise(client, original, effect="negative")
    await revise(client, other, "withdraw")
    shown = await timeline(client, kind="task")
    assert [(entry["note"], entry["detail"]["effect"], entry["revision"] is None) for entry in shown] == [
        ("restated", "unknown", False),
        ("Restarted", "positive", False),
        ("Restarted", "negative", True),
        ("Wrong incident", "negative", False),
    ]
    found = await path(client)
    assert found["tasks"] == [
        {
            "entry": original["id"],
            "at": clock("10:05"),
            "ended_at": clock("10:09"),
            "by": "ada",
            "text": "Restarted",
            "effect": "negative",
            "stage": None,
            "link": None,
            "command": None,
            "playbook": None,
            "phase": None,
            "level": 1,
        }
    ]


async def test_a_correction_of_a_task_is_checked(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    task = await post(client, text="Restarted", at=clock("10:05"), ended_at=clock("10:09"))
    note = await post(client, "timeline", note="n", at=clock("10:05"))
    refused: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (task, {"at": clock("10:10")}, "ends-before-it-began"),
        (task, {"ended_at": clock("10:04")}, "ends-before-it-began"),
        (task, {"ended_at": "2199-01-01T00:00:00Z"}, "in-the-future"),
        (task, {"note": ""}, "note-is-empty"),
        (task, {"playbook": {"service": "shop", "name": "restart", "version": 1}}, "unknown-playbook"),
        (note, {"command": "top"}, "not-a-task"),
        (note, {"effect": "positive"}, "not-a-task"),
        (note, {"ended_at": clock("10:09")}, "not-a-task"),
    ]
    for entry, body, kind in refused:
        assert (await revise(client, entry, status=422, **body))["type"] == f"urn:aftermath:problem:{kind}"
    await revise(client, task, effect="unknown", ended_at=clock("10:09"))
    assert len(await timeline(client)) == 3, "a correction that changes nothing is not recorded"


async def test_the_timeline_is_filtered_by_kind(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await post(client, text="t", at=clock("10:05"))
    await post(client, "timeline", note="n", at=clock("10:06"))

    async def kinds(query: str) -> list[str]:
        answer = await client.get(f"/api/v1/incidents/INC-1/timeline?{query}")
        assert answer.status_code == 200, answer.text
        return [entry["kind"] for entry in answer.json()["items"]]

    assert await kinds("kind=task") == ["task"]
    assert await kinds("kind=task&kind=note") == ["task", "note"]
    assert await kinds("kind=withdrawn") == []
    assert (await client.get("/api/v1/incidents/INC-1/timeline?kind=nothing")).status_code == 422
    first = (await client.get("/api/v1/incidents/INC-1/timeline?kind=task&kind=note&limit=1")).json()
    assert await kinds(f"kind=task&kind=note&cursor={first['next_cursor']}") == ["note"]


async def test_readers_read_the_path_and_add_no_task(client: httpx.AsyncClient, client_as: ClientAs) -> None:
    await deliver(client, firing("10:00"))
    reader = await client_as(Scope.READ)
    await path(reader)
    await post(reader, status=403, text="t")


async def test_the_path_of_an_incident(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:20"))
    await client.patch("/api/v1/incidents/INC-1", json={"impact_started_at": clock("09:55")})
    await client.post("/api/v1/incidents/INC-1/milestones", json={"milestone": "identified", "at": clock("10:15")})
    for at, effect in (("10:12", "positive"), ("10:05", "negative"), ("10:16", "positive"), ("10:02", "none")):
        await post(client, text=at, at=clock(at), effect=effect)
    found = await path(client)
    assert [(one["phase"], one["seconds"], one["status"], one["reason"]) for one in found["phases"]] == [
        ("detection", 300, "recorded", None),
        ("response", 900, "recorded", None),
        ("remediation", 300, "recorded", None),
        ("analysis", None, "not_applicable", "no review"),
        ("readiness", None, "not_applicable", "no review"),
    ]
    assert [(one["text"], one["phase"], one["level"]) for one in found["tasks"]] == [
        ("10:02", "response", 0),
        ("10:05", "response", 1),
        ("10:12", "response", 0),
        ("10:16", "remediation", -1),
    ]
    assert [(one["at"], one["level"]) for one in found["path"]] == [
        (clock(at), level)
        for at, level in (("10:00", 0), ("10:02", 0), ("10:05", 1), ("10:12", 0), ("10:16", -1), ("10:20", -1))
    ]
    assert found["counts"] == {"positive": 2, "negative": 1, "none": 1, "unknown": 0}
    assert (found["seconds_without_positive_effect"], found["first_positive_at"]) == (720, clock("10:12"))
    assert found["longest_silence"] == {"begins_at": clock("10:05"), "ends_at": clock("10:12"), "seconds": 420}
    assert found["marks"]["resolved_at"] == clock("10:20")


async def test_after_a_split_and_a_merge_each_task_is_in_the_path_of_one_incident(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), resolved("10:30", "10:40", instance="b"))
    for at in ("10:02", "10:08", "10:31", "10:39"):
        await post(client, text=at, at=clock(at), effect="positive")
    await deliver(client, resolved("10:00", "10:10"))
    assert (texts(await path(client, 1)), texts(await path(client, 2))) == (["10:02", "10:08"], ["10:31", "10:39"])
    await deliver(client, resolved("10:08", "10:33", instance="c"))
    assert (texts(await path(client, 1)), texts(await path(client, 2))) == (["10:02", "10:08", "10:31", "10:39"], [])
    assert (await path(client, 1))["path"][-1] == {"at": clock("10:40"), "level": -4}


async def test_the_tasks_of_many_incidents_are_read_by_one_statement(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await deliver(client, firing("10:00"), firing("10:00", service="search"), firing("10:00", service="mail"))
    await post(client, number=1, text="a", effect="positive")
    corrected = await post(client, number=2, text="b")
    await revise(client, corrected, effect="none", number=2)
    await revise(client, await post(client, number=2, text="c"), "withdraw", number=2)
    async with db.transaction(engine) as tx:
        ids = {row.number: row.id for row in await tx.execute(text("SELECT number, id FROM incident"))}
        found = await notes.tasks_of(tx, list(ids.values()))
    assert {id_: [(task.text, task.effect) for task in tasks] for id_, tasks in found.items()} == {
        ids[1]: [("a", Effect.POSITIVE)],
        ids[2]: [("b", Effect.NONE)],
    }
    assert found[ids[2]][0].entry == corrected["id"]


async def test_the_database_refuses_a_task_without_an_effect(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await deliver(client, firing("10:00"))
    add = text("""
        INSERT INTO timeline (incident_id, at, recorded_at, kind, detail)
        SELECT id, now(), now(), 'task', CAST(:detail AS jsonb) FROM incident
    """)
    for detail in (None, "{}", '{"effect": "good"}'):
        with pytest.raises(IntegrityError, match="timeline_task_has_an_effect"):
            async with db.transaction(engine) as tx:
                await tx.execute(add, {"detail": detail})


# — idempotency keys —


NOTE = ("timeline", {"note": "Rolled back", "at": clock("10:05")})
TASK = ("tasks", {"text": "Rolled back", "effect": "positive"})


@pytest.mark.parametrize(("what", "body"), [NOTE, TASK])
async def test_a_repeated_key_records_once_and_answers_the_same(
    client: httpx.AsyncClient, what: str, body: dict[str, Any]
) -> None:
    await deliver(client, firing("10:00"))
    key = str(uuid4())
    first = await post(client, what, key=key, **body)
    assert await post(client, what, key=key, **body) == first
    assert len(await timeline(client)) == 2
    other = await post(client, what, key=str(uuid4()), **body)
    without = [await post(client, what, **body) for _ in range(2)]
    assert len({first["id"], other["id"], *(entry["id"] for entry in without)}) == 4


@pytest.mark.parametrize(("what", "body"), [NOTE, TASK])
async def test_a_key_records_once_whatever_arrives_at_once(
    client: httpx.AsyncClient, what: str, body: dict[str, Any]
) -> None:
    await deliver(client, firing("10:00"))
    answers = await asyncio.gather(*(post(client, what, key="k", **body) for _ in range(12)))
    assert all(answer == answers[0] for answer in answers)
    assert len(await timeline(client)) == 2


async def test_a_key_with_another_content_is_refused(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await post(client, key="k", text="Rolled back", at=clock("10:05"), by="ada")
    for changed in (
        {"text": "Rolled forward"},
        {"effect": "positive"},
        {"at": clock("10:06")},
        {"by": "bob"},
        {"link": "https://example.org/"},
    ):
        body: dict[str, Any] = {"text": "Rolled back", "at": clock("10:05"), "by": "ada"} | changed
        problem = await post(client, status=422, key="k", **body)
        assert problem["type"] == "urn:aftermath:problem:idempotency-key-reused"
    problem = await post(client, "timeline", status=422, key="k", note="Rolled back", at=clock("10:05"), by="ada")
    assert problem["type"] == "urn:aftermath:problem:idempotency-key-reused"
    assert len(await timeline(client)) == 2


async def test_a_key_is_found_after_its_entry_was_corrected_or_withdrawn(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    first = await post(client, key="k", text="restated")
    await revise(client, first, note="restarted", effect="positive")
    again = await post(client, key="k", text="restated")
    assert (again["id"], again["note"], again["revision"]["status"]) == (first["id"], "restated", "corrected")
    await revise(client, first, "withdraw")
    await post(client, key="k", text="restated")
    assert [entry["kind"] for entry in await timeline(client)][1:] == ["task", "task", "withdrawn"]


async def test_a_key_means_something_else_for_another_incident(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:10"), resolved("11:00", "11:10"), firing("10:00", service="search"))
    added = [await post(client, number=number, key="k", text="Restarted") for number in (1, 2, 3)]
    assert len({entry["id"] for entry in added}) == 3


async def test_a_key_finds_its_entry_through_a_split(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), resolved("10:30", "10:40", instance="b"))
    body: dict[str, Any] = {"text": "Restarted", "at": clock("10:35")}
    first = await post(client, key="k", **body)
    await deliver(client, resolved("10:00", "10:10"))
    assert texts(await path(client, 2)) == ["Restarted"], "it has moved"
    for number in (1, 2):
        assert await post(client, number=number, key="k", **body) == first


async def test_a_key_finds_its_entry_through_a_merge(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:10"), resolved("10:30", "10:40", instance="b"))
    first = await post(client, number=2, key="k", text="Restarted", at=clock("10:35"))
    await deliver(client, resolved("10:12", "10:27", instance="c"))
    for number in (1, 2):
        again = await post(client, number=number, key="k", text="Restarted", at=clock("10:35"))
        assert again == first
    problem = await post(client, number=2, key="new", status=409, text="Restarted")
    assert "INC-1" in problem["detail"]


async def test_two_incidents_with_the_same_key_merge_and_keep_both_entries(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:10"), resolved("10:30", "10:40", instance="b"))
    added = [
        await post(client, number=1, key="k", text="one", at=clock("10:05")),
        await post(client, number=2, key="k", text="two", at=clock("10:35")),
    ]
    await deliver(client, resolved("10:12", "10:27", instance="c"))
    assert texts(await path(client)) == ["one", "two"]
    assert await post(client, number=1, key="k", text="one", at=clock("10:05")) == added[0]
    assert await post(client, number=2, key="k", text="two", at=clock("10:35")) == added[1]


@pytest.mark.parametrize("key", ["", "x" * 201])
async def test_a_key_has_a_length(client: httpx.AsyncClient, key: str) -> None:
    await deliver(client, firing("10:00"))
    assert (await post(client, status=422, key=key, text="t"))["type"] == "urn:aftermath:problem:invalid"
