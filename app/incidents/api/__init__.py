"""The HTTP API of incidents: queries, actions by people, and the response models."""

from fastapi import APIRouter

from app.incidents.api import actions, bulk, facts, incidents, path, timeline

router = APIRouter()
for _part in (incidents, bulk, actions, timeline, facts, path):
    router.include_router(_part.router)
