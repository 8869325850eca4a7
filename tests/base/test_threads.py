"""Computation off the event loop."""

import asyncio
import threading

from app.base.process.threads import SLICE, give_way, off_loop


async def test_work_runs_in_another_thread_and_gives_its_result() -> None:
    def work(number: int, *, by: int) -> tuple[int, int]:
        return threading.get_ident(), number * by

    thread, product = await off_loop(work, 6, by=7)
    assert product == 42
    assert thread != threading.get_ident()


async def test_a_loop_over_many_items_gives_way_after_each_slice() -> None:
    turns = 0

    async def another() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(another())
    done = 0
    for _ in range(10 * SLICE):
        done = await give_way(done)
    assert turns == 10
    done = await give_way(done, SLICE - 1)
    assert turns == 10
    assert await give_way(done, 5 * SLICE) == 0
    assert turns == 11
    task.cancel()
