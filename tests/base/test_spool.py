"""Guarantees of the spool: stored deliveries are read back unchanged, whatever happens to the rest of the file."""

import asyncio
import errno
import fcntl
import os
import random
import re
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.process import spool
from app.base.process.spool import (
    DamagedRange,
    DamagedRecord,
    Depth,
    SegmentName,
    Spool,
    SpooledDelivery,
    SpoolUnavailable,
    payloads_in,
    read,
    record,
)

MARKER = bytes.fromhex("9f3c0aa1d7e24b5588c16de0f2b39a47")
OTHER_MARKER = bytes.fromhex("00112233445566778899aabbccddeeff")
NAME = SegmentName(1_780_000_000_000_000_000, MARKER)
MANY = 10**9


def a_spooled_delivery(number: int, body: bytes = b'{"alerts":[]}') -> SpooledDelivery:
    at = datetime(2026, 8, 20, 10, tzinfo=UTC) + timedelta(microseconds=number)
    return SpooledDelivery(UUID(int=number), "alertmanager", "prod", at, body)


# — the format —

# Bytes that look like a record, with this file's marker or another's, are only a payload.
payloads = st.lists(
    st.binary(max_size=60)
    | st.binary(max_size=30).map(lambda inner: record(inner, OTHER_MARKER))
    | st.binary(max_size=30).map(lambda inner: b"..." + record(inner, MARKER)),
    max_size=6,
)
innocent_payloads = st.lists(st.binary(max_size=60), min_size=1, max_size=6)


def spans(payloads: Sequence[bytes]) -> list[tuple[int, int]]:
    ends = [0]
    for payload in payloads:
        ends.append(ends[-1] + len(record(payload, MARKER)))
    return list(pairwise(ends))


def segment_of(payloads: Sequence[bytes]) -> bytes:
    return b"".join(record(payload, MARKER) for payload in payloads)


@given(payloads)
def test_written_payloads_are_read_back(payloads: list[bytes]) -> None:
    assert list(payloads_in(segment_of(payloads), MARKER)) == payloads


@given(innocent_payloads, st.data())
def test_a_flipped_byte_only_damages_its_own_record_and_is_reported(payloads: list[bytes], data: st.DataObject) -> None:
    segment = bytearray(segment_of(payloads))
    at = data.draw(st.integers(0, len(segment) - 1))
    segment[at] ^= data.draw(st.integers(1, 255))
    expected: list[bytes | DamagedRange] = [
        DamagedRange(start, end, torn=False) if start <= at < end else payload
        for payload, (start, end) in zip(payloads, spans(payloads), strict=True)
    ]
    assert list(payloads_in(bytes(segment), MARKER)) == expected


@given(innocent_payloads, st.data())
def test_a_segment_cut_anywhere_keeps_all_before_the_cut(payloads: list[bytes], data: st.DataObject) -> None:
    segment = segment_of(payloads)
    cut = data.draw(st.integers(0, len(segment)))
    whole = [payload for payload, (_, end) in zip(payloads, spans(payloads), strict=True) if end <= cut]
    rest = len(segment_of(whole))
    torn = [DamagedRange(rest, cut, torn=True)] if rest < cut else []
    assert list(payloads_in(segment[:cut], MARKER)) == [*whole, *torn]


@given(innocent_payloads, st.data())
def test_a_hole_only_damages_the_records_it_touches(payloads: list[bytes], data: st.DataObject) -> None:
    segment = segment_of(payloads)
    start = data.draw(st.integers(0, len(segment)))
    end = data.draw(st.integers(start, len(segment)))
    untouched = [p for p, (b, e) in zip(payloads, spans(payloads), strict=True) if e <= start or b >= end]
    found = list(payloads_in(segment[:start] + segment[end:], MARKER))
    read_back = [one for one in found if isinstance(one, bytes)]
    # Halves of two records may combine, but only into an original record.
    assert is_among(untouched, read_back)
    assert is_among(read_back, payloads)


