"""Signing in and out, sessions, forged requests, and what every page sends along."""

import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import app.pages
from app.base import db
from app.base.access.tokens import Scope, list_tokens, revoke_token
from app.base.errors import Forbidden
from app.base.http.access.credentials import Credentials
from app.base.http.context import Context
from app.base.http.limits import turns
from app.base.http.limits.turns import Turns
from app.pages.web import session
from app.pages.web.session import Attempts, TooManyAttempts, local_address
from tests.conftest import ADMIN_TOKEN, ClientAs, client_of
from tests.pages.conftest import BROWSER, SignedInAs, sign_in

TEMPLATES = Path(app.pages.__file__).parent / "templates"
PAGES = ["/", "/login", "/no-such-page"]


async def is_signed_in(visitor: httpx.AsyncClient) -> bool:
    """Whoever has not is sent to the page for it."""
    response = await visitor.get("/")
    assert response.status_code in {200, 303}, response.text
    return response.status_code == 200


async def token_of(client_as: ClientAs, scope: Scope) -> str:
    header: str = (await client_as(scope)).headers["authorization"]
    return header.removeprefix("Bearer ")


# — sign in —


async def test_without_a_session_every_page_leads_to_signing_in_and_back(visitor: httpx.AsyncClient) -> None:
    response = await visitor.get("/?days=7")
    assert (response.status_code, response.headers["location"]) == (303, "/login?next=%2F%3Fdays%3D7")
    form = (await visitor.get(response.headers["location"])).text
    assert '<input type="hidden" name="next" value="/?days=7">' in form
    response = await sign_in(visitor, next="/?days=7")
    assert (response.status_code, response.headers["location"]) == (303, "/?days=7")
    assert await is_signed_in(visitor)


@pytest.mark.parametrize("scope", [Scope.READ, Scope.WRITE, Scope.ADMIN])
async def test_a_token_that_may_read_signs_in(scope: Scope, signed_in_as: SignedInAs) -> None:
    visitor = await signed_in_as(scope)
    assert await is_signed_in(visitor)
    assert f"test {scope}" in (await visitor.get("/")).text


async def test_a_token_of_a_sender_does_not_sign_in(visitor: httpx.AsyncClient, client_as: ClientAs) -> None:
    response = await sign_in(visitor, await token_of(client_as, Scope.INGEST))
    assert response.status_code == 403
    assert "can only send alerts" in response.text
    assert not await is_signed_in(visitor)


@pytest.mark.parametrize("token", ["wrong", "aft_0123456789_wrong", "", "\u202e", "x" * 5000])
async def test_a_wrong_token_shows_the_form_again_with_the_name_but_without_the_token(
    token: str, visitor: httpx.AsyncClient
) -> None:
    response = await sign_in(visitor, token, name="ada <lovelace>")
    assert response.status_code in {401, 422}
    assert 'role="alert"' in response.text
    assert 'value="ada &lt;lovelace&gt;"' in response.text
    assert len(token) < 3 or token not in response.text
    assert "www-authenticate" not in response.headers  # browsers would open a dialog
    assert not await is_signed_in(visitor)


async def test_the_name_of_the_person_or_else_of_the_token_is_shown(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor, name="  ada  ")
    assert "<bdi>ada</bdi>" in (await visitor.get("/")).text
    await sign_in(visitor, name=" ")
    assert "<bdi>admin</bdi>" in (await visitor.get("/")).text


async def test_after_ten_attempts_within_a_minute_the_network_has_to_wait(visitor: httpx.AsyncClient) -> None:
    statuses = [(await sign_in(visitor, "wrong")).status_code for _ in range(10)]
    assert statuses == [401] * 10
    response = await sign_in(visitor)  # even with the right one
    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert "too many attempts" in response.text.lower()
    assert not await is_signed_in(visitor)


