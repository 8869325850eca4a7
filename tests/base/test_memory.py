"""Free memory is given back to the operating system."""

import psutil  # type: ignore[import-untyped]

from app.base.memory import give_memory_back

BLOCKS, BYTES = 50_000, 1_000  # small enough to come from the heap, which shrinks only at its end


async def test_free_memory_between_used_blocks_is_given_back() -> None:
    process = psutil.Process()
    blocks = [bytes(BYTES) for _ in range(BLOCKS)]
    held = [block for n, block in enumerate(blocks) if n % 100 == 0]
    full = process.memory_info().rss
    del blocks
    before = process.memory_info().rss
    assert full - before < BLOCKS * BYTES / 2, "without help, the memory stays"

    await give_memory_back()

    assert before - process.memory_info().rss > BLOCKS * BYTES / 2
    assert len(held) == BLOCKS / 100
