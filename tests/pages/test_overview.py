"""The overview: the same numbers as REST, what is open, and what it says when there is little or nothing."""

import html
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.access.tokens import Scope
from app.base.http.context import Context
from app.incidents.grouping.signal import AlertClass
from app.pages import words
from tests.ingest.health.test_health import a_flusher, a_watchdog, deliver, rounds
from tests.metrics.prometheus.test_exposition import store
from tests.pages.conftest import SignedInAs
from tests.pages.history import HOSTILE, an_incident_at, some_weeks
from tests.processes import a_delivery, an_alert
from tests.statements import counted

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def at_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks of pages and REST stand at NOW."""

    class Clock(datetime):
        @classmethod
        def now(cls, _zone: Any = None) -> datetime:  # type: ignore[override]
            return NOW

    monkeypatch.setattr("app.base.http.context.datetime", Clock)
    monkeypatch.setattr("app.pages.web.frame.datetime", Clock)


def plain(text: str) -> str:
    """The text of a page as people read it, with one space between words."""
    shown = re.sub(r"<(script|title|noscript)\b.*?</\1>", " ", text, flags=re.DOTALL)
    shown = html.unescape(re.sub(r"<[^>]*>", " ", shown))
    return re.sub(r"[\s\u00a0\u202f]+", " ", shown)


def spaced(text: str) -> str:
    return re.sub(r"[\s\u00a0\u202f]+", " ", text)


async def page(visitor: httpx.AsyncClient, path: str = "/") -> str:
    response = await visitor.get(path)
    assert response.status_code == 200, response.text
    return response.text


async def rest(client: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    answer = await client.get(f"/api/v1/{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def section(page: str, name: str) -> str:
    """From the heading with this id to the end of its section."""
    return page[page.index(f'id="{name}"') :].split("</section>", maxsplit=1)[0]


# — numbers —


@pytest.mark.parametrize("days", [7, 30, 90])
async def test_every_number_is_that_of_rest(
    days: int, signed_in_at_now: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await some_weeks(engine, NOW, incidents=INCIDENTS, days=190)
    length = timedelta(days=days)
    period = {"from": (NOW - length).isoformat(), "to": NOW.isoformat()}
    former = {"from": (NOW - 2 * length).isoformat(), "to": (NOW - length).isoformat()}
    now = await rest(client, "metrics/summary", **period, group_by="service")
    before = await rest(client, "metrics/summary", **former)
    shown = await page(signed_in_at_now, f"/?days={days}")
    text = plain(section(shown, "period"))
    monitoring = len([1 for each in await listed(client, period) if each["number"] in MONITORING])
    assert monitoring
    assert f"New incidents {now['total']['incidents']['value'] - monitoring:,} before:" in text
    assert f"and {monitoring} of the monitoring itself" in text

    downtime = now["total"]["downtime"]["seconds"], before["total"]["downtime"]["seconds"]
    assert spaced(f"Downtime {words.duration(downtime[0])} before: {words.duration(downtime[1])}") in text
    for name, label in (("time_to_recover", "Time to recover"), ("time_to_acknowledge", "Time to acknowledge")):
        each = now["total"]["measures"][name]
        median = each["estimates"]["kaplan_meier_median"]
        typical, low = words.duration(median["seconds"]), words.duration(median["low"])
        interval = f"{low} to {words.duration(median['high'])}" if median["high"] else f"at least {low}"
        assert spaced(f"{label} {typical} median 95 % interval {interval}") in text
        compared = await rest(
            client,
            "metrics/compare",
            measure=name,
            **{f"a_{end}": value for end, value in former.items()},
            **{f"b_{end}": value for end, value in period.items()},
        )
        assert VERDICTS[compared["verdict"]] in text[text.index(label) :]
        assert f"{each['pending'] + each['censored']:,} not" in text[text.index(label) :]
        # Every value is a dot or, if there are many, in a column.
        strip = section(shown, "period").split(label)[1].split("</svg>")[0]
        dots = len(re.findall("<circle", strip))
        waited = sum(map(int, re.findall(r"<title>(\d+).values?</title>", strip))) or dots
        assert waited == each["n"] + each["pending"] + each["censored"]
    for currency, amount in now["total"]["cost"]["amounts"].items():
        low, expected, high = (words.money(Decimal(amount[part])) for part in ("low", "expected", "high"))
        assert f"{currency} {expected} {low} to {high}" in text
    without = len(now["total"]["cost"]["services_without_rate"])
    assert spaced(words.plural(without, "service has", "services have")) + " no rate" in text

    rows = rows_of(section(shown, "services"))
    availability = {
        each["service"]: each for each in (await rest(client, "metrics/availability", **period))["services"]
    }
    groups = {each["filters"]["service"][0]: each for each in now["groups"]}
    order = sorted(groups, key=lambda name: -groups[name]["downtime"]["seconds"])
    assert list(rows) == order
    for name, row in rows.items():
        down, ratio, cost = (
            groups[name]["downtime"]["seconds"],
            availability[name]["availability"],
            groups[name]["cost"],
        )
        assert (spaced(words.duration(down)) if down else "–") in row
        assert spaced(words.share(ratio)) in row
        for currency, amount in (cost["amounts"] or {}).items():
            assert f"{currency} {words.money(Decimal(amount['expected']))}" in row
        assert ("no rate" in row) == (not cost["amounts"] and bool(cost["services_without_rate"]))
        objective = await client.get(f"/api/v1/services/{name}/objective")
        if objective.status_code == 404:
            assert "no objective" in row
            continue
        budget = objective.json()["error_budget"]
        burned, whole = spaced(words.duration(budget["burned_seconds"])), spaced(words.duration(budget["seconds"]))
        left = budget["left_ratio"]
        assert (f"overspent {burned} of {whole}" if left < 0 else f"{spaced(words.share(left, 1))} of {whole}") in row


VERDICTS = {
    "better": "Better",
    "worse": "Worse",
    "cannot_tell": "Cannot tell",
}
INCIDENTS = 700
MONITORING = {f"INC-{1 + place}" for place in range(INCIDENTS) if place % 9 == 7}


async def listed(client: httpx.AsyncClient, period: dict[str, str]) -> list[Any]:
    items: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        found = await rest(client, "incidents", limit=100, **period, **cursor)
        items += found["items"]
        if found["next_cursor"] is None:
            return items
        cursor = {"cursor": found["next_cursor"]}


def rows_of(table: str) -> dict[str, str]:
    """The text of each row by the name of its service."""
    body = table.split("<tbody>")[1].split("</tbody>", maxsplit=1)[0]
    rows = [plain(row) for row in body.split("</tr>") if "<th" in row]
    return {row.split()[0]: row for row in rows}


@pytest.fixture
async def signed_in_at_now(at_now: None, signed_in: httpx.AsyncClient) -> httpx.AsyncClient:
    return signed_in


async def test_with_fewer_than_ten_values_there_is_no_median_but_every_value(
    signed_in: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    now = datetime.now(UTC)
    await store(engine, *(an_incident_at(now - timedelta(days=n), 10 * n, number=n) for n in range(1, 10)))
    shown = section(await page(signed_in), "period")
    assert "Time to recover 9 values too few for a median" in plain(shown)
    assert "95 % interval" not in plain(shown)
    assert shown.split("Time to recover")[1].split("</svg>")[0].count("<circle") == 9
    await store(engine, an_incident_at(now - timedelta(hours=9), 10, number=10))
    shown = plain(section(await page(signed_in), "period"))
    assert "median 95 % interval" in shown


@pytest.mark.parametrize("days", ["8", "0", "-7", "x", "", "9" * 400])
async def test_other_periods_are_refused_on_a_page(
    days: str, signed_in: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await store(engine, an_incident_at(datetime.now(UTC), 1))
    response = await signed_in.get("/", params={"days": days})
    assert response.status_code == 422
    assert "<h1>" in response.text


async def test_after_a_quiet_period_the_page_asks_whether_alerts_arrive(
    signed_in: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await store(engine, an_incident_at(datetime.now(UTC) - timedelta(days=60), 10))
    text = plain(await page(signed_in))
    assert "Nothing is open" in text
    assert "No incident in the last 30 days. That is good news only if alerts arrive" in text
    assert " 0 %" not in text


# — what is open —


async def test_open_incidents_begin_with_those_that_nobody_has(
    signed_in: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    now = datetime.now(UTC)

    def opened(number: int, severity: int, minutes: int, by: str | None = None) -> dict[str, object]:
        began = now - timedelta(minutes=minutes, seconds=5)
        return an_incident_at(
            began,
            None,
            number=number,
            severity=severity,
            title=f"Title {number}",
            acknowledged_at=began if by else None,
            acknowledged_by=by,
        )

    trouble = opened(5, 1, 300) | {"alert_class": AlertClass.MONITORING.value}
    await store(engine, opened(1, 1, 90, "ada"), opened(2, 3, 600), opened(3, 2, 5), opened(4, 2, 20), trouble)
    shown = await page(signed_in)
    assert "<title>4 open · Aftermath</title>" in shown
    text = plain(section(shown, "open"))
    assert "4 incidents are open 3 not acknowledged" in text
    assert re.findall(r"Title \d", text) == ["Title 4", "Title 3", "Title 2", "Title 1"]
    assert "Open Title 4 sev2 checkout · INC-4 20 m so far" in text
    assert "Acknowledged Title 1 sev1 checkout · INC-1 · acknowledged by ada 1 h 30 m so far" in text
    assert "Alerts may be missing" in plain(shown)
    assert "INC-5 Title 5" in plain(shown)


async def test_at_most_twenty_are_listed_and_the_others_linked(
    signed_in: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    now = datetime.now(UTC)
    # Also those that have been open for long.
    rows = [an_incident_at(now - timedelta(days=2 * n), None, number=n) for n in range(1, 24)]
    await store(engine, *rows[1:], rows[0] | {"acknowledged_at": now})
    shown = await page(signed_in)
    assert section(shown, "open").count("<li") == 20
    assert "3 more are open" in plain(shown)
    [address] = re.findall(r'<a href="([^"]+)">3\W+more are open', shown)
    listed = await page(signed_in, html.unescape(address))
    assert {int(number) for number in re.findall(r"INC-(\d+)", listed)} == {*range(1, 24)}


async def test_a_missing_heartbeat_is_shown_with_the_time_of_the_last_one(
    signed_in: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    now, flusher = datetime.now(UTC), a_flusher(engine)
    began = now - timedelta(hours=6)
    await rounds(engine, flusher, began, began)
    await deliver(engine, flusher, began, a_watchdog())
    await rounds(engine, flusher, began + timedelta(minutes=1), now)
    text = plain(await page(signed_in))
    assert "Alerts may be missing since" in text
    assert "alertmanager : The heartbeat 'Watchdog' was last received at" in text


# — little, nothing, too much —


async def test_before_the_first_incident_there_are_three_steps(
    signed_in: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    shown = await page(signed_in)
    assert re.findall("<h2>(.*?)</h2>", shown) == [
        "Connect Alertmanager",
        "Or look around with the demo",
        "Connect other tools",
    ]
    assert "url: http://aftermath.test/webhooks/alertmanager" in html.unescape(shown)
    assert "aftermath demo</code></pre>" in shown
    assert 'href="/docs"' in shown
    await client.post("/webhooks/alertmanager", json=a_delivery(an_alert("2026-08-20T10:00:00Z")))
    assert "1 incident is open" in plain(await page(signed_in))


async def test_texts_from_outside_stay_text(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    now = datetime.now(UTC)
    rows = [
        an_incident_at(now, None, number=place, title=text, service=text, acknowledged_at=now, acknowledged_by=text)
        for place, text in enumerate(HOSTILE)
    ]
    await store(engine, *rows)
    shown = await page(signed_in)
    assert "<script>alert" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "{{ 7 * 7 }}" in html.unescape(shown)
    assert "⟨U+202E⟩gnp.exe" in shown
    assert not re.search("[\u200b-\u200f\u202a-\u202e\u2060-\u2069]", shown)
    assert "x" * 301 not in plain(shown)
    assert not re.search(r"<[^>]*\son\w+=", shown)


async def test_a_viewer_who_may_only_read_sees_no_form_that_changes_anything(
    signed_in_as: SignedInAs, engine: AsyncEngine
) -> None:
    await some_weeks(engine, datetime.now(UTC))
    visitor = await signed_in_as(Scope.READ)
    assert set(re.findall(r'<form[^>]*action="([^"]*)"', await page(visitor))) == {"/logout", "/search", "/zone"}


async def test_the_number_of_statements_does_not_grow(
    signed_in: httpx.AsyncClient, engine: AsyncEngine, context: Context, client: httpx.AsyncClient
) -> None:
    now = datetime.now(UTC)
    await some_weeks(engine, now, incidents=80, services=4)
    with counted(context.engine) as few:
        await page(signed_in)
    async with engine.begin() as tx:
        await tx.execute(text("DELETE FROM objective"))
        await tx.execute(text("DELETE FROM service_rate"))
    await some_weeks(engine, now, incidents=900, services=40, first=1000)
    for name in ("grafana", "prometheus"):
        await client.put(f"/api/v1/sources/{name}", json={"kind": "alertmanager"})
    with counted(context.engine) as many:
        await page(signed_in)
    assert len(many) == len(few) <= 23


async def test_a_page_of_many_incidents_stays_small(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    now = datetime.now(UTC)
    await some_weeks(engine, now, incidents=2000, services=40, days=30)
    response = await signed_in.get("/", headers={"accept-encoding": "identity"})
    assert len(response.content) < 100_000
    assert 0 < response.text.count('<path class="tick') <= 25 * 4
    assert "where several would cover each other, only the tallest is drawn" in plain(response.text)
    assert json.dumps(response.text).count("tabindex") < 50
