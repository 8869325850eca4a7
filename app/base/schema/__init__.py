"""The database schema, one file per area. Rules that can be constraints are constraints, named after the rule.

Times are `timestamptz`; ids that leave the service are uuid or `INC-n`; money is `numeric`. Migrations live in
`app/base/db/alembic/`; `alembic check` verifies that they match these tables.

**CRUD slices** take an `AsyncSession` (`http.context.Session` in a route, `db.session` elsewhere) and read rows as
objects: `(await session.exec(select(Rule).order_by(col(Rule.position)))).all()` is a `Sequence[Rule]` (`select` and
`col` from sqlmodel; `col` gives a column its operators for mypy). They change attributes, `session.add(row)`, or
`session.exec(update(Rule).where(…))`; the transaction commits at the end. Three traps: a row is not validated when it
is made, so parse before; a list or dict in a column must be replaced, not changed in place; `session.execute` is
deprecated by sqlmodel, so a `text(…)` statement, or a function that takes an AsyncConnection (`grouping.write`), runs
on `await session.connection()`: the same transaction, but call `await session.flush()` first if rows were changed, and
`await session.refresh(row)` afterwards if it changed a row that is loaded.

**The ingest path** takes an `AsyncConnection` and writes Core and raw statements on `Alert.__table__`
(`insert(Alert.__table__)`, `Alert.__table__.c.series`).
"""

from app.base.schema.access import Source, Token, WebSession
from app.base.schema.catalog import (
    Calendar,
    CalendarHours,
    Maintenance,
    Objective,
    Rule,
    RuleVersion,
    Service,
    ServiceRate,
)
from app.base.schema.columns import Row
from app.base.schema.deployments import Change, Deployment, DeploymentReport
from app.base.schema.incidents import (
    Acknowledgement,
    Alert,
    Incident,
    IncidentRelation,
    Reaction,
    RemovedEntry,
    TimelineEntry,
    UnmatchedResolve,
    incident_number,
)
from app.base.schema.ingest import (
    Delivery,
    Heartbeat,
    Peer,
    Quarantine,
    Reconciler,
    Silence,
    SourceSample,
    SourceWatch,
    StoredRequest,
    Tally,
)
from app.base.schema.metrics import SettledCost, SettledDowntime, SettledInEnvironment, SettledMeasure
from app.base.schema.response import Delegate, IncidentType, Person, Playbook, Target
from app.base.schema.reviews import (
    ActionItem,
    Factor,
    Finding,
    Issue,
    ReportVersion,
    Review,
    ReviewIncident,
    ReviewParticipant,
    action_item_number,
    review_number,
)
from app.base.schema.status_page import (
    PUBLIC_COLUMNS,
    Component,
    ComponentDay,
    PublicIncident,
    PublicReport,
    PublicUpdate,
    WatchGap,
)

metadata = Row.metadata

__all__ = [
    "PUBLIC_COLUMNS",
    "Acknowledgement",
    "ActionItem",
    "Alert",
    "Calendar",
    "CalendarHours",
    "Change",
    "Component",
    "ComponentDay",
    "Delegate",
    "Delivery",
    "Deployment",
    "DeploymentReport",
    "Factor",
    "Finding",
    "Heartbeat",
    "Incident",
    "IncidentRelation",
    "IncidentType",
    "Issue",
    "Maintenance",
    "Objective",
    "Peer",
    "Person",
    "Playbook",
    "PublicIncident",
    "PublicReport",
    "PublicUpdate",
    "Quarantine",
    "Reaction",
    "Reconciler",
    "RemovedEntry",
    "ReportVersion",
    "Review",
    "ReviewIncident",
    "ReviewParticipant",
    "Row",
    "Rule",
    "RuleVersion",
    "Service",
    "ServiceRate",
    "SettledCost",
    "SettledDowntime",
    "SettledInEnvironment",
    "SettledMeasure",
    "Silence",
    "Source",
    "SourceSample",
    "SourceWatch",
    "StoredRequest",
    "Tally",
    "Target",
    "TimelineEntry",
    "Token",
    "UnmatchedResolve",
    "WatchGap",
    "WebSession",
    "action_item_number",
    "incident_number",
    "metadata",
    "review_number",
]
