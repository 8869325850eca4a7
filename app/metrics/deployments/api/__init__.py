"""Deployments over HTTP: their webhooks, the deployments with their causes, and DORA's numbers."""

from fastapi import APIRouter

from app.metrics.deployments.api import deployments, doors, dora

router = APIRouter()
for _part in (deployments, doors, dora):
    router.include_router(_part.router)
