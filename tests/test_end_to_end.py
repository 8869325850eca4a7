"""End to end with real senders: a Prometheus rule fires and clears, Debian's Alertmanager delivers with the
configuration that the service printed, people respond over REST, and the same Prometheus scrapes the numbers.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import Service, a_prometheus, an_alertmanager, free_port, until

RULES = """
groups:
  - name: checkout
    rules:
      - alert: CheckoutErrors
        expr: checkout_errors > 0
        labels: {service: checkout, severity: critical}
        annotations: {summary: "Checkout & payment <fail>"}
"""

PROMETHEUS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{directory}/rules.yml]
alerting:
  alertmanagers:
    - static_configs: [{{targets: ["127.0.0.1:{alertmanager}"]}}]
scrape_configs:
  - job_name: shop
    static_configs: [{{targets: ["127.0.0.1:{shop}"]}}]
  - job_name: aftermath
    authorization: {{credentials_file: {directory}/token}}
    static_configs: [{{targets: ["127.0.0.1:{aftermath}"]}}]
"""


@pytest.mark.debian
@pytest.mark.slow  # an incident settles a window after its recovery, which is a minute at least
def test_a_rule_that_fires_and_clears_becomes_a_time_to_recover_in_prometheus(tmp_path: Path) -> None:
    settles_soon = {"AFTERMATH_ALLOWED_LATENESS_SECONDS": "0", "AFTERMATH_SETTLE_INTERVAL_SECONDS": "0.2"}
    service = Service(tmp_path, settles_soon)
    with a_shop() as shop, a_tap(service) as tap:
        # The printed receiver then sends through the tap.
        service.environment["AFTERMATH_PUBLIC_URL"] = tap.url
        with service.serve() as running, running.client() as client:
            assert client.put("/api/v1/rules/default", json={"window_seconds": 60}).status_code == 200
            (tmp_path / "token").write_text(service.command("token", "create", "prometheus", "--scope", "read"))
            (tmp_path / "rules.yml").write_text(RULES)
            printed = running.snippet
            assert printed is not None
            alertmanager_port = free_port()
            ports = {"shop": shop.port, "aftermath": service.port, "alertmanager": alertmanager_port}
            config = PROMETHEUS.format(directory=tmp_path, **ports)
            with (
                an_alertmanager(tmp_path, hurried(printed), alertmanager_port) as alertmanager,
                a_prometheus(tmp_path, config, free_port()) as prometheus,
            ):
                until(lambda: asked(prometheus, "checkout_errors") == [0.0], "Prometheus scrapes the shop")
                assert client.get("/api/v1/incidents").json()["items"] == []

                shop.errors = 1
                opened = until(lambda: an_incident(client, "open"), "the incident opens")
                [theirs] = alertmanager.get("/api/v2/alerts").json()
                assert moment(opened["detected_at"]) == moment(theirs["startsAt"])
                shown = ("number", "title", "service", "severity", "sources", "alerts", "alerts_firing", "resolved_at")
                assert {name: opened[name] for name in shown} == {
                    "number": "INC-1",
                    "title": "CheckoutErrors: Checkout & payment <fail>",
                    "service": "checkout",
                    "severity": "sev1",
                    "sources": ["alertmanager"],
                    "alerts": 1,
                    "alerts_firing": 1,
                    "resolved_at": None,
                }
                until(
                    lambda: asked(prometheus, 'aftermath_incidents_open{service="checkout"}') == [1.0], "it is scraped"
                )

                acknowledged = client.post("/api/v1/incidents/INC-1/acknowledge", json={"by": "ada"})
                assert acknowledged.status_code == 200
                assert (acknowledged.json()["status"], acknowledged.json()["acknowledged_by"]) == (
                    "acknowledged",
                    "ada",
                )

                shop.errors = 0
                resolved = until(lambda: an_incident(client, "resolved"), "the incident resolves")
                [firing] = {alert["startsAt"] for alert in tap.alerts("firing")}
                [cleared] = tap.alerts("resolved")
                assert (firing, theirs["fingerprint"]) == (cleared["startsAt"], cleared["fingerprint"])
                assert moment(resolved["detected_at"]) == moment(cleared["startsAt"])
                assert moment(resolved["resolved_at"]) == moment(cleared["endsAt"])
                [evidence] = client.get("/api/v1/incidents/INC-1/alerts").json()["items"]
                assert (evidence["fingerprint"], evidence["started_at"], evidence["ended_at"]) == (
                    theirs["fingerprint"],
                    resolved["detected_at"],
                    resolved["resolved_at"],
                )
                lasted = moment(cleared["endsAt"]) - moment(cleared["startsAt"])
                recover = resolved["measures"]["time_to_recover"]
                assert recover == {"seconds": lasted.total_seconds(), "status": "recorded", "reason": None}
                noticed = resolved["measures"]["time_to_acknowledge"]["seconds"]
                assert 0 < noticed < recover["seconds"]

                # Not before it has settled; then once, with the same number as over REST.
                count = (
                    'aftermath_time_to_recover_seconds_count{service="checkout",environment="unknown",severity="sev1"}'
                )
                assert sum(asked(prometheus, count)) == 0
                until(lambda: asked(prometheus, count) == [1.0], "it settles and is scraped", within=180)
                assert client.get("/api/v1/incidents/INC-1").json()["settled"] is True
                assert asked(prometheus, "aftermath_time_to_recover_seconds_sum") == [recover["seconds"]]
                assert asked(prometheus, "aftermath_time_to_acknowledge_seconds_sum") == [pytest.approx(noticed)]
                assert asked(prometheus, 'aftermath_incidents_total{service="checkout"}') == [1.0]
                assert asked(prometheus, 'aftermath_signals_total{source="alertmanager",verdict="opened"}') == [1.0]
                assert sum(asked(prometheus, "aftermath_incidents_open")) == 0
                assert asked(prometheus, 'up{job="aftermath"}') == [1.0]


