"""An entry of the timeline in the words of a report: its text, and what its kind has besides.

Pure: no clock, no I/O, no settings.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.incidents.history.entry_words import words_of
from app.incidents.history.path import Phase, Task
from app.reviews.report.facts import Entry

Detail = Mapping[str, Any]


def entry_of(
    at: datetime, kind: str, by: str | None, note: str | None, detail: Detail | None, phase: Phase | None
) -> Entry:
    """`people` of the entry are those whom its detail names."""
    found = detail or {}
    parts = [*words_of(kind, found), *([note] if note else [])]
    person = found.get("person")
    return Entry(at, kind, by, "; ".join(parts), phase, (person,) if isinstance(person, str) else ())


def task_words(task: Task) -> str:
    """Its text, with what was typed and followed."""
    parts = [task.text]
    if task.command:
        parts.append(f"command: {task.command}")
    if task.playbook:
        parts.append(f"playbook: {task.playbook.name} v{task.playbook.version} of {task.playbook.service}")
    return "; ".join(parts)
