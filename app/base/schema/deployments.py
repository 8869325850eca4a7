"""Deployments and the reports that they are derived from."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field

from app.base.schema.columns import Jsonb, Row, Text, Timestamp


class Deployment(Row, table=True):
    """A release of a version, derived from all its stored reports, independent of their order."""

    __tablename__ = "deployment"
    __table_args__ = (
        CheckConstraint(
            "outcome IN ('pending', 'in_progress', 'succeeded', 'failed', 'canceled')",
            name="deployment_outcome_is_known",
        ),
        CheckConstraint(
            "(finished_at IS NOT NULL) = (outcome IN ('succeeded', 'failed', 'canceled'))",
            name="deployment_has_an_outcome_once_finished",
        ),
        CheckConstraint("finished_at >= started_at", name="deployment_ends_after_it_began"),
        Index("deployment_by_time", text("happened_at DESC"), text("id DESC")),
        Index("deployment_by_service", "service", text("happened_at DESC")),
    )

    id: str = Field(sa_type=sa.Text, primary_key=True)
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
