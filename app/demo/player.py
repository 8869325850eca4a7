"""Performs the script over HTTP, as the senders and people in it would."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from app.base.errors import Problem
from app.base.http.fields import rfc3339
from app.demo.day import DAY, Action, Alert, Declared, Delivery, Described, Step, the_day, the_morning_after
from app.demo.report import print_report


class CannotPlay(Problem):
    """The demo cannot be played. The message gives the reason and the remedy."""


async def play(
    url: str,
    token: str,
    seconds: float,
    out: Console,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    now: datetime | None = None,
) -> None:
    """Plays the day that ends now in about `seconds`, or repeats the day played less than a day ago.

    Raises CannotPlay.
    """
    now = (now or datetime.now(UTC)).replace(microsecond=0)
    url = url.rstrip("/")
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, transport=transport) as client:
            player = Player(client)
            played = await player.last_day()
            is_known = played is not None and now - played < DAY
            ends_at = played if played is not None and is_known else now
            steps = the_day(ends_at)
            if played is not None and not is_known:
                steps = [*the_morning_after(played), *steps]
            out.print(
                f"Playing the 24 hours up to {ends_at:%Y-%m-%d %H:%M} UTC against {url}"
                + (". This day was played before, so nothing changes." if is_known else "."),
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            await perform(player, steps, seconds, out)
            await _report(player, ends_at, url, out)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise CannotPlay(
            f"no response from {url} ({type(error).__name__}): start the service with `make run`, "
            "or set its address with --url"
        ) from None


async def perform(player: "Player", steps: Sequence[Step], seconds: float, out: Console) -> None:
    began_at, length = steps[0].at, steps[-1].at - steps[0].at
    began = time.monotonic()
    columns = (TextColumn("{task.fields[hour]}"), BarColumn(None), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, console=out, transient=True) as progress:
        bar = progress.add_task("", total=length.total_seconds(), hour="")
        for step in steps:
            passed = step.at - began_at
            await asyncio.sleep(max(0.0, began + passed / length * seconds - time.monotonic()))
            line = await player.do(step)
            progress.update(bar, completed=passed.total_seconds(), hour=f"{step.at:%H:%M}")
            if line is not None:
                out.print(f"{step.at:%H:%M}  {line}", highlight=False, markup=False, soft_wrap=True)


ACTIONS = {
    "acknowledge": ("acknowledged_at", "acknowledges"),
    "identified": ("identified_at", "identifies the cause of"),
    "mitigated": ("mitigated_at", "mitigates"),
    "resolve": ("resolved_at", "resolves"),
}


class Player:
    """Performs steps over HTTP and counts the verdicts in the answers."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.deliveries = 0
        self.verdicts: Counter[str] = Counter()

    async def last_day(self) -> datetime | None:
        """The end of the last day that was played."""
        page = await self.ask("GET", "/api/v1/incidents", params={"label": "environment=demo", "limit": "500"})
        days = [item["labels"]["demo_day"] for item in page["items"] if "demo_day" in item["labels"]]
        return max(map(datetime.fromisoformat, days), default=None)

    async def do(self, step: Step) -> str | None:
        """One line about the outcome, or None if it is not worth reporting."""
        match step:
            case Described():
                return await self._describe(step)
            case Delivery():
                return await self._deliver(step)
            case Declared():
                return await self._declare(step)
            case Action():
                return await self._act(step)

    async def _describe(self, step: Described) -> str | None:
        path = f"/api/v1/services/{step.service}"
        known = await self._try("GET", path)
        if known.status_code == httpx.codes.OK and known.json()["owner"] is not None:
            return None  # described before, by the demo or by the user: keep its rates
        await self.ask("PUT", path, json={"owner": step.owner})
        await self.ask("PUT", f"{path}/rates", json=step.rates)
        expected = " and ".join(f"{rate['currency']} {rate['expected']}" for rate in step.rates if "from" not in rate)
        return f"{step.service}: an hour of outage costs {expected}"

    async def _deliver(self, step: Delivery) -> str | None:
        if step.unreadable and await self._is_in_quarantine(step):
            return None
        receipt = await self.ask("POST", f"/webhooks/{step.kind}", json=step.body)
        self.deliveries += 1
        self.verdicts.update(receipt["verdicts"])
        news = [verdict for verdict in receipt["verdicts"] if verdict not in {"repeated", "joined"}]
        if not news:
            return None
        group = step.body["groupLabels"]
        about = ", ".join(receipt["incidents"])
        return f"{group['service']}: {group['alertname']} of {about}: {', '.join(news)}"

    async def _is_in_quarantine(self, step: Delivery) -> bool:
        page = await self.ask("GET", "/api/v1/quarantine", params={"replayed": "true", "limit": "500"})
        unreadable = step.body["alerts"][-1]
        return any(
            unreadable["fingerprint"] in item["raw"] and unreadable["startsAt"] in item["raw"] for item in page["items"]
        )

    async def _declare(self, step: Declared) -> str | None:
        if await self._incident_of(step) is not None:
            return None
        declared = await self.ask(
            "POST",
            "/api/v1/incidents",
            json={
                "title": step.title,
                "service": step.service,
                "severity": step.severity,
                "impact_started_at": rfc3339(step.impact_started_at),
                "detected_at": rfc3339(step.at),
                "by": step.by,
            },
        )
        return f"{step.service}: {step.by} declares {declared['number']}, {step.title!r}"

    async def _act(self, step: Action) -> str | None:
        incident = await self._incident_of(step.about, step.at)
        field, verb = ACTIONS[step.kind]
        if incident is None or incident[field] == rfc3339(step.at):
            return None
        body = {"at": rfc3339(step.at), "by": step.by, "note": step.note}
        path = f"/api/v1/incidents/{incident['number']}/{step.kind}"
        if step.kind in {"identified", "mitigated"}:
            path, body = f"/api/v1/incidents/{incident['number']}/milestones", body | {"milestone": step.kind}
        answer = await self._try("POST", path, json=body)
        if answer.status_code == httpx.codes.CONFLICT:
            return None  # changed by a person since the day was played before
        self._read(answer)
        note = f": {step.note}" if step.note else ""
        return f"{step.about.service}: {step.by} {verb} {incident['number']}{note}"

    async def _incident_of(self, about: Alert | Declared, at: datetime | None = None) -> Any:
        """The newest incident of the alert that had started by then, or the declared one; None if there is none."""
        if isinstance(about, Declared):
            asked: dict[str, Any] = {"from": rfc3339(about.at), "to": rfc3339(about.at + timedelta(seconds=1))}
        else:
            labels = [f"{name}={about.labels[name]}" for name in ("alertname", "demo_day")]
            asked = {"label": labels, "to": rfc3339(at or about.started_at)}
        page = await self.ask("GET", "/api/v1/incidents", params={"service": about.service, **asked})
        found = [item for item in page["items"] if isinstance(about, Alert) or item["title"] == about.title]
        return found[0] if found else None

    async def ask(self, method: str, path: str, **parts: Any) -> Any:
        """The response as JSON. Raises CannotPlay if it is an error."""
        return self._read(await self._try(method, path, **parts))

    async def _try(self, method: str, path: str, **parts: Any) -> httpx.Response:
        return await self.client.request(method, path, **parts)

    def _read(self, answer: httpx.Response) -> Any:
        try:
            document = answer.json()
        except ValueError:
            raise CannotPlay(
                f"the server at {self.client.base_url} is not Aftermath: set the address of the service with --url"
            ) from None
        if answer.is_success:
            return document
        why = document.get("detail", "") if isinstance(document, dict) else ""
        if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise CannotPlay(
                f"not authorized: {why}. The demo requires an admin token: the first start of the service printed one, "
                "and `aftermath token create demo --scope admin` creates another"
            )
        raise CannotPlay(f"{answer.request.method} {answer.request.url.path} returned {answer.status_code}: {why}")


async def _report(player: Player, ends_at: datetime, url: str, out: Console) -> None:
    period = {"from": rfc3339(ends_at - DAY), "to": rfc3339(ends_at)}
    summary = await player.ask("GET", "/api/v1/metrics/summary", params={**period, "group_by": "service"})
    page = await player.ask("GET", "/api/v1/incidents", params={**period, "limit": "500"})
    busiest = max(page["items"], key=lambda item: (item["reopened"], item["alerts"]))["number"]
    print_report(out, summary, player.verdicts, deliveries=player.deliveries, busiest=busiest, period=period, url=url)
