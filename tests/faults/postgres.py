"""PostgreSQL servers as operators run them: separate from the service, at a port of their own.

They use the binaries of the built-in server.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from app.base.postgres.account import Account, account_for
from app.base.postgres.cluster import copy_binaries, find_binaries
from tests.processes import Running, a_process, free_port, until


@dataclass
class Server:
    """One cluster that can be started, stopped, killed and promoted. It ends with `servers` at the latest."""

    directory: Path
    binaries: Path
    account: Account
    password: str
    at_end: ExitStack
    port: int = field(default_factory=free_port)
    starts: int = 0
    running: Running | None = None

    @property
    def cluster(self) -> Path:
        return self.directory / "cluster"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"postgresql://aftermath:{self.password}@{self.address}/postgres"

    def make(self) -> None:
        secret = self.directory / "password"
        secret.write_text(self.password)
        os.chown(secret, self.account.uid, self.account.gid)
        self.tool(
            *("initdb", f"--pgdata={self.cluster}", "--username=aftermath", f"--pwfile={secret}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
        )

    def start(self, **settings: str) -> None:
        """Until it takes connections; a standby takes them while it is one."""
        self.starts += 1
        command: list[str | Path] = [
            self.binaries / "bin" / "postgres",
            *("-D", self.cluster),
            *("-h", "127.0.0.1"),
            *("-p", str(self.port)),
            "--unix_socket_directories=",
            "--dynamic_shared_memory_type=mmap",
            "--max_connections=100",
            "--max_locks_per_transaction=256",
            *(f"--{name}={value}" for name, value in settings.items()),
        ]
        log_file = self.directory / f"postgres-{self.starts}.log"
        user = None if self.account.ours else self.account.uid
        self.running = self.at_end.enter_context(a_process(command, log_file, user=user))
        until(self.is_ready, "PostgreSQL is ready")

    def is_ready(self) -> bool:
        assert self.running is not None
        assert self.running.process.poll() is None, self.running.log()
        return self._tool("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)).returncode == 0

    def stop(self) -> None:
        """A fast shutdown, as an operator does it."""
        assert self.running is not None
        self.running.process.send_signal(signal.SIGINT)
        self.running.process.wait(60)

    def kill(self) -> None:
        """Kills all processes at once, as if the machine lost power."""
        self._signal(signal.SIGKILL)
        assert self.running is not None
        self.running.process.wait()

    def freeze(self) -> None:
        """Freezes all processes but keeps their connections, as if the machine hung."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        assert self.running is not None
        postmaster = psutil.Process(self.running.process.pid)
        for process in (postmaster, *postmaster.children()):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def end(self) -> None:
        """Ends all processes. Frozen ones survive their postmaster and then have another parent."""
        for process in psutil.process_iter():
            with suppress(psutil.Error, FileNotFoundError):  # the latter if it ends between two calls of psutil
                if process.cwd() == str(self.cluster):
                    process.kill()

    def copy_from(self, primary: "Server") -> None:
        """A standby of `primary`, which must run."""
        self.password = primary.password
        self.tool(
            *("pg_basebackup", f"--pgdata={self.cluster}", "--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            f"--dbname=host=127.0.0.1 port={primary.port} user=aftermath application_name={self.directory.name}",
        )

    def promote(self) -> None:
        self.tool("pg_ctl", "promote", f"--pgdata={self.cluster}", "--wait", "--timeout=60")

    def ask(self, query: str) -> str:
        """The output of psql."""
        return self.tool(
            *("psql", "--no-psqlrc", "--tuples-only", "--no-align", "-h", "127.0.0.1", "-p", str(self.port)),
            *("-U", "aftermath", "-d", "postgres", "-c", query),
        ).strip()

    def tool(self, name: str, *arguments: str) -> str:
        """The output of the command, which must succeed."""
        done = self._tool(name, *arguments)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        return done.stdout

    def _tool(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.binaries / "bin" / name, *arguments],
            cwd=self.directory,
            env={"PATH": os.defpath, "LC_ALL": "C", "PGPASSWORD": self.password},
            user=None if self.account.ours else self.account.uid,
            group=None if self.account.ours else self.account.gid,
            extra_groups=None if self.account.ours else [],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@contextmanager
def servers(*names: str) -> Iterator[list[Server]]:
    """Servers with these names, not created yet. Outside pytest's directory, which is closed to other users."""
    with ExitStack() as at_end:
        made = Path(tempfile.mkdtemp(prefix="servers-"))
        at_end.callback(shutil.rmtree, made, ignore_errors=True)
        account = account_for(made / "as-if-new")
        made.chmod(0o755)
        binaries = find_binaries()
        if account.is_shut_out_of(binaries):
            binaries = copy_binaries(binaries, made)
        found = []
        for name in names:
            directory = made / name
            directory.mkdir(0o700)
            os.chown(directory, account.uid, account.gid)
            server = Server(directory, binaries, account, secrets.token_urlsafe(16), at_end)
            at_end.callback(server.end)
            found.append(server)
        yield found


@contextmanager
def a_server() -> Iterator[Server]:
    """A running server with PostgreSQL's default durability."""
    with servers("alone") as [server]:
        server.make()
        server.start()
        yield server