@pytest.mark.debian
@pytest.mark.slow
def test_an_alert_that_expired_while_prometheus_stood_still_has_not_recovered(tmp_path: Path) -> None:
    """Prometheus is stopped for longer than the end that it announces, and shorter than its look-back of five minutes.
    Alertmanager reports the alert as resolved, and then as firing again since the same time.
    """
    # Report times count in whole minutes: without lateness, the incident could settle before a report in the next one.
    soon = {"AFTERMATH_ALLOWED_LATENESS_SECONDS": "60", "AFTERMATH_SETTLE_INTERVAL_SECONDS": "0.2"}
    service = Service(tmp_path, soon)
    with a_shop() as shop, a_tap(service) as tap:
        service.environment["AFTERMATH_PUBLIC_URL"] = tap.url
        with service.serve() as running, running.client() as client:
            assert client.put("/api/v1/rules/default", json={"window_seconds": 60}).status_code == 200
            settings = {"kind": "alertmanager", "refire_seconds": 60}
            assert client.put("/api/v1/sources/alertmanager", json=settings).status_code == 200
            (tmp_path / "token").write_text(service.command("token", "create", "prometheus", "--scope", "read"))
            (tmp_path / "rules.yml").write_text(RULES)
            assert running.snippet is not None
            ports = {"shop": shop.port, "aftermath": service.port, "alertmanager": free_port()}
            config = PROMETHEUS.format(directory=tmp_path, **ports)
            repeating = hurried(running.snippet, repeat_interval="15s")
            # Prometheus announces an end four times this delay ahead.
            announces = "--rules.alert.resend-delay=1s"
            with (
                an_alertmanager(tmp_path, repeating, ports["alertmanager"]),
                a_prometheus(tmp_path, config, free_port(), announces) as prometheus,
            ):
                until(lambda: asked(prometheus, "checkout_errors") == [0.0], "Prometheus scrapes the shop")
                shop.errors = 1
                opened = until(lambda: an_incident(client, "open"), "the incident opens")
                with prometheus.frozen():
                    until(lambda: an_incident(client, "resolved"), "the alert expires and is reported as resolved")
                    [expired] = tap.alerts("resolved")
                before = len(tap.alerts("firing"))
                until(lambda: len(tap.alerts("firing")) > before, "it is reported as firing again")
                assert {alert["startsAt"] for alert in tap.alerts("firing")} == {expired["startsAt"]}
                again = until(lambda: an_incident(client, "open"), "it is open again", within=150)
                shown = ("number", "detected_at", "reopened", "first_resolved_at", "firing_after_resolve")
                assert {name: again[name] for name in shown} == {
                    "number": opened["number"],
                    "detected_at": opened["detected_at"],
                    "reopened": 0,
                    "first_resolved_at": None,
                    "firing_after_resolve": False,
                }

                shop.errors = 0
                resolved = until(lambda: an_incident(client, "resolved"), "the incident resolves")
                cleared = tap.alerts("resolved")[-1]
                assert moment(resolved["resolved_at"]) == moment(cleared["endsAt"])
                until(lambda: all_incidents(client)[0]["settled"], "it settles", within=180)
                [settled] = all_incidents(client)
                lasted = moment(cleared["endsAt"]) - moment(cleared["startsAt"])
                assert settled["measures"]["time_to_recover"]["seconds"] == lasted.total_seconds()
                counted = client.get("/metrics").text
                place = '{environment="unknown",service="checkout",severity="sev1"}'
                assert f"aftermath_time_to_recover_seconds_count{place} 1.0" in counted
                assert "aftermath_history_corrections_total 0.0" in counted


