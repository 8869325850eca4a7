"""The response to an incident: its declaration; types, people and delegates, targets and playbooks.

Revision 0021, after 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_TABLES = (
    """
        CREATE TABLE IF NOT EXISTS incident_type (
            name text NOT NULL,
            position integer NOT NULL,
            matchers text[] NOT NULL,
            description text NOT NULL,
            exit_criteria text[] NOT NULL,
            roles text[] NOT NULL,
            channels jsonb NOT NULL,
            steps text[] NOT NULL,
            update_seconds integer,
            review text NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            CONSTRAINT incident_type_pkey PRIMARY KEY (name),
            CONSTRAINT type_has_an_exit CHECK (cardinality(exit_criteria) BETWEEN 1 AND 20),
            CONSTRAINT type_has_a_backup_channel
                CHECK (jsonb_typeof(channels) = 'array' AND jsonb_array_length(channels) BETWEEN 2 AND 6),
            CONSTRAINT type_backup_is_of_another_kind
                CHECK ((channels #>> '{0,kind}' <> channels #>> '{1,kind}') IS TRUE),
            CONSTRAINT type_updates_are_5min_to_a_day CHECK (update_seconds BETWEEN 300 AND 86400),
            CONSTRAINT type_review_is_known CHECK (review IN ('required', 'by_severity', 'never'))
        )
    """,
    """
        CREATE TABLE IF NOT EXISTS person (
            name text NOT NULL,
            email text,
            contacts jsonb NOT NULL,
            zone text NOT NULL,
            away jsonb NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            CONSTRAINT person_pkey PRIMARY KEY (name)
        )
    """,
    """
        CREATE TABLE IF NOT EXISTS delegate (
            role text NOT NULL,
            owner text NOT NULL,
            position smallint NOT NULL,
            person text NOT NULL,
            CONSTRAINT delegate_pkey PRIMARY KEY (role, owner, position),
            CONSTRAINT delegate_stands_once UNIQUE (role, owner, person),
            CONSTRAINT delegate_position_is_1_to_20 CHECK (position BETWEEN 1 AND 20),
            CONSTRAINT delegate_person_fkey FOREIGN KEY(person) REFERENCES person (name)
        )
    """,
    """
        CREATE TABLE IF NOT EXISTS target (
            service text NOT NULL,
            severity smallint NOT NULL,
            valid_from timestamptz NOT NULL,
            acknowledge_seconds integer,
            update_seconds integer,
            resolve_seconds integer,
            responders smallint,
            review_seconds integer,
            calendar text,
            CONSTRAINT target_pkey PRIMARY KEY (service, severity, valid_from),
            CONSTRAINT target_severity_is_sev1_to_sev5 CHECK (severity BETWEEN 1 AND 5),
            CONSTRAINT target_is_positive
                CHECK (least(acknowledge_seconds, update_seconds, resolve_seconds, responders, review_seconds) > 0),
            CONSTRAINT target_agrees_on_something
                CHECK (num_nonnulls(acknowledge_seconds, update_seconds, resolve_seconds, responders, review_seconds) > 0),
            CONSTRAINT target_calendar_fkey FOREIGN KEY(calendar) REFERENCES calendar (name)
        )
    """,
    """
        CREATE TABLE IF NOT EXISTS playbook (
            service text NOT NULL,
            name text NOT NULL,
            version integer NOT NULL,
            body text,
            link text,
            author text NOT NULL,
            author_token text NOT NULL,
            created_at timestamptz NOT NULL,
            verified_at timestamptz,
            verified_by text,
            verified_token text,
            verified_in uuid,
            approved_at timestamptz,
            approved_by text,
            approved_token text,
            expires_at timestamptz,
            withdrawn_at timestamptz,
            CONSTRAINT playbook_pkey PRIMARY KEY (service, name, version),
            CONSTRAINT playbook_versions_begin_at_1 CHECK (version > 0),
            CONSTRAINT playbook_has_a_body_or_a_link CHECK (num_nonnulls(body, link) > 0),
            CONSTRAINT playbook_is_verified_by_another_token CHECK (verified_token <> author_token),
            CONSTRAINT playbook_is_approved_by_another_token CHECK (approved_token <> author_token),
            CONSTRAINT playbook_is_approved_after_it_was_verified CHECK (approved_at >= verified_at),
            CONSTRAINT playbook_verification_is_whole
                CHECK (num_nulls(verified_at, verified_by, verified_token) IN (0, 3)),
            CONSTRAINT playbook_approval_is_whole
                CHECK (num_nulls(approved_at, approved_by, approved_token, expires_at) IN (0, 4)),
            CONSTRAINT playbook_approval_needs_verification CHECK (approved_at IS NULL OR verified_at IS NOT NULL),
            CONSTRAINT playbook_expires_after_its_approval CHECK (expires_at > approved_at),
            CONSTRAINT playbook_service_fkey FOREIGN KEY(service) REFERENCES service (name),
            CONSTRAINT playbook_verified_in_fkey FOREIGN KEY(verified_in)
                REFERENCES incident (id) DEFERRABLE INITIALLY DEFERRED
        )
    """,
)

# They apply until a team agrees on others; 1970-01-01 is the beginning of time.
_TARGETS = """
    INSERT INTO target (service, severity, valid_from, acknowledge_seconds, update_seconds, review_seconds)
    VALUES ('', 1, '1970-01-01T00:00:00Z', 300, 1800, 86400),
           ('', 2, '1970-01-01T00:00:00Z', 900, 1800, 172800),
           ('', 3, '1970-01-01T00:00:00Z', 3600, NULL, NULL)
        ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    # Can be repeated: if the last statement is interrupted, the columns are there already.
    op.execute("""
        ALTER TABLE incident
          ADD COLUMN IF NOT EXISTS type_stated text,
          ADD COLUMN IF NOT EXISTS expected_to_last_stated boolean,
          ADD COLUMN IF NOT EXISTS declared_at timestamptz
    """)
    for table in _TABLES:
        op.execute(table)
    op.execute(_TARGETS)
    # Only the incidents that people declared have such an entry.
    with op.get_context().autocommit_block():
        op.drop_index("timeline_of_response", "timeline", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            "timeline_of_response",
            "timeline",
            ["kind", "incident_id"],
            postgresql_where=sa.text("kind IN ('task', 'update')"),
            postgresql_concurrently=True,
        )
        op.execute("""
            UPDATE incident
               SET declared_at = declaration.at
              FROM (SELECT incident_id, min(at) AS at
                      FROM timeline
                     WHERE kind = 'declared'
                     GROUP BY incident_id) AS declaration
             WHERE incident.id = declaration.incident_id
               AND declaration.at >= coalesce(incident.detected_at_stated, incident.began_at)
        """)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("timeline_of_response", "timeline", postgresql_concurrently=True, if_exists=True)
    for table in ("playbook", "target", "delegate", "person", "incident_type"):
        op.drop_table(table)
    op.drop_column("incident", "declared_at")
    op.drop_column("incident", "expected_to_last_stated")
    op.drop_column("incident", "type_stated")
