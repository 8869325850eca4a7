"""What every parser of deployments gives back, and the parsing they share: hostile JSON, text and times.

A parser is pure: body and headers in, a `Report`, `Ignored` or `Rejected` out. It raises `NotThisKind` only for what is
not a JSON object at all. These doors take a few deliveries a minute, so the standard library's JSON will do.
"""

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import parse_qs

from app.base.errors import NotThisKind
from app.metrics.deployments.deployment import CLOCK_SKEW, COMMITS_AT_MOST, Commit, Outcome, Report

TEXT_AT_MOST = 200
LINK_AT_MOST = 2_000
DEEP = 50


@dataclass(frozen=True, slots=True)
class Ignored:
    """A delivery that says nothing of a deployment, such as a ping."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """JSON that could not be read: a stable snake_case word, and why, without text of the payload."""

    reason: str
    detail: str


class Parser(Protocol):
    def __call__(
        self, message: Mapping[str, Any], *, headers: Mapping[str, str], source: str, received_at: datetime
    ) -> Report | Ignored:
        """`source` is the name of the one that delivers. Raises Unreadable."""


class Verifier(Protocol):
    def __call__(
        self, body: bytes, headers: Mapping[str, str], *, secret: str, header: str | None, **_: object
    ) -> bool:
        """Whether the sender signed `body` with `secret`. Constant-time."""


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of sender: what `sources` registers, and what a door needs to know of it."""

    kind: str  # as in POST /webhooks/{kind}
    name: str
    describes: str
    read: Parser
    example: Mapping[str, Any]
    verify: Verifier | None = None
    token_header: str | None = None  # where this sender can put its token besides Authorization


class Unreadable(Exception):
    """Becomes a `Rejected`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def read(
    kind: Source, body: bytes, *, headers: Mapping[str, str], source: str, received_at: datetime
) -> Report | Ignored | Rejected:
    """What the delivery says. Raises NotThisKind."""
    try:
        message = _message(body, headers)
        return _plausible(kind.read(message, headers=headers, source=source, received_at=received_at), received_at)
    except Unreadable as unreadable:
        return Rejected(unreadable.reason, unreadable.detail)


def is_signed(
    body: bytes, headers: Mapping[str, str], *, secret: str, header: str | None, default: str, prefix: str
) -> bool:
    """SHA-256 HMAC of the body in hex behind `prefix`. With an empty secret anybody could sign."""
    by_name = {name.lower(): value for name, value in headers.items()}
    sent = by_name.get((header or default).lower(), "")
    expected = prefix + hmac.new(secret.encode(), body, "sha256").hexdigest()
    return hmac.compare_digest(expected.encode(), sent.encode(errors="replace")) and bool(secret)


def object_in(value: Any) -> Mapping[str, Any]:
    """A JSON object; anything else has no fields."""
    return value if isinstance(value, dict) else {}


def text_in(value: Any, at_most: int = TEXT_AT_MOST) -> str | None:
    """Text as PostgreSQL can keep it, numbers as text, what a template left unfilled as nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = _UNSTORABLE.sub("", str(value)).strip()
    return None if text in {"", "<no value>", "<nil>", "null"} else text[:at_most]


def required(value: Any, name: str) -> str:
    """Raises Unreadable."""
    found = text_in(value)
    if found is None:
        raise Unreadable(f"no_{name}", f"the deployment has no {name}")
    return found


