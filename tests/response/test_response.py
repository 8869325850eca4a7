"""The response to an incident over HTTP: roles, updates, targets, exit criteria; and how they follow merges."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from app.base.access.tokens import Scope
from app.base.http.context import Context
from tests.conftest import ClientAs
from tests.incidents.test_api import act, clock, deliver, firing, incident, resolved
from tests.incidents.test_corrections import revise, timeline
from tests.incidents.test_tasks import post
from tests.response.test_configuration import PAYMENTS, get, put
from tests.response.test_facts import record
from tests.statements import counted


async def response(client: httpx.AsyncClient, number: int = 1) -> dict[str, Any]:
    return await get(client, f"incidents/INC-{number}/response")


async def take(
    client: httpx.AsyncClient, role: str, person: str, at: str, *, number: int = 1, status: int = 201, **more: Any
) -> dict[str, Any]:
    """`instead_of` is sent as `from`."""
    body = {"role": role, "person": person, "at": clock(at)} | more
    if "instead_of" in body:
        body["from"] = body.pop("instead_of")
    answer = await client.post(f"/api/v1/incidents/INC-{number}/roles", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()  # type: ignore[no-any-return]


def history(shown: dict[str, Any]) -> list[tuple[str, str, str, str | None]]:
    return [(one["role"], one["person"], one["from"], one["to"]) for one in shown["history"]]


async def test_without_a_type_the_response_is_what_people_did(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:20"))
    shown = await response(client)
    assert shown["type"] is None
    assert (shown["channels"], shown["exit"], shown["roles"], shown["people"]) == ([], [], [], [])
    assert shown["updates"] == {
        "cadence_seconds": 1800,
        "last_at": None,
        "next_due_at": None,
        "overdue_seconds": 0,
        "longest_gap_seconds": 1200,
    }
    assert shown["impact"] == {"customers": None, "support_requests": None, "share": None, "what": None}


async def test_a_type_is_the_plan_for_the_response(client: httpx.AsyncClient) -> None:
    await put(client, "incident-types/payments", PAYMENTS)
    await deliver(client, firing("10:00"))
    shown = await response(client)
    assert (shown["type"], shown["room"], shown["steps"]) == ("payments", None, PAYMENTS["steps"])
    assert [one["name"] for one in shown["channels"]] == ["#inc-1", "Bridge 1"]
    assert ([one["met"] for one in shown["exit"]], shown["exit_open"]) == ([False, False], 2)
    assert [(one["role"], one["people"], one["suggested"]) for one in shown["roles"]] == [
        ("commander", [], None),
        ("scribe", [], None),
    ]
    assert (shown["updates"]["cadence_seconds"], shown["updates"]["next_due_at"]) == (600, clock("10:10"))
    stated = {"kind": "criterion", "at": clock("10:15")}
    await record(client, stated | {"criterion": PAYMENTS["exit_criteria"][0], "by": "ada"})
    await record(client, stated | {"criterion": "Spelled differently"})
    await record(client, {"kind": "room", "channel": "Bridge 1", "why": "Slack is down"})
    await record(client, {"kind": "impact", "customers": 1200, "at": clock("10:05")})
    await record(client, {"kind": "impact", "support_requests": 50, "at": clock("10:04")})
    shown = await response(client)
    assert [(one["met"], one["by"]) for one in shown["exit"]] == [(True, "ada"), (False, None), (True, "admin")]
    assert (shown["exit_open"], shown["room"]) == (1, "Bridge 1")
    assert shown["impact"] == {"customers": 1200, "support_requests": 50, "share": None, "what": None}
    await act(client, "resolve")
    assert (await incident(client))["status"] == "resolved", "open criteria do not delay the recovery"


async def test_a_person_states_the_type(client: httpx.AsyncClient) -> None:
    await put(client, "incident-types/payments", PAYMENTS)
    await put(client, "incident-types/other", PAYMENTS | {"matchers": ['service="nothing"']})
    await deliver(client, firing("10:00"))
    problem = (await client.patch("/api/v1/incidents/INC-1", json={"type": "unknown"})).json()
    assert problem["type"] == "urn:aftermath:problem:unknown-type"
    assert "other, payments" in problem["detail"]
    assert (await client.patch("/api/v1/incidents/INC-1", json={"type": "other"})).json()["type"] == "other"
    assert (await response(client))["type"] == "other"
    await client.delete("/api/v1/incident-types/other")
    assert (await response(client))["type"] == "payments"
    await client.patch("/api/v1/incidents/INC-1", json={"type": None})
    assert (await incident(client))["type"] is None


async def test_declaring_assigns_the_commander_and_responders_and_states_the_type(client: httpx.AsyncClient) -> None:
    await put(client, "incident-types/other", PAYMENTS | {"matchers": ['service="nothing"']})
    await deliver(client, firing("10:00"))
    body: dict[str, Any] = {"at": clock("10:03"), "commander": "ada", "responders": ["ben", "cy"], "type": "other"}
    shown = await act(client, "declare", **body)
    assert (shown["declared_at"], shown["type"]) == (clock("10:03"), "other")
    await act(client, "declare", **body)
    assert history(await response(client)) == [
        ("commander", "ada", clock("10:03"), None),
        ("responder", "ben", clock("10:03"), None),
        ("responder", "cy", clock("10:03"), None),
    ]
    assert len(await timeline(client, kind="role")) == 3, "repeating it records nothing"
    await act(client, "declare", status=422, at=clock("10:04"), by="eve", type="unknown")
    assert len(await timeline(client, kind="declared")) == 1, "nothing was recorded"


async def test_a_declaration_leaves_the_command_with_whoever_has_it(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "declare", commander="ada", at=clock("10:03"))
    await take(client, "commander", "ben", "10:05", instead_of="ada")
    declarations: list[dict[str, Any]] = [{"at": clock("10:03")}, {"at": clock("10:06"), "responders": ["cy"]}, {}]
    for declaration in declarations:
        await act(client, "declare", commander="ada", **declaration)
    assert history(await response(client)) == [
        ("commander", "ada", clock("10:03"), clock("10:05")),
        ("commander", "ben", clock("10:05"), None),
        ("responder", "cy", clock("10:06"), None),
    ]


# — roles —


async def test_roles_are_taken_handed_over_and_laid_down(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await take(client, "commander", "ada", "10:01")
    await take(client, "commander", "ben", "10:05", instead_of="ada")
    problem = await take(client, "commander", "cy", "10:06", status=409, instead_of="ada")
    assert problem["type"] == "urn:aftermath:problem:not-the-holder"
    assert "ben" in problem["detail"]
    await take(client, "scribe", "dan", "10:02")
    await take(client, "scribe", "dan", "10:08", holds=False)
    problem = await take(client, "scribe", "dan", "10:09", status=409, holds=False)
    assert "no one" in problem["detail"]
    shown = await response(client)
    assert history(shown) == [
        ("commander", "ada", clock("10:01"), clock("10:05")),
        ("scribe", "dan", clock("10:02"), clock("10:08")),
        ("commander", "ben", clock("10:05"), None),
    ]
    assert (shown["handovers"], [one["person"] for one in shown["people"]]) == (1, ["ada", "dan", "ben"])
    [commander] = shown["roles"]
    assert (commander["people"], commander["since"]) == (["ben"], clock("10:05"))


async def test_a_role_is_laid_down_at_any_time_at_which_it_was_held(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await take(client, "commander", "ada", "10:01")
    await take(client, "commander", "ben", "10:30")
    await take(client, "commander", "ada", "10:20", holds=False)
    problem = await take(client, "commander", "ada", "10:25", status=409, holds=False)
    assert "no one held the role at that time" in problem["detail"]
    await take(client, "commander", "ada", "10:31", status=409, holds=False)
    assert history(await response(client)) == [
        ("commander", "ada", clock("10:01"), clock("10:20")),
        ("commander", "ben", clock("10:30"), None),
    ]


async def test_taking_a_role_again_records_nothing_unless_the_time_is_another(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    bodies: list[dict[str, Any]] = [{"at": clock("10:01")}, {"at": clock("10:01")}, {}, {"at": clock("10:05")}]
    for body in bodies:
        await act(client, "roles", status=201, role="commander", person="ada", **body)
    assert [one["at"] for one in await timeline(client, kind="role")] == [clock("10:01"), clock("10:05")]
    await take(client, "commander", "ben", "10:03")
    assert history(await response(client)) == [
        ("commander", "ada", clock("10:01"), clock("10:03")),
        ("commander", "ben", clock("10:03"), clock("10:05")),
        ("commander", "ada", clock("10:05"), None),
    ]


async def test_a_wrong_role_is_refused(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("first_responder", "ada", {}),
        ("Commander", "ada", {}),
        ("commander", "", {}),
        ("commander", "ada", {"holds": False, "instead_of": "ben"}),
        ("commander", "ada", {"at": "25:01"}),
    ]
    for role, person, more in wrong:
        sent: dict[str, Any] = {"at": "10:01", "status": 422} | more
        await take(client, role, person, **sent)
    assert await timeline(client, kind="role") == []


async def test_of_two_who_relieve_the_same_person_at_once_one_succeeds(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await take(client, "commander", "ada", "10:01")

    async def relieve(person: str) -> int:
        body = {"role": "commander", "person": person, "from": "ada"}
        return (await client.post("/api/v1/incidents/INC-1/roles", json=body)).status_code

    assert sorted(await asyncio.gather(relieve("ben"), relieve("cy"))) == [201, 409]
    [commander] = (await response(client))["roles"]
    assert len(commander["people"]) == 1


async def test_role_histories_follow_a_split_and_a_merge_as_if_recorded_there(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), resolved("10:30", "10:40", instance="b"))
    await take(client, "commander", "ben", "10:31")
    await take(client, "commander", "ada", "10:02")
    await take(client, "commander", "cy", "10:35")
    await deliver(client, resolved("10:00", "10:10"))
    assert history(await response(client, 1)) == [("commander", "ada", clock("10:02"), None)]
    split_off = [("commander", "ben", clock("10:31"), clock("10:35")), ("commander", "cy", clock("10:35"), None)]
    assert history(await response(client, 2)) == split_off
    await deliver(client, resolved("10:08", "10:33", instance="c"))
    assert history(await response(client, 1)) == [
        ("commander", "ada", clock("10:02"), clock("10:31")),
        *split_off,
    ]


async def test_a_role_is_corrected(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    entry = await take(client, "commander", "adda", "10:05")
    await revise(client, entry, at=clock("10:03"), detail={"person": "ada"})
    assert history(await response(client)) == [("commander", "ada", clock("10:03"), None)]
    await revise(client, entry, status=422, detail={"role": "first_responder"})
    await revise(client, entry, "withdraw")
    assert history(await response(client)) == []


async def test_a_delegate_is_suggested_who_is_not_away_and_not_busy(client: httpx.AsyncClient) -> None:
    now = datetime.now(UTC)
    away = [{"from": (now - timedelta(days=1)).isoformat(), "to": (now + timedelta(days=1)).isoformat()}]
    for name in ("ada", "ben", "cy"):
        await put(client, f"people/{name}", {"away": away if name == "ada" else []})
    await put(client, "delegates/commander", {"people": ["ada", "ben", "cy"]}, status=200)
    await put(client, "incident-types/any", PAYMENTS | {"matchers": []})
    await deliver(client, firing("10:00"), firing("10:00", service="mail"))

    async def suggested(number: int) -> str | None:
        found: str | None = (await response(client, number))["roles"][0]["suggested"]
        return found

    assert await suggested(1) == "ben"
    await take(client, "scribe", "ben", "10:01", number=2)
    assert (await suggested(1), await suggested(2)) == ("cy", "ben")
    await take(client, "commander", "eve", "10:02")
    assert await suggested(1) is None


# — updates and targets —


async def test_updates_to_stakeholders_are_due(client: httpx.AsyncClient) -> None:
    await put(client, "incident-types/payments", PAYMENTS)
    now = datetime.now(UTC).replace(microsecond=0)
    body = {"title": "t", "service": "checkout", "detected_at": (now - timedelta(minutes=30)).isoformat()}
    await client.post("/api/v1/incidents", json=body)
    updates = (await response(client))["updates"]
    assert 1200 <= updates["overdue_seconds"] < 1500
    an_update = {"kind": "update", "status": "identified", "note": "n", "at": (now - timedelta(minutes=1)).isoformat()}
    await record(client, an_update | {"audience": "responders"})
    assert (await response(client))["updates"]["overdue_seconds"] > 0
    await record(client, an_update)
    updates = (await response(client))["updates"]
    assert (updates["overdue_seconds"], updates["longest_gap_seconds"]) == (0, 29 * 60)
    promised = (now + timedelta(hours=3)).isoformat().replace("+00:00", "Z")
    await record(client, an_update | {"next_at": promised, "at": now.isoformat()})
    assert (await response(client))["updates"]["next_due_at"] == promised


async def test_an_incident_is_judged_by_the_target_of_its_time(client: httpx.AsyncClient) -> None:
    targets = [
        {"severity": "sev1", "acknowledge_seconds": 60, "resolve_seconds": 1200},
        {"severity": "sev1", "from": "2026-08-20T11:00:00Z", "acknowledge_seconds": 600},
    ]
    await put(client, "targets", {"targets": targets}, status=200)
    await deliver(client, resolved("10:00", "10:20"))
    await act(client, "acknowledge", at=clock("10:04"))
    shown = (await response(client))["targets"]
    assert shown["acknowledge"] == {"target_seconds": 60, "outcome": "missed", "seconds": 240}
    assert shown["resolve"] == {"target_seconds": 1200, "outcome": "met", "seconds": 1200}
    assert shown["update"] == {"target_seconds": None, "outcome": "not_agreed", "seconds": None}
    await client.patch("/api/v1/incidents/INC-1", json={"severity": "sev5"})
    assert (await response(client))["targets"]["acknowledge"]["outcome"] == "not_agreed"


async def test_a_target_with_a_calendar_is_measured_in_business_hours(client: httpx.AsyncClient) -> None:
    # 2026-08-20 is a Thursday.
    calendar = {"zone": "UTC", "hours": {"thursday": [{"from": "10:00", "to": "10:10"}]}}
    answer = await client.put("/api/v1/calendars/office", json=calendar)
    assert answer.status_code == 201, answer.text
    target = {"severity": "sev1", "acknowledge_seconds": 300, "resolve_seconds": 600, "calendar": "office"}
    await put(client, "targets", {"targets": [target]}, status=200)
    await deliver(client, resolved("10:05", "10:50"))
    await act(client, "acknowledge", at=clock("10:45"))
    shown = (await response(client))["targets"]
    assert (shown["acknowledge"]["seconds"], shown["acknowledge"]["outcome"]) == (300, "met")
    assert (shown["resolve"]["seconds"], shown["calendar"]) == (300, "office")


# — the definition, playbooks, cost —


async def test_the_story_of_chapter_6_is_no_incident_by_the_definition_because_it_was_short(
    client: httpx.AsyncClient,
) -> None:
    await deliver(client, resolved("16:05", "16:20", service="web"))
    await client.patch("/api/v1/incidents/INC-1", json={"impact_started_at": clock("16:00"), "severity": "sev2"})
    await record(client, {"kind": "joined", "person": "cathy", "how": "alerted", "at": clock("16:05")})
    await act(client, "acknowledge", at=clock("16:06"), by="cathy")
    await post(client, text="Killed the process", effect="positive", at=clock("16:18"), by="greg")
    await record(client, {"kind": "impact", "customers": 1200, "support_requests": 50, "at": clock("16:10")})
    shown = await response(client)
    definition = shown["definition"]
    assert definition.pop("similar_lasted_longer")["n"] == 0
    assert definition == {"met": "not_met", "affects_customers": True, "unplanned": True, "beyond_an_hour": False}
    assert (shown["first_alerted"], shown["first_responder"]) == ("cathy", "cathy")
    assert [(one["person"], one["how"]) for one in shown["people"]] == [("cathy", "alerted"), ("greg", None)]


async def test_similar_incidents_show_how_often_they_last_longer(client: httpx.AsyncClient) -> None:
    async def similar() -> dict[str, Any]:
        return (await response(client))["definition"]["similar_lasted_longer"]  # type: ignore[no-any-return]

    await deliver(client, firing("10:00"))
    unknown = {"share": None, "low": None, "high": None}
    assert await similar() == {"of": "service", "longer": 0, "n": 0, **unknown}
    others = [(f"e{number}", "13:00" if number < 3 else "11:30") for number in range(9)]
    for environment, end in others:
        await deliver(client, resolved("11:00", end, environment=environment))
    assert await similar() == {"of": "service", "longer": 3, "n": 9, **unknown}
    await deliver(client, resolved("11:00", "12:01", environment="last"))
    found = await similar()
    assert (found["of"], found["longer"], found["n"], found["share"]) == ("service", 4, 10, 0.4)
    assert (round(found["low"], 3), round(found["high"], 3)) == (0.168, 0.687)
    for hour in range(10):
        start = f"2026-08-19T{hour:02}:00:00Z"
        await deliver(
            client, resolved("11:00", "12:00") | {"startsAt": start, "endsAt": start.replace("00:00Z", "20:00Z")}
        )
    found = await similar()
    assert (found["of"], found["longer"], found["n"], found["share"]) == ("key", 0, 10, 0)


async def test_planned_maintenance_is_no_incident_by_the_definition(client: httpx.AsyncClient) -> None:
    window = {"services": ["checkout"], "reason": "r", "once": {"from": clock("10:10"), "to": clock("10:15")}}
    answer = await client.put("/api/v1/maintenance/upgrade", json=window)
    assert answer.status_code == 201, answer.text
    await deliver(client, resolved("10:00", "11:20"))
    found = (await response(client))["definition"]
    assert (found["unplanned"], found["beyond_an_hour"], found["met"]) == (False, True, "not_met")


async def test_a_person_expects_how_long_it_will_last(client: httpx.AsyncClient) -> None:
    await client.post("/api/v1/incidents", json={"title": "t", "service": "checkout", "severity": "sev1"})
    assert (await response(client))["definition"]["met"] == "not_yet"
    for expected, met in ((True, "met"), (False, "not_met")):
        await client.patch("/api/v1/incidents/INC-1", json={"expected_to_last": expected})
        assert (await response(client))["definition"]["met"] == met


async def test_the_response_takes_a_fixed_number_of_statements(client: httpx.AsyncClient, context: Context) -> None:
    async def statements() -> int:
        with counted(context.engine) as found:
            await response(client)
        return len(found)

    await put(client, "incident-types/payments", PAYMENTS)
    await deliver(client, firing("10:00"))
    before = await statements()
    for minute in range(1, 9):
        await take(client, "commander", f"person {minute}", f"10:0{minute}")
        await record(client, {"kind": "joined", "person": f"other {minute}"})
    await put(client, "incident-types/other", PAYMENTS)
    assert await statements() == before


async def test_readers_read_the_response_and_take_no_role(client: httpx.AsyncClient, client_as: ClientAs) -> None:
    await deliver(client, firing("10:00"))
    reader = await client_as(Scope.READ)
    await response(reader)
    await take(reader, "commander", "ada", "10:01", status=403)
    await get(client, "incidents/INC-9/response", status=404)
