"""openapi.yaml with other people's tools: redocly's linter, and a Python client that openapi-python-client generates.

`make test-openapi` runs these tests. They install the tools at pinned versions into directories of their own, so they
need the network and Node.js; a missing program is an error, never a reason to skip.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.ingest.test_webhook import a_delivery, an_alert
from tests.processes import REPOSITORY, Service, program

LINTER = "@redocly/cli@2.77.0"
TOKEN = "admin-token-of-the-generated-client"


def run(command: Sequence[str | Path], directory: Path, **variables: str) -> str:
    """Its output; it must succeed."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-6000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def linter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("linter")
    run([program("npm"), "install", "--prefix", directory, "--no-audit", "--no-fund", LINTER], directory)
    return directory / "node_modules/.bin/redocly"


def lint(linter: Path, document: Path) -> str:
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    return run([linter, "lint", "--config", REPOSITORY / "redocly.yaml", document], REPOSITORY, **quiet)


def test_the_document_passes_the_linter(linter: Path) -> None:
    assert "Your API description is valid" in lint(linter, REPOSITORY / "openapi.yaml")


def test_the_linter_notices_a_mistake(linter: Path, tmp_path: Path) -> None:
    document = tmp_path / "openapi.yaml"
    text = (REPOSITORY / "openapi.yaml").read_text()
    assert text.count("operationId: list_incidents\n") == 1
    document.write_text(text.replace("operationId: list_incidents\n", "operationId: get_incident\n"))
    with pytest.raises(AssertionError, match="operation-operationId-unique"):
        lint(linter, document)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Python with the generator and what its clients need, and the directory of the generated client."""
    directory = tmp_path_factory.mktemp("client")
    run([sys.executable, "-m", "venv", "tools"], directory)
    python = directory / "tools/bin/python"
    locked = REPOSITORY / "requirements-client.lock"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes")
    run([*pip, "--requirement", locked], directory)
    generate = (directory / "tools/bin/openapi-python-client", "generate", "--fail-on-warning", "--meta", "none")
    run(
        [*generate, "--path", REPOSITORY / "openapi.yaml", "--output-path", directory / "aftermath_client"],
        directory,
        PATH=f"{directory / 'tools/bin'}:{os.environ['PATH']}",
    )
    return python, directory


def test_a_generated_client_acknowledges_an_incident_and_reads_a_comparison(
    generated: tuple[Path, Path], tmp_path: Path
) -> None:
    python, directory = generated
    service = Service(tmp_path, {"AFTERMATH_ADMIN_TOKEN": TOKEN})
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with service.serve(), httpx.Client(base_url=service.url, headers=headers) as client:
        client.post("/webhooks/alertmanager", json=a_delivery(an_alert())).raise_for_status()
        said = run(
            [python, REPOSITORY / "tests/tools/generated_client.py", service.url, TOKEN],
            tmp_path,
            PYTHONPATH=str(directory),
        )
        assert said.splitlines() == ["INC-1 acknowledged by ada", "time_to_recover: cannot_tell"]
        assert client.get("/api/v1/incidents/INC-1").json()["acknowledged_by"] == "ada"