def test_attempts_are_counted_by_network_and_expire() -> None:
    clock = SimpleNamespace(seconds=0.0)
    attempts = Attempts(lambda: clock.seconds)
    for _ in range(10):
        attempts.count(("192.0.2.1", 1))
    attempts.count(("192.0.2.2", 1))
    with pytest.raises(TooManyAttempts) as refused:
        attempts.count(("192.0.2.1", 2))
    assert refused.value.headers == {"Retry-After": "60"}
    clock.seconds = 60.0
    attempts.count(("192.0.2.1", 3))


# — sessions —


async def test_the_cookie_is_for_this_host_only_and_not_for_scripts(visitor: httpx.AsyncClient) -> None:
    response = await sign_in(visitor)
    [cookie] = response.headers.get_list("set-cookie")
    name, attributes = cookie.split("=", 1)[0], {each.strip().lower() for each in cookie.split(";")[1:]}
    assert name == "aftermath"
    assert attributes == {"httponly", "samesite=lax", "path=/", "max-age=1209600"}


async def test_behind_https_the_cookie_is_secure_and_cannot_be_set_by_other_hosts(context: Context) -> None:
    async with client_of(context) as visitor:
        visitor.base_url = httpx.URL("https://aftermath.test")
        response = await visitor.post("/login", data={"token": ADMIN_TOKEN}, headers=BROWSER)
    [cookie] = response.headers.get_list("set-cookie")
    assert cookie.startswith("__Host-aftermath=")
    assert "; secure" in cookie.lower()
    assert "domain" not in cookie.lower()


