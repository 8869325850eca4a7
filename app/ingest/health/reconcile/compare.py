"""Compares the alerts that Alertmanagers list with the open alerts stored here.

Pure. A listed alert is a fact like a delivered one: it is firing. A single absence proves nothing: a peer keeps its
alerts in memory, gets them back only when Prometheus sends them again, and does not share them with other peers. So an
alert is considered ended only after several conclusive polls since it was last delivered or listed. Such an end is
inferred: any later report that the alert is firing voids it, including a delivery that arrived meanwhile.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from msgspec.structs import replace

from app.incidents.grouping.batch import LAST_SEEN_PRECISION
from app.incidents.grouping.signal import AlertClass, EndReason, Signal, Status

_STEADY = frozenset({"ready", "disabled"})  # states of a cluster; `disabled` is a single peer


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert without an end, as its source reported it."""

    source_id: int
    source: str
    fingerprint: str
    started_at: datetime
    last_seen_at: datetime
    labels: Mapping[str, str]
    alert_class: AlertClass

    def ended(self, reason: EndReason) -> Signal:
        """An inferred end, at the time of the last report."""
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
    """An alert in the list of a peer. `active`: neither silenced nor inhibited, so its webhook is sent."""

    signal: Signal
    active: bool
    receivers: frozenset[str]


@dataclass(frozen=True, slots=True)
class PeerState:
    """The response of one peer to a poll. `up_since` is converted to the local clock."""

    url: str
    version: str
    cluster: str
    up_since: datetime
    listed: Sequence[Listed]
    silences: int  # active ones


@dataclass(frozen=True, slots=True)
class Settings:
    absences: int
    grace: timedelta
    receiver: str | None  # None: any


Episode = tuple[str, datetime]  # fingerprint, and start in whole milliseconds


@dataclass(frozen=True, slots=True)
class Difference:
    """Signals to apply: listed and known here, listed but never delivered, open here but no longer listed."""

    present: list[Signal] = field(default_factory=list)
    missed: list[Signal] = field(default_factory=list)
    gone: list[Signal] = field(default_factory=list)


def is_conclusive(states: Sequence[PeerState], settings: Settings, at: datetime) -> bool:
    """Whether an alert missing from this poll counts as not firing. Peers that did not answer are ignored."""
    return bool(states) and all(state.cluster in _STEADY and at - state.up_since >= settings.grace for state in states)


def compare(
    open_alerts: Sequence[OpenAlert],
    starts: Mapping[Episode, datetime],
    listed: Sequence[Listed],
    conclusive: Sequence[datetime],
    settings: Settings,
    at: datetime,
) -> Difference:
    """The difference between the alerts listed by all peers in the poll that began `at` and the stored alerts.

    `starts` has the exact start of each listed alert that is stored. `conclusive` has the times of the conclusive
    polls, oldest first; the last one is `at` if this poll is conclusive.
    """
    found = Difference()
    firing = {one.signal.fingerprint: one.signal for one in listed}
    for alert in open_alerts:
        # Starts may differ: peers restart, or get the alert from different Prometheus servers.
        if signal := firing.get(alert.fingerprint):
            if at - alert.last_seen_at >= LAST_SEEN_PRECISION:
                found.present.append(replace(signal, started_at=alert.started_at))
        elif _is_gone(alert, conclusive, settings, at):
            found.gone.append(alert.ended(EndReason.RECONCILED))
    open_here = {alert.fingerprint for alert in open_alerts}
    for one in listed:
        episode = episode_of(one.signal)
        if episode is None or one.signal.fingerprint in open_here:
            continue
        if episode in starts:
            # Stored as ended. This report voids an inferred end, but not one by its source or by a person.
            found.present.append(replace(one.signal, started_at=starts[episode]))
        elif _was_missed(one, episode[1], settings, at):
            found.missed.append(one.signal)
    return found


def _is_gone(alert: OpenAlert, conclusive: Sequence[datetime], settings: Settings, at: datetime) -> bool:
    if len(conclusive) < settings.absences or conclusive[-1] != at:
        return False
    # A poll that listed the alert has updated `last_seen_at`, except for repeats within the precision of that time.
    return alert.last_seen_at + LAST_SEEN_PRECISION <= conclusive[-settings.absences]


def _was_missed(one: Listed, started_at: datetime, settings: Settings, at: datetime) -> bool:
    """Applies only after the grace period, because Alertmanager delays new alerts to group them."""
    ours = settings.receiver is None or settings.receiver in one.receivers
    return one.active and ours and at - started_at >= settings.grace


def episodes(listed: Iterable[Listed]) -> list[Episode]:
    """Each once, in order."""
    return sorted({episode for one in listed if (episode := episode_of(one.signal))})


def episode_of(signal: Signal) -> Episode | None:
    """None for a signal without a start."""
    if signal.started_at is None:
        return None
    return signal.fingerprint, to_the_millisecond(signal.started_at)


def to_the_millisecond(time: datetime) -> datetime:
    """Alertmanager's API truncates times to milliseconds; its webhook sends them in full."""
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
