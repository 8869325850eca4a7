"""Measures whether every parser and normalizer takes time proportional to its input, whatever the input is.

Each shape makes a hostile body of any size; each step processes one. A step is linear for a shape if its time per byte
at 1 MB is at most three times that at 10 KB (it would be a hundred times if it grew with the square); text that people
write or paste is tried at a tenth of these sizes. Below 8 ns a byte, nothing counts as growth: that is 8 ms for 1 MB.
"""

import argparse
import copy
import gc
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from math import inf
from time import thread_time
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes
from uuid import UUID

from app.base.db.recordset import as_json
from app.base.errors import Problem
from app.base.http.responses.csv import spreadsheet_text, written
from app.base.text.markdown import escaped
from app.base.text.public_words import clean
from app.base.text.redaction import redact
from app.incidents.grouping.rule import Matcher, Operator, Rule, Rules, parse_matcher
from app.incidents.grouping.signal import fingerprint_of, pending
from app.ingest.intake import store
from app.ingest.reading.envelope import decode_request, encode_request
from app.ingest.replay import read_again
from app.ingest.sender import Endpoint, Reading, Receipt, Request, Sender
from app.ingest.senders import SENDERS
from app.response.chat import ChatFormat, text_of_html
from app.response.chat import read as read_chat
from app.reviews.report.facts import replacing
from app.reviews.wording import marks
from app.search.result import pieces, snippet
from app.serve import tune_garbage_collection

SIZES = (10_000, 100_000, 1_000_000)
TEXT_SIZES = (1_000, 10_000, 100_000)  # of what people write or paste: their texts are limited to less
RATIO_AT_MOST = 3.0
RECEIVED_AT = datetime(2026, 8, 20, 12, tzinfo=UTC)

Shape = Callable[[int], bytes]
Step = Callable[[bytes], object]


# — shapes —


