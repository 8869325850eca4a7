"""Grafana's webhook: unified alerting (version "1"; "4" from an imported Alertmanager) and the legacy dashboard alerts.

Unified alerting uses Alertmanager's format; this file handles the differences. When Grafana sends a resolve again, it
may have `startsAt == endsAt`. A rule that is paused, edited or deleted is sent as resolved although nothing recovered.
Missing data and query errors are alerts of their own. The fingerprint covers labels that are not sent.
"""

import hmac
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from app.base.errors import UnrecognizedBody
from app.incidents.grouping.signal import AlertClass, EndReason, Signal, Status, fingerprint_of
from app.ingest.reading.alerts import NULL, Message, read_each, require_few_texts, within_limits
from app.ingest.reading.json import labels_in, parse_envelope, sanitize, text_in
from app.ingest.sender import QUERY_ERROR, Reading, Rejected, Request, Sender, Unreadable
from app.ingest.senders import alertmanager

SIGNATURE_HEADER = "X-Grafana-Alerting-Signature"
SIGNATURE_TOLERANCE = timedelta(minutes=5)


def read(request: Request) -> Reading:
    """The signals in a webhook of Grafana. Raises UnrecognizedBody."""
    message: _Unified | _Rule | Rejected
    body, received_at = request.body, request.received_at
    try:
        message = parse_envelope(body, _UNIFIED, expected=_EXPECTED)
    except UnrecognizedBody:
        if b'"ruleId"' not in body:
            raise
        message = parse_envelope(body, _LEGACY, expected=_EXPECTED)
    if isinstance(message, Rejected):
        return Reading(rejected=(message,))
    if not isinstance(message, _Rule):
        signal_in, correlation = alertmanager.signal_in, alertmanager.correlation_in(message)
        reading = read_each(
            message, lambda raw: _as_grafana_means(signal_in(raw, received_at, correlation)), request.part
        )
        return replace(reading, sender=_sender_in(message))
    try:
        return Reading(_signals_of(message, received_at))
    except Unreadable as bad:
        return Reading(rejected=(Rejected(bad.reason, bad.detail),))


def recognizes(message: Mapping[str, Any]) -> bool:
    """Whether it is a webhook of Grafana, unified or legacy."""
    return (isinstance(message.get("alerts"), list) and "orgId" in message) or {"ruleId", "state"} <= message.keys()


def verify(
    request: Request, *, secret: str, now: datetime, header: str | None = None, timestamp_header: str | None = None
) -> bool:
    """Whether the body is signed with `secret`: SHA-256 HMAC in hex, without a prefix.

    Where Grafana is set to send a `timestamp_header`, its Unix seconds are signed too and must be close to `now`.
    """
    signature = request.headers.get((header or SIGNATURE_HEADER).lower(), "")
    signed = request.body
    if timestamp_header is not None:
        timestamp = request.headers.get(timestamp_header.lower(), "")
        if not _is_close(timestamp, now):
            return False
        signed = timestamp.encode(errors="replace") + b":" + signed
    expected = hmac.new(secret.encode(), signed, "sha256").hexdigest()
    # Compared as bytes, because non-ASCII text would raise. With an empty secret, anyone could sign.
    return hmac.compare_digest(expected.encode(), signature.encode(errors="replace")) and bool(secret)


class _Rule(Message, kw_only=True, gc=False, rename="camel"):
    """A legacy notification: one rule and its state, without times or a fingerprint."""

    alerts: list[msgspec.Raw] | None = None
    rule_id: msgspec.Raw
    org_id: msgspec.Raw = NULL
    rule_name: msgspec.Raw = NULL
    rule_url: msgspec.Raw = NULL
    state: msgspec.Raw = NULL
    tags: msgspec.Raw = NULL
    title: msgspec.Raw = NULL
    message: msgspec.Raw = NULL
    dashboard_id: msgspec.Raw = NULL
    panel_id: msgspec.Raw = NULL


class _Unified(Message, kw_only=True, gc=False):
    org_id: msgspec.Raw = msgspec.field(default=NULL, name="orgId")


_UNIFIED = msgspec.json.Decoder(_Unified)
_LEGACY = msgspec.json.Decoder(_Rule)
_EXPECTED = (
    "Expected a JSON object with a list `alerts`, or with a `ruleId`, as Grafana's webhook contact point sends it. "
    "Leave the contact point's custom payload empty."
)
_MONITORING = frozenset({"DatasourceNoData", "DatasourceError"})
_REASON = "grafana_state_reason"
_END_REASONS = {
    "Paused": EndReason.RULE_PAUSED,
    "Updated": EndReason.RULE_UPDATED,
    "RuleDeleted": EndReason.RULE_DELETED,
    "MissingSeries": EndReason.MISSING_SERIES,
    "NoData": EndReason.NO_DATA,
    "Error": EndReason.NO_DATA,
}
_FIRING_FLAGS = {"NoData": "no_data", "Error": QUERY_ERROR}
# For each legacy state, how it ends the rule's two series: the problem, and missing data. None: the series is firing.
_LEGACY_STATES: dict[str | None, tuple[EndReason | None, EndReason | None]] = {
    "alerting": (None, EndReason.RECOVERED),
    "ok": (EndReason.RECOVERED, EndReason.RECOVERED),
    "paused": (EndReason.RULE_PAUSED, EndReason.RULE_PAUSED),
    "no_data": (EndReason.NO_DATA, None),
}


