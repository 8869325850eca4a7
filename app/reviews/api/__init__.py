"""HTTP routes for reviews, action items and factors."""

from fastapi import APIRouter

from app.reviews.api import action_items, factors, report, reviews

router = APIRouter()
for _part in (reviews, report, action_items, factors):
    router.include_router(_part.router)
