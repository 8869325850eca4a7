"""DORA metrics, and the deployment that is considered the cause of an incident."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from app.base.values.facts import Commit, Outcome
from app.incidents.grouping.signal import AlertClass, EndReason
from app.incidents.measures.measures import Facts
from app.incidents.measures.vectorized import Columns, coded
from app.metrics.counts import Events
from app.metrics.deployments.deployment import Deployment
from app.metrics.deployments.dora import Dora, Durations, cost_of_downtime, dora, durations, frequency, ratio
from app.metrics.deployments.links import (
    BASES,
    LOOK_BACK,
    NO_DEPLOYMENT,
    UNKNOWN,
    VERSION_LABELS,
    Basis,
    Confidence,
    LinkedIncident,
    LinkedIncidents,
    StatedCause,
    caused,
    links,
)

DAY = datetime(2026, 8, 20, tzinfo=UTC)


def at(clock: str) -> datetime:
    hours, _, minutes = clock.partition(":")
    return DAY + timedelta(hours=int(hours), minutes=int(minutes))


def a_deployment(finished: str | datetime, **fields: object) -> Deployment:
    """A deployment of checkout to production that took five minutes."""
    end = at(finished) if isinstance(finished, str) else finished
    id_ = str(fields.get("id", f"d-{end:%d-%H:%M:%S.%f}"))
    whole = Deployment(
        id=id_,
        reported_id=id_,
        source="ci",
        service="checkout",
        environment="production",
        production=True,
        version=None,
        sha=None,
        link=None,
        outcome=Outcome.SUCCEEDED,
        started_at=end - timedelta(minutes=5),
        finished_at=end,
        happened_at=end,
        commits=(),
        unplanned=False,
        made_for=None,
        needed_intervention=False,
    )
    return replace(whole, **fields)  # type: ignore[arg-type]


def an_incident(began: str | datetime, ended: str | None = None, **fields: object) -> LinkedIncident:
    start = at(began) if isinstance(began, str) else began
    facts = Facts(
        start,
        str(fields.pop("service", "checkout")),
        int(str(fields.pop("severity", 1))),
        at(ended) if ended else None,
        EndReason.RECOVERED if ended else None,
    )
    if fields.pop("monitoring", False):
        facts = replace(facts, alert_class=AlertClass.MONITORING)
    if fields.pop("merged", False):
        facts = replace(facts, merged=True)
    return replace(LinkedIncident(uuid4(), 1, facts, {}), **fields)  # type: ignore[arg-type]


def cause_of(incident: LinkedIncident, *deployments: Deployment) -> tuple[str | None, Basis, Confidence] | None:
    link = links([incident], deployments).get(incident.id)
    return (link.deployment.id if link.deployment else None, link.basis, link.confidence) if link else None


def of_the_day(deployments: Iterable[Deployment], incidents: Iterable[LinkedIncident] = (), **scope: Any) -> Dora:
    known, those = list(deployments), list(incidents)
    return dora(together(those, known), start=DAY, end=DAY + timedelta(days=1), **scope)


def together(incidents: Iterable[LinkedIncident], deployments: Sequence[Deployment]) -> LinkedIncidents:
    """In the form that the store reads."""
    those = [each for each in incidents if not each.facts.merged]
    return caused(
        Columns.of((each.number for each in those), (each.facts for each in those)),
        coded(each.labels.get("environment") or each.labels.get("env", "") for each in those),
        {
            row: each
            for row, each in enumerate(those)
            if each.stated or each.deployment_ids or not each.labels.keys().isdisjoint(VERSION_LABELS)
        },
        deployments,
    )


# — links —


def test_links_are_looked_for_in_their_order() -> None:
    old, versioned, last = a_deployment("8:00"), a_deployment("9:00", version="v1.41"), a_deployment("10:00")
    incident = an_incident("10:30")
    known = (old, versioned, last)
    assert cause_of(incident, *known) == (last.id, Basis.LAST_DEPLOYMENT, Confidence.MEDIUM)
    incident = replace(incident, labels={"version": "1.41"})
    assert cause_of(incident, *known) == (versioned.id, Basis.VERSION, Confidence.HIGH)
    incident = replace(incident, deployment_ids=(old.id, "unknown"))
    assert cause_of(incident, *known) == (old.id, Basis.LABEL, Confidence.CERTAIN)
    assert cause_of(replace(incident, stated=StatedCause(last.id)), *known) == (
        last.id,
        Basis.STATED,
        Confidence.CERTAIN,
    )
    assert cause_of(replace(incident, stated=StatedCause(None)), *known) == (None, Basis.STATED, Confidence.CERTAIN)


def test_a_sha_among_the_labels_is_a_version_too() -> None:
    versioned = a_deployment("9:00", sha="6113728f27ae82c7b1a177c8d03f9e96e0adf246")
    incident = an_incident("12:00", labels={"git_sha": "6113728"})
    assert cause_of(incident, versioned, a_deployment("10:00")) == (versioned.id, Basis.VERSION, Confidence.HIGH)
    assert cause_of(replace(incident, labels={"git_sha": "6"}), versioned) == (
        versioned.id,
        Basis.LAST_DEPLOYMENT,
        Confidence.LOW,
    )


@pytest.mark.parametrize(
    "deployment",
    [
        a_deployment("9:00", service="search"),
        a_deployment("9:00", environment="staging", production=False),
        a_deployment("9:00", outcome=Outcome.CANCELED),
        a_deployment("9:00", outcome=Outcome.PENDING, finished_at=None, started_at=None),
        a_deployment("10:06"),
        a_deployment(at("9:00") - LOOK_BACK),
    ],
)
def test_impossible_causes_are_never_derived(deployment: Deployment) -> None:
    assert cause_of(an_incident("10:00"), deployment) is None


def test_an_incident_of_another_environment_does_not_count_for_production() -> None:
    staging = a_deployment("9:00", environment="staging", production=False)
    incident = an_incident("9:30", labels={"environment": "staging"})
    assert cause_of(incident, staging, a_deployment("9:20")) == (staging.id, Basis.LAST_DEPLOYMENT, Confidence.MEDIUM)


minutes = st.integers(0, 3 * 24 * 60).map(lambda number: DAY + timedelta(minutes=number))


@given(st.lists(minutes, max_size=8, unique=True), minutes)
def test_a_moment_belongs_to_exactly_one_window_half_open_on_both_sides(
    starts: list[datetime], moment: datetime
) -> None:
    """The oracle checks each deployment separately by the definition."""
    deployments = [a_deployment(start + timedelta(minutes=5)) for start in starts]
    incident = an_incident(moment)
    holding = []
    for deployment in deployments:
        start = deployment.began_at
        later = [each.began_at for each in deployments if each.began_at > start]
        if start <= moment < min([*later, start + LOOK_BACK]):
            holding.append(deployment.id)
    assert len(holding) <= 1
    found = cause_of(incident, *deployments)
    assert ([found[0]] if found else []) == holding


def test_at_the_boundary_the_newer_deployment_is_the_cause() -> None:
    first, second = a_deployment("10:05"), a_deployment("11:05")
    found = cause_of(an_incident("11:00"), first, second)
    assert found is not None
    assert found[0] == second.id
    found = cause_of(an_incident(at("11:00") - timedelta(microseconds=1)), first, second)
    assert found is not None
    assert found[0] == first.id
    assert cause_of(an_incident(at("10:00") + LOOK_BACK), first) is None


# — numbers —


def test_the_numbers_of_a_day() -> None:
    commits = (Commit("a", at("8:00")), Commit("b", at("9:00")), Commit("later", at("13:00")), Commit("untold"))
    first = a_deployment("10:00", commits=commits)
    bad = a_deployment("12:00", commits=(Commit("a", at("8:00")), Commit("c", at("11:00"))))
    fix = a_deployment("12:40", unplanned=True, made_for="INC-1")
    hasty = a_deployment("13:00", unplanned=True)
    broken = a_deployment("14:00", outcome=Outcome.FAILED)
    aborted = a_deployment("15:00", outcome=Outcome.CANCELED)
    staging = a_deployment("16:00", environment="staging", production=False)
    incidents = [
        an_incident("12:10", "12:40", number=1),
        an_incident("12:15", "13:15", number=2),
        an_incident("20:00", "22:00", service="search"),
        an_incident("12:20", "12:21", severity=5),
        an_incident("10:01", "10:02", monitoring=True),
        an_incident("10:01", "10:02", merged=True),
    ]
    numbers = of_the_day([first, bad, fix, hasty, broken, aborted, staging], incidents)
    assert (numbers.finished, numbers.frequency.n, numbers.frequency.per_day) == (5, 4, 4)
    assert (numbers.lead_time.n, numbers.lead_time.values, numbers.lead_time.left_out) == (
        3,
        [3600, 3600, 7200],
        1,
    )
    assert numbers.without_commit_times == 2
    assert (numbers.change_fail_rate.k, numbers.change_fail_rate.n, numbers.change_fail_rate.value) == (1, 5, 0.2)
    [failure] = numbers.failures
    assert (failure.deployment, failure.marked, [number for number, _ in failure.links]) == (bad, False, [1, 2])
    recovery, all_incidents = numbers.failed_deployment_recovery_time, numbers.time_to_recover
    assert (recovery.values, recovery.mean) == ([1800, 3600], Decimal(2700))
    assert all_incidents.values == [1800, 3600, 7200]
    assert (numbers.rework_rate.k, numbers.unplanned_without_incident) == (1, 1)
    assert (numbers.unlinked.k, numbers.unlinked.n) == (1, 3)
    assert numbers.bases == {Basis.LAST_DEPLOYMENT: 2}


def test_a_failed_pipeline_alone_is_no_failed_change_and_a_marked_one_is() -> None:
    broken = a_deployment("10:00", outcome=Outcome.FAILED)
    assert of_the_day([broken]).change_fail_rate.k == 0
    assert of_the_day([replace(broken, needed_intervention=True)]).change_fail_rate.k == 1
    assert of_the_day([replace(broken, needed_intervention=True, outcome=Outcome.CANCELED)]).change_fail_rate.n == 0


def test_missing_is_not_zero() -> None:
    numbers = of_the_day([])
    assert numbers.change_fail_rate.value is None
    assert numbers.lead_time.typical is None
    assert (numbers.frequency.n, numbers.frequency.low) == (0, 0)
    assert numbers.failed_deployment_recovery_time.mean is None


some_deployments = st.lists(
    st.builds(
        lambda finished, fields: a_deployment(finished, **fields),
        minutes,
        st.fixed_dictionaries(
            {
                "id": st.sampled_from("abcdef"),
                "service": st.sampled_from(["checkout", "search"]),
                "outcome": st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELED]),
                "needed_intervention": st.booleans(),
            }
        ),
    ),
    max_size=6,
    unique_by=lambda deployment: deployment.id,
)
some_incidents = st.lists(
    st.builds(
        lambda began, fields: an_incident(began, **fields),
        minutes,
        st.fixed_dictionaries(
            {
                "service": st.sampled_from(["checkout", "search"]),
                "severity": st.integers(1, 5),
                "stated": st.one_of(st.none(), st.builds(StatedCause, st.sampled_from([*"abcdef", None]))),
            }
        ),
    ),
    max_size=12,
)


@given(some_deployments, some_incidents, st.sampled_from([(), ("checkout",), ("checkout", "search")]))
def test_the_number_of_failures_never_exceeds_that_of_deployments(
    deployments: list[Deployment], incidents: list[LinkedIncident], services: Sequence[str]
) -> None:
    numbers = dora(
        together(incidents, deployments),
        start=DAY,
        end=DAY + timedelta(days=2),
        services=services,
    )
    rate = numbers.change_fail_rate
    assert rate.k <= rate.n == numbers.finished
    assert rate.value is None or 0 <= rate.value <= 1
    assert numbers.rework_rate.k + numbers.unplanned_without_incident <= numbers.finished
    assert numbers.unlinked.k + sum(numbers.bases.values()) == numbers.unlinked.n


@given(some_deployments, some_incidents, st.randoms(use_true_random=False))
def test_the_order_of_reading_does_not_matter(
    deployments: list[Deployment], incidents: list[LinkedIncident], random: object
) -> None:
    found = links(incidents, deployments)
    assert links(incidents[::-1], deployments[::-1]) == found


labels = st.fixed_dictionaries(
    {},
    optional={
        "environment": st.sampled_from(["", "prod", "staging"]),
        "env": st.sampled_from(["production", "staging"]),
        "version": st.sampled_from(["1", "v2"]),
    },
)


@given(some_deployments, some_incidents, st.data())
def test_many_have_the_causes_of_each(
    deployments: list[Deployment], incidents: list[LinkedIncident], data: st.DataObject
) -> None:
    known = [
        replace(each, version=data.draw(st.sampled_from([None, "1", "2"])), production=data.draw(st.booleans()))
        for each in deployments
    ]
    named = st.lists(st.sampled_from("abcdefg"), max_size=1).map(tuple)
    those = [replace(each, labels=data.draw(labels), deployment_ids=data.draw(named)) for each in incidents]
    found, expected = together(those, known), links(those, known)
    for row, incident in enumerate(those):
        link = expected.get(incident.id)
        if link is None:
            assert found.cause[row] == UNKNOWN
        elif link.deployment is None:
            assert (found.cause[row], BASES[found.basis[row]]) == (NO_DEPLOYMENT, link.basis)
        else:
            assert found.link(row) == link


def test_intervals_are_those_of_the_textbook() -> None:
    """Wilson's formula and the exact Poisson interval, computed directly."""
    z, k, n = 1.959964, 3, 20
    middle, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * (k * (n - k) / n + z * z / 4) ** 0.5
    found = ratio(np.arange(n) < k, np.arange(n) * DAY_MICROSECONDS, timedelta(days=n))
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), rel=1e-5)
    weekly = frequency(Events(np.array([0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4.5, 5.5, 6.5]), 7))
    assert weekly.dispersion == 1
    assert (weekly.low, weekly.high) == pytest.approx((4.7954 / 7, 18.3904 / 7), rel=1e-4)
    assert weekly.low is not None
    assert stats.poisson.sf(9, weekly.low * 7) == pytest.approx(0.025)
    few = a_day_apart(float(value) for value in range(9, 0, -1))
    assert (few.values, few.typical, few.low, few.high) == ([1, 2, 3, 4, 5, 6, 7, 8, 9], *[None] * 3)
    ten = a_day_apart([1.0] * 10)
    assert ten.values is None
    assert ten.typical is not None
    assert (ten.typical.median, ten.low, ten.high, ten.typical.p90, ten.mean) == (1.0, 1.0, 1.0, 1.0, Decimal(1))
    twenty = a_day_apart(float(value) for value in range(1, 21))
    assert (twenty.low, twenty.high) == (6, 15)  # the classic order statistics for n = 20


