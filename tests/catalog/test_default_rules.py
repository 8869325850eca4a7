"""The rules of a new database, with the label sets of alerts that people really have: each belongs to what is in
trouble, never to the exporter through which it is seen.

The label sets are those of kube-prometheus-stack: its ServiceMonitors attach `job`, `service`, `namespace`, `pod`,
`container`, `endpoint` and `instance` of the exporter, unless the metric has a label of that name (`honorLabels`);
aggregations drop all but some of them.
"""

from collections.abc import Mapping

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.catalog.rules import store
from app.incidents.grouping.rule import Decision, Rules
from app.incidents.grouping.signal import AlertClass
from tests.ingest.test_webhook import WEBHOOK, a_delivery, an_alert

Labels = Mapping[str, str]

# What the ServiceMonitor of each exporter attaches.
KSM = {
    "container": "kube-state-metrics",
    "endpoint": "http",
    "instance": "10.42.0.7:8080",
    "job": "kube-state-metrics",
    "namespace": "monitoring",
    "pod": "kps-kube-state-metrics-5d8b6c7f9-xk2lp",
    "prometheus": "monitoring/kps-kube-prometheus-stack-prometheus",
    "service": "kps-kube-state-metrics",
}
KUBELET = {
    "endpoint": "https-metrics",
    "instance": "10.0.0.11:10250",
    "job": "kubelet",
    "metrics_path": "/metrics",
    "namespace": "kube-system",
    "node": "node-1",
    "prometheus": "monitoring/kps-kube-prometheus-stack-prometheus",
    "service": "kps-kube-prometheus-stack-kubelet",
}
NODE = {
    "container": "node-exporter",
    "endpoint": "http-metrics",
    "instance": "10.0.0.11:9100",
    "job": "node-exporter",
    "namespace": "monitoring",
    "pod": "kps-prometheus-node-exporter-7tzqv",
    "prometheus": "monitoring/kps-kube-prometheus-stack-prometheus",
    "service": "kps-prometheus-node-exporter",
}
ETCD = {
    "endpoint": "http-metrics",
    "instance": "10.0.0.1:2381",
    "job": "kube-etcd",
    "namespace": "kube-system",
    "pod": "etcd-control-1",
    "service": "kps-kube-prometheus-stack-kube-etcd",
}
PROMETHEUS = {
    "container": "prometheus",
    "endpoint": "http-web",
    "instance": "10.42.0.9:9090",
    "job": "kps-kube-prometheus-stack-prometheus",
    "namespace": "monitoring",
    "pod": "prometheus-kps-kube-prometheus-stack-prometheus-0",
    "service": "kps-kube-prometheus-stack-prometheus",
}
SHOP = {"namespace": "shop"}
POD = SHOP | {"pod": "checkout-6c9f7d-2xkqp", "container": "checkout", "uid": "0b3c"}

