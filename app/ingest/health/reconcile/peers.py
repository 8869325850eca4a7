"""Client for Alertmanager's API v2: lists the alerts of one peer.

An admin sets the addresses, which are http or https. Redirects are not followed, because the credentials are only for
that address. Responses are treated as untrusted, like request bodies.
"""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache

import httpx
import msgspec

from app.base.threads import off_loop
from app.ingest.alerts import parse_time
from app.ingest.health.reconcile.compare import Listed, PeerState
from app.ingest.sender import Unreadable
from app.ingest.senders import alertmanager

ANSWER_AT_MOST = timedelta(seconds=20)
ANSWER_AT_MOST_BYTES = 32 * 2**20


class Unanswered(Exception):
    """A peer did not answer, or not like an Alertmanager. The message contains no secrets."""


async def fetch(url: str, *, username: str | None, secret: str | None, at: datetime, within: timedelta) -> PeerState:
    """The state of the peer at `url`. Raises Unanswered."""
    auth = httpx.BasicAuth(username, secret or "") if username else None
    headers = {"Accept-Encoding": "identity"}  # a compressed response could expand to a huge size
    if secret and not username:
        headers["Authorization"] = f"Bearer {secret}"
    try:
        async with (
            asyncio.timeout(min(within, ANSWER_AT_MOST).total_seconds()),
            # Ignore proxies and .netrc in the environment, so that only the configured credentials are sent.
            httpx.AsyncClient(
                base_url=url, auth=auth, headers=headers, verify=_trusted(), trust_env=False, follow_redirects=False
            ) as client,
        ):
            alerts, _ = await _get(client, "/api/v2/alerts")
            silences, _ = await _get(client, "/api/v2/silences")
            # Last, so that a restart of the peer during the poll is noticed.
            status, sent_at = await _get(client, "/api/v2/status")
    except TimeoutError:
        raise Unanswered("did not answer in time") from None
    except (httpx.HTTPError, OSError) as error:
        raise Unanswered(f"cannot be reached ({type(error).__name__})") from None
    try:
        return await off_loop(_state, url, alerts, silences, status, sent_at, at)
    except (msgspec.DecodeError, RecursionError, OverflowError, Unreadable):
        raise Unanswered("did not answer like an Alertmanager") from None


@cache
def _trusted() -> ssl.SSLContext:
    """The certificate authorities of the system, or those in SSL_CERT_FILE."""
    return ssl.create_default_context()


async def _get(client: httpx.AsyncClient, path: str) -> tuple[bytes, datetime]:
    """The body, and the time when it was sent according to the peer's clock."""
    async with client.stream("GET", path) as response:
        if response.status_code != 200:
            raise Unanswered(f"answered {response.status_code}")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > ANSWER_AT_MOST_BYTES:
                raise Unanswered(f"sent more than {ANSWER_AT_MOST_BYTES} bytes")
        return bytes(body), _sent_at(response)


def _sent_at(response: httpx.Response) -> datetime:
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return datetime.now(UTC)


class _Version(msgspec.Struct):
    version: str = ""


class _Cluster(msgspec.Struct):
    status: str


class _Status(msgspec.Struct):
    uptime: str  # the start time, despite the name
    cluster: _Cluster
    version: _Version = msgspec.field(default_factory=_Version, name="versionInfo")


class _AlertState(msgspec.Struct):
    state: str


class _Receiver(msgspec.Struct):
    name: str


class _Alert(msgspec.Struct):
    status: _AlertState
    receivers: list[_Receiver] = []


class _Silence(msgspec.Struct):
    status: _AlertState


_STATUS = msgspec.json.Decoder(_Status)
_ALERTS = msgspec.json.Decoder(list[msgspec.Raw])
_ALERT = msgspec.json.Decoder(_Alert)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SILENCES = msgspec.json.Decoder(list[_Silence])
_FIRING = msgspec.Raw(b'"firing"')
_TEXT_AT_MOST = 100  # characters of a peer's version and cluster state that are stored


def _state(url: str, alerts: bytes, silences: bytes, status: bytes, sent_at: datetime, at: datetime) -> PeerState:
    """Rejects the whole list if one alert is unreadable: if it were skipped, it would seem to have ended."""
    peer = _STATUS.decode(status)
    up_since, _ = parse_time(peer.uptime)
    if up_since is None:
        raise Unreadable("bad_time", "the start time of the peer is missing")
    return PeerState(
        url=url,
        version=_shortened(peer.version.version),
        cluster=_shortened(peer.cluster.status),
        up_since=at - max(sent_at - up_since, timedelta(0)),
        listed=[_listed(bytes(raw), at) for raw in _ALERTS.decode(alerts)],
        silences=sum(silence.status.state == "active" for silence in _SILENCES.decode(silences)),
    )


def _shortened(text: str) -> str:
    return text[:_TEXT_AT_MOST].replace("\0", "")


def _listed(raw: bytes, at: datetime) -> Listed:
    """Reads the alert as if the webhook had sent it, so that both have the same fingerprint."""
    listed = _ALERT.decode(raw)
    # The `endsAt` of a firing alert is its expiry unless it is resent, not its end.
    fields = _FIELDS.decode(raw) | {"status": _FIRING}
    return Listed(
        signal=alertmanager.signal_in(msgspec.json.encode(fields), at),
        active=listed.status.state == "active",
        receivers=frozenset(receiver.name for receiver in listed.receivers),
    )
