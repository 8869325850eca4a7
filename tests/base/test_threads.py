"""Computation off the event loop."""

import threading

from app.base.threads import off_loop


async def test_work_runs_in_another_thread_and_gives_its_result() -> None:
    def work(number: int, *, by: int) -> tuple[int, int]:
        return threading.get_ident(), number * by

    thread, product = await off_loop(work, 6, by=7)
    assert product == 42
    assert thread != threading.get_ident()
