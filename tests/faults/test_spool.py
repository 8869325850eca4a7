"""The spool under load: killed while it fills and while it drains, and on a disk that is full."""

import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.afterwards import TOKEN, a_service, assert_all_is_well, loaded, memory_of
from tests.faults.postgres import a_server
from tests.load import Plan
from tests.processes import RunningService, Service, until


@pytest.mark.parametrize("workers", ["1", "2"])
def test_kill_9_while_the_spool_fills_and_while_it_drains(tmp_path: Path, workers: str) -> None:
    with a_server() as server:
        service = a_service(
            tmp_path,
            AFTERMATH_DATABASE_URL=server.url,
            AFTERMATH_WORKERS=workers,
            # Small batches slow the draining down.
            AFTERMATH_BATCH_ALERTS="50",
        )
        with loaded(service, Plan(seed=21), pause_seconds=0.02) as load:
            with service.serve() as running:
                load.wait_for(200)
                server.stop()
                load.wait_for(500)
                running.kill()
            spooled = load.statuses[202]
            assert spooled > 400
            server.start()
            for _ in range(2):
                with service.serve() as running:
                    load.wait_for(20)
                    time.sleep(0.5)
                    running.kill()
            with service.serve() as running:
                began_with = memory_of(running)
                load.wait_for(50)
                load.finish()
                assert_all_is_well(load, running, began_with=began_with, database_url=server.url)


def test_a_full_disk_rejects_new_deliveries_and_stored_ones_are_drained(tmp_path: Path) -> None:
    with (
        a_server() as server,
        a_service_on_a_small_disk(tmp_path, AFTERMATH_DATABASE_URL=server.url) as service,
        service.serve() as running,
        loaded(service, Plan(seed=22), pause_seconds=0.02) as load,
    ):
        began_with = memory_of(running)
        load.wait_for(200)
        server.stop()
        load.wait_for(50)
        with a_disk_without_room(service, running):
            until(lambda: load.statuses[503] > 50, "deliveries are refused")
            metrics = httpx.get(f"{service.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
            assert (metrics.status_code, "\naftermath_database_up 0.0\n" in metrics.text) == (200, True)
            assert httpx.get(f"{service.url}/healthz").status_code == 200
            assert load.statuses[202] > 0
            server.start()
            load.wait_for(200)
            load.finish()
            assert_all_is_well(load, running, began_with=began_with, database_url=server.url)


# Without permission to mount a file system, a limit on file size makes the same writes fail.
_MAY_MOUNT = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def a_service_on_a_small_disk(directory: Path, **environment: str) -> Iterator[Service]:
    service = a_service(directory, AFTERMATH_LOG_LEVEL="error", **environment)
    service.data_dir.mkdir()
    if not _MAY_MOUNT:
        yield service
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", service.data_dir], check=True)
    try:
        yield service
    finally:
        subprocess.run(["umount", service.data_dir], check=True)


@contextmanager
def a_disk_without_room(service: Service, running: RunningService) -> Iterator[None]:
    """The spool until it is full."""
    if _MAY_MOUNT:
        _fill(service.data_dir / "filling")
        yield
        return
    soft, hard = resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (0, hard))
    yield
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (soft, hard))


def _fill(file: Path) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as opened:
        while True:
            opened.write(bytes(1024))
