"""The business clock runs while the local time is within business hours, also when clocks change."""

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.base.values.times import Span
from app.incidents.measures.business_hours import (
    DAY_MINUTES,
    BusinessHours,
    Clock,
    Hours,
    clock,
    moment_after,
    runs,
    seconds,
)
from app.incidents.measures.vectorized import Ints, microseconds

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "Pacific/Apia",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "America/St_Johns",
)
HOUR = 3600


def hours(*spans: str) -> tuple[Hours, ...]:
    """From `09:00-17:30`."""
    return tuple(Hours(*(int(at[:2]) * 60 + int(at[3:]) for at in span.split("-"))) for span in spans)


def every_day(zone: str, *spans: str, holidays: Sequence[str] = ()) -> BusinessHours:
    return BusinessHours("every-day", zone, (hours(*spans),) * 7, frozenset(map(date.fromisoformat, holidays)))


def office(*, holidays: Sequence[str] = ()) -> BusinessHours:
    """In Berlin, Monday to Thursday 9 to 12 and 13 to 18, Friday until 15."""
    week = (*(hours("09:00-12:00", "13:00-18:00"),) * 4, hours("09:00-12:00", "13:00-15:00"), (), ())
    return BusinessHours("office", "Europe/Berlin", week, frozenset(map(date.fromisoformat, holidays)))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def span(start: str, end: str) -> Span:
    return Span(utc(start), utc(end))


def moments(every: Iterable[datetime]) -> Ints:
    return np.array([microseconds(at) for at in every], np.int64)


def in_seconds(known: Clock, *spans: Span) -> list[float]:
    start, end = (moments(span[side] for span in spans) for side in (0, 1))
    return [float(each) for each in seconds(known, start, end)]


def measured(calendar: BusinessHours, *spans: Span) -> list[float]:
    return in_seconds(clock(calendar, moments(at for span in spans for at in span)), *spans)


def running(known: Clock, *at: datetime) -> list[bool]:
    return [bool(each) for each in runs(known, moments(at))]


def local_day(zone: str, day: str) -> Span:
    """From midnight to midnight of that zone, in UTC."""
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    return Span(start.astimezone(UTC), (start + timedelta(days=1)).astimezone(UTC))


# — a usual week —


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2026-06-01 07:30", "2026-06-01 08:00", HOUR / 2),  # Monday 9:30 in Berlin
        ("2026-06-01 09:30", "2026-06-01 11:30", HOUR),  # over lunch
        ("2026-06-01 10:15", "2026-06-01 10:45", 0),  # within it
        ("2026-06-01 15:00", "2026-06-02 08:00", 2 * HOUR),  # over night
        ("2026-06-05 12:00", "2026-06-08 08:00", 2 * HOUR),  # Friday 14:00 to Monday 10:00
        ("2026-06-06 00:00", "2026-06-07 22:00", 0),  # the weekend
        ("2026-06-01 00:00", "2026-06-08 00:00", (4 * 8 + 5) * HOUR),
        ("2026-06-01 07:00", "2026-06-01 07:00:00.000001", 1e-6),
        ("2026-06-01 16:00", "2026-06-01 16:00:00.000001", 0),
        ("2026-06-01 08:00", "2026-06-01 08:00", 0),
    ],
)
def test_it_runs_while_people_are_at_work(start: str, end: str, expected: float) -> None:
    assert measured(office(), span(start, end)) == [expected]


def test_a_holiday_is_off_from_midnight_to_midnight_there() -> None:
    whole = span("2026-06-01 00:00", "2026-06-08 00:00")
    assert measured(office(holidays=["2026-06-04"]), whole) == [(3 * 8 + 5) * HOUR]
    assert measured(office(holidays=["2026-06-06", "2025-06-04"]), whole) == [(4 * 8 + 5) * HOUR]
    round_the_clock = every_day("Europe/Berlin", "00:00-24:00", holidays=["2026-06-04"])
    night = span("2026-06-03 21:00", "2026-06-04 23:00")  # 23:00 to 01:00 there, a day later
    assert measured(round_the_clock, night) == [2 * HOUR]


def test_hours_over_midnight_are_those_of_two_days() -> None:
    nights = every_day("UTC", "00:00-06:00", "22:00-24:00")
    assert measured(nights, span("2026-06-01 20:00", "2026-06-02 20:00")) == [8 * HOUR]
    assert measured(nights, span("2026-06-01 23:00", "2026-06-02 01:00")) == [2 * HOUR]


def test_a_period_without_any_hours_is_no_error() -> None:
    sundays = BusinessHours("sundays", "UTC", ((),) * 6 + (hours("10:00-11:00"),))
    assert measured(sundays, span("2026-06-01 00:00", "2026-06-06 00:00")) == [0]
    assert running(clock(sundays, moments([utc("2026-06-02 10:30")])), utc("2026-06-02 10:30")) == [False]
    assert measured(sundays) == []


def test_it_runs_from_the_first_moment_of_hours_and_not_from_the_last() -> None:
    times = [
        utc(f"2026-06-01 {at}")
        for at in ("06:59:59.999999", "07:00", "09:59:59.999999", "10:00", "11:00", "15:59:59", "16:00")
    ]
    assert running(clock(office(), moments(times)), *times) == [False, True, True, False, True, True, False]


