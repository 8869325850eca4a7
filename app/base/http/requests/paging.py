"""Pagination of lists with keyset cursors."""

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field, StringConstraints

from app.base.errors import Invalid
from app.base.http.requests.fields import storable

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """The name of its schema."""
        return f"PageOf{params[0].__name__}"

    items: list[Item]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last one")


class CountedPage(Page[Item], Generic[Item]):
    """A page of a list that is counted on request."""

    total: int | None = Field(
        description="Number of items on all pages; null unless `count=true` was sent", examples=[None]
    )


Counted = Annotated[bool, Query(description="Also count the items on all pages")]


class Paging(BaseModel):
    limit: int = Field(50, ge=1, le=500, description="Maximum number of items on a page")
    cursor: Annotated[str, StringConstraints(max_length=1000)] | None = Field(
        None, description="`next_cursor` of the previous page"
    )

    def after(self, *types: type) -> tuple[Any, ...] | None:
        """The key of the last item of the previous page, as values of `types`. Raises Invalid."""
        if self.cursor is None:
            return None
        try:
            parts = json.loads(base64.urlsafe_b64decode(self.cursor.encode("ascii")))
            return tuple(_part(kind, part) for kind, part in zip(types, parts, strict=True))
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            message = "this cursor was not issued by this route; omit it to start at the first page"
            raise Invalid(message) from None

    def after_in(self, sort: StrEnum, *types: type) -> tuple[Any, ...] | None:
        """As `after`, for lists in several orders, whose keys begin with the name of the order. Raises Invalid."""
        key = self.after(str, *types)
        if key is not None and key[0] != sort:
            message = "this cursor was issued for another `sort`; omit it to start at the first page"
            raise Invalid(message)
        return key and key[1:]

    def after_name(self) -> str:
        """For lists by name: the last name of the previous page, empty on the first page. Raises Invalid."""
        key = self.after(str)
        name: str = key[0] if key else ""
        return name


def _part(kind: type, part: Any) -> Any:
    if kind is datetime:
        at = datetime.fromisoformat(part)
        if at.tzinfo is None:
            raise ValueError
        return at.astimezone(UTC)
    if kind is int and not (isinstance(part, int) and 0 <= part < 2**63):
        raise ValueError
    if kind is not int and not isinstance(part, str):
        raise ValueError
    return storable(part) if kind is str else kind(part)


def cursor_of(*key: object) -> str:
    """The cursor that continues after the item with this key."""
    parts = [part.isoformat() if isinstance(part, datetime) else part for part in key]
    return base64.urlsafe_b64encode(json.dumps(parts, default=str).encode()).decode()


def page_of(
    rows: Sequence[Item], paging: Paging, key: Callable[[Item], tuple[object, ...]], *, cut: bool = False
) -> tuple[Sequence[Item], str | None]:
    """The page and, if there are more items, the cursor of the next page. `rows` has up to `limit` + 1 items, or fewer
    if it was `cut` because more would have been too large.
    """
    page = rows[: paging.limit]
    return page, cursor_of(*key(page[-1])) if cut or len(rows) > paging.limit else None


Pages = Annotated[Paging, Query()]
