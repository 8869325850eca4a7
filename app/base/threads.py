"""Computation that takes longer than a few milliseconds."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def off_loop(work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """The result of `work`, computed in a thread.

    Numbers over tens of thousands of incidents, or an answer of megabytes, take a tenth of a second and more. On the
    event loop every webhook would wait for that long.
    """
    return await asyncio.to_thread(work, *args, **kwargs)
