"""The status page on a real database: what is published, what follows from incidents, and what never gets out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.base.db.public_role import prepare_public_role
from app.base.http.context import Context
from app.base.schema import PUBLIC_COLUMNS
from app.ingest.health.store import listening_since
from app.main import serving
from app.settings import Settings
from app.status_page import public, published
from app.status_page.automatic import keep_up
from app.status_page.published import StatusPage
from app.status_page.store import components, incidents
from app.status_page.store.measured import measure
from tests.conftest import ClientAs, client_of
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.statements import counted

NOW = datetime.now(UTC).replace(microsecond=0)
PUBLIC = ["/status", "/status/history", "/status/reports", "/status/style.css", *public.DOCUMENTS]


def ago(**how: float) -> str:
    return (NOW - timedelta(**how)).isoformat().replace("+00:00", "Z")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    inside = f"http://{PLANTED['address']}:8080"
    return settings.model_copy(update={"status_page": True, "status_page_name": "Acme", "public_url": inside})


@pytest.fixture
async def page(context: Context) -> StatusPage:
    return context.part(StatusPage)


@pytest.fixture
async def anyone(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(context) as client:
        del client.headers["authorization"]
        yield client


async def put(client: httpx.AsyncClient, name: str, **body: Any) -> dict[str, Any]:
    answer = await client.put(f"/api/v1/status-page/components/{name}", json={"since": "2026-01-01"} | body)
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def post(client: httpx.AsyncClient, path: str, code: int = 201, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"/api/v1/status-page/{path}", json=body)
    assert answer.status_code == code, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def update(client: httpx.AsyncClient, on_page: dict[str, Any], code: int = 201, **body: Any) -> dict[str, Any]:
    return await post(client, f"incidents/{on_page['id']}/updates", code, **body)


async def publish_incident(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    """Publishes a partial outage of Payments."""
    first = {"status": "investigating", "body": "Some cards fail.", "components": {"Payments": "partial_outage"}}
    first |= more.pop("first", {})
    return await post(client, "incidents", **({"title": "Card payments fail", "first": first} | more))


async def fire(client: httpx.AsyncClient, started: str, ended: str | None = None, **labels: str) -> None:
    delivery = a_delivery(an_alert(started, ended, **labels) if ended else an_alert(started, **labels))
    assert (await client.post("/webhooks/alertmanager", json=delivery)).status_code == 200


async def kept_up(engine: AsyncEngine, *, now: datetime = NOW, delay: timedelta = timedelta(minutes=5)) -> None:
    async with db.session(engine) as session:
        assert await keep_up(session, delay=delay, now=now)


async def summary(anyone: httpx.AsyncClient, page: StatusPage) -> dict[str, Any]:
    await page.refresh(datetime.now(UTC))
    return (await anyone.get("/status.json")).json()  # type: ignore[no-any-return]


# — publishing —


async def test_an_incident_is_published_and_resolved(
    client: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage
) -> None:
    await fire(client, ago(minutes=30), service="shop")
    await put(client, "Payments", services=["shop"])
    await put(client, "Website")
    on_page = await publish_incident(client, incident="INC-1", first={"at": ago(minutes=20)})
    assert (on_page["begins_at"], on_page["begins_at_stated"], on_page["incident"]) == (ago(minutes=30), False, "INC-1")
    found = await summary(anyone, page)
    assert found["status"] == {"indicator": "major", "description": "Partial outage of some systems"}
    assert [each["name"] for each in found["incidents"]] == ["Card payments fail"]
    assert "Some cards fail." in (await anyone.get("/status")).text

    await fire(client, ago(minutes=30), ago(minutes=5), service="shop")
    over = await update(client, on_page, status="resolved", body="Over.")
    # It ended with the incident, not when somebody clicked.
    assert (over["ends_at"], over["set_operational"]) == (ago(minutes=5), ["Payments"])
    found = await summary(anyone, page)
    assert (found["status"]["indicator"], found["incidents"]) == ("none", [])

    timeline = (await client.get("/api/v1/incidents/INC-1/timeline?kind=published")).json()["items"]
    assert [(each["at"], each["note"], each["detail"]["status"]) for each in timeline] == [
        (ago(minutes=20), "Some cards fail.", "investigating"),
        (over["updates"][1]["at"], "Over.", "resolved"),
    ]
    incident = (await client.get("/api/v1/incidents/INC-1")).json()
    assert incident["first_public_at"] == ago(minutes=20)
    assert incident["measures"]["time_to_public_update"]["seconds"] == 600
    address = f"/api/v1/incidents/INC-1/timeline/{timeline[0]['id']}/correct"
    correction = await client.post(address, json={"note": "x"})
    assert (correction.status_code, "status page" in correction.text) == (409, True)


async def test_times_follow_the_incident_until_a_person_states_them(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await fire(client, ago(minutes=30), ago(minutes=10), service="shop")
    await put(client, "Payments", services=["shop"])
    on_page = await publish_incident(client, incident="INC-1", first={"at": ago(minutes=25)})
    path = f"incidents/{on_page['id']}"
    over = await update(client, on_page, status="resolved", body="Over.")
    assert (over["begins_at"], over["ends_at"]) == (ago(minutes=30), ago(minutes=10))

    impact = {"impact_started_at": ago(minutes=40)}
    assert (await client.patch("/api/v1/incidents/INC-1", json=impact)).status_code == 200
    await kept_up(engine)
    address = f"/api/v1/status-page/{path}"
    assert (await client.get(address)).json()["begins_at"] == ago(minutes=40)

    stated = (await client.patch(address, json={"begins_at": ago(minutes=35), "ends_at": ago(minutes=8)})).json()
    assert (stated["begins_at"], stated["ends_at"], stated["ends_at_stated"]) == (ago(minutes=35), ago(minutes=8), True)
    await kept_up(engine)
    assert (await client.get(address)).json()["updated_at"] == stated["updated_at"]
    followed = (await client.patch(address, json={"begins_at": None, "ends_at": None})).json()
    assert (followed["begins_at"], followed["ends_at"]) == (ago(minutes=40), ago(minutes=10))


async def test_a_problem_that_came_back_ends_when_people_said_so_and_a_late_note_moves_nothing(
    client: httpx.AsyncClient,
) -> None:
    await fire(client, ago(minutes=60), ago(minutes=50), service="shop")
    await put(client, "Payments", services=["shop"])
    on_page = await publish_incident(client, incident="INC-1", first={"at": ago(minutes=55)})

    async def said(status: str, minutes: int, **more: Any) -> Any:
        return (await update(client, on_page, status=status, body="Words.", at=ago(minutes=minutes), **more))["ends_at"]

    assert await said("resolved", 45) == ago(minutes=50)
    assert await said("resolved", 44) == ago(minutes=50)
    assert await said("investigating", 40, components={"Payments": "major_outage"}) is None
    assert await said("resolved", 20) == ago(minutes=20)
    assert await said("resolved", 10) == ago(minutes=20)


async def test_a_correction_is_shown_and_what_was_said_before_is_kept_inside(
    client: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage
) -> None:
    await fire(client, ago(minutes=30), service="shop")
    await put(client, "Payments", services=["shop"])
    on_page = await publish_incident(client, incident="INC-1")
    await page.refresh(datetime.now(UTC))
    before = (await anyone.get("/status/history.atom")).text
    address = f"/api/v1/status-page/incidents/{on_page['id']}/updates/{on_page['updates'][0]['id']}"
    assert (await client.patch(address, json={"at": None})).json()["updates"] == on_page["updates"]
    corrected = (await client.patch(address, json={"body": "A few cards fail."})).json()
    assert [each["body"] for each in corrected["updates"][0]["earlier"]] == ["Some cards fail."]
    await page.refresh(datetime.now(UTC))
    after = await anyone.get(f"/status/incidents/{on_page['id']}")
    assert "A few cards fail." in after.text
    assert "Some cards" not in after.text
    assert "corrected" in after.text
    atom = (await anyone.get("/status/history.atom")).text
    assert f"urn:uuid:{on_page['id']}" in before
    assert f"urn:uuid:{on_page['id']}" in atom
    notes = (await client.get("/api/v1/incidents/INC-1/timeline?kind=published")).json()["items"]
    assert [each["note"] for each in notes] == ["Some cards fail.", "A few cards fail."]


async def test_what_was_withdrawn_is_gone_and_nobody_was_told(
    client: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage
) -> None:
    await fire(client, ago(minutes=30), service="shop")
    await put(client, "Payments", services=["shop"])
    on_page = await publish_incident(client, incident="INC-1")
    await page.refresh(datetime.now(UTC))
    assert (await anyone.get(f"/status/incidents/{on_page['id']}")).status_code == 200
    for _ in range(2):
        await post(client, f"incidents/{on_page['id']}/withdraw", 200)
    await page.refresh(datetime.now(UTC))
    assert (await anyone.get(f"/status/incidents/{on_page['id']}")).status_code == 404
    assert "Card payments" not in (await anyone.get("/status")).text
    assert (await client.get("/api/v1/incidents/INC-1")).json()["first_public_at"] is None
    again = {"status": "resolved", "body": "x"}
    assert (await client.post(f"/api/v1/status-page/incidents/{on_page['id']}/updates", json=again)).status_code == 409


async def test_a_past_incident_is_entered_with_its_own_times(
    client: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage
) -> None:
    await put(client, "Payments")
    on_page = await publish_incident(client, begins_at=ago(days=3, hours=2), first={"at": ago(days=3, hours=1)})
    resolved: dict[str, Any] = {"status": "resolved", "body": "Over.", "at": ago(days=3)}
    over = await update(client, on_page, **resolved)
    assert (over["begins_at"], over["ends_at"]) == (ago(days=3, hours=2), ago(days=3))
    await page.refresh(datetime.now(UTC))
    assert "partial outage for 2\u00a0hours" in (await anyone.get("/status")).text
    [known] = (await client.get("/api/v1/status-page/components")).json()["items"]
    assert 0.999 < known["last_90_days"]["published"] < 1
    assert known["last_90_days"]["measured"] is None


async def test_a_repeated_request_publishes_nothing_twice(client: httpx.AsyncClient) -> None:
    await put(client, "Payments")
    id_, update_id = str(uuid4()), str(uuid4())
    first = await publish_incident(client, id=id_)
    body: dict[str, Any] = {"id": update_id, "status": "monitoring", "body": "Better."}
    await post(client, f"incidents/{id_}/updates", **body)
    repeated = await post(client, f"incidents/{id_}/updates", 200, **body)
    assert len(repeated["updates"]) == 2
    await post(client, f"incidents/{id_}/updates", 409, **body | {"body": "Worse."})
    same = {"status": "investigating", "body": "Some cards fail."}
    assert (await post(client, "incidents", 200, id=id_, title=first["title"], first=same))["id"] == id_
    await post(client, "incidents", 409, id=id_, title="Another", first=same)


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"first": {"components": {"No such": "major_outage"}}}, 422, "component"),
        ({"first": {"status": "scheduled"}}, 422, "investigating"),
        ({"first": {"at": "2199-01-01T00:00:00Z"}}, 422, "future"),
        ({"first": {"body": "x" * 10_001}}, 422, "10000"),
        ({"kind": "maintenance", "first": {"status": "scheduled"}}, 422, "scheduled_to"),
        ({"scheduled_to": "2026-01-01T00:00:00Z"}, 422, "maintenance"),
        ({"incident": "INC-99"}, 404, "incident"),
    ],
)
async def test_what_cannot_be_published_is_refused_in_words(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, word: str
) -> None:
    await put(client, "Payments")
    first = {"status": "investigating", "body": "Words."} | body.pop("first", {})
    answer = await client.post("/api/v1/status-page/incidents", json={"title": "T", "first": first} | body)
    assert (answer.status_code, word in answer.text) == (status, True), answer.text


async def test_a_component_needs_services_that_exist(client: httpx.AsyncClient) -> None:
    path = "/api/v1/status-page/components/Payments"
    assert (await client.put(path, json={"services": ["no-such"]})).status_code == 422
    assert (await client.put(path, json={"uptime": "measured"})).status_code == 422
    assert (await client.delete(path)).status_code == 404


async def test_components_and_updates_are_bounded(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal says the bound, and what to do."""
    monkeypatch.setattr(components, "COMPONENTS_AT_MOST", 1)
    monkeypatch.setattr(incidents, "UPDATES_AT_MOST", 1)
    await put(client, "Payments")
    await put(client, "Payments", description="changed")
    answer = await client.put("/api/v1/status-page/components/Website", json={"since": "2026-01-01"})
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "the status page may have at most 1 components; delete one that is no longer needed",
    )
    on_page = await publish_incident(client)
    refused = await update(client, on_page, 409, status="identified", body="x")
    assert refused["detail"] == "a public incident may have at most 1 updates; publish a new incident"


