"""SQL that replaces the name of a person wherever it names them. What they did and when stays."""

from collections.abc import Mapping, Sequence

from sqlalchemy import TextClause, text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.incidents.grouping.decide import lock_keys
from app.incidents.grouping.write import count
from app.response.store.people import PersonNotFound

FORGOTTEN = "people_forgotten"  # a tally: how many, which numbers the next one

# Columns with the name of a person. The name within a text that someone wrote is not found.
_OF_REVIEWS_AND_PLAYBOOKS = {
    "review": ("facilitator",),
    "review_participant": ("person",),
    "finding": ("by",),
    "action_item": ("owner",),
    "issue": ("by",),
    "playbook": ("author", "verified_by", "approved_by"),
    "public_update": ("by",),
    "report_version": ("author", "approved_by", "published_by", "withdrawn_by"),
}
# Changed under the locks of grouping keys, which everyone takes after those of reviews.
_OF_INCIDENTS = {
    "reaction": ("by",),
    "acknowledgement": ("by",),
    "silence": ("by",),
    "timeline": ("by", "corrected_by"),
    "incident": ("acknowledged_by",),
}
NAMED = _OF_REVIEWS_AND_PLAYBOOKS | _OF_INCIDENTS


async def forget(session: AsyncSession, name: str) -> str:
    """Deletes the person with their contacts, and returns the name that replaces theirs. Raises PersonNotFound."""
    tx = await session.connection()
    await tx.execute(_ALONE)  # of two at once, each gets a number of its own
    other = f"someone-{1 + int((await tx.execute(_FORGOTTEN, {'tally': FORGOTTEN})).scalar_one())}"
    names = {"name": name, "other": other}
    changed = 0
    for statement in (*_GONE, *_renaming(_OF_REVIEWS_AND_PLAYBOOKS), _WITHIN_UPDATES, _WITHIN_ACCEPTED):
        changed += (await tx.execute(statement, names)).rowcount
    await lock_keys(tx, sorted((await tx.execute(_KEYS, {"name": name})).scalars()))
    for statement in (*_renaming(_OF_INCIDENTS), _WITHIN_ENTRIES):
        changed += (await tx.execute(statement, names)).rowcount
    if not changed:
        raise PersonNotFound
    await count(tx, [(FORGOTTEN, "", "", 1)])
    return other


# The person, what is agreed on about them, and their sessions.
_GONE = [
    text(f"DELETE FROM {table} WHERE {column} = :name")  # noqa: S608  constants
    for table, column in (("delegate", "person"), ("person", "name"), ("web_session", "person"))
]


def _renaming(columns: Mapping[str, Sequence[str]]) -> list[TextClause]:
    return [
        text(f"UPDATE {table} SET {column} = :other WHERE {column} = :name")  # noqa: S608  constants of this file
        for table, names in columns.items()
        for column in names
    ]


_ALONE = text("SELECT pg_advisory_xact_lock(hashtext('aftermath.forget'))")
_FORGOTTEN = text("SELECT coalesce(sum(value), 0) FROM tally WHERE name = :tally")
_KEYS = text("""
    SELECT DISTINCT incident.key_id
      FROM incident
      LEFT JOIN timeline ON timeline.incident_id = incident.id
     WHERE incident.acknowledged_by = :name
        OR timeline.by = :name
        OR timeline.corrected_by = :name
        OR timeline.detail ->> 'person' = :name
""")
_WITHIN_ENTRIES = text("""
    UPDATE timeline
       SET detail = jsonb_set(detail, '{person}', to_jsonb(CAST(:other AS text)))
     WHERE detail ->> 'person' = :name
""")
_WITHIN_UPDATES = text("""
    UPDATE public_update
       SET earlier = replace(earlier::text, to_jsonb(CAST(:name AS text))::text,
                             to_jsonb(CAST(:other AS text))::text)::jsonb
     WHERE strpos(earlier::text, to_jsonb(CAST(:name AS text))::text) > 0
""")
# Who accepted a warning of a public report.
_WITHIN_ACCEPTED = text("""
    UPDATE report_version
       SET accepted = (SELECT jsonb_agg(CASE WHEN one ->> 'by' = :name
                                             THEN jsonb_set(one, '{by}', to_jsonb(CAST(:other AS text)))
                                             ELSE one END
                                        ORDER BY place)
                         FROM jsonb_array_elements(accepted) WITH ORDINALITY AS each (one, place))
     WHERE accepted @> jsonb_build_array(jsonb_build_object('by', CAST(:name AS text)))
""")
