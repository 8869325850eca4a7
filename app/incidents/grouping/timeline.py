"""What an incident's timeline is made of."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec


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


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An entry that follows from alerts."""

    incident_id: UUID
    at: datetime
    kind: TimelineKind
    detail: Mapping[str, object] | None = None
