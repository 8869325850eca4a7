"""The report of a review: a page to read, to send before the meeting, and to print; and as Markdown, HTML and JSON."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from app.base.process.threads import off_loop
from app.incidents.actions import Ref
from app.incidents.history.path import Path
from app.pages import words
from app.pages.web.frame import PageRequest, PageRoute, SignedIn, with_query
from app.reviews.api import report as api
from app.reviews.api.fields import ReviewInPath
from app.reviews.report.facts import People, by_role
from app.reviews.report.html import CONTENT_SECURITY_POLICY, html
from app.reviews.report.markdown import markdown
from app.reviews.report.outline import Outline, Report, report
from app.reviews.report.plot import svg
from app.reviews.store import report as store
from app.reviews.store import reviews

router = APIRouter(prefix="/reviews/{review}", route_class=PageRoute, include_in_schema=False)

OUTLINES = {Outline.GUIDE: "After the guide", Outline.POSTMORTEM: "Seven sections"}
PEOPLE = {People.NAMED: "People by name", People.ROLES: "By role"}

OutlineInQuery = Annotated[Outline, Query()]
PeopleInQuery = Annotated[People, Query()]


async def _report(asked: PageRequest, ref: Ref, outline: Outline, people: People) -> Report:
    async with asked.reading() as session:
        review = await reviews.find(session, ref)
        facts = await store.facts_of(session, review, now=asked.now, weights=asked.context.settings.impact)
    return await off_loop(lambda: report(by_role(facts) if people is People.ROLES else facts, outline))


def _plot(title: str, path: Path) -> Markup:
    """Its texts are escaped; what would reorder or hide them is written out, as everywhere on pages."""
    return Markup(words.visible(svg(title, path)))  # noqa: S704


@router.get("/report")
async def show(
    asked: SignedIn, ref: ReviewInPath, outline: OutlineInQuery = Outline.GUIDE, people: PeopleInQuery = People.NAMED
) -> Response:
    found = await _report(asked, ref, outline, people)
    place = asked.request.url.path
    query = {"outline": outline, "people": people}

    def page() -> Response:
        return asked.page(
            "review_report.html",
            report=found,
            review=f"REV-{ref}" if isinstance(ref, int) else str(ref),
            outline=outline,
            people=people,
            outlines=OUTLINES,
            choices_of_people=PEOPLE,
            address=lambda **changes: with_query(place, query | changes),
            downloads=[(name, with_query(f"{place}.{name}", query)) for name in ("md", "html", "json")],
            kind=lambda block: type(block).__name__,
            plot=_plot,
        )

    return await off_loop(page)


@router.get("/report.{form}")
async def download(
    asked: SignedIn,
    ref: ReviewInPath,
    form: Literal["md", "html", "json"],
    outline: OutlineInQuery = Outline.GUIDE,
    people: PeopleInQuery = People.NAMED,
) -> Response:
    """The same as REST's, for the session of a browser."""
    found = await _report(asked, ref, outline, people)
    if form == "md":
        return Response(await off_loop(lambda: markdown(found)), media_type="text/markdown")
    if form == "json":
        return Response(api.report_model(found).model_dump_json(), media_type="application/json")
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "X-Content-Type-Options": "nosniff"}
    return HTMLResponse(await off_loop(lambda: words.visible(html(found))), headers=headers)
