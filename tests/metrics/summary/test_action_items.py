"""The action items of a period: time to completion with open ones, and the share done in time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.metrics.summary.action_items import completion
from tests.reviews.test_reviews import ITEMS, new_item, new_review, send

PERIOD = timedelta(days=100)
DAY = timedelta(days=1)
NOW = datetime(2026, 8, 20, tzinfo=UTC)


@dataclass
class Item:
    state: str
    days: int  # from creation until it was closed, or until now
    due_after: int | None = None
    priority: str = "1"

    @property
    def created_at(self) -> datetime:
        return NOW - 100 * DAY if self.state in {"done", "dropped"} else NOW - self.days * DAY

    @property
    def closed_at(self) -> datetime | None:
        return self.created_at + self.days * DAY if self.state in {"done", "dropped"} else None

    @property
    def due_at(self) -> datetime | None:
        return None if self.due_after is None else self.created_at + self.due_after * DAY


def test_open_items_lengthen_the_time_to_complete() -> None:
    done = [Item("done", days) for days in range(1, 11)]
    alone = completion(done, now=NOW, observed=PERIOD, horizon=1e9).time_to_complete
    with_open = completion([*done, *[Item("open", 50)] * 10], now=NOW, observed=PERIOD, horizon=1e9).time_to_complete
    assert alone.estimates is not None
    assert with_open.estimates is not None
    assert alone.estimates.median.seconds == 5 * DAY.total_seconds()
    assert with_open.estimates.median.seconds == 10 * DAY.total_seconds()
    assert (with_open.n, with_open.pending, with_open.censored) == (10, 10, 0)


def test_few_done_items_are_listed_instead() -> None:
    found = completion([Item("done", 2), Item("done", 1), Item("dropped", 5)], now=NOW, observed=PERIOD, horizon=1e9)
    assert found.time_to_complete.values == [DAY.total_seconds(), 2 * DAY.total_seconds()]
    assert (found.items, found.time_to_complete.estimates, found.time_to_complete.censored) == (3, None, 1)


def test_only_what_is_due_can_be_done_in_time() -> None:
    items = [
        Item("done", 5, due_after=7),
        Item("done", 9, due_after=7),
        Item("open", 8, due_after=7),
        Item("open", 5, due_after=7),
        Item("dropped", 9, due_after=7),
        Item("done", 5),
    ]
    found = completion(items, now=NOW, observed=PERIOD, horizon=1e9).done_in_time
    assert (found.k, found.n) == (1, 3)
    assert found.value == pytest.approx(1 / 3)
    assert completion([], now=NOW, observed=PERIOD, horizon=1e9).done_in_time.value is None


async def test_action_items_are_summarized_by_priority(client: httpx.AsyncClient) -> None:
    await new_review(client)
    await new_item(client, priority=1)
    await new_item(client)
    await send(client, "PATCH", f"{ITEMS}/AI-1", state="done")
    found = (await client.get("/api/v1/metrics/action-items")).json()
    assert found["total"]["action_items"]["value"] == 2
    assert {group["priority"]: group["action_items"]["value"] for group in found["groups"]} == {
        "1": 1, "2": 0, "3": 0, "none": 1,
    }  # fmt: skip
    assert (found["groups"][0]["time_to_complete"]["n"], found["groups"][3]["time_to_complete"]["pending"]) == (1, 1)
    of_a_service = (await client.get("/api/v1/metrics/action-items", params={"service": "web"})).json()
    assert of_a_service["total"]["action_items"]["value"] == 0
    page = (await client.get("/metrics")).text
    for line in (
        'aftermath_action_items{priority="1",state="done"} 1.0',
        'aftermath_action_items{priority="none",state="open"} 1.0',
        'aftermath_action_items_completed_total{phase="detection",priority="1"} 1.0',
        'aftermath_reviews{state="draft"} 1.0',
    ):
        assert line in page.replace('state="done",priority="1"', 'priority="1",state="done"').replace(
            'state="open",priority="none"', 'priority="none",state="open"'
        ).replace('priority="1",phase="detection"', 'phase="detection",priority="1"')
