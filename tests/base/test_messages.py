"""What the API says about a part of a request that is refused: the part as the client sent it, and what to do."""

from typing import Annotated, Any, Literal

import httpx
import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from app.base.http.requests.messages import why
from app.catalog.objectives.api import Target
from app.ingest.health.api import ReconcilerSettings


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


PET: TypeAdapter[Cat | Dog] = TypeAdapter(Annotated[Cat | Dog, Field(discriminator="kind")])


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        (PET, {"kind": "fish"}, "`kind` must be one of `cat`, `dog`"),
        (PET, {}, "`kind` is required"),
        (
            TypeAdapter(Target),
            "1.5",
            "must be a string such as `0.999`: above 0 and below 1, with up to 9 decimal places",
        ),
        (
            TypeAdapter(ReconcilerSettings),
            {"peers": ["alertmanager"]},
            "must be a URL such as `https://example.com:9093/path`, without query and fragment",
        ),
    ],
)
def test_a_message_names_what_is_expected(type_: TypeAdapter[Any], value: object, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        type_.validate_python(value)
    assert [why(error) for error in refused.value.errors()] == [message]


OBJECTIVE, FACTS = "/api/v1/services/checkout/objective", "/api/v1/incidents/INC-1/facts"
SHAPES = "must have either `rolling_days` or `calendar`, and not both"


@pytest.mark.parametrize(
    ("window", "errors"),
    [
        ("30d", [("body/window", "must be an object")]),
        ({}, [("body/window", SHAPES)]),
        ({"rolling_days": 30, "calendar": "month"}, [("body/window", SHAPES)]),
        ({"rolling_days": "x"}, [("body/window/rolling_days", "must be a whole number")]),
        ({"calendar": "year"}, [("body/window/calendar", "must be `month` or `quarter`")]),
    ],
)
async def test_of_several_shapes_only_the_nearest_is_explained(
    client: httpx.AsyncClient, window: object, errors: list[tuple[str, str]]
) -> None:
    assert await errors_of(client, "PUT", OBJECTIVE, {"target": "0.999", "window": window}) == errors


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, ("body", "`kind` is required")),
        ({"kind": "joined"}, ("body/person", "is required")),
        ({"kind": "joined", "person": 1}, ("body/person", "must be a string")),
    ],
)
async def test_the_kind_of_a_fact_is_no_part_of_its_path(
    client: httpx.AsyncClient, body: dict[str, Any], error: tuple[str, str]
) -> None:
    await client.post("/api/v1/incidents", json={"title": "t", "service": "checkout"})
    assert error in await errors_of(client, "POST", FACTS, body)


async def test_a_wrong_name_in_an_object_is_named(client: httpx.AsyncClient) -> None:
    body = {"zone": "UTC", "hours": {"x": []}}
    [(at, why)] = await errors_of(client, "PUT", "/api/v1/calendars/office", body)
    assert (at, why.startswith("must be `monday`")) == ("body/hours/x", True)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/metrics/summary?horizon=-1", "query/horizon: must be above 0"),
        ("/metrics/summary?measure=x", "`measure` 'x' is not known; use one or several of"),
        ("/metrics/whatif?incidents=-5m", "`incidents` must be a change such as `-20%` or `+10%`"),
        ("/metrics/whatif?time_to_detect=x", "`time_to_detect` must be a change such as `-20%` or `-5m`"),
        ("/metrics/whatif?time_to_detect=-200%25", "`time_to_detect` must be between -100% and +1000%"),
        ("/incidents?label=x", "must have the form `name=value`"),
    ],
)
async def test_a_problem_names_its_parameter(client: httpx.AsyncClient, path: str, part: str) -> None:
    answer = await client.get(f"/api/v1{path}")
    assert (answer.status_code, part in answer.json()["detail"]) == (422, True), answer.text


async def errors_of(client: httpx.AsyncClient, method: str, path: str, body: object) -> list[tuple[str, str]]:
    answer = await client.request(method, path, json=body)
    assert answer.status_code == 422, answer.text
    return [(each["at"], each["why"]) for each in answer.json()["errors"]]
