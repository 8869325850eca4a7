"""The pure part of rules: matchers, and decisions from labels."""

import re
from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.incidents.grouping.rule import (
    DEFAULT_RULE,
    LONGEST_SERVICE,
    AnyOf,
    Decision,
    InvalidMatcher,
    Matcher,
    Operator,
    Rule,
    Rules,
    decide,
    first_match,
    parse_matcher,
)
from app.incidents.grouping.signal import AlertClass

SERVICE, MONITORING = AlertClass.SERVICE, AlertClass.MONITORING

# Surrogates are rejected on arrival; rules must handle them nevertheless.
anything = st.text(max_size=20) | st.text(st.characters(exclude_categories=()), max_size=20)
label_names = st.sampled_from(["service", "environment", "severity", "job", "alertname", "pod"]) | st.text(min_size=1)
label_sets = st.dictionaries(label_names, st.sampled_from(["", "a", "b", "critical", "<no value>"]) | anything)
matchers = st.builds(
    Matcher, st.text(min_size=1), st.sampled_from([Operator.EQUAL, Operator.NOT_EQUAL]), st.text()
) | st.builds(
    lambda name, operator, value: Matcher(name, operator, re.escape(value)),
    st.text(min_size=1),
    st.sampled_from([Operator.REGEX, Operator.NOT_REGEX]),
    st.text(max_size=100),
)

alternatives = st.lists(matchers, min_size=2, max_size=3).map(lambda each: AnyOf(tuple(each)))


def a_rule(name: str = "batch", *matcher_texts: str, position: int = 100, **changes: object) -> Rule:
    matchers = tuple(parse_matcher(text) for text in matcher_texts)
    return replace(DEFAULT_RULE, name=name, position=position, matchers=matchers, **changes)  # type: ignore[arg-type]


def decided(rule: Rule = DEFAULT_RULE, alert_class: AlertClass = SERVICE, **labels: str) -> Decision:
    return decide(rule, labels, alert_class)


# — matchers —


@pytest.mark.parametrize(
    ("text", "matcher"),
    [
        ("severity=critical", Matcher("severity", Operator.EQUAL, "critical")),
        ('  severity != "critical"  ', Matcher("severity", Operator.NOT_EQUAL, "critical")),
        ('severity=~"crit.*"', Matcher("severity", Operator.REGEX, "crit.*")),
        ("team !~ blue|green", Matcher("team", Operator.NOT_REGEX, "blue|green")),
        ('"alert.name"="x"', Matcher("alert.name", Operator.EQUAL, "x")),
        ('"name with \\"quotes\\""="x"', Matcher('name with "quotes"', Operator.EQUAL, "x")),
        ("größe=🙂", Matcher("größe", Operator.EQUAL, "🙂")),
        ("team=", Matcher("team", Operator.EQUAL, "")),
        ('team=""', Matcher("team", Operator.EQUAL, "")),
        (r'path="C:\\new\n"', Matcher("path", Operator.EQUAL, "C:\\new\n")),
        (r'code=~"5\d\d"', Matcher("code", Operator.REGEX, r"5\d\d")),
        (r"code=~5\d\d", Matcher("code", Operator.REGEX, r"5\d\d")),
        ("url=http://a.example/?b=c", Matcher("url", Operator.EQUAL, "http://a.example/?b=c")),
    ],
)
def test_a_matcher_is_written_as_in_alertmanager(text: str, matcher: Matcher) -> None:
    assert parse_matcher(text) == matcher


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "character 1: expected a label name"),
        ("=x", "character 1: expected a label name"),
        ('""="x"', "character 1: a label name must not be empty"),
        ("{a=b}", "character 1: expected a label name"),
        ("severity", "character 9: expected one of =, !=, =~, !~"),
        ('a="b" or c=d', "character 12: put the values of alternatives in double quotes"),
        ('a="b" or ', "character 10: expected a label name"),
        ('a="b" orc="d"', "character 7: expected the end"),
        ("severity ~ x", "character 10: expected one of =, !=, =~, !~"),
        ('a="b', "character 3: missing closing double quote"),
        ('"a=b', "character 1: missing closing double quote"),
        ('a="b" c="d"', "character 7: expected the end"),
        ("a=b, c=d", "character 4: put values with"),
        ('a=b"c', "character 4: put values with"),
        ('a=~"("', "missing )"),
        ('a=~"(?=x)"', "invalid regex"),
        (r'a=~"(x)\1"', "invalid regex"),
        ('a=~"' + "x" * 501 + '"', "the maximum is 500"),
    ],
)
def test_an_invalid_matcher_is_rejected_with_the_position_of_the_error(text: str, where: str) -> None:
    with pytest.raises(InvalidMatcher) as error:
        parse_matcher(text)
    assert where in error.value.detail


