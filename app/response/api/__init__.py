"""The HTTP API of the response to incidents."""

import re

from fastapi import APIRouter

from app.response.api import chat, declaring, numbers, people, playbooks, response, targets, types

# Bytes of a body, by the path.
LARGER_BODIES = {re.compile("/api/v1/incidents/[^/]+/chat"): 4 * 2**20}

router = APIRouter()
for _part in (declaring, response, chat, types, people, targets, playbooks, numbers):
    router.include_router(_part.router)
