"""The list of incidents, the page of one with its forms, and declaring one, without a browser."""

import html
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import text
from sqlmodel import select

from app.base import db
from app.base.access.tokens import Scope
from app.base.http.context import Context
from app.base.schema import Alert, Source
from app.base.values.facts import Reaction, ReactionKind
from app.incidents.history.reactions import record_reactions
from app.pages import words
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.pages.conftest import SignedInAs
from tests.statements import counted

NOW = datetime.now(UTC).replace(second=30, microsecond=0) - timedelta(minutes=2)
HOSTILE = "<script>alert(1)</script><b x='\"'> \u202eexe.png\u202c\u2066 {{ 7*7 }} " + "W" * 1500


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def entered(at: datetime) -> str:
    """As a browser sends a time; the tests read in UTC."""
    return f"{at:%Y-%m-%dT%H:%M}"


def whole(at: datetime) -> str:
    """A time that was entered, as REST shows it."""
    return iso(at.replace(second=0))


def firing(begun: float, **labels: str) -> dict[str, Any]:
    return an_alert(iso(ago(begun)), **labels)


def ended(begun: float, over: float, **labels: str) -> dict[str, Any]:
    return an_alert(iso(ago(begun)), iso(ago(over)), **labels)


async def deliver(client: httpx.AsyncClient, *alerts: dict[str, Any]) -> None:
    answer = await client.post("/webhooks/alertmanager", json=a_delivery(*alerts))
    assert answer.status_code == 200, answer.text


