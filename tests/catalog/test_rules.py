"""Rules over HTTP."""

from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.catalog.rules import store
from app.incidents.grouping.rule import DEFAULT_RULE
from tests.conftest import ClientAs

DEFAULTS = {
    "position": 100,
    "matchers": [],
    "key_labels": ["service", "environment"],
    "window_seconds": 300,
    "max_span_seconds": 86_400,
    "ignored_labels": [],
    "heartbeat_seconds": None,
    "service_labels": ["service", "app", "app_kubernetes_io_name", "job", "rulename", "alertname"],
    "severity_labels": ["severity", "priority", "level"],
    "severities": {},
    "environment_labels": [
        "environment",
        "env",
        "deployment.environment.name",
        "deployment.environment",
        "deployment_environment_name",
        "deployment_environment",
        "stage",
    ],
    "environment": None,
    "opens_incidents": True,
    "recoveries": [],
}

# Present from the start; tried before and after other rules.
FIRST = ["aftermath-heartbeat", "watchdog", "aftermath-alerts", "info-inhibitor"]
LAST = ["probes", "hosts", "kubernetes-nodes", "kubernetes-workloads", "default"]


def stated(answer: httpx.Response) -> dict[str, Any]:
    """The rule without its timestamps."""
    body: dict[str, Any] = answer.json()
    return {name: value for name, value in body.items() if name not in {"created_at", "updated_at"}}


async def test_a_small_body_makes_a_rule_with_the_usual_values(client: httpx.AsyncClient) -> None:
    made = await client.put("/api/v1/rules/batch", json={"matchers": ["job=batch"]})
    assert (made.status_code, stated(made)) == (201, DEFAULTS | {"name": "batch", "matchers": ['job="batch"']})
    assert (await client.get("/api/v1/rules/batch")).json() == made.json()


async def test_put_replaces_the_whole_rule(client: httpx.AsyncClient) -> None:
    whole = {
        "position": 7,
        "matchers": ['"alert.name"=~"Disk.*"', 'team!="blue"'],
        "key_labels": ["cluster"],
        "window_seconds": 60,
        "max_span_seconds": 60,
        "ignored_labels": ["pod"],
        "service_labels": ["team"],
        "severity_labels": ["urgency"],
        "severities": {"Blocker": "sev1", "later": "sev4"},
        "environment_labels": ["tier"],
        "environment": "prod",
        "opens_incidents": False,
        "recoveries": ["no_data"],
        "heartbeat_seconds": 600,
    }
    first = await client.put("/api/v1/rules/disk", json=whole)
    canonical = whole | {"matchers": ['alert.name=~"Disk.*"', 'team!="blue"'], "environment": "production"}
    assert (first.status_code, stated(first)) == (201, canonical | {"name": "disk"})
    second = await client.put("/api/v1/rules/disk", json={"position": 8})
    assert (second.status_code, stated(second)) == (200, DEFAULTS | {"name": "disk", "position": 8})
    assert second.json()["created_at"] == first.json()["created_at"] < second.json()["updated_at"]


