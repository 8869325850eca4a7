"""What can go wrong, in the words of the domain.

    Problem                 anything a client is told about; status, title and a stable `kind`
    ├── NotFound            404
    ├── Conflict            409  the state forbids it; the message says what is allowed
    ├── Invalid             422  well-formed, but not acceptable
    ├── NotThisKind         400  a body that is not JSON of the kind the door takes
    ├── TooLarge            413
    ├── Unsupported         415
    ├── Unauthorised        401
    ├── Forbidden           403
    ├── Stale               412  If-Match names another version
    ├── Overloaded          503  try again later; carries Retry-After
    └── Stopped             503  a part of this process has stopped; only a restart helps

Raised beside the rule that is broken, turned into `application/problem+json` at one seam (`http/problems.py`).
"""

from typing import ClassVar

RETRY_AFTER_SECONDS = 5


class Problem(Exception):
    """An answer other than success. `detail` is shown to the client: no secrets, no payloads."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "", *, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.headers = headers or {}

    @property
    def kind(self) -> str:
        """Stable name of the problem, the last part of its `type`: `AlreadyResolved` → `already-resolved`."""
        name = type(self).__name__
        return "".join("-" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


class NotFound(Problem):
    status, title = 404, "Not found"


class ServiceNotFound(NotFound):  # here, because several slices are asked about services
    title = "No such service"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no service {name!r}; it appears with its first alert, or with PUT")


class Conflict(Problem):
    status, title = 409, "Not possible in this state"


class Invalid(Problem):
    status, title = 422, "Not acceptable"


class NotThisKind(Problem):
    status, title = 400, "Not a body of this kind"


class TooLarge(Problem):
    status, title = 413, "Body too large"


class Unsupported(Problem):
    status, title = 415, "Unsupported encoding"


class Unauthorised(Problem):
    status, title = 401, "No valid token"


class Forbidden(Problem):
    status, title = 403, "Token does not allow this"


class Stale(Problem):
    status, title = 412, "Changed in the meantime"


class Overloaded(Problem):
    status, title = 503, "Try again later"

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


class Stopped(Problem):
    status, title = 503, "Restart this process"
