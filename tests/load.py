"""Generated load that records which reports it sent and which were answered.

A `Plan` is an endless, seeded stream of deliveries: alerts of many series fire, repeat and resolve, out of order, and
are reported twice. `under_load` sends it over several connections in a separate thread, like real senders: a delivery
that is not answered 2xx is resent until it is. The set of its reports determines what must be stored in the end.
"""

import asyncio
import heapq
import json
import random
import threading
import time
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx

from app.incidents.grouping.law.episode import REFIRE, Episode, ReportedEnd, endings_of
from app.incidents.grouping.signal import EndReason

MILLISECOND = timedelta(milliseconds=1)
OURS = "10ad"  # prefix of every fingerprint of a plan


@dataclass(frozen=True, slots=True)
class Report:
    """The report about one alert in a delivery."""

    service: str
    fingerprint: str
    started_at: datetime
    ended_at: datetime | None = None

    def alert(self) -> dict[str, object]:
        return {
            "status": "resolved" if self.ended_at else "firing",
            "labels": {
                "alertname": "HighLatency",
                "service": self.service,
                "severity": "critical",
                "instance": self.fingerprint,
            },
            "annotations": {
                "summary": "p99 above 2 s, and has been for some minutes",
                "runbook": "https://wiki/latency",
            },
            "startsAt": rfc3339(self.started_at),
            "endsAt": rfc3339(self.ended_at) if self.ended_at else "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus:9090/graph?g0.expr=latency",
            "fingerprint": self.fingerprint,
        }


def rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@dataclass(slots=True)
class Delivery:
    reports: tuple[Report, ...]
    tries: int = 0

    def body(self) -> bytes:
        alerts = [one.alert() for one in self.reports]
        return json.dumps({"version": "4", "groupKey": "{}:{}", "status": "firing", "alerts": alerts}).encode()


@dataclass
class Plan:
    """Deliveries that depend only on the seed and on `until`, before which everything happened.

    Episodes of a service lie at random within `over`; a service has `per_service` of them and gives way to the next.
    """

    seed: int
    until: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    over: timedelta = timedelta(hours=10)
    per_service: int = 100
    services_at_once: int = 20
    sizes: Sequence[int] = (1, 1, 1, 5, 20)

    def deliveries(self) -> Iterator[Delivery]:
        random_of = random.Random(self.seed)
        # Reports by position in the stream: a repeat or a resolve may follow long after the firing, or precede it.
        coming: list[tuple[int, int, Report]] = []
        place = 0
        while True:
            reports = []
            for _ in range(random_of.choice(self.sizes)):
                while not coming or coming[0][0] > place:
                    for at, one in self._episode(random_of, place):
                        heapq.heappush(coming, (at, random_of.getrandbits(40), one))
                reports.append(heapq.heappop(coming)[2])
                place += 1
            yield Delivery(tuple(reports))

    def _episode(self, random_of: random.Random, place: int) -> Iterator[tuple[int, Report]]:
        lasts = timedelta(milliseconds=int(random_of.expovariate(1 / 600_000)) + 1)
        latest_start = self.until - timedelta(minutes=1)
        began = latest_start - timedelta(
            milliseconds=random_of.randrange(max(1, int(self.over.total_seconds() * 1000)))
        )
        number = place // (self.per_service * self.services_at_once) * self.services_at_once
        service = f"service-{number + random_of.randrange(self.services_at_once)}"
        # Few series a service, so that their episodes overlap and supersede one another now and then.
        fingerprint = f"{OURS}{random_of.randrange(30):04x}{zlib.crc32(service.encode()):08x}"
        firing = Report(service, fingerprint, began)
        yield place, firing
        if random_of.random() < 0.3:
            yield place + random_of.randrange(300), firing
        if random_of.random() < 0.7:
            resolved = Report(service, fingerprint, began, min(began + lasts, self.until))
            yield place + random_of.randrange(600), resolved
            if random_of.random() < 0.2:
                yield place + random_of.randrange(600), resolved


def episodes_of(reports: Sequence[Report]) -> dict[tuple[str, datetime], datetime | None]:
    """The episodes that result from these reports in any order and number: (fingerprint, start) → end."""
    named: dict[str, dict[datetime, datetime | None]] = defaultdict(dict)
    for one in reports:
        ends = [end for end in (named[one.fingerprint].get(one.started_at), one.ended_at) if end is not None]
        named[one.fingerprint][one.started_at] = max(ends, default=None)
    found = {}
    for fingerprint, starts in named.items():
        # Everything is reported within minutes, so that no end is void, and after all of it has happened.
        episodes = [
            Episode(start, _REPORTED_AT, ReportedEnd(end, EndReason.RECOVERED, _REPORTED_AT) if end else None)
            for start, end in sorted(starts.items(), key=lambda each: each[0])
        ]
        for episode, derived in zip(episodes, endings_of(episodes, refire=REFIRE), strict=True):
            found[fingerprint, episode.started_at] = derived.end.at if derived.end else None
    return found


_REPORTED_AT = datetime.max.replace(tzinfo=UTC)


# — sending —


class Cut(Exception):
    """The connection broke or closed before the response was complete."""


