"""Applies the rules, and the settings of its source, to each signal. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, get_args

from msgspec.structs import replace

from app.incidents.grouping.batch import Incoming
from app.incidents.grouping.law.episode import INFERRED, REFIRE, minute
from app.incidents.grouping.rule import Decision, OptionalRecovery, Rules
from app.incidents.grouping.signal import EndReason, Signal, fingerprint_of
from app.ingest.sender import QUERY_ERROR

SEVERITY_UNRECOGNIZED = "severity_unrecognized"  # the flag of an alert, and the tally of the words


class Loaded(NamedTuple):
    """The rules, and settings of sources where they are not the default. Changes of either change the version."""

    version: int
    rules: Rules
    recoveries: Mapping[int, frozenset[str]]  # by the id of the source
    refire: Mapping[int, timedelta]
    correlation_label: Mapping[int, str]


def incoming_of(
    loaded: Loaded,
    signals: Sequence[Signal],
    source_id: int,
    received_at: datetime,
    *,
    reported_at: datetime | None,
) -> list[Incoming]:
    """`reported_at` in whole minutes; None if the signals are history, and each counts as reported when it happened."""
    decide, recoveries = loaded.rules.decide, loaded.recoveries.get(source_id, _NONE)
    refire, label = loaded.refire.get(source_id, REFIRE), loaded.correlation_label.get(source_id)
    incoming: list[Incoming] = []
    for read in signals:
        decision = decide(read.labels, read.alert_class)
        signal = _decided(read, decision, recoveries, label)
        at = reported_at or minute(signal.ended_at or signal.started_at or received_at)
        incoming.append(Incoming(signal, source_id, decision, received_at, at, refire))
    return incoming


def _decided(signal: Signal, decision: Decision, recoveries: frozenset[str], correlation_label: str | None) -> Signal:
    if signal.end_reason not in INFERRED:  # an inferred end has the fingerprint of its alert
        signal = _identified(signal, decision)
    # A query that fails does not show that all is well.
    if (
        signal.end_reason in _MAY_BE_RECOVERIES
        and signal.end_reason in decision.recoveries | recoveries
        and QUERY_ERROR not in signal.flags
    ):
        signal = replace(signal, end_reason=EndReason.RECOVERED)
    if correlation_label and (correlation := signal.labels.get(correlation_label)):
        signal = replace(signal, correlation=correlation)
    if decision.unrecognized is not None:
        signal = replace(signal, flags=(*signal.flags, SEVERITY_UNRECOGNIZED))
    return signal


def _identified(signal: Signal, decision: Decision) -> Signal:
    if decision.ignored_labels and (identity := decision.identity(signal.labels)) is not signal.labels:
        signal = replace(signal, fingerprint=fingerprint_of(identity))
    if decision.heartbeat or not decision.opens_incidents:
        signal = replace(signal, test=True)  # it opens nothing
    return signal


_MAY_BE_RECOVERIES = frozenset(get_args(OptionalRecovery))
_NONE: frozenset[str] = frozenset()
