"""The catalog of services over HTTP, and the cost of an hour of outage."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.incidents.impact.rates import THE_BEGINNING, Rate, rate_at
from app.incidents.impact.store import rates_of
from tests.conftest import ClientAs

SERVICES = "/api/v1/services"


def a_rate(**changes: object) -> dict[str, object]:
    return {"currency": "EUR", "low": "1", "expected": "2", "high": "3"} | changes


async def test_a_service_is_created_then_updated(client: httpx.AsyncClient) -> None:
    links = [{"title": "Runbook", "url": "https://wiki.example.org/checkout?a=b#c"}]
    first = await client.put(f"{SERVICES}/checkout", json={"owner": "Payments", "links": links})
    shown = first.json()
    assert (first.status_code, shown | {"first_seen_at": "", "updated_at": ""}) == (
        201,
        {
            "name": "checkout",
            "owner": "Payments",
            "links": links,
            "rates": [],
            "first_seen_at": "",
            "in_service_since": None,
            "updated_at": "",
        },
    )
    assert (await client.get(f"{SERVICES}/checkout")).json() == shown
    second = await client.put(f"{SERVICES}/checkout", json={"owner": "Web"})
    assert (second.status_code, second.json()["owner"], second.json()["links"]) == (200, "Web", [])
    assert second.json()["first_seen_at"] == shown["first_seen_at"] < second.json()["updated_at"]


async def test_services_are_listed_page_by_page_with_their_rates(client: httpx.AsyncClient) -> None:
    for name in ("b", "a", "c"):
        await client.put(f"{SERVICES}/{name}", json={})
    await client.put(f"{SERVICES}/b/rates", json=[a_rate()])
    first = (await client.get(SERVICES, params={"limit": 2})).json()
    second = (await client.get(SERVICES, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [service["name"] for page in (first, second) for service in page["items"]] == ["a", "b", "c"]
    assert [len(service["rates"]) for service in first["items"]] == [0, 1]
    assert second["next_cursor"] is None


async def test_a_cursor_of_another_route_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get(SERVICES, params={"cursor": "WzFd"})
    assert (answer.status_code, "cursor" in answer.json()["detail"]) == (422, True)


async def test_an_unknown_service_is_not_found(client: httpx.AsyncClient) -> None:
    answers = [await client.get(f"{SERVICES}/x"), await client.delete(f"{SERVICES}/x")]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert {answer.json()["type"] for answer in answers} == {"urn:aftermath:problem:service-not-found"}


async def test_rates_create_a_service_that_is_unknown(client: httpx.AsyncClient) -> None:
    answer = await client.put(f"{SERVICES}/x/rates", json=[a_rate()])
    assert (answer.status_code, answer.json()["name"], len(answer.json()["rates"])) == (200, "x", 1)
    assert (await client.get(f"{SERVICES}/x")).json() == answer.json()


async def test_a_service_that_nothing_uses_can_be_deleted(client: httpx.AsyncClient) -> None:
    await client.put(f"{SERVICES}/chekout/rates", json=[a_rate()])
    assert (await client.delete(f"{SERVICES}/chekout")).status_code == 204
    assert (await client.get(SERVICES)).json()["items"] == []
    assert (await client.delete(f"{SERVICES}/chekout")).status_code == 404


async def test_a_service_in_use_is_kept(client: httpx.AsyncClient) -> None:
    await client.put(f"{SERVICES}/shop", json={})
    declared = await client.post("/api/v1/incidents", json={"title": "t", "service": "shop"})
    await client.put(f"{SERVICES}/shop/objective", json={"target": "0.999", "window": {"rolling_days": 30}})
    window = {"from": "2026-08-22T20:00:00Z", "to": "2026-08-23T04:00:00Z"}
    await client.put("/api/v1/maintenance/m", json={"reason": "r", "once": window, "services": ["shop"]})
    refused = await client.delete(f"{SERVICES}/shop")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:aftermath:problem:service-in-use")
    assert refused.json()["detail"].startswith("it has incidents, an objective, maintenance; ")
    assert (await client.get(f"{SERVICES}/shop")).status_code == 200
    moved = f"/api/v1/incidents/{declared.json()['number']}"
    await client.patch(moved, json={"service": "search"})
    for used in ("shop", "search"):
        assert (await client.delete(f"{SERVICES}/{used}")).json()["detail"].startswith("it has incidents")


@pytest.mark.parametrize(
    "name", ["a/b", "payments/rates", "/", "rates", "ümlaut 🙂", "50%", "a%2Fb", "?x=1#y", "a\nb", '"; --', "x" * 200]
)
async def test_a_name_may_hold_anything_if_it_is_percent_encoded(client: httpx.AsyncClient, name: str) -> None:
    path = f"{SERVICES}/{quote(name, safe='')}"
    made = await client.put(path, json={"owner": "us"})
    priced = await client.put(f"{path}/rates", json=[a_rate()])
    shown = await client.get(path)
    assert [answer.status_code for answer in (made, priced, shown)] == [201, 200, 200]
    assert (shown.json()["name"], shown.json()["owner"], len(shown.json()["rates"])) == (name, "us", 1)
    assert len((await client.get(SERVICES)).json()["items"]) == 1


@pytest.mark.parametrize("name", ["%00", "a%00b", "x" * 201])
async def test_a_name_that_cannot_be_stored_is_refused(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.put(f"{SERVICES}/{name}", json={})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize(
    "body",
    [
        {"links": [{"title": "x", "url": "javascript:alert(1)"}]},
        {"links": [{"title": "x", "url": "ftp://example.org"}]},
        {"links": [{"title": "x", "url": "https://"}]},
        {"links": [{"title": "", "url": "https://example.org"}]},
        {"links": [{"url": "https://example.org"}]},
        {"links": [{"title": "x", "url": "https://example.org"}] * 51},
        {"owner": ""},
        {"owner": "a\x00"},
        {"name": "other"},
        [],
    ],
)
async def test_a_service_that_is_not_acceptable_is_refused(client: httpx.AsyncClient, body: object) -> None:
    answer = await client.put(f"{SERVICES}/x", json=body)
    assert (answer.status_code, (await client.get(SERVICES)).json()["items"]) == (422, [])


# — rates —


async def test_rates_come_back_as_they_were_stated(client: httpx.AsyncClient) -> None:
    await client.put(f"{SERVICES}/checkout", json={"owner": "Payments"})
    stated = [
        a_rate(**{"from": "2026-07-01T02:00:00+02:00"}, low="0.0001", expected="1234.50", high="999999999999.9999"),
        a_rate(low=0, expected=100, high=999_999_999_999),
        a_rate(currency="CHF", **{"from": None}),
    ]
    put = await client.put(f"{SERVICES}/checkout/rates", json=stated)
    assert (put.status_code, put.json()["rates"]) == (
        200,
        [
            {"from": None, "currency": "CHF", "low": "1", "expected": "2", "high": "3"},
            {"from": None, "currency": "EUR", "low": "0", "expected": "100", "high": "999999999999"},
            {
                "from": "2026-07-01T00:00:00Z",
                "currency": "EUR",
                "low": "0.0001",
                "expected": "1234.50",
                "high": "999999999999.9999",
            },
        ],
    )
    assert (await client.get(f"{SERVICES}/checkout")).json() == put.json()
    assert put.json()["owner"] == "Payments"
    again = await client.put(f"{SERVICES}/checkout/rates", json=put.json()["rates"])
    assert again.json()["rates"] == put.json()["rates"]


async def test_rates_are_replaced_as_a_whole_and_those_of_others_stay(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    for name in ("one", "other"):
        await client.put(f"{SERVICES}/{name}", json={})
        await client.put(f"{SERVICES}/{name}/rates", json=[a_rate(), a_rate(currency="USD")])
    await client.put(f"{SERVICES}/one/rates", json=[a_rate(currency="CHF", expected="2.50")])
    async with db.transaction(engine) as tx:
        of_one, of_none = await rates_of(tx, {"one"}), await rates_of(tx, [])
    assert list(of_one) == [Rate("one", THE_BEGINNING, "CHF", Decimal(1), Decimal("2.50"), Decimal(3))]
    assert list(of_none) == []
    other = (await client.get(f"{SERVICES}/other")).json()["rates"]
    assert [rate["currency"] for rate in other] == ["EUR", "USD"]
    assert (await client.put(f"{SERVICES}/one/rates", json=[])).json()["rates"] == []


@pytest.mark.parametrize(
    "rates",
    [
        [a_rate(low=1.5)],
        [a_rate(low=1.0)],
        [a_rate(low=True)],
        [a_rate(low=None)],
        [a_rate(low="-1")],
        [a_rate(low=-1)],
        [a_rate(low="")],
        [a_rate(low=" 1")],
        [a_rate(low="1\n")],
        [a_rate(low="1e0")],
        [a_rate(low="NaN")],
        [a_rate(low="Infinity")],
        [a_rate(low="\u0661")],
        [a_rate(low="1,5")],
        [a_rate(low="0.00001")],
        [a_rate(high="1000000000000")],
        [a_rate(high=10**12)],
        [a_rate(low="2.0001")],
        [a_rate(high="1.9999")],
        [a_rate(currency="eur")],
        [a_rate(currency="EURO")],
        [a_rate(currency="EUR\n")],
        [a_rate(), a_rate(high="4")],
        [a_rate(**{"from": "2026-07-01T02:00:00+02:00"}), a_rate(**{"from": "2026-07-01T00:00:00Z"})],
        [a_rate(**{"from": "2026-07-01T00:00:00"})],
        [a_rate(**{"from": "0001-01-01T00:00:00+23:00"})],
        [a_rate(valid_from=None)],
        [{"currency": "EUR", "low": "1", "expected": "2"}],
        a_rate(),
    ],
)
async def test_rates_that_are_not_acceptable_change_nothing(client: httpx.AsyncClient, rates: object) -> None:
    await client.put(f"{SERVICES}/x", json={})
    before = (await client.put(f"{SERVICES}/x/rates", json=[a_rate(currency="USD")])).json()
    answer = await client.put(f"{SERVICES}/x/rates", json=rates)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert (await client.get(f"{SERVICES}/x")).json() == before


async def test_readers_read_and_writers_change_services(client_as: ClientAs) -> None:
    allowed = {}
    for scope in (None, Scope.INGEST, Scope.READ, Scope.WRITE):
        caller = await client_as(scope)
        answers = [
            await caller.get(SERVICES),
            await caller.put(f"{SERVICES}/x", json={}),
            await caller.put(f"{SERVICES}/x/rates", json=[]),
            await caller.get(f"{SERVICES}/x"),
            await caller.delete(f"{SERVICES}/x"),
        ]
        allowed[scope] = [answer.status_code for answer in answers]
    assert allowed == {
        None: [401] * 5,
        Scope.INGEST: [403] * 5,
        Scope.READ: [200, 403, 403, 404, 403],
        Scope.WRITE: [200, 201, 200, 200, 204],
    }


DAY = datetime(2026, 7, 1, tzinfo=UTC)
days = st.integers(-3, 3).map(lambda count: DAY + timedelta(days=count))


def eur_from(start: datetime, currency: str = "EUR") -> Rate:
    return Rate("x", start, currency, Decimal(1), Decimal(2), Decimal(3))


@given(st.lists(st.builds(eur_from, days, st.sampled_from(["EUR", "USD"]))), days)
def test_the_rate_at_a_moment_is_the_newest_that_has_begun(rates: list[Rate], at: datetime) -> None:
    begun = sorted(rate.valid_from for rate in rates if rate.currency == "EUR" and rate.valid_from <= at)
    found = rate_at(rates, "EUR", at)
    assert (found and found.valid_from) == (begun[-1] if begun else None)
    assert found is None or found.currency == "EUR"
