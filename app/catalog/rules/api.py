"""HTTP API of rules, which derive the service, environment, severity and grouping key of an alert."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Body, Path, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.base import schema
from app.base.http.access.auth import Admin, Reader
from app.base.http.context import Now, Session, Tx
from app.base.http.limits.turns import IN_TURN
from app.base.http.requests.fields import AtShown, EnvironmentName, Input, Name, Slug, Words
from app.base.http.requests.filters import Contained
from app.base.http.requests.paging import Counted, CountedPage, Pages, page_of
from app.base.http.responses.problems import problem_responses
from app.base.values.severity import SeverityName, severity_name
from app.catalog.rules import store
from app.catalog.rules.trial import Difference, Grouped, TrialOutcome
from app.incidents.grouping.rule import DEFAULT_NAME, DEFAULT_RULE, OptionalRecovery, parse_matcher

router = APIRouter(prefix="/api/v1/rules", tags=["rules"])


# — the contract —

MatcherText = Annotated[Words, StringConstraints(min_length=1, max_length=1000)]
Labels = Annotated[list[Name], Field(max_length=30)]
RuleName = Annotated[
    Slug,
    Path(description="Letters, digits, `.`, `_` and `-`", examples=["batch-jobs"]),
]

USUAL_POSITION = 100
LONGEST_SPAN_SECONDS = 366 * 24 * 3600


class RuleInput(Input):
    position: int | None = Field(
        None,
        ge=0,
        le=DEFAULT_RULE.position,
        description=f"Tried in ascending order, ties by name. Default: {USUAL_POSITION}. The default rule is last",
    )
    matchers: list[MatcherText] = Field(
        [],
        max_length=30,
        description="In Alertmanager's syntax, one matcher per string; all must match. Empty matches every alert. A "
        'string may list alternatives: `job="a" or service="a"`',
        examples=[['severity=~"crit.*"', "team=payments"]],
    )
    key_labels: Labels = Field(
        list(DEFAULT_RULE.key_labels),
        description="Alerts with equal values of these labels share a grouping key; `service` and `environment` are "
        "those derived by the rule",
    )
    window_seconds: int = Field(
        int(DEFAULT_RULE.window.total_seconds()),
        ge=60,
        le=172_800,
        description="An alert joins the incident of its grouping key if it starts at most this long after the "
        "incident's alerts ended",
    )
    max_span_seconds: int | None = Field(
        None,
        le=LONGEST_SPAN_SECONDS,
        description="An alert that starts after the other alerts of its incident have ended, and later than this after "
        "the start of the incident, opens a new incident. Overlapping alerts always share one. Default: one day, or "
        "the window if longer",
    )
    ignored_labels: Labels = Field(
        list(DEFAULT_RULE.ignored_labels),
        description="Labels ignored when identifying an alert, for example `pod`",
    )
    service_labels: Labels = Field(
        list(DEFAULT_RULE.service_labels), description="The first of these labels that is present gives the service"
    )
    severity_labels: Labels = Field(
        list(DEFAULT_RULE.severity_labels),
        description="The first of these labels with a known value gives the severity",
    )
    severities: dict[Name, SeverityName] = Field(
        {},
        max_length=200,
        description="Label values whose severity is not built in or differs from it. Case, spaces, `-` and `_` do not "
        "matter",
    )
    environment_labels: Labels = Field(
        list(DEFAULT_RULE.environment_labels),
        description="The first of these labels that names an environment gives the environment; `prod` is `production`",
    )
    environment: EnvironmentName | None = Field(
        None, description="Environment of alerts whose labels name none; null: unknown", examples=["staging"]
    )
    opens_incidents: bool = Field(
        True, description="Whether matching alerts open incidents; otherwise they are ignored"
    )
    recoveries: list[OptionalRecovery] = Field(
        [],
        max_length=2,
        description="Ends that count as recoveries for matching alerts, although in general they do not: alerts of "
        "Grafana rules with a filter end like this when all is well. They then end as `recovered`",
    )
    heartbeat_seconds: int | None = Field(
        None,
        ge=60,
        le=7 * 24 * 3600,
        description="Matching alerts are a heartbeat, such as Prometheus' Watchdog. They open no incident, but if none "
        "is delivered for longer than this, an incident about the monitoring is opened. Must be longer than the "
        "sender's repeat_interval and group_interval combined. Null: ordinary alerts",
    )

    @model_validator(mode="after")
    def _heartbeat_has_matchers(self) -> "RuleInput":
        if self.heartbeat_seconds is not None and not self.matchers:
            message = "`heartbeat_seconds` requires matchers; without them no alert would ever open an incident"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _span_holds_a_window(self) -> "RuleInput":
        if self.max_span_seconds is not None and self.max_span_seconds < self.window_seconds:
            message = f"`max_span_seconds` must be at least `window_seconds`, which is {self.window_seconds}"
            raise ValueError(message)
        return self


class RuleResponse(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str
    position: int
    matchers: list[str]
    key_labels: list[str]
    window_seconds: int
    max_span_seconds: int
    ignored_labels: list[str]
    service_labels: list[str]
    severity_labels: list[str]
    severities: dict[str, SeverityName]
    environment_labels: list[str]
    environment: str | None
    opens_incidents: bool
    recoveries: list[OptionalRecovery]
    heartbeat_seconds: int | None
    created_at: AtShown
    updated_at: AtShown


TRIED_DAYS = 30
DIFFERENCES_AT_MOST, INCIDENTS_AT_MOST = 200, 20


class TrialInput(Input):
    changes: dict[Slug, RuleInput | None] = Field(
        min_length=1,
        max_length=100,
        description="By name, rules to create or replace, as with PUT; null deletes the rule",
    )
    days: int = Field(TRIED_DAYS, ge=1, le=TRIED_DAYS, description="Incidents that ran in the last days are compared")


class GroupedModel(BaseModel):
    """An incident as some rules form it."""

    incidents: list[str] = Field(
        description="The stored incidents that its alerts belong to; at most 20", examples=[["INC-1"]]
    )
    rule: str
    key: str = Field(examples=['service="checkout"'])
    service: str
    environment: str | None
    severity: SeverityName = Field(
        description="Severity from the labels of its alerts, even if a person stated another"
    )
    began_at: AtShown
    ended_at: AtShown | None
    alerts: int

    @classmethod
    def of(cls, grouped: Grouped) -> "GroupedModel":
        return cls(
            incidents=[f"INC-{number}" for number in grouped.numbers[:INCIDENTS_AT_MOST]],
            rule=grouped.rule,
            key=grouped.key,
            service=grouped.service,
            environment=grouped.environment,
            severity=severity_name(grouped.severity),
            began_at=grouped.began_at,
            ended_at=grouped.ended_at,
            alerts=grouped.alerts,
        )


class DifferenceModel(BaseModel):
    """Incidents that share alerts, as the present and as the proposed rules form them."""

    outcome: TrialOutcome = Field(
        description="`merged`: several incidents would become one; `split`: one would become several; `regrouped`: "
        "several would be grouped differently into several; `changed`: its key, service, environment, severity or "
        "alerts would differ; "
        "`not_opened`: its alerts would be ignored; `opened`: the present rules would ignore its alerts"
    )
    before: list[GroupedModel] = Field(description="Incidents by the present rules, earliest first; at most 20")
    before_left_out: int
    after: list[GroupedModel] = Field(description="Incidents by the proposed rules, earliest first; at most 20")
    after_left_out: int

    @classmethod
    def of(cls, difference: Difference) -> "DifferenceModel":
        def shown(side: Sequence[Grouped]) -> list[GroupedModel]:
            return [GroupedModel.of(each) for each in side[:INCIDENTS_AT_MOST]]

        return cls(
            outcome=difference.outcome,
            before=shown(difference.before),
            before_left_out=max(0, len(difference.before) - INCIDENTS_AT_MOST),
            after=shown(difference.after),
            after_left_out=max(0, len(difference.after) - INCIDENTS_AT_MOST),
        )


class MatchedModel(BaseModel):
    """To how many alerts a rule applies."""

    rule: str
    alerts_before: int
    alerts_after: int


class TrialResponse(BaseModel):
    since: AtShown = Field(description="Incidents that ran since then are compared")
    incidents_left_out: int = Field(
        description=f"The oldest incidents, if all together have more than {store.TRIED_ALERTS:,} alerts or "
        f"{store.TRIED_BYTES // 2**20} MiB of labels"
    )
    alerts: int
    incidents_before: int = Field(description="Number of incidents by the present rules")
    incidents_after: int = Field(description="Number of incidents by the proposed rules")
    unchanged: int = Field(description="Number of incidents that are the same by both")
    grouped_by_earlier_rules: int = Field(
        description="How many incidents the present rules form differently from those stored, because the rules have "
        "changed since"
    )
    differences: list[DifferenceModel] = Field(description="Newest first; at most 200")
    differences_left_out: int
    rules: list[MatchedModel]

    @classmethod
    def of(cls, trial: store.Trial) -> "TrialResponse":
        found = trial.comparison
        return cls(
            since=trial.since,
            incidents_left_out=trial.left_out,
            alerts=found.alerts,
            incidents_before=found.before,
            incidents_after=found.after,
            unchanged=found.unchanged,
            grouped_by_earlier_rules=found.grouped_otherwise,
            differences=[DifferenceModel.of(each) for each in found.differences[:DIFFERENCES_AT_MOST]],
            differences_left_out=max(0, len(found.differences) - DIFFERENCES_AT_MOST),
            rules=[
                MatchedModel(rule=name, alerts_before=before, alerts_after=after)
                for name, (before, after) in found.alerts_by_rule.items()
            ],
        )


# — the routes —


@router.get("", summary="List rules", responses=problem_responses())
async def list_rules(
    session: Session,
    paging: Pages,
    _: Reader,
    q: Contained = None,
    count: Counted = False,  # noqa: FBT002  a query parameter has a name
) -> CountedPage[RuleResponse]:
    """Sorted in the order in which they are tried. The first rule whose matchers all match applies; the default rule is
    last.
    """
    after = paging.after(int, str)
    found = await store.list_rules(session, q, after=(after[0], after[1]) if after else None, limit=paging.limit + 1)
    rules, next_cursor = page_of(found, paging, lambda rule: (rule.position, rule.name))
    return CountedPage(
        items=[RuleResponse.model_validate(rule) for rule in rules],
        next_cursor=next_cursor,
        total=await store.count_rules(session, q) if count else None,
    )


@router.post("/try", summary="Try rules on past alerts", responses=problem_responses(404, 409), dependencies=[IN_TURN])
async def try_rules(
    tx: Tx,
    now: Now,
    body: Annotated[
        TrialInput,
        Body(examples=[{"changes": {"batch-jobs": {"position": 10, "matchers": ['job="batch"']}, "probes": None}}]),
    ],
    _: Reader,
) -> TrialResponse:
    """Groups the alerts of the last days by the present rules and by the proposed ones, and returns which incidents
    would differ. Changes nothing. Alerts are used as they are stored: `ignored_labels` makes no difference, and alerts
    that opened no incident are missing.
    """
    changes = {name: None if rule is None else rule_row(name, rule, now) for name, rule in body.changes.items()}
    return TrialResponse.of(await store.try_rules(tx, changes, since=now - timedelta(days=body.days)))


@router.get("/{name}", summary="Get a rule", responses=problem_responses(404))
async def get_rule(session: Session, name: RuleName, _: Reader) -> RuleResponse:
    """Returns its matchers and settings."""
    return RuleResponse.model_validate(await store.find_rule(session, name))


@router.put(
    "/{name}", summary="Create or replace a rule", responses=problem_responses(409) | {201: {"model": RuleResponse}}
)
async def put_rule(
    session: Session,
    now: Now,
    name: RuleName,
    body: Annotated[
        RuleInput,
        Body(
            examples=[
                {
                    "position": 10,
                    "matchers": ['job="batch"', 'severity!="info"'],
                    "key_labels": ["service", "environment", "cluster"],
                    "window_seconds": 900,
                    "severities": {"blocker": "sev1"},
                }
            ]
        ),
    ],
    response: Response,
    _: Admin,
) -> RuleResponse:
    """Omitted fields are reset to their defaults. Only later alerts are affected; each alert keeps the decision of its
    rule. The default rule has no matchers and cannot be moved. Returns 201 if the rule is new.
    """
    rule, is_new = await store.put_rule(session, rule_row(name, body, now))
    response.status_code = 201 if is_new else 200
    return RuleResponse.model_validate(rule)


@router.delete("/{name}", summary="Delete a rule", status_code=204, responses=problem_responses(404, 409))
async def delete_rule(session: Session, name: RuleName, _: Admin) -> None:
    """Later alerts use the next matching rule. The default rule cannot be deleted."""
    await store.delete_rule(session, name)


def rule_row(name: str, body: RuleInput, now: datetime) -> schema.Rule:
    """Raises InvalidMatcher."""
    usual_position = DEFAULT_RULE.position if name == DEFAULT_NAME else USUAL_POSITION
    usual_span = int(DEFAULT_RULE.max_span.total_seconds())
    values = body.model_dump() | {
        "matchers": [str(parse_matcher(text)) for text in body.matchers],
        "position": usual_position if body.position is None else body.position,
        "max_span_seconds": body.max_span_seconds or max(usual_span, body.window_seconds),
        "recoveries": sorted(set(body.recoveries)),
    }
    return schema.Rule(name=name, **values, created_at=now, updated_at=now)
