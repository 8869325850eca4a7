"""Reviews and action items: what is due, preparing and holding a review, what it found, and what follows from it."""

from fastapi import APIRouter

from app.pages.reviews import action_items, create, forms, item, listing, page, public_report, report

router = APIRouter(include_in_schema=False)
# `create` first: `/reviews/new` is not the number of a review.
for each in (listing, create, report, public_report, page, forms, action_items, item):
    router.include_router(each.router)
