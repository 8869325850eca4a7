"""What every sender's parser gives back, and the parsing they share: hostile JSON, text and times.

A parser is pure: bytes and the time of arrival in, a `Reading` out. It raises `NotThisKind` only for a body that is not
JSON of its kind at all; anything wrong with a single alert becomes a `Rejected`, kept raw, and the rest goes on.

The way of a body: `opened` finds its alerts and `read_each` goes through them; the sender's own file reads one alert,
with `legible`, `moment` and `lifespan` against what senders get wrong and `within_limits` against what they overdo. A
body of which `is_plain` and a strict decoder say that there is nothing of that in it may be read at once.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Protocol, TypeVar

import msgspec

from app.base.errors import NotThisKind
from app.incidents.grouping.signal import Signal, Status

ALERTS_AT_MOST = 10_000
LABELS_AT_MOST = 100
NAME_BYTES = 1024
LABEL_BYTES = 4 * 1024
ANNOTATION_BYTES = 16 * 1024
CLOCK_SKEW = timedelta(minutes=5)


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """An alert that could not be read: its raw JSON (or the whole body) and why, in words without payload text."""

    raw: bytes
    reason: str  # a stable snake_case word: it becomes a metric label
    detail: str = ""


class Reading(msgspec.Struct, frozen=True, gc=False):
    """A delivery as facts. `truncated` counts alerts the sender says it left out."""

    signals: tuple[Signal, ...]
    rejected: tuple[Rejected, ...] = ()
    truncated: int = 0


class Parser(Protocol):
    def __call__(self, body: bytes, *, received_at: datetime) -> Reading:
        """Raises NotThisKind."""


class Verifier(Protocol):
    """Checks a sender's signature; True when it is right. Constant-time."""

    def __call__(
        self,
        body: bytes,
        headers: Mapping[str, str],
        *,
        secret: str,
        now: datetime,
        header: str | None = None,
        timestamp_header: str | None = None,
    ) -> bool:
        """`header` and `timestamp_header` as the source is set; None for the sender's default."""


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of sender: what `sources` registers, and what a door needs to know of it."""

    kind: str  # as in POST /webhooks/{kind}
    describes: str
    read: Parser
    verify: Verifier | None = None


M = TypeVar("M", bound="Message")
Flags = tuple[str, ...]
NULL = msgspec.Raw(b"null")


# Texts that fit whatever their characters: UTF-8 takes at most four bytes for each.
_CHARACTER_BYTES = 4
ShortLabel = Annotated[str, msgspec.Meta(max_length=LABEL_BYTES // _CHARACTER_BYTES)]
ShortAnnotation = Annotated[str, msgspec.Meta(max_length=ANNOTATION_BYTES // _CHARACTER_BYTES)]


class BadAlert(Exception):
    """One alert cannot be read. Raised while reading it, caught by `read_each`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class Message(msgspec.Struct, kw_only=True, gc=False):
    """A body whose alerts are still raw. A sender that says more at the top extends it; unknown fields are skipped."""

    alerts: list[msgspec.Raw] | None
    left_out: msgspec.Raw = msgspec.field(default=NULL, name="truncatedAlerts")


def truncated(left_out: msgspec.Raw) -> int:
    """Alerts the sender says it left out; 0 for anything but a plausible number."""
    digits = bytes(left_out)
    return int(digits) if digits.isdigit() and len(digits) < len("1000000000") else 0