DAY_MICROSECONDS = 86_400 * 10**6


def a_day_apart(seconds: Iterable[float]) -> Durations:
    values = list(seconds)
    return durations(values, np.arange(len(values)) * DAY_MICROSECONDS, timedelta(days=50))


@given(st.lists(st.floats(0, 1e6), min_size=10, max_size=80))
def test_without_clusters_the_interval_of_the_median_is_that_of_scipy(seconds: list[float]) -> None:
    theirs: Any = stats.quantile_test(sorted(seconds), p=0.5).confidence_interval(0.95)
    found = a_day_apart(seconds)
    assert (found.low, found.high) == (theirs.low, theirs.high)


def test_commits_of_one_deployment_are_no_independent_lead_times() -> None:
    """Fifty deployments of ten commits each, which waited equally long."""
    waits = np.random.default_rng(4).lognormal(8, 1.5, 50)
    began = np.arange(50) * DAY_MICROSECONDS
    one = durations(waits.tolist(), began, timedelta(days=50))
    ten = durations(np.repeat(waits, 10).tolist(), np.repeat(began, 10), timedelta(days=50))
    assert one.low is not None
    assert ten.low is not None
    assert one.high is not None
    assert ten.high is not None
    assert ten.low == pytest.approx(one.low, rel=0.1)
    assert ten.high == pytest.approx(one.high, rel=0.1)
    independent = durations(np.repeat(waits, 10).tolist(), np.arange(500) * DAY_MICROSECONDS, timedelta(days=50))
    assert independent.low is not None
    assert independent.low > one.low


