"""Deployments: combining reports, the webhooks that receive them, and stated causes."""

import asyncio
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access import tokens as access
from app.base.access.tokens import Scope
from app.base.errors import UnrecognizedBody
from app.base.http.context import Context
from app.base.values.facts import DEPLOYMENT_KEY, Commit, Outcome, Report, key_of
from app.ingest.reading import values
from app.ingest.reading.values import UnusableReport
from app.ingest.sender import Reading, Request
from app.ingest.senders import SENDERS
from app.metrics.deployments.causes import count_failures
from app.metrics.deployments.deployment import (
    Deployment,
    as_json,
    deployment_of,
    digest_of,
    from_json,
)
from tests.conftest import ClientAs
from tests.ingest.test_sender_requests import require_usable
from tests.ingest.test_senders import DEPLOYMENT_KINDS
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.metrics.prometheus.test_exposition import an_incident, store
from tests.processes import REPOSITORY

FIXTURES = REPOSITORY / "tests" / "fixtures"
CASES = [path for kind in DEPLOYMENT_KINDS for path in sorted((FIXTURES / kind).glob("*.json"))]
RECEIVED_AT = datetime(2026, 8, 20, 12, 0, tzinfo=UTC)
DAY = {"from": "2026-08-20T00:00:00Z", "to": "2026-08-21T00:00:00Z"}
DEPLOYMENTS = "/api/v1/deployments"
DORA = "/api/v1/metrics/dora"
CHECKOUT_1742 = "people:checkout:production:checkout-1742"
GITHUB = {"X-GitHub-Event": "deployment_status"}


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-08-20T{clock}:00+00:00")


def a_report(outcome: str = "succeeded", finished: str = "09:55", **fields: object) -> dict[str, object]:
    return {
        "id": "checkout-1742",
        "service": "checkout",
        "outcome": outcome,
        "finished_at": f"2026-08-20T{finished}:00Z",
        **fields,
    }


def fixture(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())  # type: ignore[no-any-return]


async def find_one(engine: AsyncEngine, query: str) -> Any:
    async with engine.connect() as connection:
        return (await connection.execute(text(query))).scalar_one()


# — payloads —


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_real_payload_reads_as(path: Path) -> None:
    case = json.loads(path.read_text())
    kind = path.parent.name
    body, received_at = json.dumps(case["body"]).encode(), datetime(2026, 8, 22, tzinfo=UTC)
    if "refused" in case["expected"]:
        with pytest.raises(UnusableReport) as refusal:
            read(kind, body, case["headers"], received_at)
        assert refusal.value.detail == case["expected"]["refused"]
        return
    reading = read(kind, body, case["headers"], received_at)
    if reading.deployments:
        [report] = reading.deployments
        assert json.loads(json.dumps(as_json(report))) == case["expected"]
    elif reading.changes:
        [change] = reading.changes
        stated = {name: value for name, value in asdict(change).items() if value}
        assert stated | {"happened_at": change.happened_at.isoformat()} == case["expected"]["change"]
    elif reading.issues:
        [issue] = reading.issues
        stated = {name: value for name, value in asdict(issue).items() if value}
        assert stated | {"at": issue.at.isoformat()} == case["expected"]["issue"]
    elif reading.rejected:
        assert case["expected"] == {"rejected": reading.rejected[0].reason}
    else:
        assert case["expected"] == {"ignored": reading.ignored}


def read(
    kind: str, body: bytes, headers: Mapping[str, str] = MappingProxyType({}), received_at: datetime = RECEIVED_AT
) -> Reading:
    lower = {name.lower(): value for name, value in headers.items()}
    return SENDERS[kind].read(Request(body, received_at, kind, lower))


def test_every_kind_has_fixtures() -> None:
    assert set(DEPLOYMENT_KINDS) == {path.parent.name for path in CASES}


