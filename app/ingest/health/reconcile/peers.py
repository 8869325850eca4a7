"""Client for Alertmanager's API v2: lists the alerts of one peer. Responses are treated as untrusted, like request
bodies.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import msgspec

from app.base.outgoing import Answer, NoAnswer, NotAllowed, OutgoingClient, OutgoingSession
from app.base.process.threads import off_loop_if_large
from app.ingest.health.reconcile.compare import ListedAlert, PeerSilence, PeerState
from app.ingest.reading.alerts import parse_time
from app.ingest.reading.json import has_more_values
from app.ingest.sender import Unreadable
from app.ingest.senders import alertmanager

ANSWER_AT_MOST = timedelta(seconds=20)
ANSWER_AT_MOST_BYTES = 32 * 2**20
LISTED_AT_MOST = 50_000  # alerts, or silences


class PeerUnavailable(Exception):
    """A peer did not answer, or not like an Alertmanager. The message contains no secrets."""


async def fetch(
    outgoing: OutgoingClient, url: str, *, username: str | None, secret: str | None, at: datetime, within: timedelta
) -> PeerState:
    """The state of the peer at `url`. Raises PeerUnavailable."""
    try:
        async with outgoing.session(
            url, within=min(within, ANSWER_AT_MOST), headers=_credentials(username, secret)
        ) as session:
            alerts = await _get(session, "/api/v2/alerts")
            silences = await _get(session, "/api/v2/silences")
            # Last, so that a restart of the peer during the poll is noticed.
            status = await _get(session, "/api/v2/status")
    except (NotAllowed, NoAnswer) as error:
        raise PeerUnavailable(str(error)) from None
    try:
        size = len(alerts.body) + len(silences.body)
        return await off_loop_if_large(size, _state, url, alerts.body, silences.body, status.body, _sent_at(status), at)
    except (msgspec.DecodeError, RecursionError, OverflowError, Unreadable):
        raise PeerUnavailable("did not respond like an Alertmanager") from None


def _credentials(username: str | None, secret: str | None) -> dict[str, str]:
    if username:
        return {"Authorization": "Basic " + b64encode(f"{username}:{secret or ''}".encode()).decode()}
    return {"Authorization": f"Bearer {secret}"} if secret else {}


async def _get(session: OutgoingSession, path: str) -> Answer:
    answer = await session.get(path, at_most=ANSWER_AT_MOST_BYTES)
    if answer.status != 200:
        raise PeerUnavailable(f"returned {answer.status}")
    return answer


def _sent_at(answer: Answer) -> datetime:
    """The time when the answer was sent according to the peer's clock."""
    try:
        return parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
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
    silenced_by: list[str] = msgspec.field(default_factory=list, name="silencedBy")


class _Receiver(msgspec.Struct):
    name: str


class _Alert(msgspec.Struct):
    status: _AlertState
    receivers: list[_Receiver] = []


class _Matcher(msgspec.Struct):
    name: str = ""
    value: str = ""
    is_regex: bool = msgspec.field(default=False, name="isRegex")
    is_equal: bool = msgspec.field(default=True, name="isEqual")

    def __str__(self) -> str:
        operator = ("=" if self.is_equal else "!") + ("~" if self.is_regex else "" if self.is_equal else "=")
        return f'{self.name}{operator}"{self.value}"'


class _Silence(msgspec.Struct):
    status: _AlertState
    id: str = ""
    by: str = msgspec.field(default="", name="createdBy")
    comment: str = ""
    matchers: list[_Matcher] = []
    starts: str = msgspec.field(default="", name="startsAt")
    ends: str = msgspec.field(default="", name="endsAt")


_STATUS = msgspec.json.Decoder(_Status)
_ALERTS = msgspec.json.Decoder(list[msgspec.Raw])
_ALERT = msgspec.json.Decoder(_Alert)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SILENCES = msgspec.json.Decoder(list[_Silence])
_FIRING = msgspec.Raw(b'"firing"')
_TEXT_AT_MOST = 100  # characters of a peer's version and cluster state, and of an author, that are stored
_COMMENT_AT_MOST = 1000  # of the comment of a silence, and of its matchers
_MATCHERS_AT_MOST = 20
_SILENCED_BY_AT_MOST = 10


def _state(url: str, alerts: bytes, silences: bytes, status: bytes, sent_at: datetime, at: datetime) -> PeerState:
    """Rejects the whole list if one alert is unreadable: if it were skipped, it would seem to have ended.

    Raises PeerUnavailable, Unreadable and the errors of the decoders.
    """
    for answer, what in ((alerts, "alerts"), (silences, "silences")):
        if has_more_values(answer, than=LISTED_AT_MOST, depth=1):
            raise PeerUnavailable(f"lists more than {LISTED_AT_MOST} {what}; route fewer alerts to this Alertmanager")
    peer = _STATUS.decode(status)
    up_since, _ = parse_time(peer.uptime)
    if up_since is None:
        raise Unreadable("bad_time", "the start time of the peer is missing")
    all_silences = _SILENCES.decode(silences)
    listed = [_listed(bytes(raw), at) for raw in _ALERTS.decode(alerts)]
    return PeerState(
        url=url,
        version=_shortened(peer.version.version),
        cluster=_shortened(peer.cluster.status),
        up_since=at - max(sent_at - up_since, timedelta(0)),
        listed=listed,
        silences=sum(silence.status.state == "active" for silence in all_silences),
        silenced_with=_silenced_with(all_silences, {id_ for one in listed for id_ in one.silenced_by}),
    )


def _silenced_with(silences: Sequence[_Silence], ids: AbstractSet[str]) -> Mapping[str, PeerSilence]:
    """The silences with these ids, without unreadable times: a silence is evidence, and not worth losing a poll."""
    found: dict[str, PeerSilence] = {}
    for one in silences:
        if one.id in ids:
            with suppress(Unreadable):
                (starts_at, _), (ends_at, _) = parse_time(one.starts), parse_time(one.ends)
                if starts_at is not None and ends_at is not None:
                    matchers = ", ".join(map(str, one.matchers[:_MATCHERS_AT_MOST]))
                    found[one.id] = PeerSilence(
                        _shortened(one.by),
                        _shortened(one.comment, _COMMENT_AT_MOST),
                        _shortened(matchers, _COMMENT_AT_MOST),
                        starts_at,
                        ends_at,
                    )
    return found


def _shortened(text: str, at_most: int = _TEXT_AT_MOST) -> str:
    return text[:at_most].replace("\0", "").encode("utf-8", "replace").decode()


def _listed(raw: bytes, at: datetime) -> ListedAlert:
    """Reads the alert as if the webhook had sent it, so that both have the same fingerprint."""
    listed = _ALERT.decode(raw)
    # The `endsAt` of a firing alert is its expiry unless it is resent, not its end.
    fields = _FIELDS.decode(raw) | {"status": _FIRING}
    return ListedAlert(
        signal=alertmanager.signal_in(msgspec.json.encode(fields), at),
        active=listed.status.state == "active",
        receivers=frozenset(receiver.name for receiver in listed.receivers),
        silenced_by=tuple(_shortened(id_) for id_ in listed.status.silenced_by[:_SILENCED_BY_AT_MOST]),
    )
