"""HTTP API of rules, which derive the service, severity and grouping key of an alert."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Path, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.base import schema
from app.base.http.auth import Admin, Reader
from app.base.http.context import Now, Session
from app.base.http.fields import At, Contract, Name, Slug, Words
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.base.severity import SeverityName
from app.catalog.rules import store
from app.incidents.grouping.rule import DEFAULT_NAME, DEFAULT_RULE, parse_matcher

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


class RuleContract(Contract):
    position: int | None = Field(
        None,
        ge=0,
        le=DEFAULT_RULE.position,
        description=f"Tried in ascending order, ties by name. Default: {USUAL_POSITION}. The default rule is last",
    )
    matchers: list[MatcherText] = Field(
        [],
        max_length=30,
        description="In Alertmanager's syntax, one matcher per string; all must match. Empty matches every alert",
        examples=[['severity=~"crit.*"', "team=payments"]],
    )
    key_labels: Labels = Field(
        list(DEFAULT_RULE.key_labels),
        description="Alerts with equal values of these labels share a grouping key; `service` is the derived service",
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
        description="Longest chain of separate alerts in one incident. Default: one day, or the window if longer",
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
        {}, max_length=200, description="Case-insensitive label values whose severity differs from the built-in mapping"
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
    def _heartbeat_has_matchers(self) -> "RuleContract":
        if self.heartbeat_seconds is not None and not self.matchers:
            message = "`heartbeat_seconds` requires matchers; without them no alert would ever open an incident"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _span_holds_a_window(self) -> "RuleContract":
        if self.max_span_seconds is not None and self.max_span_seconds < self.window_seconds:
            message = f"`max_span_seconds` must be at least `window_seconds`, which is {self.window_seconds}"
            raise ValueError(message)
        return self


class RuleShown(BaseModel):
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
    heartbeat_seconds: int | None
    created_at: At
    updated_at: At


# — the routes —


@router.get("", summary="List rules", responses=problem_responses())
async def list_rules(session: Session, paging: Pages, _: Reader) -> Page[RuleShown]:
    """Sorted in the order in which they are tried. The first rule whose matchers all match applies; the default rule is
    last.
    """
    after = paging.after(int, str)
    found = await store.list_rules(session, after=(after[0], after[1]) if after else None, limit=paging.limit + 1)
    rules, next_cursor = page_of(found, paging, lambda rule: (rule.position, rule.name))
    return Page(items=[RuleShown.model_validate(rule) for rule in rules], next_cursor=next_cursor)


@router.get("/{name}", summary="Get a rule", responses=problem_responses(404))
async def show_rule(session: Session, name: RuleName, _: Reader) -> RuleShown:
    """Returns its matchers and settings."""
    return RuleShown.model_validate(await store.find_rule(session, name))


@router.put(
    "/{name}", summary="Create or replace a rule", responses=problem_responses(409) | {201: {"model": RuleShown}}
)
async def put_rule(
    session: Session,
    now: Now,
    name: RuleName,
    body: Annotated[
        RuleContract,
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
) -> RuleShown:
    """Omitted fields are reset to their defaults. Only later alerts are affected; each alert keeps the decision of its
    rule. The default rule has no matchers and cannot be moved. Returns 201 if the rule is new.
    """
    rule, is_new = await store.put_rule(session, _row(name, body, now))
    response.status_code = 201 if is_new else 200
    return RuleShown.model_validate(rule)


@router.delete("/{name}", summary="Delete a rule", status_code=204, responses=problem_responses(404, 409))
async def delete_rule(session: Session, name: RuleName, _: Admin) -> None:
    """Later alerts use the next matching rule. The default rule cannot be deleted."""
    await store.delete_rule(session, name)


def _row(name: str, body: RuleContract, now: datetime) -> schema.Rule:
    usual_position = DEFAULT_RULE.position if name == DEFAULT_NAME else USUAL_POSITION
    usual_span = int(DEFAULT_RULE.max_span.total_seconds())
    values = body.model_dump() | {
        "matchers": [str(parse_matcher(text)) for text in body.matchers],
        "position": usual_position if body.position is None else body.position,
        "max_span_seconds": body.max_span_seconds or max(usual_span, body.window_seconds),
    }
    return schema.Rule(name=name, **values, created_at=now, updated_at=now)