def test_it_does_not_answer_for_times_that_it_was_not_made_for() -> None:
    known = clock(office(), moments([utc("2026-06-01 00:00"), utc("2026-06-02 00:00")]))
    with pytest.raises(AssertionError):
        in_seconds(known, span("2026-06-01 12:00", "2026-06-02 00:01"))
    with pytest.raises(AssertionError):
        running(known, utc("2026-05-31 23:59"))


def test_times_at_the_end_of_the_calendar_are_no_error() -> None:
    assert measured(every_day("UTC", "00:00-24:00"), Span(utc("2199-12-30"), datetime.max.replace(tzinfo=UTC))) == [
        2 * 24 * HOUR
    ]
    beyond = Span(utc("9999-12-30"), datetime.max.replace(tzinfo=UTC))
    assert measured(every_day("Asia/Kathmandu", "00:00-24:00"), beyond) == [0]


# — when the clocks change —


@pytest.mark.parametrize(
    ("zone", "day", "open_", "expected"),
    [
        # 2026-03-29: 02:00 becomes 03:00; 2026-10-25: 03:00 becomes 02:00
        ("Europe/Berlin", "2026-03-29", "00:00-24:00", 23),
        ("Europe/Berlin", "2026-10-25", "00:00-24:00", 25),
        ("Europe/Berlin", "2026-03-29", "01:00-04:00", 2),
        ("Europe/Berlin", "2026-10-25", "01:00-04:00", 4),
        ("Europe/Berlin", "2026-03-29", "02:00-03:00", 0),
        ("Europe/Berlin", "2026-10-25", "02:00-03:00", 2),
        ("Europe/Berlin", "2026-03-29", "02:30-03:30", 0.5),
        ("Europe/Berlin", "2026-03-29", "01:30-02:30", 0.5),
        ("Europe/Berlin", "2026-10-25", "01:30-02:30", 1.5),
        ("Europe/Berlin", "2026-10-25", "02:30-03:30", 1.5),
        ("Europe/Berlin", "2026-03-29", "09:00-17:00", 8),
        # 2026-03-08: 02:00 becomes 03:00; 2026-11-01: 02:00 becomes 01:00
        ("America/New_York", "2026-03-08", "00:00-24:00", 23),
        ("America/New_York", "2026-11-01", "00:00-24:00", 25),
        ("America/New_York", "2026-03-08", "01:30-03:30", 1),
        ("America/New_York", "2026-11-01", "01:30-03:30", 2.5),
        ("America/New_York", "2026-11-01", "00:30-01:30", 1.5),
        # 2026-10-04: 02:00 becomes 02:30; 2026-04-05: 02:00 becomes 01:30
        ("Australia/Lord_Howe", "2026-10-04", "00:00-24:00", 23.5),
        ("Australia/Lord_Howe", "2026-04-05", "00:00-24:00", 24.5),
        ("Australia/Lord_Howe", "2026-10-04", "01:45-02:45", 0.5),
        ("Australia/Lord_Howe", "2026-04-05", "01:15-01:45", 0.75),
        ("Australia/Lord_Howe", "2026-10-04", "02:00-02:30", 0),
        ("Australia/Lord_Howe", "2026-04-05", "01:30-02:00", 1),
        # 2011-12-30 was skipped as a whole
        ("Pacific/Apia", "2011-12-29", "00:00-24:00", 24),
    ],
)
def test_working_time_is_what_the_wall_clock_shows(zone: str, day: str, open_: str, expected: float) -> None:
    assert measured(every_day(zone, open_), local_day(zone, day)) == [expected * HOUR]


def test_a_day_that_a_zone_skips_has_no_hours() -> None:
    fridays = BusinessHours("fridays", "Pacific/Apia", ((),) * 4 + (hours("00:00-24:00"),) + ((),) * 2)
    assert measured(fridays, span("2011-12-26 00:00", "2012-01-03 00:00")) == [0]
    assert measured(fridays, span("2011-12-19 00:00", "2011-12-27 00:00")) == [24 * HOUR]


def test_hours_that_end_in_the_repeated_hour_end_the_second_time() -> None:
    quarters = [utc(f"2026-10-25 {at}") for at in ("00:15", "00:45", "01:15", "01:45")]  # 02:15 02:45 02:15 02:45
    known = clock(every_day("Europe/Berlin", "01:00-02:30"), moments(quarters))
    assert running(known, *quarters) == [True, False, True, False]


# — properties —


def some_hours(random_: random.Random) -> tuple[Hours, ...]:
    marks = sorted(random_.sample(range(0, DAY_MINUTES + 1, 15), random_.randint(0, 6)))
    return tuple(Hours(*pair) for pair in list(pairwise(marks))[:: random_.choice([1, 2])])


