"""The pure parts of reviews: wording, effect, requirements, due times, hints, and what is missing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.incidents.agreement import Agreement
from app.incidents.measures.business_hours import BusinessHours
from app.reviews.action_item import ItemState, hints, normalized_link, overdue
from app.reviews.effect import EffectVerdict, rate_ratio, windows
from app.reviews.lifecycle import (
    FindingKind,
    Item,
    Part,
    Participant,
    Perspective,
    Reason,
    Review,
    ReviewState,
    missing,
    missing_perspectives,
)
from app.reviews.prompts import PROMPTS
from app.reviews.requirement import WEEKDAYS, Ended, due_at, reasons
from app.reviews.wording import INSTEAD, MARKS_AT_MOST, WHY, WordingKind, marks

FRIDAY = datetime(2026, 8, 21, 16, 20, tzinfo=UTC)

# — wording —


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("I should have known X", WordingKind.COUNTERFACTUAL),
        ("If I had just done Y", WordingKind.COUNTERFACTUAL),
        ("They could've checked the disk.", WordingKind.COUNTERFACTUAL),
        ("We shouldn't have deployed on a Friday", WordingKind.COUNTERFACTUAL),
        ("IF ONLY the alert had fired", WordingKind.COUNTERFACTUAL),
        ("if the team hadn't restarted it", WordingKind.COUNTERFACTUAL),
        ("It was human error.", WordingKind.BLAME),
        ("The operator was careless", WordingKind.BLAME),
        ("Greg failed to follow the runbook", WordingKind.BLAME),
        ("She forgot to check the queue", WordingKind.BLAME),
        ("That was the fault of nobody; it was Greg's fault", WordingKind.BLAME),
        ("The root cause was a full disk", WordingKind.ROOT_CAUSE),
        ("Root-cause analysis", WordingKind.ROOT_CAUSE),
        ("Why did you restart it?", WordingKind.JUSTIFICATION),
        ("why didn’t they call", WordingKind.JUSTIFICATION),
    ],
)
def test_wording_marks_what_closes_a_conversation(text: str, kind: WordingKind) -> None:
    [mark] = marks(text)
    assert mark.kind is kind
    assert text[mark.start : mark.end].strip() == text[mark.start : mark.end] != ""


@pytest.mark.parametrize(
    "text",
    [
        *(prompt.text for prompt in PROMPTS),
        *INSTEAD.values(),
        "The service failed to start because its disk was full",
        "Traffic should return to normal within minutes",
        "Cathy restarted the cache, which helped",
        "The default of 30 s is too long",
        "",
    ],
)
def test_wording_leaves_descriptions_and_prompts_alone(text: str) -> None:
    assert marks(text) == []


@given(st.text(max_size=2000))
def test_marks_lie_within_the_text_and_do_not_overlap(text: str) -> None:
    ends = [0]
    for mark in marks(text):
        assert ends[-1] <= mark.start < mark.end <= len(text)
        ends.append(mark.end)


def test_marks_are_bounded_and_explained() -> None:
    assert len(marks("should have " * 500)) == MARKS_AT_MOST
    assert set(WHY) == set(INSTEAD) == set(WordingKind)
    assert len({prompt.id for prompt in PROMPTS}) == len(PROMPTS) >= 13


# — effect —


@pytest.mark.parametrize(
    ("before", "after", "low", "high", "verdict"),
    [
        (12, 3, 0.045, 0.926, EffectVerdict.FEWER),
        (4, 1, 0.005, 2.526, EffectVerdict.CANNOT_TELL),
        (5, 1, 0.004, 1.787, EffectVerdict.CANNOT_TELL),
        (5, 0, 0.0, 1.091, EffectVerdict.CANNOT_TELL),
        (6, 0, 0.0, 0.849, EffectVerdict.FEWER),
    ],
)
def test_the_interval_of_a_rate_ratio_is_exact(
    before: int, after: int, low: float, high: float, verdict: EffectVerdict
) -> None:
    found = rate_ratio(before, after)
    assert found.ratio == after / before
    assert (round(found.low, 3), found.high and round(found.high, 3), found.verdict) == (low, high, verdict)


def test_more_incidents_are_as_visible_as_fewer() -> None:
    assert (rate_ratio(0, 6).verdict, rate_ratio(0, 6).ratio, rate_ratio(0, 6).high) == (EffectVerdict.MORE, None, None)
    assert (rate_ratio(0, 0).verdict, rate_ratio(0, 0).ratio) == (EffectVerdict.CANNOT_TELL, None)


@pytest.mark.parametrize("rate", [1, 3, 10, 30])
def test_without_a_change_of_the_rate_at_most_one_in_twenty_gets_a_verdict(rate: int) -> None:
    random = np.random.default_rng(rate)
    pairs, times = np.unique(random.poisson(rate, (4000, 2)), axis=0, return_counts=True)
    judged = sum(
        int(count)
        for (before, after), count in zip(pairs.tolist(), times, strict=True)
        if rate_ratio(before, after).verdict is not EffectVerdict.CANNOT_TELL
    )
    assert judged <= 0.05 * 4000


def test_both_windows_are_equally_long_and_at_most_180_days() -> None:
    for days, length in ((10, 10), (400, 180), (-1, 0)):
        before, after = windows(FRIDAY, now=FRIDAY + timedelta(days=days))
        assert before.end == after.start == FRIDAY
        assert before.end - before.start == after.end - after.start == timedelta(days=length)


# — requirements —


@pytest.mark.parametrize(
    ("incident", "why"),
    [
        (Ended(1), [Reason.SEVERITY]),
        (Ended(2), [Reason.SEVERITY]),
        (Ended(3), []),
        (Ended(3, budget_burned=Fraction(1, 5)), [Reason.BUDGET]),
        (Ended(3, budget_burned=Fraction(199, 1000)), []),
        (Ended(3, occurrences=3), [Reason.RECURRENCE]),
        (Ended(3, occurrences=2), []),
        (Ended(3, occurrences=9, recurrence_reviewed=True), []),
        (Ended(2, Fraction(1), 3), [Reason.SEVERITY, Reason.BUDGET, Reason.RECURRENCE]),
        (Ended(4, agreement=Agreement(by_type=True)), [Reason.TYPE]),
        (Ended(1, agreement=Agreement(by_type=False, by_target=True)), []),
        (Ended(1, agreement=Agreement(by_target=False)), []),
        (Ended(4, agreement=Agreement(by_target=True)), [Reason.SEVERITY]),
    ],
)
def test_an_incident_requires_a_review_for_these_reasons(incident: Ended, why: list[Reason]) -> None:
    assert reasons(incident) == why


@pytest.mark.parametrize(
    ("severity", "due"),
    [(1, "2026-08-25"), (2, "2026-08-26"), (3, "2026-08-29")],
)
def test_a_review_is_due_at_the_end_of_a_business_day(severity: int, due: str) -> None:
    """A sev1 that ends on Friday is due when Monday ends."""
    assert due_at(FRIDAY, severity) == datetime.fromisoformat(f"{due}T00:00:00Z")


def test_an_agreed_time_replaces_the_default() -> None:
    agreed = Agreement(due_after=timedelta(hours=24))
    # The rest of Friday, and of Monday until the same time.
    assert due_at(FRIDAY, 1, agreed) == FRIDAY + timedelta(days=3)
    assert due_at(FRIDAY - timedelta(days=1), 1, agreed) == FRIDAY
    weekend = BusinessHours("weekend", "UTC", ((),) * 5 + WEEKDAYS.week[:2])
    assert due_at(FRIDAY, 1, replace(agreed, hours=weekend)) == datetime.fromisoformat("2026-08-23T00:00:00Z")
    never = replace(WEEKDAYS, week=((),) * 7)
    assert due_at(FRIDAY, 1, replace(agreed, hours=never)) == FRIDAY + timedelta(hours=24)


# — action items —


def test_hints_ask_for_a_specific_title() -> None:
    assert hints("Add an alert for the queue", "It fires in a test") == []
    assert len(hints("Investigate the cache", None)) == 2
    assert len(hints("The cache is too small", "x")) == 1


@pytest.mark.parametrize(
    "link",
    [
        "https://GitHub.com/acme/web/issues/7",
        "https://github.com/acme/web/issues/7/",
        "https://github.com/acme/web/issues/7?x=1#comment",
    ],
)
def test_links_that_differ_in_nothing_that_matters_are_the_same(link: str) -> None:
    assert normalized_link(link) == "https://github.com/acme/web/issues/7"


def test_an_item_stops_being_overdue_when_it_is_closed() -> None:
    hour = timedelta(hours=1)
    assert overdue(FRIDAY, None, now=FRIDAY + 2 * hour) == 2 * hour
    assert overdue(FRIDAY, FRIDAY + hour, now=FRIDAY + 2 * hour) == hour
    assert overdue(FRIDAY, FRIDAY - hour, now=FRIDAY + 2 * hour) == overdue(None, None, now=FRIDAY) == timedelta()


# — what is missing —


def held(*items: Item, summary: str = "s", because: str | None = None) -> Review:
    return Review(ReviewState.HELD, "grace", summary, [FindingKind.LEARNING], items, because)


def test_everything_that_is_missing_is_listed_at_once() -> None:
    review = Review(
        ReviewState.HELD, None, " ", [FindingKind.PARKED], [Item("AI-1", ItemState.OPEN), Item("AI-2", ItemState.DONE)]
    )
    assert [str(one) for one in missing(review)] == [
        "summary is empty",
        "findings are missing; record at least one",
        "AI-1 has no owner",
        "AI-1 has no priority",
        "AI-2 has no owner",
        "AI-2 has no priority",
        "action items have none of priority 1; add one, or state why in `nothing_now_because`",
    ]


def test_a_reason_or_a_first_priority_completes_a_review() -> None:
    assert missing(held(Item("AI-1", ItemState.OPEN, "ada", 1))) == []
    assert missing(held(Item("AI-1", ItemState.OPEN, "ada", 2), because="nothing is urgent")) == []
    assert missing(held(Item("AI-1", ItemState.DROPPED), because="nothing is urgent")) == []
    assert [one.at for one in missing(held(Item("AI-1", ItemState.DROPPED, "ada", 1)))] == ["action items"]


def test_closing_needs_every_item_judged() -> None:
    items = [
        Item("AI-1", ItemState.IN_PROGRESS),
        Item("AI-2", ItemState.DONE),
        Item("AI-3", ItemState.DONE, effective="no"),
        Item("AI-4", ItemState.DROPPED),
    ]
    found = missing(Review(ReviewState.PUBLISHED, "grace", "s", [], items))
    assert [one.at for one in found] == ["AI-1", "AI-2"]
    assert missing(Review(ReviewState.CLOSED, None, "", [], items)) == []


def test_a_perspective_is_missing_until_someone_brings_it() -> None:
    people = [Participant("ada", Part.COMMANDER), Participant("bob", Part.SUPPORT, attended=False)]
    assert missing_perspectives(ReviewState.DRAFT, people) == [
        Perspective.CUSTOMERS,
        Perspective.MANAGEMENT,
        Perspective.AFFECTED,
    ]
    assert Perspective.RESPONDERS in missing_perspectives(ReviewState.HELD, people)
    came = [Participant("ada", Part.COMMANDER, attended=True)]
    assert Perspective.RESPONDERS not in missing_perspectives(ReviewState.HELD, came)
