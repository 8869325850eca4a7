"""Deployments of the demo: a few per week and service, some of which cause incidents. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

from app.demo.catalog import BY_NAME, SERVICES, Service
from app.demo.facts import Deployment, Incident
from app.demo.response import LONGEST_UNNOTICED

CAUSED = 0.55  # share of the incidents during working hours
NAMES_VERSION = 0.6  # share of those whose alerts name the version
ROLLED_BACK, FIXED = 0.5, 0.25  # shares of those that last a while
WORKING_HOURS = range(7, 17)  # UTC
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Releases:
    """The deployments to production of a quarter, and its incidents with the versions that caused them.

    No deployment precedes an incident by less than an hour unless it causes it, because it would be blamed.
    """

    def __init__(self, begins_at: datetime, ends_at: datetime, incidents: Sequence[Incident], seed: int) -> None:
        self._begins_at, self._ends_at, self._seed = begins_at, ends_at, seed
        self._incidents: list[Incident] = [one for one in incidents if one.environment != "production"]
        self._deployments: list[Deployment] = []
        of_service = defaultdict[str, list[Incident]](list)
        for one in sorted(incidents, key=lambda one: one.began_at):
            if one.environment == "production":
                of_service[one.service].append(one)
        for service in SERVICES:
            self._deploy(service, of_service[service.name])

    def deployments(self) -> list[Deployment]:
        return sorted(self._deployments, key=lambda one: (one.started_at, one.id))

    def incidents(self) -> list[Incident]:
        return self._incidents

    def _deploy(self, service: Service, incidents: Sequence[Incident]) -> None:
        random = Random(f"{self._seed} releases of {service.name}")  # noqa: S311  not used for secrets
        caused = {place: _shortly_before(random, one) for place, one in enumerate(incidents) if _is_caused(random, one)}
        usual = [
            at
            for at in self._usual(random, service)
            if not any(-2 * HOUR < bad - at < 2 * HOUR for bad in caused.values())
            and not any(timedelta() <= one.began_at - at <= HOUR for one in incidents)
        ]
        place_of = {at: place for place, at in caused.items()}
        by_place: dict[int, Deployment] = {}
        for number, at in enumerate(sorted({*usual, *place_of}), start=1):
            deployment = self._deployment(random, service, at, number, is_bad=at in place_of)
            self._deployments.append(deployment)
            if at in place_of:
                by_place[place_of[at]] = deployment
        for place, one in enumerate(incidents):
            bad = by_place.get(place)
            if bad is None:
                self._incidents.append(one)
                continue
            names_version = random.random() < NAMES_VERSION
            caused_one = replace(one, remedy=_remedy(random, bad, one))
            self._incidents.append(_of_version(caused_one, bad.version) if names_version else caused_one)

    def _usual(self, random: Random, service: Service) -> Iterator[datetime]:
        day = self._begins_at.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
        while day < self._ends_at:
            minutes = random.uniform(60 * WORKING_HOURS.start, 60 * WORKING_HOURS.stop)
            at = (day + timedelta(minutes=minutes)).replace(microsecond=0)
            is_chosen = random.random() < service.deployments_a_week / 5
            if is_chosen and day.weekday() < 5 and at < self._ends_at - HOUR:
                yield at
            day += DAY

    def _deployment(self, random: Random, service: Service, at: datetime, number: int, *, is_bad: bool) -> Deployment:
        commits = [
            (_sha(random), (at - timedelta(minutes=random.lognormvariate(6.6, 1))).replace(microsecond=0))
            for _ in range(random.randint(1, 4))
        ]
        return Deployment(
            id=f"{service.pods}-{number}",
            service=service.name,
            version=f"2.{30 + number // 10}.{number % 10}",
            sha=commits[-1][0],
            started_at=at,
            finished_at=at + timedelta(seconds=random.randint(90, 230)),
            commits=commits,
            outcome="failed" if not is_bad and random.random() < 0.04 else "succeeded",
        )


def _remedy(random: Random, bad: Deployment, incident: Incident) -> Deployment | None:
    """A rollback or a hotfix that ends the incident; None if it recovered by itself."""
    ended_at = incident.ended_at
    if ended_at is None or ended_at - incident.began_at < timedelta(minutes=12):
        return None
    at = (ended_at - timedelta(seconds=random.randint(240, 420))).replace(microsecond=0)
    finished_at = at + timedelta(seconds=random.randint(60, 200))
    sha = _sha(random)
    chance = random.random()
    if chance < ROLLED_BACK:
        version = f"{bad.version}-rollback"
        return Deployment(
            f"{bad.id}-rollback", bad.service, version, sha, at, finished_at, (), unplanned=True, rolled_back=bad.id
        )
    if chance < ROLLED_BACK + FIXED:
        commits = [(sha, at - timedelta(minutes=6))]
        return Deployment(
            f"{bad.id}-hotfix", bad.service, f"{bad.version}-1", sha, at, finished_at, commits, unplanned=True
        )
    return None


def _is_caused(random: Random, incident: Incident) -> bool:
    at = incident.began_at
    is_chosen = random.random() < CAUSED
    is_usual = incident.source is not None and incident.source == BY_NAME[incident.service].source
    return is_chosen and is_usual and at.weekday() < 5 and at.hour in WORKING_HOURS


def _shortly_before(random: Random, incident: Incident) -> datetime:
    """Early enough that users were not harmed before."""
    since = LONGEST_UNNOTICED + timedelta(minutes=random.uniform(1, 40))
    return (incident.began_at - since).replace(microsecond=0)


def _of_version(incident: Incident, version: str) -> Incident:
    alerts = [replace(alert, labels={**alert.labels, "version": version}) for alert in incident.alerts]
    return replace(incident, alerts=alerts)


def _sha(random: Random) -> str:
    return f"{random.getrandbits(160):040x}"
