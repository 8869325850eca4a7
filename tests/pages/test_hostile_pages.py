"""Every route of the pages, with values at and beyond what is possible in every parameter and every field of a form.

Nothing may be a 5xx, nothing that was accepted may break a page or REST afterwards, and text is shown as text.
"""

import ast
import asyncio
import base64
import html
import json
import re
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes
from uuid import UUID

import httpx
import pytest

import app.pages
from app.base import db
from app.base.access.tokens import Bearer, Scope, create_token
from app.base.http.context import Context
from app.main import create_app
from app.pages.incidents import listing
from app.pages.numbers import query as numbers_query
from app.pages.web import session
from app.pages.web.forms import FIELDS_AT_MOST, FORM_BYTES
from app.response.store import playbooks
from app.reviews.public_report.facts import PublicText
from app.reviews.public_report.outline import PublicOutline
from app.reviews.store import public_report, reviews
from tests.conftest import ADMIN_TOKEN, in_state
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.pages.conftest import BROWSER
from tests.pages.visitors import FROM_OUR_PAGE, visiting
from tests.pages.walking import Form, Route, forms_of, names_in, routes
from tests.test_hostile import require_readable

NOW = datetime.now(UTC)
FORM = FROM_OUR_PAGE["content-type"]

# By the first folder of the address. A parameter without a value here fails its route.
VALUES: Mapping[str, Mapping[str, str]] = {
    "static": {"name": "aftermath.css"},
    "incidents": {"id": "INC-1", "entry": "1", "other": "INC-2"},
    "reviews": {"review": "REV-1", "finding": "01990a52-5c1e-7000-8000-000000000001", "form": "html", "version": "1"},
    "action-items": {"item": "AI-1"},
    "sources": {"name": "alertmanager", "id": "1", "form": "settings"},
    "services": {"name": "shop", "window": "once"},
    "rules": {"name": "teams"},
    "calendars": {"name": "office"},
    "response": {"name": "outage", "service": "shop", "playbook": "draft", "version": "1", "person": "ada"},
    "status-page": {"name": "Payments", "public_id": "0198c9b4-3f0a-7c11-8d52-6a1f6b2c9d01", "update_id": "1"},
}
# Parameters of addresses that a page reads itself, instead of in its signature.
READ_BY_PAGE = {
    "/incidents": names_in(listing.Query),
    "/numbers": names_in(numbers_query._Fields),
}
# The functions that do so, and those of the frame, which only repeat the address.
READERS = {
    "incidents/listing.py": {"show"},
    "numbers/__init__.py": {"numbers", "page", "_refused"},
    "web/frame.py": {"address_of"},
}
# What a parameter needs beside it to be read.
BESIDE = {("/incidents/{id}", "after"): "alerts=all"}
# Parameters that are text, or a switch for which any text counts. All others refuse what is no value of theirs.
ANY_TEXT = {
    "alerts", "calendar", "environment", "facilitator", "incident", "kind", "label", "next", "owner", "prompt", "q",
    "replayed", "service", "source", "table",
}  # fmt: skip
NEVER_RIGHT = {"markup and controls", "NUL", "-1", "1e400", "no base64"}
CURSORS_IN = {"after", "before", "cursor"}
PART = 16_384
FOR_ANYONE = {"/login", "/logout", "/zone"}

TEXT = '"\'><b id=hostile onhostile=1>{{ 7 * 7 }} " onhostile="1\u202egnp.exe\u2066\u200b\x07\x85\ufeff'
TEXTS = {
    "markup and controls": TEXT.encode(),
    "NUL": b"a\0b",
    "surrogate": b"\xed\xa0\x80",
    "invalid UTF-8": b"a\xff\xfe",
    "quoted surrogate": b'"\\ud800"',
    "quoted NUL": b'"a\\u0000" = sev1',
    "long": b"x" * 10_001,
    "too long": "é".encode() * 25_000,
    "nothing": b"",
    "spaces": "\u2003 \t".encode(),
    "lines": b"\r\n=\r\n\n\r,\n://",
    "other host": b"//evil.test",
}
NUMBERS = {text: text.encode() for text in ("-1", "0", "9223372036854775808", "1" + "0" * 30, "1e400", "NaN", "\u0663")}
TIMES = {
    text: text.encode()
    for text in (
        "0001-01-01T00:00",
        "0001-01-01T00:00:00+14:00",
        "2199-12-31T23:59",
        "2200-01-01T00:00",
        "9999-12-31T23:59",
        "9999-12-31T23:59:59-14:00",
        "2026-11-30T14:05+24:00",
        "2199-12-31",
        "25:61",
        "00:00-24:00",
    )
}
ODD: dict[str, bytes] = TEXTS | NUMBERS | TIMES
SOME: dict[str, bytes] = {
    what: ODD[what] for what in ("markup and controls", "NUL", "invalid UTF-8", "too long", "-1", "1e400")
}


