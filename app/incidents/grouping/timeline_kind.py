"""The kinds of timeline entries. `app/incidents/history/timeline.py` reads and appends entries."""

from enum import StrEnum


class TimelineKind(StrEnum):
    """What happened to an incident; the values are used in the database and the API."""

    # derived from alerts; people also record `resolved` and `reopened`
    OPENED = "opened"
    REOPENED = "reopened"
    RESOLVED = "resolved"
    MERGED = "merged"
    SPLIT = "split"
    # recorded by people; what those from `joined` to `said` have in `detail` is in incidents/history/details.py
    DECLARED = "declared"
    ACKNOWLEDGED = "acknowledged"
    IDENTIFIED = "identified"
    MITIGATED = "mitigated"
    CHANGED = "changed"
    NOTE = "note"
    TASK = "task"  # what it did for the recovery is in `detail`
    JOINED = "joined"  # a person came to it
    ROLE = "role"  # a person took a role or laid it down
    UPDATE = "update"  # for stakeholders or responders
    CRITERION = "criterion"  # whether an exit criterion is met
    ROOM = "room"  # the channel in use
    IMPACT = "impact"  # on customers
    EVIDENCE = "evidence"
    SAID = "said"  # a message in a chat
    PUBLISHED = "published"  # an update on the status page
    CAUSE = "cause"  # the deployment that caused the incident, in `detail`
    RELATED = "related"  # to the incident in `detail`
    UNRELATED = "unrelated"
    WITHDRAWN = "withdrawn"  # the fact whose first entry is in `corrects`
    # done by people in other tools, as sources report it, besides `acknowledged` and `note`
    UNACKNOWLEDGED = "unacknowledged"  # the acknowledgement there was taken back or has expired
    CLOSED = "closed"  # resolved there by hand; when an incident ended, only its alerts show


# SQL: no later entry corrects or withdraws this entry of `timeline`.
IS_CURRENT = """
    NOT EXISTS (SELECT
                  FROM timeline AS later
                 WHERE later.corrects = coalesce(timeline.corrects, timeline.id)
                   AND later.id > timeline.id)
"""