def is_among(some: Sequence[bytes], all_: Sequence[bytes]) -> bool:
    """Whether `some` are in `all_`, in this order."""
    rest = iter(all_)
    return all(one in rest for one in some)


@given(innocent_payloads, st.binary(min_size=1, max_size=80), st.integers(0, 6))
def test_foreign_bytes_between_records_are_reported_and_damage_none(
    payloads: list[bytes], strange: bytes, place: int
) -> None:
    place = min(place, len(payloads) - 1)
    found = list(payloads_in(segment_of(payloads[:place]) + strange + segment_of(payloads[place:]), MARKER))
    start = len(segment_of(payloads[:place]))
    assert found == [*payloads[:place], DamagedRange(start, start + len(strange), torn=False), *payloads[place:]]


@given(st.binary(max_size=300))
def test_any_bytes_at_all_are_no_record(noise: bytes) -> None:
    assert all(isinstance(one, DamagedRange) for one in payloads_in(noise, MARKER))


def test_a_body_cannot_pass_for_a_record_even_in_a_damaged_one() -> None:
    """The body can contain all parts of a record except the marker, which senders cannot know."""
    segment = bytearray(segment_of([b"x" * 5 + record(b"forged", OTHER_MARKER), b"next"]))
    segment[20] ^= 1
    [damaged, after] = payloads_in(bytes(segment), MARKER)
    assert (isinstance(damaged, DamagedRange), after) == (True, b"next")


def test_a_last_record_whose_length_has_flipped_is_damage_and_not_torn() -> None:
    segment = bytearray(segment_of([b"first", b"last"]))
    segment[spans([b"first", b"last"])[1][0] + 16] ^= 1
    [_, stretch] = payloads_in(bytes(segment), MARKER)
    assert isinstance(stretch, DamagedRange)
    assert not stretch.torn


def test_a_delivery_is_read_back_complete() -> None:
    kept = a_spooled_delivery(7, bytes(range(256)) * 5000)
    assert read(record(msgspec.msgpack.encode(kept), MARKER), NAME) == [kept]


def test_an_unreadable_record_is_reported_with_a_stable_id() -> None:
    segment = segment_of([b"of another version", msgspec.msgpack.encode(a_spooled_delivery(1))])
    [damaged, kept] = read(segment, NAME)
    assert isinstance(damaged, DamagedRecord)
    assert (damaged.raw, damaged.received_at, kept) == (b"of another version", NAME.begun_at, a_spooled_delivery(1))
    assert read(segment, NAME)[0] == damaged


# — the spool on a disk —


class Taken:
    """Collects drained deliveries."""

    def __init__(self) -> None:
        self.all: list[SpooledDelivery | DamagedRecord] = []

    async def __call__(self, found: Sequence[SpooledDelivery | DamagedRecord]) -> bool:
        self.all += found
        return True


def segments(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "spool").glob("*.spool"))


def starts_of_records(segment: Path) -> list[int]:
    name = SegmentName.of(segment.name)
    assert name is not None
    return [found.start() for found in re.finditer(re.escape(name.marker), segment.read_bytes())]


async def refused(keeping: Awaitable[None]) -> str:
    with pytest.raises(SpoolUnavailable) as caught:
        await keeping
    return str(caught.value)


async def test_stored_deliveries_are_drained_in_order_after_a_restart(tmp_path: Path) -> None:
    async with Spool.at(tmp_path, max_bytes=MANY) as first:
        for number in range(10):
            await first.add(a_spooled_delivery(number))
    async with Spool.at(tmp_path, max_bytes=MANY) as second:
        for number in range(10, 20):
            await second.add(a_spooled_delivery(number))
        taken = Taken()
        await second.drain(taken)
        assert taken.all == [a_spooled_delivery(number) for number in range(20)]
        assert (await second.depth(), segments(tmp_path)) == (Depth(), [])


