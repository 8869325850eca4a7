"""References to reviews and action items in paths, queries and bodies: by UUID, or by number, also in lower case."""

import re
from typing import Annotated
from uuid import UUID

from fastapi import Header, Path
from pydantic import PlainValidator, StringConstraints

_UUID = "[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_REVIEW, _ITEM = (
    re.compile(rf"({prefix}-[1-9][0-9]{{0,17}}|{_UUID})", re.ASCII) for prefix in ("[Rr][Ee][Vv]", "[Aa][Ii]")
)


def _review_ref(value: object) -> UUID | int:
    return _ref(value, _REVIEW, "the UUID of a review, or its number such as `REV-1`")


def _item_ref(value: object) -> UUID | int:
    return _ref(value, _ITEM, "the UUID of an action item, or its number such as `AI-1`")


def _ref(value: object, pattern: re.Pattern[str], expected: str) -> UUID | int:
    text = str(value)
    if not pattern.fullmatch(text):
        message = f"must be {expected}"
        raise ValueError(message)
    prefix, dash, number = text.partition("-")
    return int(number) if dash and prefix.upper() in {"REV", "AI"} else UUID(text)


ReviewRef = Annotated[
    UUID | int,
    PlainValidator(
        _review_ref,
        json_schema_input_type=Annotated[str, StringConstraints(pattern=f"^{_REVIEW.pattern}$")],
    ),
]
ItemRef = Annotated[
    UUID | int,
    PlainValidator(_item_ref, json_schema_input_type=Annotated[str, StringConstraints(pattern=f"^{_ITEM.pattern}$")]),
]
ReviewInPath = Annotated[
    ReviewRef,
    Path(alias="review", description="UUID of a review, or its number such as `REV-1`", examples=["REV-1"]),
]
ItemInPath = Annotated[
    ItemRef,
    Path(alias="item", description="UUID of an action item, or its number such as `AI-1`", examples=["AI-1"]),
]
IfMatch = Annotated[str | None, Header(max_length=100, description="Apply the change only if it still has this ETag")]
