"""The service as a process: first start, stop, kill, a second one beside it, workers, commands, another PostgreSQL."""

import os
import re
import signal
import socket
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Thread

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import RunningService, Service, a_delivery, a_postgres15, an_alert, until


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path, {})


# — start and stop —


def test_the_first_start_prints_a_token_and_a_receiver_and_the_second_does_not(service: Service) -> None:
    with service.serve() as first:
        token, snippet = first.admin_token, first.snippet
        assert token is not None
        assert snippet is not None
        assert f"url: {service.url}/webhooks/alertmanager" in snippet
        assert f"Open {service.url} and sign in with this token." in first.log()
        assert first.log().count(token) == 1
        first.stop()
    with service.serve() as second, second.client(token) as client:
        assert (second.admin_token, second.snippet) == (None, None)
        assert "aft_" not in second.log()
        assert client.get("/api/v1/incidents").status_code == 200


def test_with_port_0_a_free_port_is_chosen_and_printed(tmp_path: Path) -> None:
    service = Service(tmp_path, {}, port=0)
    with service.run() as running:
        serving = re.compile(r"serving on (http://127\.0\.0\.1:\d+)$", re.MULTILINE)
        [url] = until(lambda: serving.findall(running.log()), "it logs its address")
        assert f"url: {url}/webhooks/alertmanager" in (running.snippet or "")
        assert until(lambda: httpx.get(f"{url}/readyz"), "it answers").status_code == 200


def test_a_token_from_the_environment_is_not_printed_and_works(tmp_path: Path) -> None:
    service = Service(tmp_path, {"AFTERMATH_ADMIN_TOKEN": "a-token-of-my-own-choice"})
    with service.serve() as running, running.client("a-token-of-my-own-choice") as client:
        assert client.get("/api/v1/incidents").status_code == 200
        assert (running.admin_token, "a-token-of-my-own-choice" in running.log()) == (None, False)


def test_sigterm_ends_it_with_status_0_and_its_postgresql_too(service: Service) -> None:
    with service.serve() as running:
        assert len(service.postgres()) > 3
        assert (running.stop(), service.postgres()) == (0, [])
        assert "Traceback" not in running.log()


def test_ctrl_c_ends_it_the_same_way(service: Service) -> None:
    with service.serve() as running:
        # A terminal sends it to the whole process group.
        os.killpg(running.process.pid, signal.SIGINT)
        assert (running.process.wait(60), service.postgres()) == (0, [])
        assert "Traceback" not in running.log()


def test_sigterm_during_the_start_leaves_no_postgresql_behind(service: Service) -> None:
    with service.run() as running:
        until(service.postgres, "PostgreSQL starts")
        running.stop()
        assert service.postgres() == []
        assert "Traceback" not in running.log()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_just_before_it_serves_is_not_lost(tmp_path: Path, workers: str) -> None:
    service = Service(tmp_path, {"AFTERMATH_WORKERS": workers})
    with service.run() as running:
        until(lambda: "accepting up to" in running.log(), "it is about to serve", every=0.005)
        assert (running.stop(), service.postgres()) == (0, [])


def test_a_delivery_in_flight_at_sigterm_is_answered(service: Service) -> None:
    with service.serve() as running:
        body = b'{"version":"4","alerts":[]}'
        with socket.create_connection(("127.0.0.1", service.port)) as sender:
            head = f"POST /webhooks/alertmanager HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {running.admin_token}\r\n"
            sender.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:5])
            time.sleep(0.3)
            running.process.send_signal(signal.SIGTERM)
            until(lambda: "Shutting down" in running.log(), "it shuts down")
            sender.sendall(body[5:])
            assert sender.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert (running.process.wait(60), service.postgres()) == (0, [])


# — kill —


