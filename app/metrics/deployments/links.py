"""Links incidents to the deployments that caused them, for one incident or a hundred thousand at once.

Pure: no clock, no I/O. Links are derived anew for each response, so late alerts, merges and late deployment reports
count as if they had arrived in time. Only people's statements are stored.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import numpy as np

from app.base.values.times import HOUR_MICROSECONDS
from app.base.values.vocabulary import environment_in
from app.incidents.grouping.signal import AlertClass
from app.incidents.measures import measures
from app.incidents.measures.measures import Facts
from app.incidents.measures.vectorized import (
    Booleans,
    Categorical,
    Columns,
    Ints,
    microseconds,
)
from app.metrics.deployments.deployment import Deployment, StoredChange, environment_of

LOOK_BACK = timedelta(hours=24)
VERSION_LOOK_BACK = timedelta(days=7)
DEPLOYMENT_LABEL = "deployment_id"
VERSION_LABELS = (
    "version",
    "app_version",
    "app_kubernetes_io_version",
    "release",
    "image_tag",
    "revision",
    "git_sha",
    "sha",
)


class Basis(StrEnum):
    """The evidence for a link, strongest first."""

    STATED = "stated"
    LABEL = "label"
    VERSION = "version"
    LAST_DEPLOYMENT = "last_deployment"
    RECENT = "recent"  # only of candidates


class Confidence(StrEnum):
    """How certain a link is, highest first."""

    CERTAIN = "certain"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    def is_at_least(self, least: "Confidence") -> bool:
        return CONFIDENCES.index(self) <= CONFIDENCES.index(least)


@dataclass(frozen=True, slots=True)
class Link:
    """The deployment that caused an incident; None if a person stated that none did."""

    deployment: Deployment | None
    basis: Basis
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class StatedCause:
    """The cause that a person last stated."""

    deployment_id: str | None


@dataclass(frozen=True, slots=True)
class LinkedIncident:
    """The facts of an incident that linking uses. `deployment_ids` are named by its alerts.

    A label shared by all its alerts may name a deployment of any service; otherwise only one of its own service.
    """

    id: UUID
    number: int
    facts: Facts
    labels: Mapping[str, str]
    deployment_ids: tuple[str, ...] = ()
    stated: StatedCause | None = None
    environment: str | None = None

    @property
    def began_at(self) -> datetime:
        return measures.began(self.facts)

    @property
    def service(self) -> str:
        return measures.service(self.facts)

    @property
    def counts(self) -> bool:
        """Whether users may have been impacted: no false alarm, not merged, not a failure of the monitoring itself."""
        facts = self.facts
        return not facts.merged and measures.severity(facts) != 5 and facts.alert_class is not AlertClass.MONITORING


def links(incidents: Iterable[LinkedIncident], deployments: Iterable[Deployment]) -> dict[UUID, Link]:
    """The cause of each incident, if known.

    A person's statement takes precedence; then a deployment that the alerts name; then the last deployment of the same
    service and environment in the week before whose version or sha the labels name; then the last deployment of any
    version in the 24 hours before. So a deployment at d is linked to incidents that begin in [d, next deployment) and
    before d + 24 h. Rollbacks, which remedy incidents, and deployments that changed nothing are passed over.
    """
    known = list(deployments)
    by_name = defaultdict[str, list[Deployment]](list)
    by_service = defaultdict[str, list[Deployment]](list)
    for deployment in known:
        for name in {deployment.id, deployment.reported_id}:
            by_name[name].append(deployment)
        if deployment.may_be_blamed:
            by_service[deployment.service].append(deployment)
    for those in by_service.values():
        those.sort(key=deployment_order)
    starts = {name: [deployment.began_at for deployment in those] for name, those in by_service.items()}
    found: dict[UUID, Link] = {}
    for incident in incidents:
        link = _explicit(incident, by_name) or _derived(
            incident, by_service.get(incident.service, ()), starts.get(incident.service, ())
        )
        if link is not None:
            found[incident.id] = link
    return found


def deployment_order(deployment: Deployment) -> tuple[datetime, str]:
    return deployment.began_at, deployment.id


def _explicit(incident: LinkedIncident, by_name: Mapping[str, Sequence[Deployment]]) -> Link | None:
    stated = incident.stated
    if stated is not None:
        if stated.deployment_id is None:
            return Link(None, Basis.STATED, Confidence.CERTAIN)
        for each in by_name.get(stated.deployment_id, ()):
            if each.id == stated.deployment_id:
                return Link(each, Basis.STATED, Confidence.CERTAIN)
    named = [each for name in incident.deployment_ids for each in _named(incident, name, by_name.get(name, ()))]
    return Link(max(named, key=deployment_order), Basis.LABEL, Confidence.CERTAIN) if named else None


def _named(incident: LinkedIncident, name: str, those: Sequence[Deployment]) -> Sequence[Deployment]:
    """The deployments that an alert of the incident can mean by this key or id. Several may have the same id."""
    own = [each for each in those if each.service == incident.service]
    if not own and incident.labels.get(DEPLOYMENT_LABEL) != name:
        return ()
    candidates = own or those
    if len(candidates) > 1:
        candidates = [each for each in candidates if is_in_environment(each, _environment(incident))]
    return candidates if own or len(candidates) == 1 else ()


def _environment(incident: LinkedIncident) -> str | None:
    return incident.environment or environment_in(incident.labels)


def _derived(incident: LinkedIncident, candidates: Sequence[Deployment], starts: Sequence[datetime]) -> Link | None:
    """`candidates` are the deployments of the service, in order; `starts` holds the start of each."""
    at = incident.began_at
    environment, versions = _environment(incident), _versions(incident)
    last: Deployment | None = None
    for place in range(bisect_right(starts, at) - 1, -1, -1):
        candidate = candidates[place]
        if at - candidate.began_at >= VERSION_LOOK_BACK:
            break
        if not is_in_environment(candidate, environment):
            continue
        if any(_is_version(candidate, version) for version in versions):
            return Link(candidate, Basis.VERSION, Confidence.HIGH)
        last = last or candidate
        if not versions:
            break
    if last is None or at - last.began_at >= LOOK_BACK:
        return None
    soon = at - last.began_at < timedelta(hours=1)
    return Link(last, Basis.LAST_DEPLOYMENT, Confidence.MEDIUM if soon else Confidence.LOW)


def _versions(incident: LinkedIncident) -> list[str]:
    return [incident.labels[name] for name in VERSION_LABELS if incident.labels.get(name)]


def is_in_environment(deployment: Deployment, environment: str | None) -> bool:
    """Whether the incident is in production: it names production or no environment."""
    wanted = environment_of(environment)
    return deployment.environment == wanted or (deployment.production and wanted == environment_of(None))


def _is_version(deployment: Deployment, label: str) -> bool:
    if deployment.version is not None and label.removeprefix("v") == deployment.version.removeprefix("v"):
        return True
    sha = deployment.sha
    return sha is not None and re.fullmatch("[0-9a-f]{7,64}", label) is not None and sha.startswith(label)


# — candidates —


@dataclass(frozen=True, slots=True)
class Candidate:
    """A deployment or change that may be the cause of an incident; a person decides."""

    cause: Deployment | StoredChange
    basis: Basis
    confidence: Confidence

    @property
    def at(self) -> datetime:
        return self.cause.happened_at if isinstance(self.cause, StoredChange) else self.cause.began_at


def candidates(
    incident: LinkedIncident, deployments: Collection[Deployment], changes: Iterable[StoredChange]
) -> list[Candidate]:
    """Possible causes of the incident, the most likely first: its link, deployments whose version its labels name,
    and whatever else was deployed or changed in the service and environment in the 24 hours before.
    """
    at, environment, versions = incident.began_at, _environment(incident), _versions(incident)
    found: dict[str, Candidate] = {}
    link = links([incident], deployments).get(incident.id)
    if link is not None and link.deployment is not None:
        found[link.deployment.id] = Candidate(link.deployment, link.basis, link.confidence)
    for each in deployments:
        since = at - each.began_at
        if (
            each.id in found
            or not each.may_be_blamed
            or each.service != incident.service
            or not is_in_environment(each, environment)
            or not timedelta() <= since < VERSION_LOOK_BACK
        ):
            continue
        if any(_is_version(each, version) for version in versions):
            found[each.id] = Candidate(each, Basis.VERSION, Confidence.HIGH)
        elif since < LOOK_BACK:
            found[each.id] = Candidate(each, Basis.RECENT, Confidence.LOW)
    for change in changes:
        is_there = change.environment is None or change.environment == environment_of(environment)
        if change.service == incident.service and is_there and timedelta() <= at - change.happened_at < LOOK_BACK:
            found[f"change {change.key}"] = Candidate(change, Basis.RECENT, Confidence.LOW)
    newest_first = sorted(found.values(), key=lambda each: each.at, reverse=True)
    return sorted(newest_first, key=lambda each: CONFIDENCES.index(each.confidence))


# — many incidents —


@dataclass(frozen=True, slots=True)
class LinkedIncidents:
    """The cause of each of many incidents: an index into `deployments`, UNKNOWN or NO_DEPLOYMENT."""

    columns: Columns
    deployments: Sequence[Deployment]
    cause: Ints
    basis: Ints  # place in Basis; only where the cause is known
    confidence: Ints  # place in Confidence; likewise

    def is_at_least(self, confidence: Confidence) -> Booleans:
        """By row: whether its cause is a deployment that is known with this confidence."""
        return (self.cause >= 0) & (self.confidence <= CONFIDENCES.index(confidence))

    def link(self, row: int) -> Link:
        return Link(self.deployments[self.cause[row]], BASES[self.basis[row]], CONFIDENCES[self.confidence[row]])


UNKNOWN, NO_DEPLOYMENT = -1, -2
BASES, CONFIDENCES = tuple(Basis), tuple(Confidence)
_LOOK_BACK = LOOK_BACK // timedelta(microseconds=1)


def caused(
    columns: Columns,
    environments: Categorical,
    detailed: Mapping[int, LinkedIncident],
    deployments: Sequence[Deployment],
) -> LinkedIncidents:
    """Like `links`, for many incidents. `detailed` holds, by row, incidents with more evidence than the environment: a
    stated cause, a deployment named by alerts, or a version named by labels.
    """
    found = LinkedIncidents(columns, deployments, *(np.full(len(columns), UNKNOWN) for _ in range(3)))
    if len(columns):
        _last_before(found, environments)
    place = {id(each): place for place, each in enumerate(deployments)}
    sure = links(detailed.values(), deployments)
    for row, incident in detailed.items():
        link = sure.get(incident.id)
        found.cause[row] = UNKNOWN
        if link is not None:
            found.cause[row] = NO_DEPLOYMENT if link.deployment is None else place[id(link.deployment)]
            found.basis[row] = BASES.index(link.basis)
            found.confidence[row] = CONFIDENCES.index(link.confidence)
    return found


def _last_before(found: LinkedIncidents, environments: Categorical) -> None:
    """The last deployment of the service and environment, if it started less than LOOK_BACK before."""
    began = found.columns.began()
    of_service = defaultdict[str, list[int]](list)
    for place, each in enumerate(found.deployments):
        if each.may_be_blamed:
            of_service[each.service].append(place)
    both = found.columns.service.codes * len(environments.values) + environments.codes
    order = np.argsort(both, kind="stable")
    kinds, first = np.unique(both[order], return_index=True)
    for kind, rows in zip(kinds.tolist(), np.split(order, first[1:]), strict=True):
        service, environment = divmod(kind, len(environments.values))
        candidates = [
            place
            for place in of_service[found.columns.service.values[service]]
            if is_in_environment(found.deployments[place], environments.values[environment])
        ]
        if not candidates:
            continue
        candidates.sort(key=lambda place: deployment_order(found.deployments[place]))
        starts = np.array([microseconds(found.deployments[place].began_at) for place in candidates])
        last = np.searchsorted(starts, began[rows], "right") - 1
        since = began[rows] - starts[last]
        holds = (last >= 0) & (since < _LOOK_BACK)
        linked = rows[holds]
        found.cause[linked] = np.array(candidates)[last[holds]]
        found.basis[linked] = BASES.index(Basis.LAST_DEPLOYMENT)
        medium, low = CONFIDENCES.index(Confidence.MEDIUM), CONFIDENCES.index(Confidence.LOW)
        found.confidence[linked] = np.where(since[holds] < HOUR_MICROSECONDS, medium, low)
