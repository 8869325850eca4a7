"""Totals of settled incidents for /metrics: increased once per incident, never decreased."""

from decimal import Decimal

import sqlalchemy as sa
from sqlmodel import Field

from app.base.schema.columns import BigInt, Double, Row


class SettledInEnvironment(Row, table=True):
    """One bucket of a histogram, by environment."""

    __tablename__ = "settled_in_environment"

    measure: str = Field(sa_type=sa.Text, primary_key=True)
    service: str = Field(sa_type=sa.Text, primary_key=True)
    environment: str = Field(sa_type=sa.Text, primary_key=True)
    severity: int = Field(sa_type=sa.SmallInteger, primary_key=True)
    bucket: int = Field(sa_type=sa.SmallInteger, primary_key=True)  # index of the histogram's bound; not cumulative
    count: BigInt[int]
    seconds: Double[float]


class SettledMeasure(Row, table=True):
    """The same of unknown environments. Written by the version before migration 0009, and added when read."""

    __tablename__ = "settled_measure"

    measure: str = Field(sa_type=sa.Text, primary_key=True)
    service: str = Field(sa_type=sa.Text, primary_key=True)
    severity: int = Field(sa_type=sa.SmallInteger, primary_key=True)
    bucket: int = Field(sa_type=sa.SmallInteger, primary_key=True)  # index of the histogram's bound; not cumulative
    count: BigInt[int]
    seconds: Double[float]


class SettledDowntime(Row, table=True):
    """The downtime of a service."""

    __tablename__ = "settled_downtime"

    service: str = Field(sa_type=sa.Text, primary_key=True)
    seconds: Decimal


class SettledCost(Row, table=True):
    """The cost of a service's outages in one currency."""

    __tablename__ = "settled_cost"

    service: str = Field(sa_type=sa.Text, primary_key=True)
    currency: str = Field(sa_type=sa.Text, primary_key=True)
    amount: Decimal