def opened(body: bytes, decoder: msgspec.json.Decoder[M], *, expected: str) -> M | Rejected:
    """The message in `body`, or all of the body rejected as `too_deep` where no part of it can be saved.

    Raises NotThisKind for what is not JSON, or not of the decoder's shape: `expected` then tells what would have been.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise NotThisKind(expected) from None
    except (msgspec.DecodeError, RecursionError):
        mended, taken_out = _shallow(_legal(body))
    try:
        message = decoder.decode(mended)
    except msgspec.ValidationError:
        raise NotThisKind(expected) from None
    except msgspec.DecodeError:
        raise NotThisKind(f"The body is not valid JSON. {expected}") from None
    except RecursionError:
        return Rejected(body, "too_deep", "the body is nested too deeply to be read")
    if taken_out and message.alerts:
        message.alerts = [msgspec.Raw(taken_out.get(bytes(raw), bytes(raw))) for raw in message.alerts]
    return message


def read_each(message: Message, signal_in: Callable[[bytes], Signal]) -> Reading:
    """Every alert of `message` as a signal or a rejected one; those beyond the limit as one, a JSON array of them."""
    signals: list[Signal] = []
    rejected: list[Rejected] = []
    alerts = message.alerts or []
    for alert in alerts[:ALERTS_AT_MOST]:
        raw = bytes(alert)
        try:
            signals.append(signal_in(raw))
        except BadAlert as bad:
            rejected.append(Rejected(raw, bad.reason, bad.detail))
        except RecursionError:
            rejected.append(Rejected(raw, "too_deep", "the alert is nested too deeply to be read"))
        except msgspec.DecodeError:
            # Only what `_shallow` took out unread can be broken here; all else was checked with the body.
            rejected.append(Rejected(raw, "bad_json", "the alert is not valid JSON"))
    if beyond := alerts[ALERTS_AT_MOST:]:
        raw = b"[" + b",".join(bytes(alert) for alert in beyond) + b"]"
        detail = f"{len(beyond)} alerts beyond the {ALERTS_AT_MOST} a delivery may hold"
        rejected.append(Rejected(raw, "too_many_alerts", detail))
    return Reading(tuple(signals), tuple(rejected), truncated(message.left_out))


def is_plain(json: bytes) -> bool:
    """Whether there is nothing in it that `legible` would have to mend."""
    return json.isascii() and (_BACKSLASH not in json or json.find(rb"\u0000") < 0)


def legible(raw: bytes) -> tuple[bytes, Flags]:
    """The JSON in `raw` as PostgreSQL can keep it: true UTF-8, no NUL in any text."""
    if is_plain(raw):
        return raw, ()
    # The bytes are escapes by now, even where the sender wrote a NUL or half a surrogate pair (see `_legal`).
    cleaned = raw.decode(errors="replace").encode()
    if rb"\u0000" in raw:
        cleaned = _ESCAPE.sub(lambda escape: b"" if escape[0] == rb"\u0000" else escape[0], cleaned)
    return cleaned, () if cleaned == raw else ("value_cleaned",)


def text_in(raw: msgspec.Raw) -> str | None:
    """A JSON value as text: a string's own, nothing for null, else the JSON as it was written (`1.10` stays `1.10`)."""
    json = bytes(raw)
    if json.startswith(b'"'):
        return _STRING_VALUE.decode(json)
    return None if json == b"null" else json.decode()


def labels_in(raw: msgspec.Raw) -> dict[str, str]:
    """A JSON object as labels; one whose value is null is none. Raises BadAlert."""
    try:
        values = _OBJECT_OR_NULL.decode(raw) or {}
    except msgspec.ValidationError:
        raise BadAlert("bad_label", "the labels are not an object") from None
    if any(bytes(value).startswith((b"{", b"[")) for value in values.values()):
        raise BadAlert("bad_label", "the value of a label is an object or an array")
    return _texts(values)


def annotations_in(raw: msgspec.Raw) -> dict[str, str]:
    """A JSON object as annotations. Nothing here is worth losing an alert: the unexpected is kept as its JSON."""
    try:
        return _texts(_OBJECT_OR_NULL.decode(raw) or {})
    except msgspec.ValidationError:
        return {"annotations": bytes(raw).decode()}


def within_limits(
    labels: dict[str, str], annotations: dict[str, str], link: str, *, json_bytes: int
) -> tuple[dict[str, str], dict[str, str], str, Flags]:
    """The same three, cut to what we keep of an alert that came as so many bytes, and flags for what was cut."""
    flags: Flags = ()
    if json_bytes > NAME_BYTES:  # else nothing in it can be too long
        labels, long_labels = _cut_each(labels, LABEL_BYTES, json_bytes)
        annotations, long_annotations = _cut_each(annotations, ANNOTATION_BYTES, json_bytes)
        short_link = _cut(link, ANNOTATION_BYTES)
        if long_labels or long_annotations or short_link != link:
            link, flags = short_link, ("value_truncated",)
    if len(labels) > LABELS_AT_MOST:
        labels, flags = dict(sorted(labels.items())[:LABELS_AT_MOST]), (*flags, "labels_truncated")
    return labels, annotations, link, flags


def names_fit(texts: dict[str, str]) -> bool:
    """Whether no name in it can be too long. Those of most alerts fit even if taken for one."""
    return len("".join(texts)) * _CHARACTER_BYTES <= NAME_BYTES


def moment(text: str | None) -> tuple[datetime | None, Flags]:
    """The instant an RFC 3339 text names, in UTC and whole microseconds; None for nothing and for a zero time.

    A time without an offset is taken as UTC and flagged. Raises BadAlert.
    """
    if not text:
        return None, ()
    # The length also keeps the cache small: a fraction may have any number of digits.
    if len(text) > _LONGEST_TIME:
        raise BadAlert("bad_time", "a time is too long to be RFC 3339")
    return _moment(text)


