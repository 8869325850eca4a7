"""Which type an incident has, what of its plan is done, and the reading of its definition."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.incidents.grouping.rule import parse_matcher
from app.incidents.grouping.signal import EndReason
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.fact import Fact
from app.incidents.measures.measures import Facts
from app.response.definition import Definition, Met, beyond_an_hour
from app.response.plan import (
    CustomerImpact,
    ExitState,
    IncidentType,
    customer_impact,
    exit_states,
    filled_in,
    room_in_use,
    type_of,
    unknown_placeholder,
)

START = datetime(2026, 8, 20, 10, tzinfo=UTC)


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


def a_type(name: str, position: int, *matchers: str) -> IncidentType:
    return IncidentType(name, position, tuple(map(parse_matcher, matchers)), ("Done",))


def fact(minutes: int, kind: TimelineKind, by: str | None = None, **detail: Any) -> Fact:
    return Fact(minutes, at(minutes), kind, by, detail=detail)


def test_the_first_type_whose_matchers_all_match_applies() -> None:
    types = [a_type("any", 9), a_type("b", 5, 'service="web"'), a_type("a", 5, 'service="web"', 'severity="sev1"')]
    found = [
        type_of(types, stated, labels)
        for stated, labels in (
            (None, {"service": "web", "severity": "sev1"}),
            (None, {"service": "web", "severity": "sev2"}),
            (None, {"service": "mail"}),
            ("b", {"service": "mail"}),
            ("deleted", {"service": "mail"}),
        )
    ]
    assert [each and each.name for each in found] == ["a", "b", "any", "b", "any"]
    assert type_of(types[1:], None, {}) is None


def test_all_matchers_must_match_with_one_source() -> None:
    types = [
        a_type("both", 1, 'source="prom"', 'source="grafana"'),
        a_type("one", 2, 'source=~"grafana|zabbix"', 'service="web"'),
        a_type("other", 3, 'source!="prom"'),
    ]

    def found(*sources: str, service: str = "web") -> str | None:
        type_ = type_of(types, None, {"service": service, "source": "a label of alerts"}, sources)
        return type_.name if type_ else None

    assert [found("prom", "grafana"), found("prom"), found("prom", "zabbix", service="mail")] == ["one", None, "other"]
    assert found() == "other", "a person declared it"


def test_placeholders_are_replaced_once() -> None:
    values = {"number": "7", "service": "{number}", "severity": "sev1"}
    assert filled_in("#inc-{number}-{service}-{severity} {other}", values) == "#inc-7-{number}-sev1 {other}"
    assert unknown_placeholder("#inc-{number} {0.__class__}") == "0.__class__"
    assert unknown_placeholder("#inc-{number}") is None


def test_the_latest_statement_about_an_exit_criterion_counts() -> None:
    facts = [
        fact(3, TimelineKind.CRITERION, "ben", criterion="A", met=False),
        fact(1, TimelineKind.CRITERION, "ada", criterion="A", met=True),
        fact(2, TimelineKind.CRITERION, "ada", criterion="Other", met=True),
    ]
    assert exit_states(["B", "A"], facts) == [
        ExitState("B", met=False),
        ExitState("A", met=False, by="ben", at=at(3)),
        ExitState("Other", met=True, by="ada", at=at(2)),
    ]


def test_the_channel_stated_last_is_in_use() -> None:
    facts = [fact(3, TimelineKind.ROOM, channel="Bridge"), fact(1, TimelineKind.ROOM, channel="#inc-7")]
    assert (room_in_use(facts), room_in_use([])) == ("Bridge", None)


def test_of_each_field_of_the_impact_the_latest_value_counts() -> None:
    facts = [
        fact(3, TimelineKind.IMPACT, customers=20, what=None),
        fact(1, TimelineKind.IMPACT, customers=1200, what="Log in"),
        fact(2, TimelineKind.IMPACT, support_requests=0, share="0.25"),
    ]
    assert customer_impact(facts) == CustomerImpact(20, 0, "0.25", "Log in")
    assert customer_impact([]) == CustomerImpact()


def test_the_definition_is_met_if_all_its_parts_are() -> None:
    assert Definition(affects_customers=True, unplanned=True, beyond_an_hour=True).met is Met.MET
    assert Definition(affects_customers=True, unplanned=True, beyond_an_hour=None).met is Met.NOT_YET
    for part in ("affects_customers", "unplanned", "beyond_an_hour"):
        parts: dict[str, Any] = {"affects_customers": True, "unplanned": True, "beyond_an_hour": None}
        assert Definition(**parts | {part: False}).met is Met.NOT_MET


def test_whether_an_incident_lasts_for_more_than_an_hour() -> None:
    def lasts(expected: bool | None, minutes: int, **values: Any) -> bool | None:
        facts = replace(Facts(START, "web", 2), **values)
        return beyond_an_hour(facts, expected, now=at(minutes))

    assert lasts(None, 60) is None
    assert lasts(False, 60) is False
    assert lasts(False, 61) is True
    assert lasts(None, 10, impact_started_at=at(-51)) is True
    assert lasts(True, 99, ended_at=at(20), end_reason=EndReason.RECOVERED) is False
    assert lasts(False, 99, ended_at=at(61), end_reason=EndReason.RECOVERED) is True
    assert lasts(None, 99, ended_at=at(61), end_reason=EndReason.ENDS_BEFORE_START) is None
