"""Shared by the senders of deployments: reading one report, and parsing fields that may contain anything.

These senders make a few deliveries a minute, so the standard library's JSON is fast enough.
"""

import hmac
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from app.base.errors import NotThisKind
from app.base.facts import COMMITS_AT_MOST, Commit, Outcome, Report
from app.ingest.alerts import CLOCK_SKEW
from app.ingest.sender import Reading, Rejected, Request, Unreadable

TEXT_AT_MOST = 200
LINK_AT_MOST = 2_000


class Ignored(NamedTuple):
    """The request contains no deployment, for example a ping or another event."""

    reason: str


def read_report(request: Request, report_in: Callable[[Mapping[str, Any], Request], Report | Ignored]) -> Reading:
    """The deployment in a request whose body is one JSON object. Raises NotThisKind."""
    try:
        report = report_in(_message(request.body, request.headers), request)
        if isinstance(report, Ignored):
            return Reading(ignored=report.reason)
        return Reading(deployments=(_plausible(report, request.received_at),))
    except Unreadable as unreadable:
        return Reading(rejected=(Rejected(unreadable.reason, unreadable.detail),))


def is_signed(request: Request, *, secret: str, header: str, prefix: str) -> bool:
    """Checks a SHA-256 HMAC of the body, in hex after `prefix`. False for an empty secret: anyone could use it."""
    sent = request.headers.get(header.lower(), "")
    expected = prefix + hmac.new(secret.encode(), request.body, "sha256").hexdigest()
    return hmac.compare_digest(expected.encode(), sent.encode(errors="replace")) and bool(secret)


def object_in(value: Any) -> Mapping[str, Any]:
    """The JSON object, or an empty one if the value is anything else."""
    return value if isinstance(value, dict) else {}


def text_in(value: Any, at_most: int = TEXT_AT_MOST) -> str | None:
    """Text or a number as text that PostgreSQL can store; None if a template left the value empty."""
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
    """RFC 3339, the forms of GitLab (`2026-08-20 10:00:45 +0200`, `… UTC`), or a Unix time. UTC if there is no offset.

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
        raise Unreadable("bad_time", "a time does not exist in the calendar") from None


def commits_in(value: Any) -> tuple[Commit, ...]:
    """A list of objects with `sha` (or `id`) and `at` (or `timestamp`), or of strings. Raises Unreadable."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > COMMITS_AT_MOST:
        raise Unreadable("bad_commits", f"`commits` must be a list of at most {COMMITS_AT_MOST} commits")
    found = []
    for each in value:
        fields = object_in(each)
        sha = text_in(fields.get("sha") or fields.get("id") if fields else each)
        if sha is None:
            raise Unreadable("bad_commits", "a commit has no sha")
        found.append(Commit(sha, moment_in(fields.get("at") or fields.get("timestamp"))))
    return tuple(found)


def outcome_in(value: Any) -> Outcome | None:
    """Maps the words of CI systems to an outcome. Raises Unreadable for an unknown word."""
    word = (text_in(value) or "").lower().replace("-", "_").replace(" ", "_")
    if not word:
        return None
    if word not in _OUTCOMES:
        raise Unreadable("unknown_outcome", "the outcome is not recognized; use `succeeded` or `failed`")
    return _OUTCOMES[word]


_OUTCOMES = {
    word: outcome
    for outcome, words in {
        Outcome.PENDING: "pending queued waiting created scheduled blocked requested",
        Outcome.IN_PROGRESS: "in_progress running started progressing terminating",
        Outcome.SUCCEEDED: "succeeded success successful passed completed deployed ok fixed",
        Outcome.FAILED: "failed failure error errored broken",
        Outcome.CANCELED: "cancelled canceled aborted skipped",
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
    """For GitHub's other content type: the JSON is in the field `payload` of a form."""
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=100).get("payload", [""])[0].encode()
    except ValueError:
        raise NotThisKind("The form has too many fields. Expected one named `payload`.") from None


def _plausible(report: Report, received_at: datetime) -> Report:
    latest = received_at + CLOCK_SKEW
    times = (report.told_at, report.started_at, report.finished_at)
    if any(at is not None and at > latest for at in times):
        raise Unreadable("future_time", "a time lies in the future")
    return report


def _since_1970(number: float) -> datetime:
    """A Unix time in seconds, milli-, micro- or nanoseconds, recognized by magnitude."""
    try:
        whole = int(number)
        for per_second in (1, 10**3, 10**6, 10**9):
            if abs(whole) < 10**11 * per_second:
                return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(number * 10**6) // per_second)
    except (ValueError, OverflowError):
        pass
    raise Unreadable("bad_time", "a time is a number but not a valid Unix time")
