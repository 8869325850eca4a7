"""The pages of sources and of quarantine: what they show, and what their forms change."""

import json
import re
import shlex
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope, ensure_source
from app.base.http.context import Context
from app.base.values.facts import Reaction, ReactionKind
from app.incidents.history.reactions import record_reactions
from app.ingest.health import judgment, store
from app.ingest.health.judgment import SourceStatus
from app.ingest.health.wording import Target
from app.pages.sources.health import IN_FULL_AT_MOST, tally
from app.pages.sources.quarantine import ITEMS_AT_MOST, SHOWN_BYTES, as_text
from app.pages.sources.read import address_of, addresses_for, bars, prose, size, verdict_words
from app.pages.words import NARROW, visible
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert, count, repair_stored_requests
from tests.pages.visitors import rows_of, section_of, submit, text_of, visiting
from tests.statements import counted

HOSTILE = "<img src=x onerror=alert(1)> \u202egnp.exe & \"'"


@pytest.fixture
async def admin(context: Context, client: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    async with visiting(context) as visitor:
        yield visitor


async def execute(engine: AsyncEngine, *statements: str) -> None:
    async with db.transaction(engine) as tx:
        for statement in statements:
            await tx.execute(text(statement))


async def a_source(engine: AsyncEngine, name: str, kind: str = "alertmanager") -> None:
    async with db.session(engine) as session:
        await ensure_source(session, name, kind, now=datetime.now(UTC))


def an_unreadable(**labels: str) -> dict[str, Any]:
    return an_alert(started="yesterday", **labels)


async def a_heartbeat(client: httpx.AsyncClient, *, minutes: int, timeout_seconds: int = 900) -> None:
    """A source with a heartbeat that is missing if it was received longer ago than the time-out."""
    rule = {"matchers": ['alertname="Watchdog"'], "heartbeat_seconds": timeout_seconds}
    answer = await client.put("/api/v1/rules/watchdog", json=rule)
    assert answer.status_code in {200, 201}, answer.text
    assert (await client.post(WEBHOOK, json=a_delivery(an_alert(alertname="Watchdog")))).status_code == 200


# — who may see and do what —


@pytest.mark.parametrize("address", ["/sources", "/sources/alertmanager", "/sources/quarantine"])
async def test_without_signing_in_there_is_nothing_to_see(client: httpx.AsyncClient, address: str) -> None:
    answer = await client.get(address)  # a token in a header does not sign in to pages
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={quote(address, safe='')}")


async def test_a_reader_sees_no_forms_and_can_change_nothing(context: Context, client: httpx.AsyncClient) -> None:
    await a_heartbeat(client, minutes=0)
    await client.post(WEBHOOK, json=a_delivery(an_unreadable(), an_alert()))
    before = (await client.get("/api/v1/sources/alertmanager")).json()
    async with visiting(context, Scope.READ) as reader:
        for address in ("/sources", "/sources/alertmanager", "/sources/quarantine"):
            page = await reader.get(address)
            assert page.status_code == 200
            forms = re.findall(r'<form method="post" action="([^"]*)"', page.text.replace(' class="who"', ""))
            assert set(forms) <= {"/logout", "/zone"}
        for address in (
            "/sources/alertmanager/settings",
            "/sources/alertmanager/reconciler",
            "/sources/alertmanager/stop-reconciling",
            "/sources/alertmanager/forget-heartbeat",
            "/sources/alertmanager/empty-quarantine",
            "/sources/quarantine/1/replay",
            "/sources/quarantine/1/delete",
        ):
            assert (await submit(reader, address, refire_seconds="60")).status_code == 403
    assert (await client.get("/api/v1/sources/alertmanager")).json() == before
    assert len((await client.get("/api/v1/quarantine")).json()["items"]) == 1


async def test_settings_are_for_admins(context: Context, client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_unreadable(), an_alert()))
    async with visiting(context, Scope.WRITE) as writer:
        page = await writer.get("/sources/alertmanager")
        assert "/empty-quarantine" in page.text
        assert "/settings" not in page.text
        assert (await submit(writer, "/sources/alertmanager/settings", refire_seconds="60")).status_code == 403


async def test_a_form_from_another_site_is_refused(admin: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_unreadable()))
    answer = await admin.post("/sources/quarantine/1/delete", headers={"sec-fetch-site": "cross-site"}, data={})
    assert answer.status_code == 403
    assert len((await client.get("/api/v1/quarantine")).json()["items"]) == 1


