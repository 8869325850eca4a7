"""Incidents over HTTP: reading them, what people do about them, and what an incident looks like in an answer."""

from fastapi import APIRouter

from app.incidents.api import actions, incidents

router = APIRouter()
for _part in (incidents, actions):
    router.include_router(_part.router)