async def test_public_incidents_are_listed_newest_first_with_a_cursor(client: httpx.AsyncClient) -> None:
    await put(client, "Payments")
    for days in (3, 1, 2):
        await publish_incident(client, title=f"{days} days ago", begins_at=ago(days=days))
    path, titles = "/api/v1/status-page/incidents?limit=2", list[str]()
    cursor = ""
    for _ in range(2):
        page = (await client.get(f"{path}{cursor}")).json()
        titles += [each["title"] for each in page["items"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert (titles, page["next_cursor"]) == (["1 days ago", "2 days ago", "3 days ago"], None)


async def test_a_public_incident_follows_its_incident_into_a_merge(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await fire(client, ago(minutes=60), ago(minutes=50), service="shop", alertname="a")
    await fire(client, ago(minutes=30), service="shop", alertname="b")
    await put(client, "Payments", services=["shop"])
    on_page = await publish_incident(client, incident="INC-2", first={"at": ago(minutes=25)})
    await fire(client, ago(minutes=52), ago(minutes=28), service="shop", alertname="c")
    assert (await client.get("/api/v1/incidents/INC-2")).json()["merged_into"]
    await kept_up(engine)
    found = (await client.get(f"/api/v1/status-page/incidents/{on_page['id']}")).json()
    assert (found["incident"], found["begins_at"]) == ("INC-1", ago(minutes=60))
    assert (await client.get("/api/v1/incidents/INC-1")).json()["measures"]["time_to_public_update"][
        "seconds"
    ] == 35 * 60
    await update(client, on_page, status="identified", body="Found.")


async def test_a_public_incident_follows_its_part_of_a_split(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await fire(client, ago(minutes=60), service="shop", alertname="a")
    await fire(client, ago(minutes=20), service="shop", alertname="b")
    await put(client, "Payments", services=["shop"])
    on_page = await publish_incident(client, incident="INC-1", first={"at": ago(minutes=10)})
    assert on_page["begins_at"] == ago(minutes=60)
    await fire(client, ago(minutes=60), ago(minutes=50), service="shop", alertname="a")  # so it was two
    await kept_up(engine)
    found = (await client.get(f"/api/v1/status-page/incidents/{on_page['id']}")).json()
    assert (found["incident"], found["begins_at"]) == ("INC-2", ago(minutes=20))
    entries = (await client.get("/api/v1/incidents/INC-2/timeline?kind=published")).json()["items"]
    assert len(entries) == 1


# — proposals and what is published without a person —


async def test_a_proposal_is_shown_to_readers_and_is_not_public(
    client: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage, engine: AsyncEngine
) -> None:
    await fire(client, ago(minutes=30), service="shop", severity="critical")
    await put(client, "Payments", services=["shop"])
    await kept_up(engine)
    [found] = (await client.get("/api/v1/status-page/components")).json()["items"]
    assert (found["status"], found["differs"]) == ("operational", True)
    assert found["proposal"] == {"status": "major_outage", "incidents": ["INC-1"], "maintenance": False}
    assert (await summary(anyone, page))["status"]["indicator"] == "none"


async def test_a_component_that_asks_for_it_is_published_after_a_while_until_a_person_writes(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await fire(client, ago(minutes=14), service="shop", severity="warning")
    await put(client, "Payments", services=["shop"], automatic=True)

    async def published() -> list[dict[str, Any]]:
        return (await client.get("/api/v1/status-page/incidents")).json()["items"]  # type: ignore[no-any-return]

    await kept_up(engine, now=NOW - timedelta(minutes=10))
    assert await published() == []
    for _ in range(2):
        await kept_up(engine, now=NOW - timedelta(minutes=9))
    [found] = await published()
    assert (found["title"], found["automatic"]) == ("We are looking into a problem", True)
    assert (found["components"], found["incident"]) == ({"Payments": "degraded_performance"}, "INC-1")

    await fire(client, ago(minutes=14), service="shop", severity="critical")  # it becomes worse
    for _ in range(2):
        await kept_up(engine, now=NOW - timedelta(minutes=8))
    [found] = await published()
    assert (found["components"], len(found["updates"])) == ({"Payments": "major_outage"}, 2)

    await post(client, f"incidents/{found['id']}/updates", status="identified", body="We know the cause.")
    for severity in ("critical", "warning"):
        await fire(client, ago(minutes=14), ago(minutes=1), service="shop", severity=severity)
    await kept_up(engine, now=NOW)
    [found] = await published()
    assert (found["status"], found["automatic"]) == ("identified", False)  # a person ends what a person has taken over


async def test_what_was_published_automatically_ends_with_the_incident(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await fire(client, ago(minutes=30), service="shop")
    await put(client, "Payments", services=["shop"], automatic=True)
    await kept_up(engine, now=NOW - timedelta(minutes=2))
    await fire(client, ago(minutes=30), ago(minutes=1), service="shop")
    for _ in range(2):
        await kept_up(engine)
    [found] = (await client.get("/api/v1/status-page/incidents")).json()["items"]
    assert (found["status"], found["ends_at"], len(found["updates"])) == ("resolved", ago(minutes=1), 2)
    assert found["components"] == {"Payments": "operational"}


async def test_all_components_that_ask_for_it_are_published_whatever_came_before(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await fire(client, ago(minutes=30), service="shop", severity="warning")
    for name in ("Payments", "Website"):
        await put(client, name, services=["shop"], automatic=True)

    async def published() -> list[tuple[Any, ...]]:
        items = (await client.get("/api/v1/status-page/incidents")).json()["items"]
        return [(each["incident"], each["components"], each["withdrawn_at"] is not None) for each in items[::-1]]

    both = {"Payments": "degraded_performance", "Website": "degraded_performance"}
    await kept_up(engine, now=NOW - timedelta(minutes=20))
    assert await published() == [("INC-1", both, False)]
    await put(client, "Search", services=["shop"], automatic=True)  # it asks later
    for _ in range(2):
        await kept_up(engine, now=NOW - timedelta(minutes=19))
    [(_, components, _)] = await published()
    assert components == both | {"Search": "degraded_performance"}

    [found] = (await client.get("/api/v1/status-page/incidents")).json()["items"]
    await post(client, f"incidents/{found['id']}/withdraw", 200)
    await client.put("/api/v1/services/cards", json={})
    await put(client, "Payments", services=["shop", "cards"], automatic=True)
    await fire(client, ago(minutes=18), service="cards", severity="warning", alertname="Another")
    # The one that was withdrawn becomes worse; that stays inside.
    await fire(client, ago(minutes=17), service="shop", severity="critical")
    for minutes in (14, 13, 12, 11):
        await kept_up(engine, now=NOW - timedelta(minutes=minutes))
    assert [each for each in await published() if not each[2]] == [
        ("INC-2", {"Payments": "degraded_performance"}, False)
    ]


async def test_what_has_not_lasted_makes_nothing_worse(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await fire(client, ago(minutes=30), service="shop", severity="warning")
    await client.put("/api/v1/services/cards", json={})
    await put(client, "Payments", services=["shop", "cards"], automatic=True)
    await kept_up(engine, now=NOW - timedelta(minutes=4))
    await fire(client, ago(minutes=3), service="cards", severity="critical")
    await kept_up(engine)
    [found] = (await client.get("/api/v1/status-page/incidents")).json()["items"]
    assert found["components"] == {"Payments": "degraded_performance"}
    await kept_up(engine, now=NOW + timedelta(minutes=2))
    [found] = (await client.get("/api/v1/status-page/incidents")).json()["items"]
    assert found["components"] == {"Payments": "major_outage"}


# — measured —


async def test_measured_days_have_downtime_and_never_call_unwatched_time_up(
    client: httpx.AsyncClient, engine: AsyncEngine, settings: Settings
) -> None:
    day = (NOW - timedelta(days=2)).replace(hour=0, minute=0, second=0)

    def on(hour: int) -> str:
        return (day + timedelta(hours=hour)).isoformat()

    await client.put("/api/v1/services/shop", json={"in_service_since": ago(days=10)})
    await fire(client, on(2), on(4), service="shop", severity="critical")
    await put(client, "Payments", services=["shop"], uptime="measured")
    await client.put(
        "/api/v1/maintenance/patching",
        json={"services": ["shop"], "reason": "r", "once": {"from": on(3), "to": on(5)}},
    )
    async with db.transaction(engine) as tx:
        gap = {"start": day + timedelta(hours=10), "end": day + timedelta(hours=13)}
        await tx.execute(text("INSERT INTO watch_gap (begins_at, ends_at) VALUES (:start, :end)"), gap)
    async with db.session(engine) as session:
        # The first run measures all days of a new component.
        assert await measure(session, days=2, now=NOW, weights=settings.impact) == 90
    async with db.transaction(engine) as tx:
        rows = await tx.execute(text("SELECT day, watched_seconds, down_seconds FROM component_day ORDER BY day"))
        found = {row.day: (row.watched_seconds / 3600, row.down_seconds / 3600) for row in rows}
    # An hour of the outage was maintenance, which is two hours; the gap is three.
    assert found[day.date()] == (24 - 2 - 3, 1)
    assert found[(NOW - timedelta(days=20)).date()] == (0, 0)  # before the service was there
    assert found[(NOW - timedelta(days=5)).date()] == (24, 0)
    await put(client, "Payments", services=["shop"], uptime="published")
    async with db.transaction(engine) as tx:
        assert (await tx.execute(text("SELECT count(*) FROM component_day"))).scalar_one() == 0


async def test_a_day_is_measured_the_same_alone_and_with_all_others(
    client: httpx.AsyncClient, engine: AsyncEngine, settings: Settings
) -> None:
    """Failures of the monitoring count for the sources of a service, even if these were last needed long ago."""
    await client.put("/api/v1/services/shop", json={"in_service_since": ago(days=10)})
    await fire(client, ago(days=5, hours=1), ago(days=5), service="shop")
    await fire(client, ago(hours=20), ago(hours=10), service="other")
    async with db.transaction(engine) as tx:
        failure = "UPDATE incident SET alert_class = 'monitoring', source_ids = ARRAY[-77] WHERE service = 'other'"
        await tx.execute(text(failure))
    await put(client, "Payments", services=["shop"], uptime="measured")
    found = []
    for _ in range(2):
        async with db.session(engine) as session:
            await measure(session, days=2, now=NOW, weights=settings.impact)  # at first all days
        async with db.transaction(engine) as tx:
            rows = await tx.execute(text("SELECT day, watched_seconds FROM component_day ORDER BY day DESC LIMIT 3"))
            found.append([tuple(row) for row in rows])
    assert found[0] == found[1]


async def test_a_time_in_which_nothing_ran_is_remembered(engine: AsyncEngine) -> None:
    away = timedelta(minutes=1)
    for minutes in (30, 29, 10, 9):
        async with db.session(engine) as session:
            await listening_since(session, now=NOW - timedelta(minutes=minutes), away=away)
    async with db.transaction(engine) as tx:
        rows = await tx.execute(text("SELECT begins_at, ends_at FROM watch_gap"))
        assert [tuple(row) for row in rows] == [(NOW - timedelta(minutes=29), NOW - timedelta(minutes=10))]


async def test_gauges(client: httpx.AsyncClient) -> None:
    await put(client, "Payments")
    await put(client, "Website")
    await publish_incident(client, first={"at": ago(minutes=30)})
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families((await client.get("/metrics")).text)
        for sample in family.samples
    }
    assert samples["aftermath_components", "partial_outage"] == 1
    assert samples["aftermath_components", "operational"] == 1
    assert samples["aftermath_public_incidents_open",] == samples["aftermath_public_updates_overdue",] == 1


# — what never gets out —

PLANTED = {
    where: f"zq{number}planted"
    for number, where in enumerate(
        (
            "service",
            "label",
            "annotation",
            "note",
            "person",
            "token",
            "owner",
            "source",
            "maintenance",
            "rule",
            "link",
            "address",
        )
    )
}


async def test_no_internal_word_is_in_any_public_byte(
    client: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage, engine: AsyncEngine, settings: Settings
) -> None:
    words = PLANTED
    alert = an_alert(ago(minutes=30), service=words["service"], alertname=words["label"], severity="critical")
    alert |= {"annotations": {"summary": words["annotation"]}, "generatorURL": f"https://example.org/{words['link']}"}
    assert (await client.post("/webhooks/alertmanager", json=a_delivery(alert))).status_code == 200
    await client.put(f"/api/v1/services/{words['service']}", json={"owner": words["owner"]})
    await client.post("/api/v1/incidents/INC-1/acknowledge", json={"by": words["person"], "note": words["note"]})
    await client.put(
        f"/api/v1/maintenance/{words['maintenance']}",
        json={"services": [], "reason": words["maintenance"], "once": {"from": ago(days=2), "to": ago(days=1)}},
    )
    await put(client, "Payments", services=[words["service"]], uptime="measured")
    await fire(client, ago(minutes=20), service=f"other-{words['service']}", alertname=words["label"])
    await put(client, "Reports", services=[f"other-{words['service']}"], automatic=True)
    on_page = await publish_incident(client, incident="INC-1", first={"by": words["person"]})
    update_id = on_page["updates"][0]["id"]
    await client.patch(
        f"/api/v1/status-page/incidents/{on_page['id']}/updates/{update_id}", json={"body": "Corrected."}
    )
    withdrawn = await publish_incident(client, title=words["rule"])
    await post(client, f"incidents/{withdrawn['id']}/withdraw", 200)
    await kept_up(engine)
    async with db.session(engine) as session:
        await measure(session, days=90, now=NOW, weights=settings.impact)
    await page.refresh(datetime.now(UTC))
    incident = (await client.get("/api/v1/incidents/INC-1")).json()
    secrets = {
        *words.values(),
        "INC-1",
        incident["id"],
        incident["key"],
        "INC-2",
        "Some cards fail.",
        "sev1",
        settings.host,
    }
    paths = [*PUBLIC, *(f"/status/incidents/{each}" for each in (on_page["id"], withdrawn["id"]))]
    automatic = next(
        each["id"] for each in (await client.get("/api/v1/status-page/incidents")).json()["items"] if each["automatic"]
    )
    for path in [*paths, f"/status/incidents/{automatic}"]:
        answer = await anyone.get(path)
        everything = answer.text + str(answer.headers.raw)
        assert [word for word in secrets if word in everything] == [], path
    assert "Corrected." in (await anyone.get(f"/status/incidents/{on_page['id']}")).text


async def test_the_public_role_may_read_public_columns_and_nothing_else(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    await put(client, "Payments")
    public = {(table.__table__.name, name, "SELECT") for table, columns in PUBLIC_COLUMNS.items() for name in columns}
    async with engine.connect() as connection:
        rows = await connection.execute(_PRIVILEGES, {"role": db.PUBLIC_ROLE})
        every = [(row.table, row.column, row.privilege, row.granted) for row in rows]
    assert {each[:3] for each in every if each[3]} == public
    internal = {"services", "automatic", "incident_id", "by", "token", "earlier", "entry", "begins_at_stated"}
    assert {name for _, name, _ in public} & internal == set()
    assert len(every) > 1000  # columns of all tables, also of partitions, by privilege
    for query in ("SELECT services FROM component", "SELECT * FROM incident", "SELECT earlier FROM public_update"):
        async with db.public_transaction(engine) as (tx, is_confined):
            assert is_confined
            await tx.execute(text("SELECT name FROM component"))
            with pytest.raises(DBAPIError, match="permission denied"):
                await tx.execute(text(query))
    for statement in ("UPDATE component SET name = 'x'", "DELETE FROM public_update", "CREATE TABLE t (a integer)"):
        async with db.public_transaction(engine) as (tx, _):
            with pytest.raises(DBAPIError, match=r"permission denied|read-only"):
                await tx.execute(text(statement))


_PRIVILEGES = text("""
    SELECT pg_class.relname AS table, attname AS column, privilege,
           has_column_privilege(CAST(:role AS text), pg_class.oid, attnum, privilege) AS granted
      FROM pg_class
      JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
     CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS privilege
     WHERE relnamespace = 'public'::regnamespace
       AND relkind IN ('r', 'p', 'v', 'm')
""")


async def test_without_the_role_the_page_works_and_the_log_says_so(
    database_url: str, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A managed database whose role may not create roles."""
    name = f"managed_{uuid4().hex[:8]}"
    admin = db.connect(server, pool_size=1)
    owner = db.connect(database_url, pool_size=1)
    managed = db.connect(
        make_url(database_url).set(username=name, password="x").render_as_string(hide_password=False), pool_size=1
    )
    try:
        async with admin.begin() as tx:
            await tx.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD 'x'"))
        async with owner.begin() as tx:
            await tx.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}"))
        async with managed.connect() as connection:
            await prepare_public_role(connection)
            await connection.commit()
        page = StatusPage.of(Settings(), managed)
        for _ in range(2):
            await page.refresh(NOW)
        assert page.find("/status") is not None
        [warning] = [each.message for each in caplog.records if "aftermath_public" in each.message]
        assert "GRANT aftermath_public TO aftermath" in warning
    finally:
        await managed.dispose()
        async with owner.begin() as tx:
            await tx.execute(text(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {name}"))
            await tx.execute(text(f"DROP ROLE {name}"))
        await owner.dispose()
        await admin.dispose()


# — serving —


async def test_pages_are_served_from_memory(
    client: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage, engine: AsyncEngine, context: Context
) -> None:
    await put(client, "Payments")
    on_page = await publish_incident(client)
    with counted(context.engine) as statements:
        await page.refresh(datetime.now(UTC))
    assert len(statements) <= 11, statements
    with counted(context.engine) as statements:
        await page.refresh(datetime.now(UTC))
    assert len(statements) <= 8, statements  # neither incidents nor reports have changed
    with counted(context.engine) as statements:
        for path in [*PUBLIC, f"/status/incidents/{on_page['id']}"]:
            answer = await anyone.get(path)
            assert answer.status_code == 200
            assert "set-cookie" not in answer.headers
            assert answer.headers["cache-control"].startswith("public, max-age=")
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            protected = [answer.headers[name] for name in ("x-content-type-options", "x-frame-options")]
            assert protected == ["nosniff", "DENY"], path
            again = await anyone.get(path, headers={"if-none-match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            head = await anyone.head(path)
            assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", answer.headers["etag"])
    assert statements == []
    assert (await anyone.get("/status/")).status_code == 200
    refused = await anyone.post("/status", json={})
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert refused.json()["detail"] == "this path supports only GET, HEAD"


async def test_only_the_newest_incidents_are_kept_in_memory(
    client: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "UPDATES_BYTES", 2500)
    for number in range(1, 5):
        first = {"status": "investigating", "at": ago(hours=number), "body": "x" * 1000}
        await post(client, "incidents", title=f"Outage {number}", begins_at=ago(hours=number + 1), first=first)
    await page.refresh(datetime.now(UTC))
    shown = (await anyone.get("/status/history.atom")).text
    assert [f"Outage {number}" in shown for number in range(1, 5)] == [True, True, False, False]


async def test_what_is_missing_is_a_public_page_and_asks_no_database(
    anyone: httpx.AsyncClient, page: StatusPage, context: Context
) -> None:
    await page.refresh(NOW)
    headers = {"accept": "text/html", "cookie": "session=made-up; __Host-session=made-up"}
    paths = (
        "reports/x",
        f"reports/{uuid4()}",
        "incidents/x",
        f"incidents/{uuid4()}",
        "history?month=2026-13",
        "history?month=" + "1" * 30,
        "x",
        "x/y",
    )
    with counted(context.engine) as statements:
        for path in paths:
            answer = await anyone.get(f"/status/{path}", headers=headers)
            assert (answer.status_code, "There is no such page" in answer.text) == (404, True), path
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            assert "Aftermath" not in answer.text
    assert statements == []


async def test_only_months_with_public_incidents_have_a_page(
    client: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage
) -> None:
    """Otherwise anybody could have two thousand pages rendered."""
    await put(client, "Payments")
    on_page = await publish_incident(client, begins_at=ago(days=100))
    await page.refresh(NOW)
    for month, status in ((on_page["begins_at"][:7], 200), (f"{NOW:%Y-%m}", 200), ("1970-01", 404), ("2199-12", 404)):
        assert (await anyone.get(f"/status/history?month={month}")).status_code == status, month


async def test_while_the_first_rendering_goes_on_pages_ask_for_patience(
    anyone: httpx.AsyncClient, page: StatusPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering, goes_on = asyncio.Event(), asyncio.Event()

    async def slowly(work: Callable[[], Any]) -> Any:
        rendering.set()
        await goes_on.wait()
        return work()

    monkeypatch.setattr("app.status_page.published.off_loop", slowly)
    reading = asyncio.create_task(page.refresh(NOW))
    await rendering.wait()
    for name in ("history", f"incidents/{uuid4()}", "reports", f"reports/{uuid4()}"):
        assert (await anyone.get(f"/status/{name}")).status_code == 503
    assert (await anyone.get("/status")).status_code == 503
    goes_on.set()
    await reading
    assert (await anyone.get("/status/history")).status_code == 200


async def test_while_the_database_is_away_the_last_state_is_served_with_as_of(
    client: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests/status_page/test_outage.py stops a real PostgreSQL."""
    await put(client, "Payments")
    on_page = await publish_incident(client)
    await page.refresh(datetime.now(UTC))

    async def fails(_now: datetime) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(page, "_read", fails)
    with pytest.raises(ConnectionRefusedError):
        await page.refresh(datetime.now(UTC))
    for path in ("/status", f"/status/incidents/{on_page['id']}", "/status/history"):
        assert "As of" in (await anyone.get(path)).text
    assert (await anyone.get("/status.json")).json()["page"]["as_of"]
    monkeypatch.undo()
    await page.refresh(datetime.now(UTC))
    assert "As of" not in (await anyone.get("/status")).text


async def test_before_the_first_reading_the_page_asks_for_patience(context: Context, anyone: httpx.AsyncClient) -> None:
    await context.part(StatusPage).refresh(NOW)
    page = StatusPage.of(context.settings, context.engine)
    for path in ("/status", "/status.json"):
        assert page.find(path) is None
    assert not page.has_been_read
    assert b"not known yet" in page.not_read_yet().content


async def test_while_it_is_off_no_public_route_exists(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"status_page": False})) as context, client_of(context) as client:
        for path in [
            *PUBLIC,
            f"/status/incidents/{uuid4()}",
            f"/status/reports/{uuid4()}",
            "/status/history?month=2026-11",
        ]:
            for method in ("GET", "HEAD", "POST"):
                assert (await client.request(method, path)).status_code == 404, (method, path)
        assert (await client.get("/api/v1/status-page/components")).status_code == 200


@pytest.mark.parametrize("scope", ["read", None])
async def test_only_writers_write(client_as: ClientAs, scope: str | None) -> None:
    client = await client_as(Scope(scope) if scope else None)
    first = {"status": "investigating", "body": "x"}
    answer = await client.post("/api/v1/status-page/incidents", json={"title": "x", "first": first})
    assert answer.status_code == (403 if scope else 401)
