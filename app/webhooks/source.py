"""What every sender's parser gives back, and the parsing they share: hostile JSON, text and times.

A parser is pure: bytes and the time of arrival in, a `Reading` out. It raises `NotThisKind` only for a body that is not
JSON of its kind at all; anything wrong with a single alert becomes a `Rejected`, kept raw, and the rest goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from app.incidents.signal import Signal


@dataclass(frozen=True, slots=True)
class Rejected:
    """An alert that could not be read: its raw JSON (or the whole body) and why, in words without payload text."""

    raw: bytes
    reason: str  # a stable snake_case word: it becomes a metric label
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A delivery as facts. `truncated` counts alerts the sender says it left out."""

    signals: tuple[Signal, ...]
    rejected: tuple[Rejected, ...] = ()
    truncated: int = 0


class Parser(Protocol):
    def __call__(self, body: bytes, *, received_at: datetime) -> Reading:
        """Raises NotThisKind."""


class Verifier(Protocol):
    """Checks a sender's signature; True when it is right. Constant-time."""

    def __call__(self, body: bytes, headers: Mapping[str, str], *, secret: str, now: datetime) -> bool: ...
