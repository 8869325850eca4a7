"""What is wrong with a part of a request, in the words of the API instead of those of a library."""

from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

from app.base.http.requests.known import NAME_AT_MOST
from app.base.text.patterns import FORMS

# By the type of pydantic's error; braces name entries of its context.
_WORDS: Mapping[str, str] = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "json_invalid": "is not valid JSON",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "set_type": "must be a list",
    "frozen_set_type": "must be a list",
    "string_type": "must be a string",
    "string_sub_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "does not have the expected format",
    "too_short": "must have at least {min_length} items, not {actual_length}",
    "too_long": "must have at most {max_length} items",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "decimal_type": "must be a number",
    "decimal_parsing": "must be a number",
    "decimal_max_digits": "must have at most {max_digits} digits",
    "decimal_whole_digits": "must have at most {whole_digits} digits before the decimal point",
    "decimal_max_places": "must have at most {decimal_places} decimal places",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "date_type": "must be a date such as `2026-11-28`",
    "date_parsing": "must be a date such as `2026-11-28`",
    "date_from_datetime_parsing": "must be a date such as `2026-11-28`",
    "date_from_datetime_inexact": "must be a date such as `2026-11-28`",
    "datetime_type": "must be a time such as `2026-11-28T09:30:00Z`",
    "datetime_parsing": "must be a time such as `2026-11-28T09:30:00Z`",
    "datetime_object_invalid": "must be a time such as `2026-11-28T09:30:00Z`",
    "datetime_from_date_parsing": "must be a time such as `2026-11-28T09:30:00Z`",
    "timezone_aware": "must have an offset from UTC: add `Z` if it is in UTC",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}",
    "union_tag_not_found": "{discriminator} is required",
    "url_type": "must be a URL",
    "url_parsing": "must be a URL",
    "url_scheme": "must be a URL that begins with {expected_schemes}",
    "url_too_long": "must have at most {max_length} characters",
}


def why(error: Mapping[str, Any]) -> str:
    """What is wrong, for one of pydantic's errors; follows the name of the part."""
    kind, context = error["type"], error.get("ctx", {})
    words = _WORDS.get(kind)
    if words is None or not {name for _, name, _, _ in Formatter().parse(words) if name} <= set(context):
        # Those of our own rules are plain already.
        return str(error["msg"]).removeprefix("Value error, ").replace("Input should", "must").replace("'", "`")
    if kind == "string_pattern_mismatch":
        return FORMS.get(context["pattern"], words)
    if kind in {"string_too_short", "too_short"} and context["min_length"] == 1:
        return "must not be empty"
    return words.format(**{name: _plain(value) for name, value in context.items()}).replace("'", "`")


def _plain(value: object) -> object:
    """A whole number without `.0`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def places(errors: Sequence[Mapping[str, Any]], body: object) -> list[tuple[Mapping[str, Any], str]]:
    """The errors, each with the path of its part as the client sent it.

    If a part may have one of several shapes, pydantic names the shape in the path, and lists the errors of all of them.
    The shape is left out, and only the errors of the nearest one are kept.
    """
    found = [(error, *_place(error, body)) for error in errors]
    strange: dict[tuple[str, str], int] = {}
    for error, _, shape in found:
        if shape is not None:
            strange[shape] = strange.get(shape, 0) + (error["type"] in {"missing", "extra_forbidden"})
    nearest: dict[str, str] = {}
    for (place, name), unfitting in strange.items():
        if unfitting < strange[place, nearest.setdefault(place, name)]:
            nearest[place] = name
    return [(error, place) for error, place, shape in found if shape is None or nearest[shape[0]] == shape[1]]


def _place(error: Mapping[str, Any], body: object) -> tuple[str, tuple[str, str] | None]:
    """The path of a part, and its shape: where it is, and its name."""
    source, *rest = error["loc"]
    if source != "body" or error["type"] == "json_invalid":
        return _path(error["loc"]), None
    parts, shape, inside = [source], None, body
    for number, part in enumerate(rest, 1):
        if (isinstance(inside, dict) and part in inside) or (
            isinstance(inside, list) and isinstance(part, int) and part < len(inside)
        ):
            inside = inside[part]
        elif number < len(rest) or error["type"] != "missing":
            shape = (_path(parts), str(part))
            continue
        parts.append(part)
    return _path(parts), shape


def _path(parts: Iterable[object]) -> str:
    return "/".join(str(part)[:NAME_AT_MOST] for part in parts)
