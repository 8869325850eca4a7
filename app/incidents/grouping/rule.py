"""Rules: derive service, environment, severity, grouping key and window from an alert's labels.

Pure: no clock, no I/O. Alerts with the same key concern the same problem, whichever source reports them; the law of
incidents (`law/lifecycle.py`) groups the alerts of one key. `decide` applies one rule to one alert; `Rules` is the
cached version for many alerts.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from typing import Literal, Protocol
from uuid import UUID

import msgspec
import re2  # type: ignore[import-untyped]

from app.base.errors import Invalid
from app.base.values.vocabulary import (
    DEFAULT_SEVERITY,
    ENVIRONMENT_LABELS,
    SEVERITY_LABELS,
    environment_of,
    normalized,
    severity_of,
)
from app.incidents.grouping.signal import AlertClass

UNKNOWN_SERVICE = "unknown"
LONGEST_SERVICE = 200  # characters; PostgreSQL cannot index much more, and the API accepts no longer names
LONGEST_WORD = 200  # characters of a severity that is not recognized, which are shown in the health of its source
# Ends that are recoveries only where a source or rule declares it: rules with a filter end like this when all is well.
OptionalRecovery = Literal["missing_series", "no_data"]

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

    @property
    def names(self) -> tuple[str, ...]:
        """The labels that it reads."""
        return (self.name,)

    def __str__(self) -> str:
        return f"{_shown(self.name)}{self.operator}{_quoted(self.value)}"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Alternative conditions, of which one must hold."""

    alternatives: tuple[Matcher, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return any(matcher.matches(labels) for matcher in self.alternatives)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(matcher.name for matcher in self.alternatives)

    def __str__(self) -> str:
        return " or ".join(map(str, self.alternatives))


@dataclass(frozen=True, slots=True)
class Rule:
    """Rules are tried by ascending position, then by name. `severities` maps label values (case-insensitive) to 1…5."""

    name: str
    position: int
    matchers: tuple[Matcher | AnyOf, ...] = ()
    key_labels: tuple[str, ...] = ("service", "environment")
    window: timedelta = timedelta(minutes=5)
    max_span: timedelta = timedelta(hours=24)
    ignored_labels: tuple[str, ...] = ()
    service_labels: tuple[str, ...] = ("service", "app", "app_kubernetes_io_name", "job", "rulename", "alertname")
    severity_labels: tuple[str, ...] = SEVERITY_LABELS
    severities: Mapping[str, int] = field(default_factory=lambda: _NO_SEVERITIES, hash=False)
    environment_labels: tuple[str, ...] = ENVIRONMENT_LABELS
    environment: str | None = None  # of alerts whose labels name none
    heartbeat: timedelta | None = None  # matched alerts are dead man's switches that may be silent this long
    opens_incidents: bool = True  # otherwise matched alerts are ignored
    recoveries: frozenset[str] = frozenset()  # any of OptionalRecovery: ends that are recoveries of these alerts

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.heartbeat is not None and labels.get("alertname") == HEARTBEAT_MISSING:
            return False  # the alert for a missing heartbeat is not a heartbeat itself
        return all(matcher.matches(labels) for matcher in self.conditions)

    @property
    def conditions(self) -> tuple[Matcher | AnyOf, ...]:
        """Its matchers; none for the default rule, which always matches."""
        return () if self.name == DEFAULT_NAME else self.matchers


HEARTBEAT_MISSING = "HeartbeatMissing"  # the alertname of the alert for a missing heartbeat
DEFAULT_NAME = "default"
DEFAULT_RULE = Rule(DEFAULT_NAME, position=2**31 - 1)


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The result of applying a rule to an alert. `service` is never empty; `severity` is 1 (worst) to 5.

    `key` is for display, `key_id` for comparison. An alert is identified by its labels without those that the rule
    ignores (see `identity`). `unrecognized` is the label value that states the severity, if the default applies because
    its meaning is unknown.
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
    environment: str | None = None
    unrecognized: str | None = None
    opens_incidents: bool = True
    recoveries: frozenset[str] = frozenset()

    def identity(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        """The labels without the ignored ones. Returns the same object if nothing was removed; otherwise the
        fingerprint must be recomputed.
        """
        if not self.ignored_labels or labels.keys().isdisjoint(self.ignored_labels):
            return labels
        return {name: value for name, value in labels.items() if name not in self.ignored_labels}


def parse_matcher(text: str) -> Matcher | AnyOf:
    r"""Parses a matcher such as `severity=~"crit.*"`. Raises InvalidMatcher with the problem and its position.

    As in Alertmanager, name and value may be in double quotes, and must be if they contain syntax characters. `\"`,
    `\\` and `\n` are escapes; any other backslash is literal, so `"\d+"` needs no double backslash. Matchers with
    quoted values can be alternatives: `job="a" or service="a"`.
    """
    matcher, at = _one_matcher(text, 0)
    alternatives = [matcher]
    while found := _OR.match(text, at):
        matcher, at = _one_matcher(text, found.end(), is_quoted=True)
        alternatives.append(matcher)
    if at != len(text):
        raise _wrong(text, at, "expected the end of the matcher; use a separate string for each matcher")
    return AnyOf(tuple(alternatives)) if len(alternatives) > 1 else matcher


def _one_matcher(text: str, start: int, *, is_quoted: bool = False) -> tuple[Matcher, int]:
    name, at = _label_name(text, _behind_space(text, start))
    at = _behind_space(text, at)
    operator = next((found for found in _LONGEST_FIRST if text.startswith(found, at)), None)
    if operator is None:
        raise _wrong(text, at, "expected one of =, !=, =~, !~")
    at = _behind_space(text, at + len(operator))
    if is_quoted and not text.startswith('"', at):
        raise _wrong(text, at, "put the values of alternatives in double quotes")
    value, at = _label_value(text, at)
    return Matcher(name, operator, value), at


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
    # `service` and `environment` in a key are those derived here, whichever labels they come from.
    service, environment = _service(rule, labels), _environment(rule, labels)
    derived = {"service": service, "environment": environment}
    values = ((name, derived[name] if name in derived else _present(labels, name)) for name in rule.key_labels)
    key = {name: value for name, value in values if value}
    severity, unrecognized = _severity(rule, labels)
    return Decision(
        rule=rule.name,
        service=service,
        severity=severity,
        key=", ".join(f"{_shown(name)}={_quoted(value)}" for name, value in key.items()),
        key_id=uuid_of(_key_digest(rule.name, alert_class, key)),
        window=rule.window,
        max_span=rule.max_span,
        ignored_labels=rule.ignored_labels,
        heartbeat=rule.heartbeat is not None,
        environment=environment,
        unrecognized=unrecognized,
        opens_incidents=rule.opens_incidents,
        recoveries=rule.recoveries,
    )


class Rules:
    """`first_match` and `decide` for many alerts, cached by label values.

    Both depend only on few labels, and most alerts in a batch share their values. Labels with many values (`pod`,
    `instance`) must not keep alerts from sharing cached results if only some rules read them. So the labels in the
    first matcher of each rule (`_leading`) select the rules that may match; the few other matchers of these are
    evaluated for each alert; and the decision is cached by the labels that the matching rule reads.

    `uuid_of` creates the ids from 16 bytes: alerts are looked up by key, and Python's own UUID is slow to hash.
    """

    def __init__(self, rules: Iterable[Rule], *, uuid_of: Callable[[bytes], UUID] = python_uuid) -> None:
        self.ordered = ordered(rules)
        self._uuid_of = uuid_of
        first = (name for rule in self.ordered for matcher in rule.conditions[:1] for name in matcher.names)
        self._leading = tuple(dict.fromkeys(("alertname", *first)))
        self._cached = tuple(_CachedRule(rule, self._leading, uuid_of) for rule in self.ordered)
        self._candidates = lru_cache(maxsize=4096)(self._select)

    def decide(self, labels: Mapping[str, str], alert_class: AlertClass) -> Decision:
        candidates = self._candidates(tuple(map(labels.get, self._leading)))
        for cached in candidates:
            if not cached.others or all(matcher.matches(labels) for matcher in cached.others):
                break
        return cached.decide(tuple(map(labels.get, cached.names)), alert_class)  # the last one always matches

    def _select(self, values: tuple[str | None, ...]) -> tuple["_CachedRule", ...]:
        """The rules that may match an alert with these values of the leading labels; the last one does."""
        labels = _given(self._leading, values)
        found: list[_CachedRule] = []
        for cached in self._cached:
            if cached.may_match(labels):
                found.append(cached)
                if not cached.others:
                    break
        return tuple(found)


class _CachedRule:
    """A rule with its decisions, cached by the values of the labels in `names`. `others` are its matchers that read
    more than the `leading` labels.
    """

    def __init__(self, rule: Rule, leading: Collection[str], uuid_of: Callable[[bytes], UUID]) -> None:
        self._rule = rule
        self._uuid_of = uuid_of
        self.others = tuple(matcher for matcher in rule.conditions if not set(matcher.names) <= {*leading})
        self._only_leading = replace(
            rule, matchers=tuple(matcher for matcher in rule.conditions if matcher not in self.others)
        )
        self.names = tuple(
            dict.fromkeys((*rule.service_labels, *rule.severity_labels, *rule.environment_labels, *rule.key_labels))
        )
        self.decide = lru_cache(maxsize=4096)(self._decide)

    def may_match(self, labels: Mapping[str, str]) -> bool:
        return self._only_leading.matches(labels)

    def _decide(self, values: tuple[str | None, ...], alert_class: AlertClass) -> Decision:
        return decide(self._rule, _given(self.names, values), alert_class, uuid_of=self._uuid_of)


def _given(names: tuple[str, ...], values: tuple[str | None, ...]) -> dict[str, str]:
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


# — deciding —

_ZABBIX_MACRO = re.compile(r"\{[A-Z$#][A-Z0-9_.$#]*+\}")


def _present(labels: Mapping[str, str], name: str) -> str:
    """The value of the label, empty if it is blank or a placeholder."""
    value = labels.get(name, "")
    return "" if not value or value.isspace() or _has_placeholder(value) else value


def _has_placeholder(value: str) -> bool:
    """Whether a template left a placeholder behind because a value was missing: Go's `<no value>`, `{{ … }}`, `${…}`,
    or a whole `{EVENT.NAME}` of Zabbix.
    """
    # Not one regex: for each `{{`, it would search the rest of the value for `}}`.
    return (
        "<no value>" in value
        or _is_in_order(value, "{{", "}}")
        or _is_in_order(value, "${", "}")
        or _ZABBIX_MACRO.fullmatch(value) is not None
    )


def _is_in_order(value: str, opening: str, closing: str) -> bool:
    begins = value.find(opening)
    return begins >= 0 and value.find(closing, begins + len(opening)) >= 0


def _service(rule: Rule, labels: Mapping[str, str]) -> str:
    found = next((value for name in rule.service_labels if (value := _present(labels, name))), UNKNOWN_SERVICE)
    return found.strip()[:LONGEST_SERVICE]


def _environment(rule: Rule, labels: Mapping[str, str]) -> str | None:
    words = (environment_of(_present(labels, name)) for name in rule.environment_labels)
    return next((word for word in words if word is not None), rule.environment)


def _severity(rule: Rule, labels: Mapping[str, str]) -> tuple[int, str | None]:
    """The severity of the first label whose value is known; else the default, and the first value if there is one."""
    own = {normalized(word): severity for word, severity in rule.severities.items()}
    words = [word for name in rule.severity_labels if (word := _present(labels, name).strip())]
    for word in words:
        severity = own.get(normalized(word)) or severity_of(word)
        if severity is not None:
            return severity, None
    return DEFAULT_SEVERITY, words[0].casefold()[:LONGEST_WORD] if words else None


def _key_digest(rule: str, alert_class: AlertClass, key: Mapping[str, str]) -> bytes:
    digest = blake2b(digest_size=16)
    for part in (rule, alert_class, *(part for pair in sorted(key.items()) for part in pair)):
        encoded = part.encode("utf-8", "surrogatepass")
        # Prefix each part with its length, so that ("a", "bc") and ("ab", "c") are encoded differently.
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()


# — the syntax of matchers —

_LONGEST_FIRST = (Operator.REGEX, Operator.NOT_REGEX, Operator.NOT_EQUAL, Operator.EQUAL)
_SYNTAX = r"""\s{}!=~,\\"'`"""  # characters that need quotes in a name
_BARE_NAME = re.compile(f"[^{_SYNTAX}]+")
_BARE_VALUE = re.compile('[^",]*')
_IN_QUOTES = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)  # keeps no place to go back to for each character
_ESCAPE = re.compile(r'\\([\\"n])')
_SPACE = re.compile(r"\s*")
_OR = re.compile(r"or\s")


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