def repeated(unit: bytes, *, before: bytes = b"", after: bytes = b"") -> Shape:
    """A body of copies of `unit`."""

    def shape(size: int) -> bytes:
        return before + unit * max(1, (size - len(before) - len(after)) // len(unit)) + after

    return shape


def numbered(unit: bytes, *, before: bytes = b"", between: bytes = b",", after: bytes = b"") -> Shape:
    """A body of units that differ in a number, which replaces `%d`."""

    def shape(size: int) -> bytes:
        units: list[bytes] = []
        left = size - len(before) - len(after)
        for number in count():
            unit_ = unit.replace(b"%d", b"%d" % number)
            left -= len(unit_) + len(between)
            if left < 0 and units:
                break
            units.append(unit_)
        return before + between.join(units) + after

    return shape


_ALERT = b'{"status":"firing","startsAt":"2026-08-20T10:00:00Z","labels":{"alertname":"A"'


def in_label(unit: bytes) -> Shape:
    """One long label."""
    return repeated(unit, before=b'{"alerts":[' + _ALERT + b',"service":"', after=b'"}}]}')


def in_each_label(unit: bytes) -> Shape:
    """Many alerts, with five labels of 4 KB each."""
    value = (unit * 4096)[:4095]
    labels = b"".join(b',"%s":"%s"' % (name, value) for name in (b"service", b"app", b"job", b"severity", b"level"))
    return numbered(_ALERT + labels + b',"n":"%d"}}', before=b'{"alerts":[', after=b"]}")


def in_annotation(unit: bytes) -> Shape:
    return repeated(unit, before=b'{"alerts":[' + _ALERT + b'},"annotations":{"summary":"', after=b'"}}]}')


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "unclosed string of escaped quotes": repeated(rb"\"", before=b'{"alerts":"'),
        "unclosed string of backslashes": repeated(b"\\", before=b'{"alerts":"', after=b"x"),
        "unclosed strings": repeated(b'"a\\"', before=b'{"alerts":['),
        "unclosed string": repeated(b"a", before=b'{"alerts":"'),
        "quotes": repeated(b'"'),
        "escaped quotes outside": repeated(rb"\""),
        "escaped quotes": in_annotation(rb"\""),
        "backslashes": in_annotation(rb"\\"),
        "backslashes and a NUL": in_annotation(rb"\\\u0000"),
        "escaped NULs": in_annotation(rb"\u0000"),
        "control characters": in_annotation(b"\x01"),
        "control characters and text": in_annotation(b"a\x01b\n"),
        "every control character": in_annotation(bytes(range(1, 32))),
        "raw NULs": in_annotation(b"\x00"),
        "line breaks": in_annotation(b"\n"),
        "line breaks in short strings": repeated(b'"\n":"\t",', before=b'{"alerts":[{"labels":{', after=b'"a":"b"}}]}'),
        "line breaks in short strings and escapes": numbered(
            b'"\n%d":"\\"\\\\\n"', before=b'{"alerts":[{"labels":{', after=b"}}]}"
        ),
        "halves of surrogate pairs": in_annotation(rb"\ud83d"),
        "second halves first": in_annotation(rb"\udc00\ud83d"),
        "surrogate pairs and a half": repeated(
            rb"\ud83d\ude80", before=b'{"alerts":[' + _ALERT + b'},"annotations":{"summary":"\\ud83d', after=b'"}}]}'
        ),
        "bytes that are not UTF-8": in_annotation(b"\xff\xc3"),
        "wide characters": in_annotation("🚀".encode()),
        "open brackets": repeated(b"["),
        "open brackets in the list": repeated(b"[", before=b'{"alerts":['),
        "open objects": repeated(b'{"a":', before=b'{"alerts":['),
        "objects in objects": repeated(b'{"alerts":[', before=b""),
        "brackets in a label": repeated(b"[]", before=b'{"alerts":[{"labels":{"a":[', after=b"]}}]}"),
        "deep annotation": lambda size: (
            b'{"alerts":[' + _ALERT + b'},"annotations":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}]}"
        ),
        "deep alerts": repeated(b"[" * 2000 + b"]" * 2000 + b",", before=b'{"alerts":[', after=b"0]}"),
        "deep alerts and control characters": repeated(
            b'{"a":"\n","b":' + b"[" * 2000 + b"]" * 2000 + b"},", before=b'{"alerts":[', after=b"0]}"
        ),
        "deep beside the alerts": lambda size: (
            b'{"x":' + b"[" * (size // 2) + b"]" * (size // 2) + b',"alerts":[' + _ALERT + b"}}]}"
        ),
        "braces": in_label(b"{}"),
        "braces in strings and a deep alert": repeated(
            b'{"a":"[[{{"},', before=b'{"alerts":[' + b"[" * 2000 + b"]" * 2000 + b",", after=b"0]}"
        ),
        "open placeholders": in_each_label(b"{{"),
        "open placeholders, split": in_each_label(b"{{}"),
        "open shell placeholders": in_each_label(b"${"),
        "placeholders": in_each_label(b"{{a}}"),
        "placeholder without an end": in_each_label(b"{A"),
        "no values": in_each_label(b"<no value"),
        "blanks": in_each_label(b" "),
        "matched by a regex": in_each_label(b"ab"),
        "one long placeholder": in_label(b"{{"),
        "many labels": numbered(b'"l%d":"v"', before=b'{"alerts":[{"labels":{', after=b'},"status":"firing"}]}'),
        "many long labels": numbered(
            b'"l%d' + b"n" * 1100 + b'":"' + b"v" * 4100 + b'"',
            before=b'{"alerts":[{"labels":{',
            after=b'},"status":"firing"}]}',
        ),
        "labels of many types": numbered(
            b'"l%d":%d.0', before=b'{"alerts":[{"labels":{', after=b'},"status":"firing"}]}'
        ),
        "one label again and again": repeated(
            b'"a":"b",', before=b'{"alerts":[{"labels":{', after=b'"a":"c"},"status":"firing"}]}'
        ),
        "many annotations": numbered(
            b'"a%d":[%d]', before=b'{"alerts":[' + _ALERT + b'},"annotations":{', after=b"}}]}"
        ),
        "annotations that are a list": repeated(
            b"{},", before=b'{"alerts":[' + _ALERT + b'},"annotations":[', after=b"0]}]}"
        ),
        "long annotations": numbered(
            _ALERT + b'},"annotations":{"summary":"' + b"\xc3\xa9" * 9000 + b'%d"}}', before=b'{"alerts":[', after=b"]}"
        ),
        "durations": in_annotation(b"9"),
        "reasons of Grafana": repeated(
            b"NoData, ",
            before=b'{"alerts":[' + _ALERT + b'},"annotations":{"grafana_state_reason":"',
            after=b'KeepLast"}}]}',
        ),
        "many alerts": numbered(_ALERT + b',"i":"%d"},"fingerprint":"%d"}', before=b'{"alerts":[', after=b"]}"),
        "many resolves": numbered(
            b'{"status":"resolved","labels":{"i":"%d"},"endsAt":"2026-08-20T11:00:00Z"}',
            before=b'{"alerts":[',
            after=b"]}",
        ),
        "empty alerts": repeated(b"{},", before=b'{"alerts":[', after=b"{}]}"),
        "numbers as alerts": repeated(b"0,", before=b'{"alerts":[', after=b"0]}"),
        "strings as alerts": repeated(b'"",', before=b'{"alerts":[', after=b"0]}"),
        "long digits": repeated(b"1", before=b'{"truncatedAlerts":', after=b',"alerts":[]}'),
        "long fraction": repeated(b"0", before=b'{"id":0.1', after=b'1,"service":"s","alerts":[]}'),
        "long exponent": repeated(b"9", before=b'{"id":1e', after=b',"service":"s","alerts":[]}'),
        "minus signs": repeated(b"-", before=b'{"alerts":'),
        "long time": repeated(
            b"0",
            before=b'{"alerts":[{"labels":{"a":"b"},"status":"firing","startsAt":"2026-08-20T10:00:00.',
            after=b'Z"}]}',
        ),
        "time of digits": repeated(b"1", before=b'{"id":"1","service":"s","started_at":', after=b"}"),
        "distinct times": numbered(
            b'{"labels":{"i":"%d"},"status":"firing","startsAt":"2026-08-20T10:00:00.%dZ"}',
            before=b'{"alerts":[',
            after=b"]}",
        ),
        "long fingerprint": repeated(
            b"f", before=b'{"alerts":[{"labels":{"a":"b"},"status":"firing","fingerprint":"', after=b'"}]}'
        ),
        "unknown keys": numbered(b'"k%d":%d', before=b"{", after=b',"alerts":[]}'),
        "one key again and again": repeated(b'"alerts":[],', before=b"{", after=b'"alerts":[]}'),
        "white space": repeated(b" \n\t", before=b'{"alerts":[', after=b"]}"),
        "white space and a control character": repeated(b" \n\t", before=b'{"alerts":["\n",', after=b"0]}"),
        "literals": repeated(b"nul"),
        "commits": numbered(b'{"sha":"%d"}', before=b'{"id":"1","service":"s","commits":[', after=b"]}"),
        "lists as commits": repeated(b"[],", before=b'{"id":"1","service":"s","commits":[', after=b"0]}"),
        "long id": repeated(b"/", before=b'{"service":"s","id":"', after=b'"}'),
        "long commit URL": repeated(
            b"/commit/0",
            before=b'{"object_kind":"deployment","status":"success","deployment_id":1,"project":{"name":"a"},"commit_url":"',
            after=b'"}',
        ),
        "payload in a payload": repeated(
            b"[",
            before=b'{"deployment_status":{"state":"success"},"deployment":{"id":1,"payload":"',
            after=b'"},"repository":{"name":"a"}}',
        ),
        "details": numbered(b'"d%d":"%d"', before=b'{"payload":{"source":"a","custom_details":{', after=b"}}}"),
        "legacy tags": numbered(
            b'"t%d":"{{"', before=b'{"ruleId":1,"state":"alerting","ruleName":"r","tags":{', after=b"}}"
        ),
        "legacy message": repeated(
            b'\\"\n', before=b'{"ruleId":1,"state":"alerting","ruleName":"r","message":"', after=b'"}'
        ),
    }
)


