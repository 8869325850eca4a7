"""What a user of a generated client writes. Run with the Python that has the client: URL and token are arguments."""

import sys
from datetime import datetime

from aftermath_client import AuthenticatedClient
from aftermath_client.api.incidents import acknowledge_incident, list_incidents
from aftermath_client.api.metrics import get_comparison
from aftermath_client.models import (
    ActionInput,
    CompareResponse,
    GetComparisonMeasure,
    IncidentModel,
    PageOfListedIncidentModel,
)


def main(url: str, token: str) -> None:
    with AuthenticatedClient(base_url=url, token=token) as client:
        page = list_incidents.sync(client=client)
        assert isinstance(page, PageOfListedIncidentModel)
        [incident] = page.items
        acknowledged = acknowledge_incident.sync(incident.number, client=client, body=ActionInput(by="ada"))
        assert isinstance(acknowledged, IncidentModel)
        assert isinstance(acknowledged.acknowledged_at, datetime)
        print(acknowledged.number, acknowledged.status, "by", acknowledged.acknowledged_by)  # noqa: T201

        comparison = get_comparison.sync(client=client, measure=GetComparisonMeasure.TIME_TO_RECOVER, period="30d")
        assert isinstance(comparison, CompareResponse)
        print(f"{comparison.measure}: {comparison.verdict}")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
