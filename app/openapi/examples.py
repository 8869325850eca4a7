"""Examples of responses, composed from their schemas: each property has the example of its model or of its name."""

from collections.abc import Mapping
from typing import Any

_ID = "018f3c5e-7d2a-7c11-9a53-3f0c2b7d9e41"
_NUMBERS = ["INC-42"]

# What a property of this name contains, wherever its schema permits it. Together they are one story: a Saturday
# morning on which checkout failed.
_BY_NAME: Mapping[str, tuple[Any, ...]] = {
    "service": ("checkout",),
    "services": (["checkout"],),
    "environment": ("production",),
    "source": ("prometheus-eu",),
    "sources": (["prometheus-eu"],),
    "name": ("checkout",),
    "title": ("Checkout fails for some customers",),
    "owner": ("payments",),
    "by": ("ada",),
    "author": ("ada",),
    "person": ("ada",),
    "people": (["ada", "grace"],),
    "facilitator": ("grace",),
    "role": ("incident_commander",),
    "roles": (["incident_commander"],),
    "email": ("ada@example.org",),
    "note": ("Rolled back to 1.41",),
    "text": ("The connection pool was too small for the campaign",),
    "summary": ("Checkout failed for 40 minutes after a deployment",),
    "reason": (None, "Planned upgrade"),
    "detail": ("no incident has this id or number; GET /api/v1/incidents lists all incidents",),
    "key": ('environment="production", service="checkout"',),
    "labels": ({"alertname": "HighErrorRate", "service": "checkout"}, ["service"]),
    "annotations": ({"summary": "5 % of requests fail"},),
    "fingerprint": ("251096a51337be7d",),
    "link": ("https://example.org/checkout/1742",),
    "links": (["/api/v1/incidents?service=checkout"],),
    "url": ("https://alertmanager.example.org",),
    "id": (_ID, 1742),
    "number": ("INC-42",),
    "incident": ("INC-42",),
    "incidents": (_NUMBERS, 12),
    "merged_into": (None,),
    "version": ("1.42.0", 3),
    "sha": ("6113728f27ae82c7b1a177c8d03f9e96e0adf246",),
    "zone": ("Europe/Berlin",),
    "currency": ("EUR",),
    "low": ("125.00", 1500.0),
    "expected": ("250.00",),
    "high": ("500.00", 3300.0),
    "severity": ("sev2",),
    "definition": ("time_to_recover",),
    "formula": ("median of resolved_at − detected_at",),
    "end_reason": ("recovered",),
    "excluded": ({"not_acknowledged": 2},),
    "values": (None,),
    "n": (12,),
    "k": (3,),
    "zeros": (0,),
    "pending": (1,),
    "censored": (0,),
    "invalid": (0,),
    "reopened": (0,),
    "median": (2280.0,),
    "mean": (2520.0,),
    "p90": (3900.0,),
    "p95": (None,),
    "share": (0.25, "0.25"),
    "next_cursor": (None,),
    "instance": (None,),
    "errors": (None,),
    "from": ("2026-11-01T00:00:00Z", 1024.0),
    "to": ("2026-12-01T00:00:00Z", 2048.0),
    "impact_started_at": ("2026-11-28T09:02:00Z",),
    "detected_at": ("2026-11-28T09:05:00Z",),
    "declared_at": ("2026-11-28T09:08:00Z",),
    "acknowledged_at": ("2026-11-28T09:09:00Z",),
    "identified_at": ("2026-11-28T09:24:00Z",),
    "mitigated_at": ("2026-11-28T09:38:00Z",),
    "first_resolved_at": ("2026-11-28T09:43:00Z",),
    "resolved_at": ("2026-11-28T09:43:00Z",),
    "ended_at": ("2026-11-28T09:43:00Z",),
    "ends_at": ("2026-11-28T09:43:00Z",),
    "reviewed_at": ("2026-11-30T13:00:00Z",),
    "ready_at": ("2026-11-30T16:00:00Z",),
}

