"""The page of tokens: creating, showing once, and revoking."""

import html
import logging
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
import yaml
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope, create_token
from app.base.http.context import Context
from app.ingest.receiver import alertmanager_receiver
from tests.conftest import ADMIN_TOKEN
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert, count
from tests.pages.visitors import rows_of, section_of, submit, text_of, visiting

TOKEN = re.compile(r"aft_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")
INGEST = {"name": "prometheus", "scope": "ingest", "source": "eu", "kind": "alertmanager"}


@pytest.fixture
async def admin(context: Context, client: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    async with visiting(context) as visitor:
        yield visitor


def shown_in(page: httpx.Response) -> str:
    """The token on the page, the same wherever it stands."""
    token: str
    [token] = set(TOKEN.findall(page.text))
    return token


def with_token(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("scope", [Scope.READ, Scope.WRITE])
async def test_tokens_are_for_admins(
    context: Context, client: httpx.AsyncClient, engine: AsyncEngine, scope: Scope
) -> None:
    async with visiting(context, scope) as visitor:
        assert (await visitor.get("/tokens")).status_code == 403
        assert (await submit(visitor, "/tokens", name="more", scope="admin")).status_code == 403
        assert (await submit(visitor, "/tokens/revoke", id="00000000")).status_code == 403
    assert await count(engine, "SELECT count(*) FROM token WHERE name = 'more'") == 0


async def test_without_signing_in_the_page_is_not_shown(client: httpx.AsyncClient) -> None:
    answer = await client.get("/tokens")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Ftokens")


async def test_a_form_from_another_site_creates_nothing(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    answer = await admin.post("/tokens", data={"name": "x", "scope": "admin"}, headers={"sec-fetch-site": "same-site"})
    assert answer.status_code == 403
    assert await count(engine, "SELECT count(*) FROM token WHERE name = 'x'") == 0


async def test_a_token_for_prometheus_is_shown_in_its_configuration(
    admin: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    page = await submit(admin, "/tokens", name="p", scope="ingest", source="prometheus", kind="alertmanager-api")
    shown = re.search(r'aria-label="prometheus\.yml"><code>(.*?)</code>', page.text, flags=re.DOTALL)
    assert shown is not None
    [peer] = yaml.safe_load(html.unescape(shown[1]))["alerting"]["alertmanagers"]
    assert (peer["scheme"], peer["static_configs"]) == ("http", [{"targets": ["aftermath.test"]}])
    client.headers.clear()
    sent = await client.post(f"{peer['path_prefix']}/api/v2/alerts", json=[{"labels": {"alertname": "Down"}}])
    assert sent.status_code == 200


async def test_a_created_token_works_and_is_shown_once(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    page = await submit(admin, "/tokens", **INGEST)
    assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
    token = shown_in(page)
    assert alertmanager_receiver("http://aftermath.test", token) in page.text  # ready to be copied
    client.headers.clear()
    sent = await client.post(WEBHOOK, json=a_delivery(an_alert()), headers=with_token(token))
    assert (sent.status_code, sent.json()["verdicts"]) == (200, {"opened": 1})
    assert await count(engine, "SELECT count(*) FROM source WHERE name = 'eu'") == 1
    # It is shown once, and stored nowhere.
    assert not TOKEN.search((await admin.get("/tokens")).text)
    secret = token.rpartition("_")[2]
    assert secret not in caplog.text
    assert "created the token" in caplog.text
    for [table] in await rows(
        engine,
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type <> 'VIEW'",
    ):
        assert await count(engine, f"SELECT count(*) FROM \"{table}\" AS one WHERE one::text LIKE '%{secret}%'") == 0


async def rows(engine: AsyncEngine, query: str) -> list[tuple[str, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


@pytest.mark.parametrize("scope", ["read", "write", "admin"])
async def test_a_token_for_people_signs_in(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, context: Context, scope: str
) -> None:
    token = shown_in(await submit(admin, "/tokens", name=" for people ", scope=scope, source="", kind=""))
    assert (await client.get("/api/v1/incidents", headers=with_token(token))).status_code == 200
    rows = rows_of(section_of(await admin.get("/tokens"), "tokens"))
    assert rows["for people"][0] == scope
    async with visiting(context, token=token) as visitor:
        assert (await visitor.get("/tokens")).status_code == (200 if scope == "admin" else 403)


async def test_other_senders_are_told_where_to_send(admin: httpx.AsyncClient) -> None:
    page = await submit(admin, "/tokens", **INGEST | {"kind": "grafana"})
    token = shown_in(page)
    assert f"Authorization: Bearer {token}" in page.text
    assert "<code>http://aftermath.test/webhooks/grafana</code>" in page.text
    assert "alertmanager.yml" not in page.text


async def test_a_key_has_the_form_and_the_address_that_its_tools_need(admin: httpx.AsyncClient) -> None:
    page = await submit(admin, "/tokens", **INGEST | {"kind": "pagerduty-events", "source": "pager"})
    [key] = set(re.findall(r"Authorization: Bearer (\w+)", page.text))
    assert re.fullmatch(r"[0-9a-z]{32}", key)
    assert "<code>http://aftermath.test/v2/enqueue</code>" in page.text
    event = {"routing_key": key, "event_action": "trigger", "payload": {"summary": "down"}}
    answer = await admin.post("/v2/enqueue", json=event)
    assert answer.status_code == 202

    page = await submit(admin, "/tokens", **INGEST | {"kind": "splunk-on-call", "source": "on-call"})
    key = shown_in(page)
    assert f"<code>http://aftermath.test/integrations/generic/20131114/alert/{key}</code>" in page.text


@pytest.mark.parametrize(
    ("form", "status", "why"),
    [
        ({"name": ""}, 422, "Name: enter a value"),
        ({"kind": ""}, 422, "is for one source: enter its name and choose its kind"),
        ({"source": " "}, 422, "is for one source"),
        ({"scope": "read"}, 422, "clear source and kind"),
        ({"scope": "root"}, 422, "Scope: choose ingest, read, write or admin"),
        ({"kind": "carrier pigeon"}, 422, "Kind: choose "),
        ({"more": "x"}, 422, "More: this form has no such field"),
        ({"name": "x" * 201}, 422, "Name: use at most 200 characters"),
        ({"name": "a\x00b"}, 422, "must not contain NUL"),
        ({"source": "taken"}, 409, "has kind 'grafana'"),
    ],
)
async def test_a_refused_form_keeps_what_was_entered(
    admin: httpx.AsyncClient, engine: AsyncEngine, form: dict[str, str], status: int, why: str
) -> None:
    await submit(admin, "/tokens", **INGEST | {"name": "first", "source": "taken", "kind": "grafana"})
    before = await count(engine, "SELECT count(*) FROM token")
    page = await submit(admin, "/tokens", **INGEST | form)
    assert page.status_code == status
    assert why in text_of(re.findall(r'(?s)<p class="problem" role="alert">(.*?)</p>', page.text)[0])
    entered = INGEST | form
    if "\x00" not in entered["name"]:
        assert f'name="name" required maxlength="200" value="{entered["name"]}"' in page.text
    assert f'name="source" maxlength="200" value="{entered["source"]}"' in page.text
    assert await count(engine, "SELECT count(*) FROM token") == before


async def test_a_revoked_token_ends_at_once_with_its_sessions(
    admin: httpx.AsyncClient, client: httpx.AsyncClient, context: Context
) -> None:
    token = shown_in(await submit(admin, "/tokens", name="leaving", scope="write"))
    client.headers.clear()
    async with visiting(context, token=token) as leaving:
        assert (await leaving.get("/sources")).status_code == 200
        assert (await client.get("/api/v1/incidents", headers=with_token(token))).status_code == 200
        public = token.split("_")[1]
        assert f'name="id" value="{public}"' in (await admin.get("/tokens")).text
        answer = await submit(admin, "/tokens/revoke", id=public)
        assert (answer.status_code, answer.headers["location"]) == (303, "/tokens")
        assert (await leaving.get("/sources")).headers["location"] == "/login?next=%2Fsources"
    assert (await client.get("/api/v1/incidents", headers=with_token(token))).status_code == 401
    page = await admin.get("/tokens")
    assert f'name="id" value="{public}"' not in page.text
    assert "1 revoked token" in text_of(page)


async def test_the_list_has_pages(admin: httpx.AsyncClient, context: Context) -> None:
    async with db.session(context.engine) as session:
        for number in range(5):
            await create_token(session, f"token {number}", Scope.READ, now=datetime.now(UTC))
    [known] = [re.findall(r'name="id" value="(\w+)"', (await admin.get("/tokens")).text)]
    found, address = list[str](), "/tokens?limit=4"
    for _ in range(2):
        page = (await admin.get(address)).text
        found += re.findall(r'name="id" value="(\w+)"', page)
        following = re.search(r'rel="next" href="([^"]*)"', page)
        address = (following[1] if following else "") + "&limit=4"
    assert (found, address) == (known, "&limit=4")
    for public in known[:2]:
        await submit(admin, "/tokens/revoke", id=public)
    page = (await admin.get("/tokens?revoked=true")).text
    assert re.findall(r"<code>(\w+)</code>", page)[:2] == known[1::-1]
    assert "2 revoked tokens" in text_of(await admin.get("/tokens"))


async def test_whoever_revokes_their_own_token_is_signed_out(
    admin: httpx.AsyncClient, context: Context, engine: AsyncEngine
) -> None:
    page = await admin.get("/tokens")
    assert "you signed in with it" in text_of(page)
    [[public]] = await rows(engine, "SELECT id FROM token WHERE scope = 'admin'")
    await submit(admin, "/tokens/revoke", id=public)
    assert (await admin.get("/tokens")).headers["location"] == "/login?next=%2Ftokens"
    async with visiting(context, token=ADMIN_TOKEN) as other:
        assert "the admin token of the settings" in text_of(await other.get("/tokens"))


async def test_an_unknown_token_cannot_be_revoked(admin: httpx.AsyncClient) -> None:
    for form, status in (({"id": "<u>"}, 404), ({}, 422), ({"id": "x", "more": "y"}, 422)):
        page = await submit(admin, "/tokens/revoke", **form)
        assert (page.status_code, 'role="alert"' in page.text, "<u>" in page.text) == (status, True, False)


async def test_hostile_names_stay_text(admin: httpx.AsyncClient) -> None:
    hostile = "</td><script>alert(1)</script>\u202egnp.exe"
    page = await submit(admin, "/tokens", **INGEST | {"name": hostile, "source": hostile + "s"})
    for shown in (page, await admin.get("/tokens")):
        assert "<script>" not in shown.text
        assert "\u202e" not in shown.text
        assert "</td><script>alert(1)</script>⟨U+202E⟩gnp.exe" in text_of(shown)
