"""Reports for customers on a real database: written, checked, approved with another token, published, withdrawn."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.base import db
from app.base.access.tokens import Scope
from app.base.http.context import Context
from app.main import serving
from app.settings import Settings
from app.status_page.published import StatusPage
from tests.conftest import ClientAs, client_of
from tests.ingest.test_webhook import a_delivery, an_alert
from tests.reviews.test_reviews import send
from tests.statements import counted
from tests.status_page.test_status_page import PUBLIC as PUBLIC_PATHS
from tests.status_page.test_status_page import ago

NOW = datetime.now(UTC).replace(microsecond=0)
OURS = "/api/v1/reviews/REV-1/public-report"
TEXT = {
    "title": "Card payments failed",
    "summary": "For 34 minutes, some payments failed.",
    "countermeasures": ["Certificates are renewed automatically."],
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    more = {"status_page": True, "status_page_name": "Acme", "status_page_url": "https://status.acme.example"}
    return settings.model_copy(update=more)


@pytest.fixture
async def page(context: Context) -> StatusPage:
    return context.part(StatusPage)


@pytest.fixture
async def anyone(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(context) as client:
        del client.headers["authorization"]
        yield client


@pytest.fixture
async def other(client_as: ClientAs) -> httpx.AsyncClient:
    """Somebody with a token other than the author's."""
    return await client_as(Scope.WRITE)


@pytest.fixture
async def incident(client: httpx.AsyncClient) -> str:
    """The public incident of INC-1, about which REV-1 was held."""
    delivery = a_delivery(an_alert(ago(minutes=60), ago(minutes=26), service="checkout", instance="db-7"))
    assert (await client.post("/webhooks/alertmanager", json=delivery)).is_success
    await send(client, "PUT", "/api/v1/status-page/components/Payments", 201, services=["checkout"])
    first = {"status": "resolved", "body": "It works again.", "components": {"Payments": "operational"}}
    public = await send(
        client, "POST", "/api/v1/status-page/incidents", 201, title="Cards fail", incident="INC-1", first=first
    )
    await send(client, "POST", "/api/v1/reviews", 201, title="t", incidents=["INC-1"], facilitator="grace")
    await send(client, "POST", "/api/v1/reviews/REV-1/hold")
    return str(public["id"])


async def write(client: httpx.AsyncClient, status: int = 201, **more: Any) -> dict[str, Any]:
    return await send(client, "PUT", OURS, status, **TEXT | more)


async def decide(
    client: httpx.AsyncClient, step: str, version: int = 1, status: int = 200, **body: Any
) -> dict[str, Any]:
    return await send(client, "POST", f"{OURS}/versions/{version}/{step}", status, **body)


