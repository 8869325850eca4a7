"""The README is right: its commands run as they stand, its answers are the real ones, its tables are those of the code.

A block whose first line ends in `story` is run in order, or is what the command before it prints (`…` stands for
anything). The block marked `start` is what starts the service.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli import receiver_snippet
from app.incidents.measures.measures import MEASURES
from app.settings import Settings
from tests.processes import REPOSITORY, RunningService, Service, a_process, program

README = (REPOSITORY / "README.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(.*)\n((?:.*\n)*?)^```$", README, re.MULTILINE)
ANYTHING = "…"


def blocks(mark: str) -> list[str]:
    return [body for marked, body in BLOCKS if marked == mark]


# — the story —


@pytest.fixture
def started(tmp_path: Path) -> Iterator[RunningService]:
    """The service as the README starts it, at another port and in another directory."""
    assert (REPOSITORY / ".venv/bin/aftermath").exists(), "the README uses .venv, which `make test` makes"
    [start] = blocks("sh start")
    make, *targets = shlex.split(start)
    # A test installs nothing: what is in .venv counts as up to date.
    command = [make, "--old-file=.venv/.run", *targets]
    service = Service(tmp_path, {"MAKEFLAGS": "", "MAKELEVEL": "0"})
    try:
        with a_process(command, tmp_path / "service.log", environment=service.variables) as process:
            running = RunningService(process.process, process.said, service)
            running.wait_until_ready()
            yield running
    finally:
        service.kill_postgres()


def test_the_story_goes_as_it_is_told(started: RunningService) -> None:
    token = started.admin_token
    assert token is not None
    variables, answer = "", "never asked"
    told = [(marked, body) for marked, body in BLOCKS if marked.endswith(" story")]
    assert [marked.split()[0] for marked, _ in told].count("sh") > 8
    for marked, body in told:
        if marked != "sh story":
            assert shown_pattern(body).search(answer), f"{body}\nis not what was answered:\n{answer}"
        elif body.startswith("URL="):
            variables = body.replace("http://127.0.0.1:8080", started.service.url).replace(f"aft_{ANYTHING}", token)
            assert started.service.url in variables
            assert token in variables
        else:
            answer = run(variables + body, started.service)


def test_what_is_shown_must_be_what_is_answered() -> None:
    answer = '{\n  "a": 1,\n  "b": 2,\n  "c": "x7y"\n}'
    assert shown_pattern('"a": 1,\n"b": 2,\n').search(answer)
    assert shown_pattern('"a": 1,\n…\n"c": "x…y"\n').search(answer)
    assert not shown_pattern('"a": 1,\n"c": "x7y"\n').search(answer)
    assert not shown_pattern('"b": 3,\n').search(answer)


def run(script: str, service: Service) -> str:
    """What it prints. It must end well, and within a minute."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AFTERMATH_", "PG"))}
    done = subprocess.run(
        [program("bash"), "-euo", "pipefail", "-c", script],
        cwd=REPOSITORY,
        env={**environment, **service.variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shown_pattern(shown: str) -> re.Pattern[str]:
    """Finds whole lines in an answer, whatever the spaces around them; a line of `…` alone stands for any lines."""
    parts = [
        r"\s*\n\s*".join(re.escape(line.strip()).replace(ANYTHING, r"[^\n]*?") for line in part.strip().splitlines())
        for part in re.split(f"^{ANYTHING}$", shown, flags=re.MULTILINE)
    ]
    return re.compile(r"^\s*" + r"\s*\n(?:[^\n]*\n)*?\s*".join(parts) + r"\s*$", re.MULTILINE)


# — what is to be pasted elsewhere —


def test_the_receiver_is_the_one_that_the_first_start_prints() -> None:
    [shown] = blocks("yaml alertmanager")
    assert shown == receiver_snippet(Settings(), f"aft_{ANYTHING}")


@pytest.mark.debian
@pytest.mark.parametrize(
    ("mark", "command"),
    [("yaml alertmanager", ["amtool", "check-config"]), ("yaml prometheus", ["promtool", "check", "config"])],
)
def test_alertmanager_and_prometheus_take_it(mark: str, command: list[str], tmp_path: Path) -> None:
    [shown] = blocks(mark)
    pasted = tmp_path / "pasted.yml"
    pasted.write_text(shown)
    checked = subprocess.run(
        [program(command[0]), *command[1:], pasted], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


# — the tables —


def test_the_settings_are_those_of_the_code() -> None:
    expected = [
        [f"`AFTERMATH_{name.upper()}`", shown_default(field.default), field.description]
        for name, field in Settings.model_fields.items()
    ]
    rows = "\n".join(f"| {name} | {default} | {meaning} |" for name, default, meaning in expected)
    assert table("variable") == expected, f"the table should read:\n{rows}"


def test_the_defaults_that_are_shown_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Settings()
    for name, default, _ in table("variable"):
        if default:
            monkeypatch.setenv(name.strip("`"), default.strip("`"))
    assert Settings() == usual


def shown_default(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, dict):
        default = json.dumps(default, default=lambda amount: int(amount) if amount == int(amount) else float(amount))
    assert not isinstance(default, Decimal)
    return f"`{default}`"


def test_the_measures_are_those_of_the_registry() -> None:
    assert table("measure") == [[f"`{measure.name}`", measure.starts, measure.ends] for measure in MEASURES]


def test_every_file_of_the_code_is_in_the_map() -> None:
    mapped = [row[0].strip("`") for row in table("file")]
    assert len(mapped) == len(set(mapped))
    assert [path for path in mapped if not (REPOSITORY / path).exists()] == []
    files = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "app").rglob("*.py") if path.name != "__init__.py"]
    known = {path.rstrip("/") for path in mapped}
    unknown = [str(path) for path in files if known.isdisjoint(map(str, (path, *path.parents)))]
    assert unknown == [], "not in the README's map of the code"


def table(first_column: str) -> list[list[str]]:
    """The rows of the table whose first column has that name."""
    found = re.search(rf"^\| {first_column} \|.*\n\|[-|]+\|\n((?:\|.*\n)*)", README, re.MULTILINE)
    assert found, f"there is no table of {first_column}s"
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found[1].splitlines()]


# — what is named exists —


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert len(links) > 3
    assert [link for link in links if "://" not in link and not (REPOSITORY / link).exists()] == []


def test_paths_in_the_text_exist() -> None:
    named = re.findall(r"`((?:app|alembic|deploy|docs|tests)/[\w./-]*)`", README)
    assert len(named) > 10
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_make_targets_exist() -> None:
    named = set(re.findall(r"(?:^|`)make ([\w-]+)(?:`|$)", README, re.MULTILINE))
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert {"run", "test", "test-faults", "check"} <= named <= targets


def test_routes_exist() -> None:
    named = set(re.findall(r"(?<=[`\"/ L0-9])(/(?:api/v1|webhooks)/[\w/{}-]+)", README))
    known = yaml.safe_load((REPOSITORY / "openapi.yaml").read_text())["paths"]
    templates = [re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path)) for path in known]
    assert len(named) > 5
    assert [path for path in named if not any(template.fullmatch(path) for template in templates)] == []
