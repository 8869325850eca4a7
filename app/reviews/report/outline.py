"""The outlines of a report: facts arranged as sections of blocks.

Pure: no clock, no I/O, no settings. Every finding and every action item stands in each outline exactly once, and a
section without anything says so.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.path import Effect, Path
from app.reviews.lifecycle import Element, FindingKind, ReviewState
from app.reviews.report.entries import task_words
from app.reviews.report.facts import ActionItem, Finding, Incident, ReportFacts
from app.reviews.report.questions import questions


class Outline(StrEnum):
    """`guide`: after the guide in chapter 10 of "Post-Incident Reviews" (O'Reilly, 2017). `postmortem`: the seven
    sections of a common postmortem.
    """

    GUIDE = "guide"
    POSTMORTEM = "postmortem"


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Plot:
    """The path of an incident to its recovery."""

    title: str
    path: Path


Block = Paragraph | Bullets | Table | Plot


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: Sequence[Block]
    sections: Sequence["Section"] = ()


@dataclass(frozen=True, slots=True)
class Report:
    title: str
    introduction: Sequence[Block]
    sections: Sequence[Section]


def report(facts: ReportFacts, outline: Outline) -> Report:
    arranged = _guide if outline is Outline.GUIDE else _postmortem
    sections = [*_preview(facts), *arranged(facts)]
    return Report(f"{facts.number}: {facts.title}", list(_introduction(facts)), sections)


def _introduction(facts: ReportFacts) -> Iterator[Block]:
    if facts.summary.strip():
        yield Paragraph(facts.summary)
    yield Paragraph(_in_numbers(facts))
    held = "It has not been held yet." if facts.held_at is None else f"It was held on {_time(facts.held_at)}"
    if facts.held_at is not None:
        held += f" and took {_duration(facts.duration_seconds)}." if facts.duration_seconds else "."
    led = f" It was led by {facts.facilitator}." if facts.facilitator else ""
    yield Paragraph(f"This review is {facts.state}. {held}{led}")


def _preview(facts: ReportFacts) -> Iterator[Section]:
    """For the participants of a meeting that has not taken place."""
    if facts.state != ReviewState.DRAFT:
        return
    purpose = (
        "This is a preview for those who will meet. Please read the timeline, correct what is wrong or missing in it, "
        "and come with your own view of what happened."
    )
    asked = questions(facts)
    still_open: list[Block] = [Paragraph("The facts leave open:"), Bullets(asked)] if asked else []
    yield Section("Before the meeting", [Paragraph(purpose), *still_open])


def _in_numbers(facts: ReportFacts) -> str:
    """A summary in fixed sentences."""
    said = []
    for one in facts.incidents:
        lasted = one.measures.get("time_to_recover")
        until = f"was restored after {_duration(lasted)}" if lasted is not None else "has no recorded recovery"
        said.append(f"{one.number} ({one.severity}) affected {one.service} from {_time(_start(one))}; it {until}.")
        for currency, (low, expected, high) in one.cost.items():
            said.append(f"Its estimated cost is {expected} {currency} ({low} to {high}).")
    if not facts.incidents:
        said.append("No incident belongs to this review.")
    still_open = sum(item.state in {"open", "in_progress"} for item in facts.action_items)
    said.append(
        f"{len(facts.findings)} findings and {len(facts.action_items)} action items, {still_open} of them open."
    )
    return " ".join(said)


# — the guide —


def _guide(facts: ReportFacts) -> Iterator[Section]:
    yield Section("Goal and key metrics", _key_metrics(facts))
    yield Section("Timeline", _or_nothing(list(_timeline(facts))))
    yield Section("Tasks and their effects", _or_nothing(list(_tasks(facts))))
    yield _of_findings("How decisions were made", facts, {FindingKind.HUMAN_FACTOR, FindingKind.GAP})
    yield _of_findings(
        "Learnings",
        facts,
        {FindingKind.LEARNING, FindingKind.WENT_WELL, FindingKind.WENT_BADLY, FindingKind.LUCK},
    )
    yield _of_findings("Contributing factors", facts, {FindingKind.FACTOR, FindingKind.MITIGATOR, FindingKind.RISK})
    yield Section("Action items", [*_items(facts.action_items), *_nothing_now(facts)])
    yield _of_findings("Open questions and ideas for later", facts, {FindingKind.QUESTION, FindingKind.PARKED})


def _key_metrics(facts: ReportFacts) -> list[Block]:
    goal = "Learn how to know sooner, how to recover sooner, and how to improve."
    rows = [
        [
            one.number,
            one.severity,
            one.service,
            *(_measure(one, name) for name in ("time_to_acknowledge", "time_to_recover", *_PHASES)),
        ]
        for one in facts.incidents
    ]
    columns = ["Incident", "Severity", "Service", "Time to acknowledge", "Time to recover", *map(str.title, _PHASES)]
    return [Paragraph(goal), Table(columns, rows) if rows else Paragraph(NOTHING)]


_PHASES = ("detection", "response", "remediation", "analysis", "readiness")


def _timeline(facts: ReportFacts) -> Iterator[Block]:
    for one in facts.incidents:
        rows = [[_time(each.at), each.kind, each.by or "", each.text, str(each.phase or "")] for each in one.entries]
        yield Paragraph(f"{one.number}: {one.title}. Times are UTC.")
        yield Table(["Time", "Event", "By", "Text", "Phase"], rows) if rows else Paragraph(NOTHING)
        if one.entries_left_out:
            yield Paragraph(f"Later entries are left out here: {one.entries_left_out:,}. The timeline has them.")


def _tasks(facts: ReportFacts) -> Iterator[Block]:
    for one in facts.incidents:
        counts = one.path.counts
        shown = ", ".join(f"{counts[effect]} {effect}" for effect in Effect)
        yield Plot(f"Path of {one.number} to its recovery", one.path)
        yield Paragraph(f"Effects of the tasks in {one.number}: {shown}.")
        rows = [
            [_time(step.task.at), step.task.by or "", task_words(step.task), str(step.task.effect), str(step.level)]
            for step in one.path.steps
        ]
        yield Table(["Time", "By", "Task", "Effect", "Level"], rows) if rows else Paragraph(NOTHING)


# — the postmortem —


def _postmortem(facts: ReportFacts) -> Iterator[Section]:
    yield Section(
        "1. Incident summary",
        [],
        [
            Section("Date and time", _per_incident(facts, lambda one: _time(_start(one)))),
            Section("Duration", _per_incident(facts, lambda one: _measure(one, "time_to_recover"))),
            Section("Impact", _impact(facts)),
        ],
    )
    yield Section(
        "2. Incident response",
        [],
        [
            Section("Detection", _per_incident(facts, lambda one: f"{_time(one.detected_at)}, after "
                                               f"{_measure(one, 'detection')}")),
            Section("Response", _or_nothing(list(_timeline(facts)))),
            Section("Resolution", _resolution(facts)),
        ],
    )  # fmt: skip
    analyzed = {FindingKind.FACTOR, FindingKind.MITIGATOR, FindingKind.RISK, FindingKind.HUMAN_FACTOR, FindingKind.GAP}
    yield Section(
        "3. Contributing factors",
        [],
        [
            _of_findings(title, facts, analyzed, element)
            for title, element in (
                ("Technology", Element.TECHNOLOGY),
                ("Process", Element.PROCESS),
                ("People", Element.PEOPLE),
                ("Without an element", None),
            )
        ],
    )
    yield Section(
        "4. Lessons learned",
        [],
        [
            _of_findings("What went well", facts, {FindingKind.WENT_WELL, FindingKind.LUCK}),
            _of_findings("What went badly", facts, {FindingKind.WENT_BADLY}),
            _of_findings("What we learned", facts, {FindingKind.LEARNING}),
        ],
    )
    yield Section(
        "5. Action items",
        list(_nothing_now(facts)),
        [
            Section(f"{term.title()}-term", _items([one for one in facts.action_items if one.term == term]))
            for term in ("short", "long")
        ],
    )
    yield _follow_up(facts)
    yield Section(
        "7. Communication",
        [],
        [
            Section("Updates during the incident", _bullets(_recorded(facts, TimelineKind.UPDATE))),
            Section("Participants", _participants(facts)),
        ],
    )


def _impact(facts: ReportFacts) -> list[Block]:
    stated = [Paragraph(facts.customer_impact)] if facts.customer_impact.strip() else []
    noticed = _recorded(facts, TimelineKind.IMPACT)
    numbers = _per_incident(facts, lambda one: f"downtime {_duration(one.downtime_seconds)}; {_cost(one)}")
    return [*stated, *numbers, *([Bullets(noticed)] if noticed else [])]


def _resolution(facts: ReportFacts) -> list[Block]:
    stated = [Paragraph(facts.resolution)] if facts.resolution.strip() else []
    return [*stated, *_tasks(facts)] or [Paragraph(NOTHING)]


def _follow_up(facts: ReportFacts) -> Section:
    when = "No follow-up is planned." if facts.follow_up_at is None else f"On {_time(facts.follow_up_at)}."
    kinds = {FindingKind.QUESTION, FindingKind.PARKED}
    return Section(
        "6. Follow-up", [Paragraph(when)], [_of_findings("Open questions and ideas for later", facts, kinds)]
    )


def _participants(facts: ReportFacts) -> list[Block]:
    came = {True: "attended", False: "did not attend", None: "attendance not recorded"}
    return _bullets([f"{one.person}: {one.part.replace('_', ' ')}, {came[one.attended]}" for one in facts.participants])


# — blocks —

NOTHING = "Nothing was found."


def _or_nothing(blocks: list[Block]) -> list[Block]:
    return blocks or [Paragraph(NOTHING)]


def _bullets(items: Sequence[str]) -> list[Block]:
    return [Bullets(items)] if items else [Paragraph(NOTHING)]


def _per_incident(facts: ReportFacts, shown: Callable[[Incident], str]) -> list[Block]:
    return _bullets([f"{one.number}: {shown(one)}" for one in facts.incidents])


def _recorded(facts: ReportFacts, kind: TimelineKind) -> list[str]:
    """The entries of a kind in all timelines."""
    return [
        f"{one.number}, {_time(entry.at)}: {entry.text}"
        for one in facts.incidents
        for entry in one.entries
        if entry.kind == kind
    ]


_ANY = object()


def _of_findings(title: str, facts: ReportFacts, kinds: set[FindingKind], element: object = _ANY) -> Section:
    found = [one for one in facts.findings if one.kind in kinds and (element is _ANY or one.element == element)]
    return Section(title, _bullets([_finding(one) for one in found]))


def _finding(one: Finding) -> str:
    about = [one.factor or one.kind.replace("_", " "), *([f"{one.phase}"] if one.phase else [])]
    return f"{one.text} ({', '.join(about)})"


def _items(items: Sequence[ActionItem]) -> list[Block]:
    columns = ["Number", "Action item", "Done when", "Owner", "Priority", "Due", "State", "Link"]
    rows = [
        [
            one.number,
            one.title,
            one.done_when or "",
            one.owner or "no owner",
            str(one.priority or "none"),
            _time(one.due_at) if one.due_at else "",
            one.state.replace("_", " ") + (f", effective: {one.effective.replace('_', ' ')}" if one.effective else ""),
            one.link or "",
        ]
        for one in items
    ]
    return [Table(columns, rows)] if rows else [Paragraph(NOTHING)]


def _nothing_now(facts: ReportFacts) -> Iterable[Block]:
    if facts.nothing_now_because:
        yield Paragraph(f"No action item has priority 1: {facts.nothing_now_because}")


# — values —


def _start(one: Incident) -> datetime:
    return one.impact_started_at or one.detected_at


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _measure(one: Incident, name: str) -> str:
    seconds = one.measures.get(name)
    return _duration(seconds) if seconds is not None else one.reasons.get(name, "not known")


def _duration(seconds: float | None) -> str:
    return "not known" if seconds is None else str(timedelta(seconds=round(seconds)))


def _cost(one: Incident) -> str:
    shown = [f"{expected} {currency} ({low} to {high})" for currency, (low, expected, high) in one.cost.items()]
    return f"cost {', '.join(shown)}" if shown else "cost not known"
