"""What the pages of sources show, from the health of each source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from app.base.values.facts import ReactionKind
from app.incidents.grouping.signal import Verdict
from app.ingest.health import judgment, wording
from app.ingest.health.heartbeat import BeatSeries
from app.ingest.health.judgment import Counts, Reason, SourceStatus
from app.ingest.health.store import SourceReading
from app.ingest.health.wording import Target
from app.ingest.senders import SENDERS
from app.pages import words
from app.pages.web.frame import ALL_OPEN, PageRequest, with_query

QUARANTINE = "/sources/quarantine"


def address_of(name: str) -> str:
    """The page of a source. Names can be anything: one called `quarantine` must not lead to the quarantine."""
    path = "/sources/" + quote(name, safe="")
    return path.replace("/q", "/%71", 1) if path == QUARANTINE else path


# — health —


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a sentence: text, code, or a link."""

    text: str
    address: str | None = None
    is_code: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of a source, as the page words it."""

    title: str
    status: SourceStatus
    seen: Sequence[Part]
    remedy: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Bar:
    """How often a verdict was reached. `width` in percent of the widest bar."""

    verdict: str
    words: str
    count: int
    width: float


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """A source as the pages show it."""

    reading: SourceReading
    status: SourceStatus
    findings: Sequence[Finding]

    @property
    def name(self) -> str:
        return self.reading.source.name

    @property
    def kind(self) -> str:
        return self.reading.source.kind

    @property
    def kind_words(self) -> str:
        return SENDERS[self.kind].name if self.kind in SENDERS else self.kind

    @property
    def address(self) -> str:
        return address_of(self.name)

    @property
    def quarantine_address(self) -> str:
        return with_query(QUARANTINE, {"source": self.name})

    @property
    def was_seen(self) -> bool:
        """Whether it has ever delivered anything."""
        return self.status is not SourceStatus.NEVER_SEEN

    @property
    def recent(self) -> Counts:
        """The counts of the last day, or since the source was created if that is not a day ago."""
        return self.reading.last_day or self.reading.since_created

    @property
    def bars(self) -> Sequence[Bar]:
        return bars(self.recent.verdicts)

    @property
    def heartbeats(self) -> Sequence[BeatSeries]:
        """Longest silence first."""
        return self.reading.heartbeats

    @property
    def missing(self) -> int:
        return len(self.reading.observed.missing)

    @property
    def waiting(self) -> int:
        """Items in quarantine that were not replayed."""
        return sum(self.reading.observed.quarantined.values())


def facts_of(asked: PageRequest, readings: Sequence[SourceReading]) -> Sequence[SourceFacts]:
    """Worst first."""
    found = [_facts(asked, reading) for reading in readings]
    return sorted(found, key=lambda one: (-judgment.rank(one.status), one.name))


def _facts(asked: PageRequest, reading: SourceReading) -> SourceFacts:
    status, reasons = judgment.judge(reading.observed)
    return SourceFacts(reading, status, [_finding(asked, reading.source.name, reason) for reason in reasons])


def _finding(asked: PageRequest, source: str, reason: Reason) -> Finding:
    addresses = addresses_for(source)
    remedy: list[Part] = []
    for part in wording.remedy(reason):
        if isinstance(part, Target):
            remedy.append(Part(wording.LINK_WORDS[part], addresses[part]))
        else:
            remedy += prose(part)
    seen = prose(wording.observation(reason, asked.shown))
    return Finding(_title(reason.reason), reason.status, seen, remedy)


def addresses_for(source: str) -> Mapping[Target, str]:
    """Where the remedies for a source lead."""
    return {
        Target.QUARANTINE: with_query(QUARANTINE, {"source": source}),
        Target.QUARANTINE_DELETE: address_of(source) + "#quarantine",
        Target.RULES: "/rules",
        Target.OPEN_INCIDENTS: with_query("/incidents", {**ALL_OPEN, "source": source}),
        Target.HEARTBEAT: address_of(source) + "#heartbeats",
    }


def _title(identifier: str) -> str:
    return identifier.replace("_", " ").capitalize()


def prose(text: str) -> list[Part]:
    """Text in which code stands between backticks."""
    return [Part(piece, is_code=number % 2 == 1) for number, piece in enumerate(text.split("`")) if piece]


# — what signals did —

_VERDICTS: Mapping[str, str] = {
    Verdict.OPENED: "opened an incident",
    Verdict.JOINED: "joined an incident",
    Verdict.REPEATED: "repeated",
    Verdict.RESOLVED: "ended an alert",
    Verdict.REOPENED: "reopened an incident",
    Verdict.MERGED: "merged incidents",
    Verdict.SPLIT: "split an incident",
    Verdict.LATE: "arrived late",
    Verdict.IGNORED: "ignored",
    Verdict.QUARANTINED: "could not be read",
    Verdict.ACKNOWLEDGED: "acknowledged an incident",
}


def verdict_words(verdict: str) -> str:
    return _VERDICTS.get(verdict, verdict)


def bars(verdicts: Mapping[str, int]) -> Sequence[Bar]:
    """Most frequent first."""
    widest = max(verdicts.values(), default=0)
    return [
        Bar(verdict, verdict_words(verdict), count, round(100 * count / widest, 2))
        for verdict, count in sorted(verdicts.items(), key=lambda item: (-item[1], item[0]))
        if count
    ]


# — reactions —

_REACTIONS: Mapping[str, str] = {
    ReactionKind.ACKNOWLEDGED: "acknowledged",
    ReactionKind.UNACKNOWLEDGED: "acknowledgement taken back",
    ReactionKind.CLOSED: "closed",
    ReactionKind.NOTE: "note",
}

# — numbers —

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def size(count: int) -> str:
    """`512 bytes`, `4 KiB`, `1.3 MiB`"""
    number, unit = float(count), 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    digits = 1 if unit and number < 10 and round(number, 1) % 1 else 0
    return f"{number:,.{digits}f}{words.NARROW}{_UNITS[unit]}"


def ago(asked: PageRequest, at: datetime) -> str:
    return words.duration(max(0.0, (asked.now - at).total_seconds()))


def shared(asked: PageRequest) -> Mapping[str, Any]:
    """Values that all templates of this area use."""
    return {
        "quota": asked.context.settings.quarantine_bytes,
        "size": size,
        "ago": lambda at: ago(asked, at),
        "verdict_words": verdict_words,
        "reaction_words": lambda kind: _REACTIONS.get(kind, kind),
    }
