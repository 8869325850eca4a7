"""Visitors of the pages: clients without a token, that act like a browser without scripts."""

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from app.base.access.tokens import Scope
from app.base.http.access import credentials
from app.base.http.context import Context
from tests.conftest import ADMIN_TOKEN, ClientAs, client_of

BROWSER = {"accept": "text/html,application/xhtml+xml", "sec-fetch-site": "same-origin"}


async def sign_in(visitor: httpx.AsyncClient, token: str = ADMIN_TOKEN, **fields: str) -> httpx.Response:
    """Submits the form; its response is a redirect if the token was accepted."""
    return await visitor.post("/login", data={"token": token, "name": "", "zone": "", "next": ""} | fields)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine must not turn pages into 503."""
    monkeypatch.setattr(credentials, "LOOKUP_SECONDS", 60)


@pytest.fixture
async def visitor(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    """Nobody has signed in. Redirects are not followed."""
    async with client_of(context) as client:
        del client.headers["authorization"]
        client.headers.update(BROWSER)
        yield client


@pytest.fixture
async def signed_in(visitor: httpx.AsyncClient) -> httpx.AsyncClient:
    """The visitor after signing in as ada, with the admin token."""
    response = await sign_in(visitor, name="ada")
    assert (response.status_code, response.headers["location"]) == (303, "/")
    return visitor


SignedInAs = Callable[[Scope], Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def signed_in_as(visitor: httpx.AsyncClient, client_as: ClientAs) -> SignedInAs:
    """The visitor after signing in with a new token of that scope."""

    async def with_scope(scope: Scope) -> httpx.AsyncClient:
        token = (await client_as(scope)).headers["authorization"].removeprefix("Bearer ")
        visitor.cookies.clear()
        response = await sign_in(visitor, token)
        assert response.status_code == 303
        return visitor

    return with_scope
