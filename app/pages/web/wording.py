"""What is wrong with a value that a person entered, in plain words instead of those of a library. Pure."""

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from app.base.text.patterns import FORMS

# By the type of pydantic's error; braces name entries of its context.
_WORDS: Mapping[str, str] = {
    "missing": "enter a value",
    "extra_forbidden": "this form has no such field",
    "string_too_short": "enter a value",
    "string_too_long": "use at most {max_length} characters",
    "string_pattern_mismatch": "this does not have the expected format",
    "string_type": "enter a value",
    "too_long": "enter at most {max_length}",
    "too_short": "enter at least {min_length}",
    "greater_than": "enter a number above {gt}",
    "greater_than_equal": "enter a number of at least {ge}",
    "less_than": "enter a number below {lt}",
    "less_than_equal": "enter a number of at most {le}",
    "int_type": "enter a whole number",
    "int_parsing": "enter a whole number",
    "int_parsing_size": "enter a smaller number",
    "int_from_float": "enter a whole number",
    "float_type": "enter a number",
    "float_parsing": "enter a number",
    "decimal_type": "enter a number",
    "decimal_parsing": "enter a number",
    "finite_number": "enter a number",
    "decimal_max_digits": "use at most {max_digits} digits",
    "decimal_whole_digits": "use at most {whole_digits} digits before the decimal point",
    "decimal_max_places": "use at most {decimal_places} decimal places",
    "bool_parsing": "choose yes or no",
    "enum": "choose {expected}",
    "literal_error": "choose {expected}",
    "date_type": "enter a date such as 2026-12-25",
    "date_parsing": "enter a date such as 2026-12-25",
    "date_from_datetime_parsing": "enter a date such as 2026-12-25",
    "date_from_datetime_inexact": "enter a date such as 2026-12-25",
    "datetime_type": "enter a time",
    "datetime_parsing": "enter a time such as 2026-11-30 14:05",
    "datetime_from_date_parsing": "enter a time such as 2026-11-30 14:05",
}


def sentence(error: Mapping[str, Any], *, skip: int = 0) -> str:
    """`poll seconds: enter a whole number`. `skip` is how many parts of the location to leave out."""
    field = _field(error["loc"][skip:])
    return f"{field}: {_reason(error)}" if field else _reason(error)


def _field(location: Sequence[object]) -> str:
    """`peers 2` for the second entry."""
    return " ".join(str(part + 1) if isinstance(part, int) else str(part).replace("_", " ") for part in location)


def _reason(error: Mapping[str, Any]) -> str:
    words, context = _WORDS.get(error["type"]), error.get("ctx", {})
    if form := FORMS.get(context.get("pattern", "")):
        return f"this {form}".replace("`", "")
    if error["type"] == "too_short" and context.get("field_type") == "Value":
        words = _WORDS["string_too_short"]  # also of a text that is checked further
    if words is None or not {name for _, name, _, _ in Formatter().parse(words) if name} <= set(context):
        # Those of our own rules are plain already.
        return str(error["msg"]).removeprefix("Value error, ").replace("Input should", "this should")
    return words.format(**context).replace("'", "")
