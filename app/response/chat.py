"""Reads messages from what chats export: Slack, Mattermost, Microsoft Teams, and plain lines. Secrets are removed.

Pure: no clock, no I/O, no settings. A message that cannot be read is listed with the reason, and the others are taken.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from html import unescape
from typing import Any

import msgspec

from app.base.errors import TooLarge, UnrecognizedBody
from app.base.text.redaction import redact
from app.base.values.times import is_in_bounds

MESSAGES_AT_MOST = 10_000
VALUES_AT_MOST = 100_000  # objects and lists: more take longer to collect as garbage than to decode
LONGEST_TEXT = 10_000  # characters
LONGEST_NAME = 200
LONGEST_ID = 300
CLOCK_SKEW = timedelta(minutes=5)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class ChatFormat(StrEnum):
    SLACK = "slack"  # a file of an export, or a page of `conversations.history`
    MATTERMOST = "mattermost"  # lines of a bulk export, or a page of posts
    TEAMS = "teams"  # a page of messages of Microsoft Graph
    LINES = "lines"  # a JSON object per line


class Skipped(StrEnum):
    """Why a message was left out."""

    JOIN = "join"  # someone joined or left, or another message of the system
    EMPTY = "empty"
    DELETED = "deleted"
    OUTSIDE = "outside"  # of the period
    OTHER = "other"  # no message


class NotThatFormat(UnrecognizedBody):
    title = "Not a chat of this format"


@dataclass(frozen=True, slots=True)
class Message:
    """`id` identifies the message among those of all chats. `had_secrets`: some were removed from text or author."""

    id: str
    at: datetime
    author: str | None
    text: str
    room: str | None = None
    had_secrets: bool = False


@dataclass(frozen=True, slots=True)
class Bad:
    """`line` counts messages or lines from 1."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class ChatReading:
    """`messages` are in the order of their times."""

    messages: Sequence[Message]
    skipped: Mapping[Skipped, int]
    bad: Sequence[Bad]


class _BadMessage(Exception):
    pass


class _Left(Exception):
    """The message is left out."""

    def __init__(self, reason: Skipped) -> None:
        super().__init__(reason)
        self.reason = reason


def read(format_: ChatFormat, body: bytes, *, room: str | None, now: datetime) -> ChatReading:
    """`room` is where the messages were written, if they do not say so. Raises NotThatFormat or TooLarge."""
    if body.count(b"[") + body.count(b"{") > VALUES_AT_MOST:
        message = (
            f"a request may have at most {VALUES_AT_MOST:,} objects and lists; split the chat into several requests"
        )
        raise TooLarge(message)
    items, read_one = _READERS[format_](body, room)
    messages: dict[str, Message] = {}
    skipped: Counter[Skipped] = Counter()
    bad: list[Bad] = []
    for line, item in enumerate(items, 1):
        if line > MESSAGES_AT_MOST:
            message = f"a request may have at most {MESSAGES_AT_MOST:,} messages; split the chat into several requests"
            raise TooLarge(message)
        try:
            if isinstance(item, _BadMessage):
                raise item
            found = read_one(item)
            _check(found, now)
            messages[found.id] = _without_secrets(found)
        except _Left as left:
            skipped[left.reason] += 1
        except _BadMessage as error:
            bad.append(Bad(line, str(error)))
    return ChatReading(sorted(messages.values(), key=lambda each: (each.at, each.id)), skipped, bad)


def _check(message: Message, now: datetime) -> None:
    for name, value, longest in (
        ("text", message.text, LONGEST_TEXT),
        ("author", message.author or "", LONGEST_NAME),
        ("room", message.room or "", LONGEST_NAME),
        ("id", message.id, LONGEST_ID),
    ):
        if len(value) > longest:
            raise _BadMessage(f"its {name} is longer than {longest:,} characters")
        if _UNSTORABLE.search(value):
            raise _BadMessage(f"its {name} contains NUL or unpaired surrogates")
    if not is_in_bounds(message.at) or message.at > now + CLOCK_SKEW:
        raise _BadMessage("its time is in the future, or before 1971")
    if not message.text.strip():
        raise _Left(Skipped.EMPTY)


def _without_secrets(message: Message) -> Message:
    text, author, room = redact(message.text), redact(message.author or ""), redact(message.room or "")
    return replace(
        message,
        text=text.text,
        author=author.text or None,
        room=room.text or None,
        had_secrets=bool(text.secrets or author.secrets),
    )


# — values —


def _json(body: bytes | str) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise NotThatFormat("the body is not JSON") from None


