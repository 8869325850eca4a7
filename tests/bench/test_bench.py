"""The harness of `make bench` measures correctly, and its check of the database finds errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bench.check import Wrong, check_counters, check_stored, stored_differs
from bench.ingest import (
    FIRST_SEEDED,
    NOON_MS,
    Figures,
    Goal,
    Loaded,
    a_round,
    a_service,
    absolute_goals_of,
    goals_of,
    history_goals_of,
    multiply,
)
from bench.load import Answered, Load

LOAD = Load(run=7, alerts=2, seconds=1.0, keys=2, connections=2)


def answered(
    load: Load = LOAD, *, sent: tuple[int, int] = (2, 1), refused: dict[int, int] | None = None, seconds: float = 1.0
) -> Answered:
    return Answered(load, sent, refused or {}, seconds, [1])


def stored(*ids: int, **changed: Any) -> list[dict[str, Any]]:
    return [{"fingerprint": f"0007{id_:012}", "started_at": LOAD.at(id_), "ended_at": None} | changed for id_ in ids]


# — answered deliveries are stored exactly once —


def test_bodies_are_counted_by_connection() -> None:
    # The first connection sent bodies 0 and 2, the second body 1.
    assert sorted(answered().turns()) == [0, 1, 2]
    assert list(stored_differs([answered()], stored(*range(6)))) == []


@pytest.mark.parametrize(
    ("rows", "difference"),
    [
        (stored(0, 1, 2, 4, 5), "1 of 6 alerts that were answered with 2xx are missing, such as 3"),
        (stored(0, 1, 2, 3, 4, 5, 5), "1 alerts are stored twice"),
        (stored(0, 1, 2, 3, 4, 5, 6), "1 stored alerts were never sent, such as 6"),
        (stored(*range(5)) + stored(5, started_at=LOAD.at(9)), "1 alerts have a different start than sent, such as 5"),
        (stored(*range(5)) + stored(5, ended_at=LOAD.at(9)), "1 alerts have a different end than sent, such as 5"),
    ],
)
def test_differences_are_named(rows: list[dict[str, Any]], difference: str) -> None:
    assert list(stored_differs([answered()], rows)) == [difference]


def test_an_unanswered_delivery_may_or_may_not_be_stored() -> None:
    cut_off = answered(refused={2: 0})
    assert (cut_off.webhooks, cut_off.alerts) == (2, 4)
    for rows in (stored(*range(4)), stored(*range(6))):
        assert list(stored_differs([cut_off], rows)) == []


@pytest.mark.parametrize("counted", [{"deliveries": 4, "signals": 6}, {"deliveries": 3, "signals": 7}])
def test_the_counts_match_the_responses(counted: dict[str, int]) -> None:
    none = {"deliveries": 0, "signals": 0}
    check_counters(answered(), none, {"deliveries": 3, "signals": 6})
    check_counters(answered(refused={2: 0}), none, {"deliveries": 2, "signals": 4})
    with pytest.raises(Wrong):
        check_counters(answered(), none, counted)
    with pytest.raises(Wrong):
        check_counters(answered(), none, none)


def test_new_alerts_join_open_incidents() -> None:
    assert [LOAD.opening.contents(turn) for turn in range(3)] == [(range(2), None), (range(2, 4), None), None]
    assert LOAD.joining.contents(0) == (range(4, 6), None)
    again = answered(LOAD.joining).again("repeats")
    assert [again.contents(turn) for turn in (0, 3, 4)] == [(range(2), None), (range(6, 8), None), (range(2), None)]


def test_half_the_signals_resolve_earlier_ones() -> None:
    half = answered(sent=(2, 2)).again("half")
    assert (half.mode, half.known) == ("half", 4)
    assert [half.contents(turn) for turn in range(5)] == [
        (range(8, 10), None),
        (range(10, 12), None),
        (range(2), range(12, 14)),
        (range(2, 4), range(14, 16)),
        (range(16, 18), None),
    ]
    assert half.contents(10) is None  # everything has been resolved


# — goals —


def test_a_goal_reports_by_how_much_it_is_missed() -> None:
    assert Goal("", [1.0, 1.2, 9.0], 1.5).value == 1.2
    assert Goal("", [1.2], 1.5).missed_by == pytest.approx(0.2)
    assert Goal("", [1.6], 1.5).missed_by == 0
    assert Goal("", [1.2], 1.0, at_most=True).missed_by == pytest.approx(0.2)
    assert Goal("", [0.9], 1.0, at_most=True).missed_by == 0


# — the real service —


@pytest.mark.debian
def test_a_round_measures_and_checks_everything(tmp_path: Path) -> None:
    steps: list[str] = []
    done = a_round(tmp_path / "round", 0.3, steps.append, keys=10)
    assert len(steps) == len(done.loads) + 1
    for figures in done.loads.values():
        assert figures.answered.webhooks > 0
        assert not figures.answered.refused
        assert figures.cpu["wrk"] > 0
    assert all(rate > 0 for rate in done.limits.values())
    assert all(goal.value > 0 for goal in [*goals_of([done]), *absolute_goals_of([done])])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    with a_service(tmp_path_factory.mktemp("bench") / "service") as loaded:
        yield loaded


@pytest.mark.debian
@pytest.mark.parametrize(
    ("breaks", "difference"),
    [
        ("DELETE FROM alert WHERE started_at = $1", "alerts that were answered with 2xx are missing"),
        ("UPDATE alert SET ended_at = started_at, end_reason = 'recovered' WHERE started_at = $1", "different end"),
        ("UPDATE incident SET alerts = alerts + 1 WHERE began_at = $1", "of which 1 differ"),
        ("UPDATE incident SET merged_into = gen_random_uuid() WHERE began_at = $1", "incidents expected by the law"),
    ],
)
def test_the_check_finds_errors_in_the_database(loaded: Loaded, breaks: str, difference: str) -> None:
    figures = loaded.put("half", loaded.put_new("new", Load(next(loaded.runs), 2, 0.3, keys=5)).answered.again("half"))
    load = figures.answered.load

    async def check_broken(connection: asyncpg.Connection) -> None:
        await check_stored(connection, loaded.answers[load.run, 0])
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(breaks, load.at(0))
        with pytest.raises(Wrong, match=difference):
            await check_stored(connection, loaded.answers[load.run, 0])
        await transaction.rollback()

    loaded.ask(check_broken)


@pytest.mark.debian
def test_generated_history_equals_that_of_the_service(loaded: Loaded) -> None:
    loaded.put("seed", Load(FIRST_SEEDED, 10, 2.0, mode="resolved", keys=4, known=20))

    async def fill(connection: asyncpg.Connection) -> None:
        await multiply(connection, 7, lambda _: None)
        count = "SELECT count(*) FROM alert WHERE starts_with(fingerprint, '03e8')"
        assert await connection.fetchval(count) == 8 * 200

    loaded.ask(fill)
    # The same errors are found again afterwards.
    loaded.put("again", Load(FIRST_SEEDED, 1, 0.3, keys=4, first_ms=NOON_MS))


def test_history_may_cost_three_tenths_more() -> None:
    def figures(seconds: float) -> Figures:
        return Figures("new", answered(LOAD, seconds=seconds), {}, {})

    pairs = [(figures(1.0), figures(with_history)) for with_history in (1.2, 1.56, 1.7)]
    [goal] = history_goals_of(pairs)
    assert goal.value == pytest.approx(1.56)
    assert goal.missed_by == pytest.approx(0.2)