def lifespan(
    status: Status, started_at: datetime | None, ended_at: datetime | None, received_at: datetime
) -> tuple[datetime | None, datetime | None, Flags]:
    """Start and end as they can be true of an alert heard of at `received_at`, and flags for what was not.

    A firing has no end; a resolve always has one.
    """
    flags: Flags = ()
    if started_at is not None and started_at > received_at + CLOCK_SKEW:
        # No start at all rather than that of arrival: repeats until then must not each begin an alert of their own.
        started_at, flags = None, ("future_time",)
    if status is _FIRING:
        return started_at, None, flags
    if ended_at is None:
        ended_at, flags = received_at, (*flags, "ends_unknown")
    elif ended_at > received_at + CLOCK_SKEW:
        ended_at, flags = received_at, (*flags, "ends_clamped")
    if started_at is not None and ended_at < started_at:
        ended_at, flags = started_at, (*flags, "ends_before_start")
    return started_at, ended_at, flags


_FIRING = Status.FIRING  # looked up once: tens of thousands of alerts a second come this way
_BACKSLASH = ord("\\")
_LONGEST_TIME = 64
_DEEP = 100
_ALERT_LEVEL = 3  # the body, its list, an alert
_STRING_VALUE = msgspec.json.Decoder(str)
_OBJECT_OR_NULL = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_STRUCTURE = re.compile(_STRING.pattern + rb"|[\[{]|[\]}]", re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SUSPECT = re.compile(
    rb"(?P<control>[\x00-\x1f])"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair is as it should be
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\.",  # any other escape, so that a backslash is never read as the start of the next one
    re.DOTALL,
)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d++)?+(?:[Zz]|[+-]\d\d:?\d\d)?+", re.ASCII)
_FIRST_TRUE_YEAR = "1971"


def _cut_each(texts: dict[str, str], value_bytes: int, json_bytes: int) -> tuple[dict[str, str], bool]:
    # No text takes more bytes than the JSON it came in.
    values_fit = json_bytes <= value_bytes or max(map(len, texts.values()), default=0) * _CHARACTER_BYTES <= value_bytes
    if values_fit and names_fit(texts):
        return texts, False
    short = {_cut(name, NAME_BYTES): _cut(value, value_bytes) for name, value in texts.items()}
    return short, short != texts


def _cut(text: str, at_most: int) -> str:
    if len(text) * _CHARACTER_BYTES <= at_most:
        return text
    return text.encode()[:at_most].decode(errors="ignore")


def _texts(values: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    return {name: text for name, value in values.items() if (text := text_in(value)) is not None}


def _legal(body: bytes) -> bytes:
    """`body` with its strings as JSON wants them; syntax errors outside of strings stay."""
    return _STRING.sub(lambda string: _SUSPECT.sub(_as_json, string[0]), body.removeprefix(b"\xef\xbb\xbf"))


def _as_json(suspect: re.Match[bytes]) -> bytes:
    if suspect["control"]:
        return rb"\u%04x" % suspect[0][0]
    # Half a surrogate pair becomes a byte that UTF-8 never has, for `legible` to see, replace and flag.
    return b"\xff" if suspect["half"] else suspect[0]


def _shallow(body: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """`body` with a stand-in for each value on the level of an alert that is too deep, and what those stand for."""
    pieces: list[bytes] = []
    taken_out: dict[bytes, bytes] = {}
    depth = deepest = start = kept_to = 0
    for token in _STRUCTURE.finditer(body):
        match token[0]:
            case b"{" | b"[":
                depth += 1
                if depth == _ALERT_LEVEL:
                    start, deepest = token.start(), depth
                deepest = max(depth, deepest)
            case b"}" | b"]":
                if depth == _ALERT_LEVEL and deepest > _DEEP:
                    stand_in = b'{"taken out": %d}' % len(taken_out)
                    pieces += body[kept_to:start], stand_in
                    kept_to = token.end()
                    taken_out[stand_in] = body[start:kept_to]
                depth -= 1
    return b"".join([*pieces, body[kept_to:]]), taken_out


# The same few times come again and again: in a batch, in repeats, and the zero time in every firing.
@lru_cache(maxsize=4096)
def _moment(text: str) -> tuple[datetime | None, Flags]:
    if _RFC_3339.fullmatch(text) is None:
        raise BadAlert("bad_time", "a time is not RFC 3339")
    # Go's zero time is in year 1, or year 0 where its zone lies west; both overflow when converted to UTC, and Python
    # knows no year 0 at all. So the year is looked at first.
    if text < _FIRST_TRUE_YEAR:
        return None, ()
    try:
        time = datetime.fromisoformat(text.upper())  # it cuts to microseconds, and knows no lower-case z
        return (time.replace(tzinfo=UTC), ("naive_time",)) if time.tzinfo is None else (time.astimezone(UTC), ())
    except (ValueError, OverflowError):
        raise BadAlert("bad_time", "a time is not one of the calendar") from None
