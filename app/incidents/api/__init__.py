"""The HTTP API of incidents: queries, actions by people, and the response models."""

from fastapi import APIRouter

from app.incidents.api import actions, incidents

router = APIRouter()
for _part in (incidents, actions):
    router.include_router(_part.router)
