"""Judging many incidents gives the same outcomes as judging each."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.incidents.grouping.signal import AlertClass, EndReason
from app.incidents.measures.business_hours import BusinessHours, Hours, clock, seconds
from app.incidents.measures.measures import Facts
from app.incidents.measures.vectorized import Columns, microseconds
from app.response.judgment import OUTCOMES, judge_many
from app.response.targets import Agreements, Elapsed, Target, elapsed, judge

START = datetime(2026, 8, 20, tzinfo=UTC)
NOW = START + timedelta(hours=30)
OFFICE = BusinessHours("office", "UTC", ((Hours(540, 1020),),) * 7)

_moments = st.integers(0, 2000).map(lambda minutes: START + timedelta(minutes=minutes))
_seconds = st.none() | st.integers(1, 40_000)


@st.composite
def _facts(draw: st.DrawFn) -> Facts:
    began = draw(_moments)
    ended = draw(st.none() | st.integers(0, 900).map(lambda minutes: began + timedelta(minutes=minutes)))
    return Facts(
        began,
        draw(st.sampled_from(["web", "mail"])),
        draw(st.integers(1, 2)),
        ended,
        draw(st.sampled_from(EndReason)) if ended else None,
        draw(st.sampled_from([AlertClass.SERVICE, AlertClass.SERVICE, AlertClass.MONITORING])),
        detected_at_stated=draw(st.none() | _moments),
        acknowledged_at=draw(st.none() | _moments),
    )


_targets = st.lists(
    st.builds(
        Target,
        st.sampled_from(["", "web"]),
        st.integers(1, 2),
        _moments,
        acknowledge_seconds=_seconds,
        update_seconds=_seconds,
        resolve_seconds=_seconds,
        calendar=st.sampled_from([None, "office"]),
    ),
    max_size=8,
    unique_by=lambda each: (each.service, each.severity, each.valid_from),
)


def _elapsed_for(target: Target | None) -> Elapsed:
    if target is None or target.calendar is None:
        return elapsed

    def in_hours(begins_at: datetime, ends_at: datetime) -> float:
        begin, end = (np.array([microseconds(at)], np.int64) for at in (begins_at, ends_at))
        return float(seconds(clock(OFFICE, np.concatenate([begin, end])), begin, end)[0])

    return in_hours


@given(
    st.lists(_facts(), max_size=8),
    _targets,
    st.dictionaries(st.integers(0, 7), st.lists(_moments, max_size=4), max_size=4),
)
def test_many_incidents_are_judged_as_each_of_them(
    incidents: list[Facts], targets: list[Target], updates: Mapping[int, Sequence[datetime]]
) -> None:
    agreements = Agreements(targets)
    columns = Columns.of(range(len(incidents)), incidents)
    found = judge_many(columns, agreements, updates, {"office": OFFICE}, now=NOW)
    for number, facts in enumerate(incidents):
        target = agreements.of(facts)
        expected = judge(facts, target, updates.get(number, ()), now=NOW, elapsed=_elapsed_for(target))
        assert {what: OUTCOMES[codes[number]] for what, codes in found.items()} == {
            what: verdict.outcome for what, verdict in expected.items()
        }
