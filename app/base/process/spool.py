"""The spool: deliveries stored on disk while the database is unavailable.

    data_dir/spool/               private (0700); locked by the process that drains it
      <time>-<marker>.spool       a segment (0600): a sequence of records; locked while it is being written

`time` is when the segment was created, in nanoseconds since 1970 as 20 digits, so names sort by age. `marker` is 16
random bytes in hex. A record consists of

    marker     16 bytes    the marker in the file's name
    length      4 bytes    length of the payload, big-endian
    check       4 bytes    CRC-32 of marker and length
    payload                a `SpooledDelivery` as MessagePack
    digest     16 bytes    BLAKE2b of everything before it

After a damaged record, reading resumes at the next marker. Senders cannot know the marker, so a body cannot contain a
forged record. A final record with a valid start and a missing end is torn: its writer died before the fsync, so before
it answered the sender. Torn records are dropped. Anything else that cannot be read is damage, and is reported.

Each process writes its own segments, so processes never wait for each other. An unlocked segment belongs to the
draining process, which removes it once all of it has been applied. Progress within a segment is not stored: the
consumer must recognize a delivery by its id when it sees it again.

Every disk error becomes `SpoolUnavailable`: the sender gets a 503, and the service keeps running.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import secrets
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, ParamSpec, Self, TypeVar
from uuid import UUID, uuid5

import msgspec

log = logging.getLogger("aftermath.spool")

SEGMENT_BYTES = 2**20  # a segment of this size is closed; also the limit for one write
WAITING_BYTES = 32 * 2**20  # limit for deliveries held in memory while the disk is slow
FAILING_SECONDS = 5.0  # how long the spool reports itself as failing after a failed write; writes are still tried

RECENT_SECONDS = 1.0  # how long `recent_depth` uses the same result
P = ParamSpec("P")
T = TypeVar("T")


class SpoolUnavailable(Exception):
    """The spool cannot accept a delivery; the message gives the reason. The delivery has not been acknowledged."""


class SpooledDelivery(msgspec.Struct, frozen=True):
    """One delivery, with everything needed to apply it later as if the database had been available.

    The source is identified by name. The signature was verified on arrival.
    """

    id: UUID
    kind: str
    source: str
    received_at: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """A part of a segment that cannot be read. Its id is stable: reading the segment again gives the same id."""

    id: UUID
    received_at: datetime  # creation time of the segment; the actual time of arrival is lost
    raw: bytes


# Returns whether everything was applied. If not, the segment is offered again later.
Take = Callable[[Sequence[SpooledDelivery | DamagedRecord]], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Depth:
    """Contents of the spool, over all processes that share the data directory."""

    records: int = 0
    bytes: int = 0
    oldest_at: datetime | None = None


# — the format: pure —

MARKER_BYTES, DIGEST_BYTES = 16, 16
HEADER_BYTES = MARKER_BYTES + 4 + 4
OVERHEAD_BYTES = HEADER_BYTES + DIGEST_BYTES


class DamagedRange(NamedTuple):
    """Bytes of a segment that are not a record. `torn`: the start of a record at the very end."""

    start: int
    end: int
    torn: bool


def record(payload: bytes, marker: bytes) -> bytes:
    header = marker + len(payload).to_bytes(4, "big")
    header += zlib.crc32(header).to_bytes(4, "big")
    return header + payload + _digest(header, payload)


def payloads_in(segment: bytes, marker: bytes) -> Iterator[bytes | DamagedRange]:
    """The payloads of all intact records, in order, and the unreadable stretches between and after them."""
    at = 0
    while at < len(segment):
        end, payload = _record_at(segment, at, marker)
        if payload is not None:
            yield payload
        else:
            found = segment.find(marker, at + 1)
            end = found if found > 0 else len(segment)
            yield DamagedRange(at, end, torn=found < 0 and _is_beginning(segment[at:], marker))
        at = end


def _record_at(segment: bytes, at: int, marker: bytes) -> tuple[int, bytes | None]:
    """End and payload of the record at this position; the payload is None if the record is not intact."""
    header = segment[at : at + HEADER_BYTES]
    if not _is_header(header, marker):
        return at, None
    end = at + _record_bytes(header)
    payload, digest = segment[at + HEADER_BYTES : end - DIGEST_BYTES], segment[end - DIGEST_BYTES : end]
    return end, payload if digest == _digest(header, payload) else None


def _is_beginning(rest: bytes, marker: bytes) -> bool:
    if len(rest) < HEADER_BYTES:
        return rest[:MARKER_BYTES] == marker[: len(rest)]
    return _is_header(rest[:HEADER_BYTES], marker) and len(rest) < _record_bytes(rest)


def _is_header(header: bytes, marker: bytes) -> bool:
    checked = header[: MARKER_BYTES + 4]
    return checked.startswith(marker) and header[MARKER_BYTES + 4 :] == zlib.crc32(checked).to_bytes(4, "big")


def _record_bytes(header: bytes) -> int:
    return OVERHEAD_BYTES + int.from_bytes(header[MARKER_BYTES : MARKER_BYTES + 4], "big")


def _digest(header: bytes, payload: bytes) -> bytes:
    digest = blake2b(header, digest_size=DIGEST_BYTES)
    digest.update(payload)
    return digest.digest()


# — segments: files and their names —


class SegmentName(NamedTuple):
    begun_ns: int
    marker: bytes

    def __str__(self) -> str:
        return f"{self.begun_ns:020d}-{self.marker.hex()}.spool"

    @classmethod
    def of(cls, name: str) -> "SegmentName | None":
        found = re.fullmatch(r"(\d{20})-([0-9a-f]{32})\.spool", name, re.ASCII)
        return cls(int(found[1]), bytes.fromhex(found[2])) if found else None

    @property
    def begun_at(self) -> datetime:
        return datetime.fromtimestamp(self.begun_ns / 1e9, UTC)


def read(segment: bytes, name: SegmentName) -> list[SpooledDelivery | DamagedRecord]:
    """Contents of `segment`, without a torn record at the end."""
    found: list[SpooledDelivery | DamagedRecord] = []
    for one in payloads_in(segment, name.marker):
        match one:
            case DamagedRange(start, end, torn=True):
                log.warning("segment %s ends with an unacknowledged, torn record of %d bytes", name, end - start)
            case DamagedRange(start, end):
                log.error("segment %s is damaged from byte %d to %d", name, start, end)
                found.append(_damaged(name, len(found), segment[start:end]))
            case payload:
                try:
                    found.append(_SPOOLED_DELIVERY.decode(payload))
                except msgspec.MsgspecError:  # written by another version
                    log.exception("segment %s contains a record that this version cannot read", name)
                    found.append(_damaged(name, len(found), payload))
    return found


def _damaged(name: SegmentName, position: int, raw: bytes) -> DamagedRecord:
    return DamagedRecord(uuid5(UUID(bytes=name.marker), str(position)), name.begun_at, raw)


_SPOOLED_DELIVERY = msgspec.msgpack.Decoder(SpooledDelivery)


class _Segment:
    """A segment that this process is writing."""

    def __init__(self, directory: int) -> None:
        """Raises OSError, and then leaves no file behind."""
        self._directory = directory
        self.name = SegmentName(_next_time(directory), secrets.token_bytes(MARKER_BYTES))
        self.bytes = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._file = os.open(str(self.name), flags, 0o600, dir_fd=directory)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            os.fsync(directory)
        except BaseException:
            self.end()
            raise

    @property
    def is_there(self) -> bool:
        """False if the draining process removed the empty file before it was locked here."""
        return os.fstat(self._file).st_nlink > 0

    def append(self, payloads: Sequence[bytes]) -> None:
        """Writes all payloads to disk. After an OSError the segment must not be written again."""
        written = memoryview(b"".join(record(payload, self.name.marker) for payload in payloads))
        try:
            end = self.bytes + len(written)
            while written:
                written = written[os.write(self._file, written) :]
            os.fsync(self._file)
        except OSError:
            # Remove the rejected deliveries from the file. If that fails, they are applied later, as if accepted.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.bytes)
            raise
        self.bytes = end

    def end(self) -> None:
        """Closes the segment, so that it can be drained. An empty segment is removed."""
        with contextlib.suppress(OSError):
            if self.bytes == 0:
                os.unlink(str(self.name), dir_fd=self._directory)
        with contextlib.suppress(OSError):
            os.close(self._file)


def _next_time(directory: int) -> int:
    """Now, but later than any existing segment: setting the clock back must not change the order."""
    return max(time.time_ns(), *(name.begun_ns + 1 for name in _names(directory)), 0)


def _names(directory: int) -> list[SegmentName]:
    return sorted(name for file in os.listdir(directory) if (name := SegmentName.of(file)) is not None)


# — the spool —


class Spool:
    """Stores deliveries of this process, and drains those of all. `async with Spool.at(data_dir, …) as spool:`

    Deliveries that arrive during a write share the next write and its fsync. All disk access is in a dedicated thread,
    so the event loop never blocks on the disk.
    """

    def __init__(self, directory: int | None, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._segment: _Segment | None = None
        self._used_bytes = 0  # as of the last check; other processes write too
        self._fails_until = self._fresh_until = 0.0
        self._waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._waiting_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._counts: dict[SegmentName, tuple[int, int]] = {}
        self._last_depth = Depth()

    @classmethod
    def at(cls, data_dir: Path, *, max_bytes: int) -> "Spool":
        """The spool of `data_dir`, created if necessary. With `max_bytes` 0 it only drains existing segments.

        If the directory cannot be opened, the error is logged, and the spool stores nothing and drains nothing.
        """
        path = data_dir / "spool"
        try:
            if max_bytes:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not path.exists():
                return cls(None, max_bytes=0)
            # Do not follow links: when run as root, the account of the built-in PostgreSQL shares the data directory.
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            log.error("the spool directory %s cannot be used: %s", path, error)  # noqa: TRY400  no traceback needed
            return cls(None, max_bytes=0)
        return cls(directory, max_bytes=max_bytes)

    async def __aenter__(self) -> Self:
        await self.depth()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Pending deliveries are still written."""
        if self._writer:
            await self._writer
        await self._on_disk(self._end_segment)
        self._disk.shutdown()
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    @property
    def unavailable_because(self) -> str | None:
        """The reason why the next delivery would be rejected; None if it would be accepted."""
        if self._directory is None or not self._max_bytes:
            return "there is no spool"
        if self._used_bytes + self._waiting_bytes + OVERHEAD_BYTES >= self._max_bytes:
            return "the spool is full"
        if time.monotonic() < self._fails_until:
            return "the spool cannot write to its disk"
        return None

    async def add(self, delivery: SpooledDelivery) -> None:
        """Returns once the delivery is safely on disk. Raises SpoolUnavailable."""
        payload = msgspec.msgpack.encode(delivery)
        size = len(payload) + OVERHEAD_BYTES
        if self._directory is None or not self._max_bytes:
            raise SpoolUnavailable("there is no spool")
        if self._used_bytes + self._waiting_bytes + size > self._max_bytes:
            raise SpoolUnavailable("the spool is full")
        if self._waiting_bytes and self._waiting_bytes + size > WAITING_BYTES:
            raise SpoolUnavailable("too many deliveries are waiting to be written to the spool")
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((payload, written))
        self._waiting_bytes += size
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name="spool")
        await written

    async def drain(self, take: Take) -> None:
        """Passes each segment to `take`, oldest first, and removes it once it has been applied.

        Does nothing while another process is draining. A segment that was not applied is offered again next time, and
        does not hold up the others. An exception raised by `take` ends the drain.
        """
        if self._directory is None:
            return
        await self._on_disk(self._end_segment)
        try:
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        try:
            for name in await self._on_disk(_names, self._directory):
                await self._drain_segment(name, take)
        finally:
            fcntl.flock(self._directory, fcntl.LOCK_UN)

    async def depth(self) -> Depth:
        """Counts the segments of all processes that share the data directory."""
        if self._directory is not None:
            self._last_depth = await self._on_disk(self._look)
        return self._last_depth

    async def recent_depth(self) -> Depth:
        """Like `depth`, but up to a second old, so that frequent probes do not delay writes."""
        if time.monotonic() >= self._fresh_until:
            self._fresh_until = time.monotonic() + RECENT_SECONDS
            await self.depth()
        return self._last_depth

    # The methods up to `_drain_segment` run on the event loop, the rest in the disk thread.

    async def _write_all(self) -> None:
        batch: Sequence[tuple[bytes, asyncio.Future[None]]] = []
        try:
            while self._waiting:
                batch = self._next_batch()
                try:
                    await self._on_disk(self._write, [payload for payload, _ in batch])
                    self._fails_until = 0.0
                    _answer(batch, None)
                except OSError as error:
                    log.error("the spool cannot write to its disk: %s", error)  # noqa: TRY400  no traceback needed
                    self._fails_until = time.monotonic() + FAILING_SECONDS
                    _answer(batch, SpoolUnavailable("the spool cannot write to its disk"))
                self._waiting_bytes -= sum(len(payload) + OVERHEAD_BYTES for payload, _ in batch)
        except Exception:
            log.exception("the spool has failed")
        finally:
            # After a bug, too: no client may wait forever, and the next delivery starts another writer.
            _answer([*batch, *self._waiting], SpoolUnavailable("the spool has failed; see the log"))
            self._waiting.clear()
            self._writer, self._waiting_bytes = None, 0

    def _next_batch(self) -> list[tuple[bytes, asyncio.Future[None]]]:
        batch = [self._waiting.popleft()]
        size = len(batch[0][0])
        while self._waiting and size + len(self._waiting[0][0]) <= SEGMENT_BYTES:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0])
        return batch

    async def _on_disk(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, partial(action, *args, **kwargs))

    async def _drain_segment(self, name: SegmentName, take: Take) -> None:
        try:
            claimed = await self._on_disk(self._claim, name)
        except OSError as error:
            log.error("segment %s cannot be read: %s", name, error)  # noqa: TRY400  no traceback needed
            return
        if claimed is None:
            return
        file, found = claimed
        try:
            if not found or await take(found):
                await self._on_disk(self._forget, name)
        finally:
            os.close(file)

    def _claim(self, name: SegmentName) -> tuple[int, list[SpooledDelivery | DamagedRecord]] | None:
        """The open, locked segment and its contents; None while another process writes to it."""
        file = self._opened(name)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with os.fdopen(file, "rb", closefd=False) as segment:
                return file, read(segment.read(), name)
        except BlockingIOError:
            os.close(file)
            return None
        except BaseException:
            os.close(file)
            raise

    def _forget(self, name: SegmentName) -> None:
        with contextlib.suppress(FileNotFoundError):  # empty, and already removed by its writer
            size = os.stat(str(name), dir_fd=self._directory).st_size
            os.unlink(str(name), dir_fd=self._directory)
            self._used_bytes -= size

    def _write(self, payloads: Sequence[bytes]) -> None:
        """Raises OSError and then closes the segment: after a failed fsync, the next one may wrongly report success."""
        assert self._directory is not None
        while self._segment is None or not self._segment.is_there:
            self._end_segment()
            self._segment = _Segment(self._directory)
        before = self._segment.bytes
        try:
            self._segment.append(payloads)
        except BaseException:
            self._end_segment()
            raise
        self._used_bytes += self._segment.bytes - before
        if self._segment.bytes >= SEGMENT_BYTES:
            self._end_segment()

    def _end_segment(self) -> None:
        if self._segment:
            self._segment.end()
        self._segment = None

    def _look(self) -> Depth:
        assert self._directory is not None
        counts: dict[SegmentName, tuple[int, int]] = {}
        for name in _names(self._directory):
            with contextlib.suppress(OSError):  # drained meanwhile, or unreadable, which the drain reports
                size = os.stat(str(name), dir_fd=self._directory).st_size
                known = self._counts.get(name)
                counts[name] = known if known and known[0] == size else (size, self._count(name))
        self._counts = counts
        self._used_bytes = sum(size for size, _ in counts.values())
        oldest = next((name.begun_at for name, (size, _) in counts.items() if size), None)
        return Depth(sum(records for _, records in counts.values()), self._used_bytes, oldest)

    def _count(self, name: SegmentName) -> int:
        with os.fdopen(self._opened(name), "rb") as segment:
            return segment.read().count(name.marker)

    def _opened(self, name: SegmentName) -> int:
        return os.open(str(name), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._directory)


def _answer(batch: Iterable[tuple[bytes, asyncio.Future[None]]], error: Exception | None) -> None:
    for written in (written for _, written in batch if not written.done()):
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)
            # If the client has disconnected, nothing retrieves the exception, and asyncio would log a warning.
            written.exception()
