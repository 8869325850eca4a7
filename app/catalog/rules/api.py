"""Rules over HTTP: how alerts become services, severities and keys."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Body, Path, Response
from pydantic import BaseModel, Field, StringConstraints, model_validator

from app.base.http.auth import Admin, Reader
from app.base.http.context import Now, Tx
from app.base.http.fields import At, Contract, Name, Slug, Words
from app.base.http.paging import Page, Pages, page_of
from app.base.http.problems import problem_responses
from app.base.severity import SeverityName, severity_name, severity_number
from app.catalog.rules import store
from app.catalog.rules.store import KnownRule
from app.incidents.grouping.rule import DEFAULT_NAME, DEFAULT_RULE, Rule, parse_matcher

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
        description=f"Lower is asked first, ties by name; left out: {USUAL_POSITION}, or last for the default rule",
    )
    matchers: list[MatcherText] = Field(
        [],
        max_length=30,
        description="In Alertmanager's syntax, one matcher a text; all must match; none: matches every alert",
        examples=[['severity=~"crit.*"', "team=payments"]],
    )
    key_labels: Labels = Field(
        list(DEFAULT_RULE.key_labels),
        description="Alerts with the same values here are the same trouble; `service` is the service that was found",
    )
    window_seconds: int = Field(
        int(DEFAULT_RULE.window.total_seconds()),
        ge=60,
        le=172_800,
        description="An alert of the same key that begins no later than this after the last ended joins its incident",
    )
    max_span_seconds: int | None = Field(
        None,
        le=LONGEST_SPAN_SECONDS,
        description="Longest chain of separate alerts in one incident; left out: a day, or the window if longer",
    )
    ignored_labels: Labels = Field(
        list(DEFAULT_RULE.ignored_labels),
        description="Labels that do not tell one thing that can be wrong from another, such as `pod`",
    )
    service_labels: Labels = Field(
        list(DEFAULT_RULE.service_labels), description="The first that is present names the service"
    )
    severity_labels: Labels = Field(
        list(DEFAULT_RULE.severity_labels), description="The first with a value that is known gives the severity"
    )
    severities: dict[Name, SeverityName] = Field(
        {}, max_length=200, description="Label values, in any case, that mean other severities than usual"
    )

    heartbeat_seconds: int | None = Field(
        None,
        ge=60,
        le=7 * 24 * 3600,
        description="What matches is a heartbeat, such as Prometheus' Watchdog: it opens no incident, but if it has "
        "not been delivered for longer than this, that opens one, of the monitoring. Longer than the sender's "
        "repeat_interval and group_interval together; null: ordinary alerts",
    )

    @model_validator(mode="after")
    def _heartbeat_is_told_apart(self) -> "RuleContract":
        if self.heartbeat_seconds is not None and not self.matchers:
            message = "heartbeat_seconds needs matchers: without, every alert would be a heartbeat and open no incident"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _span_holds_a_window(self) -> "RuleContract":
        if self.max_span_seconds is not None and self.max_span_seconds < self.window_seconds:
            message = f"max_span_seconds must be at least window_seconds, here {self.window_seconds}"
            raise ValueError(message)
        return self


class RuleShown(BaseModel):
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
async def list_rules(tx: Tx, paging: Pages, _: Reader) -> Page[RuleShown]:
    """In the order in which they are asked: the first whose matchers all match decides. The default rule is last."""
    after = paging.after(int, str)
    found = await store.list_rules(tx, after=(after[0], after[1]) if after else None, limit=paging.limit + 1)
    rules, next_cursor = page_of(found, paging, lambda known: (known.rule.position, known.rule.name))
    return Page(items=[_shown(known) for known in rules], next_cursor=next_cursor)


@router.get("/{name}", summary="Show a rule", responses=problem_responses(404))
async def show_rule(tx: Tx, name: RuleName, _: Reader) -> RuleShown:
    """What it matches and what it decides."""
    return _shown(await store.find_rule(tx, name))


@router.put(
    "/{name}", summary="Create or replace a rule", responses=problem_responses(409) | {201: {"model": RuleShown}}
)
async def put_rule(
    tx: Tx,
    now: Now,
    name: RuleName,
    stated: Annotated[
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
    """What is left out takes its usual value, whatever the rule had before. Later alerts only are affected; each alert
    keeps what its rule decided. The default rule has neither matchers nor another position. 201 if the rule is new.
    """
    known, is_new = await store.put_rule(tx, _rule(name, stated), now=now)
    response.status_code = 201 if is_new else 200
    return _shown(known)


@router.delete("/{name}", summary="Delete a rule", status_code=204, responses=problem_responses(404, 409))
async def delete_rule(tx: Tx, name: RuleName, _: Admin) -> None:
    """Later alerts go to the next rule that matches. The default rule cannot be deleted."""
    await store.delete_rule(tx, name)


def _rule(name: str, stated: RuleContract) -> Rule:
    usual_position = DEFAULT_RULE.position if name == DEFAULT_NAME else USUAL_POSITION
    usual_span = int(DEFAULT_RULE.max_span.total_seconds())
    return Rule(
        name=name,
        position=usual_position if stated.position is None else stated.position,
        matchers=tuple(parse_matcher(text) for text in stated.matchers),
        key_labels=tuple(stated.key_labels),
        window=timedelta(seconds=stated.window_seconds),
        max_span=timedelta(seconds=stated.max_span_seconds or max(usual_span, stated.window_seconds)),
        ignored_labels=tuple(stated.ignored_labels),
        service_labels=tuple(stated.service_labels),
        severity_labels=tuple(stated.severity_labels),
        severities={word: severity_number(severity) for word, severity in stated.severities.items()},
        heartbeat=None if stated.heartbeat_seconds is None else timedelta(seconds=stated.heartbeat_seconds),
    )


def _shown(known: KnownRule) -> RuleShown:
    rule = known.rule
    return RuleShown(
        name=rule.name,
        position=rule.position,
        matchers=[str(matcher) for matcher in rule.matchers],
        key_labels=list(rule.key_labels),
        window_seconds=int(rule.window.total_seconds()),
        max_span_seconds=int(rule.max_span.total_seconds()),
        ignored_labels=list(rule.ignored_labels),
        service_labels=list(rule.service_labels),
        severity_labels=list(rule.severity_labels),
        severities={word: severity_name(severity) for word, severity in rule.severities.items()},
        heartbeat_seconds=None if rule.heartbeat is None else int(rule.heartbeat.total_seconds()),
        created_at=known.created_at,
        updated_at=known.updated_at,
    )
