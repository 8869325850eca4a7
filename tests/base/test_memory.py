"""Free memory is given back to the operating system."""

import gc
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]
import pytest

from app.base.process.memory import give_memory_back

BLOCKS, BYTES = 50_000, 1_000  # small enough to come from the heap, which shrinks only at its end


@pytest.fixture
def rarely() -> Iterator[None]:
    """The collector runs as rarely as in the service."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 20)
    yield
    gc.set_threshold(*before)


def memory() -> int:
    return int(psutil.Process().memory_info().rss)


async def test_free_memory_between_used_blocks_is_given_back() -> None:
    blocks = [bytes(BYTES) for _ in range(BLOCKS)]
    held = blocks[::100]
    full = memory()
    del blocks
    before = memory()
    assert full - before < BLOCKS * BYTES / 2, "without help, the memory stays"

    await give_memory_back()

    assert before - memory() > BLOCKS * BYTES / 2
    assert len(held) == BLOCKS / 100


async def test_memory_held_by_objects_that_refer_to_each_other_is_given_back(rarely: None) -> None:
    for _ in range(BLOCKS):
        block = [bytes(BYTES)]
        block.append(block)  # type: ignore[arg-type]
    full = memory()

    await give_memory_back()

    assert full - memory() > BLOCKS * BYTES / 2
