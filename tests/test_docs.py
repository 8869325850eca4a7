"""The documentation is correct: the README's commands run as printed and give the responses it shows, tables match the
code, and everything a page names exists.

Blocks whose first line ends in `story` are run in order, or show the output of the command before (`…` stands for
anything). The block marked `start` starts the service.
"""

import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.incidents.grouping.rule import DEFAULT_RULE, Decision, decide
from app.incidents.grouping.signal import AlertClass
from app.incidents.measures.measures import MEASURES
from app.ingest.receiver import alertmanager_receiver
from app.settings import Settings
from tests.processes import REPOSITORY, RunningService, Service, a_process, program

NAMES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = {name: (REPOSITORY / name).read_text() for name in NAMES}
README = PAGES["README.md"]
CONTRIBUTING = PAGES["CONTRIBUTING.md"]
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(.*)\n((?:.*\n)*?)^```$", README, re.MULTILINE)
ANYTHING = "…"


def blocks(mark: str) -> list[str]:
    return [body for marked, body in BLOCKS if marked == mark]


# — the story —


@pytest.fixture
def started(tmp_path: Path) -> Iterator[RunningService]:
    """The service as the README starts it, at another port and in another directory."""
    assert (REPOSITORY / ".venv/bin/aftermath").exists(), "the README uses .venv, which `make test` creates"
    [start] = blocks("sh start")
    make, *targets = shlex.split(start)
    # Tests install nothing: .venv counts as up to date.
    command = [make, "--old-file=.venv/.run", *targets]
    service = Service(tmp_path, {"MAKEFLAGS": "", "MAKELEVEL": "0", "AFTERMATH_OUTBOUND_ALLOW": "127.0.0.1"})
    try:
        with a_process(command, tmp_path / "service.log", environment=service.variables) as process:
            running = RunningService(process.process, process.log_file, service)
            running.wait_until_ready()
            yield running
    finally:
        service.kill_postgres()


def test_the_commands_of_the_readme_give_the_responses_it_shows(started: RunningService) -> None:
    token = started.admin_token
    assert token is not None
    variables, answer = "", "never asked"
    story = [(marked, body) for marked, body in BLOCKS if marked.endswith(" story")]
    assert [marked.split()[0] for marked, _ in story].count("sh") > 8
    for marked, body in story:
        if marked != "sh story":
            assert shown_pattern(body).search(answer), f"{body}\nis not the response:\n{answer}"
        elif body.startswith("URL="):
            variables = body.replace("http://127.0.0.1:8080", started.service.url).replace(f"aft_{ANYTHING}", token)
            assert started.service.url in variables
            assert token in variables
        else:
            answer = run(variables + body, started.service)


def test_a_shown_response_must_match_the_real_one() -> None:
    answer = '{\n  "a": 1,\n  "b": 2,\n  "c": "x7y"\n}'
    assert shown_pattern('"a": 1,\n"b": 2,\n').search(answer)
    assert shown_pattern('"a": 1,\n…\n"c": "x…y"\n').search(answer)
    assert not shown_pattern('"a": 1,\n"c": "x7y"\n').search(answer)
    assert not shown_pattern('"b": 3,\n').search(answer)


def run(script: str, service: Service) -> str:
    """The output of the command, which must succeed within five minutes: the demo makes a thousand requests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AFTERMATH_", "PG"))}
    done = subprocess.run(
        [program("bash"), "-euo", "pipefail", "-c", script],
        cwd=REPOSITORY,
        env={**environment, **service.variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
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


# — snippets for other files —


def test_the_receiver_is_the_one_that_the_first_start_prints() -> None:
    [shown] = blocks("yaml alertmanager")
    assert shown == alertmanager_receiver("http://127.0.0.1:8080", f"aft_{ANYTHING}")


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
    if isinstance(default, bool):
        default = str(default).lower()
    if isinstance(default, dict):
        default = json.dumps(default, default=lambda amount: int(amount) if amount == int(amount) else float(amount))
    assert not isinstance(default, Decimal)
    return f"`{default}`"


def test_the_measures_are_those_of_the_registry() -> None:
    assert table("measure") == [[f"`{measure.name}`", measure.starts, measure.ends] for measure in MEASURES]


def test_labels_are_mapped_as_the_readme_shows() -> None:
    rows = table("severity")
    words = [(word.strip("`"), severity) for severity, values, *_ in rows for word in values.split(", ")]
    assert len(words) > 20
    for word, severity in words:
        for name in DEFAULT_RULE.severity_labels:
            assert decided({name: word.upper()}).severity == int(severity.removeprefix("sev")), word
    assert decided({"severity": "of no known kind"}).severity == 3
    assert {row[0]: row[3] for row in rows} == {
        severity: f"{share:.0%}".replace("%", " %") for severity, share in Settings().impact.items()
    }


