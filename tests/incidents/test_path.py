"""The path to recovery, as a pure function of the facts and tasks of an incident."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from app.incidents.grouping.signal import EndReason
from app.incidents.history.path import Effect, Path, Phase, Point, Silence, Task, path_of, phase_at
from app.incidents.measures.measures import Facts, MeasureStatus

NONE, POSITIVE, NEGATIVE, UNKNOWN = Effect.NONE, Effect.POSITIVE, Effect.NEGATIVE, Effect.UNKNOWN


def clock(text: str) -> datetime:
    hour, minute = map(int, text.split(":"))
    return datetime(2026, 8, 20, hour, minute, tzinfo=UTC)


NOW = clock("20:00")

# Chapter 6 of "Post-Incident Reviews": an outage at 4 p.m. of about 20 minutes. All other times are assumed.
OUTAGE = Facts(
    began_at=clock("16:05"),
    service="web",
    severity=2,
    ended_at=clock("16:20"),
    end_reason=EndReason.RECOVERED,
    impact_started_at=clock("16:00"),
    acknowledged_at=clock("16:06"),
    identified_at=clock("16:17"),
)
TASKS = [
    Task(1, clock("16:06"), NONE),
    Task(2, clock("16:07"), NONE, clock("16:11")),
    Task(3, clock("16:12"), POSITIVE),
    Task(4, clock("16:12"), NONE, clock("16:15")),
    Task(5, clock("16:16"), NONE),
    Task(6, clock("16:17"), POSITIVE),
    Task(7, clock("16:18"), POSITIVE),
]


def seconds(path: Path) -> list[tuple[float | None, str | None]]:
    return [(phase.seconds, phase.reason) for phase in path.phases]


def test_the_outage_of_the_book() -> None:
    path = path_of(OUTAGE, TASKS, now=NOW)
    assert seconds(path) == [
        (300, None),
        (720, None),
        (180, None),
        (None, "no review"),
        (None, "no review"),
    ]
    assert sum(phase.seconds or 0 for phase in path.phases) == 1200
    assert path.marks["acknowledged_at"] == clock("16:06")
    assert path.points == [
        Point(clock(at), level)
        for at, level in (
            ("16:05", 0), ("16:06", 0), ("16:11", 0), ("16:12", -1), ("16:15", -1), ("16:16", -1), ("16:17", -2),
            ("16:18", -3), ("16:20", -3),
        )
    ]  # fmt: skip
    assert [step.phase for step in path.steps] == [Phase.RESPONSE] * 5 + [Phase.REMEDIATION] * 2
    assert path.counts == {POSITIVE: 3, NEGATIVE: 0, NONE: 4, UNKNOWN: 0}
    assert path.seconds_without_positive_effect == 420
    assert path.first_positive_at == clock("16:12")
    assert path.seconds_in_tasks == {POSITIVE: 0, NEGATIVE: 0, NONE: 420, UNKNOWN: 0}
    assert (path.longest_silence, path.longest_silence and path.longest_silence.seconds) == (
        Silence(clock("16:07"), clock("16:11")),
        240,
    )


def test_a_review_ends_the_analysis_and_its_action_items_the_readiness() -> None:
    reviewed = replace(OUTAGE, reviewed_at=clock("18:20"), ready_at=clock("20:20"))
    path = path_of(reviewed, [Task(1, clock("18:00"), NONE), Task(2, clock("19:00"), NONE)], now=NOW)
    assert seconds(path)[3:] == [(7200, None), (7200, None)]
    assert (path.marks["reviewed_at"], path.marks["ready_at"]) == (clock("18:20"), clock("20:20"))
    assert [step.phase for step in path.steps] == [Phase.ANALYSIS, Phase.READINESS]


def test_an_open_incident_goes_on_until_now_and_what_is_unknown_has_a_reason() -> None:
    path = path_of(Facts(clock("16:05"), "web", 2), [Task(1, clock("16:10"), NEGATIVE)], now=clock("16:30"))
    assert [(phase.status, phase.reason) for phase in path.phases] == [
        (MeasureStatus.NOT_APPLICABLE, "impact start not stated"),
        (MeasureStatus.PENDING, "not identified yet"),
        (MeasureStatus.PENDING, "not identified yet"),
        (MeasureStatus.PENDING, "not resolved yet"),
        (MeasureStatus.PENDING, "not resolved yet"),
    ]
    assert path.points == [Point(clock("16:05"), 0), Point(clock("16:10"), 1), Point(clock("16:30"), 1)]
    assert (path.seconds_without_positive_effect, path.first_positive_at) == (1500, None)
    assert path.longest_silence == Silence(clock("16:10"), clock("16:30"))
    assert path.steps[0].phase is None


def test_tasks_before_detection_begin_the_path_and_those_after_the_end_prolong_it() -> None:
    tasks = [Task(1, clock("16:01"), NEGATIVE, clock("16:03")), Task(2, clock("16:25"), POSITIVE)]
    path = path_of(OUTAGE, tasks, now=NOW)
    assert path.points == [Point(clock("16:01"), 0), Point(clock("16:03"), 1), Point(clock("16:25"), 0)]
    assert [step.phase for step in path.steps] == [Phase.DETECTION, Phase.ANALYSIS]
    assert path.longest_silence == Silence(clock("16:06"), clock("16:17"))


def test_the_phase_of_a_moment() -> None:
    moments = ["16:04", "16:05", "16:16", "16:17", "16:20", "16:21"]
    detection, response, remediation, analysis = list(Phase)[:4]
    assert [phase_at(OUTAGE, clock(at)) for at in moments] == [
        detection, response, response, remediation, remediation, analysis
    ]  # fmt: skip


def test_an_incident_that_ended_when_it_was_detected_has_no_silence() -> None:
    path = path_of(Facts(clock("16:05"), "web", 2, ended_at=clock("16:05")), [], now=NOW)
    assert (path.points, path.longest_silence) == ([Point(clock("16:05"), 0)] * 2, None)


def test_the_phases_of_a_merged_incident_belong_to_the_other() -> None:
    path = path_of(Facts(clock("16:05"), "web", 2, merged=True), [], now=NOW)
    assert {phase.reason for phase in path.phases} == {"merged into another incident"}


minutes = st.integers(0, 60)


@st.composite
def lives(draw: st.DrawFn) -> Facts:
    def some(first: int = 0) -> datetime | None:
        minute = draw(st.one_of(st.none(), st.integers(first, 60)))
        return None if minute is None else clock("16:00") + timedelta(minutes=minute)

    return Facts(
        clock("16:00"),
        "web",
        2,
        ended_at=some(),
        detected_at_stated=some(),
        impact_started_at=some(),
        acknowledged_at=some(),
        identified_at=some(),
        mitigated_at=some(),
    )


@st.composite
def works(draw: st.DrawFn) -> list[Task]:
    drawn = draw(st.lists(st.tuples(minutes, st.one_of(st.none(), minutes), st.sampled_from(Effect)), max_size=12))
    return [
        Task(
            number,
            clock("15:40") + timedelta(minutes=begun),
            effect,
            None if lasted is None else clock("15:40") + timedelta(minutes=begun + lasted),
        )
        for number, (begun, lasted, effect) in enumerate(drawn, 1)
    ]


@given(facts=lives(), tasks=works(), seed=st.integers())
def test_the_path_does_not_depend_on_the_order_of_telling(facts: Facts, tasks: list[Task], seed: int) -> None:
    shuffled = list(tasks)
    Random(seed).shuffle(shuffled)
    assert path_of(facts, shuffled, now=NOW) == path_of(facts, tasks, now=NOW)


@given(facts=lives(), tasks=works())
def test_the_last_level_is_negatives_minus_positives_and_no_step_is_longer_than_one(
    facts: Facts, tasks: list[Task]
) -> None:
    path = path_of(facts, tasks, now=NOW)
    effects = Counter(task.effect for task in tasks)
    assert path.counts == {effect: effects[effect] for effect in Effect}
    assert path.points[-1].level == effects[NEGATIVE] - effects[POSITIVE]
    levels = [point.level for point in path.points]
    assert levels[0] == 0
    assert all(abs(one - two) <= 1 for one, two in pairwise(levels))


@given(facts=lives(), tasks=works())
def test_times_of_the_path_are_in_order_and_no_time_is_negative(facts: Facts, tasks: list[Task]) -> None:
    path = path_of(facts, tasks, now=NOW)
    times = [point.at for point in path.points]
    assert times == sorted(times)
    assert times[-1] >= max(step.task.takes_effect_at for step in path.steps) if path.steps else True
    assert path.seconds_without_positive_effect >= 0
    assert path.longest_silence is None or path.longest_silence.seconds >= 0


@given(facts=lives(), tasks=works(), parted=minutes)
def test_the_tasks_of_two_parts_are_a_partition_and_their_levels_add_up(
    facts: Facts, tasks: list[Task], parted: int
) -> None:
    """A split gives each part the tasks that began in it."""
    at = clock("16:00") + timedelta(minutes=parted)
    parts = [[task for task in tasks if task.at < at], [task for task in tasks if task.at >= at]]
    paths = [path_of(facts, part, now=NOW) for part in parts]
    shown = [step.task for path in paths for step in path.steps]
    assert sorted(shown, key=lambda task: task.entry) == tasks
    assert sum(path.points[-1].level for path in paths) == path_of(facts, tasks, now=NOW).points[-1].level
