"""Versions of a playbook: which one counts.

Pure: no clock, no I/O, no settings.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar


class PlaybookState(StrEnum):
    DRAFT = "draft"
    VERIFIED = "verified"
    APPROVED = "approved"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


class Version(Protocol):
    """A version of one playbook, such as a row."""

    @property
    def version(self) -> int: ...
    @property
    def verified_at(self) -> datetime | None: ...
    @property
    def approved_at(self) -> datetime | None: ...
    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def withdrawn_at(self) -> datetime | None: ...


VersionT = TypeVar("VersionT", bound=Version)


def state_of(version: Version, *, now: datetime) -> PlaybookState:
    if version.withdrawn_at is not None:
        return PlaybookState.WITHDRAWN
    if version.expires_at is not None:
        return PlaybookState.APPROVED if now < version.expires_at else PlaybookState.EXPIRED
    return PlaybookState.DRAFT if version.verified_at is None else PlaybookState.VERIFIED


def version_in_use(versions: Iterable[VersionT], *, now: datetime) -> VersionT | None:
    """The newest version that is approved, else the newest that has expired: an old playbook is better than none."""
    ordered = sorted(versions, key=lambda each: each.version, reverse=True)
    for wanted in (PlaybookState.APPROVED, PlaybookState.EXPIRED):
        for each in ordered:
            if state_of(each, now=now) is wanted:
                return each
    return None