async def rest(client: httpx.AsyncClient, path: str = "/INC-1") -> Any:
    answer = await client.get(f"/api/v1/incidents{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def act(client: httpx.AsyncClient, action: str, number: int = 1, **body: Any) -> None:
    answer = await client.post(f"/api/v1/incidents/INC-{number}/{action}", json=body)
    assert answer.status_code < 300, answer.text


async def timeline(client: httpx.AsyncClient, kind: str, number: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await rest(client, f"/INC-{number}/timeline"))["items"]
    return [entry for entry in found if entry["kind"] == kind]


async def seen(browser: httpx.AsyncClient, address: str = "/incidents/INC-1", status: int = 200) -> str:
    answer = await browser.get(address)
    assert answer.status_code == status, answer.text
    return answer.text


async def send(
    browser: httpx.AsyncClient, action: str, fields: dict[str, str], *, status: int = 303, number: int = 1
) -> httpx.Response:
    # Also a form without fields has a type.
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = await browser.post(f"/incidents/INC-{number}/{action}", content=urlencode(fields), headers=form)
    assert answer.status_code == status, text_of(answer.text)
    return answer


def text_of(page: str) -> str:
    """What a page says, with single spaces."""
    main = page[page.index("<main") : page.index("</main>")] if "<main" in page else page
    without_tags = html.unescape(re.sub(r"<[^>]+>", " ", main))
    return re.sub(r"[\s\u00a0\u202f]+", " ", without_tags)


def plain(shown: str) -> str:
    """A duration or an amount without its narrow spaces."""
    return re.sub(r"[\u00a0\u202f]", " ", shown)


def field(page: str, name: str) -> str:
    """The value of the first field of this name."""
    found = re.search(rf'name="{name}"[^>]*? value="([^"]*)"', page)
    assert found is not None, name
    return html.unescape(found[1])


async def fresh(browser: httpx.AsyncClient, name: str = "version") -> str:
    return field(await seen(browser), name)


# — one incident —


async def test_every_number_equals_that_of_rest(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await client.put("/api/v1/services/checkout", json={})
    await client.put(
        "/api/v1/services/checkout/rates",
        json=[{"currency": "EUR", "low": "6000", "expected": "14000.5", "high": "30000"}],
    )
    # Two incidents of the service overlap, because the second is declared, and share the cost.
    await deliver(client, ended(90, 30, severity="warning"), ended(70, 50, instance="b"))
    declared = {"title": "Payments fail", "service": "checkout", "severity": "sev2", "detected_at": iso(ago(45))}
    assert (await client.post("/api/v1/incidents", json=declared)).status_code == 201
    await act(client, "resolve", 2, at=iso(ago(20)))
    await client.patch("/api/v1/incidents/INC-1", json={"impact_started_at": iso(ago(95))})
    await act(client, "acknowledge", at=iso(ago(80)), by="linus")
    await act(client, "milestones", milestone="mitigated", at=iso(ago(40)))
    for number in (1, 2):
        shown = await rest(client, f"/INC-{number}")
        text = text_of(await seen(signed_in, f"/incidents/INC-{number}"))
        for measure in ("time_to_detect", "time_to_acknowledge", "time_to_mitigate", "time_to_recover"):
            label = measure.replace("_", " ").capitalize()
            value = shown["measures"][measure]
            if value["seconds"] is not None:
                assert f"{label} {plain(words.duration(value['seconds']))}" in text
            elif measure != "time_to_mitigate":
                assert value["reason"] in text
        assert f"Downtime {plain(words.duration(shown['downtime_seconds']))}" in text
        low, expected, high = (words.money(Decimal(shown["cost"]["EUR"][key])) for key in ("low", "expected", "high"))
        assert f"Cost EUR {expected} {low} to {high}" in text
        row = text_of(await seen(signed_in, "/incidents")).partition(f"INC-{number}")[2]
        assert f"EUR {expected}" in row.partition("INC-")[0]


async def test_the_course_is_the_path_of_rest_and_equals_its_table(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, ended(60, 10), ended(50, 40, instance="b"))
    await act(client, "acknowledge", at=iso(ago(58)))
    effects = ("none", "negative", "unknown", "positive", "positive", "positive")
    for minutes, effect in zip((55, 50, 45, 40, 30, 20), effects, strict=True):
        await act(client, "tasks", text=f"tried {minutes}", effect=effect, at=iso(ago(minutes)))
    path = await rest(client, "/INC-1/path")
    page = await seen(signed_in)
    figure = page.partition("<figure")[2].partition("</figure>")[0]
    drawn = re.search(r'class="path" d="M\S+ ([\d.]+)([^"]+)"', figure)
    assert drawn is not None
    heights = [float(drawn[1]), *map(float, re.findall(r"V([\d.]+)", drawn[2]))]
    levels = [point["level"] for point in path["path"]]
    assert [round((heights[0] - height) / 24) for height in heights] == levels  # shifted by a constant
    assert figure.count('class="task is-') == len(path["tasks"]) == 6
    assert figure.count('class="drop"') == 2  # the mark of recovery is drawn apart from the path
    rows = re.findall(r'<td class="time">([^<]+)</td><td><bdi>([^<]+)</bdi></td><td class="num">([^<]*)</td>', figure)
    tasks = [(what, int(level.replace("\u2212", "-"))) for _, what, level in rows if level]
    assert [level for _, level in tasks] == [task["level"] for task in path["tasks"]]
    assert all(f"tried {minutes}" in what for minutes, (what, _) in zip((55, 50, 45, 40, 30, 20), tasks, strict=True))
    for name, mark in (("detected", "detected_at"), ("acknowledged", "acknowledged_at"), ("recovered", "resolved_at")):
        clock = datetime.fromisoformat(path["marks"][mark]).strftime("%H:%M")
        assert any(what == name and at.endswith(clock) for at, what, _ in rows)
        assert re.search(rf">{name} [^<]*{clock}</text>", figure)
    assert sum("fires" in what for _, what, _ in rows) == figure.count('class="alert severe"') == 2


async def test_an_open_incident_says_more_than(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(60))
    text = text_of(await seen(signed_in))
    assert re.search(r"Time to recover more than [1-9] h (\d+ m )?", text)
    assert "Time to acknowledge more than" in text
    assert "No task is recorded" in text


async def test_a_scope_that_only_reads_sees_no_form_and_can_send_none(
    client: httpx.AsyncClient, signed_in_as: SignedInAs
) -> None:
    await deliver(client, firing(60))
    reader = await signed_in_as(Scope.READ)
    main = (await seen(reader)).partition("<main")[2].partition("</main>")[0]
    assert "<form" not in main
    assert "Declare an incident" not in await seen(reader, "/incidents")
    await seen(reader, "/incidents/new", 403)
    await send(reader, "acknowledge", {}, status=403)
    assert (await reader.post("/incidents", data={"title": "x", "service": "y"})).status_code == 403
    assert (await rest(client))["status"] == "open"


async def test_a_form_from_another_site_is_refused(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(60))
    answer = await signed_in.post("/incidents/INC-1/acknowledge", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    assert (await rest(client))["status"] == "open"


@pytest.mark.parametrize("address", ["/incidents/INC-9", "/incidents/INC-0", "/incidents/7", "/incidents/x/y"])
async def test_what_does_not_exist_is_a_page(signed_in: httpx.AsyncClient, address: str) -> None:
    answer = await signed_in.get(address)
    assert answer.status_code in {404, 422}
    assert "<title>" in answer.text


async def test_a_merged_incident_leads_to_the_one_it_is_in(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, ended(90, 80), ended(60, 50, instance="b"))
    await deliver(client, ended(82, 58, instance="c"))
    answer = await signed_in.get("/incidents/INC-2")
    assert (answer.status_code, answer.headers["location"]) == (303, "/incidents/INC-1?merged=2")
    assert "INC-2 was merged into this incident." in text_of(await seen(signed_in, answer.headers["location"]))
    refused = await send(signed_in, "resolve", {"note": "it is over"}, status=409, number=2)
    assert "INC-2 was merged into INC-1" in text_of(refused.text)
    assert 'value="it is over"' in refused.text


# — actions —


async def test_acknowledge_resolve_and_reopen(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(60))
    answer = await send(signed_in, "acknowledge", {})
    assert answer.headers["location"] == "/incidents/INC-1"
    shown = await rest(client)
    assert (shown["status"], shown["acknowledged_by"], shown["acknowledged_via"]) == ("acknowledged", "ada", "page")
    assert "by ada , via this page" in text_of(await seen(signed_in))
    await send(signed_in, "resolve", {"at": entered(ago(10)), "note": "Rolled back"})
    shown = await rest(client)
    assert (shown["status"], shown["resolved_at"]) == ("resolved", whole(ago(10)))
    [entry] = await timeline(client, "resolved")
    assert (entry["by"], entry["note"]) == ("ada", "Rolled back")
    await send(signed_in, "reopen", {"note": "It is back"})
    assert (await rest(client))["status"] == "acknowledged"
    [entry] = await timeline(client, "reopened")
    assert (entry["by"], entry["note"]) == ("ada", "It is back")


async def test_the_page_shows_in_which_tool_it_was_acknowledged(
    client: httpx.AsyncClient, context: Context, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, firing(60))
    async with db.session(context.engine) as session:
        [fingerprint] = (await session.exec(select(Alert.fingerprint))).all()
        [source] = (await session.exec(select(Source.id).where(Source.name == "alertmanager"))).all()
        reported = [
            Reaction(ReactionKind.ACKNOWLEDGED, ago(50), fingerprint, by="<i>eve", at_arrival=True),
            Reaction(ReactionKind.UNACKNOWLEDGED, ago(40), fingerprint),
            Reaction(ReactionKind.CLOSED, ago(30), fingerprint, by="bob", note="no idea"),
        ]
        await record_reactions(await session.connection(), reported, source_id=source, now=ago(1))
    shown = await rest(client)
    assert (shown["acknowledged_by"], shown["acknowledged_via"]) == ("<i>eve", "alertmanager")
    page = text_of(await seen(signed_in))
    assert "by <i>eve , via Alertmanager (source alertmanager)" in page
    assert "Acknowledged <i>eve via alertmanager , when it arrived" in page
    assert "Acknowledgement taken back via alertmanager" in page
    assert "Closed in another tool no idea bob via alertmanager" in page


async def test_the_minute_of_detection_is_detection(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    """Forms have no seconds."""
    await deliver(client, ended(60, 30))
    await send(signed_in, "acknowledge", {"at": entered(ago(60))})
    assert (await rest(client))["acknowledged_at"] == iso(ago(60))


async def test_milestones(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(60))
    await send(signed_in, "milestones", {"milestone": "identified", "at": entered(ago(40)), "note": "the pool"})
    await send(signed_in, "milestones", {"milestone": "mitigated", "at": entered(ago(30))})
    shown = await rest(client)
    assert (shown["identified_at"], shown["mitigated_at"]) == (whole(ago(40)), whole(ago(30)))
    assert "Mitigated (impact reduced)" in text_of(await seen(signed_in))
    await send(signed_in, "milestones", {"milestone": "acknowledged"}, status=422)


async def test_impact(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(60))
    fields = {"impact_started_at": entered(ago(70)), "impact": "0.25", "harmed_throughout": "yes"}
    await send(signed_in, "impact", {**fields, "version": await fresh(signed_in)})
    shown = await rest(client)
    found = shown["impact_started_at"], shown["impact"], shown["harmed_throughout"]
    assert (found[0], float(found[1]), found[2]) == (whole(ago(70)), 0.25, True)
    await send(signed_in, "impact", {"version": await fresh(signed_in)})
    shown = await rest(client)
    assert (shown["impact_started_at"], shown["impact"], shown["harmed_throughout"]) == (None, None, False)


async def test_severity_title_service_and_detection(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(60))
    page = await seen(signed_in)
    unchanged = {
        "version": field(page, "version"),
        "title": "HighLatency: slow",
        "service": "checkout",
        "severity": "sev1",
        "detected_at": entered(ago(60)),
    }
    await send(signed_in, "facts", unchanged)
    assert await timeline(client, "changed") == []  # what still has the value that was shown is no correction
    changed = {"severity": "sev2", "title": "Checkout is slow", "service": "shop", "detected_at": entered(ago(50))}
    await send(signed_in, "facts", unchanged | changed)
    shown = await rest(client)
    assert (shown["severity"], shown["title"], shown["service"]) == ("sev2", "Checkout is slow", "shop")
    assert shown["detected_at"] == whole(ago(50))
    text = text_of(await seen(signed_in))
    assert "severity sev2" in text
    assert "title “Checkout is slow”" in text
    empty = {"severity": "", "title": "", "service": "", "detected_at": "", "version": await fresh(signed_in)}
    await send(signed_in, "facts", empty)
    shown = await rest(client)
    assert (shown["severity"], shown["title"], shown["service"]) == ("sev1", "HighLatency: slow", "checkout")
    assert shown["detected_at"] == iso(ago(60))


async def test_cause(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    for number, minutes in ((1, 400), (2, 80)):
        report = {
            "id": f"d{number}",
            "service": "checkout",
            "version": f"1.4{number}",
            "finished_at": iso(ago(minutes)),
            "outcome": "succeeded",
        }
        assert (await client.post("/api/v1/deployments", json=report)).status_code == 201
    await deliver(client, firing(60))
    page = await seen(signed_in)
    assert "Cause 1.42 the last deployment before it, a guess" in text_of(page)
    assert "1.42 deployed" in page
    assert re.findall(r"<title>(1\.4\d deployed)", page) == ["1.42 deployed"]  # the other one is not on the axis
    first, second = re.findall(r'name="deployment_id" value="([^"]+:d\d)"', page)
    assert (first[-2:], second[-2:]) == ("d2", "d1")
    await send(signed_in, "cause", {"deployment_id": second, "note": "slow leak"})
    cause = (await client.get("/api/v1/incidents/INC-1/cause")).json()
    assert (cause["deployment"]["id"], cause["basis"], cause["by"]) == ("d1", "stated", "ada")
    assert "deployed 5 h" not in text_of(page)
    assert "1.41 was deployed 5 h 40 m before the left end" in text_of(await seen(signed_in))
    await send(signed_in, "cause", {"deployment_id": "none"})
    cause = (await client.get("/api/v1/incidents/INC-1/cause")).json()
    assert (cause["deployment"], cause["basis"]) == (None, "stated")
    assert "Cause no deployment stated by a person" in text_of(await seen(signed_in))
    refused = await send(signed_in, "cause", {"deployment_id": "other", "other": "nosuch"}, status=404)
    assert 'value="nosuch"' in refused.text
    await send(signed_in, "cause", {}, status=422)


async def test_related_incidents(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(60), firing(50, service="payments"))
    await send(signed_in, "related", {"other": "inc-2"})
    assert (await rest(client))["related"] == ["INC-2"]
    assert 'href="/incidents/INC-1"' in await seen(signed_in, "/incidents/INC-2")
    await send(signed_in, "related", {"other": "INC-1"}, status=422)
    await send(signed_in, "related", {"other": "seven"}, status=422)
    await send(signed_in, "related/INC-2/remove", {})
    assert (await rest(client))["related"] == []


# — the timeline —


async def test_notes_and_tasks_are_added_once(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(60))
    key = await fresh(signed_in, "key")
    note = {"note": "Looked at\r\nthe logs", "effect": "", "at": "", "key": key}
    for _ in range(2):
        answer = await send(signed_in, "timeline", note)
        assert answer.headers["location"] == "/incidents/INC-1#timeline"
    [entry] = await timeline(client, "note")
    assert (entry["note"], entry["by"]) == ("Looked at\nthe logs", "ada")
    task = {"note": "Restarted", "effect": "negative", "at": entered(ago(20)), "key": await fresh(signed_in, "key")}
    for _ in range(2):
        await send(signed_in, "timeline", task)
    [entry] = await timeline(client, "task")
    assert (entry["note"], entry["at"], entry["detail"]["effect"]) == ("Restarted", whole(ago(20)), "negative")
    await send(signed_in, "timeline", {"note": "no key"}, status=422)
    refused = await send(signed_in, "timeline", task | {"note": "", "key": "k"}, status=422)
    assert 'name="key" value="k"' in refused.text


async def test_a_task_has_an_end_a_stage_and_a_link(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(60))
    more = {"ended_at": entered(ago(10)), "stage": "triage", "link": "https://wiki.example.org/x"}
    note = {"note": "Restarted", "at": entered(ago(20)), "key": "k1"}
    await send(signed_in, "timeline", {**note, **more, "effect": ""}, status=422)
    await send(signed_in, "timeline", {**note, **more, "effect": "positive"})
    [task] = await timeline(client, "task")
    assert task["detail"] == {
        "effect": "positive",
        "ended_at": whole(ago(10)),
        "stage": "triage",
        "link": "https://wiki.example.org/x",
        "command": None,
        "playbook": None,
    }
    page = await seen(signed_in, f"/incidents/INC-1?entry={task['id']}")
    assert '<a href="https://wiki.example.org/x" rel="noopener noreferrer nofollow">' in page
    page = page.partition('class="correction"')[2]
    shown = {name: field(page, name) for name in ("shown_at", "shown_ended_at", "link", "version")}
    assert (shown["shown_ended_at"], shown["link"]) == (more["ended_at"], more["link"])
    same = {**shown, "at": shown["shown_at"], "ended_at": shown["shown_ended_at"], "note": "Restarted"}
    await send(signed_in, f"timeline/{task['id']}/correct", {**same, "stage": "identification", "effect": "positive"})
    corrected = (await timeline(client, "task"))[-1]
    assert corrected["detail"] == {**task["detail"], "stage": "identification"}


async def test_entries_are_corrected_and_withdrawn(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(60))
    await act(client, "acknowledge", at=iso(ago(50)), by="linus")
    restarted: dict[str, Any] = {"text": "Restarted", "effect": "positive", "at": iso(ago(40)), "by": "linus"}
    await act(client, "tasks", **restarted, command="kill 4711")
    assert "<code>kill 4711</code>" in await seen(signed_in)
    [acknowledged], [task] = await timeline(client, "acknowledged"), await timeline(client, "task")
    page = await seen(signed_in, f"/incidents/INC-1?entry={acknowledged['id']}")
    page = page.partition('class="correction"')[2]
    assert (field(page, "at"), field(page, "author")) == (entered(ago(50)), "linus")
    at = entered(ago(55))
    fields = {"at": at, "shown_at": entered(ago(50)), "note": "", "author": "grace", "why": "wrong clock"}
    action = f"timeline/{acknowledged['id']}/correct"
    answer = await send(signed_in, action, {**fields, "version": field(page, "version")})
    assert answer.headers["location"].endswith(f"#entry-{acknowledged['id']}")
    shown = await rest(client)
    assert (shown["acknowledged_at"], shown["acknowledged_by"]) == (whole(ago(55)), "grace")
    text = text_of(await seen(signed_in))
    assert f"was {ago(50):%H:%M} linus ( wrong clock )" in text
    fields = {"at": entered(ago(40)), "shown_at": entered(ago(40)), "note": "Restarted all", "effect": "negative"}
    await send(signed_in, f"timeline/{task['id']}/correct", {**fields, "version": await fresh(signed_in)})
    task = (await timeline(client, "task"))[-1]
    assert (task["note"], task["detail"]["effect"], task["at"]) == ("Restarted all", "negative", iso(ago(40)))
    assert task["detail"]["command"] == "kill 4711", "what the form does not have stays"
    withdrawal = {"why": "wrong incident", "version": await fresh(signed_in)}
    await send(signed_in, f"timeline/{acknowledged['id']}/withdraw", withdrawal)
    assert (await rest(client))["status"] == "open"
    assert "by ada : wrong incident" in text_of(await seen(signed_in))


# — refusals —


async def test_a_refused_form_comes_back_with_the_reason_and_what_was_entered(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, firing(60))
    refused = await send(signed_in, "resolve", {"at": entered(ago(90)), "note": "early"}, status=409)
    assert 'role="alert"' in refused.text
    text = text_of(refused.text)
    # In the zone of the reader, not as REST writes it.
    assert f"{ago(60):%H:%M:%S}; resolve the incident at or after that time." in text
    assert "+00:00" not in text
    opened = refused.text.partition('action="/incidents/INC-1/resolve"')
    assert opened[0].rstrip().endswith('<details class="edit" open><summary>Resolve</summary>\n<form method="post"')
    assert (field(opened[2], "at"), field(opened[2], "note")) == (entered(ago(90)), "early")
    await send(signed_in, "resolve", {"at": "yesterday"}, status=422)
    await send(signed_in, "resolve", {"note": "x" * 10_001}, status=422)
    await send(signed_in, "resolve", {"at": "2199-01-01T00:00"}, status=422)
    assert (await rest(client))["status"] == "open"


async def test_a_form_made_from_an_older_version_is_refused_and_can_then_be_sent(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, firing(60))
    version = await fresh(signed_in)
    await client.patch("/api/v1/incidents/INC-1", json={"severity": "sev3"})
    fields = {"title": "Mine", "severity": "sev2", "service": "checkout", "detected_at": entered(ago(60))}
    refused = await send(signed_in, "facts", {**fields, "version": version}, status=412)
    assert "Someone changed this incident in the meantime" in text_of(refused.text)
    assert field(refused.text, "title") == "Mine"
    await send(signed_in, "facts", {**fields, "version": field(refused.text, "version")})
    shown = await rest(client)
    assert (shown["title"], shown["severity"]) == ("Mine", "sev2")
    await send(signed_in, "facts", fields, status=422)


# — hostile and large —


async def test_a_silence_is_shown_as_text_and_not_as_an_acknowledgement(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, context: Context
) -> None:
    await deliver(client, firing(60))
    async with context.engine.begin() as tx:
        await tx.execute(
            text(
                """
                INSERT INTO silence (source_id, id, key_id, by, comment, matchers, starts_at, ends_at, first_seen_at,
                                     last_seen_at)
                SELECT source_ids[1], 'one', key_id, 'ada', :comment, 'service="checkout"', began_at,
                       began_at + interval '2 hours', began_at, began_at
                  FROM incident
                """
            ),
            {"comment": HOSTILE},
        )
    page = await seen(signed_in)
    assert "Silences" in text_of(page)
    assert "A silence is not an acknowledgement" in text_of(page)
    assert 'service="checkout"' in text_of(page)
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert (await rest(client))["acknowledged_at"] is None


async def test_payloads_stay_text(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    alert = firing(60, **{"alertname": HOSTILE, "evil<b>": HOSTILE})
    alert["annotations"] = {"summary": HOSTILE, "runbook": "javascript:alert(1)", "wiki": "https://wiki.example.org/x"}
    alert["generatorURL"] = "javascript:alert(1)"
    await deliver(client, alert)
    await act(client, "acknowledge", by=HOSTILE[:150], note=HOSTILE)
    await act(client, "timeline", note=HOSTILE)
    await act(client, "tasks", text=HOSTILE, effect="positive", command=HOSTILE)
    for address in ("/incidents", "/incidents/INC-1", "/incidents/INC-1?alerts=all"):
        page = await seen(signed_in, address)
        assert "<script>alert" not in page
        assert "<b x=" not in page
        assert "\u202e" not in page
        assert "⟨U+202E⟩" in page
        assert "{{ 7*7 }}" in text_of(page)  # not 49
        assert 'href="javascript' not in page
        assert not re.search(r"\sstyle=|\son\w+=", re.sub(r">[^<]*<", "><", page))
    assert '<a href="https://wiki.example.org/x" rel="noopener noreferrer nofollow">' in page


async def test_among_thousands_of_entries_tasks_and_the_cause_still_count(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, context: Context
) -> None:
    await deliver(client, firing(60))
    async with context.engine.begin() as tx:
        await tx.execute(
            text(
                "INSERT INTO timeline (incident_id, at, recorded_at, kind) SELECT id, began_at, began_at, 'reopened' "
                "FROM incident, generate_series(1, 1100)"
            )
        )
    await act(client, "tasks", text="restarted it", effect="positive")
    (await client.put("/api/v1/incidents/INC-1/cause", json={"deployment_id": None})).raise_for_status()
    page = text_of(await seen(signed_in))
    assert "task 1, helped: restarted it" in page
    assert "no deployment caused it" in page
    assert "Only 1,000 entries are shown" in page
    found, address = 0, "/incidents/INC-1/timeline"
    for _ in range(3):
        html = await seen(signed_in, address)
        found += html.count("</li>") - html.count('class="day"')
        following = re.search(r'rel="next" href="([^"]*)"', html)
        address = following[1] if following else ""
    assert (found, address) == (1103, "")  # with the opening, the task and the cause


async def test_an_incident_of_3000_alerts_is_a_small_page(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, context: Context
) -> None:
    await deliver(client, firing(60))
    with counted(context.engine) as few:
        await seen(signed_in)
    for start in range(0, 3000, 1000):
        alerts = [
            firing(60 - number % 50, instance=f"web-{number}", pod="p" * 300) for number in range(start, start + 1000)
        ]
        for alert in alerts:
            alert["annotations"] = {"summary": "slow " * 20, "description": "d" * 500}
        await deliver(client, *alerts)
    with counted(context.engine) as many:
        page = await seen(signed_in)
    assert len(many) == len(few) <= 13 + 1
    assert len(page.encode()) <= 60_000
    assert page.count('class="time">firing') == 50
    assert "All 3,001 alerts" in page
    following = re.search(r'href="([^"]+)#alerts">All', page)
    shown, address = 0, following and html.unescape(following[1])
    while address:
        page = await seen(signed_in, address)
        shown += page.count('class="time">firing')
        further = re.search(r'rel="next" href="([^"]+)#alerts"', page)
        address = further and html.unescape(further[1])
    assert shown == 3001


# — the list —


async def test_the_list_is_filtered_by_its_address(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(
        client,
        firing(60, service="a", env="prod"),
        firing(50, service="b", severity="warning", team="x=y"),
        ended(4000, 3900, service="c"),
        ended(60_000, 59_900, service="d"),
    )
    numbers = {shown["service"]: shown["number"] for shown in (await rest(client, "?limit=10"))["items"]}
    await act(client, "acknowledge", int(numbers["b"].removeprefix("INC-")))

    async def found(query: str, status: int = 200) -> str:
        """The services of the incidents."""
        page = await seen(signed_in, f"/incidents?{query}", status)
        numbered = {number: service for service, number in numbers.items()}
        return "".join(sorted(numbered[number] for number in re.findall(r'<a href="/incidents/(INC-\d+)"', page)))

    assert await found("") == "abc"
    assert await found("within=24h") == "ab"
    assert await found("within=all") == "abcd"
    assert await found("status=open") == "a"
    assert await found("status=open&status=resolved&within=all") == "acd"
    assert await found("severity=sev3&service=&label=") == "b"
    assert await found("service=c") == "c"
    assert await found("environment=prod") == "a"
    assert await found("environment=unknown&within=24h") == "b"
    assert await found("source=nosuch") == ""
    assert await found("label=team%3Dx%3Dy") == "b"
    assert await found(f"from={entered(ago(55))}&within=all") == "b"
    assert await found(f"to={entered(ago(3000))}") == "cd"
    wrong = ("severity=bad", "label=x", "from=yesterday", "from=2026-02-01T00:00&to=2026-01-01T00:00", "nosuch=1")
    for query in wrong:
        assert await found(query, 422) == ""
        assert 'role="alert"' in await seen(signed_in, f"/incidents?{query}", 422)
    text = text_of(await seen(signed_in, "/incidents?status=open&service=zzz"))
    assert "Widen the time (30 days) or the status or the service" in text


async def test_pages_of_the_list_lead_to_older_and_newer_incidents(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, context: Context
) -> None:
    with counted(context.engine) as none:
        await seen(signed_in, "/incidents")
    for number in range(60):
        await deliver(client, ended(100 + number * 10, 95 + number * 10, service=f"s{number % 7}", key=str(number)))

    def numbers(page: str) -> list[str]:
        return re.findall(r'class="what"><a href="/incidents/INC-(\d+)"', page)

    def link(page: str, words: str) -> str:
        found = re.search(rf'<a [^>]*href="([^"]+)">{words}</a>', page)
        assert found is not None, words
        return html.unescape(found[1])

    with counted(context.engine) as many:
        first = await seen(signed_in, "/incidents?status=resolved&within=all")
    assert len(none) <= len(many) <= 6 + 1
    second = await seen(signed_in, link(first, "Older"))
    third = await seen(signed_in, link(second, "Older"))
    everything = [*numbers(first), *numbers(second), *numbers(third)]
    assert (len(everything), len(set(everything))) == (60, 60)
    assert "Older</a>" not in third
    assert "Newer</a>" not in first
    assert numbers(await seen(signed_in, link(third, "Newer"))) == numbers(second)
    assert numbers(await seen(signed_in, link(third, "Newest"))) == numbers(first)


async def test_the_csv_is_that_of_rest(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, ended(60, 50, service="a"), ended(40, 30, service="b"))
    page = await seen(signed_in, "/incidents?service=a")
    address = re.search(r'href="(/incidents\?[^"]*format=csv)"', page)
    assert address is not None
    answer = await signed_in.get(html.unescape(address[1]))
    same = await client.get("/api/v1/incidents?format=csv&service=a")
    assert (answer.status_code, answer.text, answer.headers["content-disposition"]) == (
        200,
        same.text,
        same.headers["content-disposition"],
    )


async def test_without_incidents_the_list_leads_to_the_sources(signed_in: httpx.AsyncClient) -> None:
    page = await seen(signed_in, "/incidents")
    assert "Nothing was detected in the last 30 days" in text_of(page)
    assert 'href="/sources"' in page


# — declare —


async def test_a_person_declares_an_incident(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await client.put("/api/v1/services/payments", json={})
    assert '<option value="payments">' in await seen(signed_in, "/incidents/new")
    fields = {
        "title": "Payments fail",
        "service": "payments",
        "environment": "prod",
        "severity": "sev2",
        "impact_started_at": entered(ago(30)),
        "detected_at": entered(ago(20)),
        "note": "customers called",
    }
    answer = await signed_in.post("/incidents", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/incidents/INC-1")
    shown = await rest(client)
    assert (shown["title"], shown["severity"], shown["environment"]) == ("Payments fail", "sev2", "production")
    assert (shown["impact_started_at"], shown["detected_at"]) == (whole(ago(30)), whole(ago(20)))
    [entry] = await timeline(client, "declared")
    assert (entry["by"], entry["note"]) == ("ada", "customers called")
    refused = await signed_in.post("/incidents", data=fields | {"title": "", "severity": "sev9"})
    assert refused.status_code == 422
    assert field(refused.text, "service") == "payments"
    assert "A person declared it" in text_of(await seen(signed_in))


async def test_links_of_alerts_are_data(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    """Only addresses on the web are links, and nothing in one leaves its attribute."""
    dashboard = "https://grafana.example.org/d/1?from=now-1h&x='"
    annotations = {"runbook_url": 'https://wiki.example.org/"><script>', "dashboard_url": dashboard}
    alert = firing(10) | {"annotations": annotations, "generatorURL": "javascript:alert(1)"}
    await deliver(client, alert)
    section = re.search(r'<h3 id="links" class="next">.*?</ul>', await seen(signed_in), re.DOTALL)
    assert section is not None
    addresses = re.findall(r'<li>(\w+): <a href="([^"]*)"', section[0])
    assert [(kind, html.unescape(url)) for kind, url in addresses] == [("Dashboard", dashboard)]
    assert section[0].count("<a ") == 1


async def test_a_test_is_marked_on_its_page_and_in_the_list_and_can_be_unmarked(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    await deliver(client, ended(60, 30))
    fields = {"title": "", "service": "checkout", "severity": "sev1", "test": "yes"}
    await send(signed_in, "facts", fields | {"version": await fresh(signed_in)})
    assert (await rest(client))["test"] is True
    assert "<b>a test, excluded from all numbers</b>" in await seen(signed_in)
    assert "<b>test</b>" in await seen(signed_in, "/incidents")
    assert "a test: yes" in await seen(signed_in)
    del fields["test"]
    await send(signed_in, "facts", fields | {"version": await fresh(signed_in)})
    assert (await rest(client))["test"] is False
    assert "<b>test</b>" not in await seen(signed_in, "/incidents")
    assert "a test: no" in await seen(signed_in)


async def test_an_open_test_is_not_on_the_overview(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await deliver(client, firing(10))
    assert "/incidents/INC-1" in await seen(signed_in, "/")
    await client.patch("/api/v1/incidents/INC-1", json={"test": True})
    assert "/incidents/INC-1" not in await seen(signed_in, "/")
