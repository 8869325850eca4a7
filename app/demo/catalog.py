"""The services of the demo, and everything else that it configures. All names begin with `demo`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.base.http.requests.fields import rfc3339

LABEL = "demo"  # every alert of the demo has it
LABELS: Mapping[str, str] = {LABEL: "aftermath"}

# Alerts of the demo are grouped by a rule of its own, so that they never join other incidents.
RULE, HEARTBEAT_RULE = "demo", "demo-heartbeat"
HEARTBEAT = "DemoHeartbeat"
CALENDAR, MAINTENANCE = "demo-office", "demo-sunday-upgrade"

CLUSTER, GRAFANA, EDGE, PIPELINE = "demo-alertmanager", "demo-grafana", "demo-edge", "demo-pipeline"
SOURCES: Mapping[str, str] = {  # the kind of each
    CLUSTER: "alertmanager",
    GRAFANA: "grafana",
    EDGE: "alertmanager",
    PIPELINE: "deployments",
}


@dataclass(frozen=True, slots=True)
class AlertRule:
    """An alerting rule of a service. `summary` may contain `{n}`, a number between `low` and `high`."""

    name: str
    severity: str
    summary: str
    low: int = 0
    high: int = 0
    weight: int = 1  # how often it fires


@dataclass(frozen=True, slots=True)
class Rate:
    """Cost of an hour of outage, from the beginning, or from some days before the end of the quarter."""

    currency: str
    low: int
    expected: int
    high: int
    days_before_end: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A service, and how often and how long it fails. `monthly` counts its incidents in 30 days by environment."""

    name: str
    owner: str
    team: Sequence[str]
    source: str
    rules: Sequence[AlertRule]
    monthly: Mapping[str, int]
    recovery_minutes: float  # median
    deployments_a_week: float
    rates: Sequence[Rate] = ()
    objective: str | None = None
    window: Mapping[str, Any] | None = None  # of the objective
    last_month: float = 1.0  # factor of the recovery time in the last 30 days

    @property
    def pods(self) -> str:
        """The prefix of its pods' names."""
        return self.name.removeprefix("demo-")


ROLLING: Mapping[str, Any] = {"rolling_days": 30}
QUARTERLY: Mapping[str, Any] = {"calendar": "quarter"}

SERVICES: Sequence[Service] = (
    Service(
        "demo-checkout",
        "Shop",
        ("ada", "linus"),
        CLUSTER,
        (
            AlertRule("HighErrorRate", "critical", "{n} % of checkouts fail", 6, 48, weight=1),
            AlertRule("HighLatency", "warning", "p99 of checkout is {n} ms", 1900, 5200, weight=5),
            AlertRule("FewOrders", "high", "orders are {n} % below last week", 25, 70, weight=2),
            AlertRule("PodCrashLooping", "warning", "a pod restarted {n} times in 10 minutes", 4, 12, weight=5),
        ),
        {"production": 10, "staging": 2},
        28,
        3.5,
        (
            Rate("EUR", 4_000, 9_000, 20_000),
            Rate("EUR", 6_000, 14_000, 30_000, days_before_end=40),
        ),
        "0.995",
        ROLLING,
    ),
    Service(
        "demo-payments",
        "Payments",
        ("grace", "edsger"),
        CLUSTER,
        (
            AlertRule("CardGatewayTimeouts", "high", "{n} % of card payments time out", 3, 30, weight=2),
            AlertRule("RefundsQueued", "warning", "{n} refunds are waiting", 200, 4000, weight=5),
            AlertRule("PaymentErrors", "critical", "{n} % of payments fail", 4, 35, weight=1),
        ),
        {"production": 7, "staging": 1},
        34,
        2,
        (Rate("EUR", 1_000, 2_500, 6_000), Rate("USD", 3_000, 8_000, 25_000)),
        "0.995",
        ROLLING,
    ),
    Service(
        "demo-search",
        "Discovery",
        ("barbara", "ken"),
        GRAFANA,
        (
            AlertRule("SearchLatency", "warning", "p95 of search is {n} ms", 900, 3200, weight=5),
            AlertRule("IndexStale", "high", "the index is {n} minutes old", 20, 95, weight=2),
            AlertRule("ReplicaLagging", "minor", "a replica is {n} seconds behind", 30, 240, weight=3),
        ),
        {"production": 10, "staging": 2},
        42,
        3,
        (Rate("EUR", 500, 1_500, 4_000),),
        "0.99",
        ROLLING,
        last_month=0.65,
    ),
    Service(
        "demo-accounts",
        "Identity",
        ("margaret", "dennis"),
        CLUSTER,
        (
            AlertRule("LoginsFail", "critical", "{n} % of logins fail", 5, 60, weight=1),
            AlertRule("SessionStoreSlow", "warning", "p99 of the session store is {n} ms", 300, 1400, weight=5),
            AlertRule("TokenRefreshErrors", "high", "{n} token refreshes fail per minute", 40, 900, weight=2),
        ),
        {"production": 7, "staging": 1},
        22,
        1.5,
        (Rate("EUR", 300, 900, 2_000),),
        "0.997",
        ROLLING,
    ),
    Service(
        "demo-orders",
        "Logistics",
        ("radia", "tony"),
        CLUSTER,
        (
            AlertRule("QueueTooLong", "high", "{n} orders are waiting", 900, 9000, weight=2),
            AlertRule(
                "WarehouseSyncLate", "warning", "the last synchronization was {n} minutes ago", 18, 120, weight=5
            ),
            AlertRule("LabelPrinterErrors", "minor", "{n} labels could not be printed", 5, 60, weight=3),
        ),
        {"production": 8, "staging": 1},
        47,
        2,
        (Rate("USD", 200, 600, 1_500),),
        "0.99",
        QUARTERLY,
    ),
    Service(
        "demo-mobile",
        "Mobile",
        ("anita", "joan"),
        GRAFANA,
        (
            AlertRule("AppErrors", "high", "{n} % of requests from the app fail", 4, 30, weight=2),
            AlertRule("PushDelayed", "warning", "push messages are {n} seconds late", 40, 600, weight=5),
            AlertRule("CrashRate", "warning", "{n} crashes per 10,000 sessions", 15, 90, weight=5),
        ),
        {"production": 7, "staging": 1},
        31,
        1.5,
        (Rate("EUR", 800, 2_000, 5_000),),
        "0.995",
        ROLLING,
    ),
    Service(
        "demo-reports",
        "Data",
        ("edgar",),
        GRAFANA,
        (
            AlertRule(
                "NightlyExportFailed", "error", "the export has not finished; {n} tables are missing", 1, 14, weight=1
            ),
            AlertRule("DiskAlmostFull", "minor", "{n} % of the disk is free", 2, 9, weight=3),
            AlertRule("ReportLate", "elevated", "the report is {n} minutes late", 20, 180, weight=2),
        ),
        {"production": 6},
        58,
        0.7,
    ),
    Service(
        "demo-platform",
        "Platform",
        ("cathy", "greg", "gary"),
        CLUSTER,
        (
            AlertRule("NodeNotReady", "warning", "a node has not been ready for {n} minutes", 3, 20, weight=5),
            AlertRule("CertificateExpires", "minor", "a certificate expires in {n} hours", 4, 40, weight=3),
        ),
        {"staging": 2},
        40,
        0.7,
        (Rate("EUR", 1_500, 4_000, 9_000),),
        "0.999",
        ROLLING,
    ),
)
BY_NAME: Mapping[str, Service] = {service.name: service for service in SERVICES}