# (alert, its labels, the service it belongs to)
KUBERNETES: list[tuple[str, Labels, str]] = [
    ("KubePodCrashLooping", KSM | POD | {"reason": "CrashLoopBackOff"}, "shop"),
    ("KubePodNotReady", SHOP | {"pod": "checkout-6c9f7d-2xkqp", "job": "kube-state-metrics"}, "shop"),
    ("KubeDeploymentReplicasMismatch", KSM | SHOP | {"deployment": "checkout"}, "shop"),
    ("KubeDeploymentGenerationMismatch", KSM | SHOP | {"deployment": "checkout"}, "shop"),
    ("KubeDeploymentRolloutStuck", KSM | SHOP | {"deployment": "checkout", "condition": "Progressing"}, "shop"),
    ("KubeStatefulSetReplicasMismatch", KSM | SHOP | {"statefulset": "db"}, "shop"),
    ("KubeStatefulSetUpdateNotRolledOut", KSM | SHOP | {"statefulset": "db"}, "shop"),
    ("KubeDaemonSetRolloutStuck", KSM | {"namespace": "logging", "daemonset": "agent"}, "logging"),
    ("KubeDaemonSetMisScheduled", KSM | {"namespace": "logging", "daemonset": "agent"}, "logging"),
    ("KubeContainerWaiting", SHOP | {"pod": "p", "container": "checkout", "reason": "ImagePullBackOff"}, "shop"),
    ("KubeJobNotCompleted", KSM | SHOP | {"job_name": "report-28"}, "shop"),
    ("KubeJobFailed", KSM | SHOP | {"job_name": "report-28", "condition": "true"}, "shop"),
    ("KubeHpaMaxedOut", KSM | SHOP | {"horizontalpodautoscaler": "checkout"}, "shop"),
    ("KubePdbNotEnoughHealthyPods", KSM | SHOP | {"poddisruptionbudget": "checkout"}, "shop"),
    ("KubeQuotaAlmostFull", KSM | SHOP | {"resource": "requests.cpu", "resourcequota": "q", "type": "used"}, "shop"),
    ("CPUThrottlingHigh", SHOP | {"pod": "p", "container": "checkout"}, "shop"),
    # Newer versions keep the Kubernetes service of the kubelet.
    ("CPUThrottlingHigh", SHOP | {"pod": "p", "container": "checkout", "service": KUBELET["service"]}, "shop"),
    ("KubePersistentVolumeFillingUp", KUBELET | SHOP | {"persistentvolumeclaim": "data-db-0"}, "shop"),
    ("KubePersistentVolumeInodesFillingUp", KUBELET | SHOP | {"persistentvolumeclaim": "data-db-0"}, "shop"),
    ("ContainerOOM", KUBELET | POD | {"metrics_path": "/metrics/cadvisor", "name": "abc"}, "shop"),
    ("KubePersistentVolumeErrors", KSM | {"persistentvolume": "pvc-1", "phase": "Failed"}, "pvc-1"),
    # Of nodes; the other labels are those of the exporter.
    ("KubeNodeNotReady", KSM | {"node": "node-1", "condition": "Ready", "status": "true"}, "node-1"),
    ("KubeNodePressure", KSM | {"node": "node-1", "condition": "MemoryPressure", "status": "true"}, "node-1"),
    ("KubeNodeUnreachable", KSM | {"node": "node-1", "effect": "NoSchedule"}, "node-1"),
    ("KubeNodeReadinessFlapping", {"cluster": "eu", "node": "node-1"}, "node-1"),
    ("KubeNodeEviction", {"cluster": "eu", "node": "node-1", "eviction_signal": "x", "instance": "y"}, "node-1"),
    ("KubeletTooManyPods", {"cluster": "eu", "node": "node-1"}, "node-1"),
    ("KubeletPlegDurationHigh", {"instance": "10.0.0.11:10250", "node": "node-1", "quantile": "0.99"}, "node-1"),
    ("KubeletClientCertificateExpiration", KUBELET, "node-1"),
    ("NodeFilesystemSpaceFillingUp", NODE | {"device": "/dev/sda1", "mountpoint": "/"}, "10.0.0.11:9100"),
    ("NodeFilesystemAlmostOutOfSpace", NODE | {"device": "/dev/sda1", "mountpoint": "/"}, "10.0.0.11:9100"),
    ("NodeClockNotSynchronising", NODE, "10.0.0.11:9100"),
    ("NodeMemoryHighUtilization", NODE, "10.0.0.11:9100"),
    ("NodeNetworkInterfaceFlapping", NODE | {"device": "eth0"}, "10.0.0.11:9100"),
    # Targets: what cannot be scraped is in trouble itself.
    ("TargetDown", {"job": "checkout", "namespace": "shop", "service": "checkout"}, "checkout"),
    ("TargetDown", {"job": "node-exporter", "namespace": "monitoring", "service": NODE["service"]}, "monitoring"),
    ("TargetDown", {"job": "kube-state-metrics", "namespace": "monitoring", "service": KSM["service"]}, "monitoring"),
    # Not seen through an exporter: its own service.
    ("etcdInsufficientMembers", ETCD, ETCD["service"]),
    ("etcdHighFsyncDurations", ETCD | {"quantile": "0.99"}, ETCD["service"]),
    ("etcdNoLeader", ETCD, ETCD["service"]),
    ("PrometheusRuleFailures", PROMETHEUS, PROMETHEUS["service"]),
    ("AlertmanagerFailedReload", {"job": "kps-alertmanager", "service": "kps-alertmanager"}, "kps-alertmanager"),
    ("KubeAPIDown", {"job": "apiserver"}, "apiserver"),
    ("KubeClientErrors", {"job": "apiserver", "namespace": "default", "instance": "10.0.0.1:6443"}, "apiserver"),
    ("KubeSchedulerDown", {"job": "kube-scheduler"}, "kube-scheduler"),
    # Of the whole cluster: nothing narrower is named.
    ("KubeCPUOvercommit", {"cluster": "eu"}, "KubeCPUOvercommit"),
    ("KubeAPIErrorBudgetBurn", {"long": "1h", "short": "5m"}, "KubeAPIErrorBudgetBurn"),
    ("KubeletDown", {"job": "kubelet"}, "KubeletDown"),
]

