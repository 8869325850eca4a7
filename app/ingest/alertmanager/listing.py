"""What Alertmanager's API lists, in its own form: open alerts, their groups, and receivers.

Pure. A source is a receiver, and the open alerts of an incident are a group. Every open alert is active: silences and
inhibitions suppress notifications, and Aftermath records what fires, whether anyone is notified or not.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from app.base.errors import Problem
from app.incidents.grouping.rule import LONGEST_REGEX, AnyOf, InvalidMatcher, Matcher, Operator, parse_matcher

MATCHERS_AT_MOST = 20
RESOLVE_TIMEOUT = timedelta(minutes=5)  # of an alert whose sender announces no end, as in Alertmanager


class BadQuery(Problem):
    status, title = 400, "Bad request"


@dataclass(frozen=True, slots=True)
class ListedAlert:
    """An open alert, and its incident by number and service."""

    fingerprint: str
    started_at: datetime
    last_seen_at: datetime
    expires_at: datetime | None
    link: str
    source: str
    incident: int
    service: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which alerts a client asks for."""

    matchers: Sequence[Matcher | AnyOf] = ()
    receiver: Matcher | None = None
    active: bool = True

    def admits(self, alert: ListedAlert) -> bool:
        return (
            self.active
            and (self.receiver is None or self.receiver.matches({"receiver": alert.source}))
            and all(matcher.matches(alert.labels) for matcher in self.matchers)
        )


def filter_in(query: Iterable[tuple[str, str]]) -> Filter:
    """The filter in the parameters of a request; others are ignored. Raises BadQuery."""
    values: dict[str, list[str]] = defaultdict(list)
    for name, value in query:
        values[name].append(value)
    if len(values["filter"]) > MATCHERS_AT_MOST:
        message = f"more than {MATCHERS_AT_MOST} filters"
        raise BadQuery(message)
    try:
        matchers = [_matcher_in(text) for text in values["filter"]]
        receiver = Matcher("receiver", Operator.REGEX, values["receiver"][0]) if any(values["receiver"]) else None
    except InvalidMatcher as error:
        raise BadQuery(error.detail) from None
    flags = {name: _flag(name, values[name]) for name in ("active", "silenced", "inhibited", "unprocessed", "muted")}
    return Filter(matchers, receiver, active=flags["active"])


def _matcher_in(text: str) -> Matcher | AnyOf:
    if len(text) > 2 * LONGEST_REGEX:
        message = f"a filter has at most {2 * LONGEST_REGEX} characters"
        raise BadQuery(message)
    return parse_matcher(text)


def _flag(name: str, values: Sequence[str]) -> bool:
    """As Alertmanager reads it; true if it is missing."""
    found = values[-1].lower() if values else "true"
    if found not in _TRUE | _FALSE:
        message = f"{name} in query must be of type boolean"
        raise BadQuery(message)
    return found in _TRUE


_TRUE = frozenset({"true", "1", "yes", "ok", "y", "on", "selected", "checked", "t", "enabled", ""})
_FALSE = frozenset({"false", "0", "no", "n", "off", "f", "disabled"})


# — in Alertmanager's form —


def alert_as_json(alert: ListedAlert, now: datetime) -> dict[str, Any]:
    return {
        "annotations": alert.annotations,
        "endsAt": _shown(alert.expires_at or now + RESOLVE_TIMEOUT),
        "fingerprint": alert.fingerprint,
        "receivers": [{"name": alert.source}],
        "startsAt": _shown(alert.started_at),
        "status": {"inhibitedBy": [], "mutedBy": [], "silencedBy": [], "state": "active"},
        "updatedAt": _shown(alert.last_seen_at),
        "generatorURL": alert.link,
        "labels": alert.labels,
    }


def groups_as_json(alerts: Iterable[ListedAlert], now: datetime) -> list[dict[str, Any]]:
    """One group for each incident and source."""
    groups: dict[tuple[int, str, str], list[ListedAlert]] = defaultdict(list)
    for alert in alerts:
        groups[alert.incident, alert.source, alert.service].append(alert)
    return [
        {
            "alerts": [alert_as_json(alert, now) for alert in those],
            "labels": {"incident": f"INC-{incident}", "service": service},
            "receiver": {"name": source},
        }
        for (incident, source, service), those in sorted(groups.items())
    ]


def status_as_json(version: str, started_at: datetime) -> dict[str, Any]:
    """Clients look at the version to know the form of the API, and `amtool` parses the configuration."""
    config = (
        f"# Aftermath {version} records alerts. It sends no notifications and has no configuration of Alertmanager.\n"
        "route:\n  receiver: aftermath\nreceivers:\n- name: aftermath\n"
    )
    return {
        "cluster": {"peers": [], "status": "disabled"},
        "config": {"original": config},
        "uptime": _shown(started_at),
        "versionInfo": {
            "branch": "aftermath",
            "buildDate": "",
            "buildUser": "",
            "goVersion": "",
            "revision": version,
            "version": API_VERSION,
        },
    }


API_VERSION = "0.27.0"  # the Alertmanager whose API this is


def _shown(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
