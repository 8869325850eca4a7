"""Addresses: those of forms lead to their pages, all pages are examined, and heavy ones wait for their turn."""

import asyncio
import html
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from app.base.http.context import Context
from app.base.http.limits import turns
from app.base.http.limits.turns import Turns
from tests.pages.conftest import sign_in
from tests.pages.test_browser import PAGES
from tests.pages.walking import routes

# A form, and the page on which it is.
FORMS = {
    "/incidents/INC-7/acknowledge": "/incidents/INC-7",
    "/incidents/INC-7/timeline/5/correct": "/incidents/INC-7/timeline",
    "/incidents/INC-7/related/INC-8/remove": "/incidents/INC-7",
    "/reviews/REV-7/publish": "/reviews/REV-7",
    "/reviews/REV-7/findings/01990a52-5c1e-7000-8000-000000000001/remove": "/reviews/REV-7",
    "/action-items/AI-7/effect": "/action-items/AI-7",
    "/services/a%2Fb/rates/remove": "/services/a%2Fb",
    "/services/a/maintenance/b/end": "/services/a",
    "/rules/general/move": "/rules/general",
    "/rules/_new/try": "/rules/_new",
    "/calendars/office/delete": "/calendars/office",
    "/sources/a%2Fb/settings": "/sources/a%2Fb",
    "/sources/%71uarantine/settings": "/sources/%71uarantine",
    "/sources/quarantine/7/replay": "/sources/quarantine",
    "/incidents/INC-7/roles/leave": "/incidents/INC-7",
    "/response/targets/remove": "/response/targets",
    "/response/playbooks/a%2Fb/restart/1/verify": "/response/playbooks/a%2Fb/restart",
    "/response/delegates": "/response",
    "/tokens/revoke": "/tokens",
    "/logout": "/",
    "/zone": "/",
}


NO_PAGES = {"/static/{name}", "/incidents.csv", "/reviews/{review}/report.{form}", "/reviews/{review}/meeting.ics"}
# Examined without a session, only a redirect, and examined as the page for customers that it is.
ELSEWHERE = {"/login", "/response", "/reviews/{review}/public-report/{version}/page"}


def test_every_page_is_examined_in_a_browser() -> None:
    pages = [each for each in routes("GET") if each.path not in NO_PAGES | ELSEWHERE]
    exact = {each.path for each in pages}
    examined = {address.partition("?")[0] for address in PAGES.values()}
    missing = [each.path for each in pages if not any(each.matches(one) for one in examined - (exact - {each.path}))]
    assert missing == []


@pytest.mark.parametrize("form", FORMS)
async def test_the_address_of_a_form_leads_to_its_page(form: str, visitor: httpx.AsyncClient) -> None:
    for ask in (visitor.get, visitor.head):
        response = await ask(form)
        assert (response.status_code, response.headers.get("location")) == (303, FORMS[form])


async def test_after_signing_in_again_a_form_leads_to_its_page(visitor: httpx.AsyncClient) -> None:
    refused = await visitor.post("/services/a%2Fb/rates", data={"currency": "EUR"})
    address = urlsplit(refused.headers["location"])
    assert (refused.status_code, address.path) == (303, "/login")
    response = await sign_in(visitor, next="/services/a%2Fb/rates")
    response = await visitor.get(response.headers["location"])
    assert (response.status_code, response.headers["location"]) == (303, "/services/a%2Fb")


async def test_signing_in_and_choosing_a_zone_keep_repeated_filters(visitor: httpx.AsyncClient) -> None:
    address = "/incidents?status=open&status=resolved&label=a%3Db&label=c%3Dd"
    refused = await visitor.get(address)
    assert parse_qs(urlsplit(refused.headers["location"]).query) == {"next": [address]}
    await sign_in(visitor)
    page = (await visitor.get(address)).text
    assert f'name="next" value="{html.escape(address)}"' in page


async def test_a_method_that_the_api_does_not_know_is_a_problem(client: httpx.AsyncClient) -> None:
    for method, path in (("DELETE", "/api/v1/incidents"), ("PUT", "/incidents/INC-7"), ("GET", "/api/v1/rules/try")):
        response = await client.request(method, path, headers={"accept": "text/html"})
        assert response.status_code in {404, 405}
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/", "/numbers", "/services", "/services/checkout"])
async def test_a_page_with_numbers_of_many_incidents_waits_for_its_turn(
    path: str,
    client: httpx.AsyncClient,
    signed_in: httpx.AsyncClient,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await client.put("/api/v1/services/checkout", json={})
    assert (await signed_in.get(path)).status_code == 200
    monkeypatch.setattr(turns, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(context.part(Turns), "_free", asyncio.Semaphore(0))
    response = await signed_in.get(path)
    assert (response.status_code, "Try again" in response.text, "kept on disk" in response.text) == (503, True, False)
    assert (await signed_in.get("/incidents")).status_code == 200
