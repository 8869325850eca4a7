"""Alertmanager's webhook (0.19 to 0.34), and tools with the same format: Mimir, Amazon Managed Prometheus and others.

Only an alert's own `status` counts, not the group's: a firing group lists resolved alerts too. `endsAt` is in year 1
while firing. `version` stayed "4" while fields were added. Unknown fields are ignored.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec
from msgspec.structs import replace

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
from app.ingest.sender import Reading, Rejected, Request, Sender, Unreadable

FINGERPRINT_LENGTH = 256
_LONGEST_ADDRESS = 300  # bytes
_LONGEST_CACHED_KEY = 500  # bytes
_CREDENTIALS = re.compile("//[^/@]*@")


def read(request: Request) -> Reading:
    """The signals in a webhook of Alertmanager. Raises UnrecognizedBody."""
    message = parse_envelope(request.body, _MESSAGE, expected=_EXPECTED)
    if isinstance(message, Rejected):
        return Reading(rejected=(message,))
    received_at, correlation = request.received_at, correlation_in(message)
    reading = read_each(message, lambda raw: signal_in(raw, received_at, correlation), request.part)
    return replace(reading, sender=sender_in(message))


def recognizes(message: Mapping[str, Any]) -> bool:
    """Whether it is a webhook of Alertmanager; one of Grafana names its organization."""
    return isinstance(message.get("alerts"), list) and "receiver" in message and "orgId" not in message


def sender_in(message: Message) -> str | None:
    """The `externalURL` of the message without credentials, None if there is none."""
    raw = bytes(message.external_url)
    return _sender_at(raw) if raw.startswith(b'"') and len(raw) <= _LONGEST_ADDRESS else None


@lru_cache(64)
def _sender_at(raw: bytes) -> str | None:
    url, _ = sanitize(raw)
    return _CREDENTIALS.sub("//", text_in(msgspec.Raw(url)) or "", count=1) or None


def correlation_in(message: Message) -> str:
    """The key of the group as PagerDuty, Opsgenie and Splunk On-Call get it, if the same route, or one with
    the same matchers and `group_by`, sends it there: the SHA-256 of `groupKey` in hex. Empty without a `groupKey`.
    """
    raw = bytes(message.group_key)
    if not raw.startswith(b'"'):
        return ""
    return _cached_correlation(raw) if len(raw) <= _LONGEST_CACHED_KEY else _correlation_of(raw)


def _correlation_of(raw: bytes) -> str:
    key, _ = sanitize(raw)
    return sha256((text_in(msgspec.Raw(key)) or "").encode()).hexdigest()


_cached_correlation = lru_cache(4096)(_correlation_of)  # each group is sent again and again


def signal_in(raw: bytes, received_at: datetime, correlation: str = "") -> Signal:
    """The signal in one alert of Alertmanager's shape. Raises Unreadable."""
    require_few_texts(raw)
    json, flags = sanitize(raw)
    alert = _alert_in(json)
    status = _STATUS.get(alert.status)
    if status is None:
        raise Unreadable("unknown_status", "the status is neither firing nor resolved")

    labels, annotations, link = alert.labels or {}, alert.annotations or {}, alert.link or ""
    if alert.dashboard or alert.panel:  # Grafana's
        named = {"dashboardURL": alert.dashboard, "panelURL": alert.panel}
        annotations = {name: url for name, url in named.items() if url} | annotations
    if "" in labels.values():
        # For Alertmanager an empty label does not exist; its fingerprints leave it out.
        labels = {name: value for name, value in labels.items() if value}
    # Before truncation, so that two alerts that differ only beyond a limit stay distinct.
    fingerprint = _fingerprint(alert.fingerprint, labels)
    labels, annotations, link, too_much = within_limits(labels, annotations, link, json_bytes=len(json))
    started_at, odd_start = parse_time(alert.starts)
    ended_at, odd_end = parse_time(alert.ends)
    started_at, ended_at, odd_times = normalize_times(status, started_at, ended_at, received_at)
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
        correlation=correlation,
    )


class _Alert(msgspec.Struct, gc=False):
    status: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    starts: str | None = msgspec.field(default=None, name="startsAt")
    ends: str | None = msgspec.field(default=None, name="endsAt")
    link: str | None = msgspec.field(default=None, name="generatorURL")
    dashboard: str | None = msgspec.field(default=None, name="dashboardURL")
    panel: str | None = msgspec.field(default=None, name="panelURL")
    fingerprint: str | None = None


class _LooseAlert(msgspec.Struct, gc=False):
    """An alert whose fields may hold anything."""

    status: msgspec.Raw = NULL
    labels: msgspec.Raw = NULL
    annotations: msgspec.Raw = NULL
    starts: msgspec.Raw = msgspec.field(default=NULL, name="startsAt")
    ends: msgspec.Raw = msgspec.field(default=NULL, name="endsAt")
    link: msgspec.Raw = msgspec.field(default=NULL, name="generatorURL")
    dashboard: msgspec.Raw = msgspec.field(default=NULL, name="dashboardURL")
    panel: msgspec.Raw = msgspec.field(default=NULL, name="panelURL")
    fingerprint: msgspec.Raw = NULL


_MESSAGE = msgspec.json.Decoder(Message)
_ALERT = msgspec.json.Decoder(_Alert)
_LOOSE_ALERT = msgspec.json.Decoder(_LooseAlert)
_STATUS: dict[str | None, Status] = {"firing": Status.FIRING, "resolved": Status.RESOLVED}
_EXPECTED = (
    "Expected a JSON object with a list `alerts`, as Alertmanager sends it. "
    "Set the `url` of a webhook_config to this address and omit its `payload` setting."
)


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
        status=text_in(loose.status),
        labels=labels_in(loose.labels),
        annotations=annotations_in(loose.annotations),
        starts=text_in(loose.starts),
        ends=text_in(loose.ends),
        link=text_in(loose.link),
        dashboard=text_in(loose.dashboard),
        panel=text_in(loose.panel),
        fingerprint=text_in(loose.fingerprint),
    )


def _fingerprint(sent: str | None, labels: dict[str, str]) -> str:
    if not sent:  # before 0.19, and from some tools with the same format
        if not labels:
            raise Unreadable("no_identity", "the alert has neither a fingerprint nor labels")
        return fingerprint_of(labels)
    # Too long for an index in PostgreSQL. A hash, unlike a prefix, keeps it distinct.
    return sent if len(sent) <= FINGERPRINT_LENGTH else sha256(sent.encode()).hexdigest()


EXAMPLE = {
    "version": "4",
    "groupKey": '{}:{alertname="HighLatency"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "aftermath",
    "groupLabels": {"alertname": "HighLatency"},
    "commonLabels": {"alertname": "HighLatency", "service": "checkout", "severity": "critical"},
    "commonAnnotations": {},
    "externalURL": "http://alertmanager:9093",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "HighLatency", "service": "checkout", "severity": "critical"},
            "annotations": {"summary": "p99 above 2 s"},
            "startsAt": "2026-08-20T10:00:15.123Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus:9090/graph",
            "fingerprint": "251096a51337be7d",
        }
    ],
}

SENDER = Sender(
    kind="alertmanager",
    name="Alertmanager",
    describes="Prometheus Alertmanager, and tools that send webhooks in its format",
    read=read,
    recognizes=recognizes,
    example=EXAMPLE,
)
