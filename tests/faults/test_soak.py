"""Minutes of steady load: memory and open files do not grow.

AFTERMATH_SOAK_SECONDS sets the duration, which may be hours.
"""

import os
import time
from pathlib import Path
from statistics import median

import pytest

from tests.faults.afterwards import TOKEN, a_service, assert_all_is_well, files_of, loaded, memory_of
from tests.load import Plan

SECONDS = float(os.environ.get("AFTERMATH_SOAK_SECONDS", "120"))
GROWTH = 1.05
MEMORY_BYTES = 8 * 2**20
FILES = 8

# Requests during the load, like those of Prometheus and people; none of the responses grows with history.
ASKED = (
    "/metrics",
    "/api/v1/incidents?limit=500",
    "/api/v1/metrics/summary?service=service-1",
    "/api/v1/quarantine",
    "/readyz",
)


@pytest.mark.timeout(SECONDS + 300)
def test_memory_and_open_files_stay_flat(tmp_path: Path) -> None:
    service = a_service(tmp_path, AFTERMATH_WORKERS="2")
    with (
        service.serve() as running,
        running.client(TOKEN) as client,
        loaded(service, Plan(seed=41), pause_seconds=0.05) as load,
    ):
        began_with, began = memory_of(running), time.monotonic()
        memory, files = [], []
        while time.monotonic() < began + SECONDS:
            for address in ASKED:
                assert client.get(address).status_code == 200
            memory.append(memory_of(running))
            files.append(files_of(running))
            time.sleep(0.5)
        # Pools and caches fill during the first of four quarters.
        quarter = len(memory) // 4
        second, last = slice(quarter, 2 * quarter), slice(3 * quarter, None)
        samples = [held // 2**20 for held in memory[:: max(1, quarter // 4)]]
        assert median(memory[last]) < GROWTH * median(memory[second]) + MEMORY_BYTES, f"MiB: {samples}, {load}"
        assert median(files[last]) <= median(files[second]) + FILES
        load.finish()
        assert load.statuses.keys() == {200}
        assert_all_is_well(load, running, began_with=began_with)
