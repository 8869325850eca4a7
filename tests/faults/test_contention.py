"""Administrators change rules, calendars, rates, sources and tokens in loops while senders deliver; nobody fails."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.base import db
from app.base.access import tokens
from tests.faults.afterwards import TOKEN, a_service, assert_all_is_well, loaded, memory_of, url_of
from tests.load import Plan
from tests.processes import RunningService

SENDERS = 12
SECONDS = 20

Request = tuple[str, str, Any]  # method, path and body


def rule(turn: int) -> list[Request]:
    """Each turn assigns the alerts of the load another grouping key."""
    body = {"matchers": [], "key_labels": ["service", "instance", "alertname"][: 1 + turn % 3], "position": 10}
    return [("PUT", "/api/v1/rules/changing", body)]


def coming_and_going_rule(turn: int) -> list[Request]:
    body = {"matchers": [f'service="service-{turn % 20}"'], "window_seconds": 60 + turn % 600, "position": 5}
    return [("PUT", "/api/v1/rules/passing", body), ("DELETE", "/api/v1/rules/passing", None)]


def calendar(turn: int) -> list[Request]:
    hours = [{"from": "09:00", "to": f"{10 + turn % 12}:00"}]
    return [
        ("PUT", "/api/v1/calendars/office", {"zone": "UTC", "hours": {"monday": hours}}),
        ("GET", "/api/v1/metrics/summary?calendar=office", None),
    ]


def rates(turn: int) -> list[Request]:
    amounts = {"low": str(turn), "expected": str(turn + 1), "high": str(turn + 2)}
    service = f"/api/v1/services/service-{turn % 20}"
    rate = {"currency": "EUR", "from": "2026-01-01T00:00:00Z", **amounts}
    return [("PUT", service, {"owner": f"Team {turn % 3}"}), ("PUT", f"{service}/rates", [rate])]


def source(turn: int) -> list[Request]:
    settings = {"kind": "alertmanager", "stale_seconds": 3600 + turn % 60}
    return [("PUT", "/api/v1/sources/alertmanager", settings), ("GET", "/api/v1/sources/alertmanager/health", None)]


@contextmanager
def changing(running: RunningService, *scripts: Callable[[int], list[Request]]) -> Iterator[Counter[tuple[str, int]]]:
    """Repeats each script as fast as it is answered; counts the answers by path and status."""
    answers: Counter[tuple[str, int]] = Counter()
    over = threading.Event()

    def run(script: Callable[[int], list[Request]]) -> None:
        with running.client(TOKEN) as client:
            turn = 0
            while not over.is_set():
                turn += 1
                for method, path, body in script(turn):
                    answer = client.request(method, path, json=body)
                    answers[f"{method} {path.partition('?')[0]}", answer.status_code] += 1

    threads = [threading.Thread(target=run, args=(script,), name=script.__name__) for script in scripts]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


@contextmanager
def changing_tokens(database_url: str) -> Iterator[Counter[str]]:
    """Creates tokens and revokes them, as the command line does."""
    done: Counter[str] = Counter()
    over = threading.Event()

    async def change() -> None:
        engine = db.connect(database_url, pool_size=1)
        try:
            while not over.is_set():
                now = datetime.now(UTC)
                async with db.session(engine) as session:
                    created = await tokens.create_token(
                        session, "t", tokens.Scope.INGEST, now=now, source_name="alertmanager", kind="alertmanager"
                    )
                async with db.session(engine) as session:
                    await tokens.revoke_token(session, str(tokens.id_of(created)), now=now)
                done["tokens"] += 1
        finally:
            await engine.dispose()

    thread = threading.Thread(target=asyncio.run, args=(change(),), name="tokens")
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join(60)


SCRIPTS = (rule, coming_and_going_rule, calendar, rates, source)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_changing_everything_while_senders_deliver(tmp_path: Path, workers: str) -> None:
    service = a_service(tmp_path, AFTERMATH_WORKERS=workers)
    plan = Plan(seed=31, over=timedelta(hours=2), per_service=40)
    with service.serve() as running:
        began_with = memory_of(running)
        with (
            loaded(service, plan, connections=SENDERS) as load,
            changing(running, *SCRIPTS) as answers,
            changing_tokens(url_of(service)) as changed,
        ):
            time.sleep(SECONDS)
        load.finish()
        assert load.statuses.keys() == {200}
        assert {status for _, status in answers} <= {200, 201, 204, 404}, answers
        assert len({path for path, _ in answers}) >= len(SCRIPTS)
        assert changed["tokens"] > 5
        assert "Traceback" not in running.log()
        assert "unreachable" not in running.log()
        assert_all_is_well(load, running, began_with=began_with)
