"""Background jobs: repetition, failures, an unreachable database, and unexpected ends."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from app.base.process.jobs import Jobs


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_work_is_repeated_until_the_block_ends() -> None:
    rounds = 0

    async def work() -> None:
        nonlocal rounds
        rounds += 1

    async with Jobs() as jobs:
        jobs.every(0.001, "count", work)
        await eventually(lambda: rounds >= 3)
        assert not jobs.ended
        assert not jobs.failing
    after = rounds
    await asyncio.sleep(0.02)
    assert rounds == after


async def test_work_comes_first_if_asked_for() -> None:
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    async with Jobs() as jobs:
        jobs.every(3600, "soon", work, at_once=True)
        await asyncio.wait_for(done.wait(), 10)


async def test_a_failing_round_is_shown_until_one_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    fails = True

    async def work() -> None:
        if fails:
            raise LookupError

    async with Jobs() as jobs:
        jobs.every(0.001, "settle", work)
        await eventually(lambda: jobs.failing and jobs.failing[0].failures_in_a_row >= 2)
        [job] = jobs.failing
        assert (job.name, job.error, jobs.ended) == ("settle", "LookupError", [])
        fails = False
        await eventually(lambda: not jobs.failing)
    assert "job settle failed; consecutive failures: 2" in caplog.text


async def test_an_unreachable_database_is_no_failure_of_the_job(caplog: pytest.LogCaptureFixture) -> None:
    rounds = 0

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        raise ConnectionRefusedError

    with caplog.at_level(logging.INFO):
        async with Jobs() as jobs:
            jobs.every(0.001, "watch", work)
            await eventually(lambda: rounds >= 2)
            assert not jobs.failing
    assert not caplog.records


class LockNotAvailable(Exception):
    sqlstate = "55P03"


async def test_an_expected_failure_is_only_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise LockNotAvailable

    with caplog.at_level(logging.INFO):
        async with Jobs() as jobs:
            jobs.every(0.001, "partitions", work, expected={"55P03": "the table is in use; trying again later"})
            await eventually(lambda: caplog.records)
            assert not jobs.failing
    assert {record.levelname for record in caplog.records} == {"INFO"}
    assert "partitions: the table is in use; trying again later" in caplog.text


async def test_a_job_that_stops_by_itself_has_ended() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    async with Jobs() as jobs:
        jobs.every(0.001, "watch", work)
        await eventually(lambda: jobs.ended)
        assert jobs.ended == ["watch"]


async def test_a_stopped_job_is_logged_and_a_closed_one_is_not(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    async def wait() -> None:
        await asyncio.sleep(3600)

    async with Jobs() as jobs:
        jobs.every(0.001, "watch", work)
        jobs.every(0.001, "settle", wait)
        await eventually(lambda: caplog.records)
    assert [record.getMessage() for record in caplog.records] == ["job watch has stopped; restart this process"]
    assert jobs.ended == ["watch"]


async def test_a_task_of_another_component_that_fails_has_ended_too(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError

    async def wait() -> None:
        await asyncio.sleep(3600)

    failing, waiting = asyncio.create_task(fails(), name="queue"), asyncio.create_task(wait(), name="drain")
    async with Jobs() as jobs:
        jobs.watch(failing, waiting)
        await eventually(lambda: jobs.ended)
        assert jobs.ended == ["queue"]
    assert "LookupError" in caplog.text
    assert not waiting.done()  # it ends with the component that it belongs to
    waiting.cancel()


async def test_the_end_of_a_job_is_reported() -> None:
    calls = 0

    def on_end() -> None:
        nonlocal calls
        calls += 1

    async def work() -> None:
        raise asyncio.CancelledError

    async def wait() -> None:
        await asyncio.sleep(3600)

    async with Jobs(on_end) as jobs:
        jobs.every(0.001, "settle", wait)
        await asyncio.sleep(0.01)
        assert calls == 0
        jobs.every(0.001, "watch", work)
        await eventually(lambda: calls)
    assert calls == 1, "jobs that the block has ended do not count"


class Deadlock(Exception):
    sqlstate = "40P01"


async def test_a_round_that_gave_way_to_another_transaction_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise Deadlock

    async with Jobs() as jobs:
        jobs.every(0.001, "settle", work)
        await eventually(lambda: caplog.records)
        assert not jobs.failing
    assert "job settle was interrupted by a conflicting transaction (40P01) and will retry" in caplog.text
