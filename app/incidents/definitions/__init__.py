"""The registry of definitions, the single source of the texts in REST, Prometheus help texts and docs/numbers.md.

Pure. Each area defines its numbers in one file; the code that computes a number contains no texts about it. When a
change makes the same incidents yield a different number, increase the version of its definition, so that previously
exported numbers can be distinguished.
"""

from collections.abc import Mapping

from app.incidents.definitions.action_items import ACTION_ITEMS
from app.incidents.definitions.availability import AVAILABILITY
from app.incidents.definitions.comparison import COMPARISON
from app.incidents.definitions.dora import DORA
from app.incidents.definitions.measures import MEASURE_DEFINITIONS
from app.incidents.definitions.model import Definition
from app.incidents.definitions.periods import PERIODS
from app.incidents.definitions.response import RESPONSE
from app.incidents.definitions.statistics import STATISTICS
from app.incidents.definitions.whatif import WHAT_IF

DEFINITIONS: tuple[Definition, ...] = (
    *MEASURE_DEFINITIONS,
    *STATISTICS,
    *PERIODS,
    *AVAILABILITY,
    *WHAT_IF,
    *COMPARISON,
    *DORA,
    *ACTION_ITEMS,
    *RESPONSE,
)
DEFINED: Mapping[str, Definition] = {each.name: each for each in DEFINITIONS}
