"""Files in the data directory: private files, locks, and the size-limited log of the server."""

import asyncio
import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import IO

from app.base.postgres.account import Account
from app.base.postgres.errors import DataDirInUse

LOG_BYTES = 10 * 2**20


def make_data_dir(data_dir: Path, account: Account) -> None:
    if data_dir.exists():
        return
    data_dir.mkdir(parents=True, mode=0o700)
    if not account.ours:
        os.chown(data_dir, 0, account.gid)
        data_dir.chmod(0o710)


def claim(data_dir: Path) -> int:
    """Takes the lock that allows only one service in `data_dir`. The kernel releases it if the process is killed.

    Python opens files close-on-exec, so the server and spawned workers do not hold it; a bare fork would.
    """
    # Never unlinked, or two services could each hold a lock with that name.
    lock = open_private(data_dir / "lock", os.O_RDWR)
    if not take_lock(lock):
        holder = os.pread(lock, 20, 0).decode().strip() or "(unknown)"
        os.close(lock)
        raise DataDirInUse(
            f"{data_dir} is in use by process {holder}: stop that service, or set a different AFTERMATH_DATA_DIR for "
            "this one"
        )
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def take_lock(lock: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_private(path: Path, flags: int) -> int:
    """Opens a file that only its owner can read. Follows no links: root may be writing into the directory of a user."""
    opened = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:
        # Allow the owner of data_dir to run the service too.
        directory = path.parent.stat()
        os.fchown(opened, directory.st_uid, directory.st_gid)
    return opened


def sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def open_log(data_dir: Path) -> IO[bytes]:
    return os.fdopen(open_private(data_dir / "postgres.log", os.O_RDWR | os.O_APPEND), "r+b", buffering=0)


async def limit_log(data_dir: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if (data_dir / "postgres.log").stat().st_size > LOG_BYTES:
            await asyncio.to_thread(_move_log, data_dir)


def _move_log(data_dir: Path) -> None:
    """Moves the contents to postgres.log.1. They are copied, because the server has the log open for appending."""
    with (
        open_log(data_dir) as current,
        os.fdopen(open_private(data_dir / "postgres.log.1", os.O_WRONLY | os.O_TRUNC), "wb") as former,
    ):
        current.seek(-LOG_BYTES, os.SEEK_END)
        shutil.copyfileobj(current, former, 2**20)
        current.truncate(0)


def tail(file: Path, begins_at: int = 0) -> str:
    with file.open("rb") as opened:
        opened.seek(begins_at)
        return "\n".join(opened.read().decode(errors="replace").splitlines()[-20:])