@pytest.mark.parametrize("postgres_too", [False, True])
def test_after_kill_9_the_next_start_recovers_and_has_all_that_was_answered(
    service: Service,
    postgres_too: bool,
) -> None:
    answered: dict[str, str] = {}
    with service.serve() as first:
        token = first.admin_token
        postmaster = service.postgres()[0]

        def send(name: str) -> None:
            with first.client(token) as client, suppress(httpx.TransportError):
                for n in count():
                    answered[f"{name}-{n}"] = post(client, service=f"{name}-{n}")

        senders = [Thread(target=send, args=(name,)) for name in ("red", "green", "blue")]
        for sender in senders:
            sender.start()
        until(lambda: len(answered) > 100, "a hundred deliveries are answered")
        first.kill()
        if postgres_too:
            postmaster.kill()
        for sender in senders:
            sender.join()
        # Inside the block, so that the remains of a killed service exist when the next one starts.
        with service.serve() as second, second.client(token) as client:
            there = incidents_of(client)
            assert {name: there.get(name) for name in answered} == answered
            # Committed and not answered: one of each sender at most.
            assert len(there) <= len(answered) + len(senders)
            assert post(client, service="one-more") not in there.values()
            assert postmaster not in service.postgres()
            assert (second.stop(), service.postgres()) == (0, [])


def test_a_killed_postgresql_is_restarted_and_nothing_is_lost(service: Service) -> None:
    with service.serve() as running, running.client() as client:
        before = post(client, service="before")
        service.postgres()[0].kill()
        after = until(lambda: post_if_taken(client, service="after"), "deliveries are accepted again")
        # Backends survive a postmaster briefly, so an accepted connection does not prove that it is back.
        assert until(lambda: number_if_reported(client, "before"), "it is reported again") == before
        assert until(lambda: number_if_reported(client, "after"), "it is reported again") == after
        assert running.stop() == 0


# — refused starts —


def test_a_second_service_on_the_same_data_directory_refuses(service: Service, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Service(tmp_path / "second", {"AFTERMATH_DATA_DIR": str(service.data_dir)})
    with service.serve() as running, second.run() as refused:
        assert refused.process.wait(30) == 1
        [line] = refused.log().splitlines()
        assert f"{service.data_dir} is in use by process {running.process.pid}" in line
        assert httpx.get(f"{service.url}/readyz").status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, workers: str) -> None:
    service = Service(tmp_path, {"AFTERMATH_WORKERS": workers})
    with socket.create_server(("127.0.0.1", service.port)), service.run() as refused:
        assert refused.process.wait(60) == 1
        assert f"cannot listen on 127.0.0.1:{service.port}" in refused.log()
        assert "AFTERMATH_PORT" in refused.log()
        assert "Traceback" not in refused.log()
        assert service.postgres() == []


def test_wrong_settings_stop_the_start_with_a_line_each(tmp_path: Path) -> None:
    wrong = {"AFTERMATH_DATABASE_URL": "mysql://root:hunter2@localhost/x", "AFTERMATH_WORKERS": "0"}
    service = Service(tmp_path, {**wrong, "AFTERMATH_IMPACT": "sev1=1", "AFTERMATH_LOGLEVEL": "debug"})
    with service.run() as refused:
        assert refused.process.wait(30) == 2
        named = [line.split()[1].rstrip(",") for line in refused.log().splitlines()]
        assert named == [f"AFTERMATH_{name}" for name in ("LOGLEVEL", "DATABASE_URL", "WORKERS", "IMPACT")]
        assert "hunter2" not in refused.log()
        assert not service.data_dir.exists()


def test_an_unavailable_database_is_named_without_its_password(tmp_path: Path) -> None:
    service = Service(tmp_path, {"AFTERMATH_DATABASE_URL": "postgresql://aftermath:hunter2@127.0.0.1:1/x"})
    with service.run() as refused:
        assert refused.process.wait(30) == 1
        [line] = refused.log().splitlines()
        assert "cannot use the database x at 127.0.0.1:1: the connection was refused" in line
        assert "hunter2" not in line


# — workers —


def test_two_workers_serve_and_stop(tmp_path: Path) -> None:
    service = Service(tmp_path, {"AFTERMATH_WORKERS": "2"})
    with service.serve() as running:
        with running.client() as client:
            assert post(client) == "INC-1"
        workers = workers_of(running)
        assert len(workers) == 2
        assert (running.stop(), service.postgres()) == (0, [])
        assert [worker for worker in workers if is_alive(worker)] == []
        assert "Traceback" not in running.log()


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    service = Service(tmp_path, {"AFTERMATH_WORKERS": "2"})
    with service.serve() as running, running.client() as client:
        killed, kept = workers_of(running)
        killed.kill()
        until(lambda: {*workers_of(running)} - {killed, kept}, "a new worker has started")
        until(lambda: post_if_taken(client), "deliveries are accepted")
        assert is_alive(kept)
        assert running.stop() == 0