async def test_whoever_signs_in_again_after_a_form_gets_to_its_page(admin: httpx.AsyncClient) -> None:
    for address, page in (
        ("/sources/eu%2Fwest/settings", "/sources/eu%2Fwest"),
        ("/sources/quarantine/7/replay", "/sources/quarantine"),
    ):
        answer = await admin.get(address)
        assert (answer.status_code, answer.headers["location"]) == (303, page)


# — all sources —


async def test_before_the_first_delivery_the_page_says_how_to_connect(
    admin: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    for _ in range(2):
        page = await admin.get("/sources")
        assert "Nothing has been delivered yet" in text_of(page)
        assert "aftermath token create prometheus --scope ingest" in page.text
        assert "- url: http://aftermath.test/webhooks/alertmanager" in page.text
        await a_source(engine, "alertmanager")  # as the first start does


async def test_the_page_has_the_numbers_of_rest(admin: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    await a_heartbeat(client, minutes=0)
    await client.post(WEBHOOK, json=a_delivery(an_alert(), an_alert(instance="b"), an_unreadable()))
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    health = (await client.get("/api/v1/sources/alertmanager/health")).json()
    section = section_of(await admin.get("/sources"), "alertmanager")
    counts = health["since_created"]
    shown = text_of(section)
    assert f"Deliveries so far {counts['deliveries']} in" in shown
    assert f"Signals {counts['signals']} {counts['repeated']} repeated" in shown
    assert f"Firing now {health['open_alerts']['count']} " in shown
    assert re.search(r"Heartbeat arrives last \d+ s ago, due every 15 m", shown)
    verdicts = {verdict_words(verdict): [str(number)] for verdict, number in counts["verdicts"].items()}
    assert {words: cells[1:] for words, cells in rows_of(section).items()} == verdicts
    assert [reason["detail"].replace("`", "") for reason in health["reasons"]] == [  # on the page it is code
        text_of(found) for found in re.findall(r"(?s)</b>(.*?)</p>", section)
    ]


async def test_the_page_shows_what_people_did_in_other_tools(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    for address in ("/sources", "/sources/alertmanager"):
        assert "In other tools" not in text_of(await admin.get(address))
    at = datetime.now(UTC) - timedelta(minutes=30)
    async with db.transaction(engine) as tx:
        [source] = (await tx.execute(text("SELECT id FROM source WHERE name = 'alertmanager'"))).one()
        waiting = [Reaction(kind, at, correlation="g", by="ada <b>") for kind in (ReactionKind.CLOSED,)]
        await record_reactions(tx, waiting, source_id=source, now=at)
    for address in ("/sources", "/sources/alertmanager"):
        shown = text_of(await admin.get(address))
        assert "In other tools closed by ada <b> 30 m ago 1 without an incident" in shown
        assert "Reactions waiting. 1 of 1 acknowledgements" in shown
        assert "set correlation_label of the source" in shown


async def test_the_plot_is_its_table(admin: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(*(an_alert(instance=str(number)) for number in range(8))))
    await client.post(WEBHOOK, json=a_delivery(an_alert(instance="0"), an_alert(instance="1")))
    section = section_of(await admin.get("/sources"), "alertmanager")
    widths = [float(width) for width in re.findall(r'width="([0-9.]+)%"', section)]
    numbers = [int(cells[-1]) for cells in rows_of(section).values()]
    assert len(numbers) > 1
    assert widths == pytest.approx([100 * number / max(numbers) for number in numbers], abs=0.01)
    assert numbers == sorted(numbers, reverse=True)


async def test_the_worst_comes_first(admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_heartbeat(client, minutes=0)
    await execute(engine, "UPDATE heartbeat SET missing_since = last_at")
    now = datetime.now(UTC).isoformat()
    await client.post("/webhooks/grafana", json=a_delivery(an_alert(started=now)) | {"orgId": 1})
    await a_source(engine, "eu-west")
    page = await admin.get("/sources")
    names = re.findall(r'<h2 id="source-\d+"><a href="/sources/([^"]*)"', page.text)
    assert names == ["alertmanager", "eu-west", "grafana"]
    assert "1 source is failing, 1 has not sent anything yet, 1 is healthy." in text_of(page)


async def test_remedies_are_links(admin: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_unreadable()))
    section = section_of(await admin.get("/sources"), "alertmanager")
    assert '<a href="/sources/quarantine?source=alertmanager">' in section
    assert "/api/v1" not in section
    assert addresses_for("a").keys() == set(Target)


async def test_of_many_sources_the_last_are_lines(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await execute(
        engine,
        "INSERT INTO source (name, kind, created_at) SELECT 's' || n, 'alertmanager', now() "
        f"FROM generate_series(1, {IN_FULL_AT_MOST + 3}) AS n",
        "INSERT INTO tally (name, source, label, shard, value) VALUES ('last_delivery', 's1', '', 0, 1)",
    )
    page = await admin.get("/sources")
    assert len(rows_of(section_of(page, "more sources"))) == 3
    assert page.text.count('<section class="source"') == IN_FULL_AT_MOST


MANY = (
    "INSERT INTO source (name, kind, created_at) SELECT 's' || n, 'alertmanager', now() FROM generate_series(1, 40) n",
    """INSERT INTO tally (name, source, label, shard, value)
       SELECT 'last_delivery', 's' || n, '', 0, 1 FROM generate_series(1, 40) AS n""",
    """INSERT INTO quarantine (source_id, delivery_id, received_at, reason, detail)
       SELECT source_id, delivery_id, now(), 'bad_time', 'x' FROM stored_request, generate_series(1, 15)""",
)


async def test_the_number_of_statements_does_not_depend_on_the_number_of_sources(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, context: Context, engine: AsyncEngine
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(), an_unreadable()))
    taken: list[int] = []
    await admin.get("/sources")  # looks the token up
    for more in (MANY, ()):
        for address in ("/sources", "/sources/alertmanager", "/sources/quarantine"):
            with counted(context.engine) as statements:
                assert (await admin.get(address)).status_code == 200
            taken.append(len(statements))
        await execute(engine, *more)
    assert taken[:3] == taken[3:]
    assert max(taken) <= 8 + 1  # and the session


# — one source —


async def test_one_source_has_the_numbers_of_rest(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    async with db.session(engine) as session:
        await store.sample(session, now=datetime.now(UTC) - timedelta(hours=25))
    await client.post(WEBHOOK, json=a_delivery(an_alert(), an_alert(instance="b")))
    async with db.session(engine) as session:
        await store.sample(session, now=datetime.now(UTC) - timedelta(hours=2))
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    health = (await client.get("/api/v1/sources/alertmanager/health")).json()
    section = section_of(await admin.get("/sources/alertmanager"), "What its signals did")
    spans = ("last_hour", "last_day", "since_created")
    assert all(health[span] for span in spans)
    assert rows_of(section) == {
        verdict_words(verdict): [str(health[span]["verdicts"].get(verdict, 0)) for span in spans]
        for verdict in health["since_created"]["verdicts"]
    }
    assert f"Deliveries in the last day {health['last_day']['deliveries']} in" in text_of(await admin.get("/sources"))


async def test_an_unknown_source_is_a_page(admin: httpx.AsyncClient) -> None:
    answer = await admin.get("/sources/nobody", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "Source not found" in answer.text


@pytest.mark.parametrize("name", [HOSTILE, "eu/west", "quarantine", "a?b#c", "x" * 200, "наблюдение"])
async def test_any_name_has_its_page_and_stays_text(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine, name: str
) -> None:
    await a_source(engine, name)
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    everything = await admin.get("/sources")
    assert f'href="{address_of(name)}"' in everything.text
    page = await admin.get(address_of(name))
    assert page.status_code == 200
    assert "Settings" in text_of(page)
    assert f"--source {visible(shlex.quote(name))} --kind alertmanager" in text_of(page)
    for shown in (everything, page):
        assert "<img" not in shown.text
        assert "\u202e" not in shown.text
    answer = await submit(admin, address_of(name) + "/settings", refire_seconds="120")
    assert (answer.status_code, answer.headers["location"]) == (303, address_of(name) + "#settings")
    assert await count(engine, "SELECT count(*) FROM source WHERE refire_seconds = 120") == 1


SETTINGS = {
    "stale_seconds": "43200",
    "refire_seconds": "600",
    "recovers_no_data": "1",
    "correlation_label": "incident_key",
}


async def test_a_form_changes_the_settings_as_rest_does(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_source(engine, "eu", "grafana")
    form = SETTINGS | {"secret_is": "new", "secret": "signing-secret", "hmac_timestamp_header": "X-Sent-At"}
    assert (await submit(admin, "/sources/eu/settings", **form)).status_code == 303
    stored = (await client.get("/api/v1/sources/eu")).json()
    expected = {
        "kind": "grafana",
        "signed": True,
        "hmac_header": None,
        "hmac_timestamp_header": "X-Sent-At",
        "stale_seconds": 43200,
        "recoveries": ["no_data"],
        "refire_seconds": 600,
        "correlation_label": "incident_key",
    }
    assert stored == stored | expected
    page = await admin.get("/sources/eu")
    assert "signing-secret" not in page.text
    assert "required; the secret is set" in text_of(page)
    # Saving again keeps the secret, which the page does not know.
    assert (await submit(admin, "/sources/eu/settings", **SETTINGS | {"secret_is": "kept"})).status_code == 303
    assert await count(engine, "SELECT count(*) FROM source WHERE hmac_secret = 'signing-secret'") == 1
    assert (await submit(admin, "/sources/eu/settings", refire_seconds="600", secret_is="none")).status_code == 303
    stored = (await client.get("/api/v1/sources/eu")).json()
    assert (stored["signed"], stored["stale_seconds"], stored["recoveries"]) == (False, None, [])
    assert stored["correlation_label"] is None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"stale_seconds": "60"}, "Stale seconds: enter a number of at least 300"),
        ({"refire_seconds": ""}, "Refire seconds: enter a whole number"),
        ({"secret_is": "new"}, "Enter the new secret"),
        ({"hmac_header": "not a header"}, "Hmac header: this must be the name of a header"),
    ],
)
async def test_refused_settings_are_kept_in_the_form(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine, wrong: dict[str, str], why: str
) -> None:
    await a_source(engine, "eu", "grafana")
    before = (await client.get("/api/v1/sources/eu")).json()
    form = SETTINGS | {"secret": "", "hmac_timestamp_header": "X-Kept"} | wrong
    page = await submit(admin, "/sources/eu/settings", **form)
    assert page.status_code == 422
    assert why in text_of(re.findall(r'(?s)<p class="problem" role="alert">(.*?)</p>', page.text)[0])
    assert 'value="X-Kept"' in page.text
    assert '<details class="change" open>' in page.text
    assert (await client.get("/api/v1/sources/eu")).json() == before


async def test_a_refused_form_does_not_repeat_the_secret(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_source(engine, "eu", "grafana")
    form = {"refire_seconds": "1", "secret_is": "new", "secret": "signing-secret"}
    page = await submit(admin, "/sources/eu/settings", **form)
    assert page.status_code == 422
    assert "signing-secret" not in page.text


# — reconciliation —

PEERS = {
    "peers": "http://127.0.0.1:9093\r\nhttp://127.0.0.1:9094/",
    "poll_seconds": "30",
    "absences": "4",
    "grace_seconds": "900",
    "receiver": "",
    "username": "prom",
    "secret_is": "new",
    "secret": "peer-secret",
}


async def test_a_form_turns_reconciliation_on_and_off(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_source(engine, "alertmanager")
    assert (await submit(admin, "/sources/alertmanager/reconciler", **PEERS)).status_code == 303
    assert (await client.get("/api/v1/sources/alertmanager/reconciler")).json() == {
        "peers": ["http://127.0.0.1:9093", "http://127.0.0.1:9094"],
        "poll_seconds": 30,
        "absences": 4,
        "grace_seconds": 900,
        "receiver": None,
        "username": "prom",
        "authenticated": True,
    }
    page = await admin.get("/sources/alertmanager")
    assert "peer-secret" not in page.text
    assert "not polled yet" in text_of(page)
    kept = PEERS | {"peers": "http://127.0.0.1:9094", "secret_is": "kept", "secret": ""}
    assert (await submit(admin, "/sources/alertmanager/reconciler", **kept)).status_code == 303
    assert await count(engine, "SELECT count(*) FROM reconciler WHERE secret = 'peer-secret'") == 1
    for status in (303, 404):
        assert (await submit(admin, "/sources/alertmanager/stop-reconciling")).status_code == status
    assert await count(engine, "SELECT count(*) FROM reconciler") == 0


async def test_a_stored_secret_is_not_sent_to_a_new_address(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_source(engine, "alertmanager")
    await submit(admin, "/sources/alertmanager/reconciler", **PEERS)
    elsewhere = PEERS | {"peers": "http://127.0.0.1:9999", "secret_is": "kept", "secret": ""}
    page = await submit(admin, "/sources/alertmanager/reconciler", **elsewhere)
    assert page.status_code == 422
    assert "Enter the secret again" in text_of(page)
    assert await count(engine, "SELECT count(*) FROM reconciler WHERE peers[1] = 'http://127.0.0.1:9093'") == 1


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"peers": ""}, "Peers: enter at least 1"),
        ({"peers": "http://10.0.0.1:9093"}, "AFTERMATH_OUTBOUND_ALLOW"),
        ({"absences": "1"}, "Absences: enter a number of at least 2"),
    ],
)
async def test_refused_peers_are_kept_in_the_form(
    admin: httpx.AsyncClient, engine: AsyncEngine, wrong: dict[str, str], why: str
) -> None:
    await a_source(engine, "alertmanager")
    form = PEERS | {"username": "kept-name"} | wrong
    page = await submit(admin, "/sources/alertmanager/reconciler", **form)
    assert (page.status_code, why in text_of(page)) == (422, True)
    assert 'value="kept-name"' in page.text
    assert f">{form['peers'].split()[0] if form['peers'] else ''}" in page.text
    assert "peer-secret" not in page.text
    assert await count(engine, "SELECT count(*) FROM reconciler") == 0


async def test_only_alertmanager_is_reconciled(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await a_source(engine, "eu", "grafana")
    assert "Reconciliation" not in text_of(await admin.get("/sources/eu"))
    assert (await submit(admin, "/sources/eu/reconciler", **PEERS)).status_code == 422


# — heartbeats —


async def test_a_heartbeat_that_was_removed_is_not_expected_any_more(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await a_heartbeat(client, minutes=0)
    [beats] = (await client.get("/api/v1/sources/alertmanager/health")).json()["heartbeats"]
    page = await admin.get("/sources/alertmanager")
    assert f'value="{beats["fingerprint"]}"' in page.text
    address = "/sources/alertmanager/forget-heartbeat"
    assert (await submit(admin, address, fingerprint=beats["fingerprint"])).status_code == 303
    assert await count(engine, "SELECT count(*) FROM heartbeat") == 0
    again = await submit(admin, address, fingerprint=beats["fingerprint"])
    assert (again.status_code, 'role="alert"' in again.text) == (404, True)


# — quarantine —


async def test_quarantine_shows_what_was_received_as_text(admin: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    sent = an_unreadable(title="<script>alert(1)</script>\u202e", other="&amp; \x00 {{ 7 * 7 }}")
    await client.post(WEBHOOK, content=json.dumps(a_delivery(sent), ensure_ascii=False).encode())
    [item] = (await client.get("/api/v1/quarantine")).json()["items"]
    page = await admin.get("/sources/quarantine")
    [shown] = re.findall(r"(?s)<pre.*?<bdi>(.*?)</bdi>", page.text)
    assert "<" not in shown
    assert "\u202e" not in page.text
    assert "<script>alert(1)</script>⟨U+202E⟩" in text_of(shown)
    assert "&amp;amp; \\u0000 {{ 7 * 7 }}" in shown
    words = text_of(page)
    assert item["detail"] in words
    assert f"item {item['id']}" in words
    assert f"{item['size_bytes']} bytes as received" in words


async def test_only_the_beginning_of_a_large_item_is_shown(admin: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, content=b'{"alerts": "' + "ä".encode() * 100_000)
    await client.post(WEBHOOK, json=a_delivery(an_unreadable(padding="é\x01" * 100_000)))
    page = await admin.get("/sources/quarantine")
    assert len(page.text) < 30_000
    assert "The first 4 KiB" in text_of(page)
    assert "\ufffd" not in page.text


def test_a_cut_character_is_left_out_and_invalid_bytes_are_visible() -> None:
    assert as_text("aä".encode()[:-1], is_cut=True) == "a"
    assert as_text("aä".encode()[:-1], is_cut=False) == "a\ufffd"
    assert as_text(b"\xff\x00\n", is_cut=False) == "\ufffd⟨U+0000⟩\n"
    assert len(as_text(b"\x00" * SHOWN_BYTES, is_cut=True)) <= 2 * SHOWN_BYTES


async def test_a_replay_really_happens(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_unreadable()))
    # It still cannot be read.
    answer = await submit(admin, "/sources/quarantine/1/replay", next="/sources/quarantine?source=alertmanager")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sources/quarantine?source=alertmanager&changed=1"
    page = await admin.get(answer.headers["location"])
    assert "Item 1 still cannot be used, and stays here" in text_of(page)
    assert f"1{chr(160)}failed replay" in page.text
    # Now it can.
    await repair_stored_requests(engine)
    answer = await submit(admin, "/sources/quarantine/1/replay", next="/sources/quarantine")
    assert "Item 1 was replayed" in text_of(await admin.get(answer.headers["location"]))
    assert (await client.get("/api/v1/incidents/INC-1")).json()["service"] == "checkout"
    assert await count(engine, "SELECT count(*) FROM quarantine WHERE replayed_at IS NULL") == 0
    # A second time is refused, and the page says so.
    again = await submit(admin, "/sources/quarantine/1/replay", next="/sources/quarantine?replayed=1")
    assert (again.status_code, 'role="alert"' in again.text) == (409, True)
    listed = await admin.get("/sources/quarantine?replayed=1")
    assert "/1/replay" not in listed.text
    assert "/1/delete" in listed.text


async def test_a_deletion_really_happens(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_unreadable(), an_unreadable(instance="b")))
    for _ in range(2):  # somebody else may be faster
        answer = await submit(admin, "/sources/quarantine/2/delete", next="//evil.example/?source=x")
        assert (answer.status_code, answer.headers["location"]) == (303, "/sources/quarantine?changed=2")
    assert "Item 2 is no longer in quarantine" in text_of(await admin.get(answer.headers["location"]))
    assert await count(engine, "SELECT sum(id) FROM quarantine") == 1
    assert (await submit(admin, "/sources/alertmanager/empty-quarantine")).status_code == 303
    assert await count(engine, "SELECT count(*) FROM stored_request") == 0


async def test_filters_and_pages_find_everything_once(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await client.post(WEBHOOK, json=a_delivery(*(an_unreadable(instance=str(n)) for n in range(ITEMS_AT_MOST + 5))))
    await client.post("/webhooks/grafana", json=a_delivery(an_unreadable()) | {"orgId": 1})
    await execute(engine, "UPDATE quarantine SET replayed_at = now() WHERE id <= 2")
    found: list[int] = []
    address: str | None = "/sources/quarantine?source=alertmanager"
    while address:
        page = await admin.get(address)
        found += [int(number) for number in re.findall(r'<tr id="item-(\d+)">', page.text)]
        older = re.findall(r'<a href="([^"]*)">Older</a>', page.text)
        address = older[0].replace("&amp;", "&") if older else None
    assert found == list(range(ITEMS_AT_MOST + 5, 2, -1))
    assert "Newest" in page.text
    assert page.text.count("<tr id=") < ITEMS_AT_MOST
    everything = await admin.get("/sources/quarantine?source=&replayed=1&cursor=")
    assert everything.text.count("<tr id=") == ITEMS_AT_MOST
    nothing = await admin.get("/sources/quarantine", params={"source": HOSTILE})
    assert (nothing.status_code, "is waiting" in text_of(nothing), "<img" in nothing.text) == (200, True, False)


async def test_the_space_used_is_that_of_rest(admin: httpx.AsyncClient, client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_unreadable(padding="x" * 30_000)))
    used = (await client.get("/api/v1/sources/alertmanager/health")).json()["quarantine_bytes"]
    rows = rows_of(section_of(await admin.get("/sources/quarantine"), "Space"))
    assert rows == {"alertmanager": ["", size(used).replace(NARROW, " ")]}


@pytest.mark.parametrize("query", ["cursor=nonsense", "changed=0", "changed=x", "source=%00", "source=" + "x" * 201])
async def test_an_address_that_makes_no_sense_is_refused(admin: httpx.AsyncClient, query: str) -> None:
    answer = await admin.get(f"/sources/quarantine?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "text/html; charset=utf-8")


# — words —


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        (["healthy"], "The source delivers"),
        (["healthy"] * 3, "All 3 sources deliver"),
        (["degraded"], "1 source is degraded"),
        (
            ["healthy", "failing", "failing", "never_seen"],
            "2 sources are failing, 1 has not sent anything yet, 1 is healthy",
        ),
    ],
)
def test_the_tally_of_sources(statuses: list[str], words: str) -> None:
    assert tally([SourceStatus(status) for status in statuses]) == words


def test_sizes() -> None:
    sizes = {0: "0 bytes", 1023: "1,023 bytes", 1024: "1 KiB", 1400: "1.4 KiB", 64 * 2**20: "64 MiB", 2**40: "1 TiB"}
    assert {number: size(number).replace(NARROW, " ") for number in sizes} == sizes


def test_code_stands_between_backticks() -> None:
    assert [(part.text, part.is_code) for part in prose("add `page` to the rule")] == [
        ("add ", False),
        ("page", True),
        (" to the rule", False),
    ]


def test_bars_of_nothing() -> None:
    assert bars({}) == []
    assert judgment.rank(SourceStatus.FAILING) > judgment.rank(SourceStatus.HEALTHY)
