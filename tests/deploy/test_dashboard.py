"""The Grafana dashboard: the committed file equals the generated one, and Prometheus can run all its queries."""

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.metrics.prometheus.families import FAMILIES, FamilyType
from deploy.grafana.dashboard import WRITTEN, Series, quantile, share, written
from tests.deploy.test_deploy import checked
from tests.processes import Service, a_delivery, a_prometheus, an_alert, free_port, until

PROMETHEUS = """
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: aftermath
    authorization: {{credentials_file: {directory}/token}}
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def test_the_committed_dashboard_equals_the_generated_one() -> None:
    assert WRITTEN.read_text() == written(), "make dashboard"


def test_every_metric_that_it_asks_for_is_exported() -> None:
    exported = {name for family in FAMILIES.values() for name in exported_names(family.name, family.type)}
    asked = {name for text in asked_for() for name in re.findall(r"\baftermath_\w+", text)}
    assert asked - exported == set()


def test_it_shows_every_family() -> None:
    text = "\n".join(asked_for())
    # The oldest unacknowledged incident is used by an alert only.
    elsewhere = {"aftermath_oldest_unacknowledged_incident_start_timestamp_seconds"}
    assert {name for name in FAMILIES if not re.search(rf"\b{name}(?:_bucket|_count)?\b", text)} == elsewhere


def test_every_panel_explains_itself_and_no_two_overlap() -> None:
    places = [(panel["gridPos"], panel["title"]) for panel in panels()]
    taken = [
        (x, y) for at, _ in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23
    assert [panel["title"] for panel in panels() if not panel["description"]] == []
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    numbers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(numbers) == len(set(numbers))


# — increases of counters —

ALIVE = 'aftermath_build_info{version="1", instance="a"}'
HEARTBEAT = 'aftermath_incidents_total{service="heartbeat", severity="sev5", instance="a"}'
SETTLED = 'aftermath_incidents_total{service="checkout", severity="sev1"'


@pytest.mark.debian
@pytest.mark.parametrize(
    ("series", "gained"),
    [
        pytest.param({f'{SETTLED}, instance="a"}}': "3x20 4x20"}, 1, id="rare events are whole numbers"),
        pytest.param(
            {f'{SETTLED}, instance="a"}}': "3x20 4x20", HEARTBEAT: "1x20 9x20"}, 1, id="the heartbeat is left out"
        ),
        pytest.param({f'{SETTLED}, instance="a"}}': "3x40"}, 0, id="no events"),
        pytest.param(
            {f'{SETTLED}, instance="a"}}': "3x20 4x20", f'{SETTLED}, instance="b"}}': "3x20 4x20"},
            1,
            id="replicas are not added up",
        ),
        pytest.param({f'{SETTLED}, instance="a"}}': "_x20 2x20"}, 2, id="the first value of a new series counts"),
        pytest.param(
            {ALIVE: "_x15 1x25", f'{SETTLED}, instance="a"}}': "_x15 7x5 9x20"},
            2,
            id="values before the first scrape do not count",
        ),
        pytest.param(
            {f'{SETTLED}, instance="old"}}': "3x25", f'{SETTLED}, instance="a"}}': "_x25 5x15"},
            2,
            id="a replica that replaces another continues its counters",
        ),
    ],
)
def test_a_period_gains_the_increases_within_it(tmp_path: Path, series: dict[str, str], gained: int) -> None:
    samples = {ALIVE: "1x40", **series}
    query = in_place(Series("aftermath_incidents_total").gained("$__range"), span="30m")
    assert_prometheus_returns(tmp_path, samples, query, [{"labels": "{}", "value": gained}])


@pytest.mark.debian
def test_a_quantile_of_few_values_is_none(tmp_path: Path) -> None:
    name = "aftermath_time_to_recover_seconds"
    query = in_place(quantile(0.5, name, "$__range"), span="30m")

    def samples(n: int) -> dict[str, str]:
        of = '{service="checkout", severity="sev1", instance="a"'
        parts = {f"{name}_count{of}}}": n, f'{name}_bucket{of}, le="60.0"}}': 0}
        parts |= {f'{name}_bucket{of}, le="{le}"}}': n for le in ("120.0", "+Inf")}
        return {ALIVE: "1x40", **{series: f"0x20 {value}x20" for series, value in parts.items()}}

    assert_prometheus_returns(tmp_path, samples(9), query, [])
    assert_prometheus_returns(tmp_path, samples(10), query, [{"labels": "{}", "value": 90}])


@pytest.mark.debian
def test_a_share_of_zero_is_none(tmp_path: Path) -> None:
    samples = {
        ALIVE: "1x40",
        'aftermath_change_failures_total{service="checkout"}': "0x20 1x20",
        'aftermath_deployments_total{service="checkout", outcome="succeeded"}': "0x20 4x20",
        'aftermath_change_failures_total{service="search"}': "1x40",
        'aftermath_deployments_total{service="search", outcome="succeeded"}': "9x40",
    }
    failed, finished = Series("aftermath_change_failures_total"), Series("aftermath_deployments_total")
    by = "service"
    query = share(failed.gained("$__range", by=by), finished.gained("$__range", by=by), by=by)
    expected = [{"labels": '{service="checkout"}', "value": 0.25}]
    assert_prometheus_returns(tmp_path, samples, in_place(query, span="30m"), expected)


# — all queries —


@pytest.mark.debian
@pytest.mark.slow
def test_every_query_has_an_answer_where_the_demo_was_played(tmp_path: Path) -> None:
    settles_soon = {
        "AFTERMATH_ALLOWED_LATENESS_SECONDS": "0",
        "AFTERMATH_SETTLE_INTERVAL_SECONDS": "0.2",
        "AFTERMATH_WATCH_INTERVAL_SECONDS": "0.2",
        "AFTERMATH_OUTBOUND_ALLOW": "127.0.0.1",
    }
    service = Service(tmp_path, settles_soon)
    with service.serve() as running, running.client() as client:
        (tmp_path / "token").write_text(service.command("token", "create", "prometheus", "--scope", "read"))
        # Ratios are cached for half a minute and end up to half a minute ago, so the data must exist before the first
        # scrape and the service before that.
        objective = {"target": "0.99", "window": {"rolling_days": 30}}
        ok(client.put("/api/v1/services/checkout", json={"owner": "Shop", "in_service_since": "2026-01-01T00:00:00Z"}))
        ok(client.put("/api/v1/services/checkout/objective", json=objective))
        watchdog = an_alert("2026-08-20T10:00:00Z", alertname="Watchdog")
        ok(client.post("/webhooks/alertmanager", json=a_delivery(watchdog)))
        silent = {"peers": [f"http://127.0.0.1:{free_port()}"]}
        ok(client.put("/api/v1/sources/alertmanager/reconciler", json=silent))
        ok(client.post("/api/v1/reviews", json={"title": "A near miss", "due_at": "2026-08-21T00:00:00Z"}))
        item = {"title": "Add an alert", "phase": "detection", "review": "REV-1"}
        for priority in (1, 2, 3, None):
            ok(client.post("/api/v1/action-items", json=item | {"priority": priority}))
        respond(client)
        config = PROMETHEUS.format(directory=tmp_path, port=service.port)
        with a_prometheus(tmp_path, config, free_port()) as prometheus:
            until(lambda: answers(prometheus, "aftermath_build_info"), "the first scrape")
            begun = time.time()
            deploy(client)
            service.command("demo", "--url", service.url)

            def is_scraped() -> bool:
                known = client.get("/api/v1/incidents", params={"limit": 500}).json()["items"]
                settled = [incident for incident in known if incident["settled"]]
                over = [incident for incident in known if incident["status"] == "resolved"]
                return settled == over and answers(prometheus, "sum(aftermath_incidents_total)") == [len(settled)]

            until(is_scraped, "all ended incidents have settled and are scraped")

            def unanswered(seconds: int) -> list[str]:
                return [
                    f"{panel['title']}: {query}"
                    for panel in panels()
                    for query in queries(panel)
                    if not finite(answers(prometheus, in_place(query, span=f"{seconds}s"), at=begun + seconds))
                ]

            # Gauges are up to half a minute old: those of incidents that the demo left open may come later.
            deadline = time.monotonic() + 90
            while missing := unanswered(seconds := math.ceil(time.time() - begun)):
                assert time.monotonic() < deadline, missing
                time.sleep(1)
            for variable in dashboard()["templating"]["list"][1:]:
                series = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                assert series is not None
                found = prometheus.get(f"/api/v1/label/{series[2]}/values", params={"match[]": series[1]})
                assert ok(found).json()["data"], variable["name"]
            # A period that covers all of it shows the same numbers as REST.
            counted = in_place(Series("aftermath_incidents_total").gained("$__range"), span=f"{seconds}s")
            assert answers(prometheus, counted, at=begun + seconds) == answers(
                prometheus, "sum(aftermath_incidents_total)"
            )


# ------------------------------------------------------------------------------------------------------------------


def dashboard() -> Any:
    return json.loads(WRITTEN.read_text())


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries(panel: dict[str, Any]) -> Iterator[str]:
    for target in panel["targets"]:
        yield target["expr"]


def asked_for() -> list[str]:
    """Every query, of panels and of variables."""
    found = [query for panel in panels() for query in queries(panel)]
    variables = [each["query"]["query"] for each in dashboard()["templating"]["list"] if each["type"] == "query"]
    assert (len(found), len(variables)) > (20, 2)
    return found + variables


def exported_names(family: str, kind: FamilyType) -> Iterator[str]:
    """All series that a query may use."""
    if kind is FamilyType.HISTOGRAM:
        yield from (f"{family}_{part}" for part in ("bucket", "sum", "count"))
    else:
        yield family


def in_place(query: str, *, span: str) -> str:
    """The query as Grafana sends it, with all values selected and `span` for every duration."""
    values = {
        "$service": ".*",
        "$environment": ".*",
        "$severity": ".*",
        "$__range_s": str(86_400),
        "$__range": span,
        "$__interval": span,
        "$__rate_interval": span,
    }
    for name, value in values.items():
        query = query.replace(name, value)
    assert "$" not in query, query
    return query


def answers(prometheus: httpx.Client, query: str, at: float | None = None) -> list[float]:
    moment = {} if at is None else {"time": str(at)}
    asked = prometheus.get("/api/v1/query", params={"query": query, **moment})
    assert asked.status_code == 200, asked.text
    return [float(sample["value"][1]) for sample in asked.json()["data"]["result"]]


def finite(values: list[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def ok(answer: httpx.Response) -> httpx.Response:
    assert answer.is_success, answer.text
    return answer


def respond(client: httpx.Client) -> None:
    """An open incident whose type names a role, a role with a single delegate, and one message of a chat."""
    plan = {"exit_criteria": ["Payments succeed"], "roles": ["commander"]}
    channels = [{"kind": "slack", "name": "#incidents"}, {"kind": "phone", "name": "Bridge"}]
    ok(client.put("/api/v1/incident-types/any", json=plan | {"matchers": [], "channels": channels}))
    ok(client.put("/api/v1/people/ada", json={}))
    ok(client.put("/api/v1/delegates/commander", json={"people": ["ada"]}))
    declared = ok(client.post("/api/v1/incidents", json={"title": "Checkout is slow", "service": "checkout"})).json()
    message = json.dumps({"at": declared["detected_at"], "by": "ada", "text": "looking at it"})
    imported = ok(client.post(f"/api/v1/incidents/{declared['number']}/chat?format=lines", content=message))
    assert imported.json()["taken"] == 1


def deploy(client: httpx.Client) -> None:
    """Three deployments of checkout, of which one needed intervention, one was canceled."""
    different: list[dict[str, object]] = [{}, {"needed_intervention": True}, {"outcome": "canceled"}]
    for number, fields in enumerate(different):
        report = {
            "id": f"checkout-{number}",
            "service": "checkout",
            "outcome": "succeeded",
            "finished_at": f"2026-08-20T0{number}:00:00Z",
        }
        ok(client.post("/api/v1/deployments", json=report | fields))


def assert_prometheus_returns(
    directory: Path, samples: dict[str, str], query: str, expected: list[dict[str, Any]]
) -> None:
    """The result after 40 minutes with a sample every minute."""
    case = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in samples.items()],
        "promql_expr_test": [{"expr": query, "eval_time": "40m", "exp_samples": expected}],
    }
    file = directory / "case.yml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [case]}))
    checked("promtool", "test", "rules", file)
