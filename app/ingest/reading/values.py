"""Shared by the senders of single facts (deployments, changes, issues, reactions, alerts of imitated APIs): reading
one fact, and parsing fields that may contain anything.

These senders make a few deliveries a minute, so the standard library's JSON is fast enough.
"""

import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from app.base.errors import Invalid, TooLarge, UnrecognizedBody
from app.base.values.facts import (
    CLOCK_AHEAD_AT_MOST,
    COMMITS_AT_MOST,
    Change,
    Commit,
    IssueEvent,
    Outcome,
    Reaction,
    Report,
    is_ahead,
)
from app.base.values.moments import NotAMoment, moment_of
from app.base.values.vocabulary import outcome_of
from app.incidents.grouping.signal import Signal
from app.ingest.reading.alerts import CLOCK_SKEW
from app.ingest.sender import Reading, Rejected, Request, Unreadable

TEXT_AT_MOST = 200
LINK_AT_MOST = 2_000


class UnusableReport(Invalid):
    title = "Deployment report cannot be used"


class Ignored(NamedTuple):
    """The request contains no fact, for example because it is a ping or another event."""

    reason: str


Fact = Report | Change | Reaction | IssueEvent | Signal
FactIn = Callable[[Mapping[str, Any], Request], Fact | Ignored]


def read_report(request: Request, fact_in: FactIn) -> Reading:
    """The fact in a request whose body is one JSON object. Raises UnrecognizedBody."""
    try:
        return _reading(request, fact_in)
    except Unreadable as unreadable:
        return Reading(rejected=(Rejected(unreadable.reason, unreadable.detail),))


def read_strictly(request: Request, fact_in: FactIn) -> Reading:
    """Like `read_report`, for an endpoint that people call from CI: what it cannot use fails the job.

    Raises UnrecognizedBody and UnusableReport.
    """
    try:
        return _reading(request, fact_in)
    except Unreadable as unreadable:
        raise UnusableReport(unreadable.detail) from None


def _reading(request: Request, fact_in: FactIn) -> Reading:
    """Raises UnrecognizedBody and Unreadable."""
    match fact_in(message_in(request), request):
        case Ignored(reason):
            return Reading(ignored=reason)
        case Reaction() as reaction:
            return Reading(reactions=(reaction,))
        case IssueEvent() as issue:
            return Reading(issues=(issue,))
        case Signal() as signal:
            return Reading((signal,))
        case Change() as change:
            _require_plausible(request.received_at, change.happened_at)
            ahead = is_ahead(change.happened_at, request.received_at)
            return Reading(changes=(replace(change, clock_ahead=ahead),))
        case Report() as report:
            _require_plausible(request.received_at, report.reported_at, report.started_at, report.finished_at)
            return Reading(deployments=(report,))


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


def link_in(value: Any) -> str:
    """The address of an issue, without its query. Raises Unreadable for anything but an address with http or https."""
    link = (text_in(value, LINK_AT_MOST + 1) or "").partition("?")[0].partition("#")[0]
    if not re.fullmatch(r"https?://[!-~]+", link) or len(link) > LINK_AT_MOST:
        raise Unreadable("no_link", "the issue has no address that can be used")
    try:
        urlsplit(link)
    except ValueError:
        raise Unreadable("no_link", "the issue has no address that can be used") from None
    return link


def flag_in(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get((text_in(value) or "").lower())


def moment_in(value: Any) -> datetime | None:
    """RFC 3339, RFC 2822, the forms of GitLab (`2026-08-20 10:00:45 +0200`, `… UTC`), or a Unix time, also as text.
    UTC if there is no offset.

    None for a zero time, which is anything before 1971. Raises Unreadable.
    """
    if isinstance(value, bool | list | dict):
        raise Unreadable("bad_time", "a time is neither a string nor a number")
    text = text_in(value)
    try:
        return None if text is None else moment_of(text if isinstance(value, str) else value)
    except NotAMoment as error:
        raise Unreadable("bad_time", str(error)) from None


def moment_or_arrival(value: Any, request: Request) -> tuple[datetime, bool]:
    """The time at which something happened, and whether that is when the request was received: without a time, and for
    one that is unreadable or in the future. What a person did is worth more than its time.
    """
    try:
        at = moment_in(value)
    except Unreadable:
        at = None
    if at is None or at > request.received_at + CLOCK_SKEW:
        return request.received_at, True
    return at, False


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
    """The outcome in the words of any CI system; `unknown` for an unknown word, None if there is none."""
    if isinstance(value, bool | list | dict):
        return Outcome.UNKNOWN
    word = text_in(value)
    return None if word is None else outcome_of(word) or Outcome.UNKNOWN


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_EXPECTED = "Expected a JSON object."


BODY_AT_MOST = 2**20  # bytes; 5,000 commits take half of it
VALUES_AT_MOST = 20_000  # objects and lists


def has_too_many_values(text: str) -> bool:
    """Whether decoding the JSON would make so many objects that garbage collection would take longer than decoding."""
    return text.count("[") + text.count("{") > VALUES_AT_MOST


def message_in(request: Request) -> Mapping[str, Any]:
    """The JSON object in the body. Raises UnrecognizedBody, TooLarge, and Unreadable if it cannot be decoded."""
    body = request.body
    if len(body) > BODY_AT_MOST:
        raise TooLarge(f"a request of this kind may have at most {BODY_AT_MOST} bytes; send fewer commits, if any")
    is_form = request.headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded")
    if is_form and not body.lstrip().startswith(b"{"):  # curl says so of any body
        body = _form_payload(body)
    text = body.decode("utf-8-sig", "replace")
    if has_too_many_values(text):
        raise TooLarge(f"a request of this kind may have at most {VALUES_AT_MOST} objects and lists")
    try:
        message = json.loads(text, strict=False)
    except json.JSONDecodeError:
        raise UnrecognizedBody(f"The body is not valid JSON. {_EXPECTED}") from None
    except RecursionError:
        raise Unreadable("too_deep", "the body is nested too deeply to be read") from None
    except ValueError:
        raise Unreadable("bad_number", "a number has too many digits") from None
    if not isinstance(message, dict):
        raise UnrecognizedBody(_EXPECTED)
    return message


def _form_payload(body: bytes) -> bytes:
    """For GitHub's other content type: the JSON is in the field `payload` of a form."""
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=100).get("payload", [""])[0].encode()
    except ValueError:
        raise UnrecognizedBody("The form has too many fields. Expected one named `payload`.") from None


def _require_plausible(received_at: datetime, *times: datetime | None) -> None:
    """Raises Unreadable."""
    latest = received_at + CLOCK_AHEAD_AT_MOST
    if any(at is not None and at > latest for at in times):
        minutes = CLOCK_AHEAD_AT_MOST // timedelta(minutes=1)
        raise Unreadable("future_time", f"a time lies more than {minutes} minutes in the future; check the clock")
