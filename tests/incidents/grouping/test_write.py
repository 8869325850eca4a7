"""Changes of several slices that are stored in one statement."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from app.base.values.ids import new_id
from app.incidents.grouping.batch import Batch
from app.incidents.grouping.write import StatementPart, write

NOW = datetime(2026, 8, 20, 12, tzinfo=UTC)


async def test_changes_with_a_parameter_of_the_same_name_are_refused() -> None:
    """Otherwise one would be stored with the values of the other."""
    changes = [
        StatementPart(name, "SELECT :rows, :now", {"rows": name, "now": NOW}) for name in ("of one slice", "of another")
    ]
    with pytest.raises(ValueError, match="rows"):
        await write(cast("Any", None), Batch(NOW, new_id), changes)
