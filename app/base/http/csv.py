"""Answers as CSV, for spreadsheets: the fields of the JSON, one line for each of its rows, and nothing that runs.

A sheet is made of an answer, never beside it, so that it cannot tell another number. Its columns are the names of the
fields joined by `_`; where JSON has an object by name (a measure, a currency, a reason) each name has columns. A list
of numbers needs a sheet of its own (a `Table`); formulas and links are in the JSON only.
"""

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache, wraps
from io import StringIO
from itertools import chain, islice
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_args, get_origin

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from app.base.http.problems import problem_responses
from app.base.threads import off_loop

CHUNK = 500  # lines
REMEMBERED = 10_000  # names of columns, the same in every line

_PASSED_OVER = {"filters", "measures", "total", "amounts", "value"}  # names that would say nothing in a column
_JSON_ONLY = {"formula", "formulas", "links", "label", "starts", "ends", "assumptions"}

Answer = TypeVar("Answer", bound=BaseModel)
Asked = ParamSpec("Asked")
Line = Mapping[str, str]  # cells by column


class Table(NamedTuple):
    """A part of an answer that needs lines of its own."""

    rows: Callable[[Any], Iterable[Line]]
    lines: str  # what a line is


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
    """Adds the same question with its answer as a sheet, at `path` and `.csv`, and each of `tables` below it; `lines`
    says what a line is, `problems` which the question may have.
    """
    sheets = {path: Table(rows, lines)} | {f"{path}/{name}": table for name, table in tables.items()}

    def add(endpoint: Callable[Asked, Any]) -> Callable[Asked, Any]:
        for address, table in sheets.items():
            name = address.rpartition("/")[2]
            router.add_api_route(
                f"{address}.csv",
                _sheet(endpoint, name, table.rows),
                name="_".join([endpoint.__name__, *address.removeprefix(path).split("/")[1:], "csv"]),
                summary=f"The same as CSV: {name}",
                description=f"{table.lines}. {_COLUMNS}",
                tags=[*tags],
                response_model=None,
                response_class=StreamingResponse,
                responses=problem_responses(*problems) | CSV,
            )

        @wraps(endpoint)
        async def told(*args: Asked.args, **kwargs: Asked.kwargs) -> Response:
            answer: Answer = await endpoint(*args, **kwargs)
            body = await off_loop(answer.model_dump_json, by_alias=True)
            return Response(body, media_type="application/json")

        return told

    return add


def _sheet(endpoint: Callable[Asked, Any], name: str, rows: Callable[[Any], Iterable[Line]]) -> Callable[Asked, Any]:
    @wraps(endpoint)
    async def sheet(*args: Asked.args, **kwargs: Asked.kwargs) -> StreamingResponse:
        parts = _parts(rows, await endpoint(*args, **kwargs))
        # Before the answer begins, so that what fails is told as a problem.
        header = await off_loop(next, parts)
        return attached(name, chain([header], parts))

    return sheet


_COLUMNS = """The columns are the names of the fields of the JSON, joined by `_`. An empty cell: there is none, which is
not 0. Text that a spreadsheet would take for a formula has an apostrophe before it."""

CSV: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Lines after one with the names of the columns; UTF-8, RFC 4180",
        "content": {"text/csv": {"schema": {"type": "string"}, "example": "from,to,service\r\n"}},
    }
}


def _parts(rows: Callable[[Answer], Iterable[Line]], answer: Answer) -> Iterator[str]:
    """The header, then some lines at a time. Rows are made twice: to know the columns, and to be written."""
    columns = list(dict.fromkeys(chain.from_iterable(rows(answer)))) or ["from", "to"]  # no rows are no reason to fail
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
    """What is in the model by column, each beginning with `under`; of its fields `only` those, if given."""
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


@lru_cache(maxsize=REMEMBERED)
def _none(column: str, kind: Any) -> tuple[tuple[str, str], ...]:
    """The columns that there would be, so that they do not come and go with the data; what is by name does."""
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


@lru_cache(maxsize=REMEMBERED)
def _column(under: str, name: str) -> str:
    if name in _PASSED_OVER:
        return under
    own = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
    return f"{under}_{own}" if under else own


def spreadsheet_text(text: str) -> str:
    """As a cell: spreadsheets run what begins like a formula, and names come from whoever sends alerts."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
