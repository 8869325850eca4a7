"""Deployments over HTTP: the deployments with their causes, and DORA's numbers."""

from fastapi import APIRouter

from app.metrics.deployments.api import deployments, dora

router = APIRouter()
for _part in (deployments, dora):
    router.include_router(_part.router)
