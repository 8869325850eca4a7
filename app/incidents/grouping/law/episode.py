"""The law of a series: when and why each of its alerts ended, as a function of the **set** of facts reported about it.

Pure: no clock, no I/O, no settings. Order, repetition and batching do not matter. An `Episode` summarizes the facts
about one start; `with_firing` and `with_end` add a fact, and `endings_of` derives the ends. Every fact has a report
time, when it was first received, in whole minutes (`minute`).

Evidence that an alert is firing can be later than its end: Alertmanager lets an alert expire, reports it as resolved,
and then reports it as firing with an unchanged start. Such an end is **void**. Which end is believed therefore depends
on facts that may still arrive, so an episode keeps a void end, and for each kind of end the latest report of any end of
that kind.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from app.incidents.grouping.signal import EndReason, Signal

REFIRE = timedelta(seconds=900)  # the default of `Source.refire_seconds`

RECOVERIES = frozenset({EndReason.RECOVERED, EndReason.MANUAL, EndReason.RECONCILED, EndReason.EXPIRED})
# Ends that neither a sender nor a person reported, but the absence of reports implies. A later report voids them.
INFERRED = frozenset({EndReason.RECONCILED, EndReason.TIMEOUT, EndReason.EXPIRED})
NOT_BY_SOURCE = INFERRED | {EndReason.SUPERSEDED, EndReason.MANUAL}
# Flags of ends that were replaced by the time of receipt.
GUESSED = frozenset({"ends_unknown", "ends_clamped"})

_ENDS_BEFORE_START, _EXPIRED = EndReason.ENDS_BEFORE_START, EndReason.EXPIRED  # looked up once: enum members are slow
_RANK = {reason: -place for place, reason in enumerate(EndReason)}  # higher is shown where ends are simultaneous


def minute(at: datetime) -> datetime:
    """The report time of a fact received at `at`."""
    return at.replace(second=0, microsecond=0)


class End(msgspec.Struct, frozen=True, gc=False):
    """When and why an alert ended."""

    at: datetime
    reason: EndReason


class ReportedEnd(msgspec.Struct, frozen=True, gc=False):
    """An end that a sender reported, and when any end of its kind was last reported."""

    at: datetime
    reason: EndReason
    reported_at: datetime


class Episode(msgspec.Struct, frozen=True, gc=False):
    """The facts about one start of a series.

    `fired_at` is the latest report that it fires, and `expires_at` what that report announced: the earliest, if several
    have the same report time, so that a sender that repeats it every second changes it once a minute. `real` is the
    latest end that names this start, `guessed` the earliest end for which the time of receipt stands in (a retry must
    not move it), `inferred` the latest one that the absence of reports implies. `manual_at` is that of a person, which
    counts as reported then. `listed_since` as in `Signal`.
    """

    started_at: datetime
    fired_at: datetime | None = None
    real: ReportedEnd | None = None
    guessed: ReportedEnd | None = None
    inferred: End | None = None
    manual_at: datetime | None = None
    listed_since: datetime | None = None
    expires_at: datetime | None = None


# — facts —


def with_firing(
    episode: Episode,
    reported_at: datetime,
    listed_since: datetime | None = None,
    expires_at: datetime | None = None,
) -> Episode:
    """The episode with one more report that it fires; the same object if that is nothing new."""
    if episode.fired_at is None or episode.fired_at < reported_at:
        episode = Episode(  # faster than `replace`, for every repeat
            episode.started_at,
            reported_at,
            episode.real,
            episode.guessed,
            episode.inferred,
            episode.manual_at,
            episode.listed_since,
            expires_at,
        )
    elif expires_at is not None and episode.fired_at == reported_at and _is_earlier(expires_at, episode.expires_at):
        episode = replace(episode, expires_at=expires_at)
    if listed_since is not None and (episode.listed_since is None or episode.listed_since < listed_since):
        episode = replace(episode, listed_since=listed_since)
    return episode


def _is_earlier(one: datetime, other: datetime | None) -> bool:
    return other is None or one < other


def with_end(episode: Episode, resolve: Signal, reported_at: datetime) -> Episode:
    """The episode with one more report that it has ended; the same object if that is nothing new."""
    assert resolve.ended_at is not None, "a resolve has an end"
    at, reason = resolve.ended_at, resolve.end_reason or EndReason.RECOVERED
    if reason in INFERRED:
        inferred = last(episode.inferred, End(max(at, episode.started_at), reason))
        return episode if inferred == episode.inferred else replace(episode, inferred=inferred)
    if at < episode.started_at:
        # Of the real ends every other one is preferred, because it is at least as late.
        real = _later(episode.real, ReportedEnd(episode.started_at, _ENDS_BEFORE_START, reported_at))
        return episode if real is episode.real else replace(episode, real=real)
    end = ReportedEnd(at, reason, reported_at)
    if resolve.flags and not GUESSED.isdisjoint(resolve.flags):
        guessed = earlier(episode.guessed, end)
        return episode if guessed is episode.guessed else replace(episode, guessed=guessed)
    real = _later(episode.real, end)
    return episode if real is episode.real else replace(episode, real=real)


def last(one: End | None, other: End | None) -> End | None:
    """The later end, whatever its reason."""
    if one is None or other is None:
        return one or other
    return other if (other.at, _RANK[other.reason]) > (one.at, _RANK[one.reason]) else one


def _later(known: ReportedEnd | None, end: ReportedEnd) -> ReportedEnd:
    """The later end, with the latest report of both."""
    if known is None:
        return end
    return _reported(end if (end.at, _RANK[end.reason]) > (known.at, _RANK[known.reason]) else known, known, end)


def earlier(known: ReportedEnd | None, end: ReportedEnd) -> ReportedEnd:
    """The earlier end, with the latest report of both."""
    if known is None:
        return end
    return _reported(end if (end.at, -_RANK[end.reason]) < (known.at, -_RANK[known.reason]) else known, known, end)


def _reported(believed: ReportedEnd, known: ReportedEnd, end: ReportedEnd) -> ReportedEnd:
    reported_at = max(known.reported_at, end.reported_at)
    return believed if believed.reported_at == reported_at else replace(believed, reported_at=reported_at)


# — ends —


class Ending(msgspec.Struct, frozen=True, gc=False):
    """How an episode ended; `end` is None while it is open.

    `reported_at` is the latest report of any end of it that is not void, None if there is none. `by_sender`: it ended
    for its senders too, or its end is inferred. `covered`: an earlier episode of the series reaches beyond this start,
    whether or not the end of that one is void.
    """

    end: End | None = None
    reported_at: datetime | None = None
    by_sender: bool = False
    covered: bool = False


OPEN = Ending()


def endings_of(
    episodes: Sequence[Episode], unmatched_resolves: Iterable[ReportedEnd] = (), *, refire: timedelta
) -> list[Ending]:
    """How each episode of a series ended. `episodes` is in order of start, and the first is not covered.

    An end is void if the episode was reported as firing `refire` or longer after any end of its kind was last reported,
    or has been listed as active since after that report. A void end is as if it had not been reported.

    The latest real end wins, of this episode or of an earlier one that covers it: a start within another episode
    belongs to that episode (the clock of a peer differs by milliseconds, or a retry is stale) and must not stay open
    forever. Then a guess; it covers no other start. Then the earliest resolve that names no start, if this is the
    newest episode that started at or before it: it closes an alert but does not extend it, and if it is void, it does
    not close an older one. Then an end before the start.

    Without an end from its senders, an episode ends at its inferred end, unless it was reported later, or that end is
    an expiry and its last report announced a later time. If the series starts again, the episode ends at its last
    report, at the latest when the next one starts. A person's resolve is never void, and ends it then, unless it had
    already ended.
    """
    unmatched = _by_episode(episodes, unmatched_resolves)
    endings: list[Ending] = []
    covers: list[ReportedEnd] = []
    reach: datetime | None = None
    for index, episode in enumerate(episodes):
        started_at = episode.started_at
        covers = [cover for cover in covers if cover.at > started_at]
        next_started_at = episodes[index + 1].started_at if index + 1 < len(episodes) else None
        covered = reach is not None and reach > started_at
        endings.append(_ending(episode, covers, unmatched.get(index, ()), next_started_at, refire, covered=covered))
        real = episode.real
        if real is not None and real.reason is not _ENDS_BEFORE_START:
            reach = real.at if reach is None else max(reach, real.at)
            if not _is_void(episode, real, refire):
                covers.append(real)
    return endings


def ending_of(episode: Episode, *, refire: timedelta) -> Ending:
    """`endings_of` for an episode alone in its series, the most common case."""
    if episode.guessed is None and episode.inferred is None and episode.manual_at is None:
        real = episode.real
        if real is None or _is_void(episode, real, refire):
            return OPEN
        return Ending(End(real.at, real.reason), real.reported_at, by_sender=True)
    return _ending(episode, (), (), None, refire)


def _by_episode(episodes: Sequence[Episode], unmatched: Iterable[ReportedEnd]) -> dict[int, list[ReportedEnd]]:
    """The unmatched resolves by the index of the newest episode that started at or before them."""
    found: dict[int, list[ReportedEnd]] = {}
    starts = [episode.started_at for episode in episodes]
    for resolve in unmatched:
        newest = bisect_right(starts, resolve.at) - 1
        if newest >= 0:
            found.setdefault(newest, []).append(resolve)
    return found


def _ending(
    episode: Episode,
    covers: Sequence[ReportedEnd],
    unmatched: Sequence[ReportedEnd],
    next_started_at: datetime | None,
    refire: timedelta,
    *,
    covered: bool = False,
) -> Ending:
    believed: ReportedEnd | None = None
    reports: list[datetime] = []
    real = episode.real
    before_start = real is not None and real.reason is _ENDS_BEFORE_START
    for kind in (
        covers if real is None or before_start else (*covers, real),
        () if episode.guessed is None else (episode.guessed,),
        unmatched,
        () if real is None or not before_start else (real,),
    ):
        ends = [end for end in kind if not _is_void(episode, end, refire)] if kind else ()
        if not ends:
            continue
        reports += [end.reported_at for end in ends]
        if believed is None:
            believed = ends[0]
            for other in ends[1:]:
                believed = earlier(believed, other) if kind is unmatched else _later(believed, other)
    end = _unreported_end(episode, next_started_at) if believed is None else End(believed.at, believed.reason)
    by_sender = end is not None
    if episode.manual_at is not None:
        reports.append(minute(episode.manual_at))
        if end is None or episode.manual_at < end.at:
            end = End(episode.manual_at, EndReason.MANUAL)
    return Ending(end, max(reports, default=None), by_sender, covered)


def fired_after_end(fired_at: datetime | None, end_reported_at: datetime | None) -> datetime | None:
    """The latest report that an alert fires, if it is later than all reports of its end (`Ending.reported_at`)."""
    if fired_at is None or end_reported_at is None or fired_at <= end_reported_at:
        return None
    return fired_at


def _is_void(episode: Episode, end: ReportedEnd, refire: timedelta) -> bool:
    fired_at, listed_since = episode.fired_at, episode.listed_since
    if fired_at is not None and fired_at - end.reported_at >= refire:
        return True
    return listed_since is not None and listed_since > end.reported_at


def _unreported_end(episode: Episode, next_started_at: datetime | None) -> End | None:
    """The inferred end, or that of a superseded episode."""
    inferred, fired_at, started_at = episode.inferred, episode.fired_at, episode.started_at
    holds = inferred is not None and (fired_at is None or fired_at <= inferred.at)
    if holds and inferred is not None and inferred.reason is _EXPIRED and episode.expires_at is not None:
        holds = episode.expires_at <= inferred.at
    if next_started_at is None:
        return inferred if holds else None
    if holds and inferred is not None and inferred.at <= next_started_at:
        return inferred
    return End(min(max(fired_at or started_at, started_at), next_started_at), EndReason.SUPERSEDED)
