"""A whole timeline in one piece: as CSV for spreadsheets, as Markdown for documents."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.http.responses.csv import CHUNK, attached, spreadsheet_text, written
from app.base.schema import Incident
from app.base.text.markdown import escaped
from app.incidents.api.entry import EntryModel, entry_models
from app.incidents.history import timeline
from app.incidents.history.details import DETAILS
from app.incidents.history.entry_words import words_of
from app.incidents.history.timeline import EntryFilter, Key


class TimelineFormat(StrEnum):
    JSON = "json"
    MARKDOWN = "md"
    CSV = "csv"


MEDIA = {
    "application/json": TimelineFormat.JSON,
    "text/csv": TimelineFormat.CSV,
    "text/markdown": TimelineFormat.MARKDOWN,
}
FORMATS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of the timeline; as CSV or Markdown, all entries that match",
        "content": {
            "text/csv": {"schema": {"type": "string"}, "example": "id,at,recorded_at,kind\r\n"},
            "text/markdown": {"schema": {"type": "string"}, "example": "# Timeline of INC-7\n"},
        },
    }
}


def accepted(header: str) -> TimelineFormat:
    """The first known type of an `Accept` header, else JSON."""
    media = [part.partition(";")[0].strip().lower() for part in header.split(",")]
    return next((MEDIA[one] for one in media if one in MEDIA), TimelineFormat.JSON)


async def exported(
    session: AsyncSession, engine: AsyncEngine, incident: Incident, chosen: EntryFilter, format_: TimelineFormat
) -> StreamingResponse:
    """Every entry that matches, earliest first."""
    number, title = f"INC-{incident.number}", incident.title_stated or incident.title
    is_csv = format_ is TimelineFormat.CSV

    async def chunk(session: AsyncSession, after: Key | None) -> tuple[Key | None, Sequence[EntryModel]]:
        rows = await timeline.entries(session, incident.id, chosen, after=after, limit=CHUNK)
        last = (rows[-1].at, rows[-1].id) if rows else None
        return last, await entry_models(session, rows, incident)

    first = await chunk(session, None)  # before the response starts, so that a failure becomes an error response

    async def parts() -> AsyncIterator[str]:
        yield written([_COLUMNS]) if is_csv else _heading(number, title)
        last, models = first
        while models:
            yield written(map(_cells, models)) if is_csv else "".join(map(_line, models))
            async with db.session(engine) as own:  # one per chunk, so that a slow client does not hold a connection
                last, models = await chunk(own, last)

    if is_csv:
        return attached(f"{number}-timeline", parts())
    return StreamingResponse(parts(), media_type="text/markdown")


# — CSV —

_COLUMNS = (
    *("id", "at", "recorded_at", "kind", "phase", "by", "note", "detail", "corrects"),
    *("revision_status", "revision_entry", "revision_at", "revision_by", "revision_why", "flags"),
)


def _cells(entry: EntryModel) -> list[str]:
    """In the order of the columns. `detail` has other fields for each kind, so it is one cell with JSON."""
    shown = entry.model_dump(mode="json")
    revision = shown["revision"] or {}
    flat = shown | {f"revision_{name}": value for name, value in revision.items()}
    flat |= {"flags": ", ".join(entry.flags)}
    if entry.detail is not None:
        flat["detail"] = json.dumps(entry.detail, ensure_ascii=False)
    found = (flat.get(name) for name in _COLUMNS)
    return ["" if value is None else spreadsheet_text(str(value)) for value in found]


# — Markdown —


def _heading(number: str, title: str) -> str:
    return (
        f"# Timeline of {number}: {escaped(title)}\n\n| Time (UTC) | Phase | What | By |\n| --- | --- | --- | --- |\n"
    )


def _line(entry: EntryModel) -> str:
    """A row of the table; what was corrected or withdrawn is struck through, with the reason."""
    what = escaped("; ".join(_what(entry)))
    if entry.revision is not None:
        why = f": {entry.revision.why}" if entry.revision.why else ""
        what = f"~~{what}~~ ({entry.revision.status}{escaped(why)})"
    cells = (f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.phase or "", what, escaped(entry.by or ""))
    return f"| {' | '.join(cells)} |\n"


def _what(entry: EntryModel) -> Iterator[str]:
    detail = entry.detail or {}
    yield entry.kind.replace("_", " ")
    if entry.kind in DETAILS:
        yield from words_of(entry.kind, detail)
    else:
        yield from _named(detail)
    if entry.note:
        yield entry.note


def _named(detail: Mapping[str, Any]) -> Iterator[str]:
    """The fields that have a value, such as the effect of a task or the deployment that was the cause."""
    for name, value in detail.items():
        if isinstance(value, dict):
            yield f"{name.replace('_', ' ')}: {' '.join(str(one) for one in value.values())}"
        elif value is not None:
            yield f"{name.replace('_', ' ')}: {value}"
