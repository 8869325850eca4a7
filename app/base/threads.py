"""Runs long computations in a thread, so that they do not block the event loop."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def off_loop(work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Runs `work` in a thread and returns its result.

    Computing numbers over tens of thousands of incidents, or serializing megabytes, takes a tenth of a second or more.
    On the event loop, it would delay every webhook by that time.
    """
    return await asyncio.to_thread(work, *args, **kwargs)
