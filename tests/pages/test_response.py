"""The response on the page of an incident: its state equals REST's, and its forms record what REST records."""

import gzip
import re
from collections.abc import Iterator
from typing import Any

import httpx

from app.base.access.tokens import Scope
from app.base.http.context import Context
from app.pages import words
from tests.ingest.test_webhook import an_alert
from tests.pages.conftest import SignedInAs
from tests.pages.test_incidents import HOSTILE, ago, deliver, ended, entered, firing, fresh, iso, seen, send, whole
from tests.pages.visitors import section_of, text_of
from tests.response.test_configuration import PAYMENTS, get, put
from tests.statements import counted

REST = "/api/v1/incidents/INC-1"
TARGETS = {"targets": [{"severity": "sev1", "acknowledge_seconds": 300, "update_seconds": 600, "responders": 3}]}


async def response(client: httpx.AsyncClient) -> dict[str, Any]:
    return await get(client, "incidents/INC-1/response")


async def record(client: httpx.AsyncClient, path: str, **body: Any) -> None:
    """A field `from` is sent as `from_`."""
    sent = {name.rstrip("_"): value for name, value in body.items()}
    answer = await client.post(f"{REST}/{path}", json=sent)
    assert answer.status_code < 300, answer.text


async def panel(visitor: httpx.AsyncClient) -> str:
    return text_of(section_of(await visitor.get("/incidents/INC-1"), "Response"))


def plain(text: str) -> str:
    return re.sub(r"[\u00a0\u202f]", " ", text)


def took(seconds: float) -> str:
    return plain(words.duration(seconds))


def says(shown: str, sentence: str, seconds: float) -> bool:
    """Whether the page says it; time has passed since REST did."""
    return any(sentence.format(took(seconds + passed)) in shown for passed in range(60))


async def entries(client: httpx.AsyncClient, kind: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await get(client, f"incidents/INC-1/timeline?kind={kind}"))["items"]
    return items


# — the state —


async def test_the_incident_of_a_newcomer_has_a_small_panel(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, firing(12, severity="warning"))
    shown = await panel(signed_in)
    assert "declare the response" in shown
    assert "incident type" in shown
    for heading in ("Roles", "Updates", "Exit criteria", "Targets", "Playbooks"):
        assert f"{heading} " not in shown
    await deliver(client, ended(12, 5, severity="warning"))
    assert "None was recorded" in await panel(signed_in)


