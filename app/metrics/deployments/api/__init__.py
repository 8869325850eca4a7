"""Deployments over HTTP: the doors that tell of them, which incident each caused, and DORA's numbers."""

from fastapi import APIRouter

from app.metrics.deployments.api import deployments, doors, dora

router = APIRouter()
for _part in (deployments, doors, dora):
    router.include_router(_part.router)
