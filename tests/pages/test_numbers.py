"""The page of numbers: every number is REST's, every plot is its table, and what is unknown is shown as unknown."""

import gzip
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.base.http.context import Context
from app.base.schema import Calendar, CalendarHours, Deployment
from app.incidents.definitions import DEFINITIONS
from app.incidents.definitions.model import DefinitionKind
from app.pages import words
from tests.metrics.prometheus.test_exposition import an_incident, price, store
from tests.pages.conftest import SignedInAs
from tests.statements import counted

START, MIDDLE, END = (datetime(2024, 8, day, tzinfo=UTC) for day in (19, 20, 21))
PERIOD = {"from": "2024-08-20T00:00:00Z", "to": "2024-08-21T00:00:00Z"}
HALVES = {
    "a_from": "2024-08-19T00:00:00Z",
    "a_to": PERIOD["from"],
    "b_from": PERIOD["from"],
    "b_to": PERIOD["to"],
}
MEASURES = {
    "time_to_detect": "Time to detect",
    "time_to_acknowledge": "Time to acknowledge",
    "time_to_recover": "Time to recover",
}


# — what is there —


async def incidents(
    engine: AsyncEngine, count: int, *, start: datetime = START, end: datetime = END, services: int = 3, **more: object
) -> None:
    """That many between start and end, evenly; some open, not acknowledged, or of the monitoring."""
    chance, rows = Random(count), []
    for place in range(count):
        began = start + (end - start) * (place + 0.5) / count
        ended = began + timedelta(minutes=chance.lognormvariate(3, 1))
        is_open = place % 13 == 12
        row = an_incident("00:00", None if is_open else "00:00", service=f"service-{place % services}")
        row |= {"began_at": began, "last_start_at": began, "stretch_began_at": began, "severity": 1 + place % 4}
        row |= {"environment": ("production", "staging", None)[place % 3]}
        row |= {"acknowledged_at": None if place % 5 == 4 else began + (ended - began) / 3}
        row |= {"impact_started_at_stated": began - timedelta(minutes=1 + place % 7) if place % 2 else None}
        row |= {"alert_class": "monitoring" if place % 17 == 16 else "service"}
        if not is_open:
            row |= {"ended_at": ended, "first_ended_at": ended, "last_end_at": ended, "reach_at": ended}
        rows.append(row | more)
    await store(engine, *rows)


async def everything(engine: AsyncEngine) -> None:
    await incidents(engine, 60)
    await price(engine, "600", "service-0")
    await price(engine, "900", "service-1")
    await price(engine, "40", "service-1", "USD")
    await deployments(engine, 14)
    async with db.transaction(engine) as tx:
        await tx.execute(
            insert(Calendar.__table__).values(
                name="office", zone="Europe/Berlin", holidays=[], created_at=START, updated_at=START
            )
        )
        hours = [{"calendar": "office", "weekday": day, "begins_minute": 480, "ends_minute": 1080} for day in range(5)]
        await tx.execute(insert(CalendarHours.__table__), hours)


async def deployments(engine: AsyncEngine, count: int) -> None:
    rows = []
    for place in range(count):
        at = MIDDLE + (END - MIDDLE) * (place + 0.5) / count
        id_ = f"d-{place}"
        rows.append(
            {
                "id": id_,
                "reported_id": id_,
                "source": "ci",
                "service": f"service-{place % 2}",
                "environment": "production",
                "production": True,
                "version": id_,
                "outcome": "succeeded",
                "started_at": at - timedelta(minutes=5),
                "finished_at": at,
                "happened_at": at,
                "commits": [[f"c-{place}", (at - timedelta(hours=place + 1)).isoformat()]],
                "unplanned": False,
                "needed_intervention": place % 5 == 4,
                "first_seen_at": at,
                "updated_at": at,
            }
        )
    async with db.transaction(engine) as tx:
        await tx.execute(insert(Deployment.__table__), rows)


# — reading the page —


async def page_of(visitor: httpx.AsyncClient, **query: str) -> str:
    return await answered(visitor, 200, query)


