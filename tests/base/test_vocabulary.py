"""The words of the field, as the products spell them."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.base.values.facts import Outcome
from app.base.values.vocabulary import (
    ENVIRONMENT_LABELS,
    LONGEST_ENVIRONMENT,
    environment_in,
    environment_of,
    outcome_of,
    severity_of,
)

# What each product writes, worst first. Unknown words of one product would become its alerts' default severity.
PRODUCTS = {
    "syslog": "emerg 1 alert 1 crit 1 err 2 warning 3 notice 5 info 5 debug 5",
    "syslog, long": "emergency 1 panic 1 error 2 warn 3 informational 5",
    "PagerDuty": "critical 1 error 2 warning 3 info 5 high 2 low 4 SEV-1 1 SEV-5 5",
    "Opsgenie": "P1 1 P2 2 P3 3 P4 4 P5 5",
    "Zabbix": "Disaster 1 High 2 Average 3 Warning 3 Information 5 Not_classified 3",
    "Nagios": "CRITICAL 1 DOWN 1 WARNING 3 UNREACHABLE 3 OK 5 UP 5",
    "Kapacitor": "CRITICAL 1 WARNING 3 INFO 5 OK 5",
    "Splunk": "fatal 1 severe 1 critical 1 high 2 error 2 medium 3 warn 3 low 4 info 5 informational 5 debug 5",
    "Splunk Observability": "Critical 1 Major 2 Minor 4 Warning 3 Info 5",
    "Datadog": "alert 1 error 2 warn 3 warning 3 success 5 info 5 ok 5",
    "Alerta": "critical 1 major 2 minor 4 warning 3 indeterminate 3 informational 5 normal 5 ok 5 cleared 5 trace 5",
    "ServiceNow": "1_-_Critical 1 2_-_High 2 3_-_Moderate 3 4_-_Low 4 5_-_Planning 5",
    "issue trackers": "blocker 1 highest 1 urgent 2 high 2 medium 3 low 4 lowest 5 trivial 5",
    "others": "P0 1 sev0 1 S1 1 severity::1 1 priority::2 2 page 1 ticket 3 none 5 normal 5",
}


@pytest.mark.parametrize("words", PRODUCTS.values(), ids=PRODUCTS)
def test_the_severities_of_each_product_are_known(words: str) -> None:
    parts = words.split()
    expected = {word.replace("_", " "): int(number) for word, number in zip(parts[::2], parts[1::2], strict=True)}
    assert {word: severity_of(word) for word in expected} == expected


@pytest.mark.parametrize(
    "word", ["purple", "", " ", "1", "0", "5", "criticality", "not critical", "unknown", "<no value>"]
)
def test_another_word_is_no_severity(word: str) -> None:
    assert severity_of(word) is None


@given(st.sampled_from(["critical", "information", "sev1", "not classified"]), st.sampled_from(["", " ", "\n"]))
def test_case_and_surrounding_space_do_not_matter(word: str, space: str) -> None:
    assert {severity_of(spelling) for spelling in (word, word.upper(), space + word.title() + space)} == {
        severity_of(word)
    }


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        ("prod PROD prd live production Production", "production"),
        ("stg stage staging Staging", "staging"),
        ("pre-prod preprod pre_production PPE", "preproduction"),
        ("uat acc acceptance", "acceptance"),
        ("dev Development devel", "development"),
        ("tst test testing", "test"),
        ("QA qa", "qa"),
        ("int integration", "integration"),
        ("prod-eu Prod-EU", "prod-eu"),  # not the same as production
    ],
)
def test_an_environment_has_one_name(words: str, environment: str) -> None:
    assert {environment_of(word) for word in words.split()} == {environment}


@pytest.mark.parametrize("word", ["", "  ", "unknown", "Unknown", "none", "null", "n/a", "N/A"])
def test_what_names_no_environment_is_not_production(word: str) -> None:
    assert environment_of(word) is None


@given(st.text(max_size=200))
@example("Straße")
@example("İ")
def test_a_normalized_environment_stays_as_it_is(word: str) -> None:
    found = environment_of(word)
    assert found is None or (environment_of(found) == found and 0 < len(found) <= LONGEST_ENVIRONMENT)


@pytest.mark.parametrize("name", ENVIRONMENT_LABELS)
def test_each_usual_label_states_the_environment(name: str) -> None:
    assert environment_in({name: "prod", "job": "node"}) == "production"
    assert environment_in({"job": "node"}) is None


def test_a_label_that_names_no_environment_leaves_it_to_the_next() -> None:
    assert environment_in({"environment": "unknown", "env": "stg", "stage": "prod"}) == "staging"


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (
            "SUCCESS|UNSTABLE|complete|completed|done|finished|passed|partiallySucceeded|READY|deployed",
            Outcome.SUCCEEDED,
        ),
        (
            "FAILURE|timed_out|TimedOut|TIMEOUT|error|errored|startup_failure|TERMINAL|infrastructure_fail",
            Outcome.FAILED,
        ),
        ("ABORTED|cancelled|Canceled|skipped|NOT_BUILT|stale|superseded|Stopped", Outcome.CANCELED),
        ("queued|pending|waiting_for_resource|action_required|on_hold|pending-upgrade", Outcome.PENDING),
        ("running|InProgress|in progress|in-progress|WORKING|Executing|canceling", Outcome.IN_PROGRESS),
        ("purple||42|not done", None),
    ],
)
def test_the_outcomes_of_ci_systems_are_known(words: str, outcome: Outcome | None) -> None:
    assert {outcome_of(word) for word in words.split("|")} == {outcome}
