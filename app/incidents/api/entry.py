"""An entry of the timeline in responses."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.http.requests.fields import AtShown
from app.base.schema import Incident, TimelineEntry
from app.incidents import actions
from app.incidents.api.answer import columns_of
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history import timeline
from app.incidents.history.path import Phase, phase_at
from app.incidents.measures.measures import Facts


class RevisionModel(BaseModel):
    """Why an entry no longer counts."""

    status: Literal["corrected", "withdrawn"]
    entry: int = Field(description="Id of the entry that corrects or withdraws it")
    at: AtShown = Field(description="When it was corrected or withdrawn")
    by: str | None = Field(description="The person who corrected or withdrew it")
    why: str | None


class EntryModel(BaseModel):
    """One event. An entry that was corrected or withdrawn stays in the timeline, with a `revision`."""

    id: int
    at: AtShown = Field(description="When it happened")
    recorded_at: AtShown = Field(description="When it was recorded")
    kind: str = Field(examples=["acknowledged"])
    by: str | None
    note: str | None
    detail: dict[str, Any] | None = Field(
        description="Further fields of an entry of its kind: for a task `effect`, `ended_at`, `stage`, `link`, "
        "`command` and `playbook`; for other kinds, the fields with which they are recorded. What a source reported "
        "about another "
        "tool has `source`, its name, and `at_arrival` if the tool reports no time, so that `at` is when the request "
        "was received. An acknowledgement recorded here has `via`: `api` or `page`",
        examples=[
            {
                "effect": "positive",
                "ended_at": "2026-08-20T10:20:00Z",
                "stage": None,
                "link": None,
                "command": "systemctl restart workers",
                "playbook": {"service": "checkout", "name": "restart-workers", "version": 3},
            }
        ],
    )
    phase: Phase | None = Field(
        description="The phase of the incident in which it happened; null between detection and end while the "
        "identification of the cause is not stated"
    )
    corrects: int | None = Field(
        description="If it corrects or withdraws what a person recorded: the id of the first entry of that"
    )
    revision: RevisionModel | None = Field(description="Null: nothing has replaced the entry")
    flags: list[str] = Field(
        description="`before_detection`: an acknowledgement before the incident was detected, which does not count"
    )


async def entry_models(session: AsyncSession, items: Sequence[TimelineEntry], incident: Incident) -> list[EntryModel]:
    """Two statements at most. All entries are of this incident."""
    entries_of: dict[int, list[TimelineEntry]] = defaultdict(list)
    for entry in await timeline.entries_of_facts(session, {timeline.fact_of(entry) for entry in items}):
        entries_of[timeline.fact_of(entry)].append(entry)
    facts = Facts.of(incident)
    return [_entry(entry, entries_of[timeline.fact_of(entry)], incident, facts) for entry in items]


def _entry(entry: TimelineEntry, fact: Sequence[TimelineEntry], incident: Incident, facts: Facts) -> EntryModel:
    """`fact` has all entries of the same fact, in the order in which they were recorded."""
    later = next((one for one in fact if one.id > entry.id), None)
    revision = later and RevisionModel(
        status="withdrawn" if later.kind == TimelineKind.WITHDRAWN else "corrected",
        entry=later.id,
        at=later.recorded_at,
        by=later.corrected_by,
        why=later.why,
    )
    early = entry.kind == TimelineKind.ACKNOWLEDGED and entry.at < actions.detected_at(incident)
    flags = ["before_detection"] if early else []
    derived = {"phase": phase_at(facts, entry.at), "revision": revision, "flags": flags}
    return EntryModel.model_validate(columns_of(entry, EntryModel) | derived)


async def recorded(session: AsyncSession, entry: TimelineEntry) -> EntryModel:
    """An entry that a merge or split may have moved since it was recorded."""
    [model] = await entry_models(session, [entry], await actions.find(session, entry.incident_id))
    return model