def _cursor(key: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(key).encode())


CURSORS = {
    "no base64": b"!!!!",
    "no JSON": base64.urlsafe_b64encode(b"[1"),
    "an object": _cursor({"a": 1}),
    "deep": base64.urlsafe_b64encode(b"[" * 700),
    "numbers": _cursor([2**63, 2**63]),
    "a long number": base64.urlsafe_b64encode(b"[" + b"9" * 700 + b"]"),
    "NUL": _cursor(["a\0"]),
    "surrogate": _cursor(["\ud800"]),
    "year 1": _cursor(["0001-01-01T00:00:00+14:00", 1]),
    "year 9999": _cursor(["9999-12-31T23:59:59-14:00", "00000000-0000-0000-0000-000000000000"]),
    "nothing": _cursor([None, None]),
}

# What a field has that the page leaves empty, so that another field's value is reached.
_counter = count(1)
IN_AN_HOUR, AN_HOUR_AGO = (f"{NOW + timedelta(hours=hours):%Y-%m-%dT%H:%M}" for hours in (1, -1))
SAMPLES = {
    "acknowledge": "5 m",
    "author": "ada",
    "because": "text",
    "body": "text",
    "channel": "text",
    "closed_at": AN_HOUR_AGO,
    "correlation_label": "incident_key",
    "currency": "EUR",
    "customers": "5",
    "dropped_because": "text",
    "expected": "200",
    "fingerprint": "",
    "high": "300",
    "impact": "0.5",
    "incidents": "INC-1",
    "kind": "alertmanager",
    "low": "100",
    "note": "text",
    "people": "ada",
    "person": "ada",
    "reason": "text",
    "role": "expert",  # which many may hold
    "scheduled_to": IN_AN_HOUR,
    "service": "shop",
    "source": "hooks",
    "text": "text",
    "title": "text",
    "to": f"{NOW + timedelta(hours=2):%Y-%m-%dT%H:%M}",
    "token": ADMIN_TOKEN,
    "why": "text",
}
SHARED = {"at", "key", "note", "version", "why"}  # fields that all forms of an area read with the same function
NEW = {"name", "reason", "key", "note", "title"}  # must differ each time


# — the service and its visitors —


@dataclass(frozen=True, slots=True)
class World:
    """A service with at least one of each thing. `rest` may do everything."""

    rest: httpx.AsyncClient
    admin: httpx.AsyncClient
    nobody: httpx.AsyncClient
    context: Context


