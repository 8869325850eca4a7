"""Deployments over HTTP: deployments, other changes, the causes of incidents, and DORA's numbers."""

from fastapi import APIRouter

from app.base.http.limits.turns import IN_TURN
from app.metrics.deployments.api import causes, changes, deployments, dora

router = APIRouter()
for _part in (deployments, changes, causes):
    router.include_router(_part.router)
router.include_router(dora.router, dependencies=[IN_TURN])