@pytest.mark.debian
@pytest.mark.slow
def test_what_a_slow_peer_reports_after_the_end_reopens_nothing(tmp_path: Path) -> None:
    """Two clustered Alertmanagers both notify, and what the second sends arrives 20 seconds later."""
    service = Service(tmp_path, {})
    with a_shop() as shop, a_tap(service) as tap, a_tap(service, late=timedelta(seconds=20)) as late_tap:
        service.environment["AFTERMATH_PUBLIC_URL"] = tap.url
        with service.serve() as running, running.client() as client, ExitStack() as stack:
            (tmp_path / "token").write_text(service.command("token", "create", "prometheus", "--scope", "read"))
            (tmp_path / "rules.yml").write_text(RULES)
            assert running.snippet is not None
            printed = hurried(running.snippet)
            gossip, ports = (free_port(), free_port()), (free_port(), free_port())
            for place, snippet in enumerate((printed, printed.replace(tap.url, late_tap.url))):
                cluster = [
                    f"--cluster.listen-address=127.0.0.1:{gossip[place]}",
                    f"--cluster.advertise-address=127.0.0.1:{gossip[place]}",
                    f"--cluster.peer=127.0.0.1:{gossip[1 - place]}",
                    "--cluster.settle-timeout=1s",
                    "--cluster.peer-timeout=0s",  # it does not wait whether the other one notifies
                    "--cluster.gossip-interval=10s",
                ]
                (directory := tmp_path / f"peer-{place}").mkdir()
                stack.enter_context(an_alertmanager(directory, snippet, ports[place], cluster=cluster))
            both = f'127.0.0.1:{ports[0]}", "127.0.0.1:{ports[1]}'
            config = PROMETHEUS.replace("127.0.0.1:{alertmanager}", "{alertmanager}").format(
                directory=tmp_path, shop=shop.port, aftermath=service.port, alertmanager=both
            )
            prometheus = stack.enter_context(a_prometheus(tmp_path, config, free_port()))
            until(lambda: asked(prometheus, "checkout_errors") == [0.0], "Prometheus scrapes the shop")
            shop.errors = 1
            until(lambda: an_incident(client, "open"), "the incident opens")
            shop.errors = 0
            resolved = until(lambda: an_incident(client, "resolved"), "the incident resolves")
            assert late_tap.alerts("firing") == []
            until(lambda: late_tap.alerts("firing"), "the slow peer's report arrives")
            statuses = {one["status"] for one in all_incidents(client)}
            until(lambda: late_tap.alerts("resolved"), "the slow peer's resolve arrives")
            [after] = all_incidents(client)
            assert statuses == {"resolved"}
            shown = ("number", "status", "resolved_at", "reopened", "alerts", "firing_after_resolve")
            assert {name: after[name] for name in shown} == {name: resolved[name] for name in shown}


# ------------------------------------------------------------------------------------------------------------------


def all_incidents(client: httpx.Client) -> list[Any]:
    items: list[Any] = client.get("/api/v1/incidents").json()["items"]
    return items


def hurried(printed: str, *, repeat_interval: str = "4h") -> str:
    """As printed, but for the intervals of the route."""
    hurry = f"  group_wait: 1s\n  group_interval: 1s\n  repeat_interval: {repeat_interval}\n"
    assert printed.startswith("route:\n")
    return printed.replace("route:\n", f"route:\n{hurry}", 1)


def an_incident(client: httpx.Client, status: str) -> Any:
    items = client.get("/api/v1/incidents", params={"status": status}).json()["items"]
    assert len(items) <= 1
    return items[0] if items else None


def asked(prometheus: httpx.Client, query: str) -> list[float]:
    """The values that an instant query gives."""
    answer = prometheus.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", answer
    return [float(sample["value"][1]) for sample in answer["data"]["result"]]


def moment(rfc3339: str) -> datetime:
    return datetime.fromisoformat(rfc3339).astimezone(UTC)


@dataclass
class Shop:
    """The monitored target: one gauge."""

    port: int = 0
    errors: int = 0


@contextmanager
def a_shop() -> Iterator[Shop]:
    shop = Shop()

    class Answer(Quiet):
        def do_GET(self) -> None:
            self.answer(200, "text/plain; version=0.0.4", f"checkout_errors {shop.errors}\n".encode())

    with serving(Answer) as shop.port:
        yield shop


@dataclass
class Tap:
    """A proxy between Alertmanager and the service that records deliveries."""

    url: str = ""
    deliveries: list[Any] = field(default_factory=list)

    def alerts(self, status: str) -> list[dict[str, Any]]:
        return [alert for delivery in self.deliveries for alert in delivery["alerts"] if alert["status"] == status]


@contextmanager
def a_tap(service: Service, *, late: timedelta = timedelta(0)) -> Iterator[Tap]:
    """`late`: it takes deliveries at once and passes them on after that time."""
    tap = Tap()

    def pass_on(path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        answer = httpx.post(f"{service.url}{path}", content=body, headers=headers)
        if answer.status_code == 200:
            tap.deliveries.append(json.loads(body))
        return answer

    class PassOn(Quiet):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            names = ("Authorization", "Content-Type", "User-Agent")
            headers = {name: self.headers[name] for name in names if name in self.headers}
            if late:
                threads.append(threading.Timer(late.total_seconds(), pass_on, (self.path, body, headers)))
                threads[-1].start()
                self.answer(200, "application/json", b"{}")
                return
            answer = pass_on(self.path, body, headers)
            self.answer(answer.status_code, answer.headers["Content-Type"], answer.content)

    threads: list[threading.Timer] = []
    with serving(PassOn) as port:
        tap.url = f"http://127.0.0.1:{port}"
        yield tap
    for thread in threads:
        thread.cancel()
        thread.join()


class Quiet(BaseHTTPRequestHandler):
    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name in http.server
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """The port of the proxy."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