@pytest.fixture
async def world(context: Context, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(session, "ATTEMPTS_AT_MOST", 10**6)
    async with visiting(context, token=ADMIN_TOKEN) as admin, _browser(admin) as nobody:
        admin.headers.update(BROWSER)
        it = World(client, admin, nobody, context)
        await fill(it)
        yield it


def _browser(like: httpx.AsyncClient) -> httpx.AsyncClient:
    """Another visitor of the same app, who has not signed in."""
    return httpx.AsyncClient(transport=like._transport, base_url=like.base_url, headers=BROWSER)


# What the forms of an area need, if it is more than their own.
NEEDS = {
    "action-items": {"reviews"},
    "calendars": {"services"},
    "incidents": {"plans", "incidents"},
    "response": {"services", "plans", "response"},
    "rules": {"services"},
}


async def fill(it: World, area: str = "") -> list[str]:
    """Adds what is missing, and new incidents, tokens and items of quarantine. Returns the pages that show them."""
    pages = []
    fillers = {
        "sources": _sources,
        "services": _services,
        "plans": _plans,
        "incidents": _incidents,
        "response": _playbooks,
        "reviews": _reviews,
        "status-page": _status_page,
        "tokens": _tokens,
    }
    needed = NEEDS.get(area, {area})
    for name, add in fillers.items():
        if name in needed or not area:
            pages += await add(it)
    return pages


async def _send(it: World, method: str, path: str, body: object) -> Any:
    answer = await it.rest.request(method, f"/{path}" if path.startswith("web") else f"/api/v1/{path}", json=body)
    assert answer.status_code < 300, (path, answer.text)
    return answer.json()


async def _sources(it: World) -> list[str]:
    start, end = ((NOW - timedelta(hours=hours)).isoformat() for hours in (2, 1))
    await _send(it, "PUT", "rules/beats", {"matchers": ['alertname="Watchdog"'], "heartbeat_seconds": 900})
    alerts = [
        an_alert(start, service="shop"),
        an_alert(start, end, service="shop", instance="b"),
        an_alert("yesterday", n=str(next(_counter))),
        an_alert(start, alertname="Watchdog"),
    ]
    await _send(it, "POST", "webhooks/alertmanager", a_delivery(*alerts))
    await _send(it, "PUT", "sources/signed", {"kind": "grafana"})
    await _send(it, "PUT", "sources/alertmanager/reconciler", {"peers": ["http://127.0.0.1:9093"]})
    return ["/sources/alertmanager", "/sources/signed", "/sources/quarantine"]


async def _services(it: World) -> list[str]:
    once = {"from": (NOW + timedelta(days=1)).isoformat(), "to": (NOW + timedelta(days=2)).isoformat()}
    hours = {"monday": [{"from": "09:00", "to": "17:00"}]}
    await _send(it, "PUT", "services/shop", {"owner": "ada", "links": [{"title": "a", "url": "https://a.test"}]})
    await _send(it, "PUT", "services/shop/rates", [{"currency": "EUR", "low": "1", "expected": "2", "high": "3"}])
    await _send(it, "PUT", "services/shop/objective", {"target": "0.99", "window": {"rolling_days": 30}})
    await _send(it, "PUT", "maintenance/once", {"services": ["shop"], "reason": "text", "once": once})
    await _send(it, "PUT", "calendars/office", {"zone": "UTC", "hours": hours, "holidays": []})
    await _send(it, "PUT", "rules/teams", {"matchers": ['team="a"']})
    return ["/services/shop", "/calendars/office", "/rules/teams", "/rules"]


async def _plans(it: World) -> list[str]:
    plan = {
        "exit_criteria": ["text"],
        "roles": ["commander", "scribe"],
        "channels": [{"kind": "slack", "name": "text"}, {"kind": "phone", "name": "text"}],
        "steps": ["text"],
    }
    await _send(it, "PUT", "incident-types/outage", plan)
    for name in ("ada", "temporary"):
        await _send(it, "PUT", f"people/{name}", {"contacts": [{"kind": "phone", "value": "1"}]})
    await _send(it, "PUT", "delegates/commander", {"people": ["ada"]})
    target = {"severity": "sev1", "acknowledge_seconds": 60}
    await _send(it, "PUT", "targets?service=shop", {"targets": [target]})
    return ["/response/types/outage", "/response/targets", "/response/people", "/response/people/temporary"]


async def _playbooks(it: World) -> list[str]:
    """A draft and a verified version, of an author with another token. Each pair has a service of its own."""
    author, other = (Bearer(name, Scope.WRITE, id=name) for name in ("author", "other"))
    pages = ["/response/playbooks/_new"]
    for shop in ("shop", f"shop-{next(_counter)}"):
        await _send(it, "PUT", f"services/{shop}", {})
        for name in ("draft", "verified"):
            async with db.session(it.context.engine) as session:
                row, _ = await playbooks.put_playbook(
                    session, shop, name, body="text", link=None, author="text", token=author, now=NOW
                )
                if name == "verified":
                    await playbooks.verify(session, row, by="text", token=other, ref=None, now=NOW)
            pages.append(f"/response/playbooks/{shop}/{name}")
    return pages


async def _incidents(it: World) -> list[str]:
    """One that is open and one that is over, with a deployment before them. Each pair has a service of its own, because
    pages of incidents that share their cost with many others take longer.
    """
    start = (NOW - timedelta(hours=3)).isoformat()
    shop = f"shop-{next(_counter)}"
    await _send(it, "POST", "deployments", {"id": shop, "service": shop, "started_at": start})
    declaration = {"title": "t", "service": shop, "detected_at": start}
    pages = ["/incidents/new"]
    for is_over in (False, True):
        declared = await _send(it, "POST", "incidents", declaration)
        place = f"incidents/{declared['number']}"
        task = await _send(it, "POST", f"{place}/tasks", {"text": "text", "effect": "positive"})
        await _send(it, "PUT", f"{place}/related/INC-1", {})
        await _send(it, "POST", f"{place}/roles", {"role": "commander", "person": "ben", "at": start})
        if is_over:
            await _send(it, "POST", f"{place}/resolve", {})
        pages += [f"/{place}", f"/{place}?entry={task['id']}"]
    # No person has declared the response to this one.
    await _send(it, "POST", "webhooks/alertmanager", a_delivery(an_alert(start, service=f"{shop}-alerted")))
    [alerted] = (await it.rest.get("/api/v1/incidents", params={"service": f"{shop}-alerted"})).json()["items"]
    return [*pages, f"/incidents/{alerted['number']}"]


async def _reports(it: World) -> list[str]:
    """Public reports, of an author with another token: one with warnings, and one for each step that follows."""
    first = {"status": "resolved", "body": "text"}
    public = await _send(it, "POST", "status-page/incidents", {"title": "t", "first": first})
    author, other = (Bearer(name, Scope.WRITE, id=name) for name in ("author", "other"))
    how: dict[str, Any] = {"site": public_report.Site("Acme", ""), "now": NOW}
    pages = []
    for steps, words in (([], "a@b.example or c@d.example"), *(([*STEPS[:taken]], "text") for taken in range(3))):
        needed = {"title": "t", "facilitator": "grace", "scheduled_at": f"{NOW.isoformat()}"}
        made = await _send(it, "POST", "reviews", needed)
        await _send(it, "POST", f"reviews/{made['number']}/hold", {})
        async with db.session(it.context.engine) as session:
            review = await reviews.hold_row(session, UUID(made["id"]))
            written = PublicText.of({"title": "t", "summary": words})
            new = public_report.NewVersion(written, PublicOutline.FULL, "author", UUID(public["id"]))
            row, _ = await public_report.write(session, review, new, token=author, **how)
            for step in steps:
                await step(session, review, row, by="text", token=other, **how)
        pages.append(f"/reviews/{made['number']}/public-report")
    return pages


STEPS = (public_report.approve, public_report.publish)


async def _reviews(it: World) -> list[str]:
    """One that is a draft, one that is published, and one that was held with action items in each state; and an
    incident without any.
    """
    over = await _send(it, "POST", "incidents", {"title": "t", "service": f"shop-{next(_counter)}"})
    await _send(it, "POST", f"incidents/{over['number']}/resolve", {})
    pages = [*await _reports(it), "/reviews/new", f"/incidents/{over['number']}"]
    steps: list[list[str]] = [[], ["hold", "publish"], ["hold"]]
    for taken in steps:
        needed = {"title": "t", "incidents": ["INC-1"], "summary": "s", "nothing_now_because": "n"}
        people = [{"person": "ada", "part": "support"}]
        made = await _send(it, "POST", "reviews", needed | {"facilitator": "grace", "participants": people})
        place = f"reviews/{made['number']}"
        finding = await _send(it, "POST", f"{place}/findings", {"kind": "parked", "text": "We should have known"})
        await _send(it, "POST", f"{place}/findings", {"kind": "learning", "text": "t"})
        for step in taken:
            await _send(it, "POST", f"{place}/{step}", {})
        pages += [f"/{place}", f"/{place}?finding={finding['id']}"]
    item = {"review": made["number"], "title": "t", "phase": "response", "priority": 1, "owner": "ada"}
    for state in ("open", "in_progress", "done"):
        number = (await _send(it, "POST", "action-items", item))["number"]
        await _send(it, "PATCH", f"action-items/{number}", {"state": state})
        pages.append(f"/action-items/{number}")
    return pages


async def _status_page(it: World) -> list[str]:
    """A component whose service has an incident, a public incident that is open, one that is over, and maintenance."""
    await _send(it, "PUT", "services/shop", {})
    await _send(it, "PUT", "status-page/components/Payments", {"services": ["shop"]})
    first = {"status": "investigating", "body": "text"}
    known = VALUES["status-page"]["public_id"]
    await _send(it, "POST", "status-page/incidents", {"id": known, "title": "t", "first": first})
    pages = ["/status-page"]
    planned = {"kind": "maintenance", "begins_at": f"{NOW.isoformat()}", "scheduled_to": f"{NOW + timedelta(1)}"}
    for more in ({}, {}, planned | {"first": first | {"status": "scheduled"}}):
        public = await _send(it, "POST", "status-page/incidents", {"title": "t", "first": first} | more)
        pages.append(f"/status-page/incidents/{public['id']}")
    over = pages[1].removeprefix("/")
    await _send(it, "POST", f"{over}/updates", {"status": "resolved", "body": "text"})
    return pages


async def _tokens(it: World) -> list[str]:
    async with db.session(it.context.engine) as session:
        await create_token(session, "text", Scope.READ, now=NOW)
    return ["/tokens"]


def address_of(route: Route) -> str:
    values = VALUES.get(route.path.split("/")[1], {})
    return re.sub(r"\{(\w+)\}", lambda found: quote(values[found[1]], safe=""), route.path)


async def crawl(visitor: httpx.AsyncClient, *more: str) -> dict[str, httpx.Response]:
    """Every page, and a few of each kind of link on them."""
    known = routes("GET")
    todo = [*more, *(address_of(route) for route in known if not route.path.startswith("/static"))]
    seen: dict[str, httpx.Response] = {}
    kinds: dict[tuple[str, ...], int] = {}
    while todo:
        address = todo.pop(0)
        if address in seen:
            continue
        seen[address] = page = await visitor.get(address)
        if not page.headers.get("content-type", "").startswith("text/html"):
            continue
        for found in re.findall(r'<a\b[^>]*\bhref="([^"#]+)', page.text):
            link = html.unescape(found)
            path, _, query = link.partition("?")
            route = next((each for each in known if each.matches(path)), None)
            if route is not None and link not in seen:
                kind = (route.path, *sorted(pair.partition("=")[0] for pair in query.split("&")))
                kinds[kind] = kinds.get(kind, 0) + 1
                todo += [link] if kinds[kind] <= 3 else []
    return seen


CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff]")
MARKUP = re.compile(r"<b id=hostile|[\"'] onhostile|\b49\b gnp")


