"""The files in deploy/ and the Dockerfile are correct, as far as this can be checked without a container engine."""

import json
import os
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
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from app.base import db
from app.base import postgres as embedded
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
    # It checks that the token file exists.
    token = tmp_path / "token"
    token.write_text("secret")
    config.write_text(config.read_text().replace("/run/aftermath/token", str(token)))
    checked("promtool", "check", "config", config)


@pytest.mark.debian
def test_promtool_takes_the_rules() -> None:
    checked("promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.debian
def test_the_alert_rules_pass_their_tests() -> None:
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
    output = checked("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels)
    assert output.split() == [receiver]


# — rules —


def test_every_alert_describes_the_remedy_and_is_tested() -> None:
    tests = [test for file in RULE_TESTS for test in read(file)["tests"]]
    tested = {case["alertname"] for test in tests for case in test.get("alert_rule_test", [])}
    for alert in alerts():
        assert set(alert) >= {"alert", "expr", "for", "labels", "annotations"}, alert
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}, alert["alert"]
        assert alert["labels"]["severity"] in {"critical", "warning", "none"}
        # Otherwise it would become part of the incident that it reports.
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


def test_the_lock_of_the_build_has_the_build_requirements() -> None:
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


def test_the_files_that_the_dockerfile_copies_exist_and_are_not_ignored() -> None:
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    own = [words for words in instructions("COPY") if not words[1].startswith("--")]
    copied = {source for _, *sources, _ in own for source in sources}
    assert copied == allowed
    assert [name for name in copied if not (REPOSITORY / name).exists()] == []


def test_the_image_installs_the_wheel_and_the_locked_packages() -> None:
    installed = [words for words in instructions("RUN") if "/opt/aftermath/bin/pip" in words[1]]
    assert [words[-1] for words in installed] == ["requirements-run.lock", "/dist/aftermath-*.whl"]
    for words in instructions("RUN"):
        if "pip" in words[1]:
            # Only files whose hashes are in a lock are downloaded, and only the project itself is built.
            assert {"--require-hashes", "--only-binary=:all:"} <= {*words} or {"--no-index", "--no-deps"} <= {*words}
    assert instructions("ENTRYPOINT") == [["ENTRYPOINT", '["aftermath"]']]
    assert not any("app" in words for words in instructions("COPY")[-1:]), "the sources stay in the build stage"


def test_the_image_does_not_run_as_root() -> None:
    [[_, user]] = instructions("USER")
    assert user == "aftermath"


def test_all_variables_of_the_image_and_of_compose_are_settings() -> None:
    known = {f"AFTERMATH_{name.upper()}" for name in Settings.model_fields}
    text = (REPOSITORY / "Dockerfile").read_text() + (DEPLOY / "compose.yaml").read_text()
    named = set(re.findall(r"\bAFTERMATH_[A-Z_]+", text))
    assert len(named) >= 5
    assert named - known == set()


def test_the_health_check_of_the_image_detects_a_dead_service(tmp_path: Path) -> None:
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
    for name in ("AFTERMATH_ADMIN_TOKEN", "POSTGRES_PASSWORD", "DATABASE_PASSWORD"):
        assert len(re.findall(rf"\$\{{{name}:\?[^}}]+}}", text)) == len(re.findall(rf"\${{?{name}\b", text)) > 0
        assert re.search(rf"for name in .*\b{name}\b.*; do", text), "the instructions create it"
    assert "secrets" not in compose


def test_compose_has_fields_that_its_specification_has(compose: Any) -> None:
    """There is no schema here. A field that is not in this list is a typo, or the list needs it."""
    assert set(compose) == {"name", "x-hardened", "services", "networks", "volumes"}
    known = {
        *("build", "cap_drop", "command", "depends_on", "entrypoint", "environment", "group_add", "healthcheck"),
        *("image", "init", "mem_limit", "networks", "pids_limit", "ports", "read_only", "restart", "security_opt"),
        *("shm_size", "stop_grace_period", "tmpfs", "user", "volumes"),
    }
    for name, service in compose["services"].items():
        assert set(service) <= known, name
        assert set(service["networks"]) <= set(compose["networks"]), name


def test_compose_gives_no_container_more_than_it_needs(compose: Any) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"] in {"256m", "512m", "1g"}, name
        assert 0 < service["pids_limit"] <= 256, name
        assert all(":size=" in mount for mount in service["tmpfs"]), name
    assert compose["services"]["aftermath"]["mem_limit"] == "1g"
    # All but the database and what creates the tokens are kept away from the database, and that from everything else.
    assert compose["networks"]["database"] == {"internal": True}
    on_it = {name for name, service in compose["services"].items() if "database" in service["networks"]}
    assert on_it == {"aftermath", "tokens", "postgres"}


def test_only_the_service_of_compose_has_the_admin_token(compose: Any) -> None:
    with_it = {name for name, service in compose["services"].items() if "AFTERMATH_ADMIN_TOKEN" in str(service)}
    assert with_it == {"aftermath"}
    assert "POSTGRES_PASSWORD" not in str(compose["services"]["aftermath"]), "the superuser's"


def test_the_tokens_of_compose_can_do_what_they_are_for_and_nothing_else(compose: Any, tmp_path: Path) -> None:
    """Runs the commands of the service `tokens`."""
    tokens = compose["services"]["tokens"]
    assert tokens["entrypoint"] == ["sh", "-euc"]
    [script] = tokens["command"]
    places = [volume.split(":")[1] for volume in tokens["volumes"]]
    service = Service(tmp_path, {})
    for place in places:
        (tmp_path / Path(place).name).mkdir()

    def run() -> tuple[str, str]:
        commands = script.replace("/var/lib/aftermath-tokens", str(tmp_path))
        environment = {**os.environ, **service.variables, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        subprocess.run(["sh", "-euc", commands], env=environment, check=True, capture_output=True, timeout=120)
        files = [tmp_path / name / "token" for name in ("prometheus", "alertmanager")]
        assert [file.stat().st_mode & 0o777 for file in files] == [0o640] * 2
        assert [len(list(file.parent.iterdir())) for file in files] == [1, 1]
        return files[0].read_text(), files[1].read_text()

    with service.serve() as running:
        prometheus, alertmanager = run()
        assert run() == (prometheus, alertmanager), "a second start changes nothing"
        allowed = {
            prometheus: {("GET", "/metrics"), ("GET", "/api/v1/incidents")},
            alertmanager: {("POST", "/webhooks/alertmanager")},
        }
        routes = {*allowed[prometheus], *allowed[alertmanager], ("PUT", "/api/v1/services/x")}
        for token, permitted in allowed.items():
            with running.client(token) as client:
                answers = {one: client.request(*one, json={"alerts": []}).status_code for one in routes}
            assert {one for one, status in answers.items() if status < 300} == permitted, answers
        service.command("token", "revoke", prometheus.split("_")[1])
        renewed, same = run()
        assert (renewed != prometheus, same) == (True, alertmanager)


def test_the_volumes_of_the_tokens_belong_to_the_image_and_to_one_reader_each(compose: Any) -> None:
    services = compose["services"]
    made = {volume.split(":")[0]: volume.split(":")[1] for volume in services["tokens"]["volumes"]}
    dockerfile = " ".join((REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ").split())
    owned = "install --directory --owner=aftermath --group=aftermath --mode=0750"
    [installed] = re.findall(rf"{owned}((?: /\S+)+)", dockerfile)
    assert set(made.values()) == set(installed.split())
    [gid] = re.findall(r"--gid (\d+)", dockerfile)
    for volume in made:
        readers = [name for name, service in services.items() if f"{volume}:/run/aftermath:ro" in service["volumes"]]
        assert readers == [volume.removesuffix("_token")]
        assert services[readers[0]]["group_add"] == [gid]
        assert services[readers[0]]["depends_on"]["tokens"] == {"condition": "service_completed_successfully"}


@pytest.mark.debian
async def test_the_role_of_the_service_in_the_postgresql_of_compose_is_no_superuser(
    compose: Any, tmp_path: Path
) -> None:
    """Runs the script that the image runs, on a server whose superuser is named as there."""
    mounted = [volume.split(":") for volume in compose["services"]["postgres"]["volumes"] if volume.startswith("./")]
    [[script, target, _]] = mounted
    assert target.startswith("/docker-entrypoint-initdb.d/")
    assert os.access(DEPLOY / script, os.X_OK)
    async with await embedded.start(tmp_path / "data") as server:
        await executed(server.url("postgres"), "CREATE ROLE postgres SUPERUSER LOGIN PASSWORD 'super'")
        superuser = make_url(server.url("postgres")).set(username="postgres", password="super")
        await executed(superuser, "ALTER ROLE aftermath RENAME TO other")
        environment = {
            "PATH": os.environ["PATH"],
            "PGHOST": str(server.address.socket_directory),
            "PGPASSWORD": "super",
            "POSTGRES_USER": compose["services"]["postgres"]["environment"]["POSTGRES_USER"],
            "DATABASE_PASSWORD": "it's secret",
        }
        done = subprocess.run([DEPLOY / script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        url = superuser.set(username="aftermath", password="it's secret", database="aftermath")
        await executed(url, "CREATE EXTENSION btree_gist")
        engine = db.connect(url.render_as_string(hide_password=False), pool_size=1)
        await db.migrate(engine)
        async with engine.connect() as connection:
            is_super = await connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))
            assert is_super.scalar_one() is False
        await engine.dispose()


def test_compose_mounts_the_files_named_in_the_configurations(compose: Any) -> None:
    services = compose["services"]
    assert set(services) == {"aftermath", "tokens", "postgres", "prometheus", "alertmanager"}
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
        assert f"{name}_token:{Path(file).parent}:ro" in services[name]["volumes"]
        assert f"{name}_token:/var/lib/aftermath-tokens/{name}" in services["tokens"]["volumes"]
        assert f"--file /var/lib/aftermath-tokens/{name}/{Path(file).name}\n" in services["tokens"]["command"][0]
    assert services["aftermath"]["environment"]["AFTERMATH_OUTBOUND_ALLOW"] == alertmanager.partition(":")[0]


def test_compose_starts_the_service_after_its_database_is_healthy(compose: Any) -> None:
    services = compose["services"]
    assert services["aftermath"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]


def test_compose_listens_on_this_machine_only_and_persists_its_data(compose: Any) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        for volume in service.get("volumes", []):
            origin = volume.split(":")[0]
            assert (DEPLOY / origin).exists() if origin.startswith(".") else origin in compose["volumes"]
        # An exact version by default; a variable replaces it by one with a digest.
        pinned = re.fullmatch(r"\$\{([A-Z]+_IMAGE):-[a-z/]+:v?\d+\.\d+[a-z0-9.-]*\}", service["image"])
        assert service["image"] == "aftermath" or pinned, name
        assert pinned is None or pinned[1] in (REPOSITORY / "docs/operations.md").read_text(), name
    base = compose["services"]["aftermath"]["build"]["args"]["PYTHON_IMAGE"].removeprefix("${PYTHON_IMAGE:-")
    assert instructions("ARG") == [["ARG", f"PYTHON_IMAGE={base.removesuffix('}')}"]]
    assert {words[1] for words in instructions("FROM")} == {"${PYTHON_IMAGE}"}


# ------------------------------------------------------------------------------------------------------------------


def checked(tool: str, *arguments: str | Path) -> str:
    """The output of the tool, which must succeed."""
    command = [program(tool), *arguments]
    done = subprocess.run(
        command, cwd=DEPLOY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def executed(url: str | URL, statement: str) -> None:
    engine = db.connect(url if isinstance(url, str) else url.render_as_string(hide_password=False), pool_size=1)
    async with db.transaction(engine) as tx:
        await tx.execute(text(statement))
    await engine.dispose()


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
    """All series that a query may use."""
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