# The prometheus chart, Grafana Alloy, docker: other names of jobs, other places of the workload's namespace.
ELSEWHERE: list[tuple[str, Labels, str]] = [
    (
        "PodCrashes",
        {
            "job": "kubernetes-service-endpoints",
            "service": "prometheus-kube-state-metrics",
            "app_kubernetes_io_name": "kube-state-metrics",
            "namespace": "monitoring",
            "exported_namespace": "shop",
            "exported_pod": "checkout-1",
            "node": "node-1",
            "pod": "prometheus-kube-state-metrics-1",
        },
        "shop",
    ),
    ("PodCrashes", {"job": "integrations/kubernetes/kube-state-metrics", "namespace": "shop"}, "shop"),
    ("Throttling", {"job": "kubernetes-nodes-cadvisor", "namespace": "shop", "pod": "p", "node": "n"}, "shop"),
    ("Throttling", {"job": "integrations/kubernetes/cadvisor", "namespace": "shop", "pod": "p"}, "shop"),
    ("ContainerDown", {"job": "cadvisor", "name": "shop-db-1", "instance": "cadvisor:8080"}, "shop-db-1"),
    (
        "ContainerDown",
        {"job": "cadvisor", "name": "x-db-1", "container_label_com_docker_compose_service": "db"},
        "db",
    ),
    ("HostOutOfMemory", {"job": "node", "instance": "db-1:9100"}, "db-1:9100"),
    ("HostOutOfMemory", {"job": "node_exporter", "instance": "db-1:9100", "nodename": "db-1"}, "db-1"),
    ("WindowsServiceDown", {"job": "windows-exporter", "instance": "win-1:9182"}, "win-1:9182"),
    # A service that people have named is believed.
    ("PodCrashes", KSM | SHOP | {"service": "checkout"}, "checkout"),
    ("SiteDown", {"job": "blackbox", "instance": "https://shop.example", "service": "shop"}, "shop"),
    # Their names only resemble exporters.
    ("HighLatency", {"job": "kubelet-proxy-ui2", "service": "nodes-api", "namespace": "shop"}, "nodes-api"),
    ("HighLatency", {"job": "probe-results-api", "instance": "10.0.0.1:80"}, "probe-results-api"),
]

SITES = ("https://shop.example", "https://blog.example", "https://login.example/health")
PROBES: list[tuple[str, Labels, str]] = [
    *(("SiteDown", {"job": "blackbox", "instance": site}, site) for site in SITES),
    *(("SiteDown", {"job": "blackbox-http", "instance": site, "module": "http_2xx"}, site) for site in SITES),
    *(
        ("SiteDown", {"job": "prometheus-blackbox-exporter", "target": site, "instance": "b:9115"}, site)
        for site in SITES
    ),
    # A Probe of the Prometheus operator
    *(("ProbeFailed", {"job": "probe/monitoring/sites", "instance": site, "namespace": "m"}, site) for site in SITES),
    ("SwitchDown", {"job": "snmp_exporter", "instance": "switch-1"}, "switch-1"),
]


@pytest.fixture
async def rules(engine: AsyncEngine) -> Rules:
    async with db.transaction(engine) as tx:
        return Rules(await store.rules(tx))


def decided(rules: Rules, alertname: str, labels: Labels) -> Decision:
    return rules.decide({"severity": "warning", **labels, "alertname": alertname}, AlertClass.SERVICE)


async def test_each_alert_belongs_to_what_is_in_trouble(rules: Rules) -> None:
    expected = [(name, service) for name, _, service in KUBERNETES + ELSEWHERE + PROBES]
    found = [(name, decided(rules, name, labels).service) for name, labels, _ in KUBERNETES + ELSEWHERE + PROBES]
    assert found == expected
    assert len({name for name, _, _ in KUBERNETES}) >= 25


async def test_alerts_of_one_namespace_are_one_incident_and_of_others_are_not(rules: Rules) -> None:
    keys = {
        troubled: {decided(rules, name, labels).key_id for name, labels, service in KUBERNETES if service == troubled}
        for troubled in ("shop", "logging", "node-1")
    }
    assert [len(ids) for ids in keys.values()] == [1, 1, 1]
    assert len(set.union(*keys.values())) == 3


async def test_the_sites_of_a_prober_are_incidents_of_their_own(client: httpx.AsyncClient) -> None:
    alerts = [an_alert(alertname="SiteDown", job="blackbox", instance=site, service="") for site in SITES]
    answer = await client.post(WEBHOOK, json=a_delivery(*alerts))
    assert answer.json()["verdicts"] == {"opened": 3}
    listed = (await client.get("/api/v1/incidents")).json()["items"]
    assert {incident["service"] for incident in listed} == set(SITES)


@pytest.mark.parametrize(
    "name", ["Watchdog", "AftermathHeartbeat", "InfoInhibitor", "AftermathDown", "AftermathSpooling"]
)
async def test_what_is_no_problem_of_a_service_opens_nothing(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post(WEBHOOK, json=a_delivery(an_alert(alertname=name, service="aftermath")))
    assert (answer.status_code, answer.json()["verdicts"]) == (200, {"ignored": 1})
    assert (await client.get("/api/v1/incidents")).json()["items"] == []


async def test_an_alert_about_a_missing_heartbeat_opens_an_incident(rules: Rules) -> None:
    labels = {"service": "heartbeat", "severity": "critical"}
    decision = rules.decide(labels | {"alertname": "HeartbeatMissing"}, AlertClass.MONITORING)
    assert (decision.rule, decision.opens_incidents, decision.heartbeat) == ("default", True, False)


async def test_default_rules_can_be_changed_and_deleted(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/rules/aftermath-alerts")).json()["opens_incidents"] is False
    assert (await client.delete("/api/v1/rules/aftermath-alerts")).status_code == 204
    answer = await client.post(WEBHOOK, json=a_delivery(an_alert(alertname="AftermathDown", service="aftermath")))
    assert answer.json()["verdicts"] == {"opened": 1}
