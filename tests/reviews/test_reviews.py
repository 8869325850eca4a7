"""Reviews over HTTP: their life, findings, action items, and the phases that follow an incident."""

import asyncio
from typing import Any

import httpx
import pytest

from app.base.access.tokens import Scope
from tests.conftest import ClientAs
from tests.incidents.test_api import act, clock, deliver, firing, incident, resolved

REVIEWS, ITEMS, FACTORS = "/api/v1/reviews", "/api/v1/action-items", "/api/v1/factors"


async def send(client: httpx.AsyncClient, method: str, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
    answer = await client.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else {}


async def new_review(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    return await send(client, "POST", REVIEWS, 201, **{"title": "Login unavailable"} | body)


async def step(client: httpx.AsyncClient, name: str, review: str = "REV-1", status: int = 200, **body: Any) -> Any:
    return await send(client, "POST", f"{REVIEWS}/{review}/{name}", status, **body)


async def find(client: httpx.AsyncClient, review: str = "REV-1", status: int = 201, **body: Any) -> dict[str, Any]:
    return await send(client, "POST", f"{REVIEWS}/{review}/findings", status, **{"kind": "learning"} | body)


async def new_item(client: httpx.AsyncClient, status: int = 201, **body: Any) -> dict[str, Any]:
    needed = {"title": "Add an alert", "phase": "detection", "review": "REV-1"}
    return await send(client, "POST", ITEMS, status, **needed | body)


async def published(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """A review of INC-1, held at 12:00."""
    review = (await new_review(client, incidents=["INC-1"], facilitator="grace", summary="s", **body))["number"]
    await find(client, review, text="What we saw")
    await step(client, "hold", review, held_at=clock("12:00"), duration_seconds=1800)
    await send(client, "PATCH", f"{REVIEWS}/{review}", nothing_now_because="nothing is urgent")
    return await step(client, "publish", review)  # type: ignore[no-any-return]


# — its life —


async def test_the_numbers_beside_a_review_are_those_of_the_response(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:30"), firing("12:00", service="mail"))
    plan = {"channels": [{"kind": "slack", "name": "a"}, {"kind": "phone", "name": "b"}], "roles": [], "steps": []}
    criteria = ["Payments succeed", "Stakeholders are informed"]
    await send(client, "PUT", "/api/v1/incident-types/any", 201, exit_criteria=criteria, **plan)
    await act(client, "acknowledge", at=clock("10:05"), by="ada")
    await act(client, "tasks", status=201, text="Restarted it", effect="positive", at=clock("10:10"), by="ada")
    await act(client, "facts", status=201, kind="criterion", criterion=criteria[0], met=True, at=clock("10:29"))
    await new_review(client, incidents=["INC-1", "INC-2"])
    shown = (await send(client, "GET", f"{REVIEWS}/REV-1"))["numbers"]
    for number, each in zip(("INC-1", "INC-2"), shown, strict=True):
        response = await send(client, "GET", f"/api/v1/incidents/{number}/response")
        outcomes = {what: verdict["outcome"] for what, verdict in response["targets"].items() if type(verdict) is dict}
        still_open = [each["criterion"] for each in response["exit"] if not each["met"]]
        assert (each["number"], each["targets"], each["exit_open"]) == (number, outcomes, still_open)
    path = await send(client, "GET", "/api/v1/incidents/INC-1/path")
    assert (shown[0]["path"], len(path["tasks"])) == (path, 1)
    assert (shown[0]["exit_open"], shown[1]["exit_open"]) == (criteria[1:], criteria)
    assert {"met", "missed"} & set(shown[0]["targets"].values())


async def test_a_review_lives_from_draft_to_closed(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:30"))
    made = await new_review(client, incidents=["INC-1"])
    assert (made["state"], made["number"], made["incidents"], made["missing"]) == (
        "draft", "REV-1", ["INC-1"], ["facilitator is not named"],
    )  # fmt: skip
    assert made["numbers"][0]["measures"]["time_to_recover"]["seconds"] == 1800
    problem = await step(client, "hold", status=409)
    assert problem["type"] == "urn:aftermath:problem:something-is-missing"
    await step(client, "publish", status=409)
    held = await step(client, "hold", held_at=clock("12:00"), facilitator="grace", duration_seconds=1800)
    assert (held["state"], held["held_at"], held["person_seconds"]) == ("held", clock("12:00"), 1800)
    assert held["follow_up_at"] == "2026-09-19T12:00:00Z"
    await find(client, text="The list of servers was two years old", new_to=3)
    item = await new_item(client, priority=1, owner="cathy")
    await send(client, "PATCH", f"{REVIEWS}/REV-1", summary="Nobody could sign in")
    shown = await step(client, "publish")
    assert (shown["state"], shown["missing"], shown["learned"]) == (
        "published",
        ["AI-1 is neither done nor dropped"],
        3,
    )
    problem = await step(client, "close", status=409)
    assert problem["errors"] == [{"at": "AI-1", "why": "is neither done nor dropped"}]
    await send(client, "PATCH", f"{ITEMS}/{item['number']}", state="done", effective="yes")
    closed = await step(client, "close")
    assert (closed["state"], closed["missing"]) == ("closed", [])


async def test_publication_lists_everything_that_is_missing(client: httpx.AsyncClient) -> None:
    await new_review(client, facilitator="grace")
    await step(client, "hold")
    await new_item(client)
    await new_item(client, owner="ada", priority=2)
    problem = await step(client, "publish", status=409)
    assert [f"{one['at']} {one['why']}" for one in problem["errors"]] == [
        "summary is empty",
        "findings are missing; record at least one",
        "AI-1 has no owner",
        "AI-1 has no priority",
        "action items have none of priority 1; add one, or state why in `nothing_now_because`",
    ]
    assert all(one["why"] in problem["detail"] for one in problem["errors"])
    assert (await send(client, "GET", f"{REVIEWS}/REV-1"))["state"] == "held"


async def test_every_step_can_be_taken_back(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:30"))
    await published(client)
    await step(client, "close")
    states = [(await step(client, "reopen"))["state"] for _ in range(4)]
    assert states == ["published", "held", "draft", "draft"]
    assert (await incident(client))["measures"]["analysis"] == {
        "seconds": None, "status": "pending", "reason": "not reviewed yet",
    }  # fmt: skip
    assert (await step(client, "drop", because="a duplicate"))["dropped_because"] == "a duplicate"
    assert (await incident(client))["measures"]["analysis"]["reason"] == "no review"
    await step(client, "hold", status=409, facilitator=None)
    assert (await step(client, "reopen"))["dropped_because"] is None


async def test_a_review_needs_no_incident_and_may_be_about_a_time_frame(client: httpx.AsyncClient) -> None:
    await deliver(
        client, firing("10:00"), firing("10:01", service="search"), resolved("03:00", "04:00", service="cart")
    )
    made = await new_review(client, title="A near miss")
    assert (made["incidents"], made["proposed_incidents"]) == ([], [])
    frame = {"begins_at": clock("09:00"), "ends_at": clock("11:00")}
    assert (await new_review(client, **frame))["proposed_incidents"] == ["INC-2", "INC-3"]
    about = await new_review(client, incidents=["INC-2", "INC-2"])
    assert about["incidents"] == ["INC-2"]
    for wrong in (
        {"begins_at": clock("09:00")},
        {"begins_at": clock("11:00"), "ends_at": clock("09:00")},
        {"begins_at": "2026-01-01T00:00:00Z", "ends_at": "2026-02-01T00:00:00Z"},
    ):
        await send(client, "POST", REVIEWS, 422, title="t", **wrong)
    await send(client, "PATCH", f"{REVIEWS}/REV-2", 422, ends_at=None)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"title": ""},
        {"title": "a\x00"},
        {"title": "t", "state": "held"},
        {"title": "t", "incidents": ["INC-0"]},
        {"title": "t", "incidents": ["REV-1"]},
        {"title": "t", "participants": [{"person": "ada", "part": "culprit"}]},
        {"title": "t", "summary": "x" * 10_001},
        {"title": "t", "root_cause": "x"},
    ],
)
async def test_a_review_that_is_not_acceptable_is_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await client.post(REVIEWS, json=body)
    assert answer.status_code == 422, answer.text
    assert (await client.get(REVIEWS)).json()["items"] == []


async def test_a_held_review_is_not_in_the_future_and_names_its_participants(client: httpx.AsyncClient) -> None:
    await new_review(client, facilitator="grace", participants=[{"person": "ada", "part": "affected"}])
    await step(client, "hold", status=422, held_at="2199-01-01T00:00:00Z")
    await step(client, "hold", status=422, attended=["ada", "bob"])
    held = await step(client, "hold", attended=["ada"])
    assert [(one["person"], one["attended"]) for one in held["participants"]] == [("ada", True)]
    assert held["missing_perspectives"] == ["responders", "customers", "management"]


async def test_who_was_involved_is_shown_and_not_forbidden(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"))
    await act(client, "acknowledge", at=clock("10:04"), by="ada")
    await act(client, "tasks", status=201, text="Restarted it", at=clock("10:05"), by="bob")
    made = await new_review(
        client, incidents=["INC-1"], facilitator="ada", participants=[{"person": "eve", "part": "support"}]
    )
    assert made["facilitator_involved_in"] == ["acknowledged"]
    assert made["invite"] == [{"person": "bob", "involved_in": ["task"]}]
    assert made["participants"][0]["involved_in"] == []


async def test_versions_protect_against_lost_changes(client: httpx.AsyncClient) -> None:
    await new_review(client)
    tag = (await client.get(f"{REVIEWS}/REV-1")).headers["ETag"]
    first = await client.patch(f"{REVIEWS}/REV-1", json={"title": "a"}, headers={"If-Match": tag})
    second = await client.patch(f"{REVIEWS}/REV-1", json={"title": "b"}, headers={"If-Match": tag})
    assert (first.status_code, second.status_code) == (200, 412)
    assert first.headers["ETag"] != tag


async def test_reviews_are_listed_and_filtered(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("10:01", service="search"))
    await new_review(client, incidents=["INC-1"], due_at=clock("09:00"), facilitator="grace")
    await new_review(client, incidents=["INC-2"], due_at="2190-01-01T00:00:00Z")
    await new_review(client)
    await step(client, "hold", "REV-3", facilitator=None, held_at=clock("09:30"))

    async def listed(**query: Any) -> list[str]:
        answer = await client.get(REVIEWS, params=query)
        assert answer.status_code == 200, answer.text
        return [one["number"] for one in answer.json()["items"]]

    assert await listed() == ["REV-3", "REV-2", "REV-1"]
    assert await listed(state=["held", "closed"]) == ["REV-3"]
    assert (await listed(overdue=True), await listed(overdue=False)) == (["REV-1"], ["REV-3", "REV-2"])
    assert await listed(facilitator="grace") == ["REV-1"]
    assert await listed(service="search") == ["REV-2"]
    assert await listed(incident="INC-1") == ["REV-1"]
    assert await listed(to=clock("09:30")) == ["REV-1"]
    assert await listed(**{"from": clock("09:30"), "to": clock("23:00")}) == ["REV-3"]
    assert await listed(**{"from": clock("09:00")}) == ["REV-3", "REV-2", "REV-1"]
    wrong = await client.get(REVIEWS, params={"from": clock("10:00"), "to": clock("09:00")})
    assert (wrong.status_code, "must not be after" in wrong.json()["detail"]) == (422, True)
    assert (await listed(required=True), await listed(required=False)) == ([], ["REV-3", "REV-2", "REV-1"])
    first = (await client.get(REVIEWS, params={"limit": 2})).json()
    rest = (await client.get(REVIEWS, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [one["number"] for one in rest["items"]] == ["REV-1"]


async def test_readers_read_and_writers_write(client: httpx.AsyncClient, client_as: ClientAs) -> None:
    await new_review(client)
    allowed = {}
    for scope in (None, Scope.INGEST, Scope.READ, Scope.WRITE):
        caller = await client_as(scope)
        answers = [
            await caller.get(f"{REVIEWS}/REV-1"),
            await caller.post(REVIEWS, json={"title": "t"}),
            await caller.post(f"{REVIEWS}/REV-1/findings", json={"kind": "learning", "text": "t"}),
            await caller.post(ITEMS, json={"title": "t", "phase": "response", "review": "REV-1"}),
            await caller.delete(f"{FACTORS}/capacity"),
        ]
        allowed[scope] = [answer.status_code for answer in answers]
    assert allowed == {
        None: [401] * 5,
        Scope.INGEST: [403] * 5,
        Scope.READ: [200, 403, 403, 403, 403],
        Scope.WRITE: [200, 201, 201, 201, 204],
    }


# — findings and factors —


async def test_findings_have_a_kind_a_phase_and_an_element(client: httpx.AsyncClient) -> None:
    await new_review(client)
    made = await find(
        client, kind="factor", factor="capacity", text="We should have known", phase="response", element="technology",
        prompt="recover_sooner", new_to=4,
    )  # fmt: skip
    assert (made["position"], made["factor"], made["phase"], made["by"]) == (1, "capacity", "response", "admin")
    assert [(one["begin"], one["end"], one["kind"]) for one in made["wording"]] == [(3, 14, "counterfactual")]
    path = f"{REVIEWS}/REV-1/findings/{made['id']}"
    changed = await send(client, "PATCH", path, text="The queue held 10,000 messages", new_to=None)
    assert (changed["wording"], changed["new_to"], changed["factor"]) == ([], None, "capacity")
    second = await find(client, kind="parked", text="Rewrite everything")
    await send(client, "PATCH", path, position=9)
    shown = await send(client, "GET", f"{REVIEWS}/REV-1")
    assert [one["id"] for one in shown["findings"]] == [second["id"], made["id"]]
    await send(client, "DELETE", path, 204)
    await send(client, "DELETE", path, 404)
    await new_review(client)
    await send(client, "PATCH", f"{REVIEWS}/REV-2/findings/{second['id']}", 404, text="of another review")


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "root_cause", "text": "t"},
        {"kind": "factor", "text": "t"},
        {"kind": "learning", "text": "t", "factor": "capacity"},
        {"kind": "factor", "text": "t", "factor": "capasity"},
        {"kind": "learning", "text": ""},
        {"kind": "learning", "text": "t", "phase": "blame"},
        {"kind": "learning", "text": "t", "prompt": "five_whys"},
        {"kind": "learning", "text": "t", "timeline_entry": 1},
        {"kind": "learning", "text": "t", "new_to": -1},
    ],
)
async def test_a_finding_that_is_not_acceptable_is_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await new_review(client)
    problem = await send(client, "POST", f"{REVIEWS}/REV-1/findings", 422, **body)
    if body.get("factor") == "capasity":
        assert "`capacity`" in problem["detail"]
    assert (await send(client, "GET", f"{REVIEWS}/REV-1"))["findings"] == []


async def test_a_finding_that_becomes_a_factor_needs_one(client: httpx.AsyncClient) -> None:
    await new_review(client)
    made = await find(client, text="t")
    path = f"{REVIEWS}/REV-1/findings/{made['id']}"
    await send(client, "PATCH", path, 422, kind="factor")
    await send(client, "PATCH", path, 422, factor="capacity")
    assert (await send(client, "PATCH", path, kind="factor", factor="capacity"))["kind"] == "factor"
    await send(client, "PATCH", path, 422, kind="learning")


async def test_a_finding_refers_to_the_timeline_of_its_incidents(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("10:01", service="search"))
    entries = [
        (await client.get(f"/api/v1/incidents/INC-{number}/timeline")).json()["items"][0]["id"] for number in (1, 2)
    ]
    await new_review(client, incidents=["INC-1"])
    assert (await find(client, text="t", timeline_entry=entries[0]))["timeline_entry"] == entries[0]
    await find(client, status=422, text="t", timeline_entry=entries[1])


async def test_a_review_has_at_most_100_findings(client: httpx.AsyncClient) -> None:
    await new_review(client)
    for _ in range(100):
        await find(client, text="t")
    assert (await find(client, status=409, text="t"))["type"] == "urn:aftermath:problem:too-many-findings"


async def test_factors_are_merged_and_kept_while_used(client: httpx.AsyncClient) -> None:
    shipped = (await client.get(FACTORS, params={"limit": 500})).json()["items"]
    assert len(shipped) == 24
    await new_review(client)
    path = f"{FACTORS}/slow%2Fdisk"
    await send(client, "PUT", path, 201, element="technology")
    await find(client, kind="factor", factor="slow/disk", text="t")
    await send(client, "DELETE", path, 409)
    await send(client, "PUT", path, 422, element="technology", replaced_by="slow/disk")
    await send(client, "PUT", path, 422, element="technology", replaced_by="unheard of")
    merged = await send(client, "PUT", path, element="technology", replaced_by="capacity")
    assert (merged["replaced_by"], merged["findings"]) == ("capacity", 0)
    assert (await find(client, kind="factor", factor="slow/disk", text="t"))["factor"] == "capacity"
    await send(client, "DELETE", f"{FACTORS}/capacity", 409)
    await send(client, "DELETE", path, 204)
    await send(client, "DELETE", path, 404)


async def test_prompts_are_listed_by_phase_and_audience(client: httpx.AsyncClient) -> None:
    every = (await client.get(f"{REVIEWS}/prompts")).json()["items"]
    for_facilitators = (await client.get(f"{REVIEWS}/prompts", params={"audience": "facilitator"})).json()["items"]
    assert 0 < len(for_facilitators) < len(every)
    detection = (await client.get(f"{REVIEWS}/prompts", params={"phase": "detection"})).json()["items"]
    assert "know_sooner" in {one["id"] for one in detection}


# — the phases after the end —


async def phases(client: httpx.AsyncClient, number: int = 1) -> list[tuple[str, float | None]]:
    measures = (await incident(client, number))["measures"]
    return [(measures[name]["status"], measures[name]["seconds"]) for name in ("analysis", "readiness")]


async def test_analysis_and_readiness_follow_the_review_and_its_items(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:30"))
    assert await phases(client) == [("not_applicable", None)] * 2
    tag = (await client.get("/api/v1/incidents/INC-1")).headers["ETag"]
    await new_review(client, incidents=["INC-1"], facilitator="grace", summary="s", nothing_now_because="n")
    assert await phases(client) == [("pending", None)] * 2
    assert (await client.get("/api/v1/incidents/INC-1")).headers["ETag"] != tag
    await step(client, "hold", held_at=clock("12:00"))
    assert await phases(client) == [("recorded", 5400), ("pending", None)]
    await find(client, text="t")
    for number in (1, 2):
        await new_item(client, owner="ada", priority=number)
    await step(client, "publish")
    assert await phases(client) == [("recorded", 5400), ("pending", None)]
    # Both at once: the later one must see the other's change.
    await asyncio.gather(*(send(client, "PATCH", f"{ITEMS}/AI-{number}", state="done") for number in (1, 2)))
    analysis, readiness = await phases(client)
    assert (analysis, readiness[0]) == (("recorded", 5400), "recorded")
    path = (await client.get("/api/v1/incidents/INC-1/path")).json()
    assert path["marks"]["reviewed_at"] == clock("12:00")
    assert path["marks"]["ready_at"] is not None
    await send(client, "PATCH", f"{ITEMS}/AI-1", state="open")
    assert (await phases(client))[1] == ("pending", None)


async def test_a_merge_keeps_the_earlier_review_and_a_split_reviews_each_part(client: httpx.AsyncClient) -> None:
    await deliver(client, resolved("10:00", "10:10"), resolved("10:30", "10:40", instance="b"))
    for number, held_at in ((1, "13:00"), (2, "12:00")):
        await new_review(client, incidents=[f"INC-{number}"])
        await step(client, "hold", f"REV-{number}", held_at=clock(held_at), facilitator=None)
    await deliver(client, resolved("10:12", "10:27", instance="c"))
    path = (await client.get("/api/v1/incidents/INC-1/path")).json()
    assert path["marks"]["reviewed_at"] == clock("12:00")
    assert (await send(client, "GET", f"{REVIEWS}/REV-2"))["incidents"] == ["INC-1"]
    listed = (await client.get(REVIEWS, params={"incident": "INC-2"})).json()["items"]
    assert [one["number"] for one in listed] == ["REV-2", "REV-1"]
    assert (await new_review(client, incidents=["INC-2"]))["incidents"] == ["INC-1"]


async def test_each_part_of_a_split_was_reviewed_with_the_whole(client: httpx.AsyncClient) -> None:
    await deliver(client, firing("10:00"), firing("11:00", instance="b"))
    await new_review(client, incidents=["INC-1"])
    await step(client, "hold", held_at=clock("12:00"), facilitator=None)
    await deliver(client, resolved("10:00", "10:20"))
    assert (await send(client, "GET", f"{REVIEWS}/REV-1"))["incidents"] == ["INC-1", "INC-2"]
    path = (await client.get("/api/v1/incidents/INC-2/path")).json()
    assert path["marks"]["reviewed_at"] == clock("12:00")
