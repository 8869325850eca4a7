"""Responses as CSV, for spreadsheets: the fields of the JSON, one line per row, and no text that runs as a formula.

A sheet is always built from the JSON response, so the two cannot disagree. Columns are field names joined by `_`; an
object keyed by name (a measure, a currency, a reason) has columns for each name. A list of numbers needs a sheet of its
own (a `Table`); formulas and links are in the JSON only.
"""

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache, wraps
from io import StringIO
from itertools import chain, islice
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_args, get_origin
from unicodedata import normalize

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from app.base.http.problems import problem_responses
from app.base.threads import off_loop

CHUNK = 500  # lines
CACHED_NAMES = 10_000  # names of columns, the same in every line

_PASSED_OVER = {"filters", "measures", "total", "amounts", "value"}  # names that add no meaning to a column
_JSON_ONLY = {"formula", "formulas", "links", "label", "starts", "ends", "assumptions"}

Answer = TypeVar("Answer", bound=BaseModel)
Asked = ParamSpec("Asked")
Line = Mapping[str, str]  # cells by column


class Table(NamedTuple):
    """A part of a response that needs lines of its own."""

    rows: Callable[[Any], Iterable[Line]]
    lines: str  # describes a line


def also_as_csv(
    router: APIRouter,
    path: str,
    rows: Callable[[Answer], Iterable[Line]],
    *,
    lines: str,
    tables: Mapping[str, Table] = {},
    tags: Sequence[str] = (),
    problems: Sequence[int] = (),
) -> Callable[[Callable[Asked, Any]], Callable[Asked, Any]]:
    """Adds the same query as a CSV route at `path` plus `.csv`, and a route below it for each of `tables`. `lines`
    describes a line, `problems` lists the statuses that the query can return.
    """
    sheets = {path: Table(rows, lines)} | {f"{path}/{name}": table for name, table in tables.items()}

    def add(endpoint: Callable[Asked, Any]) -> Callable[Asked, Any]:
        for address, table in sheets.items():
            name = address.rpartition("/")[2]
            router.add_api_route(
                f"{address}.csv",
                _sheet(endpoint, name, table.rows),
                name="_".join([endpoint.__name__, *address.removeprefix(path).split("/")[1:], "csv"]),
                summary=f"Export {name} as CSV",
                description=f"{table.lines}. {_COLUMNS}",
                tags=[*tags],
                response_model=None,
                response_class=StreamingResponse,
                responses=problem_responses(*problems) | CSV,
            )

        @wraps(endpoint)
        async def as_json(*args: Asked.args, **kwargs: Asked.kwargs) -> Response:
            answer: Answer = await endpoint(*args, **kwargs)
            body = await off_loop(answer.model_dump_json, by_alias=True)
            return Response(body, media_type="application/json")

        return as_json

    return add


def _sheet(endpoint: Callable[Asked, Any], name: str, rows: Callable[[Any], Iterable[Line]]) -> Callable[Asked, Any]:
    @wraps(endpoint)
    async def sheet(*args: Asked.args, **kwargs: Asked.kwargs) -> StreamingResponse:
        parts = _parts(rows, await endpoint(*args, **kwargs))
        # Computed before the response starts, so that an error can still be returned as a problem.
        header = await off_loop(next, parts)
        return attached(name, chain([header], parts))

    return sheet


_COLUMNS = """Columns are the field names of the JSON, joined by `_`. An empty cell means no value, which is not 0. Text
that a spreadsheet would interpret as a formula is prefixed with an apostrophe."""

CSV: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A header line with the column names, then the data; UTF-8, RFC 4180",
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
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
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
            if str in get_args(kind):
                yield column, spreadsheet_text(", ".join(shown))
        case bool():
            yield column, str(value).lower()
        case int() | float() | Decimal():
            yield column, "" if shown is None else str(shown)
        case _:
            yield column, spreadsheet_text(str(shown))


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
