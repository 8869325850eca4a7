"""Bearer tokens and basic auth, and the scope a route requires."""

import base64
import binascii
from collections.abc import Callable
from functools import lru_cache
from inspect import isroutine
from typing import Annotated, Any, get_type_hints

from fastapi import Depends, Request
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPBasic, HTTPBasicCredentials, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException

from app.base.access.tokens import Bearer, Scope
from app.base.errors import Forbidden
from app.base.http.context import context_of

_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", description="A token created by `aftermath token create`.")
_basic = HTTPBasic(auto_error=False, scheme_name="basic", description="Any user name; the token is the password.")


def token_in(authorization: str) -> str | None:
    """The token of `Bearer …` or `GenieKey …` (as Opsgenie's clients send it), or the password of basic auth, in the
    value of the Authorization header.
    """
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer" | "geniekey":
            return value.strip() or None
        case "basic":
            try:
                decoded = base64.b64decode(value.strip(), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                return None
            return decoded.partition(":")[2] or None
    return None


def allow(wanted: Scope) -> Callable[..., Any]:
    """A dependency that admits tokens whose scope includes `wanted` and returns the bearer."""

    async def admitted(
        request: Request,
        _token: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        _password: Annotated[HTTPBasicCredentials | None, Depends(_quiet_basic)],
    ) -> Bearer:
        return await admit(request, wanted)

    return admitted


async def admit(request: Request, wanted: Scope) -> Bearer:
    """Raises Unauthorized or Forbidden."""
    bearer = await context_of(request).credentials.identify(
        token_in(request.headers.get("authorization", "")), request.scope.get("client")
    )
    if not bearer.scope.includes(wanted):
        message = f"this request requires a token with scope `{wanted}`; this token has scope `{bearer.scope}`"
        raise Forbidden(message)
    return bearer


async def _quiet_basic(request: Request) -> HTTPBasicCredentials | None:
    """Basic credentials if they are readable. FastAPI's class raises on malformed ones before we can respond."""
    try:
        return await _basic(request)
    except HTTPException:
        return None


# The scope beside the dependency is for `scope_required_by`.
Reader = Annotated[Bearer, Depends(allow(Scope.READ)), Scope.READ]
Writer = Annotated[Bearer, Depends(allow(Scope.WRITE)), Scope.WRITE]
Admin = Annotated[Bearer, Depends(allow(Scope.ADMIN)), Scope.ADMIN]


@lru_cache(maxsize=1024)
def scope_required_by(endpoint: Callable[..., Any]) -> Scope | None:
    """The scope of the token that the function of a route requires: of its `Reader`, `Writer` or `Admin`, or of those
    of its dependencies.
    """
    function = endpoint.__init__ if isinstance(endpoint, type) else endpoint  # type: ignore[misc]
    if not isroutine(function):
        return None
    for annotation in get_type_hints(function, include_extras=True).values():
        for each in getattr(annotation, "__metadata__", ()):
            if isinstance(each, Scope):
                return each
            if isinstance(each, Dependency) and (found := scope_required_by(each.dependency or annotation.__origin__)):
                return found
    return None
