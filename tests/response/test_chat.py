"""Chats of Slack, Mattermost, Teams and plain lines: read, redacted, and stored once."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.base.errors import Problem, TooLarge
from app.base.text.redaction import MARK
from app.response.chat import ChatFormat, ChatReading, Message, NotThatFormat, Skipped, read, text_of_html
from tests.base.test_redaction import SECRETS
from tests.conftest import ClientAs
from tests.incidents.test_api import clock, deliver, resolved
from tests.incidents.test_corrections import revise, timeline

NOW = datetime(2026, 8, 21, tzinfo=UTC)
START = datetime(2026, 8, 20, 10, tzinfo=UTC)


def seconds(minutes: float) -> int:
    return int(START.timestamp() + 60 * minutes)


def reading(format_: str, document: Any, room: str | None = None) -> ChatReading:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read(ChatFormat(format_), body, room=room, now=NOW)


def slack(minutes: float, words: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "user": "U1", "text": words, "ts": f"{seconds(minutes)}.000005"} | more


def test_a_file_of_a_slack_export() -> None:
    document = {
        "users": [{"id": "U1", "name": "ada.l", "profile": {"display_name": "ada"}}, {"id": "U2", "name": "ben"}],
        "messages": [
            slack(5, "<@U2> see <https://example.org/d?a=1&amp;b=2|the graph> in <#C7|ops> &lt;now&gt;"),
            slack(4, "rolling back", user="U2", thread_ts="1", reactions=[{"name": "pushpin"}]),
            slack(6, "<@U2> has joined the channel", subtype="channel_join"),
            slack(7, ""),
            slack(8, "topic", subtype="channel_topic"),
            slack(9, "Alert", user=None, username="alertbot", subtype="bot_message"),
        ],
    }
    found = reading("slack", document, room="C12")
    assert [(one.id, one.author, one.text, one.room) for one in found.messages] == [
        (f"slack:C12:{seconds(4)}.000005", "ben", "rolling back", "C12"),
        (
            f"slack:C12:{seconds(5)}.000005",
            "ada",
            "@ben see the graph (https://example.org/d?a=1&b=2) in #ops <now>",
            "C12",
        ),
        (f"slack:C12:{seconds(9)}.000005", "alertbot", "Alert", "C12"),
    ]
    assert found.messages[0].at == datetime.fromtimestamp(seconds(4), UTC).replace(microsecond=5)
    assert found.skipped == {Skipped.JOIN: 1, Skipped.EMPTY: 1, Skipped.OTHER: 1}
    assert reading("slack", document["messages"]).messages[0].author == "U2"


def test_lines_and_pages_of_mattermost() -> None:
    post = {"team": "t", "channel": "ops", "user": "ada", "message": "rolling back", "create_at": seconds(5) * 1000}
    lines = [{"type": "version", "version": 1}, {"type": "post", "post": post}]
    found = reading("mattermost", "\n".join(map(json.dumps, lines)).encode())
    [message] = found.messages
    assert (message.at.timestamp(), message.author, message.text, message.room) == (
        seconds(5),
        "ada",
        "rolling back",
        "ops",
    )
    assert found.skipped == {Skipped.OTHER: 1}
    page = {
        "order": ["a", "b", "c", "gone"],
        "posts": {
            "a": {"id": "a", "user_id": "u1", "message": "rolling back", "create_at": seconds(5) * 1000},
            "b": {"id": "b", "user_id": "u1", "message": "m", "create_at": 1, "type": "system_join_channel"},
            "c": {"id": "c", "user_id": "u1", "message": "m", "create_at": 1, "delete_at": 2},
        },
    }
    found = reading("mattermost", page, room="ops")
    assert [(one.id, one.author, one.room) for one in found.messages] == [("mattermost:a", "u1", "ops")]
    assert found.skipped == {Skipped.JOIN: 1, Skipped.DELETED: 1}
    assert [one.line for one in found.bad] == [4]


def test_a_page_of_teams_is_reduced_to_text() -> None:
    def message(id_: str, content: str, kind: str = "html", **more: Any) -> dict[str, Any]:
        return {
            "id": id_,
            "createdDateTime": "2026-08-20T10:05:00.12Z",
            "from": {"user": {"displayName": "Ada"}},
            "body": {"contentType": kind, "content": content},
            "channelIdentity": {"channelId": "19:x"},
        } | more

    document = {
        "value": [
            message("1", "<p>rolling&nbsp;back <b>now</b></p><p>see &lt;script&gt;</p><script>alert(1)</script>"),
            message("2", "a <b> is no tag here", "text"),
            message("3", "", messageType="systemEventMessage"),
            message("4", "gone", deletedDateTime="2026-08-20T10:06:00Z"),
            message("5", "no time", createdDateTime="2026-08-20T10:05:00"),
        ]
    }
    found = reading("teams", document)
    assert [(one.id, one.author, one.text) for one in found.messages] == [
        ("teams:19:x:1", "Ada", "rolling back now\nsee <script>alert(1)"),
        ("teams:19:x:2", "Ada", "a <b> is no tag here"),
    ]
    assert (found.skipped, [one.line for one in found.bad]) == ({Skipped.JOIN: 1, Skipped.DELETED: 1}, [5])


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("a<!-- <b> -->b<!---->c", "abc"),
        ("a --> b <!-- c", "a --> b <!-- c"),
        ("<!DOCTYPE html [<!FOO>]>a", "<!DOCTYPE html []>a"),
        ("a<![bad[b]]>c", "ac"),
        ("<![CDATA[a", "<![CDATA[a"),
        ("a<?php b ?>c", "ac"),
        ("a<br/>b<BR>c<p class='x'>d</p>", "a\nb\nc\nd"),
        ("1 < 2 <3", "1 < 2 <3"),
        ("&#" + "9" * 5000 + ";", "\ufffd"),
        ("&#x" + "9" * 5000 + ";", "\ufffd"),
        ("&#xd800;&#0;&#65;&amp;lt;&nosuch;", "\ufffd\ufffdA&lt;&nosuch;"),
    ],
    ids=lambda one: one[:20],
)
def test_odd_html_is_reduced_to_text_too(html: str, text: str) -> None:
    assert text_of_html(html) == text


def line(at: str, words: str, **more: Any) -> str:
    return json.dumps({"at": clock(at), "by": "ada", "text": words} | more)


def test_plain_lines() -> None:
    body = "\n".join([line("10:05", "a", id="1"), "", "{broken", line("10:04", "b"), line("10:04", "b")])
    found = reading("lines", body.encode(), room="r")
    assert [(one.text, one.at) for one in found.messages] == [
        ("b", START.replace(minute=4)),
        ("a", START.replace(minute=5)),
    ]
    assert found.messages[1].id == "lines:r:1"
    assert [(one.line, one.why) for one in found.bad] == [(2, "the line is not JSON")]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"text": "a\0b"}, "its text contains NUL or unpaired surrogates"),
        ({"text": "x" * 10_001}, "its text is longer than 10,000 characters"),
        ({"text": 5}, "its `text` is missing, or not a string"),
        ({"text": None}, "its `text` is missing, or not a string"),
        ({"by": "x" * 201}, "its author is longer than 200 characters"),
        ({"at": "2026-08-21T01:00:00Z"}, "its time is in the future, or before 1971"),
        ({"at": "1970-01-01T00:00:00Z"}, "its time is in the future, or before 1971"),
        ({"at": "yesterday"}, "its `at` is not an RFC 3339 time"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "its `at` is not an RFC 3339 time"),
        ({"id": "x" * 400}, "its id is longer than 300 characters"),
    ],
)
def test_a_bad_message_is_listed_and_the_others_are_taken(change: dict[str, Any], why: str) -> None:
    body = f"{line('10:05', 'good')}\n{json.dumps(json.loads(line('10:06', 'bad')) | change)}"
    found = reading("lines", body.encode())
    assert ([one.text for one in found.messages], [(one.line, one.why) for one in found.bad]) == (["good"], [(2, why)])


@pytest.mark.parametrize(
    ("format_", "body"),
    [
        ("slack", b"no json"),
        ("slack", b"{}"),
        ("slack", b"5"),
        ("slack", b"[" * 5000),
        ("mattermost", b"[]"),
        ("mattermost", b'{"posts": 5}'),
        ("teams", b'{"value": {}}'),
        ("lines", b"10:05 ada: hello"),
    ],
)
def test_another_format_is_refused(format_: str, body: bytes) -> None:
    with pytest.raises(NotThatFormat):
        reading(format_, body)


@pytest.mark.parametrize("format_", ChatFormat)
def test_there_is_a_limit_of_objects_and_lists(format_: ChatFormat) -> None:
    """Decoding holds the interpreter, and takes the longer per byte the more there are."""
    with pytest.raises(TooLarge, match="100,000 objects and lists; split the chat"):
        reading(format_, b'{"a":[' + b"[]," * 100_000 + b"0]}")


def test_there_is_a_limit_of_messages() -> None:
    body = "\n".join([line("10:05", "a", id=str(number)) for number in range(10_001)])
    with pytest.raises(TooLarge):
        reading("lines", body.encode())


_names = ["ts", "text", "user", "subtype", "type", "at", "by", "id", "message", "create_at", "post", "body", "content"]
_names += ["posts", "order", "messages", "users", "value", "from", "contentType", "createdDateTime", "channelIdentity"]
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_names), inner, max_size=6),
    max_leaves=15,
)


@given(st.sampled_from(ChatFormat), _json)
def test_no_document_raises_anything_else(format_: ChatFormat, document: Any) -> None:
    try:
        found = reading(format_, document)
    except Problem:
        return
    assert all(isinstance(one, Message) for one in found.messages)


@given(st.lists(st.sampled_from([*"<>!-[]?/&#;9xab ", "<!--", "-->", "<![", "&#", "<br>"]), max_size=20).map("".join))
def test_no_html_raises_an_error(html: str) -> None:
    text_of_html(html)


def test_what_is_read_has_no_secrets() -> None:
    """They are removed in the thread that reads, before the incident is locked."""
    secret = "ghp_" + "a1" * 18
    found = reading("lines", f"{line('10:05', secret, by=f'{secret}b')}\n{line('10:06', 'b')}".encode(), room=secret)
    assert [(one.text, one.author, one.room, one.had_secrets) for one in found.messages] == [
        (MARK, MARK, MARK, True),
        ("b", "ada", MARK, False),
    ]


# — over HTTP —


async def send(
    client: httpx.AsyncClient, body: str, query: str = "format=lines", *, number: int = 1, status: int = 200
) -> dict[str, Any]:
    answer = await client.post(f"/api/v1/incidents/INC-{number}/chat?{query}", content=body.encode())
    assert answer.status_code == status, answer.text
    return answer.json()  # type: ignore[no-any-return]


LINES = [line(f"10:0{minute}", f"message {minute}") for minute in range(6)]


async def test_messages_become_entries_once_whatever_is_imported_again(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:20"))
    first = await send(client, "\n".join(LINES[:4]))
    assert (first["taken"], first["known"]) == (4, 0)
    second = await send(client, "\n".join(LINES))
    assert (second["taken"], second["known"]) == (2, 4)
    shown = await timeline(client, kind="said")
    assert [(one["at"], one["by"], one["note"]) for one in shown] == [
        (clock(f"10:0{minute}"), "ada", f"message {minute}") for minute in range(6)
    ]
    assert shown[0]["detail"] == {"room": None}
    await revise(client, shown[0], "withdraw")
    again = await send(client, "\n".join(LINES))
    assert (again["taken"], again["known"]) == (0, 6), "what was withdrawn stays withdrawn"


async def test_no_chat_exceeds_the_entries_of_an_incident(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened, resolved and three messages; importing them again adds nothing."""
    monkeypatch.setattr("app.incidents.history.timeline.ENTRIES_AT_MOST", 5)
    await deliver(client, resolved("10:00", "10:20"))
    for _ in range(2):
        await send(client, "\n".join(LINES[:3]))
    refused = await send(client, "\n".join(LINES), status=409)
    assert refused["type"].endswith("timeline-is-full")
    assert len(await timeline(client, kind="said")) == 3


