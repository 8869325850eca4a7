"""Strict queries: a parameter that a route does not take, or takes only once, is refused and named, because a typo
would otherwise silently give the numbers of something else.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from app.base.errors import Invalid
from app.base.http.access.auth import admit, scope_required_by
from app.base.http.requests.known import NAME_AT_MOST, known_to, suggestion
from app.base.http.responses.chosen import CHOSEN
from app.base.http.responses.problems import invalid

ERRORS_AT_MOST = 10  # of one request that are explained


async def _only_known_parameters(request: Request) -> None:
    """Raises Unauthorized or Forbidden, because a credential is checked before anything else, then Invalid."""
    sent = Counter(name for name, _ in request.query_params.multi_items())
    route = request.scope["route"]
    if not sent or not isinstance(route, APIRoute):
        return
    if wanted := scope_required_by(route.endpoint):
        await admit(request, wanted)
    takes = known_to(route)
    known = takes.query
    wrong = [name for name, times in sent.items() if name not in known or (times > 1 and not known[name])]
    if wrong:
        raise _refusal(wrong[:ERRORS_AT_MOST], known)
    if "fields" in known and (asked := request.query_params.get("fields")) is not None:
        request.scope[CHOSEN] = _chosen(asked, takes.chosen)


def _chosen(asked: str, known: Sequence[str]) -> frozenset[str]:
    """Raises Invalid."""
    names = list(dict.fromkeys(name.strip() for name in asked.split(",")))
    wrong = [name for name in names if name not in known][:ERRORS_AT_MOST]
    if wrong:
        raise invalid(
            {
                "at": "query/fields",
                "why": f"`{name[:NAME_AT_MOST]}` is not a field of the response; "
                + suggestion(name, known, of="the response", verb="has"),
            }
            for name in wrong
        )
    return frozenset(names)


def _refusal(wrong: Sequence[str], known: Mapping[str, bool]) -> Invalid:
    return invalid(
        {
            "at": f"query/{name[:NAME_AT_MOST]}",
            "why": "may be given only once on this route"
            if name in known
            else f"is not a known parameter; {suggestion(name, known, of='this route')}",
        }
        for name in wrong
    )


# For the routers of REST. It comes before the dependencies of a route.
STRICT = Depends(_only_known_parameters)