@given(matchers | alternatives)
@example(Matcher("a", Operator.EQUAL, '\\n"\n\\'))
def test_a_printed_matcher_reads_back_as_the_same(matcher: Matcher | AnyOf) -> None:
    assert parse_matcher(str(matcher)) == matcher


@given(st.text() | st.from_regex(r'[a-z"]+(=|!=|=~|!~)"?[a-z(\[*+?{1,}\\]*"?', fullmatch=True))
def test_any_text_is_a_matcher_or_refused(text: str) -> None:
    try:
        matcher = parse_matcher(text)
    except InvalidMatcher:
        return
    assert parse_matcher(str(matcher)) == matcher


@pytest.mark.parametrize(
    ("text", "value", "matches"),
    [
        ("a=x", "x", True),
        ("a=x", "xy", False),
        ("a!=x", "xy", True),
        ("a=~crit.*", "critical", True),
        ("a=~rit", "critical", False),  # anchored at both ends
        ("a=~a|b", "ab", False),  # the anchors apply to the whole alternation
        ("a=~a", "a\n", False),  # the end is the end, not the line before it
        (r"a=~\d+", "\u0663", False),  # ASCII, as in Go
        ("a!~crit.*", "critical", False),
        ("a!~crit.*", "warning", True),
        ("a=~(?i)crit.*", "CRITICAL", True),
    ],
)
def test_a_matcher_matches_as_in_alertmanager(text: str, value: str, *, matches: bool) -> None:
    assert parse_matcher(text).matches({"a": value}) is matches


def test_alternatives_match_if_one_of_them_does() -> None:
    either = parse_matcher('job="a" or service=~"a|b"')
    assert str(either) == 'job="a" or service=~"a|b"'
    found = [either.matches(labels) for labels in ({"job": "a"}, {"service": "b"}, {"job": "b"}, {})]
    assert found == [True, True, False, False]
    # Not quoted, it is part of the value, as in Alertmanager.
    assert parse_matcher("team=this or that") == Matcher("team", Operator.EQUAL, "this or that")


@given(matchers)
def test_a_missing_label_is_the_empty_string(matcher: Matcher) -> None:
    assert matcher.matches({}) == matcher.matches({matcher.name: ""})


@given(matchers, anything)
def test_a_negated_matcher_matches_the_complement(matcher: Matcher, value: str) -> None:
    other = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}[matcher.operator]
    labels = {matcher.name: value}
    assert matcher.matches(labels) is not replace(matcher, operator=Operator(other)).matches(labels)


@pytest.mark.parametrize("regex", ["(a+)+b", "(a|a)*b", "(.*)(.*)(.*)(.*)(.*)b"])
@pytest.mark.timeout(5)
def test_no_regex_takes_unbounded_time(regex: str) -> None:
    assert not Matcher("a", Operator.REGEX, regex).matches({"a": "a" * 100_000})


# — which rule —


def test_the_first_rule_that_matches_decides_by_position_then_name() -> None:
    rules = [a_rule("a", "a=x"), a_rule("c", "a=x", position=2), a_rule("b", "a=x", position=2), a_rule("d", "a=y")]
    assert [first_match(rules, {"a": value}).name for value in "xyz"] == ["b", "d", "default"]


def test_all_matchers_of_a_rule_must_match() -> None:
    rules = [a_rule("both", "a=x", "b=y")]
    assert [first_match(rules, labels).name for labels in ({"a": "x"}, {"a": "x", "b": "y"})] == ["default", "both"]


def test_the_default_rule_is_last_and_matches_despite_its_matchers() -> None:
    changed = replace(DEFAULT_RULE, position=0, matchers=(parse_matcher("a=never"),), window=timedelta(minutes=1))
    assert first_match([changed, a_rule("other", "a=x")], {"a": "x"}).name == "other"
    assert first_match([changed], {}) == changed
    assert first_match([], {}) == DEFAULT_RULE


# — service —


@pytest.mark.parametrize(
    ("labels", "service"),
    [
        ({"service": "checkout", "job": "node"}, "checkout"),
        ({"app_kubernetes_io_name": "cart", "job": "node"}, "cart"),
        ({"alertname": "HostDown"}, "HostDown"),
        ({"service": "", "app": "cart"}, "cart"),
        ({"service": "  ", "app": " cart "}, "cart"),
        ({"service": "<no value>", "app": "{{ $labels.app }}", "job": "${job}", "rulename": "{EVENT.NAME}"}, "unknown"),
        ({"service": "{braces}"}, "{braces}"),
        ({}, "unknown"),
        ({"service": "x" * 10_000}, "x" * LONGEST_SERVICE),
    ],
)
def test_the_service_is_the_first_label_with_a_value(labels: dict[str, str], service: str) -> None:
    assert decide(DEFAULT_RULE, labels, SERVICE).service == service


