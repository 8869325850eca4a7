"""Paths as people type them."""

import httpx
import pytest

from app.base.http.requests.paths import drop_trailing_slash, nearest_path
from tests.conftest import ClientAs
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert

KNOWN = [
    "/metrics",
    "/api/v1/incidents",
    "/api/v1/incidents/{id}",
    "/api/v1/incidents/{id}/acknowledge",
    "/api/v1/rules",
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/incident", "/api/v1/incidents"),
        ("/api/v1/Incidents", "/api/v1/incidents"),
        ("/api/v2/incidents", "/api/v1/incidents"),
        ("/api/incidents", "/api/v1/incidents"),
        ("/api/v1/incident/INC-1", "/api/v1/incidents/{id}"),
        ("/api/v1/incidents/INC-1/acknowlege", "/api/v1/incidents/{id}/acknowledge"),
        ("/metric", "/metrics"),
        ("/api/v1/nothing", None),
        ("/nothing", None),
        ("/", None),
        ("", None),
        ("/api/v1/incidents/INC-1/nothing", None),
    ],
)
def test_the_nearest_path(path: str, expected: str | None) -> None:
    assert nearest_path(path, KNOWN) == expected


async def test_an_unknown_path_is_answered_with_the_nearest(client_as: ClientAs) -> None:
    client = await client_as(None)
    for path, expected in (
        ("/api/v1/incident", "did you mean `/api/v1/incidents`?"),
        ("/api/v1/metric/summary", "did you mean `/api/v1/metrics/summary`?"),
        ("/nothing", "GET /openapi.json lists all routes, and /docs shows them"),
        (f"/api/v1/{'x' * 50_000}", "GET /openapi.json lists all routes, and /docs shows them"),
        ("/api/v1/%00%FF", "GET /openapi.json lists all routes, and /docs shows them"),
    ):
        answer = await client.get(path)
        problem = answer.json()
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert (problem["type"], problem["detail"]) == ("urn:aftermath:problem:unknown-path", expected)
    page = await client.get("/nothing", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")


async def test_another_method_is_refused_with_those_that_exist(client: httpx.AsyncClient) -> None:
    answer = await client.delete("/api/v1/search")
    assert (answer.status_code, answer.headers["allow"], answer.json()["detail"]) == (
        405, "GET", "this path supports only GET",
    )  # fmt: skip


async def test_a_trailing_slash_is_accepted(client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert(service="a/")))
    for path in ("/api/v1/incidents", "/api/v1/incidents/INC-1", "/metrics", "/healthz", "/api/v1/metrics/summary"):
        assert (await client.get(f"{path}/")).status_code == 200, path
    assert (await client.get("/api/v1/incidents/?limit=1")).status_code == 200
    assert (await client.post("/api/v1/incidents/INC-1/acknowledge/")).status_code == 200
    assert (await client.get("/api/v1/incidents//")).status_code == 404
    for path in ("/api/v1/services/a%2F", "/api/v1/services/a%2F/"):
        assert (await client.get(path)).json()["name"] == "a/"


def test_an_encoded_slash_is_part_of_a_name() -> None:
    for path, raw, expected in (
        ("/x/a/", b"/x/a%2F", ("/x/a/", b"/x/a%2F")),
        ("/x/a//", b"/x/a%2F/", ("/x/a/", b"/x/a%2F")),
        ("/", b"/", ("/", b"/")),
    ):
        scope = {"path": path, "raw_path": raw}
        drop_trailing_slash(scope)
        assert (scope["path"], scope["raw_path"]) == expected


async def test_numbers_may_be_in_lower_case(client: httpx.AsyncClient) -> None:
    await client.post(WEBHOOK, json=a_delivery(an_alert()))
    assert (await client.get("/api/v1/incidents/inc-1")).json()["number"] == "INC-1"
    review = await client.post("/api/v1/reviews", json={"title": "t", "incidents": ["inc-1"]})
    assert review.json()["number"] == "REV-1"
    assert (await client.get("/api/v1/reviews/rev-1")).json()["number"] == "REV-1"
    item = {"title": "t", "phase": "response", "review": "rev-1"}
    assert (await client.post("/api/v1/action-items", json=item)).status_code == 201
    assert (await client.get("/api/v1/action-items/ai-1")).json()["number"] == "AI-1"
