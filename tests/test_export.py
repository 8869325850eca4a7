"""Incidents as CSV, for spreadsheets: everything the list has, and nothing that runs."""

import csv
from datetime import timedelta
from io import StringIO

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app.access import Scope
from app.incidents import api
from app.web import spreadsheet_text
from tests.conftest import ClientAs
from tests.test_exposition import an_incident, at, price, store

PATH = "/api/v1/incidents.csv"


async def exported(client: httpx.AsyncClient, **filters: str) -> list[dict[str, str]]:
    answer = await client.get(PATH, params=filters)
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
        "cost_low_eur": "30.00",
        "cost_expected_eur": "60.00",
        "cost_high_eur": "120.00",
    }
    assert checkout | expected == checkout
    assert (search["service"], search["status"], search["time_to_recover_status"]) == ("search", "open", "pending")
    assert (search["resolved_at"], search["time_to_recover_seconds"], search["cost_expected_eur"]) == ("", "", "")


async def test_it_has_what_the_list_has_in_the_same_order(
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
    for filters in ({}, {"service": "a"}, {"severity": "sev3"}, {"from": "2024-08-20T10:02:00Z"}, {"status": "open"}):
        listed = (await client.get("/api/v1/incidents", params=filters)).json()["items"]
        assert [row["number"] for row in await exported(client, **filters)] == [each["number"] for each in listed]


async def test_without_incidents_there_are_the_names_of_the_columns(client: httpx.AsyncClient) -> None:
    answer = await client.get(PATH)
    assert answer.text.startswith("number,title,service,severity,")
    assert answer.text.endswith("\r\n")
    assert answer.text.count("\r\n") == 1
    assert answer.headers["content-disposition"] == 'attachment; filename="incidents.csv"'


async def test_no_cell_begins_like_a_formula_and_no_line_breaks(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    hostile = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '"=1", ""', "a\nb,c", "a\r\nb", "ü;'\"", ",", "' or 1"]
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


@given(st.text())
def test_text_is_kept_behind_the_apostrophe(text: str) -> None:
    assert spreadsheet_text(text) in {text, f"'{text}"}
    assert not spreadsheet_text(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert spreadsheet_text(f"a{text}") == f"a{text}"


@pytest.mark.parametrize("filters", [{"severity": "sev6"}, {"from": "soon"}, {"label": "x"}])
async def test_absurd_filters_are_told(client: httpx.AsyncClient, filters: dict[str, str]) -> None:
    answer = await client.get(PATH, params=filters)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_export_needs_a_token_that_reads(client_as: ClientAs) -> None:
    statuses = {
        scope: (await (await client_as(scope)).get(PATH)).status_code for scope in (None, Scope.INGEST, Scope.READ)
    }
    assert statuses == {None: 401, Scope.INGEST: 403, Scope.READ: 200}
