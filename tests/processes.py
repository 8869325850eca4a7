"""Real processes for tests: the service as a user starts it, Debian's Prometheus, Alertmanager and PostgreSQL 15.

Each is started on loopback at a free port, in a process group of its own, and ends with its block in any case. Only
processes started here are ended: they are recognized by a variable in their environment, a built-in PostgreSQL by its
working directory. A missing program is an error, never a reason to skip.

    python -m tests.processes postgres15 -- pytest …     with AFTERMATH_TEST_DATABASE_URL of a new cluster
"""

import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil  # type: ignore[import-untyped]

REPOSITORY = Path(__file__).resolve().parent.parent
POSTGRES15 = Path("/usr/lib/postgresql/15/bin")
PACKAGES = (
    "apt-get install prometheus prometheus-alertmanager victoria-metrics postgresql-15 wrk zabbix-server-pgsql openssl"
)
# The command installed by `make test`, next to the Python that runs the tests.
AFTERMATH = Path(sys.executable).with_name("aftermath")
MARK = "STARTED_BY_TESTS"  # not AFTERMATH_…: the service rejects unknown variables with that prefix

T = TypeVar("T")


def until(answer: Callable[[], T | None], what: str, within: float = 120, every: float = 0.1) -> T:
    """The first truthy result. An unreachable server counts as no result yet."""
    deadline = time.monotonic() + within
    while True:
        with suppress(httpx.TransportError):
            found = answer()
            if found:
                return found
        assert time.monotonic() < deadline, f"waited {within} s in vain until {what}"
        time.sleep(every)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """The path of the program. Raises FileNotFoundError, which names the package to install."""
    found = shutil.which(name)
    if found is None:
        message = f"{name} is not installed: {PACKAGES}"
        raise FileNotFoundError(message)
    return found


# — any process —


@dataclass
class Running:
    """A started process and its output."""

    process: subprocess.Popen[bytes]
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def stop(self, within: float = 60) -> int:
        """Sends SIGTERM and returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def a_process(
    command: Sequence[str | Path],
    log_file: Path,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path = REPOSITORY,
    user: int | None = None,
) -> Iterator[Running]:
    """Its output goes to `log_file`. When the block ends, the process and everything it started are killed."""
    mark = secrets.token_hex(8)
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**_environment(), **(environment or {}), MARK: mark},
            start_new_session=True,
            user=user,
            group=user and pwd.getpwuid(user).pw_gid,
            extra_groups=None if user is None else [],
        )
    try:
        yield Running(process, log_file)
    finally:
        for marked in _marked(mark):
            with suppress(psutil.NoSuchProcess):
                marked.kill()
        process.wait()


def _environment() -> dict[str, str]:
    """The current environment, without variables that configure Aftermath or a PostgreSQL client."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AFTERMATH_", "PG"))}


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


# — the service —


