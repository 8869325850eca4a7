"""When incidents were reviewed and ready follows from their reviews, whenever a merge or split happened meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base import db
from app.base.schema import Review
from app.incidents.grouping.reviewed import derive_reviewed
from app.reviews.store import findings, reviews
from tests.incidents.grouping.test_store import apply_batch, at, forget
from tests.incidents.test_actions import NOW
from tests.incidents.test_corrections_property import APART, BRIDGE, LONG, SHORT, SPAN, _living


@dataclass(frozen=True, slots=True)
class Step:
    """Of the review of the first or the second incident. `held` has the minute at which it was held."""

    review: int
    what: str
    held: int = 0


@st.composite
def scripts(draw: st.DrawFn) -> tuple[list[Step], int]:
    """Reviews of the two incidents, in steps that alternate in any way, and the place of the alert between them."""
    lives = []
    for number in (0, 1):
        steps = [Step(number, "draft"), Step(number, "hold", draw(st.integers(80, 200))), Step(number, "publish")]
        lives.append(steps[: draw(st.integers(1, 3))])
    script: list[Step] = []
    while any(lives):
        script.append(draw(st.sampled_from([life for life in lives if life])).pop(0))
    return script, draw(st.integers(0, len(script)))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn=scripts(), ending=st.sampled_from([None, SHORT, LONG]))
async def test_reviews_count_for_the_final_incidents_whenever_these_were_merged_or_split(
    engine: AsyncEngine, drawn: tuple[list[Step], int], ending: Any
) -> None:
    script, place = drawn
    await forget(engine)
    await apply_batch(engine, [one.incoming(max_span=SPAN) for one in APART])
    made: dict[int, Review] = {}
    first, second = [row.id for row in await living(engine)]
    # The alert between them merges the two while it is open, and splits them again if it turns out to be short.
    between = [BRIDGE, *([ending] if ending else [])]
    for step in script[:place]:
        await take(engine, step, made, (first, second)[step.review])
    for alert in between:
        await apply_batch(engine, [alert.incoming(max_span=SPAN)])
    rows = await living(engine)
    for step in script[place:]:
        await take(engine, step, made, rows[min(step.review, len(rows) - 1)].id)

    # A review drafted before the split is one of the whole, and so of each part.
    before_split = {step.review for step in script[:place] if step.what == "draft"}
    for number, row in enumerate(await living(engine)):
        own = [step for step in script if ending is not SHORT or step.review in {number, *before_split}]
        held = [at(step.held) for step in own if step.what == "hold"]
        drafted, published = ({step.review for step in own if step.what == what} for what in ("draft", "publish"))
        assert row.reviewed_at == min(held, default=None)
        assert (row.ready_at is not None) is (bool(drafted) and drafted == published)
        before = (row.reviewed_at, row.ready_at, row.review_planned)
        async with db.transaction(engine) as tx:
            assert await derive_reviewed(tx, [row.id]) == [], f"{before} is what follows from the reviews"


async def living(engine: AsyncEngine) -> Sequence[Any]:
    async with db.session(engine) as session:
        return sorted(await _living(session), key=lambda row: row.began_at)


async def take(engine: AsyncEngine, step: Step, made: dict[int, Review], incident: Any) -> None:
    async with db.session(engine) as session:
        if step.what == "draft":
            values = {"title": "t", "summary": "s", "facilitator": "grace", "nothing_now_because": "r"}
            made[step.review] = await reviews.create(session, values, [incident], now=NOW)
            await findings.add(session, made[step.review], {"kind": "learning", "text": "t", "by": "ada"}, now=NOW)
            return
        review = await reviews.hold_row(session, made[step.review].id)
        if step.what == "publish":
            await reviews.publish(session, review, now=NOW)
        else:
            await _hold(session, review, at(step.held))


async def _hold(session: AsyncSession, review: Review, held_at: datetime) -> None:
    await reviews.hold(
        session, review, held_at=held_at, duration_seconds=None, attended=None, without_facilitator=False, now=NOW
    )
