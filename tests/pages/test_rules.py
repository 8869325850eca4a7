"""The pages of rules: the list in order, the form, and trying a rule on history."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.base.access.tokens import Scope
from app.base.http.context import Context
from app.catalog.rules import store
from app.incidents.grouping.rule import DEFAULT_RULE, Rule, parse_matcher
from app.pages.catalog import rule_words, rules
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.pages.conftest import SignedInAs
from tests.pages.test_services import fields_of, spaced, submitted, text_of
from tests.statements import counted

REST = "/api/v1/rules"
WHOLE = {
    "position": 7,
    "matchers": ['"alert.name"=~"Disk.*"', 'job="a" or service="b \\"quoted\\""'],
    "key_labels": ["cluster", "a name\nof two lines", '"quoted"'],
    "window_seconds": 61,
    "max_span_seconds": 90_061,
    "ignored_labels": ["pod"],
    "service_labels": ["team", "<b>"],
    "severity_labels": ["urgency"],
    "severities": {"Blocker": "sev1", "a=b": "sev4", " spaced ": "sev2"},
    "environment_labels": ["tier"],
    "environment": "staging",
    "opens_incidents": False,
    "recoveries": ["no_data"],
    "heartbeat_seconds": 600,
}


async def names(client: httpx.AsyncClient) -> list[str]:
    return [rule["name"] for rule in (await client.get(REST)).json()["items"]]


def configured(rule: dict[str, Any]) -> dict[str, Any]:
    """Without its times."""
    return {name: value for name, value in rule.items() if name not in {"created_at", "updated_at"}}


# — the list —


async def test_rules_are_listed_in_order_with_what_they_do(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await client.put(f"{REST}/batch", json={"position": 5, "matchers": ['job="<batch>"'], "key_labels": ["cluster"]})
    page = await signed_in.get("/rules")
    assert re.findall(r'<th scope="row"><a href="/rules/([^"]*)"', page.text) == await names(client)
    text = text_of(page)
    assert 'batch job="<batch>" One incident per cluster, while gaps are at most 5 m.' in text
    assert "A heartbeat: opens no incident, but one of the monitoring if it is missing for longer than 15 m." in text


def rule(**changes: Any) -> Rule:
    return Rule("x", 5, (parse_matcher("a=b"),), **changes)


@pytest.mark.parametrize(
    ("changes", "effect", "particulars"),
    [
        ({}, "One incident per service and environment, while gaps are at most 5 m.", []),
        ({"key_labels": ()}, "One incident for all of them, while gaps are at most 5 m.", []),
        ({"opens_incidents": False, "environment": "staging"}, "Ignored: opens no incident.", []),
        (
            {"window": timedelta(days=2), "max_span": timedelta(days=2)},
            "One incident per service and environment, while gaps are at most 2 d.",
            [],
        ),
        (
            {
                "max_span": timedelta(hours=1),
                "service_labels": ("a",),
                "environment_labels": ("b", "c"),
                "severity_labels": (),
                "environment": "staging",
                "severities": {"blocker": 1},
                "ignored_labels": tuple("abcdefgh"),
                "recoveries": frozenset({"no_data"}),
            },
            "One incident per service and environment, while gaps are at most 5 m.",
            [
                "A chain of separate alerts lasts at most 1 h.",
                "Service: a.",
                "Environment: the first of b and c.",
                "Environment staging where labels name none.",
                "Severity: none.",
                "“blocker” is sev1.",
                "Identifies alerts without a, b, c, d, e, f and 2 more.",
                "No data is a recovery.",
            ],
        ),
    ],
)
def test_the_words_of_a_rule(changes: dict[str, Any], effect: str, particulars: list[str]) -> None:
    assert spaced(rule_words.effect(rule(**changes))) == effect
    assert [spaced(each) for each in rule_words.particulars(rule(**changes))] == particulars


def test_the_default_rule_has_no_particulars() -> None:
    assert rule_words.particulars(DEFAULT_RULE) == []


async def test_a_rule_is_moved(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    for name in ("a", "b", "c"):
        await client.put(f"{REST}/{name}", json={"position": 50, "matchers": ["x=y"]})
    before = await names(client)
    place = before.index("b")
    moved = await submitted(signed_in, "/rules/b/move", to="later")
    assert moved.headers["location"] == "/rules#b"
    assert await names(client) == [*before[:place], "c", "b", *before[place + 2 :]]
    for _ in range(2):
        await submitted(signed_in, "/rules/b/move", to="earlier")
    assert await names(client) == [*before[: place - 1], "b", "a", "c", *before[place + 2 :]]
    refused = await submitted(signed_in, "/rules/default/move", 409, to="earlier")
    assert "always tried last" in text_of(refused)
    await submitted(signed_in, "/rules/nothing/move", 404, to="earlier")


# — one rule —


async def test_every_rule_is_the_same_after_its_form_is_sent_as_shown(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    (await client.put(f"{REST}/whole", json=WHOLE)).raise_for_status()
    before = (await client.get(REST)).json()["items"]
    for rule in before:
        address = f"/rules/{rule['name']}"
        form = fields_of((await signed_in.get(address)).text, address)
        await submitted(signed_in, address, **form)
    after = (await client.get(REST)).json()["items"]
    assert [configured(rule) for rule in after] == [configured(rule) for rule in before]


async def test_a_rule_is_added_changed_and_deleted(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    form = fields_of((await signed_in.get("/rules/_new")).text, "/rules/_new")
    added = await submitted(signed_in, "/rules/_new", **form | {"name": "batch", "matchers": "job=batch\nteam!=x\n"})
    assert added.headers["location"] == "/rules#batch"
    by_rest = await client.put(f"{REST}/other", json={"matchers": ["job=batch", "team!=x"]})
    stored = (await client.get(f"{REST}/batch")).json()
    assert configured(stored) == configured(by_rest.json()) | {"name": "batch"}
    again = await submitted(signed_in, "/rules/_new", 409, **form | {"name": "batch", "matchers": "kept=yes"})
    assert "already a rule" in text_of(again)
    assert "kept=yes" in again.text
    await submitted(signed_in, "/rules/batch", **form | {"matchers": "job=other", "window": "1 h", "position": ""})
    stored = (await client.get(f"{REST}/batch")).json()
    assert (stored["matchers"], stored["window_seconds"]) == (['job="other"'], 3600)
    await submitted(signed_in, "/rules/batch/delete", form="delete")
    assert (await client.get(f"{REST}/batch")).status_code == 404
    # A rule that is gone is not created again by a form that was open meanwhile.
    await submitted(signed_in, "/rules/batch", 404, **form)
    refused = await submitted(signed_in, "/rules/default/delete", 409, form="delete")
    assert "not deleted" in text_of(refused)
    # The form with the fields is as it was.
    shown = await signed_in.get("/rules/default")
    assert fields_of(refused.text, "/rules/default") == fields_of(shown.text, "/rules/default")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "_x"},
        {"name": ""},
        {"matchers": "job~x"},
        {"matchers": 'job=~"("'},
        {"window": "5"},
        {"window": "3 d"},
        {"max_span": "1 m"},
        {"severities": "blocker"},
        {"severities": "blocker = sev9"},
        {"position": "-1"},
        {"heartbeat": "1 h", "matchers": ""},
    ],
)
@pytest.mark.parametrize("part", ["", "/try"])
async def test_a_rule_that_cannot_be_stored_is_refused_with_what_was_entered(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, changes: dict[str, str], part: str
) -> None:
    before = await names(client)
    form = fields_of((await signed_in.get("/rules/_new")).text, "/rules/_new")
    form |= {"name": "new", "matchers": "a=b"} | changes
    refused = await submitted(signed_in, f"/rules/_new{part}", 422, **form)
    assert refused.text.count('role="alert"') == 1
    assert fields_of(refused.text, "/rules/_new") == form
    assert await names(client) == before


async def test_who_may_not_change_rules_sees_them_without_forms(
    client: httpx.AsyncClient, signed_in_as: SignedInAs
) -> None:
    (await client.put(f"{REST}/whole", json=WHOLE)).raise_for_status()
    for scope in (Scope.READ, Scope.WRITE):
        visitor = await signed_in_as(scope)
        for address in ("/rules", "/rules/whole", "/rules/default"):
            shown = await visitor.get(address)
            assert shown.status_code == 200
            assert set(re.findall(r'action="([^"]*)"', shown.text)) == {"/logout", "/search", "/zone"}
        assert (await visitor.get("/rules/_new")).status_code == 403
        for address in ("/rules/_new", "/rules/_new/try", "/rules/whole", "/rules/whole/try", "/rules/whole/delete"):
            assert (await visitor.post(address, data={"name": "x", "window": "5 m"})).status_code == 403
        assert (await visitor.post("/rules/whole/move", data={"to": "later"})).status_code == 403
    assert configured((await client.get(f"{REST}/whole")).json())["position"] == 7


# — trying —


def ago(minutes: float) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()


@pytest.fixture
async def history(client: httpx.AsyncClient) -> None:
    """Two incidents of shop, 20 minutes apart (INC-1, INC-2), and one of search (INC-3)."""
    for service, begin, end in (("shop", 100, 90), ("shop", 70, 60), ("search", 50, 40)):
        alert = an_alert(ago(begin), ago(end), service=service, instance=str(begin), alertname=f"<b>{begin}</b>")
        (await client.post("/webhooks/alertmanager", json=a_delivery(alert))).raise_for_status()


async def test_trying_shows_what_would_differ_and_keeps_what_was_entered(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, history: None
) -> None:
    form = fields_of((await signed_in.get("/rules/default")).text, "/rules/default") | {"window": "30 m"}
    tried = await submitted(signed_in, "/rules/default/try", 200, **form)
    text = text_of(tried)
    assert "3 incidents would have been 2; 1 would be the same." in text
    assert "merged INC-1 <b>100</b>: slow" in text
    assert "INC-2 <b>70</b>: slow" in text
    assert fields_of(tried.text, "/rules/default") == form
    assert (await client.get(f"{REST}/default")).json()["window_seconds"] == 300


async def test_the_page_and_rest_find_the_same_differences(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, history: None
) -> None:
    await client.put(f"{REST}/split", json={"matchers": ['service="shop"'], "window_seconds": 3600})
    by_rest = (await client.post(f"{REST}/try", json={"changes": {"split": None}})).json()
    tried = await submitted(signed_in, "/rules/split/try", 200, form="delete", delete="on")
    assert [each["outcome"] for each in by_rest["differences"]] == ["split"]
    text = text_of(tried)
    before, after, same = (by_rest[name] for name in ("incidents_before", "incidents_after", "unchanged"))
    assert f"{before} incidents would have been {after}; {same} would be the same." in text
    assert "Tried on the last 30 days, without this rule" in text
    assert "would apply to 0 instead of 2 of 3 alerts" in text
    assert (await client.get(f"{REST}/split")).status_code == 200
    await submitted(signed_in, "/rules/default/try", 409, form="delete", delete="on")


async def test_a_new_rule_can_be_tried(signed_in: httpx.AsyncClient, history: None) -> None:
    form = fields_of((await signed_in.get("/rules/_new")).text, "/rules/_new")
    form |= {"name": "quiet", "matchers": 'service="search"'}
    del form["opens_incidents"]
    tried = await submitted(signed_in, "/rules/_new/try", 200, **form)
    assert re.search("not opened INC-3 .* ignored", text_of(tried))
    assert fields_of(tried.text, "/rules/_new") == form
    form["matchers"] = 'service="nobody"'
    same = await submitted(signed_in, "/rules/_new/try", 200, **form)
    assert "Every one of the 3 incidents would be the same. This rule applies to 0 of 3 alerts." in text_of(same)


async def test_without_history_there_is_nothing_to_compare(signed_in: httpx.AsyncClient) -> None:
    form = fields_of((await signed_in.get("/rules/default")).text, "/rules/default")
    tried = await submitted(signed_in, "/rules/default/try", 200, **form)
    assert "There were no incidents to compare." in text_of(tried)


async def test_what_was_left_out_is_said(
    signed_in: httpx.AsyncClient, history: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "TRIED_ALERTS", 2)
    form = fields_of((await signed_in.get("/rules/default")).text, "/rules/default") | {"window": "30 m"}
    assert "1 older one was left out" in text_of(await submitted(signed_in, "/rules/default/try", 200, **form))


async def test_many_differences_are_cut(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "DIFFERENCES_ON_PAGE", 4)
    monkeypatch.setattr(rules, "DIFFERENCES_AT_ONCE", 2)
    alerts = [an_alert(ago(60), ago(50), service=f"s{number}") for number in range(6)]
    (await client.post("/webhooks/alertmanager", json=a_delivery(*alerts))).raise_for_status()
    form = fields_of((await signed_in.get("/rules/default")).text, "/rules/default")
    form |= {"key_labels": "service\nenvironment\ninstance\nalertname"}
    page = await submitted(signed_in, "/rules/default/try", 200, **form)
    assert page.text.count('<th scope="row">changed</th>') == 4
    assert "2 more differences" in text_of(page)
    assert "The newest 4 of 6 differences are shown." in text_of(page)


async def test_the_number_of_statements_does_not_grow(
    client: httpx.AsyncClient, context: Context, signed_in: httpx.AsyncClient, history: None
) -> None:
    form = fields_of((await signed_in.get("/rules/default")).text, "/rules/default") | {"window": "30 m"}

    async def statements() -> list[int]:
        found = []
        for method, address, data in (
            ("GET", "/rules", None),
            ("GET", "/rules/default", None),
            ("POST", "/rules/default/try", form),
        ):
            with counted(context.engine) as sent:
                assert (await signed_in.request(method, address, data=data)).status_code == 200
            found.append(len(sent))
        return found

    before = await statements()
    for number in range(5):
        await client.put(f"{REST}/r{number}", json={"matchers": [f"team=t{number}"]})
        alert = an_alert(ago(60), ago(50), service=f"s{number}", team=f"t{number}")
        (await client.post("/webhooks/alertmanager", json=a_delivery(alert))).raise_for_status()
    assert await statements() == before
    assert max(before) <= 8
