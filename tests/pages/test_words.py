"""How numbers, durations, money and times are written."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.pages import words

BERLIN, NOW = ZoneInfo("Europe/Berlin"), datetime(2026, 11, 30, 12, tzinfo=UTC)


def spaced(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u00a0", " ")


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(shown: str) -> float:
    parts = re.findall(r"([\d,]+) ([smhd])", spaced(shown))
    return sum(int(number.replace(",", "")) * UNITS[unit] for number, unit in parts)


@given(st.floats(0, 1e10))
@example(59.5)
@example(599.6)
@example(3599)
@example(86_399.9)
def test_a_duration_has_two_units_at_most_and_is_close(seconds: float) -> None:
    shown = words.duration(seconds)
    assert re.fullmatch(r"[\d,]+ [smhd]( \d+ [smh])?", spaced(shown))
    assert seconds_of(shown) == pytest.approx(seconds, rel=0.06, abs=0.5)
    assert " " not in shown  # it is never broken across lines


@given(st.floats(0, 1e10), st.floats(0, 1e10))
def test_longer_durations_never_read_shorter(one: float, other: float) -> None:
    shorter, longer = sorted((one, other))
    assert seconds_of(words.duration(shorter)) <= seconds_of(words.duration(longer))


def test_durations() -> None:
    shown = [words.duration(seconds) for seconds in (0, 42, 60, 450, 600, 3599, 4680, 2 * 86_400 + 3 * 3600, 4e6, -90)]
    assert [spaced(each) for each in shown] == [
        *("0 s", "42 s", "1 m", "7 m 30 s", "10 m", "1 h", "1 h 18 m", "2 d 3 h", "46 d", "−1 m 30 s"),
    ]


@given(st.floats(0, 1, exclude_max=True))
@example(0.99999999999)
@example(0.9995)
@example(1e-12)
def test_a_share_is_never_rounded_up_to_all_or_down_to_nothing(ratio: float) -> None:
    shown = spaced(words.share(ratio))
    number = float(shown.removeprefix("< ").removesuffix(" %"))
    assert number < 100
    assert (number > 0) == (ratio > 0)
    assert number == pytest.approx(ratio * 100, abs=0.06)


def test_shares() -> None:
    shown = [words.share(ratio) for ratio in (0, 1, 0.31, 0.9875, 0.99953, 0.999999, 0.005, 1e-9)]
    assert [spaced(each) for each in shown] == [
        *("0 %", "100 %", "31.0 %", "98.75 %", "99.953 %", "99.999 %", "0.50 %", "< 0.01 %"),
    ]
    of_a_column = [words.share(ratio, 1) for ratio in (0, 1, 0.31, 0.9066, 0.99997, 0.0001)]
    assert [spaced(each) for each in of_a_column] == ["0 %", "100 %", "31.0 %", "90.7 %", "99.9 %", "< 0.1 %"]


@given(st.decimals(-1_000_000_000, 1_000_000_000, places=4))
def test_money_has_two_decimals_below_a_hundred(amount: Decimal) -> None:
    shown = words.money(amount)
    assert ("." in shown) == (abs(amount) < 100)
    assert abs(Decimal(shown.replace(",", "").replace("−", "-")) - amount) <= Decimal("0.5")


def test_money() -> None:
    amounts = ("0", "7.5", "99.99", "100", "66952.4", "-1234567")
    assert [words.money(Decimal(amount)) for amount in amounts] == [
        *("0.00", "7.50", "99.99", "100", "66,952", "−1,234,567"),
    ]


@pytest.mark.parametrize(
    ("moment", "short"),
    [
        ("2026-11-30T11:08+00:00", "12:08"),
        ("2026-11-29T23:30+00:00", "00:30"),  # today, in Berlin
        ("2026-11-29T22:05+00:00", "yesterday 23:05"),
        ("2026-11-25T16:17+00:00", "25 Nov 17:17"),
        ("2025-11-25T16:17+00:00", "25 Nov 2025"),
    ],
)
def test_a_time_is_as_long_as_it_must_be(moment: str, short: str) -> None:
    assert spaced(words.shown(datetime.fromisoformat(moment), BERLIN, NOW)) == short


def test_the_full_time_names_its_offset() -> None:
    assert words.shown(NOW, BERLIN, NOW, "full") == "Monday 30 November 2026 13:00:00 UTC+1"
    assert words.zone_words(BERLIN, NOW) == "Europe/Berlin (UTC+1)"
    assert words.zone_words(ZoneInfo("America/St_Johns"), NOW) == "America/St Johns (UTC−3:30)"
    assert words.zone_words(ZoneInfo("UTC"), NOW) == "UTC"


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_field_shows_the_minute_that_it_is_read_as(moment: datetime) -> None:
    from app.pages.web.forms import entered_time

    read = entered_time(words.shown(moment, BERLIN, NOW, "input"), BERLIN)
    assert read is not None
    # An hour that occurs twice is read as the earlier one.
    assert moment - read < timedelta(minutes=1) or (moment - read < timedelta(minutes=61) and read.hour in {0, 1})


@given(st.text())
@example("exe\u202egnp.exe")
def test_no_text_hides_or_reorders_what_the_reader_sees(text: str) -> None:
    shown = words.visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]", shown)
    assert re.sub("⟨U\\+([0-9A-F]{4,6})⟩", lambda found: chr(int(found[1], 16)), shown) == re.sub(
        "⟨U\\+([0-9A-F]{4,6})⟩", lambda found: chr(int(found[1], 16)), text
    )


@given(st.text(max_size=700), st.integers(1, 400))
def test_a_text_is_cut_to_its_length(text: str, longest: int) -> None:
    shown = words.cut(text, longest)
    assert len(shown) <= longest
    assert shown == text or shown.endswith("…")


def test_plurals() -> None:
    counted = [words.plural(1, "incident"), words.plural(0, "incident"), words.plural(1200, "is", "are")]
    assert [spaced(each) for each in counted] == ["1 incident", "0 incidents", "1,200 are"]
