"""Alertmanager's webhook (0.19 to 0.34), and what sends the same shape: Mimir, Amazon Managed Prometheus and others.

What to rely on: an alert's own `status`, never the group's (a firing group lists resolved alerts too); `endsAt` is in
year 1 while firing; `version` stayed "4" while fields were added. What is not named here is skipped.
"""

from datetime import datetime
from hashlib import sha256
from typing import Annotated

import msgspec

from app.incidents.grouping.signal import EndReason, Signal, Status, fingerprint_of
from app.ingest.json import annotations_in, is_plain, labels_in, parse_envelope, sanitize, text_in
from app.ingest.sender import (
    ALERTS_AT_MOST,
    LABELS_AT_MOST,
    NULL,
    BadAlert,
    Flags,
    Message,
    Reading,
    Rejected,
    ShortAnnotation,
    ShortLabel,
    Source,
    names_within_limit,
    normalize_times,
    parse_time,
    read_each,
    truncated,
    within_limits,
)

FINGERPRINT_LENGTH = 256


def read(body: bytes, *, received_at: datetime) -> Reading:
    """The signals in a webhook of Alertmanager. Raises NotThisKind."""
    return usual(body, received_at) or _closely(body, received_at)


def usual(body: bytes, received_at: datetime) -> Reading | None:
    """The signals in a body in which nothing is odd: all of it read at once, in two thirds of the time.

    None where anything is: then each alert has to be read by itself, by `signal_in`.
    """
    if not is_plain(body):
        return None
    try:
        told = _USUAL.decode(body)
        if all(names_within_limit(alert.labels) and names_within_limit(alert.annotations) for alert in told.alerts):
            signals = tuple([_signal_of(alert, received_at) for alert in told.alerts])
            return Reading(signals, (), truncated(told.left_out))
    except (msgspec.DecodeError, RecursionError, BadAlert):
        pass
    return None


def _closely(body: bytes, received_at: datetime) -> Reading:
    message = parse_envelope(body, _MESSAGE, expected=_EXPECTED)
    if isinstance(message, Rejected):
        return Reading((), (message,))
    return read_each(message, lambda raw: signal_in(raw, received_at))


def signal_in(raw: bytes, received_at: datetime) -> Signal:
    """The signal in one alert of Alertmanager's shape. Raises BadAlert."""
    json, flags = sanitize(raw)
    alert = _alert_in(json)
    status = _STATUS.get(alert.status)
    if status is None:
        raise BadAlert("unknown_status", "the status is neither firing nor resolved")

    labels, annotations, link = alert.labels or {}, alert.annotations or {}, alert.link or ""
    if "" in labels.values():
        # To Alertmanager an empty label is no label; the fingerprint is taken without it.
        labels = {name: value for name, value in labels.items() if value}
    # Before anything is cut, so that two alerts which differ beyond a limit stay two.
    fingerprint = _fingerprint(alert.fingerprint, labels)
    labels, annotations, link, too_much = within_limits(labels, annotations, link, json_bytes=len(json))
    as_usual = _Usual(status, fingerprint, labels, annotations, alert.starts, alert.ends, link)
    return _signal_of(as_usual, received_at, flags + too_much)


def _signal_of(alert: "_Usual", received_at: datetime, flags: Flags = ()) -> Signal:
    """Raises BadAlert."""
    started_at, odd_start = parse_time(alert.starts)
    ended_at, odd_end = parse_time(alert.ends)
    started_at, ended_at, odd_lifespan = normalize_times(alert.status, started_at, ended_at, received_at)
    flags += odd_start + odd_end + odd_lifespan
    return Signal(
        fingerprint=alert.fingerprint,
        status=alert.status,
        started_at=started_at,
        ended_at=ended_at,
        labels=alert.labels,
        annotations=alert.annotations,
        link=alert.link,
        end_reason=None if ended_at is None else EndReason.RECOVERED,
        flags=tuple(dict.fromkeys(flags)) if flags else (),
    )


class _Usual(msgspec.Struct, gc=False):
    """An alert in which there is nothing to cut, to leave out or to make up.

    The names have no bound here but in `names_within_limit`: with one msgspec would make each anew, slower to look up.
    """

    status: Status
    fingerprint: Annotated[str, msgspec.Meta(min_length=1, max_length=FINGERPRINT_LENGTH)]
    labels: Annotated[
        dict[str, Annotated[ShortLabel, msgspec.Meta(min_length=1)]], msgspec.Meta(max_length=LABELS_AT_MOST)
    ]
    annotations: dict[str, ShortAnnotation] = {}
    starts: str | None = msgspec.field(default=None, name="startsAt")
    ends: str | None = msgspec.field(default=None, name="endsAt")
    link: ShortAnnotation = msgspec.field(default="", name="generatorURL")


class _UsualMessage(msgspec.Struct, gc=False):
    alerts: Annotated[list[_Usual], msgspec.Meta(max_length=ALERTS_AT_MOST)]
    left_out: msgspec.Raw = msgspec.field(default=NULL, name="truncatedAlerts")


class _Alert(msgspec.Struct, gc=False):
    status: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    starts: str | None = msgspec.field(default=None, name="startsAt")
    ends: str | None = msgspec.field(default=None, name="endsAt")
    link: str | None = msgspec.field(default=None, name="generatorURL")
    fingerprint: str | None = None


class _LooseAlert(msgspec.Struct, gc=False):
    """An alert whose fields may hold anything."""

    status: msgspec.Raw = NULL
    labels: msgspec.Raw = NULL
    annotations: msgspec.Raw = NULL
    starts: msgspec.Raw = msgspec.field(default=NULL, name="startsAt")
    ends: msgspec.Raw = msgspec.field(default=NULL, name="endsAt")
    link: msgspec.Raw = msgspec.field(default=NULL, name="generatorURL")
    fingerprint: msgspec.Raw = NULL


_USUAL = msgspec.json.Decoder(_UsualMessage)
_MESSAGE = msgspec.json.Decoder(Message)
_ALERT = msgspec.json.Decoder(_Alert)
_LOOSE_ALERT = msgspec.json.Decoder(_LooseAlert)
_STATUS: dict[str | None, Status] = {"firing": Status.FIRING, "resolved": Status.RESOLVED}
_EXPECTED = (
    "Expected a JSON object with a list `alerts`, as Alertmanager sends it. "
    "Let the `url` of a webhook_config point here and leave its `payload` setting out."
)


def _alert_in(json: bytes) -> _Alert:
    try:
        return _ALERT.decode(json)
    except msgspec.ValidationError:
        pass
    try:
        loose = _LOOSE_ALERT.decode(json)
    except msgspec.ValidationError:
        raise BadAlert("not_an_object", "the alert is not a JSON object") from None
    return _Alert(
        status=text_in(loose.status),
        labels=labels_in(loose.labels),
        annotations=annotations_in(loose.annotations),
        starts=text_in(loose.starts),
        ends=text_in(loose.ends),
        link=text_in(loose.link),
        fingerprint=text_in(loose.fingerprint),
    )


def _fingerprint(sent: str | None, labels: dict[str, str]) -> str:
    if not sent:  # before 0.19, and from some that send the same shape
        if not labels:
            raise BadAlert("no_identity", "the alert has neither a fingerprint nor labels")
        return fingerprint_of(labels)
    # Too long for an index of PostgreSQL, but not to be confused with another that begins alike.
    return sent if len(sent) <= FINGERPRINT_LENGTH else sha256(sent.encode()).hexdigest()


SOURCE = Source(kind="alertmanager", describes="Prometheus Alertmanager, and what sends its webhook", read=read)