async def test_the_store_gives_back_the_rules_that_were_put_in_their_order(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    for name, position in (("late", 9), ("b", 2), ("a", 2)):
        body = {"position": position, "matchers": ["job=x"], "severities": {"x": "sev2"}, "window_seconds": 172_800}
        assert (await client.put(f"/api/v1/rules/{name}", json=body)).status_code == 201
    async with db.transaction(engine) as tx:
        rules = await store.rules(tx)
    assert [rule.name for rule in rules] == [*FIRST, "a", "b", "late", *LAST]
    assert rules[-1] == DEFAULT_RULE
    rule = rules[len(FIRST)]
    assert (rule.severities, rule.window, rule.max_span) == ({"x": 2}, rule.max_span, rule.window)
    assert [str(matcher) for matcher in rule.matchers] == ['job="x"']


async def test_rules_are_listed_page_by_page_in_the_order_they_are_asked(client: httpx.AsyncClient) -> None:
    for name, position in (("z", 1), ("b", 2), ("a", 2), ("y", 3)):
        await client.put(f"/api/v1/rules/{name}", json={"position": position})
    names, cursor = [], None
    while True:
        page = (await client.get("/api/v1/rules", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        names.append([rule["name"] for rule in page["items"]])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == [FIRST[:2], FIRST[2:], ["z", "a"], ["b", "y"], LAST[:2], LAST[2:4], LAST[4:]]


async def test_a_rule_that_is_put_as_it_is_shown_stays_the_same(client: httpx.AsyncClient) -> None:
    await client.put("/api/v1/rules/batch", json={"matchers": [' job = "batch" '], "heartbeat_seconds": 60})
    shown = (await client.get("/api/v1/rules")).json()["items"]
    assert [rule["name"] for rule in shown] == [*FIRST, "batch", *LAST]
    for rule in shown:
        body = {name: value for name, value in rule.items() if name not in {"name", "created_at", "updated_at"}}
        again = await client.put(f"/api/v1/rules/{rule['name']}", json=body)
        assert (again.status_code, again.json()) == (200, rule | {"updated_at": again.json()["updated_at"]})


async def test_a_deleted_rule_is_gone(client: httpx.AsyncClient) -> None:
    await client.put("/api/v1/rules/batch", json={})
    answers = [
        await client.delete("/api/v1/rules/batch"),
        await client.get("/api/v1/rules/batch"),
        await client.delete("/api/v1/rules/batch"),
    ]
    assert [answer.status_code for answer in answers] == [204, 404, 404]
    assert answers[1].json()["type"] == "urn:aftermath:problem:rule-not-found"


async def test_the_default_rule_may_be_changed(client: httpx.AsyncClient) -> None:
    assert stated(await client.get("/api/v1/rules/default")) == DEFAULTS | {"name": "default", "position": 2**31 - 1}
    changed = await client.put("/api/v1/rules/default", json={"window_seconds": 600, "position": 2**31 - 1})
    assert (changed.status_code, changed.json()["window_seconds"]) == (200, 600)


@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("default", {"matchers": ["job=x"]}, "cannot have matchers"),
        ("default", {"position": 1}, "position 2147483647"),
        ("other", {"position": 2**31 - 1}, "position 2147483647"),
    ],
)
async def test_the_default_rule_stays_last_and_matches_everything(
    client: httpx.AsyncClient, name: str, body: dict[str, object], why: str
) -> None:
    answer = await client.put(f"/api/v1/rules/{name}", json=body)
    assert (answer.status_code, why in answer.json()["detail"]) == (409, True)


async def test_the_default_rule_cannot_be_deleted(client: httpx.AsyncClient) -> None:
    answer = await client.delete("/api/v1/rules/default")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:aftermath:problem:default-rule-protected")
    assert "can be changed but not deleted" in answer.json()["detail"]
    assert (await client.get("/api/v1/rules/default")).status_code == 200


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"matchers": ["job"]}, "character 4: expected one of"),
        ({"matchers": ['job=~"(a+"']}, "missing"),
        ({"matchers": ["job=\x00"]}, "NUL"),
        ({"window_seconds": 59}, "window_seconds"),
        ({"window_seconds": 172_801}, "window_seconds"),
        ({"window_seconds": 600, "max_span_seconds": 599}, "at least `window_seconds`"),
        ({"max_span_seconds": 0}, "at least `window_seconds`"),
        ({"max_span_seconds": 2**31}, "max_span_seconds"),
        ({"position": -1}, "position"),
        ({"position": 2**31}, "position"),
        ({"severities": {"x": "sev6"}}, "sev1"),
        ({"severities": {"": "sev1"}}, "severities"),
        ({"key_labels": [""]}, "key_labels"),
        ({"environment": "unknown"}, "does not name an environment"),
        ({"recoveries": ["timeout"]}, "missing_series"),
        ({"matchers": ['job="a" or service=a']}, "character 20: put the values of alternatives in double quotes"),
        ({"windows": 60}, "windows"),
        ([], "body"),
    ],
)
async def test_a_rule_that_is_not_acceptable_is_refused_with_the_reason(
    client: httpx.AsyncClient, body: object, why: str
) -> None:
    answer = await client.put("/api/v1/rules/x", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert why in answer.json()["detail"]


@pytest.mark.parametrize("name", ["a b", "-a", "%00", "a%2Fb", "x" * 101])
async def test_names_of_rules_are_plain(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.put(f"/api/v1/rules/{name}", json={})).status_code in {404, 422}


async def test_readers_read_and_only_admins_change_rules(client_as: ClientAs) -> None:
    allowed = {}
    for scope in (None, Scope.INGEST, Scope.READ, Scope.WRITE, Scope.ADMIN):
        caller = await client_as(scope)
        answers = [
            await caller.get("/api/v1/rules"),
            await caller.get("/api/v1/rules/default"),
            await caller.put("/api/v1/rules/x", json={}),
            await caller.delete("/api/v1/rules/x"),
        ]
        allowed[scope] = [answer.status_code for answer in answers]
    assert allowed == {
        None: [401] * 4,
        Scope.INGEST: [403] * 4,
        Scope.READ: [200, 200, 403, 403],
        Scope.WRITE: [200, 200, 403, 403],
        Scope.ADMIN: [200, 200, 201, 204],
    }
