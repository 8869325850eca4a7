"""The reconciler: the list of an Alertmanager against the stored alerts, with a stand-in and with Debian's."""

import asyncio
import dataclasses
import gc
import gzip
import json
import random
import secrets
import time
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from time import thread_time
from typing import Any
from wsgiref.handlers import format_date_time

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.base.outgoing import OutgoingClient
from app.incidents.grouping.batch import SignalOutcome
from app.incidents.grouping.signal import AlertClass, EndReason, Signal, Status
from app.ingest.health.reconcile import peers as client_of_peers
from app.ingest.health.reconcile.compare import (
    ListedAlert,
    OpenAlert,
    PeerState,
    ReconcileSettings,
    compare,
    is_conclusive,
)
from app.ingest.health.reconcile.poll import AT_ONCE, reconcile_all
from app.ingest.health.watch import watch
from app.ingest.intake.flush import Delivery, Flusher
from tests.conftest import ClientAs
from tests.ingest.health.test_health import a_flusher, alerts, at, deliver, health, incidents, reasons, shown
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert, count
from tests.metrics.prometheus.test_exposition import of, scrape
from tests.processes import an_alertmanager, free_port, until
from tests.test_end_to_end import Quiet, serving

LOOPBACK = OutgoingClient("127.0.0.1")
RECONCILER = "/api/v1/sources/alertmanager/reconciler"
FIRING = an_alert(started="2026-08-20T10:00:00Z")
RESOLVED = an_alert(started="2026-08-20T10:00:00Z", ended="2026-08-20T10:05:00Z")
OPEN = [(at("10:00"), None, None)]


@pytest.fixture
def flusher(engine: AsyncEngine) -> Flusher:
    return a_flusher(engine)


# — a stand-in —


@dataclass
class Peer:
    """A stand-in for an Alertmanager's API, with its list and start time."""

    url: str = ""
    now: datetime = field(default_factory=lambda: at("12:00"))
    up_since: datetime = field(default_factory=lambda: at("00:00"))
    cluster: str = "ready"
    listed: list[dict[str, Any]] = field(default_factory=list)
    silences: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    asked: list[str | None] = field(default_factory=list)  # with which credentials
    happens: Callable[[], object] | None = None  # once, after the list was sent

    def meanwhile(self, work: Coroutine[Any, Any, object]) -> None:
        """Runs in the event loop of the test while it waits for this peer."""
        loop = asyncio.get_running_loop()
        self.happens = lambda: asyncio.run_coroutine_threadsafe(work, loop).result(30)

    def answer(self, path: str) -> bytes:
        if path == "/api/v2/status" and self.happens is not None:
            happens, self.happens = self.happens, None
            happens()
        if self.body is not None:
            return self.body
        reported: Any = {
            "/api/v2/status": {
                "uptime": shown(self.up_since),
                "cluster": {"status": self.cluster},
                "versionInfo": {"version": "0.34.0"},
            },
            "/api/v2/alerts": self.listed,
            "/api/v2/silences": self.silences,
        }[path]
        body = json.dumps(reported).encode()
        return gzip.compress(body) if "Content-Encoding" in self.headers else body