def test_two_workers_show_equal_numbers(tmp_path: Path) -> None:
    service = Service(tmp_path, {"AFTERMATH_WORKERS": "2"})
    with service.serve() as running:
        with running.client() as client:
            for n in range(10):
                post(client, service=f"service-{n % 3}", instance=str(n))

        def equal() -> list[tuple[str, dict[str, str], float]] | None:
            one, other = [business(text) for text in scrape_each(workers_of(running), service, running.admin_token)]
            return one if one == other else None

        # Ratios are refreshed every half minute: two scrapes may be on either side of a refresh.
        found = until(equal, "two workers report equal numbers")
        assert sum(value for name, _, value in found if name == "aftermath_incidents_open") == 3


def test_counters_continue_after_a_restart(tmp_path: Path) -> None:
    settle_at_once = {"AFTERMATH_ALLOWED_LATENESS_SECONDS": "0", "AFTERMATH_SETTLE_INTERVAL_SECONDS": "0.1"}
    service = Service(tmp_path, settle_at_once)

    def counters(client: httpx.Client) -> dict[str, float]:
        """Counters and histograms of the database; gauges may fall."""
        return {
            f"{sample.name} {sorted(sample.labels.items())}": sample.value
            for family in text_string_to_metric_families(client.get("/metrics").text)
            if family.name.startswith("aftermath_") and family.type in {"counter", "histogram"}
            for sample in family.samples
        }

    with service.serve() as first:
        token = first.admin_token
        with first.client() as client:
            over = a_delivery(an_alert("2026-08-20T10:00:00Z", "2026-08-20T10:30:00Z", service="shop"))
            assert client.post("/webhooks/alertmanager", json=over).status_code == 200
            labels = [("environment", "unknown"), ("service", "shop"), ("severity", "sev1")]
            settled = f"aftermath_time_to_recover_seconds_count {labels}"
            until(lambda: counters(client).get(settled) == 1, "the incident has settled")
            before = counters(client)
        first.kill()
    with service.serve() as second, second.client(token) as client:
        after = counters(client)
        assert {name: after.get(name) for name in before} == before
        assert second.stop() == 0


def test_workers_of_a_killed_service_do_not_hinder_the_next(tmp_path: Path) -> None:
    service = Service(tmp_path, {"AFTERMATH_WORKERS": "2"})
    with service.serve() as first:
        token = first.admin_token
        with first.client() as client:
            before = post(client, service="before")
        first.kill()
        with service.serve() as second, second.client(token) as client:
            assert number_of(client, "before") == before
            assert second.stop() == 0


# — commands —


def test_token_commands_beside_a_running_service(service: Service) -> None:
    with service.serve() as running:
        token = service.command("token", "create", "grafana", "--scope", "write").strip()
        assert token in token.split()
        with running.client(token) as client:
            assert client.get("/api/v1/incidents").status_code == 200
            listed = service.command("token", "list")
            assert ("grafana" in listed, token in listed) == (True, False)
            assert "Revoked" in service.command("token", "revoke", token.split("_")[1])
            refused = until(lambda: refusal(client), "a revoked token is refused", within=15)
        assert refused.json()["detail"] == "this token is unknown, revoked or expired"


def test_token_commands_without_a_running_service(service: Service) -> None:
    with service.serve() as first:
        first.stop()
    kept = service.command("token", "create", "prometheus").strip()
    revoked = service.command("token", "create", "old").strip()
    service.command("token", "revoke", revoked.split("_")[1])
    assert service.postgres() == []
    with service.serve() as running, running.client(kept) as client:
        assert client.get("/api/v1/incidents").status_code == 200
        assert client.get("/api/v1/incidents", headers={"Authorization": f"Bearer {revoked}"}).status_code == 401


def test_an_ingest_token_is_accepted_by_the_webhook_of_its_source_only(service: Service) -> None:
    with service.serve() as running:
        token = service.command(
            *("token", "create", "cluster-1", "--scope", "ingest", "--source", "cluster-1", "--kind", "alertmanager")
        ).strip()
        with running.client(token) as client:
            assert post(client) == "INC-1"
            assert client.get("/api/v1/incidents").status_code == 403
        with running.client() as client:
            assert client.get("/api/v1/incidents/INC-1").json()["sources"] == ["cluster-1"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("token", "create", "x", "--scope", "ingest"), 2, "an ingest token requires --source NAME and --kind"),
        (("token", "create", "x", "--source", "y"), 2, "--source and --kind are only valid with --scope ingest"),
        (("demo",), 1, "there is no database in"),
        (("numbers", "nowhere.md"), 2, "nowhere.md does not exist"),
    ],
)
def test_a_wrong_command_names_the_right_ones(
    service: Service, arguments: tuple[str, ...], status: int, message: str
) -> None:
    done = service.try_command(*arguments)
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (status, True, False)


