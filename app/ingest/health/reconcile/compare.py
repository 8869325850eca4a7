"""Compares the alerts that Alertmanagers list with the open alerts stored here.

Pure. A listed alert is a fact like a delivered one: it is firing. A single absence proves nothing: a peer keeps its
alerts in memory, gets them back only when Prometheus sends them again, and does not share them with other peers. So an
alert is considered ended only after several conclusive polls since it was last delivered or listed. Such an end is
inferred: any later report that the alert is firing voids it, including a delivery that arrived meanwhile.

An end that the source itself reported is believed against a list that is behind, but not against all of them for long:
if every peer that answers lists the alert as active in two conclusive polls after the end was last reported, the end is
void.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from msgspec.structs import replace

from app.incidents.grouping.batch import LAST_SEEN_PRECISION
from app.incidents.grouping.law.episode import NOT_BY_SOURCE, minute
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
    expires_at: datetime | None = None

    def ended(self, reason: EndReason, at: datetime | None = None) -> Signal:
        """An inferred end, by default at the time of the last report."""
        return Signal(
            fingerprint=self.fingerprint,
            status=Status.RESOLVED,
            started_at=self.started_at,
            ended_at=max(at or self.last_seen_at, self.started_at),
            labels=self.labels,
            end_reason=reason,
            alert_class=self.alert_class,
        )


@dataclass(frozen=True, slots=True)
class ListedAlert:
    """An alert in the list of a peer. `active`: neither silenced nor inhibited, so its webhook is sent. `silenced_by`
    has the ids of silences.
    """

    signal: Signal
    active: bool
    receivers: frozenset[str]
    silenced_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PeerSilence:
    """A silence of a peer, as its author wrote it."""

    by: str
    comment: str
    matchers: str
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class PeerState:
    """The response of one peer to a poll. `up_since` is converted to the local clock."""

    url: str
    version: str
    cluster: str
    up_since: datetime
    listed: Sequence[ListedAlert]
    silences: int  # active ones
    silenced_with: Mapping[str, PeerSilence] = field(default_factory=dict)  # those that suppress a listed alert, by id


@dataclass(frozen=True, slots=True)
class ReconcileSettings:
    absences: int
    grace: timedelta
    receiver: str | None  # None: any


Episode = tuple[str, datetime]  # fingerprint, and start in whole milliseconds


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """A listed alert as it is stored; the start is exact."""

    started_at: datetime
    end_reason: EndReason | None
    key_id: UUID

    @property
    def by_source(self) -> bool:
        """Whether its source reported its end. Any other end is void, or shown as doubtful, once one peer lists it."""
        return self.end_reason is not None and self.end_reason not in NOT_BY_SOURCE


@dataclass(frozen=True, slots=True)
class Contradicted:
    """The alerts that all peers listed as active in the conclusive poll `at`, although their source has ended them."""

    at: datetime
    episodes: AbstractSet[Episode] = frozenset()


@dataclass(slots=True)
class Difference:
    """Signals to apply: listed and known here, listed but never delivered, open here but no longer listed.

    `contradicted` is for the next poll; None if this poll is not conclusive.
    """

    present: list[Signal] = field(default_factory=list)
    missed: list[Signal] = field(default_factory=list)
    gone: list[Signal] = field(default_factory=list)
    contradicted: Contradicted | None = None


def is_conclusive(states: Sequence[PeerState], settings: ReconcileSettings, at: datetime) -> bool:
    """Whether an alert missing from this poll counts as not firing. Peers that did not answer are ignored."""
    return bool(states) and all(state.cluster in _STEADY and at - state.up_since >= settings.grace for state in states)


def compare(
    open_alerts: Sequence[OpenAlert],
    stored: Mapping[Episode, StoredAlert],
    listed_by: Sequence[Sequence[ListedAlert]],
    conclusive: Sequence[datetime],
    settings: ReconcileSettings,
    at: datetime,
    before: Contradicted | None = None,
) -> Difference:
    """The difference between the alerts listed by each peer in the poll that began `at` and the stored alerts.

    `stored` has each listed alert that is stored. `conclusive` has the times of the conclusive polls, oldest first; the
    last one is `at` if this poll is conclusive. `before` is that of the conclusive poll before.
    """
    found = Difference()
    listed = [one for of_peer in listed_by for one in of_peer]
    firing = {one.signal.fingerprint: one.signal for one in listed}
    _compare_open(found, open_alerts, firing, conclusive, settings, at)
    open_here = {alert.fingerprint for alert in open_alerts}
    for one in listed:
        episode = episode_of(one.signal)
        if episode is None or one.signal.fingerprint in open_here:
            continue
        if ended := stored.get(episode):
            if not ended.by_source:
                found.present.append(replace(one.signal, started_at=ended.started_at))
        elif _was_missed(one, episode[1], settings, at):
            found.missed.append(one.signal)
    if conclusive[-1:] == [at]:
        contradicting = _contradicting(listed_by, stored, open_here)
        found.contradicted = Contradicted(at, contradicting.keys())
        found.present += _dated(contradicting, before)
    return found


def _dated(contradicting: Mapping[Episode, Signal], before: Contradicted | None) -> Iterator[Signal]:
    """Reports that it fires; of what was contradicted before, since then."""
    for episode, signal in contradicting.items():
        yield replace(signal, listed_since=minute(before.at)) if before and episode in before.episodes else signal


def _compare_open(
    found: Difference,
    open_alerts: Sequence[OpenAlert],
    firing: Mapping[str, Signal],
    conclusive: Sequence[datetime],
    settings: ReconcileSettings,
    at: datetime,
) -> None:
    for alert in open_alerts:
        # Starts may differ: peers restart, or get the alert from different Prometheus servers.
        if signal := firing.get(alert.fingerprint):
            if at - alert.last_seen_at >= LAST_SEEN_PRECISION:
                found.present.append(replace(signal, started_at=alert.started_at))
        elif _is_gone(alert, conclusive, settings, at):
            found.gone.append(alert.ended(EndReason.RECONCILED))


def _contradicting(
    listed_by: Sequence[Sequence[ListedAlert]], stored: Mapping[Episode, StoredAlert], open_here: AbstractSet[str]
) -> Mapping[Episode, Signal]:
    """The alerts that every peer lists as active although their source has ended them."""
    first, *others = [
        {episode: one.signal for one in of_peer if one.active and (episode := episode_of(one.signal))}
        for of_peer in listed_by
    ]
    return {
        episode: replace(signal, started_at=stored[episode].started_at)
        for episode, signal in first.items()
        if all(episode in other for other in others)
        and episode in stored
        and stored[episode].by_source
        and signal.fingerprint not in open_here
    }


def _is_gone(alert: OpenAlert, conclusive: Sequence[datetime], settings: ReconcileSettings, at: datetime) -> bool:
    if len(conclusive) < settings.absences or conclusive[-1] != at:
        return False
    # A poll that listed the alert has updated `last_seen_at`, except for repeats within the precision of that time.
    return alert.last_seen_at + LAST_SEEN_PRECISION <= conclusive[-settings.absences]


def _was_missed(one: ListedAlert, started_at: datetime, settings: ReconcileSettings, at: datetime) -> bool:
    """Applies only after the grace period, because Alertmanager delays new alerts to group them."""
    ours = settings.receiver is None or settings.receiver in one.receivers
    return one.active and ours and at - started_at >= settings.grace


def episodes(listed: Iterable[ListedAlert]) -> list[Episode]:
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
