"""Bearer tokens and basic auth, and the scope a route requires."""

import base64
import binascii
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.exceptions import HTTPException

from app.base.errors import Forbidden
from app.base.http.context import context_of
from app.base.tokens import Bearer, Scope

_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", description="A token created by `aftermath token create`.")
_basic = HTTPBasic(auto_error=False, scheme_name="basic", description="Any user name; the token is the password.")


def presented_token(request: Request) -> str | None:
    """The token of `Bearer …` or the password of basic auth."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
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
        bearer = await context_of(request).credentials.identify(presented_token(request))
        if not bearer.scope.includes(wanted):
            message = f"this request requires a token with scope `{wanted}`; this token has scope `{bearer.scope}`"
            raise Forbidden(message)
        return bearer

    return admitted


async def _quiet_basic(request: Request) -> HTTPBasicCredentials | None:
    """Basic credentials if they are readable. FastAPI's class raises on malformed ones before we can respond."""
    try:
        return await _basic(request)
    except HTTPException:
        return None


Reader = Annotated[Bearer, Depends(allow(Scope.READ))]
Writer = Annotated[Bearer, Depends(allow(Scope.WRITE))]
Admin = Annotated[Bearer, Depends(allow(Scope.ADMIN))]