def test_revoking_an_unknown_token_reports_how_to_list_tokens(service: Service) -> None:
    with service.serve():
        refused = service.try_command("token", "revoke", "nobody")
    assert (refused.returncode, "`aftermath token list` lists all tokens" in refused.stderr) == (1, True)
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("arguments", ["migrate", "token list", "token create x", "token revoke x"])
def test_a_command_without_a_database_reports_that_and_creates_nothing(service: Service, arguments: str) -> None:
    refused = service.try_command(*arguments.split())
    assert (refused.returncode, refused.stdout) == (1, "")
    [line] = refused.stderr.splitlines()
    assert f"there is no database in {service.data_dir}" in line
    assert "AFTERMATH_DATA_DIR" in line
    assert list(service.directory.iterdir()) == []


def test_migrate_beside_a_running_service_and_without_it(service: Service) -> None:
    with service.serve() as running:
        assert "The schema is up to date." in service.command("migrate")
        with running.client() as client:
            assert post(client) == "INC-1"
        running.stop()
    assert "The schema is up to date." in service.command("migrate")
    assert service.postgres() == []


# — secrets —


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_token_in_the_path_is_not_in_the_log(tmp_path: Path, workers: str) -> None:
    service = Service(tmp_path, {"AFTERMATH_WORKERS": workers, "AFTERMATH_LOG_LEVEL": "debug"})
    with service.serve() as running:
        token = service.command(
            *("token", "create", "x", "--scope", "ingest", "--source", "x", "--kind", "alertmanager")
        ).strip()
        wrong, payload = "aft_00000000_a-secret-that-is-wrong", a_delivery(an_alert(now(), detail="only-in-the-body"))
        answers = [
            httpx.post(f"{service.url}/webhooks/alertmanager/{token}", json=payload),
            httpx.put(f"{service.url}/webhooks/alertmanager/{token}?a={token}", content=b"{"),
            httpx.post(f"{service.url}/webhooks/grafana/{token}", json=payload),
            httpx.post(f"{service.url}/webhooks/alertmanager/{wrong}", json=payload),
            httpx.get(f"{service.url}/webhooks/alertmanager/{wrong}"),
            httpx.post(f"{service.url}/webhooks/nonsense/{wrong}", json=payload),
            httpx.get(f"{service.url}/api/v1/incidents", headers={"Authorization": f"Bearer {wrong}"}),
        ]
        assert [answer.status_code for answer in answers] == [200, 400, 403, 401, 405, 404, 401]
        running.stop()
        logs = running.log() + (service.data_dir / "postgres.log").read_text()
        assert "route=/webhooks/alertmanager/{token} status=200" in logs
        for secret in (token, wrong, token.split("_", 2)[2], wrong.split("_", 2)[2], "only-in-the-body"):
            assert secret not in logs


# — another PostgreSQL —


@pytest.mark.debian
def test_serves_from_postgresql_15(tmp_path: Path) -> None:
    with a_postgres15() as url:
        service = Service(tmp_path, {"AFTERMATH_DATABASE_URL": url})
        with service.serve() as first:
            token = first.admin_token
            with first.client() as client:
                number = post(client)
            assert first.stop() == 0
        assert "grafana" in (service.command("token", "create", "grafana") and service.command("token", "list"))
        assert not (service.data_dir / "postgres").exists(), "only the spool exists"
        with service.serve() as second, second.client(token) as client:
            assert number_of(client, "checkout") == number