def test_failures_in_a_row_tell_less_than_failures_apart() -> None:
    began = np.arange(100) // 5 * DAY_MICROSECONDS  # five deployments a day
    in_a_row, scattered = np.arange(100) < 10, np.arange(100) % 10 == 0
    a, b = (ratio(holds, began, timedelta(days=20)) for holds in (in_a_row, scattered))
    assert (a.k, a.value) == (b.k, b.value) == (10, 0.1)
    assert None not in {a.low, a.high, b.low, b.high}
    assert a.low < 0.7 * b.low  # type: ignore[operator]
    assert a.high > 1.3 * b.high  # type: ignore[operator]


@pytest.mark.parametrize(
    ("deployments", "change_fail_rate", "hours", "cost"),
    [
        (1460, "0.075", "1", "54750000.00"),
        (32, "0.38", "24", "145920000.00"),
        (7, "0.235", "24", "19740000.00"),
        (730, "0.075", "0.5", "13687500.00"),
        (209, "0.075", "4", "31350000.00"),
        (32, "0.075", "8", "9600000.00"),
        (7, "0.53", "120", "222600000.00"),
    ],
    ids=["2016 high", "2016 medium", "2016 low", "2020 elite", "2020 high", "2020 medium", "2020 low"],
)
def test_the_published_costs_come_out_to_the_cent(
    deployments: int, change_fail_rate: str, hours: str, cost: str
) -> None:
    found = cost_of_downtime(deployments, Decimal(change_fail_rate), Decimal(hours), Decimal(500_000))
    assert found == Decimal(cost)
