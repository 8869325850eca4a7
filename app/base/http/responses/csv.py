"""Responses as CSV, for spreadsheets: the fields of the JSON, one line per row, and no text that runs as a formula.

A sheet is always built from the JSON response, so the two cannot disagree. Columns are field names joined by `_`; an
object keyed by name (a measure, a currency, a reason) has columns for each name. A list of numbers needs a sheet of its
own (a `Table`); names of definitions, and links, are in the JSON only.
"""

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache, wraps
from inspect import Parameter, signature
from io import StringIO
from itertools import chain, islice
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin
from unicodedata import normalize

from fastapi import Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from app.base.errors import Invalid
from app.base.process.threads import off_loop

CHUNK = 500  # lines
CACHED_NAMES = 10_000  # names of columns, the same in every line

# Names that add no meaning to a column.
_PASSED_OVER = {"filters", "measures", "total", "amounts", "value", "statistics", "estimates"}
_JSON_ONLY = {"definition", "definitions", "links", "carried_in", "assumptions"}

Answer = TypeVar("Answer", bound=BaseModel)
Line = Mapping[str, str]  # cells by column


class Table(NamedTuple):
    """A part of a response that needs lines of its own."""

    rows: Callable[[Any], Iterable[Line]]
    lines: str  # describes a line


@dataclass(frozen=True, slots=True)
class Sheet:
    """The CSV that a client asked for instead of JSON."""

    name: str
    rows: Callable[[Any], Iterable[Line]]


Format = Annotated[
    Literal["json", "csv"] | None,
    Query(alias="format", description="`csv` for a spreadsheet, as with `Accept: text/csv`", examples=["csv"]),
]