@pytest.mark.parametrize("kind", DEPLOYMENT_KINDS)
@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'"text"', b"12"])
def test_a_body_that_is_no_json_object_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(UnrecognizedBody):
        read(kind, body)


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\x00\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
@given(data=st.data())
def test_no_field_value_makes_a_webhook_fail(path: Path, data: st.DataObject) -> None:
    """With any value in one field, a report can be stored and is read back unchanged."""
    kind = path.parent.name
    case = json.loads(path.read_text())

    def places(value: Any) -> list[tuple[Any, Any]]:
        if not isinstance(value, dict):
            return []
        return [place for name in value for place in ((value, name), *places(value[name]))]

    holder, name = data.draw(st.sampled_from(places(case["body"])))
    holder[name] = data.draw(hostile)
    body = json.dumps(case["body"]).encode("utf-8", "surrogatepass")
    reading = Reading()
    with suppress(UnusableReport):
        reading = read(kind, body, case["headers"])
    require_usable(reading.issues)
    for report in reading.deployments:
        stored = json.dumps(as_json(report), ensure_ascii=False)
        assert from_json(json.loads(stored.encode())) == report  # half a surrogate pair would not encode
        assert "\\u0000" not in stored


def test_deep_and_huge_json_is_kept_for_later() -> None:
    for body in (b'{"id":' + b"[" * 10_000 + b"]" * 10_000 + b"}", b'{"id":' + b"9" * 10_000 + b"}"):
        assert read("github", body).rejected
        with pytest.raises(UnusableReport):
            read("deployments", body)


identities = st.lists(st.text(st.sampled_from("a:/-é"), min_size=1), min_size=4, max_size=4)


@given(identities, identities)
def test_keys_fit_into_addresses_and_stay_different(one: list[str], other: list[str]) -> None:
    keys = key_of(*one), key_of(*other)
    assert all(re.fullmatch(DEPLOYMENT_KEY, key) for key in keys)
    assert (keys[0] == keys[1]) == (one == other)
    assert key_of("ci", "shop", "production", "4242") == "ci:shop:production:4242"


# — combining reports —

times = st.integers(0, 600).map(lambda number: RECEIVED_AT - timedelta(minutes=number))
reports = st.builds(
    Report,
    id=st.just("1"),
    service=st.just("checkout"),
    outcome=st.sampled_from([None, *Outcome]),
    reported_at=times,
    environment=st.sampled_from([None, "prod", "production"]),
    version=st.sampled_from([None, "1", "2"]),
    started_at=st.none() | times,
    finished_at=st.none() | times,
    commits=st.lists(st.builds(Commit, st.sampled_from("abc"), st.none() | times), max_size=3).map(tuple),
    unplanned=st.sampled_from([None, True, False]),
    needed_intervention=st.sampled_from([None, True, False]),
)


def combined(received: Iterable[tuple[Report, datetime]]) -> Deployment:
    return deployment_of(received, source="ci")


