"""The public report of a review over HTTP, for those who write it. Customers read it on the status page."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Path, Query, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field, StringConstraints
from sqlmodel.ext.asyncio.session import AsyncSession

from app.base.http.access.auth import Reader, Writer
from app.base.http.context import Now, Session, SettingsDep
from app.base.http.requests.fields import AtShown, Input, Name, Words
from app.base.http.responses.problems import problem_responses
from app.base.schema import ReportVersion, Review
from app.incidents.actions import Ref
from app.reviews.api.fields import ReviewInPath
from app.reviews.public_report.facts import PublicText
from app.reviews.public_report.leaks import Leak, LeakKind
from app.reviews.public_report.outline import PublicOutline
from app.reviews.store import public_report as store
from app.reviews.store import reviews
from app.reviews.store.public_report import NewVersion, Site, Warned
from app.settings import Settings

router = APIRouter(prefix="/api/v1/reviews/{review}/public-report", tags=["reviews"])

# As the status page serves it.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def site_of(settings: Settings) -> Site:
    return Site(settings.status_page_name, (settings.status_page_url or "").rstrip("/"))


def _site(settings: SettingsDep) -> Site:
    return site_of(settings)


SiteDep = Annotated[Site, Depends(_site)]
VersionInPath = Annotated[int, Path(ge=1, le=2**31 - 1, examples=[1])]
By = Annotated[Name, Field(examples=["ben"])]


class ReportState(StrEnum):
    DRAFT = "draft"
    APPROVED = "approved"
    PUBLISHED = "published"
    WITHDRAWN = "withdrawn"


def state_of(row: ReportVersion) -> ReportState:
    if row.withdrawn_at is not None:
        return ReportState.WITHDRAWN
    if row.published_at is not None:
        return ReportState.PUBLISHED
    return ReportState.DRAFT if row.approved_at is None else ReportState.APPROVED


Line = Annotated[Words, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
Lines = Annotated[list[Line], Field(max_length=50)]
Text = Annotated[Words, StringConstraints(strip_whitespace=True)]


class PublicTextInput(Input):
    """What customers read, written for them. Nothing of the review gets into it by itself."""

    title: Annotated[Name, StringConstraints(strip_whitespace=True)] = Field(examples=["Card payments failed"])
    summary: Annotated[Text, StringConstraints(min_length=1)] = Field(
        examples=["For 34 minutes, some card payments failed. No card was charged twice."]
    )
    severity: Annotated[Text, StringConstraints(max_length=200)] = Field(
        "", description="The severity in words that customers understand", examples=["Partial outage"]
    )
    customer_impact: Text = Field("", examples=["One in five payments failed, and could be repeated later."])
    proximate_cause: Text = Field(
        "", description="What triggered it, in words that customers understand", examples=["A certificate had expired."]
    )
    resolution: Text = Field("", examples=["We renewed the certificate."])
    learnings: Lines = Field(
        [],
        description="What was learned, one lesson per item",
        examples=[["The expiry of certificates was not monitored."]],
    )
    countermeasures: Lines = Field(
        [],
        description="What is done about it, one action per item",
        examples=[["Certificates are renewed automatically."]],
    )


class PublicReportInput(PublicTextInput):
    outline: PublicOutline = Field(
        PublicOutline.FULL,
        description="`full`: summary, services impacted, duration, severity, customer impact, proximate cause, "
        "resolution, what was learned, countermeasures. `short`: summary, what happened, what follows from it",
    )
    public_incident: UUID | None = Field(
        None,
        description="The public incident that it is about, from which components and times are taken; null: that of "
        "the previous version, else the public incident of the review's incidents, if there is only one",
        examples=[None],
    )
    author: By | None = Field(None, description="Never public; defaults to the name of the token")
    based_on: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="The request is refused unless this is the newest version; 0: unless there is none yet"
    )

    def new(self, author: str) -> NewVersion:
        text = PublicText.of({name: getattr(self, name) for name in PublicTextInput.model_fields})
        return NewVersion(text, self.outline, self.author or author, self.public_incident, self.based_on)


class VersionModel(BaseModel):
    """A version of a public report. Its content never changes."""

    version: int
    state: ReportState
    author: str
    created_at: AtShown
    approved_at: AtShown | None
    approved_by: str | None
    published_at: AtShown | None
    published_by: str | None = Field(description="Null: it was not published")
    withdrawn_at: AtShown | None
    withdrawn_by: str | None = Field(description="Null: it was not withdrawn")


class WarningModel(BaseModel):
    """Words that may be internal. Remove them in a new version, or accept them."""

    at: str = Field(description="The field", examples=["summary"])
    kind: LeakKind
    words: str = Field(
        description="The words as they appear there; for a secret, its line without the secret", examples=["ada"]
    )
    accepted_by: str | None = Field(description="Null: it is open")
    accepted_at: AtShown | None = Field(description="Null: it is open")


class ReportContentModel(VersionModel):
    """A version with its content."""

    address: str = Field(
        description="Path on the status page, of the version that is published", examples=["/status/reports/0198…"]
    )
    public_incident: UUID = Field(description="The public incident that it is about")
    outline: PublicOutline = Field(description="The order and choice of its sections")
    text: dict[str, str | list[str]] = Field(description="What was written, by field")
    markdown: str = Field(description="The whole report in Markdown")
    digest: str = Field(description="SHA-256 of the page as it is served, in hexadecimal digits")
    warnings: list[WarningModel] = Field(
        description="What the check for internal words finds now: secrets, names of people, teams, services and "
        "sources, values of labels, addresses, hosts, money, numbers of incidents. It cannot know everything"
    )


class PublicReportModel(BaseModel):
    """The public report of a review, with its versions."""

    address: str = Field(description="Path on the status page", examples=["/status/reports/0198…"])
    published: int | None = Field(description="The version that customers see now")
    versions: list[VersionModel] = Field(description="Newest first")


def _version(row: ReportVersion) -> dict[str, Any]:
    names = VersionModel.model_fields.keys() - {"state"}
    return {name: getattr(row, name) for name in names} | {"state": state_of(row)}


def address_of(row: ReportVersion) -> str:
    return f"/status/reports/{row.report_id}"


def published_of(versions: Sequence[ReportVersion]) -> ReportVersion | None:
    """The version that customers see; None if none was published, or the last one was withdrawn."""
    newest = next((one for one in versions if one.published_at is not None), None)
    return newest if newest is not None and newest.withdrawn_at is None else None


def content_model(row: ReportVersion, warned: Sequence[Warned]) -> ReportContentModel:
    return ReportContentModel.model_validate(
        _version(row)
        | {
            "address": address_of(row),
            "public_incident": row.public_incident_id,
            "outline": row.outline,
            "text": row.text,
            "markdown": row.markdown,
            "digest": row.digest.hex(),
            "warnings": [
                {
                    "at": one.leak.at,
                    "kind": one.leak.kind,
                    "words": one.leak.words,
                    "accepted_by": one.accepted["by"] if one.accepted else None,
                    "accepted_at": one.accepted["accepted_at"] if one.accepted else None,
                }
                for one in warned
            ],
        }
    )


async def _answer(session: AsyncSession, review: Review, row: ReportVersion, site: Site) -> ReportContentModel:
    return content_model(row, await store.warnings_of(session, review, row, site))


@router.get("", responses=problem_responses(404), summary="Get the public report of a review")
async def get_public_report(_: Reader, session: Session, ref: ReviewInPath) -> PublicReportModel:
    """Its versions. Only one that was approved with a token other than its author's is ever public."""
    versions = await store.versions_of(session, await reviews.find(session, ref))
    if not versions:
        message = "the review has no public report; create one with PUT"
        raise store.ReportNotFound(message)
    published = published_of(versions)
    return PublicReportModel(
        address=address_of(versions[0]),
        published=published and published.version,
        versions=[VersionModel.model_validate(_version(one)) for one in versions],
    )


