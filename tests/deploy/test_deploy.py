"""What stands in deploy/ and the Dockerfile is right, as far as can be told without an engine."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from tests.processes import REPOSITORY, Service, program

DEPLOY = REPOSITORY / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
RULES = PROMETHEUS / "aftermath.rules.yml"
RULE_TESTS = sorted(PROMETHEUS.glob("*.test.yml"))
ALERTMANAGER = DEPLOY / "alertmanager" / "alertmanager.yml"


# — Prometheus and Alertmanager, by their own tools —


@pytest.mark.debian
def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    copied = tmp_path / "prometheus"
    shutil.copytree(PROMETHEUS, copied)
    config = copied / "prometheus.yml"
    # It asks whether the file of the token is there.
    token = tmp_path / "token"
    token.write_text("secret")
    config.write_text(config.read_text().replace("/run/secrets/prometheus_token", str(token)))
    checked("promtool", "check", "config", config)


@pytest.mark.debian
def test_promtool_takes_the_rules() -> None:
    checked("promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.debian
def test_the_rules_do_what_their_tests_say() -> None:
    checked("promtool", "test", "rules", *RULE_TESTS)


@pytest.mark.debian
def test_amtool_takes_the_configuration() -> None:
    checked("amtool", "check-config", ALERTMANAGER)


@pytest.mark.debian
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=HighLatency", "service=checkout"), "aftermath"),
        (("alertname=AftermathHeartbeat", "service=heartbeat"), "aftermath"),
        (("alertname=AftermathDown", "service=aftermath"), "people"),
    ],
)
def test_all_but_aftermaths_own_alerts_go_to_aftermath(labels: tuple[str, ...], receiver: str) -> None:
    said = checked("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels)
    assert said.split() == [receiver]


# — rules —


def test_every_alert_says_what_to_do_and_is_tested() -> None:
    tests = [test for file in RULE_TESTS for test in read(file)["tests"]]
    tested = {case["alertname"] for test in tests for case in test.get("alert_rule_test", [])}
    for alert in alerts():
        assert set(alert) >= {"alert", "expr", "for", "labels", "annotations"}, alert
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}, alert["alert"]
        assert alert["labels"]["severity"] in {"critical", "warning", "none"}
        # Else it would become part of the very incident that it tells of.
        assert alert["labels"]["service"] in {"aftermath", "heartbeat"}
    assert {alert["alert"] for alert in alerts()} == tested


async def test_every_metric_that_a_rule_uses_is_exported(client: httpx.AsyncClient) -> None:
    exported = exported_names((await client.get("/metrics")).text)
    expressions = [rule["expr"] for rule in rules()]
    used = {name for expression in expressions for name in re.findall(r"(?<![:\w])aftermath_\w+", expression)}
    assert len(used) >= 5
    assert used - exported == set()


def test_every_recorded_series_that_is_used_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = {name for rule in rules() for name in re.findall(r"\b\w+:aftermath_\w+(?::\w+)?", rule["expr"])}
    assert used - recorded == set()


# — the image —


def test_the_lock_of_the_image_is_part_of_the_lock_of_the_tests() -> None:
    tested, run = pins(REPOSITORY / "requirements.lock"), pins(REPOSITORY / "requirements-run.lock")
    assert run - tested == set()
    names = {pin.split("==")[0] for pin in run}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert {plain_name(wanted) for wanted in project["project"]["dependencies"]} - names == set()
    assert {plain_name(tool) for tool in project["dependency-groups"]["dev"]} & names == set()


def test_the_lock_of_the_build_has_what_the_build_requires() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["build-system"]["requires"] == project["dependency-groups"]["build"]
    built = {pin.split("==")[0] for pin in pins(REPOSITORY / "requirements-build.lock")}
    assert built == {plain_name(wanted) for wanted in project["build-system"]["requires"]}


def test_the_locks_name_no_index_and_hash_everything() -> None:
    for lock in ("requirements.lock", "requirements-run.lock", "requirements-build.lock"):
        text = (REPOSITORY / lock).read_text()
        assert re.findall(r"^\s*-(?!-hash)|https?://", text, re.MULTILINE) == []
        blocks = re.split(r"\n(?=\S)", text.strip())
        assert [block for block in blocks if "--hash=sha256:" not in block] == []


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    own = [words for words in instructions("COPY") if not words[1].startswith("--")]
    copied = {source for _, *sources, _ in own for source in sources}
    assert copied == allowed
    assert [name for name in copied if not (REPOSITORY / name).exists()] == []


def test_the_image_installs_the_wheel_and_what_is_locked() -> None:
    installed = [words for words in instructions("RUN") if "/opt/aftermath/bin/pip" in words[1]]
    assert [words[-1] for words in installed] == ["requirements-run.lock", "/dist/aftermath-*.whl"]
    for words in instructions("RUN"):
        if "pip" in words[1]:
            # Nothing is downloaded whose hash is not in a lock, and nothing is compiled but the project itself.
            assert {"--require-hashes", "--only-binary=:all:"} <= {*words} or {"--no-index", "--no-deps"} <= {*words}
    assert instructions("ENTRYPOINT") == [["ENTRYPOINT", '["aftermath"]']]
    assert not any("app" in words for words in instructions("COPY")[-1:]), "the sources stay in the stage that builds"


def test_the_image_does_not_run_as_root() -> None:
    [[_, user]] = instructions("USER")
    assert user == "aftermath"


def test_all_variables_of_the_image_and_of_compose_are_settings() -> None:
    known = {f"AFTERMATH_{name.upper()}" for name in Settings.model_fields}
    text = (REPOSITORY / "Dockerfile").read_text() + (DEPLOY / "compose.yaml").read_text()
    named = set(re.findall(r"\bAFTERMATH_[A-Z_]+", text))
    assert len(named) >= 5
    assert named - known == set()


def test_the_health_check_of_the_image_tells_a_live_service_from_a_dead_one(tmp_path: Path) -> None:
    [words] = instructions("HEALTHCHECK")
    command = json.loads(" ".join(words).partition(" CMD ")[2])
    assert command[0] == "python"
    service = Service(tmp_path, {})

    def status() -> int:
        done = subprocess.run(
            [sys.executable, *command[1:]],
            env={"AFTERMATH_PORT": str(service.port)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
        return done.returncode

    with service.serve() as running:
        assert status() == 0
        running.stop()
    assert status() != 0


# — compose —


@pytest.fixture
def compose() -> Any:
    return read(DEPLOY / "compose.yaml")


def test_compose_asks_for_its_secrets_and_holds_none(compose: Any) -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for name in ("AFTERMATH_ADMIN_TOKEN", "POSTGRES_PASSWORD"):
        assert len(re.findall(rf"\$\{{{name}:\?[^}}]+}}", text)) == len(re.findall(rf"\${{?{name}\b", text)) > 0
    assert {secret["environment"] for secret in compose["secrets"].values()} == {"AFTERMATH_ADMIN_TOKEN"}


def test_compose_wires_what_the_configurations_name(compose: Any) -> None:
    services = compose["services"]
    assert set(services) == {"aftermath", "postgres", "prometheus", "alertmanager"}
    scraping, routing = read(PROMETHEUS / "prometheus.yml"), read(ALERTMANAGER)
    [aftermath] = targets(scraping["scrape_configs"])
    [alertmanager] = targets(scraping["alerting"]["alertmanagers"])
    [webhook] = routing["receivers"][0]["webhook_configs"]
    assert (aftermath, alertmanager) == ("aftermath:8080", "alertmanager:9093")
    assert webhook["url"] == f"http://{aftermath}/webhooks/alertmanager"
    assert services["aftermath"]["environment"]["AFTERMATH_PUBLIC_URL"] == f"http://{aftermath}"
    assert "@postgres/aftermath" in services["aftermath"]["environment"]["AFTERMATH_DATABASE_URL"]
    files = {
        "prometheus": scraping["scrape_configs"][0]["authorization"]["credentials_file"],
        "alertmanager": webhook["http_config"]["authorization"]["credentials_file"],
    }
    for name, file in files.items():
        assert [f"/run/secrets/{secret}" for secret in services[name]["secrets"]] == [file]
        assert {Path(file).name} <= set(compose["secrets"])


def test_compose_starts_the_service_after_its_database_is_healthy(compose: Any) -> None:
    services = compose["services"]
    assert services["aftermath"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]


def test_compose_is_open_to_this_machine_only_and_keeps_what_it_must(compose: Any) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        for volume in service.get("volumes", []):
            origin = volume.split(":")[0]
            assert (DEPLOY / origin).exists() if origin.startswith(".") else origin in compose["volumes"]
        # What `latest` is tomorrow nobody has tested.
        assert service["image"] == "aftermath" or re.search(r":v?\d", service["image"]), name
    assert int(compose["services"]["postgres"]["image"].partition(":")[2]) >= 16


# ------------------------------------------------------------------------------------------------------------------


def checked(tool: str, *arguments: str | Path) -> str:
    """What the tool says; it must be content."""
    command = [program(tool), *arguments]
    done = subprocess.run(
        command, cwd=DEPLOY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def rules() -> Iterator[dict[str, Any]]:
    for group in read(RULES)["groups"]:
        yield from group["rules"]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def targets(configs: list[dict[str, Any]]) -> list[str]:
    return [target for config in configs for static in config["static_configs"] for target in static["targets"]]


def exported_names(text: str) -> set[str]:
    """All that a query may name."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "summary": ["", "_sum", "_count"]}
    return {
        family.name + suffix
        for family in text_string_to_metric_families(text)
        for suffix in suffixes.get(family.type, [""])
    }


def pins(lock: Path) -> set[str]:
    """`name==version`, with the marker if there is one."""
    return {found.strip() for found in re.findall(r"^([a-z0-9._-]+==[^\\\n]+)", lock.read_text(), re.MULTILINE)}


def plain_name(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement.lower())[0].replace("_", "-")


def instructions(name: str) -> list[list[str]]:
    """The Dockerfile's instructions of that name, as words."""
    joined = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split() for line in joined.splitlines() if line.split()[:1] == [name]]