def configuration(begins_at: datetime, ends_at: datetime) -> list[tuple[str, Any]]:
    """The path and body of each PUT request that configures the demo, in the order in which they must be sent."""
    api = "/api/v1"
    mine = f'{LABEL}="{LABELS[LABEL]}"'
    heartbeat = [f'alertname="{HEARTBEAT}"', mine]
    requests: list[tuple[str, Any]] = [
        (f"{api}/rules/{HEARTBEAT_RULE}", {"position": 0, "matchers": heartbeat, "heartbeat_seconds": 7 * 24 * 3600}),
        (f"{api}/rules/{RULE}", {"position": 1, "matchers": [mine]}),
        *((f"{api}/sources/{name}", {"kind": kind}) for name, kind in SOURCES.items()),
    ]
    for service in SERVICES:
        path = f"{api}/services/{service.name}"
        runbook = {"title": "Runbook", "url": f"https://wiki.example.org/runbooks/{service.pods}"}
        described = {"owner": service.owner, "links": [runbook], "in_service_since": rfc3339(begins_at)}
        requests.append((path, described))
        if service.rates:
            requests.append((f"{path}/rates", [_rate(rate, ends_at) for rate in service.rates]))
        if service.objective:
            objective = {"target": service.objective, "window": service.window, "environment": "production"}
            requests.append((f"{path}/objective", objective))
    weekdays = ("monday", "tuesday", "wednesday", "thursday", "friday")
    hours = {day: [{"from": "09:00", "to": "18:00"}] for day in weekdays}
    recurring = {
        "weekdays": ["sunday"],
        "start_time": "02:00",
        "duration_seconds": 2 * 3600,
        "zone": "Europe/Berlin",
        "first_date": f"{begins_at:%Y-%m-%d}",
    }
    upgrade = {
        "services": ["demo-orders", "demo-reports"],
        "reason": "Weekly upgrade of the database",
        "recurring": recurring,
    }
    return [
        *requests,
        (f"{api}/calendars/{CALENDAR}", {"zone": "Europe/Berlin", "hours": hours}),
        (f"{api}/maintenance/{MAINTENANCE}", upgrade),
    ]


def labels_of(service: str, environment: str, name: str, severity: str, **more: str) -> dict[str, str]:
    return {
        "alertname": name,
        "service": service,
        "environment": environment,
        "severity": severity,
        **LABELS,
        **more,
    }


def _rate(rate: Rate, ends_at: datetime) -> dict[str, Any]:
    amounts = {"currency": rate.currency, "low": str(rate.low), "expected": str(rate.expected), "high": str(rate.high)}
    if rate.days_before_end is None:
        return amounts
    since = (ends_at - timedelta(days=rate.days_before_end)).replace(hour=0, minute=0)
    return {"from": rfc3339(since), **amounts}
