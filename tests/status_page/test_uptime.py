"""The arithmetic of days."""

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from app.base.values.times import Span
from app.status_page.component import WEIGHTS, Status
from app.status_page.public_incident import Spell
from app.status_page.uptime import Day, MeasuredDay, Watched, availability, days_until, measured, of_measured, published
from tests.status_page.builders import DAY, DEGRADED, MAINTENANCE, MAJOR, PARTIAL, at

NOW = at("12:00", 1)
SINCE = date(2026, 1, 1)


def on(day: date, days: list[Day]) -> Day:
    return next(each for each in days if each.day == day)


def spell(start: str, end: str | None, status: Status) -> Spell:
    return Spell("Payments", at(start), None if end is None else at(end), status)


def test_20_minutes_of_major_and_60_of_partial_outage_are_97_36_percent_of_a_day() -> None:
    days = published([spell("10:00", "10:20", MAJOR), spell("14:00", "15:00", PARTIAL)], SINCE, now=NOW)
    ratio = on(DAY, days).ratio
    assert ratio == 1 - Fraction(20 * 60 + 3 * 60 * 6, 86_400)
    assert ratio is not None
    assert round(float(ratio), 6) == 0.973611


def test_overlap_counts_once_at_the_greater_weight() -> None:
    days = published([spell("10:00", "11:00", PARTIAL), spell("10:30", "10:50", MAJOR)], SINCE, now=NOW)
    assert on(DAY, days).lost == 20 * 60 + Fraction(3, 10) * 40 * 60
    assert on(DAY, days).down == {PARTIAL: timedelta(minutes=40), MAJOR: timedelta(minutes=20)}


def test_degraded_performance_and_maintenance_are_shown_and_count_nothing() -> None:
    days = published([spell("10:00", "11:00", DEGRADED), spell("12:00", "13:00", MAINTENANCE)], SINCE, now=NOW)
    assert on(DAY, days).ratio == 1
    assert len(on(DAY, days).down) == 2


def test_a_spell_over_midnight_counts_on_both_days_and_one_that_goes_on_until_now() -> None:
    days = published([spell("23:00", None, MAJOR)], SINCE, now=NOW)
    assert on(DAY, days).lost == 3600
    today = on(DAY + timedelta(days=1), days)
    assert today.elapsed == today.watched == timedelta(hours=12)
    assert today.lost == 12 * 3600
    assert today.ratio == 0


def test_days_before_anything_was_known_are_never_100_percent() -> None:
    days = published([], DAY, now=NOW)
    assert len(days) == 90
    assert [day.ratio for day in days] == [None] * 88 + [1, 1]
    assert availability(days[:88]) is None
    assert availability(days) == 1


def test_a_day_that_was_never_measured_was_not_watched() -> None:
    known = {DAY: MeasuredDay(DAY, timedelta(hours=20), timedelta(hours=1))}
    days = of_measured(known, SINCE, now=NOW)
    assert [day.ratio for day in days if day.ratio is not None] == [Fraction(19, 20)]
    assert of_measured(known, DAY + timedelta(days=1), now=NOW)[-2].ratio is None


def test_a_failure_that_was_noticed_counts_even_while_the_monitoring_failed_too() -> None:
    blind, down = Span(at("10:00"), at("14:00")), Span(at("11:00"), at("12:00"))
    [day] = measured([Watched([down])], [blind], [DAY], now=NOW)
    assert day == MeasuredDay(DAY, timedelta(hours=21), timedelta(hours=1))


def test_maintenance_is_neither_up_nor_down() -> None:
    planned = [Span(at("10:00"), at("12:00"))]
    [day] = measured([Watched([Span(at("11:00"), at("13:00"))], planned)], [], [DAY], now=NOW)
    assert day == MeasuredDay(DAY, timedelta(hours=22), timedelta(hours=1))


def test_maintenance_of_one_service_hides_no_failure_of_another() -> None:
    shop = Watched([], [Span(at("10:00"), at("14:00"))])
    cards = Watched([Span(at("11:00"), at("12:00"))])
    [day] = measured([shop, cards], [], [DAY], now=NOW)
    assert day == MeasuredDay(DAY, timedelta(hours=21), timedelta(hours=1))


def test_the_last_day_of_90_is_today_in_utc() -> None:
    days = days_until(datetime(2026, 12, 1, 0, 30, tzinfo=UTC))
    assert (days[0], days[-1]) == (date(2026, 9, 3), date(2026, 12, 1))


# — properties, on one day by the minute —

minutes = st.integers(0, 1440)
some_spells = st.lists(st.tuples(minutes, minutes, st.sampled_from([*Status])), max_size=6)
some_spans = st.lists(st.tuples(minutes, minutes), max_size=5)


def moment(minute: int) -> datetime:
    return at("00:00") + timedelta(minutes=minute)


@given(some_spells)
@example([(0, 1440, MAJOR), (10, 20, PARTIAL)])
def test_published_downtime_is_the_worst_weight_of_each_minute(each: list[tuple[int, int, Status]]) -> None:
    known = [(start, end, status) for start, end, status in each if start < end]
    found = published([Spell("Payments", moment(a), moment(b), s) for a, b, s in known], SINCE, now=NOW)
    lost = sum(max((WEIGHTS[s] for a, b, s in known if a <= minute < b), default=Fraction(0)) for minute in range(1440))
    assert on(DAY, found).lost == lost * 60
    assert sum(on(DAY, found).down.values(), timedelta()) <= timedelta(days=1)


@given(some_spans, some_spans, some_spans)
def test_unwatched_time_is_never_up(
    down: list[tuple[int, int]], planned: list[tuple[int, int]], blind: list[tuple[int, int]]
) -> None:
    def spans(those: list[tuple[int, int]]) -> list[Span]:
        return [Span(moment(a), moment(b)) for a, b in those if a < b]

    def within(minute: int, those: list[tuple[int, int]]) -> bool:
        return any(a <= minute < b for a, b in those)

    [day] = measured([Watched(spans(down), spans(planned))], spans(blind), [DAY], now=NOW)
    failed = {each for each in range(1440) if within(each, down) and not within(each, planned)}
    unknown = {each for each in range(1440) if within(each, planned) or (within(each, blind) and each not in failed)}
    assert day.down == timedelta(minutes=len(failed))
    assert day.watched == timedelta(minutes=1440 - len(unknown))
