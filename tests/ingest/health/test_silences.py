"""Silences of polled Alertmanagers as evidence of incidents: which are kept, where they are shown, and hostile ones."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.ingest.intake.flush import Flusher
from tests.ingest.health.test_health import a_flusher, at, deliver
from tests.ingest.health.test_reconcile import Peer, a_peer, listed, polls, set_up
from tests.ingest.test_webhook import an_alert, count

SILENCES = "/api/v1/incidents/INC-1/silences"
CHECKOUT, SEARCH = an_alert(service="checkout"), an_alert(service="search")


@pytest.fixture
def flusher(engine: AsyncEngine) -> Flusher:
    return a_flusher(engine)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with a_peer() as made:
        yield made


def silenced(alert: dict[str, Any], *ids: str) -> dict[str, Any]:
    return listed(alert) | {"status": {"state": "suppressed", "silencedBy": list(ids), "inhibitedBy": []}}


def a_silence(id_: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "status": {"state": "active"},
        "createdBy": "ada",
        "comment": "ACK! looking into it",
        "startsAt": "2026-08-20T10:05:00.000Z",
        "endsAt": "2026-08-20T12:05:00.000Z",
        "matchers": [
            {"name": "service", "value": "checkout", "isRegex": False, "isEqual": True},
            {"name": "zone", "value": "a|b", "isRegex": True, "isEqual": False},
            {"name": "team", "value": "x", "isRegex": False, "isEqual": False},
            {"name": "pod", "value": "p.*", "isRegex": True},
        ],
    } | fields


async def shown(client: httpx.AsyncClient, path: str = SILENCES) -> list[dict[str, Any]]:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_a_silence_that_suppressed_an_alert_is_evidence_of_its_incident_and_no_acknowledgement(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), CHECKOUT)
    await deliver(engine, flusher, at("10:01"), SEARCH)
    await set_up(client, peer.url)
    peer.listed = [silenced(CHECKOUT, "one"), listed(SEARCH)]
    peer.silences = [a_silence("one"), a_silence("two")]
    await polls(engine, flusher, "10:10", "10:20", peers=(peer,))
    [evidence] = await shown(client)
    assert evidence == {
        "source": "alertmanager",
        "id": "one",
        "by": "ada",
        "comment": "ACK! looking into it",
        "matchers": 'service="checkout", zone!~"a|b", team!="x", pod=~"p.*"',
        "starts_at": "2026-08-20T10:05:00Z",
        "ends_at": "2026-08-20T12:05:00Z",
        "first_seen_at": "2026-08-20T10:10:00Z",
        "last_seen_at": "2026-08-20T10:20:00Z",
    }
    assert await shown(client, "/api/v1/incidents/INC-2/silences") == []
    incident = (await client.get("/api/v1/incidents/INC-1")).json()
    assert (incident["status"], incident["acknowledged_at"]) == ("open", None)
    # It is extended: still one.
    peer.silences = [a_silence("one", endsAt="2026-08-20T20:00:00.000Z")]
    await polls(engine, flusher, "10:30", peers=(peer,))
    assert [one["ends_at"] for one in await shown(client)] == ["2026-08-20T20:00:00Z"]


async def test_a_silence_belongs_to_the_incidents_during_which_it_suppressed(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    """The key has another incident before and one after."""
    before = an_alert(started="2026-08-20T08:00:00Z", ended="2026-08-20T08:10:00Z")
    after = an_alert(started="2026-08-20T14:00:00Z")
    await deliver(engine, flusher, at("08:11"), before)
    await deliver(engine, flusher, at("10:01"), CHECKOUT)
    await set_up(client, peer.url)
    peer.listed, peer.silences = [silenced(CHECKOUT, "one")], [a_silence("one", startsAt="2026-08-20T08:05:00Z")]
    await polls(engine, flusher, "10:10", peers=(peer,))
    await deliver(engine, flusher, at("10:31"), an_alert(ended="2026-08-20T10:30:00Z"))
    await deliver(engine, flusher, at("14:01"), after)
    found = [len(await shown(client, f"/api/v1/incidents/INC-{number}/silences")) for number in (1, 2, 3)]
    assert found == [0, 1, 0]


async def test_silences_of_a_peer_are_bounded_and_kept_as_text(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), CHECKOUT)
    await set_up(client, peer.url)
    nasty = "<script>alert(1)</script>\x00\u202e" + "é" * 5_000
    many = [f"{number:03}" for number in range(50)]
    peer.listed = [silenced(CHECKOUT, *many)]
    peer.silences = [a_silence(id_, createdBy=nasty, comment=nasty) for id_ in many]
    peer.silences += [a_silence("000", startsAt="yesterday"), a_silence("x", startsAt="yesterday")]
    await polls(engine, flusher, "10:10", peers=(peer,))
    assert await count(engine, "SELECT count(*) FROM silence") == 10
    [first, *_] = await shown(client)
    assert (len(first["by"]), len(first["comment"])) == (100 - 1, 1000 - 1)  # without NUL
    await set_up(client, peer.url)
    peer.listed, peer.silences = [silenced(CHECKOUT, "late")], [a_silence("late", startsAt="yesterday")]
    await polls(engine, flusher, "10:20", peers=(peer,))
    assert await count(engine, "SELECT count(*) FROM silence WHERE id = 'late'") == 0
    [reported] = (await client.get("/api/v1/sources/alertmanager/health")).json()["peers"]
    assert reported["error"] is None