def or_csv(
    rows: Callable[[Answer], Iterable[Line]], *, lines: str, tables: Mapping[str, Table] = {}, compact: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The route also responds with CSV to `format=csv` or `Accept: text/csv`. `lines` describes a line; `tables` are
    other parts of the response, which the parameter `table` chooses. With `compact`, its JSON leaves out
    fields that have their default value.
    """

    def add(endpoint: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(endpoint)
        async def answer(*args: Any, asked_sheet: Sheet | None, **kwargs: Any) -> Response:
            found = await endpoint(*args, **kwargs)
            if asked_sheet is None:
                shown = await off_loop(found.model_dump_json, by_alias=True, exclude_defaults=compact)
                return Response(shown, media_type="application/json", headers=_VARY)
            parts = _parts(asked_sheet.rows, found)
            # Computed before the response starts, so that an error can still be returned as a problem.
            header = await off_loop(next, parts)
            return attached(asked_sheet.name, chain([header], parts))

        asked = Parameter(
            "asked_sheet",
            Parameter.KEYWORD_ONLY,
            annotation=Annotated[Sheet | None, Depends(_sheet_asked(Table(rows, lines), tables))],
        )
        own = signature(endpoint)
        answer.__signature__ = own.replace(parameters=[*own.parameters.values(), asked])  # type: ignore[attr-defined]
        return answer

    return add


def _sheet_asked(main: Table, tables: Mapping[str, Table]) -> Callable[..., Any]:
    described = Query(alias="format", description=f"`csv` for a spreadsheet, as with `Accept: text/csv`. {main.lines}")
    Described = Annotated[Literal["json", "csv"] | None, described]  # noqa: N806  a type

    def asked(request: Request, format_: Described = None) -> Sheet | None:
        return Sheet(_name_of(request), main.rows) if wants_csv(request, format_) else None

    chosen = "; ".join(f"`{name}`: {table.lines.lower()}" for name, table in tables.items())
    Chosen = Annotated[  # noqa: N806  a type
        Annotated[str, Field(json_schema_extra={"enum": [*tables]})] | None,
        Query(description=f"Part of the response to show as CSV instead. {chosen}"),
    ]

    def asked_of_several(
        request: Request,
        format_: Described = None,
        table: Chosen = None,
    ) -> Sheet | None:
        if table is None:
            return asked(request, format_)
        if table not in tables:
            message = f"`table` must be one of {', '.join(tables)}"
            raise Invalid(message)
        if not wants_csv(request, format_):
            message = "`table` chooses a part of the response as CSV; add `format=csv`"
            raise Invalid(message)
        return Sheet(table, tables[table].rows)

    return asked_of_several if tables else asked


def _name_of(request: Request) -> str:
    path: str = request.scope["path"]
    return path.rpartition("/")[2]


def wants_csv(request: Request, format_: str | None) -> bool:
    """The parameter `format` decides, else the Accept header, if it prefers CSV to JSON. Raises Invalid."""
    wanted = format_ == "csv" if format_ is not None else _prefers_csv(request)
    if wanted and "fields" in request.query_params:
        message = "`fields` chooses fields of the JSON; omit it for CSV"
        raise Invalid(message)
    return wanted


def _prefers_csv(request: Request) -> bool:
    accepted = {"text/csv": 0.0, "application/json": 0.0}
    for one in request.headers.get("accept", "").split(","):
        name, _, parameters = one.partition(";")
        if (name := name.strip().lower()) in accepted:
            accepted[name] = _quality(parameters)
    return accepted["text/csv"] > 0 and accepted["text/csv"] >= accepted["application/json"]


def _quality(parameters: str) -> float:
    found = re.search(r"(?:^|;)\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)", parameters)
    return float(found[1]) if found else 1.0


_VARY = {"Vary": "Accept"}

# The `responses` of a route that also responds with CSV.
CSV: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "As JSON, or as CSV (UTF-8, RFC 4180): a line with the names of the columns, which are the "
        "field names of the JSON joined by `_`, then the data. An empty cell means no value, which is not 0. Text that "
        "a spreadsheet would interpret as a formula is prefixed with an apostrophe",
        "content": {"text/csv": {"schema": {"type": "string"}, "example": "from,to,service\r\n"}},
    }
}


def _parts(rows: Callable[[Answer], Iterable[Line]], answer: Answer) -> Iterator[str]:
    """The header, then chunks of lines. Rows are computed twice: for the columns, and for the lines."""
    columns = list(dict.fromkeys(chain.from_iterable(rows(answer)))) or ["from", "to"]  # also without rows
    yield written([columns])
    left = iter(rows(answer))
    while some := list(islice(left, CHUNK)):
        yield written([line.get(column, "") for column in columns] for line in some)


def attached(name: str, parts: Any) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', **_VARY}
    return StreamingResponse(parts, media_type="text/csv", headers=headers)


def written(lines: Iterable[Iterable[str]]) -> str:
    sheet = StringIO()
    csv.writer(sheet).writerows(lines)
    return sheet.getvalue()


# — cells —


def cells(model: BaseModel, under: str = "", *, only: Collection[str] | None = None) -> dict[str, str]:
    """The cells of the model by column name, each prefixed with `under`; only the fields in `only`, if given."""
    shown = model.model_dump(mode="json", by_alias=True)
    if only is not None:
        fields = type(model).model_fields
        left_out = {info.serialization_alias or name for name, info in fields.items() if name not in only}
        return dict(_of_model(under, model, shown, left_out))
    return dict(_of_model(under, model, shown))


def _of_model(
    column: str, model: BaseModel, shown: Mapping[str, Any], left_out: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    for (field, info), (name, part) in zip(type(model).model_fields.items(), shown.items(), strict=True):
        if name not in _JSON_ONLY and name not in left_out:
            yield from _of(_column(column, name), getattr(model, field), part, info.annotation)


def _of(column: str, value: Any, shown: Any, kind: Any) -> Iterator[tuple[str, str]]:
    """`shown` is the value as JSON has it, `kind` its annotation."""
    match value:
        case None:
            yield from _none(column, kind)
        case BaseModel():
            yield from _of_model(column, value, shown)
        case dict():
            for (name, each), part in zip(value.items(), shown.values(), strict=True):
                yield from _of(_column(column, name), each, part, type(each))
        case list():
            if _is_of_words(kind):
                yield column, spreadsheet_text(", ".join(map(str, shown)))
        case bool():
            yield column, str(value).lower()
        case int() | float() | Decimal():
            yield column, "" if shown is None else str(shown)
        case _:
            yield column, spreadsheet_text(str(shown))


@lru_cache(maxsize=CACHED_NAMES)
def _is_of_words(kind: Any) -> bool:
    """Whether a list of this type is short enough for a cell: of names or choices, such as those of a filter."""
    return any(each in {str, int} or get_origin(each) is Literal for each in get_args(kind))


@lru_cache(maxsize=CACHED_NAMES)
def _none(column: str, kind: Any) -> tuple[tuple[str, str], ...]:
    """The columns of an absent value, so that columns do not depend on the data, except for objects keyed by name."""
    return tuple(_of_kind(column, kind))


def _of_kind(column: str, kind: Any) -> Iterator[tuple[str, str]]:
    kinds = (kind, *get_args(kind))
    models = [each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)]
    for model in models:
        for field, info in model.model_fields.items():
            name = info.serialization_alias or field
            if name not in _JSON_ONLY:
                annotation: Any = info.annotation
                yield from _none(_column(column, name), annotation)
    if not models and not any(get_origin(each) in {dict, list} for each in kinds):
        yield column, ""


@lru_cache(maxsize=CACHED_NAMES)
def _column(under: str, name: str) -> str:
    if name in _PASSED_OVER:
        return under
    own = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"{under}_{own}" if under else own


def spreadsheet_text(text: str) -> str:
    """Escapes text that starts like a formula: spreadsheets would run it, and names come from senders of alerts."""
    return f"'{text}" if _begins_formula(text[:1]) else text


@lru_cache(maxsize=CACHED_NAMES)
def _begins_formula(first: str) -> bool:
    # Spreadsheets also take full-width and other variants of these characters: ＝ ＋ － ＠.
    return normalize("NFKC", first).startswith(("=", "+", "-", "\u2212", "@", "\t", "\r", "\n"))
