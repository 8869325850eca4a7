"""What happens in the quarter of the demo: services, deployments, alerts, and what people did. Pure data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple


class Episode(NamedTuple):
    """When an alert fired. Without `ended_at` it is still firing when the quarter ends."""

    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Alert:
    """One series of an alerting rule, with its episodes in one incident, in order."""

    labels: Mapping[str, str]
    summary: str
    episodes: Sequence[Episode]
    pending: str | None = None  # the rule's `for:`


ActionKind = Literal["acknowledge", "identified", "mitigated", "note", "task", "fact", "role", "correct", "resolve"]


@dataclass(frozen=True, slots=True)
class Action:
    """A person acts on an incident.

    `detail` holds the fields that `correct` corrects, and the other fields of a `task`, `fact` or `role`.
    """

    kind: ActionKind
    at: datetime
    by: str
    note: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Declaration:
    """How a person declares an incident that monitoring does not see."""

    title: str
    severity: str
    impact_started_at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Deployment:
    id: str
    service: str
    version: str
    sha: str
    started_at: datetime
    finished_at: datetime
    commits: Sequence[tuple[str, datetime]]
    outcome: str = "succeeded"
    unplanned: bool = False
    rolled_back: str | None = None  # the id of the deployment that it takes back


@dataclass(frozen=True, slots=True)
class Participant:
    person: str
    part: str
    attended: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    kind: str
    text: str
    phase: str | None
    element: str
    factor: str | None = None
    new_to: int | None = None


@dataclass(frozen=True, slots=True)
class ActionItem:
    """`finding`: the place of the finding that it follows from, the first being 1."""

    title: str
    done_when: str
    finding: int
    phase: str
    term: str
    owner: str
    priority: int
    due_at: datetime
    done_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """A review from its draft to its publication."""

    title: str
    summary: str
    customer_impact: str
    resolution: str
    facilitator: str
    participants: Sequence[Participant]
    held_at: datetime
    lasted: timedelta
    findings: Sequence[Finding]
    action_items: Sequence[ActionItem]


@dataclass(frozen=True, slots=True)
class Incident:
    """Alerts of one source, or a declaration, with people's actions in order of time.

    Incidents of one service and environment are hours apart.
    """

    service: str
    environment: str
    began_at: datetime
    ended_at: datetime | None
    source: str | None = None  # None: declared
    alerts: Sequence[Alert] = ()
    actions: Sequence[Action] = ()
    declaration: Declaration | None = None
    remedy: Deployment | None = None  # made for it
    review: Review | None = None

    @property
    def acknowledged_at(self) -> datetime | None:
        return next((action.at for action in self.actions if action.kind == "acknowledge"), None)


@dataclass(frozen=True, slots=True)
class Quarter:
    """Everything that happens from `begins_at` to `ends_at`. Deployments and incidents are in order of their start."""

    begins_at: datetime
    ends_at: datetime
    deployments: Sequence[Deployment]
    incidents: Sequence[Incident]
