"""Which reports describe one deployment, what counts as a deployment at all, and which refusals a CI job sees."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import permutations
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.http.requests.fields import rfc3339
from app.base.values.facts import Outcome, Report
from app.metrics.deployments.deployment import Deployment, contradiction, deployment_of, unchanged
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.metrics.deployments.test_deployments import DAY, DEPLOYMENTS, DORA, a_report, find_one, fixture

CHANGES = "/api/v1/changes"


async def listed(
    client: httpx.AsyncClient, route: str = DEPLOYMENTS, **params: str | list[str]
) -> list[dict[str, Any]]:
    answer = await client.get(route, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]  # type: ignore[no-any-return]


# — identity —


@pytest.mark.parametrize(
    "other",
    [
        {"service": "search"},
        {"environment": "staging"},
        {"source": "ci"},
        {"service": "search", "environment": "prod-eu"},
    ],
    ids="-".join,
)
async def test_one_id_of_two_pipelines_is_two_deployments(client: httpx.AsyncClient, other: dict[str, str]) -> None:
    await client.put("/api/v1/sources/ci", json={"kind": "deployments"})
    one = await client.post(DEPLOYMENTS, json=a_report(id="4242", version="1", link="https://ci/1"))
    two = await client.post(DEPLOYMENTS, json=a_report("failed", id="4242", version="2", **other))
    assert (one.status_code, two.status_code) == (201, 201)
    items = await listed(client)
    assert {item["id"] for item in items} == {"4242"}
    assert {item["key"]: (item["outcome"], item["version"], item["link"]) for item in items} == {
        one.json()["key"]: ("succeeded", "1", "https://ci/1"),
        two.json()["key"]: ("failed", "2", None),
    }
    for answer in (one, two):
        assert (await client.get(f"{DEPLOYMENTS}/{answer.json()['key']}")).json() == answer.json()
    ambiguous = await client.get(f"{DEPLOYMENTS}/4242")
    assert ambiguous.status_code == 409
    assert one.json()["key"] in ambiguous.json()["detail"]


async def test_a_key_that_cannot_be_stored_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"{DEPLOYMENTS}/%00")).status_code == 422
    assert (await client.get(f"{DEPLOYMENTS}/{'x' * 201}")).status_code == 422


async def test_one_environment_has_many_names(client: httpx.AsyncClient) -> None:
    for name in ("prod", "PRD", "live", None):
        answer = await client.post(DEPLOYMENTS, json=a_report(environment=name))
        assert answer.status_code in {200, 201}
    [item] = await listed(client)
    assert (item["environment"], item["production"]) == ("production", True)


async def test_people_complete_the_deployment_of_a_source(client: httpx.AsyncClient) -> None:
    case = fixture("github/success")
    await client.post("/webhooks/github", json=case["body"], headers=case["headers"])
    commits = {"id": "2001", "service": "checkout", "source": "github", "commits": [{"sha": "a"}]}
    assert (await client.post(DEPLOYMENTS, json=commits)).status_code == 201
    [item] = await listed(client)
    assert (item["source"], item["outcome"], item["commits"]) == ("github", "succeeded", [{"sha": "a", "at": None}])
    unknown = await client.post(DEPLOYMENTS, json=commits | {"source": "gihtub"})
    assert unknown.status_code == 422
    assert "gihtub" in unknown.json()["detail"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"version": "1.42.0"}, {"version": "1.43.0"}),
        ({"sha": "6113728f"}, {"sha": "7113728f"}),
        ({}, {"outcome": "failed"}),
        ({"rolled_back": "a"}, {"rolled_back": "b"}),
    ],
    ids="-".join,
)
async def test_a_report_that_contradicts_another_is_a_conflict(
    client: httpx.AsyncClient, first: dict[str, str], second: dict[str, str]
) -> None:
    before = await client.post(DEPLOYMENTS, json=a_report() | first)
    conflict = await client.post(DEPLOYMENTS, json=a_report() | second)
    assert (before.status_code, conflict.status_code) == (201, 409)
    assert "another" in conflict.json()["detail"]
    assert await listed(client) == [before.json()]
    assert (await client.post(DEPLOYMENTS, json=a_report() | first)).status_code == 200


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"version": "v1.42.0"}, {"version": "1.42.0"}),
        ({"sha": "6113728f27ae82c7b1a177c8d03f9e96e0adf246"}, {"sha": "6113728f"}),
        ({"outcome": "failed"}, {"finished_at": "2026-08-20T10:20:00Z"}),  # it ran again
        ({"outcome": "in_progress", "finished_at": None}, {}),
    ],
    ids="-".join,
)
async def test_a_report_that_completes_another_is_no_conflict(
    client: httpx.AsyncClient, first: dict[str, Any], second: dict[str, Any]
) -> None:
    answers = [await client.post(DEPLOYMENTS, json=a_report() | fields) for fields in (first, second)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[1].json()["outcome"] == "succeeded"


async def test_a_deployment_from_before_sources_were_recorded_is_completed(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    case = fixture("github/success")
    await client.post(DEPLOYMENTS, json=a_report())
    await client.post("/webhooks/github", json=case["body"], headers=case["headers"])
    async with engine.begin() as connection:  # as migration 0010 found them
        foreign_key = "deployment_report_deployment_id_fkey"
        await connection.execute(text(f"ALTER TABLE deployment_report DROP CONSTRAINT {foreign_key}"))
        for table, column in (("deployment_report", "deployment_id"), ("deployment", "id")):
            for new, old in (("people:%", "checkout-1742"), ("github:%", "github:2001")):
                await connection.execute(
                    text(f"UPDATE {table} SET {column} = :old WHERE {column} LIKE :new"),
                    {"old": old, "new": new},
                )
        await connection.execute(text("UPDATE deployment SET reported_id = NULL, source = NULL"))
    assert (await client.get(f"{DEPLOYMENTS}/checkout-1742")).json()["id"] == "checkout-1742"
    for fields in ({"version": "1"}, {"link": "https://ci"}):
        answer = await client.post(DEPLOYMENTS, json=a_report(**fields))
        assert (answer.status_code, answer.json()["key"]) == (201, "checkout-1742")
    commits = {"id": "2001", "service": "checkout", "source": "github", "commits": [{"sha": "a"}]}
    assert (await client.post(DEPLOYMENTS, json=commits)).json()["key"] == "github:2001"
    assert len(await listed(client)) == 2


# — CI endpoints —


@pytest.mark.parametrize("word", ["UNSTABLE", "timed_out", "complete", "done", "Still Failing"])
async def test_words_of_ci_systems_are_taken_everywhere(client: httpx.AsyncClient, word: str) -> None:
    for route, id_ in ((DEPLOYMENTS, "1"), ("/webhooks/deployments", "2")):
        answer = await client.post(route, json=a_report(word, id=id_))
        assert answer.status_code in {200, 201}, answer.text
    one, two = await listed(client)
    assert one["outcome"] == two["outcome"] == ("failed" if word in {"timed_out", "Still Failing"} else "succeeded")
    dora = (await client.get(DORA, params=DAY)).json()
    assert dora["change_fail_rate"]["n"] == 2


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"outcome": "frobnicated"}, "outcome"),
        ({"outcome": "42"}, "outcome"),
        ({"outcome": ["succeeded"]}, "outcome"),
        ({"finished_at": "yesterday"}, "time"),
        ({"finished_at": "20260820"}, "date without separators"),
        ({"started_at": True}, "time"),
        ({"finished_at": "2199-01-01T00:00:00Z"}, "15 minutes in the future"),
        ({"commits": "all"}, "commits"),
        ({"service": ""}, "service"),
    ],
    ids=str,
)
async def test_a_ci_job_sees_that_its_report_cannot_be_used(
    client: httpx.AsyncClient, fields: dict[str, Any], why: str
) -> None:
    for route in ("/webhooks/deployments", DEPLOYMENTS):
        answer = await client.post(route, json=a_report() | fields)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert route == DEPLOYMENTS or why in answer.json()["detail"]
    assert await listed(client, "/api/v1/quarantine") == []


@pytest.mark.parametrize("kind", ["github", "gitlab", "pagerduty-events"])
async def test_a_product_never_loses_a_deployment_and_the_metrics_show_its_unknown_outcome(
    client: httpx.AsyncClient, kind: str
) -> None:
    name = {"github": "unknown_state", "gitlab": "unknown_status", "pagerduty-events": "change_unknown_outcome"}[kind]
    case = fixture(f"{kind}/{name}")
    answer = await client.post(f"/webhooks/{kind}", json=case["body"], headers=case["headers"])
    assert answer.is_success
    [item] = await listed(client, outcome="unknown")
    assert item["outcome"] == "unknown"
    dora = (await client.get(DORA, params=DAY)).json()
    assert (dora["unknown_outcomes"]["value"], dora["change_fail_rate"]["n"]) == (1, 0)
    assert (
        f'aftermath_deployments_total{{outcome="unknown",service="{item["service"]}"}} 1.0'
        in (await client.get("/metrics")).text
    )


def test_an_unknown_word_does_not_undo_an_outcome() -> None:
    at = datetime(2026, 8, 20, 10, tzinfo=UTC)
    good = Report("1", "shop", Outcome.SUCCEEDED, at)
    unknown = Report("1", "shop", Outcome.UNKNOWN, at + timedelta(minutes=1))
    for order in permutations((good, unknown)):
        whole = deployment_of(((report, at) for report in order), source="ci")
        assert (whole.outcome, whole.finished_at) == (Outcome.SUCCEEDED, at)


# — times —


@pytest.mark.parametrize("route", [DEPLOYMENTS, "/webhooks/deployments"])
async def test_unambiguous_times_are_taken(client: httpx.AsyncClient, route: str) -> None:
    seconds = 1787219730
    written = [seconds, str(seconds), seconds * 1000, str(seconds * 1000)]
    written.append(format_datetime(datetime.fromtimestamp(seconds, UTC)))
    for number, at in enumerate(written):
        answer = await client.post(route, json=a_report(id=str(number), service=f"s{number}") | {"finished_at": at})
        assert answer.status_code in {200, 201}, answer.text
    assert {item["finished_at"] for item in await listed(client)} == {"2026-08-20T09:55:30Z"}


@pytest.mark.parametrize(("minutes", "status", "ahead"), [(-1, 201, False), (7, 201, True), (14, 201, True)])
async def test_a_clock_ahead_is_taken_and_flagged(
    client: httpx.AsyncClient, minutes: int, status: int, ahead: bool
) -> None:
    at = rfc3339(datetime.now(UTC) + timedelta(minutes=minutes))
    answer = await client.post(DEPLOYMENTS, json=a_report() | {"finished_at": at})
    assert (answer.status_code, answer.json()["clock_ahead"], answer.json()["finished_at"]) == (status, ahead, at)
    hook = await client.post("/webhooks/deployments", json=a_report(service="other") | {"finished_at": at})
    assert hook.status_code == 200
    assert {item["clock_ahead"] for item in await listed(client)} == {ahead}
    change = await client.post(CHANGES, json={"id": "1", "service": "shop", "at": at})
    assert (change.status_code, change.json()["clock_ahead"]) == (201, ahead)


async def test_a_clock_too_far_ahead_is_refused(client: httpx.AsyncClient) -> None:
    at = rfc3339(datetime.now(UTC) + timedelta(minutes=16))
    for route in (DEPLOYMENTS, "/webhooks/deployments"):
        answer = await client.post(route, json=a_report() | {"finished_at": at})
        assert (answer.status_code, "15 minutes" in answer.json()["detail"]) == (422, True)
    assert (await client.post(CHANGES, json={"id": "1", "service": "shop", "at": at})).status_code == 422


# — changes —


@pytest.mark.parametrize("name", ["push", "merge", "puppet", "build"])
async def test_a_change_event_without_an_environment_is_no_deployment(client: httpx.AsyncClient, name: str) -> None:
    case = fixture(f"pagerduty-events/change_{name}")
    answers = [await client.post("/v2/change/enqueue", json=case["body"]) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert await listed(client) == []
    [change] = await listed(client, CHANGES)
    assert change["deployment"] is False
    dora = (await client.get(DORA, params=DAY)).json()
    assert (dora["deployment_frequency"]["n"], dora["change_fail_rate"]["n"]) == (0, 0)
    assert (await client.get(f"/api/v1/services/{change['service']}")).status_code == 404


async def test_a_change_event_that_names_an_environment_or_a_deployment_is_one(client: httpx.AsyncClient) -> None:
    for details in ({"env": "prod", "id": "1"}, {"deployment_id": "2"}, {"stage": "canary", "id": "3"}):
        body = fixture("pagerduty-events/change_push")["body"]
        body["payload"]["custom_details"] = details
        assert (await client.post("/v2/change/enqueue", json=body)).status_code == 202
    assert await listed(client, CHANGES) == []
    assert len(await listed(client)) == 3


def a_sync(number: int, sha: str, finished: str, **fields: Any) -> dict[str, Any]:
    """As Argo CD sends it: each sync has an id of its own."""
    started = f"2026-08-20T{finished}:00Z"
    return {
        "id": f"argocd-5f4d-{number}",
        "service": "shop",
        "environment": "production",
        "sha": sha,
        "outcome": "Succeeded",
        "started_at": started,
        "finished_at": started,
    } | fields


async def test_syncs_of_an_unchanged_revision_are_changes(client: httpx.AsyncClient) -> None:
    syncs = [a_sync(number, "aaaaaaa", f"{number:02}:00") for number in range(1, 6)]
    syncs.append(a_sync(6, "bbbbbbb", "06:00"))
    syncs.append(a_sync(7, "aaaaaaa", "07:00"))  # back to what ran before: something new runs
    for sync in syncs:
        assert (await client.post("/webhooks/deployments", json=sync)).status_code == 200
    assert [item["id"][-1] for item in await listed(client)] == ["7", "6", "1"]
    kept = await listed(client, CHANGES)
    assert [(item["id"][-1], item["deployment"]) for item in kept] == [(f"{n}", True) for n in (5, 4, 3, 2)]
    assert (await client.get(f"{DEPLOYMENTS}/{kept[0]['key']}")).json()["unchanged"] is True
    dora = (await client.get(DORA, params=DAY)).json()
    assert (dora["deployment_frequency"]["n"], dora["change_fail_rate"]["n"], dora["unchanged"]["value"]) == (3, 3, 4)
    assert 'aftermath_deployments_total{outcome="succeeded",service="shop"} 3.0' in (await client.get("/metrics")).text


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"version": "1.0"}, True),
        ({"version": "v1.0", "sha": None}, True),
        ({"version": "1.1"}, False),  # another image of the same commit
        ({"environment": "staging"}, False),
        ({"service": "search"}, False),
        ({"sha": None, "version": None}, False),
    ],
    ids=str,
)
async def test_only_the_same_version_in_the_same_place_is_unchanged(
    client: httpx.AsyncClient, fields: dict[str, Any], expected: bool
) -> None:
    await client.post(DEPLOYMENTS, json=a_sync(1, "aaaaaaa", "01:00", version="1.0"))
    answer = await client.post(DEPLOYMENTS, json=a_sync(2, "aaaaaaa", "02:00") | fields)
    assert answer.json()["unchanged"] is expected


async def test_a_branch_name_alone_is_no_evidence_of_the_same_version(client: httpx.AsyncClient) -> None:
    for number, version in ((1, "main"), (2, "main"), (3, "latest"), (4, "latest")):
        sync = a_sync(number, "", f"{number:02}:00") | {"sha": None, "version": version}
        assert (await client.post(DEPLOYMENTS, json=sync)).json()["unchanged"] is False


async def test_what_is_running_does_not_depend_on_the_order_of_reports(client: httpx.AsyncClient) -> None:
    syncs = [a_sync(n, sha, f"{n:02}:00") for n, sha in enumerate(("aaaaaaa", "aaaaaaa", "bbbbbbb", "bbbbbbb"), 1)]
    for service, order in enumerate(permutations(syncs)):
        for sync in order:
            await client.post(DEPLOYMENTS, json=sync | {"service": f"s{service}"})
        deployed = await listed(client, service=f"s{service}")
        assert [item["id"][-1] for item in deployed] == ["3", "1"], [sync["id"][-1] for sync in order]
        exposed = (await client.get("/metrics")).text
        # What was counted before a late report showed that it changed nothing stays counted.
        sample = f'aftermath_deployments_total{{outcome="succeeded",service="s{service}"}} '
        assert float(exposed.split(sample)[1].split()[0]) >= 2


revisions = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELED])), max_size=8
)


@given(revisions)
def test_unchanged_follows_its_definition(history: Sequence[tuple[str, Outcome]]) -> None:
    """By brute force: what certainly runs after each deployment."""
    ordered = [a_finished(str(place), sha * 7, outcome) for place, (sha, outcome) in enumerate(history)]
    running, expected = None, set()
    for each in ordered:
        if each.outcome is Outcome.CANCELED:
            continue
        if each.sha == running:
            expected.add(each.id)
        else:
            running = each.sha if each.outcome is Outcome.SUCCEEDED else None
    assert unchanged(ordered) == expected


def a_finished(id_: str, sha: str, outcome: Outcome) -> Deployment:
    at = datetime(2026, 8, 20, 10, tzinfo=UTC)
    return deployment_of([(Report(id_, "shop", outcome, at, sha=sha, finished_at=at), at)], source="ci")


def test_identical_reports_never_contradict() -> None:
    at = datetime(2026, 8, 20, 10, tzinfo=UTC)
    report = Report("1", "shop", Outcome.FAILED, at, version="1", sha="a" * 40, finished_at=at, rolled_back="0")
    assert contradiction(report, [report]) is None


async def test_changes_are_reported_by_rest_and_listed(client: httpx.AsyncClient) -> None:
    change = {"id": "p-1", "service": "shop", "at": "2026-08-20T09:55:30Z", "summary": "flag on", "environment": "prod"}
    first = await client.post(CHANGES, json=change)
    again = await client.post(CHANGES, json=change)
    assert (first.status_code, again.status_code, first.json()) == (201, 200, again.json())
    assert (await client.post(CHANGES, json=change | {"summary": "flag off"})).status_code == 409
    for number in (2, 3):
        other = change | {"id": f"p-{number}", "at": f"2026-08-20T1{number}:00:00Z", "environment": "staging"}
        await client.post(CHANGES, json=other)
    page = (await client.get(CHANGES, params={"limit": "2"})).json()
    rest = (await client.get(CHANGES, params={"limit": "2", "cursor": page["next_cursor"]})).json()
    assert [item["id"] for item in page["items"] + rest["items"]] == ["p-3", "p-2", "p-1"]
    cases: list[tuple[dict[str, str | list[str]], list[str]]] = [
        ({"environment": "production"}, ["p-1"]),
        ({"service": "search"}, []),
        ({"service": ["search", "shop"], "environment": ["production", "stage"]}, ["p-3", "p-2", "p-1"]),
        ({"environment": ["unknown", "production"]}, ["p-1"]),
        ({"from": "2026-08-20T11:00:00Z", "to": "2026-08-20T13:00:00Z"}, ["p-2"]),
    ]
    for filters, expected in cases:
        assert [item["id"] for item in await listed(client, CHANGES, **filters)] == expected


# — rollbacks —


async def test_a_rollback_marks_the_other_as_failed_and_is_not_blamed(client: httpx.AsyncClient) -> None:
    """Bad at 9:55, rolled back at 9:59, and the alert, which needs a while, fires at 10:00."""
    bad = a_report(id="2", finished="09:55", version="2")
    rollback = a_report(id="3", finished="09:59", version="1", rolled_back="2")
    for number, order in enumerate(permutations((bad, rollback))):
        service = f"s{number}"
        keys = {}
        for each in order:
            keys[each["id"]] = (await client.post(DEPLOYMENTS, json=each | {"service": service})).json()["key"]
        alert = an_alert(ended="2026-08-20T10:30:00Z", service=service)
        [incident] = (await client.post("/webhooks/alertmanager", json=a_delivery(alert))).json()["incidents"]
        cause = (await client.get(f"/api/v1/incidents/{incident}/cause")).json()
        assert cause["deployment"]["key"] == keys["2"]
        assert cause["deployment"]["rolled_back_by"] == keys["3"]
        dora = (await client.get(DORA, params={**DAY, "service": service})).json()
        assert [(each["deployment"], each["marked"]) for each in dora["failures"]] == [(keys["2"], True)]
        assert (dora["change_fail_rate"]["k"], dora["change_fail_rate"]["n"]) == (1, 2)
        assert dora["rework_rate"]["unplanned_without_incident"] == 1


async def test_a_rollback_without_an_incident_fails_the_other_too(client: httpx.AsyncClient) -> None:
    await client.post(DEPLOYMENTS, json=a_report(id="2", version="2"))
    other = await client.post(DEPLOYMENTS, json=a_report(id="2", version="2", environment="staging"))
    await client.post(DEPLOYMENTS, json=a_report(id="3", finished="10:30", version="1", rolled_back="2"))
    dora = (await client.get(DORA, params=DAY)).json()
    assert [each["deployment"] for each in dora["failures"]] == ["people:checkout:production:2"]
    assert (await client.get(f"{DEPLOYMENTS}/{other.json()['key']}")).json()["rolled_back_by"] is None


async def test_a_rollback_by_another_source_or_key_and_a_canceled_one(client: httpx.AsyncClient) -> None:
    await client.put("/api/v1/sources/ci", json={"kind": "deployments"})
    for id_, version in (("2", "2"), ("4", "4")):
        await client.post(DEPLOYMENTS, json=a_report(id=id_, finished=f"0{id_}:00", version=version, source="ci"))
    await client.post(DEPLOYMENTS, json=a_report(id="3", finished="03:00", version="1", rolled_back="2"))
    key = "ci:checkout:production:4"
    again = a_report("canceled", id="5", finished="05:00", rolled_back=key)
    await client.post(DEPLOYMENTS, json=again)
    shown = {item["id"]: item["rolled_back_by"] for item in await listed(client, outcome="succeeded")}
    assert shown == {"2": "people:checkout:production:3", "3": None, "4": None}
    await client.post(DEPLOYMENTS, json=a_report(id="6", finished="06:00", rolled_back=key))
    assert (await client.get(f"{DEPLOYMENTS}/{key}")).json()["rolled_back_by"] == "people:checkout:production:6"
    itself = await client.post(DEPLOYMENTS, json=a_report(id="7", rolled_back="7"))
    assert itself.status_code == 422


# — confidence —


async def test_a_guess_stays_out_of_the_change_fail_rate_unless_asked_for(client: httpx.AsyncClient) -> None:
    """An incident 20 hours after a deployment."""
    await client.post(DEPLOYMENTS, json=a_report(finished="00:30"))
    alert = an_alert("2026-08-20T20:30:00Z", "2026-08-20T21:00:00Z", service="checkout")
    await client.post("/webhooks/alertmanager", json=a_delivery(alert))
    dora = (await client.get(DORA, params=DAY)).json()
    shares = dora["change_fail_rate"]["value"], dora["change_fail_rate_of_all_links"]["value"]
    assert shares == (0, 1)
    assert (dora["failures"], dora["unlinked"]["confidences"]) == ([], {"low": 1})
    assert (dora["filters"]["min_confidence"], dora["failed_deployment_recovery_time"]["n"]) == ("medium", 0)
    guessed = (await client.get(DORA, params={**DAY, "min_confidence": "low"})).json()
    assert (guessed["change_fail_rate"]["value"], guessed["failed_deployment_recovery_time"]["values"]) == (1, [1800])
    assert (await client.get(DORA, params={**DAY, "min_confidence": "sure"})).status_code == 422
    csv = (await client.get(DORA, params={**DAY, "format": "csv"})).text
    assert "change_fail_rate_of_all_links" in csv.splitlines()[0]


async def test_candidates_for_a_cause_are_offered_with_their_confidence(client: httpx.AsyncClient) -> None:
    for id_, finished, version in (("1", "07:00", "1"), ("2", "08:00", "2"), ("3", "09:55", "3")):
        await client.post(DEPLOYMENTS, json=a_report(id=id_, finished=finished, version=version))
    await client.post(DEPLOYMENTS, json=a_report(id="4", finished="09:58", version="2", rolled_back="3"))
    await client.post(DEPLOYMENTS, json=a_report(id="5", service="search"))
    for id_, service, at in (("a", "checkout", "09:00"), ("b", "search", "09:00"), ("c", "checkout", "10:01")):
        await client.post(CHANGES, json={"id": id_, "service": service, "at": f"2026-08-20T{at}:00Z"})
    alert = an_alert(ended="2026-08-20T10:30:00Z", service="checkout", version="1")
    [incident] = (await client.post("/webhooks/alertmanager", json=a_delivery(alert))).json()["incidents"]
    items = await listed(client, f"/api/v1/incidents/{incident}/candidates")
    assert [((each["deployment"] or each["change"])["id"], each["basis"], each["confidence"]) for each in items] == [
        ("1", "version", "high"),
        ("3", "recent", "low"),
        ("a", "recent", "low"),
        ("2", "recent", "low"),
    ]
    assert (await client.get("/api/v1/incidents/INC-99/candidates")).status_code == 404


# — GitLab —


async def test_projects_with_the_same_display_name_are_two_services(client: httpx.AsyncClient) -> None:
    for id_, path in ((1, "acme/checkout"), (2, "acme/eu/checkout"), (3, "beta/checkout")):
        body = fixture("gitlab/success")["body"] | {"deployment_id": id_}
        body["project"] = {"id": id_, "name": "Check out", "path_with_namespace": path}
        answer = await client.post("/webhooks/gitlab", content=json.dumps(body))
        assert answer.json()["verdict"] == "recorded"
    assert {item["service"] for item in await listed(client)} == {"acme/checkout", "acme/eu/checkout", "beta/checkout"}
    await client.post("/webhooks/gitlab", params={"service": "shop"}, json=body | {"deployment_id": 4})
    assert len(await listed(client, service="shop")) == 1


async def test_the_database_holds_one_row_per_identity(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    for _ in range(2):
        for route in (DEPLOYMENTS, "/webhooks/deployments"):
            await client.post(route, json=a_report())
    assert await find_one(engine, "SELECT count(*) FROM deployment") == 2, "of two sources"
