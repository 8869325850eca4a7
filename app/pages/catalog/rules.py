"""Rules: the list in the order in which they are tried, and one rule with its form, which can be tried on history."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, get_args

from fastapi import APIRouter, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import schema
from app.base.access.tokens import Scope
from app.base.errors import Conflict, Problem
from app.base.http.requests.paging import Pages, page_of
from app.catalog.rules import store
from app.catalog.rules.api import TRIED_DAYS, RuleInput, RuleName, rule_row
from app.incidents.grouping.rule import DEFAULT_NAME, OptionalRecovery
from app.pages.catalog import rule_words
from app.pages.web import fields
from app.pages.web.forms import Form, parsed
from app.pages.web.frame import Change, PageRequest, PageRoute, Refusal, SignedIn, see_other

router = APIRouter(route_class=PageRoute, include_in_schema=False)

DIFFERENCES_ON_PAGE, DIFFERENCES_AT_ONCE = 100, 10
INCIDENTS_IN_DIFFERENCE = 4
SHORT = 120  # characters
RULE_FORM = "rule"  # what the form with all fields names itself
NEW = "_new"  # no rule can have this name


# — the list —


@dataclass(frozen=True, slots=True)
class RuleView:
    """A rule with what it does in words."""

    row: schema.Rule
    effect: str
    particulars: list[str]

    @classmethod
    def of(cls, row: schema.Rule) -> "RuleView":
        rule = store.rule_of(row)
        return cls(row, rule_words.effect(rule), rule_words.particulars(rule))

    @property
    def is_default(self) -> bool:
        return self.row.name == DEFAULT_NAME

    @property
    def is_short(self) -> bool:
        """Whether its matchers fit into a cell of the list."""
        return sum(map(len, self.row.matchers)) <= SHORT


@router.get("/rules")
async def show_rules(asked: SignedIn, paging: Pages) -> Response:
    return await _list(asked, paging)


async def _list(asked: PageRequest, paging: Pages, refused: Refusal | None = None) -> Response:
    after = paging.after(int, str)
    async with asked.reading() as session:
        found = await store.list_rules(session, after=(after[0], after[1]) if after else None, limit=paging.limit + 1)
    rows, next_cursor = page_of(found, paging, lambda rule: (rule.position, rule.name))
    return asked.page(
        "rules.html",
        status=refused.status if refused else 200,
        rules=[RuleView.of(row) for row in rows],
        is_first_page=after is None,
        next_cursor=next_cursor,
        refused=refused,
    )


@router.post("/rules/{name}/move")
async def move_rule(asked: SignedIn, name: RuleName, paging: Pages) -> Response:
    form = await asked.form(Scope.ADMIN)
    try:
        async with asked.session() as session:
            await store.move_rule(session, name, -1 if form.get("to") == "earlier" else 1, now=asked.now)
    except Conflict as problem:
        return await _list(asked, paging, Refusal(problem, form))
    return see_other(f"/rules#{name}")


# — one rule —


@router.get(f"/rules/{NEW}")
async def new_rule(asked: SignedIn) -> Response:
    asked.person.require(Scope.ADMIN)
    return await _page(asked, None)


@router.get("/rules/{name}")
async def show_rule(asked: SignedIn, name: RuleName) -> Response:
    return await _page(asked, name)


@router.post(f"/rules/{NEW}")
async def create_rule(asked: SignedIn) -> Response:
    form = await asked.form(Scope.ADMIN)
    try:
        name = fields.new_name(form)
        async with asked.session() as session:
            _, is_new = await store.put_rule(session, rule_row(name, entered_rule(form), asked.now))
            if not is_new:
                message = "there is already a rule with this name"
                raise Conflict(message)
    except Problem as problem:
        return await _page(asked, None, refused=Refusal(problem, form))
    return see_other(f"/rules#{name}")


@router.post("/rules/{name}")
async def change_rule(asked: SignedIn, name: RuleName) -> Response:
    form = await asked.form(Scope.ADMIN)

    async def change(session: AsyncSession) -> None:
        body = entered_rule(form)
        await store.find_rule(session, name)
        await store.put_rule(session, rule_row(name, body, asked.now))

    return await _changed(asked, name, form, change)


@router.post("/rules/{name}/delete")
async def delete_rule(asked: SignedIn, name: RuleName) -> Response:
    form = await asked.form(Scope.ADMIN)
    return await _changed(asked, name, form, lambda session: store.delete_rule(session, name))


async def _changed(asked: PageRequest, name: str, form: Form, change: Change) -> Response:
    async def refused(refusal: Refusal) -> Response:
        return await _page(asked, name, refused=refusal)

    return await asked.change(change, form, then=f"/rules#{name}", refused=refused)


# — trying —


@router.post(f"/rules/{NEW}/try")
async def try_new_rule(asked: SignedIn) -> Response:
    form = await asked.form(Scope.ADMIN)
    try:
        name = fields.new_name(form)
        trial = await _tried(asked, {name: rule_row(name, entered_rule(form), asked.now)})
    except Problem as problem:
        return await _page(asked, None, refused=Refusal(problem, form))
    return await _page(asked, None, kept=form, trial=trial)


@router.post("/rules/{name}/try")
async def try_rule(asked: SignedIn, name: RuleName) -> Response:
    """The rule as entered, or with `delete` the rules without it."""
    form = await asked.form(Scope.ADMIN)
    try:
        if "delete" in form:
            return await _page(asked, name, trial=await _tried(asked, {name: None}), tried_without=True)
        trial = await _tried(asked, {name: rule_row(name, entered_rule(form), asked.now)})
    except Problem as problem:
        return await _page(asked, name, refused=Refusal(problem, form))
    return await _page(asked, name, kept=form, trial=trial)


async def _tried(asked: PageRequest, changes: Mapping[str, schema.Rule | None]) -> store.Trial:
    async with asked.turn(), asked.reading() as session:
        tx = await session.connection()
        return await store.try_rules(tx, changes, since=asked.now - timedelta(days=TRIED_DAYS))


# — the page and its form —


@dataclass(frozen=True, slots=True)
class EnteredForm:
    """The form as it was entered, to be shown again."""

    form: Form


async def _page(
    asked: PageRequest,
    name: str | None,
    *,
    refused: Refusal | None = None,
    kept: Form | None = None,
    trial: store.Trial | None = None,
    tried_without: bool = False,
) -> Response:
    """`name` is None for a new rule."""
    row, shown_again = None, EnteredForm(kept) if kept is not None else None
    if refused is not None and refused.form.get("form") == RULE_FORM:
        shown_again = EnteredForm(refused.form)
    if name is not None:
        async with asked.reading() as session:
            row = await store.find_rule(session, name)
    return asked.page(
        "rule.html",
        status=refused.status if refused else 200,
        rule=None if row is None else RuleView.of(row),
        values=_values(row),
        refused=refused,
        shown_again=shown_again,
        trial=trial,
        tried_without=tried_without,
        tried_days=TRIED_DAYS,
        tried_alerts=store.TRIED_ALERTS,
        tried_mib=store.TRIED_BYTES // 2**20,
        differences_on_page=DIFFERENCES_ON_PAGE,
        differences_at_once=DIFFERENCES_AT_ONCE,
        incidents_in_difference=INCIDENTS_IN_DIFFERENCE,
        recoveries=get_args(OptionalRecovery),
    )


_LISTS = ("matchers", "key_labels", "service_labels", "severity_labels", "environment_labels", "ignored_labels")


def _values(row: schema.Rule | None) -> dict[str, Any]:
    """The values of the fields of the form; for a new rule the defaults."""
    rule = RuleInput() if row is None else row
    values: dict[str, Any] = {name: fields.lines(getattr(rule, name)) for name in _LISTS}
    # Matchers have quotes of their own.
    values["matchers"] = "\n".join(rule.matchers)
    return values | {
        "position": "" if rule.position is None else rule.position,
        "window": fields.exact(rule.window_seconds),
        "max_span": "" if rule.max_span_seconds is None else fields.exact(rule.max_span_seconds),
        "severities": fields.pairs(rule.severities),
        "environment": rule.environment or "",
        "opens_incidents": rule.opens_incidents,
        "recoveries": rule.recoveries,
        "heartbeat": "" if rule.heartbeat_seconds is None else fields.exact(rule.heartbeat_seconds),
    }


def entered_rule(form: Form) -> RuleInput:
    """Raises Invalid."""
    values: dict[str, Any] = {name: fields.entries(form.get(name, "")) for name in _LISTS}
    values["matchers"] = [line for line in map(str.strip, form.get("matchers", "").split("\n")) if line]
    return parsed(
        RuleInput,
        values
        | {
            "position": form.get("position", "").strip() or None,
            "window_seconds": fields.seconds_of(form.get("window", ""), "longest gap"),
            "max_span_seconds": _seconds(form, "max_span", "longest chain"),
            "severities": fields.pairs_of(form.get("severities", "")),
            "environment": form.get("environment", "").strip() or None,
            "opens_incidents": "opens_incidents" in form,
            "recoveries": [name for name in get_args(OptionalRecovery) if name in form],
            "heartbeat_seconds": _seconds(form, "heartbeat", "heartbeat"),
        },
    )


def _seconds(form: Form, field: str, words: str) -> int | None:
    return fields.seconds_of(form[field], words) if form.get(field, "").strip() else None
