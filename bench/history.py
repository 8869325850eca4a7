"""Generates a year of incidents, any number of them, through the stores, as deliveries and people would.

The same `SEED` gives the same history, however it is split into steps. Fifty services of different noise; durations are
lognormal, like real ones (σ 1.5); some incidents are acknowledged and given milestones by people, some reopened, some
open, some ended without a recovery, some are failures of the monitoring; some deployments are named by alerts.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db, schema
from app.base.access.tokens import ensure_source
from app.base.values.facts import Commit, Outcome, Report
from app.catalog.services import store as services
from app.incidents import actions, refusals
from app.incidents.grouping import decide as store
from app.incidents.grouping.batch import MANUAL_SOURCE_ID, Incoming
from app.incidents.grouping.law.episode import minute
from app.incidents.grouping.rule import DEFAULT_RULE, decide
from app.incidents.grouping.signal import AlertClass, EndReason, Signal, Status
from app.incidents.grouping.timeline_kind import TimelineKind
from app.incidents.history.timeline import Attribution
from app.incidents.impact.rates import THE_BEGINNING
from app.metrics.deployments import store as deployments
from app.metrics.prometheus.settle import settle
from app.settings import Settings

SEED = 20_260_101
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
AFTER = FIRST + timedelta(days=365)
SERVICES = 50
SOURCES = ("prod-eu", "prod-us", "grafana")
OWNERS = ("Checkout", "Payments", "Search", "Platform", "Data", None)
DEPLOYMENT_FOR_EVERY = 10  # incidents
BATCH = 500

BUSIEST = "service-00"
MEDIAN_SECONDS, SIGMA = 30 * 60, 1.5
LONGEST = timedelta(days=14)
# Alerts on the same cell of a service share a grouping key; with many cells, few incidents merge.
CELLS = 400
_RULE = replace(DEFAULT_RULE, key_labels=("service", "cell"))


@dataclass(slots=True)
class History:
    """The history generated so far; `make` continues from there. It covers the year from `first` on."""

    engine: AsyncEngine
    settings: Settings
    first: datetime = FIRST
    services: int = SERVICES
    incidents: int = 0
    random: Random = field(default_factory=lambda: Random(SEED))  # noqa: S311  not a secret; must be reproducible
    sources: Sequence[int] = ()

    @property
    def after(self) -> datetime:
        return self.first + (AFTER - FIRST)

    async def make(self, total: int, out: Console) -> None:
        """Adds incidents until there are about `total` (a few merge), settles them and analyzes the tables."""
        if not self.sources:
            self.sources = await self._catalog()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=out, transient=True) as progress:
            task = progress.add_task("incidents", total=total, completed=self.incidents)
            while self.incidents < total:
                size = min(BATCH, total - self.incidents)
                async with db.session(self.engine) as session:
                    await self._add(session, size)
                self.incidents += size
                progress.update(task, completed=self.incidents)
        await self._settle()
        async with self.engine.connect() as connection:
            autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await autocommit.exec_driver_sql("VACUUM ANALYZE")

    async def _catalog(self) -> list[int]:
        """Adds owners and rates: some services have neither, and one in five rates changes during the year."""
        async with db.session(self.engine) as session:
            for number in range(self.services):
                name, owner = _service(number), OWNERS[number % len(OWNERS)]
                service = schema.Service(
                    name=name, owner=owner, links=[], first_seen_at=self.first, updated_at=self.first
                )
                await services.put_service(session, service)
                if number % 5:
                    await services.put_rates(session, name, _rates(name, number, self.first), now=self.first)
            return [(await ensure_source(session, name, "alertmanager", now=self.first)).id for name in SOURCES]

    async def _add(self, session: AsyncSession, size: int) -> None:
        tx = await session.connection()
        scenarios = [self._scenario(self.incidents + place) for place in range(size)]
        for scenario in scenarios:
            if scenario.deployment is not None:
                await deployments.report(session, scenario.deployment, source_id=MANUAL_SOURCE_ID, now=self.after)
        outcomes = iter(
            await store.apply(tx, [each for scenario in scenarios for each in scenario.incoming], now=self.after)
        )
        for scenario in scenarios:
            [number, *_] = [next(outcomes).incident for _ in scenario.incoming]
            if number is not None:
                await _act(session, number, scenario, now=self.after)

    def _scenario(self, number: int) -> "_Scenario":
        chance = self.random
        name = _service(min(int(chance.expovariate(5 / self.services)), self.services - 1))
        lasted = min(timedelta(seconds=chance.lognormvariate(math.log(MEDIAN_SECONDS), SIGMA)), LONGEST)
        began = self.first + chance.random() * (self.after - self.first)
        is_open = began + lasted > self.after or chance.random() < 0.0005  # the latter were forgotten
        labels = {
            "alertname": "HighErrorRate",
            "service": name,
            "cell": f"cell-{chance.randrange(CELLS)}",
            "severity": chance.choices(("critical", "error", "warning", "minor", "info"), (15, 20, 45, 12, 8))[0],
        }
        deployment = None
        if number % DEPLOYMENT_FOR_EVERY == 0:
            deployment = self._deployment(number, name, began)
            if chance.random() < 0.3:
                labels["deployment_id"] = deployment.id
        chosen = chance.randrange(len(self.sources))
        spans = [(began, None if is_open else began + lasted)]
        if not is_open and chance.random() < 0.05:  # it fires again within the window
            again = began + lasted + timedelta(minutes=2)
            spans.append((again, min(again + timedelta(minutes=10), self.after)))
        kind = AlertClass.MONITORING if chance.random() < 0.01 else AlertClass.SERVICE
        reason = EndReason.RULE_PAUSED if chance.random() < 0.02 else EndReason.RECOVERED
        annotations = {"for": "5m"} if chance.random() < 0.5 else {}
        signals = [
            Signal(
                f"{number:016x}",
                Status.FIRING if ends is None else Status.RESOLVED,
                begins,
                ends,
                labels=labels,
                annotations=annotations,
                end_reason=None if ends is None else reason,
                alert_class=kind,
            )
            for begins, ends in spans
        ]
        incoming = [
            Incoming(each, self.sources[chosen], decide(_RULE, labels, kind), self.after, minute(ends or begins))
            for each, (begins, ends) in zip(signals, spans, strict=True)
        ]
        share = [chance.random() for _ in ("acknowledged", "identified", "mitigated")]
        return _Scenario(
            incoming,
            deployment,
            acknowledged=began + lasted * chance.random() / 2 if share[0] < 0.3 else None,
            identified=began + lasted * share[1] if share[1] < 0.05 else None,
            mitigated=began + lasted * (1 - share[2]) if share[2] < 0.05 else None,
        )

    def _deployment(self, number: int, name: str, before: datetime) -> Report:
        """Sometimes a deployment shortly before the incident, so that it may have caused it."""
        chance = self.random
        finished = before - timedelta(hours=chance.choice((0.5, 5, 50)) * chance.random())
        commits = tuple(
            Commit(f"{number:08x}{place}", finished - timedelta(hours=5 + 20 * place)) for place in range(3)
        )
        return Report(
            f"deploy-{number}",
            name,
            chance.choices((Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELED), (90, 7, 3))[0],
            environment="production",
            version=f"1.{number}",
            started_at=finished - timedelta(minutes=10),
            finished_at=finished,
            commits=commits,
            unplanned=chance.random() < 0.1,
        )

    async def _settle(self) -> None:
        while True:
            async with db.transaction(self.engine) as tx:
                lateness, weights = self.settings.allowed_lateness, self.settings.impact
                if not await settle(tx, now=self.after, allowed_lateness=lateness, weights=weights):
                    return


@dataclass(frozen=True, slots=True)
class _Scenario:
    incoming: Sequence[Incoming]
    deployment: Report | None
    acknowledged: datetime | None
    identified: datetime | None
    mitigated: datetime | None


async def _act(session: AsyncSession, number: int, scenario: _Scenario, *, now: datetime) -> None:
    if scenario.acknowledged is not None:
        with suppress(refusals.AlreadyResolved):  # it merged into an incident that had ended
            attribution = Attribution(scenario.acknowledged, "sam")
            await actions.acknowledge(session, number, attribution, at_stated=True, now=now)
    for kind, at in ((TimelineKind.IDENTIFIED, scenario.identified), (TimelineKind.MITIGATED, scenario.mitigated)):
        if at is not None:
            await actions.milestone(session, number, kind, Attribution(at, "sam"), now=now)


def _service(number: int) -> str:
    return f"service-{number:02}"


def _rates(name: str, number: int, first: datetime) -> list[schema.ServiceRate]:
    hour = Decimal(100 * (number + 1))
    currency = "USD" if number % 3 else "EUR"
    dates = [THE_BEGINNING, first + timedelta(days=180)] if number % 5 == 1 else [THE_BEGINNING]
    return [
        schema.ServiceRate(
            service=name,
            currency=currency,
            valid_from=since,
            low=hour / 2,
            expected=hour * (place + 1),
            high=hour * 3,
        )
        for place, since in enumerate(dates)
    ]
