"""People who have signed in, and the text of the pages that they see."""

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx

from app.base import db
from app.base.access import tokens, web_sessions
from app.base.access.tokens import Scope
from app.base.http.context import Context
from tests.conftest import client_of

FROM_OUR_PAGE = {"sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}


@asynccontextmanager
async def visiting(context: Context, scope: Scope = Scope.ADMIN, token: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """A browser in which somebody has signed in with a token, by default a new one of this scope."""
    now = datetime.now(UTC)
    async with db.session(context.engine) as session:
        token = token or await tokens.create_token(session, f"of a {scope}", scope, now=now)
        cookie = await web_sessions.open_session(session, context.credentials.opener(token), None, now=now)
    async with client_of(context) as client:
        del client.headers["authorization"]
        client.cookies.set("aftermath", cookie)
        yield client


async def submit(visitor: httpx.AsyncClient, address: str, **fields: str) -> httpx.Response:
    """Submits a form as a browser does. Redirects are not followed."""
    return await visitor.post(address, data=fields, headers=FROM_OUR_PAGE)


def text_of(page: str | httpx.Response) -> str:
    """What a person reads, with single spaces."""
    source = page if isinstance(page, str) else page.text
    source = re.sub(r"(?s)<(script|style|title)\b.*?</\1>", " ", source)
    source = re.sub(r"</?(a|b|bdi|code|i|time)\b[^>]*>", "", source)  # within a word or before a comma
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"(?s)<[^>]*>", " ", source))).strip()


def section_of(page: httpx.Response, heading: str) -> str:
    """The HTML of the section with this heading."""
    parts = [part for part in re.split(r"(?=<section\b)", page.text) if part.startswith("<section")]
    [found] = [part for part in parts if heading in text_of(part.partition("</h2>")[0])]
    return found.partition("</section>")[0]


def rows_of(section: str) -> dict[str, list[str]]:
    """The rows of its tables: the text of their cells, by that of the heading of the row."""
    found = {}
    for row in re.findall(r"(?s)<tr\b.*?</tr>", section):
        cells = [text_of(cell) for cell in re.findall(r"(?s)<t[hd]\b.*?</t[hd]>", row)]
        if '<th scope="row"' in row:
            found[cells[0]] = cells[1:]
    return found
