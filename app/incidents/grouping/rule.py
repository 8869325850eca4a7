"""Rules: derive service, severity, grouping key and window from an alert's labels.

Pure: no clock, no I/O. Alerts with the same key concern the same problem, whichever source reports them; the law of
incidents (`lifecycle.py`) groups the alerts of one key. `decide` applies one rule to one alert; `Rules` is the cached
version for many alerts.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Protocol
from uuid import UUID

import msgspec
import re2  # type: ignore[import-untyped]

from app.base.errors import Invalid
from app.incidents.grouping.signal import AlertClass

UNKNOWN_SERVICE = "unknown"
UNKNOWN_SEVERITY = 3
LONGEST_SERVICE = 200  # characters; PostgreSQL cannot index much more, and the API accepts no longer names

_NO_SEVERITIES: Mapping[str, int] = MappingProxyType({})


class InvalidMatcher(Invalid):
    title = "Invalid matcher"


class Regex(Protocol):
    def fullmatch(self, value: bytes) -> object: ...


class Operator(StrEnum):
    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on one label, as in Alertmanager; a missing label counts as the empty string.

    Raises InvalidMatcher for an invalid regex.
    """

    name: str
    operator: Operator
    value: str
    _regex: Regex | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        is_regex = self.operator in {Operator.REGEX, Operator.NOT_REGEX}
        object.__setattr__(self, "_regex", _compiled(self.value) if is_regex else None)

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.name, "")
        equal = (
            value == self.value
            if self._regex is None
            else bool(self._regex.fullmatch(value.encode("utf-8", "replace")))
        )
        return equal == (self.operator in {Operator.EQUAL, Operator.REGEX})

    def __str__(self) -> str:
        return f"{_shown(self.name)}{self.operator}{_quoted(self.value)}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Rules are tried by ascending position, then by name. `severities` maps label values (case-insensitive) to 1…5."""

    name: str
    position: int
    matchers: tuple[Matcher, ...] = ()
    key_labels: tuple[str, ...] = ("service", "environment")
    window: timedelta = timedelta(minutes=5)
    max_span: timedelta = timedelta(hours=24)
    ignored_labels: tuple[str, ...] = ()
    service_labels: tuple[str, ...] = ("service", "app", "app_kubernetes_io_name", "job", "rulename", "alertname")
    severity_labels: tuple[str, ...] = ("severity", "priority", "level")
    severities: Mapping[str, int] = field(default_factory=lambda: _NO_SEVERITIES, hash=False)
    heartbeat: timedelta | None = None  # matched alerts are dead man's switches that may be silent this long

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.heartbeat is not None and labels.get("alertname") == HEARTBEAT_MISSING:
            return False  # the alert for a missing heartbeat is not a heartbeat itself
        return self.name == DEFAULT_NAME or all(matcher.matches(labels) for matcher in self.matchers)


