"""Alertmanager's own API, to which Prometheus, vmalert, Thanos Ruler, Mimir, Loki, Grafana and amtool post alerts.

An alert has no status. It fires until `endsAt`: a sender repeats a firing alert with a later `endsAt` each time, and
one that it no longer repeats expires then. A resolved alert has an `endsAt` in the past, and Prometheus repeats it for
15 minutes. As in Alertmanager, `endsAt` is compared with the time of arrival without any tolerance, because vmalert may
announce an end only seconds ahead. If a sender's clock is ahead, its end is read as an expiry at the same time.
"""

from datetime import datetime, timedelta

import msgspec

from app.incidents.grouping.signal import EndReason, Signal, Status, fingerprint_of
from app.ingest.reading.alerts import (
    NULL,
    Message,
    normalize_times,
    parse_time,
    read_each,
    require_few_texts,
    within_limits,
)
from app.ingest.reading.json import annotations_in, labels_in, parse_envelope, sanitize, text_in
from app.ingest.sender import (
    Answer,
    Endpoint,
    Reading,
    Receipt,
    Refusal,
    Rejected,
    Request,
    Sender,
    SpoolReceipt,
    Unreadable,
)

# Alertmanager's setting `resolve_timeout`, for alerts without `endsAt`.
RESOLVE_TIMEOUT = timedelta(minutes=5)
READ_ONLY = (
    "Aftermath has no silences: alerts are recorded whether or not anyone is notified. Silence them in the "
    "Alertmanager that notifies, and plan maintenance with PUT /api/v1/maintenance/{name}."
)


def read(request: Request) -> Reading:
    """The signals in a request of a client of Alertmanager. Raises UnrecognizedBody."""
    message = parse_envelope(request.body, _LIST, expected=_EXPECTED, alert_level=2)
    if isinstance(message, Rejected):
        return Reading(rejected=(message,))
    received_at = request.received_at
    return read_each(message, lambda raw: _signal_in(raw, received_at), request.part)


def _signal_in(raw: bytes, received_at: datetime) -> Signal:
    """Raises Unreadable."""
    require_few_texts(raw)
    json, flags = sanitize(raw)
    alert = _alert_in(json)
    labels, annotations, link = alert.labels or {}, alert.annotations or {}, alert.link or ""
    if "" in labels.values():
        labels = {name: value for name, value in labels.items() if value}
    if not labels:
        raise Unreadable("no_identity", "the alert has no labels")
    fingerprint = fingerprint_of(labels)
    labels, annotations, link, too_much = within_limits(labels, annotations, link, json_bytes=len(json))
    started_at, odd_start = parse_time(alert.starts)
    ends_at, odd_end = parse_time(alert.ends)
    expires_at = received_at + RESOLVE_TIMEOUT if ends_at is None else ends_at
    status = Status.FIRING if expires_at > received_at else Status.RESOLVED
    started_at, ended_at, odd_times = normalize_times(status, started_at, ends_at, received_at)
    flags += too_much + odd_start + odd_end + odd_times
    return Signal(
        fingerprint=fingerprint,
        status=status,
        started_at=started_at,
        ended_at=ended_at,
        labels=labels,
        annotations=annotations,
        link=link,
        end_reason=None if ended_at is None else EndReason.RECOVERED,
        flags=tuple(dict.fromkeys(flags)) if flags else (),
        expires_at=expires_at if ended_at is None else None,
    )


class _Alert(msgspec.Struct, gc=False):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    starts: str | None = msgspec.field(default=None, name="startsAt")
    ends: str | None = msgspec.field(default=None, name="endsAt")
    link: str | None = msgspec.field(default=None, name="generatorURL")


class _LooseAlert(msgspec.Struct, gc=False):
    """An alert whose fields may hold anything."""

    labels: msgspec.Raw = NULL
    annotations: msgspec.Raw = NULL
    starts: msgspec.Raw = msgspec.field(default=NULL, name="startsAt")
    ends: msgspec.Raw = msgspec.field(default=NULL, name="endsAt")
    link: msgspec.Raw = msgspec.field(default=NULL, name="generatorURL")


class _List:
    """Decodes a body that is a list of alerts."""

    _decoder = msgspec.json.Decoder(list[msgspec.Raw])

    def decode(self, body: bytes) -> Message:
        return Message(alerts=self._decoder.decode(body))


_LIST = _List()
_ALERT = msgspec.json.Decoder(_Alert)
_LOOSE_ALERT = msgspec.json.Decoder(_LooseAlert)
_EXPECTED = "Expected a JSON list of alerts, as Prometheus sends it to Alertmanager."


def _alert_in(json: bytes) -> _Alert:
    try:
        return _ALERT.decode(json)
    except msgspec.ValidationError:
        pass
    try:
        loose = _LOOSE_ALERT.decode(json)
    except msgspec.ValidationError:
        raise Unreadable("not_an_object", "the alert is not a JSON object") from None
    return _Alert(
        labels=labels_in(loose.labels),
        annotations=annotations_in(loose.annotations),
        starts=text_in(loose.starts),
        ends=text_in(loose.ends),
        link=text_in(loose.link),
    )


# — answers, as Alertmanager's —


def answer(outcome: Receipt | SpoolReceipt, request: Request) -> Answer:
    """200, also for a body with alerts that went to quarantine: no client repairs them."""
    del outcome, request
    return Answer(200, b"{}")


def refuse(why: Refusal) -> Answer:
    """The reason as a JSON string."""
    return Answer(why.status, msgspec.json.encode(why.detail))


EXAMPLE = [
    {
        "labels": {"alertname": "HighLatency", "service": "checkout", "severity": "critical"},
        "annotations": {"summary": "p99 above 2 s"},
        "startsAt": "2026-08-20T10:00:15.123Z",
        "endsAt": "2026-08-20T10:04:15.123Z",
        "generatorURL": "http://prometheus:9090/graph",
    },
]

SENDER = Sender(
    kind="alertmanager-api",
    name="Prometheus",
    describes="Prometheus, vmalert, Thanos Ruler, Mimir, Loki, Grafana and amtool, as clients of Alertmanager's API, "
    "without an Alertmanager",
    read=read,
    example=EXAMPLE,
    answer=answer,
    refuse=refuse,
    endpoints=(
        Endpoint("/api/v2/alerts", ("POST",), name="alerts"),
        Endpoint("/am/{token}/api/v2/alerts", ("POST",), name="alerts with token"),
        Endpoint("/webhooks/alertmanager-api"),
        Endpoint("/webhooks/alertmanager-api/{token}"),
    ),
)
