"""The registry of measures: values, and the reasons for missing ones."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.incidents.grouping.law.episode import RECOVERIES
from app.incidents.grouping.signal import AlertClass, EndReason
from app.incidents.measures import measures as m
from app.incidents.measures.measures import (
    DURATION_BOUNDS,
    FACTS,
    INGEST_LAG_BOUNDS,
    MEASURES,
    Facts,
    Measured,
    MeasureStatus,
)

DAY = datetime(2026, 8, 20, tzinfo=UTC)
WEIGHTS: m.Weights = {
    "sev1": Decimal(1),
    "sev2": Decimal("0.5"),
    "sev3": Decimal("0.1"),
    "sev4": Decimal(0),
    "sev5": Decimal(0),
}


def at(clock: str) -> datetime:
    hours, _, minutes = clock.partition(":")
    return DAY + timedelta(hours=int(hours), minutes=int(minutes))


def an_incident(**facts: object) -> Facts:
    return replace(Facts(at("10:00"), "checkout", 2), **facts)  # type: ignore[arg-type]


RESOLVED = an_incident(
    impact_started_at=at("09:50"),
    acknowledged_at=at("10:05"),
    declared_at=at("10:07"),
    first_public_at=at("10:12"),
    identified_at=at("10:20"),
    mitigated_at=at("10:30"),
    ended_at=at("11:00"),
    end_reason=EndReason.RECOVERED,
)


def recorded(minutes: float) -> Measured:
    return Measured(minutes * 60, MeasureStatus.RECORDED)


def statuses(facts: Facts, *, include_non_recoveries: bool = False) -> dict[str, str]:
    found = m.measures(facts, include_non_recoveries=include_non_recoveries)
    return {name: str(measured.status) for name, measured in found.items()}


def test_a_resolved_incident_with_all_facts_has_all_measures() -> None:
    assert m.measures(RESOLVED) == {
        "time_to_detect": recorded(10),
        "time_to_acknowledge": recorded(5),
        "time_to_declare": recorded(7),
        "time_to_public_update": recorded(12),
        "time_to_mitigate": recorded(40),
        "time_to_recover": recorded(70),
        "detection": recorded(10),
        "response": recorded(20),
        "remediation": recorded(40),
        "analysis": Measured(None, MeasureStatus.NOT_APPLICABLE, "no review"),
        "readiness": Measured(None, MeasureStatus.NOT_APPLICABLE, "no review"),
    }


def test_an_open_incident_shows_which_event_is_pending() -> None:
    assert m.measures(an_incident()) == {
        "time_to_detect": Measured(None, MeasureStatus.NOT_APPLICABLE, "impact start not stated"),
        "time_to_acknowledge": Measured(None, MeasureStatus.PENDING, "not acknowledged yet"),
        "time_to_declare": Measured(None, MeasureStatus.PENDING, "not declared yet"),
        "time_to_public_update": Measured(None, MeasureStatus.PENDING, "not on the status page yet"),
        "time_to_mitigate": Measured(None, MeasureStatus.PENDING, "not mitigated yet"),
        "time_to_recover": Measured(None, MeasureStatus.PENDING, "not resolved yet"),
        "detection": Measured(None, MeasureStatus.NOT_APPLICABLE, "impact start not stated"),
        "response": Measured(None, MeasureStatus.PENDING, "not identified yet"),
        "remediation": Measured(None, MeasureStatus.PENDING, "not identified yet"),
        "analysis": Measured(None, MeasureStatus.PENDING, "not resolved yet"),
        "readiness": Measured(None, MeasureStatus.PENDING, "not resolved yet"),
    }


def test_most_incidents_are_never_on_the_status_page() -> None:
    found = m.measures(replace(RESOLVED, first_public_at=None))["time_to_public_update"]
    assert found == Measured(None, MeasureStatus.NOT_APPLICABLE, "never on the status page")


def test_an_incident_that_a_person_opened_was_detected_by_its_declaration() -> None:
    found = m.measures(an_incident(declared=True, declared_at=at("10:00")))["time_to_declare"]
    assert found == Measured(None, MeasureStatus.NOT_APPLICABLE, "detected by its declaration")
    earlier = an_incident(declared=True, declared_at=at("10:00"), detected_at_stated=at("09:50"))
    assert m.measures(earlier)["time_to_declare"] == recorded(10)


def test_an_open_incident_shows_how_long_it_has_waited() -> None:
    facts = an_incident(impact_started_at=at("09:50"), identified_at=at("10:20"))
    found = m.measures(facts, now=at("11:00"))
    waited = {name: measured.censored_seconds for name, measured in found.items()}
    assert {name: seconds / 60 for name, seconds in waited.items() if seconds is not None} == {
        "time_to_acknowledge": 60,
        "time_to_declare": 60,
        "time_to_public_update": 60,
        "time_to_mitigate": 70,
        "time_to_recover": 70,
        "remediation": 40,
    }
    without = {name: measured._replace(censored_seconds=None) for name, measured in found.items()}
    assert without == m.measures(facts)


def test_a_wait_in_the_future_has_no_length() -> None:
    found = m.measures(an_incident(), now=at("09:59"))
    assert {measured.censored_seconds for measured in found.values()} == {None}
    assert m.measures(an_incident(), now=at("10:30"))["remediation"].censored_seconds is None  # not identified


def test_resolved_without_acknowledgement_is_censored_at_its_resolve() -> None:
    found = m.measures(an_incident(ended_at=at("10:45"), end_reason=EndReason.RECOVERED))
    assert found["time_to_acknowledge"] == Measured(
        None, MeasureStatus.NOT_APPLICABLE, "resolved without acknowledgement", 45 * 60
    )
    assert found["time_to_recover"] == recorded(45)
    assert found["response"].status is found["remediation"].status is MeasureStatus.NOT_APPLICABLE


def test_a_reopened_incident_is_pending_though_its_last_end_has_a_reason() -> None:
    found = m.measures(an_incident(end_reason=EndReason.RULE_PAUSED))
    assert found["time_to_recover"].status is MeasureStatus.PENDING


@pytest.mark.parametrize("reason", EndReason)
def test_only_recoveries_count_as_such_unless_asked_for(reason: EndReason) -> None:
    facts = replace(RESOLVED, end_reason=reason)
    found = m.measures(facts)
    if reason in RECOVERIES:
        assert (found["time_to_recover"], found["remediation"]) == (recorded(70), recorded(40))
    elif reason is EndReason.ENDS_BEFORE_START:
        invalid = Measured(None, MeasureStatus.INVALID, "the end reported is before the start")
        assert (found["time_to_recover"], found["remediation"]) == (invalid, invalid)
    elif reason is EndReason.SUPERSEDED:
        # It lasted at least that long.
        censored = Measured(None, MeasureStatus.NOT_APPLICABLE, "ended by superseded", 70 * 60)
        assert (found["time_to_recover"], found["remediation"].censored_seconds) == (censored, 40 * 60)
    else:
        left_out = Measured(None, MeasureStatus.NOT_APPLICABLE, f"ended by {reason}")
        assert (found["time_to_recover"], found["remediation"]) == (left_out, left_out)
    assert found["time_to_acknowledge"] == recorded(5)
    if reason is not EndReason.ENDS_BEFORE_START:
        assert m.measures(facts, include_non_recoveries=True) == m.measures(RESOLVED)


def test_every_measure_that_needs_an_end_before_the_start_is_invalid() -> None:
    facts = replace(RESOLVED, end_reason=EndReason.ENDS_BEFORE_START, acknowledged_at=None)
    for every_end in (False, True):
        found = m.measures(facts, include_non_recoveries=every_end)
        invalid = {name for name, each in found.items() if each.status is MeasureStatus.INVALID}
        assert invalid == {"time_to_acknowledge", "time_to_recover", "remediation", "analysis"}


def test_monitoring_failures_have_no_measures_of_the_service() -> None:
    facts = replace(RESOLVED, alert_class=AlertClass.MONITORING)
    assert set(m.measures(facts).values()) == {
        Measured(None, MeasureStatus.NOT_APPLICABLE, "monitoring failure, not a service failure")
    }
    assert m.measures(facts, include_non_recoveries=True) == m.measures(RESOLVED)
    assert m.impact(facts, 1, WEIGHTS) == 0


def test_a_merged_incident_has_left_every_metric() -> None:
    assert set(statuses(replace(RESOLVED, merged=True), include_non_recoveries=True).values()) == {"not_applicable"}


@pytest.mark.parametrize(
    ("wrong", "invalid"),
    [
        ({"impact_started_at": at("10:01")}, {"time_to_detect", "detection"}),
        ({"acknowledged_at": at("09:59")}, {"time_to_acknowledge"}),
        ({"declared_at": at("09:59")}, {"time_to_declare"}),
        ({"first_public_at": at("09:59")}, {"time_to_public_update"}),
        ({"mitigated_at": at("09:49")}, {"time_to_mitigate"}),
        ({"identified_at": at("09:59")}, {"response"}),
        ({"identified_at": at("11:01")}, {"remediation"}),
        ({"ended_at": at("09:49")}, {"time_to_recover", "remediation"}),
        (
            {"acknowledged_at": None, "detected_at_stated": at("11:30")},
            {"time_to_acknowledge", "time_to_declare", "time_to_public_update", "response"},
        ),
    ],
)
def test_facts_that_contradict_each_other_are_invalid_and_never_clamped(
    wrong: dict[str, object], invalid: set[str]
) -> None:
    found = m.measures(replace(RESOLVED, **wrong))  # type: ignore[arg-type]
    assert {name for name, measured in found.items() if measured.status is MeasureStatus.INVALID} == invalid
    assert all(found[name].seconds is None and "before" in (found[name].reason or "") for name in invalid)


def test_zero_is_recorded() -> None:
    assert m.measures(an_incident(acknowledged_at=at("10:00")))["time_to_acknowledge"] == recorded(0)


def test_stated_facts_override_those_of_alerts() -> None:
    plain = an_incident()
    stated = an_incident(
        detected_at_stated=at("09:55"),
        impact_started_at=at("09:40"),
        service_stated="payments",
        severity_stated=5,
        impact_stated=Decimal(0),
    )
    assert (m.detected_at(plain), m.began(plain), m.service(plain), m.severity(plain), m.impact(plain, 2, WEIGHTS)) == (
        at("10:00"),
        at("10:00"),
        "checkout",
        2,
        Decimal("0.5"),
    )
    assert (m.detected_at(stated), m.began(stated), m.service(stated), m.severity(stated)) == (
        at("09:55"),
        at("09:40"),
        "payments",
        5,
    )
    assert m.began(replace(stated, impact_started_at=None)) == at("09:55")
    assert (m.impact(stated, 1, WEIGHTS), m.severity(stated)) == (Decimal(0), 5)
    assert m.impact(plain, 3, WEIGHTS) == Decimal("0.1")
    assert m.impact(replace(stated, impact_stated=None, severity_stated=3), 1, WEIGHTS) == Decimal("0.1")
    assert m.priority(stated) is m.Priority.INFO


def test_status_and_priority() -> None:
    assert [str(m.status(facts)) for facts in (an_incident(), an_incident(acknowledged_at=at("10:01")), RESOLVED)] == [
        "open",
        "acknowledged",
        "resolved",
    ]
    assert [str(m.priority(an_incident(severity=severity))) for severity in (1, 2, 3, 4, 5)] == [
        "critical",
        "critical",
        "warning",
        "warning",
        "info",
    ]


def test_facts_come_from_a_row() -> None:
    row: dict[str, object] = dict.fromkeys(FACTS) | {
        "began_at": at("10:00"),
        "service": "checkout",
        "severity": 2,
        "ended_at": at("11:00"),
        "end_reason": "recovered",
        "alert_class": "service",
        "declared": False,
        "impact_started_at": at("09:50"),
        "acknowledged_at": at("10:05"),
        "declared_at": at("10:07"),
        "first_public_at": at("10:12"),
        "identified_at": at("10:20"),
        "mitigated_at": at("10:30"),
        "review_planned": False,
    }
    assert Facts.of(SimpleNamespace(**row)) == RESOLVED
    assert Facts.of(SimpleNamespace(**row | {"merged_into": "another"})).merged


def test_the_registry_is_complete_and_its_bounds_rise() -> None:
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
    assert all(measure.label and measure.starts and measure.ends and measure.formula for measure in MEASURES)
    assert list(DURATION_BOUNDS) == sorted(set(DURATION_BOUNDS))
    assert list(INGEST_LAG_BOUNDS) == sorted(set(INGEST_LAG_BOUNDS))


times = st.none() | st.integers(0, 600).map(lambda minute: DAY + timedelta(minutes=minute))


@st.composite
def some_facts(draw: st.DrawFn) -> Facts:
    ended_at = draw(times)
    return Facts(
        began_at=draw(st.integers(0, 600).map(lambda minute: DAY + timedelta(minutes=minute))),
        service="checkout",
        severity=draw(st.integers(1, 5)),
        ended_at=ended_at,
        end_reason=draw(st.sampled_from(EndReason)) if ended_at or draw(st.booleans()) else None,
        alert_class=draw(st.sampled_from(AlertClass)),
        merged=draw(st.booleans()),
        detected_at_stated=draw(times),
        impact_started_at=draw(times),
        acknowledged_at=draw(times),
        declared_at=draw(times),
        first_public_at=draw(times),
        identified_at=draw(times),
        mitigated_at=draw(times),
        reviewed_at=draw(times),
        ready_at=draw(times),
        review_planned=draw(st.booleans()),
    )


@given(some_facts(), st.booleans())
def test_a_measure_has_seconds_if_recorded_and_a_reason_if_not(facts: Facts, include: bool) -> None:
    for measured in m.measures(facts, include_non_recoveries=include).values():
        assert (measured.status is MeasureStatus.RECORDED) == (measured.seconds is not None)
        assert (measured.status is MeasureStatus.RECORDED) == (measured.reason is None)
        assert measured.seconds is None or measured.seconds >= 0
        assert measured.censored_seconds is None or measured.status is MeasureStatus.NOT_APPLICABLE


@given(some_facts())
def test_the_phases_partition_recovery(facts: Facts) -> None:
    found = m.measures(facts)
    phases = [found[name].seconds for name in ("detection", "response", "remediation")]
    if None not in phases:
        assert sum(phase for phase in phases if phase is not None) == found["time_to_recover"].seconds


@given(some_facts())
def test_the_five_phases_partition_the_life_of_an_incident(facts: Facts) -> None:
    found = m.measures(facts)
    phases = [found[name].seconds for name in ("detection", "response", "remediation", "analysis", "readiness")]
    if None not in phases:
        assert facts.ready_at is not None
        assert facts.impact_started_at is not None
        whole = (facts.ready_at - facts.impact_started_at).total_seconds()
        assert sum(phase for phase in phases if phase is not None) == whole


@given(some_facts())
def test_only_the_review_is_pending_once_resolved(facts: Facts) -> None:
    if facts.ended_at is not None:
        pending = {name for name, status in statuses(facts).items() if status == "pending"}
        assert pending <= {"analysis", "readiness"}
        assert not pending or facts.review_planned or facts.reviewed_at


# — the phases after the end —


REVIEWED = replace(RESOLVED, reviewed_at=at("12:00"), ready_at=at("14:00"))


def after_the_end(facts: Facts, now: datetime | None = None) -> list[Measured]:
    found = m.measures(facts, now=now)
    return [found["analysis"], found["readiness"]]


def test_analysis_ends_with_the_review_and_readiness_with_the_last_action_item() -> None:
    assert after_the_end(REVIEWED) == [recorded(60), recorded(120)]


def test_an_incident_whose_review_is_planned_waits_for_it() -> None:
    planned = replace(RESOLVED, review_planned=True)
    yet = "not reviewed yet"
    assert [each[1:3] for each in after_the_end(planned)] == [(MeasureStatus.PENDING, yet)] * 2
    assert after_the_end(planned, at("13:00"))[0].censored_seconds == 120 * 60
    open_items = after_the_end(replace(REVIEWED, ready_at=None), at("13:00"))
    assert [each.censored_seconds for each in open_items] == [None, 60 * 60]


def test_a_review_before_the_end_is_invalid() -> None:
    assert [each.status for each in after_the_end(replace(REVIEWED, reviewed_at=at("10:59")))] == [
        MeasureStatus.INVALID,
        MeasureStatus.RECORDED,
    ]
    assert after_the_end(replace(REVIEWED, ready_at=at("11:59")))[1].status is MeasureStatus.INVALID