@pytest.mark.debian
def test_commands_explain_database_errors(tmp_path: Path) -> None:
    with a_postgres15() as url:
        directory = url.partition("host=")[2]
        of = f"at {directory}: "
        for wrong, explanation in {
            url: f"{of}it does not contain Aftermath's tables; run `aftermath migrate`",
            url.replace("aftermath:", "aftermath:x"): f"{of}the password of aftermath is wrong",
            url.replace("/postgres?", "/missing?"): f"database missing {of}the database does not exist",
            url.replace(directory, "/nowhere"): "at /nowhere: the socket does not exist",
            url.replace("?", "?color=red&"): f"{of}AFTERMATH_DATABASE_URL has the unsupported parameter color",
        }.items():
            refused = Service(tmp_path, {"AFTERMATH_DATABASE_URL": wrong}).try_command("token", "list")
            [line] = refused.stderr.splitlines()
            assert (refused.returncode, explanation in line) == (1, True), line
            assert re.findall("aftermath:([^@]+)@", url)[0] not in line


@pytest.mark.debian
def test_two_replicas_on_one_database_start_together_and_print_one_token(tmp_path: Path) -> None:
    with a_postgres15() as url:
        replicas = [Service(tmp_path / name, {"AFTERMATH_DATABASE_URL": url}) for name in ("one", "two")]
        for replica in replicas:
            replica.directory.mkdir()
        with replicas[0].run() as one, replicas[1].run() as two:
            one.wait_until_ready()
            two.wait_until_ready()
            [token] = [running.admin_token for running in (one, two) if running.admin_token]
            [_] = [running.snippet for running in (one, two) if running.snippet]
            with one.client(token) as first, two.client(token) as second:
                assert (post(first), number_of(second, "checkout")) == ("INC-1", "INC-1")


# ------------------------------------------------------------------------------------------------------------------


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def post(client: httpx.Client, **labels: str) -> str:
    """Deliver one alert; the number of its incident."""
    answer = client.post("/webhooks/alertmanager", json=a_delivery(an_alert(now(), **labels)))
    assert answer.status_code == 200, answer.text
    [number] = answer.json()["incidents"]
    return str(number)


def post_if_taken(client: httpx.Client, **labels: str) -> str | None:
    """The incident number, None while the delivery is refused or only spooled."""
    answer = client.post("/webhooks/alertmanager", json=a_delivery(an_alert(now(), **labels)))
    assert answer.status_code in {200, 202, 503}, answer.text
    return answer.json()["incidents"][0] if answer.status_code == 200 else None


def incidents_of(client: httpx.Client) -> dict[str, str]:
    """The number of each service's one incident."""
    found: dict[str, str] = {}
    cursor = ""
    while cursor is not None:
        page = client.get("/api/v1/incidents", params={"limit": 500} | ({"cursor": cursor} if cursor else {})).json()
        found |= {incident["service"]: incident["number"] for incident in page["items"]}
        cursor = page["next_cursor"]
    return found


def number_of(client: httpx.Client, service: str) -> str:
    [incident] = client.get("/api/v1/incidents", params={"service": service}).json()["items"]
    return str(incident["number"])


def number_if_reported(client: httpx.Client, service: str) -> str | None:
    """None while the database is down."""
    answer = client.get("/api/v1/incidents", params={"service": service})
    assert answer.status_code in {200, 503}, answer.text
    return str(answer.json()["items"][0]["number"]) if answer.status_code == 200 else None


def refusal(client: httpx.Client) -> httpx.Response | None:
    answer = client.get("/api/v1/incidents")
    return answer if answer.status_code == 401 else None


def workers_of(running: RunningService) -> list[psutil.Process]:
    children = psutil.Process(running.process.pid).children()
    return [child for child in children if is_alive(child) and "app.serve" in child.cmdline()]


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def scrape_each(workers: list[psutil.Process], service: Service, token: str | None) -> list[str]:
    """The /metrics response of each worker. The kernel chooses the worker: requests repeat until all have answered."""
    found: dict[int, str] = {}

    def all_answered() -> bool:
        with httpx.Client(headers={"Authorization": f"Bearer {token}"}) as client:
            answer = client.get(f"{service.url}/metrics")
            assert answer.status_code == 200, answer.text
            _, ours = answer.extensions["network_stream"].get_extra_info("client_addr")
            for worker in workers:
                if any(peer.raddr and peer.raddr.port == ours for peer in worker.net_connections("tcp")):
                    found[worker.pid] = answer.text
        return len(found) == len(workers)

    until(all_answered, "each worker has answered")
    return list(found.values())


def business(text: str) -> list[tuple[str, dict[str, str], float]]:
    """The numbers that come from the database."""
    return sorted(
        (
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("aftermath_")
        ),
        key=repr,
    )
