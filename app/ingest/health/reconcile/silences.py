"""Silences of Alertmanager: which ones suppressed alerts that are stored here, and so are evidence of their incidents.

Pure. A silence shows that someone knew of an alert. It is not an acknowledgement: it may be older than the alert, or
have been made for another one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from uuid import UUID

from app.ingest.health.reconcile.compare import Episode, PeerState, StoredAlert, episode_of

KEPT_AT_MOST = 1_000  # of one poll


@dataclass(frozen=True, slots=True)
class SilenceOfKey:
    """A silence that suppressed an alert with this grouping key."""

    id: str
    key_id: UUID
    by: str
    comment: str
    matchers: str
    starts_at: datetime
    ends_at: datetime


def silences_of_keys(states: Iterable[PeerState], stored: Mapping[Episode, StoredAlert]) -> list[SilenceOfKey]:
    """Each silence once for each key of the alerts that it suppressed, in order."""
    found: dict[tuple[str, UUID], SilenceOfKey] = {}
    for state in states:
        for one in state.listed:
            episode = episode_of(one.signal) if one.silenced_by else None
            alert = stored.get(episode) if episode else None
            if alert is None:
                continue
            for id_ in one.silenced_by:
                if silence := state.silenced_with.get(id_):
                    found[id_, alert.key_id] = SilenceOfKey(
                        id_,
                        alert.key_id,
                        silence.by,
                        silence.comment,
                        silence.matchers,
                        silence.starts_at,
                        silence.ends_at,
                    )
    return [found[place] for place in islice(sorted(found), KEPT_AT_MOST)]
