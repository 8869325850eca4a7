"""Facts that senders report besides alerts (deployments, acknowledgements), as plain values. Ingest reads them from
requests, other areas store them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

COMMITS_AT_MOST = 5_000
DEPLOYMENT_ID = r"^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,199}$"


class Outcome(StrEnum):
    """How a deployment ended, or that it is still in progress."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        return self not in {Outcome.PENDING, Outcome.IN_PROGRESS}


class Commit(NamedTuple):
    """`at` is the time of the commit; None if the sender does not report it."""

    sha: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What one delivery reports about one deployment. Fields that it does not mention are None. `told_at` is the time
    that the report describes.
    """

    id: str
    service: str
    outcome: Outcome | None = None
    told_at: datetime | None = None
    environment: str | None = None
    production: bool | None = None
    version: str | None = None
    sha: str | None = None
    link: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    commits: tuple[Commit, ...] = ()
    unplanned: bool | None = None
    made_for: str | None = None
    needed_intervention: bool | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A person has acknowledged an alert in another tool. `fingerprint` is the alert's fingerprint in that tool."""

    fingerprint: str
    at: datetime
    by: str | None = None


def deployment_id(text: str) -> str:
    """Turns `text` into an id that can be part of a URL. Different texts give different ids."""
    if re.fullmatch(DEPLOYMENT_ID, text):
        return text
    kept = re.sub(r"[^A-Za-z0-9._:@+-]", "-", text).lstrip("._:@+-")[:160]
    return f"{kept or 'deployment'}-{sha256(text.encode()).hexdigest()[:16]}"


# A report as JSON, for the API's documentation.
REPORT_EXAMPLE: Mapping[str, Any] = MappingProxyType(
    {
        "id": "checkout-1742",
        "service": "checkout",
        "environment": "production",
        "version": "1.42.0",
        "sha": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
        "outcome": "succeeded",
        "started_at": "2026-08-20T09:50:00Z",
        "finished_at": "2026-08-20T09:55:30Z",
        "commits": [{"sha": "6113728f27ae82c7b1a177c8d03f9e96e0adf246", "at": "2026-08-19T16:20:00Z"}],
        "unplanned": False,
        "link": "https://ci.example.org/checkout/1742",
    }
)