async def test_only_a_digest_of_the_cookie_is_stored(visitor: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await sign_in(visitor)
    cookie = visitor.cookies["aftermath"]
    async with engine.connect() as tx:
        [row] = (await tx.execute(text("SELECT * FROM web_session"))).mappings()
    assert len(cookie) == 43
    assert cookie not in str(dict(row))
    assert cookie.encode() not in row["digest"]


async def test_signing_in_again_ends_the_session_of_before(visitor: httpx.AsyncClient) -> None:
    await sign_in(visitor)
    before = visitor.cookies["aftermath"]
    await sign_in(visitor)
    assert await is_signed_in(visitor)
    assert visitor.cookies["aftermath"] != before
    visitor.cookies = httpx.Cookies({"aftermath": before})
    assert not await is_signed_in(visitor)


async def test_signing_out_ends_the_session(signed_in: httpx.AsyncClient, context: Context) -> None:
    cookie = signed_in.cookies["aftermath"]
    response = await signed_in.post("/logout")
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert "aftermath" not in signed_in.cookies
    signed_in.cookies.set("aftermath", cookie)  # a copy of it is worth nothing either
    assert not await is_signed_in(signed_in)


@pytest.mark.parametrize(
    ("column", "age", "is_valid"),
    [
        ("seen_at", timedelta(hours=23), True),
        ("seen_at", timedelta(hours=24), False),
        ("expires_at", timedelta(days=13, hours=23), True),
        ("expires_at", timedelta(days=14), False),
    ],
)
async def test_a_session_ends_when_it_is_idle_or_old(
    column: str, age: timedelta, is_valid: bool, signed_in: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    async with engine.begin() as tx:
        await tx.execute(text(f"UPDATE web_session SET {column} = {column} - CAST(:age AS interval)"), {"age": age})
    assert await is_signed_in(signed_in) is is_valid


async def test_using_a_session_keeps_it_alive_but_writes_rarely(
    signed_in: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    async def seen_at() -> Any:
        async with engine.connect() as tx:
            return (await tx.execute(text("SELECT seen_at FROM web_session"))).scalar_one()

    first = await seen_at()
    await signed_in.get("/")
    assert await seen_at() == first
    async with engine.begin() as tx:
        await tx.execute(text("UPDATE web_session SET seen_at = seen_at - interval '6 minutes'"))
    await signed_in.get("/")
    assert await seen_at() >= first


async def test_revoking_a_token_ends_the_sessions_that_it_opened(signed_in_as: SignedInAs, context: Context) -> None:
    visitor = await signed_in_as(Scope.WRITE)
    assert await is_signed_in(visitor)
    async with db.session(context.engine) as session:
        [token] = [each.row.id for each in await list_tokens(session) if each.bearer.name == "test write"]
        await revoke_token(session, token, now=datetime.now(UTC))
    context.credentials._tokens.expire(token)  # as it does by itself within seconds
    assert not await is_signed_in(visitor)


async def test_another_admin_token_in_the_settings_ends_the_sessions_of_the_former(
    signed_in: httpx.AsyncClient, context: Context
) -> None:
    replaced = Credentials(context.engine, context.monitor, admin_token="another", trust_seconds=60)
    same = Credentials(context.engine, context.monitor, admin_token=ADMIN_TOKEN, trust_seconds=60)
    for credentials, is_valid in ((replaced, False), (same, True)):
        object.__setattr__(context, "credentials", credentials)
        assert await is_signed_in(signed_in) is is_valid


async def test_a_cookie_never_authorizes_the_api(signed_in: httpx.AsyncClient) -> None:
    for path in ("/api/v1/incidents", "/api/v1/metrics/summary", "/metrics"):
        assert (await signed_in.get(path)).status_code == 401
    response = await signed_in.post("/api/v1/incidents", json={"title": "x", "service": "shop", "severity": "sev1"})
    assert response.status_code == 401


async def test_a_token_in_the_header_does_not_open_pages(client: httpx.AsyncClient) -> None:
    assert (await client.get("/", headers={"accept": "text/html"})).status_code == 303


async def test_values_that_are_no_cookies_of_ours_are_ignored(visitor: httpx.AsyncClient) -> None:
    for value in ("x", "x" * 43, "%00", "é", "x" * 4000):
        response = await visitor.get("/", headers=[(b"cookie", f"aftermath={value}".encode())])
        assert response.status_code == 303


# — forged requests —


FORMS = ["/login", "/logout", "/zone"]


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://aftermath.test"},
        {"origin": "http://evil.test"},
        {"origin": "http://aftermath.test.evil.test"},
        {"origin": "null"},
        {"origin": "http://["},
        {"referer": "http://aftermath.test/"},
        {},
    ],
    ids=str,
)
async def test_a_form_from_elsewhere_is_refused(
    path: str, headers: dict[str, str], signed_in: httpx.AsyncClient
) -> None:
    del signed_in.headers["sec-fetch-site"]
    response = await signed_in.post(path, data={"token": ADMIN_TOKEN, "zone": "Europe/Berlin"}, headers=headers)
    assert response.status_code == 403
    assert "set-cookie" not in response.headers
    signed_in.headers.update(BROWSER)
    assert await is_signed_in(signed_in)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "http://aftermath.test"},  # an old browser
    ],
    ids=str,
)
async def test_a_form_from_our_pages_is_accepted(headers: dict[str, str], visitor: httpx.AsyncClient) -> None:
    del visitor.headers["sec-fetch-site"]
    assert (await visitor.post("/login", data={"token": ADMIN_TOKEN}, headers=headers)).status_code == 303


def test_behind_a_proxy_the_public_address_counts_as_ours() -> None:
    def request(origin: str) -> Any:
        state = SimpleNamespace(
            context=SimpleNamespace(settings=SimpleNamespace(public_url="https://aftermath.example.org/"))
        )
        return SimpleNamespace(headers={"origin": origin, "host": "10.0.0.7:8080"}, state=state)

    session.require_same_origin(request("https://aftermath.example.org"))
    with pytest.raises(Forbidden):
        session.require_same_origin(request("https://example.org"))


