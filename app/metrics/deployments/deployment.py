"""Combines all reports about a deployment into one.

Pure: no clock, no I/O. `deployment_of` depends on the content of the reports and the times they refer to, never on the
order of arrival: a stale `in_progress` cannot undo an outcome, and a later report may complete an earlier one.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import takewhile
from typing import Any, TypeVar

from app.base.facts import Commit, Outcome, Report

CLOCK_SKEW = timedelta(minutes=5)
PRODUCTION = "production"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deployment:
    """`happened_at`: when it finished, else when it began, else when it was first reported."""

    id: str
    service: str
    environment: str
    production: bool
    version: str | None
    sha: str | None
    link: str | None
    outcome: Outcome
    started_at: datetime | None
    finished_at: datetime | None
    happened_at: datetime
    commits: tuple[Commit, ...]
    unplanned: bool
    made_for: str | None
    needed_intervention: bool

    @property
    def began_at(self) -> datetime:
        """The earliest time at which it can have had impact."""
        return self.started_at or self.happened_at


def as_columns(deployment: Deployment) -> dict[str, Any]:
    """The values of its row by column name."""
    values = {name: getattr(deployment, name) for name in DEPLOYMENT_FIELDS}
    return values | {"outcome": deployment.outcome.value, "commits": _commits_as_json(deployment.commits)}


def from_columns(values: Iterable[Any]) -> Deployment:
    """The deployment whose row has these values, in the order of `DEPLOYMENT_FIELDS`."""
    stored = dict(zip(DEPLOYMENT_FIELDS, values, strict=True))
    return Deployment(
        **stored | {"outcome": Outcome(stored["outcome"]), "commits": _commits_from_json(stored["commits"])}
    )


def digest_of(report: Report) -> str:
    """Equal for reports with the same content."""
    return sha256(json.dumps(as_json(report), sort_keys=True).encode()).hexdigest()


def deployment_of(reports: Iterable[tuple[Report, datetime]]) -> Deployment:
    """Combines the reports of one deployment (at least one), each with its time of arrival.

    The last final outcome counts, by the time it refers to. If other fields contradict each other, the last report
    counts; of several starts, the earliest. Commits are merged.
    """
    dated = sorted(
        (
            (report.told_at or report.finished_at or received_at, digest_of(report), report)
            for report, received_at in reports
        ),
        key=lambda each: each[:2],
    )
    ordered = [report for _, _, report in dated]
    outcome, finished_at = _outcome([(at, report) for at, _, report in dated])
    starts = [report.started_at for report in ordered if report.started_at is not None] or [
        at for at, _, report in dated if report.outcome is Outcome.IN_PROGRESS
    ]
    # If clocks contradict each other, the start is unknown.
    started_at = min(starts, default=None)
    if started_at is not None and finished_at is not None and started_at > finished_at:
        started_at = None
    environment = environment_of(_last(report.environment for report in ordered))
    production = _last(report.production for report in ordered)
    last = ordered[-1]
    return Deployment(
        id=last.id,
        service=last.service,
        environment=environment,
        production=environment == PRODUCTION if production is None else production,
        version=_last(report.version for report in ordered),
        sha=_last(report.sha for report in ordered),
        link=_last(report.link for report in ordered),
        outcome=outcome,
        started_at=started_at,
        finished_at=finished_at,
        happened_at=finished_at or started_at or dated[0][0],
        commits=_commits(ordered),
        unplanned=bool(_last(report.unplanned for report in ordered)),
        made_for=_last(report.made_for for report in ordered),
        needed_intervention=bool(_last(report.needed_intervention for report in ordered)),
    )


def environment_of(name: str | None) -> str:
    """Normalizes all names for production; no name means production."""
    word = (name or "").strip().lower()
    return PRODUCTION if word in {"", "prod", "prd", "live", PRODUCTION} else word


def as_json(report: Report) -> dict[str, object]:
    """The report as it is stored, without the fields that it leaves out."""
    stored: dict[str, object] = {}
    for name in _FIELDS:
        value = getattr(report, name)
        if value is None or value == ():
            continue
        if isinstance(value, datetime):
            stored[name] = value.isoformat()
        elif name == "commits":
            stored[name] = _commits_as_json(report.commits)
        else:
            stored[name] = value
    return stored


def from_json(stored: dict[str, object]) -> Report:
    """The report that `as_json` was made of."""
    values: dict[str, object] = dict(stored)
    for name in ("told_at", "started_at", "finished_at"):
        if name in values:
            values[name] = datetime.fromisoformat(str(values[name]))
    if "outcome" in values:
        values["outcome"] = Outcome(str(values["outcome"]))
    commits = values.get("commits", [])
    assert isinstance(commits, list)
    values["commits"] = _commits_from_json(commits)
    return Report(**values)  # type: ignore[arg-type]


def _commits_as_json(commits: Iterable[Commit]) -> list[tuple[str, str | None]]:
    return [(sha, at.isoformat() if at else None) for sha, at in commits]


def _commits_from_json(commits: Iterable[tuple[str, str | None]]) -> tuple[Commit, ...]:
    return tuple(Commit(sha, datetime.fromisoformat(at) if at else None) for sha, at in commits)


DEPLOYMENT_FIELDS = tuple(Deployment.__dataclass_fields__)
_FIELDS = tuple(Report.__dataclass_fields__)
# If two outcomes are reported for the same time, the worse one counts.
_BELIEF = {Outcome.CANCELED: 0, Outcome.SUCCEEDED: 1, Outcome.FAILED: 2}


def _outcome(reports: Sequence[tuple[datetime, Report]]) -> tuple[Outcome, datetime | None]:
    """The outcome and its end; `reports` are in order.

    The end is the earliest one stated by the final reports since the last change of outcome, else the earliest time of
    those reports.
    """
    finals = [(at, report) for at, report in reports if report.outcome is not None and report.outcome.final]
    if not finals:
        running = any(report.outcome is Outcome.IN_PROGRESS or report.started_at for _, report in reports)
        return (Outcome.IN_PROGRESS if running else Outcome.PENDING), None
    finals.sort(key=lambda each: (each[0], _BELIEF[each[1].outcome or Outcome.CANCELED]))
    outcome = finals[-1][1].outcome
    assert outcome is not None, "only final ones are here"
    since = list(takewhile(lambda each: each[1].outcome is outcome, reversed(finals)))
    stated = [report.finished_at for _, report in since if report.finished_at is not None]
    return outcome, min(stated) if stated else min(at for at, _ in since)


def _last(values: Iterable[T | None]) -> T | None:
    known = [value for value in values if value is not None]
    return known[-1] if known else None


def _commits(ordered: Iterable[Report]) -> tuple[Commit, ...]:
    times: dict[str, datetime | None] = {}
    for report in ordered:
        for commit in report.commits:
            known = times.get(commit.sha)
            times[commit.sha] = min(known, commit.at) if known and commit.at else known or commit.at
    return tuple(Commit(sha, times[sha]) for sha in sorted(times))
