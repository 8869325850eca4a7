"""Plays the quarter over HTTP, as the senders and people in it would."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base.errors import Problem
from app.base.http.requests.fields import rfc3339
from app.demo import bodies
from app.demo.catalog import CLUSTER, EDGE, PIPELINE, SOURCES, configuration
from app.demo.facts import Deployment, Incident, Quarter, Review
from app.demo.presence import Access, enter, leave
from app.demo.quarter import SEED, quarter
from app.demo.report import print_report

AT_ONCE = 4  # incidents in which people act at the same time


class CannotPlay(Problem):
    """The demo cannot be played. The message gives the reason and the remedy."""


async def play(
    engine: AsyncEngine,
    url: str,
    out: Console,
    *,
    seed: int = SEED,
    transport: httpx.AsyncBaseTransport | None = None,
    now: datetime | None = None,
) -> None:
    """Plays the quarter that ends now against the service at `url`, whose database `engine` connects to.

    Raises CannotPlay, AlreadyPlayed or NameInUse.
    """
    now = (now or datetime.now(UTC)).replace(second=0, microsecond=0)
    played = quarter(now, seed)
    url = url.rstrip("/")
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60, transport=transport) as client:
            await _require_service(client)
            access = await enter(engine, now=datetime.now(UTC))
            try:
                player = Player(client, access)
                out.print(f"Loading the 90 days up to {now:%Y-%m-%d %H:%M} UTC into {url}.", highlight=False)
                await _perform(player, played, out)
                await print_report(player.ask, out, played, deliveries=player.deliveries, url=url)
            finally:
                await leave(engine, access, now=datetime.now(UTC))
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise CannotPlay(
            f"no response from {url} ({type(error).__name__}): start the service with `make run`, "
            "or set its address with --url"
        ) from None


async def _require_service(client: httpx.AsyncClient) -> None:
    """Before anything is stored. Raises CannotPlay."""
    answer = await client.get("/healthz")
    if not answer.is_success or not _is_json(answer):
        raise CannotPlay(f"the server at {client.base_url} is not Aftermath: set the address of the service with --url")


def _is_json(answer: httpx.Response) -> bool:
    try:
        answer.json()
    except ValueError:
        return False
    return True


async def _perform(player: "Player", played: Quarter, out: Console) -> None:
    columns = (TextColumn("{task.fields[day]}"), BarColumn(None), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, console=out, transient=True) as progress:
        bar = progress.add_task("", total=len(played.deployments) + len(played.incidents), day="")

        def show(at: datetime) -> None:
            progress.update(bar, advance=1, day=f"{at:%Y-%m-%d}")

        for path, body in configuration(played.begins_at, played.ends_at):
            await player.ask("PUT", path, json=body)
        for deployment in played.deployments:
            await player.deploy(deployment)
            show(deployment.started_at)
        await player.deliver(EDGE, bodies.heartbeat(EDGE, played.begins_at))
        await player.deliver(CLUSTER, bodies.unreadable(CLUSTER, played.ends_at))
        # Incidents open in order of time, so that their numbers are. What follows in each of them may overlap.
        turns = asyncio.Semaphore(AT_ONCE)
        busy: dict[tuple[str, str], asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            for incident in played.incidents:
                place = (incident.service, incident.environment)
                if before := busy.get(place):
                    await asyncio.wait([before])
                number = await player.open(incident)
                busy[place] = tasks.create_task(_in_turn(turns, player.complete(incident, number)))
                show(incident.began_at)


async def _in_turn(turns: asyncio.Semaphore, work: Coroutine[Any, Any, None]) -> None:
    async with turns:
        await work


class Player:
    """Makes the requests of the demo."""

    def __init__(self, client: httpx.AsyncClient, access: Access) -> None:
        self.client = client
        self.access = access
        self.deliveries: Counter[str] = Counter()  # by source

    async def deploy(self, deployment: Deployment, *, made_for: str | None = None) -> None:
        await self.deliver(PIPELINE, bodies.report_of(deployment, made_for=made_for))

    async def open(self, incident: Incident) -> str:
        """Opens the incident and returns its number."""
        if incident.declaration is not None:
            declared = await self.ask("POST", "/api/v1/incidents", json=bodies.declaration_of(incident))
            return str(declared["number"])
        receipt = await self.deliver(str(incident.source), bodies.first_delivery(incident))
        [number] = receipt["incidents"]
        return str(number)

    async def complete(self, incident: Incident, number: str) -> None:
        """Sends everything after the beginning. People act before the end, because it may settle after that."""
        for action in incident.actions:
            method, path, body = bodies.request_of(action, number)
            await self.ask(method, path, json=body)
        if incident.remedy is not None:
            await self.deploy(incident.remedy, made_for=number)
        later: Iterable[dict[str, Any]] = bodies.later_deliveries(incident) if incident.alerts else ()
        for body in later:
            await self.deliver(str(incident.source), body)
        if incident.review is not None:
            await self.review(incident.review, number)

    async def review(self, review: Review, incident: str, drafted: str | None = None) -> str:
        """From the draft, a new one unless the service has `drafted` it, to the publication. The number of the review.

        `incident` and `drafted` are numbers too.
        """
        content, reviews = bodies.review_of(review), "/api/v1/reviews"
        if drafted is None:
            made = await self.ask("POST", reviews, json=content | {"incidents": [incident]})
        else:
            made = await self.ask("PATCH", f"{reviews}/{drafted}", json=content)
        number = str(made["number"])
        path = f"{reviews}/{number}"
        await self.ask("POST", f"{path}/hold", json=bodies.meeting_of(review))
        found = [
            await self.ask("POST", f"{path}/findings", json=bodies.finding_of(finding)) for finding in review.findings
        ]
        for item in review.action_items:
            body = bodies.action_item_of(item, number, found[item.finding - 1]["id"])
            opened = await self.ask("POST", "/api/v1/action-items", json=body)
            if item.done_at is not None:
                done = {"state": "done", "closed_at": rfc3339(item.done_at)}
                await self.ask("PATCH", f"/api/v1/action-items/{opened['number']}", json=done)
        await self.ask("POST", f"{path}/publish")
        return number

    async def deliver(self, source: str, body: dict[str, Any]) -> Any:
        self.deliveries[source] += 1
        return await self.ask("POST", f"/webhooks/{SOURCES[source]}", token=self.access.sources[source], json=body)

    async def ask(self, method: str, path: str, *, token: str | None = None, **parts: Any) -> Any:
        """The response as JSON. Raises CannotPlay if it is an error."""
        headers = {"Authorization": f"Bearer {token or self.access.admin}"}
        answer = await self.client.request(method, path, headers=headers, **parts)
        if answer.is_success:
            return answer.json()
        why = answer.json().get("detail", "") if _is_json(answer) else answer.text[:200]
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise CannotPlay(
                f"the service at {self.client.base_url} uses a different database from this command: run it with the "
                "same "
                "AFTERMATH_DATA_DIR or AFTERMATH_DATABASE_URL"
            )
        raise CannotPlay(f"{method} {path} returned {answer.status_code}: {why}")
