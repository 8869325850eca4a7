"""docs/operations.md is correct: everything it names exists, and every shipped alert has a section.

The commands of its blocks marked `backup`, `restore`, `dump` and `undump` run in tests/faults/test_restore.py.
"""

import re

import yaml

from app.settings import Settings
from tests.processes import REPOSITORY

PAGE = re.sub(r"<!--.*?-->", "", (REPOSITORY / "docs/operations.md").read_text(), flags=re.DOTALL)
RULES = REPOSITORY / "deploy/prometheus/aftermath.rules.yml"


def test_every_alert_has_its_part_in_the_order_of_the_rules() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    parts = re.findall(r"^### (.+)\n+(.+)", PAGE, re.MULTILINE)
    assert [title for title, _ in parts] == alerts
    assert [title for title, begins in parts if begins.startswith("#")] == []


def test_links_have_existing_targets() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert len(links) > 3
    assert [link for link in links if not (REPOSITORY / "docs" / link).exists()] == []
    named = re.findall(r"`((?:tests|deploy|app|docs)/[\w/.]+)`", PAGE)
    assert [file for file in named if not (REPOSITORY / file).exists()] == []


def test_settings_targets_and_routes_exist() -> None:
    settings = {f"AFTERMATH_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"AFTERMATH_[A-Z_]+[A-Z]", PAGE)) - settings == set()
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([\w-]+)`", PAGE)) - targets == set()
    known = yaml.safe_load((REPOSITORY / "openapi.yaml").read_text())["paths"]
    routes = set(re.findall(r"`(?:GET |POST |PUT )?(/(?:api|healthz|readyz|metrics)[\w/{}-]*)", PAGE))
    assert len(routes) > 4
    assert routes - set(known) == set()
