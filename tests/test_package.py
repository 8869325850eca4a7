"""The package: one command, one version, and a wheel that needs nothing from the repository."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import typer.main
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.core import TyperGroup

from app import __version__
from app.cli import cli
from tests.processes import AFTERMATH, REPOSITORY, RunningService, Service, a_delivery, a_process, an_alert

# — the command —

NAMED_IN = [
    *(
        REPOSITORY / name
        for name in ("README.md", "Makefile", "Dockerfile", "openapi.yaml", "pyproject.toml", ".ci/run")
    ),
    *(path for folder in ("app", "bench", "deploy", "docs", "tests") for path in (REPOSITORY / folder).rglob("*.*")),
]
TEXTS = {
    str(path.relative_to(REPOSITORY)): path.read_text()
    for path in NAMED_IN
    if path.suffix not in {".pyc", ".json", ".woff2", ".png"} and "fixtures" not in path.parts
}
COMMAND = typer.main.get_command(cli)


def named_commands() -> Iterator[tuple[str, str]]:
    """Where a command is named, and the command: in backticks or on a command line."""
    for name, text in TEXTS.items():
        commands = re.findall(r"`(aftermath [a-z][^`]*)`", text)
        commands += re.findall(r"(?:/bin/|\$\(BIN\)/|-- |exec aftermath )(aftermath [a-z][^\n|)]*)", text)
        commands += re.findall(r"aftermath token [a-z]+", text)
        for command in commands:
            yield name, command


def what_is_wrong_with(written: str) -> str | None:
    """The part of it that the command line does not accept."""
    words = [word.strip(",.:;") for word in written.split()[1:]]
    command = COMMAND
    while isinstance(command, TyperGroup) and words and words[0].isalpha():
        inner = command.commands.get(words.pop(0))
        if inner is None:
            return f"no such command: {written}"
        command = inner
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    unknown = [word for word in words if word.startswith("--") and word not in known]
    return f"no such option: {unknown} in {written}" if unknown else None


def test_every_command_that_is_named_exists() -> None:
    named = [(name, command) for name, command in named_commands() if name != "tests/test_package.py"]
    assert len({name for name, _ in named}) > 10
    assert [(name, wrong) for name, command in named if (wrong := what_is_wrong_with(command))] == []


def test_a_command_that_does_not_exist_would_be_found() -> None:
    assert what_is_wrong_with("aftermath token make x") == "no such command: aftermath token make x"
    assert what_is_wrong_with("aftermath start") == "no such command: aftermath start"
    assert what_is_wrong_with("aftermath token create x --role read") is not None
    assert what_is_wrong_with("aftermath token create x --scope read") is None
    assert what_is_wrong_with("aftermath token") is None


def test_nothing_runs_the_module_in_place_of_the_command() -> None:
    forms = re.compile(r"-m\W+app\.cli\b")
    assert [name for name, text in TEXTS.items() if forms.search(text)] == []


# — the version —


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__, "pyproject.toml has changed since the installation: `make test`"


def test_the_command_and_the_contract_show_it() -> None:
    shown = subprocess.run([AFTERMATH, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert shown == f"aftermath {__version__}\n"
    assert yaml.safe_load((REPOSITORY / "openapi.yaml").read_text())["info"]["version"] == __version__


async def test_the_running_service_shows_it(client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await client.get(path)).json()["version"] == __version__
    assert (await client.get("/openapi.json")).json()["info"]["version"] == __version__
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    info = [sample for family in families for sample in family.samples if sample.name == "aftermath_build_info"]
    assert [(sample.labels, sample.value) for sample in info] == [({"version": __version__}, 1.0)]


# — the wheel —


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because a build leaves files beside its sources."""
    sources = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, sources)
    shutil.copytree(REPOSITORY / "app", sources / "app", ignore=shutil.ignore_patterns("__pycache__"))
    made = tmp_path_factory.mktemp("wheel")
    options: list[str | Path] = ["--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", made]
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, sources],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    [found] = made.iterdir()
    return found


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [path for path in (REPOSITORY / "app").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert held == {str(path.relative_to(REPOSITORY)) for path in files}
    assert "app/base/db/alembic/env.py" in held


def test_the_wheel_serves_from_an_empty_directory(wheel: Path, tmp_path: Path) -> None:
    unpacked, empty = tmp_path / "unpacked", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(unpacked)
    empty.mkdir()
    # Ahead of the checkout, which is installed beside it.
    service = Service(tmp_path, {"PYTHONPATH": str(unpacked)})
    where = [sys.executable, "-P", "-c", "import app; print(app.__file__)"]
    found = subprocess.run(where, env=service.variables, capture_output=True, text=True, timeout=60, check=True).stdout
    assert found.strip() == str(unpacked / "app/__init__.py")
    try:
        with a_process(
            [AFTERMATH, "serve"], tmp_path / "service.log", environment=service.variables, directory=empty
        ) as process:
            running = RunningService(process.process, process.log_file, service)
            running.wait_until_ready()
            with running.client() as client:
                alert = an_alert("2026-08-20T10:00:00Z", "2026-08-20T10:30:00Z")
                assert client.post("/webhooks/alertmanager", json=a_delivery(alert)).json()["incidents"] == ["INC-1"]
                incident = client.get("/api/v1/incidents/INC-1").json()
            assert incident["measures"]["time_to_recover"]["seconds"] == 1800
            assert running.stop() == 0
        assert list(empty.iterdir()) == []
    finally:
        service.kill_postgres()


def test_the_service_starts_without_the_slow_half_of_scipy() -> None:
    loaded = "import sys, app.main; print('scipy.special' in sys.modules, 'scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
