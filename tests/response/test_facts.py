"""Facts about the response: recorded over HTTP, corrected, withdrawn, and moved by merges and splits."""

from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.timeline import facts_of
from tests.conftest import ClientAs
from tests.incidents.test_api import clock, deliver, firing, resolved
from tests.incidents.test_corrections import revise, timeline
from tests.incidents.test_tasks import post


async def record(
    client: httpx.AsyncClient, fact: dict[str, Any], *, number: int = 1, expected: int = 201
) -> dict[str, Any]:
    answer = await client.post(f"/api/v1/incidents/INC-{number}/facts", json=fact)
    assert answer.status_code == expected, answer.text
    return answer.json()  # type: ignore[no-any-return]


EACH: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"kind": "joined", "person": "cathy"}, {"person": "cathy", "how": "came", "channel": None}),
    (
        {"kind": "joined", "person": "ben", "how": "alerted", "channel": "pager"},
        {"person": "ben", "how": "alerted", "channel": "pager"},
    ),
    (
        {"kind": "update", "status": "identified", "note": "A fix is on its way", "next_at": "2199-01-01T00:00:00Z"},
        {
            "audience": "stakeholders",
            "status": "identified",
            "conditions": None,
            "actions": None,
            "needs": None,
            "next_at": "2199-01-01T00:00:00Z",
        },
    ),
    ({"kind": "criterion", "criterion": "Payments succeed"}, {"criterion": "Payments succeed", "met": True}),
    ({"kind": "room", "channel": "Bridge", "why": "Slack is down"}, {"channel": "Bridge", "why": "Slack is down"}),
    (
        {"kind": "impact", "customers": 1200, "share": "0.25"},
        {"customers": 1200, "support_requests": None, "share": "0.25", "what": None},
    ),
    (
        {"kind": "evidence", "link": "https://example.org/d/1", "query": "rate(errors[5m])"},
        {"link": "https://example.org/d/1", "title": None, "query": "rate(errors[5m])"},
    ),
]


@pytest.mark.parametrize(("fact", "detail"), EACH)
async def test_a_fact_is_an_entry_of_the_timeline(
    client: httpx.AsyncClient, fact: dict[str, Any], detail: dict[str, Any]
) -> None:
    await deliver(client, firing("10:00"))
    added = await record(client, {**fact, "at": clock("10:05"), "by": "ada"})
    assert (added["kind"], added["at"], added["by"], added["note"]) == (
        fact["kind"],
        clock("10:05"),
        "ada",
        fact.get("note"),
    )
    assert added["detail"] == detail
    assert [added] == await timeline(client, kind=fact["kind"])


@pytest.mark.parametrize(
    "fact",
    [
        {},
        {"kind": "note", "note": "n"},
        {"kind": "opened"},
        {"kind": "role", "role": "commander", "person": "ada"},
        {"kind": "joined"},
        {"kind": "joined", "person": ""},
        {"kind": "joined", "person": "a\0"},
        {"kind": "joined", "person": "a", "how": "flew"},
        {"kind": "joined", "person": "a", "met": True},
        {"kind": "update", "status": "identified"},
        {"kind": "update", "status": "identified", "note": ""},
        {"kind": "update", "note": "n"},
        {"kind": "update", "status": "fixed", "note": "n"},
        {"kind": "update", "status": "identified", "note": "n", "audience": "press"},
        {"kind": "criterion", "criterion": ""},
        {"kind": "impact"},
        {"kind": "impact", "customers": -1},
        {"kind": "impact", "customers": 10**13},
        {"kind": "impact", "share": "1.5"},
        {"kind": "impact", "share": "NaN"},
        {"kind": "evidence", "link": "javascript:alert(1)"},
        {"kind": "room", "channel": "a", "at": "2199-01-01T00:00:00Z"},
    ],
)
async def test_a_wrong_fact_is_refused(client: httpx.AsyncClient, fact: dict[str, Any]) -> None:
    await deliver(client, firing("10:00"))
    await record(client, fact, expected=422)
    assert len(await timeline(client)) == 1