@given(st.lists(reports, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_and_repetition_of_reports_do_not_matter(several: list[Report], random: Any) -> None:
    reported = [(report, RECEIVED_AT) for report in several]
    again = [*reported, random.choice(reported)]
    random.shuffle(again)
    whole = combined(reported)
    once = {digest_of(report): (report, received_at) for report, received_at in again}
    assert combined(once.values()) == combined(reported) == whole
    assert combined(again) == whole
    assert (whole.finished_at is not None) == whole.outcome.final
    assert whole.started_at is None or whole.finished_at is None or whole.started_at <= whole.finished_at


@given(st.lists(reports, min_size=1, max_size=6), reports)
def test_no_report_of_progress_undoes_an_outcome(several: list[Report], stale: Report) -> None:
    before = combined([(report, RECEIVED_AT) for report in several])
    for outcome in (Outcome.PENDING, Outcome.IN_PROGRESS, None):
        progress = Report(id="1", service=stale.service, outcome=outcome, reported_at=stale.reported_at)
        after = combined([(report, RECEIVED_AT) for report in [*several, progress]])
        if before.outcome.final:
            assert (after.outcome, after.finished_at) == (before.outcome, before.finished_at)


def test_a_later_report_completes_and_a_rerun_corrects() -> None:
    started = Report("1", "checkout", Outcome.IN_PROGRESS, at("09:50"))
    failed = Report("1", "checkout", Outcome.FAILED, at("09:55"))
    rerun = Report("1", "checkout", Outcome.SUCCEEDED, at("10:20"))
    commits = Report("1", "checkout", reported_at=at("11:00"), commits=(Commit("a", at("08:00")),), environment="live")
    for order in permutations((started, failed, rerun, commits)):
        whole = combined((report, RECEIVED_AT) for report in order)
        assert (whole.outcome, whole.started_at, whole.finished_at) == (Outcome.SUCCEEDED, at("09:50"), at("10:20"))
        assert (whole.commits, whole.environment, whole.production) == (commits.commits, "production", True)


# — over HTTP —


async def test_repeated_reports_are_one_deployment(client: httpx.AsyncClient) -> None:
    first = await client.post(DEPLOYMENTS, json=a_report())
    again = await client.post(DEPLOYMENTS, json=a_report())
    assert (first.status_code, again.status_code, first.json()) == (201, 200, again.json())
    stale = await client.post(DEPLOYMENTS, json=a_report("in_progress") | {"finished_at": None, "version": "1.42"})
    assert (stale.json()["outcome"], stale.json()["version"]) == ("succeeded", "1.42")
    assert (await client.get(f"{DEPLOYMENTS}/checkout-1742")).json() == stale.json()
    assert (await client.get(f"{DEPLOYMENTS}/unknown")).status_code == 404
    assert (await client.get("/api/v1/services/checkout")).status_code == 200
    future = await client.post(DEPLOYMENTS, json=a_report() | {"finished_at": "2199-01-01T00:00:00Z"})
    assert future.status_code == 422


async def test_deployments_are_listed_page_by_page_and_filtered(client: httpx.AsyncClient) -> None:
    for hour in range(10, 15):
        fields = {"id": f"d{hour}", "environment": "prod" if hour % 2 else "staging"}
        answer = await client.post(DEPLOYMENTS, json=a_report(finished=f"{hour}:00", **fields))
        assert answer.status_code == 201, answer.text
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get(DEPLOYMENTS, params={"limit": "2", **cursor})).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ["d14", "d13", "d12", "d11", "d10"]
    cases: list[tuple[dict[str, str | list[str]], list[str]]] = [
        ({"environment": "production"}, ["d13", "d11"]),
        ({"service": "search"}, []),
        ({"outcome": "failed"}, []),
        ({"outcome": ["failed", "succeeded"], "environment": ["staging", "prod"]}, ["d14", "d13", "d12", "d11", "d10"]),
        ({"from": "2026-08-20T11:00:00Z", "to": "2026-08-20T13:00:00Z"}, ["d12", "d11"]),
    ]
    for filters, expected in cases:
        found = (await client.get(DEPLOYMENTS, params=filters)).json()["items"]
        assert [item["id"] for item in found] == expected


async def test_a_quarantined_report_is_replayed_as_if_it_came_then(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = "/webhooks/github"
    bad = fixture("github/success")
    bad["body"]["deployment_status"] |= {"created_at": "2099-08-20T09:55:30Z", "updated_at": "2099-08-20T09:55:30Z"}
    form = json.dumps(bad["body"])
    as_form = GITHUB | {"Content-Type": "application/x-www-form-urlencoded"}
    await client.post(webhook, json=bad["body"], headers=bad["headers"])
    await client.post(webhook, content=urlencode({"payload": form}), headers=as_form)
    seen = await find_one(engine, "SELECT max(value) FROM tally WHERE name = 'last_delivery' AND source = 'github'")
    items = (await client.get("/api/v1/quarantine")).json()["items"]
    assert len(items) == 2

    async def replay(id_: int) -> Any:
        answer = await client.post(f"/api/v1/quarantine/{id_}/replay")
        assert answer.status_code == 200, answer.text
        return answer.json()

    again = await replay(items[0]["id"])
    assert (again["verdicts"], again["deployment"]) == ({"quarantined": 1}, None)
    [newest, *_] = waiting = (await client.get("/api/v1/quarantine")).json()["items"]
    assert newest == items[0] | {"attempts": 1}

    monkeypatch.setattr(values, "CLOCK_AHEAD_AT_MOST", timedelta(days=36_500))
    reported = [await replay(item["id"]) for item in waiting]
    assert [each["verdicts"] for each in reported] == [{"recorded": 1}, {"repeated": 1}]
    deployments = {each["deployment"] for each in reported}
    [shown] = (await client.get(DEPLOYMENTS)).json()["items"]
    assert deployments == {shown["key"]}
    assert shown["outcome"] == "succeeded"
    assert (await client.get("/api/v1/quarantine")).json()["items"] == []
    assert (await client.post(f"/api/v1/quarantine/{newest['id']}/replay")).status_code == 409
    last = await find_one(engine, "SELECT max(value) FROM tally WHERE name = 'last_delivery' AND source = 'github'")
    assert last == seen, "the source delivered nothing"


async def test_the_deployment_webhook_records_repeats_ignores_and_quarantines(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    webhook = "/webhooks/github"
    success, ping, bad = (fixture(f"github/{name}") for name in ("success", "ping", "no_deployment"))
    answers = [await client.post(webhook, json=case["body"], headers=case["headers"]) for case in (success,) * 2]
    answers += [await client.post(webhook, json=case["body"], headers=case["headers"]) for case in (ping, bad)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.json()["verdict"] for answer in answers] == ["recorded", "repeated", "ignored", "quarantined"]
    assert answers[0].json()["deployment"] == "github:checkout:production:2001"
    [item] = (await client.get("/api/v1/quarantine")).json()["items"]
    assert (item["source"], item["reason"]) == ("github", "no_state")
    assert (await client.get(f"/api/v1/quarantine/{item['id']}/raw")).json() == bad["body"]
    assert await find_one(engine, "SELECT sum(value) FROM tally WHERE name = 'deliveries' AND source = 'github'") == 4
    form = await client.post(
        webhook, content=urlencode({"payload": json.dumps(fixture("github/failure")["body"])}),
        headers=GITHUB | {"Content-Type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    assert form.json()["verdict"] == "recorded"
    assert (await client.post(webhook, content=b"{", headers=GITHUB)).status_code == 400


async def test_reports_at_the_same_moment_are_one_deployment_counted_once(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    reported = [a_report(version=str(number % 5), finished="09:55") for number in range(20)]
    answers = await asyncio.gather(*(client.post("/webhooks/deployments", json=body) for body in reported))
    assert [answer.status_code for answer in answers] == [200] * 20
    assert sorted(answer.json()["verdict"] for answer in answers) == ["recorded"] * 5 + ["repeated"] * 15
    assert len((await client.get(DEPLOYMENTS)).json()["items"]) == 1
    assert await find_one(engine, "SELECT sum(value) FROM tally WHERE name = 'deployments'") == 1


async def test_a_delivery_signed_by_github_is_accepted(client: httpx.AsyncClient) -> None:
    await client.put("/api/v1/sources/github", json={"kind": "github", "hmac_secret": "secret"})
    body = json.dumps(fixture("github/success")["body"]).encode()
    right = "sha256=" + hmac.new(b"secret", body, "sha256").hexdigest()
    for signature, status in (
        (None, 401),
        ("sha256=" + "0" * 64, 401),
        (right.removeprefix("sha256="), 401),
        (right, 200),
    ):
        headers = GITHUB | ({"X-Hub-Signature-256": signature} if signature else {})
        answer = await client.post("/webhooks/github", content=body, headers=headers)
        assert answer.status_code == status, signature


FORGE_15 = key_of("forge", "acme/checkout", "blue", "15")


async def test_a_webhook_accepts_tokens_of_its_kind(client_as: ClientAs, engine: AsyncEngine) -> None:
    anonymous, wrong = await client_as(None), await client_as(Scope.INGEST)
    body = fixture("gitlab/success")["body"]
    async with db.session(engine) as session:
        token = await access.create_token(
            session, "gitlab", Scope.INGEST, now=RECEIVED_AT, source_name="forge", kind="gitlab"
        )
    webhook = "/webhooks/gitlab"
    for answer in (
        await anonymous.post(webhook, json=body, headers={"X-Gitlab-Token": token}),
        await anonymous.post(webhook, json=body, headers={"Authorization": f"Bearer {token}"}),
        await anonymous.post(webhook, json=body, auth=("x", token)),
        await anonymous.put(f"{webhook}/{token}", json=body),
    ):
        assert (answer.status_code, answer.json()["deployment"]) == (200, FORGE_15)
    assert (await anonymous.post(webhook, json=body)).status_code == 401
    assert (await anonymous.post(webhook, json=body, headers={"X-Gitlab-Token": token + "x"})).status_code == 401
    assert (await anonymous.post("/webhooks/github", json=body, auth=("x", token))).status_code == 403
    assert (await wrong.post(webhook, json=body)).status_code == 403
    assert (await (await client_as(Scope.READ)).post(DEPLOYMENTS, json=a_report())).status_code == 403


# — causes —


async def an_incident_after(client: httpx.AsyncClient, **labels: str) -> str:
    """An incident of checkout from 10:00 to 10:30 after a deployment at 9:55."""
    await client.post(DEPLOYMENTS, json=a_report())
    answer = await client.post(
        "/webhooks/alertmanager", json=a_delivery(an_alert(ended="2026-08-20T10:30:00Z", **labels))
    )
    return str(answer.json()["incidents"][0])


async def test_a_cause_is_found_overridden_and_audited(client: httpx.AsyncClient) -> None:
    number = await an_incident_after(client)
    cause = f"/api/v1/incidents/{number}/cause"
    found = (await client.get(cause)).json()
    assert (found["deployment"]["id"], found["basis"], found["confidence"]) == (
        "checkout-1742",
        "last_deployment",
        "medium",
    )
    none = (await client.put(cause, json={"deployment_id": None, "by": "ada", "note": "a cable"})).json()
    assert (none["deployment"], none["basis"], none["by"], none["note"]) == (None, "stated", "ada", "a cable")
    await client.post(DEPLOYMENTS, json=a_report(id="payments-7", service="payments", finished="08:00"))
    stated = (await client.put(cause, json={"deployment_id": "payments-7", "by": "grace"})).json()
    assert (stated["deployment"]["id"], stated["by"]) == ("payments-7", "grace")
    timeline = (await client.get(f"/api/v1/incidents/{number}/timeline")).json()["items"]
    assert [(entry["by"], entry["detail"]) for entry in timeline if entry["kind"] == "cause"] == [
        ("ada", {"deployment_id": None}),
        ("grace", {"deployment_id": "people:payments:production:payments-7"}),
    ]
    assert (await client.put(cause, json={"deployment_id": "unknown"})).status_code == 404
    assert (await client.put("/api/v1/incidents/INC-99/cause", json={"deployment_id": None})).status_code == 404


async def test_an_alert_may_name_its_deployment_and_a_late_deployment_counts(client: httpx.AsyncClient) -> None:
    number = await an_incident_after(client, deployment_id="canary-1")
    cause = f"/api/v1/incidents/{number}/cause"
    assert (await client.get(cause)).json()["basis"] == "last_deployment"
    await client.post(DEPLOYMENTS, json=a_report(id="canary-1", service="elsewhere", finished="07:00"))
    assert (await client.get(cause)).json()["basis"] == "label"


async def test_a_stated_cause_survives_a_merge(client: httpx.AsyncClient) -> None:
    """10:00-10:10 and 10:20-10:40 are two incidents, until a late report of an alert of 10:05-10:30."""
    for started, ended, instance in (("10:00", "10:10", "a"), ("10:20", "10:40", "b")):
        alert = an_alert(f"2026-08-20T{started}:00Z", f"2026-08-20T{ended}:00Z", instance=instance)
        await client.post("/webhooks/alertmanager", json=a_delivery(alert))
    await client.post(DEPLOYMENTS, json=a_report())
    word = {"deployment_id": "checkout-1742", "by": "ada"}
    assert (await client.put("/api/v1/incidents/INC-2/cause", json=word)).status_code == 200
    late = an_alert("2026-08-20T10:05:00Z", "2026-08-20T10:30:00Z", instance="c")
    await client.post("/webhooks/alertmanager", json=a_delivery(late))
    assert (await client.get("/api/v1/incidents/INC-2")).json()["merged_into"] is not None
    assert (await client.get("/api/v1/incidents/INC-1/cause")).json()["by"] == "ada"
    assert (await client.put("/api/v1/incidents/INC-2/cause", json=word)).status_code == 409


# — DORA —


async def test_dora_answers_with_numbers_definitions_links_and_its_cost(client: httpx.AsyncClient) -> None:
    await an_incident_after(client)
    commit = {"sha": "a", "at": "2026-08-20T08:55:00Z"}
    await client.post(DEPLOYMENTS, json=a_report(commits=[commit]))
    fix = a_report(id="fix", finished="10:28", unplanned=True, made_for="INC-1")
    await client.post(DEPLOYMENTS, json=fix)
    rate = {"currency": "EUR", "low": "100", "expected": "1000", "high": "5000"}
    await client.put("/api/v1/services/checkout/rates", json=[rate])
    reported = (await client.get(DORA, params={**DAY, "service": "checkout"})).json()
    assert (reported["deployment_frequency"]["n"], reported["deployment_frequency"]["per_day"]["value"]) == (2, 2)
    lead_time = reported["lead_time_for_changes"]
    assert (lead_time["n"], lead_time["values"], lead_time["without_commit_times"]) == (1, [3600], 1)
    assert (lead_time["statistics"], lead_time["median_interval"]) == (None, None)
    assert (reported["change_fail_rate"]["k"], reported["change_fail_rate"]["n"]) == (1, 2)
    assert reported["failures"] == [
        {
            "deployment": CHECKOUT_1742,
            "marked": False,
            "incidents": [{"incident": "INC-1", "basis": "last_deployment", "confidence": "medium"}],
        }
    ]
    assert reported["failed_deployment_recovery_time"]["values"] == reported["time_to_recover"]["values"] == [1800]
    assert (reported["rework_rate"]["k"], reported["unlinked"]["k"], reported["unlinked"]["bases"]) == (
        1,
        0,
        {"last_deployment": 1},
    )
    # 2 deployments x 1/2 x 0.5 h x the rate
    assert reported["cost"]["amounts"] == {
        "EUR": {"cost_per_hour": "1000.00", "low": "50.00", "expected": "500.00", "high": "2500.00"}
    }
    for name, number in reported.items():
        if isinstance(number, dict) and name != "filters":
            assert number["definition"]
            for link in number.get("links", []):
                assert (await client.get(link)).status_code == 200
    every = (await client.get(DORA, params=DAY)).json()
    assert every["cost"]["amounts"] is None
    assert every["cost"]["why_none"]
    empty = (await client.get(DORA, params={**DAY, "environment": "staging"})).json()
    assert (empty["change_fail_rate"]["value"], empty["deployment_frequency"]["n"]) == (None, 0)


async def test_a_deployment_fails_if_it_caused_an_incident_of_another_service(client: httpx.AsyncClient) -> None:
    """Its label names the deployment; the query asks for the deployed service."""
    await an_incident_after(client, service="payments", deployment_id="checkout-1742")
    await client.post(DEPLOYMENTS, json=a_report(id="search-3", service="search"))
    await an_incident_after(client, service="basket", deployment_id="search-3")
    reported = (await client.get(DORA, params={**DAY, "service": "checkout"})).json()
    assert [failure["deployment"] for failure in reported["failures"]] == [CHECKOUT_1742]
    assert (reported["change_fail_rate"]["k"], reported["unlinked"]["n"]) == (1, 0)


async def test_a_false_alarm_fails_no_deployment(client: httpx.AsyncClient) -> None:
    number = await an_incident_after(client)
    await client.patch(f"/api/v1/incidents/{number}", json={"severity": "sev5"})
    reported = (await client.get(DORA, params=DAY)).json()
    assert (reported["change_fail_rate"]["k"], reported["unlinked"]["n"]) == (0, 0)


async def test_the_number_of_statements_does_not_grow(client: httpx.AsyncClient, context: Context) -> None:
    await an_incident_after(client)
    statements = 0

    def count_one(*_: object) -> None:
        nonlocal statements
        statements += 1

    async def asked() -> int:
        nonlocal statements
        statements = 0
        assert (await client.get(DORA, params=DAY)).status_code == 200
        return statements

    event.listen(context.engine.sync_engine, "before_cursor_execute", count_one)
    few = await asked()
    for hour in range(10, 20):
        await client.post(DEPLOYMENTS, json=a_report(id=f"d{hour}", finished=f"{hour}:00"))
        alert = an_alert(f"2026-08-20T{hour}:30:00Z", f"2026-08-20T{hour}:40:00Z", instance=str(hour))
        await client.post("/webhooks/alertmanager", json=a_delivery(alert))
    assert await asked() == few


# — counted once —


async def test_failures_are_counted_once_and_only_when_settled(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    now = at("12:00")
    await client.post(DEPLOYMENTS, json=a_report())
    assert 'aftermath_change_failures_total{service="checkout"} 0.0' in (await client.get("/metrics")).text
    await client.post(DEPLOYMENTS, json=a_report(id="marked", finished="09:00", needed_intervention=True))
    day = (now.date() - datetime(2024, 8, 20, tzinfo=UTC).date()).days * 24
    row = an_incident(f"{day + 10}:00", f"{day + 10}:30")

    async def counted() -> int:
        async with db.transaction(engine) as tx:
            return await count_failures(tx, now=now)

    await store(engine, row)
    assert [await counted(), await counted()] == [1, 0], "the marked one; the incident has not settled"
    async with db.transaction(engine) as tx:
        await tx.execute(text("UPDATE incident SET settled_at = ended_at, test_stated = true"))
    assert await counted() == 0, "a test was caused by nothing"
    async with db.transaction(engine) as tx:
        await tx.execute(text("UPDATE incident SET test_stated = NULL"))
    assert [await counted(), await counted()] == [1, 0]
    total = "SELECT sum(value) FROM tally WHERE name = '{}' AND source = 'checkout'"
    assert await find_one(engine, total.format("change_failures")) == 2
    assert await find_one(engine, total.format("deployments")) == 2
    exposed = (await client.get("/metrics")).text
    assert 'aftermath_deployments_total{outcome="succeeded",service="checkout"} 2.0' in exposed
    assert 'aftermath_deployments_total{outcome="failed",service="checkout"} 0.0' in exposed
    assert 'aftermath_change_failures_total{service="checkout"} 2.0' in exposed
    corrected = a_report("failed", finished="09:56") | {"commits": []}
    assert (await client.post(DEPLOYMENTS, json=corrected)).json()["outcome"] == "failed"
    assert (await client.get("/metrics")).text.count('outcome="succeeded",service="checkout"} 2.0') == 1
