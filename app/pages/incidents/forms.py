"""What people do on the page of an incident. Each form does what the REST route of the same name does."""

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.errors import Conflict, Invalid, NotFound, PreconditionFailed
from app.base.http.requests.fields import UNSTORABLE, IncidentInPath, IncidentRef
from app.base.schema import Incident
from app.base.values.severity import severity_number
from app.incidents import actions, relations
from app.incidents.actions import Ref, etag
from app.incidents.api.actions import ActionInput, IncidentAmendment, MilestoneInput
from app.incidents.api.timeline import CorrectionInput, EntryInPath, Note, TaskInput, WithdrawalInput
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import corrections, notes
from app.incidents.history.timeline import Attribution
from app.incidents.measures.measures import Facts, detected_at, service, severity
from app.incidents.refusals import IncidentNotFound
from app.metrics.deployments import causes
from app.metrics.deployments.api.causes import CauseInput
from app.pages.incidents.page import PageSelection, address_of, incident_page
from app.pages.web.forms import Form, entered_time, parsed
from app.pages.web.frame import PageRequest, PageRoute, Refusal, SignedIn, see_other

LONGEST_KEY = 200

router = APIRouter(prefix="/incidents/{id}", route_class=PageRoute, include_in_schema=False)

Act = Callable[[AsyncSession, Form], Awaitable[object]]


async def done(asked: PageRequest, ref: Ref, action: str, act: Act, *, show: str = "") -> Response:
    """Reads the form and acts. Then the browser opens the page again, at `show`; if the form was refused, the page
    comes at once, with the reason and what was entered.
    """
    form = await asked.form()
    try:
        async with asked.session() as session:
            await act(session, form)
            number = (await actions.find(session, ref)).number
    except IncidentNotFound:
        raise
    except (Conflict, Invalid, NotFound, PreconditionFailed) as problem:
        return await incident_page(asked, ref, PageSelection(), refused=Refusal(problem, form), action=action)
    return see_other(address_of(number) + show)


def time_in(asked: PageRequest, form: Form, name: str = "at") -> datetime | None:
    return entered_time(form.get(name, ""), asked.zone)


def text_in(form: Form, name: str) -> str | None:
    return form.get(name, "").strip() or None


def key_of(form: Form) -> str:
    """The key by which a form that is sent twice is recorded once. Raises Invalid."""
    key = text_in(form, "key")
    if key is None or len(key) > LONGEST_KEY or UNSTORABLE.search(key):
        raise Invalid("the form is incomplete (it has no key); open the page again")
    return key


def _if_match(form: Form) -> str | None:
    """The version that the form was made from. Raises Invalid."""
    version = form.get("version", "")
    if not re.fullmatch("[0-9]{1,18}", version):
        raise Invalid("the form does not state which version of the incident it changes; open the page again")
    return etag(int(version))


def action_of(asked: PageRequest, form: Form, *, not_before: datetime | None = None) -> ActionInput:
    at = time_in(asked, form)
    if at is not None and not_before is not None and at == not_before.replace(second=0, microsecond=0):
        at = not_before  # forms have no seconds: the minute of an event is the event
    return parsed(ActionInput, {"at": at, "note": text_in(form, "note"), "by": asked.person.name})


def _attribution(asked: PageRequest, action: ActionInput) -> Attribution:
    return Attribution(action.at or asked.now, action.by, action.note)