# Of text that people write or paste.
TEXT_SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        **{
            f"{unit.decode()!r}": repeated(unit)
            for unit in (
                b"a", b" ", b"a ", b"\n", b"-", b"a.", b"*[", b"1. ", b"|", b"\\", "\u202e".encode(), "é".encode(),
                b"<", b"<!--", b"-->", b"<a ", b"</a", b"<a<b>", b"<![CDATA[", b"<!a[", b"<?", b"<script>", b"&#9",
                b"&amp", b"&lt;", b"://", b"a://a:", b"https://a@", b"password", b'password="', b"password='a",
                b'token=\\"a', b"--token ", b"-u a:", b"mysql -p", b"-----BEGIN A-----", b"authorization: ",
                b"bearer  ", b"xoxb-", b"eyJ", b"eyJaaaaa-", b"eyJaaaaa.", b"eyJaaaaa.a-", b"should ", b"would have",
                b"if only the ", b"root ", b"the the ", b"it's ", b"why did ",
            )
        },
        "digits in a reference": repeated(b"9", before=b"&#", after=b";"),
        "spaces in a phrase": repeated(b" ", before=b"should", after=b"x"),
        "letters in a phrase": repeated(b"a", before=b"if the ", after=b"."),
        "different words": numbered(b"w%d", between=b" "),
        "different phrases": numbered(b"the same %d", between=b", "),
    }
)  # fmt: skip