@router.put(
    "",
    responses=problem_responses(404, 409) | {201: {"model": ReportContentModel}},
    summary="Write a version of the public report",
)
async def put_public_report(
    writer: Writer,
    session: Session,
    now: Now,
    site: SiteDep,
    ref: ReviewInPath,
    body: Annotated[
        PublicReportInput,
        Body(
            examples=[
                {
                    "title": "Card payments failed",
                    "summary": "For 34 minutes, some card payments failed. No card was charged twice.",
                    "proximate_cause": "A certificate had expired.",
                    "countermeasures": ["Certificates are renewed automatically."],
                }
            ]
        ),
    ],
    response: Response,
) -> ReportContentModel:
    """Makes the next version, which is a draft, from this text and the components and times of the public incident. The
    review must have been held. Returns 200 and the newest version if its content is the same.
    """
    review = await reviews.hold_row(session, ref)
    row, is_new = await store.write(session, review, body.new(writer.name), token=writer, site=site, now=now)
    response.status_code = 201 if is_new else 200
    return await _answer(session, review, row, site)


@router.get("/versions/{version}", responses=problem_responses(404), summary="Get a version of the public report")
async def get_report_version(
    _: Reader, session: Session, site: SiteDep, ref: ReviewInPath, version: VersionInPath
) -> ReportContentModel:
    """With its text, and with what the check for internal words finds."""
    review = await reviews.find(session, ref)
    return await _answer(session, review, await store.find_version(session, review, version), site)


@router.get(
    "/versions/{version}/page",
    response_class=HTMLResponse,
    responses=problem_responses(404)
    | {200: {"content": {"text/html": {"schema": {"type": "string"}}}, "description": "The page"}},
    summary="Get the page of a version",
)
async def get_report_page(_: Reader, session: Session, ref: ReviewInPath, version: VersionInPath) -> HTMLResponse:
    """Exactly the bytes that customers get once it is published. Look at it before you approve it."""
    row = await store.find_version(session, await reviews.find(session, ref), version)
    return HTMLResponse(row.page, headers=PAGE_HEADERS)