# Drawn from a thousand values, because drawing hour by hour takes longer than the tested code.
MANY_HOURS = [some_hours(random.Random(seed)) for seed in range(1000)]
FROM, UNTIL = date(2025, 12, 1), date(2027, 1, 31)
calendars = st.builds(
    BusinessHours,
    st.just("drawn"),
    st.sampled_from(ZONES),
    st.tuples(*[st.sampled_from(MANY_HOURS)] * 7),
    st.frozensets(st.dates(FROM, UNTIL), max_size=5),
)
# Around the changes of the clocks half of the time.
changes = [utc(f"2026-{day}") for day in ("03-08", "03-29", "04-05", "10-04", "10-25", "11-01", "02-15", "03-22")]
times = st.datetimes(datetime(2025, 12, 2), datetime(2027, 1, 30)).map(lambda at: at.replace(tzinfo=UTC)) | st.builds(  # noqa: DTZ001
    lambda day, by: day + by, st.sampled_from(changes), st.timedeltas(timedelta(days=-1), timedelta(days=2))
)
WHOLE = moments([utc("2025-12-01"), utc("2027-02-01")])


@settings(deadline=None)
@given(calendars, st.lists(times, min_size=3, max_size=3).map(sorted))
def test_cutting_a_span_in_two_cuts_its_seconds(calendar: BusinessHours, borders: list[datetime]) -> None:
    a, b, c = borders
    whole, first, second = in_seconds(clock(calendar, WHOLE), Span(a, c), Span(a, b), Span(b, c))
    assert round(whole * 10**6) == round(first * 10**6) + round(second * 10**6)


@settings(deadline=None)
@given(calendars, st.lists(times, min_size=4, max_size=4).map(sorted))
def test_a_longer_span_has_no_fewer_seconds_and_none_more_than_pass(
    calendar: BusinessHours, borders: list[datetime]
) -> None:
    a, b, c, d = borders
    outer, inner = in_seconds(clock(calendar, WHOLE), Span(a, d), Span(b, c))
    assert 0 <= inner <= outer <= (d - a).total_seconds()
    assert inner <= (c - b).total_seconds()


@settings(deadline=None)
@given(st.sampled_from(ZONES), st.tuples(times, times).map(sorted))
def test_round_the_clock_is_the_time_that_passes(zone: str, borders: list[datetime]) -> None:
    passed = Span(*borders)
    assert measured(every_day(zone, "00:00-24:00"), passed) == [(passed.end - passed.start).total_seconds()]
    assert measured(every_day(zone, "00:00-09:45", "09:45-24:00"), passed) == measured(
        every_day(zone, "00:00-24:00"), passed
    )


@settings(deadline=None)
@given(calendars, st.tuples(times, times).map(sorted))
def test_it_does_not_matter_for_how_much_time_the_clock_was_made(
    calendar: BusinessHours, borders: list[datetime]
) -> None:
    short = Span(*borders)
    assert measured(calendar, short) == in_seconds(clock(calendar, WHOLE), short)


@settings(deadline=None, max_examples=50)
@given(calendars, times, st.integers(1, 30 * DAY_MINUTES))
@example(office(), utc("2026-06-05 15:59:30"), 1)  # the end of a Friday
def test_the_moment_after_a_duration_is_the_first_by_which_the_clock_ran_so_long(
    calendar: BusinessHours, start: datetime, minutes: int
) -> None:
    duration = timedelta(minutes=minutes)
    found = moment_after(calendar, start, duration)
    if found is None:
        assert measured(calendar, Span(start, start + timedelta(days=731))) < [duration.total_seconds()]
    else:
        assert measured(calendar, Span(start, found)) == [duration.total_seconds()]
        assert measured(calendar, Span(start, found - timedelta(microseconds=1))) < [duration.total_seconds()]


def minute_by_minute(calendar: BusinessHours, start: datetime, minutes: int) -> int:
    zone, found = ZoneInfo(calendar.zone), 0
    for minute in range(minutes):
        shown = (start + timedelta(minutes=minute)).astimezone(zone)
        of_day = shown.hour * 60 + shown.minute
        found += shown.date() not in calendar.holidays and any(
            each.start <= of_day < each.end for each in calendar.week[shown.weekday()]
        )
    return found


@settings(deadline=None, max_examples=50)
@given(calendars, times.map(lambda at: at.replace(second=0, microsecond=0)), st.integers(0, DAY_MINUTES))
@example(every_day("Europe/Berlin", "01:00-02:30"), utc("2026-10-24"), 3 * DAY_MINUTES)
@example(every_day("Australia/Lord_Howe", "01:15-01:45", "01:45-02:15"), utc("2026-10-02"), 3 * DAY_MINUTES)
@example(every_day("Pacific/Apia", "08:00-12:00", "13:00-24:00"), utc("2011-12-29"), 3 * DAY_MINUTES)
def test_it_agrees_with_a_look_at_the_wall_every_minute(calendar: BusinessHours, start: datetime, minutes: int) -> None:
    looked_at = Span(start, start + timedelta(minutes=minutes))
    assert measured(calendar, looked_at) == [60 * minute_by_minute(calendar, start, minutes)]
    assert running(clock(calendar, moments(looked_at)), start) == [bool(minute_by_minute(calendar, start, 1))]
