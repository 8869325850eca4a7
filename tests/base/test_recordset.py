"""SQL fragments that derive from a table."""

import re

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.db.recordset import Columns, as_json
from app.base.schema import Alert, LooseEnd, metadata

LOOSE_END = Columns(LooseEnd.__table__, ("series", "ended_at", "end_reason"))


def test_fragments_name_the_columns_in_their_order() -> None:
    assert str(LOOSE_END) == "series, ended_at, end_reason"
    assert LOOSE_END.selected(as_text={"series"}) == "loose_end.series::text, loose_end.ended_at, loose_end.end_reason"
    assert LOOSE_END.padded(ended_at="now()") == "NULL, now(), NULL"
    assert LOOSE_END.assigned("new", but={"series"}) == "ended_at = new.ended_at, end_reason = new.end_reason"
    assert LOOSE_END.types() == "series UUID, ended_at TIMESTAMP WITH TIME ZONE, end_reason TEXT"
    assert LOOSE_END.place("end_reason") == 2


def test_a_name_that_the_table_does_not_have_is_an_error() -> None:
    with pytest.raises(KeyError, match=re.escape("alert has no column incident, label")):
        Columns(Alert.__table__, ("series", "incident", "label"))


def test_a_record_omits_none() -> None:
    assert as_json([LOOSE_END.record("a", None, "recovered")]) == '[{"series":"a","end_reason":"recovered"}]'


async def test_postgresql_reads_records_of_every_table(engine: AsyncEngine) -> None:
    async with db.transaction(engine) as tx:
        for table in metadata.sorted_tables:
            every = Columns(table, tuple(table.c.keys()))
            query = f"SELECT {every} FROM json_to_recordset(CAST(:rows AS json)) AS new ({every.types()})"
            [found] = await tx.execute(text(query), {"rows": as_json([every.record()])})
            assert set(found) == {None}
