"""Internal words that the check of a public report looks for."""

from collections.abc import Collection

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.schema import Review
from app.reviews.public_report.leaks import SHORTEST_LABEL, InternalWords
from app.reviews.store import reviews

NAMES_AT_MOST = 20_000  # of each kind
ALERTS_AT_MOST = 5000  # the newest whose labels are looked at


async def known_words(
    session: AsyncSession, review: Review, *, components: Collection[str], site: str
) -> InternalWords:
    """People and teams, services and sources of the whole service, and the labels of the incidents of the review.

    A fixed number of statements.
    """
    incidents = (await reviews.incidents_of(session, [review.id])).get(review.id, ())
    ids, keys = [one.id for one in incidents], [one.key_id for one in incidents]
    tx = await session.connection()
    people = set((await tx.execute(_PEOPLE, {"review": review.id, "incidents": ids})).scalars())
    services = set((await tx.execute(_SERVICES)).scalars())
    sources = set((await tx.execute(_SOURCES)).scalars())
    labels = set((await tx.execute(_LABELS, {"incidents": ids, "keys": keys, "shortest": SHORTEST_LABEL})).scalars())
    public = set((await tx.execute(_COMPONENTS)).scalars()) | set(components)
    return InternalWords(people, services, sources, labels - services, public, site)


_PEOPLE = text(f"""
    SELECT DISTINCT name
      FROM (
            SELECT name FROM person
             UNION ALL
            SELECT owner FROM service
             UNION ALL
            SELECT facilitator FROM review WHERE id = :review
             UNION ALL
            SELECT person FROM review_participant WHERE review_id = :review
             UNION ALL
            SELECT by FROM finding WHERE review_id = :review
             UNION ALL
            SELECT owner FROM action_item WHERE review_id = :review
             UNION ALL
            SELECT unnest(ARRAY[by, detail ->> 'person', detail ->> 'author'])
              FROM timeline
             WHERE incident_id = ANY(CAST(:incidents AS uuid[]))
             UNION ALL
            SELECT by FROM public_update WHERE by IS NOT NULL
           ) AS known (name)
     WHERE name IS NOT NULL
     LIMIT {NAMES_AT_MOST}
""")  # noqa: S608  the limit is a constant

_SERVICES = text(f"SELECT name FROM service LIMIT {NAMES_AT_MOST}")  # noqa: S608
_SOURCES = text(f"SELECT name FROM source WHERE kind <> 'person' LIMIT {NAMES_AT_MOST}")  # noqa: S608
_COMPONENTS = text("SELECT name FROM component")

_LABELS = text(f"""
    SELECT DISTINCT label.value
      FROM (
            SELECT labels
              FROM alert
             WHERE key_id = ANY(CAST(:keys AS uuid[]))
               AND incident_id = ANY(CAST(:incidents AS uuid[]))
             ORDER BY started_at DESC
             LIMIT {ALERTS_AT_MOST}
           ) AS known
     CROSS JOIN json_each_text(known.labels) AS label
     WHERE length(label.value) >= :shortest
     LIMIT {NAMES_AT_MOST}
""")  # noqa: S608
