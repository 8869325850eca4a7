"""Senders whose body is a list of alerts: their fixtures, and hostile bodies.

A fixture is a pair: `<case>.json`, a body, and `<case>.signals.json`, its expected reading at RECEIVED_AT: the signals
(omitted fields have their defaults), the rejected alerts by their place in the body, or the message of the refusal.
Bodies that are huge or broken byte by byte are built here.
"""

import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from app.base.errors import TooLarge, UnrecognizedBody
from app.incidents.grouping.signal import Signal, Status, fingerprint_of, pending
from app.ingest.reading import json as reader
from app.ingest.reading.alerts import ALERTS_AT_MOST, ANNOTATION_BYTES, LABEL_BYTES, LABELS_AT_MOST, NAME_BYTES
from app.ingest.sender import Part, Reading, Request
from app.ingest.senders import SENDERS, grafana
from tests.processes import REPOSITORY

RECEIVED_AT = datetime(2026, 8, 20, 12, tzinfo=UTC)
FIXTURES = REPOSITORY / "tests" / "fixtures"
# All other kinds are tested in test_sender_requests.py.
DEPLOYMENT_KINDS = ("deployments", "github", "gitlab")
ALERT_KINDS = ("alertmanager", "grafana")
LIST_KINDS = ("alertmanager-api",)  # whose body is a list of alerts; their hostile bodies have a file of their own
CASES = sorted(
    path
    for kind in (*ALERT_KINDS, *LIST_KINDS)
    for path in (FIXTURES / kind).glob("*.json")
    if not path.name.endswith(".signals.json")
)
BODIES = [path.read_bytes() for path in CASES if path.parent.name in ALERT_KINDS]


class ExpectedRejected(msgspec.Struct, forbid_unknown_fields=True):
    alert: int | None  # its place in the body; None: the whole body
    reason: str


class Expected(msgspec.Struct, forbid_unknown_fields=True):
    signals: tuple[dict[str, Any], ...] = ()
    rejected: tuple[ExpectedRejected, ...] = ()
    truncated: int = 0
    refused: str | None = None
    received_at: datetime = RECEIVED_AT


def read(kind: str, body: bytes, part: Part | None = None, *, received_at: datetime = RECEIVED_AT) -> Reading:
    return SENDERS[kind].read(Request(body, received_at, kind, part=part))


def case_id(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", CASES, ids=case_id)
def test_a_body_gives_exactly_its_signals(path: Path) -> None:
    body = path.read_bytes()
    expected = msgspec.json.decode(path.with_suffix(".signals.json").read_bytes(), type=Expected)
    if expected.refused is not None:
        with pytest.raises(UnrecognizedBody) as refusal:
            read(path.parent.name, body)
        assert refusal.value.detail == expected.refused
        return

    reading = read(path.parent.name, body, received_at=expected.received_at)

    assert reading.signals == tuple(msgspec.convert(signal, Signal) for signal in expected.signals)
    assert [rejected.reason for rejected in reading.rejected] == [rejected.reason for rejected in expected.rejected]
    for rejected, wanted in zip(reading.rejected, expected.rejected, strict=True):
        sent = json.loads(body)
        sent_alerts = sent if isinstance(sent, list) else sent.get("alerts")
        assert json.loads(rejected.raw or body) == (sent if wanted.alert is None else sent_alerts[wanted.alert])
        assert rejected.detail
    assert reading.truncated == expected.truncated


def test_every_fixture_has_its_pair_and_every_kind_its_fixtures() -> None:
    for path in (path for kind in (*ALERT_KINDS, *LIST_KINDS) for path in (FIXTURES / kind).iterdir()):
        body = path.with_name(path.name.replace(".signals.json", ".json"))
        assert body.exists(), path
        assert body.with_suffix(".signals.json").exists(), path
    assert {path.parent.name for path in CASES} == {*ALERT_KINDS, *LIST_KINDS}


def test_a_signal_in_a_fixture_has_no_misspelt_field() -> None:
    fields = set(Signal.__struct_fields__)
    for path in CASES:
        expected = msgspec.json.decode(path.with_suffix(".signals.json").read_bytes(), type=Expected)
        for signal in expected.signals:
            assert set(signal) <= fields, path


def test_both_peers_report_the_same_resolve() -> None:
    [first] = read("alertmanager", (FIXTURES / "alertmanager/resolved_by_the_first_peer.json").read_bytes()).signals
    second = read("alertmanager", (FIXTURES / "alertmanager/resolved_by_the_second_peer.json").read_bytes()).signals
    assert first in second


@pytest.mark.parametrize("kind", ["alertmanager", "grafana"])
def test_a_group_correlates_with_its_key_in_pagers(kind: str) -> None:
    """The dedup key, alias and entity id that Alertmanager 0.25 sent for the same group to PagerDuty, Opsgenie and
    Splunk On-Call.
    """
    body = json.loads(a_body(an_alert(), an_alert(fingerprint="b"), {"status": 1}))
    sent = json.dumps(body | {"groupKey": '{}:{alertname="HostDown", service="checkout"}'}).encode()
    key = "aa8ea89d9cf34f952c909881d11ebdc347c9a03341e2cb7f7de522a319ce1b09"
    assert [signal.correlation for signal in read(kind, sent).signals] == [key, key]
    unusable: Any
    for unusable in (None, 7, {}, []):
        other = json.dumps(body | {"groupKey": unusable}).encode()
        assert [signal.correlation for signal in read(kind, other).signals] == ["", ""]
    # Half a surrogate pair, which no sender of a key can have hashed.
    assert len(read(kind, sent.replace(b"HostDown", rb"\ud83d")).signals) == 2


# Bodies that are too large or too broken for a file.


def an_alert(**fields: Any) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": "CheckoutSlow"},
        "annotations": {},
        "startsAt": "2026-08-20T10:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": "251096a51337be7d",
    } | fields