def flag_in(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get((text_in(value) or "").lower())


def moment_in(value: Any) -> datetime | None:
    """RFC 3339, the forms of GitLab (`2026-08-20 10:00:45 +0200`, `… UTC`), or a Unix time; without an offset UTC.

    Raises Unreadable.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _since_1970(value)
    text = text_in(value)
    if text is None:
        return None
    shape = _TIME.fullmatch(text)
    if shape is None:
        raise Unreadable("bad_time", "a time is not RFC 3339")
    if int(shape["year"]) <= 1970:  # a zero time
        return None
    offset = shape["offset"] or "+00:00"
    offset = "+00:00" if offset.upper() in {"Z", "UTC"} else offset
    try:
        return datetime.fromisoformat(f"{shape['date']}T{shape['time']}{shape['fraction'] or ''}{offset}").astimezone(
            UTC
        )
    except (ValueError, OverflowError):
        raise Unreadable("bad_time", "a time is not one of the calendar") from None


def commits_in(value: Any) -> tuple[Commit, ...]:
    """A list of objects with `sha` (or `id`) and `at` (or `timestamp`), or of texts. Raises Unreadable."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > COMMITS_AT_MOST:
        raise Unreadable("bad_commits", f"the commits are no list of at most {COMMITS_AT_MOST}")
    found = []
    for each in value:
        told = object_in(each)
        sha = text_in(told.get("sha") or told.get("id") if told else each)
        if sha is None:
            raise Unreadable("bad_commits", "a commit has no sha")
        found.append(Commit(sha, moment_in(told.get("at") or told.get("timestamp"))))
    return tuple(found)


def outcome_in(value: Any) -> Outcome | None:
    """The words of CI systems. Raises Unreadable for a word that is none of them."""
    word = (text_in(value) or "").lower().replace("-", "_").replace(" ", "_")
    if not word:
        return None
    if word not in _OUTCOMES:
        raise Unreadable("unknown_outcome", "the outcome is no word known for one")
    return _OUTCOMES[word]


_OUTCOMES = {
    word: outcome
    for outcome, words in {
        Outcome.PENDING: "pending queued waiting created scheduled blocked requested",
        Outcome.IN_PROGRESS: "in_progress running started progressing terminating",
        Outcome.SUCCEEDED: "succeeded success successful passed completed deployed ok fixed",
        Outcome.FAILED: "failed failure error errored broken",
        Outcome.CANCELLED: "cancelled canceled aborted skipped",
    }.items()
    for word in words.split()
}
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_TIME = re.compile(
    r"(?P<date>(?P<year>\d{4})-\d\d-\d\d)[Tt ](?P<time>\d\d:\d\d:\d\d)(?P<fraction>\.\d+)? ?"
    r"(?P<offset>[Zz]|UTC|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_EXPECTED = "Expected a JSON object."


def _message(body: bytes, headers: Mapping[str, str]) -> Mapping[str, Any]:
    if headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded"):
        body = _form_payload(body)
    try:
        message = json.loads(body.decode("utf-8-sig", "replace"), strict=False)
    except json.JSONDecodeError:
        raise NotThisKind(f"The body is not valid JSON. {_EXPECTED}") from None
    except RecursionError:
        raise Unreadable("too_deep", "the body is nested too deeply to be read") from None
    except ValueError:
        raise Unreadable("bad_number", "a number has too many digits") from None
    if not isinstance(message, dict):
        raise NotThisKind(_EXPECTED)
    return message


def _form_payload(body: bytes) -> bytes:
    """GitHub's other content type: the JSON is the field `payload` of a form."""
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=100).get("payload", [""])[0].encode()
    except ValueError:
        raise NotThisKind("The form has too many fields. Expected one named `payload`.") from None


def _plausible(report: Report | Ignored, received_at: datetime) -> Report | Ignored:
    if isinstance(report, Ignored):
        return report
    latest = received_at + CLOCK_SKEW
    times = (report.told_at, report.started_at, report.finished_at)
    if any(at is not None and at > latest for at in times):
        raise Unreadable("future_time", "a time lies in the future")
    return report


def _since_1970(number: float) -> datetime:
    """Seconds, milli-, micro- or nanoseconds, by magnitude."""
    try:
        whole = int(number)
        for per_second in (1, 10**3, 10**6, 10**9):
            if abs(whole) < 10**11 * per_second:
                return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(number * 10**6) // per_second)
    except (ValueError, OverflowError):
        pass
    raise Unreadable("bad_time", "a number is no Unix time")
