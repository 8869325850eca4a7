"""What an Alertmanager lists against what is known here: what is still there, what was missed, what has gone.

Pure. What is listed is a fact like one that was delivered: this alert fires. An absence is none: alerts live in the
memory of each peer, come back only when Prometheus sends them again, and are not shared between peers. So it takes
several polls that count, after the alert was last told of or listed, and then gives an inferred end: whoever tells of
the alert later, a delivery that came meanwhile included, makes it void.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec.structs import replace

from app.incidents.grouping.batch import LAST_SEEN_PRECISION
from app.incidents.grouping.signal import AlertClass, EndReason, Signal, Status

_STEADY = frozenset({"ready", "disabled"})  # states of a cluster; `disabled` is a peer alone


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert that has not ended, as it was told."""

    source_id: int
    source: str
    fingerprint: str
    started_at: datetime
    last_seen_at: datetime
    labels: Mapping[str, str]
    alert_class: AlertClass

    def ended(self, reason: EndReason) -> Signal:
        """Inferred: nobody has told of it since."""
        return Signal(
            fingerprint=self.fingerprint,
            status=Status.RESOLVED,
            started_at=self.started_at,
            ended_at=max(self.last_seen_at, self.started_at),
            labels=self.labels,
            end_reason=reason,
            alert_class=self.alert_class,
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """An alert as a peer lists it. `active`: neither silenced nor inhibited, so it would have been delivered."""

    signal: Signal
    active: bool
    receivers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one peer said. `up_since` is by our clock."""

    url: str
    version: str
    cluster: str
    up_since: datetime
    listed: Sequence[Listed]
    silences: int  # that are active


@dataclass(frozen=True, slots=True)
class Settings:
    absences: int
    grace: timedelta
    receiver: str | None  # None: any


Place = tuple[str, datetime]  # fingerprint, and start to the millisecond


@dataclass(frozen=True, slots=True)
class Found:
    """Signals to be applied."""

    present: list[Signal] = field(default_factory=list)
    missed: list[Signal] = field(default_factory=list)
    gone: list[Signal] = field(default_factory=list)


def counts(answers: Sequence[Answer], settings: Settings, at: datetime) -> bool:
    """Whether what is not listed in a poll does not fire. Peers that do not answer have no say."""
    return bool(answers) and all(
        answer.cluster in _STEADY and at - answer.up_since >= settings.grace for answer in answers
    )


def compare(
    open_alerts: Sequence[OpenAlert],
    starts: Mapping[Place, datetime],
    listed: Sequence[Listed],
    counted: Sequence[datetime],
    settings: Settings,
    at: datetime,
) -> Found:
    """Of a poll that began `at`.

    `starts` are those that are known here of what is listed, `listed` is what all peers list as the rules understand
    it, `counted` are the polls that count, in order; the last is this one if it does.
    """
    found = Found()
    there = {one.signal.fingerprint: one.signal for one in listed}
    for alert in open_alerts:
        # Whatever its start: peers that were told by different Prometheis, or restarted, may differ in it.
        if signal := there.get(alert.fingerprint):
            if at - alert.last_seen_at >= LAST_SEEN_PRECISION:
                found.present.append(replace(signal, started_at=alert.started_at))
        elif _is_gone(alert, counted, settings, at):
            found.gone.append(alert.ended(EndReason.RECONCILED))
    open_here = {alert.fingerprint for alert in open_alerts}
    for one in listed:
        place = place_of(one.signal)
        if place is None or one.signal.fingerprint in open_here:
            continue
        if place in starts:
            # It has ended here. Where that was inferred it has not; where its sender or a person said so, it has.
            found.present.append(replace(one.signal, started_at=starts[place]))
        elif _was_missed(one, place[1], settings, at):
            found.missed.append(one.signal)
    return found


def _is_gone(alert: OpenAlert, counted: Sequence[datetime], settings: Settings, at: datetime) -> bool:
    if len(counted) < settings.absences or counted[-1] != at:
        return False
    # Were it listed in one of these, it would have been noted. A repeat within the precision would not.
    return alert.last_seen_at + LAST_SEEN_PRECISION <= counted[-settings.absences]


def _was_missed(one: Listed, started_at: datetime, settings: Settings, at: datetime) -> bool:
    """Not before its sender had time to tell: it waits for its group."""
    ours = settings.receiver is None or settings.receiver in one.receivers
    return one.active and ours and at - started_at >= settings.grace


def place_of(signal: Signal) -> Place | None:
    """None for what has no start."""
    if signal.started_at is None:
        return None
    return signal.fingerprint, to_the_millisecond(signal.started_at)


def to_the_millisecond(moment: datetime) -> datetime:
    """As Alertmanager's API cuts what its webhook tells in full."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
