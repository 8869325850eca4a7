"""Facts that senders report besides alerts (deployments, changes, reactions of people, issues), as plain values. Ingest
reads them from requests, other areas store them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

COMMITS_AT_MOST = 5_000
DEPLOYMENT_KEY = r"^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,199}$"


class Outcome(StrEnum):
    """How a deployment ended, or that it is still in progress. `unknown`: it ended, with a word that is not known."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        return self not in {Outcome.PENDING, Outcome.IN_PROGRESS}


class Commit(NamedTuple):
    """`at` is the time of the commit; None if the sender does not report it."""

    sha: str
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What one delivery reports about one deployment: something new runs in an environment.

    Fields that it does not mention are None. `id` is unique per source, service and environment. `reported_at` is the
    time that the report describes. `rolled_back` is the id of the deployment that this one takes back.
    """

    id: str
    service: str
    outcome: Outcome | None = None
    reported_at: datetime | None = None
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
    rolled_back: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A change that need not deploy anything: a push, a merge, a setting, a run of Puppet.

    `service` is what the sender names as changed; `id` is unique per source. `clock_ahead`: see `is_ahead`.
    """

    id: str
    service: str
    happened_at: datetime
    summary: str | None = None
    environment: str | None = None
    version: str | None = None
    sha: str | None = None
    link: str | None = None
    clock_ahead: bool = False


class ReactionKind(StrEnum):
    """What a person did about an alert in another tool."""

    ACKNOWLEDGED = "acknowledged"
    UNACKNOWLEDGED = "unacknowledged"  # taken back, or it has expired
    CLOSED = "closed"  # resolved by hand; only its alerts show when an incident ended
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a person did about an alert in another tool.

    It concerns the alert with this `fingerprint` of the same source, and if that source has none, all alerts with this
    `correlation`, of any source (see `Signal.correlation`). At least one of the two is set.
    """

    kind: ReactionKind
    at: datetime
    fingerprint: str | None = None
    correlation: str | None = None
    by: str | None = None  # None: the tool does not report it
    note: str | None = None
    at_arrival: bool = False  # the tool reports no time, so `at` is when the request was received


class IssueState(StrEnum):
    """The state of an issue in a tracker, in the words of an action item."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    DONE = "done"
    DROPPED = "dropped"  # closed without having been done


@dataclass(frozen=True, slots=True)
class IssueEvent:
    """The state of an issue in a tracker changed, or it was created in this state.

    `link` is its address for people, by which its action item is found. `at` is the time of the change; `since` is when
    the issue got into this state, if that was earlier: Jira may move an issue from one status that means done to
    another. `reason` is why it was dropped.
    """

    link: str
    state: IssueState
    at: datetime
    since: datetime | None = None
    by: str | None = None
    reason: str | None = None
    created: bool = False


# The clocks of build machines are worse than those of monitoring.
CLOCK_AHEAD_AT_MOST = timedelta(minutes=15)
CLOCK_TOLERANCE = timedelta(seconds=5)


def is_ahead(at: datetime | None, received_at: datetime) -> bool:
    """Whether the sender's clock was noticeably ahead; its time is used, and flagged."""
    return at is not None and at > received_at + CLOCK_TOLERANCE


def key_of(*parts: str) -> str:
    """One word for an identity that consists of these parts, which can be part of a URL. Different identities have
    different keys.
    """
    plain = ":".join(parts)
    is_plain = re.fullmatch(DEPLOYMENT_KEY, plain) and not any(":" in part for part in parts[:-1])
    if is_plain:
        return plain
    kept = re.sub(r"[^A-Za-z0-9._:@+-]", "-", plain).lstrip("._:@+-")[:160]
    return f"{kept or 'key'}-{sha256(json.dumps(parts).encode()).hexdigest()[:16]}"


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
