"""SQL fragments that derive from a table."""

import re

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.db.recordset import Columns, as_json
from app.base.schema import Alert, UnmatchedResolve, metadata

UNMATCHED_RESOLVE = Columns(UnmatchedResolve.__table__, ("series", "ended_at", "end_reason"))


def test_fragments_name_the_columns_in_their_order() -> None:
    assert str(UNMATCHED_RESOLVE) == "series, ended_at, end_reason"
    assert (
        UNMATCHED_RESOLVE.selected(as_text={"series"})
        == "unmatched_resolve.series::text, unmatched_resolve.ended_at, unmatched_resolve.end_reason"
    )
    assert UNMATCHED_RESOLVE.padded(ended_at="now()") == "NULL, now(), NULL"
    assert UNMATCHED_RESOLVE.assigned("new", but={"series"}) == "ended_at = new.ended_at, end_reason = new.end_reason"
    assert UNMATCHED_RESOLVE.types() == "series UUID, ended_at TIMESTAMP WITH TIME ZONE, end_reason TEXT"
    assert UNMATCHED_RESOLVE.place("end_reason") == 2


def test_a_name_that_the_table_does_not_have_is_an_error() -> None:
    with pytest.raises(KeyError, match=re.escape("alert has no column incident, label")):
        Columns(Alert.__table__, ("series", "incident", "label"))


def test_a_record_omits_none() -> None:
    assert as_json([UNMATCHED_RESOLVE.record("a", None, "recovered")]) == '[{"series":"a","end_reason":"recovered"}]'


async def test_postgresql_reads_records_of_every_table(engine: AsyncEngine) -> None:
    async with db.transaction(engine) as tx:
        for table in metadata.sorted_tables:
            every = Columns(table, tuple(table.c.keys()))
            query = f"SELECT {every} FROM json_to_recordset(CAST(:rows AS json)) AS new ({every.types()})"
            [found] = await tx.execute(text(query), {"rows": as_json([every.record()])})
            assert set(found) == {None}
