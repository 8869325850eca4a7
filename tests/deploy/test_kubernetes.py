"""deploy/kubernetes against the schemas that Kubernetes publishes, and against the rest of this repository.

Two files have no schema there. The fields of `servicemonitor.yaml` are compared with a list of those that the operator
documents; of `kustomization.yaml` only the names are checked, not the output of kustomize.
"""

import copy
import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from app import __version__
from app.serve import GRACEFUL_SHUTDOWN_SECONDS
from app.settings import Settings
from tests.processes import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "kubernetes"
FILES = sorted(file.name for file in FOLDER.glob("*.yaml") if file.name != "kustomization.yaml")
WITH_SCHEMA = [name for name in FILES if name != "servicemonitor.yaml"]
VERSIONS = ("1.30", kubernetes_validate.latest_version())


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def check(manifest: Any) -> None:
    """Raises for anything that its schema does not define."""
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("name", WITH_SCHEMA)
def test_each_manifest_matches_its_schema(name: str) -> None:
    check(read(name))


@pytest.mark.parametrize("name", WITH_SCHEMA)
def test_a_misspelt_field_would_be_found(name: str) -> None:
    for where in places(read(name)["spec"]):
        manifest = read(name)
        at(manifest["spec"], where)["misspelt"] = 1
        with pytest.raises(kubernetes_validate.ValidationError):
            check(manifest)


def places(value: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The objects in a schema whose field names are fixed."""
    if isinstance(value, dict) and (not above or above[-1] not in {"matchLabels", "labels", "requests", "limits"}):
        yield above
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if inner and not (isinstance(inner, dict) and set(inner) == {"name", "key"}):
            yield from places(inner, (*above, key))


def at(value: Any, where: tuple[str | int, ...]) -> Any:
    for key in where:
        value = value[key]
    return value


def test_the_servicemonitor_has_fields_that_the_operator_documents() -> None:
    monitor = read("servicemonitor.yaml")
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "ServiceMonitor")
    assert set(monitor["spec"]) == {"jobLabel", "selector", "endpoints"}
    [endpoint] = monitor["spec"]["endpoints"]
    assert set(endpoint) == {"port", "path", "interval", "authorization"}
    assert set(endpoint["authorization"]) == {"credentials"}
    assert endpoint["path"] in yaml.safe_load((REPOSITORY / "openapi.yaml").read_text())["paths"]


def test_kustomize_is_given_all_manifests_and_an_image() -> None:
    kustomization = read("kustomization.yaml")
    assert sorted(kustomization["resources"]) == FILES
    assert {image["name"] for image in kustomization["images"]} == {container["image"] for container in containers()}


def test_the_image_has_the_version_of_the_package() -> None:
    [image] = read("kustomization.yaml")["images"]
    assert image["newTag"] == __version__


@pytest.mark.parametrize("name", ["deployment.yaml", "migration.yaml"])
def test_kubernetes_sets_no_variables_for_the_service(name: str) -> None:
    """For a Service named aftermath, Kubernetes would set AFTERMATH_PORT to an address."""
    assert read("service.yaml")["metadata"]["name"] == "aftermath"
    assert read(name)["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_the_selector_matches_the_replicas() -> None:
    replicas = read("deployment.yaml")["spec"]
    labels = replicas["template"]["metadata"]["labels"]
    [spread] = replicas["template"]["spec"]["topologySpreadConstraints"]
    selectors = [
        replicas["selector"]["matchLabels"],
        spread["labelSelector"]["matchLabels"],
        read("service.yaml")["spec"]["selector"],
        read("poddisruptionbudget.yaml")["spec"]["selector"]["matchLabels"],
    ]
    assert selectors == [labels] * 4
    migrates = read("migration.yaml")["spec"]["template"]["metadata"]["labels"]
    assert migrates != labels, "the Job would get deliveries"
    both = read("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"]
    assert both.items() <= labels.items() & migrates.items()
    monitored = read("servicemonitor.yaml")["spec"]
    service = read("service.yaml")["metadata"]["labels"]
    assert monitored["selector"]["matchLabels"].items() <= service.items()
    # The name that the Prometheus rules use.
    assert service[monitored["jobLabel"]] == "aftermath"
    assert 'up{job="aftermath"}' in (REPOSITORY / "deploy/prometheus/aftermath.rules.yml").read_text()


def test_ports_probes_and_the_user_are_those_of_the_image() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    [replica] = read("deployment.yaml")["spec"]["template"]["spec"]["containers"]
    [port] = replica["ports"]
    [exposed] = re.findall(r"^EXPOSE (\d+)$", dockerfile, re.MULTILINE)
    assert (str(port["containerPort"]), port["name"]) == (exposed, "http")
    assert [one["targetPort"] for one in read("service.yaml")["spec"]["ports"]] == ["http"]
    open_routes = yaml.safe_load((REPOSITORY / "openapi.yaml").read_text())["paths"]
    probes = {name: replica[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert set(probes.values()) <= set(open_routes)
    [uid] = re.findall(r"--uid (\d+)", dockerfile)
    assert {pod["securityContext"]["runAsUser"] for pod in pods()} == {int(uid)}
    assert f"AFTERMATH_DATA_DIR={[one['mountPath'] for one in replica['volumeMounts']][1]}" in dockerfile


def test_variables_are_settings_and_secrets_are_those_that_are_made() -> None:
    known = {f"AFTERMATH_{name.upper()}" for name in Settings.model_fields}
    assert {one["name"] for container in containers() for one in container["env"]} <= known
    asked = [
        one["valueFrom"]["secretKeyRef"] for container in containers() for one in container["env"] if "valueFrom" in one
    ]
    asked += [one["authorization"]["credentials"] for one in read("servicemonitor.yaml")["spec"]["endpoints"]]
    instructions = (FOLDER / "kustomization.yaml").read_text() + (REPOSITORY / "docs/operations.md").read_text()
    assert len(asked) == 4
    for one in asked:
        assert re.search(rf"create secret generic {one['name']} [^`]*--from-literal={one['key']}=", instructions), one


def test_no_container_runs_as_root_and_only_volumes_are_writable() -> None:
    for pod in pods():
        assert (pod["securityContext"]["runAsNonRoot"], pod["automountServiceAccountToken"]) == (True, False)
    for container in containers():
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"memory", "ephemeral-storage"} <= container["resources"]["limits"].keys()
    for pod in pods():
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"])


def test_the_admin_token_is_in_no_other_program() -> None:
    """Prometheus' is made with scope `read`, as the page of operations shows."""
    page = (REPOSITORY / "docs/operations.md").read_text()
    [made] = re.findall(r"TOKEN=\$\(kubectl .* aftermath token create (.*)\)\n.*generic aftermath-prometheus ", page)
    assert made == "prometheus --scope read"
    assert read("servicemonitor.yaml")["spec"]["endpoints"][0]["authorization"]["credentials"]["name"] == (
        "aftermath-prometheus"
    )
    assert [name for name in FILES if "admin-token" in (FOLDER / name).read_text()] == ["deployment.yaml"]


def test_it_may_end_in_its_own_time() -> None:
    [replica] = read("deployment.yaml")["spec"]["template"]["spec"]["containers"]
    [_, seconds] = replica["lifecycle"]["preStop"]["exec"]["command"]
    granted = read("deployment.yaml")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert granted > int(seconds) + GRACEFUL_SHUTDOWN_SECONDS


def pods() -> list[Any]:
    return [copy.deepcopy(read(name)["spec"]["template"]["spec"]) for name in ("deployment.yaml", "migration.yaml")]


def containers() -> list[Any]:
    return [container for pod in pods() for container in pod["containers"]]
