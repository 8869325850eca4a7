"""The outage in chapter 6 of "Post-Incident Reviews" (Jason Hand, O'Reilly 2017), and its review, in our words. Pure.

The book says that it begins at about 4 p.m. and lasts about 20 minutes, who did what in which order, and what the
review found: nine learnings and nine action items. All other times, and priorities and owners, are assumed.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from app.base.http.requests.fields import rfc3339
from app.demo.facts import Action, ActionItem, Declaration, Finding, Incident, Participant, Review

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SERVICE = "demo-platform"


def the_outage(four: datetime) -> Incident:
    """Twenty minutes in which nobody can sign in, from four o'clock on. Users notice first, and support after them."""

    def at(minute: int) -> datetime:
        return four + minute * MINUTE

    def fact(minute: int, kind: str, by: str, note: str | None = None, **detail: Any) -> Action:
        return Action("fact", at(minute), by, note, {"kind": kind, **detail})

    def task(minute: int, effect: str, by: str, text: str, *, until: int | None = None, **detail: Any) -> Action:
        ended: Mapping[str, Any] = {} if until is None else {"ended_at": rfc3339(at(until))}
        return Action("task", at(minute), by, text, {"effect": effect, **ended, **detail})

    mentions = "https://social.example.org/search?q=acme+login"
    return Incident(
        service=SERVICE,
        environment="production",
        began_at=at(5),
        ended_at=at(20),
        declaration=Declaration("Nobody can sign in", "sev2", four, "gary"),
        actions=[
            fact(5, "joined", "gary", person="gary", how="alerted", channel="mentions in social networks"),
            fact(5, "evidence", "gary", title="Mentions of the company", query="acme login", link=mentions),
            fact(5, "impact", "gary", what="Sign in"),
            fact(6, "joined", "gary", "She was the first engineer online", person="cathy", how="asked", channel="chat"),
            fact(6, "room", "gary", channel="#support"),
            Action("acknowledge", at(6), "cathy", "I'll take a look"),
            task(6, "none", "cathy", "Opened the sign-in page: it shows an error", stage="triage"),
            task(7, "none", "cathy", "Looked for instructions to connect to the server", until=11),
            task(
                12,
                "positive",
                "cathy",
                "Found a process that I don't recognize, using 92 % of the CPU",
                command="top",
                stage="investigation",
            ),
            task(12, "none", "cathy", "Looked for Greg's phone number, then called him", until=15),
            fact(15, "joined", "cathy", "He was out of the office", person="greg", how="asked", channel="phone"),
            fact(15, "room", "cathy", channel="phone", why="Greg was not in the chat"),
            task(16, "none", "cathy", "Updated the status page, with Gary's help"),
            fact(16, "update", "cathy", "Nobody can sign in. We are looking into it", status="investigating"),
            fact(16, "impact", "gary", support_requests=10),
            Action("identified", at(17), "greg", "The unknown process starves the web server"),
            task(17, "positive", "greg", "Ended the process", command="kill 4711"),
            task(
                18,
                "positive",
                "greg",
                "Stopped and started the web server",
                command="systemctl stop web && systemctl start web",
            ),
            Action("role", at(19), "gary", detail={"role": "communications", "person": "gary"}),
            fact(20, "update", "gary", "Signing in works again", status="resolved"),
            Action("resolve", at(20), "greg", "Signing in works again"),
            fact(24, "impact", "gary", support_requests=50),
        ],
        review=the_review(four),
    )


def the_review(four: datetime) -> Review:
    """At ten the next morning, for half an hour."""
    held_at = four + 18 * HOUR
    return Review(
        title="Nobody could sign in for 20 minutes",
        summary="A process that we do not know yet used nearly all of the CPU of the server behind the sign-in page. "
        "Users noticed first; support reached an engineer by chance. Ending the process and restarting the web server "
        "restored sign-in after 20 minutes.",
        customer_impact="For about 20 minutes nobody could sign in. Support received 50 requests.",
        resolution="The process was ended, and the web server restarted.",
        facilitator="greg",
        participants=[
            Participant("cathy", "first_responder"),
            Participant("greg", "escalation"),
            Participant("gary", "support"),
            Participant("bill", "affected"),
            Participant("debby", "communications", attended=False),
        ],
        held_at=held_at,
        lasted=30 * MINUTE,
        findings=[*_LEARNINGS, *_OTHER_FINDINGS],
        action_items=_action_items(held_at),
    )


