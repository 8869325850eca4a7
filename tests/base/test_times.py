"""Times, lengths and periods in queries."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx
import pytest
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.errors import Invalid
from app.base.http.requests.fields import Length, When, time_of
from app.cli import openapi_document
from tests.metrics.prometheus.test_exposition import an_incident, at, store

WHEN: TypeAdapter[datetime | timedelta] = TypeAdapter(When)
LENGTH: TypeAdapter[timedelta] = TypeAdapter(Length)
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-28", "2026-11-28T00:00:00+00:00"),
        ("2026-11-28T09:30:00Z", "2026-11-28T09:30:00+00:00"),
        ("2026-11-28t09:30:00.1234567z", "2026-11-28T09:30:00.123456+00:00"),
        ("2026-11-28T09:30Z", "2026-11-28T09:30:00+00:00"),
        ("2026-11-28 09:30:00Z", "2026-11-28T09:30:00+00:00"),
        ("2026-11-28T09:30:00+02:00", "2026-11-28T07:30:00+00:00"),
        ("2026-11-28T09:30:00 02:00", "2026-11-28T07:30:00+00:00"),  # `+` that was not percent-encoded
        ("2026-11-28T09:30:00-02:00", "2026-11-28T11:30:00+00:00"),
        ("-90m", "2026-12-01T10:30:00+00:00"),
        ("-24h", "2026-11-30T12:00:00+00:00"),
        ("-7d", "2026-11-24T12:00:00+00:00"),
        ("-2w", "2026-11-17T12:00:00+00:00"),
    ],
)
def test_a_time_is_a_date_rfc_3339_or_relative_to_now(text: str, expected: str) -> None:
    found = time_of(WHEN.validate_python(text), NOW)
    assert found is not None
    assert found.isoformat() == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *((text, "must be a date such as") for text in ("", "soon", "7d", "-7", "-7y", "--7d", "-0d", "1700000000")),
        *((text, "must be a date such as") for text in ("2026-11-28T09:30:00", "20261128", "2026-W48", "2026-1-1")),
        *((text, "exists in the calendar") for text in ("2026-02-30", "2026-02-28T25:00:00Z", "2026-02-28T10:05:60Z")),
        *((text, "in the years 1971 to 2199") for text in ("1970-12-31", "2200-01-01", "9999-12-31T23:59:59-14:00")),
        ("-99999999w", "must be at most 83641 days"),
    ],
)
def test_other_text_is_no_time(text: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        WHEN.validate_python(text)


def test_a_relative_time_may_be_out_of_bounds() -> None:
    with pytest.raises(Invalid, match="in the years 1971 to 2199"):
        time_of(WHEN.validate_python("-60w"), NOW - timedelta(days=365 * 55 + 13))
    assert time_of(None, NOW) is None


@pytest.mark.parametrize("text", ["", "0d", "30", "30 d", "-30d", "1.5h", "d", "9" * 400 + "d", "99999999w", "\u0663d"])
def test_other_text_is_no_length(text: str) -> None:
    with pytest.raises(ValidationError):
        LENGTH.validate_python(text)


def test_every_time_in_a_query_takes_the_same_forms() -> None:
    """Only `from`, `to` and those of comparisons are times; a schema of another kind is a forgotten one."""
    for path, methods in openapi_document()["paths"].items():
        for operation in methods.values() if path.startswith("/api/v1/") else ():
            for one in operation.get("parameters", ()):
                if one["in"] == "query" and "date-time" in str(one["schema"]):
                    pytest.fail(f"{path}: {one['name']}")
                if one["name"] in {"from", "to", "a_from", "a_to", "b_from", "b_to"}:
                    assert "such as `-7d`" in one["description"], (path, one)


PERIODS = ("summary", "timeseries", "downtime", "whatif", "availability", "action-items", "targets", "tasks", "dora")


async def test_a_period_ends_now_or_at_to(client: httpx.AsyncClient) -> None:
    for route in PERIODS:
        path = f"/api/v1/metrics/{route}"
        for query in ("period=7d", "from=-7d", "from=2026-11-01", "period=2w&to=2026-11-01", "to=-1d"):
            answer = await client.get(f"{path}?{query}")
            assert answer.status_code == 200, (route, query, answer.text)
        both = await client.get(f"{path}?period=7d&from=-7d")
        assert (both.status_code, both.json()["detail"]) == (422, "send `from` or `period`, not both")
    total = (await client.get("/api/v1/metrics/summary?period=2w&to=2026-11-15")).json()["total"]
    assert (total["from"], total["to"]) == ("2026-11-01T00:00:00Z", "2026-11-15T00:00:00Z")


async def compared(client: httpx.AsyncClient, query: str) -> list[tuple[str, str]]:
    answer = await client.get(f"/api/v1/metrics/compare?measure=time_to_recover{query}")
    assert answer.status_code == 200, answer.text
    return [(answer.json()[side]["from"], answer.json()[side]["to"]) for side in "ab"]


async def test_a_period_is_compared_with_the_one_before(client: httpx.AsyncClient) -> None:
    days = [f"2026-11-{day:02}T00:00:00Z" for day in (1, 8, 15)]
    assert await compared(client, "&period=7d&b_to=2026-11-15") == [(days[0], days[1]), (days[1], days[2])]
    [(_, first_end), (second_start, second_end)] = await compared(client, "")
    assert first_end == second_start
    moments = [datetime.fromisoformat(text) for text in (second_start, second_end)]
    assert moments[1] - moments[0] == timedelta(days=30)
    dates = "&a_from=2026-11-01&a_to=2026-11-08&b_from=2026-11-08&b_to=2026-11-15"
    assert await compared(client, dates) == [(days[0], days[1]), (days[1], days[2])]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("a_from=2026-11-01", "send `a_from`, `a_to` and `b_from`, or `period` instead of them"),
        ("a_from=2026-11-01&a_to=2026-11-08&b_from=2026-11-08&period=7d", "or `period` instead of them"),
        ("period=1500w", "compare shorter periods"),
        ("a_from=2026-11-02&a_to=2026-11-01&b_from=2026-11-08", "must not end before it starts"),
        ("a_from=2026-11-01&a_to=2026-11-08&b_from=2026-11-07", "must not overlap"),
    ],
)
async def test_periods_that_cannot_be_compared_are_refused(client: httpx.AsyncClient, query: str, why: str) -> None:
    answer = await client.get(f"/api/v1/metrics/compare?measure=time_to_recover&{query}")
    assert answer.status_code == 422
    assert why in answer.json()["detail"]


async def test_lists_take_the_same_times(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await store(engine, an_incident("10:00", "11:00"))  # on 2024-08-20
    for query, number in (
        ("from=2024-08-20", 1),
        ("to=2024-08-20", 0),
        ("from=-7d", 0),
        ("to=-7d", 1),
        (f"from={quote(at('10:00').isoformat(), safe='+:')}", 1),  # `+` as a space
    ):
        answer = await client.get(f"/api/v1/incidents?{query}")
        assert (answer.status_code, len(answer.json()["items"])) == (200, number), (query, answer.text)
    for path in ("deployments", "changes"):
        assert (await client.get(f"/api/v1/{path}?from=-7d&to=2026-11-28")).status_code == 200