def test_services_are_found_as_the_readme_shows() -> None:
    [sentence] = re.findall(r"^\*\*Service:\*\* ([^.]*)\.", README, re.MULTILINE)
    assert re.findall(r"`(\w+)`", sentence) == list(DEFAULT_RULE.service_labels)
    for n, name in enumerate(DEFAULT_RULE.service_labels):
        assert decided({later: later for later in DEFAULT_RULE.service_labels[n:]}).service == name
    assert decided({}).service == "unknown"


def test_environments_are_found_as_the_readme_shows() -> None:
    [labels, words] = re.findall(r"^\*\*Environment:\*\* (.*?): (.*?)\. Common", README, re.MULTILINE | re.DOTALL)[0]
    assert "the first of these labels" in labels
    assert re.findall(r"`([\w.]+)`", words) == list(DEFAULT_RULE.environment_labels)
    assert [decided({"env": word}).environment for word in ("prd", "live", "stg", "dev")] == [
        "production",
        "production",
        "staging",
        "development",
    ]
    assert decided({"env": "unknown"}).environment is None


def decided(labels: dict[str, str]) -> Decision:
    return decide(DEFAULT_RULE, labels, AlertClass.SERVICE)


def test_every_area_of_the_code_is_in_the_map() -> None:
    mapped = [row[0].strip("`") for row in table("path", CONTRIBUTING)]
    assert len(mapped) == len(set(mapped))
    app = REPOSITORY / "app"
    folders = {path.parent for path in app.rglob("*.py") if path.parent != app}
    expected = {f"{path.relative_to(REPOSITORY)}/" for path in folders if len(path.relative_to(app).parts) <= 2}
    expected |= {str(path.relative_to(REPOSITORY)) for path in app.glob("*.py") if path.name != "__init__.py"}
    assert len(expected) > 20
    assert set(mapped) == expected, "the map in CONTRIBUTING.md differs from app/"


def table(first_column: str, page: str = README) -> list[list[str]]:
    """The rows of the table whose first column has that name."""
    found = re.search(rf"^\| {first_column} \|.*\n\|[-|]+\|\n((?:\|.*\n)*)", page, re.MULTILINE)
    assert found, f"there is no table of {first_column}s"
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found[1].splitlines()]


# — names exist —


@pytest.mark.parametrize("name", PAGES)
def test_links_have_existing_targets(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[name])
    assert links or name == "SECURITY.md"
    assert [link for link in links if "://" not in link and not (REPOSITORY / link).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_within_and_between_pages_name_headings(name: str) -> None:
    anchors = re.findall(r"\]\(([\w./-]*)#([^)]+)\)", PAGES[name])
    assert len(anchors) > 10 or name != "README.md"
    for page, anchor in anchors:
        assert anchor in headings((REPOSITORY / (page or name)).read_text()), anchor


def headings(page: str) -> set[str]:
    """As GitHub and GitLab name them in links."""
    without_code = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("name", "at_least"), [("README.md", 3), ("CONTRIBUTING.md", 10)])
def test_paths_in_the_text_exist(name: str, at_least: int) -> None:
    named = re.findall(r"[`(]((?:app|alembic|bench|deploy|docs|tests)/[\w./-]*)[`)#]", PAGES[name])
    assert len(named) > at_least
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_make_targets_exist() -> None:
    text = "\n".join(PAGES.values())
    named = set(re.findall(r"(?:^|`)make ([\w-]+)(?:`|$)", text, re.MULTILINE))
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert {"run", "test", "test-faults", "check"} <= named <= targets


def test_routes_exist() -> None:
    named = set(re.findall(r"(?<=[`\"/ L0-9])(/(?:api/v1|webhooks)/[\w/{}-]+)", README))
    known = yaml.safe_load((REPOSITORY / "openapi.yaml").read_text())["paths"]
    templates = [re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path)) for path in known]
    assert len(named) > 5
    assert [path for path in named if not any(template.fullmatch(path) for template in templates)] == []


def test_the_security_policy_names_every_route_that_requires_no_token() -> None:
    paths = yaml.safe_load((REPOSITORY / "openapi.yaml").read_text())["paths"]
    open_ = {path for path, methods in paths.items() for each in methods.values() if not each.get("security")}
    assert {"/healthz", "/readyz"} <= open_
    # Alertmanager's probes are also at its addresses with a token in the path.
    open_ = {path.removeprefix("/am/{token}") if "/-/" in path else path for path in open_}
    named = set(re.findall(r"`(/[^`]*)`", PAGES["SECURITY.md"]))
    assert {path for path in open_ if "{token}" not in path} - named == set()


def test_settings_named_in_the_text_exist() -> None:
    settings = {f"AFTERMATH_{name.upper()}" for name in Settings.model_fields}
    named = {name for page in PAGES.values() for name in re.findall(r"AFTERMATH_[A-Z_]+[A-Z]", page)}
    assert len(named) > 5
    assert named - settings == set()


def test_the_license_is_the_one_that_the_package_names() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    text = (REPOSITORY / "LICENSE").read_text().split()
    assert text[:4] == ["Apache", "License", "Version", "2.0,"]
    assert text[-4:] == ["limitations", "under", "the", "License."]