# The name that an entry of an object has whose names are data.
_KEYS = {
    "measures": "time_to_recover",
    "business_hours": "time_to_recover",
    "definitions": "incidents",
    "verdicts": "opened",
    "severities": "critical",
    "components": "Payments",
    "responders": "sev1",
}
_KEY = "EUR"  # of money, which most of these objects are

_BY_FORMAT = {
    "date-time": "2026-11-28T09:05:00Z",
    "date": "2026-11-28",
    "uuid": _ID,
    "uri": "https://example.org/checkout",
}
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    """A value with this schema; `schemas` are those that it may refer to."""
    return _example(schema, "", schemas, ())


def _example(  # noqa: PLR0911  one for each kind of schema
    schema: Mapping[str, Any], name: str, schemas: Mapping[str, Any], inside: tuple[str, ...]
) -> Any:
    """`name` is that of the property, `inside` are the schemas around it."""
    if "examples" in schema or "example" in schema:
        return schema["examples"][0] if "examples" in schema else schema["example"]
    if "const" in schema:
        return schema["const"]
    if "$ref" in schema:
        referred = schema["$ref"].rpartition("/")[2]
        return _example(schemas[referred], name, schemas, (*inside, referred))
    if "enum" in schema:
        usual = [value for value in _BY_NAME.get(name, ()) if value in schema["enum"]]
        return (usual or schema["enum"])[0]
    choices = [each for key in ("anyOf", "oneOf") for each in schema.get(key, ())]
    if any(value is None for value in _BY_NAME.get(name, ())) and {"type": "null"} in choices:
        return None
    if choices:
        choices.sort(key=lambda each: each.get("type") == "null")  # null only if there is nothing else
        return _example(choices[0], name, schemas, inside)
    kind = schema.get("type", "object")
    for value in _BY_NAME.get(name, ()):
        if value is not None and _fits(value, schema, kind):
            return value
    return _by_type(kind, schema, name, schemas, inside)


def _fits(value: Any, schema: Mapping[str, Any], kind: str) -> bool:
    if isinstance(value, bool) != (kind == "boolean") or not isinstance(value, _TYPES[kind]):
        return False
    if isinstance(value, dict):  # of plain text, not of models
        inner = schema.get("additionalProperties", {})
        return "properties" not in schema and isinstance(inner, Mapping) and _all_fit(value.values(), inner)
    if isinstance(value, list):
        return _all_fit(value, schema.get("items", {}))
    return schema.get("format") in {None, "date-time"} or value == _BY_FORMAT.get(schema["format"])


def _all_fit(values: Any, schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind in {"string", "integer"} and all(_fits(value, schema, str(kind)) for value in values)


def _by_type(  # noqa: PLR0911  one for each type
    kind: str, schema: Mapping[str, Any], name: str, schemas: Mapping[str, Any], inside: tuple[str, ...]
) -> Any:
    match kind:
        case "object":
            found = {each: _example(one, each, schemas, inside) for each, one in schema.get("properties", {}).items()}
            if not found and isinstance(inner := schema.get("additionalProperties"), Mapping) and inner:
                names = inner_names(schema, schemas)
                found[names[0] if names else _KEYS.get(name, _KEY)] = _example(inner, "", schemas, inside)
            return found
        case "array":
            item = schema.get("items", {})
            if item.get("$ref", "").rpartition("/")[2] in inside:
                return []  # contains itself
            return [_example(item, name.removesuffix("s"), schemas, inside)]
        case "string":
            return _BY_FORMAT.get(schema.get("format", ""), "checkout")
        case "integer":
            return max(schema.get("minimum", 0), 3)
        case "number":
            return 1800.0 if "seconds" in name else 0.25
        case "boolean":
            return bool(schema.get("default", False))
    return None


def inner_names(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[str]:
    """The names that an object's entries may have, if its schema lists them."""
    names = schema.get("propertyNames", {})
    if "$ref" in names:
        names = schemas[names["$ref"].rpartition("/")[2]]
    return [*names.get("enum", ())]
