"""The registry: what each number means, in the words that REST, the help texts of Prometheus and docs/numbers.md use.

Pure. One file for each area defines its numbers, once; the code that computes a number has no words of its own. When a
change makes the same incidents give another number, its definition gets a new version, so that numbers stored elsewhere
can be distinguished.
"""

from collections.abc import Mapping

from app.incidents.definitions.availability import AVAILABILITY
from app.incidents.definitions.comparison import COMPARISON
from app.incidents.definitions.dora import DORA
from app.incidents.definitions.measures import MEASURE_DEFINITIONS
from app.incidents.definitions.model import Definition
from app.incidents.definitions.periods import PERIODS
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
)
DEFINED: Mapping[str, Definition] = {each.name: each for each in DEFINITIONS}
FORMULAS: Mapping[str, str] = {each.name: each.formula for each in DEFINITIONS}
