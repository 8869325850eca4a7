"""Every error as `application/problem+json` (RFC 9457), decided in one place."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.base import db
from app.base.errors import Invalid, Overloaded, Problem
from app.base.http.fields import UNSTORABLE

log = logging.getLogger("aftermath.http")


class ProblemDocument(BaseModel):
    """RFC 9457."""

    type: str = Field(examples=["urn:aftermath:problem:not-found"])
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = Field(None, description="The errors, by field")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can return these problems. 401, 403, 422 and 503 are always included."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in sorted({401, 403, 422, 503, *statuses})
    }


def _answer(problem: Problem, errors: list[dict[str, Any]] | None = None) -> JSONResponse:
    document = {
        "type": f"urn:aftermath:problem:{problem.kind}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
    } | ({"errors": errors} if errors else {})
    return JSONResponse(document, problem.status, problem.headers, "application/problem+json")


def install_problems(app: FastAPI) -> None:
    """Registers the only handler that turns errors into responses."""

    async def on_error(request: Request, error: Exception) -> JSONResponse:
        return answer_to(error, request.method)

    for kind in (
        Problem,
        RequestValidationError,
        HTTPException,
        ClientDisconnect,
        SQLAlchemyError,
        OSError,
        TimeoutError,
    ):
        app.add_exception_handler(kind, on_error)


def answer_to(error: Exception, method: str) -> JSONResponse:
    """The response for an error. `method` is that of the request, for the log."""
    match error:
        case Problem():
            return _answer(error)
        case RequestValidationError():
            # `input` is left out: responses never repeat text from the client.
            errors = [{"at": "/".join(str(part) for part in e["loc"]), "why": e["msg"]} for e in error.errors()]
            return _answer(Invalid("; ".join(f"{e['at']}: {e['why']}" for e in errors[:3])), _clean(errors[:50]))
        case HTTPException():
            phrase = HTTPStatus(error.status_code).phrase
            document = {
                "type": "about:blank",
                "title": phrase,
                "status": error.status_code,
                "detail": str(error.detail),
            }
            return JSONResponse(document, error.status_code, error.headers, "application/problem+json")
        case ClientDisconnect():
            # The client has disconnected; this response only appears in the log.
            return _answer(Invalid("the connection closed before the body was complete"))
        case SQLAlchemyError() | OSError() | TimeoutError():
            if db.is_unreachable(error):
                log.warning("database unreachable: %s", type(error).__name__)
                return _answer(Overloaded("the database is unavailable; retry later"))
            log.error("unexpected database error on %s", method, exc_info=error)
        case _:
            log.error("unexpected error on %s", method, exc_info=error)
    return _answer(Problem("an unexpected error occurred; see the log of the service"))


def _clean(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON cannot hold unpaired surrogates, and a field name may come from the client."""
    return [{k: UNSTORABLE.sub("\ufffd", str(v))[:300] for k, v in error.items()} for error in errors]


def openapi_document(api: FastAPI) -> dict[str, Any]:
    """The OpenAPI document with the schema that `problem_responses` refers to.

    FastAPI adds the model of a response only under the media type of the route, which differs from that of problems.
    It caches the generated document and serves that object, so the schema is added in place.
    """
    document = api.openapi()
    document["components"]["schemas"]["ProblemDocument"] = ProblemDocument.model_json_schema()
    return document
