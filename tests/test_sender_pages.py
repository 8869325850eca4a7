"""The pages about senders are correct: their commands run, Alertmanager takes their configurations and sends as they
say, and what they name exists.

Blocks marked `sh story` are run in order, with the address and the tokens of a running service.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from app.ingest.senders import SENDERS
from tests.ingest.test_senders import FIXTURES
from tests.processes import REPOSITORY, RunningService, Server, Service, an_alertmanager, free_port, program, until
from tests.test_docs import headings

FOLDER = REPOSITORY / "docs" / "senders"
PAGES = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
BLOCK = re.compile(r"^```(.*)\n((?:.*\n)*?)^```$", re.MULTILINE)
ADDRESS, LOCAL, ADMIN, TOKEN = "https://aftermath.example", "http://127.0.0.1:8080", "admin-token", "aft_…"
each_page = pytest.mark.parametrize("name", PAGES)


class Block(NamedTuple):
    page: str
    mark: str
    text: str


BLOCKS = [Block(name, mark, text) for name, page in PAGES.items() for mark, text in BLOCK.findall(page)]
CONFIGURATIONS = [block for block in BLOCKS if block.mark.startswith("yaml alertmanager")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with Service(tmp_path_factory.mktemp("pages"), {}).serve() as running:
        yield running


# — commands —


@each_page
def test_the_commands_of_a_page_run(running: RunningService, name: str) -> None:
    admin, token = running.admin_token, ""
    assert admin is not None
    for text in (block.text for block in BLOCKS if (block.page, block.mark) == (name, "sh story")):
        script = text.replace(ADDRESS, running.service.url).replace(ADMIN, admin)
        output = run(script.replace(TOKEN, token) if token else script, running.service)
        if "token create" in text:
            token = output.strip()
            assert len(token) > 30


def run(script: str, service: Service) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AFTERMATH_", "PG"))}
    done = subprocess.run(
        [program("bash"), "-euo", "pipefail", "-c", script],
        cwd=REPOSITORY,
        env={**environment, **service.variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# — configurations —


@pytest.mark.debian
@pytest.mark.parametrize("block", CONFIGURATIONS, ids=lambda block: f"{block.page}-{block.mark}")
def test_alertmanager_takes_every_configuration(block: Block, tmp_path: Path) -> None:
    pasted = tmp_path / "pasted.yml"
    pasted.write_text(block.text)
    checked = subprocess.run(
        [program("amtool"), "check-config", pasted], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.debian
@pytest.mark.parametrize("text", [block.text for block in BLOCKS if block.mark == "yaml prometheus"])
def test_prometheus_takes_every_configuration_and_posts_to_its_endpoint(text: str, tmp_path: Path) -> None:
    (pasted := tmp_path / "pasted.yml").write_text(text)
    checked = subprocess.run(
        [program("promtool"), "check", "config", pasted], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    [alertmanager] = yaml.safe_load(text)["alerting"]["alertmanagers"]
    endpoints = [endpoint.path for endpoint in SENDERS["alertmanager-api"].endpoints]
    assert alertmanager["path_prefix"].replace(TOKEN, "{token}") + "/api/v2/alerts" in endpoints


def test_the_contact_point_of_grafana_posts_to_its_endpoint() -> None:
    [block] = [block for block in BLOCKS if block.mark == "yaml grafana"]
    [point] = yaml.safe_load(block.text)["contactPoints"]
    [receiver] = point["receivers"]
    assert receiver["type"] == "webhook"
    assert receiver["settings"]["url"] == f"{ADDRESS}/webhooks/grafana"
    assert receiver["settings"]["authorization_scheme"] == "Bearer"


@pytest.mark.debian
def test_alertmanager_reports_through_opsgenies_api_as_the_page_says(running: RunningService, tmp_path: Path) -> None:
    [block] = [block for block in CONFIGURATIONS if block.mark == "yaml alertmanager opsgenie"]
    key = a_token(running.service, "alertmanager-by-opsgenie", "opsgenie-alerts")
    config = hurried(block.text.replace(LOCAL, running.service.url).replace(TOKEN, key))
    with running.client() as client, an_alertmanager(tmp_path, config, free_port()) as alertmanager:
        post(alertmanager, "by-opsgenie")
        opened = until(lambda: the_incident(client, "by-opsgenie"), "the incident opens")
        assert (opened["status"], opened["severity"], opened["environment"]) == ("open", "sev1", "production")
        assert opened["title"].startswith("HostDown")
        post(alertmanager, "by-opsgenie", ended=True)
        until(lambda: the_incident(client, "by-opsgenie")["status"] == "resolved", "it is resolved")


@pytest.mark.debian
def test_with_a_pager_in_the_same_receiver_its_acknowledgement_is_found(
    running: RunningService, tmp_path: Path
) -> None:
    """The receiver of the page of Opsgenie, for which the service itself stands in."""
    block = next(block for block in CONFIGURATIONS if block.page == "opsgenie.md" and "webhook_configs" in block.text)
    config = yaml.safe_load(block.text.replace(LOCAL, running.service.url))
    [receiver] = config["receivers"]
    webhook, [pager] = receiver["webhook_configs"][0], receiver["opsgenie_configs"]
    webhook["http_config"]["authorization"]["credentials"] = a_token(running.service, "beside", "alertmanager")
    pager["api_key"] = a_token(running.service, "instead-of-opsgenie", "opsgenie-alerts")
    pager["api_url"] = f"{running.service.url}/"
    with ExitStack() as stack:
        client = stack.enter_context(running.client())
        alertmanager = stack.enter_context(an_alertmanager(tmp_path, hurried(yaml.safe_dump(config)), free_port()))
        post(alertmanager, "beside")
        until(lambda: len(the_incident(client, "beside").get("sources", ())) == 2, "both have reported the alert")
        number = the_incident(client, "beside")["number"]
        alerts = client.get(f"/api/v1/incidents/{number}/alerts").json()["items"]
        [alias] = {alert["annotations"]["alias"] for alert in alerts if "alias" in alert["annotations"]}

        reaction = json.loads((FIXTURES / "opsgenie" / "acknowledge.json").read_text())["body"]
        reaction["alert"] |= {"alias": alias, "updatedAt": int(datetime.now(UTC).timestamp() * 1000) * 10**6}
        assert client.post("/webhooks/opsgenie", json=reaction).json()["verdicts"] == {"acknowledged": 1}
        acknowledged = the_incident(client, "beside")
        assert (acknowledged["status"], acknowledged["acknowledged_by"]) == ("acknowledged", "alex@example.com")


def a_token(service: Service, source: str, kind: str) -> str:
    return service.command("token", "create", source, "--scope", "ingest", "--source", source, "--kind", kind).strip()


def hurried(config: str) -> str:
    """With the smallest intervals."""
    document = yaml.safe_load(config)
    document["route"] |= {"group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h"}
    return yaml.safe_dump(document)


def post(alertmanager: Server, service: str, *, ended: bool = False) -> None:
    labels = {"alertname": "HostDown", "service": service, "severity": "critical"}
    alert: dict[str, Any] = {"labels": labels, "annotations": {"summary": "db-1 does not answer"}}
    if ended:
        alert["endsAt"] = datetime.now(UTC).isoformat()
    alertmanager.post("/api/v2/alerts", json=[alert]).raise_for_status()


def the_incident(client: httpx.Client, service: str) -> dict[str, Any]:
    """Empty if there is none."""
    items = client.get("/api/v1/incidents", params={"service": service}).json()["items"]
    return items[0] if items else {}


# — what the pages name —


@each_page
def test_kinds_and_endpoints_exist(name: str) -> None:
    kinds = set(re.findall(r"--kind ([\w-]+)", PAGES[name]))
    endpoints = set(re.findall(r"/webhooks/([a-z-]+)", PAGES[name]))
    assert kinds | endpoints <= SENDERS.keys()


@each_page
def test_links_have_existing_targets(name: str) -> None:
    for page, anchor in re.findall(r"\]\(([\w./-]*)(#[^)]+)?\)", PAGES[name]):
        target = (FOLDER / page).resolve() if page else FOLDER / name
        assert target.exists(), page
        if anchor:
            assert anchor.removeprefix("#") in headings(target.read_text()), anchor
