"""The course of an incident: nothing outside the plot, and a path that only its tasks move."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from app.pages.plots.course import (
    DEPLOYMENTS_AT_MOST,
    LANES_AT_MOST,
    PATH_AT_MOST,
    Course,
    Effect,
    Firing,
    History,
    Measure,
    Moment,
    Point,
    Series,
    Task,
    course,
)

START = datetime(2026, 3, 28, 22, 50, tzinfo=UTC)  # before clocks change in Berlin
BERLIN = ZoneInfo("Europe/Berlin")
MOVES: dict[Effect, int] = {"positive": -1, "negative": 1, "none": 0, "unknown": 0}


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def with_tasks(history: History, tasks: list[tuple[float, Effect]]) -> History:
    """As `GET …/path` has them: from level 0, one point per task, and the end."""
    ordered = sorted(tasks, key=lambda task: task[0])
    levels = list(accumulate(MOVES[effect] for _, effect in ordered))
    path = [Point(min([history.began_at, *(at(minutes) for minutes, _ in ordered)]), 0)]
    path += [Point(at(minutes), level) for (minutes, _), level in zip(ordered, levels, strict=True)]
    if path[-1].at <= history.ended_at:
        path.append(Point(history.ended_at, path[-1].level))
    found = [
        Task(number, at(minutes), effect, level, "x")
        for number, ((minutes, effect), level) in enumerate(zip(ordered, levels, strict=True), 1)
    ]
    return replace(history, path=path, tasks=found)


minutes = minutes_of_days = st.floats(-200, 5000)
efforts = st.lists(st.tuples(minutes, st.sampled_from(list(MOVES))), min_size=1, max_size=60)


@st.composite
def histories(draw: st.DrawFn) -> History:
    length = draw(st.floats(0, 4000))
    recovered = draw(st.booleans())
    moments = draw(st.lists(st.tuples(st.text(max_size=30), st.floats(0, length)), max_size=8))
    firings = st.tuples(st.floats(0, length), st.none() | st.floats(0, length), st.integers(1, 5))
    series = draw(st.lists(st.lists(firings, min_size=1, max_size=5), max_size=LANES_AT_MOST + 3))
    measures = draw(st.lists(st.tuples(st.floats(0, length), st.floats(0, length)), max_size=4))
    history = History(
        began_at=at(0),
        ended_at=at(length),
        recovered_at=at(length) if recovered else None,
        moments=[Moment(name, at(minutes)) for name, minutes in moments],
        deployments=[Moment("1.2", at(minutes)) for minutes in sorted(draw(st.lists(minutes_of_days, max_size=40)))],
        deployed=draw(st.none() | st.builds(Moment, st.just("1.2 deployed"), minutes.map(lambda m: at(m - 300)))),
        measures=[
            Measure(
                "Time to recover", at(min(pair)), at(max(pair)), draw(st.sampled_from(["recorded", "running"])), "4 m"
            )
            for pair in measures
        ],
        series=[
            Series(
                "a",
                "b",
                [Firing(at(start), None if end is None else at(max(start, end)), sev) for start, end, sev in one],
            )
            for one in series
        ],
    )
    return with_tasks(history, draw(efforts)) if draw(st.booleans()) else history


def at_end(history: History) -> datetime:
    assert history.recovered_at is not None
    return history.recovered_at


def numbers(path: str) -> list[tuple[str, float]]:
    """The commands of an SVG path that matter here: M x y is two."""
    moved = re.sub(r"M(\S+) (\S+?)(?=[A-Z])", r"H\1V\2", path + "Z")
    return [(command, float(value)) for command, value in re.findall(r"([HV])(-?[\d.]+)", moved)]


@given(histories())
def test_everything_is_within_the_plot(history: History) -> None:
    drawn = course(history, BERLIN)
    xs = [moment.x for moment in drawn.moments]
    xs += [deployment.x for deployment in drawn.deployments]
    assert len(drawn.deployments) == min(
        DEPLOYMENTS_AT_MOST, sum(drawn.axis.since <= each.at <= drawn.axis.until for each in history.deployments)
    )
    xs += [edge for bar in drawn.bars for edge in (bar.x, bar.end)]
    xs += [place.x for lane in drawn.lanes for place in (lane.label, lane.narrow)]
    ys: list[float] = [moment.y for moment in drawn.moments]
    ys += [y for bar in drawn.bars for y in (bar.y, bar.y + 16)]
    ys += [y for lane in drawn.lanes for y in (lane.y, lane.y + 25)]
    for lane in drawn.lanes:
        for left, width in re.findall(r"M([\d.]+) 0h([\d.]+)", lane.severe + lane.mild + lane.firing):
            xs += [float(left) / 10, (float(left) + float(width)) / 10]
            assert float(width) > 0
    if drawn.path:
        xs += [mark.x for mark in drawn.path.marks]
        ys += [drawn.path.top + mark.y for mark in drawn.path.marks]
        xs += [value / 10 for command, value in numbers(drawn.path.line) if command == "H"]
    assert all(0 <= x <= 100.05 for x in xs)
    assert all(0 <= y <= drawn.axis_y < drawn.height for y in ys)
    assert len(drawn.lanes) == min(len(history.series), LANES_AT_MOST)


@given(histories(), efforts)
def test_the_path_is_that_of_the_tasks_and_stays_above_its_floor(
    history: History, tasks: list[tuple[float, Effect]]
) -> None:
    history = with_tasks(history, tasks)
    path = course(history, BERLIN).path
    assert path is not None
    heights = [value for command, value in numbers(path.line) if command == "V"]
    assert len(heights) == len(history.path)
    assert all(height < path.floor for height in heights)  # y grows downward
    steps = [(one.level, height) for one, height in zip(history.path, heights, strict=True)]
    lowest = min([0, *(point.level for point in history.path)])
    step = (path.floor - heights[0]) / (1 - lowest)
    assert 0 < step <= 24.01
    # Only shifted: each level is as high as another point of the same level, in steps of the same size.
    assert all(abs(path.floor - height - (level - lowest + 1) * step) < 0.1 for level, height in steps)
    assert path.height <= PATH_AT_MOST + 24 + 44
    assert [mark.y for mark in path.marks] == heights[1 : len(tasks) + 1]


@given(histories(), efforts)
def test_a_mark_leads_to_the_floor_where_the_incident_recovered_and_nowhere_else(
    history: History, tasks: list[tuple[float, Effect]]
) -> None:
    history = with_tasks(history, tasks)
    drawn = course(history, BERLIN)
    assert drawn.path is not None
    if history.recovered_at is None:
        assert drawn.path.drop is None
    else:
        assert drawn.path.drop is not None
        x, y = drawn.path.drop
        assert x == drawn.axis.x(history.recovered_at)
        assert y < drawn.path.floor
        heights = [value for command, value in numbers(drawn.path.line) if command == "V"]
        reached = [height for point, height in zip(history.path, heights, strict=True) if point.at <= at_end(history)]
        assert y == reached[-1]


@given(histories())
def test_labels_of_moments_do_not_touch_in_their_row(history: History) -> None:
    drawn = course(history, BERLIN)
    for row in range(3):
        ends = []
        for moment in drawn.moments:
            if moment.row == row:
                width = (len(moment.moment.name) + 7) * 0.8
                left = moment.x - {"start": 0, "middle": width / 2, "end": width}[moment.anchor]
                ends.append((left, left + width))
        assert all(one[1] <= other[0] + 1e-9 for one, other in pairwise(sorted(ends)))


@given(histories())
def test_on_a_phone_the_first_and_the_last_moment_have_whole_labels(history: History) -> None:
    drawn = course(history, BERLIN)
    labels = []
    for place, moment in enumerate(drawn.moments):
        assert (moment.narrow is not None) == (place in (0, len(drawn.moments) - 1))
        if moment.narrow is not None:
            width = (len(moment.moment.name) + 7) * 2.4
            left = moment.narrow.x - {"start": 0, "end": width}[moment.narrow.anchor]
            assert (left >= 0 and left + width <= 100) or width > 80
            labels.append((moment.narrow_y, left, left + width))
    assert len(labels) < 2 or labels[0][0] != labels[1][0] or labels[0][2] <= labels[1][1] + 1e-9


def drawn(**more: object) -> Course:
    history = History(at(0), at(60), at(60), [Moment("detected", at(0)), Moment("recovered", at(60))])
    return course(replace(history, **more), BERLIN)  # type: ignore[arg-type]


def test_the_axis_reaches_back_to_a_deployment_shortly_before() -> None:
    near = drawn(deployed=Moment("1.2 deployed", at(-20)))
    assert [moment.moment.name for moment in near.moments] == ["1.2 deployed", "detected", "recovered"]
    assert (near.axis.since < at(-20), near.deployed_before) == (True, None)
    far = drawn(deployed=Moment("1.2 deployed", at(-180)))
    assert [moment.moment.name for moment in far.moments] == ["detected", "recovered"]
    assert (far.axis.since > at(-10), far.deployed_before) == (True, timedelta(hours=3))


def test_tasks_long_after_the_end_do_not_squeeze_the_incident() -> None:
    history = History(at(0), at(60), at(60), [Moment("recovered", at(60))])
    shown = course(with_tasks(history, [(30, "positive"), (10_000, "none")]), BERLIN)
    assert shown.axis.until < at(65)


def test_more_tasks_than_can_be_numbered_are_small_marks() -> None:
    history = History(at(0), at(60), at(60), [Moment("recovered", at(60))])
    few, many = (course(with_tasks(history, [(n, "positive") for n in range(count)]), BERLIN) for count in (24, 200))
    assert few.path is not None
    assert many.path is not None
    assert (few.path.small, many.path.small) == (False, True)
    assert many.path.height <= PATH_AT_MOST + 24 + 44


def test_an_incident_without_duration_has_a_plot() -> None:
    shown = drawn(ended_at=at(0), recovered_at=at(0), moments=[Moment("detected", at(0)), Moment("recovered", at(0))])
    assert shown.axis.since < shown.axis.until


def test_a_label_stands_where_it_fits_on_a_phone() -> None:
    def placing(start: float, end: float, length: str = "5 m") -> str:
        return drawn(measures=[Measure("Time to recover", at(start), at(end), "recorded", length)]).bars[0].placing

    assert placing(0, 5) == "after"
    assert placing(0, 60) == "inside"
    assert placing(50, 60) == "before"
    assert placing(18, 24, "a very long time and even more") == "end"


def test_labels_that_would_touch_stand_in_three_rows() -> None:
    near = [Moment("acknowledged", at(minute)) for minute in (20, 21, 22, 23)]
    assert [moment.row for moment in drawn(moments=near).moments] == [0, 1, 2, None]
    apart = [Moment("acknowledged", at(minute)) for minute in (10, 30, 50)]
    assert [moment.row for moment in drawn(moments=apart).moments] == [0, 0, 0]


def test_deployments_are_marks_whose_labels_do_not_touch() -> None:
    shown = drawn(deployments=[Moment("1.41.3", at(minute)) for minute in (-60, 10, 11, 40, 58)])
    assert [(one.x > 50, one.labeled, one.anchor) for one in shown.deployments] == [
        (False, False, "start"),
        (False, True, "start"),
        (True, True, "start"),
        (True, True, "end"),
    ]
