"""Axes and dots: pure geometry."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from app.pages.plots.axes import (
    TICKS_AT_MOST,
    DurationAxis,
    LinearAxis,
    RatioAxis,
    Tick,
    TimeAxis,
    duration_axis,
    linear_axis,
    ratio_axis,
)
from app.pages.plots.dots import ManyValues, Value, columns, dots, levels_of

DURATIONS = st.floats(0, 1e9, allow_nan=False)
VALUES = st.lists(st.builds(Value, DURATIONS, st.booleans(), st.integers(1, 999).map("INC-{}".format)), max_size=450)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]).map(
    ZoneInfo
)
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def labels(ticks: list[Tick]) -> list[str]:
    return [tick.label.replace("\u202f", " ").replace("\u00a0", " ") for tick in ticks if not tick.minor]


@given(st.lists(DURATIONS))
def test_a_duration_axis_holds_all_values_of_at_least_a_second(seconds: list[float]) -> None:
    axis = duration_axis(seconds)
    assert axis.low < axis.high
    assert all(axis.low <= value <= axis.high for value in seconds if value >= 1)


@given(st.lists(DURATIONS, min_size=2))
def test_longer_is_further_right_and_always_within_the_plot(seconds: list[float]) -> None:
    axis = duration_axis(seconds)
    places = [axis.x(value) for value in sorted(seconds)]
    assert places == sorted(places)
    assert 0 < places[0] <= places[-1] < 100


@given(st.lists(DURATIONS))
def test_an_axis_has_few_labels_from_left_to_right(seconds: list[float]) -> None:
    ticks = duration_axis(seconds).ticks()
    places = [tick.x for tick in ticks]
    assert places == sorted(set(places))
    assert 1 <= len(labels(ticks)) <= TICKS_AT_MOST
    assert any(not tick.wide and not tick.minor for tick in ticks)


def test_equal_factors_are_equally_long() -> None:
    axis = DurationAxis(60, 6000)
    assert axis.x(600) == 50
    assert labels(DurationAxis(60, 7200).ticks()) == ["1 m", "2 m", "5 m", "10 m", "30 m", "1 h", "2 h"]


@given(st.lists(st.floats(0, 1e6)))
def test_ratios_lie_around_the_middle(ratios: list[float]) -> None:
    axis = ratio_axis(ratios)
    assert axis.x(1) == 50
    assert all(abs(axis.x(ratio) + axis.x(1 / ratio) - 100) < 0.01 for ratio in ratios if 1 / 8 <= ratio <= 8)
    assert all(axis.x(ratio) <= 50 if ratio <= 1 else axis.x(ratio) >= 50 for ratio in ratios)


def test_ratios_are_named() -> None:
    assert labels(RatioAxis(4).ticks()) == ["¼", "half", "⅔", "same", "1½ ×", "double", "4 ×"]
    assert [tick.label for tick in RatioAxis(4).ticks() if not tick.wide] == ["¼", "half", "same", "double", "4 ×"]


@given(st.lists(st.floats(0, 1e12)))
def test_amounts_begin_at_zero_and_end_at_a_round_value(amounts: list[float]) -> None:
    axis = linear_axis(amounts)
    assert axis.x(0) == 1.2
    assert all(value <= axis.high * (1 + 1e-9) for value in amounts)
    assert 1 <= len(labels(axis.ticks("{:g}".format))) <= TICKS_AT_MOST


def test_amounts_have_round_ticks() -> None:
    assert linear_axis([3, 66_952]) == LinearAxis(80_000)
    assert labels(LinearAxis(80_000).ticks("{:,.0f}".format)) == ["0", "20,000", "40,000", "60,000", "80,000"]


@given(MOMENTS, st.timedeltas(timedelta(seconds=10), timedelta(days=4000)), ZONES)
def test_times_have_few_ticks_within_the_axis_in_order(since: datetime, length: timedelta, zone: ZoneInfo) -> None:
    ticks = TimeAxis(since, since + length, zone).ticks()
    places = [tick.x for tick in ticks]
    assert places == sorted(places)
    assert len(ticks) <= TICKS_AT_MOST + 1
    assert all(0 < place < 100 for place in places)


def test_times_have_ticks_at_round_times_of_the_zone() -> None:
    def ticks(since: str, until: str, zone: str) -> list[str]:
        return labels(TimeAxis(datetime.fromisoformat(since), datetime.fromisoformat(until), ZoneInfo(zone)).ticks())

    assert ticks("2026-11-28T09:10Z", "2026-11-28T09:50Z", "Asia/Kolkata") == [
        "14:40",
        "14:50",
        "15:00",
        "15:10",
        "15:20",
    ]
    assert ticks("2026-10-29T12:00Z", "2026-11-28T12:00Z", "UTC") == ["2 Nov", "9 Nov", "16 Nov", "23 Nov"]
    assert ticks("2025-11-15T00:00Z", "2026-05-02T00:00Z", "UTC") == ["Dec", "2026", "Feb", "Mar", "Apr", "May"]
    # Clocks in Berlin skip 02:00 to 03:00 on 29 March 2026.
    assert ticks("2026-03-29T00:00Z", "2026-03-29T03:00Z", "Europe/Berlin") == [
        "01:00",
        "01:30",
        "03:00",
        "03:30",
        "04:00",
        "04:30",
        "05:00",
    ]


@given(VALUES)
def test_every_incident_is_a_dot_and_hollow_if_it_was_cut_short(values: list[Value]) -> None:
    placed = dots(values, duration_axis([value.seconds for value in values]))
    assert sorted(map(repr, values)) == sorted(repr(dot.value) for dot in placed)
    assert all(dot.hollow == dot.value.censored for dot in placed)
    assert all(0 <= dot.x <= 100 for dot in placed)
    assert levels_of(placed) <= len(values)


@given(VALUES)
def test_dots_do_not_cover_each_other(values: list[Value]) -> None:
    placed = dots(values, duration_axis([value.seconds for value in values]))
    if len(values) >= 10:
        assert len({(dot.x, dot.level) for dot in placed}) == len(placed)


@given(VALUES)
def test_columns_count_every_incident(values: list[Value]) -> None:
    counted = columns(ManyValues.of(values), duration_axis([value.seconds for value in values]))
    assert sum(column.count for column in counted) == len(values)
    assert sum(column.censored for column in counted) == sum(value.censored for value in values)
    assert all(0 < column.filled + column.hollow <= 1 + 1e-9 for column in counted)