def _learning(text: str, phase: str, element: str, *, new_to: int) -> Finding:
    return Finding("learning", text, phase, element, new_to=new_to)


_LEARNINGS = [
    _learning(
        "Users noticed before we did: none of our checks covers signing in",
        "detection", "technology", new_to=2,
    ),
    _learning(
        "Support reached an engineer because she happened to be online; we have no agreed way to call one",
        "response", "process", new_to=3,
    ),
    _learning(
        "Few of us know how to connect to the servers that everything depends on",
        "response", "people", new_to=3,
    ),
    _learning(
        "Getting access took the first responder several minutes and several attempts",
        "response", "process", new_to=2,
    ),
    _learning(
        "It is nobody's task to keep stakeholders and the status page up to date",
        "response", "process", new_to=4,
    ),
    _learning(
        "A process that nobody can name runs on a critical server",
        "remediation", "technology", new_to=3,
    ),
    _learning(
        "Calling in a colleague took minutes, because phone numbers are in an old shared document",
        "response", "process", new_to=3,
    ),
    _learning(
        "Part of the conversation was in chat and part on the phone, so no one followed all of it",
        "response", "process", new_to=2,
    ),
    _learning(
        "Greg was the only person to call, and he was at a family party; no one else had been named",
        "remediation", "people", new_to=1,
    ),
]  # fmt: skip
_OTHER_FINDINGS = [
    Finding("factor", "Reports of users reached us first", "detection", "process", factor="detected by customers"),
    Finding(
        "factor", "The guide to server access was in a mailbox",
        "response", "process", factor="documentation hard to find",
    ),
    Finding(
        "went_well", "Support took over all updates, so that both engineers could work on the repair",
        "response", "people",
    ),
    Finding("luck", "An engineer was online when support looked for one", "response", "people"),
    Finding(
        "human_factor", "Ending an unknown process on a critical server looked riskier than asking a colleague first",
        "remediation", "people",
    ),
    Finding("question", "What does the process do for the cache, and what made it so busy?", None, "technology"),
]  # fmt: skip
_DUE_AFTER_DAYS = {1: 7, 2: 30, 3: 90}  # by priority


def _action_items(held_at: datetime) -> list[ActionItem]:
    """Two have been done since."""

    def item(
        title: str,
        done_when: str,
        finding: int,
        phase: str,
        owner: str,
        priority: int,
        *,
        done_after: int | None = None,
    ) -> ActionItem:
        def after(days: int) -> datetime:
            return held_at + timedelta(days=days)

        return ActionItem(
            title,
            done_when,
            finding,
            phase,
            "short" if priority == 1 else "long",
            owner,
            priority,
            after(_DUE_AFTER_DAYS[priority]),
            None if done_after is None else after(done_after),
        )

    return [
        item(
            "Monitor the sign-in servers and alert before they are saturated",
            "A saturated CPU in staging alerts within two minutes",
            1, "detection", "greg", 1,
        ),
        item(
            "Start an on-call rotation that support knows",
            "Support calls whoever is on call, and reaches them in a drill",
            2, "response", "cathy", 1,
        ),
        item(
            "Publish how to get access to each system beside its runbook",
            "A new colleague gets onto a server within five minutes",
            3, "response", "cathy", 1, done_after=4,
        ),
        item(
            "Give every responder the access and rights that a repair needs",
            "Each of them has restarted a staging server",
            4, "remediation", "greg", 2,
        ),
        item(
            "Name who keeps the status page up to date, and how",
            "The first update of the next drill is out within ten minutes",
            5, "response", "gary", 1,
        ),
        item(
            "Define whom an alert reaches next, and by what means",
            "Each service has a second person who is called after ten minutes",
            9, "response", "bill", 2,
        ),
        item(
            "Publish the phone numbers of everyone who may be called in",
            "Anyone can find anyone's number within a minute",
            7, "response", "gary", 1, done_after=2,
        ),
        item(
            "Open one channel for each incident, and think aloud in it",
            "The timeline of the next incident is complete without anyone's memory",
            8, "response", "cathy", 2,
        ),
        item(
            "Show which engineers can be called and which are away",
            "Nobody who is away was called for a month",
            9, "response", "greg", 3,
        ),
    ]  # fmt: skip
