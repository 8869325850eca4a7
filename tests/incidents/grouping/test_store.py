"""The law again, this time through the store and a real database, against PostgreSQL's own `range_agg`."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from unittest.mock import patch
from uuid import UUID, uuid5

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.incidents.grouping import read
from app.incidents.grouping.batch import Incoming, SignalOutcome
from app.incidents.grouping.decide import apply, series_of
from app.incidents.grouping.law import lifecycle
from app.incidents.grouping.law.episode import REFIRE, End, minute
from app.incidents.grouping.rule import Decision
from app.incidents.grouping.signal import AlertClass, EndReason, Signal, Status
from app.incidents.grouping.write import BatchConflict
from tests.oracle import Fact, assert_consistent, ended_by_law, spans_by_range_agg, spans_in, states_in

DAY = datetime(2026, 8, 20, tzinfo=UTC)
SOURCE = 20_000  # its sequence does not come here
WINDOW = timedelta(minutes=5)
YEAR = timedelta(days=365)
KEYS = UUID(int=1)


def at(minute: float) -> datetime:
    return DAY + timedelta(minutes=minute)


@dataclass(frozen=True, slots=True)
class Reported:
    """A signal in short: minutes; no start with a resolve: it names none. `reported`: long after everything else."""

    series: int
    start: int | None
    end: float | None = None
    guessed: bool = False
    reported: float | None = None
    reason: EndReason = EndReason.RECOVERED
    listed_since: int | None = None
    severity: int = 3
    expires: float | None = None

    def incoming(self, *, max_span: timedelta, seen: int = 0) -> Incoming:
        # Series 0 and 1 have the first key, 2 and 3 the second.
        key = f"key-{self.series // 2}"
        labels = {"alertname": f"series-{self.series}", "service": key}
        signal = Signal(
            fingerprint=f"{self.series:016x}",
            status=Status.FIRING if self.end is None else Status.RESOLVED,
            started_at=None if self.start is None else at(self.start),
            ended_at=None if self.end is None else at(self.end),
            labels=labels,
            end_reason=None if self.end is None else self.reason,
            flags=("ends_unknown",) if self.guessed else (),
            listed_since=None if self.listed_since is None else at(self.listed_since),
            expires_at=None if self.expires is None else at(self.expires),
        )
        decision = Decision("default", key, self.severity, f'service="{key}"', uuid5(KEYS, key), WINDOW, max_span)
        received_at = at(1000 + seen if self.reported is None else self.reported)
        return Incoming(signal, SOURCE, decision, received_at, minute(received_at))

    def fact(self) -> Fact:
        return Fact(
            None if self.start is None else at(self.start),
            at(1000 if self.reported is None else self.reported),
            None if self.end is None else at(self.end),
            self.reason,
            self.guessed,
            None if self.listed_since is None else at(self.listed_since),
            None if self.expires is None else at(self.expires),
        )


def firing(series: int, start: int, reported: float | None = None) -> Reported:
    return Reported(series, start, reported=reported)


def resolved(series: int, start: int | None, end: int, reported: float | None = None) -> Reported:
    return Reported(series, start, end, reported=reported)


starts = st.one_of(st.sampled_from([0, 20, 40]), st.integers(0, 60))  # some come again, so that ends contradict
reported = st.integers(0, 300).map(lambda third: third / 3)
severities = st.integers(2, 4)
listed = st.one_of(st.none(), st.none(), st.integers(0, 90))
reasons = st.sampled_from([EndReason.RECOVERED, EndReason.RECOVERED, EndReason.RULE_PAUSED])
signals = st.one_of(
    st.builds(
        lambda s, a, r, since, v, x: Reported(s, a, reported=r, listed_since=since, severity=v, expires=x),
        *(st.integers(0, 3), starts, reported, listed, severities, st.one_of(st.none(), reported)),
    ),
    st.builds(
        lambda s, a, n, g, r, w, v: Reported(s, a, a + n, g, r, w, severity=v),
        *(st.integers(0, 3), starts, st.integers(-2, 15), st.booleans(), reported, reasons, severities),
    ),
    st.builds(
        lambda s, e, r, w: Reported(s, None, e, reported=r, reason=w),
        *(st.integers(0, 3), st.integers(0, 70), reported, reasons),
    ),
)


@dataclass(frozen=True, slots=True)
class Played:
    """A set of signals, its order and batches, the number of connections, and how many alerts and resolves of a series
    are read before all of it is. `expired`: what the service itself infers, at some time and finally.
    """

    reported: tuple[Reported, ...]
    batches: tuple[tuple[Reported, ...], ...]
    connections: int
    few: int = read.FEW
    expired: tuple[Reported, ...] = ()


@st.composite
def plays(draw: st.DrawFn) -> Played:
    reported = tuple(draw(st.lists(signals, min_size=1, max_size=14)))
    again = draw(st.lists(st.sampled_from(reported), max_size=6))
    expired = _expired(draw, reported)
    order = draw(st.permutations([*reported, *again, *expired]))
    batches, rest = [], list(order)
    while rest:
        size = draw(st.integers(1, len(rest)))
        batches.append(tuple(rest[:size]))
        rest = rest[size:]
    few = draw(st.sampled_from([1, 2, read.FEW]))
    return Played(reported, tuple(batches), draw(st.sampled_from([1, 1, 3])), few, expired)


def _expired(draw: st.DrawFn, reported: Sequence[Reported]) -> tuple[Reported, ...]:
    """Expiries of some alerts, at times that their reports announced, whether or not they were repeated since."""
    announced = [one for one in reported if one.start is not None and one.expires is not None]
    if not announced:
        return ()
    some = draw(st.lists(st.sampled_from(announced), max_size=3))
    return tuple(Reported(one.series, one.start, one.expires, reason=EndReason.EXPIRED) for one in some)


def expected_of(reported: Sequence[Reported], max_span: timedelta) -> dict[UUID, list[lifecycle.IncidentState]]:
    """The law on the set: what must be in the database whatever the order."""
    by_key: dict[UUID, list[lifecycle.Alert]] = defaultdict(list)
    for series in {one.series for one in reported}:
        of_series = [one for one in reported if one.series == series]
        worst: dict[datetime, int] = {}
        for one in of_series:
            if one.start is not None and one.reason is not EndReason.EXPIRED:
                worst[at(one.start)] = min(one.severity, worst.get(at(one.start), 5))
        for start, ended in ended_by_law([one.fact() for one in of_series], REFIRE).items():
            alert = lifecycle.Alert(
                series_of(SOURCE, f"{series:016x}"),
                start,
                End(ended.at, ended.reason) if ended.at and ended.reason else None,
                WINDOW,
                max_span,
                worst[start],
                fired_after_end_at=ended.fired_after,
            )
            by_key[uuid5(KEYS, f"key-{series // 2}")].append(alert)
    return {
        key: [lifecycle.incident_state(group) for group in lifecycle.incidents_of(alerts)]
        for key, alerts in by_key.items()
    }


async def forget(engine: AsyncEngine) -> None:
    async with db.transaction(engine) as tx:
        await tx.execute(text("TRUNCATE incident, alert, unmatched_resolve, timeline, tally, service CASCADE"))
        await tx.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        # Its setting `refire_seconds` is read when a person reopens an incident.
        await tx.execute(
            text("""
                INSERT INTO source (id, name, kind, created_at)
                OVERRIDING SYSTEM VALUE
                VALUES (:id, 'test', 'test', now())
                    ON CONFLICT DO NOTHING
            """),
            {"id": SOURCE},
        )


async def apply_batch(engine: AsyncEngine, batch: Sequence[Incoming]) -> list[SignalOutcome]:
    also_lock: frozenset[UUID] = frozenset()
    while True:
        try:
            async with db.transaction(engine) as tx:
                return await apply(tx, batch, now=at(2000), also_lock=also_lock)
        except BatchConflict as conflict:
            also_lock |= conflict.keys


async def play(engine: AsyncEngine, played: Played, max_span: timedelta) -> None:
    waiting = list(played.batches)

    async def connection() -> None:
        while waiting:
            batch = waiting.pop(0)
            await apply_batch(engine, [one.incoming(max_span=max_span) for one in batch])

    with patch.object(read, "FEW", played.few):
        await asyncio.gather(*(connection() for _ in range(played.connections)))
        if played.expired:  # an inferred end comes after its alert
            await apply_batch(engine, [one.incoming(max_span=max_span) for one in played.expired])


COUNTER_EXAMPLES = [
    # The start moved back: the second start is never resolved by name.
    ([firing(0, 10)], [firing(0, 9)], [resolved(0, 9, 20)]),
    # A resolve first, its firing later, in between another series of the key.
    ([resolved(0, None, 30)], [firing(1, 12)], [firing(0, 10)], [resolved(1, 12, 14)]),
    # Two incidents, then one between that joins them, then an end that splits it.
    ([resolved(0, 0, 10), resolved(0, 30, 40)], [firing(1, 12)], [resolved(1, 12, 20)]),
    # A void end covers nothing, whichever of the starts it covered is reported first.
    ([resolved(0, 0, 30, 31)], [firing(0, 10, 40)], [firing(0, 20, 35)], [firing(0, 0, 90)]),
    # More unmatched resolves than are read first: the earliest counts, reported before its start or after.
    ([resolved(0, None, 10)], [resolved(0, None, 20)], [firing(0, 5)]),
    ([firing(0, 0)], [resolved(0, None, 10)], [resolved(0, None, 20)], [firing(0, 30)]),
]


def _play_of(batches: tuple[list[Reported], ...]) -> Played:
    return Played(tuple(one for batch in batches for one in batch), tuple(map(tuple, batches)), 1, few=1)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(played=plays())
@example(played=_play_of(COUNTER_EXAMPLES[0]))
@example(played=_play_of(COUNTER_EXAMPLES[1]))
@example(played=_play_of(COUNTER_EXAMPLES[2]))
@example(played=_play_of(COUNTER_EXAMPLES[3]))
@example(played=_play_of(COUNTER_EXAMPLES[4]))
@example(played=_play_of(COUNTER_EXAMPLES[5]))
async def test_the_set_of_signals_alone_decides(engine: AsyncEngine, played: Played) -> None:
    await forget(engine)
    await play(engine, played, YEAR)
    assert await states_in(engine) == expected_of([*played.reported, *played.expired], YEAR)
    assert await spans_in(engine) == await spans_by_range_agg(engine, WINDOW)
    await assert_consistent(engine)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(played=plays())
async def test_the_set_of_signals_alone_decides_where_max_span_cuts(engine: AsyncEngine, played: Played) -> None:
    await forget(engine)
    await play(engine, played, timedelta(minutes=12))
    assert await states_in(engine) == expected_of([*played.reported, *played.expired], timedelta(minutes=12))
    await assert_consistent(engine)


async def test_fifty_first_deliveries_at_once_make_one_incident(engine: AsyncEngine) -> None:
    outcomes = await asyncio.gather(*(apply_batch(engine, [firing(0, 5).incoming(max_span=YEAR)]) for _ in range(50)))
    verdicts = sorted(one.verdict for [one] in outcomes)
    assert verdicts == ["opened"] + ["repeated"] * 49
    assert {one.incident for [one] in outcomes} == {outcomes[0][0].incident}
    assert len(await spans_in(engine)) == 1


async def test_batches_over_the_same_keys_never_deadlock(engine: AsyncEngine) -> None:
    def batch(worker: int) -> list[Incoming]:
        order = list(range(40)) if worker % 2 else list(reversed(range(40)))
        return [_of_key(key, f"{worker}-{key}-{step}", at(step)) for step in range(3) for key in order]

    await asyncio.gather(*(apply_batch(engine, batch(worker)) for worker in range(16)))
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM alert"))).scalar_one() == 16 * 40 * 3
        assert (await connection.execute(text("SELECT count(*) FROM incident"))).scalar_one() == 40


def _of_key(key: int, fingerprint: str, started_at: datetime) -> Incoming:
    decision = Decision("default", f"s{key}", 3, f'service="s{key}"', uuid5(KEYS, f"s{key}"), WINDOW, YEAR)
    return Incoming(Signal(fingerprint, Status.FIRING, started_at), SOURCE, decision, at(1000), at(1000))


async def test_the_number_of_statements_does_not_grow_with_the_batch(engine: AsyncEngine) -> None:
    statements: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    async def reported(batch: Sequence[Incoming]) -> int:
        statements.clear()
        await apply_batch(engine, batch)
        return len(statements)

    def opening(keys: range) -> list[Incoming]:
        return [_of_key(key, f"o{key}", at(0)) for key in keys]

    assert await reported(opening(range(1000, 1001))) == await reported(opening(range(300)))
    one = [firing(0, 0), resolved(0, 0, 5), resolved(1, 40, 45)]
    await apply_batch(engine, [signal.incoming(max_span=YEAR) for signal in one])
    few = await reported([firing(1, 8).incoming(max_span=YEAR)])
    many_signals = [resolved(series, start, start + 1) for series in range(4) for start in range(0, 1000, 3)]
    many = await reported([signal.incoming(max_span=YEAR) for signal in many_signals])
    assert (few, many) <= (15, 20)


async def test_verdicts_describe_the_effect_of_each_signal(engine: AsyncEngine) -> None:
    async def verdict(reported: Reported) -> str:
        [outcome] = await apply_batch(engine, [reported.incoming(max_span=YEAR)])
        return outcome.verdict

    assert await verdict(firing(0, 0)) == "opened"
    assert await verdict(firing(0, 0)) == "repeated"
    assert await verdict(firing(1, 3)) == "joined"
    assert await verdict(resolved(0, 0, 10)) == "resolved"
    assert await verdict(resolved(1, 3, 10)) == "resolved"
    assert await verdict(resolved(1, 3, 10)) == "repeated"
    assert await verdict(firing(0, 0)) == "repeated"  # stale
    assert await verdict(firing(0, 14)) == "reopened"
    assert await verdict(resolved(0, 14, 20)) == "resolved"
    assert await verdict(resolved(0, 40, 50)) == "opened"
    assert await verdict(resolved(1, 22, 38)) == "merged"
    assert await verdict(resolved(2, None, 5)) == "ignored"  # waits for its firing
    assert await verdict(firing(3, 0)) == "opened"
    assert await verdict(firing(3, 60)) == "joined"
    assert await verdict(resolved(3, 0, 10)) == "split"


_ = AlertClass