@dataclass
class Service:
    """`aftermath serve` on a data directory; can be started, stopped, killed and started again."""

    directory: Path
    environment: dict[str, str]
    port: int = field(default_factory=free_port)
    starts: int = 0

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that other commands need too."""
        return {
            "AFTERMATH_DATA_DIR": str(self.data_dir),
            "AFTERMATH_PORT": str(self.port),
            **self.environment,
        }

    @contextmanager
    def run(self) -> Iterator["RunningService"]:
        """Started, perhaps not ready yet. It ends with the block, including PostgreSQL."""
        self.starts += 1
        log_file = self.directory / f"service-{self.starts}.log"
        try:
            with a_process([AFTERMATH, "serve"], log_file, environment=self.variables) as running:
                yield RunningService(running.process, log_file, self)
        finally:
            self.kill_postgres()

    @contextmanager
    def serve(self) -> Iterator["RunningService"]:
        """Started and ready."""
        with self.run() as running:
            running.wait_until_ready()
            yield running

    def postgres(self) -> list[psutil.Process]:
        """The processes of the built-in PostgreSQL of this data directory, its postmaster first."""
        parents: dict[psutil.Process, int] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, FileNotFoundError):  # the latter if it ends between two calls of psutil
                is_here = process.cwd() == str(self.data_dir / "postgres")
                if is_here and process.status() != psutil.STATUS_ZOMBIE:
                    parents[process] = process.ppid()
        # Not by pid order: pids wrap around.
        here = {process.pid for process in parents}
        return sorted(parents, key=lambda process: parents[process] in here)

    def kill_postgres(self) -> None:
        """Kills all processes at once, as in a power failure."""
        for process in self.postgres():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def command(self, *arguments: str) -> str:
        """The output of `aftermath <arguments>`, with or without a running service. It must succeed."""
        done = self.try_command(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def try_command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [AFTERMATH, *arguments],
            cwd=REPOSITORY,
            env={**_environment(), **self.variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@dataclass
class RunningService(Running):
    service: Service

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
            return httpx.get(f"{self.service.url}/readyz").status_code == 200

        until(is_ready, "the service is ready")

    @property
    def admin_token(self) -> str | None:
        """As the first start printed it."""
        found = re.search(r"^Your admin token, shown only once: (aft_\S+)$", self.log(), re.MULTILINE)
        return found and found[1]

    @property
    def snippet(self) -> str | None:
        """The alertmanager.yml that the first start printed: the lines from `route:` to the next empty one."""
        found = re.search(r"^route:\n(?:.+\n)+", self.log(), re.MULTILINE)
        return found and found[0]

    @contextmanager
    def client(self, token: str | None = None) -> Iterator[httpx.Client]:
        """A client of the API with that token; by default the one that the first start printed."""
        headers = {"Authorization": f"Bearer {token or self.admin_token}"}
        with httpx.Client(base_url=self.service.url, headers=headers, timeout=30) as client:
            yield client


# — Debian's senders —


class Server(httpx.Client):
    """A client of a started server."""

    process: subprocess.Popen[bytes]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server is stopped (SIGSTOP), and continues when the block ends."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def a_prometheus(directory: Path, config: str, port: int, *arguments: str) -> Iterator[Server]:
    """A client of a Prometheus that is ready."""
    file = directory / "prometheus.yml"
    file.write_text(config)
    command = [
        program("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *arguments,
        "--log.level=warn",
    ]
    with _a_server(command, directory / "prometheus.log", port, "/-/ready") as client:
        yield client


@contextmanager
def an_alertmanager(
    directory: Path, config: str, port: int, *, cluster: Sequence[str] = ("--cluster.listen-address=",)
) -> Iterator[Server]:
    """A client of an Alertmanager that is ready; without peers unless `cluster` is given."""
    file = directory / "alertmanager.yml"
    file.write_text(config)
    command = [
        program("prometheus-alertmanager"),
        f"--config.file={file}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        *cluster,
        "--log.level=warn",
    ]
    with _a_server(command, directory / "alertmanager.log", port, "/-/ready") as client:
        yield client


@contextmanager
def a_victoria(directory: Path, port: int) -> Iterator[Server]:
    """A client of a VictoriaMetrics that is ready, and answers with what has just been written to it."""
    command = [
        program("victoria-metrics"),
        f"-storageDataPath={directory / 'victoria'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-search.latencyOffset=0s",
        "-loggerLevel=WARN",
    ]
    with _a_server(command, directory / "victoria.log", port, "/health") as client:
        yield client


@contextmanager
def a_vmalert(directory: Path, rules: Path, port: int, *arguments: str) -> Iterator[Server]:
    """A client of a vmalert that is ready."""
    command = [
        program("vmalert"),
        f"-rule={rules}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-evaluationInterval=1s",
        "-loggerLevel=WARN",
        *arguments,
    ]
    with _a_server(command, directory / "vmalert.log", port, "/health") as client:
        yield client


@contextmanager
def _a_server(command: Sequence[str], log_file: Path, port: int, ready: str) -> Iterator[Server]:
    with a_process(command, log_file) as running, Server(base_url=f"http://127.0.0.1:{port}") as client:
        client.process = running.process

        def is_ready() -> bool:
            assert running.process.poll() is None, f"{command[0]} ended:\n{running.log()}"
            return client.get(ready).status_code == 200

        until(is_ready, f"{command[0]} is ready")
        yield client


# — Debian's PostgreSQL 15 —


@contextmanager
def a_postgres15() -> Iterator[str]:
    """URL of the maintenance database of a new cluster, in a directory of its own, on a socket in it."""
    if not (POSTGRES15 / "initdb").exists():
        message = f"PostgreSQL 15 is not in {POSTGRES15}: {PACKAGES}"
        raise FileNotFoundError(message)
    # PostgreSQL refuses to run as root.
    user = pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="pg15-") as made:
        directory = Path(made)
        password = secrets.token_urlsafe(16)
        (directory / "password").write_text(password)
        if user is not None:
            for path in (directory, directory / "password"):
                os.chown(path, user, -1)
        cluster, log_file = directory / "cluster", directory / "initdb.log"
        initdb: list[str | Path] = [
            POSTGRES15 / "initdb",
            *("--pgdata", cluster),
            *("--username", "aftermath"),
            *("--pwfile", directory / "password"),
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]
        with a_process(initdb, log_file, user=user) as making:
            assert making.process.wait(60) == 0, making.log()
        server: list[str | Path] = [
            POSTGRES15 / "postgres",
            *("-D", cluster),
            *("-k", directory),
            *("-c", "listen_addresses="),
            *("-c", "max_connections=300"),
            *("-c", "max_locks_per_transaction=256"),
            *("-c", "fsync=off"),
            *("-c", "full_page_writes=off"),
        ]
        with a_process(server, directory / "postgres.log", user=user) as running:
            until(lambda: _is_up(directory, running), "PostgreSQL 15 is ready", within=30)
            try:
                yield f"postgresql://aftermath:{password}@/postgres?host={directory}"
            finally:
                # A fast shutdown, so that no backend writes into the directory while it is removed.
                running.process.send_signal(signal.SIGINT)
                running.process.wait(60)


def _is_up(socket_directory: Path, running: Running) -> bool:
    assert running.process.poll() is None, running.log()
    asked = subprocess.run(
        [POSTGRES15 / "pg_isready", "-q", "-h", socket_directory], stdin=subprocess.DEVNULL, check=False
    )
    return asked.returncode == 0


def main(arguments: Sequence[str]) -> int:
    """Runs a command with a PostgreSQL 15 beside it; its exit status."""
    match arguments:
        case ["postgres15", "--", *command] if command:
            with a_postgres15() as url:
                return subprocess.run(
                    command, env={**os.environ, "AFTERMATH_TEST_DATABASE_URL": url}, check=False
                ).returncode
        case _:
            sys.stderr.write(f"{__doc__}\n")
            return 2


# — payloads —


def an_alert(started_at: str, ended_at: str | None = None, **labels: str) -> dict[str, Any]:
    return {
        "status": "resolved" if ended_at else "firing",
        "labels": {"alertname": "HighLatency", "service": "checkout", "severity": "critical", **labels},
        "annotations": {"summary": "p99 above 2 s"},
        "startsAt": started_at,
        "endsAt": ended_at or "0001-01-01T00:00:00Z",
        "generatorURL": "",
    }


def a_delivery(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {"version": "4", "groupKey": "{}:{}", "status": "firing", "receiver": "aftermath", "alerts": list(alerts)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
