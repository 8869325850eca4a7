"""The registry of senders. A new sender needs a file in this folder, a line below, and pairs of fixtures."""

from collections.abc import Mapping
from types import MappingProxyType

from app.ingest.sender import Sender
from app.ingest.senders import (
    alertmanager,
    alertmanager_api,
    deployments,
    github,
    gitlab,
    grafana,
    grafana_oncall,
    incident_io,
    jira,
    opsgenie,
    opsgenie_alerts,
    pagerduty,
    pagerduty_events,
    splunk_on_call,
)

SENDERS: Mapping[str, Sender] = MappingProxyType(
    {
        sender.kind: sender
        for sender in (
            alertmanager.SENDER,
            alertmanager_api.SENDER,
            deployments.SENDER,
            github.SENDER,
            gitlab.SENDER,
            grafana.SENDER,
            grafana_oncall.SENDER,
            incident_io.SENDER,
            jira.SENDER,
            opsgenie.SENDER,
            opsgenie_alerts.SENDER,
            pagerduty.SENDER,
            pagerduty_events.SENDER,
            splunk_on_call.SENDER,
        )
    }
)