PLAIN = re.compile(r"pydantic|\b(Input|String|Value|Field|List) (should|error|required)|\b(query|body|path)/")


class Checks:
    """What a visitor must never see, collected."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def add(self, response: httpx.Response, what: str, statuses: Collection[int]) -> None:
        """Errors are pages in plain English, and text from outside is text."""
        status, media_type = response.status_code, response.headers.get("content-type", "")
        if status not in statuses:
            self._fail(what, f"{status} {words_of(response)}")
        if status >= 400 and not media_type.startswith("text/html"):
            self._fail(what, f"{status} {media_type}")
        if media_type.startswith("text/html"):
            for pattern in (CONTROLS, MARKUP):
                if found := pattern.search(response.text):
                    self._fail(what, repr(response.text[max(0, found.start() - 200) : found.end() + 100]))
            if status >= 400 and (found := PLAIN.search(words_of(response))):
                self._fail(what, f"not plain: {words_of(response)}")

    def end(self) -> None:
        if self.failures:
            pytest.fail("\n".join(self.failures), pytrace=False)

    def _fail(self, what: str, why: str) -> None:
        self.failures.append(f"{what}: {why}")


def words_of(response: httpx.Response) -> str:
    """The reason of a refusal, else the beginning of the page."""
    main = response.text.partition("<main")[2].partition("</main>")[0] or response.text
    found = re.search(r'(?s)<p class="problem"[^>]*>(.*?)</p>', main)
    return re.sub(r"\s+", " ", found[1] if found else re.sub(r"(?s)<[^>]*>", " ", main)).strip()[:300]


# — addresses —


def parameters_of(route: Route) -> list[str]:
    return [*route.query, *READ_BY_PAGE.get(route.path, ())]


def queries(route: Route, name: str) -> Iterator[tuple[str, str]]:
    """What is odd, and the query with it."""
    values = CURSORS if name in CURSORS_IN else TEXTS if name in ANY_TEXT else ODD
    odd = {what: quote_from_bytes(value, safe="")[:60_000] for what, value in (SOME | values).items()}
    odd |= {"an escape": "%", "half a surrogate": "%ED%A0%80", "a list": "a,b"}
    beside = BESIDE.get((route.path, name), "")
    for what, value in odd.items():
        yield what, "&".join(filter(None, (f"{name}={value}", beside)))
    yield "repeated", "&".join([*([f"{name}={quote(TEXT)}"] * 20), f"{name}="])


def test_parameters_that_pages_read_themselves_are_known() -> None:
    """A new reader of `query_params` has to be listed, with what it reads."""
    place = Path(app.pages.__file__).parent
    found: dict[str, set[str]] = {}
    for path in place.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = _own_nodes(node)
                if any(isinstance(each, ast.Attribute) and each.attr == "query_params" for each in own):
                    found.setdefault(str(path.relative_to(place)), set()).add(node.name)
    assert found == READERS
    paths = {route.path for route in routes("GET")}
    assert set(READ_BY_PAGE) <= paths
    assert all(names for names in READ_BY_PAGE.values())


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Without those of functions within it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _own_nodes(child)


async def test_no_parameter_of_an_address_breaks_a_page(world: World) -> None:
    checks = Checks()
    for route in routes("GET"):
        address = address_of(route)
        visitor = world.nobody if route.path in FOR_ANYONE else world.admin
        for name in parameters_of(route):
            for what, query in queries(route, name):
                response = await visitor.get(f"{address}?{query}")
                is_wrong = name not in ANY_TEXT and what in NEVER_RIGHT
                statuses = {404, 422} if is_wrong else {200, 303, 404, 422}
                checks.add(response, f"{address} {name}: {what}", statuses)
        if parameters_of(route):
            every = "&".join(f"{name}={quote(TEXT)}" for name in parameters_of(route))
            checks.add(await visitor.get(f"{address}?{every}"), f"{address} with everything", {200, 303, 404, 422})
    checks.end()


async def test_no_path_and_no_unknown_parameter_breaks_a_page(world: World) -> None:
    checks = Checks()
    unknown = f"?a=%00&{quote(TEXT)}=1"
    for route in routes("GET"):
        address = address_of(route)
        is_open = route.path.startswith("/static") or route.path in FOR_ANYONE
        for visitor, statuses in ((world.nobody, {200} if is_open else {303}), (world.admin, {200, 303})):
            checks.add(await visitor.get(address), address, statuses)
            checks.add(await visitor.get(address + unknown), f"{address} {unknown}", {*statuses, 422})
        for what, value in (ODD | CURSORS).items():
            if "{" in route.path and value and not route.path.startswith("/static"):
                odd = re.sub(r"\{\w+\}", quote_from_bytes(value[:8000], safe="").replace("\\", "%5C"), route.path)
                checks.add(await world.admin.get(odd), f"{route.path} {what}", {200, 303, 404})
    checks.end()


# — forms —


async def forms_by_route(it: World, checks: "Checks") -> dict[str, list[Form]]:
    """The forms on all pages, by the path of the route that they are sent to; of those with equal fields the first."""
    found: dict[str, dict[tuple[str, ...], Form]] = {}
    pages = await crawl(it.admin, *await fill(it))
    pages["/login"] = await it.nobody.get("/login")
    for address, page in pages.items():
        checks.add(page, address, {200, 303})
        for form in forms_of(address, page.text):
            found.setdefault(route_of(form), {}).setdefault(tuple(form.names), form)
    return {path: list(forms.values()) for path, forms in found.items()}


POSTED = routes("POST")


def route_of(form: Form) -> str:
    path = next((route.path for route in POSTED if route.matches(form.action)), None)
    assert path is not None, f"no route accepts the form {form.action} on {form.page}"
    return path


def filled_in(form: Form) -> dict[str, str]:
    """With a value in every field that needs one."""
    path = route_of(form)
    values = {name: value or SAMPLES.get(name, "") for name, value in form.fields.items()}
    for name in NEW & set(values):
        if name != "name" or path != "/login":
            values[name] = f"{values[name] or 'n'}-{next(_counter)}"[-100:]
    if "other" in values:
        values["other"] = "INC-1"
    if path.endswith("/milestones"):
        values["milestone"] = "identified"
    if path.endswith("/acknowledge") and "at" in values:
        values["at"] = AN_HOUR_AGO
    if path.endswith("/rates") and not values.get("was_currency"):
        values["from"] = f"{NOW - timedelta(minutes=next(_counter)):%Y-%m-%dT%H:%M}"
    if path == "/response/targets":
        values["from"] = f"{NOW - timedelta(minutes=next(_counter)):%Y-%m-%dT%H:%M}"
    if path.startswith("/status-page") and "begins_at" in values:
        values["begins_at"] = AN_HOUR_AGO
    if path == "/services/{name}/maintenance" and values.get("from"):
        values["from"] = IN_AN_HOUR
    return values


def body_of(values: Mapping[str, str | bytes]) -> bytes:
    pairs = ((name, value if isinstance(value, bytes) else value.encode()) for name, value in values.items())
    return "&".join(f"{quote(name)}={quote_from_bytes(value)}" for name, value in pairs).encode()


async def post(visitor: httpx.AsyncClient, address: str, body: bytes, **headers: str) -> httpx.Response:
    return await visitor.post(address.partition("#")[0], content=body, headers=FROM_OUR_PAGE | headers)


class Sending:
    """A form that is sent again and again, and found anew when it was accepted."""

    def __init__(self, it: World, form: Form, checks: Checks) -> None:
        self._it, self.form, self._checks = it, form, checks
        self._path = route_of(form)
        self.visitor = it.nobody if self._path in FOR_ANYONE else it.admin

    async def send(self, changes: Mapping[str, bytes], what: str) -> bool:
        """Whether it was accepted."""
        return await self.send_body(body_of({**filled_in(self.form), **changes}), what)

    async def send_body(self, body: bytes, what: str) -> bool:
        response = await post(self.visitor, self.form.action, body)
        what = f"{self.form.action} {what}"
        self._checks.add(response, what, {200, 303, 401, 403, 404, 409, 412, 413, 422})
        if response.status_code not in {200, 303}:
            return False
        if self.visitor is self._it.nobody:
            self.visitor.cookies.clear()
        else:
            address = response.headers.get("location", self.form.page).partition("#")[0]
            page = await self._look(address, what)
            if not self._found_on(address, page):  # mostly it is there, which saves a request
                await self.renew()
        return True

    async def look_around(self, what: str) -> None:
        """What was accepted breaks no list and no number."""
        for address in ("/", "/incidents?within=all", "/numbers", f"/{self.form.action.split('/')[1]}"):
            if self.visitor is self._it.admin:
                await self._look(address, what)

    async def _look(self, address: str, what: str) -> httpx.Response:
        page = await self.visitor.get(address)
        self._checks.add(page, f"{address} after {what}", {200, 303})
        return page

    async def renew(self) -> None:
        """Finds the form anew. Forms say which version they change, and some exist only once."""
        if self.visitor is self._it.nobody:
            return
        area = self.form.action.split("/")[1]
        seen = {}
        for pages in ([self.form.page], None):
            seen = {address: await self.visitor.get(address) for address in pages or await fill(self._it, area)}
            if any(self._found_on(address, page) for address, page in seen.items()):
                return
        # Some fields are only there if there is something to choose.
        if any(self._found_on(address, page, same_fields=False) for address, page in seen.items()):
            return
        pytest.fail(f"{self.form.action} with {self.form.names} of {self.form.page} is on no page any more")

    def _found_on(self, address: str, page: httpx.Response, *, same_fields: bool = True) -> bool:
        for form in forms_of(address, page.text):
            if route_of(form) == self._path and (form.names == self.form.names or not same_fields):
                self.form = form
                return True
        return False


async def test_every_route_for_forms_has_a_form_that_is_accepted(world: World) -> None:
    """Else the test below would try less than it seems to."""
    checks = Checks()
    found = await forms_by_route(world, checks)
    assert set(found) == {route.path for route in routes("POST")}
    for form in (form for path, forms in found.items() if path != "/logout" for form in forms):
        sending = Sending(world, form, checks)
        await sending.renew()  # other forms have changed what it changes
        if not await sending.send({}, "as it is"):
            checks.failures.append(f"{form.action} {filled_in(form)} was refused")
    checks.end()


# Their pages take longer, and fields of the same kind are read by the same code: all values are tried for the first
# one, and a few for the first form with each name. All pages are looked at in the end.
QUICK, COUNTS = {"reviews"}, {"minutes", "new_to", "priority", "version"}
BRIEF = {what: ODD[what] for what in ("NUL", "too long", "-1")}


TOGETHER = {
    "action-items": "reviews",
    **dict.fromkeys(("calendars", "rules", "sources"), "grouping"),
    **dict.fromkeys(("login", "tokens", "zone"), "access"),
}


def area_of(path: str) -> str:
    """What is tried together, which saves walks over all pages."""
    folder = path.split("/")[1]
    return TOGETHER.get(folder, folder)


AREAS = sorted({area_of(route.path) for route in routes("POST")} - {"logout"})


@pytest.mark.timeout(900)
@pytest.mark.parametrize("area", AREAS)
async def test_no_field_of_a_form_breaks_a_page(world: World, area: str) -> None:
    checks = Checks()
    tried = accepted = 0
    known = {"form"}
    found = await forms_by_route(world, checks)
    for form in (form for path, forms in found.items() if area_of(path) == area for form in forms):
        sending = Sending(world, form, checks)
        for name in form.names:
            is_text = await sending.send({name: TEXT.encode()}, f"{name}: markup and controls")
            thing = re.sub(r"\{\w+\}$", "_new", route_of(form))  # forms that add and that change read the same fields
            few = {name, f"{thing} {name}"} & known or name in form.choices | form.lists
            values = SOME if few else TEXTS if is_text else SOME | NUMBERS | TIMES
            if area in QUICK:
                kind = "time" if name.endswith("_at") else "count" if name in COUNTS else "other"
                values = BRIEF if kind in known else SOME | {"time": TIMES, "count": NUMBERS}.get(kind, {})
                known.add(kind)
            known |= {name} & SHARED | {f"{thing} {name}"}
            for what, value in values.items():
                tried += 1
                accepted += await sending.send({name: value}, f"{name}: {what}")
        default = filled_in(sending.form)
        twice = body_of(default) + b"&" + body_of(dict.fromkeys(default, "a\0b"))
        for what, body in {"twice": twice, "empty": b"", "bytes": b"\xff=\xff", "names": b"%ff=%ff&=&&a=%00"}.items():
            await sending.send_body(body, what)
        await sending.look_around(form.action)
    for address, page in (await crawl(world.admin)).items():
        checks.add(page, f"{address} at the end", {200, 303, 404})
    print(f"{area}: {tried} values, {accepted} accepted")  # noqa: T201
    checks.end()
    if area != "access":  # among them tokens; REST does not find a source whose name has a slash
        await require_readable(world.rest)


# — who may send what, and in which order it is checked —


async def test_forms_are_for_those_who_may_send_them(world: World) -> None:
    checks = Checks()
    found = await forms_by_route(world, checks)
    admins: set[str] = set()
    async with visiting(world.context, Scope.READ) as reader, visiting(world.context, Scope.WRITE) as writer:
        for path, [form, *_] in found.items():
            if path in FOR_ANYONE:
                continue
            body = body_of(filled_in(form) | {"nothing": b"x" * FORM_BYTES})  # too large, should it come to that
            response = await post(world.nobody, form.action, body)
            checks.add(response, f"{path} by nobody", {303})
            assert response.headers["location"].startswith("/login?next=")
            checks.add(await post(reader, form.action, body), f"{path} by a reader", {403})
            response = await post(writer, form.action, body)
            checks.add(response, f"{path} by a writer", {403, 413})
            admins |= {path} if response.status_code == 403 else set()
        for visitor, name in ((reader, "reader"), (writer, "writer")):
            for address, page in (await crawl(visitor)).items():
                checks.add(page, f"{address} for a {name}", {200, 303, 403})
                shown = {route_of(form) for form in forms_of(address, page.text)} - FOR_ANYONE
                refused = shown & admins if visitor is writer else shown
                checks.failures += [f"{address} shows a {name} the form of {each}" for each in refused]
    checks.end()
    assert {path.split("/")[1] for path in admins} == {"tokens", "sources", "rules"}


async def test_forms_from_elsewhere_of_another_type_or_too_large_are_refused(world: World) -> None:
    checks = Checks()
    found = await forms_by_route(world, checks)
    for path, [form, *_] in found.items():
        visitor = world.nobody if path in FOR_ANYONE else world.admin
        body = body_of(filled_in(form))
        many = b"&".join(b"a=b" for _ in range(FIELDS_AT_MOST + 1))
        for status, what, content, headers in (
            (403, "without origin", body, {"content-type": FORM}),
            (403, "cross-site", body, {"content-type": FORM, "sec-fetch-site": "cross-site"}),
            (403, "of another origin", body, {"content-type": FORM, "origin": "https://evil.test"}),
            (415, "JSON", b"{}", BROWSER | {"content-type": "application/json"}),
            (415, "multipart", body, BROWSER | {"content-type": "multipart/form-data; boundary=a"}),
            (415, "without type", body, BROWSER),
            (413, "too large", b"a=" + b"x" * FORM_BYTES, BROWSER | {"content-type": FORM}),
            (422, "too many fields", many, BROWSER | {"content-type": FORM}),
            (422, "not UTF-8", b"a=\xff", BROWSER | {"content-type": FORM}),
        ):
            if path == "/logout" and status != 403:
                continue  # it reads no form
            request = visitor.build_request("POST", form.action.partition("#")[0], content=content)
            for name in ("sec-fetch-site", "content-type"):
                request.headers.pop(name, None)
            request.headers.update(headers)
            checks.add(await visitor.send(request), f"{path} {what}", {status})
    checks.end()


class EndlessClient:
    """Counts the parts of its body that were read."""

    def __init__(self) -> None:
        self.read = 0
        self.sent: list[MutableMapping[str, Any]] = []

    async def receive(self) -> MutableMapping[str, Any]:
        self.read += 1
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x" * PART, "more_body": True}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)


async def test_without_a_session_no_body_is_read(context: Context) -> None:
    """An endless one, from our own page as far as its headers show."""
    app = in_state(create_app(context.settings), context)
    for route in routes("POST"):
        client = EndlessClient()
        headers = {**FROM_OUR_PAGE, "host": "aftermath.test"}
        path = address_of(route)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("192.0.2.1", 1),
            "server": ("aftermath.test", 80),
        }
        async with asyncio.timeout(20):
            await app(scope, client.receive, client.send)
        status, read = client.sent[0]["status"], client.read
        if route.path in {"/login", "/zone"}:  # no session is needed, but no large body is read either
            assert (status, read) == (413, 1 + FORM_BYTES // PART), route.path
        else:
            assert (status, read) == (303, 0), route.path
