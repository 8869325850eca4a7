"""The pages of incident types, targets, playbooks, people and delegates."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st

from app.base.access.tokens import Scope
from app.base.http.context import Context
from app.pages.response.people import contact_line, contact_of
from app.pages.response.types import channel_line, channel_of
from tests.pages.conftest import SignedInAs
from tests.pages.test_incidents import HOSTILE, deliver, firing
from tests.pages.test_services import fields_of, spaced, submitted
from tests.pages.visitors import text_of
from tests.response.test_configuration import PAYMENTS, get, put
from tests.statements import counted

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters='":\n '), min_size=1, max_size=20)
WHOLE: dict[str, Any] = PAYMENTS | {
    "matchers": ['service=~"checkout|payments"', 'team="a"'],
    "channels": [
        {"kind": "slack", "name": "#inc-{number}", "link": "https://slack.example.org/a"},
        {"kind": "phone", "name": "Bridge 1: https://meet.example.org", "link": None},
        {"kind": "radio", "name": '"Channel\n7"', "link": None},
    ],
    "exit_criteria": ["Payments succeed", '"quoted"', "two\nlines"],
    "update_seconds": 5400,
    "review": "required",
}


def configured(stored: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name not in {"created_at", "updated_at", "name"}}


async def shown(visitor: httpx.AsyncClient, address: str) -> str:
    answer = await visitor.get(address)
    assert answer.status_code == 200, answer.text
    return spaced(text_of(answer))


# — types —


@given(st.fixed_dictionaries({"kind": st.from_regex("[a-z][a-z0-9_-]{0,9}", fullmatch=True), "name": NAMES}))
def test_a_channel_is_the_same_after_it_was_written_as_a_line(channel: dict[str, str]) -> None:
    for link in (None, "https://example.org/a"):
        assert channel_of(channel_line(channel | {"link": link})) == channel | {"link": link}


async def test_a_type_is_the_same_after_its_form_is_sent_as_shown(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await put(client, "incident-types/payments", WHOLE)
    address = "/response/types/payments"
    form = fields_of((await signed_in.get(address)).text, address)
    assert (await submitted(signed_in, address, **form)).headers["location"] == "/response/types#payments"
    assert configured(await get(client, "incident-types/payments")) == WHOLE
    listed = await shown(signed_in, "/response/types")
    assert 'payments Users cannot pay service=~"checkout|payments" and team="a" commander, scribe' in listed
    assert "every 1 h 30 m always" in listed


async def test_a_type_is_added_from_the_proposal_and_deleted(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    assert "No incident type yet" in await shown(signed_in, "/response/types")
    new = "/response/types/_new"
    form = fields_of((await signed_in.get(new)).text, new) | {"name": "outage"}
    await submitted(signed_in, new, **form)
    stored = await get(client, "incident-types/outage")
    assert stored["roles"] == ["commander", "communications", "scribe"]
    assert (len(stored["channels"]), stored["update_seconds"]) == (2, 1800)
    refused = await submitted(signed_in, new, 409, **form)
    assert "There is already an incident type with this name" in text_of(refused)
    await submitted(signed_in, "/response/types/outage/delete", form="delete")
    assert (await get(client, "incident-types"))["items"] == []
    await submitted(signed_in, "/response/types/outage", 404, **form)


NOT_A_TYPE = {
    "name: use up to 100 letters": {"name": "_x"},
    "the second channel must be of a different kind": {"channels": "slack #a\nslack #b"},
    "channels: enter at least 2": {"channels": "slack #a"},
    "must have no placeholder": {"channels": "slack #{title}\nphone b"},
    "exit criteria: enter at least 1": {"exit_criteria": " "},
    "is not assigned": {"roles": "first_responder"},
    "updates: write a duration": {"updates": "often"},
    "'service'": {"matchers": "service"},
}


async def test_a_type_that_cannot_be_stored_is_refused_with_what_was_entered(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    new = "/response/types/_new"
    form = fields_of((await signed_in.get(new)).text, new) | {"name": "outage"}
    for reason, changes in NOT_A_TYPE.items():
        refused = await submitted(signed_in, new, 422, **form | changes)
        assert reason in text_of(refused).lower()
        assert fields_of(refused.text, new) == form | changes
    assert (await get(client, "incident-types"))["items"] == []


# — targets —


async def test_targets_are_added_changed_and_removed(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    async def stored(service: str = "checkout") -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await get(client, "targets"))["items"]
        return [{n: v for n, v in one.items() if v is not None} for one in items if one["service"] == service]

    general = await stored("")
    await put(client, "services/checkout", {})
    new = {"service": "checkout", "severity": "sev1", "from": "", "acknowledge": "5 m", "resolve": "4h", "calendar": ""}
    await submitted(signed_in, "/response/targets", **new)
    first = {"service": "checkout", "severity": "sev1", "acknowledge_seconds": 300, "resolve_seconds": 14_400}
    assert await stored() == [first]
    await submitted(signed_in, "/response/targets", 409, **new)
    since = (datetime.now(UTC) - timedelta(days=2)).replace(second=17, microsecond=0)
    later = {"severity": "sev1", "from": since.isoformat(), "acknowledge_seconds": 60}
    old = {"severity": "sev1", "acknowledge_seconds": 300}
    await put(client, "targets?service=checkout", {"targets": [old, later]}, status=200)
    page = (await signed_in.get("/response/targets")).text
    forms = [fields_of(page, "/response/targets", nth) for nth in range(page.count('action="/response/targets"'))]
    [form] = [each for each in forms if each.get("was_service") == "checkout" and each["was_from"]]
    assert (form["acknowledge"], form["from"]) == ("1 m", f"{since:%Y-%m-%dT%H:%M}")
    await submitted(signed_in, "/response/targets", **form | {"responders": "3"})
    assert (await stored())[1]["responders"] == 3
    assert datetime.fromisoformat((await stored())[1]["from"]) == since, "it keeps its seconds"
    listed = await shown(signed_in, "/response/targets")
    assert re.search(r"sev1 checkout from the beginning to [^.]*? 5 m – –", listed)
    await submitted(signed_in, "/response/targets/remove", **form)
    assert [one["acknowledge_seconds"] for one in await stored()] == [300]
    await submitted(signed_in, "/response/targets/remove", 404, **form)
    moved = (
        {"was_service": "checkout", "was_severity": "sev1", "was_from": ""} | new | {"service": "", "severity": "sev5"}
    )
    await submitted(signed_in, "/response/targets", **moved)
    assert (await stored(), len(await stored(""))) == ([], len(general) + 1)


NOT_A_TARGET = {
    "enter at least one target": (422, {"acknowledge": ""}),
    "acknowledge within: write a duration": (422, {"acknowledge": "soon"}),
    "no service": (404, {"service": "unknown"}),
    "calendar": (422, {"calendar": "none"}),
    "open the page again": (422, {"was_severity": "x"}),
    "changed or removed": (404, {"was_severity": "sev1", "was_from": "2026-11-30T10:00:00+00:00"}),
}


async def test_a_target_that_cannot_be_stored_is_refused(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    before = await get(client, "targets")
    form = {"form": "new", "service": "", "severity": "sev1", "from": "2026-11-29T10:00", "acknowledge": "5 m"}
    for reason, (status, changes) in NOT_A_TARGET.items():
        refused = await submitted(signed_in, "/response/targets", status, **form | changes)
        assert reason in text_of(refused).lower()
    assert await get(client, "targets") == before


# — playbooks —


async def test_the_life_of_a_playbook(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, signed_in_as: SignedInAs
) -> None:
    await deliver(client, firing(30))
    assert "Without an approved playbook" in await shown(signed_in, "/response/playbooks")
    new = {"service": "checkout", "name": "restart", "body": "1. Drain\r\n2. Restart", "link": ""}
    answer = await submitted(signed_in, "/response/playbooks/_new", **new)
    address = answer.headers["location"]
    assert address == "/response/playbooks/checkout/restart"
    await submitted(signed_in, "/response/playbooks/_new", 409, **new)
    await submitted(signed_in, "/response/playbooks/_new", 404, **new | {"service": "unknown"})
    await submitted(signed_in, "/response/playbooks/_new", 422, **new | {"name": "other", "body": ""})
    assert "No version has been approved" in await shown(signed_in, address)
    refused = text_of(await submitted(signed_in, f"{address}/1/verify", 409, form="verify"))
    assert "This needs a token other than the author's" in refused
    other = await signed_in_as(Scope.WRITE)
    refused = text_of(await submitted(other, f"{address}/1/approve", 409, form="approve"))
    assert "no one has verified this version" in refused.lower()
    await submitted(other, f"{address}/1/verify", 422, form="verify", incident="7")
    await submitted(other, f"{address}/1/verify", form="verify", incident="inc-1")
    await submitted(other, f"{address}/1/approve", 422, form="approve", expires_at="2099-01-01T00:00")
    await submitted(other, f"{address}/1/approve", form="approve", expires_at="")
    [playbook] = (await get(client, "services/checkout/playbooks"))["items"]
    assert (playbook["in_use"], playbook["versions"][0]["state"]) == (1, "approved")
    assert playbook["versions"][0]["author"] == "ada"
    assert "restart checkout version 1 approved" in await shown(other, "/response/playbooks")
    form = fields_of((await other.get(address)).text, address)
    assert form["body"] == "1. Drain\n2. Restart"
    assert (await submitted(other, address, **form)).headers["location"].endswith("?version=1"), "nothing has changed"
    written = await submitted(other, address, **form | {"body": "1. Only restart"})
    assert written.headers["location"] == f"{address}?version=2"
    page = await shown(other, f"{address}?version=2")
    assert "1. Only restart" in page
    assert "Version 1 is in use, not this one" in page
    followed = {"service": "checkout", "name": "restart", "version": 1}
    for effect in ("positive", "positive", "none"):
        task = {"text": "t", "effect": effect, "playbook": followed}
        assert (await client.post("/api/v1/incidents/INC-1/tasks", json=task)).status_code == 201
    page = await shown(other, address)
    assert "in 3 tasks 2 helped, 1 changed nothing" in page
    assert page.count("never") == 1, "version 2 was not followed"
    await submitted(other, f"{address}/1/withdraw", form="withdraw")
    [playbook] = (await get(client, "services/checkout/playbooks"))["items"]
    assert [one["state"] for one in playbook["versions"]] == ["draft", "withdrawn"]
    for missing in ("?version=9", "x"):
        assert (await other.get(address + missing)).status_code == 404


# — people —


@given(st.fixed_dictionaries({"kind": NAMES, "value": NAMES}))
def test_a_contact_is_the_same_after_it_was_written_as_a_line(contact: dict[str, str]) -> None:
    assert contact_of(contact_line(contact)) == contact


async def test_people_and_delegates(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    added = await submitted(signed_in, "/response/people", form="new", name="Ada Lovelace / SRE")
    address = added.headers["location"]
    assert address == "/response/people/Ada%20Lovelace%20%2F%20SRE"
    await submitted(signed_in, "/response/people", 409, form="new", name="Ada Lovelace / SRE")
    away = {"from": "2026-12-24T00:00:17Z", "to": "2027-01-02T00:00:00Z"}
    contacts = [{"kind": "phone", "value": "+49 30 1"}]
    path = f"people/{address.rpartition('/')[2]}"
    await put(client, path, {"email": "ada@example.org", "contacts": contacts, "away": [away]}, status=200)
    before = await get(client, path)
    form = fields_of((await signed_in.get(address)).text, address)
    await submitted(signed_in, address, **form)
    after = await get(client, path)
    assert (after["contacts"], after["away"], after["email"]) == (contacts, [away], "ada@example.org")
    assert after["updated_at"] > before["updated_at"]
    await submitted(signed_in, address, **form | {"away": "2026-12-24 to 2026-12-25 09:00", "contacts": ""})
    after = await get(client, path)
    assert after["away"] == [{"from": "2026-12-24T00:00:00Z", "to": "2026-12-25T09:00:00Z"}]
    for wrong in ({"away": "tomorrow"}, {"away": "2026-12-24 to 2026-12-23"}, {"zone": "Berlin"}, {"email": "ada"}):
        refused = await submitted(signed_in, address, 422, **form | wrong)
        assert fields_of(refused.text, address) == form | wrong

    place = {"form": "delegates", "role": "commander", "owner": ""}
    await submitted(signed_in, "/response/delegates", **place, people="Ada Lovelace / SRE")
    page = await shown(signed_in, "/response/people")
    assert "only Ada Lovelace / SRE: a single point of failure" in page
    assert [one["people"] for one in (await get(client, "delegates"))["single_points_of_failure"]] == [
        ["Ada Lovelace / SRE"]
    ]
    refused = await submitted(signed_in, "/response/delegates", 422, **place, people="nobody")
    assert "is not a known person" in text_of(refused).lower()
    await submitted(signed_in, "/response/delegates", 422, **place | {"role": "first_responder"}, people="nobody")
    await submitted(signed_in, f"{address}/delete", 409, form="delete")
    await submitted(signed_in, "/response/delegates", **place, people="")
    await submitted(signed_in, f"{address}/delete", form="delete")
    assert "No one yet" in await shown(signed_in, "/response/people")


# — all of them —

PAGES = ["/response/types", "/response/targets", "/response/playbooks", "/response/people"]
OF_ONE = ["/response/types/payments", "/response/playbooks/checkout/restart", "/response/people/ada"]


async def fill(client: httpx.AsyncClient, number: str = "") -> None:
    await put(client, f"services/checkout{number}", {"owner": f"Payments{number}"})
    await put(client, f"services/checkout{number}/playbooks/restart", {"body": HOSTILE})
    await put(client, f"incident-types/payments{number}", PAYMENTS | {"description": HOSTILE})
    contacts = [{"kind": HOSTILE[:150], "value": HOSTILE[:150]}]
    await put(client, f"people/ada{number}", {"contacts": contacts})
    await put(client, f"delegates/commander?owner={number}", {"people": [f"ada{number}"]}, status=200)
    target = {"severity": "sev1", "acknowledge_seconds": 60}
    await put(client, f"targets?service=checkout{number}", {"targets": [target]}, status=200)


async def test_a_reader_sees_the_pages_without_forms_and_without_contacts(
    client: httpx.AsyncClient, signed_in_as: SignedInAs
) -> None:
    await fill(client)
    await put(client, "people/ada", {"email": "ada@example.org"}, status=200)
    reader = await signed_in_as(Scope.READ)
    for address in (*PAGES, *OF_ONE):
        page = await reader.get(address)
        assert page.status_code == 200
        assert set(re.findall(r'action="([^"]*)"', page.text)) == {"/logout", "/search", "/zone"}
        assert "ada@example.org" not in page.text
    for address in ("/response/types/_new", "/response/playbooks/_new"):
        assert (await reader.get(address)).status_code == 403
        assert (await reader.post(address, data={"name": "x"})).status_code == 403
    for address in (
        *OF_ONE,
        "/response/targets",
        "/response/targets/remove",
        "/response/people",
        "/response/delegates",
    ):
        assert (await reader.post(address, data={"name": "x"})).status_code == 403


async def test_texts_stay_text_and_statements_do_not_grow(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, context: Context
) -> None:
    async def statements() -> list[int]:
        found = []
        for address in (*PAGES, *OF_ONE):
            with counted(context.engine) as sent:
                page = await signed_in.get(address)
            found.append(len(sent))
            assert page.status_code == 200
            for outside in ("<script>alert", "<b x=", "\u202e"):
                assert outside not in page.text
            assert not re.search(r"\sstyle=|\son\w+=", re.sub(r">[^<]*<", "><", page.text))
        return found

    await fill(client)
    before = await statements()
    for number in range(5):
        await fill(client, str(number))
    assert await statements() == before
    assert max(before) <= 6


async def test_the_area_is_found_from_rules_services_and_an_incident(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await put(client, "services/checkout", {})
    await deliver(client, firing(30))
    assert (await signed_in.get("/response")).headers["location"] == "/response/types"
    for address, link in (("/rules", PAGES[0]), ("/services", PAGES[2]), ("/incidents/INC-1", PAGES[0])):
        assert f'href="{link}"' in (await signed_in.get(address)).text
    assert 'href="/rules" aria-current="page"' in (await signed_in.get("/response/people")).text
    for address in ("/response/types/none", "/response/people/none", "/response/playbooks/checkout/none"):
        assert (await signed_in.get(address)).status_code == 404