# — addresses in forms —


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.test/",
        "//evil.test/",
        "/\\evil.test",
        "\\\\evil.test",
        "/\n/evil.test",
        "/\t/evil.test",
        "javascript:alert(1)",
        "evil.test",
        "",
        "/" + "x" * 2000,
        " //evil.test",
    ],
)
async def test_next_never_leaves_the_host(address: str, visitor: httpx.AsyncClient) -> None:
    assert (await sign_in(visitor, next=address)).headers["location"] == "/"
    response = await visitor.post("/zone", data={"zone": "UTC", "next": address})
    assert response.headers["location"] == "/"


@given(st.text())
@example("//evil.test")
@example("/\\evil.test")
def test_a_local_address_is_a_path_of_this_host(address: str) -> None:
    found = local_address(address)
    url = httpx.URL("http://aftermath.test/").join(httpx.URL(found))
    assert url.host == "aftermath.test"
    assert found in {address, "/"}


# — headers —


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_sends_the_headers_that_protect_it(path: str, signed_in: httpx.AsyncClient) -> None:
    headers = (await signed_in.get(path, follow_redirects=False)).headers
    if path == "/login":  # who has signed in already is sent on
        signed_in.cookies.clear()
        headers = (await signed_in.get(path)).headers
    policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert all(sources in {"'none'", "'self'"} for sources in policy.values())
    assert {"base-uri", "form-action", "frame-ancestors"} <= set(policy)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert {"cookie", "accept-encoding"} <= {each.strip().lower() for each in headers["vary"].split(",")}


async def test_a_missing_page_is_a_page_for_people_and_a_problem_for_clients(
    signed_in: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    page = await signed_in.get("/no-such-page")
    assert page.status_code == 404
    assert "There is no page at this address." in page.text
    assert 'href="/incidents"' in page.text  # in the frame of the others
    answer = await client.get("/no-such-page")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    answer = await signed_in.get("/api/v1/no-such-route")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_without_the_database_there_is_a_page_that_says_so(
    signed_in: httpx.AsyncClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(context.monitor), "is_down", property(lambda _: True))
    response = await signed_in.get("/")
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "kept on disk" in response.text
    assert "content-security-policy" in response.headers


async def test_a_page_that_only_has_to_wait_does_not_speak_of_the_database(
    signed_in: httpx.AsyncClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "WAIT_SECONDS", 0.01)
    async with AsyncExitStack() as stack:
        for _ in range(context.settings.concurrent_queries):
            await stack.enter_async_context(context.part(Turns).one())
        response = await signed_in.get("/numbers")
    assert response.status_code == 503
    assert "Try again" in response.text
    assert "kept on disk" not in response.text


async def test_head_has_the_headers_of_get(signed_in: httpx.AsyncClient) -> None:
    got, head = await signed_in.get("/"), await signed_in.head("/")
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert set(head.headers) == set(got.headers)


async def test_static_files_are_cached_for_ever_and_change_their_address(visitor: httpx.AsyncClient) -> None:
    page = (await visitor.get("/login")).text
    addresses = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(addresses) == 3
    for address in addresses:
        response = await visitor.get(address)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        assert re.search(r"\?v=[0-9a-f]{10}$", address)
    assert (await visitor.get("/static/no-such-file")).status_code == 404


# — templates —


@pytest.mark.parametrize("name", sorted(str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.html")))
def test_no_template_has_inline_styles_or_scripts_or_unescaped_text(name: str) -> None:
    template = (TEMPLATES / name).read_text()
    assert not re.search(r"\sstyle\s*=", template)
    assert not re.search(r"\son[a-z]+\s*=\s*[\"']", template)
    assert not re.search(r"<style\b", template)
    assert not re.search(r"<script\b(?![^>]*\bsrc=)", template)
    assert not re.search(r"javascript:|data:", template)
    literals = re.sub(r"'[^']*'\s*\|\s*safe\b", "", template)  # markup of our own
    assert not re.search(r"\|\s*safe\b|Markup|autoescape", literals)