# — shapes made of the example of a sender —

_UNITS = (b"a", rb"\"", rb"\\", rb"\ud83d", b"\x01", b"\xff", b"{{", b"9", b"k:v,", b"\n")


def shapes_of(example: Mapping[str, Any] | Sequence[Any]) -> Iterator[tuple[str, Shape]]:
    """A long text, many fields, and many nested lists in each of its places."""
    for number, place in enumerate(_places(example)):
        before, after = _around(example, place)
        name = "/".join(map(str, place))
        unit = _UNITS[number % len(_UNITS)]
        yield f"{name}: {unit!r}", repeated(unit, before=before + b'"', after=b'"' + after)
        yield f"{name}: fields", numbered(b'"k%d":"v%d"', before=before + b"{", after=b"}" + after)
        yield f"{name}: lists", repeated(b"[],", before=before + b"[", after=b"0]" + after)


def _places(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*at, key)
        yield from _places(one, (*at, key))


def _around(example: Mapping[str, Any] | Sequence[Any], place: Sequence[str | int]) -> tuple[bytes, bytes]:
    """The example as JSON, before and after what is at this place."""
    changed: Any = copy.deepcopy(dict(example) if isinstance(example, Mapping) else example)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = "\0"
    before, _, after = json.dumps(changed).partition(json.dumps("\0"))
    return before.encode(), after.encode()


# — steps —

_RULE_SET = (
    Rule(
        "matched",
        position=1,
        matchers=(Matcher("service", Operator.REGEX, "(a|b|ab)*c"), Matcher("job", Operator.NOT_REGEX, "(.*)*x")),
    ),
    Rule("last", position=2, ignored_labels=("alertname", "level")),
)
_FORM = {"content-type": "application/x-www-form-urlencoded"}


def read(kind: str, body: bytes) -> Reading:
    return read_again(kind, Request(body, RECEIVED_AT, kind))


def _reads(kind: str) -> Step:
    if isinstance(SENDERS[kind].example, list):  # its body is only the list of alerts
        return lambda body: read(kind, body.removeprefix(b'{"alerts":').removesuffix(b"}"))
    return lambda body: read(kind, body)


