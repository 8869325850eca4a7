"""Shared by all tables: the base class of rows, and column types written as `Text[str | None]`.

The outer name is PostgreSQL's type, the inner one Python's; a column may be null if the Python type may be None. Types
that SQLModel already maps exactly need no alias: `bool`, `int` (integer), `UUID`, `Decimal` (numeric), `date`, `time`
and `bytes`.

An alias cannot be combined with `= Field(primary_key=True)` and the like: SQLModel uses only one `Field`. Such a column
sets its type there: `name: str = Field(sa_type=sa.Text, primary_key=True)`.
"""

from typing import Annotated, ClassVar, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlmodel import Field, SQLModel

T = TypeVar("T")

Text = Annotated[T, Field(sa_type=sa.Text)]
Timestamp = Annotated[T, Field(sa_type=sa.DateTime(timezone=True))]
SmallInt = Annotated[T, Field(sa_type=sa.SmallInteger)]
BigInt = Annotated[T, Field(sa_type=sa.BigInteger)]
Double = Annotated[T, Field(sa_type=sa.Float(53))]
Json = Annotated[T, Field(sa_type=postgresql.JSON(none_as_null=True))]
# None is SQL's NULL. Without `none_as_null` a row object would store JSON's `null`, which `IS NULL` does not find.
Jsonb = Annotated[T, Field(sa_type=postgresql.JSONB(none_as_null=True))]
TextArray = Annotated[T, Field(sa_type=sa.ARRAY(sa.Text))]
IntArray = Annotated[T, Field(sa_type=sa.ARRAY(sa.Integer))]
SmallIntArray = Annotated[T, Field(sa_type=sa.ARRAY(sa.SmallInteger))]
DateArray = Annotated[T, Field(sa_type=sa.ARRAY(sa.Date))]
UuidArray = Annotated[T, Field(sa_type=sa.ARRAY(sa.Uuid))]
TimestampArray = Annotated[T, Field(sa_type=sa.ARRAY(sa.DateTime(timezone=True)))]


class Row(SQLModel):
    """The base class of all tables. `Incident.__table__` is the SQLAlchemy Core table.

    A column that the database fills in (an identity, a server default, a computed column) has `default=None`, so that
    it can be left out when a row is made; SQLAlchemy then omits it from the INSERT, and loads it when it is read.
    """

    __table__: ClassVar[sa.Table]

    metadata = sa.MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        }
    )
