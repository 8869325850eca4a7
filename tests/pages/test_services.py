"""The pages of services: what they show, and what their forms change, read back over REST."""

import html
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.access.tokens import Scope
from app.base.errors import Invalid
from app.base.http.context import Context
from app.pages import words
from app.pages.web import fields
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.pages.conftest import SignedInAs
from tests.statements import counted

HOSTILE = [
    "a/b",
    "payments/rates",
    "/",
    "rates",
    "_new",
    "50%",
    "a%2Fb",
    "?x=1#y",
    "a\nb",
    '"><script>alert(1)</script>',
    "{{ 7*7 }}",
    "ümlaut 🙂",
    "x" * 200,
]


def page_of(name: str) -> str:
    return f"/services/{quote(name, safe='')}"


def rest(name: str, rest: str = "") -> str:
    return f"/api/v1/services/{quote(name, safe='')}{rest}"


def text_of(response: httpx.Response) -> str:
    """What a person reads, with single spaces."""
    main = response.text.partition("<main")[2].partition("</main>")[0]
    return spaced(html.unescape(re.sub(r"(?s)<[^>]*>", " ", main)))


def spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def at(minutes: float) -> datetime:
    """A whole minute: what a field of a form can show."""
    return (datetime.now(UTC) + timedelta(minutes=minutes)).replace(second=0, microsecond=0)


def entered(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M}"


async def submitted(visitor: httpx.AsyncClient, address: str, status: int = 303, /, **form: str) -> httpx.Response:
    response = await visitor.post(address, data=form)
    assert response.status_code == status, text_of(response)[:500]
    return response


async def an_outage(client: httpx.AsyncClient, service: str, begin: float, end: float, **labels: str) -> None:
    alert = an_alert(at(begin).isoformat(), at(end).isoformat(), service=service, instance=str(begin), **labels)
    (await client.post("/webhooks/alertmanager", json=a_delivery(alert))).raise_for_status()


@pytest.fixture
async def checkout(client: httpx.AsyncClient) -> None:
    since = at(-60 * 24 * 90).isoformat()
    await client.put(rest("checkout"), json={"owner": "Shop", "in_service_since": since})


# — the list —


async def test_without_services_the_list_says_how_they_appear(signed_in: httpx.AsyncClient) -> None:
    shown = await signed_in.get("/services")
    assert (shown.status_code, "No service yet" in text_of(shown)) == (200, True)


async def test_the_numbers_of_the_list_are_those_of_rest(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, checkout: None
) -> None:
    await client.put(
        rest("checkout", "/rates"), json=[{"currency": "EUR", "low": "60", "expected": "600", "high": "900"}]
    )
    await client.put(rest("checkout", "/objective"), json={"target": "0.99", "window": {"rolling_days": 30}})
    await an_outage(client, "checkout", -200, -140)
    await an_outage(client, "checkout", -100, -90)
    text = text_of(await signed_in.get("/services"))
    budget = (await client.get(rest("checkout", "/objective"))).json()["error_budget"]
    availability = (await client.get("/api/v1/metrics/availability", params={"service": "checkout"})).json()
    summary = (await client.get("/api/v1/metrics/summary", params={"service": "checkout"})).json()["total"]
    assert summary["incidents"]["value"] == 2
    expected = [
        "checkout Shop 2",
        words.duration(summary["downtime"]["seconds"]),
        words.share(availability["services"][0]["availability"]),
        words.share(budget["left_ratio"], 1),
        f"of {words.duration(budget['seconds'])}",
        f"EUR {words.money(Decimal(summary['cost']['amounts']['EUR']['expected']))}",
    ]
    places = [text.find(spaced(part)) for part in expected]
    assert -1 not in places, (expected, text)
    assert places == sorted(places)


