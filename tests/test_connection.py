"""How answers leave: the rest of `app/connection.py` is tested from outside, in test_service.py and in faults/."""

import asyncio
from typing import Any

from app.connection import _InOnePiece


class Recorded(asyncio.Transport):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def write(self, data: Any) -> None:
        self.seen.append(bytes(data))

    def close(self) -> None:
        self.seen.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.seen

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": "there"}.get(name, default)


async def test_head_and_body_leave_in_one_piece_and_before_the_connection_ends() -> None:
    below = Recorded()
    transport = _InOnePiece(below, asyncio.get_running_loop())
    transport.write(b"head")
    transport.write(b"body")
    assert below.seen == []
    await asyncio.sleep(0)
    assert below.seen == [b"headbody"]
    transport.write(b"last")
    transport.close()
    await asyncio.sleep(0)
    assert below.seen == [b"headbody", b"last", "closed"]
    assert transport.is_closing()
    assert transport.get_extra_info("peername") == "there"


async def test_who_has_gone_meanwhile_is_told_nothing() -> None:
    below = Recorded()
    transport = _InOnePiece(below, asyncio.get_running_loop())
    transport.write(b"head")
    below.close()  # by the other side
    await asyncio.sleep(0)
    assert below.seen == ["closed"]
