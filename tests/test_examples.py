"""The examples in docs/examples run against a new service as they are printed, and do what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import yaml

from tests.processes import REPOSITORY, Service

WALK = REPOSITORY / "docs/examples/walk_through.py"
TOKEN = "admin-token-of-the-examples"


def test_the_walk_through_the_api(tmp_path: Path) -> None:
    service = Service(tmp_path, {"AFTERMATH_ADMIN_TOKEN": TOKEN})
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with service.serve(), httpx.Client(base_url=service.url, headers=headers) as client:
        done = subprocess.run(
            [sys.executable, "-W", "error", WALK],
            cwd=tmp_path,
            env={**os.environ, "AFTERMATH_URL": service.url, "AFTERMATH_TOKEN": TOKEN},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        said = done.stdout.splitlines()
        assert "The two alerts opened INC-1 and INC-2" in said
        assert sum("  sev1  " in line for line in said) == 2
        assert "Still open: 0" in said
        assert "Time to detect: 7 minutes" in said
        assert re.search(r"^Verdict: cannot_tell\. .{10,}$", done.stdout, re.MULTILINE)
        assert re.search(r"^incidents\.csv has 2 incidents and \d\d columns$", done.stdout, re.MULTILINE)
        assert {one["acknowledged_by"] for one in client.get("/api/v1/incidents").json()["items"]} == {"ada"}
        assert (tmp_path / "incidents.csv").read_text().count("alertmanager-eu") == 2


def test_it_uses_only_the_documented_api() -> None:
    source = WALK.read_text()
    assert set(re.findall(r"^import (\w+)|^from (\w+)", source, re.MULTILINE)) == {
        ("os", ""),
        ("", "datetime"),
        ("", "pathlib"),
        ("httpx", ""),
    }
    paths = yaml.safe_load((REPOSITORY / "openapi.yaml").read_text())["paths"]
    known = [re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path)) for path in paths]
    asked = re.findall(r'aftermath\.\w+\(\s*f?"([^"]+)"', source)
    assert len(asked) > 6
    named = [re.sub(r"\{[^}]*\}", "x", path) for path in asked]
    assert [path for path in named if not any(each.fullmatch(path) for each in known)] == []
