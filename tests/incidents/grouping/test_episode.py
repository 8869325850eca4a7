"""The law of a series, on the pure functions: a property over all kinds of facts, then the cases that have names."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.base.values.ids import new_id
from app.incidents.grouping.batch import Batch, Incoming, KnownSeries
from app.incidents.grouping.law.episode import (
    REFIRE,
    End,
    Ending,
    Episode,
    ReportedEnd,
    ending_of,
    endings_of,
    fired_after_end,
    minute,
)
from app.incidents.grouping.law.series import apply_signals, compute_ends
from app.incidents.grouping.rule import Decision
from app.incidents.grouping.signal import EndReason, Signal, Status
from tests.oracle import Ended, Fact, ended_by_law

DAY = datetime(2026, 8, 20, tzinfo=UTC)
SERIES = UUID(int=1)
DECISION = Decision("default", "shop", 3, "", UUID(int=1000), timedelta(minutes=5), timedelta(days=365))
INFERRED = (EndReason.TIMEOUT, EndReason.RECONCILED, EndReason.EXPIRED)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def at(minute: float) -> datetime:
    return DAY + minutes(minute)


# — all kinds of facts: any order, repetition and batches —


def incoming(fact: Fact, *, refire: timedelta, severity: int = 3) -> Incoming:
    """The fact as a signal, as a sender or the service itself would report it."""
    signal = Signal(
        fingerprint="f",
        status=Status.FIRING if fact.end is None else Status.RESOLVED,
        started_at=fact.start,
        ended_at=fact.end,
        end_reason=None if fact.end is None else fact.reason,
        flags=("ends_unknown",) if fact.guessed else (),
        listed_since=fact.listed_since,
        expires_at=fact.expires,
    )
    decision = replace(DECISION, severity=severity)
    return Incoming(signal, 1, decision, fact.reported, minute(fact.reported), refire)


starts = st.sampled_from([0.0, 10.0, 10.5, 25.0]).map(at)  # few, so that facts contradict one another
report_times = st.one_of(st.integers(0, 240).map(lambda quarter: at(quarter / 4)), st.sampled_from([at(20), at(35)]))
end_times = st.integers(-3, 40).map(at)
reasons = st.sampled_from([EndReason.RECOVERED, EndReason.RECOVERED, EndReason.RULE_PAUSED])
listed = st.one_of(st.none(), st.none(), st.integers(0, 50).map(at))

expiries = st.one_of(st.none(), st.integers(0, 240).map(lambda quarter: at(quarter / 4)))
firing_facts = st.builds(Fact, starts, report_times, listed_since=listed, expires=expiries)
real_facts = st.builds(Fact, starts, report_times, end_times, reasons)
guessed_facts = st.builds(Fact, starts, report_times, end_times, reasons, guessed=st.just(True))
unmatched_facts = st.builds(Fact, st.none(), report_times, end_times, reasons)
inferred_facts = st.builds(Fact, starts, report_times, end_times, st.sampled_from(INFERRED))
facts_of_senders = st.one_of(firing_facts, firing_facts, real_facts, guessed_facts, unmatched_facts)
refires = st.sampled_from([minutes(1), minutes(5), REFIRE])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(facts_of_senders, min_size=1, max_size=10),
    st.lists(inferred_facts, max_size=2),
    st.lists(st.tuples(st.integers(0, 3), st.integers(30, 60)), max_size=2),
    refires,
    st.randoms(use_true_random=False),
)
# A guess that another report of a guess makes valid again, and a real end that a later one replaces.
@example(
    [
        Fact(at(0), at(30)),
        Fact(at(0), at(10), at(10), guessed=True),
        Fact(at(0), at(31), at(31), guessed=True),
        Fact(at(10), at(12), at(5)),
    ],
    [Fact(at(0), at(40), at(31), EndReason.TIMEOUT)],
    [],
    REFIRE,
    Random(1),
)
def test_the_set_of_facts_alone_decides_when_alerts_end(
    facts: list[Fact], inferred: list[Fact], by_hand: list[tuple[int, int]], refire: timedelta, random: Random
) -> None:
    """Applied in any order, with repetition, in any batches; a person resolves an alert at any time between."""
    expected_starts = sorted({fact.start for fact in facts if fact.start is not None})
    inferred = [fact for fact in inferred if fact.start in expected_starts]  # an inferred end comes after its alert
    manual = [
        Fact(expected_starts[which % len(expected_starts)], at(reported), at(reported), EndReason.MANUAL)
        for which, reported in dict(by_hand).items()
        if expected_starts
    ]
    manual = list({fact.start: fact for fact in manual}.values())
    severities = [random.randint(1, 5) for _ in facts]

    order = [(fact, severity) for fact, severity in zip(facts, severities, strict=True)]
    order += random.choices(order, k=random.randint(0, 3))
    random.shuffle(order)
    known = KnownSeries()
    while order:
        size = random.randint(1, len(order))
        some, order = order[:size], order[size:]
        apply(known, [incoming(fact, refire=refire, severity=severity) for fact, severity in some])
        resolve_by_hand(known, random.sample(manual, random.randint(0, len(manual))))
        compute_ends(known, refire=refire)
        for fact in inferred:
            if random.random() < 0.3:
                apply(known, [incoming(fact, refire=refire)])
    resolve_by_hand(known, manual)
    if inferred:
        apply(known, [incoming(fact, refire=refire) for fact in inferred])
    compute_ends(known, refire=refire)

    found = {
        row.started_at: Ended(
            row.end.at if row.end else None,
            row.end.reason if row.end else None,
            fired_after_end(row.episode.fired_at, row.end_reported_at),
        )
        for row in known.alerts
    }
    assert found == ended_by_law([*facts, *inferred, *manual], refire)
    worst = {
        start: min(severity for fact, severity in zip(facts, severities, strict=True) if fact.start == start)
        for start in expected_starts
    }
    assert {row.started_at: row.severity for row in known.alerts} == worst


def resolve_by_hand(known: KnownSeries, manual: Sequence[Fact]) -> None:
    for row in known.alerts:
        for fact in manual:
            if fact.start == row.started_at and fact.end is not None:
                row.episode = replace(row.episode, manual_at=fact.end)


def apply(known: KnownSeries, some: Sequence[Incoming]) -> None:
    """As one batch reads the series: only the part of it that is needed, see `read_series`."""
    first_at = min(one.signal.started_at or one.signal.ended_at or one.received_at for one in some)
    before = [row for row in known.alerts if row.started_at < first_at and not row.covered]
    since = before[-1].started_at if before else datetime.min.replace(tzinfo=UTC)
    part = KnownSeries(
        [row for row in known.alerts if row.started_at >= since], [end for end in known.unmatched if end.at >= since]
    )
    for row in part.alerts:
        row.incoming, row.stored = None, row.changeable()
        row.caused.clear()
    apply_signals(Batch(DAY, new_id), SERIES, part, some, range(len(some)))
    known.alerts = sorted(
        {row.started_at: row for row in (*known.alerts, *part.alerts)}.values(), key=lambda row: row.started_at
    )
    known.unmatched = list({end.at: end for end in (*known.unmatched, *part.unmatched)}.values())


some_ends = st.builds(ReportedEnd, st.integers(0, 9).map(at), reasons, st.integers(0, 30).map(at))
episodes = st.builds(
    Episode,
    st.just(at(0)),
    st.one_of(st.none(), st.integers(0, 30).map(at)),
    st.one_of(st.none(), some_ends),
    st.one_of(st.none(), some_ends),
    st.one_of(st.none(), st.builds(End, st.integers(0, 30).map(at), st.sampled_from(INFERRED))),
    st.one_of(st.none(), st.integers(0, 9).map(at)),
    listed,
    st.one_of(st.none(), st.integers(0, 30).map(at)),
)


@given(episodes, refires)
def test_alone_in_its_series_an_alert_ends_as_the_law_of_series_says(episode: Episode, refire: timedelta) -> None:
    assert [ending_of(episode, refire=refire)] == endings_of([episode], refire=refire)


# — cases —


def ends(*facts: Fact, refire: timedelta = REFIRE) -> list[tuple[float, str] | None]:
    """The end of each alert, in minutes, and why. By the code, not by the oracle."""
    known = KnownSeries()
    every = [incoming(fact, refire=refire) for fact in facts]
    apply_signals(Batch(DAY, new_id), SERIES, known, every, range(len(every)))
    return [((row.end.at - DAY) / minutes(1), str(row.end.reason)) if row.end else None for row in known.alerts]


def fires(start: float, reported: float, *, listed_since: float | None = None, expires: float | None = None) -> Fact:
    return Fact(
        at(start),
        at(reported),
        listed_since=None if listed_since is None else at(listed_since),
        expires=None if expires is None else at(expires),
    )


def resolves(
    start: float | None, end: float, reported: float, *, guessed: bool = False, reason: EndReason = EndReason.RECOVERED
) -> Fact:
    return Fact(None if start is None else at(start), at(reported), at(end), reason, guessed=guessed)


def test_an_end_is_void_once_the_alert_is_reported_as_firing_long_enough_after_it() -> None:
    ended = resolves(0, 20, 21)
    assert ends(fires(0, 1), ended, fires(0, 35.9)) == [(20, "recovered")]
    assert ends(fires(0, 1), ended, fires(0, 36)) == [None]
    assert ends(fires(0, 1), ended, fires(0, 22), refire=minutes(1)) == [None]


def test_report_times_count_in_whole_minutes() -> None:
    """Reported at 20:59 and at 21:01: a minute apart."""
    assert ends(resolves(0, 20, 20.99), fires(0, 21.01), refire=minutes(1)) == [None]
    assert ends(resolves(0, 20, 20.01), fires(0, 20.99), refire=minutes(1)) == [(20, "recovered")]


def test_an_end_reported_again_is_believed_again() -> None:
    assert ends(resolves(0, 20, 21), fires(0, 40), resolves(0, 20, 41)) == [(20, "recovered")]
    assert ends(resolves(0, 20, 21), fires(0, 40), resolves(0, 45, 46)) == [(45, "recovered")]


def test_a_resolve_is_no_report_that_it_fires() -> None:
    assert ends(resolves(0, 20, 21), resolves(0, 10, 60)) == [(20, "recovered")]


@pytest.mark.parametrize("guessed", [False, True])
def test_a_void_end_gives_way_to_an_end_of_another_kind(guessed: bool) -> None:
    void, other = resolves(0, 20, 21, guessed=guessed), resolves(0, 50, 50, guessed=not guessed)
    assert ends(void, fires(0, 40), other) == [(50, "recovered")]


def test_an_end_before_its_start_is_not_clamped_and_any_other_end_is_preferred() -> None:
    before = resolves(10, 5, 11)
    assert ends(fires(10, 10), before) == [(10, "ends_before_start")]
    for other in (resolves(10, 30, 31), resolves(10, 30, 30, guessed=True), resolves(None, 30, 30)):
        assert ends(before, other) == ends(other, before) == [(30, "recovered")]
    assert ends(before, fires(20, 20)) == [(10, "ends_before_start"), None]
    assert ends(before, fires(10, 40)) == [None]


def test_an_unmatched_resolve_that_is_void_does_not_end_an_older_alert() -> None:
    facts = (fires(0, 0), fires(10, 10), resolves(None, 20, 20), fires(10, 40))
    assert ends(*facts[:3]) == [(0, "superseded"), (20, "recovered")]
    assert ends(*facts) == [(0, "superseded"), None]
    assert ends(*facts, resolves(None, 45, 45)) == [(0, "superseded"), (45, "recovered")]


def test_a_void_end_covers_nothing() -> None:
    """A second start, of a peer whose clock differs, ends with the first; both are reported again."""
    covered = (resolves(0, 20, 21), fires(0.001, 5))
    assert ends(*covered) == [(20, "recovered"), (20, "recovered")]
    assert ends(*covered, fires(0.001, 40)) == [(20, "recovered"), None]
    assert ends(*covered, fires(0, 40)) == [(0.001, "superseded"), None]


def test_a_superseded_alert_ends_when_it_was_last_reported() -> None:
    """A lost resolve: the next start comes a day later."""
    assert ends(fires(0, 0), fires(0, 30), fires(1440, 1440)) == [(30, "superseded"), None]
    assert ends(fires(0, 0), fires(0, 30), fires(20, 30)) == [(20, "superseded"), None]
    assert ends(fires(10.5, 10.6), fires(20, 20)) == [(10.5, "superseded"), None]


def test_an_inferred_end_holds_while_there_is_no_later_report() -> None:
    gone = resolves(0, 30, 90, reason=EndReason.RECONCILED)
    assert ends(fires(0, 30), gone) == [(30, "reconciled")]
    assert ends(fires(0, 30), gone, fires(0, 31)) == [None]
    assert ends(fires(0, 30), gone, fires(100, 100)) == [(30, "reconciled"), None]
    assert ends(fires(0, 30), resolves(0, 20, 21), resolves(0, 25, 90, reason=EndReason.TIMEOUT)) == [(20, "recovered")]


def test_an_alert_has_expired_unless_its_last_report_announced_a_later_time() -> None:
    expired = resolves(0, 5.2, 9, reason=EndReason.EXPIRED)
    assert ends(fires(0, 1, expires=5.2), expired) == [(5.2, "expired")]
    # Received in the minute of its end, after it, and applied later still: from the spool, for example.
    assert ends(fires(0, 1, expires=5.2), expired, fires(0, 5.5, expires=9.5)) == [None]
    assert ends(fires(0, 1, expires=5.2), expired, fires(0, 5.5, expires=9.5), expired) == [None]
    # Received before its end, which it postponed.
    assert ends(fires(0, 1, expires=5.2), expired, fires(0, 2, expires=6.2)) == [None]
    again = resolves(0, 6.2, 11, reason=EndReason.EXPIRED)
    assert ends(fires(0, 1, expires=5.2), expired, fires(0, 2, expires=6.2), again) == [(6.2, "expired")]
    # The real end, which the sender repeats, counts as soon as it is known.
    assert ends(fires(0, 1, expires=5.2), expired, resolves(0, 3, 12)) == [(3, "recovered")]


def test_of_reports_in_one_minute_the_earliest_says_when_an_alert_expires() -> None:
    """So that one that is repeated every second is not written every second."""
    often = [fires(0, 1 + second / 60, expires=2 + second / 60) for second in range(60)]
    assert ends(*often, resolves(0, 2, 9, reason=EndReason.EXPIRED)) == [(2, "expired")]
    assert ends(*often, fires(0, 2, expires=3), resolves(0, 2, 9, reason=EndReason.EXPIRED)) == [None]


def test_a_report_without_a_start_goes_on_with_an_alert_until_that_has_expired() -> None:
    def started(*reports: tuple[float, float]) -> list[float]:
        known = KnownSeries()
        every = [
            replace(
                incoming(Fact(at(0), at(reported), expires=at(expires)), refire=REFIRE),
                signal=Signal("f", Status.FIRING, None, expires_at=at(expires)),
            )
            for reported, expires in reports
        ]
        apply_signals(Batch(DAY, new_id), SERIES, known, every, range(len(every)))
        return [(row.started_at - DAY) / minutes(1) for row in known.alerts]

    assert started((0, 5), (5.9, 11)) == [0]
    assert started((0, 5), (6.1, 11)) == [0, 6.1]


def test_peers_that_all_list_it_since_its_end_was_reported_void_that_end() -> None:
    assert ends(resolves(0, 20, 21), fires(0, 24, listed_since=22)) == [None]
    assert ends(resolves(0, 20, 22), fires(0, 24, listed_since=22)) == [(20, "recovered")]


def test_a_persons_resolve_is_never_void_and_stands_unless_the_alert_had_ended_before() -> None:
    by_hand = Episode(at(0), at(90), manual_at=at(5))
    assert ending_of(by_hand, refire=REFIRE) == Ending(End(at(5), EndReason.MANUAL), at(5))
    later, earlier = (ReportedEnd(at(end), EndReason.RECOVERED, at(91)) for end in (9, 3))
    assert ending_of(replace(by_hand, real=later), refire=REFIRE).end == End(at(5), EndReason.MANUAL)
    assert ending_of(replace(by_hand, real=earlier), refire=REFIRE).end == End(at(3), EndReason.RECOVERED)


def test_a_real_end_beats_a_guess_and_of_guesses_the_earliest_counts() -> None:
    early, late = (resolves(0, end, 35, guessed=True) for end in (20, 30))
    for facts in ((early, late, resolves(0, 10, 35)), (late, resolves(0, 10, 35), early)):
        assert ends(*facts) == [(10, "recovered")]
    assert ends(late, early) == [(20, "recovered")]
    assert ends(late, fires(5, 5)) == [(30, "recovered"), None]  # a guess covers no other start


def test_of_resolves_that_name_no_start_the_earliest_counts() -> None:
    facts = (fires(0, 0), resolves(None, 9, 9), resolves(None, 7, 9))
    assert ends(*facts) == [(7, "recovered")]
    assert ends(*facts, resolves(0, 5, 9)) == [(5, "recovered")]
    assert ends(fires(0, 0), fires(10, 10), fires(30, 30), resolves(None, 20, 20)) == [
        (0, "superseded"),
        (20, "recovered"),
        None,
    ]
