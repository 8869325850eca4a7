"""The response to one incident over HTTP: its roles and its state."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session, SettingsDep
from app.base.http.requests.fields import At, AtShown, IncidentInPath, Name
from app.base.http.responses.problems import problem_responses
from app.base.schema import Playbook
from app.base.values.severity import severity_name
from app.incidents import actions
from app.incidents.api.entry import EntryModel, recorded
from app.incidents.history.details import Person, Role
from app.incidents.history.timeline import Attribution
from app.incidents.measures.measures import Facts, service, severity
from app.response.definition import Definition, Met, Similar, SimilarLastedLonger
from app.response.plan import IncidentType, filled_in
from app.response.playbooks import PlaybookState, state_of, version_in_use
from app.response.store import response as store
from app.response.store.similar import read_similar
from app.response.targets import TargetOutcome

router = APIRouter(prefix="/api/v1/incidents", tags=["response"])


# — roles —


class RoleInput(Role):
    instead_of: Person | None = Field(
        None,
        alias="from",
        description="The person who is relieved: 409 if that person does not hold the role now. Omit it to take the "
        "role "
        "from the person who holds it",
        examples=["bob"],
    )
    at: At | None = Field(None, description="When it happened; defaults to now")
    by: Name | None = Field(None, description="Who records it; defaults to the name of the token", examples=["ada"])

    @model_validator(mode="after")
    def _relieves(self) -> "RoleInput":
        if self.instead_of is not None and not self.holds:
            message = "`from` is only for taking a role"
            raise ValueError(message)
        return self


@router.post(
    "/{id}/roles",
    status_code=201,
    response_model=EntryModel,
    responses=problem_responses(404, 409),
    summary="Take, hand over or give up a role",
)
async def assign_role(
    writer: Writer,
    session: Session,
    now: Now,
    ref: IncidentInPath,
    role: Annotated[
        RoleInput,
        Body(
            examples=[
                {"role": "commander", "person": "ada", "from": "bob"},
                {"role": "scribe", "person": "cy", "holds": False},
            ]
        ),
    ],
) -> EntryModel:
    """If only one person can hold the role at a time, taking it also relieves the previous holder. Taking it again at
    the same time, or without an `at`, records nothing. Facts may be recorded in any order, but only a person who holds
    the role at `at` can give it up.
    """
    entry = await store.assign(
        session,
        ref,
        role.role,
        role.person,
        Attribution(role.at or now, role.by or writer.name),
        holds=role.holds,
        instead_of=role.instead_of,
        at_stated=role.at is not None,
        now=now,
    )
    return await recorded(session, entry)


# — the state —


class _Shown(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ChannelModel(BaseModel):
    kind: str
    name: str = Field(description="With its placeholders filled in", examples=["#inc-7"])
    link: str | None


class ExitModel(_Shown):
    criterion: str
    met: bool
    by: str | None = Field(description="Who stated it last; null: no one")
    at: AtShown | None


class RoleModel(BaseModel):
    role: str
    people: list[str] = Field(description="Who holds it; empty: vacant")
    since: AtShown | None = Field(description="Since when the first of them has held it; null: vacant")
    delegates: list[str] = Field(description="The people who can fill it, in order of preference")
    suggested: str | None = Field(
        description="While the incident is open and the role vacant: the first delegate who is not away and holds no "
        "role in another open incident"
    )


class HoldingModel(_Shown):
    role: str
    person: str
    begins_at: AtShown = Field(serialization_alias="from")
    ends_at: AtShown | None = Field(serialization_alias="to", description="Null: still held")


class PersonInvolvedModel(_Shown):
    person: str
    first_seen_at: AtShown
    how: str | None = Field(description="`alerted`, `asked` or `came`, if it was recorded that the person joined")


class UpdatesModel(BaseModel):
    """Updates to stakeholders."""

    cadence_seconds: float | None = Field(
        description="The longest time between two updates: from the type, else from the target, else 30 minutes for "
        "sev1 and sev2; null: none is due"
    )
    last_at: AtShown | None
    next_due_at: AtShown | None = Field(description="Null: none is due")
    overdue_seconds: float
    longest_gap_seconds: float = Field(description="The longest time without one, between detection and end or now")


class VerdictModel(BaseModel):
    target_seconds: int | None
    outcome: TargetOutcome = Field(
        description="By the target in force at detection. `pending`: may still be met; `cannot_tell`: unknown whether "
        "it was met; `not_agreed`: there was no target"
    )
    seconds: float | None = Field(description="The duration that is compared with the target, so far if it is pending")


class TargetsModel(BaseModel):
    acknowledge: VerdictModel
    update: VerdictModel
    resolve: VerdictModel
    responders: int | None = Field(description="How many people were agreed on; `people` has those who responded")
    calendar: str | None = Field(description="The calendar in whose business hours it is measured")


class PlaybookInUseModel(BaseModel):
    name: str
    version: int
    expired: bool = Field(description="Whether it has expired: it may be outdated, but is the last approved version")
    link: str = Field(description="URL of its content, relative to the URL of Aftermath")


class CustomerImpactModel(_Shown):
    customers: int | None
    support_requests: int | None
    share: str | None = Field(examples=["0.25"])
    what: str | None


class SimilarModel(BaseModel):
    """Of similar incidents that began over an hour ago, the newest 1,000. Those that ended sooner without a recovery
    are left out, because they may have gone on.
    """

    of: Similar = Field(description="The same grouping key if there are at least ten, else the same service")
    longer: int = Field(description="How many lasted for more than an hour")
    n: int
    share: float | None = Field(description="`longer` / `n`; null if `n` is below ten")
    low: float | None = Field(description="Lower bound of the 95 % interval of the share")
    high: float | None = Field(description="Upper bound of the 95 % interval of the share")


class AppliedDefinitionModel(BaseModel):
    """A common definition of an incident: it affects customers, is unplanned, and lasts for more than an hour. For
    information only; nothing depends on it.
    """

    met: Met = Field(
        description="Whether the incident meets the definition; `not_yet`: that depends on how long it will last"
    )
    affects_customers: bool = Field(
        description="Whether it had impact outside planned maintenance, or a person recorded customer impact"
    )
    unplanned: bool = Field(description="Whether no part of it was during planned maintenance of its service")
    beyond_an_hour: bool | None = Field(
        description="Whether it lasted for more than an hour, from impact start if stated, else from detection; while "
        "it is open and younger, what a person expects; null: not known"
    )
    similar_lasted_longer: SimilarModel = Field(description="How long similar incidents lasted; only information")


class ResponseModel(BaseModel):
    type: str | None = Field(description="The incident type that applies; null: none matches")
    declared_at: AtShown | None
    channels: list[ChannelModel] = Field(description="In order: the first is primary, the others are backups")
    room: str | None = Field(description="The channel in use, as stated last")
    steps: list[str]
    exit: list[ExitModel] = Field(
        description="The exit criteria of the type, then others that people stated. They do not delay the recovery"
    )
    exit_open: int = Field(description="How many of them are not met")
    roles: list[RoleModel] = Field(description="Those that the type needs, then others that someone holds")
    history: list[HoldingModel] = Field(description="Who held which role when")
    people: list[PersonInvolvedModel] = Field(
        description="Everyone who joined, took a role, acknowledged or did a task"
    )
    first_alerted: str | None = Field(description="The person whom a tool alerted first")
    first_responder: str | None = Field(description="The first person who acknowledged or did a task")
    handovers: int = Field(description="How often a role passed from one person directly to another")
    updates: UpdatesModel
    targets: TargetsModel
    playbooks: list[PlaybookInUseModel] = Field(description="The playbooks in use of its service")
    impact: CustomerImpactModel = Field(description="What customers noticed; a field is null if it was not stated")
    definition: AppliedDefinitionModel


@router.get(
    "/{id}/response",
    response_model=ResponseModel,
    responses=problem_responses(404),
    summary="Get the state of the response to an incident",
)
async def get_response(
    _: Reader, session: Session, now: Now, settings: SettingsDep, ref: IncidentInPath
) -> ResponseModel:
    """Returns what the type of the incident asks for and what has been done. Everything is derived from the facts in
    the timeline.
    """
    row = await actions.find(session, ref)
    found = await store.read_response(session, row, now=now, weights=settings.impact)
    return _model(found, await read_similar(await session.connection(), row, now=now), now)


def _model(found: store.Response, similar: SimilarLastedLonger, now: datetime) -> ResponseModel:
    facts = Facts.of(found.incident)
    target, type_ = found.target, found.type
    verdicts = {
        str(what): VerdictModel(target_seconds=each.target_seconds, outcome=each.outcome, seconds=each.seconds)
        for what, each in found.verdicts.items()
    }
    return ResponseModel(
        type=type_ and type_.name,
        declared_at=found.incident.declared_at,
        channels=_channels(type_, facts, found.incident.number) if type_ else [],
        room=found.room,
        steps=[*type_.steps] if type_ else [],
        exit=[ExitModel.model_validate(each) for each in found.exit],
        exit_open=sum(not each.met for each in found.exit),
        roles=[
            RoleModel(
                role=each.role,
                people=[one.person for one in each.holders],
                since=each.holders[0].begins_at if each.holders else None,
                delegates=[*each.delegates],
                suggested=each.suggested,
            )
            for each in found.roles
        ],
        history=[HoldingModel.model_validate(each) for each in found.history],
        people=[PersonInvolvedModel.model_validate(each) for each in found.people],
        first_alerted=found.first_alerted,
        first_responder=found.first_responder,
        handovers=found.handovers,
        updates=UpdatesModel(
            cadence_seconds=found.updates.cadence and found.updates.cadence.total_seconds(),
            last_at=found.updates.last_at,
            next_due_at=found.updates.next_due_at,
            overdue_seconds=found.updates.overdue.total_seconds(),
            longest_gap_seconds=found.updates.longest_gap.total_seconds(),
        ),
        targets=TargetsModel(
            acknowledge=verdicts["acknowledge"],
            update=verdicts["update"],
            resolve=verdicts["resolve"],
            responders=target and target.responders,
            calendar=target and target.calendar,
        ),
        playbooks=_playbooks(found.playbooks, now),
        impact=CustomerImpactModel.model_validate(found.impact),
        definition=_definition(found.definition, similar),
    )


def _definition(found: Definition, similar: SimilarLastedLonger) -> AppliedDefinitionModel:
    share = similar.share
    return AppliedDefinitionModel(
        met=found.met,
        affects_customers=found.affects_customers,
        unplanned=found.unplanned,
        beyond_an_hour=found.beyond_an_hour,
        similar_lasted_longer=SimilarModel(
            of=similar.of, longer=share.k, n=share.n, share=share.value, low=share.low, high=share.high
        ),
    )


def _channels(type_: IncidentType, facts: Facts, number: int) -> list[ChannelModel]:
    values = {"number": str(number), "service": service(facts), "severity": severity_name(severity(facts))}
    return [ChannelModel(kind=each.kind, name=filled_in(each.name, values), link=each.link) for each in type_.channels]


def _playbooks(found: Sequence[Sequence[Playbook]], now: datetime) -> list[PlaybookInUseModel]:
    used = (version_in_use(versions, now=now) for versions in found)
    return [
        PlaybookInUseModel(
            name=each.name,
            version=each.version,
            expired=state_of(each, now=now) is PlaybookState.EXPIRED,
            link=f"/api/v1/services/{quote(each.service, safe='')}/playbooks/{each.name}/versions/{each.version}",
        )
        for each in used
        if each is not None
    ]
