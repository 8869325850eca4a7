"""The response to an incident in the words of its page. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from app.base.values.severity import severity_name
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.fact import Fact, of_kind
from app.incidents.measures.measures import Facts, Measured, service, severity
from app.pages import words
from app.response.definition import Definition
from app.response.plan import Channel, CustomerImpact, ExitState, filled_in
from app.response.playbooks import PlaybookState, state_of, version_in_use
from app.response.roles import HELD_BY_MANY, Participant
from app.response.store.response import Response, RoleState
from app.response.targets import Judged, TargetOutcome, Verdict

UPDATES_AT_MOST = 2  # on the panel; the timeline has all, with their whole text
NAMES_AT_MOST = 200  # suggested in fields

ROLES = {
    "commander": "Incident commander",
    "responder": "Responders",
    "expert": "Experts",
    "observer": "Observers",
}


def role_words(role: str) -> str:
    return ROLES.get(role, role.replace("_", " ").capitalize())


@dataclass(frozen=True, slots=True)
class RoleLine:
    """`is_shared`: many people may hold it at a time."""

    state: RoleState
    words: str
    is_shared: bool

    @property
    def holder(self) -> str:
        """The person who holds a role that one person holds at a time; empty if it is vacant or shared."""
        return "" if self.is_shared or not self.state.holders else self.state.holders[0].person


@dataclass(frozen=True, slots=True)
class ChannelLine:
    channel: Channel
    in_use: bool


@dataclass(frozen=True, slots=True)
class PlaybookLine:
    name: str
    version: int
    expired: bool
    address: str


@dataclass(frozen=True, slots=True)
class TargetLine:
    """`agreed` says what was agreed on; `verdict` is whether it was met."""

    agreed: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Panel:
    """`is_small`: nothing applies and nothing was recorded, so that there is little to show."""

    response: Response
    is_small: bool
    declared_by: str | None
    time_to_declare: Measured
    channels: Sequence[ChannelLine]
    other_room: str | None  # the channel in use, if it is none of those of the type
    roles: Sequence[RoleLine]
    others: Sequence[Participant]  # who hold no role now
    given: Sequence[Fact]  # updates, newest first
    more_given: int
    targets: Sequence[TargetLine]
    playbooks: Sequence[PlaybookLine]
    names: Sequence[str]  # of people who may be meant
    type_names: Sequence[str]

    @property
    def exit(self) -> Sequence[ExitState]:
        return self.response.exit

    @property
    def exit_open(self) -> int:
        return sum(not each.met for each in self.exit)

    @property
    def customers(self) -> CustomerImpact:
        return self.response.impact

    @property
    def definition(self) -> Definition:
        return self.response.definition


def panel(found: Response, *, declared_by: str | None, time_to_declare: Measured, now: datetime) -> Panel:
    row, type_ = found.incident, found.type
    facts = Facts.of(row)
    values = {"number": str(row.number), "service": service(facts), "severity": severity_name(severity(facts))}
    channels = [
        Channel(each.kind, filled_in(each.name, values), each.link) for each in (type_.channels if type_ else ())
    ]
    holding = {each.person for each in found.history if each.ends_at is None}
    recorded = [each for each in found.facts if each.kind not in _ACTIONS]
    given = of_kind(found.facts, TimelineKind.UPDATE)[::-1]
    is_declared = row.declared_at is not None and not row.declared
    return Panel(
        response=found,
        is_small=type_ is None and not recorded and not is_declared,
        declared_by=declared_by,
        time_to_declare=time_to_declare,
        channels=[ChannelLine(each, each.name == found.room) for each in channels],
        other_room=found.room if found.room not in {each.name for each in channels} else None,
        roles=[RoleLine(each, role_words(each.role), each.role in HELD_BY_MANY) for each in found.roles],
        others=[each for each in found.people if each.person not in holding],
        given=given[:UPDATES_AT_MOST],
        more_given=max(0, len(given) - UPDATES_AT_MOST),
        targets=_targets(found.verdicts),
        playbooks=_playbooks(found, service(facts), now),
        names=_names(found),
        type_names=sorted(each.name for each in found.types),
    )


_ACTIONS = {TimelineKind.ACKNOWLEDGED, TimelineKind.TASK}  # without a response too


def _targets(verdicts: Mapping[Judged, Verdict]) -> list[TargetLine]:
    return [
        TargetLine(_AGREED[what].format(words.duration(verdict.target_seconds)), verdict)
        for what, verdict in verdicts.items()
        if verdict.outcome is not TargetOutcome.NOT_AGREED and verdict.target_seconds is not None
    ]


_AGREED = {
    Judged.ACKNOWLEDGE: "Acknowledge within {}",
    Judged.UPDATE: "Update every {}",
    Judged.RESOLVE: "Recover within {}",
}


def _playbooks(found: Response, of_service: str, now: datetime) -> list[PlaybookLine]:
    used = (version_in_use(versions, now=now) for versions in found.playbooks)
    return [
        PlaybookLine(
            each.name,
            each.version,
            state_of(each, now=now) is PlaybookState.EXPIRED,
            f"/response/playbooks/{quote(of_service, safe='')}/{each.name}",
        )
        for each in used
        if each is not None
    ]


def _names(found: Response) -> list[str]:
    """Delegates first: they are who is meant most often."""
    delegates = [person for role in found.roles for person in role.delegates]
    return [*dict.fromkeys([*delegates, *(each.person for each in found.people)])][:NAMES_AT_MOST]


# — entries of the timeline —


def fact_words(kind: TimelineKind, detail: Mapping[str, Any]) -> str:
    """What an entry of a kind with details says besides its title and its note."""
    return _WORDS[kind](detail) if kind in _WORDS else ""


def _because(why: str | None) -> str:
    return f", because {why}" if why else ""


_WORDS: Mapping[TimelineKind, Callable[[Mapping[str, Any]], str]] = {
    TimelineKind.ROLE: lambda role: f"{role['person']}, {'' if role['holds'] else 'no longer '}{_lower(role['role'])}",
    TimelineKind.JOINED: lambda one: f"{one['person']} ({', '.join(filter(None, (one['how'], one.get('channel'))))})",
    TimelineKind.UPDATE: lambda update: f"for {update['audience']}, {update['status']}",
    TimelineKind.CRITERION: lambda one: f"{'met' if one['met'] else 'not met'}: {one['criterion']}",
    TimelineKind.ROOM: lambda room: room["channel"] + _because(room.get("why")),
    TimelineKind.IMPACT: lambda impact: "; ".join(impact_words(impact)),
    TimelineKind.EVIDENCE: lambda evidence: str(evidence.get("title") or evidence["link"]),
    TimelineKind.SAID: lambda said: said.get("room") or "",
}


def _lower(role: str) -> str:
    shown = role_words(role)
    return shown[:1].lower() + shown[1:]


def impact_words(detail: Mapping[str, Any]) -> list[str]:
    """`1,200 customers`, `25 % of all customers`, `50 support requests`, and what they could not do."""
    found = []
    if detail.get("customers") is not None:
        found.append(words.plural(detail["customers"], "customer"))
    if detail.get("share") is not None:
        found.append(f"{words.share(float(str(detail['share'])))} of all customers")
    if detail.get("support_requests") is not None:
        found.append(words.plural(detail["support_requests"], "support request"))
    if detail.get("what"):
        found.append(detail["what"])
    return found
