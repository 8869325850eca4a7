"""Incidents of the last weeks, for pages to show."""

from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Bearer, Scope
from app.base.schema import Objective, Service
from app.incidents.grouping.signal import AlertClass, EndReason
from app.reviews.action_item import ItemState
from app.reviews.lifecycle import FindingKind, Part, Participant
from app.reviews.public_report.facts import PublicText
from app.reviews.public_report.outline import PublicOutline
from app.reviews.store import action_items, findings, public_report, reviews
from tests.metrics.prometheus.test_exposition import an_incident, price, store

# Markup, controls that reorder text, and words that are too long for any line.
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> \"quoted\" 'quoted' &amp; {{ 7 * 7 }}",
    "invoice-\u202egnp.exe and \u2066isolated\u2069 and \u200bnothing",
    "x" * 1500,
)


def an_incident_at(began: datetime, minutes: float | None, **columns: object) -> dict[str, object]:
    """A row of `incident`; open if `minutes` is None."""
    ended = None if minutes is None else began + timedelta(minutes=minutes)
    moments = {
        "began_at": began,
        "last_start_at": began,
        "stretch_began_at": began,
        "ended_at": ended,
        "first_ended_at": ended,
        "last_end_at": ended,
        "reach_at": ended and ended + timedelta(minutes=5),
    }
    return an_incident("00:00", None if minutes is None else "00:00") | moments | columns


async def some_weeks(
    engine: AsyncEngine, now: datetime, *, incidents: int = 160, services: int = 6, days: int = 60, first: int = 1
) -> None:
    """Incidents of the last `days`, numbered from `first` on: some open, not acknowledged, of the monitoring, or not
    recovered. Half of the services have an owner and rates, the first two an objective.
    """
    chance = Random(incidents)
    rows = []
    for place in range(incidents):
        is_open = place % 40 == 0
        began = now - (timedelta(hours=5) if is_open else timedelta(days=days)) * chance.random() - timedelta(minutes=5)
        lasted = min(chance.lognormvariate(3, 1.2), (now - began).total_seconds() / 60)
        rows.append(
            an_incident_at(
                began,
                None if is_open else lasted,
                number=first + place,
                title=HOSTILE[place // 10 % 3] if place % 10 == 0 else f"LatencyHigh: p99 above {place} ms",
                service=f"service-{chance.randrange(services)}",
                severity=chance.choice((1, 2, 2, 3, 3, 3, 4, 5)),
                acknowledged_at=began + timedelta(minutes=lasted / 3) if chance.random() < 0.7 else None,
                acknowledged_by="ada",
                alert_class=AlertClass.MONITORING.value if place % 9 == 7 else AlertClass.SERVICE.value,
                **({"end_reason": EndReason.SUPERSEDED.value} if place % 13 == 5 and not is_open else {}),
            )
        )
    await store(engine, *rows)
    async with db.transaction(engine) as tx:
        services_of = Service.__table__
        await tx.execute(update(services_of).values(owner="Payments").where(services_of.c.name < "service-3"))
        for target, name in (("0.999", "service-0"), ("0.5", "service-1")):
            values = {"service": name, "target": Decimal(target), "rolling_days": 30, "weighted": False}
            await tx.execute(insert(Objective.__table__).values(created_at=now, updated_at=now, **values))
    for number in range(0, services, 2):
        await price(engine, str(100 * (number + 1)), f"service-{number}", ("EUR", "USD")[number // 2 % 2])


async def a_review(engine: AsyncEngine, now: datetime) -> None:
    """REV-1 of INC-1 to INC-3, held a week ago, with hostile texts, findings of every kind, and AI-1 to AI-4."""
    at = now - timedelta(days=7)
    async with db.session(engine) as session:
        values = {
            "title": HOSTILE[0],
            "summary": f"We should have known. {HOSTILE[1]}",
            "facilitator": HOSTILE[1][:100],
            "scheduled_at": at,
        }
        review = await reviews.create(session, values, [1, 2, 3], now=at)
        people = [Participant("ada", Part.SUPPORT), Participant(HOSTILE[0], Part.CURIOUS)]
        await reviews.set_participants(session, review.id, people)
        for place, kind in enumerate(FindingKind):
            found = {"kind": kind, "text": HOSTILE[place % 3], "factor": "capacity" if kind == "factor" else None}
            finding = await findings.add(session, review, found | {"by": "ada", "new_to": place}, now=at)
        for place, (state, title) in enumerate(zip(ItemState, (*HOSTILE, "Add an alert"), strict=True)):
            item = {"title": title, "phase": "response", "term": "short", "finding_id": finding.id}
            item |= {"priority": place, "owner": HOSTILE[0]} if place else {}
            made = await action_items.create(session, item, review=review.id, incident=None, now=at)
            change = {"state": state, "dropped_because": title if state is ItemState.DROPPED else None}
            await action_items.amend(session, made.row.id, change, closed_at=None, if_match=None, now=at)
        await reviews.hold(
            session, review, held_at=at, duration_seconds=1800, attended=["ada"], without_facilitator=False, now=now
        )


async def a_public_report(url: str, about: UUID, now: datetime) -> None:
    """Of REV-1, with hostile texts: a published version, and a draft with warnings, one of them accepted."""
    engine = db.connect(url, pool_size=1)
    author, other = (Bearer(name, Scope.WRITE, id=name) for name in ("author", "other"))
    site = public_report.Site("Acme", "")
    long = dict.fromkeys(("title", "severity", "customer_impact", "proximate_cause"), HOSTILE[0])
    lists = {"learnings": HOSTILE, "countermeasures": HOSTILE}
    async with db.session(engine) as session:
        review = await reviews.hold_row(session, 1)
        for words in ("Some cards failed.", "Some cards failed, as ada@acme.example and INC-1 say."):
            text = PublicText.of({"title": "t", "summary": words, **long, **lists, "resolution": HOSTILE[2]})
            new = public_report.NewVersion(text, PublicOutline.FULL, HOSTILE[0], about)
            row, _ = await public_report.write(session, review, new, token=author, site=site, now=now)
            how: dict[str, Any] = {"by": HOSTILE[0], "token": other, "site": site, "now": now}
            found = await public_report.warnings_of(session, review, row, site)
            for each in found if row.version == 1 else found[:1]:
                await public_report.accept(session, review, row, each.leak, **how)
            if row.version == 1:
                await public_report.approve(session, review, row, **how)
                await public_report.publish(session, review, row, **how)
    await engine.dispose()
