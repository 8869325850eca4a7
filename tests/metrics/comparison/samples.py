"""Samples of durations with the times at which their incidents began."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from app.metrics.comparison.compare import Sample

MONDAY = 1_767_571_200.0  # 2026-01-05
APART = 12 * 3600.0


def independent(
    recorded: Sequence[float], censored: Sequence[float] = (), left_out: Mapping[str, int] | None = None
) -> Sample:
    """Each incident is a storm of its own, in a period too short for weeks."""
    return Sample(
        recorded,
        censored,
        left_out or {},
        began=[MONDAY + APART * place for place in range(len(recorded) + len(censored))],
        observed=timedelta(days=50),
    )
