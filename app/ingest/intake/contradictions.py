"""Notices when two monitoring systems share a source: deliveries then contradict each other about the same alert.

Pure, and cheap enough for every signal. Keeps the latest reports of at most twice `REMEMBERED` alerts in memory, the
latest ones. So a process may miss single contradictions, but not all those of a source that has many.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from app.incidents.grouping.signal import Signal, Status

REMEMBERED = 10_000

# Peers of one cluster may see the same alert begin this far apart, and may be this late.
_SAME_START = timedelta(minutes=2)
_LATE_PEER = timedelta(minutes=1)
_FIRING = Status.FIRING


class _Report(msgspec.Struct, frozen=True, gc=False):
    """The latest report about an alert. `start_before`: that of the report before, if it was another one."""

    sender: str | None
    is_firing: bool
    started_at: datetime | None
    ended_at: datetime | None
    received_at: datetime
    start_before: datetime | None = None
    turns: int = 0  # how often the start went back to that one


class Contradictions:
    """Compares each report with the one before about the same alert."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._latest: dict[tuple[int, str], _Report] = {}
        self._earlier: dict[tuple[int, str], _Report] = {}

    def in_delivery(
        self, source_id: int, sender: str | None, signals: Iterable[Signal], received_at: datetime
    ) -> list[str]:
        """The sender and the one that it contradicts, as text, for each contradiction in the delivery.

        `sender` is the address by which the sender calls itself, if any.
        """
        found: list[str] = []
        for signal in signals:
            key = (source_id, signal.fingerprint)
            before = self._latest.get(key) or self._earlier.get(key)
            now = _Report(sender, signal.status is _FIRING, signal.started_at, signal.ended_at, received_at)
            if before is not None:
                now = _after(before, now)
                if _contradicts(before, now):
                    found.append(" and ".join(sorted({before.sender or "?", sender or "?"})))
            self._latest[key] = now
        if len(self._latest) >= self._remembered:
            self._earlier, self._latest = self._latest, {}
        return found


def _after(before: _Report, now: _Report) -> _Report:
    """`now` with what is known from `before`."""
    is_known = now.is_firing and now.started_at is not None and before.started_at is not None
    if not is_known or now.started_at == before.started_at:
        return replace(now, start_before=before.start_before, turns=before.turns)
    turned = now.started_at == before.start_before
    return replace(now, start_before=before.started_at, turns=before.turns + turned)


def _contradicts(before: _Report, now: _Report) -> bool:
    if before.sender == now.sender:
        # One system never goes back to an earlier start for good; two with the same address take turns.
        return now.turns > 1 and now.turns > before.turns
    if before.started_at is None or now.started_at is None or before.is_firing == now.is_firing:
        return False
    is_other_start = abs(now.started_at - before.started_at) > _SAME_START
    if before.is_firing:
        # The end of an alert that is not the one that fires, but whose time overlaps with it.
        return is_other_start and now.ended_at is not None and now.ended_at > before.started_at
    # It fires although another sender has reported an end after its start.
    if before.ended_at is None or now.started_at >= before.ended_at:
        return False
    return is_other_start or now.received_at - before.received_at > _LATE_PEER
