"""The harness of `make bench-pages`: its history, and its judgment."""

from rich.console import Console
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.settings import Settings
from bench import pages
from bench.pages import ALERTS_OF_LARGE, COPIES, Measured, Page


async def test_the_history_is_copied_to_other_services_with_alerts_and_timelines(
    engine: AsyncEngine, settings: Settings
) -> None:
    generated = 20
    await pages._make(engine, settings, generated * (COPIES + 1), Console(quiet=True))
    async with engine.connect() as connection:
        incidents, services, latest = (await connection.execute(_INCIDENTS)).one()
        assert 0.8 * generated * (COPIES + 1) < incidents <= generated * (COPIES + 1) + 1
        assert services > COPIES
        assert latest == ALERTS_OF_LARGE
        # One for each incident that was not copied wrongly: alerts, and the same number in its own column.
        assert (await connection.execute(_UNLIKE)).scalar_one() == 0
    usual, large = await pages._known(engine)
    assert usual != large


_INCIDENTS = text("SELECT count(*), count(DISTINCT service), max(alerts) FROM incident WHERE merged_into IS NULL")
_UNLIKE = text("""
    SELECT count(*)
      FROM incident
     WHERE merged_into IS NULL
       AND (   alerts <> (SELECT count(*) FROM alert WHERE incident_id = incident.id AND key_id = incident.key_id)
            OR NOT EXISTS (SELECT FROM timeline WHERE incident_id = incident.id))
""")


def test_missed_goals_are_named() -> None:
    page = Page("overview", "/", 150)
    fast = Measured(page, [*range(1, 101)], size=90_000, compressed=11_000)
    assert (fast.median, fast.p95, [*fast.missed()]) == (50.5, 95, [])
    slow = Measured(page, [100.0, 200.0], compressed=12_400)
    assert [*slow.missed()] == ["overview takes 200 ms (p95), goal 150", "overview has 12.4 kB, goal 12"]
