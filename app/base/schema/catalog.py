"""Configuration: rules, services and their rates, maintenance, objectives and calendars."""

from datetime import date, datetime, time
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, func, literal_column
from sqlalchemy.dialects.postgresql import JSONB, ExcludeConstraint
from sqlmodel import Field

from app.base.schema.columns import DateArray, Jsonb, Row, SmallInt, SmallIntArray, Text, TextArray, Timestamp
from app.base.values.vocabulary import ENVIRONMENT_LABELS


class Rule(Row, table=True):
    """Derives an alert's service, environment, severity, grouping key and window from its labels."""

    __tablename__ = "rule"
    __table_args__ = (
        CheckConstraint("window_seconds BETWEEN 60 AND 172800", name="rule_window_is_60s_to_48h"),
        CheckConstraint("max_span_seconds >= window_seconds", name="rule_max_span_holds_a_window"),
        CheckConstraint("heartbeat_seconds BETWEEN 60 AND 604800", name="rule_heartbeat_is_60s_to_a_week"),
        CheckConstraint(
            "heartbeat_seconds IS NULL OR cardinality(matchers) > 0", name="rule_of_a_heartbeat_has_matchers"
        ),
        CheckConstraint("recoveries <@ ARRAY['missing_series', 'no_data']", name="rule_recoveries_are_optional_ones"),
    )

    name: str = Field(sa_type=sa.Text, primary_key=True)
    position: int  # lower is tried first; ties by name
    matchers: TextArray[list[str]]
    key_labels: TextArray[list[str]]
    window_seconds: int
    max_span_seconds: int
    ignored_labels: TextArray[list[str]]
    service_labels: TextArray[list[str]]
    severity_labels: TextArray[list[str]]
    severities: Jsonb[dict[str, str]]  # label value → sev1…sev5, overrides the defaults
    environment_labels: list[str] = Field(
        default=None,
        sa_type=sa.ARRAY(sa.Text),
        sa_column_kwargs={"server_default": "{" + ",".join(ENVIRONMENT_LABELS) + "}"},
    )
    environment: Text[str | None] = None  # of alerts whose labels name none
    heartbeat_seconds: int | None = None  # matching alerts are a dead man's switch; null: ordinary alerts
    opens_incidents: bool = Field(
        default=None, sa_column_kwargs={"server_default": "true"}
    )  # false: alerts are ignored
    # Ends (`missing_series`, `no_data`) that are recoveries of these alerts.
    recoveries: list[str] = Field(default=None, sa_type=sa.ARRAY(sa.Text), sa_column_kwargs={"server_default": "{}"})
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class RuleVersion(Row, table=True):
    """A single row: a number that a trigger on `rule` increments on every change of the rules."""

    __tablename__ = "rule_version"
    __table_args__ = (CheckConstraint("single", name="rule_version_is_one_row"),)

    single: bool = Field(default=None, primary_key=True, sa_column_kwargs={"server_default": "true"})
    version: int = Field(default=None, sa_type=sa.BigInteger, sa_column_kwargs={"server_default": "0"})


class Service(Row, table=True):
    """A service, with an owner, hourly costs of outage and an objective."""

    __tablename__ = "service"

    name: str = Field(sa_type=sa.Text, primary_key=True)
    owner: Text[str | None] = None
    links: list[dict[str, str]] = Field(
        default=None, sa_type=JSONB(none_as_null=True), sa_column_kwargs={"server_default": "[]"}
    )
    first_seen_at: Timestamp[datetime]
    in_service_since: Timestamp[datetime | None] = None  # stated by a person; null: since it was first seen
    updated_at: Timestamp[datetime]


class ServiceRate(Row, table=True):
    """Cost of an hour of outage, valid from a date."""

    __tablename__ = "service_rate"
    __table_args__ = (
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="rate_currency_is_iso_4217"),
        CheckConstraint("0 <= low AND low <= expected AND expected <= high", name="rate_range_is_ordered"),
    )

    service: str = Field(sa_type=sa.Text, primary_key=True, foreign_key="service.name")
    currency: str = Field(sa_type=sa.Text, primary_key=True)
    valid_from: datetime = Field(sa_type=sa.DateTime(timezone=True), primary_key=True)
    low: Decimal
    expected: Decimal
    high: Decimal


