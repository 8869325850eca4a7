"""What the API says about a part of a request that is refused."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from app.base.http.messages import why
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
        (TypeAdapter(Target), "1.5", "must be text such as `0.999`: above 0 and below 1, with up to 9 decimal places"),
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