class Against(StrEnum):
    PREVIOUS = "previous"
    INTERNAL = "internal"


class LeftOutSection(BaseModel):
    section: str = Field(description="Its heading")
    lines: int = Field(description="How many of its lines the public report does not have")


class ReportDifferenceModel(BaseModel):
    against: Against = Field(description="What it is compared with")
    lines: list[str] = Field(description="A unified difference of the texts in Markdown, without names of files")
    left_out: list[LeftOutSection] = Field(
        description="Sections of the internal report with lines that the public one does not have"
    )


@router.get(
    "/versions/{version}/difference", responses=problem_responses(404), summary="Compare a version of the public report"
)
async def get_difference(
    _: Reader,
    session: Session,
    now: Now,
    settings: SettingsDep,
    ref: ReviewInPath,
    version: VersionInPath,
    against: Annotated[Against, Query(description="The version before, or the internal report")] = Against.PREVIOUS,
) -> ReportDifferenceModel:
    """Of each text, the first 2,000 lines are compared."""
    review = await reviews.find(session, ref)
    row = await store.find_version(session, review, version)
    found = await store.differences(session, review, row, now=now, weights=settings.impact)
    lines = found.from_previous if against is Against.PREVIOUS else found.from_internal
    left_out = [LeftOutSection(section=one.section, lines=one.lines) for one in found.left_out]
    return ReportDifferenceModel(against=against, lines=list(lines), left_out=left_out)


class DecisionInput(Input):
    by: By | None = Field(None, description="Never public; defaults to the name of the token")


class AcceptanceInput(Input):
    at: Name = Field(examples=["summary"])
    kind: LeakKind
    words: Name = Field(description="The words, as in the warning", examples=["ada"])
    by: By | None = Field(None, description="The person who accepts it; defaults to the name of the token")


@dataclass(frozen=True, slots=True)
class Deciding:
    """A person who decides about a public report."""

    writer: Writer
    session: Session
    now: Now
    site: SiteDep

    async def about(
        self,
        ref: Ref,
        version: int,
        decide: Callable[..., Awaitable[ReportVersion]],
        sent: DecisionInput | AcceptanceInput | None,
        **more: Any,
    ) -> ReportContentModel:
        """`decide` is a function of the store, with these further arguments."""
        review = await reviews.hold_row(self.session, ref)
        row = await store.find_version(self.session, review, version)
        row = await decide(self.session, review, row, site=self.site, **self.who(sent), **more)
        return await _answer(self.session, review, row, self.site)

    def who(self, sent: DecisionInput | AcceptanceInput | None) -> dict[str, Any]:
        return {"by": (sent and sent.by) or self.writer.name, "token": self.writer, "now": self.now}


DecidingDep = Annotated[Deciding, Depends(scope="function")]
CHANGED = problem_responses(404, 409)


@router.post("/versions/{version}/accept", responses=CHANGED, summary="Accept a warning of the public report")
async def accept_warning(
    ref: ReviewInPath, version: VersionInPath, deciding: DecidingDep, body: AcceptanceInput
) -> ReportContentModel:
    """Permits these words in this field. This applies to later versions too, as long as the field stays the same."""
    return await deciding.about(ref, version, store.accept, body, leak=Leak(body.at, body.kind, body.words))


@router.post("/versions/{version}/approve", responses=CHANGED, summary="Approve a version of the public report")
async def approve_report(
    ref: ReviewInPath, version: VersionInPath, deciding: DecidingDep, decision: DecisionInput | None = None
) -> ReportContentModel:
    """Needs a token other than the author's, and no open warning. Only the newest version can be approved."""
    return await deciding.about(ref, version, store.approve, decision)


@router.post("/versions/{version}/publish", responses=CHANGED, summary="Publish a version of the public report")
async def publish_report(
    ref: ReviewInPath, version: VersionInPath, deciding: DecidingDep, decision: DecisionInput | None = None
) -> ReportContentModel:
    """It must be approved. If the status page is on, the version replaces the previous one there within a few seconds;
    the page of its public incident links to it.
    """
    return await deciding.about(ref, version, store.publish, decision)


@router.post("/withdraw", responses=CHANGED, summary="Withdraw the public report")
async def withdraw_report(
    ref: ReviewInPath, deciding: DecidingDep, decision: DecisionInput | None = None
) -> ReportContentModel:
    """A few seconds later, its public address returns 410 and states that the report was withdrawn. It stays readable
    here, and another version can be approved and published at the same address.
    """
    review = await reviews.hold_row(deciding.session, ref)
    row = await store.withdraw(deciding.session, review, **deciding.who(decision))
    return await _answer(deciding.session, review, row, deciding.site)
