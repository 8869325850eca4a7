"""HTTP routes for reviews, action items and factors."""

from fastapi import APIRouter

from app.reviews.api import action_items, factors, meeting, public_report, report, reviews

router = APIRouter()
for _part in (reviews, meeting, report, public_report, action_items, factors):
    router.include_router(_part.router)