def _lines(body: bytes) -> Iterator[Any]:
    for line in body.split(b"\n"):
        if line.strip():
            try:
                yield msgspec.json.decode(line)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                yield _BadMessage("the line is not JSON")


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _BadMessage("it is not an object")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _BadMessage(f"its `{name}` is missing, or not a string")
    return value


def _optional_text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _after_epoch(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise _BadMessage("its time is not valid") from None


def _time(value: Any, name: str) -> datetime:
    try:
        at = datetime.fromisoformat(_text(value, name))
        if at.tzinfo is None:
            raise _BadMessage(f"its `{name}` has no time zone")
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _BadMessage(f"its `{name}` is not an RFC 3339 time") from None


def _milliseconds(value: Any, name: str) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _BadMessage(f"its `{name}` is missing, or not a number")
    return _after_epoch(value / 1000 if abs(value) < _LATEST_MILLISECONDS else _LATEST_MILLISECONDS)


_LATEST_MILLISECONDS = 10**14


def _id(*parts: str | None) -> str:
    return ":".join(part or "" for part in parts)


def _list_in(document: Any, *names: str) -> Sequence[Any]:
    found = document
    if isinstance(document, dict):
        found = next((document[name] for name in names if name in document), None)
    if not isinstance(found, list):
        expected = " or ".join(f"`{name}`" for name in names)
        raise NotThatFormat(f"the body has no list of messages in {expected}")
    return found


# — Slack —


_SLACK_TAKEN = {"", "bot_message", "me_message", "thread_broadcast", "file_share", "reply_broadcast"}


def _slack(body: bytes, room: str | None) -> tuple[Iterable[Any], Any]:
    document = _json(body)
    users = _slack_users(document.get("users") if isinstance(document, dict) else None)

    def read_one(item: Any) -> Message:
        message = _object(item)
        if message.get("type", "message") != "message":
            raise _Left(Skipped.OTHER)
        subtype = str(message.get("subtype") or "")
        if subtype not in _SLACK_TAKEN:
            raise _Left(Skipped.JOIN if subtype.endswith(("_join", "_leave")) else Skipped.OTHER)
        sent_at = _text(message.get("ts"), "ts")
        if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", sent_at, re.ASCII):
            raise _BadMessage("its `ts` is not a Slack timestamp")
        channel = _optional_text(message.get("channel")) or room
        user = _optional_text(message.get("user")) or _optional_text(message.get("username"))
        return Message(
            id=_id("slack", channel, sent_at),
            at=_after_epoch(float(sent_at)),
            author=users.get(user, user) if user else None,
            text=_slack_text(_text(message.get("text", ""), "text"), users),
            room=channel,
        )

    return _list_in(document, "messages"), read_one


def _slack_users(users: Any) -> Mapping[str, str]:
    """Names by id, from a list of users, or from an object that is already that."""
    if isinstance(users, dict):
        return {id_: name for id_, name in users.items() if isinstance(name, str)}
    found: dict[str, str] = {}
    for user in users if isinstance(users, list) else ():
        if isinstance(user, dict) and isinstance(user.get("id"), str):
            profile = user.get("profile")
            shown = profile.get("display_name") if isinstance(profile, dict) else None
            name = _optional_text(shown) or _optional_text(user.get("real_name")) or _optional_text(user.get("name"))
            found[user["id"]] = name or user["id"]
    return found


_SLACK_LINK = re.compile(r"<([^<>|]{1,3000})(?:\|([^<>]{0,1000}))?>")


def _slack_text(text: str, users: Mapping[str, str]) -> str:
    """`<@U1>` becomes `@ada`, `<https://…|label>` becomes `label (https://…)`."""

    def plain(found: re.Match[str]) -> str:
        target, label = found[1], found[2]
        if target.startswith("@"):
            return f"@{label or users.get(target[1:], target[1:])}"
        if target.startswith(("#", "!")):
            return f"{'#' if target.startswith('#') else '@'}{label or target[1:]}"
        return f"{label} ({target})" if label and label != target else target

    text = _SLACK_LINK.sub(plain, text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


# — Mattermost —


def _mattermost(body: bytes, room: str | None) -> tuple[Iterable[Any], Any]:
    first = body.lstrip()[:1]
    if first != b"{":
        raise NotThatFormat("the body is neither lines of a bulk export nor a page of posts")
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return _lines(body), lambda item: _mattermost_line(item, room)
    if "posts" not in document:
        return [document], lambda item: _mattermost_line(item, room)
    posts, order = document["posts"], document.get("order")
    if not isinstance(posts, dict):
        raise NotThatFormat("`posts` is not an object")
    names = [id_ for id_ in order if isinstance(id_, str)] if isinstance(order, list) else [*posts]
    return [posts.get(id_) for id_ in names], lambda item: _mattermost_post(item, room)


def _mattermost_line(item: Any, room: str | None) -> Message:
    line = _object(item)
    kind = str(line.get("type"))
    if kind not in {"post", "direct_post"}:
        raise _Left(Skipped.OTHER)
    post = _object(line.get(kind))
    if _optional_text(post.get("type")):
        raise _Left(Skipped.JOIN)
    channel = _optional_text(post.get("channel")) or room
    author, at = _text(post.get("user"), "user"), _milliseconds(post.get("create_at"), "create_at")
    text = _text(post.get("message"), "message")
    return Message(_id("mattermost", channel, str(post["create_at"]), _digest(author, text)), at, author, text, channel)


def _mattermost_post(item: Any, room: str | None) -> Message:
    post = _object(item)
    if _optional_text(post.get("type")):
        raise _Left(Skipped.JOIN)
    if post.get("delete_at"):
        raise _Left(Skipped.DELETED)
    return Message(
        id=_id("mattermost", _text(post.get("id"), "id")),
        at=_milliseconds(post.get("create_at"), "create_at"),
        author=_optional_text(post.get("username")) or _optional_text(post.get("user_id")),
        text=_text(post.get("message"), "message"),
        room=room or _optional_text(post.get("channel_id")),
    )


# — Teams —


def _teams(body: bytes, room: str | None) -> tuple[Iterable[Any], Any]:
    def read_one(item: Any) -> Message:
        message = _object(item)
        if message.get("deletedDateTime"):
            raise _Left(Skipped.DELETED)
        if message.get("messageType", "message") != "message":
            raise _Left(Skipped.JOIN)
        content = _object(message.get("body"))
        text = _text(content.get("content"), "body/content")
        place = message.get("channelIdentity")
        channel = _optional_text(place.get("channelId")) if isinstance(place, dict) else None
        channel = channel or _optional_text(message.get("chatId"))
        return Message(
            id=_id("teams", channel or room, _text(message.get("id"), "id")),
            at=_time(message.get("createdDateTime"), "createdDateTime"),
            author=_teams_author(message.get("from")),
            text=_text_of_html(text) if content.get("contentType") == "html" else text,
            room=room or channel,
        )

    return _list_in(_json(body), "value"), read_one


def _teams_author(sender: Any) -> str | None:
    for kind in ("user", "application"):
        found = sender.get(kind) if isinstance(sender, dict) else None
        if isinstance(found, dict) and (name := _optional_text(found.get("displayName"))):
            return name
    return None


def _text_of_html(html: str) -> str:
    if len(html) > 10 * LONGEST_TEXT:
        raise _BadMessage(f"its HTML is longer than {10 * LONGEST_TEXT:,} characters")
    return text_of_html(html)


def text_of_html(html: str) -> str:
    """Without comments and tags. Takes time in proportion to the length of the text.

    The parser of the standard library takes the square of it for comments that do not end, and raises errors for
    declarations and numbers that it does not know.
    """
    *before, rest = html.split("-->")
    shown = "".join(part.partition("<!--")[0] if "<!--" in part else f"{part}-->" for part in before) + rest
    text = unescape(_LONG_REFERENCE.sub("\ufffd", _TAG.sub(_break, shown)))
    return re.sub(r"[ \t\xa0]+", " ", text).strip()


def _break(tag: re.Match[str]) -> str:
    return "\n" if (tag[1] or "").lower() in _BREAKS else ""


_BREAKS = frozenset({"br", "p", "div", "li", "tr"})
_TAG = re.compile(r"<(?:([a-z][a-z0-9]*+)|/[a-z]|[!?])[^<>]*+>", re.ASCII | re.IGNORECASE)
_LONG_REFERENCE = re.compile(r"&#[0-9]{8,}+;?", re.ASCII)  # no character; Python refuses to read thousands of digits


# — lines —


def _plain_lines(body: bytes, room: str | None) -> tuple[Iterable[Any], Any]:
    def read_one(item: Any) -> Message:
        line = _object(item)
        at, text = _time(line.get("at"), "at"), _text(line.get("text"), "text")
        author = _optional_text(line.get("by"))
        own = _optional_text(line.get("id"))
        id_ = _id("lines", room, own) if own else _id("lines", room, at.isoformat(), _digest(author or "", text))
        return Message(id_, at, author, text, room)

    if body.strip() and body.lstrip()[:1] != b"{":
        raise NotThatFormat("each line must be an object with `at`, `by` and `text`")
    return _lines(body), read_one


def _digest(*parts: str) -> str:
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


_READERS = {
    ChatFormat.SLACK: _slack,
    ChatFormat.MATTERMOST: _mattermost,
    ChatFormat.TEAMS: _teams,
    ChatFormat.LINES: _plain_lines,
}
