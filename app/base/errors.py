"""Errors in the terms of the domain.

    Problem                 any error reported to a client; has a status, a title and a stable `kind`
    ├── NotFound            404
    ├── Conflict            409  not allowed in the current state; the message explains what is
    ├── Invalid             422  well-formed, but not acceptable
    ├── UnrecognizedBody    400  the body is not JSON of the kind that the endpoint accepts
    ├── TooLarge            413
    ├── UnsupportedMediaType 415
    ├── Unauthorized        401
    ├── Forbidden           403
    ├── PreconditionFailed  412  If-Match names another version
    ├── Overloaded          503  try again later; carries Retry-After
    └── Stopped             503  a part of this process has stopped; restart it

They are raised where a rule is broken, and become `application/problem+json` in one place
(`http/responses/problems.py`).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

RETRY_AFTER_SECONDS = 5


class Problem(Exception):
    """An error response. `detail` is shown to the client, so it must not contain secrets or payloads."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "", *, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.headers = headers or {}
        self.errors: Sequence[Mapping[str, str]] = ()  # several at once: `at` where, and `why`

    @property
    def kind(self) -> str:
        """Stable name of the problem, the last part of its `type`: `AlreadyResolved` → `already-resolved`."""
        name = type(self).__name__
        return "".join("-" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


class NotFound(Problem):
    status, title = 404, "Not found"


class ServiceNotFound(NotFound):  # here, because several slices raise it
    title = "Service not found"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no service {name!r}; create it with PUT /api/v1/services/{{name}}")


class Conflict(Problem):
    status, title = 409, "Not allowed in the current state"


class Invalid(Problem):
    status, title = 422, "Invalid request"


class UnrecognizedBody(Problem):
    status, title = 400, "Unrecognized body"


class TooLarge(Problem):
    status, title = 413, "Body too large"


class UnsupportedMediaType(Problem):
    status, title = 415, "Unsupported encoding"


class Unauthorized(Problem):
    status, title = 401, "Not authenticated"


class Forbidden(Problem):
    status, title = 403, "Token does not allow this"


class PreconditionFailed(Problem):
    status, title = 412, "Changed in the meantime"


class Overloaded(Problem):
    status, title = 503, "Try again later"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


class Stopped(Problem):
    status, title = 503, "Restart this process"
