"""SQL fragments and structs derived from a table and the names of some of its columns.

A statement over many rows lists each column in SELECT or SET, in the types of a `json_to_recordset` and in the struct
that is sent as JSON. All of these derive from one tuple of names, so a new column is added in one place only.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql


@dataclass(frozen=True)
class Columns:
    """Some columns of a table, in order. Raises KeyError for a name that the table does not have."""

    table: Table
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if unknown := [name for name in self.names if name not in self.table.c]:
            message = f"{self.table.name} has no column {', '.join(unknown)}"
            raise KeyError(message)

    def __str__(self) -> str:
        """`a, b`: for an INSERT."""
        return ", ".join(self.names)

    def selected(self, *, as_text: Collection[str] = ()) -> str:
        """`alert.a, alert.b`; those in `as_text` are cast to text."""
        return ", ".join(f"{self.table.name}.{name}{'::text' if name in as_text else ''}" for name in self.names)

    def padded(self, **values: str) -> str:
        """The other half of a UNION: the given values by name, NULL for the other columns."""
        return ", ".join(values.get(name, "NULL") for name in self.names)

    def place(self, name: str) -> int:
        """The position of the column in a row."""
        return self.names.index(name)

    def types(self) -> str:
        """`a TEXT, b UUID`: for `json_to_recordset`."""
        return ", ".join(f"{name} {self.table.c[name].type.compile(_DIALECT)}" for name in self.names)

    def assigned(self, source: str, *, but: Collection[str] = ()) -> str:
        """`a = source.a, b = source.b`: for SET, without those in `but`."""
        return ", ".join(f"{name} = {source}.{name}" for name in self.names if name not in but)

    @cached_property
    def record(self) -> Callable[..., object]:
        """Creates a row for `json_to_recordset` from values in this order. None and omitted values are not sent."""
        return msgspec.defstruct(
            f"Row_of_{self.table.name}", [(name, Any, None) for name in self.names], omit_defaults=True
        )


def as_json(rows: object) -> str:
    """Rows for `json_to_recordset`, or a value for a column of JSON."""
    return _json.encode(rows).decode()


_json = msgspec.json.Encoder(enc_hook=dict)  # for a mapping that is not a dict
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
