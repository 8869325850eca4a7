"""The registry of senders. A new sender needs a file in this folder, a line below, and pairs of fixtures."""

from collections.abc import Mapping
from types import MappingProxyType

from app.ingest.sender import Sender
from app.ingest.senders import alertmanager, deployments, github, gitlab, grafana, pagerduty_change

SENDERS: Mapping[str, Sender] = MappingProxyType(
    {
        sender.kind: sender
        for sender in (
            alertmanager.SENDER,
            deployments.SENDER,
            github.SENDER,
            gitlab.SENDER,
            grafana.SENDER,
            pagerduty_change.SENDER,
        )
    }
)