async def test_the_list_has_pages(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    names = [f"service-{number:02}" for number in range(51)]
    for name in names:
        await client.put(rest(name), json={})
    first = await signed_in.get("/services")
    assert [name for name in names if name in first.text] == names[:50]
    following = re.search(r'rel="next" href="([^"]*)"', first.text)
    assert following is not None
    second = await signed_in.get(html.unescape(following[1]))
    assert [name for name in names if f">{name}<" in second.text] == names[50:]
    assert 'rel="next"' not in second.text


async def test_the_number_of_statements_does_not_grow_with_services(
    client: httpx.AsyncClient, context: Context, signed_in: httpx.AsyncClient
) -> None:
    async def statements(address: str) -> int:
        with counted(context.engine) as sent:
            assert (await signed_in.get(address)).status_code == 200
        return len(sent)

    async def one_more(name: str) -> None:
        await client.put(rest(name), json={})
        await client.put(rest(name, "/rates"), json=[{"currency": "EUR", "low": "1", "expected": "2", "high": "3"}])
        await client.put(rest(name, "/objective"), json={"target": "0.99", "window": {"rolling_days": 30}})
        await an_outage(client, name, -100, -90)

    await one_more("a")
    before = [await statements(address) for address in ("/services", "/services/a")]
    for name in "bcdefgh":
        await one_more(name)
    await an_outage(client, "a", -60, -50)
    assert [await statements(address) for address in ("/services", "/services/a")] == before
    assert before[0] <= 20
    assert before[1] <= 26


async def test_a_service_can_be_added_once(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    made = await submitted(signed_in, "/services", form="new", name=" search ", owner="Discovery")
    assert made.headers["location"] == "/services/search"
    assert (await client.get(rest("search"))).json()["owner"] == "Discovery"
    again = await submitted(signed_in, "/services", 409, form="new", name="search", owner="Others")
    assert 'role="alert"' in again.text
    assert 'value="Others"' in again.text
    assert (await client.get(rest("search"))).json()["owner"] == "Discovery"
    await submitted(signed_in, "/services", 422, form="new", name="", owner="")


# — one service —


async def test_an_unknown_service_is_a_page_of_its_own(signed_in: httpx.AsyncClient) -> None:
    shown = await signed_in.get("/services/nobody")
    assert (shown.status_code, "there is no service" in text_of(shown).lower()) == (404, True)
    await submitted(signed_in, "/services/nobody", 404, form="service", owner="x")


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_service_with_any_name_has_a_page_and_forms(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, name: str
) -> None:
    await client.put(rest(name), json={})
    await client.put(rest(name, "/rates"), json=[{"currency": "EUR", "low": "1", "expected": "2", "high": "3"}])
    listed = await signed_in.get("/services")
    assert f'href="{page_of(name)}"' in listed.text
    shown = await signed_in.get(page_of(name))
    assert shown.status_code == 200
    assert "<script>alert" not in shown.text
    # Every address on the page leads to a page of this service.
    assert set(re.findall(r'action="(/services/[^"]*)"', shown.text)) == {
        f"{page_of(name)}{part}" for part in ("", "/objective", "/rates", "/rates/remove", "/maintenance")
    }
    changed = await submitted(signed_in, page_of(name), form="service", owner="us")
    assert changed.headers["location"] == f"{page_of(name)}#main"
    assert (await client.get(rest(name))).json()["owner"] == "us"
    await submitted(
        signed_in, f"{page_of(name)}/objective", form="objective", target="99", window="month", weighted="on"
    )
    assert (await client.get(rest(name, "/objective"))).json()["window"] == {"calendar": "month"}
    # A change of the time zone leads back to it.
    assert f'name="next" value="{html.escape(page_of(name))}"' in shown.text


async def test_owner_links_and_start_are_replaced(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, checkout: None
) -> None:
    since = at(-1000)
    await submitted(
        signed_in,
        "/services/checkout",
        form="service",
        owner="Web",
        since=entered(since),
        links="The runbook https://wiki.example.org/a?b=c\n\nhttps://grafana.example.org/d\n",
    )
    stored = (await client.get(rest("checkout"))).json()
    assert (stored["owner"], datetime.fromisoformat(stored["in_service_since"])) == ("Web", since)
    assert [(link["title"], link["url"]) for link in stored["links"]] == [
        ("The runbook", "https://wiki.example.org/a?b=c"),
        ("https://grafana.example.org/d", "https://grafana.example.org/d"),
    ]
    await submitted(signed_in, "/services/checkout", form="service", owner="", since="", links="")
    stored = (await client.get(rest("checkout"))).json()
    assert (stored["owner"], stored["in_service_since"], stored["links"]) == (None, None, [])


async def test_a_form_that_is_sent_as_it_is_shown_changes_nothing(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient
) -> None:
    links = [{"title": "The runbook", "url": "https://wiki.example.org/a"}]
    body = {"owner": "Shop", "in_service_since": "2026-01-02T03:04:05.678901Z", "links": links}
    await client.put(rest("checkout"), json=body)
    shown = (await signed_in.get("/services/checkout")).text
    await submitted(signed_in, "/services/checkout", **fields_of(shown, "/services/checkout"))
    stored = (await client.get(rest("checkout"))).json()
    assert {name: stored[name] for name in body} == body


def fields_of(page: str, action: str, nth: int = 0) -> dict[str, str]:
    """What a browser would send with a form as it is shown."""
    form = re.findall(rf'(?s)<form method="post" action="{re.escape(action)}".*?</form>', page)[nth]
    found = {}
    for tag in re.findall(r"<input[^>]*>", form):
        attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if attributes.get("type") != "checkbox" or " checked" in tag:
            found[attributes["name"]] = html.unescape(attributes.get("value", ""))
    for name, value in re.findall(r'(?s)<textarea name="(\w+)"[^>]*>\n?(.*?)</textarea>', form):
        found[name] = html.unescape(value)
    for name, options in re.findall(r'(?s)<select name="(\w+)">(.*?)</select>', form):
        found[name] = re.findall(r'value="([^"]*)" selected', options)[0]
    return found


# — rates —


async def test_rates_are_added_changed_and_removed(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, checkout: None
) -> None:
    async def rates() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await client.get(rest("checkout"))).json()["rates"]
        return found

    address = "/services/checkout/rates"
    amounts = {"low": "100", "expected": "250.50", "high": "900"}
    await submitted(signed_in, address, form="new-rate", currency="eur", **{"from": ""}, **amounts)
    since = at(-5000)
    await submitted(signed_in, address, form="new-rate", currency="EUR", **{"from": entered(since)}, **amounts)
    first, second = await rates()
    assert (first["from"], first["currency"], first["expected"]) == (None, "EUR", "250.50")
    assert datetime.fromisoformat(second["from"]) == since
    # Change the second as shown, but for one amount.
    shown = (await signed_in.get("/services/checkout")).text
    forms = [fields_of(shown, address, nth) for nth in range(3)]
    [form] = [form for form in forms if form.get("was_from")]
    await submitted(signed_in, address, **form | {"high": "1000"})
    assert await rates() == [first, second | {"high": "1000"}]
    # Remove the first.
    await submitted(signed_in, f"{address}/remove", form="x", was_currency="EUR", was_from="")
    assert await rates() == [second | {"high": "1000"}]


async def test_a_rate_that_cannot_be_stored_is_refused_with_what_was_entered(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, checkout: None
) -> None:
    address = "/services/checkout/rates"
    wrong = {"form": "new-rate", "currency": "EUR", "from": "", "low": "300", "expected": "200", "high": "900"}
    refused = await submitted(signed_in, address, 422, **wrong)
    assert "Low must not be above expected, nor expected above high" in text_of(refused)
    assert re.search(r'<details class="edit end roomy" open>\s*<summary>Add a rate', refused.text)
    assert fields_of(refused.text, address) == wrong
    assert refused.text.count('role="alert"') == 1
    for changes in ({"currency": "EURO"}, {"currency": "XXX"}, {"low": "-1"}, {"low": "1e3"}, {"from": "yesterday"}):
        await submitted(signed_in, address, 422, **wrong | {"low": "100"} | changes)
    right = wrong | {"low": "100"}
    await submitted(signed_in, address, **right)
    await submitted(signed_in, address, 409, **right)
    # Another person has removed it meanwhile.
    await client.put(rest("checkout", "/rates"), json=[])
    gone = await submitted(signed_in, address, 412, **right, was_currency="EUR", was_from="")
    assert "in the meantime" in text_of(gone)
    assert (await client.get(rest("checkout"))).json()["rates"] == []


async def test_a_hidden_time_that_is_none_is_refused(signed_in: httpx.AsyncClient, checkout: None) -> None:
    rate = {"currency": "EUR", "from": "", "low": "1", "expected": "2", "high": "3"}
    await submitted(signed_in, "/services/checkout/rates", 422, **rate, was_from="yesterday")
    await submitted(signed_in, "/services/checkout", 422, owner="", was_since="yesterday")


# — the objective —


async def test_an_objective_is_set_changed_and_removed(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, checkout: None
) -> None:
    address = "/services/checkout/objective"
    form = {"form": "objective", "target": "99.95", "window": "rolling", "rolling_days": "28", "environment": "prod"}
    await submitted(signed_in, address, **form)
    stored = (await client.get(rest("checkout", "/objective"))).json()
    assert (stored["target"], stored["window"], stored["weighted"], stored["environment"]) == (
        "0.9995",
        {"rolling_days": 28},
        False,
        "production",
    )
    shown = await signed_in.get("/services/checkout")
    assert "99.95 % over 28 days" in text_of(shown)
    assert fields_of(shown.text, address) == form | {"environment": "production"}
    for changes in ({"target": "100"}, {"target": "0"}, {"rolling_days": "0"}, {"window": "week"}, {"target": "x"}):
        refused = await submitted(signed_in, address, 422, **form | changes)
        assert f'value="{changes.get("target", "99.95")}"' in refused.text
    await submitted(signed_in, f"{address}/remove", form="remove-objective")
    assert (await client.get(rest("checkout", "/objective"))).status_code == 404
    assert "Without an objective" in text_of(await signed_in.get("/services/checkout"))


async def test_the_burn_down_shows_the_budget_of_rest(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, checkout: None
) -> None:
    await client.put(rest("checkout", "/objective"), json={"target": "0.999", "window": {"rolling_days": 30}})
    await an_outage(client, "checkout", -300, -290)
    await an_outage(client, "checkout", -200, -140)
    page = await signed_in.get("/services/checkout")
    budget = (await client.get(rest("checkout", "/objective"))).json()["error_budget"]
    text = text_of(page)
    assert spaced(f"{words.duration(budget['burned_seconds'])} were burned") in text
    for each in budget["incidents"]:
        assert spaced(f"{each['incident']} {words.duration(each['seconds'])}") in text
    for each in budget["burn_rates"]:
        assert f"{each['rate']:.2f}" in text
    # The last row of the table is where the curve ends.
    [last] = re.findall(r"overspent by ([0-9.]+)\u202f%</td></tr>\s*</tbody>", page.text)
    assert abs(float(last) + budget["left_ratio"] * 100) < 0.1


# — maintenance —


async def test_maintenance_is_planned_ended_and_removed(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, checkout: None
) -> None:
    async def known() -> dict[str, dict[str, Any]]:
        return {each["reason"]: each for each in (await client.get("/api/v1/maintenance")).json()["items"]}

    address = "/services/checkout/maintenance"
    begins, ends = at(-30), at(90)
    once = {"form": "once", "kind": "once", "from": entered(begins), "to": entered(ends), "covers": "this"}
    await submitted(signed_in, address, reason="Patching <now>", **once)
    weekly = {
        "form": "recurring",
        "kind": "recurring",
        "reason": "Backups",
        "sunday": "on",
        "monday": "on",
        "start_time": "02:30",
        "duration": "1 h 30 m",
        "zone": "Europe/Berlin",
        "first_date": "2026-01-01",
        "last_date": "",
        "covers": "all",
    }
    await submitted(signed_in, address, **weekly)
    stored = await known()
    patching, backups = stored["Patching <now>"], stored["Backups"]
    assert (patching["services"], backups["services"]) == (["checkout"], [])
    assert datetime.fromisoformat(patching["once"]["to"]) == ends
    assert backups["recurring"] == {
        "weekdays": ["monday", "sunday"],
        "start_time": "02:30",
        "duration_seconds": 5400,
        "zone": "Europe/Berlin",
        "first_date": "2026-01-01",
        "last_date": None,
    }
    text = text_of(await signed_in.get("/services/checkout"))
    assert "Mondays and Sundays at 02:30 (Europe/Berlin), for 1 h 30 m" in text
    assert "Patching <now>" in text
    changed = once | {"was_from": begins.isoformat(), "was_to": ends.isoformat(), "reason": "Patching later"}
    later = at(120)
    await submitted(signed_in, f"{address}/{patching['name']}", **changed | {"to": entered(later)})
    await submitted(signed_in, f"{address}/{backups['name']}", **weekly | {"duration": "2 h", "reason": "Backups, all"})
    stored = await known()
    moved = stored["Patching later"]["once"]
    assert (moved["from"], datetime.fromisoformat(moved["to"])) == (patching["once"]["from"], later)
    assert (stored["Patching later"]["name"], stored["Patching later"]["services"]) == (patching["name"], ["checkout"])
    assert (stored["Backups, all"]["recurring"]["duration_seconds"], stored["Backups, all"]["services"]) == (7200, [])
    await submitted(signed_in, f"{address}/{patching['name']}", 422, **changed | {"to": entered(at(-60))})
    await submitted(signed_in, f"{address}/nothing", 404, **changed)
    await submitted(signed_in, f"{address}/{patching['name']}", **once | {"reason": "Patching <now>"})
    await submitted(signed_in, f"{address}/{backups['name']}", **weekly)
    await submitted(signed_in, f"{address}/{patching['name']}/end", form="x")
    await submitted(signed_in, f"{address}/{backups['name']}/end", form="x")
    stored = await known()
    assert begins < datetime.fromisoformat(stored["Patching <now>"]["once"]["to"]) <= datetime.now(UTC)
    assert stored["Patching <now>"]["next"] is None
    assert stored["Backups"]["recurring"]["last_date"] is not None
    await submitted(signed_in, f"{address}/{patching['name']}/remove", form="x")
    assert list(await known()) == ["Backups"]
    await submitted(signed_in, f"{address}/{patching['name']}/remove", 404, form="x")


async def test_maintenance_that_has_not_begun_is_removed_when_it_ends(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, checkout: None
) -> None:
    address = "/services/checkout/maintenance"
    form = {"form": "once", "kind": "once", "reason": "Move", "from": entered(at(60)), "to": entered(at(120))}
    await submitted(signed_in, address, **form)
    [planned] = (await client.get("/api/v1/maintenance")).json()["items"]
    await submitted(signed_in, f"{address}/{planned['name']}/end", form="x")
    assert (await client.get("/api/v1/maintenance")).json()["items"] == []
    refused = await submitted(signed_in, address, 422, **form | {"to": form["from"]})
    assert 'value="Move"' in refused.text


# — who may what —


async def test_a_reader_sees_no_forms_and_may_submit_none(
    client: httpx.AsyncClient, signed_in_as: SignedInAs, checkout: None
) -> None:
    await client.put(rest("checkout", "/rates"), json=[{"currency": "EUR", "low": "1", "expected": "2", "high": "3"}])
    reader = await signed_in_as(Scope.READ)
    for address in ("/services", "/services/checkout"):
        shown = await reader.get(address)
        assert shown.status_code == 200
        assert set(re.findall(r'action="([^"]*)"', shown.text)) == {"/logout", "/search", "/zone"}
    for part in ("", "/rates", "/rates/remove", "/objective", "/objective/remove", "/maintenance"):
        assert (await reader.post(f"/services/checkout{part}", data={"form": "x"})).status_code == 403
    assert (await reader.post("/services", data={"name": "x"})).status_code == 403
    assert len((await client.get(rest("checkout"))).json()["rates"]) == 1


async def test_a_form_of_another_site_is_refused(signed_in: httpx.AsyncClient, checkout: None) -> None:
    forged = await signed_in.post("/services/checkout", data={"owner": "x"}, headers={"sec-fetch-site": "cross-site"})
    assert forged.status_code == 403


# — fields —

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)


@given(st.lists(NAMES, max_size=6))
def test_a_list_is_read_back_as_it_was(names: list[str]) -> None:
    assert fields.entries(fields.lines(names)) == names
    # Browsers change line breaks.
    assert fields.entries(fields.lines(names).replace("\r", "\n")) == names


@given(st.dictionaries(NAMES, st.sampled_from(["sev1", "sev5"]), max_size=6))
def test_pairs_are_read_back_as_they_were(known: dict[str, str]) -> None:
    assert fields.pairs_of(fields.pairs(known)) == known


@given(st.integers(1, 366 * 86_400))
def test_a_duration_is_read_back_exactly(seconds: int) -> None:
    assert fields.seconds_of(fields.exact(seconds), "x") == seconds


@given(st.decimals("0.000000001", "0.999999999", places=9))
def test_a_percentage_is_read_back_exactly(ratio: Decimal) -> None:
    assert Decimal(fields.ratio_of(fields.percent(ratio), "x")) == ratio


@pytest.mark.parametrize("text", ["", "5", "m", "5 x", "-5 m", "1 m 1 h", "5,5 m", "٥ m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="gap: write a duration"):
        fields.seconds_of(text, "gap")