def _sender_in(message: _Unified) -> str | None:
    """An organization has alerts of its own, but not an address."""
    url, org_id = alertmanager.sender_in(message), bytes(message.org_id)
    return f"{url} (organization {org_id.decode()})" if url and org_id.isdigit() and len(org_id) < 20 else url


def _as_grafana_means(signal: Signal) -> Signal:
    labels = signal.labels
    alertname = labels.get("alertname")
    if alertname in _MONITORING:
        signal = replace(signal, alert_class=AlertClass.MONITORING)
    if alertname == "TestAlert" and labels.get("instance") == "Grafana":
        signal = replace(signal, test=True)
    if _REASON in signal.annotations:
        signal = _with_reason(signal, signal.annotations[_REASON].split(", "))
    # The end is right, the start is wrong (grafana#106065): end the newest alert that began before it.
    if signal.ended_at is not None and signal.started_at == signal.ended_at:
        signal = replace(signal, started_at=None, flags=(*signal.flags, "start_equals_end"))
    return signal


def _with_reason(signal: Signal, reasons: list[str]) -> Signal:
    """The signal with the first known one of Grafana's `reasons`; `KeepLast` only explains how it got its state."""
    if signal.status is Status.RESOLVED:
        known = [reason for reason in reasons if reason in _END_REASONS]
        if not known:
            return signal
        flags = (*signal.flags, QUERY_ERROR) if known[0] == "Error" else signal.flags
        return replace(signal, end_reason=_END_REASONS[known[0]], flags=flags)
    # Grafana is configured to treat this as alerting, so it counts for the service.
    flags = tuple(_FIRING_FLAGS[reason] for reason in reasons if reason in _FIRING_FLAGS)
    return replace(signal, flags=signal.flags + flags) if signal.alert_class is AlertClass.SERVICE else signal


def _signals_of(rule: _Rule, received_at: datetime) -> tuple[Signal, ...]:
    """The signals in a legacy notification. Raises Unreadable.

    A rule has two series, one for its problem and one for missing data, so that missing data is never downtime of the
    service. Every state gives a signal for both, so that one ends when the other begins.
    """
    sent = msgspec.json.encode(rule)
    require_few_texts(sent)
    clean, flags = sanitize(sent)
    rule = _LEGACY.decode(clean)
    state = text_in(rule.state)
    if state == "pending":
        return ()
    if state not in _LEGACY_STATES:
        raise Unreadable("unknown_status", "the state must be alerting, ok, paused, pending or no_data")

    name, link = text_in(rule.rule_name), text_in(rule.rule_url) or ""
    identity = _identity(text_in(rule.org_id) or "", text_in(rule.rule_id) or "", link)
    labels = {**labels_in(rule.tags), "alertname": name or ""}
    texts = {
        "title": rule.title,
        "message": rule.message,
        "ruleId": rule.rule_id,
        "dashboardId": rule.dashboard_id,
        "panelId": rule.panel_id,
    }
    kept_labels, annotations, link, too_much = within_limits(
        {name: value for name, value in labels.items() if value},
        {name: text for name, value in texts.items() if (text := text_in(value))},
        link,
        json_bytes=len(clean),
    )
    problem = Signal(
        fingerprint=fingerprint_of(identity),
        status=Status.FIRING,
        started_at=None,
        labels=kept_labels,
        annotations=annotations,
        link=link,
        flags=flags + too_much,
        test=name == "Test notification",  # what Grafana's "Send test" calls its rule
    )
    no_data = replace(
        problem, fingerprint=fingerprint_of(identity | {"state": "no_data"}), alert_class=AlertClass.MONITORING
    )
    problem_ends, no_data_ends = _LEGACY_STATES[state]
    return _ended(problem, problem_ends, received_at), _ended(no_data, no_data_ends, received_at)


def _identity(org_id: str, rule_id: str, rule_url: str) -> dict[str, str]:
    if rule_id:
        return {"orgId": org_id, "ruleId": rule_id}
    if rule_url:
        return {"ruleUrl": rule_url}
    raise Unreadable("no_identity", "the rule has neither an id nor a URL")


def _ended(firing: Signal, reason: EndReason | None, received_at: datetime) -> Signal:
    """Legacy notifications have no times, so the time of arrival is the end."""
    if reason is None:
        return firing
    flags = (*firing.flags, "ends_unknown")
    return replace(firing, status=Status.RESOLVED, ended_at=received_at, end_reason=reason, flags=flags)


def _is_close(timestamp: str, now: datetime) -> bool:
    try:
        # With integers, because a timestamp of a thousand digits would overflow a float.
        return abs(int(timestamp) - int(now.timestamp())) <= SIGNATURE_TOLERANCE.total_seconds()
    except ValueError:
        return False


SENDER = Sender(
    kind="grafana",
    name="Grafana",
    describes="Grafana alerting, unified and legacy",
    read=read,
    example=alertmanager.EXAMPLE | {"version": "1", "orgId": 1, "state": "alerting", "title": "[FIRING:1] HighLatency"},
    verify=verify,
    recognizes=recognizes,
)
