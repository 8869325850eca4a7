"""Cost of responders' time in a period, separate from all other costs.

Pure. PostgreSQL sums the time exactly, for any number of incidents; `app.incidents.impact.labor` prices it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from app.base.values.severity import SeverityName, severity_name
from app.incidents.impact.intervals import Cost
from app.incidents.impact.labor import Pay, priced
from app.metrics.query import GroupKey

NOT_ACKNOWLEDGED = "not acknowledged while it ran"


@dataclass(frozen=True, slots=True)
class Labor:
    """`n` incidents were worked on in the period; `left_out` counts those detected in it without known work."""

    cost: Cost
    n: int
    left_out: Mapping[str, int]  # by reason


NO_LABOR = Labor({}, 0, {})


class Work(NamedTuple):
    """The work on the incidents of one severity, in one group and bucket; buckets count from 1."""

    key: GroupKey
    bucket: int
    severity: int
    n: int
    not_acknowledged: int
    seconds: Decimal | None  # None: no work


def labor_by_group(work: Iterable[Work], buckets: int, pay: Pay) -> dict[GroupKey, list[Labor]]:
    """The labor in each bucket, for groups that have any."""
    groups: dict[GroupKey, dict[int, list[Work]]] = defaultdict(lambda: defaultdict(list))
    for each in work:
        groups[each.key][each.bucket].append(each)
    return {
        key: [_labor(of[bucket], pay) if bucket in of else NO_LABOR for bucket in range(1, buckets + 1)]
        for key, of in groups.items()
    }


def _labor(work: Sequence[Work], pay: Pay) -> Labor:
    seconds: dict[SeverityName, Decimal] = {
        severity_name(each.severity): each.seconds for each in work if each.seconds is not None
    }
    left_out = Counter({NOT_ACKNOWLEDGED: sum(each.not_acknowledged for each in work)})
    return Labor(priced(seconds, pay), sum(each.n for each in work), +left_out)
