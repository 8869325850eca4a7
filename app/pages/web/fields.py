"""How lists, durations and shares are written in the fields of forms, and read back. Pure, except that what cannot be
read raises Invalid.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from app.base.errors import Invalid
from app.base.http.requests.fields import Input, Slug
from app.pages.web.forms import Form, parsed


class _Named(Input):
    name: Slug


def new_name(form: Form) -> str:
    """The name that a person chose for a rule or a calendar. Raises Invalid."""
    try:
        return parsed(_Named, {"name": form.get("name", "").strip()}).name
    except Invalid:
        raise Invalid(
            "name: use up to 100 letters, digits, `.`, `_` and `-`, beginning with a letter or a digit"
        ) from None


# — lists: one entry a line —


def lines(entries: Iterable[str]) -> str:
    """One entry a line. Entries that this would change are quoted as in JSON."""
    return "\n".join(_as_line(entry) for entry in entries)


def entries(text: str) -> list[str]:
    """Reads what `lines` writes; spaces around entries, and empty lines, do not count."""
    return [_entry(line) for line in map(str.strip, text.split("\n")) if line]


def _as_line(entry: str) -> str:
    is_plain = entry == entry.strip() and not entry.startswith('"') and not set("\r\n") & set(entry) and entry
    return entry if is_plain else json.dumps(entry, ensure_ascii=False)


def _entry(line: str) -> str:
    if line.startswith('"'):
        try:
            read = json.loads(line)
        except ValueError:
            read = None
        if isinstance(read, str):
            return read
    return line


def pairs(known: Mapping[str, str]) -> str:
    """One pair a line: `blocker = sev1`."""
    return "\n".join(f"{_as_line(name)} = {value}" for name, value in known.items())


def pairs_of(text: str) -> dict[str, str]:
    """Raises Invalid."""
    found = {}
    for line in filter(None, map(str.strip, text.split("\n"))):
        name, equals, value = line.rpartition("=")
        if not equals or not name.strip():
            message = "write one word and its severity per line, for example: blocker = sev1"
            raise Invalid(message)
        found[_entry(name.strip())] = value.strip()
    return found


def part(text: str, *separators: str) -> str:
    """The text as a part of a line, quoted as in JSON if it contains a separator or would be changed."""
    is_plain = _as_line(text) == text and not any(each in text for each in separators)
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def part_of(line: str, separator: str) -> tuple[str, str]:
    """The first part of a line, as `part` writes it, and the rest."""
    if line.startswith('"'):
        try:
            read, end = json.JSONDecoder().raw_decode(line)
        except ValueError:
            read, end = None, 0
        if isinstance(read, str):
            return read, line[end:].strip().removeprefix(separator.strip()).strip()
    first, _, rest = line.partition(separator)
    return first.strip(), rest.strip()


# — durations —

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?:in)?)?(?:(\d{1,9})s)?", re.ASCII)


def exact(seconds: int) -> str:
    """`1 h 30 m`, `45 s`; nothing is rounded."""
    parts = []
    for unit, size in _UNITS.items():
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts) or "0 s"


def seconds_of(text: str, field: str) -> int:
    """Reads `5 m`, `1h30m` and `90 s`. Raises Invalid."""
    compact = "".join(text.split()).lower()
    found = _DURATION.fullmatch(compact)
    if found is None or not compact:
        message = f"{field}: write a duration such as 5 m, 1 h 30 m or 2 d"
        raise Invalid(message)
    return sum(int(number or 0) * size for number, size in zip(found.groups(), _UNITS.values(), strict=True))


# — shares —

_PERCENT = re.compile(r"\d{1,2}(\.\d{1,7})?", re.ASCII)


def percent(ratio: Decimal) -> str:
    """`99.9` for 0.999."""
    shown = f"{ratio * 100:f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def ratio_of(text: str, field: str) -> str:
    """`0.999` for `99.9`, also with a percent sign. Raises Invalid."""
    number = text.strip().removesuffix("%").strip().replace(",", ".")
    if not _PERCENT.fullmatch(number):
        message = f"{field}: enter a percentage above 0 and below 100, for example 99.9"
        raise Invalid(message)
    return f"{Decimal(number) / 100:f}"


# — hours of a day —

_HOURS = re.compile(r"(\d{1,2}:\d{2})\s*(?:-|–|to)\s*(\d{1,2}:\d{2})")


def hours(spans: Sequence[tuple[str, str]]) -> str:
    """`09:00–12:00, 13:00–18:00`."""
    return ", ".join(f"{begins}–{ends}" for begins, ends in spans)


def hours_of(text: str, day: str) -> list[dict[str, str]]:
    """Raises Invalid."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        span = _HOURS.fullmatch(part)
        if span is None:
            message = f"{day}: write hours as 09:00–17:00, and several with commas: 09:00–12:00, 13:00–18:00"
            raise Invalid(message)
        found.append({"from": span[1].zfill(5), "to": span[2].zfill(5)})
    return found
