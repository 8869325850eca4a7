"""What a team agrees on before an incident: incident types, targets, playbooks, people and who stands in for whom."""

from fastapi import APIRouter, Response

from app.pages.response import people, playbooks, targets, types
from app.pages.web.frame import PageRoute, SignedIn, see_other

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/response")
async def begin(_: SignedIn) -> Response:
    return see_other("/response/types")


for _part in (types, targets, playbooks, people):
    router.include_router(_part.router)
