"""The registry of senders. A new one is a file beside this, a line below and its fixture pairs."""

from collections.abc import Mapping
from types import MappingProxyType

from app.ingest.sender import Source
from app.ingest.senders import alertmanager, grafana

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        source.kind: source
        for source in (
            alertmanager.SOURCE,
            grafana.SOURCE,
        )
    }
)
