"""Senders whose request is one fact: their fixtures, which are whole requests, and damaged ones.

A fixture is a pair: `<case>.json`, a request as it was recorded (method, path, headers, body), and
`<case>.facts.json`, what it must give at RECEIVED_AT (or when it says): the facts (omitted fields have their defaults),
why it is ignored, rejected or refused, and the answer of an imitated API.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.base.errors import TooLarge, UnrecognizedBody
from app.base.values.facts import Change, IssueEvent, IssueState, Reaction, Report
from app.incidents.grouping.signal import Signal, Status
from app.ingest.endpoints.webhook import Route, WebhookApp
from app.ingest.reading.alerts import ANNOTATION_BYTES, LABEL_BYTES, LABELS_AT_MOST
from app.ingest.reading.values import LINK_AT_MOST
from app.ingest.sender import Reading, Receipt, Refusal, Request, Sender, SpoolReceipt
from app.ingest.senders import SENDERS
from app.reviews.action_item import normalized_link
from tests.ingest.test_senders import ALERT_KINDS, DEPLOYMENT_KINDS, FIXTURES, LIST_KINDS

RECEIVED_AT = datetime(2026, 8, 20, 12, tzinfo=UTC)
NO_RECEIPT = Receipt(UUID(int=0), 0, {}, [])
SPOOLED = SpoolReceipt(UUID(int=0), 0)
KINDS = sorted(set(SENDERS) - {*ALERT_KINDS, *DEPLOYMENT_KINDS, *LIST_KINDS})
CASES = sorted(
    path for kind in KINDS for path in (FIXTURES / kind).glob("*.json") if not path.name.endswith(".facts.json")
)


class ExpectedRejected(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


class ExpectedAnswer(msgspec.Struct, forbid_unknown_fields=True):
    status: int
    body: Any


class Expected(msgspec.Struct, forbid_unknown_fields=True):
    signals: tuple[dict[str, Any], ...] = ()
    reactions: tuple[dict[str, Any], ...] = ()
    deployments: tuple[dict[str, Any], ...] = ()
    changes: tuple[dict[str, Any], ...] = ()
    issues: tuple[dict[str, Any], ...] = ()
    rejected: tuple[ExpectedRejected, ...] = ()
    ignored: str | None = None
    refused: str | None = None
    answer: ExpectedAnswer | None = None
    received_at: datetime = RECEIVED_AT


class Arrived(NamedTuple):
    """A request as its sender gets it: without the token."""

    route: Route
    request: Request

    @property
    def sender(self) -> Sender:
        return self.route.sender


def arrived(path: Path, body: bytes | None = None) -> Arrived:
    """The request of a fixture as `WebhookApp` would pass it on. `body` replaces that of the request."""
    kind, sent = path.parent.name, sent_in(path)
    sender = SENDERS[kind]
    target, _, query = sent["path"].partition("?")
    scope = {"type": "http", "method": sent["method"], "path": unquote(target), "raw_path": target.encode()}
    found = WebhookApp(_nothing, [sender])._match(scope)
    assert found is not None, f"no endpoint of {kind} takes {sent['method']} {target}"
    route, parameters = found
    if body is None:
        body = sent["body"].encode() if isinstance(sent["body"], str) else json.dumps(sent["body"]).encode()
    if sender.credential.body is not None:
        _, body = sender.credential.body(body)
    request = Request(
        body,
        expected_of(path).received_at,
        kind,
        {name.lower(): value for name, value in sent.get("headers", {}).items()},
        {name: value for name, value in parse_qsl(query) if name not in sender.credential.query},
        {name: value for name, value in parameters.items() if name != "token"},
        sent["method"],
        route.path,
    )
    return Arrived(route, request)


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


def read(path: Path) -> Reading:
    one = arrived(path)
    return one.sender.read(one.request)


def case_id(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def sent_in(path: Path) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(path.read_text())
    return sent


def expected_of(path: Path) -> Expected:
    return msgspec.json.decode(path.with_suffix(".facts.json").read_bytes(), type=Expected)


@pytest.mark.parametrize("path", CASES, ids=case_id)
def test_a_request_gives_exactly_its_facts_and_its_answer(path: Path) -> None:
    expected = expected_of(path)
    if expected.refused is not None:
        with pytest.raises(UnrecognizedBody) as refusal:
            read(path)
        assert refusal.value.detail == expected.refused
        if expected.answer is not None:
            refuse = SENDERS[path.parent.name].refuse
            assert refuse is not None
            answer = refuse(Refusal(400, "", refusal.value.detail))
            assert (answer.status, json.loads(answer.body)) == (expected.answer.status, expected.answer.body)
        return
    one = arrived(path)
    if one.route.look_up is None:
        reading = one.sender.read(one.request)
        assert reading.signals == tuple(msgspec.convert(fields, Signal) for fields in expected.signals)
        assert reading.reactions == tuple(msgspec.convert(fields, Reaction) for fields in expected.reactions)
        assert reading.deployments == tuple(msgspec.convert(fields, Report) for fields in expected.deployments)
        assert reading.changes == tuple(msgspec.convert(fields, Change) for fields in expected.changes)
        assert reading.issues == tuple(msgspec.convert(fields, IssueEvent) for fields in expected.issues)
        assert [one.reason for one in reading.rejected] == [one.reason for one in expected.rejected]
        assert reading.ignored == expected.ignored
    if expected.answer is not None:
        for outcome in (NO_RECEIPT, SPOOLED):  # the same while the database is down
            answer = (
                one.route.look_up.answer(None, one.request)
                if one.route.look_up
                else one.sender.answer(outcome, one.request)
            )
            assert (answer.status, json.loads(answer.body)) == (expected.answer.status, expected.answer.body)


def test_every_fixture_has_its_pair_and_every_kind_its_fixtures() -> None:
    for path in (path for kind in KINDS for path in (FIXTURES / kind).iterdir()):
        sent = path.with_name(path.name.replace(".facts.json", ".json"))
        assert sent.exists(), path
        assert sent.with_suffix(".facts.json").exists(), path
    assert {path.parent.name for path in CASES} == set(KINDS)


def test_a_fact_in_a_fixture_has_no_misspelt_field() -> None:
    fields = {
        "signals": set(Signal.__struct_fields__),
        "reactions": set(Reaction.__slots__),
        "deployments": set(Report.__slots__),
        "changes": set(Change.__slots__),
        "issues": set(IssueEvent.__slots__),
    }
    for path in CASES:
        for name, known in fields.items():
            for fact in getattr(expected_of(path), name):
                assert set(fact) <= known, path


@pytest.mark.parametrize("path", CASES, ids=case_id)
def test_no_key_of_a_recorded_request_is_stored(path: Path) -> None:
    """The keys of the recordings begin alike."""
    if expected_of(path).refused is None:
        request = arrived(path).request
        for key in ("0123456789abcdef0123456789abcdef", "aaaaaaaa-bbbb-cccc-dddd"):
            assert key.encode() not in request.body
            assert key not in str((request.query, request.path))


# — damaged requests —

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\x00\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)


def reads_or_refuses(path: Path, body: bytes) -> Reading | None:
    """The guarantees of every sender for any bytes, and the requirements of PostgreSQL for any text."""
    try:
        one = arrived(path, body)
        reading = one.sender.read(one.request)
    except (UnrecognizedBody, TooLarge):
        return None
    answer = one.sender.answer(NO_RECEIPT, one.request)
    assert 200 <= answer.status < 300
    assert isinstance(json.loads(answer.body), dict)
    for signal in reading.signals:
        assert (signal.ended_at is None) == (signal.end_reason is None) == (signal.status is Status.FIRING)
        for time in (signal.started_at, signal.ended_at, signal.happened_at):
            assert time is None or time.tzinfo is UTC
        assert signal.fingerprint
        assert len(signal.labels) <= LABELS_AT_MOST
        assert all(signal.labels.values())
        assert all(len(value.encode()) <= LABEL_BYTES for value in signal.labels.values())
        assert all(len(value.encode()) <= ANNOTATION_BYTES for value in signal.annotations.values())
        for texts in (signal.labels, signal.annotations):
            require_storable(*texts.keys(), *texts.values())
        require_storable(signal.fingerprint, signal.link, signal.correlation)
    for reaction in reading.reactions:
        assert reaction.fingerprint or reaction.correlation
        assert reaction.at.tzinfo is UTC
        require_storable(
            *(one or "" for one in (reaction.fingerprint, reaction.correlation, reaction.by, reaction.note))
        )
    require_usable(reading.issues)
    return reading


def require_usable(issues: Sequence[IssueEvent]) -> None:
    """The link is one that an action item may have, and everything can be stored."""
    for issue in issues:
        assert re.fullmatch(r"https?://[!-~]+", issue.link)
        assert len(issue.link) <= LINK_AT_MOST
        assert normalized_link(normalized_link(issue.link)) == normalized_link(issue.link)
        assert issue.at.tzinfo is UTC
        assert issue.since is None or issue.since <= issue.at
        assert issue.reason is None or issue.state is IssueState.DROPPED
        require_storable(issue.by or "", issue.reason or "")


def require_storable(*texts: str) -> None:
    for text in texts:
        assert "\x00" not in text
        text.encode()


cases = st.sampled_from(CASES)


@given(cases, st.binary() | st.text().map(str.encode) | json_values.map(json.dumps).map(str.encode))
def test_any_bytes_are_read_or_refused(path: Path, body: bytes) -> None:
    reads_or_refuses(path, body)


def places_in(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, one in inner for place in places_in(one, (*at, key)))]


def with_value(body: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    changed = dict(body) if isinstance(body, dict) else list(body)
    changed[at[0]] = with_value(body[at[0]], at[1:], value)
    return changed


@settings(max_examples=500)
@given(cases, json_values, st.data())
def test_any_value_in_any_place_is_read_or_refused(path: Path, value: Any, data: st.DataObject) -> None:
    body = sent_in(path)["body"]
    if isinstance(body, dict):
        at = data.draw(st.sampled_from(places_in(body)))
        reads_or_refuses(path, json.dumps(with_value(body, at, value)).encode())


@given(cases, st.data())
def test_no_damage_to_a_real_body_raises(path: Path, data: st.DataObject) -> None:
    body = json.dumps(sent_in(path)["body"]).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 20)))
        filling = data.draw(
            st.binary(max_size=6)
            | st.sampled_from([b'"', b"\\ud800", b"\\u0000", b"[" * 2000, b"null", b"NaN", b"9" * 5000])
        )
        body = body[:start] + filling + body[end:]
    reads_or_refuses(path, body)
