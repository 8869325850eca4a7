"""Reviews with their findings and action items, and the two times that end an incident's last phases.

Revision 0020, after 0018
"""

from alembic import op

revision = "0020"
down_revision = "0018"
branch_labels = None
depends_on = None

_CREATE = (
    "CREATE SEQUENCE review_number",
    "CREATE SEQUENCE action_item_number",
    """
    CREATE TABLE review (
        id uuid NOT NULL,
        number bigint DEFAULT nextval('review_number') NOT NULL,
        title text NOT NULL,
        state text NOT NULL,
        required_because text[] NOT NULL,
        drafted_for uuid,
        facilitator text,
        begins_at timestamptz,
        ends_at timestamptz,
        due_at timestamptz,
        scheduled_at timestamptz,
        held_at timestamptz,
        duration_seconds integer,
        published_at timestamptz,
        closed_at timestamptz,
        follow_up_at timestamptz,
        summary text NOT NULL,
        customer_impact text NOT NULL,
        resolution text NOT NULL,
        nothing_now_because text,
        dropped_because text,
        version integer NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CONSTRAINT review_pkey PRIMARY KEY (id),
        CONSTRAINT review_number_is_unique UNIQUE (number),
        CONSTRAINT review_is_drafted_once_per_incident UNIQUE (drafted_for),
        CONSTRAINT review_state_is_known
            CHECK (state IN ('draft', 'held', 'published', 'closed', 'dropped')),
        CONSTRAINT review_that_is_held_has_a_time
            CHECK ((state IN ('held', 'published', 'closed')) = (held_at IS NOT NULL)),
        CONSTRAINT review_that_is_published_has_a_time
            CHECK ((state IN ('published', 'closed')) = (published_at IS NOT NULL)),
        CONSTRAINT review_that_is_closed_has_a_time CHECK ((state = 'closed') = (closed_at IS NOT NULL)),
        CONSTRAINT review_is_dropped_for_a_reason
            CHECK ((state = 'dropped') = (dropped_because IS NOT NULL)),
        CONSTRAINT review_is_held_before_it_is_published CHECK (held_at <= published_at),
        CONSTRAINT review_is_published_before_it_is_closed CHECK (published_at <= closed_at),
        CONSTRAINT review_time_frame_has_both_ends CHECK ((begins_at IS NULL) = (ends_at IS NULL)),
        CONSTRAINT review_time_frame_is_up_to_30_days
            CHECK (begins_at < ends_at AND ends_at <= begins_at + interval '720 hours'),
        CONSTRAINT review_lasts_a_minute_to_a_day CHECK (duration_seconds BETWEEN 60 AND 86400),
        CONSTRAINT review_reasons_are_known
            CHECK (required_because <@ ARRAY['severity', 'budget', 'recurrence', 'type']),
        CONSTRAINT review_drafted_for_fkey
            FOREIGN KEY (drafted_for) REFERENCES incident (id) DEFERRABLE INITIALLY DEFERRED
    )
    """,
    "CREATE INDEX review_by_due_time ON review (due_at) WHERE state = 'draft'",
    """
    CREATE TABLE review_incident (
        review_id uuid NOT NULL,
        incident_id uuid NOT NULL,
        CONSTRAINT review_incident_pkey PRIMARY KEY (review_id, incident_id),
        CONSTRAINT review_incident_review_id_fkey
            FOREIGN KEY (review_id) REFERENCES review (id) ON DELETE CASCADE,
        CONSTRAINT review_incident_incident_id_fkey
            FOREIGN KEY (incident_id) REFERENCES incident (id) DEFERRABLE INITIALLY DEFERRED
    )
    """,
    "CREATE INDEX review_by_incident ON review_incident (incident_id)",
    """
    CREATE TABLE review_participant (
        review_id uuid NOT NULL,
        person text NOT NULL,
        part text NOT NULL,
        attended boolean,
        CONSTRAINT review_participant_pkey PRIMARY KEY (review_id, person),
        CONSTRAINT participant_part_is_known
            CHECK (part IN ('note_taker', 'first_responder', 'escalation', 'commander', 'communications',
                   'support', 'management', 'affected', 'curious')),
        CONSTRAINT review_participant_review_id_fkey
            FOREIGN KEY (review_id) REFERENCES review (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE factor (
        name text NOT NULL,
        element text NOT NULL,
        description text NOT NULL,
        replaced_by text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CONSTRAINT factor_pkey PRIMARY KEY (name),
        CONSTRAINT factor_element_is_known CHECK (element IN ('people', 'process', 'technology')),
        CONSTRAINT factor_does_not_replace_itself CHECK (replaced_by <> name),
        CONSTRAINT factor_replaced_by_fkey FOREIGN KEY (replaced_by) REFERENCES factor (name)
    )
    """,
    """
    CREATE TABLE finding (
        id uuid NOT NULL,
        review_id uuid NOT NULL,
        position integer NOT NULL,
        kind text NOT NULL,
        text text NOT NULL,
        phase text,
        element text,
        factor text,
        prompt text,
        timeline_id bigint,
        new_to smallint,
        by text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CONSTRAINT finding_pkey PRIMARY KEY (id),
        CONSTRAINT finding_kind_is_known
            CHECK (kind IN ('learning', 'factor', 'went_well', 'went_badly', 'luck', 'mitigator', 'risk',
                   'human_factor', 'gap', 'question', 'parked')),
        CONSTRAINT finding_phase_is_known
            CHECK (phase IN ('detection', 'response', 'remediation', 'analysis', 'readiness')),
        CONSTRAINT finding_element_is_known CHECK (element IN ('people', 'process', 'technology')),
        CONSTRAINT finding_of_a_factor_names_it CHECK ((kind = 'factor') = (factor IS NOT NULL)),
        CONSTRAINT finding_is_new_to_up_to_1000 CHECK (new_to BETWEEN 0 AND 1000),
        CONSTRAINT finding_review_id_fkey FOREIGN KEY (review_id) REFERENCES review (id) ON DELETE CASCADE,
        CONSTRAINT finding_factor_fkey FOREIGN KEY (factor) REFERENCES factor (name),
        CONSTRAINT finding_timeline_id_fkey
            FOREIGN KEY (timeline_id) REFERENCES timeline (id) ON DELETE SET NULL
    )
    """,
    "CREATE INDEX finding_by_factor ON finding (factor) WHERE factor IS NOT NULL",
    "CREATE INDEX finding_by_review ON finding (review_id, position)",
    """
    CREATE TABLE action_item (
        id uuid NOT NULL,
        number bigint DEFAULT nextval('action_item_number') NOT NULL,
        review_id uuid,
        incident_id uuid,
        finding_id uuid,
        title text NOT NULL,
        done_when text,
        phase text NOT NULL,
        term text NOT NULL,
        priority smallint,
        owner text,
        due_at timestamptz,
        state text NOT NULL,
        dropped_because text,
        link text,
        closed_at timestamptz,
        reopened integer DEFAULT 0 NOT NULL,
        effective text,
        effective_note text,
        version integer NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CONSTRAINT action_item_pkey PRIMARY KEY (id),
        CONSTRAINT action_item_number_is_unique UNIQUE (number),
        CONSTRAINT action_item_link_is_unique UNIQUE (link),
        CONSTRAINT action_item_has_an_origin CHECK (num_nonnulls(review_id, incident_id) > 0),
        CONSTRAINT action_item_of_a_finding_has_its_review
            CHECK (finding_id IS NULL OR review_id IS NOT NULL),
        CONSTRAINT action_item_phase_is_known
            CHECK (phase IN ('detection', 'response', 'remediation', 'analysis', 'readiness')),
        CONSTRAINT action_item_term_is_known CHECK (term IN ('short', 'long')),
        CONSTRAINT action_item_priority_is_1_to_3 CHECK (priority BETWEEN 1 AND 3),
        CONSTRAINT action_item_state_is_known CHECK (state IN ('open', 'in_progress', 'done', 'dropped')),
        CONSTRAINT action_item_that_is_closed_has_a_time
            CHECK ((state IN ('done', 'dropped')) = (closed_at IS NOT NULL)),
        CONSTRAINT action_item_is_dropped_for_a_reason
            CHECK ((state = 'dropped') = (dropped_because IS NOT NULL)),
        CONSTRAINT action_item_effect_is_known CHECK (effective IN ('yes', 'no', 'cannot_tell')),
        CONSTRAINT action_item_with_an_effect_is_done CHECK (effective IS NULL OR state = 'done'),
        CONSTRAINT action_item_review_id_fkey FOREIGN KEY (review_id) REFERENCES review (id),
        CONSTRAINT action_item_incident_id_fkey
            FOREIGN KEY (incident_id) REFERENCES incident (id) DEFERRABLE INITIALLY DEFERRED,
        CONSTRAINT action_item_finding_id_fkey
            FOREIGN KEY (finding_id) REFERENCES finding (id) ON DELETE SET NULL
    )
    """,
    "CREATE INDEX action_item_by_due_time ON action_item (due_at) WHERE closed_at IS NULL",
    "CREATE INDEX action_item_by_finding ON action_item (finding_id) WHERE finding_id IS NOT NULL",
    "CREATE INDEX action_item_by_incident ON action_item (incident_id) WHERE incident_id IS NOT NULL",
    "CREATE INDEX action_item_by_review ON action_item (review_id)",
)