# — severity —


@pytest.mark.parametrize(
    ("words", "severity"),
    [
        ("critical page fatal disaster emergency p1 P1 CRITICAL sev1", 1),
        ("error high major p2", 2),
        ("warning average p3", 3),
        ("minor low p4", 4),
        ("info none debug p5", 5),
        ("purple <no value>", 3),
    ],
)
def test_the_usual_words_for_severities_are_known_in_any_case(words: str, severity: int) -> None:
    assert [decided(severity=word).severity for word in words.split(" ")] == [severity] * len(words.split(" "))


@pytest.mark.parametrize("word", ["purple", "7", "SUPER BAD"])
def test_a_severity_that_is_not_known_is_shown_beside_the_default(word: str) -> None:
    decision = decided(severity=word)
    assert (decision.severity, decision.unrecognized) == (3, word.casefold())


def test_a_severity_that_is_missing_or_known_elsewhere_is_not_unrecognized() -> None:
    unrecognized = [
        decided().unrecognized,
        decided(severity="  ").unrecognized,
        decided(severity="<no value>").unrecognized,
        decided(severity="purple", priority="P2").unrecognized,
        decided(a_rule(severities={"Purple": 2}), severity="purple").unrecognized,
    ]
    assert unrecognized == [None] * 5


def test_severity_comes_from_the_first_label_whose_value_is_known() -> None:
    assert decided(severity="purple", priority="P2", level="info").severity == 2
    assert decided().severity == 3


def test_a_rule_s_own_severities_go_before_the_usual_ones() -> None:
    rule = a_rule(severities={"Critical": 2, "blocker": 1}, severity_labels=("urgency",))
    assert [decided(rule, urgency=word).severity for word in ("critical", "BLOCKER", "info")] == [2, 1, 5]


# — environment —


@pytest.mark.parametrize(
    ("labels", "environment"),
    [
        ({"env": "prod"}, "production"),
        ({"environment": "Production"}, "production"),
        ({"deployment_environment_name": "stg"}, "staging"),
        ({"stage": "<no value>", "env": "unknown"}, None),
        ({"cluster": "prod"}, None),
    ],
)
def test_the_environment_comes_from_labels_and_is_unknown_otherwise(
    labels: dict[str, str], environment: str | None
) -> None:
    assert decide(DEFAULT_RULE, labels, SERVICE).environment == environment


def test_a_rule_may_name_the_environment_of_alerts_that_do_not() -> None:
    rule = a_rule(environment="staging", environment_labels=("tier",))
    assert [decided(rule, tier="prod").environment, decided(rule, env="prod").environment] == ["production", "staging"]
    assert decided(rule, service="x").key == 'service="x", environment="staging"'


def test_the_environment_separates_incidents_whichever_label_states_it() -> None:
    labels: list[dict[str, str]] = [
        {"env": "prod"},
        {"environment": "production"},
        {"stage": "live"},
        {"env": "staging"},
        {},
    ]
    production, *others = [decide(DEFAULT_RULE, {"service": "shop"} | each, SERVICE).key_id for each in labels]
    assert [key_id == production for key_id in others] == [True, True, False, False]


# — key —


def test_a_key_is_readable_and_names_only_present_labels() -> None:
    assert decided(service="checkout", environment="prod").key == 'service="checkout", environment="production"'
    assert decided(job="node").key == 'service="node"'
    assert decided(environment="<no value>").key == 'service="unknown"'
    rule = a_rule(key_labels=("alert.name", "my label", "cluster"))
    labels = {"alert.name": 'a "b"\n\\', "my label": "x"}
    assert decide(rule, labels, SERVICE).key == 'alert.name="a \\"b\\"\\n\\\\", "my label"="x"'


def test_the_same_problem_reported_with_other_labels_has_the_same_key() -> None:
    one = decided(service="checkout", environment="prod", severity="critical", instance="a")
    other = decided(app="checkout", environment="prod", severity="info", alertname="Latency")
    assert (one.key, one.key_id) == (other.key, other.key_id)


def test_the_key_of_known_labels_never_changes() -> None:
    # Open incidents are found by this id: another encoding would orphan them.
    assert str(decided(service="checkout", environment="eu").key_id) == "79190755-d5c6-a47f-6c87-b24046d08b65"


