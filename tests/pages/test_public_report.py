"""The page on which the report for customers is written, checked, approved, published and withdrawn."""

import httpx

from app.base.access.tokens import Scope
from app.base.http.context import Context
from tests.pages.visitors import section_of, submit, text_of, visiting
from tests.pages.walking import forms_of
from tests.reviews.test_reviews import send
from tests.statements import counted

PLACE = "/reviews/REV-1/public-report"
REST = "/api/v1/reviews/REV-1/public-report"


async def a_review(client: httpx.AsyncClient) -> None:
    """REV-1, which was held, and a public incident."""
    await send(client, "PUT", "/api/v1/services/checkout", 201)
    await send(client, "PUT", "/api/v1/status-page/components/Payments", 201, services=["checkout"])
    first = {"status": "resolved", "body": "Over.", "components": {"Payments": "operational"}}
    await send(client, "POST", "/api/v1/status-page/incidents", 201, title="Cards fail", first=first)
    await send(client, "POST", "/api/v1/reviews", 201, title="t", facilitator="grace", summary="Internal words")
    await send(client, "POST", "/api/v1/reviews/REV-1/findings", 201, kind="learning", text="Internal finding")
    await send(client, "POST", "/api/v1/reviews/REV-1/hold")


async def sent(visitor: httpx.AsyncClient, action: str, status: int = 303, **fields: str) -> httpx.Response:
    """Submits the form with this action as the page shows it, with these fields changed."""
    page = await visitor.get(PLACE)
    form = next(one for one in forms_of(PLACE, page.text) if one.action == PLACE + action)
    answer = await submit(visitor, form.action, **form.fields | fields)
    assert answer.status_code == status, text_of(answer)
    return answer


async def test_a_report_is_written_checked_approved_published_and_withdrawn(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, context: Context
) -> None:
    await a_review(client)
    assert PLACE in (await signed_in.get("/reviews/REV-1")).text
    page = await signed_in.get(PLACE)
    assert "Internal words" in text_of(page)  # to be read, beside the field
    [form] = [one for one in forms_of(PLACE, page.text) if one.action == PLACE]
    assert not any("Internal" in value for value in form.fields.values())
    [(_, public)] = [
        (one["title"], one["id"]) for one in (await client.get("/api/v1/status-page/incidents")).json()["items"]
    ]
    refused = await sent(signed_in, "", 409, title="Cards", summary="checkout was slow", public_incident="")
    assert "Choose the public incident" in text_of(refused)
    assert "checkout was slow" in refused.text  # what was entered is kept
    await sent(signed_in, "", 303, title="Cards", summary="checkout was slow", public_incident=public, learnings="a\nb")
    page = await signed_in.get(PLACE)
    assert "Summary: checkout is the name of a service." in text_of(section_of(page, "Look at these words"))
    assert not any(one.action.endswith("/approve") for one in forms_of(PLACE, page.text))
    await sent(signed_in, "/1/accept")
    assert "Accepted by ada" in text_of(await signed_in.get(PLACE))
    refused = await sent(signed_in, "/1/approve", 409)
    assert "a token other than the author's" in text_of(refused)
    async with visiting(context, Scope.WRITE) as other:
        assert "You have signed in with its author’s token" not in text_of(await other.get(PLACE))
        preview = await other.get(f"{PLACE}/1/page")
        assert preview.content == (await client.get(f"{REST}/versions/1/page")).content
        await sent(other, "/1/approve")
    await sent(signed_in, "/1/publish")
    page = await signed_in.get(PLACE)
    assert "Customers read version 1 since" in text_of(page)
    assert "The status page is off" in text_of(page)
    await sent(signed_in, "", 303, summary="Card payments were slow")
    shown = text_of(section_of(await signed_in.get(PLACE), "What changed"))
    assert "-checkout was slow +Card payments were slow" in shown
    assert "Learnings: 1 line" in shown.replace("\u00a0", " ")
    await sent(signed_in, "/withdraw")
    assert "Customers cannot read any version" in text_of(await signed_in.get(PLACE))
    states = [one["state"] for one in (await client.get(REST)).json()["versions"]]
    assert states == ["draft", "withdrawn"]


async def test_a_draft_has_no_form_and_a_reader_has_none(client: httpx.AsyncClient, context: Context) -> None:
    await send(client, "POST", "/api/v1/reviews", 201, title="t", facilitator="grace")
    async with visiting(context, Scope.WRITE) as writer, visiting(context, Scope.READ) as reader:
        page = await writer.get(PLACE)
        assert "this one is a draft" in text_of(page)
        assert [one for one in forms_of(PLACE, page.text) if PLACE in one.action] == []
        await send(client, "POST", "/api/v1/reviews/REV-1/hold")
        assert [one.action for one in forms_of(PLACE, (await writer.get(PLACE)).text) if PLACE in one.action] == [PLACE]
        assert [one for one in forms_of(PLACE, (await reader.get(PLACE)).text) if PLACE in one.action] == []
        assert (await submit(reader, PLACE, title="t")).status_code == 403
        assert (await writer.get(f"{PLACE}?version=1")).status_code == 404


async def test_somebody_who_wrote_meanwhile_is_noticed(client: httpx.AsyncClient, signed_in: httpx.AsyncClient) -> None:
    await a_review(client)
    [public] = (await client.get("/api/v1/status-page/incidents")).json()["items"]
    written = {"title": "t", "summary": "One.", "public_incident": public["id"]}
    await send(client, "PUT", REST, 201, **written)
    fields = written | {"summary": "Two.", "outline": "full", "form": "write"}
    refused = await submit(signed_in, PLACE, **fields, based_on="0")
    assert (refused.status_code, "another version in the meantime" in text_of(refused)) == (409, True)


async def test_the_number_of_statements_does_not_grow(
    client: httpx.AsyncClient, signed_in: httpx.AsyncClient, context: Context
) -> None:
    await a_review(client)
    [public] = (await client.get("/api/v1/status-page/incidents")).json()["items"]
    numbers = []
    for version in range(3):
        await send(client, "PUT", REST, 201, title="t", summary=f"Text {version}", public_incident=public["id"])
        with counted(context.engine) as statements:
            await signed_in.get(PLACE)
        numbers.append(len(statements))
    assert numbers[1] == numbers[2] <= 35
