"""The incidents of the demo that are written, not drawn: the open ones, two long outages, and some to look at. Pure."""

from datetime import datetime, timedelta

from app.demo.catalog import CLUSTER, EDGE, GRAFANA, labels_of
from app.demo.chapter_six import the_outage
from app.demo.facts import Action, Alert, Declaration, Episode, Incident

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def story(ends_at: datetime) -> list[Incident]:
    """In no particular order."""
    return [
        the_outage((ends_at - 12 * DAY).replace(hour=16, minute=0, second=0, microsecond=0)),
        _declared(ends_at),
        _late_export(ends_at),
        _certificate(ends_at),
        _during_maintenance(ends_at),
        *_open_now(ends_at),
    ]


def _declared(ends_at: datetime) -> Incident:
    """Customers report what monitoring does not see."""
    at = ends_at - 20 * DAY - 3 * HOUR

    def after(minutes: int) -> datetime:
        return at + minutes * MINUTE

    return Incident(
        service="demo-payments",
        environment="production",
        began_at=at,
        ended_at=after(80),
        declaration=Declaration("Some cards are refused", "sev2", after(-17), "grace"),
        actions=[
            Action("acknowledge", after(2), "grace"),
            Action("task", after(6), "grace", "Asked three customers for the name of their bank", {"effect": "none"}),
            Action("identified", after(35), "grace", "The gateway has a new certificate, which we do not trust"),
            Action("task", after(41), "edsger", "Trusted the certificate in one zone", {"effect": "positive"}),
            Action("task", after(50), "edsger", "Did the same in the second zone", {"effect": "positive"}),
            Action("mitigated", after(60), "edsger", "The new certificate is trusted everywhere"),
            Action("resolve", after(80), "grace", "Support confirms"),
        ],
    )


def _late_export(ends_at: datetime) -> Incident:
    at = ends_at - 52 * DAY - 5 * HOUR
    until = at + 23 * HOUR
    labels = labels_of("demo-reports", "production", "NightlyExportFailed", "error", pod="reports-0")
    alert = Alert(labels, "the export has not finished; 14 tables are missing", [Episode(at, until)], "5m")
    return Incident(
        "demo-reports",
        "production",
        at,
        until,
        GRAFANA,
        [alert],
        [
            Action("acknowledge", at + 7 * MINUTE, "edgar", "Waiting for the vendor of the database"),
            Action("note", at + 9 * HOUR, "edgar", "The vendor has reproduced it"),
            Action("identified", at + 19 * HOUR, "edgar", "A lock that an aborted upgrade left behind"),
        ],
    )


def _certificate(ends_at: datetime) -> Incident:
    at = ends_at - 45 * DAY - 9 * HOUR
    until = at + 14 * HOUR
    labels = labels_of("demo-platform", "production", "CertificateExpired", "warning", pod="ingress-1")
    alert = Alert(labels, "the certificate of the internal proxy has expired", [Episode(at, until)], "2m")
    return Incident(
        "demo-platform",
        "production",
        at,
        until,
        CLUSTER,
        [alert],
        [
            Action(
                "acknowledge", at + 12 * MINUTE, "greg", "Only internal tools are affected; tomorrow is soon enough"
            ),
            Action("identified", at + 13 * HOUR, "cathy", "The renewal ran with an old account"),
        ],
    )


def _during_maintenance(ends_at: datetime) -> Incident:
    """On a Sunday, in the planned window of the database."""
    day = ends_at - 9 * DAY
    sunday = day - timedelta(days=(day.weekday() + 1) % 7)
    at = sunday.replace(hour=1, minute=25, second=12, microsecond=0)
    until = at + 21 * MINUTE
    labels = labels_of("demo-orders", "production", "WarehouseSyncLate", "high", pod="orders-0")
    alert = Alert(labels, "the last synchronization was 25 minutes ago", [Episode(at, until)], "1m")
    return Incident("demo-orders", "production", at, until, CLUSTER, [alert])


def _open_now(ends_at: datetime) -> list[Incident]:
    def alert(service: str, name: str, severity: str, summary: str, ago: timedelta, **more: str) -> Alert:
        labels = labels_of(service, more.pop("environment", "production"), name, severity, **more)
        return Alert(labels, summary, [Episode(ends_at - ago, None)], "1m")

    payments = [
        alert("demo-payments", "PaymentErrors", "critical", "38 % of payments fail", 11 * MINUTE, pod="payments-4c1d0"),
        alert("demo-payments", "PaymentErrors", "critical", "31 % of payments fail", 10 * MINUTE, pod="payments-9e2f7"),
        alert("demo-payments", "CardGatewayTimeouts", "high", "22 % of card payments time out", 8 * MINUTE),
    ]
    search = [
        alert("demo-search", "IndexStale", "high", "the index is 64 minutes old", 95 * MINUTE),
        alert("demo-search", "SearchLatency", "warning", "p95 of search is 1900 ms", 70 * MINUTE),
    ]
    staging = alert(
        "demo-checkout", "HighLatency", "warning", "p99 of checkout is 2400 ms", 340 * MINUTE, environment="staging"
    )

    def ago(minutes: int) -> datetime:
        return ends_at - minutes * MINUTE

    return [
        Incident("demo-payments", "production", ago(11), None, EDGE, payments),
        Incident(
            "demo-search",
            "production",
            ago(95),
            None,
            EDGE,
            search,
            [
                Action("acknowledge", ago(91), "barbara", "Looking at the indexer"),
                Action("task", ago(84), "barbara", "Restarted the indexer", {"effect": "none"}),
                Action(
                    "task", ago(66), "ken", "Started a second indexer, which blocked the first", {"effect": "negative"}
                ),
                Action("identified", ago(48), "ken", "A document of 300 MB is parsed again and again"),
                Action("task", ago(40), "ken", "Stopped the second indexer", {"effect": "positive"}),
                Action("note", ago(25), "barbara", "Skipping the document needs a new release; building it"),
            ],
        ),
        Incident("demo-checkout", "staging", ago(340), None, EDGE, [staging]),
    ]
