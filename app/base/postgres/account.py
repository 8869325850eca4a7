"""The account of the server: another user if the service runs as root, because PostgreSQL refuses to run as root."""

import contextlib
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from app.base.postgres.errors import CannotStart

ACCOUNTS = ("aftermath", "postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the system. `ours`: the user that runs the service."""

    uid: int
    gid: int
    name: str
    ours: bool

    def is_shut_out_of(self, directory: Path) -> bool:
        """Whether the permissions of `directory` or a parent deny access to the account, but not to the service."""
        return not self.ours and any(self._is_closed(path) for path in (directory, *directory.parents))

    def _is_closed(self, path: Path) -> bool:
        status = path.stat()
        if status.st_uid == self.uid:
            return not status.st_mode & stat.S_IXUSR
        return not status.st_mode & (stat.S_IXGRP if status.st_gid == self.gid else stat.S_IXOTH)


def account_for(data_dir: Path) -> Account:
    """Raises CannotStart if the data belongs to a user that the service cannot switch to."""
    cluster = data_dir / "postgres"
    owners = [path.stat().st_uid for path in (cluster, data_dir) if path.exists()]
    if os.geteuid() != 0:
        if owners and owners[0] != os.geteuid():
            raise CannotStart(
                f"{data_dir} belongs to user {name_of(owners[0])}: run as that user, or choose another "
                "AFTERMATH_DATA_DIR"
            )
        return Account(os.geteuid(), os.getegid(), name_of(os.geteuid()), ours=True)
    if cluster.exists() and owners[0] == 0:
        raise CannotStart(f"{cluster} belongs to root, but PostgreSQL cannot run as root: chown -R it to another user")
    candidates: list[int | str] = [*(owner for owner in owners if owner != 0), *ACCOUNTS]
    for candidate in candidates:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(candidate) if isinstance(candidate, str) else pwd.getpwuid(candidate)
            return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, ours=False)
    raise CannotStart(f"PostgreSQL cannot run as root and there is no user {' or '.join(ACCOUNTS)}: create one of them")


def name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