async def test_a_clock_that_is_set_back_does_not_change_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, time_ns in enumerate([5_000_000_000, 4_000_000_000, 4_500_000_000]):
        monkeypatch.setattr(time, "time_ns", lambda time_ns=time_ns: time_ns)
        async with Spool.at(tmp_path, max_bytes=MANY) as one:
            await one.add(a_spooled_delivery(number))
    async with Spool.at(tmp_path, max_bytes=MANY) as last:
        taken = Taken()
        await last.drain(taken)
    assert taken.all == [a_spooled_delivery(number) for number in range(3)]


async def test_the_spool_is_private(tmp_path: Path) -> None:
    async with Spool.at(tmp_path, max_bytes=MANY) as one:
        await one.add(a_spooled_delivery(1))
        [segment] = segments(tmp_path)
        assert (segment.stat().st_mode & 0o777, segment.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_all_that_wait_share_an_fsync_and_the_event_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk hangs until the test releases it. Deliveries that arrive meanwhile share one write."""
    go_on, synced = threading.Event(), []
    fsync = os.fsync

    def hanging(file: int) -> None:
        assert go_on.wait(30)
        synced.append("directory" if stat.S_ISDIR(os.fstat(file).st_mode) else os.fstat(file).st_size)
        fsync(file)

    monkeypatch.setattr(os, "fsync", hanging)
    async with Spool.at(tmp_path, max_bytes=MANY) as one:
        keeping = [asyncio.create_task(one.add(a_spooled_delivery(number))) for number in range(100)]
        await asyncio.sleep(0.05)  # the event loop runs although the disk hangs
        assert not any(task.done() for task in keeping)
        go_on.set()
        await asyncio.gather(*keeping)
        [segment] = segments(tmp_path)
        assert (synced[0], synced[-1]) == ("directory", segment.stat().st_size)
        assert len(synced) <= 3  # those of the directory, the first delivery, and all deliveries that arrived meanwhile
        assert (await one.depth()).records == 100


async def test_depth_covers_all_processes_and_reports_the_oldest(tmp_path: Path) -> None:
    async with Spool.at(tmp_path, max_bytes=MANY) as one, Spool.at(tmp_path, max_bytes=MANY) as other:
        assert await one.depth() == Depth()
        before = datetime.now(UTC)
        await one.add(a_spooled_delivery(1))
        between = datetime.now(UTC)
        await other.add(a_spooled_delivery(2))
        depth = await one.depth()
        assert (depth.records, depth.bytes) == (2, sum(file.stat().st_size for file in segments(tmp_path)))
        assert depth.oldest_at is not None
        assert before - timedelta(milliseconds=1) <= depth.oldest_at <= between
        assert depth == await other.depth()
        await one.add(a_spooled_delivery(3))
        assert (await other.depth()).records == 3


async def test_a_full_spool_rejects_deliveries_until_it_is_drained(tmp_path: Path) -> None:
    size = len(record(msgspec.msgpack.encode(a_spooled_delivery(1)), MARKER))
    async with Spool.at(tmp_path, max_bytes=3 * size + 100) as one:
        answers = await asyncio.gather(
            *(one.add(a_spooled_delivery(number)) for number in range(5)), return_exceptions=True
        )
        assert [str(answer) for answer in answers] == ["None"] * 3 + ["the spool is full"] * 2
        assert await refused(one.add(a_spooled_delivery(5))) == "the spool is full"
        # A smaller one still fits.
        assert one.unavailable_because is None
    async with Spool.at(tmp_path, max_bytes=3 * size) as again:
        assert again.unavailable_because == "the spool is full"
        taken = Taken()
        await again.drain(taken)
        assert taken.all == [a_spooled_delivery(number) for number in range(3)]
        assert again.unavailable_because is None
        await again.add(a_spooled_delivery(4))


async def test_a_delivery_larger_than_a_segment_is_stored_whole(tmp_path: Path) -> None:
    large = a_spooled_delivery(2, random.Random(1).randbytes(spool.SEGMENT_BYTES + 1))
    async with Spool.at(tmp_path, max_bytes=MANY) as one:
        await asyncio.gather(one.add(a_spooled_delivery(1)), one.add(large), one.add(a_spooled_delivery(3)))
        taken = Taken()
        await one.drain(taken)
    assert taken.all == [a_spooled_delivery(1), large, a_spooled_delivery(3)]


async def test_a_limit_of_0_bytes_disables_the_spool_and_existing_segments_are_drained(tmp_path: Path) -> None:
    async with Spool.at(tmp_path, max_bytes=0) as none:
        assert await refused(none.add(a_spooled_delivery(1))) == none.unavailable_because == "there is no spool"
        assert (await none.depth(), list(tmp_path.iterdir())) == (Depth(), [])
    async with Spool.at(tmp_path, max_bytes=MANY) as one:
        await one.add(a_spooled_delivery(1))
    async with Spool.at(tmp_path, max_bytes=0) as off:
        assert await refused(off.add(a_spooled_delivery(2))) == "there is no spool"
        taken = Taken()
        await off.drain(taken)
        assert (taken.all, segments(tmp_path)) == ([a_spooled_delivery(1)], [])


# — several processes —


async def test_a_segment_still_being_written_is_not_drained(tmp_path: Path) -> None:
    async with Spool.at(tmp_path, max_bytes=MANY) as one:
        async with Spool.at(tmp_path, max_bytes=MANY) as other:
            await one.add(a_spooled_delivery(1))
            await other.add(a_spooled_delivery(2))
            await one.add(a_spooled_delivery(3))
            taken = Taken()
            await one.drain(taken)
            assert taken.all == [a_spooled_delivery(1), a_spooled_delivery(3)]
        await one.drain(taken)
        assert taken.all == [a_spooled_delivery(1), a_spooled_delivery(3), a_spooled_delivery(2)]


async def test_one_process_at_a_time_drains(tmp_path: Path) -> None:
    async with Spool.at(tmp_path, max_bytes=MANY) as one, Spool.at(tmp_path, max_bytes=MANY) as other:
        await one.add(a_spooled_delivery(1))
        await other.add(a_spooled_delivery(2))
        taken, taken_by_other = Taken(), Taken()

        async def take(found: Sequence[SpooledDelivery | DamagedRecord]) -> bool:
            await other.drain(taken_by_other)
            return await taken(found)

        await one.drain(take)
        assert taken_by_other.all == []
        # It has closed its segment nevertheless.
        await one.drain(taken)
        assert taken.all == [a_spooled_delivery(1), a_spooled_delivery(2)]


async def test_a_segment_drained_before_its_first_record_is_recreated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def drained_first(file: int, operation: int) -> None:
        """Another process drains between creation and locking of the file."""
        if operation == fcntl.LOCK_EX:
            monkeypatch.setattr(fcntl, "flock", flock)
            segments(tmp_path)[0].unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", drained_first)
    async with Spool.at(tmp_path, max_bytes=MANY) as one:
        await one.add(a_spooled_delivery(1))
        taken = Taken()
        await one.drain(taken)
    assert taken.all == [a_spooled_delivery(1)]


# — failures —


async def test_a_segment_that_was_not_applied_is_offered_again(tmp_path: Path) -> None:
    async with Spool.at(tmp_path, max_bytes=MANY) as one:
        await one.add(a_spooled_delivery(1))

        async def away(_: Sequence[SpooledDelivery | DamagedRecord]) -> bool:
            raise ConnectionRefusedError

        with pytest.raises(ConnectionRefusedError):
            await one.drain(away)
        await one.add(a_spooled_delivery(2))
        taken = Taken()
        await one.drain(taken)
        assert taken.all == [a_spooled_delivery(1), a_spooled_delivery(2)]


async def test_a_torn_end_is_dropped_and_a_damaged_middle_is_reported(tmp_path: Path) -> None:
    async with Spool.at(tmp_path, max_bytes=MANY) as one:
        for number in range(4):
            await one.add(a_spooled_delivery(number))
    [segment] = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    [start, end] = starts_of_records(segment)[1:3]
    content[start + 50] ^= 1
    segment.write_bytes(content[:-1])
    async with Spool.at(tmp_path, max_bytes=MANY) as again:
        taken = Taken()
        await again.drain(taken)
    [first, damaged, third] = taken.all
    assert (first, third) == (a_spooled_delivery(0), a_spooled_delivery(2))
    assert isinstance(damaged, DamagedRecord)
    assert damaged.raw == content[start:end]


@pytest.mark.parametrize("failing", ["write", "fsync", "open"])
async def test_a_full_disk_rejects_new_deliveries_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """A failed write leaves no partial data, and the next write is tried."""
    real: Callable[..., int] = getattr(os, failing)

    def full(*args: object, **kwargs: object) -> int:
        if failing == "write":
            file, data = args
            real(file, bytes(data)[:10])  # type: ignore[call-overload]
        raise OSError(errno.ENOSPC, "No space left on device")

    async with Spool.at(tmp_path, max_bytes=MANY) as one:
        await one.add(a_spooled_delivery(1))
        if failing == "open":
            await one.drain(Taken())
        with monkeypatch.context() as patched:
            patched.setattr(os, failing, full)
            assert (
                await refused(one.add(a_spooled_delivery(2)))
                == one.unavailable_because
                == "the spool cannot write to its disk"
            )
        await one.add(a_spooled_delivery(3))
        assert one.unavailable_because is None
        # The state after a failed fsync is unknown, so the next write goes to another file.
        assert len(segments(tmp_path)) == (1 if failing == "open" else 2)
        taken = Taken()
        await one.drain(taken)
        assert taken.all == [*([a_spooled_delivery(1)] if failing != "open" else []), a_spooled_delivery(3)]
        assert (await one.depth(), segments(tmp_path)) == (Depth(), [])


async def test_a_directory_that_cannot_be_made_is_no_spool(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "spool").symlink_to(tmp_path / "elsewhere")
    for data_dir in (tmp_path / "file", tmp_path / "linked"):
        async with Spool.at(data_dir, max_bytes=MANY) as none:
            assert await refused(none.add(a_spooled_delivery(1))) == none.unavailable_because == "there is no spool"
            await none.drain(Taken())
            assert await none.depth() == Depth()


async def test_a_disconnecting_sender_does_not_affect_others(tmp_path: Path) -> None:
    async with Spool.at(tmp_path, max_bytes=MANY) as one:
        keeping = [asyncio.create_task(one.add(a_spooled_delivery(number))) for number in range(3)]
        await asyncio.sleep(0)
        keeping[0].cancel()
        await asyncio.gather(*keeping[1:])
        taken = Taken()
        await one.drain(taken)
    assert taken.all == [a_spooled_delivery(number) for number in range(3)]


async def test_closing_writes_pending_deliveries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 1)  # a write for each
    async with Spool.at(tmp_path, max_bytes=MANY) as one:
        keeping = [asyncio.create_task(one.add(a_spooled_delivery(number))) for number in range(4)]
        await asyncio.sleep(0)
    await asyncio.gather(*keeping)
    assert sum(len(starts_of_records(segment)) for segment in segments(tmp_path)) == 4


async def test_a_bug_while_writing_refuses_what_waits_and_the_next_delivery_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: object) -> None:
        raise LookupError

    async with Spool.at(tmp_path, max_bytes=2**20) as spool:
        monkeypatch.setattr(spool, "_write", fails)
        reasons = await asyncio.gather(
            *(refused(asyncio.wait_for(spool.add(a_spooled_delivery(n)), 10)) for n in range(3))
        )
        assert set(reasons) == {"the spool has failed; see the log"}
        assert "LookupError" in caplog.text
        monkeypatch.undo()
        await asyncio.wait_for(spool.add(a_spooled_delivery(4)), 10)
        assert (await spool.depth()).records == 1
