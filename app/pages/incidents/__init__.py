"""The list of incidents, one incident with its course and its actions, and declaring one."""

from fastapi import APIRouter

from app.pages.incidents import declare, forms, listing, page, response
from app.pages.web.frame import PageRoute

router = APIRouter(route_class=PageRoute, include_in_schema=False)
for _part in (declare, listing, page, forms, response):  # `/incidents/new` before `/incidents/{id}`
    router.include_router(_part.router)
