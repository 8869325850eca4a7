"""Asking the peers of an Alertmanager for its list, over its API v2.

Their addresses are set by an admin, are http or https, and no redirect is followed: the credentials go where they were
meant for. What a peer says is as hostile as any body.
"""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache

import httpx
import msgspec

from app.ingest.health.reconcile import Answer, Listed
from app.ingest.sender import BadAlert, parse_time
from app.ingest.senders import alertmanager

LONGEST_ANSWER = timedelta(seconds=20)
LARGEST_ANSWER = 32 * 2**20


class Unanswered(Exception):
    """A peer did not answer, or not as an Alertmanager does. In words without secrets."""


async def ask(url: str, *, username: str | None, secret: str | None, at: datetime, within: timedelta) -> Answer:
    """What the peer at `url` says now. Raises Unanswered."""
    auth = httpx.BasicAuth(username, secret or "") if username else None
    headers = {"Accept-Encoding": "identity"}  # so that nothing is larger than it looks
    if secret and not username:
        headers["Authorization"] = f"Bearer {secret}"
    try:
        async with (
            asyncio.timeout(min(within, LONGEST_ANSWER).total_seconds()),
            # No proxy and no .netrc of the environment: the credentials are those that were stated.
            httpx.AsyncClient(
                base_url=url, auth=auth, headers=headers, verify=_trusted(), trust_env=False, follow_redirects=False
            ) as client,
        ):
            alerts, _ = await _get(client, "/api/v2/alerts")
            silences, _ = await _get(client, "/api/v2/silences")
            # Last, so that a peer which has restarted meanwhile says so.
            status, said_at = await _get(client, "/api/v2/status")
    except TimeoutError:
        raise Unanswered("does not answer in time") from None
    except (httpx.HTTPError, OSError) as error:
        raise Unanswered(f"cannot be reached ({type(error).__name__})") from None
    try:
        # Thousands of alerts take a while to read, in which the doors would stand still.
        return await asyncio.to_thread(_answer, url, alerts, silences, status, said_at, at)
    except (msgspec.DecodeError, RecursionError, OverflowError, BadAlert):
        raise Unanswered("does not answer as an Alertmanager does") from None


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities of the system, or those that SSL_CERT_FILE names."""
    return ssl.create_default_context()


async def _get(client: httpx.AsyncClient, path: str) -> tuple[bytes, datetime]:
    """The body, and when it was said by the clock of the peer."""
    async with client.stream("GET", path) as response:
        if response.status_code != 200:
            raise Unanswered(f"answers {response.status_code}")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > LARGEST_ANSWER:
                raise Unanswered("says more than can be read")
        return bytes(body), _said_at(response)


def _said_at(response: httpx.Response) -> datetime:
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return datetime.now(UTC)


class _Version(msgspec.Struct):
    version: str = ""


class _Cluster(msgspec.Struct):
    status: str


class _Status(msgspec.Struct):
    uptime: str  # the time of its start, in spite of the name
    cluster: _Cluster
    version: _Version = msgspec.field(default_factory=_Version, name="versionInfo")


class _State(msgspec.Struct):
    state: str


class _Receiver(msgspec.Struct):
    name: str


class _Alert(msgspec.Struct):
    status: _State
    receivers: list[_Receiver] = []


class _Silence(msgspec.Struct):
    status: _State


_STATUS = msgspec.json.Decoder(_Status)
_ALERTS = msgspec.json.Decoder(list[msgspec.Raw])
_ALERT = msgspec.json.Decoder(_Alert)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SILENCES = msgspec.json.Decoder(list[_Silence])
_FIRING = msgspec.Raw(b'"firing"')
_WORDS = 100  # characters of what a peer says of itself that are kept


def _answer(url: str, alerts: bytes, silences: bytes, status: bytes, said_at: datetime, at: datetime) -> Answer:
    """One alert that cannot be read makes the whole list unreadable: what is left out of it would seem to have gone."""
    told = _STATUS.decode(status)
    up_since, _ = parse_time(told.uptime)
    if up_since is None:
        raise BadAlert("bad_time", "no time of its start")
    return Answer(
        url=url,
        version=_shown(told.version.version),
        cluster=_shown(told.cluster.status),
        up_since=at - max(said_at - up_since, timedelta(0)),
        listed=[_listed(bytes(raw), at) for raw in _ALERTS.decode(alerts)],
        silences=sum(silence.status.state == "active" for silence in _SILENCES.decode(silences)),
    )


def _shown(words: str) -> str:
    return words[:_WORDS].replace("\0", "")


def _listed(raw: bytes, at: datetime) -> Listed:
    """As the webhook would have told it, so that both have one fingerprint."""
    listed = _ALERT.decode(raw)
    # Its `endsAt`, when it expires unless it is sent again, is no end of what fires.
    fields = _FIELDS.decode(raw) | {"status": _FIRING}
    return Listed(
        signal=alertmanager.signal_in(msgspec.json.encode(fields), at),
        active=listed.status.state == "active",
        receivers=frozenset(receiver.name for receiver in listed.receivers),
    )
