"""The directory of the socket. A cluster deep in the file system needs one elsewhere: the path of a socket is short."""

import contextlib
import errno
import os
import re
import shutil
import socket
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from app.base.postgres.account import Account
from app.base.postgres.errors import CannotStart
from app.base.postgres.files import take_lock

SOCKET_PATH_BYTES = 100  # sun_path has 104 bytes on macOS and 108 on Linux, with a zero at the end


def fits_socket(cluster: Path) -> bool:
    """Whether an address can name a socket in `cluster`: a short path without comma and colon, which separate hosts."""
    path = os.fsencode(cluster / ".s.PGSQL.5432")
    return len(path) <= SOCKET_PATH_BYTES and not re.search(rb"[,:]", path)


def make_runtime_directory(account: Account, at_stop: AsyncExitStack) -> Path:
    """A private directory with a short name that the server can reach."""
    for parent in dict.fromkeys(Path(each).resolve() for each in (tempfile.gettempdir(), "/tmp", "/var/tmp")):
        if fits_socket(parent / "aftermath-12345678") and parent.is_dir() and not account.is_shut_out_of(parent):
            directory = Path(tempfile.mkdtemp(prefix="aftermath-", dir=parent))
            at_stop.callback(shutil.rmtree, directory, ignore_errors=True)
            if not account.ours:
                os.chown(directory, account.uid, account.gid)
            # systemd-tmpfiles clears old files away, but not below a locked directory.
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            at_stop.callback(os.close, lock)
            take_lock(lock)
            return directory
    raise CannotStart("no directory for temporary files is open to all users: set TMPDIR to one with a short name")


def remove_runtime_directory(directory: Path, account: Account) -> None:
    # The name comes from a file that is not ours when we are root: only what we could have made ourselves is removed.
    parents = [Path(each).resolve() for each in (tempfile.gettempdir(), "/tmp", "/var/tmp")]
    if directory.parent in parents and directory.name.startswith("aftermath-"):
        with contextlib.suppress(FileNotFoundError):
            # In the copy of a cluster that ran, the file names the directory of the original, which may still run.
            if directory.lstat().st_uid == account.uid and not _is_listened_at(directory / ".s.PGSQL.5432"):
                shutil.rmtree(directory, ignore_errors=True)


def _is_listened_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):  # a name that is too long for a socket
        probe.setblocking(False)  # a full backlog is an answer too
        return probe.connect_ex(os.fsencode(path)) in {0, errno.EAGAIN}
    return False