@dataclass
class Load:
    """Deliveries sent and answered. Can be read while it runs; call `finish` first for the total."""

    targets: Sequence[httpx.URL]
    token: str
    plan: Plan
    pause_seconds: float
    answered: list[tuple[Delivery, UUID | None]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    cut: int = 0
    seconds: list[float] = field(default_factory=list)
    _again: deque[Delivery] = field(default_factory=deque)
    _sent: list[Delivery] = field(default_factory=list)
    _no_more: threading.Event = field(default_factory=threading.Event)
    _give_up: threading.Event = field(default_factory=threading.Event)
    _under_way: int = 0
    _failed: BaseException | None = None

    @property
    def reports(self) -> list[Report]:
        """All reports sent, answered or not."""
        return [one for delivery in self._sent for one in delivery.reports]

    @property
    def answered_reports(self) -> list[Report]:
        return [one for delivery, _ in self.answered for one in delivery.reports]

    @property
    def unanswered(self) -> int:
        return len(self._again) + self._under_way

    def wait_for(self, deliveries: int, within: float = 60) -> None:
        """Waits until this many more are answered."""
        wanted, deadline = len(self.answered) + deliveries, time.monotonic() + within
        while len(self.answered) < wanted:
            assert self._failed is None, self._failed
            assert time.monotonic() < deadline, f"{self} answered too little within {within} s"
            time.sleep(0.02)

    def finish(self, within: float = 120) -> None:
        """Stops sending new deliveries and waits until all sent ones are answered 2xx."""
        self._no_more.set()
        deadline = time.monotonic() + within
        while self.unanswered:
            assert self._failed is None, self._failed
            assert time.monotonic() < deadline, f"{self} has unanswered deliveries after {within} s"
            time.sleep(0.02)

    def __str__(self) -> str:
        return f"answered {len(self.answered)}, to send again {len(self._again)}, {dict(self.statuses)}, cut {self.cut}"

    async def send(self, connections: int) -> None:
        """Returns when all deliveries are answered after `finish`, or immediately when it should give up."""
        deliveries = self.plan.deliveries()
        await asyncio.gather(
            *(self._send_over(self.targets[n % len(self.targets)], deliveries) for n in range(connections))
        )

    async def _send_over(self, target: httpx.URL, deliveries: Iterator[Delivery]) -> None:
        """One connection; a new one when it breaks."""
        while not self._is_over():
            with suppress(OSError, Cut):
                reader, writer = await asyncio.open_connection(target.host, target.port, limit=2**20)
                try:
                    while not self._is_over():
                        if delivery := self._next(deliveries):
                            await self._deliver(target, delivery, reader, writer)
                        await asyncio.sleep(self.pause_seconds if delivery else 0.02)
                finally:
                    writer.close()
            await asyncio.sleep(0.05)

    def _is_over(self) -> bool:
        return self._give_up.is_set() or (self._no_more.is_set() and not self.unanswered)

    def _next(self, deliveries: Iterator[Delivery]) -> Delivery | None:
        if self._again:
            return self._again.popleft()
        if self._no_more.is_set():
            return None
        delivery = next(deliveries)
        self._sent.append(delivery)
        return delivery

    async def _deliver(
        self, target: httpx.URL, delivery: Delivery, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Raises Cut or OSError; then the delivery will be sent again."""
        self._under_way += 1
        delivery.tries += 1
        began = time.monotonic()
        taken = False
        try:
            writer.write(request(target, self.token, delivery.body()))
            await writer.drain()
            status, answer = await answer_from(reader)
            self.statuses[status] += 1
            taken = status in {200, 202}
            if taken:
                self.seconds.append(time.monotonic() - began)
                delivery_id = json.loads(answer).get("delivery_id")
                self.answered.append((delivery, UUID(delivery_id) if delivery_id else None))
            else:
                await asyncio.sleep(0.05)
        except (OSError, Cut):
            self.cut += 1
            raise
        finally:
            # In this order, because `finish` reads them from another thread.
            if not taken:
                self._again.append(delivery)
            self._under_way -= 1


def request(target: httpx.URL, token: str, body: bytes) -> bytes:
    head = (
        f"POST /webhooks/alertmanager HTTP/1.1\r\nHost: {target.netloc.decode()}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def answer_from(reader: asyncio.StreamReader, within: float = 90) -> tuple[int, bytes]:
    """Status and body. Raises Cut."""
    try:
        async with asyncio.timeout(within):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next(
                int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length:")
            )
            return int(head.split(" ", 2)[1]), await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
        raise Cut from error


@contextmanager
def under_load(
    urls: str | Sequence[str], token: str, plan: Plan, *, connections: int = 16, pause_seconds: float = 0.0
) -> Iterator[Load]:
    """Runs the load during the block. `Load.finish` completes it; leaving the block aborts it."""
    targets = [httpx.URL(url) for url in ([urls] if isinstance(urls, str) else urls)]
    load = Load(targets, token, plan, pause_seconds)

    def run() -> None:
        try:
            asyncio.run(load.send(connections))
        except BaseException as error:  # noqa: BLE001  re-raised in the starting thread
            load._failed = error

    thread = threading.Thread(target=run, name="load")
    thread.start()
    try:
        yield load
    finally:
        load._give_up.set()
        thread.join(120)
    assert load._failed is None, load._failed
