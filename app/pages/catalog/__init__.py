"""Services with rates and objectives, grouping rules, calendars and maintenance."""

from fastapi import APIRouter

from app.pages.catalog import calendars, rules, services

router = APIRouter()
for _each in (services, rules, calendars):
    router.include_router(_each.router)