async def published(client: httpx.AsyncClient, other: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    version = (await write(client, **more))["version"]
    await decide(other, "approve", version)
    return await decide(client, "publish", version)


async def seen(anyone: httpx.AsyncClient, page: StatusPage, path: str, **headers: str) -> httpx.Response:
    await page.refresh(datetime.now(UTC))
    return await anyone.get(path, headers=headers)


# — from a draft to customers —


async def test_what_was_approved_is_served_byte_for_byte(
    client: httpx.AsyncClient,
    other: httpx.AsyncClient,
    anyone: httpx.AsyncClient,
    page: StatusPage,
    incident: str,
    settings: Settings,
) -> None:
    made = await write(client)
    assert (made["version"], made["state"], made["public_incident"], made["warnings"]) == (1, "draft", incident, [])
    assert (await seen(anyone, page, made["address"])).status_code == 404
    preview = await client.get(f"{OURS}/versions/1/page")
    assert hashlib.sha256(preview.content).hexdigest() == made["digest"]
    assert "Payments" in preview.text
    assert "34\u00a0minutes" in preview.text
    approved = await decide(other, "approve", by="ben")
    assert (approved["state"], approved["approved_by"], approved["digest"]) == ("approved", "ben", made["digest"])
    assert (await seen(anyone, page, made["address"])).status_code == 404
    assert (await decide(client, "publish"))["state"] == "published"
    answer = await seen(anyone, page, made["address"], **{"accept-encoding": "gzip"})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (
        200,
        preview.content,
        f'"{made["digest"]}"',
    )
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "set-cookie" not in answer.headers
    again = await anyone.get(made["address"], headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = await anyone.head(made["address"])
    assert (head.status_code, head.content) == (200, b"")
    for path in (f"/status/incidents/{incident}", "/status/reports"):
        linked = await anyone.get(path)
        assert f'href="{made["address"]}"' in linked.text
        assert "Card payments failed" in linked.text
    assert "/status/reports" in (await anyone.get("/status")).text
    async with serving(settings) as restarted, client_of(restarted) as visitor:
        answer = await seen(visitor, restarted.part(StatusPage), made["address"])
        assert hashlib.sha256(answer.content).hexdigest() == made["digest"]


async def test_a_changed_text_is_a_new_version_that_needs_an_approval_of_its_own(
    client: httpx.AsyncClient, other: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage, incident: str
) -> None:
    first = await published(client, other)
    assert (await write(client, 200))["version"] == 1  # nothing has changed
    second = await write(other, summary="Nothing failed.")
    assert (second["version"], second["state"], second["address"]) == (2, "draft", first["address"])
    assert "some payments failed" in (await seen(anyone, page, first["address"])).text
    await decide(client, "publish", 2, 409)
    await decide(other, "approve", 2, 409)
    await decide(client, "approve", 2)
    await decide(client, "publish", 2)
    assert "Nothing failed." in (await seen(anyone, page, first["address"])).text
    found = await send(client, "GET", OURS)
    assert (found["published"], [one["version"] for one in found["versions"]]) == (2, [2, 1])
    problem = await decide(client, "publish", 1, 409)
    assert problem["type"].endswith("not-the-newest")
    await write(client, summary="Third.", severity="Partial outage")
    problem = await decide(client, "approve", 2, 409)
    assert problem["type"].endswith("not-the-newest")
    problem = await write(client, 409, summary="Fourth.", based_on=2)
    assert problem["type"].endswith("not-the-newest")
    assert (await write(client, summary="Fourth.", based_on=3))["version"] == 4


async def test_what_was_withdrawn_is_gone_and_says_so(
    client: httpx.AsyncClient,
    other: httpx.AsyncClient,
    anyone: httpx.AsyncClient,
    page: StatusPage,
    incident: str,
    engine: AsyncEngine,
) -> None:
    address = (await published(client, other))["address"]
    assert (await seen(anyone, page, address)).status_code == 200
    for _ in range(2):
        assert (await send(other, "POST", f"{OURS}/withdraw"))["state"] == "withdrawn"
    gone = await seen(anyone, page, address)
    assert (gone.status_code, "This report was withdrawn" in gone.text) == (410, True)
    for path in (address, f"/status/incidents/{incident}", "/status/reports", "/status"):
        answer = await anyone.get(path)
        assert "Card payments failed" not in answer.text
        assert address not in answer.text
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT page, title FROM public_report"))).one() == (None, None)
    assert (await decide(client, "publish", 1, 409))["type"].endswith("is-withdrawn")
    # The same text again needs a new version, and a new approval.
    assert (await write(client))["version"] == 2
    await decide(client, "publish", 2, 409)
    await decide(other, "approve", 2)
    await decide(client, "publish", 2)
    assert (await seen(anyone, page, address)).status_code == 200


async def test_prometheus_counts_what_was_written_published_and_withdrawn_and_shows_what_waits(
    client: httpx.AsyncClient, other: httpx.AsyncClient, incident: str, engine: AsyncEngine
) -> None:
    async def shown() -> dict[str, float]:
        found = re.findall(r"^aftermath_public_reports_(.+) (.+)$", (await client.get("/metrics")).text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    def counted(written: float, published: float, withdrawn: float, *, waiting: float) -> dict[str, float]:
        outcomes = {"written": written, "published": published, "withdrawn": withdrawn}
        return {f'total{{outcome="{name}"}}': n for name, n in outcomes.items()} | {"waiting": waiting}

    async def a_day_passes() -> None:
        async with engine.begin() as tx:
            await tx.execute(text("UPDATE report_version SET created_at = created_at - interval '25 hours'"))

    assert await shown() == counted(0, 0, 0, waiting=0)
    await published(client, other)
    await write(client, 200)  # the same
    await write(client, summary="Second.")
    await decide(client, "publish")  # again
    assert await shown() == counted(2, 1, 0, waiting=0)
    await a_day_passes()
    assert await shown() == counted(2, 1, 0, waiting=1)
    await write(client, summary="Third.")  # only the newest version can be approved
    assert await shown() == counted(3, 1, 0, waiting=0)
    await a_day_passes()
    for _ in range(2):
        await send(client, "POST", f"{OURS}/withdraw")
    assert await shown() == counted(3, 1, 1, waiting=1)
    await decide(other, "approve", 3)
    assert await shown() == counted(3, 1, 1, waiting=0)


async def test_a_report_goes_with_its_public_incident(
    client: httpx.AsyncClient, other: httpx.AsyncClient, anyone: httpx.AsyncClient, page: StatusPage, incident: str
) -> None:
    address = (await published(client, other))["address"]
    await decide(other, "approve", (await write(client, summary="Second."))["version"])
    await send(client, "POST", f"/api/v1/status-page/incidents/{incident}/withdraw")
    assert (await seen(anyone, page, address)).status_code == 410
    assert "Card payments failed" not in (await anyone.get("/status/reports")).text
    assert (await decide(client, "publish", 2, 409))["type"].endswith("no-public-incident")


async def test_a_report_needs_a_review_that_was_held_and_a_public_incident(client: httpx.AsyncClient) -> None:
    await send(client, "POST", "/api/v1/reviews", 201, title="t", facilitator="grace")
    assert (await send(client, "GET", OURS, 404))["type"].endswith("report-not-found")
    assert (await write(client, 409))["type"].endswith("review-is-not-held")
    await send(client, "POST", "/api/v1/reviews/REV-1/hold")
    assert (await write(client, 409))["type"].endswith("no-public-incident")
    assert (await write(client, 409, public_incident=str(uuid4())))["type"].endswith("no-public-incident")
    first = {"status": "resolved", "body": "Over."}
    public = await send(client, "POST", "/api/v1/status-page/incidents", 201, title="t", first=first)
    made = await write(client, public_incident=public["id"])
    assert made["public_incident"] == public["id"]
    assert (await write(client, summary="Second."))["public_incident"] == public["id"]
    await send(client, "POST", f"{OURS}/withdraw", 404)
    for version in (3, 2**31 - 1):
        await send(client, "GET", f"{OURS}/versions/{version}", 404)


# — the check —


async def test_each_warning_is_removed_or_accepted_by_name(
    client: httpx.AsyncClient, other: httpx.AsyncClient, incident: str
) -> None:
    made = await write(client, summary="Grace saw that checkout lost db-7, see INC-1.", severity="mail to a@b.example")
    found = {(each["at"], each["kind"], each["words"]) for each in made["warnings"]}
    assert found == {
        ("summary", "person", "Grace"),
        ("summary", "service", "checkout"),
        ("summary", "label", "db-7"),
        ("summary", "number", "INC-1"),
        ("severity", "email", "a@b.example"),
    }
    problem = await decide(other, "approve", 1, 409)
    assert problem["type"].endswith("has-warnings")
    assert len(problem["errors"]) == 5
    assert "db-7" not in str(problem)
    for at, kind, words in sorted(found):
        answer = await decide(client, "accept", 1, at=at, kind=kind, words=words, by="ada")
    assert {each["accepted_by"] for each in answer["warnings"]} == {"ada"}
    await decide(client, "accept", 1, 422, at="summary", kind="person", words="nobody")
    await decide(other, "approve")
    # Acceptances hold as long as their field stays the same.
    second = await write(client, summary="Grace saw that checkout lost db-7, see INC-1", severity="mail to a@b.example")
    assert {each["at"] for each in second["warnings"] if each["accepted_by"] is None} == {"summary"}
    assert {each["at"] for each in second["warnings"] if each["accepted_by"]} == {"severity"}


async def test_a_word_that_became_internal_after_the_approval_is_found_before_publication(
    client: httpx.AsyncClient, other: httpx.AsyncClient, incident: str
) -> None:
    await write(client, summary="Zebra was slow.")
    await decide(other, "approve")
    await send(client, "PUT", "/api/v1/services/zebra", 201)
    assert (await decide(client, "publish", 1, 409))["type"].endswith("has-warnings")


async def test_a_version_is_compared_with_the_one_before_and_with_the_internal_report(
    client: httpx.AsyncClient, incident: str
) -> None:
    await write(client)
    await write(client, summary="Nothing failed.")
    address = f"{OURS}/versions/2/difference"
    found = await send(client, "GET", address)
    assert [line for line in found["lines"] if line[0] in "+-"] == [
        "-For 34 minutes, some payments failed.",
        "+Nothing failed.",
    ]
    found = await send(client, "GET", f"{address}?against=internal")
    assert {"Introduction", "Timeline"} <= {each["section"] for each in found["left_out"]}
    assert "+Nothing failed." in found["lines"]


# — two tokens, held by the database —


async def test_the_database_holds_that_another_token_approves(
    client: httpx.AsyncClient, other: httpx.AsyncClient, incident: str, engine: AsyncEngine
) -> None:
    await write(client)
    problem = await decide(client, "approve", 1, 409)
    assert problem["type"].endswith("same-token")
    assert (await decide(client, "publish", 1, 409))["type"].endswith("not-approved")
    approval = "approved_at = now(), approved_by = 'x', approved_digest = digest, approved_token = "
    for statement, broken in (
        (f"UPDATE report_version SET {approval} author_token", "report_is_approved_by_another_token"),
        (f"UPDATE report_version SET {approval} NULL", "report_approval_is_whole"),
        (
            f"UPDATE report_version SET {approval.replace('digest = digest', 'digest = sha256(page || page)')} 'x'",
            "report_is_approved_as_it_is",
        ),
        (
            "UPDATE report_version SET published_at = now(), published_by = 'x', published_token = 'x'",
            "report_publication_needs_approval",
        ),
        (_COPY.format(page="page", digest="digest"), "public_report_is_approved"),
    ):
        await refused(engine, statement, broken)
    await decide(other, "approve")
    for statement, broken in (
        ("UPDATE report_version SET page = page || page", "report_digest_is_that_of_its_page"),
        (
            "UPDATE report_version SET page = page || page, digest = sha256(page || page)",
            "report_is_approved_as_it_is",
        ),
        (_COPY.format(page="page || page", digest="digest"), "public_report_digest_is_that_of_its_page"),
        (_COPY.format(page="page || page", digest="sha256(page || page)"), "public_report_is_approved"),
    ):
        await refused(engine, statement, broken)
    await decide(client, "publish")
    for statement, broken in (
        ("UPDATE public_report SET page = page || page", "public_report_digest_is_that_of_its_page"),
        ("UPDATE public_report SET withdrawn_at = now()", "public_report_has_a_page_until_it_is_withdrawn"),
        (
            f"UPDATE report_version SET {_NO_APPROVAL}",
            "report_publication_needs_approval",
        ),
        ("DELETE FROM report_version", "public_report_is_approved"),
    ):
        await refused(engine, statement, broken)


_COPY = (
    "INSERT INTO public_report (id, version, public_incident_id, title, page, digest, published_at) "
    "SELECT report_id, version, public_incident_id, 't', {page}, {digest}, now() FROM report_version"
)


_NO_APPROVAL = "approved_at = NULL, approved_by = NULL, approved_token = NULL, approved_digest = NULL"


async def refused(engine: AsyncEngine, statement: str, constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        async with engine.begin() as tx:
            await tx.execute(text(statement))


async def test_one_approval_of_two_at_once_and_one_version_of_two_at_once(
    client: httpx.AsyncClient, other: httpx.AsyncClient, incident: str
) -> None:
    made = await asyncio.gather(write(client, summary="One."), write(other, summary="Two."))
    assert sorted(one["version"] for one in made) == [1, 2]
    author = next(one for one, each in zip((client, other), made, strict=True) if each["version"] == 2)
    answers = await asyncio.gather(*(one.post(f"{OURS}/versions/2/approve", json={}) for one in (client, other)))
    assert sorted(one.status_code for one in answers) == [200, 409]
    assert answers[0 if author is client else 1].status_code == 409


@pytest.mark.parametrize("scope", ["read", None])
async def test_only_writers_write_and_readers_read(
    client: httpx.AsyncClient, client_as: ClientAs, incident: str, scope: str | None
) -> None:
    await write(client)
    reader = await client_as(Scope(scope) if scope else None)
    for method, path in (("PUT", ""), *(("POST", f"/versions/1/{one}") for one in ("accept", "approve", "publish"))):
        assert (await reader.request(method, OURS + path, json=TEXT)).status_code == (403 if scope else 401)
    assert (await reader.post(f"{OURS}/withdraw")).status_code == (403 if scope else 401)
    for path in ("", "/versions/1", "/versions/1/page", "/versions/1/difference"):
        assert (await reader.get(OURS + path)).status_code == (200 if scope else 401)


# — what never gets out —

_numbers = count()
FIELDS = ("service", "label", "annotation", "link", "note", "person", "owner", "finding", "item", "internal", "key")


@how(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    severity=st.sampled_from(["critical", "warning"]),
    fields=st.lists(st.sampled_from(FIELDS), min_size=3, unique=True).map(set),
    outline=st.sampled_from(["full", "short"]),
    is_withdrawn=st.booleans(),
)
async def test_no_word_of_any_internal_field_is_in_any_public_byte(
    client: httpx.AsyncClient,
    other: httpx.AsyncClient,
    anyone: httpx.AsyncClient,
    page: StatusPage,
    severity: str,
    fields: set[str],
    outline: str,
    is_withdrawn: bool,
) -> None:
    """Of random incidents and reviews, whose internal fields have words that stand nowhere else."""
    run = next(_numbers)
    word = {name: f"zq{place}x{run}planted" if name in fields else f"plain{run}" for place, name in enumerate(FIELDS)}
    alert = an_alert(
        ago(minutes=60), ago(minutes=26), service=word["service"], alertname=word["label"], severity=severity
    )
    alert |= {"annotations": {"summary": word["annotation"]}, "generatorURL": f"https://a.example/{word['link']}"}
    assert (await client.post("/webhooks/alertmanager", json=a_delivery(alert))).is_success
    await client.put(f"/api/v1/services/{word['service']}", json={"owner": word["owner"]})
    [number] = [
        one["number"]
        for one in (await client.get("/api/v1/incidents", params={"service": word["service"]})).json()["items"][:1]
    ]
    await client.post(f"/api/v1/incidents/{number}/notes", json={"note": word["note"], "by": word["person"]})
    component = f"Part {run}"
    await send(client, "PUT", f"/api/v1/status-page/components/{component}", 201, services=[word["service"]])
    first = {"status": "resolved", "body": "Over.", "components": {component: "operational"}, "by": word["person"]}
    public = await send(
        client, "POST", "/api/v1/status-page/incidents", 201, title=f"Down {run}", incident=number, first=first
    )
    texts = dict.fromkeys(("title", "summary", "customer_impact", "resolution"), word["internal"])
    people = [{"person": word["person"], "part": "first_responder"}]
    review = await send(
        client, "POST", "/api/v1/reviews", 201, incidents=[number], facilitator=word["person"], participants=people,
        **texts,
    )  # fmt: skip
    place = f"/api/v1/reviews/{review['number']}"
    await send(client, "POST", f"{place}/hold")
    finding = {"kind": "learning", "text": word["finding"], "by": word["person"]}
    await send(client, "POST", f"{place}/findings", 201, **finding)
    item = {"review": review["number"], "title": word["item"], "phase": "response", "owner": word["owner"]}
    made = await send(client, "POST", "/api/v1/action-items", 201, **item, link=f"https://t.example/{word['link']}")
    report = f"{place}/public-report"
    written = await send(client, "PUT", report, 201, **TEXT, outline=outline, author=word["person"])
    await send(other, "POST", f"{report}/versions/1/approve", by=word["person"])
    await send(client, "POST", f"{report}/versions/1/publish", by=word["person"])
    hidden = await send(client, "PUT", report, 201, **TEXT | {"summary": f"{word['key']} is a draft"})
    assert hidden["version"] == 2
    if is_withdrawn:
        await send(client, "POST", f"{report}/withdraw", by=word["person"])
    await page.refresh(datetime.now(UTC))
    incident = (await client.get(f"/api/v1/incidents/{number}")).json()
    secrets = {each for each in word.values() if "planted" in each}
    secrets |= {number, review["number"], made["number"], incident["id"], incident["key"], review["id"], severity}
    paths = [*PUBLIC_PATHS, written["address"], f"/status/incidents/{public['id']}"]
    for path in paths:
        answer = await anyone.get(path)
        everything = answer.text + str(answer.headers.raw)
        assert [each for each in secrets if each in everything] == [], path
    shown = await anyone.get(written["address"])
    assert shown.status_code == (410 if is_withdrawn else 200)
    assert ("For 34 minutes" in shown.text) != is_withdrawn


async def test_the_public_role_sees_no_draft_and_nothing_of_what_was_withdrawn(
    client: httpx.AsyncClient, other: httpx.AsyncClient, incident: str, engine: AsyncEngine
) -> None:
    await published(client, other)
    async with db.public_transaction(engine) as (tx, is_confined):
        assert is_confined
        assert len((await tx.execute(text("SELECT page FROM public_report"))).all()) == 1
    for query in ("SELECT page FROM report_version", "SELECT version FROM public_report", "SELECT id FROM review"):
        async with db.public_transaction(engine) as (tx, _):
            with pytest.raises(DBAPIError, match="permission denied"):
                await tx.execute(text(query))


# — serving —


async def test_reports_are_served_from_memory_also_while_the_database_is_away(
    client: httpx.AsyncClient,
    other: httpx.AsyncClient,
    anyone: httpx.AsyncClient,
    page: StatusPage,
    incident: str,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = await published(client, other)
    await page.refresh(datetime.now(UTC))

    async def fails(_now: datetime) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(page, "_read", fails)
    with pytest.raises(ConnectionRefusedError):
        await page.refresh(datetime.now(UTC) + timedelta(minutes=1))
    with counted(context.engine) as statements:
        answer = await anyone.get(made["address"])
        assert (answer.status_code, answer.headers["etag"]) == (200, f'"{made["digest"]}"')
        assert "As of" in (await anyone.get("/status/reports")).text
        for path in ("x", str(uuid4()), f"{made['address'].rpartition('/')[2].upper()}x", "x/y"):
            assert (await anyone.get(f"/status/reports/{path}")).status_code == 404
    assert statements == []


async def test_while_it_is_off_reports_are_written_and_nobody_can_read_them(
    client: httpx.AsyncClient, other: httpx.AsyncClient, incident: str, settings: Settings
) -> None:
    address = (await published(client, other))["address"]
    off = settings.model_copy(update={"status_page": False})
    async with serving(off) as context, client_of(context) as visitor:
        for path in (address, "/status/reports"):
            for method in ("GET", "HEAD", "POST"):
                assert (await visitor.request(method, path)).status_code == 404
