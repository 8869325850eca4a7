"""Sources: whether alerts arrive, quarantine, and the settings of each source."""

from fastapi import APIRouter

from app.pages.sources import health, one, quarantine

router = APIRouter(include_in_schema=False)
router.include_router(health.router)
router.include_router(quarantine.router)  # before the pages of single sources, whose names can be anything
router.include_router(one.router)
