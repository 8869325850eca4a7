"""Responses as CSV, for spreadsheets: everything in the JSON, and no text that runs as a formula."""

import csv
import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

import app.base.http.responses.csv
from app.base import db
from app.base.access.tokens import Scope
from app.base.http.responses.csv import spreadsheet_text
from app.base.schema import Service
from app.cli import openapi_document
from app.incidents.api import incidents as api
from tests.conftest import ClientAs
from tests.metrics.prometheus.test_exposition import an_incident, at, price, store

PATH = "/api/v1/incidents"
CSV = {"format": "csv"}


async def exported(client: httpx.AsyncClient, **filters: str) -> list[dict[str, str]]:
    answer = await client.get(PATH, params=filters | CSV)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(StringIO(answer.text, newline=""), strict=True))
    assert all(None not in row and None not in row.values() for row in rows), "a line has too many or too few cells"
    return rows


async def test_an_incident_is_a_line(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00", acknowledged_at=at("10:10"), acknowledged_by="ada"))
    await store(engine, an_incident("12:00", service="search", severity=2))
    await price(engine, "60")
    search, checkout = await exported(client)
    expected = {
        "service": "checkout",
        "severity": "sev1",
        "priority": "critical",
        "status": "resolved",
        "detected_at": "2024-08-20T10:00:00Z",
        "impact_started_at": "",
        "acknowledged_by": "ada",
        "resolved_at": "2024-08-20T11:00:00Z",
        "settled": "false",
        "merged_into": "",
        "time_to_acknowledge_seconds": "600.0",
        "time_to_recover_seconds": "3600.0",
        "time_to_recover_status": "recorded",
        "time_to_detect_seconds": "",
        "time_to_detect_status": "not_applicable",
        "cost_eur_low": "30.00",
        "cost_eur_expected": "60.00",
        "cost_eur_high": "120.00",
    }
    assert checkout | expected == checkout
    assert (search["service"], search["status"], search["time_to_recover_status"]) == ("search", "open", "pending")
    assert (search["resolved_at"], search["time_to_recover_seconds"], search["cost_eur_expected"]) == ("", "", "")


SORTS: list[dict[str, str]] = [{"sort": sort} for sort in ("oldest", "severity", "duration")]


async def test_the_export_has_the_same_incidents_in_the_same_order_as_the_list(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "CHUNK", 4)
    began = [at("10:00") + timedelta(minutes=n // 3) for n in range(12)]  # three at a time
    await store(
        engine,
        *(
            an_incident("10:00", "11:00", began_at=each, service="ab"[n % 2], severity=1 + n % 3)
            for n, each in enumerate(began)
        ),
    )
    for filters in (
        {},
        {"service": "a"},
        {"severity": "sev3"},
        {"from": "2024-08-20T10:02:00Z"},
        {"status": "open"},
        *SORTS,
    ):
        listed = (await client.get("/api/v1/incidents", params=filters)).json()["items"]
        assert [row["number"] for row in await exported(client, **filters)] == [each["number"] for each in listed]


async def test_without_incidents_there_are_the_names_of_the_columns(client: httpx.AsyncClient) -> None:
    answer = await client.get(PATH, params=CSV)
    assert answer.text.startswith("number,title,service,environment,severity,")
    assert answer.text.endswith("\r\n")
    assert answer.text.count("\r\n") == 1
    assert answer.headers["content-disposition"] == 'attachment; filename="incidents.csv"'


async def test_no_cell_begins_like_a_formula_and_no_line_breaks(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    hostile = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "＝1+1",
        "＠SUM",
        '"=1", ""',
        "a\nb,c",
        "a\r\nb",
        "ü;'\"",
        ",",
        "' or 1",
    ]
    await store(
        engine,
        *(an_incident("10:00", service=text, title=text, key=text, acknowledged_by=text) for text in hostile),
    )
    rows = await exported(client)
    assert len(rows) == len(hostile)
    assert {row["title"] for row in rows} == {spreadsheet_text(text) for text in hostile}
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())
        assert row["title"] == row["service"] == row["key"] == row["acknowledged_by"]


@pytest.mark.parametrize("first", [*"=+-@\t\r\n", *"＝＋－＠", *"﹦﹢﹣﹫", *"⁺₊⁼₌⁻₋", "\u2212"])
def test_variants_of_the_characters_that_begin_a_formula_are_escaped(first: str) -> None:
    assert spreadsheet_text(f"{first}1") == f"'{first}1"


@pytest.mark.parametrize("text", ["", "a=1", "é", "1-2", "–", "｜", " "])
def test_other_text_is_kept_as_it_is(text: str) -> None:
    assert spreadsheet_text(text) == text


@given(st.text())
def test_text_is_kept_behind_the_apostrophe(text: str) -> None:
    assert spreadsheet_text(text) in {text, f"'{text}"}
    assert not spreadsheet_text(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert spreadsheet_text(f"a{text}") == f"a{text}"


@pytest.mark.parametrize("filters", [{"severity": "sev6"}, {"from": "soon"}, {"label": "x"}])
async def test_invalid_filters_are_rejected(client: httpx.AsyncClient, filters: dict[str, str]) -> None:
    answer = await client.get(PATH, params=filters | CSV)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_export_needs_a_token_that_reads(client_as: ClientAs) -> None:
    statuses = {
        scope: (await (await client_as(scope)).get(PATH, params=CSV)).status_code
        for scope in (None, Scope.INGEST, Scope.READ)
    }
    assert statuses == {None: 401, Scope.INGEST: 403, Scope.READ: 200}


# — metrics —

METRICS = "/api/v1/metrics"
DAY = {"from": "2024-08-20T00:00:00Z", "to": "2024-08-21T00:00:00Z"}
COMPARED = {
    "measure": "time_to_recover",
    "a_from": DAY["from"],
    "a_to": DAY["to"],
    "b_from": DAY["to"],
    "b_to": "2024-09-01T00:00:00Z",
}
QUESTIONS: dict[str, dict[str, str]] = {
    "summary": DAY | {"group_by": "service"},
    "timeseries": DAY | {"group_by": "service"},
    "downtime": DAY,
    "availability": DAY,
    "whatif": DAY | {"time_to_recover": "-50%"},
    "compare": COMPARED,
    "dora": DAY,
    "action-items": DAY,
    "targets": DAY | {"group_by": "service"},
    "tasks": DAY | {"group_by": "service"},
}
TABLES = (
    "summary/totals",
    "summary/ecdf",
    "summary/histogram",
    "summary/values",
    "timeseries/totals",
    "dora/values",
)


def address(route: str) -> tuple[str, dict[str, str]]:
    """`summary/ecdf` is a table of the summary."""
    question, _, table = route.partition("/")
    return f"{METRICS}/{question}", CSV | ({"table": table} if table else {})


async def sheet(client: httpx.AsyncClient, route: str, **more: str) -> list[dict[str, str]]:
    question, _, part = route.partition("/")
    path, form = address(route)
    answer = await client.get(path, params=QUESTIONS.get(question, {}) | form | more)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{part or question}.csv"'
    header, *lines = csv.reader(StringIO(answer.text, newline=""), strict=True)
    assert len(header) == len(set(header)), "a column occurs twice"
    assert {len(line) for line in lines} <= {len(header)}
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_every_metric_and_the_list_of_incidents_have_a_form_as_csv() -> None:
    paths = openapi_document()["paths"]
    assert not [path for path in paths if path.endswith(".csv")]
    metrics = {path for path in paths if path.startswith(METRICS)}
    assert metrics == {f"{METRICS}/{route}" for route in (*QUESTIONS, "definitions")}
    for path in (*metrics, PATH):
        operation = paths[path]["get"]
        assert {"application/json", "text/csv"} == operation["responses"]["200"]["content"].keys()
        names = [one["name"] for one in operation["parameters"]]
        tables = [route.partition("/")[2] for route in TABLES if f"{METRICS}/{route}".startswith(f"{path}/")]
        assert ("format" in names, "table" in names) == (True, bool(tables))


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [
        ("text/csv", True),
        ("text/csv, application/json;q=0.9", True),
        ("application/json;q=0.9,TEXT/CSV ; q=0.95", True),
        ("application/json, text/csv;q=0.5", False),
        ("text/csv;q=0", False),
        ("*/*", False),
        ("text/*", False),
        ("", False),
        ("text/csv;q=nonsense;;,,", True),
    ],
)
async def test_the_accept_header_chooses_csv_too(client: httpx.AsyncClient, accept: str, *, is_csv: bool) -> None:
    for path in (PATH, f"{METRICS}/summary", f"{METRICS}/definitions"):
        for form, expected in ((None, is_csv), ("json", False), ("csv", True)):
            params = {} if form is None else {"format": form}
            answer = await client.get(path, params=params, headers={"Accept": accept})
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/csv" if expected else "application/json")


async def test_a_table_is_csv_and_is_known(client: httpx.AsyncClient) -> None:
    for params, expected in (
        ({"table": "ecdf"}, "`table` chooses a part of the response as CSV; add `format=csv`"),
        ({"table": "ecfd"} | CSV, "`table` must be one of totals, ecdf, histogram, values"),
    ):
        answer = await client.get(f"{METRICS}/summary", params=params)
        assert (answer.status_code, answer.json()["detail"]) == (422, expected)
    answer = await client.get(f"{METRICS}/summary", params={"table": "ecdf"}, headers={"Accept": "text/csv"})
    assert answer.headers["content-disposition"] == 'attachment; filename="ecdf.csv"'


async def test_csv_has_the_incidents_of_all_pages(client: httpx.AsyncClient) -> None:
    for name, value in (("limit", "5"), ("cursor", "x"), ("count", "true")):
        answer = await client.get(PATH, params=CSV | {name: value})
        assert answer.status_code == 422
        assert answer.json()["detail"] == f"CSV has the incidents of all pages; omit `{name}`"


async def two_services(engine: AsyncEngine) -> None:
    """Twelve short incidents of one service with a rate, and one of another."""
    await store(
        engine,
        *(an_incident(f"{hour}:00", f"{hour}:{10 + hour}") for hour in range(12)),
        an_incident("13:00", service="search", severity=2),
    )
    await price(engine, "60")


async def test_a_sheet_has_the_numbers_of_the_answer(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await two_services(engine)
    for route in (*QUESTIONS, "summary/totals", "timeseries/totals"):
        path, _ = address(route)
        answer = (await client.get(path, params=QUESTIONS[route.partition("/")[0]])).json()
        lines = await sheet(client, route)
        reported = [flat for part in parts_of(route, answer) for flat in [dict(scalars(part))]]
        assert len(lines) == len(reported)
        for line, expected in zip(lines, reported, strict=True):
            assert expected
            assert {name: line[name] for name in expected} == expected, route
            assert {value for name, value in line.items() if name not in expected} <= {""}, route


def parts_of(route: str, answer: Any) -> list[Any]:
    """The source of each line."""
    question, _, table = route.partition("/")
    if question == "summary":
        places = [(place_of(each), each) for each in (answer["total"], *answer["groups"])]
    elif question == "timeseries":
        places = [
            (
                period | answer["filters"] | {"service": [each["group"]]},
                point | {"downtime": {"planned_seconds": 0.0} | point["downtime"]},
            )
            for each in answer["series"]
            for period, point in zip(answer["periods"], each["points"], strict=True)
        ]
    else:
        return parts_of_others(route, answer)
    if table:
        of_measures = {"measures", "business_hours"}
        return [
            place | {name: part for name, part in each.items() if name not in of_measures} for place, each in places
        ]
    return [
        place
        | {name: each[name] for name in ("from", "to") if name in each}
        | {"measure": name, "calendar": ""}
        | COUNTS
        | each["measures"].get(name, {})
        for place, each in places
        for name in answer.get("measures", each["measures"])
    ]


# A timeseries leaves out counts that are 0, and the measures of buckets without incidents.
COUNTS = dict.fromkeys(("n", "zeros", "pending", "censored", "invalid"), 0)


def place_of(part: Any) -> dict[str, Any]:
    """The period and the filters of a part of a response."""
    return {"from": part["from"], "to": part["to"], **part["filters"]}


def parts_of_others(route: str, answer: Any) -> list[Any]:
    within = {"since": answer.get("from"), "until": answer.get("to")}
    period = {"from": within["since"], "to": within["until"]}
    match route:
        case "downtime":
            return [answer, *(place_of(answer) | each for each in answer["services"])]
        case "availability":
            return [period | each for each in answer["services"]]
        case "whatif":
            return [answer, *(place_of(answer) | {"changes": answer["changes"]} | each for each in answer["services"])]
    asked = place_of(answer) if answer.get("groups") else {}
    return [answer, *(asked | each for each in answer.get("groups", ()))]


def scalars(answer: Any, under: str = "") -> Iterator[tuple[str, str]]:
    """Values of the JSON, with the names and formats of the CSV."""
    for name, value in answer.items():
        if name in {"definition", "definitions", "links", "carried_in", "assumptions"}:
            continue
        own = re.sub("[^a-z0-9]+", "_", name.lower())
        column = under if name in PASSED_OVER else f"{under}_{own}".strip("_")
        match value:
            case dict():
                yield from scalars(value, column)
            case bool():
                yield column, str(value).lower()
            case str() | int() | float():
                yield column, f"'{value}" if column.startswith("changes_") else str(value)
            case list() if name in WORDS:
                yield column, ", ".join(map(str, value))


PASSED_OVER = {"filters", "measures", "total", "amounts", "value", "statistics", "estimates"}
WORDS = {"services_without_rate", "service", "severity", "environment", "source", "owner", "hour_of_week"}


async def test_each_list_of_the_summary_has_a_sheet(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await two_services(engine)
    await store(engine, an_incident("14:00", "15:00", service="search"))
    early = {"zone": "UTC", "hours": {"tuesday": [{"from": "00:00", "to": "00:30"}]}}
    await client.put("/api/v1/calendars/office", json=early)
    for more in ({}, {"calendar": "office"}):
        answer = (await client.get(f"{METRICS}/summary", params=QUESTIONS["summary"] | more)).json()
        reported = list(lists_in(answer))
        assert {part for part, _ in reported} == {"ecdf", "histogram", "values"}
        for table in TABLES[1:4]:
            part = table.partition("/")[2]
            assert await sheet(client, table, **more) == [line for name, line in reported if name == part]


def lists_in(answer: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """The expected lines by table: totals first, and for each measure the elapsed time before business hours."""
    for numbers in (answer["total"], *answer["groups"]):
        clocks = [("", numbers["measures"])]
        if answer["calendar"]:
            clocks.append((answer["calendar"]["name"], numbers["business_hours"]["measures"]))
        for calendar, measures in clocks:
            for name, measure in measures.items():
                place = dict(scalars(place_of(numbers))) | {"measure": name, "calendar": calendar}
                for part in ("ecdf", "histogram", "values"):
                    for each in (measure | (measure["estimates"] or {})).get(part) or ():
                        yield part, place | dict(scalars({part: each}))


async def test_the_single_values_of_dora_have_a_sheet(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00"), an_incident("12:00", "12:10"))
    reported = await sheet(client, "dora/values", service="checkout")
    assert [(line["service"], line["number"], line["values"]) for line in reported] == [
        ("checkout", "time_to_recover", "600.0"),
        ("checkout", "time_to_recover", "3600.0"),
    ]


async def test_the_definitions_are_a_sheet_of_words(client: httpx.AsyncClient) -> None:
    answer = (await client.get(f"{METRICS}/definitions")).json()
    lines = {(line["kind"], line["name"]): line for line in await sheet(client, "definitions")}
    families = [each | {"kind": "family"} for each in answer["families"]]
    assert len(lines) == len(answer["definitions"]) + len(families)
    for each in (*answer["definitions"], *families):
        reported = {
            name: ", ".join(value) if isinstance(value, list) else str(value or "") for name, value in each.items()
        }
        line = lines[each["kind"], each["name"]]
        assert {name: line[name] for name in reported} == {
            name: spreadsheet_text(text) for name, text in reported.items()
        }
        assert {value for name, value in line.items() if name not in reported} <= {""}
    assert lines["measure", "time_to_recover"]["starts"] == "impact start if stated, else detection"


async def test_columns_do_not_come_and_go_with_the_data(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    """Except the columns of named things: a currency, a reason."""
    routes = ("summary", "summary/totals", "downtime", "whatif", "dora")
    of_nothing = {route: (await sheet(client, route))[0] for route in routes}
    assert [await sheet(client, route) for route in ("availability", "timeseries", "timeseries/totals")] == [[]] * 3
    await two_services(engine)
    for route, line in of_nothing.items():
        later = (await sheet(client, route))[0]
        assert line.keys() - later.keys() == set()
        assert all("excluded_" in name or "_eur_" in name for name in later.keys() - line.keys())
    [compared] = await sheet(client, "compare")
    assert compared.keys() >= {"effect_ratio", "effect_low", "p_value", "smallest_change_longer", "b_typical_seconds"}
    assert (compared["effect_ratio"], compared["verdict"], compared["a_n"]) == ("", "cannot_tell", "12")


async def test_money_saved_is_a_number(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await two_services(engine)
    whole, checkout, search = await sheet(client, "whatif")
    assert Decimal(whole["difference_eur_expected"]) < 0
    assert whole["difference_eur_expected"] == checkout["difference_eur_expected"]
    assert (search["service"], search["difference_eur_expected"]) == ("search", "")
    assert whole["changes_time_to_recover"] == "'-50%"


GROUPED = {"summary", "timeseries", "summary/totals", "timeseries/totals", "summary/values"}
HOSTILE = [
    '=HYPERLINK("http://evil","x")',
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "＝1+1",
    "＠SUM",
    '"=1',
    "a,b\n=1",
    "-2+3",
]


async def test_no_name_becomes_a_formula_in_any_sheet(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, *(an_incident("10:00", "11:00", service=name, title=name, key=name) for name in HOSTILE))
    async with db.transaction(engine) as tx:
        await tx.execute(update(Service.__table__).values(owner=Service.__table__.c.name))
    await price(engine, "60", HOSTILE[0])
    for route in (*QUESTIONS, "summary/totals", "timeseries/totals", "summary/values"):
        groups = [{"group_by": each} for each in ("service", "owner")] if route in GROUPED else [{}]
        for grouped in groups:
            lines = await sheet(client, route, **grouped)
            column = "key" if route == "targets" else grouped.get("group_by", "service")
            if route not in {"compare", "dora", "action-items", "tasks"}:  # nothing of theirs is in a service
                assert {line[column] for line in lines} - {""} == {spreadsheet_text(name) for name in HOSTILE}
            for name, cell in ((name, cell) for line in lines for name, cell in line.items()):
                assert not name.startswith(("=", "+", "-", "@"))
                if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
                    assert re.fullmatch(r"-[0-9]+(\.[0-9]+)?", cell), (route, name, cell)
                    assert name not in {"service", "owner"}, (route, name, cell)


async def test_many_lines_come_in_parts(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_services(engine)
    months = {"from": "2024-01-01T00:00:00Z", "interval": "day"}
    whole = await sheet(client, "timeseries", **months)
    monkeypatch.setattr(app.base.http.responses.csv, "CHUNK", 7)
    assert await sheet(client, "timeseries", **months) == whole
    assert len(whole) == 2 * 233 * 2  # two services, and two measures
    totals = await sheet(client, "timeseries/totals", **months)
    assert len(totals) == 2 * 233
    assert sum(int(line["incidents"]) for line in totals) == 13


@pytest.mark.parametrize("route", [*QUESTIONS, *TABLES])
async def test_wrong_parameters_of_a_csv_export_are_a_problem(client: httpx.AsyncClient, route: str) -> None:
    path, form = address(route)
    wrong = {"a_from": "soon"} if route == "compare" else {"from": "soon"}
    answer = await client.get(path, params=QUESTIONS[route.partition("/")[0]] | form | wrong)
    assert answer.status_code == 422
    assert "must be a date such as" in answer.json()["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


async def test_sheets_of_metrics_need_a_token_that_reads(client_as: ClientAs) -> None:
    for scope, status in ((None, 401), (Scope.INGEST, 403)):
        asking = await client_as(scope)
        for route in (*QUESTIONS, "definitions", *TABLES):
            path, form = address(route)
            assert (await asking.get(path, params=QUESTIONS.get(route, {}) | form)).status_code == status
