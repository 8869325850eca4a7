"""The directory of the socket. A cluster with a long path needs another one, because socket paths must be short."""

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
    """Whether a URL can contain the socket in `cluster`: a short path without `,` and `:`, which separate hosts."""
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
            # systemd-tmpfiles deletes old files, but not in a locked directory.
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            at_stop.callback(os.close, lock)
            take_lock(lock)
            return directory
    raise CannotStart("no temporary directory is accessible to all users: set TMPDIR to one with a short path")


def remove_runtime_directory(directory: Path, account: Account) -> None:
    # When run as root, the name comes from an untrusted file: remove only a directory that this module could have made.
    parents = [Path(each).resolve() for each in (tempfile.gettempdir(), "/tmp", "/var/tmp")]
    if directory.parent in parents and directory.name.startswith("aftermath-"):
        with contextlib.suppress(FileNotFoundError):
            # In a copy of a running cluster, the file names the directory of the original, which may still be running.
            if directory.lstat().st_uid == account.uid and not _is_listened_at(directory / ".s.PGSQL.5432"):
                shutil.rmtree(directory, ignore_errors=True)


def _is_listened_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):  # the path may be too long for a socket
        probe.setblocking(False)  # a full backlog also means that it is in use
        return probe.connect_ex(os.fsencode(path)) in {0, errno.EAGAIN}
    return False
