"""The service or its PostgreSQL ends under load, by every signal."""

import random
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.faults.afterwards import a_service, assert_all_is_well, loaded, memory_of, processes_of
from tests.load import Plan
from tests.processes import Service, until


@pytest.mark.parametrize("workers", ["1", "2"])
def test_kill_9_of_the_service_at_random_moments(tmp_path: Path, workers: str) -> None:
    moment = random.Random(f"service {workers}")
    service = a_service(tmp_path, AFTERMATH_WORKERS=workers)
    with loaded(service, Plan(seed=1)) as load:
        for _ in range(5):
            with service.serve() as running:
                load.wait_for(50)
                time.sleep(moment.uniform(0, 1.5))
                running.kill()
                # PostgreSQL either finishes its current work or is killed too, as in a power failure.
                if moment.random() < 0.5:
                    service.postgres()[0].kill()
        with service.serve() as running:
            began_with = memory_of(running)
            load.wait_for(50)
            load.finish()
            assert load.cut > 5, "no delivery was in progress when the kills happened"
            assert_all_is_well(load, running, began_with=began_with)


def test_kill_9_of_workers_at_random_moments(tmp_path: Path) -> None:
    moment = random.Random("worker")
    service = a_service(tmp_path, AFTERMATH_WORKERS="2")
    with service.serve() as running, loaded(service, Plan(seed=2)) as load:
        began_with = memory_of(running)
        for _ in range(5):
            load.wait_for(50)
            time.sleep(moment.uniform(0, 1))
            until(lambda: len(processes_of(running)) == 3, "both workers have started")
            # Connections are not spread evenly: one worker may have none.
            max(processes_of(running)[1:], key=lambda worker: len(worker.net_connections("tcp"))).kill()
        load.finish()
        assert load.cut > 2, "no delivery was in progress when the kills happened"
        assert_all_is_well(load, running, began_with=began_with)


def test_sigterm_under_load_answers_every_accepted_request(tmp_path: Path) -> None:
    moment = random.Random("sigterm")
    service = a_service(tmp_path)
    with loaded(service, Plan(seed=3)) as load:
        for _ in range(3):
            with service.serve() as running:
                load.wait_for(50)
                time.sleep(moment.uniform(0, 1))
                assert running.stop() == 0
                assert "Traceback" not in running.log()
                assert service.postgres() == []
        with service.serve() as running:
            began_with = memory_of(running)
            load.wait_for(50)
            load.finish()
            assert_all_is_well(load, running, began_with=began_with)


@pytest.mark.parametrize("how", ["postmaster killed", "backend killed", "restarted", "immediate stop"])
def test_postgresql_ends_under_load_and_comes_back(tmp_path: Path, how: str) -> None:
    moment = random.Random(how)
    service = a_service(tmp_path)
    with service.serve() as running, loaded(service, Plan(seed=4)) as load:
        began_with = memory_of(running)
        for _ in range(4):
            load.wait_for(50)
            time.sleep(moment.uniform(0, 1))
            serving = until(lambda: backends_of(service), "PostgreSQL is back and in use")
            # When a backend dies, the postmaster ends the others, because shared memory may be corrupt.
            end = moment.choice(serving) if how == "backend killed" else service.postgres()[0]
            with suppress(psutil.NoSuchProcess):  # it may have been ended that way
                end.send_signal(_SIGNALS[how])
            until(partial(has_ended, end), "it has ended")
        load.wait_for(50)
        load.finish()
        assert load.statuses[202] > 0, "the outage was not noticed"
        assert_all_is_well(load, running, began_with=began_with)


_SIGNALS = {
    "postmaster killed": signal.SIGKILL,
    "backend killed": signal.SIGKILL,
    "restarted": signal.SIGINT,
    "immediate stop": signal.SIGQUIT,
}


def backends_of(service: Service) -> list[psutil.Process]:
    """The backends of the service; none while PostgreSQL recovers."""
    return [one for one in service.postgres() if is_backend(one)]


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_backend(process: psutil.Process) -> bool:
    try:
        return "aftermath_service aftermath" in " ".join(process.cmdline())
    except psutil.Error:
        return False
