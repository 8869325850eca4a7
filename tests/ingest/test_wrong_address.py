"""A body that arrives at the endpoint of another sender is answered with the right address."""

import httpx
import pytest

from app.ingest.senders import SENDERS
from tests.conftest import ADMIN_TOKEN

RECOGNIZING = [kind for kind, sender in SENDERS.items() if sender.recognizes is not None]


@pytest.mark.parametrize("kind", RECOGNIZING)
def test_each_sender_recognizes_its_own_example_only(kind: str) -> None:
    recognizes = SENDERS[kind].recognizes
    assert recognizes is not None
    objects = {other: dict(sender.example) for other, sender in SENDERS.items() if not isinstance(sender.example, list)}
    assert [other for other, example in objects.items() if recognizes(example)] == [kind]


@pytest.mark.parametrize("kind", SENDERS)
async def test_a_body_of_another_sender_is_answered_with_the_right_address(
    client: httpx.AsyncClient, kind: str
) -> None:
    """In the form of the API that is imitated. Endpoints that reports of deployments share quarantine it instead."""
    sender = SENDERS[kind]
    address = sender.endpoints[0].path.replace("{token}", ADMIN_TOKEN)
    refused = 0
    for other in RECOGNIZING:
        if other == kind:
            continue
        answer = await client.post(address, json=dict(SENDERS[other].example))
        assert answer.status_code in {200, 400, 422}, (other, answer.text)
        if answer.status_code == 400:
            refused += 1
            assert f"post to {SENDERS[other].endpoints[0].path}." in answer.text, (other, answer.text)
            if isinstance(sender.example, list):
                assert isinstance(answer.json(), str)
            else:
                assert "message" in answer.json() if sender.refuse else "detail" in answer.json()
    assert refused > 3 or sender.recognizes is None


@pytest.mark.parametrize("kind", ["alertmanager", "grafana", "opsgenie", "splunk-on-call"])
async def test_a_list_of_alerts_is_answered_with_the_address_for_lists(client: httpx.AsyncClient, kind: str) -> None:
    address = SENDERS[kind].endpoints[0].path.replace("{token}", ADMIN_TOKEN)
    answer = await client.post(address, json=SENDERS["alertmanager-api"].example)
    assert answer.status_code == 400
    assert "post to /api/v2/alerts." in answer.text
