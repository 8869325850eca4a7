"""The status page: components, their measured days, public incidents and their updates; times nobody watched.

Revision 0025, after 0024
"""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_TABLES = (
    """
        CREATE TABLE IF NOT EXISTS component (
            name text NOT NULL,
            description text NOT NULL,
            section text,
            position integer NOT NULL,
            services text[] NOT NULL,
            automatic boolean NOT NULL,
            uptime text NOT NULL,
            since date NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            CONSTRAINT component_pkey PRIMARY KEY (name),
            CONSTRAINT component_uptime_is_known CHECK (uptime IN ('published', 'measured', 'hidden')),
            CONSTRAINT component_is_measured_by_services CHECK (uptime <> 'measured' OR services <> '{}')
        )
    """,
    """
        CREATE TABLE IF NOT EXISTS component_day (
            component text NOT NULL,
            day date NOT NULL,
            watched_seconds integer NOT NULL,
            down_seconds integer NOT NULL,
            CONSTRAINT component_day_pkey PRIMARY KEY (component, day),
            CONSTRAINT component_day_is_down_while_watched CHECK (down_seconds BETWEEN 0 AND watched_seconds),
            CONSTRAINT component_day_is_a_day CHECK (watched_seconds <= 86400),
            CONSTRAINT component_day_component_fkey FOREIGN KEY(component)
                REFERENCES component (name) ON DELETE CASCADE
        )
    """,
    """
        CREATE TABLE IF NOT EXISTS public_incident (
            id uuid NOT NULL,
            incident_id uuid,
            kind text NOT NULL,
            title text NOT NULL,
            begins_at timestamptz NOT NULL,
            begins_at_stated boolean NOT NULL,
            ends_at timestamptz,
            ends_at_stated boolean NOT NULL,
            scheduled_to timestamptz,
            automatic boolean NOT NULL,
            withdrawn_at timestamptz,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL,
            CONSTRAINT public_incident_pkey PRIMARY KEY (id),
            CONSTRAINT public_incident_kind_is_known CHECK (kind IN ('incident', 'maintenance')),
            CONSTRAINT public_incident_ends_after_it_began CHECK (ends_at >= begins_at),
            CONSTRAINT public_incident_only_maintenance_is_scheduled
                CHECK ((kind = 'maintenance') = (scheduled_to IS NOT NULL)),
            CONSTRAINT public_incident_schedule_is_ordered CHECK (scheduled_to > begins_at),
            CONSTRAINT public_incident_maintenance_has_no_incident CHECK (kind = 'incident' OR incident_id IS NULL),
            CONSTRAINT public_incident_incident_id_fkey FOREIGN KEY(incident_id)
                REFERENCES incident (id) DEFERRABLE INITIALLY DEFERRED
        )
    """,
    "CREATE INDEX IF NOT EXISTS public_incident_by_time ON public_incident (begins_at DESC, id DESC)",
    """
        CREATE INDEX IF NOT EXISTS public_incident_by_incident ON public_incident (incident_id)
            WHERE incident_id IS NOT NULL
    """,
    """
        CREATE TABLE IF NOT EXISTS public_update (
            id uuid NOT NULL,
            public_incident_id uuid NOT NULL,
            at timestamptz NOT NULL,
            status text NOT NULL,
            body text NOT NULL,
            components jsonb NOT NULL,
            by text,
            token text,
            recorded_at timestamptz NOT NULL,
            corrected_at timestamptz,
            earlier jsonb NOT NULL,
            entry bigint,
            CONSTRAINT public_update_pkey PRIMARY KEY (id),
            CONSTRAINT public_update_status_is_known CHECK (status IN
                ('investigating', 'identified', 'monitoring', 'resolved', 'scheduled', 'in_progress', 'completed')),
            CONSTRAINT public_update_public_incident_id_fkey FOREIGN KEY(public_incident_id)
                REFERENCES public_incident (id)
        )
    """,
    "CREATE INDEX IF NOT EXISTS public_update_by_incident ON public_update (public_incident_id, at)",
    """
        CREATE TABLE IF NOT EXISTS watch_gap (
            begins_at timestamptz NOT NULL,
            ends_at timestamptz NOT NULL,
            CONSTRAINT watch_gap_pkey PRIMARY KEY (begins_at),
            CONSTRAINT watch_gap_ends_after_it_began CHECK (ends_at > begins_at)
        )
    """,
)


def upgrade() -> None:
    op.execute("ALTER TABLE incident ADD COLUMN IF NOT EXISTS first_public_at timestamptz")
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    for table in ("watch_gap", "public_update", "public_incident", "component_day", "component"):
        op.drop_table(table)
    op.drop_column("incident", "first_public_at")
