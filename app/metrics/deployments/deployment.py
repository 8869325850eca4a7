"""Combines all reports about a deployment into one, and compares it with what was running.

Pure: no clock, no I/O. `deployment_of` depends on the content of the reports and the times they refer to, never on the
order of arrival: a stale `in_progress` cannot undo an outcome, and a later report may complete an earlier one.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import takewhile
from typing import Any, Protocol, TypeVar

from app.base.values import vocabulary
from app.base.values.facts import Change, Commit, Outcome, Report, is_ahead, key_of
from app.base.values.vocabulary import PRODUCTION, normalized

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deployment:
    """`id` is its key: unique, made of source, service, environment and the id that the reports give, `reported_id`.

    `happened_at`: when it finished, else when it began, else when it was first reported. `unchanged`: it deployed what
    was running already. `rolled_back` is the id or key of the deployment that it takes back, `rolled_back_by` the key
    of the one that took it back. `clock_ahead`: a reported time was in the future, so a clock is wrong.
    """

    id: str
    reported_id: str
    source: str | None
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
    rolled_back: str | None = None
    clock_ahead: bool = False
    # These two depend on the other deployments of the service and environment.
    unchanged: bool = False
    rolled_back_by: str | None = None

    @property
    def may_be_blamed(self) -> bool:
        """Whether it may be taken for the cause of an incident: not if it is a rollback, the remedy."""
        happened = self.outcome not in {Outcome.PENDING, Outcome.CANCELED}
        return happened and not self.unchanged and self.rolled_back is None

    @property
    def is_marked(self) -> bool:
        """Whether a report says that it failed in production."""
        return self.needed_intervention or self.rolled_back_by is not None

    @property
    def counts(self) -> bool:
        """Whether it is a finished deployment in the sense of DORA."""
        return self.outcome in {Outcome.SUCCEEDED, Outcome.FAILED} and not self.unchanged

    @property
    def began_at(self) -> datetime:
        """The earliest time at which it can have had impact."""
        return self.started_at or self.happened_at


def as_columns(deployment: Deployment) -> dict[str, Any]:
    """The values of its row by column name, without those that depend on other deployments."""
    values = {name: getattr(deployment, name) for name in DEPLOYMENT_FIELDS if name not in _OF_OTHERS}
    return values | {"outcome": deployment.outcome.value, "commits": _commits_as_json(deployment.commits)}


def from_columns(values: Iterable[Any]) -> Deployment:
    """The deployment whose row has these values, in the order of `DEPLOYMENT_FIELDS`."""
    stored = dict(zip(DEPLOYMENT_FIELDS, values, strict=True))
    stored["reported_id"] = stored["reported_id"] or stored["id"]  # from before migration 0010
    return Deployment(
        **stored | {"outcome": Outcome(stored["outcome"]), "commits": _commits_from_json(stored["commits"])}
    )


def digest_of(report: Report) -> str:
    """Equal for reports with the same content."""
    return sha256(json.dumps(as_json(report), sort_keys=True).encode()).hexdigest()


def deployment_key(report: Report, source: str) -> str:
    return key_of(source, report.service, environment_of(report.environment), report.id)


def deployment_of(reports: Iterable[tuple[Report, datetime]], *, source: str) -> Deployment:
    """Combines the reports of one deployment (at least one), each with its time of arrival.

    The last final outcome counts, by the time it refers to. If other fields contradict each other, the last report
    counts; of several starts, the earliest. Commits are merged.
    """
    received = [*reports]
    dated = sorted(
        (
            (report.reported_at or report.finished_at or received_at, digest_of(report), report)
            for report, received_at in received
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
    unplanned = _last(report.unplanned for report in ordered)
    rolled_back = _last(report.rolled_back for report in ordered)
    last = ordered[-1]
    return Deployment(
        id=deployment_key(last, source),
        reported_id=last.id,
        source=source,
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
        unplanned=rolled_back is not None if unplanned is None else unplanned,
        made_for=_last(report.made_for for report in ordered),
        needed_intervention=bool(_last(report.needed_intervention for report in ordered)),
        rolled_back=rolled_back,
        clock_ahead=any(
            is_ahead(at, received_at)
            for report, received_at in received
            for at in (report.reported_at, report.started_at, report.finished_at)
        ),
    )


def environment_of(name: str | None) -> str:
    """The usual name of the environment; a report that names none is about production."""
    return vocabulary.environment_of(name or "") or PRODUCTION


def contradiction(new: Report, known: Iterable[Report]) -> str | None:
    """Why the report cannot be about the same deployment as the known ones, or None.

    A later outcome is not a contradiction, because a job may run again; two outcomes of the same moment are one.
    """
    for each in known:
        for name, ours, theirs in (("version", new.version, each.version), ("sha", new.sha, each.sha)):
            if ours is not None and theirs is not None and not _is_same(ours, theirs):
                return f"another `{name}` was reported"
        if new.outcome is not each.outcome and new.finished_at is not None and new.finished_at == each.finished_at:
            both = {new.outcome, each.outcome}
            if both <= {Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELED}:
                return "another `outcome` was reported for the same `finished_at`"
        if new.rolled_back is not None and each.rolled_back is not None and new.rolled_back != each.rolled_back:
            return "another `rolled_back` was reported"
    return None


def _is_same(one: str, other: str) -> bool:
    """Whether two versions or revisions mean the same: `v1.2` is `1.2`, and a sha may be abbreviated."""
    if one.removeprefix("v") == other.removeprefix("v"):
        return True
    short, long = sorted((one, other), key=len)
    return re.fullmatch("[0-9a-f]{7,64}", long) is not None and len(short) >= SHORTEST_SHA and long.startswith(short)


SHORTEST_SHA = 7


# — what is running —


class Finished(Protocol):
    """The properties of a deployment that `unchanged` uses."""

    @property
    def id(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def version(self) -> str | None: ...
    @property
    def sha(self) -> str | None: ...


def unchanged(ordered: Iterable[Finished]) -> set[str]:
    """The ids of those that deployed what was running already.

    `ordered` are the deployments of one service and environment, earliest first. After a failed one it is unknown what
    is running, unless it tried to deploy the same again.
    """
    found = set()
    running: Finished | None = None
    for each in ordered:
        if each.outcome in {Outcome.PENDING, Outcome.CANCELED}:
            continue
        if running is not None and _is_same_revision(each, running):
            found.add(each.id)
        elif each.outcome == Outcome.SUCCEEDED:
            running = each
        elif each.outcome in {Outcome.FAILED, Outcome.UNKNOWN}:
            running = None
    return found


def _is_same_revision(one: Finished, other: Finished) -> bool:
    both = [(one.sha, other.sha), (_fixed(one.version), _fixed(other.version))]
    stated = [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]
    return bool(stated) and all(_is_same(ours, theirs) for ours, theirs in stated)


def _fixed(version: str | None) -> str | None:
    """None for a name that means another version from day to day, such as that of a branch."""
    return None if version is None or normalized(version) in _MOVING else version


_MOVING = frozenset(
    normalized(word) for word in ("latest", "main", "master", "head", "develop", "trunk", "stable", "edge", "nightly")
)


# — as stored —


@dataclass(frozen=True, slots=True)
class StoredChange(Change):
    """`key` is made of the source and the id that the source gave. `deployment`: it is a deployment that deployed what
    was running already.
    """

    key: str = ""
    source: str | None = None
    deployment: bool = False


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
    for name in ("reported_at", "started_at", "finished_at"):
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
_OF_OTHERS = frozenset({"unchanged", "rolled_back_by"})
_FIELDS = tuple(Report.__dataclass_fields__)
# If two outcomes are reported for the same time, the worse one counts.
_BELIEF = {Outcome.UNKNOWN: 0, Outcome.CANCELED: 1, Outcome.SUCCEEDED: 2, Outcome.FAILED: 3}


def _outcome(reports: Sequence[tuple[datetime, Report]]) -> tuple[Outcome, datetime | None]:
    """The outcome and its end; `reports` are in order.

    The end is the earliest one stated by the final reports since the last change of outcome, else the earliest time of
    those reports.
    """
    finals = [(at, report) for at, report in reports if report.outcome is not None and report.outcome.final]
    if not finals:
        running = any(report.outcome is Outcome.IN_PROGRESS or report.started_at for _, report in reports)
        return (Outcome.IN_PROGRESS if running else Outcome.PENDING), None
    # A word that is not known does not undo an outcome that is.
    finals = [each for each in finals if each[1].outcome is not Outcome.UNKNOWN] or finals
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