class Maintenance(Row, table=True):
    """Planned work: failures during it count neither as downtime nor as cost.

    Either once, or recurring on weekdays at a local time.
    """

    __tablename__ = "maintenance"
    __table_args__ = (
        CheckConstraint("num_nulls(begins_at, ends_at) IN (0, 2)", name="maintenance_once_has_both_ends"),
        CheckConstraint(
            "num_nulls(weekdays, start_time, duration_seconds, zone, first_date) IN (0, 5)",
            name="maintenance_recurs_by_a_whole_rule",
        ),
        CheckConstraint("(begins_at IS NULL) <> (weekdays IS NULL)", name="maintenance_is_once_or_recurs"),
        CheckConstraint("begins_at < ends_at", name="maintenance_ends_after_it_begins"),
        CheckConstraint(
            "weekdays <@ ARRAY[0, 1, 2, 3, 4, 5, 6]::smallint[] AND cardinality(weekdays) > 0",
            name="maintenance_weekdays_are_some_of_seven",
        ),
        CheckConstraint("duration_seconds BETWEEN 60 AND 604800", name="maintenance_lasts_a_minute_to_a_week"),
        CheckConstraint("first_date <= last_date", name="maintenance_dates_are_ordered"),
    )

    name: str = Field(sa_type=sa.Text, primary_key=True)
    services: TextArray[list[str]]  # empty: all
    reason: Text[str]
    begins_at: Timestamp[datetime | None] = None
    ends_at: Timestamp[datetime | None] = None
    weekdays: SmallIntArray[list[int] | None] = None  # 0 is Monday
    start_time: time | None = None
    duration_seconds: int | None = None
    zone: Text[str | None] = None
    first_date: date | None = None
    last_date: date | None = None  # null: until further notice
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class Objective(Row, table=True):
    """The availability target of a service and its time window."""

    __tablename__ = "objective"
    __table_args__ = (
        CheckConstraint("target > 0 AND target < 1", name="objective_leaves_a_budget"),
        CheckConstraint("(rolling_days IS NULL) <> (calendar IS NULL)", name="objective_window_is_rolling_or_calendar"),
        CheckConstraint("rolling_days BETWEEN 1 AND 366", name="objective_window_is_a_day_to_a_year"),
        CheckConstraint("calendar IN ('month', 'quarter')", name="objective_calendar_is_month_or_quarter"),
    )

    service: str = Field(sa_type=sa.Text, primary_key=True, foreign_key="service.name")
    environment: Text[str | None] = None  # incidents in other environments do not burn the budget; null: all count
    target: Decimal
    rolling_days: int | None = None
    calendar: Text[str | None] = None
    weighted: bool
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class Calendar(Row, table=True):
    """Business hours, in which durations can be measured as an alternative to elapsed time."""

    __tablename__ = "calendar"

    name: str = Field(sa_type=sa.Text, primary_key=True)
    zone: Text[str]
    holidays: DateArray[list[date]]
    created_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class CalendarHours(Row, table=True):
    """One span of business hours on one weekday."""

    __tablename__ = "calendar_hours"
    __table_args__ = (
        CheckConstraint("weekday BETWEEN 0 AND 6", name="calendar_weekday_is_one_of_seven"),
        CheckConstraint(
            "0 <= begins_minute AND begins_minute < ends_minute AND ends_minute <= 1440",
            name="calendar_hours_are_within_a_day",
        ),
        ExcludeConstraint(
            (literal_column("calendar"), "="),
            (literal_column("weekday"), "="),
            (func.int4range(literal_column("begins_minute"), literal_column("ends_minute")), "&&"),
            name="calendar_hours_do_not_overlap",
        ),
    )

    calendar: str = Field(sa_type=sa.Text, primary_key=True, foreign_key="calendar.name", ondelete="CASCADE")
    weekday: int = Field(sa_type=sa.SmallInteger, primary_key=True)  # 0 is Monday
    begins_minute: int = Field(sa_type=sa.SmallInteger, primary_key=True)  # minutes after midnight, local time
    ends_minute: SmallInt[int]