HEARTBEAT_MISSING = "HeartbeatMissing"  # the alertname of the alert for a missing heartbeat
DEFAULT_NAME = "default"
DEFAULT_RULE = Rule(DEFAULT_NAME, position=2**31 - 1)


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The result of applying a rule to an alert. `service` is never empty; `severity` is 1 (worst) to 5.

    `key` is for display, `key_id` for comparison. An alert is identified by its labels without those that the rule
    ignores (see `identity`).
    """

    rule: str
    service: str
    severity: int
    key: str
    key_id: UUID
    window: timedelta
    max_span: timedelta
    ignored_labels: tuple[str, ...] = ()
    heartbeat: bool = False  # a heartbeat opens no incident, its absence does

    def identity(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        """The labels without the ignored ones. Returns the same object if nothing was removed; otherwise the
        fingerprint must be recomputed.
        """
        if not self.ignored_labels or labels.keys().isdisjoint(self.ignored_labels):
            return labels
        return {name: value for name, value in labels.items() if name not in self.ignored_labels}


def parse_matcher(text: str) -> Matcher:
    r"""Parses a matcher such as `severity=~"crit.*"`. Raises InvalidMatcher with the problem and its position.

    As in Alertmanager, name and value may be in double quotes, and must be if they contain syntax characters. `\"`,
    `\\` and `\n` are escapes; any other backslash is literal, so `"\d+"` needs no double backslash.
    """
    name, at = _label_name(text, _behind_space(text, 0))
    at = _behind_space(text, at)
    operator = next((found for found in _LONGEST_FIRST if text.startswith(found, at)), None)
    if operator is None:
        raise _wrong(text, at, "expected one of =, !=, =~, !~")
    value, at = _label_value(text, _behind_space(text, at + len(operator)))
    if at != len(text):
        raise _wrong(text, at, "expected the end of the matcher; use a separate string for each matcher")
    return Matcher(name, operator, value)


def ordered(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """In the order in which they are tried. The default rule is always included, and always last."""
    known = {rule.name: rule for rule in rules}
    default = known.pop(DEFAULT_NAME, DEFAULT_RULE)
    return *sorted(known.values(), key=lambda rule: (rule.position, rule.name)), default


def first_match(rules: Iterable[Rule], labels: Mapping[str, str]) -> Rule:
    return next(rule for rule in ordered(rules) if rule.matches(labels))


def python_uuid(octets: bytes) -> UUID:
    return UUID(bytes=octets)


def decide(
    rule: Rule, labels: Mapping[str, str], alert_class: AlertClass, *, uuid_of: Callable[[bytes], UUID] = python_uuid
) -> Decision:
    """Returns a decision for any labels. A template placeholder that the sender did not fill in counts as absent."""
    service = _service(rule, labels)
    # `service` in a key is the service derived above, whichever label it comes from.
    values = ((name, service if name == "service" else _present(labels, name)) for name in rule.key_labels)
    key = {name: value for name, value in values if value}
    return Decision(
        rule=rule.name,
        service=service,
        severity=_severity(rule, labels),
        key=", ".join(f"{_shown(name)}={_quoted(value)}" for name, value in key.items()),
        key_id=uuid_of(_key_digest(rule.name, alert_class, key)),
        window=rule.window,
        max_span=rule.max_span,
        ignored_labels=rule.ignored_labels,
        heartbeat=rule.heartbeat is not None,
    )


class Rules:
    """`first_match` and `decide` for many alerts, cached by label values.

    A decision depends only on the few labels that the rules use, and most alerts in a batch share their values.
    `uuid_of` creates the ids from 16 bytes: alerts are looked up by key, and Python's own UUID is slow to hash.
    """

    def __init__(self, rules: Iterable[Rule], *, uuid_of: Callable[[bytes], UUID] = python_uuid) -> None:
        self.ordered = ordered(rules)
        self._uuid_of = uuid_of
        self._names = tuple({name: None for rule in self.ordered for name in _names_read(rule)})
        self._decided = lru_cache(maxsize=4096)(self._decide)

    def decide(self, labels: Mapping[str, str], alert_class: AlertClass) -> Decision:
        return self._decided(tuple(map(labels.get, self._names)), alert_class)

    def _decide(self, values: tuple[str | None, ...], alert_class: AlertClass) -> Decision:
        labels = {name: value for name, value in zip(self._names, values, strict=True) if value is not None}
        return decide(first_match(self.ordered, labels), labels, alert_class, uuid_of=self._uuid_of)


# — deciding —

# Placeholders that templates leave behind if a value is missing: Go's `<no value>`, `{{ … }}`, `${…}`, Zabbix'
# `{EVENT.NAME}`.
_PLACEHOLDER = re.compile(r"<no value>|\{\{.*?\}\}|\$\{[^}]*\}|^\{[A-Z$#][A-Z0-9_.$#]*\}$", re.DOTALL)

_SEVERITIES = {
    word: severity
    for severity, words in (
        (1, "critical page fatal disaster emergency p1 sev1"),
        (2, "error high major p2 sev2"),
        (3, "warning average p3 sev3"),
        (4, "minor low p4 sev4"),
        (5, "info none debug p5 sev5"),
    )
    for word in words.split()
}


def _present(labels: Mapping[str, str], name: str) -> str:
    """The value of the label, empty if it is blank or a placeholder."""
    value = labels.get(name, "")
    return "" if not value or value.isspace() or _PLACEHOLDER.search(value) else value


def _service(rule: Rule, labels: Mapping[str, str]) -> str:
    found = next((value for name in rule.service_labels if (value := _present(labels, name))), UNKNOWN_SERVICE)
    return found.strip()[:LONGEST_SERVICE]


def _severity(rule: Rule, labels: Mapping[str, str]) -> int:
    """The severity of the first label with a known value."""
    known = _SEVERITIES | {word.strip().casefold(): severity for word, severity in rule.severities.items()}
    words = (_present(labels, name).strip().casefold() for name in rule.severity_labels)
    return next((known[word] for word in words if word in known), UNKNOWN_SEVERITY)


def _key_digest(rule: str, alert_class: AlertClass, key: Mapping[str, str]) -> bytes:
    digest = blake2b(digest_size=16)
    for part in (rule, alert_class, *(part for pair in sorted(key.items()) for part in pair)):
        encoded = part.encode("utf-8", "surrogatepass")
        # Prefix each part with its length, so that ("a", "bc") and ("ab", "c") are encoded differently.
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()


def _names_read(rule: Rule) -> tuple[str, ...]:
    heartbeat_names = ("alertname",) if rule.heartbeat is not None else ()
    return (
        *heartbeat_names,
        *(matcher.name for matcher in rule.matchers),
        *rule.service_labels,
        *rule.severity_labels,
        *rule.key_labels,
    )


# — the syntax of matchers —

_LONGEST_FIRST = (Operator.REGEX, Operator.NOT_REGEX, Operator.NOT_EQUAL, Operator.EQUAL)
_SYNTAX = r"""\s{}!=~,\\"'`"""  # characters that need quotes in a name
_BARE_NAME = re.compile(f"[^{_SYNTAX}]+")
_BARE_VALUE = re.compile('[^",]*')
_IN_QUOTES = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r'\\([\\"n])')
_SPACE = re.compile(r"\s*")