def a_body(*alerts: Any) -> bytes:
    return json.dumps({"version": "4", "status": "firing", "alerts": alerts}).encode()


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


each_kind = pytest.mark.parametrize("kind", sorted(ALERT_KINDS))


@each_kind
def test_ten_thousand_alerts_are_read_and_the_rest_is_kept(kind: str) -> None:
    alerts = [an_alert(fingerprint=f"{place:016x}") for place in range(ALERTS_AT_MOST + 2)]

    reading = read(kind, a_body(*alerts))

    assert [signal.fingerprint for signal in reading.signals] == [alert["fingerprint"] for alert in alerts[:-2]]
    assert [(rejected.reason, json.loads(rejected.raw or b"")) for rejected in reading.rejected] == [
        ("too_many_alerts", alerts[-2:])
    ]


@each_kind
def test_long_text_is_cut_and_flagged(kind: str) -> None:
    alert = an_alert(
        labels={"a" * 2000: "x", "long": "é" * 5000, "short": "é"},
        annotations={"summary": "a" * 2 * 1024 * 1024, "fits": "b" * ANNOTATION_BYTES},
        generatorURL="http://prometheus/" + "q" * 20_000,
    )

    [signal] = read(kind, a_body(alert)).signals

    assert signal.labels == {"a" * NAME_BYTES: "x", "long": "é" * (LABEL_BYTES // 2), "short": "é"}
    assert signal.annotations == {"summary": "a" * ANNOTATION_BYTES, "fits": "b" * ANNOTATION_BYTES}
    assert len(signal.link) == ANNOTATION_BYTES
    assert signal.flags == ("value_truncated",)


@each_kind
@pytest.mark.parametrize(
    ("long", "kept"),
    [
        ({"labels": {"a" * 1500: "x"}}, {"labels": {"a" * NAME_BYTES: "x"}}),
        ({"labels": {"🚀" * 300: "x"}}, {"labels": {"🚀" * (NAME_BYTES // 4): "x"}}),
        ({"labels": {"a": "🚀" * 1100}}, {"labels": {"a": "🚀" * (LABEL_BYTES // 4)}}),
        ({"labels": {"a": "x" + "é" * 4000}}, {"labels": {"a": "x" + "é" * (LABEL_BYTES // 2 - 1)}}),
        ({"annotations": {"a": "x" * 17_000}}, {"annotations": {"a": "x" * ANNOTATION_BYTES}}),
        ({"generatorURL": "x" * 17_000}, {"link": "x" * ANNOTATION_BYTES}),
    ],
    ids=["name", "wide name", "wide value", "half a character", "annotation", "link"],
)
def test_each_long_text_is_cut_at_a_whole_character(kind: str, long: dict[str, Any], kept: dict[str, Any]) -> None:
    [usual] = read(kind, a_body(an_alert())).signals

    [signal] = read(kind, a_body(an_alert(**long))).signals

    assert signal == replace(usual, **kept, flags=("value_truncated",))


@each_kind
def test_values_within_limits_are_not_flagged(kind: str) -> None:
    labels = {"a" * NAME_BYTES: "b" * LABEL_BYTES} | {f"l{n}": "€" for n in range(LABELS_AT_MOST - 1)}

    [signal] = read(kind, a_body(an_alert(labels=labels, annotations={"a": "€" * (ANNOTATION_BYTES // 3)}))).signals

    assert (signal.labels, signal.flags) == (labels, ())


@each_kind
def test_of_too_many_labels_the_first_are_kept(kind: str) -> None:
    labels = {f"label_{place:03}": "x" for place in reversed(range(LABELS_AT_MOST + 1))}

    [signal] = read(kind, a_body(an_alert(labels=labels, fingerprint=""))).signals

    assert list(signal.labels) == [f"label_{place:03}" for place in range(LABELS_AT_MOST)]
    assert signal.flags == ("labels_truncated",)
    assert signal.fingerprint == fingerprint_of(labels), "alerts that differ only in the truncated part are still two"


@each_kind
def test_a_fingerprint_too_long_for_an_index_stays_distinct(kind: str) -> None:
    one, other = read(kind, a_body(an_alert(fingerprint="f" * 5000), an_alert(fingerprint="f" * 5001))).signals

    assert one.fingerprint != other.fingerprint
    assert len(one.fingerprint) == len(other.fingerprint) == 64


@each_kind
def test_bytes_that_are_not_utf8_are_replaced_in_their_alert_only(kind: str) -> None:
    body = a_body(an_alert(labels={"alertname": "caf@"}), an_alert()).replace(b"@", b"\xe9")

    cleaned, untouched = read(kind, body).signals

    assert (cleaned.labels, cleaned.flags) == ({"alertname": "caf\ufffd"}, ("value_cleaned",))
    assert untouched.flags == ()


@each_kind
def test_a_byte_order_mark_is_ignored(kind: str) -> None:
    body = a_body(an_alert())
    assert read(kind, b"\xef\xbb\xbf" + body) == read(kind, body)


@each_kind
def test_control_characters_in_strings_are_read(kind: str) -> None:
    body = a_body(an_alert(annotations={"summary": "one@two"}))

    [lines] = read(kind, body.replace(b"@", b"\n")).signals
    [nul] = read(kind, body.replace(b"@", b"\x00")).signals

    assert (lines.annotations["summary"], lines.flags) == ("one\ntwo", ())
    assert (nul.annotations["summary"], nul.flags) == ("onetwo", ("value_cleaned",))


@each_kind
def test_a_surrogate_after_an_escaped_backslash_is_no_surrogate(kind: str) -> None:
    body = a_body(an_alert(annotations={"path": r"C:\ud800", "half": "\ud800"}))

    [signal] = read(kind, body).signals

    assert signal.annotations == {"path": r"C:\ud800", "half": "\ufffd"}


@each_kind
def test_an_alert_nested_too_deeply_is_kept_and_the_others_are_read(kind: str) -> None:
    body = a_body(an_alert(fingerprint="a"), an_alert(labels="@"), an_alert(fingerprint="b"))

    reading = read(kind, body.replace(b'"@"', deep(10_000)))

    assert [signal.fingerprint for signal in reading.signals] == ["a", "b"]
    assert [rejected.reason for rejected in reading.rejected] == ["too_deep"]
    assert reading.rejected[0].raw == json.dumps(an_alert(labels="@")).encode().replace(b'"@"', deep(10_000))


def test_a_legacy_rule_with_a_tag_nested_too_deeply_is_kept() -> None:
    body = b'{"ruleId": 7, "state": "alerting", "tags": {"team": ' + deep(10_000) + b"}}"
    [rejected] = read("grafana", body).rejected
    assert (rejected.raw, rejected.part, rejected.reason) == (None, None, "bad_label")


@each_kind
def test_deep_nesting_outside_the_alerts_does_not_affect_them(kind: str) -> None:
    body = a_body(an_alert())
    assert read(kind, body.replace(b'"4"', deep(10_000))) == read(kind, body)


@each_kind
def test_a_body_nested_too_deeply_is_quarantined_as_a_whole(kind: str) -> None:
    body = b'{"alerts":[' + b'{"a":' * 10_000

    reading = read(kind, body)

    assert reading.signals == ()
    assert [(rejected.raw, rejected.part, rejected.reason) for rejected in reading.rejected] == [
        (None, None, "too_deep")
    ]


@each_kind
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"alerts": [}',
        b'{"alerts": []} x',
        b"status=firing&alertname=HostDown",
        b'{"a": "\\q"}',
        b"\xff\xfe",
    ],
)
def test_a_body_that_is_not_json_is_refused_with_instructions(kind: str, body: bytes) -> None:
    with pytest.raises(UnrecognizedBody, match=r"^The body is not valid JSON\. Expected .+\. .+\.$"):
        read(kind, body)


@each_kind
@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"alerts"', b"{}", b'{"alerts": 1}', deep(10_000)])
def test_json_of_another_kind_is_refused_with_instructions(kind: str, body: bytes) -> None:
    with pytest.raises(UnrecognizedBody, match=r"^Expected .+\. .+\.$"):
        read(kind, body)


# Properties.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
times = st.one_of(
    st.datetimes(timezones=st.none() | st.timezones()).map(datetime.isoformat),
    st.sampled_from(["", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00", "2026-08-20T10:00:60Z", "now"]),
    json_values,
)
alert_values = st.one_of(
    json_values,
    st.fixed_dictionaries(
        {},
        optional={
            "status": st.sampled_from(["firing", "resolved"]) | json_values,
            "labels": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5) | json_values,
            "annotations": st.dictionaries(
                st.sampled_from(["summary", "grafana_state_reason"]), st.sampled_from(["Paused", "NoData, KeepLast"])
            )
            | json_values,
            "startsAt": times,
            "endsAt": times,
            "generatorURL": json_values,
            "fingerprint": st.text(max_size=5) | json_values,
        },
    ),
)
kinds = st.sampled_from(sorted(ALERT_KINDS))


def reads_or_refuses(kind: str, body: bytes) -> Reading | None:
    """The guarantees of every parser for any bytes, and the requirements of PostgreSQL for any text."""
    try:
        reading = read(kind, body)
    except UnrecognizedBody:
        return None
    for signal in reading.signals:
        assert (signal.ended_at is None) == (signal.end_reason is None) == (signal.status is Status.FIRING)
        for time in (signal.started_at, signal.ended_at):
            assert time is None or (time.tzinfo is UTC and time <= RECEIVED_AT + timedelta(minutes=5))
        is_before = bool(signal.started_at and signal.ended_at and signal.ended_at < signal.started_at)
        assert is_before == ("ends_before_start" in signal.flags)
        assert signal.fingerprint
        assert len(signal.labels) <= LABELS_AT_MOST
        for text in (signal.fingerprint, signal.link, *pieces(signal.labels), *pieces(signal.annotations)):
            assert "\x00" not in text
            text.encode()
        assert all(signal.labels.values())
    return reading


def pieces(texts: Any) -> list[str]:
    return [*texts.keys(), *texts.values()]


@given(kinds, st.binary() | st.text().map(str.encode))
def test_any_bytes_are_read_or_refused(kind: str, body: bytes) -> None:
    reads_or_refuses(kind, body)


@given(kinds, json_values)
def test_any_json_is_read_or_refused(kind: str, value: Any) -> None:
    reads_or_refuses(kind, json.dumps(value).encode())


@given(kinds, st.lists(alert_values, max_size=5), st.booleans())
def test_every_alert_becomes_a_signal_or_a_rejected(kind: str, alerts: list[Any], ascii_only: bool) -> None:
    text = json.dumps({"alerts": alerts}, ensure_ascii=ascii_only)
    body = text.encode(errors="surrogatepass")  # half a pair as bytes is as broken as UTF-8 can be

    reading = reads_or_refuses(kind, body)

    assert reading is not None
    assert len(reading.signals) + len(reading.rejected) == len(alerts)


@given(
    kinds, st.dictionaries(st.sampled_from(["ruleId", "ruleUrl", "orgId", "ruleName", "tags"]), json_values), st.data()
)
def test_any_legacy_notification_is_read_or_refused(kind: str, body: dict[str, Any], data: st.DataObject) -> None:
    state = data.draw(st.sampled_from(["alerting", "ok", "paused", "no_data", "pending"]) | json_values)
    reads_or_refuses(kind, json.dumps(body | {"state": state}).encode())


@given(kinds, st.sampled_from(BODIES), st.data())
def test_no_damage_to_a_real_body_raises(kind: str, body: bytes, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 20)))
        filling = data.draw(
            st.binary(max_size=6) | st.sampled_from([b'"', b"\\ud800", b"\\u0000", b"[" * 2000, b"null"])
        )
        body = body[:start] + filling + body[end:]
    reads_or_refuses(kind, body)


@given(kinds, st.sampled_from(BODIES), json_values.map(json.dumps))
def test_fields_outside_the_alerts_do_not_matter(kind: str, body: bytes, text: str) -> None:
    """With half a surrogate pair, a NUL and depth: the fast and the repairing parser agree."""
    reading = reads_or_refuses(kind, body)
    for beside in (text.encode(), rb'"\ud800"', b'"\x00"', deep(2000)):
        if body.startswith(b"{"):
            assert reads_or_refuses(kind, b'{"beside": ' + beside + b"," + body[1:]) == reading or is_whole(
                reading, body
            )


some_text = st.text(max_size=5) | st.builds(
    lambda character, number: character * number,
    st.sampled_from(["v", "ü", "𝄞", "\\", "\x01"]),
    st.sampled_from([256, 257, 1024, 1025, 4096, 4097, 16_400]),  # on both sides of every limit
)
AS_USUAL = {
    "status": "firing",
    "labels": {"alertname": "A"},
    "annotations": {"summary": "s"},
    "startsAt": "2026-08-20T11:00:00Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "",
    "fingerprint": "f",
}
# One invalid value in it.
usual_alerts = st.one_of(
    st.sampled_from([*AS_USUAL, "valueString"]).flatmap(lambda name: st.tuples(st.just(name), json_values)),
    st.tuples(st.sampled_from(["labels", "annotations"]), st.dictionaries(some_text, some_text, max_size=2)),
    st.tuples(st.just("labels"), st.integers(99, 101).map(lambda number: {f"{n:x}": "x" for n in range(number)})),
    st.tuples(st.sampled_from(["labels", "annotations"]), some_text.map(lambda text: {"summary": text})),
    st.tuples(st.sampled_from(["generatorURL", "fingerprint"]), some_text),
    st.tuples(st.sampled_from(["startsAt", "endsAt"]), times),
    st.just(("status", "resolved")),
).map(lambda changed: AS_USUAL | dict([changed]))


@settings(max_examples=600)
@given(kinds, st.lists(usual_alerts, min_size=1, max_size=2), st.integers(-1, 3))
def test_repairs_outside_the_alerts_do_not_affect_them(kind: str, alerts: list[Any], left_out: int) -> None:
    alone = json.dumps({"alerts": alerts, "truncatedAlerts": left_out})
    for beside in ('"beside": "ü"', '"beside": "\\ud800"', '"beside": "two\nlines"'):
        assert read(kind, alone.encode()) == read(kind, ("{" + beside + ", " + alone[1:]).encode())


def is_whole(reading: Reading | None, body: bytes) -> bool:
    """Whether the whole body was rejected, so that it depends on everything in it."""
    return reading is not None and any(rejected.raw is None for rejected in reading.rejected)


# Grafana's signature. The vectors are in the webhook reference of the project.

SIGNED = "aa9e2e3575f5d7098b6caccd790888c36d5fdb63342a73bada2d6a51747a8494"
SIGNED_WITH_TIME = "4f0bff5cd8903c8149837f5187dd1ebbb1ba3fe7acd2a8b61cb3fb91e509a6ad"
SENT_AT = datetime.fromtimestamp(1_700_000_000, UTC)
HEADER = "X-Grafana-Alerting-Signature"


def is_genuine(headers: dict[str, str], *, body: bytes = b'{"a":1}', secret: str = "secret", **given: Any) -> bool:
    lower = {name.lower(): value for name, value in headers.items()}
    return grafana.verify(Request(body, SENT_AT, "grafana", lower), secret=secret, **({"now": SENT_AT} | given))


def test_a_body_signed_by_grafana_is_genuine() -> None:
    assert is_genuine({HEADER: SIGNED})
    assert is_genuine({HEADER.lower(): SIGNED})
    assert is_genuine({"X-Signed": SIGNED}, header="X-Signed")
    assert SENDERS["grafana"].verify is grafana.verify


def test_anything_else_is_not() -> None:
    assert not is_genuine({})
    assert not is_genuine({HEADER: ""})
    assert not is_genuine({HEADER: "sha256=" + SIGNED})
    assert not is_genuine({HEADER: SIGNED}, body=b'{"a":2}')
    assert not is_genuine({HEADER: SIGNED}, secret="Secret")
    assert not is_genuine({"X-Grafana-Signature": SIGNED})
    assert not is_genuine({HEADER: SIGNED_WITH_TIME})
    assert not is_genuine({HEADER: "\ud800"})
    assert not is_genuine({HEADER: SIGNED_WITH_TIME, "X-Sent-At": "\ud800"}, timestamp_header="X-Sent-At")


def test_an_empty_secret_accepts_no_signature() -> None:
    by_anybody = hmac.new(b"", b'{"a":1}', "sha256").hexdigest()
    assert not is_genuine({HEADER: by_anybody}, secret="")


@pytest.mark.parametrize(("seconds", "genuine"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_a_signed_time_must_be_close(seconds: int, genuine: bool) -> None:
    headers = {HEADER: SIGNED_WITH_TIME, "X-Sent-At": "1700000000"}
    now = SENT_AT + timedelta(seconds=seconds)
    assert is_genuine(headers, now=now, timestamp_header="x-sent-at") is genuine


def test_a_signed_time_cannot_be_left_out_or_changed() -> None:
    assert not is_genuine({HEADER: SIGNED}, timestamp_header="X-Sent-At")
    assert not is_genuine({HEADER: SIGNED_WITH_TIME, "X-Sent-At": "1700000001"}, timestamp_header="X-Sent-At")


@given(
    st.text(), st.text() | st.integers().map(str) | st.just("9" * 5000), st.binary(), st.sampled_from([None, "X-At"])
)
def test_no_garbage_makes_a_signature_raise(signature: str, at: str, body: bytes, timestamp_header: str | None) -> None:
    headers = {HEADER: signature, "X-At": at}
    assert not is_genuine(headers, body=body, timestamp_header=timestamp_header)


# Repairing what is not JSON, compared with a version that looks at one character after the other.


def repaired_slowly(body: str) -> str:
    """Escapes control characters in strings, and replaces halves of surrogate pairs by `?`."""
    found, within, at = list[str](), False, 0
    while at < len(body):
        size = 1
        if body[at] == "\\":
            size = 6 if body.startswith(r"\u", at) else 2
            if body[at : at + 3].lower() == r"\ud":
                half, other = body[at : at + 6], body[at + 6 : at + 12]
                is_pair = half[3] in "89abAB" and other[:3].lower() == r"\ud" and other[3:4] in [*"cdefCDEF"]
                found.append(half + other if is_pair else "?")
                at += 12 if is_pair else 6
                continue
            found.append(body[at : at + size])
        elif body[at] == '"':
            within = not within
            found.append('"')
        else:
            found.append(f"\\u{ord(body[at]):04x}" if within and body[at] < " " else body[at])
        at += size
    return "".join(found)


json_pieces = st.sampled_from(
    ["a", "é", " ", "\n", "\t", "\x01", "\x1f", r"\\", r"\"", r"\n", r"\u0041", r"\ud83d", r"\ude00", r"\uD83D\uDE00"]
)


@given(st.lists(st.lists(json_pieces, max_size=12).map("".join), min_size=1, max_size=5), st.integers(1, 9))
def test_strings_are_repaired_as_if_one_by_one(texts: list[str], piece: int) -> None:
    body = "[" + ",\n".join(f'"{text}"' for text in texts) + "]"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_PIECE", piece)
        repaired = reader._legal(body.encode()).decode(errors="replace").replace("\ufffd", "?")
    assert json.loads(repaired) == json.loads(repaired_slowly(body))


@given(
    st.lists(st.sampled_from(["[", "]", "{", "}", '"', r"\"", "a", ","]), max_size=60).map("".join), st.integers(1, 9)
)
def test_alerts_nested_too_deeply_are_found_in_any_body(middle: str, piece: int) -> None:
    body = ('{"alerts":[' + middle + "[" * 200 + "]" * 200 + ",1]}").encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_PIECE", piece)
        in_pieces = [*reader._deep_values(body)]
    assert in_pieces == [*reader._deep_values(body)]
    for start, end in in_pieces:
        assert body[start:end].startswith((b"[", b"{"))
        assert body[start:end].endswith((b"]", b"}"))


@each_kind
def test_numbers_that_json_does_not_have_become_null(kind: str) -> None:
    body = a_body(an_alert(annotations={"summary": "NaN -Infinity"}), an_alert(annotations={"value": "@"}))
    for number in (b"NaN", b"Infinity", b"-Infinity"):
        first, second = read(kind, body.replace(b'"@"', number)).signals
        assert (first.annotations, second.annotations) == ({"summary": "NaN -Infinity"}, {})


@each_kind
def test_a_body_of_control_characters_is_refused(kind: str) -> None:
    with pytest.raises(UnrecognizedBody):
        read(kind, a_body(an_alert(annotations={"summary": "@"})).replace(b"@", b"\x01" * 100_000))


@each_kind
def test_an_alert_with_very_many_labels_is_kept_unread(kind: str) -> None:
    many = {f"l{number}": "x" for number in range(20_000)}
    reading = read(kind, a_body(an_alert(), an_alert(labels=many), an_alert(annotations=many), an_alert()))
    assert len(reading.signals) == 2
    assert [(one.reason, one.part) for one in reading.rejected] == [
        ("too_many_labels", Part(1)),
        ("too_many_labels", Part(2)),
    ]


@each_kind
def test_a_body_of_very_many_values_is_kept_unread(kind: str) -> None:
    [rejected] = read(kind, b'{"alerts":[' + b"0," * 100_000 + b"0]}").rejected
    assert (rejected.reason, rejected.raw, rejected.part) == ("too_many_alerts", None, None)
    assert len(read(kind, b'{"alerts":[],"x":[[' + b"0," * 100_000 + b"0]]}").rejected) == 0


@pytest.mark.parametrize("kind", DEPLOYMENT_KINDS)
@pytest.mark.parametrize("body", [b'{"a":"' + b"x" * 2**20 + b'"}', b'{"a":[' + b"[]," * 20_000 + b"0]}"])
def test_a_huge_report_of_a_deployment_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(TooLarge):
        read(kind, body)


@each_kind
@pytest.mark.parametrize(
    ("time", "read_as"),
    [
        ("1971-01-01T00:00:00Z", datetime(1971, 1, 1, tzinfo=UTC)),
        ("1971-01-01T00:00:00+14:00", None),
        ("1970-12-31T12:00:00-12:00", datetime(1971, 1, 1, tzinfo=UTC)),
        ("1970-12-31T23:59:59.999999Z", None),
        ("2200-01-01T00:00:00Z", None),
    ],
)
def test_times_are_bounded_after_conversion(kind: str, time: str, read_as: datetime | None) -> None:
    [signal] = read(kind, a_body(an_alert(startsAt=time))).signals
    assert signal.started_at == read_as


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("9999999999w", None),
        ("99999999999999999999999999999999999999w", None),
        ("2d", timedelta(days=2)),
        ("2d1ms", None),
        ("1h30m", timedelta(minutes=90)),
    ],
)
def test_no_duration_overflows(text: str, length: timedelta | None) -> None:
    assert pending({"for": text}) == length