async def answered(visitor: httpx.AsyncClient, status: int, query: dict[str, str]) -> str:
    answer = await visitor.get("/numbers", params=query)
    assert answer.status_code == status, said(answer.text)[:2000]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def said(html: str) -> str:
    """What a reader sees: without tags, with ordinary spaces."""
    html = re.sub(r"<(title|datalist)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html))).strip()


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def part(html: str, start: str, end: str) -> str:
    """From the first occurrence of `start` to the next of `end`."""
    begins = html.index(start)
    return html[begins : html.index(end, begins)]


def figure(html: str, measure: str) -> str:
    return part(html, f'<figure class="dist" id="{measure}">', "</figure>")


def rows_of(html: str) -> list[list[str]]:
    """The cells of every row of the body of every table."""
    bodies = re.findall(r"<t(?:body|foot)>(.*?)</t(?:body|foot)>", html, flags=re.DOTALL)
    rows = [row for body in bodies for row in re.findall(r"<tr.*?</tr>", body, flags=re.DOTALL)]
    return [[said(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, flags=re.DOTALL)] for row in rows]


async def rest(client: httpx.AsyncClient, route: str, **query: str) -> dict[str, Any]:
    answer = await client.get(f"/api/v1/metrics/{route}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def duration(seconds: float) -> str:
    return plain(words.duration(seconds))


def share(ratio: float) -> str:
    return plain(words.share(ratio))


def times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"


def money(amount: str) -> str:
    return words.money(Decimal(amount))


# — every number is that of REST —


@pytest.mark.parametrize(
    "filters",
    [{}, {"service": "service-1"}, {"severity": "sev2"}, {"environment": "production"}, {"calendar": "office"}],
    ids=str,
)
async def test_every_number_is_that_of_rest(
    signed_in: httpx.AsyncClient, client: httpx.AsyncClient, engine: AsyncEngine, filters: dict[str, str]
) -> None:
    await everything(engine)
    html = await page_of(signed_in, **PERIOD, **filters)
    summaries = [
        (await rest(client, "summary", **period, **filters))["total"]
        for period in (PERIOD, {"from": HALVES["a_from"], "to": HALVES["a_to"]})
    ]
    lead = said(part(html, '<p class="lead">', "</p>"))
    assert [int(n) for n in re.findall(r"(\d+) incidents?", lead)] == [each["incidents"]["value"] for each in summaries]
    assert (f"{summaries[0]['open']['value']} still open" in lead) == bool(summaries[0]["open"]["value"])
    for measure in MEASURES:
        compared = await rest(client, "compare", measure=measure, **HALVES, **filters)
        compared = compared["business_hours"] if "calendar" in filters else compared
        check_verdict(html, measure, compared)
        both = [
            each["business_hours"]["measures"][measure] if "calendar" in filters else each["measures"][measure]
            for each in reversed(summaries)
        ]
        check_durations(figure(html, measure), both)
    check_recovery(html, summaries[0], by_calendar="calendar" in filters)
    without = {name: value for name, value in filters.items() if name != "calendar"}
    check_cost(html, await rest(client, "downtime", **PERIOD, **without))
    check_saving(
        html,
        None if "environment" in filters else await rest(client, "whatif", **PERIOD, time_to_recover="-20%", **without),
    )
    without.pop("severity", None)
    check_delivery(html, await rest(client, "dora", **PERIOD, **without))


def check_verdict(html: str, measure: str, compared: Mapping[str, Any]) -> None:
    counts = f"{compared['a']['n']} and {compared['b']['n']}"
    verdicts = part(html, 'aria-labelledby="verdicts"', "</section>")
    if '<table class="forest">' not in verdicts:
        assert compared["by_storms"] is None
        assert f"{MEASURES[measure].lower()}: {counts}" in said(verdicts)
        return
    incidents = compared.get("incidents")  # by the clock of a calendar they are not counted again
    if incidents and incidents["low"] is not None:
        bounds = f"{times(incidents['low'])} to {times(incidents['high'])}"
        assert f"{times(incidents['ratio'])} times as many per day" in said(verdicts)
        assert bounds in said(verdicts)
    rows = rows_of(verdicts)
    place = next(place for place, row in enumerate(rows) if row[0] == MEASURES[measure])
    _, verdict, plot, *typical = rows[place]
    [why] = rows[place + 1]
    assert verdict == {"better": "Better", "worse": "Worse", "cannot_tell": "Cannot tell"}[compared["verdict"]]
    effect = compared["effect"]
    for side, when in (("a", "Before"), ("b", "Now")):
        if compared[side]["evidence"]:
            assert f"{when}: {compared[side]['evidence']}." in why
    if effect is None and compared["a"]["storms"]:
        assert "too few storms or weeks" in plot
        assert why.startswith("Too few independent occasions")
        return
    if effect is None:
        assert "too few values" in plot
        assert typical == ["–", "–"]
        assert why.startswith(f"{compared['a']['n']} value")
        return
    of_effect = [times(effect[name]) for name in ("ratio", "low", "high")]
    [drawn] = re.findall(rf'{MEASURES[measure]}</a>.*?aria-label="([^"]*)"', verdicts, flags=re.DOTALL)
    assert re.findall(r"\d+\.\d\d", drawn) == of_effect
    assert f"{of_effect[1]} to {of_effect[2]}" in why
    assert [cell.split(" ", 1)[1] for cell in typical] == [
        duration(compared[side]["typical_seconds"]) for side in ("a", "b")
    ]
    assert f"With {counts} values" in why
    assert f"{compared['p_value']:.3f}" in why
    assert f"{compared['smallest_change']['shorter'] * 100:.0f} %" in why


def check_durations(html: str, both: list[Mapping[str, Any]]) -> None:
    captions = re.findall(r'<span class="period">(.*?)</span>', html, flags=re.DOTALL)
    tables = re.findall(r'<table class="tight">.*?</table>', html, flags=re.DOTALL)
    labels = [said(label) for label in re.findall(r'<text class="label".*?</text>', html)]
    for caption, label, of_period in zip(map(said, captions), labels, both, strict=True):
        median = of_period["estimates"] and of_period["estimates"]["kaplan_meier_median"]
        assert f"n = {of_period['n']}" in label
        if median is None:
            assert "median 2" not in caption
            assert ("too few for a median" in caption) == bool(of_period["n"])
        elif median["seconds"] is not None:
            ends = ["unknown" if median[name] is None else duration(median[name]) for name in ("low", "high")]
            assert f"median {duration(median['seconds'])}, 95 % interval {ends[0]} to {ends[1]}" in caption
        for count in (of_period["pending"], of_period["censored"], of_period["invalid"]):
            assert not count or f"{count} " in caption
        for count in of_period["excluded"].values():
            assert f"{count} " in caption.partition("Left out:")[2]
    filled = [of_period for of_period in both if of_period["n"] or of_period["pending"] or of_period["censored"]]
    for table, of_period in zip(tables, filled, strict=True):
        rows = rows_of(table)
        recorded = [seconds for _, seconds in rows if not seconds.startswith(">")]
        assert len(recorded) == of_period["n"]
        if of_period["values"] is not None:
            assert recorded == [duration(seconds) for seconds in of_period["values"]]


def check_recovery(html: str, summary: Mapping[str, Any], *, by_calendar: bool) -> None:
    found = summary["business_hours"] if by_calendar else summary
    estimates = found["measures"]["time_to_recover"]["estimates"]
    if estimates is None:
        assert 'aria-labelledby="recovery"' not in html
        return
    assert rows_of(part(html, 'aria-labelledby="recovery"', "</section>")) == [
        [duration(step["seconds"]), share(step["share"]), f"{share(step['low'])} to {share(step['high'])}"]
        for step in estimates["ecdf"]
    ]


def check_cost(html: str, downtime: Mapping[str, Any]) -> None:
    rows = [row for row in rows_of(part(html, 'aria-labelledby="cost"', "</section>")) if "20 %" not in row[0]]
    expected: list[list[str]] = []
    for each in [*downtime["services"], {**downtime, "service": "All"}]:
        down = duration(each["downtime"]["seconds"])
        for currency, amount in (each["cost"]["amounts"] or {"": None}).items():
            costs = ["unknown"] if amount is None else [f"{currency} {money(amount['expected'])}"]
            costs += [] if amount is None else [money(amount["low"]), money(amount["high"])]
            expected.append([each["service"], down, *costs])
            down = ""
    shown = [[row[0], row[1], *("unknown" if "rate" in cell else cell for cell in row[3:] if cell)] for row in rows]
    assert shown == expected


def check_saving(html: str, whatif: Mapping[str, Any] | None) -> None:
    rows = [row for row in rows_of(part(html, 'aria-labelledby="cost"', "</section>")) if "20 %" in row[0]]
    if whatif is None:
        assert not rows
        return
    total = whatif["total"]
    difference = (total["difference"] or {}).items()
    assert [[row[4], row[5], row[6]] for row in rows] == [
        [f"{currency} {money(amount['expected'])}", money(amount["low"]), money(amount["high"])]
        for currency, amount in difference
    ]
    assert not rows or rows[0][1] == duration(total["downtime_after_seconds"] - total["downtime_before_seconds"])


def check_delivery(html: str, dora: Mapping[str, Any]) -> None:
    delivery = part(html, 'aria-labelledby="delivery"', "</section>")
    shown = [said(each) for each in re.findall(r"<dd[^>]*>(.*?)</dd>", delivery, flags=re.DOTALL)]
    frequency, failures = dora["deployment_frequency"], dora["change_fail_rate"]
    per_day = frequency["per_day"]
    assert shown[0].startswith(f"{per_day['value']:.2f} {per_day['low']:.2f} to {per_day['high']:.2f}")
    assert shown[0].endswith(f"n = {frequency['n']}")
    for text, each in ((shown[1], dora["lead_time_for_changes"]), (shown[3], dora["failed_deployment_recovery_time"])):
        median, interval = each["statistics"] and each["statistics"]["median"], each["median_interval"]
        if interval and interval["low"] is not None and interval["high"] is not None:
            assert text.startswith(f"{duration(median)} {duration(interval['low'])} to ")
        elif median is not None:
            assert text.startswith(f"{duration(median)} interval unknown")
        else:
            assert text.startswith(", ".join(map(duration, each["values"])) or "none")
        assert f"n = {each['n']}" in text
    assert shown[2] == (
        f"{share(failures['value'])} {share(failures['low'])} to {share(failures['high'])}, "
        f"{failures['k']} of {failures['n']}"
    )
    unlinked = dora["unlinked"]
    assert f"{unlinked['k']} of {unlinked['n']} incident" in said(delivery)


async def test_the_definitions_are_those_of_the_registry(
    signed_in: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    meanings = part(await page_of(signed_in), '<h2 id="definitions">', "</section>")
    registry = {each["label"]: each for each in (await rest(client, "definitions"))["definitions"]}
    shown = re.findall(r"<dt>(.*?)</dt><dd class=\"limits\">(.*?)</dd>", meanings, flags=re.DOTALL)
    assert len(shown) == 21
    for term, limits in shown:
        label, _, version = said(term).rpartition(" version ")
        found = registry[label]
        assert int(version) == found["version"]
        assert f'href="/numbers/definitions?kind={found["kind"]}#{found["name"]}"' in term
        assert said(limits) == f"Cannot show {found['cannot_show'].replace('`', '')}."


# — how much there is —


async def test_how_long_the_monitoring_failed_is_said(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    failed: dict[str, Any] = {"alert_class": "monitoring", "service": "prometheus"}
    failed["ended_at"] = MIDDLE + timedelta(hours=4)
    for hours in (1, 2):  # two hours more overlap
        await incidents(engine, 1, start=MIDDLE + timedelta(hours=hours), end=MIDDLE + timedelta(hours=hours), **failed)
    text = said(await page_of(signed_in, **PERIOD))
    assert "The monitoring itself failed for 3 h of this period." in text
    assert "The monitoring itself failed" not in said(await page_of(signed_in, **PERIOD, service="checkout"))


async def test_all_definitions_are_on_pages_of_their_own(signed_in: httpx.AsyncClient) -> None:
    assert '<a href="/numbers/definitions">' in await page_of(signed_in)
    pages = [(await signed_in.get("/numbers/definitions", params={"kind": kind})).text for kind in DefinitionKind]
    shown = dict(re.findall(r'<div id="(\w+)"><dt>.*?</dt><dd>(.*?)</dd>', "".join(pages), flags=re.DOTALL))
    assert {name: said(formula) for name, formula in shown.items()} == {
        each.name: plain(each.formula.replace("`", "")) for each in DEFINITIONS
    }


async def test_a_page_without_incidents_says_so(signed_in: httpx.AsyncClient) -> None:
    text = said(await page_of(signed_in))
    assert "0 incidents in the last 30 days" in text
    assert "There are too few incidents to compare: that takes at least 10 values in each period." in text
    assert "Values before and now: time to detect: 0 and 0; time to acknowledge: 0 and 0" in text
    assert text.count("no value") == 6
    assert "No service had downtime in this period" in text
    assert "No finished deployment was reported in this period, so there are no delivery numbers" in text
    assert "How many have recovered" not in text


async def test_one_incident_is_one_dot_without_a_median(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00", acknowledged_at=MIDDLE + timedelta(hours=10, minutes=5)))
    html = await page_of(signed_in, **PERIOD)
    shown = figure(html, "time_to_recover")
    assert shown.count("<circle") == 1
    assert "INC-1: 1 h" in plain(unescape(shown))
    assert "1 value, too few for a median" in said(shown)
    assert 'class="median' not in shown
    assert "n = 0" in said(shown)
    assert "1 incident from" in said(html)


@pytest.mark.parametrize(("count", "has_median"), [(9, False), (10, True)])
async def test_from_ten_values_on_there_is_a_median_and_a_curve(
    signed_in: httpx.AsyncClient, engine: AsyncEngine, count: int, has_median: bool
) -> None:
    times = [(f"{place}:00", f"{place}:{10 + place}") for place in range(count)]
    await store(engine, *(an_incident(*each, severity=1) for each in times))
    html = await page_of(signed_in, **PERIOD)
    shown = figure(html, "time_to_recover")
    assert shown.count("<circle") == count
    assert ('class="medianlabel"' in shown, 'class="ci"' in shown) == (has_median, has_median)
    assert ('aria-labelledby="recovery"' in html) == has_median
    assert ("too few for a median" in said(shown)) != has_median
    assert '<table class="forest">' not in html


@pytest.mark.parametrize(("count", "in_columns"), [(400, False), (401, True)])
async def test_more_than_400_values_are_columns(
    signed_in: httpx.AsyncClient, engine: AsyncEngine, count: int, in_columns: bool
) -> None:
    await incidents(engine, count, start=MIDDLE, alert_class="service")
    html = await page_of(signed_in, **PERIOD)
    shown = figure(html, "time_to_recover")
    assert ('<path class="solid' in shown, '<path class="column' in shown) == (not in_columns, in_columns)
    assert ("As a table" in said(shown)) is True
    if in_columns:
        rows = rows_of(figure(await page_of(signed_in, **PERIOD, table="time_to_recover"), "time_to_recover"))
        assert sum(int(row[2]) for row in rows) == count
        assert sum(int(row[3] or 0) for row in rows) == count // 13
    else:
        filled, hollow = (len(re.findall(r"h0", path)) for path in re.findall(r' d="([^"]*)"', shown)[:2])
        assert (filled, hollow) == (count - count // 13, count // 13)
        assert f"({count} rows)" in said(shown)
        longer = figure(await page_of(signed_in, **PERIOD, table="time_to_recover"), "time_to_recover")
        assert len(rows_of(longer)) == count
        assert "<details open>" in longer


async def test_the_dots_are_the_table(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await incidents(engine, 40)
    html = await page_of(signed_in, **PERIOD)
    for measure in MEASURES:
        shown = figure(html, measure)
        dots = re.findall(r'href="/incidents/(INC-\d+)" tabindex="-1"><circle class="([^"]*)".*?<title>(.*?)<', shown)
        rows = rows_of(shown)
        assert sorted((number, "hollow" in kind) for number, kind, _ in dots) == sorted(
            (number, seconds.startswith(">")) for number, seconds in rows
        )
        titles = {plain(unescape(title)) for *_, title in dots}
        assert titles == {f"{number}: {seconds}" for number, seconds in rows}


# — what is unknown —


async def test_without_a_rate_the_cost_is_unknown(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00"), an_incident("12:00", "13:00", service="search"))
    text = said(part(await page_of(signed_in, **PERIOD), 'aria-labelledby="cost"', "</section>"))
    assert text.count("no rate, so the cost is unknown") == 2
    assert "Without a rate, the cost is unknown, which is not 0: checkout, search" in text
    assert "20 % faster" not in text
    assert " 0.00" not in text


async def test_currencies_are_never_summed(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00"))
    await price(engine, "1000")
    await price(engine, "300", currency="USD")
    rows = rows_of(part(await page_of(signed_in, **PERIOD), 'aria-labelledby="cost"', "</section>"))
    assert [row[4] for row in rows] == ["EUR 1,000", "USD 300", "EUR 1,000", "USD 300", "EUR −200", "USD −60.00"]


async def test_an_unknown_service_has_no_incidents(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await incidents(engine, 30)
    html = await page_of(signed_in, **PERIOD, service="nowhere")
    assert "<option selected>nowhere</option>" in html
    assert "0 incidents from" in said(html)


# — what is asked —


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"days": "31"}, "choose 7, 30 or 90"),
        ({"days": "many"}, "days: "),
        ({"severity": "sev9"}, "severity: "),
        ({"from": "yesterday"}, "enter a time"),
        ({"from": "0001-01-01T00:00"}, "enter a time"),
        ({"from": "2024-08-21", "to": "2024-08-20"}, "must not end before it starts"),
        ({"calendar": "nowhere"}, "no calendar is named"),
        ({"service": "x" * 201}, "service: "),
        ({"service": "a\x00b"}, "service: "),
        ({"sevice": "checkout"}, "sevice: this form has no such field"),
    ],
    ids=str,
)
async def test_a_query_that_cannot_be_answered_is_a_page_with_the_filters(
    signed_in: httpx.AsyncClient, query: dict[str, str], reason: str
) -> None:
    html = await answered(signed_in, 422, query)
    assert reason in said(part(html, 'role="alert"', "</p>")).lower()
    assert '<form class="filters"' in html
    assert '<option value="30" selected>' in html or "from" in query
    assert "Are we getting better?" not in html


async def test_the_form_keeps_what_was_chosen(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await everything(engine)
    html = await page_of(
        signed_in, days="90", service="service-1", severity="sev2", environment="prod", calendar="office"
    )
    form = part(html, '<form class="filters"', "</form>")
    assert re.findall(r"<option[^>]* selected>(.*?)</option>", form) == ["90 days", "service-1", "sev2", "office"]
    assert 'name="environment" value="production"' in form


async def test_days_win_over_a_period_that_was_entered_before(signed_in: httpx.AsyncClient) -> None:
    assert "in the last 7 days" in said(await page_of(signed_in, **PERIOD, days="7"))
    entered = await page_of(signed_in, **PERIOD, days="")
    assert "in the last" not in said(entered)
    assert '<option value="" selected>other</option>' in entered
    assert f'name="from" value="{PERIOD["from"]}"' in part(entered, '<form class="filters"', "</form>")


async def test_times_are_entered_in_the_zone_of_the_reader(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("22:30", "23:00"))
    signed_in.cookies.set("zone", "Europe/Berlin")
    inside = await page_of(signed_in, **{"from": "2024-08-21T00:30", "to": "2024-08-21T12:00"})
    outside = await page_of(signed_in, **{"from": "2024-08-21T00:31", "to": "2024-08-21T12:00"})
    assert ("1 incident from" in said(inside), "0 incidents from" in said(outside)) == (True, True)


# — how it is asked —


async def test_statements_do_not_grow(signed_in: httpx.AsyncClient, context: Context, engine: AsyncEngine) -> None:
    await everything(engine)
    with counted(context.engine) as few:
        await page_of(signed_in, **PERIOD)
    await incidents(engine, 200, services=40)
    with counted(context.engine) as many:
        await page_of(signed_in, **PERIOD)
    assert len(many) == len(few)
    sessions = [each for each in many if "web_session" in each]
    assert len(sessions) == 1
    assert len(many) - len(sessions) <= 12, many


async def test_a_usual_page_is_small(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await everything(engine)
    html = await page_of(signed_in, **PERIOD)
    assert len(gzip.compress(html.encode(), 5)) <= 12_300


async def test_only_people_who_have_signed_in_see_it(visitor: httpx.AsyncClient, signed_in_as: SignedInAs) -> None:
    answer = await visitor.get("/numbers", params={"days": "7"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fnumbers%3Fdays%3D7")
    reader = await signed_in_as(Scope.READ)
    await page_of(reader)
    assert (await reader.head("/numbers")).status_code == 200


async def test_hostile_names_stay_text(signed_in: httpx.AsyncClient, engine: AsyncEngine) -> None:
    name = '"><script>alert(1)</script>\u202egnp.exe'
    await store(engine, an_incident("10:00", "11:00", service=name), an_incident("12:00", "13:00", service="x" * 200))
    html = await page_of(signed_in, **PERIOD)
    assert "<script>alert" not in html
    assert "\u202e" not in html
    assert "⟨U+202E⟩" in html
    for page in (html, await answered(signed_in, 422, {"days": name}), await page_of(signed_in, environment=name)):
        assert "<script>alert" not in page
        assert not re.search(r"<[^>]+ (style|on\w+)=", page)
        assert not re.search(r"<script(?![^>]* src=)", page)