# Contributing factors to begin with: name, element and description.
_FACTORS = (
    (
        "documentation hard to find",
        "process",
        "What is needed to act exists, but people could not find it when they needed it",
    ),
    ("no one knew who to call", "people", "The people present did not know who could help"),
    ("contact missing", "process", "The person was known, but not how to reach them"),
    ("access missing", "technology", "Someone who could have acted did not have the permission or account for it"),
    ("single person knew", "people", "Knowledge that the response depended on was with one person"),
    ("alert missing", "technology", "Nothing reported the failure"),
    ("alert too late", "technology", "An alert came, but long after the failure began"),
    ("alert noise", "technology", "The alert was one of many that needed no action"),
    ("detected by customers", "process", "Customers noticed before monitoring or the team did"),
    ("ownership unclear", "process", "It was not clear which team is responsible"),
    ("stakeholders not informed", "process", "People who needed to know learned of it late or by accident"),
    ("capacity", "technology", "Demand exceeded what the system could handle"),
    ("configuration change", "technology", "A change of configuration altered how the system behaves"),
    ("deployment", "technology", "A new version altered how the system behaves"),
    ("dependency failed", "technology", "A service or supplier that the system relies on failed"),
    ("expired certificate or credential", "technology", "Something was no longer valid, and nothing renewed it"),
    ("data growth", "technology", "Stored data grew beyond what the design expected"),
    ("resource leak", "technology", "Memory, connections, disk or processes were used and never released"),
    ("retry storm", "technology", "Retries added load to a system that was already failing"),
    ("missing timeout", "technology", "Something waited without a limit"),
    ("untested backup", "process", "A backup or failover had not been tried before it was needed"),
    ("manual step", "process", "A step done by hand was slow, forgotten or done differently"),
    ("time pressure", "people", "People had to choose between speed and thoroughness"),
    ("change not reviewed", "process", "No second person had looked at the change"),
)


def upgrade() -> None:
    op.execute("""
        ALTER TABLE incident
          ADD COLUMN reviewed_at timestamptz,
          ADD COLUMN ready_at timestamptz,
          ADD COLUMN review_planned boolean NOT NULL DEFAULT false
    """)
    for statement in _CREATE:
        op.execute(statement)
    for name, element, description in _FACTORS:
        op.execute(
            "INSERT INTO factor (name, element, description, created_at, updated_at) "  # noqa: S608  constants
            f"VALUES ('{name}', '{element}', '{description}', now(), now())"
        )


def downgrade() -> None:
    for table in ("action_item", "finding", "factor", "review_participant", "review_incident", "review"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP SEQUENCE action_item_number")
    op.execute("DROP SEQUENCE review_number")
    op.execute("""
        ALTER TABLE incident
         DROP COLUMN review_planned,
         DROP COLUMN ready_at,
         DROP COLUMN reviewed_at
    """)
