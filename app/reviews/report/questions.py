"""What the facts of a review leave open: questions for the meeting, which judge nothing.

Pure: no clock, no I/O, no settings.
"""

from collections.abc import Iterator

from app.incidents.history.path import Effect
from app.reviews.report.facts import Incident, ReportFacts


def questions(facts: ReportFacts) -> list[str]:
    """In the order of the phases; empty if nothing is open."""
    return [f"{one.number}: {question}" for one in facts.incidents for question in _of_incident(one)]


def _of_incident(one: Incident) -> Iterator[str]:
    marks, counts = one.path.marks, one.path.counts
    if one.impact_started_at is None:
        yield "When were users first affected?"
    if marks["acknowledged_at"] is None:
        yield "No one acknowledged it. How did people learn of it?"
    if marks["identified_at"] is None:
        yield "When was it clear what was going on?"
    if not one.path.steps:
        yield "No tasks are recorded. What did people try, and what helped?"
    if unknown := counts[Effect.UNKNOWN]:
        yield f"The effect of {_tasks(unknown)} is not known. What helped, and what did not?"
    if negative := counts[Effect.NEGATIVE]:
        yield f"{_tasks(negative).capitalize()} moved it away from recovery. What made that sensible at the time?"
    if one.resolved_at is None:
        yield "It is still open. What is needed to end it?"


def _tasks(number: int) -> str:
    return "one task" if number == 1 else f"{number} tasks"
