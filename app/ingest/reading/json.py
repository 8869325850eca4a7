r"""Reads the JSON that senders really send, and repairs what could not be decoded or stored otherwise.

What is repaired, and an example of each:

    a byte-order mark before the body           \xef\xbb\xbf{"alerts": …}
    control characters in strings               "two<newline>lines", which JSON requires to be escaped
    half a surrogate pair                       "\ud83d", half of an emoji that a template has cut
    bytes that are not UTF-8                    "caf\xe9", Latin-1
    NUL, which PostgreSQL cannot store          "\u0000"
    numbers that JSON does not have             NaN, -Infinity; they become null
    an alert nested too deeply to be decoded    [[[[…]]]]; only this alert is rejected

Texts that had to change are flagged `value_cleaned`. Other syntax errors outside of strings are not repaired.

Anyone with a token can send 10 MB of anything, so time and memory are proportional to the size of the body, and nothing
in Python runs once for each of its characters: bytes are replaced in bulk. `bench/adversarial.py` measures it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.base.errors import UnrecognizedBody
from app.ingest.reading.alerts import ALERTS_AT_MOST, Flags, Message
from app.ingest.sender import Rejected, Unreadable

M = TypeVar("M", bound=Message)
M_co = TypeVar("M_co", bound=Message, covariant=True)


class Decoder(Protocol[M_co]):
    """Such as `msgspec.json.Decoder`, with its errors."""

    def decode(self, body: bytes, /) -> M_co: ...


def parse_envelope(body: bytes, decoder: Decoder[M], *, expected: str, alert_level: int = 3) -> M | Rejected:
    """Decodes the body. The whole body is rejected as `too_deep` if it is nested so deeply that no alert can be read,
    and as `too_many_alerts` if it has ten times as many alerts as would be read.

    `alert_level`: how deeply an alert is nested; 3 in a list in the object that is the body. Raises UnrecognizedBody if
    the body is not JSON or not of the decoder's shape; `expected` becomes the message.
    """
    if has_more_values(body, than=_COUNTED, depth=alert_level - 1):
        return Rejected("too_many_alerts", f"the body has more than {_COUNTED} alerts")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise UnrecognizedBody(expected) from None
    except (msgspec.DecodeError, RecursionError):
        legal = _legal(body)
    try:
        try:
            return decoder.decode(legal)
        except RecursionError:
            return _decode_without_deep_alerts(legal, decoder, alert_level)
    except msgspec.ValidationError:
        raise UnrecognizedBody(expected) from None
    except msgspec.DecodeError:
        raise UnrecognizedBody(f"The body is not valid JSON. {expected}") from None
    except RecursionError:
        return Rejected("too_deep", "the body is nested too deeply to be read")


def has_more_values(body: bytes, *, than: int, depth: int) -> bool:
    """Whether the objects and arrays at this depth (1 is the outermost) have more values together.

    Finds out without decoding, because millions of small values take much more memory than the body.
    """
    if body.count(b",") < than:
        return False
    commas = 0
    for piece in _structure(body, ord(",")):
        commas += int(np.count_nonzero(piece.found & (piece.depths == depth)))
        if commas >= than:
            return True
    return False


def sanitize(raw: bytes) -> tuple[bytes, Flags]:
    """Makes JSON storable in PostgreSQL: valid UTF-8, no NUL in strings."""
    if _is_plain(raw):
        return raw, ()
    # A NUL is an escape by now, even if the sender wrote it as a byte (see `_legal`).
    cleaned = raw.decode(errors="replace").encode()
    if rb"\u0000" in raw:
        cleaned = cleaned.replace(rb"\\", _ESCAPED_BACKSLASH).replace(rb"\u0000", b"")
        cleaned = cleaned.replace(_ESCAPED_BACKSLASH, rb"\\")
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
_COUNTED = 10 * ALERTS_AT_MOST
_STRING_VALUE = msgspec.json.Decoder(str)
_OBJECT_OR_NULL = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


def _is_plain(json: bytes) -> bool:
    """Whether `sanitize` has nothing to repair in it."""
    return json.isascii() and (_BACKSLASH not in json or json.find(rb"\u0000") < 0)


def _texts(values: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    return {name: text for name, value in values.items() if (text := text_in(value)) is not None}


# — repairing strings —

# Bytes that UTF-8 never uses. Those in a body all become the last one, so that the others can stand for escapes.
_ESCAPED_BACKSLASH, _ESCAPED_QUOTE, _BROKEN = b"\xfd", b"\xfe", b"\xff"
_NEVER_IN_UTF8 = bytes(_BROKEN[0] if byte in {0xC0, 0xC1, *range(0xF5, 0x100)} else byte for byte in range(256))
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# Begins with text that is the same in both alternatives, because the search for fixed text is fast.
_HALF_OF_PAIR = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!%b)|[c-fC-F][0-9a-fA-F]{2}(?<!%b%b))" % (_LOW, _HIGH, _LOW)
)
_BLANKS = {b"\t": rb"\t", b"\n": rb"\n", b"\r": rb"\r"}  # control characters that are valid outside of strings
_CONTROLS = {bytes([code]): rb"\u%04x" % code for code in range(0x20) if bytes([code]) not in _BLANKS}
_NO_NUMBER = re.compile(rb"-?(?:NaN|Infinity)")
_CONTROLS_AT_MOST = 0.1  # share of the body; with more it is not text, and would become six times as large
_FEW = 1000
_PIECE = 64 * 1024  # bytes whose strings are separate objects for a moment


def _legal(body: bytes) -> bytes:
    """`body` with valid JSON strings, and null for NaN and infinity; other syntax errors outside of strings remain."""
    legal = body.removeprefix(b"\xef\xbb\xbf").translate(_NEVER_IN_UTF8)
    # Left to right, so a backslash that is escaped itself escapes nothing.
    legal = legal.replace(rb"\\", _ESCAPED_BACKSLASH).replace(rb"\"", _ESCAPED_QUOTE)
    legal = _HALF_OF_PAIR.sub(_BROKEN, legal)  # `sanitize` replaces and flags it
    controls = len(legal) - len(legal.translate(None, b"".join(_CONTROLS)))
    if controls <= _CONTROLS_AT_MOST * len(legal) + _FEW:
        for control, escape in _CONTROLS.items():
            legal = legal.replace(control, escape)
    if any(wanted in legal for wanted in (*_BLANKS, b"NaN", b"Infinity")):
        legal = b"".join(_repaired_pieces(legal))
    return legal.replace(_ESCAPED_QUOTE, rb"\"").replace(_ESCAPED_BACKSLASH, rb"\\")


def _repaired_pieces(body: bytes) -> Iterator[bytes]:
    """`body`, piece by piece, with blanks in strings escaped and null for numbers that JSON does not have. Each of its
    quotes begins or ends a string.
    """
    within = 0  # 1 if the piece begins within a string
    start = 0
    while start < len(body):
        comma = body.rfind(b",", start, start + _PIECE)  # so that no number is split
        end = comma + 1 if comma >= 0 else start + _PIECE
        parts = body[start:end].split(b'"')
        if strings := parts[1 - within :: 2]:
            escaped = b'"'.join(strings)
            for blank, escape in _BLANKS.items():
                escaped = escaped.replace(blank, escape)
            parts[1 - within :: 2] = escaped.split(b'"')
        if others := parts[within::2]:
            parts[within::2] = _NO_NUMBER.sub(b"null", b'"'.join(others)).split(b'"')
        within = (within + len(parts) - 1) % 2
        start = end
        yield b'"'.join(parts)


# — taking out what is nested too deeply —

_STEPS = np.zeros(256, np.int8)
_STEPS[[*b"{["]], _STEPS[[*b"}]"]] = 1, -1


def _decode_without_deep_alerts(body: bytes, decoder: Decoder[M], alert_level: int) -> M:
    """Decodes a body without the alerts that are nested too deeply, which are put back undecoded. `body` is legal."""
    pieces: list[bytes] = []
    taken_out: dict[bytes, bytes] = {}
    kept_to = 0
    for start, end in _deep_values(body, alert_level):
        stand_in = b'{"taken out": %d}' % len(taken_out)
        taken_out[stand_in] = body[start:end]
        pieces += body[kept_to:start], stand_in
        kept_to = end
    message = decoder.decode(b"".join([*pieces, body[kept_to:]]))
    for position, alert in enumerate(message.alerts or ()):
        if original := taken_out.get(bytes(alert)):
            assert message.alerts is not None
            message.alerts[position] = msgspec.Raw(original)
    return message


def _deep_values(body: bytes, level: int = 3) -> Iterator[tuple[int, int]]:
    """Start and end of each object or array at this level that is nested too deeply."""
    begun = 0  # start of the latest value
    is_deep = False  # whether it is nested too deeply and has not ended yet
    for offset, _, steps, depths in _structure(body):
        begins = np.flatnonzero((steps == 1) & (depths == level))
        ends = np.flatnonzero((steps == -1) & (depths == level - 1))
        too_deep = np.flatnonzero((steps == 1) & (depths == _DEEP + 1))
        values = {int(value) for value in np.searchsorted(begins, too_deep) - 1}  # -1: one from an earlier piece
        for value in sorted({-1, *values} if is_deep else values):
            start = begun if value < 0 else offset + int(begins[value])
            end = int(np.searchsorted(ends, start - offset))
            is_deep = end == len(ends)
            if is_deep:
                begun = start
            else:
                yield start, offset + int(ends[end]) + 1
        if len(begins) and not is_deep:
            begun = offset + int(begins[-1])


class _Piece(NamedTuple):
    """A stretch of a body. For each byte: whether it is the one looked for, outside of strings; whether it opens (1) or
    closes (-1) an object or array; and how many are open then.
    """

    offset: int
    found: NDArray[np.bool_]
    steps: NDArray[np.int8]
    depths: NDArray[np.int64]


def _structure(body: bytes, wanted: int = 0) -> Iterator[_Piece]:
    """Piece by piece. `body` need not be valid JSON; then the result only has the right size."""
    # Of the same length, so that positions stay.
    plain = body.replace(rb"\\", b"  ").replace(rb"\"", b"  ")
    within = depth = 0
    for offset in range(0, len(plain), _PIECE):
        piece = np.frombuffer(plain, np.uint8, min(_PIECE, len(plain) - offset), offset)
        outside = (within + np.cumsum(piece == ord('"'))) % 2 == 0
        steps = np.where(outside, _STEPS[piece], np.int8(0))
        depths = depth + np.cumsum(steps, dtype=np.int64)
        within, depth = int(not outside[-1]), int(depths[-1])
        yield _Piece(offset, outside & (piece == wanted), steps, depths)
