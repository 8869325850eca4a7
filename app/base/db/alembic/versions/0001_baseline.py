"""The baseline: all tables by area, the partition for the past, and the rows that the service requires.

Revision 0001, the first.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # For exclusion constraints on uuid and text. A trusted extension, so the owner of the database may create it.
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
    _create_access()
    _create_catalog()
    _create_incidents()
    _create_ingest()
    _create_metrics()
    _create_deployments()
    _create_past()
    _add_rows()


def downgrade() -> None:
    op.drop_table("deployment_report")
    op.drop_table("deployment")
    op.drop_table("settled_cost")
    op.drop_table("settled_downtime")
    op.drop_table("settled_measure")
    op.drop_table("feed_watch")
    op.drop_table("peer")
    op.drop_table("reconciler")
    op.drop_table("heartbeat")
    op.drop_table("feed_sample")
    op.drop_table("tally")
    op.drop_table("quarantine")
    op.drop_table("stored_request")
    op.drop_table("delivery")
    op.drop_table("timeline")
    op.drop_table("acknowledgement")
    op.drop_table("unmatched_resolve")
    op.drop_table("alert")
    op.drop_table("incident")
    op.drop_table("calendar_hours")
    op.drop_table("calendar")
    op.drop_table("objective")
    op.drop_table("maintenance")
    op.drop_table("service_rate")
    op.drop_table("service")
    op.drop_table("rule_version")
    op.drop_table("rule")
    op.drop_table("token")
    op.drop_table("source")
    op.execute("DROP FUNCTION bump_rule_version")
    op.execute("DROP SEQUENCE incident_number")


def _create_access() -> None:
    op.create_table(
        "source",
        sa.Column("id", sa.Integer(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("hmac_secret", sa.Text()),
        sa.Column("hmac_header", sa.Text()),
        sa.Column("hmac_timestamp_header", sa.Text()),
        sa.Column("stale_seconds", sa.Integer()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("stale_seconds BETWEEN 300 AND 2592000", name="source_stale_is_5min_to_30d"),
        sa.PrimaryKeyConstraint("id", name=op.f("source_pkey")),
        sa.UniqueConstraint("name", name="source_name_is_unique"),
    )
    op.create_table(
        "token",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Integer()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("(scope = 'ingest') = (source_id IS NOT NULL)", name="token_of_a_door_names_its_source"),
        sa.CheckConstraint("scope IN ('ingest', 'read', 'write', 'admin')", name="token_scope_is_known"),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("token_source_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("token_pkey")),
    )


def _create_catalog() -> None:
    op.create_table(
        "rule",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("matchers", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("key_labels", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("window_seconds", sa.Integer(), nullable=False),
        sa.Column("max_span_seconds", sa.Integer(), nullable=False),
        sa.Column("ignored_labels", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("service_labels", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("severity_labels", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("severities", postgresql.JSONB(), nullable=False),
        sa.Column("heartbeat_seconds", sa.Integer()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("heartbeat_seconds BETWEEN 60 AND 604800", name="rule_heartbeat_is_60s_to_a_week"),
        sa.CheckConstraint(
            "heartbeat_seconds IS NULL OR cardinality(matchers) > 0", name="rule_of_a_heartbeat_has_matchers"
        ),
        sa.CheckConstraint("max_span_seconds >= window_seconds", name="rule_max_span_holds_a_window"),
        sa.CheckConstraint("window_seconds BETWEEN 60 AND 172800", name="rule_window_is_60s_to_48h"),
        sa.PrimaryKeyConstraint("name", name=op.f("rule_pkey")),
    )
    op.create_table(
        "rule_version",
        sa.Column("single", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("single", name="rule_version_is_one_row"),
        sa.PrimaryKeyConstraint("single", name=op.f("rule_version_pkey")),
    )
    # Before the statement, so that changes of rules are serialized by this row and never wait for each other's rules.
    op.execute(
        """
        CREATE FUNCTION bump_rule_version() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
        BEGIN
            UPDATE rule_version SET version = version + 1;
            RETURN NULL;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER rule_version BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON rule
           FOR EACH STATEMENT EXECUTE FUNCTION bump_rule_version()
        """
    )
    op.create_table(
        "service",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("links", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("service_pkey")),
    )
    op.create_table(
        "service_rate",
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("low", sa.Numeric(), nullable=False),
        sa.Column("expected", sa.Numeric(), nullable=False),
        sa.Column("high", sa.Numeric(), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="rate_currency_is_iso_4217"),
        sa.CheckConstraint("0 <= low AND low <= expected AND expected <= high", name="rate_range_is_ordered"),
        sa.ForeignKeyConstraint(["service"], ["service.name"], name=op.f("service_rate_service_fkey")),
        sa.PrimaryKeyConstraint("service", "currency", "valid_from", name=op.f("service_rate_pkey")),
    )
    op.create_table(
        "maintenance",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("services", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("begins_at", sa.DateTime(timezone=True)),
        sa.Column("ends_at", sa.DateTime(timezone=True)),
        sa.Column("weekdays", sa.ARRAY(sa.SmallInteger())),
        sa.Column("start_time", sa.Time()),
        sa.Column("duration_seconds", sa.Integer()),
        sa.Column("zone", sa.Text()),
        sa.Column("first_date", sa.Date()),
        sa.Column("last_date", sa.Date()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(begins_at IS NULL) <> (weekdays IS NULL)", name="maintenance_is_once_or_recurs"),
        sa.CheckConstraint("begins_at < ends_at", name="maintenance_ends_after_it_begins"),
        sa.CheckConstraint("duration_seconds BETWEEN 60 AND 604800", name="maintenance_lasts_a_minute_to_a_week"),
        sa.CheckConstraint("first_date <= last_date", name="maintenance_dates_are_ordered"),
        sa.CheckConstraint("num_nulls(begins_at, ends_at) IN (0, 2)", name="maintenance_once_has_both_ends"),
        sa.CheckConstraint(
            "num_nulls(weekdays, start_time, duration_seconds, zone, first_date) IN (0, 5)",
            name="maintenance_recurs_by_a_whole_rule",
        ),
        sa.CheckConstraint(
            "weekdays <@ ARRAY[0, 1, 2, 3, 4, 5, 6]::smallint[] AND cardinality(weekdays) > 0",
            name="maintenance_weekdays_are_some_of_seven",
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("maintenance_pkey")),
    )
    op.create_table(
        "objective",
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("target", sa.Numeric(), nullable=False),
        sa.Column("rolling_days", sa.Integer()),
        sa.Column("calendar", sa.Text()),
        sa.Column("weighted", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("calendar IN ('month', 'quarter')", name="objective_calendar_is_month_or_quarter"),
        sa.CheckConstraint(
            "(rolling_days IS NULL) <> (calendar IS NULL)", name="objective_window_is_rolling_or_calendar"
        ),
        sa.CheckConstraint("rolling_days BETWEEN 1 AND 366", name="objective_window_is_a_day_to_a_year"),
        sa.CheckConstraint("target > 0 AND target < 1", name="objective_leaves_a_budget"),
        sa.ForeignKeyConstraint(["service"], ["service.name"], name=op.f("objective_service_fkey")),
        sa.PrimaryKeyConstraint("service", name=op.f("objective_pkey")),
    )
    op.create_table(
        "calendar",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("holidays", sa.ARRAY(sa.Date()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("calendar_pkey")),
    )
    op.create_table(
        "calendar_hours",
        sa.Column("calendar", sa.Text(), nullable=False),
        sa.Column("weekday", sa.SmallInteger(), nullable=False),
        sa.Column("begins_minute", sa.SmallInteger(), nullable=False),
        sa.Column("ends_minute", sa.SmallInteger(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.literal_column("calendar"), "="),
            (sa.literal_column("weekday"), "="),
            (sa.text("int4range(begins_minute, ends_minute)"), "&&"),
            using="gist",
            name="calendar_hours_do_not_overlap",
        ),
        sa.CheckConstraint(
            "0 <= begins_minute AND begins_minute < ends_minute AND ends_minute <= 1440",
            name="calendar_hours_are_within_a_day",
        ),
        sa.CheckConstraint("weekday BETWEEN 0 AND 6", name="calendar_weekday_is_one_of_seven"),
        sa.ForeignKeyConstraint(
            ["calendar"], ["calendar.name"], name=op.f("calendar_hours_calendar_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("calendar", "weekday", "begins_minute", name=op.f("calendar_hours_pkey")),
    )


def _create_incidents() -> None:
    op.execute("CREATE SEQUENCE incident_number")
    op.create_table(
        "incident",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), server_default=sa.text("nextval('incident_number')"), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("severity", sa.SmallInteger(), nullable=False),
        sa.Column("alert_class", sa.Text(), nullable=False),
        sa.Column("labels", postgresql.JSONB(), nullable=False),
        sa.Column("source_ids", sa.ARRAY(sa.Integer()), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("first_ended_at", sa.DateTime(timezone=True)),
        sa.Column("last_end_at", sa.DateTime(timezone=True)),
        sa.Column("last_start_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stretch_began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reach_at", sa.DateTime(timezone=True)),
        sa.Column("reopened", sa.Integer(), nullable=False),
        sa.Column("alerts", sa.Integer(), nullable=False),
        sa.Column("open_alerts", sa.Integer(), nullable=False),
        sa.Column("end_reason", sa.Text()),
        sa.Column("still_firing", sa.Boolean(), nullable=False),
        sa.Column("merged_into", sa.Uuid()),
        sa.Column("settled_at", sa.DateTime(timezone=True)),
        sa.Column("declared", sa.Boolean(), nullable=False),
        sa.Column("impact_started_at_reported", sa.DateTime(timezone=True)),
        sa.Column("title_stated", sa.Text()),
        sa.Column("service_stated", sa.Text()),
        sa.Column("severity_stated", sa.SmallInteger()),
        sa.Column("impact_stated", sa.Numeric()),
        sa.Column("detected_at_stated", sa.DateTime(timezone=True)),
        sa.Column("impact_started_at_stated", sa.DateTime(timezone=True)),
        sa.Column(
            "impact_started_at",
            sa.DateTime(timezone=True),
            sa.Computed("coalesce(impact_started_at_stated, impact_started_at_reported)", persisted=True),
        ),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True)),
        sa.Column("acknowledged_by", sa.Text()),
        sa.Column("identified_at", sa.DateTime(timezone=True)),
        sa.Column("mitigated_at", sa.DateTime(timezone=True)),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.literal_column("key_id"), "="),
            (sa.text("tstzrange(began_at, ended_at)"), "&&"),
            where=sa.text("merged_into IS NULL"),
            deferrable=True,
            initially="DEFERRED",
            using="gist",
            name="incidents_of_a_key_never_overlap",
        ),
        sa.CheckConstraint("(ended_at IS NULL) = (open_alerts > 0)", name="incident_is_open_while_an_alert_is"),
        sa.CheckConstraint("ended_at >= began_at", name="incident_ends_after_it_began"),
        sa.CheckConstraint("impact_stated BETWEEN 0 AND 1", name="incident_impact_is_a_share"),
        sa.CheckConstraint("merged_into <> id", name="incident_is_not_merged_into_itself"),
        sa.CheckConstraint("severity BETWEEN 1 AND 5", name="incident_severity_is_sev1_to_sev5"),
        sa.CheckConstraint("severity_stated BETWEEN 1 AND 5", name="incident_stated_severity_is_sev1_to_sev5"),
        sa.ForeignKeyConstraint(
            ["merged_into"],
            ["incident.id"],
            name=op.f("incident_merged_into_fkey"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("incident_pkey")),
        sa.UniqueConstraint("number", name="incident_number_is_unique"),
        # Leave room for the next version of a row on the same page: joining alerts change no indexed column.
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("incident_by_end", "incident", ["ended_at"], postgresql_where=sa.text("merged_into IS NULL"))
    # NULLS LAST makes the order unique among the indexes: while the table is new, PostgreSQL could choose the wrong one.
    op.create_index(
        "incident_by_key",
        "incident",
        ["key_id", sa.literal_column("began_at DESC NULLS LAST")],
        postgresql_where=sa.text("merged_into IS NULL"),
    )
    op.create_index(
        "incident_by_service",
        "incident",
        [sa.literal_column("coalesce(service_stated, service)"), sa.literal_column("began_at DESC")],
        postgresql_where=sa.text("merged_into IS NULL"),
    )
    op.create_index(
        "incident_by_time",
        "incident",
        [sa.literal_column("began_at DESC"), sa.literal_column("number DESC")],
        postgresql_where=sa.text("merged_into IS NULL"),
    )
    op.create_index(
        "incident_detection_stated",
        "incident",
        ["detected_at_stated"],
        postgresql_where=sa.text("detected_at_stated IS NOT NULL AND merged_into IS NULL"),
    )
    op.create_index(
        "incident_open",
        "incident",
        ["began_at"],
        postgresql_where=sa.text("ended_at IS NULL AND merged_into IS NULL"),
    )
    op.create_index(
        "incident_unsettled",
        "incident",
        ["began_at"],
        postgresql_where=sa.text("settled_at IS NULL AND merged_into IS NULL"),
    )
    op.create_table(
        "alert",
        sa.Column("series", sa.Uuid(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("incident_id", sa.Uuid(), nullable=False),
        sa.Column("window_seconds", sa.Integer(), nullable=False),
        sa.Column("max_span_seconds", sa.Integer(), nullable=False),
        sa.Column("severity", sa.SmallInteger(), nullable=False),
        sa.Column("alert_class", sa.Text(), nullable=False),
        sa.Column("real_end_at", sa.DateTime(timezone=True)),
        sa.Column("real_end_reason", sa.Text()),
        sa.Column("real_end_guessed", sa.Boolean(), nullable=False),
        sa.Column("sender_ended", sa.Boolean(), nullable=False),
        sa.Column("manual_end_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("end_reason", sa.Text()),
        sa.Column("labels", postgresql.JSON(), nullable=False),
        sa.Column("annotations", postgresql.JSON(), nullable=False),
        sa.Column("link", sa.Text(), nullable=False),
        sa.Column("flags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("impact_started_at_reported", sa.DateTime(timezone=True)),
        sa.CheckConstraint("ended_at >= started_at", name="alert_ends_after_it_began"),
        sa.PrimaryKeyConstraint("series", "started_at", name=op.f("alert_pkey")),
        postgresql_partition_by="RANGE (started_at)",
    )
    op.create_index("alert_by_key", "alert", ["key_id", "started_at"])
    # The condition is on the text: an index on the JSON would make inserting an alert 50 % slower.
    op.create_index(
        "alert_naming_a_deployment",
        "alert",
        ["started_at", "incident_id"],
        postgresql_where=sa.text(
            "CAST(labels AS text) LIKE '%deployment_id%' OR CAST(annotations AS text) LIKE '%deployment_id%'"
        ),
    )
    op.create_table(
        "unmatched_resolve",
        sa.Column("series", sa.Uuid(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("series", "ended_at", name=op.f("unmatched_resolve_pkey")),
    )
    op.create_table(
        "acknowledgement",
        sa.Column("series", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("timeline_id", sa.BigInteger()),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("acknowledgement_source_id_fkey")),
        sa.PrimaryKeyConstraint("series", "at", "by", name=op.f("acknowledgement_pkey")),
    )
    op.create_index("acknowledgement_by_arrival", "acknowledgement", ["received_at"])
    op.create_index("acknowledgement_in_timeline", "acknowledgement", ["timeline_id"])
    op.create_table(
        "timeline",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("incident_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("by", sa.Text()),
        sa.Column("note", sa.Text()),
        sa.Column("detail", postgresql.JSONB()),
        sa.Column(
            "transaction_id",
            sa.BigInteger(),
            server_default=sa.text("pg_current_xact_id()::text::bigint"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["incident_id"],
            ["incident.id"],
            name=op.f("timeline_incident_id_fkey"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("timeline_pkey")),
    )
    op.create_index("timeline_by_incident", "timeline", ["incident_id", "at", "id"])
    op.create_index("timeline_in_order", "timeline", ["transaction_id", "id"])
    op.create_index("timeline_of_causes", "timeline", ["incident_id", "id"], postgresql_where=sa.text("kind = 'cause'"))


def _create_ingest() -> None:
    op.create_table(
        "delivery",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("signals", sa.Integer(), nullable=False),
        sa.Column("truncated", sa.Integer(), server_default="0", nullable=False),
        sa.Column("verdicts", postgresql.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", "received_at", name=op.f("delivery_pkey")),
        postgresql_partition_by="RANGE (received_at)",
    )
    op.create_table(
        "stored_request",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("headers", postgresql.JSONB(), nullable=False),
        sa.Column("query", postgresql.JSONB(), nullable=False),
        sa.Column("path", postgresql.JSONB(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("stored_request_pkey")),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("part_start", sa.Integer()),
        sa.Column("part_length", sa.Integer()),
        sa.Column("raw", sa.LargeBinary()),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("replayed_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "(part_start IS NULL) = (part_length IS NULL) AND (part_start IS NULL) = (raw IS NULL)",
            name="quarantine_is_a_part_or_all",
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["stored_request.delivery_id"],
            name=op.f("quarantine_delivery_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("quarantine_source_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("quarantine_pkey")),
    )
    op.create_index("quarantine_waiting", "quarantine", ["id"], postgresql_where=sa.text("replayed_at IS NULL"))
    op.create_table(
        "tally",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("name", "source", "label", "shard", name=op.f("tally_pkey")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "feed_sample",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tallies", postgresql.JSONB(), nullable=False),
        sa.Column("open_alerts", sa.Integer(), nullable=False),
        sa.Column("oldest_open_at", sa.DateTime(timezone=True)),
        sa.Column("unrefreshed", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("feed_sample_source_id_fkey")),
        sa.PrimaryKeyConstraint("source_id", "at", name=op.f("feed_sample_pkey")),
    )
    op.create_table(
        "heartbeat",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("labels", postgresql.JSONB(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("missing_since", sa.DateTime(timezone=True)),
        sa.Column("returned_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("returned_at >= missing_since", name="heartbeat_returns_after_it_was_missing"),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("heartbeat_source_id_fkey")),
        sa.PrimaryKeyConstraint("source_id", "fingerprint", name=op.f("heartbeat_pkey")),
    )
    op.create_table(
        "reconciler",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("peers", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("poll_seconds", sa.Integer(), nullable=False),
        sa.Column("absences", sa.Integer(), nullable=False),
        sa.Column("grace_seconds", sa.Integer(), nullable=False),
        sa.Column("receiver", sa.Text()),
        sa.Column("username", sa.Text()),
        sa.Column("secret", sa.Text()),
        sa.Column("began_at", sa.DateTime(timezone=True)),
        sa.Column("counted_at", sa.ARRAY(sa.DateTime(timezone=True)), nullable=False),
        sa.CheckConstraint("cardinality(counted_at) <= absences", name="reconciler_counts_what_it_takes"),
        sa.CheckConstraint("cardinality(peers) > 0", name="reconciler_has_peers"),
        sa.CheckConstraint("poll_seconds > 0 AND absences > 0 AND grace_seconds >= 0", name="reconciler_is_patient"),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("reconciler_source_id_fkey")),
        sa.PrimaryKeyConstraint("source_id", name=op.f("reconciler_pkey")),
    )
    op.create_table(
        "peer",
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("polled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
        sa.Column("error", sa.Text()),
        sa.Column("version", sa.Text()),
        sa.Column("cluster", sa.Text()),
        sa.Column("up_since", sa.DateTime(timezone=True)),
        sa.Column("alerts", sa.Integer()),
        sa.Column("suppressed", sa.Integer()),
        sa.Column("silences", sa.Integer()),
        sa.ForeignKeyConstraint(
            ["source_id"], ["reconciler.source_id"], name=op.f("peer_source_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("source_id", "url", name=op.f("peer_pkey")),
    )
    op.create_table(
        "feed_watch",
        sa.Column("single", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("round_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("listening_since", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("single", name="feed_watch_is_one_row"),
        sa.PrimaryKeyConstraint("single", name=op.f("feed_watch_pkey")),
    )


def _create_metrics() -> None:
    op.create_table(
        "settled_measure",
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("severity", sa.SmallInteger(), nullable=False),
        sa.Column("bucket", sa.SmallInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("measure", "service", "severity", "bucket", name=op.f("settled_measure_pkey")),
    )
    op.create_table(
        "settled_downtime",
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Numeric(), nullable=False),
        sa.PrimaryKeyConstraint("service", name=op.f("settled_downtime_pkey")),
    )
    op.create_table(
        "settled_cost",
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(), nullable=False),
        sa.PrimaryKeyConstraint("service", "currency", name=op.f("settled_cost_pkey")),
    )


def _create_deployments() -> None:
    op.create_table(
        "deployment",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("production", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Text()),
        sa.Column("sha", sa.Text()),
        sa.Column("link", sa.Text()),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("happened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("commits", postgresql.JSONB(), nullable=False),
        sa.Column("unplanned", sa.Boolean(), nullable=False),
        sa.Column("made_for", sa.Text()),
        sa.Column("needed_intervention", sa.Boolean(), nullable=False),
        sa.Column("counted", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("failure_counted", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (outcome IN ('succeeded', 'failed', 'canceled'))",
            name="deployment_has_an_outcome_once_finished",
        ),
        sa.CheckConstraint(
            "outcome IN ('pending', 'in_progress', 'succeeded', 'failed', 'canceled')",
            name="deployment_outcome_is_known",
        ),
        sa.CheckConstraint("finished_at >= started_at", name="deployment_ends_after_it_began"),
        sa.PrimaryKeyConstraint("id", name=op.f("deployment_pkey")),
    )
    op.create_index(
        "deployment_by_service", "deployment", ["service", sa.literal_column("happened_at DESC")], unique=False
    )
    op.create_index(
        "deployment_by_time",
        "deployment",
        [sa.literal_column("happened_at DESC"), sa.literal_column("id DESC")],
    )
    op.create_table(
        "deployment_report",
        sa.Column("deployment_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("report", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["deployment.id"], name=op.f("deployment_report_deployment_id_fkey")
        ),
        sa.ForeignKeyConstraint(["source_id"], ["source.id"], name=op.f("deployment_report_source_id_fkey")),
        sa.PrimaryKeyConstraint("deployment_id", "digest", name=op.f("deployment_report_pkey")),
    )


def _create_past() -> None:
    """Alerts and deliveries are partitioned by month; the service creates future months and drops old ones.

    The partition of the past holds everything up to the end of this month (of next month on a month's last day, so that
    a clock that is ahead finds a partition too).
    """
    # Fill factor: room for the next version of a row on the same page. Deliveries are never updated.
    for table, storage in (("alert", "WITH (fillfactor = 85)"), ("delivery", "")):
        op.execute(f"CREATE TABLE {table}_past (LIKE {table} INCLUDING ALL) {storage}")
        op.execute(
            f"""
            DO $$
            BEGIN
                EXECUTE format(
                    'ALTER TABLE {table} ATTACH PARTITION {table}_past FOR VALUES FROM (MINVALUE) TO (%L)',
                    date_trunc('month', now() + interval '1 day', 'UTC') + interval '1 month');
            END
            $$
            """
        )


def _add_rows() -> None:
    op.execute("INSERT INTO rule_version DEFAULT VALUES")
    # Alerts that a person declares or keeps open belong to this source.
    op.execute(
        "INSERT INTO source (id, name, kind, created_at) OVERRIDING SYSTEM VALUE VALUES (0, 'people', 'person', now())"
    )
    # The default rule applies to every alert that no other rule matches. Prometheus' own heartbeat is repeated at the
    # sender's repeat_interval, four hours by default; Aftermath's (deploy/prometheus, deploy/alertmanager) every five
    # minutes. Heartbeat rules are tried before all other rules.
    op.execute(
        """
        INSERT INTO rule (name, position, matchers, key_labels, window_seconds, max_span_seconds, ignored_labels,
                          service_labels, severity_labels, severities, heartbeat_seconds, created_at, updated_at)
        SELECT name, position, matchers, '{service,environment}', 300, 86400, '{}',
               '{service,app,app_kubernetes_io_name,job,rulename,alertname}', '{severity,priority,level}', '{}',
               heartbeat_seconds, now(), now()
          FROM (VALUES ('default', 2147483647, CAST('{}' AS text[]), NULL),
                       ('watchdog', 0, ARRAY['alertname="Watchdog"'], 5 * 3600),
                       ('aftermath-heartbeat', 0, ARRAY['alertname="AftermathHeartbeat"'], 900)
               ) AS initial (name, position, matchers, heartbeat_seconds)
        """
    )
