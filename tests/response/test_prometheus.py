"""What Prometheus exports about the response."""

from datetime import UTC, datetime, timedelta

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select

from app.base import db
from app.base.schema import Incident
from app.metrics.prometheus.settle import settle
from app.response.store.prometheus import count_outcomes, read_gauges
from app.response.store.review_agreements import review_agreements
from app.settings import Settings
from tests.incidents.test_api import act, clock, deliver, firing, resolved
from tests.response.test_chat import LINES, send
from tests.response.test_configuration import PAYMENTS, get, put


async def scraped(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """What is not 0, by name without `aftermath_` and the values of the labels, in the order of their names."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name.removeprefix("aftermath_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.value
    }


async def test_outcomes_are_counted_once_when_incidents_settle(
    client: httpx.AsyncClient, engine: AsyncEngine, settings: Settings
) -> None:
    await put(client, "targets", {"targets": [{"severity": "sev1", "acknowledge_seconds": 300}]}, status=200)
    await deliver(client, resolved("10:00", "10:20", service="a"))
    await act(client, "acknowledge", at=clock("10:04"))
    await deliver(client, resolved("10:00", "10:20", service="b"), resolved("10:00", "10:20", severity="sev3"))
    await send(client, "\n".join(LINES))
    for _ in range(2):
        async with db.transaction(engine) as tx:
            await settle(
                tx,
                now=datetime.now(UTC),
                allowed_lateness=timedelta(0),
                weights=settings.impact,
                also=count_outcomes,
            )
    found = await scraped(client)
    outcomes = {labels[1:]: value for labels, value in found.items() if labels[0] == "target_outcomes_total"}
    assert outcomes == {("met", "sev1", "acknowledge"): 1, ("missed", "sev1", "acknowledge"): 1}
    assert found["chat_messages_total", "lines", "taken"] == 6


async def test_gauges_of_open_incidents_people_and_playbooks(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await put(client, "incident-types/any", PAYMENTS | {"matchers": []})
    await put(client, "people/ada", {})
    await put(client, "delegates/commander", {"people": ["ada"]}, status=200)
    now = datetime.now(UTC)
    for service, minutes in (("checkout", 30), ("mail", 1)):
        since = (now - timedelta(minutes=minutes)).isoformat()
        body = {"title": "t", "service": service, "severity": "sev1", "detected_at": since}
        await client.post("/api/v1/incidents", json=body)
    await put(client, "services/checkout/playbooks/restart", {"body": "b"})
    role = {"role": "scribe", "person": "ada", "at": now.isoformat()}
    await client.post("/api/v1/incidents/INC-1/roles", json=role)
    async with db.transaction(engine) as tx:
        found = await read_gauges(tx, ["mail"], datetime.now(UTC))
    assert found == {
        "updates_overdue": {("other", "sev1"): 1.0},
        "roles_vacant": {("commander",): 1.0, ("scribe",): 0.0},
        "exit_criteria_open": {(): 4.0},
        "playbooks": {
            ("draft",): 1.0,
            ("verified",): 0.0,
            ("approved",): 0.0,
            ("expired",): 0.0,
            ("withdrawn",): 0.0,
        },
        "services_without_playbook": {(): 2.0},
        "delegates_missing": {("commander",): 1.0},
    }
    exported = await scraped(client)
    assert exported["exit_criteria_open",] == 4
    assert exported["playbooks", "draft"] == 1


async def test_the_type_may_depend_on_the_source(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await deliver(client, resolved("10:00", "10:30"), firing("12:00", service="mail"))
    source = (await get(client, "incidents/INC-2"))["sources"][0]
    await put(client, "incident-types/a", PAYMENTS | {"matchers": ["source=other"], "position": 1})
    await put(
        client, "incident-types/b", PAYMENTS | {"matchers": [f"source={source}"], "position": 2, "review": "never"}
    )
    assert (await get(client, "incidents/INC-2/response"))["type"] == "b"
    async with db.session(engine) as session:
        incidents = (await session.exec(select(Incident.id))).all()
        agreed = await review_agreements(session, incidents)
    assert [each.by_type for each in agreed.values()] == [False, False]
    async with db.transaction(engine) as tx:
        found = await read_gauges(tx, ["mail"], datetime.now(UTC))
    assert found["exit_criteria_open"] == {(): float(len(PAYMENTS["exit_criteria"]))}
