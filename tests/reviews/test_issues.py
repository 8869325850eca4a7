"""Action items follow their issues in GitHub, GitLab and Jira, whatever the order in which these report."""

import asyncio
import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.http.context import Context
from app.base.values.facts import IssueEvent, IssueState
from app.ingest.sender import Request
from app.ingest.senders import SENDERS
from app.reviews.action_item import normalized_link
from app.reviews.store import action_items, issues
from tests.conftest import client_of
from tests.ingest.test_senders import FIXTURES
from tests.reviews.test_action_items import change
from tests.reviews.test_reviews import ITEMS, new_item, new_review, send

LINK = "https://github.com/acme/web/issues/7"
START = datetime(2026, 8, 20, tzinfo=UTC)
CLOSED_AT = "2026-08-20T09:55:30Z"
OPEN, DONE, DROPPED = IssueState.OPEN, IssueState.DONE, IssueState.DROPPED


async def report(client: httpx.AsyncClient, kind: str, case: str, **headers: str) -> dict[str, Any]:
    sent = json.loads((FIXTURES / kind / f"{case}.json").read_text())
    answer = await client.post(f"/webhooks/{kind}", json=sent["body"], headers=sent["headers"] | headers)
    assert answer.status_code == 200, answer.text
    received: dict[str, Any] = answer.json()
    return received


async def shown(client: httpx.AsyncClient, item: str = "AI-1") -> dict[str, Any]:
    return await send(client, "GET", f"{ITEMS}/{item}")


@pytest.mark.parametrize(
    ("kind", "link", "cases", "times", "by"),
    [
        (
            "github",
            f"{LINK}?tab=comments#end",
            ("issue_closed", "issue_reopened"),
            ("2026-08-20T09:55:30Z", "2026-08-20T09:55:30Z", "2026-08-20T09:55:31Z"),
            "cathy",
        ),
        (
            "gitlab",
            "https://GitLab.example.org/acme/checkout/-/work_items/23/",
            ("issue_closed", "issue_reopened"),
            ("2026-08-20T09:55:30Z", "2026-08-20T09:55:30Z", "2026-08-20T09:55:31Z"),
            "cathy",
        ),
        (
            "jira",
            "https://acme.atlassian.net/browse/OPS-7",
            ("done", "back_to_do"),
            ("2026-08-20T09:55:30.100000Z", "2026-08-20T09:55:30.123000Z", "2026-08-20T09:55:31.123000Z"),
            "Cathy Smith",
        ),
    ],
    ids=lambda one: one if isinstance(one, str) and one.isalpha() else "",
)
async def test_an_action_item_is_done_and_reopened_with_its_issue(
    client: httpx.AsyncClient, kind: str, link: str, cases: tuple[str, str], times: tuple[str, str, str], by: str
) -> None:
    """`times`: since when it is done, when that was reported, and when it was reopened."""
    since, closed_at, reopened_at = times
    await new_review(client)
    assert (await new_item(client, link=link, priority=1))["issue"] is None
    received = await report(client, kind, cases[0])
    assert (received["verdict"], received["action_item"], received["deployment"]) == ("recorded", "AI-1", None)
    done = await shown(client)
    assert done["issue"] == {"state": "done", "at": closed_at, "by": by}
    assert (done["state"], done["closed_at"], done["reopened"]) == ("done", since, 0)
    assert (await report(client, kind, cases[0]))["verdict"] == "repeated"
    await report(client, kind, cases[1])
    again = await shown(client)
    assert again["issue"] == {"state": "open", "at": reopened_at, "by": by}
    assert (again["state"], again["closed_at"], again["reopened"]) == ("open", None, 1)
    listed = (await client.get(ITEMS)).json()["items"]
    assert [one["issue"] for one in listed] == [again["issue"]]
    metrics = (await client.get("/metrics")).text
    assert 'aftermath_issue_events_total{verdict="recorded"} 2.0' in metrics
    assert 'aftermath_issue_events_total{verdict="repeated"} 1.0' in metrics
    assert 'aftermath_action_items_completed_total{phase="detection",priority="1"} 1.0' in metrics


async def test_an_issue_that_will_not_be_done_drops_its_action_item(client: httpx.AsyncClient) -> None:
    await new_review(client)
    await new_item(client, link=LINK)
    await report(client, "github", "issue_closed_as_not_planned")
    dropped = await shown(client)
    assert (dropped["state"], dropped["dropped_because"]) == ("dropped", "closed as not planned")
    assert (await change(client, state="in_progress"))["issue"]["state"] == "dropped"


