"""The report of a review over HTTP: as data, as Markdown, and as a page to print."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel, Field

from app.base.http.access.auth import Reader
from app.base.http.context import Now, Session, SettingsDep
from app.base.http.requests.fields import AtShown
from app.base.http.responses.problems import problem_responses
from app.base.process.threads import off_loop
from app.incidents.history.path import Path
from app.reviews.api.fields import ReviewInPath
from app.reviews.report import outline as outlines
from app.reviews.report.facts import People, by_role
from app.reviews.report.html import CONTENT_SECURITY_POLICY, html
from app.reviews.report.markdown import markdown
from app.reviews.report.outline import Block, Bullets, Outline, Paragraph, Report, Section, Table, report
from app.reviews.store import report as store
from app.reviews.store import reviews

router = APIRouter(prefix="/api/v1/reviews", tags=["reviews"])


async def _report(
    session: Session,
    now: Now,
    settings: SettingsDep,
    ref: ReviewInPath,
    outline: Annotated[
        Outline,
        Query(
            description="`guide`: metrics, timeline, tasks, decisions, learnings, factors, action items. `postmortem`: "
            "summary, response, factors, lessons, action items, follow-up, communication"
        ),
    ] = Outline.GUIDE,
    people: Annotated[
        People,
        Query(
            description="`roles` replaces names with roles, in free text too. It recognizes the names of "
            "participants, owners and the facilitator, and the names in the timelines"
        ),
    ] = People.NAMED,
) -> Report:
    facts = await store.facts_of(session, await reviews.find(session, ref), now=now, weights=settings.impact)
    return await off_loop(lambda: report(by_role(facts) if people is People.ROLES else facts, outline))


Reported = Annotated[Report, Depends(_report, scope="function")]


class PointOfPathModel(BaseModel):
    at: AtShown
    level: int


class BlockModel(BaseModel):
    """A part of a section. Which other fields it has depends on `kind`."""

    kind: Literal["paragraph", "bullets", "table", "path"]
    text: str | None = Field(None, description="Of a paragraph, or the title of a path")
    items: list[str] | None = Field(None, description="Of bullets")
    columns: list[str] | None = Field(None, description="Of a table")
    rows: list[list[str]] | None = Field(None, description="Of a table, with as many cells as columns")
    points: list[PointOfPathModel] | None = Field(None, description="Of a path: levels over time")


class SectionModel(BaseModel):
    title: str
    blocks: list[BlockModel]
    sections: list["SectionModel"]


class ReportModel(BaseModel):
    """A report as data. Texts are plain text."""

    title: str
    introduction: list[BlockModel]
    sections: list[SectionModel]


_TEXT = {"content": {"text/markdown": {"schema": {"type": "string"}}}, "description": "The report as Markdown"}
_PAGE = {"content": {"text/html": {"schema": {"type": "string"}}}, "description": "The report as a page"}


@router.get("/{review}/report", responses=problem_responses(404), summary="Get the report of a review")
async def get_report(_: Reader, reported: Reported) -> ReportModel:
    """Generated from the current facts, in any state of the review. The report of a draft is a preview for the
    participants and begins with open questions: send it to them before you meet. Anyone who can read incidents can read
    it. Each outline contains every finding and every action item once.
    """
    return report_model(reported)


def report_model(reported: Report) -> ReportModel:
    return ReportModel(
        title=reported.title,
        introduction=[_block(one) for one in reported.introduction],
        sections=[_section(one) for one in reported.sections],
    )


@router.get(
    "/{review}/report.md",
    response_class=PlainTextResponse,
    responses=problem_responses(404) | {200: _TEXT},
    summary="Get the report of a review as Markdown",
)
async def get_report_as_markdown(_: Reader, reported: Reported) -> Response:
    """Texts that people wrote are escaped, so that they are shown as they were written."""
    return Response(await off_loop(lambda: markdown(reported)), media_type="text/markdown")


@router.get(
    "/{review}/report.html",
    response_class=HTMLResponse,
    responses=problem_responses(404) | {200: _PAGE},
    summary="Get the report of a review as HTML",
)
async def get_report_as_html(_: Reader, reported: Reported) -> HTMLResponse:
    """A page to read or print, with a plot of each incident's path. It contains no scripts and loads no other files."""
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "X-Content-Type-Options": "nosniff"}
    return HTMLResponse(await off_loop(lambda: html(reported)), headers=headers)


def _section(section: Section) -> SectionModel:
    return SectionModel(
        title=section.title,
        blocks=[_block(one) for one in section.blocks],
        sections=[_section(one) for one in section.sections],
    )


def _block(block: Block) -> BlockModel:
    match block:
        case Paragraph(text):
            return BlockModel(kind="paragraph", text=text)
        case Bullets(items):
            return BlockModel(kind="bullets", items=list(items))
        case Table(columns, rows):
            return BlockModel(kind="table", columns=list(columns), rows=[list(row) for row in rows])
        case outlines.Plot(title, path):
            return BlockModel(kind="path", text=title, points=_points(path))


def _points(path: Path) -> list[PointOfPathModel]:
    return [PointOfPathModel(at=point.at, level=point.level) for point in path.points]
