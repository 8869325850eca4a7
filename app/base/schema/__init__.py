"""The whole schema at a glance. Rules that can be constraints are constraints, named as the rule.

Times are `timestamptz`; ids that leave the service are uuid or `INC-n`; money is `numeric`. Migrations live in
`app/base/db/alembic/`; `alembic check` finds no difference to this file.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Sequence,
    SmallInteger,
    Table,
    Text,
    Time,
    UniqueConstraint,
    Uuid,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB, ExcludeConstraint

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


def _at(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


# One monitoring system that may send. Id 0 is `people`: what a person declares or holds open is an alert of it.
source = Table(
    "source",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("hmac_secret", Text),
    Column("hmac_header", Text),
    Column("hmac_timestamp_header", Text),
    Column("stale_seconds", Integer),  # alerts that it has not told of for longer have ended; null: they stay open
    _at("created_at", nullable=False),
    UniqueConstraint("name", name="source_name_is_unique"),
    CheckConstraint("stale_seconds BETWEEN 300 AND 2592000", name="source_stale_is_5min_to_30d"),
)

token = Table(
    "token",
    metadata,
    Column("id", Text, primary_key=True),  # public part, first in the token itself
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # SHA-256 of the whole token, which holds 256 random bits
    Column("scope", Text, nullable=False),
    Column("source_id", Integer, ForeignKey("source.id")),
    _at("created_at", nullable=False),
    _at("revoked_at"),
    CheckConstraint("scope IN ('ingest', 'read', 'write', 'admin')", name="token_scope_is_known"),
    CheckConstraint("(scope = 'ingest') = (source_id IS NOT NULL)", name="token_of_a_door_names_its_source"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("source_id", Integer, nullable=False),
    Column("received_at", DateTime(timezone=True), primary_key=True),
    Column("signals", Integer, nullable=False),
    Column("truncated", Integer, nullable=False, server_default="0"),
    Column("verdicts", JSON, nullable=False),
    postgresql_partition_by="RANGE (received_at)",  # by months, see incidents/partitions.py
)

rule = Table(
    "rule",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", Integer, nullable=False),  # lower is asked first; ties by name
    Column("matchers", ARRAY(Text), nullable=False),
    Column("key_labels", ARRAY(Text), nullable=False),
    Column("window_seconds", Integer, nullable=False),
    Column("max_span_seconds", Integer, nullable=False),
    Column("ignored_labels", ARRAY(Text), nullable=False),
    Column("service_labels", ARRAY(Text), nullable=False),
    Column("severity_labels", ARRAY(Text), nullable=False),
    Column("severities", JSONB, nullable=False),  # label value → sev1…sev5, before the defaults
    Column("heartbeat_seconds", Integer),  # what it matches is a dead man's switch; null: alerts as usual
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
    CheckConstraint("window_seconds BETWEEN 60 AND 172800", name="rule_window_is_60s_to_48h"),
    CheckConstraint("max_span_seconds >= window_seconds", name="rule_max_span_holds_a_window"),
    CheckConstraint("heartbeat_seconds BETWEEN 60 AND 604800", name="rule_heartbeat_is_60s_to_a_week"),
    CheckConstraint("heartbeat_seconds IS NULL OR cardinality(matchers) > 0", name="rule_of_a_heartbeat_has_matchers"),
)

service = Table(
    "service",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text),
    Column("links", JSONB, nullable=False, server_default="[]"),
    _at("first_seen_at", nullable=False),
    _at("updated_at", nullable=False),
)

service_rate = Table(
    "service_rate",
    metadata,
    Column("service", Text, ForeignKey("service.name"), primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("valid_from", DateTime(timezone=True), primary_key=True),
    Column("low", Numeric, nullable=False),
    Column("expected", Numeric, nullable=False),
    Column("high", Numeric, nullable=False),
    CheckConstraint("currency ~ '^[A-Z]{3}$'", name="rate_currency_is_iso_4217"),
    CheckConstraint("0 <= low AND low <= expected AND expected <= high", name="rate_range_is_ordered"),
)

incident_number = Sequence("incident_number", metadata=metadata)


# The first block of columns is derived from the alerts by the law and nothing else; the second is what people said.
# What the API shows (`detected_at`, `status`, …) is put together from both in `incidents/measures.py`.
incident = Table(
    "incident",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("number", BigInteger, nullable=False, server_default=incident_number.next_value()),
    Column("key_id", Uuid, nullable=False),
    Column("key", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("severity", SmallInteger, nullable=False),  # 1…5, the worst of its alerts
    Column("alert_class", Text, nullable=False),
    Column("labels", JSONB, nullable=False),  # what all its alerts have in common
    Column("source_ids", ARRAY(Integer), nullable=False),
    _at("began_at", nullable=False),
    _at("ended_at"),  # null while an alert is open
    _at("first_ended_at"),  # first moment at which none of its alerts was open
    _at("last_end_at"),  # latest end among the alerts that have ended
    _at("last_start_at", nullable=False),
    _at("island_at", nullable=False),  # when the last stretch without recovery began
    _at("reach_at"),  # latest end plus window among the alerts that have ended
    Column("reopened", Integer, nullable=False),
    Column("alerts", Integer, nullable=False),  # of senders, without those of `people`
    Column("open_alerts", Integer, nullable=False),
    Column("end_reason", Text),  # of the alert that ended last, even while another is open
    Column("still_firing", Boolean, nullable=False),
    Column("merged_into", Uuid, ForeignKey("incident.id", deferrable=True, initially="DEFERRED")),
    _at("settled_at"),
    Column("declared", Boolean, nullable=False),
    _at("impact_told_at"),  # the earliest that an alert's annotation `for` tells
    # people's facts
    Column("title_stated", Text),
    Column("service_stated", Text),
    Column("severity_stated", SmallInteger),
    Column("impact_stated", Numeric),
    _at("detected_at_stated"),
    _at("impact_started_at_stated"),
    Column(
        "impact_started_at",
        DateTime(timezone=True),
        Computed("coalesce(impact_started_at_stated, impact_told_at)", persisted=True),
    ),
    _at("acknowledged_at"),
    Column("acknowledged_by", Text),
    _at("identified_at"),
    _at("mitigated_at"),
    Column("version", Integer, nullable=False),  # the ETag
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
    UniqueConstraint("number", name="incident_number_is_unique"),
    CheckConstraint("severity BETWEEN 1 AND 5", name="incident_severity_is_sev1_to_sev5"),
    CheckConstraint("severity_stated BETWEEN 1 AND 5", name="incident_stated_severity_is_sev1_to_sev5"),
    CheckConstraint("impact_stated BETWEEN 0 AND 1", name="incident_impact_is_a_share"),
    CheckConstraint("ended_at >= began_at", name="incident_ends_after_it_began"),
    CheckConstraint("(ended_at IS NULL) = (open_alerts > 0)", name="incident_is_open_while_an_alert_is"),
    CheckConstraint("merged_into <> id", name="incident_is_not_merged_into_itself"),
    ExcludeConstraint(
        (literal_column("key_id"), "="),
        (func.tstzrange(literal_column("began_at"), literal_column("ended_at")), "&&"),
        where=text("merged_into IS NULL"),
        name="incidents_of_a_key_never_overlap",
        deferrable=True,
        initially="DEFERRED",
    ),
    # NULLS LAST so that no other index gives this order: while the table is new, PostgreSQL cannot tell them apart.
    Index("incident_by_key", "key_id", text("began_at DESC NULLS LAST"), postgresql_where=text("merged_into IS NULL")),
    Index("incident_by_time", text("began_at DESC"), text("number DESC"), postgresql_where=text("merged_into IS NULL")),
    Index(
        "incident_by_service",
        text("coalesce(service_stated, service)"),
        text("began_at DESC"),
        postgresql_where=text("merged_into IS NULL"),
    ),
    Index("incident_by_end", "ended_at", postgresql_where=text("merged_into IS NULL")),
    Index(
        "incident_detection_stated",
        "detected_at_stated",
        postgresql_where=text("detected_at_stated IS NOT NULL AND merged_into IS NULL"),
    ),
    Index("incident_open", "began_at", postgresql_where=text("ended_at IS NULL AND merged_into IS NULL")),
    Index(
        "incident_unsettled",
        "began_at",
        postgresql_where=text("settled_at IS NULL AND merged_into IS NULL"),
    ),
    # Room for the next version of a row beside it: alerts that join change no indexed column.
    postgresql_with={"fillfactor": "70"},
)

# One episode of a series. `real_end_at` is the latest end a sender gave for it; `ended_at` is what the law makes of it.
alert = Table(
    "alert",
    metadata,
    Column("series", Uuid, primary_key=True),  # digest of source and fingerprint
    Column("started_at", DateTime(timezone=True), primary_key=True),
    Column("source_id", Integer, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("key_id", Uuid, nullable=False),
    Column("incident_id", Uuid, nullable=False),
    Column("window_seconds", Integer, nullable=False),
    Column("max_span_seconds", Integer, nullable=False),
    Column("severity", SmallInteger, nullable=False),
    Column("alert_class", Text, nullable=False),
    _at("real_end_at"),
    Column("real_end_reason", Text),
    Column("real_end_guessed", Boolean, nullable=False),  # the sender gave none: it is the time of arrival
    Column("sender_ended", Boolean, nullable=False),  # by whatever way; a person may have ended it before
    _at("manual_end_at"),
    _at("ended_at"),
    Column("end_reason", Text),
    Column("labels", JSON, nullable=False),
    Column("annotations", JSON, nullable=False),
    Column("link", Text, nullable=False),
    Column("flags", ARRAY(Text), nullable=False),
    Column("repeats", Integer, nullable=False, server_default="0"),  # of the version before; goes with the next
    _at("first_seen_at", nullable=False),
    _at("last_seen_at", nullable=False),  # to the minute
    _at("impact_told_at"),  # `started_at` less the annotation `for`
    CheckConstraint("ended_at >= started_at", name="alert_ends_after_it_began"),
    Index("alert_by_key", "key_id", "started_at"),
    # Few do. By their text: an index by what is in the JSON makes inserting an alert half as slow again, this one not.
    Index(
        "alert_naming_a_deployment",
        "started_at",
        "incident_id",
        postgresql_where=text(
            "CAST(labels AS text) LIKE '%deployment_id%' OR CAST(annotations AS text) LIKE '%deployment_id%'"
        ),
    ),
    postgresql_partition_by="RANGE (started_at)",  # by months, see incidents/partitions.py
)

# A resolve that names no start: it ends the newest alert that began at or before it, and waits if there is none.
loose_end = Table(
    "loose_end",
    metadata,
    Column("series", Uuid, primary_key=True),
    Column("ended_at", DateTime(timezone=True), primary_key=True),
    Column("end_reason", Text, nullable=False),
)

# Everything that happened to an incident; append-only but for `incident_id`, which follows merges and splits.
timeline = Table(
    "timeline",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("incident_id", Uuid, ForeignKey("incident.id", deferrable=True, initially="DEFERRED"), nullable=False),
    _at("at", nullable=False),  # when it happened
    _at("recorded_at", nullable=False),  # when it was told
    Column("kind", Text, nullable=False),
    Column("by", Text),
    Column("note", Text),
    Column("detail", JSONB),
    Index("timeline_by_incident", "incident_id", "at", "id"),
    # Which deployment a person says it was: few, and asked for over many incidents.
    Index("timeline_of_causes", "incident_id", "id", postgresql_where=text("kind = 'cause'")),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source_id", Integer, ForeignKey("source.id"), nullable=False),
    Column("delivery_id", Uuid, nullable=False),
    _at("received_at", nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    _at("replayed_at"),
    Index("quarantine_waiting", "id", postgresql_where=text("replayed_at IS NULL")),
)

# Monotone counts of the feed, in shards so that connections do not wait for one another; the sum over shards counts.
tally = Table(
    "tally",
    metadata,
    Column("name", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("shard", SmallInteger, primary_key=True),
    Column("value", Float(53), nullable=False),
    postgresql_with={"fillfactor": "50"},
)

# What the tallies of a source were at some time, for a day: rates are differences. And what was open then.
feed_sample = Table(
    "feed_sample",
    metadata,
    Column("source_id", Integer, ForeignKey("source.id"), primary_key=True),
    Column("at", DateTime(timezone=True), primary_key=True),
    Column("tallies", JSONB, nullable=False),  # [[name, label, value], …]
    Column("open_alerts", Integer, nullable=False),
    _at("oldest_open_at"),
    Column("unrefreshed", Integer, nullable=False),  # open, and not told of for a day
)

# A dead man's switch: an alert that is told again and again. `returned_at`: first beat after it was declared missing.
heartbeat = Table(
    "heartbeat",
    metadata,
    Column("source_id", Integer, ForeignKey("source.id"), primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("rule", Text, nullable=False),
    Column("labels", JSONB, nullable=False),
    _at("first_at", nullable=False),
    _at("last_at", nullable=False),
    _at("missing_since"),
    _at("returned_at"),
    CheckConstraint("returned_at >= missing_since", name="heartbeat_returns_after_it_was_missing"),
)

# Where the Alertmanagers of a source are asked what they list. `began_at` claims a poll; `counted_at` are the latest
# polls in which an absence meant something, as many as it takes.
reconciler = Table(
    "reconciler",
    metadata,
    Column("source_id", Integer, ForeignKey("source.id"), primary_key=True),
    Column("peers", ARRAY(Text), nullable=False),
    Column("poll_seconds", Integer, nullable=False),
    Column("absences", Integer, nullable=False),
    Column("grace_seconds", Integer, nullable=False),
    Column("receiver", Text),  # only its alerts are opened; null: all
    Column("username", Text),  # of basic auth, with the secret as its password; null: the secret is a bearer token
    Column("secret", Text),
    _at("began_at"),
    Column("counted_at", ARRAY(DateTime(timezone=True)), nullable=False),
    CheckConstraint("cardinality(peers) > 0", name="reconciler_has_peers"),
    CheckConstraint("poll_seconds > 0 AND absences > 0 AND grace_seconds >= 0", name="reconciler_is_patient"),
    CheckConstraint("cardinality(counted_at) <= absences", name="reconciler_counts_what_it_takes"),
)

# What each said last.
peer = Table(
    "peer",
    metadata,
    Column("source_id", Integer, ForeignKey("reconciler.source_id", ondelete="CASCADE"), primary_key=True),
    Column("url", Text, primary_key=True),
    _at("polled_at", nullable=False),
    _at("answered_at"),
    Column("error", Text),  # why it did not answer the last time
    Column("version", Text),
    Column("cluster", Text),
    _at("up_since"),
    Column("alerts", Integer),
    Column("suppressed", Integer),  # silenced or inhibited: there, but not told of
    Column("silences", Integer),
)

# One row: since when somebody has been there for deliveries to reach. What did not come before was not missing.
feed_watch = Table(
    "feed_watch",
    metadata,
    Column("single", Boolean, primary_key=True, server_default="true"),
    _at("round_at", nullable=False),
    _at("listening_since", nullable=False),
    CheckConstraint("single", name="feed_watch_is_one_row"),
)

# What /metrics says of settled incidents: added to once per incident, never lowered.
settled_measure = Table(
    "settled_measure",
    metadata,
    Column("measure", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("severity", SmallInteger, primary_key=True),
    Column("bucket", SmallInteger, primary_key=True),  # index of the histogram's bound; not cumulative
    Column("count", BigInteger, nullable=False),
    Column("seconds", Float(53), nullable=False),
)

settled_downtime = Table(
    "settled_downtime",
    metadata,
    Column("service", Text, primary_key=True),
    Column("seconds", Numeric, nullable=False),
)

settled_cost = Table(
    "settled_cost",
    metadata,
    Column("service", Text, primary_key=True),
    Column("currency", Text, primary_key=True),
    Column("amount", Numeric, nullable=False),
)

# Planned work: what fails then is neither downtime nor cost. Either once, or on weekdays at a local time of a zone.
maintenance = Table(
    "maintenance",
    metadata,
    Column("name", Text, primary_key=True),
    Column("services", ARRAY(Text), nullable=False),  # empty: all
    Column("reason", Text, nullable=False),
    _at("begins_at"),
    _at("ends_at"),
    Column("weekdays", ARRAY(SmallInteger)),  # 0 is Monday
    Column("start_time", Time),
    Column("duration_seconds", Integer),
    Column("zone", Text),
    Column("first_date", Date),
    Column("last_date", Date),  # null: until further notice
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
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

# How available a service is to be, and over which time.
objective = Table(
    "objective",
    metadata,
    Column("service", Text, ForeignKey("service.name"), primary_key=True),
    Column("target", Numeric, nullable=False),
    Column("rolling_days", Integer),
    Column("calendar", Text),
    Column("weighted", Boolean, nullable=False),
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
    CheckConstraint("target > 0 AND target < 1", name="objective_leaves_a_budget"),
    CheckConstraint("(rolling_days IS NULL) <> (calendar IS NULL)", name="objective_window_is_rolling_or_calendar"),
    CheckConstraint("rolling_days BETWEEN 1 AND 366", name="objective_window_is_a_day_to_a_year"),
    CheckConstraint("calendar IN ('month', 'quarter')", name="objective_calendar_is_month_or_quarter"),
)

# When people are at work: a clock that durations may be measured by, beside the one that always runs.
calendar = Table(
    "calendar",
    metadata,
    Column("name", Text, primary_key=True),
    Column("zone", Text, nullable=False),
    Column("holidays", ARRAY(Date), nullable=False),
    _at("created_at", nullable=False),
    _at("updated_at", nullable=False),
)

calendar_hours = Table(
    "calendar_hours",
    metadata,
    Column("calendar", Text, ForeignKey("calendar.name", ondelete="CASCADE"), primary_key=True),
    Column("weekday", SmallInteger, primary_key=True),  # 0 is Monday
    Column("begins_minute", SmallInteger, primary_key=True),  # after midnight, as the wall clock shows
    Column("ends_minute", SmallInteger, nullable=False),
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

# What was put before users and when: what its reports, which are kept, amount to together, in whatever order they came.
deployment = Table(
    "deployment",
    metadata,
    Column("id", Text, primary_key=True),
    Column("service", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("production", Boolean, nullable=False),
    Column("version", Text),
    Column("sha", Text),
    Column("link", Text),
    Column("outcome", Text, nullable=False),
    _at("started_at"),
    _at("finished_at"),
    _at("happened_at", nullable=False),  # finished_at, else started_at, else when it was first told
    Column("commits", JSONB, nullable=False),
    Column("unplanned", Boolean, nullable=False),
    Column("made_for", Text),  # the incident, as told
    Column("needed_intervention", Boolean, nullable=False),
    Column("counted", Boolean, nullable=False, server_default="false"),  # in aftermath_deployments_total
    Column("failure_counted", Boolean, nullable=False, server_default="false"),  # in aftermath_change_failures_total
    _at("first_seen_at", nullable=False),
    _at("updated_at", nullable=False),
    CheckConstraint(
        "outcome IN ('pending', 'in_progress', 'succeeded', 'failed', 'cancelled')", name="deployment_outcome_is_known"
    ),
    CheckConstraint(
        "(finished_at IS NOT NULL) = (outcome IN ('succeeded', 'failed', 'cancelled'))",
        name="deployment_has_an_outcome_once_finished",
    ),
    CheckConstraint("finished_at >= started_at", name="deployment_ends_after_it_began"),
    Index("deployment_by_time", text("happened_at DESC"), text("id DESC")),
    Index("deployment_by_service", "service", text("happened_at DESC")),
)

deployment_report = Table(
    "deployment_report",
    metadata,
    Column("deployment_id", Text, ForeignKey("deployment.id"), primary_key=True),
    Column("digest", Text, primary_key=True),  # of what it says: the same said again is the same report
    Column("source_id", Integer, ForeignKey("source.id"), nullable=False),
    _at("received_at", nullable=False),
    Column("report", JSONB, nullable=False),
)
