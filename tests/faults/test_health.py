"""Health checks and supervision: an essential task of a real process ends, or deliveries wait in the spool."""

import re
import signal
from functools import partial
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from tests.faults.afterwards import TOKEN, a_service, assert_all_is_well, loaded, memory_of, processes_of
from tests.load import Plan
from tests.processes import Service, until


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def fails(url: str) -> bool:
    return httpx.get(url).status_code == 503


# Python runs a module of this name when it starts.
SITECUSTOMIZE = """
import asyncio
import os
import signal


def stop(*_):
    for task in asyncio.all_tasks():
        if task.get_name() == os.environ["STOPS"]:
            task.cancel()


signal.signal(signal.SIGUSR1, stop)
"""


def a_breakable_service(directory: Path, stops: str, **environment: str) -> Service:
    """SIGUSR1 ends the task named `stops` in one of its processes, like a bug."""
    (directory / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return a_service(directory, PYTHONPATH=str(directory), STOPS=stops, **environment)


@pytest.mark.parametrize("stops", ["queue", "drain", "settle"])
def test_a_worker_whose_task_ends_is_replaced_and_loses_nothing(tmp_path: Path, stops: str) -> None:
    service = a_breakable_service(tmp_path, stops, AFTERMATH_WORKERS="2")
    with service.serve() as running, loaded(service, Plan(seed=41)) as load:
        began_with = memory_of(running)
        for turn in range(1, 3):  # the second may be the one that replaced the first
            load.wait_for(50)
            until(lambda: len(processes_of(running)) == 3, "both workers are there")
            # Connections are not spread evenly: one worker may have none.
            worker = max(processes_of(running)[1:], key=lambda worker: len(worker.net_connections("tcp")))
            worker.send_signal(signal.SIGUSR1)
            until(partial(is_gone, worker.pid), f"worker {turn} has ended")
        load.wait_for(50)
        load.finish()
        assert running.log().count(f"job {stops} has stopped") == 2
        assert running.log().count("starting another worker") == 2
        assert_all_is_well(load, running, began_with=began_with)


@pytest.mark.parametrize("stops", ["queue", "drain", "settle", "database monitor"])
def test_a_single_process_whose_task_ends_fails_its_health_checks(tmp_path: Path, stops: str) -> None:
    service = a_breakable_service(tmp_path, stops)
    with service.serve() as running:
        assert httpx.get(f"{service.url}/healthz").status_code == 200
        running.process.send_signal(signal.SIGUSR1)
        for probe in ("healthz", "readyz"):
            until(partial(fails, f"{service.url}/{probe}"), f"{probe} fails")
            answer = httpx.get(f"{service.url}/{probe}")
            assert answer.json()["detail"] == f"`{stops}` has stopped; restart this process"
        assert running.process.poll() is None
        assert running.stop() == 0


def test_readiness_reports_the_spool_until_it_has_been_applied(tmp_path: Path) -> None:
    """Also right after a restart, when nobody remembers the outage."""
    service = a_service(tmp_path)
    delivery = next(Plan(seed=42, sizes=(1,)).deliveries()).body()
    with service.serve() as running, running.client(TOKEN) as client:
        assert client.post("/webhooks/alertmanager", content=delivery).status_code == 200  # knows the token and source
        service.kill_postgres()
        answers = [client.post("/webhooks/alertmanager", content=delivery) for _ in range(5)]
        kept = sum(answer.status_code == 202 for answer in answers)
        assert kept
        answer = until(
            lambda: (shown := client.get("/readyz")).json().get("detail", "").count("not yet applied") and shown,
            "the probe counts them",
        )
        assert answer.status_code == 200
        waiting = re.search(r"(\d+) deliver", answer.json()["detail"])
        assert waiting is not None
        assert 1 <= int(waiting[1]) <= kept, "on a busy machine, some have been applied meanwhile"
        running.kill()
    with service.serve() as running, running.client(TOKEN) as client:
        until(lambda: client.get("/readyz").json()["status"] == "ok", "the spool is applied")
        assert client.get("/readyz").json()["detail"] is None
