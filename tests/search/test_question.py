"""Pure parts of search: what is asked for, the order of results, snippets."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.errors import Invalid
from app.search.question import QUESTION_AT_MOST, WORDS_AT_MOST, ResultKind, question
from app.search.result import Result, pieces, ranked, snippet

NOON = datetime(2026, 8, 20, 12, tzinfo=UTC)
questions = st.text(max_size=QUESTION_AT_MOST)


@pytest.mark.parametrize(
    ("text", "words", "numbers", "is_number"),
    [
        ("Checkout  TIMEOUT", ("checkout", "timeout"), {}, False),
        ("INC-12", (), {ResultKind.INCIDENT: (12,)}, True),
        (" rev 3 ", (), {ResultKind.REVIEW: (3,)}, True),
        ("ai7", (), {ResultKind.ACTION_ITEM: (7,)}, True),
        ("#INC-12!", (), {ResultKind.INCIDENT: (12,)}, True),
        ("12", ("12",), dict.fromkeys((ResultKind.INCIDENT, ResultKind.REVIEW, ResultKind.ACTION_ITEM), (12,)), False),
        ("INC-12 INC-13", (), {ResultKind.INCIDENT: (12, 13)}, False),
        ("INC-12 and disk", ("and", "disk"), {ResultKind.INCIDENT: (12,)}, False),
        ("INC-0", ("inc", "0"), {}, False),
        ("INC-1" + "0" * 18, ("inc", "1" + "0" * 18), {}, False),
        ("zinc-12", ("zinc", "12"), {}, False),
        ("ai7b", ("ai7b",), {}, False),
        ("/var/lib/kafka_2", ("var", "lib", "kafka", "2"), {}, False),
        ("a a A", ("a",), {}, False),
        ("100% \t\x00'; DROP", ("100", "drop"), {}, False),
        ("", (), {}, False),
    ],
)
def test_a_question_has_words_and_numbers(
    text: str, words: tuple[str, ...], numbers: dict[ResultKind, tuple[int, ...]], is_number: bool
) -> None:
    asked = question(text)
    assert asked.words == words
    assert {kind: found for kind, found in asked.numbers.items() if found} == numbers
    assert asked.is_number is is_number
    assert asked.is_empty is (not words and not numbers)


def test_a_question_is_bounded() -> None:
    assert len(question(" ".join(map(str, range(50)))).words) == WORDS_AT_MOST
    with pytest.raises(Invalid, match="at most 200"):
        question("x" * 201)


@given(questions)
def test_no_word_has_a_character_with_a_meaning_in_sql(text: str) -> None:
    for word in question(text).words:
        assert word
        assert not set(word) & set("%_\\'\"&|!:*()<> \0\t\n")


@given(st.text(max_size=600), questions, st.integers(30, 200))
def test_a_snippet_is_a_part_of_the_text(text: str, asked: str, at_most: int) -> None:
    found = snippet(text, question(asked).words, at_most)
    assert len(found) <= at_most + 2
    assert found.strip("…").strip() in " ".join(text.split()) or "…" in text


def test_a_snippet_shows_the_word() -> None:
    text = "before " * 100 + "the pool was exhausted " + "after " * 100
    for word in ("pool", "exhausted", "before", "absent"):
        found = snippet(text, [word])
        assert (word in found) is (word != "absent")
        assert not found.removeprefix("…").removesuffix("…").startswith(" ")
    assert snippet("short", ["absent"]) == "short"
    assert snippet("x" * 500, ["x"], 50) == "x" * 50 + "…"


@given(st.text(max_size=100), questions)
def test_pieces_are_the_text(text: str, asked: str) -> None:
    assert "".join(piece.text for piece in pieces(text, question(asked).words)) == text


def test_words_are_marked_in_any_case() -> None:
    found = list(pieces("The Checkout-API of checkout", ["check", "checkout"]))
    assert [piece.text for piece in found if piece.is_match] == ["Checkout", "checkout"]


def a_result(kind: ResultKind, tier: int, hours: int, number: int | None = 1) -> Result:
    return Result(kind, tier, number, None, "t", None, NOON + timedelta(hours=hours))


@given(st.permutations(range(6)))
def test_the_order_of_results_depends_only_on_them(order: list[int]) -> None:
    expected = [
        a_result(ResultKind.REVIEW, 0, 0),
        a_result(ResultKind.SERVICE, 1, 0, None),
        a_result(ResultKind.INCIDENT, 1, 9),
        a_result(ResultKind.FINDING, 1, 8, None),
        a_result(ResultKind.INCIDENT, 4, 9, 8),
        a_result(ResultKind.INCIDENT, 4, 9, 7),
    ]
    assert ranked(expected[place] for place in order) == expected