@router.post("/acknowledge")
async def acknowledge(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        row = await actions.find(session, ref)
        action = action_of(asked, form, not_before=actions.detected_at(row))
        stated = action.at is not None
        await actions.acknowledge(
            session, ref, _attribution(asked, action), at_stated=stated, via="page", now=asked.now
        )

    return await done(asked, ref, "acknowledge", act)


@router.post("/resolve")
async def resolve(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        row = await actions.find(session, ref)
        action = action_of(asked, form, not_before=row.last_start_at)
        stated = action.at is not None
        await actions.resolve(session, ref, _attribution(asked, action), at_stated=stated, now=asked.now)

    return await done(asked, ref, "resolve", act)


@router.post("/reopen")
async def reopen(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        await actions.reopen(session, ref, _attribution(asked, action_of(asked, form)), now=asked.now)

    return await done(asked, ref, "reopen", act)


@router.post("/milestones")
async def milestones(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        values = action_of(asked, form).model_dump() | {"milestone": form.get("milestone", "")}
        action = parsed(MilestoneInput, values)
        kind = TimelineKind(action.milestone)
        await actions.milestone(session, ref, kind, _attribution(asked, action), now=asked.now)

    return await done(asked, ref, "milestones", act)


# — corrections of the incident's facts —


async def amend(asked: PageRequest, session: AsyncSession, ref: Ref, form: Form, amendment: IncidentAmendment) -> None:
    """Corrects the fields that were set."""
    changes = amendment.model_dump(exclude_unset=True, exclude={"by"})
    if changes.get("severity"):
        changes["severity"] = severity_number(changes["severity"])
    await actions.amend(session, ref, changes, by=asked.person.name, if_match=_if_match(form), now=asked.now)


def _changed_time(asked: PageRequest, form: Form, name: str, now_shown: datetime | None) -> dict[str, datetime | None]:
    """The field if it was changed; an empty one removes the correction."""
    entered = form.get(name, "")
    unchanged = asked.shown(now_shown, "input") if now_shown is not None else ""
    return {} if entered == unchanged else {name: entered_time(entered, asked.zone)}


@router.post("/impact")
async def impact(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        row = await actions.find(session, ref)
        values: dict[str, Any] = dict(_changed_time(asked, form, "impact_started_at", row.impact_started_at))
        values["impact"] = text_in(form, "impact")
        values["harmed_throughout"] = True if form.get("harmed_throughout") else None
        await amend(asked, session, ref, form, parsed(IncidentAmendment, values))

    return await done(asked, ref, "impact", act)


@router.post("/facts")
async def facts(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        row = await actions.find(session, ref)
        await amend(asked, session, ref, form, parsed(IncidentAmendment, _changed_facts(asked, form, row)))

    return await done(asked, ref, "facts", act)


def _changed_facts(asked: PageRequest, form: Form, row: Incident) -> dict[str, Any]:
    """The fields that were changed: one that still has the value that the page showed is not a correction."""
    known = Facts.of(row)
    values: dict[str, Any] = dict(_changed_time(asked, form, "detected_at", detected_at(known)))
    shown = {
        "title": (row.title_stated or row.title)[:200],
        "service": service(known),
        "severity": f"sev{severity(known)}",
    }
    if bool(form.get("test")) != bool(row.test_stated):
        values["test"] = True if form.get("test") else None
    for name, value in shown.items():
        entered = form.get(name, "").strip()
        if entered != value:
            values[name] = entered or None
    return values


@router.post("/cause")
async def cause(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        chosen = form.get("deployment_id", "")
        if not chosen:
            raise Invalid("choose a deployment, or “no deployment caused it”")
        named = {"none": None, "other": form.get("other", "").strip()}.get(chosen, chosen)
        statement = parsed(CauseInput, {"deployment_id": named, "note": text_in(form, "note"), "by": asked.person.name})
        attribution = Attribution(asked.now, statement.by, statement.note)
        await causes.state_cause(session, ref, statement.deployment_id, attribution, now=asked.now)

    return await done(asked, ref, "cause", act)


# — the timeline —


@router.post("/timeline")
async def add(asked: SignedIn, ref: IncidentInPath) -> Response:
    """A note or, if the form says what it did for the recovery, a task. Sending the form twice adds it once."""

    async def act(session: AsyncSession, form: Form) -> None:
        key = key_of(form)
        what = {"at": time_in(asked, form), "by": asked.person.name}
        stated = ["by"] if what["at"] is None else ["at", "by"]
        text = form.get("note", "").strip()
        more = _task_fields(asked, form)
        if effect := form.get("effect"):
            task = parsed(TaskInput, {**what, **more, "text": text, "effect": effect})
            attribution = Attribution(task.at or task.ended_at or asked.now, task.by, task.text)
            await notes.add_task(session, ref, attribution, task.details(), key=key, stated=stated, now=asked.now)
        elif more:
            raise Invalid("only a task has an end, a stage or a link: choose its effect, or leave these fields empty")
        else:
            note = parsed(Note, {**what, "note": text})
            attribution = Attribution(note.at or asked.now, note.by, note.note)
            await notes.add_note(session, ref, attribution, key=key, stated=stated, now=asked.now)

    return await done(asked, ref, "timeline", act, show="#timeline")


def _task_fields(asked: PageRequest, form: Form) -> dict[str, Any]:
    """The fields that only a task has, as they were entered."""
    ended_at = form.get("ended_at", "")
    known = {
        "ended_at": None if ended_at == form.get("shown_ended_at", "") else entered_time(ended_at, asked.zone),
        "stage": text_in(form, "stage"),
        "link": text_in(form, "link"),
    }
    return {name: value for name, value in known.items() if value is not None}


@router.post("/timeline/{entry}/correct")
async def correct(asked: SignedIn, ref: IncidentInPath, entry: EntryInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        values: dict[str, Any] = {
            "author": text_in(form, "author"),
            "why": text_in(form, "why"),
            "by": asked.person.name,
        }
        values["note"] = form["note"].strip() if "note" in form else None
        values |= {"effect": text_in(form, "effect"), **_task_fields(asked, form)}
        if form.get("at", "") != form.get("shown_at"):  # else it keeps its seconds
            values["at"] = time_in(asked, form)
        correction = parsed(CorrectionInput, values)
        change = corrections.CorrectedValues(
            at=correction.at,
            author=correction.author,
            note=correction.note,
            effect=correction.effect,
            ended_at=correction.ended_at,
            stage=correction.stage,
            link=str(correction.link) if correction.link else None,
        )
        await corrections.correct(
            session,
            ref,
            entry,
            change,
            by=asked.person.name,
            why=correction.why,
            if_match=_if_match(form),
            now=asked.now,
        )

    return await done(asked, ref, f"timeline/{entry}/correct", act, show=f"#entry-{entry}")


@router.post("/timeline/{entry}/withdraw")
async def withdraw(asked: SignedIn, ref: IncidentInPath, entry: EntryInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        withdrawal = parsed(WithdrawalInput, {"why": text_in(form, "why"), "by": asked.person.name})
        await corrections.withdraw(
            session,
            ref,
            entry,
            by=asked.person.name,
            why=withdrawal.why,
            if_match=_if_match(form),
            now=asked.now,
        )

    return await done(asked, ref, f"timeline/{entry}/withdraw", act, show=f"#entry-{entry}")


# — related incidents —


@router.post("/related")
async def relate(asked: SignedIn, ref: IncidentInPath) -> Response:
    async def act(session: AsyncSession, form: Form) -> None:
        entered = form.get("other", "").strip().upper().removeprefix("INC-")
        if not re.fullmatch("[1-9][0-9]{0,17}", entered):
            raise Invalid("enter the number of an incident, for example INC-7")
        attribution = Attribution(asked.now, asked.person.name, text_in(form, "note"))
        await relations.relate(session, ref, int(entered), attribution, now=asked.now)

    return await done(asked, ref, "related", act)


@router.post("/related/{other}/remove")
async def unrelate(
    asked: SignedIn, ref: IncidentInPath, other: Annotated[IncidentRef, Path(alias="other")]
) -> Response:
    async def act(session: AsyncSession, _: Form) -> None:
        await relations.unrelate(session, ref, other, Attribution(asked.now, asked.person.name), now=asked.now)

    return await done(asked, ref, "related", act)
