"""The kinds of entries in an incident's timeline."""

from enum import StrEnum


class TimelineKind(StrEnum):
    """What happened to an incident. The same word in the row, the API and the queries that look for it."""

    # derived from alerts; `resolved` and `reopened` also when a person does it
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
