"""A primary dies under load and its standby takes over; the service follows by itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.afterwards import a_service, assert_all_is_well, loaded, memory_of
from tests.faults.postgres import Server, servers
from tests.load import Plan
from tests.processes import until


@contextmanager
def a_pair() -> Iterator[tuple[Server, Server]]:
    """A primary with a synchronous standby."""
    with servers("primary", "standby") as [primary, standby]:
        primary.make()
        primary.start(synchronous_standby_names="standby")
        standby.copy_from(primary)
        standby.start()
        until(
            lambda: primary.ask("SELECT sync_state FROM pg_stat_replication") == "sync", "it replicates synchronously"
        )
        yield primary, standby


@pytest.mark.parametrize(("how", "workers"), [("killed", "1"), ("killed", "2"), ("frozen", "1")])
def test_the_standby_is_promoted_after_its_primary_died(tmp_path: Path, how: str, workers: str) -> None:
    with a_pair() as (primary, standby):
        url = (
            f"postgresql://aftermath:{primary.password}@{primary.address},{standby.address}/postgres"
            "?target_session_attrs=read-write"
        )
        service = a_service(tmp_path, AFTERMATH_DATABASE_URL=url, AFTERMATH_WORKERS=workers)
        with service.serve() as running, loaded(service, Plan(seed=31)) as load:
            began_with = memory_of(running)
            load.wait_for(200)
            if how == "killed":
                primary.kill()
            else:
                # To peers this looks like a machine without power: packets to its address get no response.
                primary.freeze()
            standby.promote()
            load.wait_for(200, within=120)
            load.finish()
            assert standby.ask("SELECT pg_is_in_recovery()") == "f"
            assert_all_is_well(load, running, began_with=began_with, database_url=standby.url)