async def test_imports_at_once_store_each_message_once(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:20"), resolved("10:00", "10:20", service="mail"))
    body = "\n".join(LINES)
    found = await asyncio.gather(*(send(client, body, number=1 + number % 2) for number in range(4)))
    assert sum(one["taken"] for one in found) == 6
    assert sum(one["known"] + one["elsewhere"] for one in found) == 18
    shown = [*await timeline(client, kind="said"), *await timeline(client, 2, kind="said")]
    assert len(shown) == 6


async def test_only_the_period_is_taken(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:20"))
    body = "\n".join(line(at, at) for at in ("08:59", "09:00", "10:10", "11:19", "11:20"))
    found = await send(client, body)
    assert (found["taken"], found["skipped"]) == (3, {"outside": 2})
    found = await send(client, body, f"format=lines&from={clock('08:00')}&to={clock('09:00')}")
    assert (found["taken"], found["skipped"]) == (1, {"outside": 4})
    await send(client, body, f"format=lines&from={clock('09:00')}&to={clock('08:00')}", status=422)


async def test_no_secret_is_stored(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    await deliver(client, resolved("10:00", "10:20"))
    body = "\n".join(line("10:05", f"{place} {secret}") for place, secret in enumerate(SECRETS))
    assert (await send(client, body))["redacted"] == len(SECRETS)
    async with db.transaction(engine) as tx:
        stored = (await tx.execute(text("SELECT string_agg(CAST(timeline.* AS text), ' ') FROM timeline"))).scalar_one()
    assert stored.count(MARK) == len(SECRETS)
    assert not [secret for secret in SECRETS if secret.splitlines()[-1] in stored and "-----" not in secret]


async def test_a_message_follows_a_split(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:10"), resolved("10:12", "10:13", instance="b"))
    await send(client, line("10:25", "late"))
    assert [one["note"] for one in await timeline(client, kind="said")] == ["late"]


async def test_a_wrong_import_is_refused(client: httpx.AsyncClient, client_as: ClientAs) -> None:
    await deliver(client, resolved("10:00", "10:20"))
    assert (await send(client, "no json", "format=slack", status=400))["type"].endswith("not-that-format")
    await send(client, "", "format=irc", status=422)
    await send(client, "", status=200)
    await send(client, "{}", number=9, status=404)
    await send(client, f'{{"at": "{"x" * 4 * 2**20}"}}', status=413)
    await send(await client_as(Scope.READ), LINES[0], status=403)
