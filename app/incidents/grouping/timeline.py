"""The kinds of timeline entries. `app/incidents/timeline.py` reads and appends entries."""

from enum import StrEnum


class TimelineKind(StrEnum):
    """What happened to an incident; the values are used in the database and the API."""

    # derived from alerts; people also record `resolved` and `reopened`
    OPENED = "opened"
    REOPENED = "reopened"
    RESOLVED = "resolved"
    MERGED = "merged"
    SPLIT = "split"
    # recorded by people
    DECLARED = "declared"
    ACKNOWLEDGED = "acknowledged"
    IDENTIFIED = "identified"
    MITIGATED = "mitigated"
    CHANGED = "changed"
    NOTE = "note"
    CAUSE = "cause"  # the deployment that caused the incident, in `detail`