async def test_a_person_is_not_contradicted_by_what_happened_before(client: httpx.AsyncClient) -> None:
    await new_review(client)
    await new_item(client, link=LINK)
    await change(client, state="in_progress")
    await report(client, "github", "issue_closed")  # months ago
    item = await shown(client)
    assert (item["state"], item["issue"]["state"]) == ("in_progress", "done")
    assert (await change(client, link=None))["issue"] is None
    assert (await change(client, link=LINK))["state"] == "in_progress"


async def test_a_tracker_that_agrees_changes_nothing_that_a_person_stated(client: httpx.AsyncClient) -> None:
    await new_review(client)
    await new_item(client, link=LINK)
    await change(client, state="done", closed_at="2026-08-19T10:00:00Z", effective="yes")
    words = (FIXTURES / "github" / "issue_closed.json").read_text().replace("2026-08-20T", "2199-08-20T")
    for _ in range(2):  # the future counts as now, which is after the statement
        sent = json.loads(words)
        answer = await client.post("/webhooks/github", json=sent["body"], headers=sent["headers"])
        assert answer.json()["verdict"] == "recorded"
    item = await shown(client)
    assert (item["state"], item["closed_at"], item["effective"]) == ("done", "2026-08-19T10:00:00Z", "yes")
    assert (await change(client, state="open"))["reopened"] == 1


def test_another_status_of_the_same_category_is_no_new_state_in_jira() -> None:
    sent = json.loads((FIXTURES / "jira" / "done.json").read_text())
    body = sent["body"] | {"timestamp": 1787306130123}  # a day later
    body["changelog"]["items"] = [{"field": "status", "fromString": "Done", "toString": "Released"}]
    request = Request(json.dumps(body).encode(), START + timedelta(days=2), "jira")
    [issue] = SENDERS["jira"].read(request).issues
    assert issue.at == issue.since == datetime(2026, 8, 20, 9, 55, 30, 100_000, tzinfo=UTC)


async def test_creating_an_issue_leaves_its_action_item_alone(client: httpx.AsyncClient) -> None:
    await new_review(client)
    await new_item(client, link=LINK)
    await change(client, state="done")
    await report(client, "github", "issue_opened")
    item = await shown(client)
    assert (item["state"], item["issue"]["state"]) == ("done", "open")


