"""The status page of a real service whose PostgreSQL stops: one that is down with the service helps nobody."""

import signal
from pathlib import Path

import httpx

from tests.processes import Service, until


def test_the_page_is_still_there_while_postgresql_is_stopped(tmp_path: Path) -> None:
    service = Service(tmp_path, {"AFTERMATH_STATUS_PAGE": "true", "AFTERMATH_STATUS_PAGE_NAME": "Acme"})
    with service.serve() as running, running.client() as client:
        component = client.put("/api/v1/status-page/components/Payments", json={})
        assert component.status_code == 201, component.text
        first = {"status": "investigating", "body": "Some cards fail.", "components": {"Payments": "major_outage"}}
        public = client.post("/api/v1/status-page/incidents", json={"title": "Cards fail", "first": first})
        assert public.status_code == 201, public.text

        def page(path: str = "/status") -> str:
            answer = httpx.get(f"{service.url}{path}", timeout=5)
            assert answer.status_code == 200
            return answer.text

        until(lambda: "Cards fail" in page(), "it is published")
        assert "As of" not in page()
        processes = service.postgres()
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: "As of" in page(), "the page says as of when")
            for path in ("/status", f"/status/incidents/{public.json()['id']}", "/status/history"):
                assert "Cards fail" in page(path)
            assert "as_of" in page("/status/api/v2/status.json")
            assert "Some cards fail." in page("/status/history.atom")
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)
        # The built-in PostgreSQL has the role that may read nothing else.
        assert "aftermath_public" not in running.log()
        assert running.stop() == 0