async def test_the_panel_says_what_rest_says(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await put(client, "incident-types/payments", PAYMENTS | {"update_seconds": 1800})
    await put(client, "targets", TARGETS, status=200)
    await put(client, "people/dora", {})
    await put(client, "delegates/scribe", {"people": ["dora"]}, status=200)
    await deliver(client, firing(60, severity="critical"))
    await record(client, "acknowledge", at=iso(ago(57)), by="ben")
    await record(client, "declare", at=iso(ago(55)), by="ben", commander="ben")
    await record(client, "roles", role="commander", person="cathy", from_="ben", at=iso(ago(50)))
    await record(client, "roles", role="expert", person="eve", at=iso(ago(45)))
    await record(client, "facts", kind="joined", person="finn", how="asked", at=iso(ago(44)))
    await record(client, "facts", kind="update", status="identified", note="It is the database", at=iso(ago(40)))
    await record(client, "facts", kind="criterion", criterion=PAYMENTS["exit_criteria"][0], at=iso(ago(20)))
    await record(client, "facts", kind="room", channel="Bridge 1", at=iso(ago(30)))
    await record(client, "facts", kind="impact", customers=1200, share="0.25", what="Pay", at=iso(ago(35)))
    found, shown = await response(client), plain(await panel(signed_in))
    declared = (await get(client, "incidents/INC-1"))["measures"]["time_to_declare"]["seconds"]
    assert f"by ben, {took(declared)} after detection" in shown
    assert f"type {found['type']}, which matches" in shown
    assert f"First responder: {found['first_responder']}. {found['handovers']} hand-over." in shown
    assert "Incident commander cathy since" in shown
    assert "Scribe no one , suggested: dora" in shown
    assert "Experts eve since" in shown
    assert "finn asked" in shown
    assert f"{found['exit_open']} of {len(found['exit'])} open" in shown
    assert says(shown, "Update to stakeholders overdue by {}.", found["updates"]["overdue_seconds"])
    assert says(shown, "Longest time without one {}.", found["updates"]["longest_gap_seconds"])
    verdicts = found["targets"]
    assert f"Acknowledge within 5 m ✓ met {took(verdicts['acknowledge']['seconds'])}" in shown
    assert says(shown, "Update every 10 m ✗ missed {}", verdicts["update"]["seconds"])
    assert f"3 people respond {len(found['people'])} people here" in shown
    assert "1,200 customers; 25.0 % of all customers; Pay" in shown
    assert "slack #inc-1 phone Bridge 1 in use" in shown
    assert PAYMENTS["steps"][0] in shown
    assert (found["definition"]["met"], "Common definition of an incident: met" in shown) == ("met", True)


async def test_a_playbook_in_use_and_one_that_has_expired_are_shown(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, signed_in_as: SignedInAs, context: Context
) -> None:
    await deliver(client, firing(12, severity="warning"))
    await put(client, "services/checkout/playbooks/restart", {"body": "1. Restart"})
    assert "restart" not in await panel(signed_in)
    writer = await signed_in_as(Scope.WRITE)
    address = "/response/playbooks/checkout/restart"
    for act in ("verify", "approve"):
        assert (await writer.post(f"{address}/1/{act}", data={"form": act})).status_code == 303
    assert "restart version 1" in await panel(writer)
    [playbook] = (await response(client))["playbooks"]
    assert (playbook["name"], playbook["version"]) == ("restart", 1)
    async with context.engine.begin() as tx:
        await tx.exec_driver_sql(
            "UPDATE playbook SET verified_at = verified_at - interval '9 d', expires_at = now() - interval '1 d',"
            " approved_at = approved_at - interval '9 d'"
        )
    assert "restart version 1 expired" in await panel(writer)
    assert "has expired and may be wrong" in text_of(await writer.get(address))


# — forms —


async def test_the_response_is_declared_once_with_a_type_and_a_commander(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await put(client, "incident-types/other", PAYMENTS | {"matchers": ['service="nothing"']})
    await deliver(client, firing(30))
    answer = await send(signed_in, "declare", {"type": "other", "commander": "ben", "at": entered(ago(20))})
    assert answer.headers["location"] == "/incidents/INC-1#response"
    found = await response(client)
    assert (found["type"], found["declared_at"]) == ("other", whole(ago(20)))
    assert next((one["role"], one["people"]) for one in found["roles"]) == ("commander", ["ben"])
    assert 'action="/incidents/INC-1/declare"' not in await seen(signed_in)
    refused = await send(signed_in, "declare", {"type": "unknown", "at": entered(ago(19))}, status=422)
    assert "here is no such incident type; the types are: other" in text_of(refused)


async def test_roles_are_taken_handed_over_and_left(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(30))

    async def held() -> list[tuple[str, list[str]]]:
        return [(one["role"], one["people"]) for one in (await response(client))["roles"]]

    await send(signed_in, "roles", {"role": "Commander", "person": "ada", "holder": "", "at": ""})
    assert await held() == [("commander", ["ada"])]
    await send(signed_in, "roles", {"role": "commander", "person": "ben", "holder": "ada"})
    await send(signed_in, "roles", {"role": "expert", "person": "cy", "holder": ""})
    await send(signed_in, "roles", {"role": "expert", "person": "dora", "holder": ""})
    assert await held() == [("commander", ["ben"]), ("expert", ["cy", "dora"])]
    stale = {"form": "role-commander", "role": "commander", "person": "eve", "holder": "ada"}
    refused = await send(signed_in, "roles", stale, status=409)
    assert "he role is now held by ben; look at what is there now" in text_of(refused)
    assert re.search(r'<details class="edit end" open><summary>Hand over.*?value="eve"', refused.text, re.DOTALL)
    taken = {"form": "other-role", "role": "commander", "person": "eve", "holder": ""}
    assert "he role is now held by ben" in text_of(await send(signed_in, "roles", taken, status=409))
    await send(signed_in, "roles", taken | {"person": "ben"})
    await send(signed_in, "roles/leave", {"role": "commander", "person": "anybody", "holder": "ben"})
    await send(signed_in, "roles/leave", {"role": "expert", "person": "cy", "holder": ""})
    assert await held() == [("expert", ["dora"])]
    await send(signed_in, "roles", {"role": "first_responder", "person": "x", "holder": ""}, status=422)


async def test_the_minute_of_an_event_is_the_event(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    """Forms have no seconds. The role is taken half a minute before the end."""
    begun, taken, over = (ago(minutes).replace(second=second) for minutes, second in ((30, 30), (10, 20), (10, 50)))
    await deliver(client, an_alert(iso(begun)))
    await send(signed_in, "declare", {"commander": "ada", "at": entered(begun)})
    assert (await response(client))["declared_at"] == iso(begun)
    await record(client, "roles", role="commander", person="ben", at=iso(taken), by="ada", from_="ada")
    await deliver(client, an_alert(iso(begun), iso(over)))
    await send(signed_in, "roles/leave", {"role": "commander", "person": "x", "holder": "ben", "at": entered(over)})
    assert [(one["person"], one["to"]) for one in (await response(client))["history"]] == [
        ("ada", iso(taken)),
        ("ben", iso(over)),
    ]


async def test_people_updates_and_impact_are_recorded_once(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, firing(30))
    joined = {"person": "grace", "how": "alerted", "channel": "pager", "at": entered(ago(25)), "key": "a"}
    update = {
        "audience": "responders",
        "status": "monitoring",
        "note": "We\r\nwatch it",
        "conditions": "",
        "actions": "Watching",
        "next_at": entered(ago(-30)),
        "at": "",
        "key": "b",
    }
    impact = {"customers": "1,200", "support_requests": "", "share": "0.25", "what": "Log in", "key": "c"}
    for _ in range(2):
        await send(signed_in, "joined", joined)
        await send(signed_in, "updates", update)
        await send(signed_in, "customers", impact)
    [entry] = await entries(client, "joined")
    assert entry["detail"] == {"person": "grace", "how": "alerted", "channel": "pager"}
    assert (entry["at"], entry["by"]) == (whole(ago(25)), "ada")
    [entry] = await entries(client, "update")
    assert entry["note"] == "We\nwatch it"
    assert entry["detail"] == {
        "audience": "responders",
        "status": "monitoring",
        "conditions": None,
        "actions": "Watching",
        "needs": None,
        "next_at": whole(ago(-30)),
    }
    [entry] = await entries(client, "impact")
    assert entry["detail"] == {"customers": 1200, "support_requests": None, "share": "0.25", "what": "Log in"}
    refused = await send(signed_in, "updates", update | {"note": " ", "key": "d"}, status=422)
    assert "enter what you communicated" in text_of(refused)
    assert 'name="key" value="d"' in refused.text
    await send(signed_in, "customers", {"key": "e"}, status=422)
    await send(signed_in, "joined", joined | {"key": ""}, status=422)


async def test_criteria_and_the_channel_in_use(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await put(client, "incident-types/payments", PAYMENTS)
    await deliver(client, firing(30))
    first, second = PAYMENTS["exit_criteria"]
    await send(signed_in, "criteria", {"met": first})
    await send(signed_in, "criteria", {"met": second})
    await send(signed_in, "criteria", {"open": second})
    await send(signed_in, "criteria", {}, status=422)
    await send(signed_in, "room", {"channel": "Bridge 1", "why": "Slack is down"})
    found = await response(client)
    assert [one["met"] for one in found["exit"]] == [True, False]
    assert found["room"] == "Bridge 1"
    page = await seen(signed_in)
    assert f'<button class="quiet" name="open" value="{first}">' in page
    assert f'<button class="quiet" name="met" value="{second}">' in page


async def test_a_type_and_how_long_it_will_last_are_stated(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await put(client, "incident-types/payments", PAYMENTS)
    await put(client, "incident-types/other", PAYMENTS | {"matchers": ['service="nothing"']})
    await deliver(client, firing(30))
    version = await fresh(signed_in)
    await send(signed_in, "type", {"type": "other", "expected_to_last": "no", "version": version})
    found = await response(client)
    assert (found["type"], found["definition"]["beyond_an_hour"]) == ("other", False)
    stale = await send(signed_in, "type", {"type": "", "expected_to_last": "", "version": version}, status=412)
    assert "omeone changed this incident" in text_of(stale)
    await send(signed_in, "type", {"type": "", "expected_to_last": "", "version": await fresh(signed_in)})
    found = await response(client)
    assert (found["type"], found["definition"]["beyond_an_hour"]) == ("payments", None)
    await send(signed_in, "type", {"expected_to_last": "perhaps", "version": await fresh(signed_in)}, status=422)


async def test_an_incident_is_declared_with_its_type(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await put(client, "incident-types/other", PAYMENTS | {"matchers": ['service="nothing"']})
    form = {"title": "Payments fail", "service": "shop", "severity": "sev2", "type": "other"}
    answer = await signed_in.post("/incidents", data=form)
    assert answer.headers["location"] == "/incidents/INC-1"
    assert (await response(client))["type"] == "other"
    refused = await signed_in.post("/incidents", data=form | {"type": "unknown"})
    assert refused.status_code == 422
    assert (await client.get("/api/v1/incidents/INC-2")).status_code == 404, "nothing was declared"


async def test_what_was_recorded_stands_in_the_timeline_and_can_be_withdrawn(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, firing(30))
    await record(client, "roles", role="commander", person="ben")
    await record(client, "facts", kind="joined", person="cy", how="asked", channel="pager")
    await record(client, "facts", kind="update", status="identified", note="Found it")
    await record(client, "facts", kind="criterion", criterion="All is well", met=False)
    await record(client, "facts", kind="room", channel="Bridge", why="Slack is down")
    await record(client, "facts", kind="impact", customers=1)
    await record(client, "facts", kind="evidence", link="https://grafana.example.org/d/1")
    shown = plain(text_of(section_of(await signed_in.get("/incidents/INC-1"), "Timeline")))
    for line in (
        "Role ben, incident commander",
        "Joined cy (asked, pager)",
        "Update for stakeholders, identified Found it",
        "Exit criterion not met: All is well",
        "Channel in use Bridge, because Slack is down",
        "Impact on customers 1 customer",
        "Evidence https://grafana.example.org/d/1",
    ):
        assert line in shown
    [role] = await entries(client, "role")
    await send(signed_in, f"timeline/{role['id']}/withdraw", {"version": await fresh(signed_in), "why": "Wrong"})
    assert (await response(client))["roles"] == []


# — who and what —


async def test_a_reader_sees_the_response_without_forms(client: httpx.AsyncClient, signed_in_as: SignedInAs) -> None:
    await put(client, "incident-types/payments", PAYMENTS)
    await deliver(client, firing(30))
    await record(client, "roles", role="commander", person="ben")
    reader = await signed_in_as(Scope.READ)
    assert "Incident commander ben" in await panel(reader)
    assert set(re.findall(r'action="([^"]*)"', await seen(reader))) == {"/logout", "/search", "/zone"}
    for action in ("declare", "type", "roles", "roles/leave", "joined", "updates", "criteria", "room", "customers"):
        await send(reader, action, {"role": "commander", "person": "x"}, status=403)


def hostile_facts() -> Iterator[dict[str, Any]]:
    yield {"kind": "joined", "person": HOSTILE[:150], "channel": HOSTILE[:150]}
    yield {"kind": "update", "status": "identified", "note": HOSTILE, "conditions": HOSTILE, "needs": HOSTILE}
    yield {"kind": "criterion", "criterion": HOSTILE[:900]}
    yield {"kind": "room", "channel": HOSTILE[:150], "why": HOSTILE}
    yield {"kind": "impact", "what": HOSTILE}
    yield {"kind": "evidence", "link": "https://example.org/x", "title": HOSTILE[:150]}


async def test_texts_stay_text(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    channel = HOSTILE.replace("{{ 7*7 }}", "")[:150]
    channels = [{"kind": "slack", "name": channel}, {"kind": "phone", "name": channel}]
    hostile = {"exit_criteria": [HOSTILE[:900]], "steps": [HOSTILE[:900]], "channels": channels, "matchers": []}
    await put(client, "incident-types/hostile", PAYMENTS | hostile)
    await deliver(client, firing(30))
    await record(client, "roles", role="commander", person=HOSTILE[:150])
    for fact in hostile_facts():
        await record(client, "facts", **fact)
    for address in ("/incidents/INC-1", "/response/types", "/response/types/hostile"):
        page = await seen(signed_in, address)
        assert "<script>alert" not in page
        assert "<b x=" not in page
        assert "\u202e" not in page
        assert "49 W" not in text_of(page)
        assert not re.search(r"\sstyle=|\son\w+=", re.sub(r">[^<]*<", "><", page))


async def test_the_panel_takes_two_statements_and_little_room_however_much_is_recorded(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, context: Context
) -> None:
    await deliver(client, firing(60, severity="critical"))
    with counted(context.engine) as few:
        small = await signed_in.get("/incidents/INC-1")
    await put(client, "incident-types/payments", PAYMENTS)
    await put(client, "targets", TARGETS, status=200)
    for number in range(8):
        await put(client, f"people/person-{number}", {})
        await record(client, "roles", role="commander", person=f"person-{number}", at=iso(ago(50 - number)))
        await record(
            client, "facts", kind="update", status="identified", note="It is the database", at=iso(ago(number))
        )
        await put(client, f"services/checkout/playbooks/restart-{number}", {"body": "1. Restart"})
    with counted(context.engine) as many:
        full = await signed_in.get("/incidents/INC-1")
    assert len(many) == len(few)
    assert len(gzip.compress(small.content, 6)) < 6_000
    assert len(gzip.compress(full.content, 6)) < 12_000