async def test_a_fact_is_recorded_once_for_each_key(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    key = str(uuid4())
    first = await post(client, "facts", key=key, kind="joined", person="cathy")
    assert await post(client, "facts", key=key, kind="joined", person="cathy") == first
    problem = await post(client, "facts", status=422, key=key, kind="joined", person="ben")
    assert problem["type"] == "urn:aftermath:problem:idempotency-key-reused"
    assert len(await timeline(client)) == 2


async def test_a_fact_is_corrected_by_its_fields_with_the_original_kept(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    joined = await post(client, "facts", kind="joined", person="cathy", how="asked", at=clock("10:05"))
    await revise(client, joined, detail={"person": "Cathy"}, why="spelling")
    await revise(client, joined, detail={"how": "alerted"}, at=clock("10:04"))
    shown = await timeline(client, kind="joined")
    assert [(one["at"], one["detail"]["person"], one["detail"]["how"]) for one in shown] == [
        (clock("10:04"), "Cathy", "alerted"),
        (clock("10:05"), "cathy", "asked"),
        (clock("10:05"), "Cathy", "asked"),
    ]
    await revise(client, joined, detail={"how": "alerted"})
    assert len(await timeline(client, kind="joined")) == 3, "a correction that changes nothing is not recorded"


async def test_a_correction_of_a_fact_is_checked(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    joined = await post(client, "facts", kind="joined", person="cathy")
    impact = await post(client, "facts", kind="impact", customers=5)
    update = await record(client, {"kind": "update", "status": "identified", "note": "n"})
    note = await post(client, "timeline", note="n")
    task = await post(client, text="t")
    refused: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (joined, {"detail": {"person": ""}}, "invalid-detail"),
        (joined, {"detail": {"person": None}}, "invalid-detail"),
        (joined, {"detail": {"persona": "ada"}}, "invalid-detail"),
        (joined, {"detail": {"person": "a\0"}}, "invalid-detail"),
        (joined, {"effect": "positive"}, "not-a-task"),
        (impact, {"detail": {"customers": None}}, "invalid-detail"),
        (update, {"note": ""}, "note-is-empty"),
        (note, {"detail": {"a": 1}}, "invalid-detail"),
        (task, {"detail": {"effect": "positive"}}, "invalid-detail"),
    ]
    for entry, body, kind in refused:
        problem = await revise(client, entry, status=422, **body)
        assert problem["type"] == f"urn:aftermath:problem:{kind}"
        assert "persona" not in problem["detail"] or body["detail"].keys() == {"persona"}
    assert len(await timeline(client)) == 6


async def test_facts_follow_a_split_and_a_merge_by_their_time(client: httpx.AsyncClient) -> None:
    async def people(number: int) -> list[str]:
        return [one["detail"]["person"] for one in await timeline(client, number, kind="joined")]

    await deliver(client, firing("10:00"), resolved("10:30", "10:40", instance="b"))
    for at, person in (("10:02", "ada"), ("10:31", "ben")):
        await post(client, "facts", kind="joined", person=person, at=clock(at))
    await deliver(client, resolved("10:00", "10:10"))
    assert (await people(1), await people(2)) == (["ada"], ["ben"])
    await deliver(client, resolved("10:08", "10:33", instance="c"))
    assert await people(1) == ["ada", "ben"]
    problem = await post(client, "facts", number=2, status=409, kind="joined", person="cy")
    assert "INC-1" in problem["detail"]


async def test_facts_are_read_as_corrected_and_without_withdrawn_ones(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await deliver(client, firing("10:00"), firing("10:00", service="search"))
    joined = await post(client, "facts", kind="joined", person="cathy", at=clock("10:05"))
    await revise(client, joined, detail={"person": "ben"})
    await revise(client, await post(client, "facts", kind="joined", person="dan"), "withdraw")
    await post(client, "facts", kind="room", channel="Bridge")
    async with db.transaction(engine) as tx:
        ids = {row.number: row.id for row in await tx.execute(text("SELECT number, id FROM incident"))}
        found = await facts_of(tx, list(ids.values()), [TimelineKind.JOINED])
    assert {id_: [(one.entry, one["person"]) for one in facts] for id_, facts in found.items()} == {
        ids[1]: [(joined["id"], "ben")]
    }


async def test_readers_record_no_fact(client: httpx.AsyncClient, client_as: ClientAs) -> None:
    await deliver(client, firing("10:00"))
    await post(await client_as(Scope.READ), "facts", status=403, kind="joined", person="ada")
