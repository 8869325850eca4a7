"""The backup and restore commands of docs/operations.md, run as printed, under load."""

import re
import shutil
import subprocess
from pathlib import Path

from tests.faults.afterwards import a_service, assert_has, assert_it_serves, loaded, url_of
from tests.faults.postgres import Server, servers
from tests.load import Plan
from tests.processes import REPOSITORY

PAGE = (REPOSITORY / "docs/operations.md").read_text()


def test_the_built_in_one_is_backed_up_under_load_and_restored(tmp_path: Path) -> None:
    service = a_service(tmp_path)
    # As in the documentation: a directory with .venv and .data.
    (tmp_path / ".venv").symlink_to(REPOSITORY / ".venv")
    (tmp_path / ".data").symlink_to(service.data_dir)
    with service.serve() as running, loaded(service, Plan(seed=51)) as load:
        load.wait_for(100)
        reports = load.answered_reports
        run("backup", tmp_path)
        load.wait_for(100)
        running.kill()
        service.kill_postgres()
    run("restore", tmp_path)
    # As after the loss of the disk.
    shutil.rmtree(service.data_dir / "postgres.before")
    with service.serve() as running:
        assert_it_serves(running)
        assert_has(reports, url_of(service))


def test_a_dump_is_restored_into_another_server(tmp_path: Path) -> None:
    with servers("old", "new") as [old, new]:
        for server in (old, new):
            server.make()
            server.start()
        service = a_service(tmp_path, AFTERMATH_DATABASE_URL=old.url)
        with service.serve(), loaded(service, Plan(seed=52)) as load:
            load.wait_for(100)
            reports = load.answered_reports
            run("dump", tmp_path, old, AFTERMATH_DATABASE_URL=old.url)
            load.wait_for(100)
        old.stop()
        run("undump", tmp_path, new, NEW_DATABASE_URL=new.url)
        service.environment["AFTERMATH_DATABASE_URL"] = new.url
        with service.serve() as running:
            assert_it_serves(running)
            assert_has(reports, new.url)


def run(marked: str, directory: Path, server: Server | None = None, **environment: str) -> None:
    [commands] = re.findall(rf"^```sh {marked}\n((?:.*\n)*?)^```$", PAGE, re.MULTILINE)
    path = "/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=directory,
        env={"PATH": f"{server.binaries / 'bin'}:{path}" if server else path, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
