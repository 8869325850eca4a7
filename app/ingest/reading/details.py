"""Shared by senders whose request is one event with free-form details: the details as labels and annotations, and the
signal of the event. Pure.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from app.base.values.moments import NotAMoment, moment_of
from app.incidents.grouping.signal import EndReason, Signal, Status
from app.ingest.reading.alerts import ANNOTATION_BYTES, CLOCK_SKEW, Flags, within_limits
from app.ingest.reading.values import LINK_AT_MOST, TEXT_AT_MOST, text_in

LABELS_OF_DETAILS = 20
ANNOTATIONS_OF_DETAILS = 50
IDENTITY_AT_MOST = 512  # characters of a key by which a tool refers to an alert; the longest limit of those imitated


class Texts(NamedTuple):
    labels: dict[str, str]
    annotations: dict[str, str]
    flags: Flags = ()


def details_as_texts(details: Any, *, never_labels: Iterable[str] = ()) -> Texts:
    """Details as labels, if their name is that of a label and their value is one short line, and as annotations
    otherwise. At most the first 20 become labels. Tags (`env:prod, team:blue`, as text or as a list) become labels too.
    """
    if not isinstance(details, dict):
        text = _as_text(details)
        return Texts({}, {"details": text} if text else {})
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    flags: Flags = ()
    for name, value in details.items():
        label = label_in(value)
        if label is not None and name not in never_labels and _fits(name, labels):
            labels[name] = label
        elif len(annotations) == ANNOTATIONS_OF_DETAILS:
            flags = ("labels_truncated",)
            break
        elif text := _as_text(value):
            annotations[text_in(name) or "details"] = text
    for name in _TAGS:
        if name in details:
            labels = tags_as_labels(details[name]) | labels
    return Texts(labels, annotations, flags)


def tags_as_labels(tags: Any) -> dict[str, str]:
    """The tags with a name and a value (`env:prod`, `env=prod`); at most 20. `tags` is a list, or text with commas."""
    labels: dict[str, str] = {}
    for tag in tags.split(",") if isinstance(tags, str) else tags if isinstance(tags, list) else ():
        found = _TAG.fullmatch(text_in(tag) or "")
        if found and _fits(found["name"], labels):
            labels[found["name"]] = found["value"]
    return labels


def label_in(value: Any) -> str | None:
    """The value of a label: one line of at most 200 characters. None for anything else, and for placeholders."""
    if isinstance(value, bool):
        return str(value).lower()
    text = text_in(value, TEXT_AT_MOST + 1)
    return None if text is None or len(text) > TEXT_AT_MOST or "\n" in text or text in _PLACEHOLDERS else text


def long_text_in(value: Any) -> str | None:
    """The value of an annotation."""
    return text_in(value, ANNOTATION_BYTES + 1)  # one more, so that the limit flags what it cuts


def link_in(*candidates: Any) -> str:
    """The first that is an address on the web; empty if none is."""
    for one in candidates:
        link = text_in(one, LINK_AT_MOST)
        if link and link.startswith(("http://", "https://")):
            return link
    return ""


def person_in(value: Any) -> str | None:
    """The name of a person; None for a variable of a template that was not replaced."""
    name = text_in(value)
    return None if name is None or "${" in name or "{{" in name or name in _PLACEHOLDERS else name


def identity_in(value: Any) -> str | None:
    """A key by which a tool refers to an alert, exactly as sent, as far as it can be stored: text or a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return _UNSTORABLE.sub("", str(value)) or None


def digest_of(*parts: str) -> str:
    """The same 64 hexadecimal digits for the same parts."""
    return sha256("\n".join(parts).encode()).hexdigest()


class Moment(NamedTuple):
    """`at` is None if the tool reported no time, or none that can be used; `flags` has the reason."""

    at: datetime | None
    flags: Flags = ()


def moment_in(value: Any, received_at: datetime) -> Moment:
    """A time in any usual form. One that is unreadable or in the future does not count: the event is worth more."""
    if value is None or value == "":
        return Moment(None)
    try:
        at = moment_of(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except NotAMoment:
        return Moment(None, ("bad_time",))
    if at is not None and at > received_at + CLOCK_SKEW:
        return Moment(None, ("future_time",))
    return Moment(at)


def signal_of(
    key: str,
    fingerprint: str,
    status: Status,
    texts: Texts,
    *,
    started_at: Moment | None = None,
    happened_at: Moment,
    received_at: datetime,
    link: str,
    size: int,
    test: bool = False,
) -> Signal:
    """The signal of an event about the alert that its tool calls `key`.

    `started_at` is when the alert began, and `happened_at` the time of this event: the end of a resolve, and the start
    of an alert that is new. `size` is that of the body.
    """
    started_at = started_at or Moment(None)
    labels, annotations, link, too_much = within_limits(texts.labels, texts.annotations, link, json_bytes=size)
    flags = (*texts.flags, *too_much, *started_at.flags, *happened_at.flags)
    ended_at = None
    if status is Status.RESOLVED:
        ended_at = happened_at.at or received_at
        if happened_at.at is None:
            flags = (*flags, "ends_unknown")
        if started_at.at is not None and ended_at < started_at.at:
            flags = (*flags, "ends_before_start")
    return Signal(
        fingerprint=fingerprint,
        status=status,
        started_at=started_at.at,
        ended_at=ended_at,
        happened_at=happened_at.at if status is Status.FIRING and started_at.at is None else None,
        labels=labels,
        annotations=annotations,
        link=link,
        end_reason=None if ended_at is None else EndReason.RECOVERED,
        flags=tuple(dict.fromkeys(flags)),
        test=test,
        correlation=key,
    )


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}", re.ASCII)
_TAG = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_.]{0,99})\s*[:=]\s*(?P<value>\S.*)", re.ASCII)
_TAGS = ("tags", "Event tags")  # the latter is Zabbix's
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# What Zabbix and templates write for a value that is missing.
_PLACEHOLDERS = frozenset({"*UNKNOWN*", "None", "<no value>", "null"})


def _fits(name: str, labels: Mapping[str, str]) -> bool:
    return len(labels) < LABELS_OF_DETAILS and _NAME.fullmatch(name) is not None


def _as_text(value: Any) -> str | None:
    if not isinstance(value, dict | list):
        text = str(value).lower() if isinstance(value, bool) else long_text_in(value)
        return None if text in _PLACEHOLDERS else text
    try:
        return long_text_in(json.dumps(value, ensure_ascii=False)) if value else None
    except RecursionError:
        return None
