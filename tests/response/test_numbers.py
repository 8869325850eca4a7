"""Outcomes of targets and tasks over many incidents."""

from typing import Any

import httpx

from app.base.http.context import Context
from tests.incidents.test_api import act, clock, deliver, resolved
from tests.incidents.test_corrections import revise
from tests.incidents.test_tasks import post
from tests.response.test_configuration import get, put
from tests.response.test_facts import record
from tests.statements import counted

PERIOD = f"from={clock('00:00')}&to=2026-08-21T00:00:00Z"


async def numbers(client: httpx.AsyncClient, what: str, query: str = "") -> dict[str, Any]:
    return await get(client, f"metrics/{what}?{PERIOD}{query}")


def outcomes(found: dict[str, Any], what: str) -> dict[str, int]:
    return {name: value for name, value in found[what].items() if name != "share_met" and value}


async def test_outcomes_of_targets(client: httpx.AsyncClient) -> None:
    targets = [
        {"severity": "sev1", "acknowledge_seconds": 300, "resolve_seconds": 900},
        {"severity": "sev2", "update_seconds": 600},
    ]
    await put(client, "targets", {"targets": targets}, status=200)
    alerts = [
        resolved("10:00", "10:10", service="a"),
        resolved("10:00", "10:20", service="b"),
        resolved("10:00", "10:04", service="c"),
        resolved("10:00", "10:30", service="d", severity="sev2"),
        resolved("10:00", "10:30", service="e", severity="sev3"),
    ]
    await deliver(client, *alerts)
    numbers_of = {}
    for number in range(1, 6):
        shown = await get(client, f"incidents/INC-{number}")
        numbers_of[shown["service"]] = number
    await act(client, "acknowledge", numbers_of["a"], at=clock("10:05"))
    await act(client, "acknowledge", numbers_of["b"], at=clock("10:06"))
    for at in ("10:10", "10:20"):
        update = {"kind": "update", "status": "identified", "note": "n", "at": clock(at)}
        await record(client, update, number=numbers_of["d"])
    found = await numbers(client, "targets")
    total = found["total"]
    assert outcomes(total, "acknowledge") == {"met": 1, "missed": 1, "cannot_tell": 1, "not_agreed": 2}
    assert outcomes(total, "resolve") == {"met": 2, "missed": 1, "not_agreed": 2}
    assert outcomes(total, "update") == {"met": 1, "not_agreed": 4}
    assert total["resolve"]["share_met"] == {"k": 2, "n": 3, "value": None, "low": None, "high": None}
    assert found["groups"] == []
    groups = (await numbers(client, "targets", "&group_by=severity"))["groups"]
    assert [(one["key"], outcomes(one, "update")) for one in groups] == [
        ("sev1", {"not_agreed": 3}),
        ("sev2", {"met": 1}),
        ("sev3", {"not_agreed": 1}),
    ]
    groups = (await numbers(client, "targets", "&group_by=service&service=b"))["groups"]
    assert [(one["key"], outcomes(one, "acknowledge")) for one in groups] == [("b", {"missed": 1})]
    assert outcomes((await numbers(client, "targets", "&severity=sev2"))["total"], "acknowledge") == {"not_agreed": 1}
    later = await get(client, "metrics/targets?from=2026-08-21T00:00:00Z&to=2026-08-22T00:00:00Z")
    assert outcomes(later["total"], "acknowledge") == {}


async def test_a_share_has_an_interval_from_ten_on(client: httpx.AsyncClient) -> None:
    await put(client, "targets", {"targets": [{"severity": "sev1", "resolve_seconds": 900}]}, status=200)
    ends = ["10:10"] * 8 + ["10:30"] * 2
    await deliver(client, *(resolved("10:00", end, service=f"s{place}") for place, end in enumerate(ends)))
    share = (await numbers(client, "targets"))["total"]["resolve"]["share_met"]
    assert (share["k"], share["n"], share["value"]) == (8, 10, 0.8)
    assert 0.4 < share["low"] < 0.5
    assert 0.9 < share["high"] < 1


async def test_tasks_by_effect_and_phase(client: httpx.AsyncClient, context: Context) -> None:
    await deliver(client, resolved("10:00", "10:30"))
    await deliver(client, resolved("10:00", "10:30", service="mail"))
    await act(client, "milestones", milestone="identified", at=clock("10:15"))
    await post(client, text="a", effect="none", at=clock("10:02"), ended_at=clock("10:05"))
    await post(client, text="b", effect="positive", at=clock("10:20"))
    withdrawn = await post(client, text="c", effect="negative", at=clock("10:21"))
    await revise(client, withdrawn, "withdraw")
    await post(client, number=2, text="d", at=clock("10:20"))
    found = await numbers(client, "tasks", "&group_by=phase")
    assert found["total"]["tasks"] == 3
    assert found["total"]["effects"] == {"positive": 1, "negative": 0, "none": 1, "unknown": 1}
    assert found["total"]["seconds"] == {"positive": 0, "negative": 0, "none": 180, "unknown": 0}
    assert (found["total"]["without_positive_effect"]["k"], found["total"]["without_positive_effect"]["n"]) == (1, 2)
    assert (found["total"]["unknown"]["k"], found["total"]["unknown"]["n"]) == (1, 3)
    assert [(one["key"], one["tasks"]) for one in found["groups"]] == [
        ("remediation", 1),
        ("response", 1),
        ("unknown", 1),
    ]
    services = (await numbers(client, "tasks", "&group_by=service"))["groups"]
    assert [(one["key"], one["tasks"]) for one in services] == [("checkout", 2), ("mail", 1)]
    with counted(context.engine) as statements:
        await numbers(client, "tasks", "&group_by=service")
    few = len(statements)
    for minute in range(9):
        await post(client, text="more", at=clock(f"10:0{minute}"))
    with counted(context.engine) as statements:
        await numbers(client, "tasks", "&group_by=service")
    assert len(statements) == few


async def test_wrong_questions_are_refused(client: httpx.AsyncClient) -> None:
    for query in ("&group_by=owner", "&severity=bad"):
        await get(client, f"metrics/targets?{PERIOD}{query}", status=422)
    await get(client, f"metrics/tasks?{PERIOD}&group_by=severity", status=422)
    await get(client, "metrics/tasks?from=2026-08-21T00:00:00Z&to=2026-08-20T00:00:00Z", status=422)
