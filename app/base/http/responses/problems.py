"""Every error as `application/problem+json` (RFC 9457), decided in one place."""

import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.base import db
from app.base.errors import Invalid, Overloaded, Problem
from app.base.http.requests.fields import UNSTORABLE
from app.base.http.requests.known import known_to, suggestion
from app.base.http.requests.messages import places, why

log = logging.getLogger("aftermath.http")

PROBLEM_TYPE = "application/problem+json"
ERRORS_AT_MOST = 50  # of one request that are listed
ERRORS_IN_DETAIL = 3


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["urn:aftermath:problem:not-found"])
    title: str
    status: int
    detail: str
    instance: str | None = Field(
        None,
        description="Identifies an unexpected error in the log of the service",
        examples=["urn:aftermath:error:5f2c81d09a7e"],
    )
    errors: list[dict[str, Any]] | None = Field(None, description="The errors, by field")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can return these problems. 401, 403, 422 and 503 are always included."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in sorted({401, 403, 422, 503, *statuses})
    }


@dataclass(frozen=True, slots=True)
class Document:
    """An error as a client sees it. `members` are those of the problem document, in their order."""

    status: int
    headers: Mapping[str, str]
    members: Mapping[str, Any]

    @property
    def title(self) -> str:
        return str(self.members["title"])

    @property
    def detail(self) -> str:
        return str(self.members["detail"])


def _document(problem: Problem, **more: Any) -> Document:
    members = {
        "type": f"urn:aftermath:problem:{problem.kind}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        **more,
    }
    return Document(problem.status, problem.headers, members)


def install_problems(app: FastAPI) -> None:
    """Registers the only handler that turns errors into responses."""

    async def on_error(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, RequestValidationError):
            error = _invalid_request(error, request.scope.get("route"))
        return answer_to(error, request.method)

    for kind in (
        Problem,
        RequestValidationError,
        HTTPException,
        ClientDisconnect,
        SQLAlchemyError,
        OSError,
        TimeoutError,
        Exception,  # Starlette raises it again after the response
    ):
        app.add_exception_handler(kind, on_error)


def answer_to(error: Exception, method: str) -> JSONResponse:
    """The response for an error. `method` is that of the request, for the log."""
    found = document_of(error, method)
    return JSONResponse(dict(found.members), found.status, found.headers, PROBLEM_TYPE)


def document_of(error: Exception, method: str) -> Document:
    """The response to an error. Logs an unexpected one. `method` is that of the request, for the log."""
    match error:
        case Problem():
            return _document(error, **({"errors": _clean(error.errors)} if error.errors else {}))
        case RequestValidationError():
            return document_of(_invalid_request(error), method)
        case HTTPException():
            phrase = HTTPStatus(error.status_code).phrase
            document = {
                "type": "about:blank",
                "title": phrase,
                "status": error.status_code,
                "detail": _not_allowed(error) if error.status_code == 405 else str(error.detail),
            }
            return Document(error.status_code, error.headers or {}, document)
        case ClientDisconnect():
            # The client has disconnected; this response only appears in the log.
            return _document(Invalid("the connection closed before the body was complete"))
        case SQLAlchemyError() | OSError() | TimeoutError():
            if found := _why_retry(error):
                log.warning("%s: %s", found, db.state_of(error) or type(error).__name__)
                return _document(Overloaded(f"{found}; retry later"))
    error_id = secrets.token_hex(6)
    log.error("unexpected error %s on %s", error_id, method, exc_info=error)
    return _document(
        Problem(f"an unexpected error occurred; the log of the service describes error {error_id}"),
        instance=f"urn:aftermath:error:{error_id}",
    )


def invalid(errors: Iterable[Mapping[str, str]]) -> Invalid:
    """The problem for errors in parts of a request: `at` names the part, `why` is what is wrong with it."""
    cleaned = _clean(errors)
    problem = Invalid("; ".join(f"{one['at']}: {one['why']}" for one in cleaned[:ERRORS_IN_DETAIL]))
    problem.errors = cleaned
    return problem


def _invalid_request(error: RequestValidationError, route: object = None) -> Invalid:
    """Shows only the names of fields: responses never repeat values from the client."""
    found = [
        (place, why(one) + _meant(one, route)) for one, place in places(error.errors()[:ERRORS_AT_MOST], error.body)
    ]
    return invalid({"at": place, "why": words} for place, words in dict.fromkeys(found))


def _meant(error: Mapping[str, Any], route: object) -> str:
    """After an unknown field: the known one."""
    if error["type"] != "extra_forbidden" or not isinstance(route, APIRoute):
        return ""
    _, *place, name = error["loc"]
    return f"; {suggestion(str(name), known_to(route).fields_at(place), of='this object')}"


def _not_allowed(error: HTTPException) -> str:
    allowed = (error.headers or {}).get("Allow")
    return f"this path supports only {allowed}" if allowed else str(error.detail)


def _why_retry(error: Exception) -> str | None:
    if db.is_unreachable(error):
        return "the database is unavailable"
    if db.is_contended(error):
        return "another request was changing the same data, and nothing was changed; try again"
    return None


def _clean(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """JSON cannot hold unpaired surrogates, and a field name may come from the client."""
    return [{k: UNSTORABLE.sub("\ufffd", str(v))[:600] for k, v in error.items()} for error in errors]
