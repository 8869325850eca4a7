r"""Reads the JSON that senders really send, and repairs what could not be decoded or stored otherwise.

What is repaired, and an example of each:

    a byte-order mark before the body           \xef\xbb\xbf{"alerts": …}
    control characters in strings               "two<newline>lines", which JSON requires to be escaped
    half a surrogate pair                       "\ud83d", half of an emoji that a template has cut
    bytes that are not UTF-8                    "caf\xe9", Latin-1
    NUL, which PostgreSQL cannot store          "\u0000"
    an alert nested too deeply to be decoded    [[[[…]]]]; only this alert is rejected

Texts that had to change are flagged `value_cleaned`. Syntax errors outside of strings are not repaired.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from app.base.errors import NotThisKind
from app.ingest.alerts import Flags, Message
from app.ingest.sender import Rejected, Unreadable

M = TypeVar("M", bound=Message)


def parse_envelope(body: bytes, decoder: msgspec.json.Decoder[M], *, expected: str) -> M | Rejected:
    """Decodes the body. If it is nested so deeply that no alert can be read, the whole body is rejected as `too_deep`.

    Raises NotThisKind if the body is not JSON or not of the decoder's shape; `expected` becomes the message.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise NotThisKind(expected) from None
    except (msgspec.DecodeError, RecursionError):
        repaired, taken_out = _shallow(_legal(body))
    try:
        message = decoder.decode(repaired)
    except msgspec.ValidationError:
        raise NotThisKind(expected) from None
    except msgspec.DecodeError:
        raise NotThisKind(f"The body is not valid JSON. {expected}") from None
    except RecursionError:
        return Rejected("too_deep", "the body is nested too deeply to be read")
    if taken_out and message.alerts:
        message.alerts = [msgspec.Raw(taken_out.get(bytes(raw), bytes(raw))) for raw in message.alerts]
    return message


def sanitize(raw: bytes) -> tuple[bytes, Flags]:
    """Makes JSON storable in PostgreSQL: valid UTF-8, no NUL in strings."""
    if _is_plain(raw):
        return raw, ()
    # A NUL is an escape by now, even if the sender wrote it as a byte (see `_legal`).
    cleaned = raw.decode(errors="replace").encode()
    if rb"\u0000" in raw:
        cleaned = _ESCAPE.sub(lambda escape: b"" if escape[0] == rb"\u0000" else escape[0], cleaned)
    return cleaned, () if cleaned == raw else ("value_cleaned",)


def text_in(raw: msgspec.Raw) -> str | None:
    """A JSON value as text: the value of a string, None for null, otherwise JSON as written (`1.10` stays `1.10`)."""
    json = bytes(raw)
    if json.startswith(b'"'):
        return _STRING_VALUE.decode(json)
    return None if json == b"null" else json.decode()


def labels_in(raw: msgspec.Raw) -> dict[str, str]:
    """A JSON object as labels, omitting null values. Raises Unreadable."""
    try:
        values = _OBJECT_OR_NULL.decode(raw) or {}
    except msgspec.ValidationError:
        raise Unreadable("bad_label", "the labels are not an object") from None
    if any(bytes(value).startswith((b"{", b"[")) for value in values.values()):
        raise Unreadable("bad_label", "the value of a label is an object or an array")
    return _texts(values)


def annotations_in(raw: msgspec.Raw) -> dict[str, str]:
    """A JSON object as annotations. Never rejects an alert: unexpected values are kept as JSON."""
    try:
        return _texts(_OBJECT_OR_NULL.decode(raw) or {})
    except msgspec.ValidationError:
        return {"annotations": bytes(raw).decode()}


_BACKSLASH = ord("\\")
_DEEP = 100
_ALERT_LEVEL = 3  # the body, its list, an alert
_STRING_VALUE = msgspec.json.Decoder(str)
_OBJECT_OR_NULL = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_STRUCTURE = re.compile(_STRING.pattern + rb"|[\[{]|[\]}]", re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SUSPECT = re.compile(
    rb"(?P<control>[\x00-\x1f])"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a complete pair is valid
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\.",  # any other escape, so that an escaped backslash never starts one
    re.DOTALL,
)


def _is_plain(json: bytes) -> bool:
    """Whether `sanitize` has nothing to repair in it."""
    return json.isascii() and (_BACKSLASH not in json or json.find(rb"\u0000") < 0)


def _texts(values: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    return {name: text for name, value in values.items() if (text := text_in(value)) is not None}


def _legal(body: bytes) -> bytes:
    """`body` with valid JSON strings; syntax errors outside of strings remain."""
    return _STRING.sub(lambda string: _SUSPECT.sub(_as_json, string[0]), body.removeprefix(b"\xef\xbb\xbf"))


def _as_json(suspect: re.Match[bytes]) -> bytes:
    if suspect["control"]:
        return rb"\u%04x" % suspect[0][0]
    # Half a surrogate pair becomes a byte that is never valid in UTF-8, which `sanitize` replaces and flags.
    return b"\xff" if suspect["half"] else suspect[0]


def _shallow(body: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Replaces alerts that are nested too deeply by placeholders; returns the body and the originals by placeholder."""
    pieces: list[bytes] = []
    taken_out: dict[bytes, bytes] = {}
    depth = deepest = start = kept_to = 0
    for token in _STRUCTURE.finditer(body):
        match token[0]:
            case b"{" | b"[":
                depth += 1
                if depth == _ALERT_LEVEL:
                    start, deepest = token.start(), depth
                deepest = max(depth, deepest)
            case b"}" | b"]":
                if depth == _ALERT_LEVEL and deepest > _DEEP:
                    stand_in = b'{"taken out": %d}' % len(taken_out)
                    pieces += body[kept_to:start], stand_in
                    kept_to = token.end()
                    taken_out[stand_in] = body[start:kept_to]
                depth -= 1
    return b"".join([*pieces, body[kept_to:]]), taken_out
