"""Field types shared by requests."""

from uuid import UUID

import pytest
from pydantic import TypeAdapter, ValidationError

from app.base.http.requests.fields import IncidentRef

REF: TypeAdapter[UUID | int] = TypeAdapter(IncidentRef)


def test_an_incident_is_named_by_its_number_or_its_id() -> None:
    id_ = UUID("0191f0c8-5d6e-7aaa-8bbb-0123456789ab")
    assert REF.validate_python("INC-17") == REF.validate_python("inc-17") == 17
    assert REF.validate_python(str(id_).upper()) == id_


@pytest.mark.parametrize(
    "text", ["", "17", "INC-0", "INC-01", "ind-1", "INC-1234567890123456789", "INC-\u0661", "INC-1\n", "0191f0c85d6e"]
)
def test_other_identifiers_are_no_incident(text: str) -> None:
    with pytest.raises(ValidationError, match="its number such as `INC-1`"):
        REF.validate_python(text)
