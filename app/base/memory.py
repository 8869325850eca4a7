"""Memory that is no longer used, given back to the operating system.

Large bodies and responses leave free pages scattered over the heap, which glibc would keep.
"""

import asyncio
import ctypes
from collections.abc import Callable

GIVE_BACK_SECONDS = 20.0


async def give_memory_back() -> None:
    """Takes some milliseconds in a thread. Does nothing where the C library is not glibc."""
    if _trim is not None:
        await asyncio.to_thread(_trim, 0)


_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