async def test_an_issue_waits_seven_days_for_its_action_item(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    received = await report(client, "github", "issue_closed")
    assert (received["verdict"], received["action_item"]) == ("waiting", None)
    await report(client, "gitlab", "issue_closed")
    await new_review(client)
    await new_item(client)
    assert (await change(client, link=LINK))["state"] == "done"
    made = await new_item(client, link="https://gitlab.example.org/acme/checkout/-/issues/23")
    assert (made["state"], made["closed_at"], made["age_seconds"]) == ("done", CLOSED_AT, 0)
    await report(client, "gitlab", "task_closed")
    for now, left in ((datetime.now(UTC) + issues.KEPT - timedelta(hours=1), 3), (datetime.now(UTC) + issues.KEPT, 2)):
        async with db.transaction(engine) as tx:
            await issues.drop_waiting(tx, now=now)
            assert (await tx.execute(text("SELECT count(*) FROM issue"))).scalar_one() == left


async def test_an_issue_and_its_link_at_the_same_time_find_each_other(client: httpx.AsyncClient) -> None:
    await new_review(client)
    for number in range(1, 9):
        await new_item(client)
        body = {"action": "closed", "issue": {"html_url": f"{LINK}{number}", "closed_at": CLOSED_AT}}
        event = client.post("/webhooks/github", json=body, headers={"X-GitHub-Event": "issues"})
        item = f"AI-{number}"
        pair = (event, change(client, item, link=f"{LINK}{number}"))
        await asyncio.gather(*(pair if number % 2 else reversed(pair)))
        assert (await shown(client, item))["state"] == "done"


async def test_an_event_that_could_not_be_stored_is_replayed(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await new_review(client)
    await new_item(client, link=LINK)
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TABLE issue ADD CONSTRAINT poison CHECK (by <> 'cathy')"))
    assert (await report(client, "github", "issue_closed"))["verdict"] == "quarantined"
    assert (await shown(client))["state"] == "open"
    async with engine.begin() as tx:
        await tx.execute(text("ALTER TABLE issue DROP CONSTRAINT poison"))
    replayed = await client.post("/api/v1/quarantine/1/replay")
    assert (replayed.status_code, replayed.json()["verdicts"]) == (200, {"recorded": 1})
    assert (await shown(client))["state"] == "done"


# — any order —

events = st.builds(
    lambda minute, state, created, by: IssueEvent(
        LINK,
        state,
        START + timedelta(minutes=minute),
        by=by,
        reason="closed as a duplicate" if state is DROPPED else None,
        created=created,
    ),
    st.integers(0, 3),
    st.sampled_from(IssueState),
    st.booleans(),
    st.sampled_from([None, "ada", "ben"]),
)


async def state_after(engine: AsyncEngine, given_: Sequence[IssueEvent], *, linked_after: int) -> tuple[Any, ...]:
    """The state of a new action item and its issue. It gets its link after so many events."""
    now = START + timedelta(days=1)
    async with db.session(engine) as session:
        tx = await session.connection()
        await tx.execute(text("TRUNCATE action_item, issue, review CASCADE"))
        values = {"title": "t", "phase": "response", "term": "short"}
        review = text("""
            INSERT INTO review (id, title, state, required_because, summary, customer_impact, resolution, version,
                                created_at, updated_at)
            VALUES (gen_random_uuid(), 't', 'draft', '{}', '', '', '', 1, now(), now())
            RETURNING number
        """)
        number = (await tx.execute(review)).scalar_one()
        made = await action_items.create(session, values, review=number, incident=None, now=now)
        for index, one in enumerate([*given_, None]):
            if index == linked_after:
                await action_items.amend(session, made.row.id, {"link": LINK}, closed_at=None, if_match=None, now=now)
            if one is not None:
                await session.flush()
                await issues.handle_issue(tx, one, now=now)
        found = await tx.execute(_STATE)
        return tuple(found.one())


_STATE = text("""
    SELECT item.state, item.closed_at, item.state_at, item.dropped_because,
           issue.state, issue.at, issue.by, issue.reason, issue.created
      FROM action_item AS item
      JOIN issue ON issue.link = item.link
""")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(events, min_size=1, max_size=4), st.data())
async def test_any_order_of_events_and_of_the_link_gives_the_same_state(
    engine: AsyncEngine, given_: list[IssueEvent], data: st.DataObject
) -> None:
    repeated = data.draw(st.permutations([*given_, *given_[:1]]))
    expected = await state_after(engine, given_, linked_after=0)
    assert await state_after(engine, repeated, linked_after=data.draw(st.integers(0, len(repeated)))) == expected
    changes = [one for one in given_ if not one.created]
    if not changes:
        assert expected[0] == "open"
    elif len({one.at for one in changes}) == len(changes):
        assert expected[0] == max(changes, key=lambda one: one.at).state


async def test_a_late_event_changes_nothing(engine: AsyncEngine) -> None:
    """Closed, reopened and closed again, in each order."""
    three = [
        IssueEvent(LINK, state, START + timedelta(minutes=minute)) for minute, state in enumerate((DONE, OPEN, DONE))
    ]
    for order in permutations(three):
        assert (await state_after(engine, order, linked_after=1))[:2] == ("done", three[2].at)


# — the same link —


@pytest.mark.parametrize(
    ("link", "same"),
    [
        ("https://GitHub.com/acme/web/issues/7/", True),
        ("https://github.com/acme/web/issues/7?notification=1#issuecomment-2", True),
        ("https://github.com/acme/web/issues/70", False),
        ("http://github.com/acme/web/issues/7", False),
        ("https://github.com/acme/Web/issues/7", False),
    ],
)
def test_a_link_is_the_same_without_query_and_slash(link: str, same: bool) -> None:
    assert (normalized_link(link) == LINK) is same


# — signatures —


@pytest.mark.parametrize(("kind", "header"), [("github", "X-Hub-Signature-256"), ("jira", "X-Hub-Signature")])
async def test_a_tracker_must_sign_if_its_source_has_a_secret(
    client: httpx.AsyncClient, context: Context, kind: str, header: str
) -> None:
    secret = "It's a Secret to Everybody"
    await client.put(f"/api/v1/sources/{kind}", json={"kind": kind, "hmac_secret": secret})
    context.credentials.forget_source(kind)
    body = json.dumps(dict(SENDERS[kind].example)).encode()
    signature = "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()
    async with client_of(context) as sender:
        for wrong in ({}, {header: signature.removeprefix("sha256=")}, {header: signature[:-1] + "x"}):
            assert (await sender.post(f"/webhooks/{kind}", content=body, headers=wrong)).status_code == 401
        assert (await sender.post(f"/webhooks/{kind}", content=body, headers={header: signature})).status_code == 200


def test_the_signature_of_the_documentation_is_genuine() -> None:
    """https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries; Jira documents the same."""
    secret, body = "It's a Secret to Everybody", b"Hello, World!"
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    for kind, header in (("github", "x-hub-signature-256"), ("jira", "x-hub-signature")):
        sender = SENDERS[kind]
        assert sender.verify is not None
        request = Request(body, START, kind, {header: signature})
        assert sender.verify(request, secret=secret, now=START)
        assert not sender.verify(request, secret="another", now=START)
        assert not sender.verify(Request(body, START, kind, {}), secret=secret, now=START)