def _reads_a_form(body: bytes) -> object:
    sent = b"payload=" + quote_from_bytes(body[: len(body) // 3]).encode()
    return read_again("github", Request(sent, RECEIVED_AT, "github", _FORM))


def _decides(body: bytes) -> object:
    """What happens to signals between reading and the database."""
    rules = Rules(_RULE_SET)
    decided = []
    for signal in read("alertmanager", body).signals:
        decision = rules.decide(signal.labels, signal.alert_class)
        identity = fingerprint_of(decision.identity(signal.labels))
        decided.append((decision, identity, pending(signal.annotations), as_json(signal.labels)))
    return decided


def _records(body: bytes) -> object:
    """What is stored of a delivery, with what goes to quarantine."""
    request = Request(body, RECEIVED_AT, "prod")
    reading = read_again("alertmanager", request)
    return store.record([store.DeliveryRecord(UUID(int=0), 1, "prod", RECEIVED_AT, reading, request)])


def _spools_and_replays(body: bytes) -> object:
    return read_again(
        "grafana", decode_request(encode_request(Request(body, RECEIVED_AT, "g")), source="g", received_at=RECEIVED_AT)
    )


def _writes_csv(body: bytes) -> object:
    text = body.decode(errors="replace")
    rows = (text[start : start + 50] for start in range(0, len(text), 50))
    return written([map(spreadsheet_text, (text, *rows))])


def _parses_a_matcher(body: bytes) -> object:
    text = body.decode(errors="replace")
    for matcher in (text, f'"{text}', f"a={text}", f'a="{text}', f'a=~"{text}"'):
        with suppress(Problem):
            parse_matcher(matcher)
    return None


def _takes(sender: Sender, endpoint: Endpoint) -> Step:
    """What happens to a request of a sender whose request is one fact, until it is stored, and its answer."""

    def step(body: bytes) -> object:
        with suppress(Problem):
            if sender.credential.body is not None:
                _, body = sender.credential.body(body)
            request = Request(
                body,
                RECEIVED_AT,
                sender.kind,
                path={name: "x" for name in re.findall(r"{([a-z_]+)}", endpoint.path) if name != "token"},
                method=endpoint.methods[0],
                endpoint=endpoint.path,
            )
            if sender.verify is not None:
                sender.verify(request, secret="s", now=RECEIVED_AT)  # noqa: S106  of no one
            return sender.read(request), sender.answer(_NO_RECEIPT, request)
        return None

    return step


_NO_RECEIPT = Receipt(UUID(int=0), 0, {}, [])
_ISSUES: Mapping[str, Mapping[str, Any]] = {
    "github": {
        "action": "closed",
        "issue": {
            "html_url": "https://github.com/acme/web/issues/7",
            "state_reason": "completed",
            "closed_at": "2026-08-20T09:55:30Z",
        },
        "sender": {"login": "cathy"},
    },
    "gitlab": {
        "object_kind": "issue",
        "user": {"name": "Cathy Smith", "username": "cathy"},
        "object_attributes": {
            "url": "https://gitlab.example.org/acme/checkout/-/issues/23",
            "action": "close",
            "state": "closed",
            "closed_at": "2026-08-20 09:55:30 UTC",
            "updated_at": "2026-08-20 09:55:31 UTC",
        },
        "changes": {"state_id": {"previous": 1, "current": 2}},
    },
}


def _reads_an_issue(kind: str) -> Step:
    return lambda body: read_again(kind, Request(body, RECEIVED_AT, kind, {"x-github-event": "issues"}))


_CHATS: Mapping[ChatFormat, Mapping[str, Any]] = {
    ChatFormat.SLACK: {
        "users": [{"id": "U1", "name": "ada", "profile": {"display_name": "ada"}}],
        "messages": [{"type": "message", "user": "U1", "text": "<@U1> see <https://a.test|a>", "ts": "1787219730.1"}],
    },
    ChatFormat.MATTERMOST: {
        "order": ["a"],
        "posts": {"a": {"id": "a", "user_id": "u", "message": "m", "create_at": 1787219730000}},
    },
    ChatFormat.TEAMS: {
        "value": [
            {
                "id": "1",
                "createdDateTime": "2026-08-20T10:05:00Z",
                "from": {"user": {"displayName": "Ada"}},
                "body": {"contentType": "html", "content": "<p>m</p>"},
                "channelIdentity": {"channelId": "c"},
            }
        ]
    },
    ChatFormat.LINES: {"at": "2026-08-20T10:05:00Z", "by": "ada", "text": "m", "id": "1"},
}


def _reads_a_chat(format_: ChatFormat) -> Step:
    def step(body: bytes) -> object:
        with suppress(Problem):
            return read_chat(format_, body, room=None, now=RECEIVED_AT)
        return None

    return step


def _of_text(work: Callable[[str], object]) -> Step:
    return lambda body: work(body.decode(errors="replace"))


def _shows_what_was_found(text: str) -> object:
    words = [text[start : start + 20].strip().lower() or "a" for start in range(0, 200, 20)]
    return snippet(text, words), [*pieces(snippet(text, words), words)]


def _replaces_names(text: str) -> object:
    """Each different word and phrase of the text is a name."""
    names = {*text.split(" "), *text.split(", ")}
    return replacing({name: "a responder" for name in names if name and len(name) <= _LONGEST_NAME})(text)


_LONGEST_NAME = 200
TEXT_STEPS: Mapping[str, Step] = MappingProxyType(
    {
        "secrets in text": _of_text(redact),
        "text of HTML": _of_text(text_of_html),
        "advice on wording": _of_text(marks),
        "text as Markdown": _of_text(escaped),
        "public text": _of_text(clean),
        "text that was found": _of_text(_shows_what_was_found),
        "names in text": _of_text(_replaces_names),
    }
)
# Of the senders whose request is one fact, by the place at which they take it.
ENDPOINTS: Mapping[str, tuple[Sender, Endpoint]] = MappingProxyType(
    {
        f"{sender.kind} {endpoint.path}": (sender, endpoint)
        for sender in SENDERS.values()
        if "alerts" not in sender.example
        for endpoint in sender.endpoints
        if endpoint.look_up is None and not endpoint.path.startswith("/webhooks/")
    }
)

STEPS: Mapping[str, Step] = MappingProxyType(
    {kind: _reads(kind) for kind in SENDERS}
    | {name: _takes(sender, endpoint) for name, (sender, endpoint) in ENDPOINTS.items()}
    | {
        "github form": _reads_a_form,
        "rules": _decides,
        "record": _records,
        "spool and replay": _spools_and_replays,
        "csv": _writes_csv,
        "matcher": _parses_a_matcher,
    }
    | {f"issue of {kind}": _reads_an_issue(kind) for kind in _ISSUES}
    | {f"chat of {format_}": _reads_a_chat(format_) for format_ in _CHATS}
    | {**TEXT_STEPS}
)


def sizes(step: str) -> Sequence[int]:
    return TEXT_SIZES if step in TEXT_STEPS else SIZES


def shapes(step: str) -> Iterator[tuple[str, Shape]]:
    """What this step is tried with: bodies of alerts for all that reads bodies, and such as it usually gets."""
    if step in TEXT_STEPS:
        yield from TEXT_SHAPES.items()
        return
    is_own = step.startswith(("issue of ", "chat of "))
    yield from () if is_own else SHAPES.items()
    yield from own_shapes(step)


def own_shapes(step: str) -> Iterator[tuple[str, Shape]]:
    """Shapes of the bodies that this step usually gets."""
    kind = step.rpartition(" of ")[2]
    if step.startswith("issue of "):
        yield from shapes_of(_ISSUES[kind])
    elif step.startswith("chat of "):
        yield from shapes_of(_CHATS[ChatFormat(kind)])
    elif step in ENDPOINTS:
        sender, endpoint = ENDPOINTS[step]
        yield from shapes_of(endpoint.example or sender.example)
    elif step in SENDERS:
        yield from shapes_of(SENDERS[step].example)


# — measuring —


class Growth(NamedTuple):
    """Seconds of processor time by size, and how the time per byte grows from the smallest to the largest."""

    step: str
    shape: str
    seconds: Sequence[float]
    ratio: float


def growth(step: str, shape: str, make: Shape, *, sizes: Sequence[int] = SIZES, runs: int = 3) -> Growth:
    """Takes the best of several runs of each size. The sizes take turns, so that what else the machine does delays each
    of them. Short work is repeated until it can be measured.
    """
    bodies = [make(size) for size in sizes]
    seconds = [inf for _ in bodies]
    for _ in range(runs):
        seconds = [min(best, _once(STEPS[step], body)) for best, body in zip(seconds, bodies, strict=True)]
        if seconds[-1] > _GIVE_UP:
            break
    per_byte = [each / len(body) for each, body in zip(seconds, bodies, strict=True)]
    return Growth(step, shape, seconds, max(per_byte[-1], _FAST) / max(per_byte[0], _FAST))


def _once(step: Step, body: bytes) -> float:
    began, repeats = thread_time(), 0
    while not repeats or (thread_time() - began < _MEASURABLE and repeats < _REPEATS):
        step(body)
        repeats += 1
    return (thread_time() - began) / repeats


@contextmanager
def collecting_garbage_as_in_the_service() -> Iterator[None]:
    """By default, every 700 objects may make the collector run, and many objects make it scan all imported modules: a
    list of 1 MB would be blamed for that, as it never happens in the service.
    """
    before = gc.get_threshold()
    tune_garbage_collection()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


_FAST = 8e-9  # seconds per byte; below, the growth is that of the processor's caches
_MEASURABLE = 0.002  # seconds
_REPEATS = 100
_GIVE_UP = 2.0  # seconds; a single run suffices


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", action="append", choices=[*STEPS], help="only this step; may be repeated")
    parser.add_argument("--all", action="store_true", help="list every measurement, not only the worst")
    options = parser.parse_args(arguments)
    found: list[Growth] = []
    with collecting_garbage_as_in_the_service():
        for step in options.step or STEPS:
            for shape, make in shapes(step):
                found.append(growth(step, shape, make, sizes=sizes(step)))
    found.sort(key=lambda each: -each.ratio)
    for each in found if options.all else found[:20]:
        milliseconds = "  ".join(f"{second * 1000:10.2f}" for second in each.seconds)
        sys.stdout.write(f"{each.ratio:6.2f}  {milliseconds}  {each.step}: {each.shape}\n")
    slowest = max(found, key=lambda each: each.seconds[-1])
    sys.stdout.write(
        f"{len(found)} measurements; slowest at the largest size: {slowest.step}: {slowest.shape}, "
        f"{slowest.seconds[-1] * 1000:.0f} ms\n"
    )
    return int(found[0].ratio > RATIO_AT_MOST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
