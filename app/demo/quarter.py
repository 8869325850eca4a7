"""Draws the random incidents of the demo's quarter. Pure: the same seed and end always give the same quarter.

Durations are lognormal, as those of real incidents are. They are drawn in strata (of ten values, one is from each tenth
of the distribution), so that the comparisons of the demo come out as intended with nearly any seed: in the last 30 days
incidents are acknowledged sooner, while they recover as fast as before, although the mean time to recover has fallen
because of two long outages in the 30 days before.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from random import Random
from statistics import NormalDist
from typing import NamedTuple

from app.demo.catalog import CLUSTER, SERVICES, AlertRule, Service, labels_of
from app.demo.facts import Alert, Episode, Incident, Quarter
from app.demo.releases import Releases
from app.demo.response import Pace, correspond
from app.demo.story import story

SEED = 1906
DAYS, MONTH = 90, timedelta(days=30)
MONTHS = 3
APART = timedelta(hours=2)  # the least time between two incidents of one service and environment

RECOVERY_SPREAD, ACKNOWLEDGEMENT_SPREAD = 0.85, 0.6  # standard deviations of the logarithms
LONGEST, SHORTEST = timedelta(hours=8), timedelta(minutes=4)
# The median time to acknowledge in each month, in seconds. The last one is the true improvement.
ACKNOWLEDGED_AFTER = (510.0, 540.0, 150.0)
FLAPPING = 0.13  # share of the incidents that are neither short nor long
FALSE_ALARM = 0.14  # share of the short ones
_NORMAL = NormalDist()


def quarter(ends_at: datetime, seed: int = SEED) -> Quarter:
    """The 90 days before `ends_at`."""
    begins_at = ends_at - timedelta(days=DAYS)
    special = story(ends_at)
    random_ones = [
        incident
        for service in SERVICES
        for environment, monthly in service.monthly.items()
        for incident in _incidents(service, environment, monthly, begins_at, seed)
    ]
    kept = [*special, *(one for one in random_ones if _is_apart(one, special, ends_at))]
    releases = Releases(begins_at, ends_at, kept, seed)
    incidents = sorted(releases.incidents(), key=lambda one: (one.began_at, one.service))
    return Quarter(begins_at, ends_at, releases.deployments(), incidents)


def _is_apart(one: Incident, others: Iterable[Incident], ends_at: datetime) -> bool:
    def end(incident: Incident) -> datetime:
        return incident.ended_at or ends_at

    return not any(
        (one.service, one.environment) == (other.service, other.environment)
        and one.began_at - APART <= end(other)
        and other.began_at - APART <= end(one)
        for other in others
    )


class _Draw(NamedTuple):
    began_at: datetime
    lasted: timedelta
    acknowledged_after: timedelta


def _incidents(service: Service, environment: str, monthly: int, begins_at: datetime, seed: int) -> Iterator[Incident]:
    random = Random(f"{seed} {service.name} {environment}")  # noqa: S311  not used for secrets
    for month in range(MONTHS):
        for draw in _draws(random, service, begins_at + month * MONTH, month, monthly):
            yield _incident(random, service, environment, draw)


def _draws(random: Random, service: Service, since: datetime, month: int, number: int) -> list[_Draw]:
    """The incidents of one month: one in each of as many slots, with time for the longest before the next."""
    slot = MONTH / number
    latest = (slot - LONGEST - APART) / slot
    is_last = month == MONTHS - 1
    typical = service.recovery_minutes * 60 * (service.last_month if is_last else 1)
    lasted = _lognormal(random, number, typical, RECOVERY_SPREAD)
    acknowledged = _lognormal(random, number, ACKNOWLEDGED_AFTER[month], ACKNOWLEDGEMENT_SPREAD)
    return [
        _Draw(
            _whole(since + (place + random.uniform(0.02, latest)) * slot),
            timedelta(seconds=round(min(max(lasted[place], SHORTEST.total_seconds()), LONGEST.total_seconds()))),
            timedelta(seconds=round(max(20, acknowledged[place]))),
        )
        for place in range(number)
    ]


def _lognormal(random: Random, number: int, median: float, spread: float) -> list[float]:
    """One value from each of `number` equally likely parts of the distribution, in random order."""
    shares = [(place + random.uniform(0.1, 0.9)) / number for place in range(number)]
    random.shuffle(shares)
    return [median * math.exp(spread * _NORMAL.inv_cdf(share)) for share in shares]


def _whole(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _incident(random: Random, service: Service, environment: str, draw: _Draw) -> Incident:
    ended_at = draw.began_at + draw.lasted
    rules = _rules(random, service)
    pending = random.choice(["1m", "2m", "5m"]) if random.random() < 0.85 else None
    short_enough = timedelta(minutes=15) < draw.lasted < timedelta(hours=3)
    if short_enough and random.random() < FLAPPING:
        episodes = _flapping(random, draw.began_at, ended_at)
        alerts = [_alert(random, service, environment, rules[0], episodes, pending)]
    else:
        spans = [Episode(draw.began_at, ended_at), *_within(random, draw.began_at, draw.lasted, len(rules) - 1)]
        alerts = [
            _alert(random, service, environment, rule, [span], pending) for rule, span in zip(rules, spans, strict=True)
        ]
    severities = {alert.labels["severity"] for alert in alerts}
    pace = Pace(
        began_at=draw.began_at,
        ended_at=ended_at,
        acknowledged_after=draw.acknowledged_after,
        is_severe=bool(severities & {"critical", "high", "error"}),
        is_ignored=random.random() < (0.45 if environment == "staging" else 0.1),
        is_false_alarm=draw.lasted < timedelta(minutes=25) and random.random() < FALSE_ALARM,
    )
    source = service.source if environment == "production" else CLUSTER
    actions = correspond(random, service, alerts[0], pace)
    return Incident(service.name, environment, draw.began_at, ended_at, source, alerts, actions)


def _rules(random: Random, service: Service) -> list[AlertRule]:
    """The rules that fire in one incident, the first of them first. A rule may fire for several pods."""
    [number] = random.choices([1, 2, 3, 4, 6], [25, 32, 23, 14, 6])
    return random.choices(service.rules, [rule.weight for rule in service.rules], k=number)


def _within(random: Random, began_at: datetime, lasted: timedelta, number: int) -> Iterator[Episode]:
    for _ in range(number):
        since = began_at + random.uniform(0.01, 0.35) * lasted
        until = since + random.uniform(0.3, 0.98) * (began_at + lasted - since)
        yield Episode(_whole(since), _whole(until))


def _flapping(random: Random, began_at: datetime, ended_at: datetime) -> list[Episode]:
    """Episodes with gaps of one to four minutes, which are shorter than the window of the rule."""
    number = random.randint(2, 4)
    gaps = [timedelta(seconds=random.randint(60, 240)) for _ in range(number - 1)]
    fires = (ended_at - began_at - sum(gaps, timedelta())) / number
    episodes: list[Episode] = []
    at = began_at
    for gap in (*gaps, timedelta()):
        until = ended_at if len(episodes) == number - 1 else _whole(at + fires)
        episodes.append(Episode(at, until))
        at = until + gap
    return episodes


def _alert(
    random: Random,
    service: Service,
    environment: str,
    rule: AlertRule,
    episodes: Sequence[Episode],
    pending: str | None,
) -> Alert:
    summary = rule.summary.format(n=random.randint(rule.low, rule.high))
    severity = rule.severity if environment == "production" else "warning"
    pod = f"{service.pods}-{random.randrange(16**5):05x}"
    return Alert(labels_of(service.name, environment, rule.name, severity, pod=pod), summary, episodes, pending)
