"""Signing in with a token, signing out, and choosing a time zone."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, Field

from app.base.access import web_sessions
from app.base.errors import Forbidden, Invalid, Unauthorized
from app.base.http.requests.fields import Input, Name, is_zone, storable
from app.pages.web.forms import parsed, read_form
from app.pages.web.frame import ZONE_COOKIE, Anyone, PageRequest, PageRoute, Refusal, see_other
from app.pages.web.session import (
    TooManyAttempts,
    cookie_name,
    delete_cookie,
    is_secure,
    local_address,
    require_same_origin,
    set_cookie,
    sign_in,
)

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ZONE_SECONDS = 365 * 86_400
LONGEST_PERSON = 80

Next = Annotated[str, Query(max_length=2000)]


class SignInForm(Input):
    """`zone` is filled in by the script of the page."""

    token: Name
    name: Annotated[str, Field(max_length=LONGEST_PERSON), AfterValidator(storable)] = ""
    zone: str = ""
    next: str = ""


@router.get("/login")
async def login(asked: Anyone, next: Next = "") -> Response:  # noqa: A002  the usual name of this parameter
    if asked.viewer is not None:
        return see_other(local_address(next))
    return _form(asked, next)


@router.post("/login")
async def submit(asked: Anyone) -> Response:
    require_same_origin(asked.request)
    form = await read_form(asked.request)
    try:
        entered = parsed(SignInForm, form | {"token": form.get("token", "").strip()})
        async with asked.session() as session:
            person = entered.name.strip() or None
            cookie = await sign_in(asked.request, session, entered.token, person, now=asked.now)
    except (Unauthorized, Forbidden, TooManyAttempts, Invalid) as problem:
        return _form(asked, form.get("next", ""), Refusal(problem, form))
    response = see_other(local_address(entered.next))
    set_cookie(asked.request, response, cookie)
    if is_zone(entered.zone):
        _set_zone(asked, response, entered.zone)
    return response


def _form(asked: PageRequest, address: str, refused: Refusal | None = None) -> Response:
    status = refused.status if refused else 200
    headers = refused.problem.headers if refused else {}
    headers = {name: value for name, value in headers.items() if name != "WWW-Authenticate"}  # no dialog of the browser
    return asked.page("sign_in.html", status=status, headers=headers, next=address, refused=refused)


@router.post("/logout")
async def logout(asked: Anyone) -> Response:
    require_same_origin(asked.request)
    response = see_other("/login")
    async with asked.session() as session:
        await web_sessions.close_session(session, asked.request.cookies.get(cookie_name(asked.request), ""))
    delete_cookie(asked.request, response)
    return response


@router.post("/zone")
async def choose_zone(asked: Anyone) -> Response:
    require_same_origin(asked.request)
    form = await read_form(asked.request)
    response = see_other(local_address(form.get("next", "")))
    zone = form.get("zone", "").strip().replace(" ", "_")
    if not is_zone(zone):
        raise Invalid("this is not the name of a time zone; use one such as Europe/Berlin or UTC")
    _set_zone(asked, response, zone)
    return response


def _set_zone(asked: PageRequest, response: Response, zone: str) -> None:
    secure = is_secure(asked.request)
    response.set_cookie(ZONE_COOKIE, zone, max_age=ZONE_SECONDS, path="/", secure=secure, httponly=True, samesite="lax")
