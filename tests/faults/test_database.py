"""PostgreSQL is unavailable for longer than senders wait."""

import time
from pathlib import Path

import httpx
import pytest

from tests.faults.afterwards import a_service, assert_all_is_well, loaded, memory_of
from tests.faults.postgres import a_server
from tests.load import Plan

AWAY_SECONDS = 30


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("spool", [True, False])
def test_postgresql_stopped_for_30_seconds(tmp_path: Path, workers: str, spool: bool) -> None:
    with a_server() as server:
        service = a_service(tmp_path, AFTERMATH_DATABASE_URL=server.url, AFTERMATH_WORKERS=workers)
        if not spool:
            service.environment["AFTERMATH_SPOOL_MAX_BYTES"] = "0"
        # A pause, so that half a minute spools no more than a minute can drain.
        with service.serve() as running, loaded(service, Plan(seed=5), pause_seconds=0.1) as load:
            began_with = memory_of(running)
            load.wait_for(200)
            server.stop()
            began = time.monotonic()
            before = load.statuses.copy()
            while time.monotonic() < began + AWAY_SECONDS:
                # The process is alive and must not be restarted. It is ready as long as it can store deliveries.
                assert httpx.get(f"{service.url}/healthz", timeout=10).status_code == 200
                assert httpx.get(f"{service.url}/readyz", timeout=10).status_code == (200 if spool else 503)
                time.sleep(1)
            statuses = load.statuses - before
            away = 202 if spool else 503
            assert statuses.keys() == {away} or statuses[200] <= 16, statuses
            assert statuses[away] > AWAY_SECONDS, "almost no responses: deliveries hang"
            assert spool or not statuses[202], statuses
            server.start()
            load.wait_for(200)
            load.finish()
            assert_all_is_well(load, running, began_with=began_with, database_url=server.url)
