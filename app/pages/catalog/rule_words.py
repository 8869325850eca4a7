"""What a rule does, in words. Pure."""

from collections.abc import Sequence
from datetime import timedelta

from app.incidents.grouping.rule import DEFAULT_RULE, Rule
from app.pages.web.fields import exact
from app.pages.words import SPACE

NAMES_AT_MOST = 6  # label names in one sentence


def effect(rule: Rule) -> str:
    """The one thing that matters most: what becomes of a matching alert."""
    if rule.heartbeat is not None:
        return (
            "A heartbeat: opens no incident, but one of the monitoring if it is missing for longer than "
            f"{_exact(rule.heartbeat)}."
        )
    if not rule.opens_incidents:
        return "Ignored: opens no incident."
    if not rule.key_labels:
        return f"One incident for all of them, while gaps are at most {_exact(rule.window)}."
    return f"One incident per {_names(rule.key_labels)}, while gaps are at most {_exact(rule.window)}."


def particulars(rule: Rule) -> list[str]:
    """In what else it differs from the default rule as it is installed; nothing for alerts that open no incident."""
    if rule.heartbeat is not None or not rule.opens_incidents:
        return []
    found = []
    if rule.max_span != max(DEFAULT_RULE.max_span, rule.window):
        found.append(f"A chain of separate alerts lasts at most {_exact(rule.max_span)}.")
    if rule.service_labels != DEFAULT_RULE.service_labels:
        found.append(f"Service: {_first_of(rule.service_labels)}.")
    if rule.environment_labels != DEFAULT_RULE.environment_labels:
        found.append(f"Environment: {_first_of(rule.environment_labels)}.")
    if rule.environment is not None:
        found.append(f"Environment {rule.environment} where labels name none.")
    if rule.severity_labels != DEFAULT_RULE.severity_labels:
        found.append(f"Severity: {_first_of(rule.severity_labels)}.")
    if rule.severities:
        known = [f"“{word}” is sev{severity}" for word, severity in rule.severities.items()]
        found.append(f"{_joined(known)}.")
    if rule.ignored_labels:
        found.append(f"Identifies alerts without {_names(rule.ignored_labels)}.")
    if rule.recoveries:
        found.append(
            f"{_joined(sorted(reason.replace('_', ' ') for reason in rule.recoveries)).capitalize()} is a recovery."
        )
    return found


def _exact(duration: timedelta) -> str:
    return exact(int(duration.total_seconds())).replace(" ", SPACE)


def _first_of(labels: Sequence[str]) -> str:
    return f"the first of {_joined(_few(labels))}" if len(labels) > 1 else labels[0] if labels else "none"


def _names(labels: Sequence[str]) -> str:
    return _joined(_few(labels))


def _few(labels: Sequence[str]) -> list[str]:
    more = len(labels) - NAMES_AT_MOST
    return [*labels[:NAMES_AT_MOST], *([f"{more} more"] if more > 0 else [])]


def _joined(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
