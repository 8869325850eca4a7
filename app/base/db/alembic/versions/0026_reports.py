"""Public reports of reviews: their versions, and what is published of them.

Revision 0026, after 0025
"""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_TABLES = (
    """
        CREATE TABLE IF NOT EXISTS report_version (
            report_id uuid NOT NULL,
            version integer NOT NULL,
            review_id uuid NOT NULL,
            public_incident_id uuid NOT NULL,
            outline text NOT NULL,
            text jsonb NOT NULL,
            markdown text NOT NULL,
            page bytea NOT NULL,
            digest bytea NOT NULL,
            accepted jsonb NOT NULL,
            author text NOT NULL,
            author_token text NOT NULL,
            created_at timestamptz NOT NULL,
            approved_at timestamptz,
            approved_by text,
            approved_token text,
            approved_digest bytea,
            published_at timestamptz,
            published_by text,
            published_token text,
            withdrawn_at timestamptz,
            withdrawn_by text,
            withdrawn_token text,
            CONSTRAINT report_version_pkey PRIMARY KEY (report_id, version),
            CONSTRAINT report_of_a_review_is_one UNIQUE (review_id, version),
            CONSTRAINT report_is_published_as_approved UNIQUE (report_id, version, approved_digest),
            CONSTRAINT report_versions_begin_at_1 CHECK (version > 0),
            CONSTRAINT report_outline_is_known CHECK (outline IN ('full', 'short')),
            CONSTRAINT report_digest_is_that_of_its_page CHECK (digest = sha256(page)),
            CONSTRAINT report_is_approved_by_another_token CHECK (approved_token <> author_token),
            CONSTRAINT report_is_approved_as_it_is CHECK (approved_digest = digest),
            CONSTRAINT report_approval_is_whole
                CHECK (num_nulls(approved_at, approved_by, approved_token, approved_digest) IN (0, 4)),
            CONSTRAINT report_publication_is_whole
                CHECK (num_nulls(published_at, published_by, published_token) IN (0, 3)),
            CONSTRAINT report_publication_needs_approval CHECK (published_at IS NULL OR approved_at IS NOT NULL),
            CONSTRAINT report_is_published_after_its_approval CHECK (published_at >= approved_at),
            CONSTRAINT report_withdrawal_is_whole
                CHECK (num_nulls(withdrawn_at, withdrawn_by, withdrawn_token) IN (0, 3)),
            CONSTRAINT report_withdrawal_needs_publication CHECK (withdrawn_at IS NULL OR published_at IS NOT NULL),
            CONSTRAINT report_version_review_id_fkey FOREIGN KEY(review_id) REFERENCES review (id),
            CONSTRAINT report_version_public_incident_id_fkey FOREIGN KEY(public_incident_id)
                REFERENCES public_incident (id)
        )
    """,
    "CREATE INDEX IF NOT EXISTS report_version_by_incident ON report_version (public_incident_id)",
    """
        CREATE TABLE IF NOT EXISTS public_report (
            id uuid NOT NULL,
            version integer NOT NULL,
            public_incident_id uuid NOT NULL,
            title text,
            page bytea,
            digest bytea NOT NULL,
            published_at timestamptz NOT NULL,
            withdrawn_at timestamptz,
            CONSTRAINT public_report_pkey PRIMARY KEY (id),
            CONSTRAINT public_report_is_approved FOREIGN KEY(id, version, digest)
                REFERENCES report_version (report_id, version, approved_digest),
            CONSTRAINT public_report_digest_is_that_of_its_page CHECK (digest = sha256(page)),
            CONSTRAINT public_report_has_a_page_until_it_is_withdrawn
                CHECK (num_nonnulls(page, title) = CASE WHEN withdrawn_at IS NULL THEN 2 ELSE 0 END),
            CONSTRAINT public_report_public_incident_id_fkey FOREIGN KEY(public_incident_id)
                REFERENCES public_incident (id)
        )
    """,
    "CREATE INDEX IF NOT EXISTS public_report_by_incident ON public_report (public_incident_id)",
)


def upgrade() -> None:
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    for table in ("public_report", "report_version"):
        op.drop_table(table)
