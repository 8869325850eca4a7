"""Long computations: in a thread, or with pauses, so that they do not block the event loop."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def off_loop(work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Runs `work` in a thread and returns its result.

    Computing numbers over tens of thousands of incidents, or serializing megabytes, takes a tenth of a second or more.
    On the event loop, it would delay every webhook by that time.
    """
    return await asyncio.to_thread(work, *args, **kwargs)


SLICE = 500  # items of 10 to 20 microseconds each


async def give_way(done: int, more: int = 1) -> int:
    """For loops over many small items that share state with the event loop: after each `SLICE` of them, everything else
    that is ready gets its turn. `done` is the result of the last call, 0 at first; `more` is the number of new items.
    """
    if done + more < SLICE:
        return done + more
    await asyncio.sleep(0)
    return 0


LARGE = 32 * 1024  # bytes; reading the worst 32 KB takes about 20 ms


async def off_loop_if_large(
    size: int, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Runs `work` at once if its input of `size` bytes is small, and otherwise in a thread, after all earlier such work
    of this process.

    For input whose sender decides how long it takes. Threads take turns at one interpreter: several would not be faster
    than one, but would take more memory, and more of the event loop's time.
    """
    if size <= LARGE:
        return work(*args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_ONE_THREAD, partial(work, *args, **kwargs))


# By default, a thread that computes gives way only every 5 ms, and one request needs the interpreter several times.
_GIVE_WAY_SECONDS = 0.0005
_ONE_THREAD = ThreadPoolExecutor(1, "large-input", sys.setswitchinterval, (_GIVE_WAY_SECONDS,))
