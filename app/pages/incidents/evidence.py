"""The alerts of an incident in words: what distinguishes them, and as much of their text as a page can hold. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.incidents.reading.links import web_address
from app.pages import words
from app.pages.incidents.read import Evidence, Lane, ShownAlert

VALUE_AT_MOST = 1000  # characters of a label or an annotation that are shown
TEXT_AT_MOST = 16_000  # characters of labels and annotations on the page of an incident
TEXT_OF_ALL_AT_MOST = 50_000  # on a page with more alerts
SILENCE_TEXT_AT_MOST = 300  # characters of a comment, and of matchers
LABEL_AT_MOST = 32  # characters in a plot

_NAMES = ("alertname", "title", "name", "check", "rule", "trigger", "monitor")
_PLACES = ("instance", "pod", "host", "hostname", "container", "node", "device", "job")
_NOT_TELLING = {*_NAMES, "severity", "priority", "level"}


@dataclass(frozen=True, slots=True)
class AlertRow:
    """`texts` are its labels without those of all alerts, and its annotations; None: the page has no room for them."""

    alert: ShownAlert
    name: str
    detail: str
    texts: Sequence[tuple[str, str, str | None]] | None  # name, text, link
    link: str | None


@dataclass(frozen=True, slots=True)
class ShownSilence:
    """A silence of an Alertmanager that suppressed alerts of the incident."""

    by: str
    comment: str
    matchers: str
    starts_at: datetime
    ends_at: datetime
    source: str


def shown_silences(evidence: Evidence) -> list[ShownSilence]:
    return [
        ShownSilence(
            words.cut(silence.by, 100),
            words.cut(silence.comment, SILENCE_TEXT_AT_MOST),
            words.cut(silence.matchers, SILENCE_TEXT_AT_MOST),
            silence.starts_at,
            silence.ends_at,
            source,
        )
        for silence, source in evidence.silences
    ]


def alert_rows(alerts: Sequence[ShownAlert], common: Mapping[str, str], *, characters: int) -> list[AlertRow]:
    rows = []
    left = characters
    for alert in alerts:
        texts = _texts(alert, common)
        size = sum(len(name) + len(text) + len(link or "") for name, text, link in texts)
        left -= size
        name = name_of(alert.labels, alert.fingerprint)
        detail = detail_of(alert.labels, common)
        rows.append(AlertRow(alert, name, detail, texts if left >= 0 else None, web_address(alert.link)))
    return rows


def _texts(alert: ShownAlert, common: Mapping[str, str]) -> list[tuple[str, str, str | None]]:
    own = [(name, value) for name, value in alert.labels.items() if common.get(name) != value]
    return [
        (words.cut(name, 100), words.cut(value, VALUE_AT_MOST), web_address(value))
        for name, value in [*own, *alert.annotations.items()]
    ]


def name_of(labels: Mapping[str, str], fingerprint: str) -> str:
    """The name of the alert for people."""
    found = next((labels[name] for name in _NAMES if labels.get(name)), fingerprint)
    return words.cut(found, 120)


def detail_of(labels: Mapping[str, str], common: Mapping[str, str]) -> str:
    """The label that distinguishes the alert from the others: where it fires, else any that is not common."""
    own = {name: value for name, value in labels.items() if common.get(name) != value and name not in _NOT_TELLING}
    found = next((own[name] for name in _PLACES if own.get(name)), next(iter(own.values()), ""))
    return words.cut(found, 80)


def lane_words(lane: Lane, common: Mapping[str, str]) -> tuple[str, str]:
    """The name and the detail of a series, short enough for a plot."""
    name = words.cut(words.visible(name_of(lane.labels, lane.fingerprint)), LABEL_AT_MOST)
    return name, words.cut(words.visible(detail_of(lane.labels, common)), LABEL_AT_MOST)
