"""The spool: deliveries on disk, for as long as the database is away.

    data_dir/spool/               for us alone (0700); locked by the process that drains
      <time>-<marker>.spool       a segment (0600): records, one behind the other; locked while it is written to

`time` is when the segment was begun, in nanoseconds since 1970 as 20 digits, so that names sort by age. `marker` is 16
random bytes in hex. A record is

    marker     16 bytes    that of the file's name
    length      4 bytes    of the payload, big-endian
    check       4 bytes    CRC-32 of marker and length
    payload                a `Kept` as MessagePack
    digest     16 bytes    BLAKE2b of all before

Behind a damaged record reading goes on at the next marker. No sender knows it: a body that holds what looks like a
record cannot become one. A last record whose beginning is right and whose end is missing was torn: whoever wrote it
died before the fsync, and so before the answer. It is left out. All else that cannot be read is damage, and is told.

Each process writes to segments of its own, so that none waits for another; a segment that nobody holds locked belongs
to whoever drains. It is removed when all of it has been taken. How far a segment has been taken is not written down:
whoever takes must know a delivery again by its id.

Any error of the disk is `CannotKeep`, which costs a sender a 503 and never the service its life.
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
from collections.abc import Awaitable, Callable, Iterator, Sequence
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

SEGMENT_BYTES = 2**20  # a segment that has grown so large is ended; a batch of writes is no larger
WAITING_BYTES = 32 * 2**20  # what may wait in memory for a slow disk
FAILING_SECONDS = 5.0  # how long a failed write speaks against the next one; it is tried all the same

P = ParamSpec("P")
T = TypeVar("T")


class CannotKeep(Exception):
    """Why the spool does not take a delivery. Nothing of it has been promised to anybody."""


class Kept(msgspec.Struct, frozen=True):
    """One delivery: all that is needed to take it as if the database had been there.

    The source goes by its name, and its signature was checked on arrival.
    """

    id: UUID
    kind: str
    source: str
    received_at: datetime
    body: bytes


@dataclass(frozen=True, slots=True)
class Damaged:
    """A stretch of a segment that cannot be read. The same stretch has the same id whenever it is found."""

    id: UUID
    received_at: datetime  # when its segment was begun; its own time is lost with it
    raw: bytes


# Whether all of it was taken; what was not comes again.
Take = Callable[[Sequence[Kept | Damaged]], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Depth:
    """What the spools of all processes of this data directory hold."""

    records: int = 0
    bytes: int = 0
    oldest_at: datetime | None = None


# — the format: pure —

MARKER_BYTES, DIGEST_BYTES = 16, 16
HEADER_BYTES = MARKER_BYTES + 4 + 4
OVERHEAD_BYTES = HEADER_BYTES + DIGEST_BYTES


class Stretch(NamedTuple):
    """Bytes of a segment that are no record. `torn`: the beginning of one, at the very end."""

    begins: int
    ends: int
    torn: bool


def record(payload: bytes, marker: bytes) -> bytes:
    header = marker + len(payload).to_bytes(4, "big")
    header += zlib.crc32(header).to_bytes(4, "big")
    return header + payload + _digest(header, payload)


def payloads_in(segment: bytes, marker: bytes) -> Iterator[bytes | Stretch]:
    """The payload of every record that is as it was written, in order, and what lies between and behind them."""
    at = 0
    while at < len(segment):
        ends, payload = _record_at(segment, at, marker)
        if payload is not None:
            yield payload
        else:
            found = segment.find(marker, at + 1)
            ends = found if found > 0 else len(segment)
            yield Stretch(at, ends, torn=found < 0 and _is_beginning(segment[at:], marker))
        at = ends


def _record_at(segment: bytes, at: int, marker: bytes) -> tuple[int, bytes | None]:
    """Where the record ends, and its payload; None if there is no sound record."""
    header = segment[at : at + HEADER_BYTES]
    if not _is_header(header, marker):
        return at, None
    ends = at + _record_bytes(header)
    payload, digest = segment[at + HEADER_BYTES : ends - DIGEST_BYTES], segment[ends - DIGEST_BYTES : ends]
    return ends, payload if digest == _digest(header, payload) else None


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


def read(segment: bytes, name: SegmentName) -> list[Kept | Damaged]:
    """What `segment` holds, but for a torn end."""
    found: list[Kept | Damaged] = []
    for one in payloads_in(segment, name.marker):
        match one:
            case Stretch(begins, ends, torn=True):
                log.warning("segment %s ends in a record that was never answered; %d bytes", name, ends - begins)
            case Stretch(begins, ends):
                log.error("segment %s is damaged from byte %d to %d", name, begins, ends)
                found.append(_damaged(name, len(found), segment[begins:ends]))
            case payload:
                try:
                    found.append(_KEPT.decode(payload))
                except msgspec.MsgspecError:  # as another version wrote it
                    log.exception("segment %s holds a record that this version cannot read", name)
                    found.append(_damaged(name, len(found), payload))
    return found


def _damaged(name: SegmentName, position: int, raw: bytes) -> Damaged:
    return Damaged(uuid5(UUID(bytes=name.marker), str(position)), name.begun_at, raw)


_KEPT = msgspec.msgpack.Decoder(Kept)


class _Segment:
    """A segment of this process, open for writing."""

    def __init__(self, directory: int) -> None:
        """Raises OSError; then nothing is left of it."""
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
        """Not if whoever drains came before our lock, and found it empty."""
        return os.fstat(self._file).st_nlink > 0

    def append(self, payloads: Sequence[bytes]) -> None:
        """All of it on disk, or OSError: the segment must not be written to again then."""
        written = memoryview(b"".join(record(payload, self.name.marker) for payload in payloads))
        try:
            ends = self.bytes + len(written)
            while written:
                written = written[os.write(self._file, written) :]
            os.fsync(self._file)
        except OSError:
            # What is refused is better not kept; where it cannot be taken back, it is taken for a delivery later on.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.bytes)
            raise
        self.bytes = ends

    def end(self) -> None:
        """From now on it belongs to whoever drains; one without a record is removed."""
        with contextlib.suppress(OSError):
            if self.bytes == 0:
                os.unlink(str(self.name), dir_fd=self._directory)
        with contextlib.suppress(OSError):
            os.close(self._file)


def _next_time(directory: int) -> int:
    """Now, but later than any segment there is: a clock that is set back must not change the order."""
    return max(time.time_ns(), *(name.begun_ns + 1 for name in _names(directory)), 0)


def _names(directory: int) -> list[SegmentName]:
    return sorted(name for file in os.listdir(directory) if (name := SegmentName.of(file)) is not None)


# — the spool —


class Spool:
    """What this process keeps, and what it drains for all. `async with Spool.at(data_dir, …) as spool:`

    Deliveries that come while one write is under way share the next one, and its fsync. All waiting for the disk is
    done in one thread of its own, never by the event loop.
    """

    def __init__(self, directory: int | None, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._segment: _Segment | None = None
        self._used_bytes = 0  # as last looked at; other processes write too
        self._fails_until = 0.0
        self._waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._waiting_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._counts: dict[SegmentName, tuple[int, int]] = {}

    @classmethod
    def at(cls, data_dir: Path, *, max_bytes: int) -> "Spool":
        """The spool of `data_dir`, made if there is none. With 0 bytes it keeps nothing, and drains what is there.

        Where the disk does not let us there is none: it says so, keeps nothing and has nothing to drain.
        """
        path = data_dir / "spool"
        try:
            if max_bytes:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not path.exists():
                return cls(None, max_bytes=0)
            # Not through a link: as root we share the data directory with the account of the built-in PostgreSQL.
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            log.error("no spool in %s: %s", path, error)  # noqa: TRY400  the message says it all
            return cls(None, max_bytes=0)
        return cls(directory, max_bytes=max_bytes)

    async def __aenter__(self) -> Self:
        await self.depth()
        return self

    async def __aexit__(self, *_: object) -> None:
        """What waits is still written."""
        if self._writer:
            await self._writer
        await self._on_disk(self._end_segment)
        self._disk.shutdown()
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    @property
    def why_not(self) -> str | None:
        """Why the next delivery would not be kept; None if it would."""
        if self._directory is None or not self._max_bytes:
            return "there is no spool"
        if self._used_bytes + self._waiting_bytes + OVERHEAD_BYTES >= self._max_bytes:
            return "the spool is full"
        if time.monotonic() < self._fails_until:
            return "the spool cannot write to its disk"
        return None

    async def keep(self, kept: Kept) -> None:
        """Returns once it is on disk for good. Raises CannotKeep."""
        payload = msgspec.msgpack.encode(kept)
        size = len(payload) + OVERHEAD_BYTES
        if self._directory is None or not self._max_bytes:
            raise CannotKeep("there is no spool")
        if self._used_bytes + self._waiting_bytes + size > self._max_bytes:
            raise CannotKeep("the spool is full")
        if self._waiting_bytes and self._waiting_bytes + size > WAITING_BYTES:
            raise CannotKeep("too much waits for the disk of the spool")
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((payload, written))
        self._waiting_bytes += size
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name="spool")
        await written

    async def drain(self, take: Take) -> None:
        """Hands everything to `take`, a segment at a time and the oldest first, and then forgets it.

        Does nothing while another process drains. A segment that is not taken comes again next time; the others go on.
        What `take` raises ends it.
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
        """Of all processes that share the data directory."""
        return await self._on_disk(self._look) if self._directory is not None else Depth()

    # What follows up to `_drain_segment` runs on the event loop, the rest in the thread of the disk.

    async def _write_all(self) -> None:
        while self._waiting:
            batch = self._next_batch()
            size = sum(len(payload) + OVERHEAD_BYTES for payload, _ in batch)
            try:
                await self._on_disk(self._write, [payload for payload, _ in batch])
            except OSError as error:
                log.error("the spool cannot write: %s", error)  # noqa: TRY400  the message says it all
                self._fails_until = time.monotonic() + FAILING_SECONDS
                _answer(batch, CannotKeep("the spool cannot write to its disk"))
            else:
                self._fails_until = 0.0
                _answer(batch, None)
            self._waiting_bytes -= size
        self._writer = None

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
            log.error("segment %s cannot be read: %s", name, error)  # noqa: TRY400  the message says it all
            return
        if claimed is None:
            return
        file, found = claimed
        try:
            if not found or await take(found):
                await self._on_disk(self._forget, name)
        finally:
            os.close(file)

    def _claim(self, name: SegmentName) -> tuple[int, list[Kept | Damaged]] | None:
        """The segment, open and locked, and what it holds; None while another process writes to it."""
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
        with contextlib.suppress(FileNotFoundError):  # an empty one that its writer has removed
            size = os.stat(str(name), dir_fd=self._directory).st_size
            os.unlink(str(name), dir_fd=self._directory)
            self._used_bytes -= size

    def _write(self, payloads: Sequence[bytes]) -> None:
        """Raises OSError; then the segment is ended, as its next fsync might lie."""
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
            with contextlib.suppress(OSError):  # taken meanwhile, or unreadable, which draining tells
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


def _answer(batch: Sequence[tuple[bytes, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, written in batch:
        if written.done():
            continue
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)
            # The client may have gone: then nobody asks for the exception, and asyncio would complain.
            written.exception()
