"""Full-text indexes over what people write: reviews, findings, action items and titles of incidents.

Revision 0024, after 0023
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# ASCII punctuation separates words. PostgreSQL's parser alone would see hosts, paths and versions as single words.
_FUNCTION = r"""
    CREATE OR REPLACE FUNCTION search_words(document text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN to_tsvector('pg_catalog.simple'::regconfig,
                       translate(document, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32)))
"""

_INDEXES = {
    "review_by_words": "review USING gin "
    "(search_words(title || ' ' || summary || ' ' || customer_impact || ' ' || resolution))",
    "finding_by_words": "finding USING gin (search_words(text || ' ' || coalesce(factor, '')))",
    "action_item_by_words": "action_item USING gin (search_words(title || ' ' || coalesce(done_when, '')))",
    "incident_by_words": "incident USING gin (search_words(coalesce(title_stated, title))) "
    "WHERE (title_stated IS NOT NULL OR declared) AND merged_into IS NULL",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.get_bind().exec_driver_sql(_FUNCTION)
        for name, definition in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # left invalid by an interrupted attempt
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in _INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute("DROP FUNCTION search_words(text)")
