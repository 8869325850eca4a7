"""Times as CI systems write them."""

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.values.moments import NotAMoment, moment_of
from app.base.values.times import is_in_bounds

AT = datetime(2026, 8, 20, 9, 55, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "written",
    [
        1787219730,
        1787219730.0,
        1787219730_000,
        1787219730_000_000,
        "1787219730",
        " 1787219730000 ",
        "1787219730.000",
        "2026-08-20T09:55:30Z",
        "2026-08-20t11:55:30+02:00",
        "2026-08-20 11:55:30 +0200",
        "2026-08-20 09:55:30 UTC",
        "Thu, 20 Aug 2026 09:55:30 +0000",
        "Thu, 20 Aug 2026 09:55:30 GMT",
        "20 Aug 2026 02:55:30 -0700 (PDT)",
    ],
)
def test_a_moment_may_be_written_as(written: str | float) -> None:
    assert moment_of(written) == AT


@pytest.mark.parametrize(
    "written",
    [
        "yesterday",
        "20260820",  # otherwise the year 1970
        "20260820095530",
        "09:55:30",
        "08/20/2026 09:55:30",  # months and days are not certain
        "Thu, 20 Aug 2026 09:55:30",  # no zone
        "Thu, 20 Aug 2026 09:55:30 CST",  # America or China
        "2026-02-30T09:55:30Z",
        "Thu, 31 Feb 2026 09:55:30 +0000",
        "9999-01-01T00:00:00Z",
        "1" * 20,
        float("nan"),
        float("inf"),
    ],
)
def test_what_is_ambiguous_or_impossible_is_no_moment(written: str | float) -> None:
    with pytest.raises(NotAMoment):
        moment_of(written)


@pytest.mark.parametrize("written", [0, "0", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", -62135596800])
def test_a_zero_time_is_no_time(written: str | float) -> None:
    assert moment_of(written) is None


def test_a_time_without_an_offset_is_utc_only_if_wanted() -> None:
    assert moment_of("2026-08-20T09:55:30") == AT
    with pytest.raises(NotAMoment, match="offset"):
        moment_of("2026-08-20T09:55:30", utc_by_default=False)


@given(
    st.datetimes(datetime(1980, 1, 1), datetime(2199, 12, 31)).map(lambda at: at.replace(microsecond=0)),  # noqa: DTZ001
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_all_ways_of_writing_a_moment_mean_the_same(naive: datetime, zone: timezone) -> None:
    at = naive.replace(tzinfo=UTC)
    seconds = int(at.timestamp())
    written = (seconds, str(seconds), seconds * 1000, str(seconds * 1000), at.isoformat())
    local = (at.astimezone(zone).isoformat(), format_datetime(at.astimezone(zone)))
    assert {moment_of(each) for each in (*written, *local)} == {at}


@given(st.text() | st.integers() | st.floats())
def test_a_moment_is_within_the_bounds_of_responses(written: str | float) -> None:
    try:
        at = moment_of(written)
    except NotAMoment:
        return
    assert at is None or is_in_bounds(at)
