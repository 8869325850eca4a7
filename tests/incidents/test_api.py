"""Incidents over HTTP: people's actions, answers and errors. Times are event times on one day."""

from typing import Any

import httpx
import pytest

from app.base.access.tokens import Scope
from app.base.http.requests.paging import cursor_of
from app.main import serving
from app.settings import Settings
from tests.conftest import ClientAs, client_of
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert


def clock(text: str) -> str:
    return f"2026-08-20T{text}:00Z"


def firing(started: str, **labels: str) -> dict[str, Any]:
    return an_alert(clock(started), **labels)


def resolved(started: str, ended: str, **labels: str) -> dict[str, Any]:
    return an_alert(clock(started), clock(ended), **labels)


async def deliver(client: httpx.AsyncClient, *alerts: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post("/webhooks/alertmanager", json=a_delivery(*alerts))
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def incident(client: httpx.AsyncClient, number: int = 1) -> dict[str, Any]:
    answer = await client.get(f"/api/v1/incidents/INC-{number}")
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def act(
    client: httpx.AsyncClient, action: str, number: int = 1, status: int = 200, **body: Any
) -> dict[str, Any]:
    answer = await client.post(f"/api/v1/incidents/INC-{number}/{action}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_the_first_acknowledgement_counts(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    shown = await act(client, "acknowledge", at=clock("10:04"), by="ada")
    assert (shown["status"], shown["acknowledged_by"]) == ("acknowledged", "ada")
    assert shown["measures"]["time_to_acknowledge"] == {"seconds": 240, "status": "recorded", "reason": None}
    again = await act(client, "acknowledge", at=clock("10:09"), by="bob")
    assert (again["acknowledged_at"], again["acknowledged_by"]) == (clock("10:04"), "ada")
    earlier = await act(client, "acknowledge", at=clock("10:02"), by="eve")
    assert (earlier["acknowledged_at"], earlier["acknowledged_by"]) == (clock("10:02"), "eve")


async def test_an_acknowledgement_survives_repeats_reopening_and_relabelling(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "acknowledge", at=clock("10:04"), by="ada")
    await deliver(client, firing("10:00"))
    await deliver(client, resolved("10:00", "10:20"))
    await deliver(client, firing("10:22", pod="other"))
    shown = await incident(client)
    assert (shown["status"], shown["acknowledged_at"], shown["reopened"]) == ("acknowledged", clock("10:04"), 1)
    assert (shown["first_resolved_at"], shown["resolved_at"]) == (clock("10:20"), None)


async def test_a_resolved_incident_is_acknowledged_only_in_retrospect(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:20"))
    assert (await incident(client))["measures"]["time_to_acknowledge"]["status"] == "not_applicable"
    problem = await act(client, "acknowledge", status=409)
    assert problem["type"] == "urn:aftermath:problem:already-resolved"
    shown = await act(client, "acknowledge", at=clock("10:10"))
    assert shown["measures"]["time_to_acknowledge"]["seconds"] == 600


async def test_a_manual_resolve_is_not_undone_by_repeats_but_by_a_new_alert(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("10:01", instance="b"))
    shown = await act(client, "resolve", at=clock("10:30"), by="ada")
    assert (shown["status"], shown["resolved_at"], shown["end_reason"]) == ("resolved", clock("10:30"), "manual")
    assert (await deliver(client, firing("10:00")))["verdicts"] == {"repeated": 1}
    shown = await incident(client)
    assert (shown["status"], shown["firing_after_resolve"]) == ("resolved", True)
    # The sender resolves later: the person's time stands, and nothing is firing any more.
    await deliver(client, resolved("10:00", "11:00"), resolved("10:01", "11:00", instance="b"))
    shown = await incident(client)
    assert (shown["resolved_at"], shown["firing_after_resolve"]) == (clock("10:30"), False)
    assert (await deliver(client, firing("10:33", instance="c")))["verdicts"] == {"reopened": 1}
    assert (await incident(client))["status"] == "open"


async def test_an_alert_that_really_ended_before_a_manual_resolve_ended_then(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "resolve", at=clock("10:30"))
    await deliver(client, resolved("10:00", "10:20"))
    assert (await incident(client))["resolved_at"] == clock("10:20")


async def test_resolving_is_idempotent_and_errors_name_the_allowed_actions(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    problem = await act(client, "resolve", status=409, at=clock("09:00"))
    assert "2026-08-20T10:00:00" in problem["detail"]
    await act(client, "resolve", at=clock("10:30"))
    await act(client, "resolve", at=clock("10:30"))
    await act(client, "resolve")
    problem = await act(client, "resolve", status=409, at=clock("10:40"))
    assert "reopen" in problem["detail"]
    assert (await act(client, "resolve", status=422, at="2199-01-01T00:00:00Z"))["title"] == "Time in the future"


async def test_reopening_takes_a_manual_resolve_back(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "resolve", at=clock("10:30"))
    shown = await act(client, "reopen", by="ada", note="not over")
    assert (shown["status"], shown["resolved_at"], shown["reopened"]) == ("open", None, 0)
    await deliver(client, resolved("10:00", "11:00"))
    assert (await incident(client))["resolved_at"] == clock("11:00")


async def test_reopening_keeps_an_incident_open_that_its_sender_has_ended(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:30"))
    shown = await act(client, "reopen", by="ada")
    assert (shown["status"], shown["alerts"]) == ("open", 1)
    assert len((await client.get("/api/v1/incidents/INC-1/alerts")).json()["items"]) == 1
    shown = await act(client, "resolve", at=clock("11:15"), by="ada")
    assert (shown["resolved_at"], shown["measures"]["time_to_recover"]["seconds"]) == (clock("11:15"), 75 * 60)
    shown = await act(client, "reopen")
    assert shown["status"] == "open"


async def test_a_declared_incident_only_changes_when_people_act(client: httpx.AsyncClient) -> None:
    body = {
        "title": "Payments fail for some",
        "service": "payments",
        "severity": "sev2",
        "impact_started_at": clock("09:50"),
        "detected_at": clock("10:00"),
        "by": "ada",
    }
    answer = await client.post("/api/v1/incidents", json=body)
    assert answer.status_code == 201, answer.text
    shown = answer.json()
    assert (shown["status"], shown["alerts"], shown["sources"]) == ("open", 0, [])
    assert shown["measures"]["time_to_detect"]["seconds"] == 600
    assert answer.headers["Location"] == "/api/v1/incidents/INC-1"
    await act(client, "milestones", milestone="mitigated", at=clock("10:20"))
    shown = await act(client, "milestones", milestone="identified", at=clock("10:10"))
    assert shown["measures"]["time_to_mitigate"]["seconds"] == 30 * 60
    shown = await act(client, "resolve", at=clock("10:30"))
    assert {name: shown["measures"][name]["seconds"] for name in ("detection", "response", "remediation")} == {
        "detection": 600,
        "response": 600,
        "remediation": 1200,
    }
    assert shown["measures"]["time_to_recover"]["seconds"] == 40 * 60


async def test_after_a_merge_the_earliest_acknowledgement_counts_and_the_older_number_stays(
    client: httpx.AsyncClient,
) -> None:
    await deliver(client, resolved("10:30", "10:40"))
    await deliver(client, resolved("10:00", "10:10", instance="b"))
    await act(client, "acknowledge", 1, at=clock("10:35"), by="ada")
    await act(client, "acknowledge", 2, at=clock("10:05"), by="bob")
    receipt = await deliver(client, resolved("10:12", "10:27", instance="c"))
    assert (receipt["verdicts"], receipt["incidents"]) == ({"merged": 1}, ["INC-1"])
    winner, loser = await incident(client, 1), await incident(client, 2)
    assert (winner["detected_at"], winner["resolved_at"]) == (clock("10:00"), clock("10:40"))
    assert (winner["acknowledged_at"], winner["acknowledged_by"]) == (clock("10:05"), "bob")
    assert loser["merged_into"] == "INC-1"
    listed = (await client.get("/api/v1/incidents")).json()["items"]
    assert [one["number"] for one in listed] == ["INC-1"]
    assert "INC-1" in (await act(client, "acknowledge", 2, status=409))["detail"]


async def test_after_a_split_each_fact_belongs_to_the_part_that_contains_its_time(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("11:00", instance="b"))
    await act(client, "acknowledge", at=clock("11:05"), by="ada")
    await act(client, "milestones", milestone="identified", at=clock("10:07"))
    receipt = await deliver(client, resolved("10:00", "10:20"))
    assert receipt["verdicts"] == {"split": 1}
    first, second = await incident(client, 1), await incident(client, 2)
    assert (first["detected_at"], first["resolved_at"]) == (clock("10:00"), clock("10:20"))
    assert (first["acknowledged_at"], first["identified_at"]) == (None, clock("10:07"))
    assert (second["detected_at"], second["status"]) == (clock("11:00"), "acknowledged")
    assert (second["acknowledged_at"], second["identified_at"]) == (clock("11:05"), None)


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        (["10:07", "11:10"], (None, "11:10")),
        (["10:07", "11:10", "10:09"], ("10:09", None)),
    ],
)
async def test_a_corrected_milestone_does_not_come_back_with_a_split(
    client: httpx.AsyncClient, times: list[str], kept: tuple[str | None, ...]
) -> None:
    await deliver(client, firing("10:00"), firing("11:00", instance="b"))
    for each in times:
        await act(client, "milestones", milestone="mitigated", at=clock(each))
    await deliver(client, resolved("10:00", "10:20"))
    parts = await incident(client, 1), await incident(client, 2)
    assert tuple(part["mitigated_at"] for part in parts) == tuple(each and clock(each) for each in kept)
    timelines = [(await client.get(f"/api/v1/incidents/INC-{number}/timeline")).json()["items"] for number in (1, 2)]
    recorded = [entry["at"] for entries in timelines for entry in entries if entry["kind"] == "mitigated"]
    assert sorted(recorded) == sorted(map(clock, times)), "a corrected entry stays readable"


async def test_after_a_split_stated_times_move_and_the_rest_holds_for_both(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("11:00", instance="b"))
    changes = {"severity": "sev2", "service": "shop", "impact_started_at": clock("10:58")}
    await client.patch("/api/v1/incidents/INC-1", json=changes)
    await deliver(client, resolved("10:00", "10:20"))
    first, second = await incident(client, 1), await incident(client, 2)
    assert {(one["severity"], one["service"]) for one in (first, second)} == {("sev2", "shop")}
    assert (first["impact_started_at"], second["impact_started_at"]) == (None, clock("10:58"))


async def test_only_the_newest_incident_of_a_key_is_reopened(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:20"), resolved("12:00", "12:20"))
    assert "INC-2" in (await act(client, "reopen", 1, status=409))["detail"]
    assert (await act(client, "reopen", 2))["status"] == "open"


async def test_an_alert_without_an_end_time_may_get_its_real_one_later(client: httpx.AsyncClient) -> None:
    unknown = resolved("10:00", "10:20") | {"endsAt": "0001-01-01T00:00:00Z"}
    await deliver(client, unknown)
    assert (await incident(client))["resolved_at"] > clock("10:20")
    await deliver(client, resolved("10:00", "10:20"))
    await deliver(client, unknown)
    assert (await incident(client))["resolved_at"] == clock("10:20")


async def test_a_persons_corrections_stand_over_the_alerts_and_can_be_taken_back(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    answer = await client.get("/api/v1/incidents/INC-1")
    etag = answer.headers["ETag"]
    changes = {
        "title": "Checkout is slow",
        "severity": "sev2",
        "service": "shop",
        "impact": "0.25",
        "impact_started_at": clock("09:40"),
        "detected_at": clock("09:55"),
    }
    answer = await client.patch("/api/v1/incidents/INC-1", json=changes, headers={"If-Match": etag})
    assert answer.status_code == 200, answer.text
    assert {name: answer.json()[name] for name in changes} == changes
    assert answer.json()["measures"]["time_to_detect"]["seconds"] == 15 * 60
    stale = await client.patch("/api/v1/incidents/INC-1", json={"title": "x"}, headers={"If-Match": etag})
    assert (stale.status_code, stale.json()["type"]) == (412, "urn:aftermath:problem:precondition-failed")
    back = (await client.patch("/api/v1/incidents/INC-1", json=dict.fromkeys(changes))).json()
    assert (back["severity"], back["service"], back["impact_started_at"]) == ("sev1", "checkout", None)
    kinds = [entry["kind"] for entry in (await client.get("/api/v1/incidents/INC-1/timeline")).json()["items"]]
    assert kinds == ["opened", "changed", "changed"]


async def test_an_annotation_that_repeats_the_rules_for_gives_the_start_of_impact(client: httpx.AsyncClient) -> None:
    alert = resolved("10:00", "10:30")
    alert["annotations"] = {"for": "5m"}
    await deliver(client, alert)
    shown = await incident(client)
    assert shown["impact_started_at"] == clock("09:55")
    assert shown["measures"]["time_to_detect"]["seconds"] == 300
    assert shown["measures"]["time_to_recover"]["seconds"] == 35 * 60
    stated = await client.patch("/api/v1/incidents/INC-1", json={"impact_started_at": clock("09:50")})
    assert stated.json()["impact_started_at"] == clock("09:50")
    back = await client.patch("/api/v1/incidents/INC-1", json={"impact_started_at": None})
    assert back.json()["impact_started_at"] == clock("09:55")


async def test_notes_and_moves_stand_in_the_timeline_in_order(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "acknowledge", at=clock("10:02"), by="ada", note="on it")
    answer = await client.post(
        "/api/v1/incidents/INC-1/timeline", json={"note": "<b>restarting</b>", "at": clock("10:05"), "by": "ada"}
    )
    assert answer.status_code == 201
    await deliver(client, resolved("10:00", "10:20"))
    items = (await client.get("/api/v1/incidents/INC-1/timeline")).json()["items"]
    assert [(entry["kind"], entry["at"], entry["by"], entry["note"]) for entry in items] == [
        ("opened", clock("10:00"), None, None),
        ("acknowledged", clock("10:02"), "ada", "on it"),
        ("note", clock("10:05"), "ada", "<b>restarting</b>"),
        ("resolved", clock("10:20"), None, None),
    ]


async def test_lists_are_filtered_and_paged_newest_first(client: httpx.AsyncClient) -> None:
    for hour in range(10, 15):
        await deliver(client, resolved(f"{hour}:00", f"{hour}:10", team="blue" if hour % 2 else "red"))
    await deliver(client, firing("15:00", service="search", severity="warning"))

    async def numbers(**query: Any) -> list[str]:
        found: list[str] = []
        cursor = None
        while True:
            page = (await client.get("/api/v1/incidents", params=query | ({"cursor": cursor} if cursor else {}))).json()
            found += [one["number"].removeprefix("INC-") for one in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    assert await numbers(limit=2) == ["6", "5", "4", "3", "2", "1"]
    assert await numbers(status="open") == ["6"]
    assert await numbers(status="resolved", service="checkout", limit=3) == ["5", "4", "3", "2", "1"]
    assert await numbers(severity="sev3") == ["6"]
    assert await numbers(label="team=blue") == ["4", "2"]
    assert await numbers(**{"from": clock("12:00"), "to": clock("14:00")}) == ["4", "3"]
    assert await numbers(source="alertmanager") == ["6", "5", "4", "3", "2", "1"]
    assert await numbers(source="nobody") == []


async def test_a_wrong_cursor_or_id_is_reported_as_a_problem(client: httpx.AsyncClient) -> None:
    for path, status in (
        ("/api/v1/incidents?cursor=bm9wZQ==", 422),
        ("/api/v1/incidents?label=x", 422),
        ("/api/v1/incidents?from=2026-08-21T00:00:00Z&to=2026-08-20T00:00:00Z", 422),
        ("/api/v1/incidents/INC-99", 404),
        ("/api/v1/incidents/99", 422),
        ("/api/v1/nothing", 404),
    ):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path


@pytest.mark.parametrize("part", [5, None, [], "x"])
async def test_a_tampered_cursor_is_refused(client: httpx.AsyncClient, part: object) -> None:
    await deliver(client, firing("10:00"))
    cursor = cursor_of(clock("10:00"), part)
    for path in ("/api/v1/incidents", "/api/v1/incidents/INC-1/alerts", "/api/v1/incidents/INC-1/timeline"):
        if (path, part) == ("/api/v1/incidents", 5) or (path.endswith("timeline") and part == 5):
            continue  # that is one of theirs
        assert (await client.get(path, params={"cursor": cursor})).status_code == 422, path


@pytest.mark.parametrize(
    ("scope", "readable", "writable"),
    [
        (None, 401, 401),
        (Scope.INGEST, 403, 403),
        (Scope.READ, 200, 403),
        (Scope.WRITE, 200, 201),
        (Scope.ADMIN, 200, 201),
    ],
)
async def test_scopes_limit_a_token(client_as: ClientAs, scope: Scope | None, readable: int, writable: int) -> None:
    client = await client_as(scope)
    assert (await client.get("/api/v1/incidents")).status_code == readable
    declared = await client.post("/api/v1/incidents", json={"title": "t", "service": "s"})
    assert declared.status_code == writable
    assert (await client.get("/healthz")).status_code == 200


async def test_late_signals_on_settled_history_are_corrections(client: httpx.AsyncClient, engine: Any) -> None:
    from sqlalchemy import text

    await deliver(client, resolved("10:00", "10:20"))
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE incident SET settled_at = now()"))
    receipt = await deliver(client, resolved("10:00", "10:40"))
    assert receipt["verdicts"] == {"late": 1}
    shown = await incident(client)
    assert (shown["resolved_at"], shown["settled"]) == (clock("10:40"), True)
    async with engine.connect() as connection:
        corrections = await connection.execute(text("SELECT sum(value) FROM tally WHERE name = 'history_corrections'"))
        assert corrections.scalar_one() == 1


async def test_a_page_of_large_incidents_or_alerts_ends_early_and_loses_none(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    """Labels of one alert may have hundreds of kilobytes, so that 500 on a page would fill the memory."""
    large = {f"l{n}": "x" * 4000 for n in range(20)}
    ended = "2026-08-20T10:30:00Z"  # the downtime of what still fires grows from one answer to the next
    alerts = [an_alert(ended=ended, service=f"s{n % 5}", instance=str(n), **large) for n in range(15)]
    assert (await client.post(WEBHOOK, json=a_delivery(*alerts))).status_code == 200
    small = settings.model_copy(update={"page_bytes": 2**16})
    async with serving(small) as context, client_of(context) as frugal:
        for path, number in (("/api/v1/incidents", 5), ("/api/v1/incidents/INC-1/alerts", 3)):
            whole = (await client.get(path)).json()
            assert (len(whole["items"]), whole["next_cursor"]) == (number, None)
            found: list[Any] = []
            cursor: str | None = ""
            while cursor is not None:
                page = (await frugal.get(path, params={"cursor": cursor} if cursor else {})).json()
                assert len(page["items"]) == 1, "one has more than a page may have, but each page has at least one"
                found += page["items"]
                cursor = page["next_cursor"]
            assert found == whole["items"]
        sheet = "/api/v1/incidents?format=csv"
        assert (await frugal.get(sheet)).text == (await client.get(sheet)).text
