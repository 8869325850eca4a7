"""Trying rules on past alerts: the pure comparison against one by brute force, then over REST with a real history."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.access.tokens import Scope
from app.catalog.rules import store
from app.catalog.rules.trial import Comparison, Difference, PastAlert, compare
from app.incidents.grouping.rule import DEFAULT_RULE, Decision, Rule, Rules, decide, first_match, parse_matcher
from app.incidents.grouping.signal import AlertClass
from tests.conftest import ClientAs
from tests.ingest.test_webhook import a_delivery, an_alert

START = datetime(2026, 8, 20, tzinfo=UTC)
FOREVER = timedelta(days=365)
NEVER_ENDED = START + timedelta(days=1000)

# — by brute force —


class Cohort(NamedTuple):
    members: frozenset[int]
    key: str
    service: str
    environment: str | None
    severity: int


def cohorts(alerts: Sequence[PastAlert], rules: Iterable[Rule]) -> set[Cohort]:
    """The connected components of the intervals from start to end plus window, for each key. Quadratic."""
    rules = list(rules)
    decided: dict[int, Decision] = {}
    for place, alert in enumerate(alerts):
        labels = alert.labels
        if alert.by_people:
            others = [one for one in alerts if one.incident == alert.incident and not one.by_people]
            if not others:
                continue
            labels = min(others, key=lambda one: (one.started_at, alerts.index(one))).labels
        rule = first_match(rules, labels)
        if rule.opens_incidents and rule.heartbeat is None:
            decided[place] = decide(rule, labels, alert.alert_class)
    parts = [{place} for place in decided]
    joined = True
    while joined:
        joined = False
        for one, other in combinations(parts, 2):
            if any(touch(alerts, decided, a, b) for a in one for b in other):
                one.update(other)
                parts.remove(other)
                joined = True
                break
    found = set()
    for part in parts:
        first = decided[min(part, key=lambda place: (alerts[place].started_at, alerts[place].series))]
        severity = min(decided[place].severity for place in part)
        found.add(Cohort(frozenset(part), first.key, first.service, first.environment, severity))
    return found


def touch(alerts: Sequence[PastAlert], decided: dict[int, Decision], a: int, b: int) -> bool:
    if decided[a].key_id != decided[b].key_id:
        return False

    def reach(place: int) -> datetime:
        return (alerts[place].ended_at or NEVER_ENDED) + decided[place].window

    return alerts[a].started_at <= reach(b) and alerts[b].started_at <= reach(a)


def expected(alerts: Sequence[PastAlert], present: list[Rule], proposed: list[Rule]) -> set[tuple[Any, ...]]:
    """The numbers of the incidents of each difference, before and after."""
    before, after = cohorts(alerts, present), cohorts(alerts, proposed)
    sides = [({one}, set[Cohort]()) for one in before] + [(set[Cohort](), {one}) for one in after]
    joined = True
    while joined:
        joined = False
        for one, other in combinations(sides, 2):
            mine = {place for cohort in one[0] | one[1] for place in cohort.members}
            if mine & {place for cohort in other[0] | other[1] for place in cohort.members}:
                one[0].update(other[0])
                one[1].update(other[1])
                sides.remove(other)
                joined = True
                break
    return {
        (numbers(alerts, one), numbers(alerts, other))
        for one, other in sides
        if not (len(one) == len(other) == 1 and one == other)
    }


def numbers(alerts: Sequence[PastAlert], side: Iterable[Cohort]) -> frozenset[frozenset[int]]:
    return frozenset(frozenset(alerts[place].incident for place in cohort.members) for cohort in side)


def found_in(comparison: Comparison) -> set[tuple[Any, ...]]:
    return {
        tuple(frozenset(frozenset(each.numbers) for each in side) for side in sides(one))
        for one in comparison.differences
    }


def sides(difference: Difference) -> tuple[Any, Any]:
    return difference.before, difference.after


# — the properties —

LABELS = [
    {"service": service, "team": team, "severity": severity}
    for service in ("shop", "search")
    for team in ("red", "blue")
    for severity in ("critical", "warning")
]


@st.composite
def histories(draw: st.DrawFn) -> list[PastAlert]:
    """Each alert of a sender has an incident of its own, so that numbers identify alerts; people hold some open."""
    alerts = []
    for place in range(draw(st.integers(0, 9))):
        start = draw(st.integers(0, 60))
        length = draw(st.one_of(st.none(), st.integers(0, 20)))
        by_people = bool(place) and draw(st.integers(0, 5)) == 0
        alerts.append(
            PastAlert(
                UUID(int=place),
                START + timedelta(minutes=start),
                None if length is None else START + timedelta(minutes=start + length),
                AlertClass.SERVICE,
                {} if by_people else draw(st.sampled_from(LABELS)),
                draw(st.integers(0, place)) if by_people else place,
                by_people,
            )
        )
    return alerts


def rule_sets() -> st.SearchStrategy[list[Rule]]:
    rules = st.builds(
        Rule,
        st.sampled_from(["a", "b"]),
        st.integers(0, 2),
        st.sampled_from(['team="red"', 'service="shop"', 'severity="warning"']).map(
            lambda text: (parse_matcher(text),)
        ),
        key_labels=st.sampled_from([("service",), ("team",), ()]),
        window=st.integers(1, 15).map(lambda number: timedelta(minutes=number)),
        max_span=st.just(FOREVER),
        opens_incidents=st.sampled_from([True, True, False]),
        service_labels=st.sampled_from([("service",), ("team",)]),
    )
    defaults = st.integers(1, 15).map(
        lambda number: replace(DEFAULT_RULE, window=timedelta(minutes=number), max_span=FOREVER)
    )
    return st.tuples(st.lists(rules, max_size=2, unique_by=lambda rule: rule.name), defaults).map(
        lambda both: [*both[0], both[1]]
    )


@given(histories(), rule_sets(), rule_sets())
def test_the_differences_are_those_by_brute_force(
    alerts: list[PastAlert], present: list[Rule], proposed: list[Rule]
) -> None:
    found = compare(alerts, Rules(present), Rules(proposed))
    assert found_in(found) == expected(alerts, present, proposed)
    assert (found.before, found.after) == (len(cohorts(alerts, present)), len(cohorts(alerts, proposed)))
    assert found.before == found.unchanged + sum(len(one.before) for one in found.differences)
    assert found.after == found.unchanged + sum(len(one.after) for one in found.differences)


@given(histories(), rule_sets(), rule_sets())
def test_the_way_back_has_the_same_differences(
    alerts: list[PastAlert], present: list[Rule], proposed: list[Rule]
) -> None:
    there, back = (
        compare(alerts, Rules(one), Rules(other)) for one, other in ((present, proposed), (proposed, present))
    )
    assert {(one.before, one.after) for one in there.differences} == {
        (one.after, one.before) for one in back.differences
    }


@given(histories(), rule_sets())
def test_the_same_rules_differ_in_nothing(alerts: list[PastAlert], rules: list[Rule]) -> None:
    found = compare(alerts, Rules(rules), Rules(rules))
    assert (found.differences, found.unchanged) == ((), found.before)


# — over REST —

TRY = "/api/v1/rules/try"


def ago(minutes: float) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()


@pytest.fixture
async def history(client: httpx.AsyncClient) -> None:
    """Two incidents of shop, 20 minutes apart (INC-1, INC-2), and one of search (INC-3)."""
    for service, begin, end in (("shop", 100, 90), ("shop", 70, 60), ("search", 50, None)):
        alert = an_alert(ago(begin), ago(end) if end else None, service=service, instance=str(begin))
        (await client.post("/webhooks/alertmanager", json=a_delivery(alert))).raise_for_status()


async def tried(client: httpx.AsyncClient, changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = await client.post(TRY, json={"changes": changes} | more)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def in_short(body: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (
            one["outcome"],
            [each["incidents"] for each in one["before"]],
            [(each["incidents"], each["service"], each["rule"]) for each in one["after"]],
        )
        for one in body["differences"]
    ]


async def test_a_wider_window_merges_incidents(client: httpx.AsyncClient, history: None) -> None:
    found = await tried(client, {"shop": {"matchers": ['service="shop"'], "window_seconds": 1800}})
    assert in_short(found) == [("merged", [["INC-1"], ["INC-2"]], [(["INC-1", "INC-2"], "shop", "shop")])]
    assert (found["incidents_before"], found["incidents_after"], found["unchanged"], found["alerts"]) == (3, 2, 1, 3)
    assert found["rules"] == [
        {"rule": "default", "alerts_before": 3, "alerts_after": 1},
        {"rule": "shop", "alerts_before": 0, "alerts_after": 2},
    ]


async def test_trying_changes_nothing_and_saving_does(client: httpx.AsyncClient, history: None) -> None:
    rule = {"matchers": ['service="shop"'], "window_seconds": 1800}
    await tried(client, {"shop": rule})
    assert (await client.get("/api/v1/rules/shop")).status_code == 404
    await client.put("/api/v1/rules/shop", json=rule)
    after = await tried(client, {"shop": rule})
    # What is stored was grouped before the rule existed.
    assert (after["differences"], after["grouped_by_earlier_rules"]) == ([], 1)
    back = await tried(client, {"shop": None})
    assert [one[0] for one in in_short(back)] == ["split"]


async def test_a_rule_may_ignore_or_move_incidents(client: httpx.AsyncClient, history: None) -> None:
    ignoring = await tried(client, {"x": {"matchers": ['service="search"'], "opens_incidents": False}})
    assert in_short(ignoring) == [("not_opened", [["INC-3"]], [])]
    moving = await tried(client, {"x": {"matchers": ['service="search"'], "service_labels": ["alertname"]}})
    assert in_short(moving) == [("changed", [["INC-3"]], [(["INC-3"], "HighLatency", "x")])]


async def test_what_is_too_large_is_left_out_and_counted(
    client: httpx.AsyncClient, history: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = {"x": {"opens_incidents": False}}
    monkeypatch.setattr(store, "TRIED_ALERTS", 2)
    by_alerts = await tried(client, change)
    assert (by_alerts["incidents_before"], by_alerts["incidents_left_out"]) == (2, 1)
    assert {each for one in in_short(by_alerts) for each in one[1][0]} == {"INC-2", "INC-3"}
    monkeypatch.setattr(store, "TRIED_BYTES", 1)
    by_bytes = await tried(client, change)
    assert (by_bytes["incidents_before"], by_bytes["incidents_left_out"]) == (0, 3)


async def test_declared_incidents_are_not_grouped_by_rules(client: httpx.AsyncClient) -> None:
    (await client.post("/api/v1/incidents", json={"title": "t", "service": "shop"})).raise_for_status()
    found = await tried(client, {"x": {"opens_incidents": False}})
    assert (found["incidents_before"], found["incidents_left_out"], found["differences"]) == (0, 0, [])


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 422),
        ({"x": {"matchers": ["~"]}}, 422),
        ({"x": None}, 404),
        ({"default": None}, 409),
        ({"default": {"matchers": ["a=b"]}}, 409),
    ],
)
async def test_changes_that_could_not_be_saved_cannot_be_tried(
    client: httpx.AsyncClient, changes: dict[str, Any], status: int
) -> None:
    assert (await client.post(TRY, json={"changes": changes})).status_code == status


async def test_a_reader_may_try(client_as: ClientAs) -> None:
    body = {"changes": {"x": {"opens_incidents": False}}}
    for scope, status in ((None, 401), (Scope.INGEST, 403), (Scope.READ, 200)):
        assert (await (await client_as(scope)).post(TRY, json=body)).status_code == status
