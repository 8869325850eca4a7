"""Deployments, the reports that they are derived from, and other changes."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field

from app.base.schema.columns import Jsonb, Row, Text, Timestamp


class Deployment(Row, table=True):
    """Something new that runs in an environment, derived from all its stored reports, independent of their order.

    `id` is its key, made of source, service, environment and `reported_id`, so they are unique together. A row from
    before migration 0010 keeps the id of its sender as its key; it has no `source` and `reported_id` until its next
    report.
    """

    __tablename__ = "deployment"
    __table_args__ = (
        CheckConstraint(
            "outcome IN ('pending', 'in_progress', 'succeeded', 'failed', 'canceled', 'unknown')",
            name="deployment_outcome_is_known",
        ),
        CheckConstraint(
            "(finished_at IS NOT NULL) = (outcome IN ('succeeded', 'failed', 'canceled', 'unknown'))",
            name="deployment_has_an_outcome_once_finished",
        ),
        CheckConstraint("finished_at >= started_at", name="deployment_ends_after_it_began"),
        CheckConstraint("rolled_back_by <> id", name="deployment_is_rolled_back_by_another"),
        Index("deployment_by_time", text("happened_at DESC"), text("id DESC")),
        Index("deployment_by_service", "service", text("happened_at DESC")),
        # The id first: it serves searches by it.
        UniqueConstraint("reported_id", "service", "environment", "source", name="deployment_has_one_identity"),
        Index("deployment_rolling_back", "service", "rolled_back", postgresql_where=text("rolled_back IS NOT NULL")),
    )

    id: str = Field(sa_type=sa.Text, primary_key=True)
    reported_id: Text[str | None] = None
    source: Text[str | None] = None  # its name
    service: Text[str]
    environment: Text[str]
    production: bool
    version: Text[str | None] = None
    sha: Text[str | None] = None
    link: Text[str | None] = None
    outcome: Text[str]
    started_at: Timestamp[datetime | None] = None
    finished_at: Timestamp[datetime | None] = None
    happened_at: Timestamp[datetime]  # finished_at, else started_at, else when it was first reported
    commits: Jsonb[list[tuple[str, str | None]]]  # [[sha, time], …]; read as lists
    unplanned: bool
    made_for: Text[str | None] = None  # the incident, as the report names it
    needed_intervention: bool
    rolled_back: Text[str | None] = None  # as reported: the id or key of another deployment
    clock_ahead: bool = Field(default=None, sa_column_kwargs={"server_default": "false"})
    # Derived from the other deployments of the service and environment.
    unchanged: bool = Field(default=None, sa_column_kwargs={"server_default": "false"})
    rolled_back_by: Text[str | None] = None
    # in aftermath_deployments_total and in aftermath_change_failures_total
    counted: bool = Field(default=None, sa_column_kwargs={"server_default": "false"})
    failure_counted: bool = Field(default=None, sa_column_kwargs={"server_default": "false"})
    first_seen_at: Timestamp[datetime]
    updated_at: Timestamp[datetime]


class DeploymentReport(Row, table=True):
    """One report about a deployment."""

    __tablename__ = "deployment_report"

    deployment_id: str = Field(sa_type=sa.Text, primary_key=True, foreign_key="deployment.id")
    digest: str = Field(sa_type=sa.Text, primary_key=True)  # of its content: equal content is the same report
    source_id: int = Field(foreign_key="source.id")
    received_at: Timestamp[datetime]
    report: Jsonb[dict[str, Any]]


class Change(Row, table=True):
    """A change that is not known to have deployed anything: a push, a merge, a setting, a run of Puppet."""

    __tablename__ = "change"
    __table_args__ = (
        Index("change_by_time", text("happened_at DESC"), text("id DESC")),
        Index("change_by_service", "service", text("happened_at DESC")),
    )

    id: str = Field(sa_type=sa.Text, primary_key=True)  # made of source and `reported_id`
    reported_id: Text[str]
    source: Text[str]  # its name
    service: Text[str]
    happened_at: Timestamp[datetime]
    summary: Text[str | None] = None
    environment: Text[str | None] = None
    version: Text[str | None] = None
    sha: Text[str | None] = None
    link: Text[str | None] = None
    clock_ahead: bool
    received_at: Timestamp[datetime]
