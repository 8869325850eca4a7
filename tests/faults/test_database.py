"""PostgreSQL is away for longer than a sender likes to wait."""

import time
from pathlib import Path

import httpx
import pytest

from tests.faults.afterwards import a_service, assert_all_is_well, loaded, memory_of
from tests.faults.postgres import a_server
from tests.load import Plan

AWAY_SECONDS = 30


@pytest.mark.parametrize("workers", ["1", "2"])
def test_postgresql_stopped_for_30_seconds(tmp_path: Path, workers: str) -> None:
    with a_server() as server:
        service = a_service(tmp_path, AFTERMATH_DATABASE_URL=server.url, AFTERMATH_WORKERS=workers)
        with service.serve() as running, loaded(service, Plan(seed=5)) as load:
            began_with = memory_of(running)
            load.wait_for(200)
            server.stop()
            began = time.monotonic()
            before = load.statuses.copy()
            while time.monotonic() < began + AWAY_SECONDS:
                # The process lives, so nobody is to restart it; but it is not to be sent anything.
                assert httpx.get(f"{service.url}/healthz", timeout=10).status_code == 200
                assert httpx.get(f"{service.url}/readyz", timeout=10).status_code == 503
                time.sleep(1)
            told = load.statuses - before
            assert told.keys() == {503} or told[200] <= 16, told
            assert told[503] > AWAY_SECONDS, "hardly anything was refused: deliveries hang"
            server.start()
            load.wait_for(200)
            load.finish()
            assert_all_is_well(load, running, began_with=began_with, database_url=server.url)
