"""Looks for internal words in the text of a public report. Each is a warning that a person accepts by name, or removes.

Pure: no clock, no I/O, no settings. It finds what is known and what has a usual form; it cannot know everything.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import urlsplit

from app.base.text.public_words import clean
from app.base.text.redaction import MARK, redact
from app.reviews.public_report.facts import PublicText

SHORTEST_LABEL = 4  # shorter values are mostly ordinary words
LONGEST_WORDS = 200  # of a warning


class LeakKind(StrEnum):
    SECRET = "secret"  # noqa: S105  a kind, not a password
    PERSON = "person"
    SERVICE = "service"
    SOURCE = "source"
    LABEL = "label"
    EMAIL = "email"
    URL = "url"
    ADDRESS = "address"
    HOST = "host"
    MONEY = "money"
    NUMBER = "number"


class Leak(NamedTuple):
    """Internal words in a field. `words` are as they stand there; of a secret, its line without the secret."""

    at: str
    kind: LeakKind
    words: str


@dataclass(frozen=True, slots=True)
class InternalWords:
    """Internal names and values. `components` are public. `site` is the public address of the status page."""

    people: Collection[str] = ()
    services: Collection[str] = ()
    sources: Collection[str] = ()
    labels: Collection[str] = ()
    components: Collection[str] = ()
    site: str = ""


def leaks(text: PublicText, known: InternalWords) -> list[Leak]:
    """In the order of the fields; each kind and words once for a field."""
    words = _Words.of(known)
    return [leak for field, written in text.by_field() if written for leak in _in_field(field, written, words)]


def _in_field(field: str, written: str, words: "_Words") -> Iterator[Leak]:
    written = _plain(written)
    found = [(LeakKind.SECRET, line) for line in _secrets(written)]
    found += [(kind, name) for kind, name in words.in_text(written)]
    found += [*_forms(written, words.site)]
    for kind, each in dict.fromkeys((kind, each[:LONGEST_WORDS]) for kind, each in found):
        yield Leak(field, kind, each)


def _plain(text: str) -> str:
    """As a reader sees it: without invisible characters, and with one form of each letter."""
    return unicodedata.normalize("NFKC", clean(text).replace("\u00ad", ""))


def _secrets(text: str) -> Iterator[str]:
    redacted = redact(text)
    if redacted.secrets:
        yield from (line.strip() for line in redacted.text.splitlines() if MARK in line)


# — names that are known —


@dataclass(frozen=True, slots=True)
class _Words:
    """`anywhere` match in any case; parts of names of people as they are written, because some are ordinary words."""

    anywhere: tuple[tuple[LeakKind, str], ...]
    parts: tuple[str, ...]
    site: str

    @classmethod
    def of(cls, known: InternalWords) -> "_Words":
        public = {_plain(each).casefold() for each in known.components}
        kinds = (
            (LeakKind.PERSON, known.people, 2),
            (LeakKind.SERVICE, known.services, 1),
            (LeakKind.SOURCE, known.sources, 1),
            (LeakKind.LABEL, known.labels, SHORTEST_LABEL),
        )
        anywhere = [
            (kind, name)
            for kind, names, shortest in kinds
            for each in sorted(names)
            if len(name := _plain(each).strip()) >= shortest and name.casefold() not in public
        ]
        parts = {part for each in known.people for part in re.split(r"[\s.@_]+", _plain(each)) if len(part) > 2}
        return cls(tuple(anywhere), tuple(sorted(part for part in parts if part[0].isupper())), known.site)

    def in_text(self, text: str) -> Iterator[tuple[LeakKind, str]]:
        folded = text.casefold()
        for kind, name in self.anywhere:
            # Most names are in no text, and this is much faster than an expression.
            if (plain := name.casefold()) in folded:
                found = _whole(name, re.IGNORECASE).search(text) or _whole(plain).search(folded)
                if found:
                    yield kind, found[0]
        for part in self.parts:
            if part in text and (found := _whole(part).search(text)):
                yield LeakKind.PERSON, found[0]


def _whole(name: str, flags: int = 0) -> re.Pattern[str]:
    """Not within a longer word, in scripts that separate words."""
    before = r"(?<!\w)" if _separates(name[0]) else ""
    after = r"(?!\w)" if _separates(name[-1]) else ""
    return re.compile(f"{before}{re.escape(name)}{after}", flags)


def _separates(character: str) -> bool:
    return character.isdigit() or character.lower() != character.upper()


# — what has a usual form —

_CURRENCIES = "AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HKD|HUF|INR|JPY|KRW|MXN|NOK|NZD|PLN|SEK|SGD|TRY|USD|ZAR"
_AMOUNT = r"\d[\d.,\u2019']{0,30}(?:\s?(?:k|m|bn|thousand|million|billion)\b)?"
# In this order: what one has found, the next ones do not look at.
_FORMS = (
    (LeakKind.URL, re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s<>\"')\]]+|\bwww\.[^\s<>\"')\]]+", re.IGNORECASE)),
    (LeakKind.EMAIL, re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}")),
    (LeakKind.NUMBER, re.compile(r"\b(?:INC|REV|AI)-\d+", re.IGNORECASE)),
    (LeakKind.ADDRESS, re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?(?![\w.]*\d)")),
    (LeakKind.ADDRESS, re.compile(r"(?<![\w:.])[0-9a-f]{0,4}:[0-9a-f:.]{1,45}(?![\w:])", re.IGNORECASE)),
    (
        LeakKind.HOST,
        re.compile(
            r"(?<![\w.-])(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,8}[a-z](?:[a-z0-9-]{0,61}[a-z0-9])(?![\w-])",
            re.IGNORECASE,
        ),
    ),
    (
        LeakKind.MONEY,
        re.compile(
            rf"[$€£¥]\s?{_AMOUNT}|\b(?:{_CURRENCIES})\s?{_AMOUNT}"
            rf"|{_AMOUNT}\s?(?:[$€£¥]|(?:{_CURRENCIES}|euros?|dollars?|pounds?|francs?|yen)\b)",
            re.IGNORECASE,
        ),
    ),
)


def _forms(text: str, site: str) -> Iterator[tuple[LeakKind, str]]:
    for kind, pattern in _FORMS:
        for found in pattern.finditer(text):
            words = found[0].rstrip(".,;!?" if kind is LeakKind.ADDRESS else ".,;:!?")
            if words and not _is_clock(kind, words) and not (site and _is_of(site, words, kind)):
                yield kind, words
        text = pattern.sub(lambda found: " " * len(found[0]), text)


def _is_clock(kind: LeakKind, words: str) -> bool:
    """`14:05:33` looks like an IPv6 address, but is none."""
    if kind is not LeakKind.ADDRESS or ":" not in words:
        return False
    try:
        IPv6Address(words)
    except ValueError:
        return True
    return False


def _is_of(site: str, words: str, kind: LeakKind) -> bool:
    """Whether it is an address of the site itself, or its host."""
    if kind is LeakKind.HOST:
        return words.casefold() == (urlsplit(site).hostname or "")
    return kind is LeakKind.URL and (words == site or words.startswith(f"{site}/"))