@contextmanager
def a_peer() -> Iterator[Peer]:
    peer = Peer()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            peer.asked.append(self.headers["Authorization"])
            body = peer.answer(self.path)
            self.send_response_only(peer.status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in ({"Date": format_date_time(peer.now.timestamp())} | peer.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        log_message = Quiet.log_message

    with serving(Answer) as port:
        peer.url = f"http://127.0.0.1:{port}"
        yield peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    with a_peer() as made:
        yield made


@pytest.fixture
def other() -> Iterator[Peer]:
    with a_peer() as made:
        yield made


def listed(alert: dict[str, Any], state: str = "active", receiver: str = "aftermath") -> dict[str, Any]:
    """An alert as the API lists it: in milliseconds, and with the end that applies unless it is resent."""
    reported = {name: value for name, value in alert.items() if name != "status"}
    started_at = datetime.fromisoformat(reported["startsAt"]).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return reported | {
        "startsAt": started_at,
        "endsAt": "2026-08-20T23:00:00.000Z",
        "updatedAt": "2026-08-20T10:00:00.000Z",
        "receivers": [{"name": receiver}],
        "status": {"state": state, "silencedBy": [], "inhibitedBy": []},
    }


async def set_up(client: httpx.AsyncClient, *peers: str, **settings: Any) -> None:
    """Two absences are enough, and an alert is missed once it has fired for ten minutes."""
    body = {"peers": list(peers), "absences": 2} | settings
    answer = await client.put(RECONCILER, json=body)
    assert answer.status_code == 200, answer.text


async def polls(engine: AsyncEngine, flusher: Flusher, *clocks: str, peers: tuple[Peer, ...]) -> None:
    for clock in clocks:
        for peer in peers:
            peer.now = at(clock)
        assert await reconcile_all(engine, flusher, LOOPBACK, now=at(clock)) == 1


async def inferred(engine: AsyncEngine) -> int:
    """The number of signals from polls that changed something, including ends that were voided later."""
    return await count(engine, "SELECT coalesce(sum(value), 0) FROM tally WHERE name = 'inferred'")


# — alerts no longer listed —


async def test_a_vanished_alert_ends_when_it_was_last_seen(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    peer.listed = [listed(FIRING)]
    await polls(engine, flusher, "10:10", "10:20", peers=(peer,))
    peer.listed = []
    await polls(engine, flusher, "10:30", peers=(peer,))
    assert await alerts(engine) == OPEN
    await polls(engine, flusher, "10:40", peers=(peer,))
    assert await alerts(engine) == [(at("10:00"), at("10:20"), "reconciled")]
    [incident] = await incidents(client)
    # It did recover, but no resolve was sent.
    assert incident["measures"]["time_to_recover"] == {"seconds": 1200, "status": "recorded", "reason": None}
    found = await scrape(engine)
    assert of(found, "inferred_signals_total", source="alertmanager", reason="reconciled") == 1
    assert of(found, "deliveries_total", source="alertmanager", outcome="accepted") == 1


async def test_an_alert_never_listed_ends_when_it_was_delivered(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    await polls(engine, flusher, "10:10", "10:20", peers=(peer,))
    assert await alerts(engine) == [(at("10:00"), at("10:01"), "reconciled")]


@pytest.mark.parametrize("state", ["suppressed", "unprocessed", "active"])
async def test_a_listed_alert_has_not_ended_in_any_state(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer, state: str
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    peer.listed = [listed(FIRING, state)]
    peer.silences = [{"status": {"state": "active"}}, {"status": {"state": "expired"}}]
    await polls(engine, flusher, "10:10", "10:20", "10:30", "10:40", peers=(peer,))
    assert await alerts(engine) == OPEN
    assert await inferred(engine) == 0  # it never ended either
    [reported] = (await health(client))["peers"]
    assert reported == {
        "url": peer.url,
        "polled_at": "2026-08-20T10:40:00Z",
        "answered_at": "2026-08-20T10:40:00Z",
        "error": None,
        "version": "0.34.0",
        "cluster": "ready",
        "up_since": "2026-08-20T00:00:00Z",
        "alerts": 1,
        "suppressed": int(state != "active"),
        "silences": 1,
    }


async def test_absence_does_not_count_at_a_peer_that_just_started_or_is_settling(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    peer.up_since = at("10:05")
    await polls(engine, flusher, "10:10", "10:12", "10:14", peers=(peer,))
    assert await alerts(engine) == OPEN
    peer.cluster = "settling"
    await polls(engine, flusher, "10:20", "10:30", "10:40", peers=(peer,))
    assert await alerts(engine) == OPEN
    peer.cluster = "ready"
    await polls(engine, flusher, "10:50", "11:00", peers=(peer,))
    assert await alerts(engine) == [(at("10:00"), at("10:01"), "reconciled")]


async def test_the_clock_of_a_peer_does_not_matter(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    """Its clock is a day behind; it has run for five minutes, then for ten."""
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    yesterday = timedelta(days=1)
    for clock in ("10:20", "10:30"):
        peer.now = at(clock) - yesterday
        peer.up_since = peer.now - timedelta(minutes=5)
        await polls(engine, flusher, clock, peers=())
    assert await alerts(engine) == OPEN
    for clock in ("10:40", "10:50"):
        peer.now = at(clock) - yesterday
        peer.up_since = peer.now - timedelta(minutes=10)
        await polls(engine, flusher, clock, peers=())
    assert [reason for _, _, reason in await alerts(engine)] == ["reconciled"]


async def test_every_peer_that_answers_must_miss_it(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer, other: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url, other.url)
    other.listed = [listed(FIRING)]
    await polls(engine, flusher, "10:10", "10:20", "10:30", peers=(peer, other))
    assert await alerts(engine) == OPEN
    other.listed, other.up_since = [], at("10:35")
    await polls(engine, flusher, "10:40", "10:41", peers=(peer, other))
    assert await alerts(engine) == OPEN
    other.status = 503
    await polls(engine, flusher, "10:50", "11:00", peers=(peer, other))
    assert await alerts(engine) == [(at("10:00"), at("10:30"), "reconciled")]
    reported = await health(client)
    assert (reported["status"], reasons(reported)[0]) == ("degraded", "peers_silent")
    assert sorted(one["error"] or "" for one in reported["peers"]) == ["", "returned 503"]
    found = await scrape(engine)
    assert [of(found, "peers", source="alertmanager", state=state) for state in ("answering", "silent")] == [1, 1]


UNREADABLE = [
    (500, None),
    (200, b"{}"),
    (200, b"[]"),
    (200, b"<html>"),
    (200, b"\xff"),
    (200, b"[" * 100_000),
    (200, b'[{"status": {"state": "active"}, "labels": {}, "startsAt": "then"}]'),
]


async def test_nothing_ends_while_no_peer_answers(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url, f"http://127.0.0.1:{free_port()}")
    await polls(engine, flusher, "10:10", peers=(peer,))
    for minute, (status, body) in enumerate(UNREADABLE):
        peer.status, peer.body = status, body
        await polls(engine, flusher, f"10:{20 + minute}", peers=(peer,))
    assert await alerts(engine) == OPEN
    reported = await health(client)
    assert (reported["status"], reasons(reported)[0]) == ("failing", "peers_silent")
    # The absence before the failed polls still counts; one more is enough.
    peer.status, peer.body = 200, None
    await polls(engine, flusher, "10:40", peers=(peer,))
    assert [reason for _, _, reason in await alerts(engine)] == ["reconciled"]


async def test_an_alert_delivered_between_two_polls_has_not_ended(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    await polls(engine, flusher, "10:10", peers=(peer,))
    await deliver(engine, flusher, at("10:12"), FIRING)
    # The second poll comes within a minute of the last report, which is the precision of `last_seen_at`.
    await polls(engine, flusher, "10:11", "10:12", "10:13", peers=(peer,))
    assert await alerts(engine) == OPEN
    await polls(engine, flusher, "10:14", peers=(peer,))
    assert await alerts(engine) == [(at("10:00"), at("10:12"), "reconciled")]
    # The sender reports that its end was inferred wrongly.
    assert await deliver(engine, flusher, at("10:17"), FIRING) == {"reopened": 1}
    assert await alerts(engine) == OPEN


async def test_a_real_end_that_comes_later_is_believed(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    await polls(engine, flusher, "10:10", "10:20", peers=(peer,))
    await deliver(engine, flusher, at("10:30"), RESOLVED)
    assert await alerts(engine) == [(at("10:00"), at("10:05"), "recovered")]


async def test_labels_that_a_rule_ignores_are_ignored_here_too(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    """Also if another process changes the rule and this one has received no delivery since."""
    await deliver(engine, flusher, at("09:00"), an_alert("2026-08-20T08:00:00Z", ended="2026-08-20T08:05:00Z"))
    rule = {"position": 1, "matchers": [], "ignored_labels": ["replica"]}
    assert (await client.put("/api/v1/rules/replicas", json=rule)).status_code == 201
    await deliver(engine, a_flusher(engine), at("10:01"), an_alert(replica="a"))
    await set_up(client, peer.url)
    peer.listed = [listed(an_alert(replica="b"), "suppressed")]  # so that only its absence could have an effect
    await polls(engine, flusher, "10:10", "10:20", "10:30", peers=(peer,))
    assert (await alerts(engine))[1:] == OPEN
    assert await inferred(engine) == 0  # it never ended either


async def test_many_ended_or_missed_alerts_are_reconciled_at_once(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    number = AT_ONCE + 1
    await deliver(engine, flusher, at("10:01"), *(an_alert(instance=str(one)) for one in range(number)))
    await set_up(client, peer.url)
    peer.listed = [listed(an_alert(instance=f"new-{one}")) for one in range(number)]
    await polls(engine, flusher, "10:10", "10:20", peers=(peer,))
    ended = "SELECT count(*) FROM alert WHERE end_reason = 'reconciled'"
    assert await count(engine, ended) == number
    assert await count(engine, "SELECT count(*) FROM alert WHERE ended_at IS NULL") == number


async def test_a_delivery_that_cannot_be_applied_does_not_block_the_others(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    await deliver(engine, flusher, at("10:01"), *(an_alert(instance=str(one)) for one in range(5)))
    await set_up(client, peer.url)
    async with engine.begin() as connection:
        poison = "ALTER TABLE alert ADD CHECK (labels->>'instance' <> '3' OR ended_at IS NULL)"
        await connection.execute(text(poison))
    await polls(engine, flusher, "10:10", "10:20", peers=(peer,))
    assert await count(engine, "SELECT count(*) FROM alert WHERE ended_at IS NULL") == 1
    assert "could not be reconciled" in caplog.text


# — listed alerts —


async def test_a_listed_alert_voids_an_inferred_end(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    await polls(engine, flusher, "10:10", "10:20", peers=(peer,))
    assert [reason for _, _, reason in await alerts(engine)] == ["reconciled"]
    peer.listed = [listed(FIRING, "suppressed")]
    await polls(engine, flusher, "10:30", peers=(peer,))
    assert await alerts(engine) == OPEN


async def test_an_outdated_list_does_not_open_an_ended_alert(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    """Also if its start is sent in microseconds and listed in milliseconds."""
    exact = "2026-08-20T10:00:00.123456Z"
    await deliver(engine, flusher, at("10:06"), an_alert(exact, ended="2026-08-20T10:05:00Z"))
    await set_up(client, peer.url, receiver=None)
    peer.listed = [listed(an_alert(exact))]
    await polls(engine, flusher, "10:10", peers=(peer,))
    [(_, ended_at, reason)] = await alerts(engine)
    assert (ended_at, reason) == (at("10:05"), "recovered")
    await deliver(engine, flusher, at("10:15"), an_alert(exact, ended="2026-08-20T10:05:00Z"))
    await polls(engine, flusher, "10:20", peers=(peer,))  # only one of the polls came after that report
    peer.listed = [listed(an_alert(exact), "suppressed")]
    await polls(engine, flusher, "10:30", "10:40", "10:50", peers=(peer,))
    [(_, ended_at, reason)] = await alerts(engine)
    assert (ended_at, reason) == (at("10:05"), "recovered")


async def test_what_every_peer_lists_as_active_in_two_polls_has_not_ended(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer, other: Peer
) -> None:
    """However long its source must report an alert again to open it; a start in microseconds is found too."""
    exact = "2026-08-20T10:00:00.123456Z"
    source = {"kind": "alertmanager", "refire_seconds": 86_400}
    assert (await client.put("/api/v1/sources/alertmanager", json=source)).status_code == 200
    await deliver(engine, flusher, at("10:06"), an_alert(exact, ended="2026-08-20T10:05:00Z"))
    await set_up(client, peer.url, other.url)
    peer.listed = [listed(an_alert(exact))]
    await polls(engine, flusher, "10:10", "10:20", "10:30", peers=(peer, other))
    assert [reason for _, _, reason in await alerts(engine)] == ["recovered"]  # the other peer does not list it
    other.listed = [listed(an_alert(exact))]
    other.up_since = at("10:35")
    await polls(engine, flusher, "10:40", "10:41", peers=(peer, other))
    assert [reason for _, _, reason in await alerts(engine)] == ["recovered"]  # these polls do not count
    await polls(engine, flusher, "10:50", peers=(peer, other))
    assert [reason for _, _, reason in await alerts(engine)] == ["recovered"]
    [incident] = await incidents(client)
    assert incident["firing_after_resolve"] is True
    await polls(engine, flusher, "11:00", peers=(peer, other))
    assert [(ended_at, reason) for _, ended_at, reason in await alerts(engine)] == [(None, None)]
    [incident] = await incidents(client)
    assert (incident["number"], incident["status"], incident["reopened"]) == ("INC-1", "open", 0)


async def test_peers_that_do_not_answer_have_no_say_in_whether_an_end_is_void(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer, other: Peer
) -> None:
    await deliver(engine, flusher, at("10:06"), an_alert(ended="2026-08-20T10:05:00Z"))
    await set_up(client, peer.url, other.url)
    peer.listed, other.status = [listed(FIRING)], 500
    await polls(engine, flusher, "10:07", "10:08", "10:09", peers=(peer, other))
    assert await alerts(engine) == OPEN


async def test_an_alert_that_a_person_ended_stays_ended_and_is_shown_as_firing_after_the_resolve(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    by_hand = {"at": "2026-08-20T10:05:00Z", "by": "ada"}
    assert (await client.post("/api/v1/incidents/INC-1/resolve", json=by_hand)).status_code == 200
    peer.listed = [listed(FIRING)]
    await polls(engine, flusher, "10:10", "10:20", peers=(peer,))
    [incident] = await incidents(client)
    assert (incident["status"], incident["firing_after_resolve"]) == ("resolved", True)


async def test_a_listed_alert_does_not_time_out(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    settings = {"kind": "alertmanager", "stale_seconds": 3600}
    assert (await client.put("/api/v1/sources/alertmanager", json=settings)).status_code == 200
    await set_up(client, peer.url)
    peer.listed = [listed(FIRING, "suppressed")]
    for clock in ("10:50", "11:40", "12:30"):
        await polls(engine, flusher, clock, peers=(peer,))
        await watch(engine, flusher, now=at(clock), away=timedelta(hours=1))
    assert await alerts(engine) == OPEN
    assert await inferred(engine) == 0


async def test_a_peer_that_lists_another_start_lists_the_same_alert(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    """It was restarted, and so was Prometheus."""
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    peer.listed = [listed(an_alert(started="2026-08-20T10:07:00Z"))]
    await polls(engine, flusher, "10:30", "10:40", "10:50", peers=(peer,))
    assert await alerts(engine) == OPEN
    assert await inferred(engine) == 0


async def test_an_open_alert_ends_when_a_rule_makes_it_a_heartbeat(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    rule = {"position": 0, "matchers": ["alertname=HighLatency"], "heartbeat_seconds": 3600}
    assert (await client.put("/api/v1/rules/alive", json=rule)).status_code == 201
    peer.listed = [listed(FIRING)]
    await polls(engine, flusher, "10:10", "10:20", peers=(peer,))
    assert await alerts(engine) == [(at("10:00"), at("10:01"), "reconciled")]
    assert await count(engine, "SELECT count(*) FROM heartbeat") == 0


# — missed alerts —


async def test_a_missed_alert_is_opened_after_the_grace_period(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), an_alert(instance="delivered"))
    await set_up(client, peer.url)
    missed = an_alert(started="2026-08-20T10:04:00Z")
    peer.listed = [
        listed(an_alert(instance="delivered")),
        listed(an_alert(alertname="Watchdog")),
        listed(an_alert(instance="silenced"), "suppressed"),
        listed(an_alert(instance="elsewhere"), receiver="pager"),
        listed(missed),
    ]
    await polls(engine, flusher, "10:11", "10:13", peers=(peer,))
    assert await count(engine, "SELECT count(*) FROM alert") == 1
    await polls(engine, flusher, "10:14", peers=(peer,))
    assert await alerts(engine) == [*OPEN, (at("10:04"), None, None)]
    # If it is delivered later, it is the same alert: one start, one fingerprint.
    assert await deliver(engine, flusher, at("10:25"), missed) == {"repeated": 1}
    await polls(engine, flusher, "10:30", "10:40", peers=(peer,))
    assert await count(engine, "SELECT count(*) FROM alert") == 2
    assert of(await scrape(engine), "inferred_signals_total", source="alertmanager", reason="missed") == 1


async def test_peers_that_list_the_same_alert_open_one(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer, other: Peer
) -> None:
    assert (await client.put("/api/v1/sources/alertmanager", json={"kind": "alertmanager"})).status_code == 200
    await set_up(client, peer.url, other.url, receiver=None)
    peer.listed = other.listed = [listed(FIRING, receiver="pager")]
    await polls(engine, flusher, "10:30", "10:40", peers=(peer, other))
    assert await alerts(engine) == OPEN


# — concurrent deliveries —


async def test_a_delivery_while_the_list_is_read_makes_the_end_void(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    await polls(engine, flusher, "10:10", peers=(peer,))
    peer.meanwhile(deliver(engine, a_flusher(engine), at("10:20"), FIRING))
    await polls(engine, flusher, "10:20", peers=(peer,))
    assert await alerts(engine) == OPEN


async def test_a_resolve_while_the_list_is_read_stays(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    peer.listed = [listed(FIRING), listed(an_alert(instance="missed"))]
    resolved = an_alert(ended="2026-08-20T10:05:00Z", instance="missed")
    peer.meanwhile(deliver(engine, a_flusher(engine), at("10:20"), RESOLVED, resolved))
    await polls(engine, flusher, "10:20", "10:30", peers=(peer,))
    assert await alerts(engine) == [(at("10:00"), at("10:05"), "recovered")] * 2


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("news", [FIRING, RESOLVED])
async def test_a_delivery_between_the_decision_and_its_effect_wins(
    client: httpx.AsyncClient, engine: AsyncEngine, peer: Peer, news: dict[str, Any], there: bool
) -> None:
    flusher = a_flusher(engine)
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    await polls(engine, flusher, "10:10", peers=(peer,))
    before = flusher.apply_internal
    reported = []

    async def late(tx: AsyncConnection, delivery: Delivery, *, why: str) -> list[SignalOutcome]:
        reported.append(why)
        await deliver(engine, a_flusher(engine), at("10:21"), news)
        return await before(tx, delivery, why=why)

    flusher.apply_internal = late  # type: ignore[method-assign]
    peer.listed = [listed(FIRING)] if there else []
    await polls(engine, flusher, "10:20", peers=(peer,))
    assert reported == ["present" if there else "reconciled"]
    assert await alerts(engine) == (OPEN if news is FIRING else [(at("10:00"), at("10:05"), "recovered")])


async def test_concurrent_deliveries_and_reconcilers_agree(
    client: httpx.AsyncClient, engine: AsyncEngine, peer: Peer
) -> None:
    """Real ends stay, listed alerts stay open, and there is no deadlock, in any interleaving."""
    chance = random.Random(7)
    names = [str(one) for one in range(40)]
    await deliver(engine, a_flusher(engine), at("10:01"), *(an_alert(instance=one, service=one) for one in names))
    firing, ended = names[:20], names[20:]
    await set_up(client, peer.url, absences=2, poll_seconds=5)
    peer.now = at("12:00")
    peer.listed = [listed(an_alert(instance=one, service=one)) for one in [*firing, *ended[:10], "missed"]]

    async def webhooks() -> None:
        mine = a_flusher(engine)
        for _ in range(8):
            some = chance.sample(firing, 8)
            reported = [an_alert(instance=one, service=one) for one in some]
            reported += [
                an_alert(ended="2026-08-20T10:05:00Z", instance=one, service=one) for one in chance.sample(ended, 8)
            ]
            chance.shuffle(reported)
            await deliver(engine, mine, at("12:05"), *reported)

    async def reconciler(offset: int) -> None:
        mine = a_flusher(engine)
        for minute in range(8):
            await reconcile_all(engine, mine, LOOPBACK, now=at("12:00") + timedelta(minutes=minute, seconds=offset))

    await asyncio.gather(webhooks(), webhooks(), reconciler(0), reconciler(20), reconciler(40))
    ends = [an_alert(ended="2026-08-20T10:05:00Z", instance=one, service=one) for one in ended]
    await deliver(engine, a_flusher(engine), at("12:10"), *ends)
    by_reason = "SELECT count(*) FROM alert WHERE coalesce(end_reason, 'open') = "
    assert await count(engine, f"{by_reason}'open'") == 21
    assert await count(engine, f"{by_reason}'recovered'") == 20


async def test_one_process_polls_and_not_before_it_is_due(
    client: httpx.AsyncClient, engine: AsyncEngine, peer: Peer
) -> None:
    await deliver(engine, a_flusher(engine), at("10:01"), FIRING)
    await set_up(client, peer.url)
    at_once = (reconcile_all(engine, a_flusher(engine), LOOPBACK, now=at("10:10")) for _ in range(3))
    assert sorted(await asyncio.gather(*at_once)) == [0, 0, 1]
    assert len(peer.asked) == 3
    assert await reconcile_all(engine, a_flusher(engine), LOOPBACK, now=at("10:10") + timedelta(seconds=59)) == 0
    assert await reconcile_all(engine, a_flusher(engine), LOOPBACK, now=at("10:11")) == 1


async def test_a_poll_of_removed_peers_is_discarded(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer, other: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    await polls(engine, flusher, "10:10", peers=(peer,))
    peer.meanwhile(set_up(client, other.url))
    await polls(engine, flusher, "10:20", peers=(peer,))
    assert await alerts(engine) == OPEN
    # Nor do the absences at those count for the others.
    await polls(engine, flusher, "10:30", peers=(other,))
    assert await alerts(engine) == OPEN
    assert [one["url"] for one in (await health(client))["peers"]] == [other.url]


async def test_many_sources_are_reconciled_with_few_connections(
    client: httpx.AsyncClient, database_url: str, peer: Peer
) -> None:
    """Each loads its rules on a second connection; if all held one at once, none would be left."""
    names = [f"source-{number}" for number in range(6)]
    for name in names:
        assert (await client.put(f"/api/v1/sources/{name}", json={"kind": "alertmanager"})).status_code == 200
        assert (await client.put(f"/api/v1/sources/{name}/reconciler", json={"peers": [peer.url]})).status_code == 200
    peer.listed = [listed(FIRING)]
    few = db.connect(database_url, pool_size=2)
    peer.now = at("12:00")
    assert await reconcile_all(few, a_flusher(few), LOOPBACK, now=at("12:00")) == len(names)
    assert await alerts(few) == OPEN * len(names)
    await few.dispose()


async def test_a_source_may_cease_to_be_reconciled_while_a_poll_is_applied(
    client: httpx.AsyncClient, engine: AsyncEngine, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    flusher = a_flusher(engine)
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    before = flusher.apply_internal

    async def late(tx: AsyncConnection, delivery: Delivery, *, why: str) -> list[SignalOutcome]:
        assert (await client.delete(RECONCILER)).status_code == 204
        return await before(tx, delivery, why=why)

    flusher.apply_internal = late  # type: ignore[method-assign]
    peer.listed = [listed(FIRING)]
    await polls(engine, flusher, "10:10", peers=(peer,))
    assert "could not be reconciled" not in caplog.text
    assert (await health(client))["peers"] == []


# — requests to peers —


async def test_credentials_are_sent_only_to_their_peer_and_never_shown(
    client: httpx.AsyncClient,
    engine: AsyncEngine,
    flusher: Flusher,
    peer: Peer,
    other: Peer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    secret = secrets.token_hex(8)
    basic = "Basic " + b64encode(f"user:{secret}".encode()).decode()
    caplog.set_level("DEBUG")
    for settings, sent in (
        ({"secret": secret}, f"Bearer {secret}"),
        ({"secret": secret, "username": "user"}, basic),
        ({}, None),
    ):
        await set_up(client, peer.url, **settings)
        peer.asked.clear()
        peer.status, peer.headers = 302, {"Location": f"{other.url}/api/v2/alerts"}
        await polls(engine, flusher, "10:10", peers=(peer,))
        assert set(peer.asked) == {sent}
        shown_, reported = await client.get(RECONCILER), await client.get("/api/v1/sources/alertmanager/health")
        assert shown_.json()["authenticated"] is ("secret" in settings)
        assert "returned 302" in reported.text
        assert secret not in shown_.text + reported.text
    assert other.asked == []
    assert secret not in caplog.text
    assert basic not in caplog.text


async def test_an_answer_may_not_be_too_large_too_slow_or_packed(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)

    async def error(clock: str) -> str:
        await polls(engine, flusher, clock, peers=(peer,))
        [reported] = (await health(client))["peers"]
        return str(reported["error"])

    peer.headers = {"Content-Encoding": "gzip"}
    assert await error("10:10") == "did not respond like an Alertmanager"
    peer.headers = {}
    monkeypatch.setattr(client_of_peers, "ANSWER_AT_MOST_BYTES", 1000)
    peer.listed = [listed(FIRING)] * 10
    assert await error("10:20") == "sent more than 1000 bytes"
    peer.listed = []
    assert await error("10:30") == "None"
    peer.headers = {"Date": "Fri, 31 Dec 9999 23:59:59 GMT"}
    assert await error("10:35") == "did not respond like an Alertmanager"
    peer.headers = {}
    monkeypatch.setattr(client_of_peers, "ANSWER_AT_MOST", timedelta(milliseconds=200))
    peer.happens = lambda: time.sleep(1)
    assert await error("10:40") == "did not respond in time"


async def test_a_long_list_is_refused_before_it_is_read(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    began = thread_time()
    for clock, body in (
        ("10:10", b"[" + b"{}," * client_of_peers.LISTED_AT_MOST + b"{}]"),
        ("10:20", b"[" + b"0," * 10_000_000 + b"0]"),
        ("10:30", b"[" + b'{"labels": {"a": "b"}},' * 130_000 + b"{}]"),
    ):
        peer.body = body
        await polls(engine, flusher, clock, peers=(peer,))
        [reported] = (await health(client))["peers"]
        assert reported["error"] == "lists more than 50000 alerts; route fewer alerts to this Alertmanager"
    assert await alerts(engine) == OPEN
    assert thread_time() - began < 1, "the event loop only moves bytes"


async def test_a_long_list_is_applied_without_delaying_others(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    """Everybody else waits for the event loop, so it must never be busy for long."""
    number = 3000
    await deliver(engine, flusher, at("10:01"), *(an_alert(instance=str(one)) for one in range(number)))
    await set_up(client, peer.url)
    peer.listed = [listed(an_alert(instance=str(one))) for one in range(number)]
    await polls(engine, flusher, "10:05", peers=(peer,))  # what happens only once
    gc.freeze()  # the garbage of other tests
    busy = await longest_turn(polls(engine, flusher, "10:10", "10:20", "10:30", peers=(peer,)))
    assert await alerts(engine) == OPEN * number
    assert busy < 0.15


async def longest_turn(work: Coroutine[Any, Any, object]) -> float:
    """For how long the event loop was busy at a time meanwhile, in seconds of processor time of its thread."""
    task = asyncio.ensure_future(work)
    longest, before = 0.0, thread_time()
    while not task.done():
        await asyncio.sleep(0)
        now = thread_time()
        longest, before = max(longest, now - before), now
    await task
    return longest


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://x",
        "gopher://x:1",
        "x",
        "http://",
        "http://user:pass@host",
        "http://h?x=1",
        "http://h#x",
        "http://h:0",
        "http://h:99999",
        "http://[::1",
        "http://h\nx",
        "http://h x",
        "http://h\0x",
        "http://[::zz]",
        "http://[1:2]",
        " http://h",
        "http://h\n",
    ],
)
async def test_a_peer_address_is_an_api_address_without_secrets(client: httpx.AsyncClient, address: str) -> None:
    assert (await client.put("/api/v1/sources/alertmanager", json={"kind": "alertmanager"})).status_code == 200
    answer = await client.put(RECONCILER, json={"peers": [address]})
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    ("peer", "named"),
    [
        ("http://169.254.169.254/latest", "169.254.169.254, an address of a cloud's metadata service"),
        ("http://[::ffff:169.254.169.254]", "::ffff:a9fe:a9fe, an address of a cloud's metadata service"),
        ("http://127.0.0.2:9093", "127.0.0.2, a loopback address"),
        ("http://192.168.1.10:9093", "192.168.1.10, a private address"),
        ("http://1.1.1.1:9093", "1.1.1.1"),
    ],
)
async def test_a_peer_that_the_setting_does_not_permit_is_refused(
    client: httpx.AsyncClient, peer: str, named: str
) -> None:
    assert (await client.put("/api/v1/sources/alertmanager", json={"kind": "alertmanager"})).status_code == 200
    answer = await client.put(RECONCILER, json={"peers": ["http://127.0.0.1:9093", peer]})
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:aftermath:problem:not-allowed")
    assert named in answer.json()["detail"]
    assert "AFTERMATH_OUTBOUND_ALLOW" in answer.json()["detail"]
    assert (await client.get(RECONCILER)).status_code == 404


async def test_a_peer_is_checked_again_at_each_poll(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, peer: Peer
) -> None:
    await deliver(engine, flusher, at("10:01"), FIRING)
    await set_up(client, peer.url)
    assert await reconcile_all(engine, flusher, OutgoingClient(""), now=at("10:10")) == 1
    [reported] = (await health(client))["peers"]
    assert reported["error"] == (
        "the host is 127.0.0.1, a loopback address. "
        "Only the entry 127.0.0.1 in AFTERMATH_OUTBOUND_ALLOW would permit it"
    )
    assert peer.asked == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"peers": []},
        {"secret": "two\r\nlines"},
        {"secret": "pass\0word"},
        {"secret": "pässword"},
        {"username": "a:b"},
        {"username": ""},
        {"absences": 1},
        {"poll_seconds": 4},
        {"grace_seconds": -1},
        {"receiver": "a\0b"},
    ],
)
async def test_invalid_settings_are_refused(client: httpx.AsyncClient, wrong: dict[str, Any]) -> None:
    assert (await client.put("/api/v1/sources/alertmanager", json={"kind": "alertmanager"})).status_code == 200
    answer = await client.put(RECONCILER, json={"peers": ["http://127.0.0.1:9093"]} | wrong)
    assert answer.status_code == 422, answer.text


async def test_only_admins_set_peers_and_only_alertmanagers_are_polled(
    client: httpx.AsyncClient, client_as: ClientAs
) -> None:
    body = {"peers": ["http://127.0.0.1:9093/"]}
    assert (await client.put(RECONCILER, json=body)).status_code == 404
    assert (await client.put("/api/v1/sources/alertmanager", json={"kind": "alertmanager"})).status_code == 200
    for scope in (Scope.READ, Scope.WRITE):
        caller = await client_as(scope)
        assert (await caller.put(RECONCILER, json=body)).status_code == 403
        assert (await caller.delete(RECONCILER)).status_code == 403
    assert (await client.get(RECONCILER)).status_code == 404
    made = await client.put(RECONCILER, json=body)
    assert made.json() == {
        "peers": ["http://127.0.0.1:9093"],
        "poll_seconds": 60,
        "absences": 3,
        "grace_seconds": 600,
        "receiver": "aftermath",
        "username": None,
        "authenticated": False,
    }
    assert (await (await client_as(Scope.READ)).get(RECONCILER)).json() == made.json()
    assert (await client.delete(RECONCILER)).status_code == 204
    assert (await client.delete(RECONCILER)).status_code == 404
    assert (await client.put("/api/v1/sources/g", json={"kind": "grafana"})).status_code == 200
    assert (await client.put("/api/v1/sources/g/reconciler", json=body)).status_code == 422


# — Debian's —

CONFIG = """
route: {{receiver: aftermath, group_by: [service], group_wait: 0s, group_interval: 1s}}
receivers: [{{name: aftermath, webhook_configs: [{{url: "http://127.0.0.1:{port}/"}}]}}]
"""


def fires(alertmanager: httpx.Client, since: datetime, service: str, *, ended: bool = False) -> None:
    """As Prometheus sends and resends it; `ended`: as it sends the end."""
    reported: dict[str, Any] = {
        "labels": {"alertname": "HighLatency", "service": service, "severity": "critical"},
        "annotations": {"summary": "slow"},
        "startsAt": shown(since),
    }
    if ended:
        reported["endsAt"] = shown(datetime.now(UTC) - timedelta(seconds=1))
    assert alertmanager.post("/api/v2/alerts", json=[reported]).status_code == 200


SILENCE = {"by": "ada", "comment": "looking into it", "matchers": 'service="checkout"', "source": "alertmanager"}


def silence(alertmanager: httpx.Client, service: str) -> None:
    now = datetime.now(UTC)
    body = {
        "matchers": [{"name": "service", "value": service, "isRegex": False, "isEqual": True}],
        "startsAt": shown(now),
        "endsAt": shown(now + timedelta(hours=1)),
        "createdBy": "ada",
        "comment": "looking into it",
    }
    assert alertmanager.post("/api/v2/silences", json=body).status_code == 200


def listing(alertmanager: httpx.Client) -> dict[str, str]:
    """The state of each alert, by service."""
    found = alertmanager.get("/api/v2/alerts").json()
    return {one["labels"]["service"]: one["status"]["state"] for one in found}


@contextmanager
def a_receiver() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Its port, and the bodies of the webhooks it received."""
    reported: list[dict[str, Any]] = []

    class Take(Quiet):
        def do_POST(self) -> None:  # noqa: N802  its name in http.server
            reported.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(200, "text/plain", b"")

    with serving(Take) as port:
        yield port, reported


async def ends(engine: AsyncEngine) -> dict[str, str | None]:
    """The end reason of the alert of each service, None while it is open."""
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT labels->>'service' AS service, end_reason FROM alert"))
        return {row.service: row.end_reason for row in found}


@pytest.mark.debian
async def test_a_real_alertmanager_is_silenced_stops_and_restarts(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, tmp_path: Path
) -> None:
    """The test sets the reconciler's clock; Alertmanager uses real time."""
    began = datetime.now(UTC)
    since, port = began - timedelta(minutes=5), free_port()
    url = f"http://127.0.0.1:{port}"

    async def found(*minutes: int) -> dict[str, str | None]:
        for minute in minutes:
            assert await reconcile_all(engine, flusher, LOOPBACK, now=began + timedelta(minutes=minute)) == 1
        return await ends(engine)

    with a_receiver() as (receiver, reported):
        config = CONFIG.format(port=receiver)
        with an_alertmanager(tmp_path, config, port) as alertmanager:
            fires(alertmanager, since, "checkout")
            until(lambda: len(reported) == 1, "the webhook reports that it fires")
            assert (await client.post(WEBHOOK, json=reported[0])).json()["verdicts"] == {"opened": 1}
            await set_up(client, url, grace_seconds=0)
            assert await found(2) == {"checkout": None}

            silence(alertmanager, "checkout")
            until(lambda: listing(alertmanager) == {"checkout": "suppressed"}, "it is silenced")
            assert await found(3, 4, 5) == {"checkout": None}
            [peer] = (await health(client))["peers"]
            shown_ = ("error", "version", "cluster", "alerts", "suppressed", "silences")
            assert [peer[name] for name in shown_] == [None, "0.25.0", "disabled", 1, 1, 1]
            # Evidence of its incident, and no acknowledgement.
            [evidence] = (await client.get("/api/v1/incidents/INC-1/silences")).json()["items"]
            assert {name: evidence[name] for name in SILENCE} == SILENCE
            assert [one["acknowledged_at"] for one in await incidents(client)] == [None]

            fires(alertmanager, since, "checkout", ended=True)
            until(lambda: listing(alertmanager) == {}, "it has ended")
            await asyncio.sleep(3)  # three times the interval of its group
            assert len(reported) == 1, "this version reports the end, so the rest of the test is void"
            assert await found(6) == {"checkout": None}
            assert await found(7) == {"checkout": "reconciled"}
            [incident] = await incidents(client)
            assert datetime.fromisoformat(incident["resolved_at"]) == began + timedelta(minutes=5)

            fires(alertmanager, since, "search")
            until(lambda: len(reported) == 2, "the webhook reports another")
            assert (await client.post(WEBHOOK, json=reported[1])).status_code == 200
            still = {"checkout": "reconciled", "search": None}
            assert await found(8) == still
        # It stops and comes back without its alerts, which its uptime shows.
        await set_up(client, url, grace_seconds=300)
        assert await found(9, 10, 11) == still
        assert reasons(await health(client)) == ["peers_silent"]
        with an_alertmanager(tmp_path, config, port) as alertmanager:
            assert listing(alertmanager) == {}
            assert await found(12, 13, 14) == still
            assert reasons(await health(client)) == []
            fires(alertmanager, since, "search")
            assert await found(15, 16, 17) == still
            fires(alertmanager, since, "search", ended=True)
            until(lambda: listing(alertmanager) == {}, "it has ended too")
            # Not delivered, as if the webhook had been lost; the peer has now run for long enough.
            await set_up(client, url, grace_seconds=0)
            assert await found(18, 19) == {"checkout": "reconciled", "search": "reconciled"}
    # No alert ended in between.
    assert await inferred(engine) == 2


@pytest.mark.debian
async def test_two_real_alertmanagers_are_polled_and_the_remaining_one_decides(
    client: httpx.AsyncClient, engine: AsyncEngine, flusher: Flusher, tmp_path: Path
) -> None:
    began = datetime.now(UTC)
    since = began - timedelta(minutes=5)
    ports, gossip = [free_port(), free_port()], [free_port(), free_port()]

    async def found(*minutes: int) -> dict[str, str | None]:
        for minute in minutes:
            assert await reconcile_all(engine, flusher, LOOPBACK, now=began + timedelta(minutes=minute)) == 1
        return await ends(engine)

    def a_member(stack: ExitStack, place: int) -> httpx.Client:
        directory = tmp_path / str(place)
        directory.mkdir()
        cluster = [
            f"--cluster.listen-address=127.0.0.1:{gossip[place]}",
            f"--cluster.advertise-address=127.0.0.1:{gossip[place]}",
            f"--cluster.peer=127.0.0.1:{gossip[1 - place]}",
            "--cluster.settle-timeout=5s",
        ]
        nowhere = CONFIG.format(port=free_port())
        return stack.enter_context(an_alertmanager(directory, nowhere, ports[place], cluster=cluster))

    def is_ready(alertmanager: httpx.Client) -> bool:
        reported = alertmanager.get("/api/v2/status").json()["cluster"]
        return reported["status"] == "ready" and len(reported["peers"]) == 2

    with ExitStack() as stays, ExitStack() as stops:
        one, other = a_member(stays, 0), a_member(stops, 1)
        until(lambda: is_ready(one) and is_ready(other), "they are a cluster")
        delivered = [an_alert(shown(since), service=service) for service in ("both", "one", "other")]
        assert (await client.post(WEBHOOK, json=a_delivery(*delivered))).json()["signals"] == 3
        for alertmanager, services in ((one, ("both", "one", "missed")), (other, ("both", "other"))):
            for service in services:
                fires(alertmanager, since, service)
        silence(one, "other")
        until(lambda: listing(other) == {"both": "active", "other": "suppressed"}, "both have the silence")
        await set_up(client, *(f"http://127.0.0.1:{port}" for port in ports), grace_seconds=60)
        all_open = {"both": None, "one": None, "other": None}
        # Neither has run for a minute.
        assert await found(2, 3, 4) == all_open | {"missed": None}
        await set_up(client, *(f"http://127.0.0.1:{port}" for port in ports), grace_seconds=0)
        assert await found(5, 6, 7) == all_open | {"missed": None}
        fires(other, since, "other", ended=True)
        until(lambda: "other" not in listing(other), "it has ended at the peer that had it")
        assert await found(8, 9) == {"both": None, "one": None, "missed": None, "other": "reconciled"}
        fires(one, since, "both", ended=True)
        until(lambda: "both" not in listing(one), "it has ended at one of both")
        assert (await found(10, 11, 12))["both"] is None
        stops.close()
        assert await found(13, 14) == {"both": "reconciled", "one": None, "missed": None, "other": "reconciled"}
        reported = await health(client)
        assert (reported["status"], reasons(reported)) == ("degraded", ["peers_silent"])
    # One was missed, two ended, and no other alert ended in between.
    assert await inferred(engine) == 3


# — the decision —


def test_an_absence_in_an_inconclusive_poll_ends_no_alert() -> None:
    """An alert from the spool was last seen long ago, before these polls."""
    counted = [at("10:10"), at("10:20"), at("10:30")]
    assert compare([ALERT], {}, [[]], counted, PATIENT, at("10:40")).gone == []
    assert len(compare([ALERT], {}, [[]], counted, PATIENT, at("10:30")).gone) == 1


ALERT = OpenAlert(1, "alertmanager", "f", at("10:00"), at("10:00"), {"alertname": "A"}, AlertClass.SERVICE)
REPORTED = Signal(fingerprint="f", status=Status.FIRING, started_at=at("10:00"))
PATIENT = ReconcileSettings(absences=3, grace=timedelta(minutes=10), receiver=None)


def a_state(*listed: ListedAlert, young: bool = False, cluster: str = "ready") -> PeerState:
    return PeerState("http://a", "0.25.0", cluster, at("23:00") if young else at("00:00"), listed, 0)


THERE = ListedAlert(REPORTED, active=True, receivers=frozenset({"aftermath"}))
STEPS = {
    "listed": [a_state(THERE)],
    "missing": [a_state()],
    "listed by one": [a_state(), a_state(THERE)],
    "missing at both": [a_state(), a_state()],
    "young": [a_state(young=True)],
    "one young": [a_state(), a_state(young=True)],
    "settling": [a_state(cluster="settling")],
    "silent": [],
}


@given(st.lists(st.tuples(st.sampled_from([*STEPS, "delivered"]), st.integers(1, 3)), max_size=30))
@example([("missing", 1), ("missing", 1), ("delivered", 1), ("missing", 1), ("missing", 1), ("missing", 1)])
@example([("missing", 1), ("missing", 1), ("listed", 1), ("missing", 1), ("missing", 1), ("missing", 1)])
@example([("missing", 1), ("young", 1), ("silent", 1), ("settling", 1), ("missing", 1), ("one young", 1)])
def test_an_alert_ends_after_three_polls_that_count_have_missed_it_and_never_before(
    steps: Sequence[tuple[str, int]],
) -> None:
    alert, now = ALERT, at("10:00")
    counted: list[datetime] = []
    missed = 0  # conclusive polls since it was last seen
    for step, minutes in steps:
        now += timedelta(minutes=minutes)
        if step == "delivered":
            alert, missed = dataclasses.replace(alert, last_seen_at=now), 0
            continue
        states = STEPS[step]
        counted = [*counted, now][-3:] if is_conclusive(states, PATIENT, now) else counted
        found = compare([alert], {}, [state.listed for state in states], counted, PATIENT, now)
        missed = 0 if "listed" in step else missed + step.startswith("missing")
        assert found.missed == []
        assert found.present == ([REPORTED] if "listed" in step else [])
        if found.present:
            alert = dataclasses.replace(alert, last_seen_at=now)
        ends = [(one.started_at, one.ended_at, one.end_reason) for one in found.gone]
        gone = [(alert.started_at, alert.last_seen_at, EndReason.RECONCILED)]
        assert ends == (gone if missed >= 3 and step.startswith("missing") else [])
        if ends:
            return