def _wrong(text: str, at: int, why: str) -> InvalidMatcher:
    return InvalidMatcher(f"{text!r}, character {at + 1}: {why}")


def _behind_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _label_name(text: str, at: int) -> tuple[str, int]:
    if text.startswith('"', at):
        name, behind = _in_quotes(text, at)
        if not name:
            raise _wrong(text, at, "a label name must not be empty")
        return name, behind
    found = _BARE_NAME.match(text, at)
    if found is None:
        raise _wrong(text, at, "expected a label name; put names with spaces or any of {}!=~,\\ in double quotes")
    return found[0], found.end()


def _label_value(text: str, at: int) -> tuple[str, int]:
    if text.startswith('"', at):
        value, behind = _in_quotes(text, at)
        return value, _behind_space(text, behind)
    found = _BARE_VALUE.match(text, at)
    if found is None or found.end() != len(text):
        raise _wrong(text, found.end() if found else at, 'put values with " or , in double quotes')
    return _unescaped(found[0].rstrip()), len(text)


def _in_quotes(text: str, at: int) -> tuple[str, int]:
    found = _IN_QUOTES.match(text, at)
    if found is None:
        raise _wrong(text, at, "missing closing double quote")
    return _unescaped(found[1]), found.end()


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], text)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'"{escaped}"'


def _shown(name: str) -> str:
    return name if _BARE_NAME.fullmatch(name) else _quoted(name)


# — regexes —

LONGEST_REGEX = 500  # characters
_LINEAR = re2.Options()
_LINEAR.log_errors = False


def _compiled(regex: str) -> Regex:
    """Uses RE2, like Alertmanager: label values are untrusted, and it matches in linear time."""
    if len(regex) > LONGEST_REGEX:
        message = f"the regex has {len(regex)} characters; the maximum is {LONGEST_REGEX}"
        raise InvalidMatcher(message)
    try:
        compiled: Regex = re2.compile(regex, _LINEAR)
    except (re2.error, UnicodeEncodeError) as error:
        why = (
            error.args[0].decode(errors="replace") if isinstance(error, re2.error) else "it contains invalid characters"
        )
        message = f"invalid regex {regex!r}: {why}"
        raise InvalidMatcher(message) from None
    return compiled
