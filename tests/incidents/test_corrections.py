"""Corrections of what people recorded, over HTTP: the original stays, everything that depends on it follows."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.access.tokens import Scope
from tests.conftest import ClientAs
from tests.incidents.test_api import act, clock, deliver, firing, incident, resolved


async def timeline(client: httpx.AsyncClient, number: int = 1, kind: str | None = None) -> list[dict[str, Any]]:
    answer = await client.get(f"/api/v1/incidents/INC-{number}/timeline")
    assert answer.status_code == 200, answer.text
    return [entry for entry in answer.json()["items"] if kind in {None, entry["kind"]}]


async def revise(
    client: httpx.AsyncClient,
    entry: dict[str, Any],
    verb: str = "correct",
    number: int = 1,
    status: int = 200,
    **body: Any,
) -> dict[str, Any]:
    return await act(client, f"timeline/{entry['id']}/{verb}", number, status, **body)


async def corrections_of_history(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        query = text("SELECT coalesce(sum(value), 0)::integer FROM tally WHERE name = 'history_corrections'")
        return (await connection.execute(query)).scalar_one()  # type: ignore[no-any-return]


async def settle_all(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE incident SET settled_at = now()"))


# — acknowledgements and detection —


async def test_an_acknowledgement_ten_hours_before_detection_is_refused_and_a_later_one_counts(
    client: httpx.AsyncClient,
) -> None:
    await deliver(client, firing("10:00"))
    problem = await act(client, "acknowledge", status=422, at=clock("00:00"), by="ada")
    assert problem["type"] == "urn:aftermath:problem:before-detection"
    assert "2026-08-20T10:00:00" in problem["detail"]
    shown = await act(client, "acknowledge", at=clock("10:05"), by="ada")
    assert (shown["acknowledged_at"], shown["measures"]["time_to_acknowledge"]["seconds"]) == (clock("10:05"), 300)


async def test_an_acknowledgement_before_a_stated_detection_is_refused(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await client.patch("/api/v1/incidents/INC-1", json={"detected_at": clock("10:10")})
    await act(client, "acknowledge", status=422, at=clock("10:05"))
    assert (await act(client, "acknowledge", at=clock("10:12")))["acknowledged_at"] == clock("10:12")


async def test_an_acknowledgement_without_a_time_never_precedes_detection(client: httpx.AsyncClient) -> None:
    """The clock of the sender is ahead."""
    ahead = datetime.now(UTC) + timedelta(minutes=2)
    await deliver(client, firing("10:00") | {"startsAt": ahead.isoformat()})
    shown = await act(client, "acknowledge", by="ada")
    assert (shown["detected_at"] > datetime.now(UTC).isoformat(), shown["status"]) == (True, "acknowledged")
    assert (shown["acknowledged_at"], shown["measures"]["time_to_acknowledge"]["seconds"]) == (shown["detected_at"], 0)


async def test_stating_detection_later_leaves_an_earlier_acknowledgement_out_until_it_is_unset(
    client: httpx.AsyncClient,
) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "acknowledge", at=clock("10:05"), by="ada")
    await act(client, "acknowledge", at=clock("10:20"), by="bob")
    later = (await client.patch("/api/v1/incidents/INC-1", json={"detected_at": clock("10:10")})).json()
    assert (later["acknowledged_at"], later["acknowledged_by"]) == (clock("10:20"), "bob")
    flags = [(entry["by"], entry["flags"]) for entry in await timeline(client, kind="acknowledged")]
    assert flags == [("ada", ["before_detection"]), ("bob", [])]
    unset = (await client.patch("/api/v1/incidents/INC-1", json={"detected_at": None})).json()
    assert (unset["detected_at"], unset["acknowledged_by"]) == (clock("10:00"), "ada")


async def test_after_a_merge_acknowledgements_before_the_stated_detection_are_kept_and_flagged(
    client: httpx.AsyncClient,
) -> None:
    await deliver(client, resolved("10:00", "10:10"), resolved("10:30", "10:40", instance="b"))
    await act(client, "acknowledge", 1, at=clock("10:05"), by="ada")
    await act(client, "acknowledge", 2, at=clock("10:35"), by="bob")
    await client.patch("/api/v1/incidents/INC-1", json={"detected_at": clock("10:08")})
    await deliver(client, resolved("10:12", "10:27", instance="c"))
    shown = await incident(client)
    assert (shown["detected_at"], shown["acknowledged_at"]) == (clock("10:08"), clock("10:35"))
    flags = [(entry["by"], entry["flags"]) for entry in await timeline(client, kind="acknowledged")]
    assert flags == [("ada", ["before_detection"]), ("bob", [])]


async def test_other_people_acknowledge_too_and_take_the_place_of_a_withdrawn_one(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    for at, by in (("10:04", "ada"), ("10:09", "bob"), ("10:11", "ada")):
        await act(client, "acknowledge", at=clock(at), by=by)
    first, second = await timeline(client, kind="acknowledged")
    assert (first["by"], second["by"]) == ("ada", "bob")
    shown = await revise(client, first, "withdraw", by="ada", why="wrong incident")
    assert (shown["acknowledged_at"], shown["acknowledged_by"]) == (clock("10:09"), "bob")
    shown = await revise(client, second, "withdraw")
    assert (shown["status"], shown["acknowledged_at"]) == ("open", None)


# — corrections —


async def test_a_correction_counts_and_the_original_stays_readable(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "acknowledge", at=clock("10:04"), by="ada", note="on it")
    [original] = await timeline(client, kind="acknowledged")
    shown = await revise(client, original, at=clock("10:02"), author="eve", by="bob", why="wrong clock")
    assert (shown["acknowledged_at"], shown["acknowledged_by"]) == (clock("10:02"), "eve")
    assert shown["measures"]["time_to_acknowledge"]["seconds"] == 120
    corrected, original = await timeline(client, kind="acknowledged")
    assert (corrected["at"], corrected["by"], corrected["note"]) == (clock("10:02"), "eve", "on it")
    assert (corrected["corrects"], corrected["revision"]) == (original["id"], None)
    assert (original["at"], original["by"], original["note"]) == (clock("10:04"), "ada", "on it")
    assert original["revision"] == {
        "status": "corrected",
        "entry": corrected["id"],
        "at": corrected["recorded_at"],
        "by": "bob",
        "why": "wrong clock",
    }


async def test_repeating_a_correction_or_withdrawal_changes_nothing(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "acknowledge", at=clock("10:04"), by="ada")
    [entry] = await timeline(client, kind="acknowledged")
    await act(client, "resolve", at=clock("10:30"))
    once = await revise(client, entry, at=clock("10:02"))
    assert await revise(client, entry, at=clock("10:02")) == once
    assert len(await timeline(client)) == 4
    once = await revise(client, entry, "withdraw")
    assert await revise(client, entry, "withdraw") == once
    assert len(await timeline(client)) == 5
    problem = await revise(client, entry, status=409, at=clock("10:03"))
    assert (problem["type"], "record it again" in problem["detail"]) == ("urn:aftermath:problem:withdrawn", True)
    assert (await act(client, "acknowledge", at=clock("10:03"), by="ada"))["acknowledged_at"] == clock("10:03")


async def test_any_entry_of_a_fact_names_it_and_each_correction_builds_on_the_last(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "acknowledge", at=clock("10:04"), by="ada")
    [original] = await timeline(client, kind="acknowledged")
    await revise(client, original, at=clock("10:02"))
    shown = await revise(client, original, author="eve")
    assert (shown["acknowledged_at"], shown["acknowledged_by"]) == (clock("10:02"), "eve")
    newest = max(await timeline(client, kind="acknowledged"), key=lambda entry: entry["id"])
    shown = await revise(client, newest, at=clock("10:07"))
    assert (shown["acknowledged_at"], shown["acknowledged_by"]) == (clock("10:07"), "eve")
    assert {entry["corrects"] for entry in await timeline(client, kind="acknowledged")} == {None, original["id"]}


async def test_milestones_and_notes_are_corrected_and_withdrawn(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "milestones", milestone="identified", at=clock("10:30"))
    await act(client, "milestones", milestone="mitigated", at=clock("10:40"))
    await client.post("/api/v1/incidents/INC-1/timeline", json={"note": "restated", "at": clock("10:41")})
    [identified], [mitigated], [note] = [
        await timeline(client, kind=kind) for kind in ("identified", "mitigated", "note")
    ]
    shown = await revise(client, identified, at=clock("10:20"))
    assert (shown["identified_at"], shown["measures"]["response"]["seconds"]) == (clock("10:20"), 1200)
    shown = await revise(client, mitigated, "withdraw")
    assert (shown["mitigated_at"], shown["measures"]["time_to_mitigate"]["status"]) == (None, "pending")
    await revise(client, note, note="restarted")
    assert [entry["note"] for entry in await timeline(client, kind="note")] == ["restated", "restarted"]
    assert (await revise(client, note, status=422, note=""))["type"] == "urn:aftermath:problem:note-is-empty"


async def test_setting_a_milestone_again_corrects_it_and_correcting_an_older_one_does_not_bring_it_back(
    client: httpx.AsyncClient,
) -> None:
    await deliver(client, resolved("10:00", "10:10"), resolved("10:30", "10:40", instance="b"))
    await act(client, "milestones", 1, milestone="mitigated", at=clock("10:05"), note="rolled bakc")
    await act(client, "milestones", 2, milestone="mitigated", at=clock("10:35"))
    await deliver(client, resolved("10:12", "10:27", instance="c"))
    first, _ = await timeline(client, kind="mitigated")
    shown = await revise(client, first, note="rolled back")
    assert shown["mitigated_at"] == clock("10:35")
    shown = await act(client, "milestones", milestone="mitigated", at=clock("10:38"))
    assert shown["mitigated_at"] == clock("10:38")
    [again] = [entry for entry in await timeline(client, kind="mitigated") if entry["at"] == clock("10:38")]
    assert (await revise(client, again, "withdraw"))["mitigated_at"] == clock("10:05")


async def test_a_correction_is_refused_where_the_fact_would_be_refused(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:20"))
    await act(client, "acknowledge", at=clock("10:05"))
    [entry] = await timeline(client, kind="acknowledged")
    for at, status, kind in (
        (clock("09:00"), 422, "before-detection"),
        (clock("10:30"), 409, "already-resolved"),
        ("2199-01-01T00:00:00Z", 422, "in-the-future"),
    ):
        problem = await revise(client, entry, status=status, at=at)
        assert problem["type"] == f"urn:aftermath:problem:{kind}"
    assert len(await timeline(client, kind="acknowledged")) == 1


async def test_what_alerts_derive_cannot_be_corrected_and_the_message_names_the_way(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:20"))
    opened, ended = await timeline(client)
    for entry in (opened, ended):
        assert "PATCH" in (await revise(client, entry, status=409, at=clock("10:10")))["detail"]
    await client.patch("/api/v1/incidents/INC-1", json={"title": "x"})
    [changed] = await timeline(client, kind="changed")
    assert "PATCH" in (await revise(client, changed, "withdraw", status=409))["detail"]
    await revise(client, changed, author="eve")
    assert [entry["by"] for entry in await timeline(client, kind="changed")] == ["admin", "eve"]
    assert (await revise(client, {"id": 999_999}, status=404, note="x"))["type"].endswith("entry-not-found")


async def test_an_entry_of_another_incident_is_named_with_its_incident(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("11:00", service="search"))
    await act(client, "acknowledge", 2, at=clock("11:05"))
    [entry] = await timeline(client, 2, "acknowledged")
    assert "INC-2" in (await revise(client, entry, status=409, at=clock("11:06")))["detail"]


# — resolves —


async def test_correcting_a_resolve_moves_the_end_and_withdrawing_it_reopens(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("10:01", instance="b"))
    await act(client, "resolve", at=clock("10:30"), by="ada")
    [entry] = await timeline(client, kind="resolved")
    shown = await revise(client, entry, at=clock("10:20"))
    assert (shown["resolved_at"], shown["end_reason"]) == (clock("10:20"), "manual")
    assert shown["measures"]["time_to_recover"]["seconds"] == 1200
    assert len(await timeline(client, kind="resolved")) == 2, "no other end is recorded beside the correction"
    # A person's resolve still caps what the sender reports later.
    await deliver(client, resolved("10:00", "11:00"))
    assert (await incident(client))["resolved_at"] == clock("10:20")
    assert "10:01" in (await revise(client, entry, status=409, at=clock("10:00")))["detail"]
    shown = await revise(client, entry, "withdraw")
    assert (shown["status"], shown["resolved_at"], shown["alerts_firing"]) == ("open", None, 1)
    await deliver(client, resolved("10:01", "11:10", instance="b"))
    assert (await incident(client))["resolved_at"] == clock("11:10")


async def test_correcting_a_resolve_splits_and_merges_as_the_law_says(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "resolve", at=clock("10:30"))
    await deliver(client, resolved("10:33", "10:40", instance="b"))
    await act(client, "acknowledge", at=clock("10:35"))
    [entry] = [each for each in await timeline(client, kind="resolved") if each["by"]]
    shown = await revise(client, entry, at=clock("10:10"))
    assert (shown["resolved_at"], shown["acknowledged_at"]) == (clock("10:10"), None)
    second = await incident(client, 2)
    assert (second["detected_at"], second["acknowledged_at"]) == (clock("10:33"), clock("10:35"))
    shown = await revise(client, entry, at=clock("10:29"))
    assert (shown["resolved_at"], shown["acknowledged_at"], shown["reopened"]) == (clock("10:40"), clock("10:35"), 1)
    assert (await incident(client, 2))["merged_into"] == "INC-1"


async def test_a_resolve_is_corrected_in_every_part_of_a_split(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("10:30", instance="b"))
    await act(client, "resolve", at=clock("10:40"))
    await deliver(client, resolved("10:00", "10:10"))
    assert ((await incident(client, 1))["resolved_at"], (await incident(client, 2))["resolved_at"]) == (
        clock("10:10"),
        clock("10:40"),
    )
    [entry] = [each for each in await timeline(client, 2, "resolved") if each["by"]]
    assert (await revise(client, entry, number=2, at=clock("10:50")))["resolved_at"] == clock("10:50")
    assert (await incident(client, 1))["resolved_at"] == clock("10:10")
    assert (await revise(client, entry, "withdraw", number=2))["status"] == "open"


async def test_a_resolve_that_a_reopening_undid_changes_no_alert(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "resolve", at=clock("10:30"))
    await act(client, "reopen")
    [entry] = await timeline(client, kind="resolved")
    assert (await revise(client, entry, at=clock("10:20")))["status"] == "open"
    assert (await revise(client, entry, "withdraw"))["status"] == "open"


async def test_withdrawing_a_resolve_does_not_absorb_newer_incidents(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "resolve", at=clock("10:30"))
    await deliver(client, firing("12:00", instance="b"))
    [entry] = await timeline(client, kind="resolved")
    problem = await revise(client, entry, "withdraw", status=409)
    assert (problem["type"], "INC-2" in problem["detail"]) == ("urn:aftermath:problem:newer-incident-exists", True)
    assert (await incident(client))["resolved_at"] == clock("10:30")
    assert len(await timeline(client, kind="withdrawn")) == 0


async def test_an_end_whose_alerts_were_deleted_cannot_be_corrected(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "resolve", at=clock("10:30"))
    [entry] = await timeline(client, kind="resolved")
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM alert"))
    problem = await revise(client, entry, status=409, at=clock("10:20"))
    assert problem["type"] == "urn:aftermath:problem:alerts-deleted"
    assert [each["at"] for each in await timeline(client, kind="resolved")] == [clock("10:30")]


# — settled history, versions, concurrency —


async def test_corrections_of_settled_incidents_are_counted(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "acknowledge", at=clock("10:05"), by="ada")
    await act(client, "resolve", at=clock("10:30"))
    await settle_all(engine)
    [acknowledged], [ended] = await timeline(client, kind="acknowledged"), await timeline(client, kind="resolved")
    await revise(client, acknowledged, note="only the text")
    assert await corrections_of_history(engine) == 0
    await revise(client, acknowledged, at=clock("10:03"))
    assert await corrections_of_history(engine) == 1
    shown = await revise(client, ended, at=clock("10:20"))
    assert (shown["settled"], await corrections_of_history(engine)) == (True, 2)
    await revise(client, acknowledged, "withdraw")
    assert await corrections_of_history(engine) == 3


async def test_a_correction_applies_only_to_the_version_that_the_client_has_seen(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "acknowledge", at=clock("10:05"))
    [entry] = await timeline(client, kind="acknowledged")
    etag = (await client.get("/api/v1/incidents/INC-1")).headers["ETag"]
    path = f"/api/v1/incidents/INC-1/timeline/{entry['id']}"
    seen = {"If-Match": etag}
    first = await client.post(f"{path}/correct", json={"note": "one"}, headers=seen)
    assert (first.status_code, first.headers["ETag"] != etag) == (200, True)
    for verb, body in (("correct", {"note": "two"}), ("withdraw", {})):
        assert (await client.post(f"{path}/{verb}", json=body, headers=seen)).status_code == 412
    seen = {"If-Match": first.headers["ETag"]}
    assert (await client.post(f"{path}/withdraw", headers=seen)).status_code == 200


async def test_concurrent_corrections_are_serialized_and_none_is_lost(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "acknowledge", at=clock("10:05"), by="ada")
    [entry] = await timeline(client, kind="acknowledged")
    bodies: list[dict[str, Any]] = [{"at": clock("10:02")}, {"author": "eve"}, {"note": "on it"}]
    await asyncio.gather(*(revise(client, entry, **body) for body in bodies))
    shown = await incident(client)
    assert (shown["acknowledged_at"], shown["acknowledged_by"]) == (clock("10:02"), "eve")
    entries = await timeline(client, kind="acknowledged")
    [current] = [each for each in entries if each["revision"] is None]
    assert (len(entries), current["at"], current["by"], current["note"]) == (4, clock("10:02"), "eve", "on it")


async def test_a_corrected_time_within_another_incident_of_the_key_moves_the_fact_there(
    client: httpx.AsyncClient,
) -> None:
    await deliver(client, resolved("10:00", "10:10"), resolved("11:00", "11:10", instance="b"))
    await act(client, "acknowledge", 1, at=clock("10:05"), by="ada")
    [entry] = await timeline(client, 1, "acknowledged")
    assert (await revise(client, entry, at=clock("11:05")))["acknowledged_at"] is None
    assert (await incident(client, 2))["acknowledged_at"] == clock("11:05")
    assert "INC-2" in (await revise(client, entry, status=409, at=clock("11:06")))["detail"]


# — attribution —


async def test_an_action_without_by_is_attributed_to_the_token(client_as: ClientAs) -> None:
    client = await client_as(Scope.WRITE)
    declared = await client.post(
        "/api/v1/incidents", json={"title": "t", "service": "s", "detected_at": clock("10:00")}
    )
    assert declared.status_code == 201
    shown = await act(client, "acknowledge", at=clock("10:01"))
    assert shown["acknowledged_by"] == "test write"
    await act(client, "milestones", milestone="mitigated", at=clock("10:02"))
    await client.post("/api/v1/incidents/INC-1/timeline", json={"note": "n", "at": clock("10:03")})
    await act(client, "resolve", at=clock("10:04"))
    await act(client, "reopen", at=clock("10:05"))
    await client.patch("/api/v1/incidents/INC-1", json={"title": "x"})
    await client.put("/api/v1/incidents/INC-1/cause", json={"deployment_id": None})
    entries = await timeline(client)
    assert {entry["kind"] for entry in entries if entry["by"] == "test write"} == {
        "declared", "acknowledged", "mitigated", "note", "resolved", "reopened", "changed", "cause",
    }  # fmt: skip
    assert [entry["kind"] for entry in entries if entry["by"] is None] == ["opened"]


async def test_by_names_another_person_than_the_token(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    assert (await act(client, "acknowledge", at=clock("10:01"), by="ada"))["acknowledged_by"] == "ada"
    [entry] = await timeline(client, kind="acknowledged")
    await revise(client, entry, "withdraw")
    [withdrawn] = await timeline(client, kind="withdrawn")
    [original] = await timeline(client, kind="acknowledged")
    assert (withdrawn["by"], withdrawn["corrects"], original["revision"]["by"]) == ("admin", entry["id"], "admin")


async def test_a_stated_cause_is_withdrawn(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await client.put("/api/v1/incidents/INC-1/cause", json={"deployment_id": None, "by": "ada"})
    assert (await client.get("/api/v1/incidents/INC-1/cause")).json()["basis"] == "stated"
    [entry] = await timeline(client, kind="cause")
    await revise(client, entry, author="eve")
    shown = (await client.get("/api/v1/incidents/INC-1/cause")).json()
    assert (shown["basis"], shown["by"]) == ("stated", "eve")
    await revise(client, entry, "withdraw")
    shown = (await client.get("/api/v1/incidents/INC-1/cause")).json()
    assert (shown["basis"], shown["by"]) == (None, None)


@pytest.mark.parametrize("verb", ["correct", "withdraw"])
async def test_corrections_need_the_scope_write(client_as: ClientAs, client: httpx.AsyncClient, verb: str) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "acknowledge", at=clock("10:01"))
    [entry] = await timeline(client, kind="acknowledged")
    await revise(await client_as(Scope.READ), entry, verb, status=403)
