"""Clients that ask for too much, or fill what is kept: memory stays bounded and others hardly notice."""

import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.faults.afterwards import TOKEN, a_service, memory_of
from tests.processes import RunningService, Service, a_delivery, an_alert

MEMORY_BYTES = 700 * 2**20  # of a worker in a container of 1 GiB


@dataclass
class Watched:
    """The memory of the service, and how long a cheap request of another client took; in bytes and seconds."""

    largest: int = 0
    seconds: list[float] = field(default_factory=list)


@contextmanager
def watched(running: RunningService) -> Iterator[Watched]:
    found, over = Watched(), threading.Event()

    def look() -> None:
        with running.client(TOKEN) as client:
            while not over.is_set():
                for path in ("/healthz", "/api/v1/incidents?limit=1"):
                    began = time.monotonic()
                    assert client.get(path).status_code == 200
                    found.seconds.append(time.monotonic() - began)
                found.largest = max(found.largest, memory_of(running))
                time.sleep(0.05)

    thread = threading.Thread(target=look, name="watch")
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join(60)
    longest, usual = max(found.seconds), statistics.median(found.seconds)
    figures = f"{found.largest / 2**20:.0f} MiB; cheap requests: usually {usual:.3f} s, at most {longest:.3f} s"
    print(figures)  # noqa: T201  shown with `pytest -s`


def ask_at_once(service: Service, paths: Sequence[str], clients: int, rounds: int) -> Counter[int]:
    """Each client requests each of the paths; counts the statuses."""
    statuses: Counter[int] = Counter()

    def run() -> None:
        with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120) as client:
            for _ in range(rounds):
                for path in paths:
                    statuses[client.get(path).status_code] += 1

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def test_a_quarantine_full_of_large_bodies(tmp_path: Path) -> None:
    """An ingest token sends 80 bodies of 9.9 MB of which nothing can be read."""
    service = a_service(tmp_path, AFTERMATH_QUARANTINE_BYTES=str(400 * 2**20))
    bad = an_alert("yesterday") | {"padding": "x" * 9_900_000}
    body = json.dumps(a_delivery(bad)).encode()
    statuses: Counter[int] = Counter()
    with service.serve() as running, running.client(TOKEN) as client, watched(running) as seen:
        for _ in range(40):
            statuses[client.post("/webhooks/alertmanager", content=body).status_code] += 1
        assert statuses.keys() == {200, 503}
        page = client.get("/api/v1/quarantine?limit=500")
        assert len(page.json()["items"]) == statuses[200]
        assert len(page.content) < 50_000
        assert ask_at_once(service, ["/api/v1/quarantine?limit=500", "/api/v1/quarantine/1/raw"], 8, 2) == {200: 32}
        health = client.get("/api/v1/sources/alertmanager/health").json()
        assert "quarantine_full" in {reason["reason"] for reason in health["reasons"]}
        assert client.delete("/api/v1/quarantine?source=alertmanager").json()["items"] == statuses[200]
        assert client.post("/webhooks/alertmanager", content=body).status_code == 200
    assert seen.largest < MEMORY_BYTES


QUESTIONS = tuple(
    f"/api/v1/metrics/{question}"
    for question in ("availability?", "downtime?", "whatif?time_to_recover=-20%25&", "summary?")
)
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def test_questions_about_centuries_of_maintenance(tmp_path: Path) -> None:
    """200 failing services and 5 windows a day, from 1971 to 2199; then half a year, which is answered."""
    service = a_service(tmp_path)
    with service.serve() as running, running.client(TOKEN) as client:
        for first in range(0, 200, 50):
            alerts = [an_alert("2020-01-01T00:00:00Z", service=f"s{n}") for n in range(first, first + 50)]
            assert client.post("/webhooks/alertmanager", json=a_delivery(*alerts)).status_code == 200
        for number in range(5):
            times = {"weekdays": DAYS, "start_time": f"0{number}:00", "duration_seconds": 600, "zone": "Europe/Berlin"}
            body = {"reason": "patching", "recurring": times | {"first_date": "1971-01-02"}}
            assert client.put(f"/api/v1/maintenance/m{number}", json=body).status_code == 201
        with watched(running) as idle:
            time.sleep(5)
        ever = [f"{question}from=1971-01-02T00:00:00Z&to=2199-12-31T00:00:00Z" for question in QUESTIONS]
        with watched(running) as refusing:
            assert ask_at_once(service, ever, clients=8, rounds=1) == {422: 8 * len(QUESTIONS)}
        half = [f"{question}from=2026-05-01T00:00:00Z&to=2026-11-01T00:00:00Z" for question in QUESTIONS]
        with watched(running) as working:
            statuses = ask_at_once(service, half, clients=8, rounds=1)
        assert statuses[200] >= 8
        assert statuses.keys() <= {200, 503}
    for seen in (refusing, working):
        assert seen.largest < MEMORY_BYTES
        # It was 6 to 60 seconds. A busy machine delays both.
        assert max(seen.seconds) < 3 * max(idle.seconds) + 3