def test_two_rules_never_share_a_key() -> None:
    assert decided(a_rule("a"), service="x").key_id != decided(a_rule("b"), service="x").key_id


def test_monitoring_failures_never_share_a_key_with_the_service() -> None:
    assert decided(service="x").key_id != decided(alert_class=MONITORING, service="x").key_id


def test_the_order_of_key_labels_does_not_matter_to_the_id() -> None:
    one, other = a_rule(key_labels=("a", "b")), a_rule(key_labels=("b", "a", "b"))
    assert decided(one, a="x", b="y").key_id == decided(other, a="x", b="y").key_id


two_key_values = st.dictionaries(st.sampled_from(["a", "b", "ab"]), st.text('ab\\",= ', min_size=1).filter(str.strip))


@given(two_key_values, two_key_values)
@example({"a": "b"}, {"ab": "b"})
@example({"a": 'x", b="y'}, {"a": "x", "b": "y"})
def test_different_key_values_never_give_the_same_id(one: dict[str, str], other: dict[str, str]) -> None:
    rule = a_rule(key_labels=("a", "b", "ab"))
    first, second = decide(rule, one, SERVICE), decide(rule, other, SERVICE)
    assert (first.key_id == second.key_id) == (one == other) == (first.key == second.key)


# — identity —


def test_ignored_labels_are_no_part_of_the_identity() -> None:
    labels = {"alertname": "A", "pod": "x-1"}
    decision = decide(a_rule(ignored_labels=("pod", "other")), labels, SERVICE)
    assert decision.identity(labels) == {"alertname": "A"}


def test_labels_without_ignored_ones_are_returned_unchanged() -> None:
    labels = {"alertname": "A"}
    assert decide(a_rule(ignored_labels=("pod",)), labels, SERVICE).identity(labels) is labels
    assert Rules([]).decide(labels, SERVICE).identity(labels) is labels


# — the whole —

some_rules = st.lists(
    st.builds(
        Rule,
        name=st.text(min_size=1, max_size=3),
        position=st.integers(0, 3),
        matchers=st.lists(matchers | alternatives, max_size=3).map(tuple),
        key_labels=st.lists(label_names, max_size=3).map(tuple),
        ignored_labels=st.lists(label_names, max_size=2).map(tuple),
        service_labels=st.lists(label_names, max_size=3).map(tuple),
        severity_labels=st.lists(label_names, max_size=3).map(tuple),
        severities=st.dictionaries(st.sampled_from(["a", "B", "critical"]), st.integers(1, 5)),
        environment_labels=st.lists(label_names, max_size=2).map(tuple),
        environment=st.sampled_from([None, "staging"]),
        opens_incidents=st.booleans(),
    ),
    max_size=3,
)


@given(some_rules, label_sets, st.sampled_from(AlertClass))
def test_any_labels_give_a_decision(rules: list[Rule], labels: dict[str, str], alert_class: AlertClass) -> None:
    decision = decide(first_match(rules, labels), labels, alert_class)
    assert 0 < len(decision.service) <= LONGEST_SERVICE
    assert decision.severity in range(1, 6)
    assert decision.identity(labels).items() <= labels.items()


@given(some_rules, st.lists(label_sets, max_size=5), st.sampled_from(AlertClass))
def test_a_cached_decision_equals_a_new_one(
    rules: list[Rule], label_sets: list[dict[str, str]], alert_class: AlertClass
) -> None:
    remembering = Rules(rules)
    for labels in [*label_sets, *label_sets]:
        assert remembering.decide(labels, alert_class) == decide(first_match(rules, labels), labels, alert_class)


def test_cached_rules_respect_every_matcher_of_a_rule() -> None:
    rules = [
        a_rule("both", "a=x", "b=y", position=1),
        a_rule("either", "a=x", 'b="z" or c="z"', position=2),
        a_rule("other", "b=y", position=3),
    ]
    cached = Rules(rules)
    values = [None, "x", "y", "z"]
    for a, b, c in [*product(values, repeat=3)] * 2:
        labels = {name: value for name, value in (("a", a), ("b", b), ("c", c)) if value is not None}
        assert cached.decide(labels, SERVICE).rule == first_match(rules, labels).name, labels


def test_a_decision_carries_the_times_of_its_rule() -> None:
    rule = a_rule("slow", window=timedelta(hours=1), max_span=timedelta(days=2))
    decision = Rules([rule]).decide({"service": "x"}, SERVICE)
    assert (decision.rule, decision.window, decision.max_span) == ("slow", timedelta(hours=1), timedelta(days=2))
