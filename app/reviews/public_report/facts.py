"""All that a public report can contain. Whatever is not a field here cannot reach it.

Pure: no clock, no I/O, no settings.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from app.base.text.public_words import clean


@dataclass(frozen=True, slots=True)
class PublicText:
    """The text that a person wrote for customers. Nothing of it comes from the review by itself."""

    title: str
    summary: str
    severity: str = ""
    customer_impact: str = ""
    proximate_cause: str = ""
    resolution: str = ""
    learnings: Sequence[str] = ()
    countermeasures: Sequence[str] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "PublicText":
        """By the names of the fields, without invisible characters and spaces around."""
        return cls(**{one.name: _cleaned(values[one.name]) for one in fields(cls) if one.name in values})

    def by_field(self) -> Iterator[tuple[str, str]]:
        """The text of each field; entries of a list are lines."""
        for one in fields(self):
            value = getattr(self, one.name)
            yield one.name, value if isinstance(value, str) else "\n".join(value)

    def as_json(self) -> dict[str, Any]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value if isinstance(value, str) else list(value) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class PublicFacts:
    """Components and times are those of the public incident; `ends_at` is None while it goes on."""

    text: PublicText
    components: Sequence[str]
    begins_at: datetime
    ends_at: datetime | None


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value).strip()
    return tuple(entry for each in value if (entry := clean(each).strip()))
