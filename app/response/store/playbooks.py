"""SQL for playbooks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from app.base.access.tokens import Bearer
from app.base.errors import Conflict, Invalid, NotFound, ServiceNotFound
from app.base.schema import Playbook, Service
from app.incidents.actions import Ref, find
from app.incidents.grouping.timeline_kind import IS_CURRENT, TimelineKind
from app.incidents.history.path import Effect
from app.incidents.services import add_service
from app.response.playbooks import PlaybookState, state_of, version_in_use

PLAYBOOKS_AT_MOST = 200  # of a service
VERSIONS_AT_MOST = 200
VALID_FOR, LONGEST = timedelta(days=180), timedelta(days=400)
SOON = timedelta(days=30)
LATELY = timedelta(days=90)


class PlaybookNotFound(NotFound):
    title = "Playbook not found"


class TooManyPlaybooks(Conflict):
    title = "Too many playbooks"


class SameToken(Conflict):
    title = "Another token is needed"


class NotVerified(Conflict):
    title = "Playbook is not verified"


class IsWithdrawn(Conflict):
    title = "Playbook was withdrawn"


class WrongExpiry(Invalid):
    title = "Expiry out of range"


async def playbooks_of(session: AsyncSession, service: str) -> Mapping[str, Sequence[Playbook]]:
    """All versions of each playbook of the service, newest first, without their bodies. Raises ServiceNotFound."""
    if await session.get(Service, service) is None:
        raise ServiceNotFound(service)
    return await versions_of(session, service)


async def versions_of(session: AsyncSession, service: str) -> Mapping[str, Sequence[Playbook]]:
    """As `playbooks_of`, also for an unknown service. One statement."""
    query = (
        select(Playbook)
        .where(Playbook.service == service)
        .order_by(col(Playbook.name), col(Playbook.version).desc())
        .options(defer(col(Playbook.body)))  # type: ignore[arg-type]  # col() gives the mapped attribute
    )
    found: dict[str, list[Playbook]] = defaultdict(list)
    for each in await session.exec(query):
        found[each.name].append(each)
    return found


async def find_version(session: AsyncSession, service: str, name: str, version: int, *, lock: bool = True) -> Playbook:
    """With its body. Raises PlaybookNotFound."""
    query = select(Playbook).where(Playbook.service == service, Playbook.name == name, Playbook.version == version)
    query = query.with_for_update() if lock else query
    found = (await session.exec(query.execution_options(populate_existing=True))).one_or_none()
    if found is None:
        message = "the service has no such version of a playbook; GET /api/v1/services/{name}/playbooks lists them"
        raise PlaybookNotFound(message)
    return found


async def put_playbook(
    session: AsyncSession,
    service: str,
    name: str,
    *,
    body: str | None,
    link: str | None,
    author: str,
    token: Bearer,
    now: datetime,
) -> tuple[Playbook, bool]:
    """The newest version, and whether it is new: the same content makes none, unless it was withdrawn.

    An unknown service is added. Raises TooManyPlaybooks.
    """
    await add_service(session, service, now=now)
    # The lock serializes concurrent versions. It is as weak as that of an UPDATE.
    query = select(Service).where(col(Service.name) == service).with_for_update(key_share=True)
    (await session.exec(query)).one()
    known = await versions_of(session, service)
    version = 1
    if name in known:
        newest = await find_version(session, service, name, known[name][0].version)
        if (newest.body, newest.link) == (body, link) and newest.withdrawn_at is None:
            return newest, False
        version = newest.version + 1
    elif len(known) >= PLAYBOOKS_AT_MOST:
        message = f"the service has {len(known)} playbooks already; write a version of one of them"
        raise TooManyPlaybooks(message)
    if version > VERSIONS_AT_MOST:
        message = f"the playbook has {VERSIONS_AT_MOST} versions already; use another name"
        raise TooManyPlaybooks(message)
    row = Playbook(
        service=service,
        name=name,
        version=version,
        body=body,
        link=link,
        author=author,
        author_token=token.id,
        created_at=now,
    )
    session.add(row)
    await session.flush()
    return row, True


async def verify(
    session: AsyncSession, row: Playbook, *, by: str, token: Bearer, ref: Ref | None, now: datetime
) -> Playbook:
    """Records that someone else followed it, in this incident if there was one. Repeating it changes nothing.

    Raises IsWithdrawn, SameToken or IncidentNotFound.
    """
    _require_another(row, token, "verify")
    if row.verified_at is None:
        followed_in = None if ref is None else (await find(session, ref)).id
        row.verified_at, row.verified_by, row.verified_token, row.verified_in = now, by, token.id, followed_in
        await session.flush()
    return row


async def approve(
    session: AsyncSession, row: Playbook, *, by: str, token: Bearer, expires_at: datetime | None, now: datetime
) -> Playbook:
    """Approves it, or approves it again with another expiry.

    Raises IsWithdrawn, SameToken, NotVerified or WrongExpiry.
    """
    _require_another(row, token, "approve")
    if row.verified_at is None:
        message = "no one has verified this version; someone must first follow it and then verify it"
        raise NotVerified(message)
    expires_at = expires_at or now + VALID_FOR
    if not now < expires_at <= now + LONGEST:
        message = f"`expires_at` must be in the future, and at most {LONGEST.days} days from now"
        raise WrongExpiry(message)
    row.approved_at, row.approved_by, row.approved_token = max(now, row.verified_at), by, token.id
    row.expires_at = expires_at
    await session.flush()
    return row


async def withdraw(session: AsyncSession, row: Playbook, *, now: datetime) -> Playbook:
    """Repeating it changes nothing."""
    row.withdrawn_at = row.withdrawn_at or now
    await session.flush()
    return row


class PlaybookInUse(Conflict):
    title = "Playbook is in use"


async def delete_playbook(session: AsyncSession, service: str, name: str) -> None:
    """All versions. Raises PlaybookNotFound, or PlaybookInUse if a task has named it."""
    rows = (await session.exec(_all_versions(service, name).with_for_update())).all()
    if not rows:
        message = "the service has no such playbook; GET its playbooks lists them"
        raise PlaybookNotFound(message)
    if (await (await session.connection()).execute(_NAMED, {"service": service, "name": name})).first():
        message = "tasks name it as the playbook that was followed; withdraw its versions instead"
        raise PlaybookInUse(message)
    for row in rows:
        await session.delete(row)


def _all_versions(service: str, name: str) -> SelectOfScalar[Playbook]:
    return select(Playbook).where(Playbook.service == service, Playbook.name == name)


# Also tasks that were corrected or withdrawn: their entries stay in the timeline.
_NAMED = text(f"""
    SELECT 1
      FROM timeline
     WHERE kind = '{TimelineKind.TASK}'
       AND detail #>> '{{playbook,service}}' = :service
       AND detail #>> '{{playbook,name}}' = :name
     LIMIT 1
""")  # noqa: S608


def _require_another(row: Playbook, token: Bearer, verb: str) -> None:
    if row.withdrawn_at is not None:
        message = "this version was withdrawn; create a new version with PUT"
        raise IsWithdrawn(message)
    if token.id == row.author_token:
        message = (
            f"the author's token cannot {verb} it; {verb} it with another token, which `aftermath token create --scope "
            "write` creates"
        )
        raise SameToken(message)


# — use —

Uses = Mapping[tuple[str, int], Mapping[Effect, int]]  # by name and version of a playbook; those never used are missing


async def uses_of(session: AsyncSession, service: str, name: str | None = None) -> Uses:
    """How many tasks followed each version of the service's playbooks, by their effect; with `name`, of this one.

    One statement.
    """
    found: dict[tuple[str, int], dict[Effect, int]] = defaultdict(lambda: dict.fromkeys(Effect, 0))
    rows = await (await session.connection()).execute(_USES, {"service": service, "name": name})
    for playbook, version, effect, tasks in rows:
        found[playbook, version][Effect(effect)] = tasks
    return found


# The kind is literal, so that the partial index applies.
_USES = text(f"""
    SELECT detail #>> '{{playbook,name}}', CAST(detail #>> '{{playbook,version}}' AS integer), detail ->> 'effect',
           count(*)
      FROM timeline
     WHERE kind = '{TimelineKind.TASK}'
       AND detail #>> '{{playbook,service}}' = :service
       AND (CAST(:name AS text) IS NULL OR detail #>> '{{playbook,name}}' = :name)
       AND {IS_CURRENT}
     GROUP BY 1, 2, 3
""")  # noqa: S608


# — coverage —


@dataclass(frozen=True, slots=True)
class Coverage:
    """`without`: services with an incident lately, but no approved playbook. `expiring`: approved, but not for long."""

    without: Sequence[str]
    expiring: Sequence[Playbook]


Versions = Mapping[tuple[str, str], Sequence[Playbook]]  # by service and name, newest first, without their bodies


async def every_playbook(session: AsyncSession) -> Versions:
    """In order of service and name. One statement."""
    found: dict[tuple[str, str], list[Playbook]] = defaultdict(list)
    query = select(Playbook).options(defer(col(Playbook.body)))  # type: ignore[arg-type]  # as above
    order = (col(Playbook.service), col(Playbook.name), col(Playbook.version).desc())
    for each in await session.exec(query.order_by(*order)):
        found[each.service, each.name].append(each)
    return found


async def coverage(session: AsyncSession, found: Versions, *, now: datetime) -> Coverage:
    """`found` are all playbooks. One statement."""
    lately = await (await session.connection()).execute(_SERVICES_LATELY, {"since": now - LATELY})
    used = (version_in_use(versions, now=now) for versions in found.values())
    approved = [each for each in used if each and state_of(each, now=now) is PlaybookState.APPROVED]
    covered = {each.service for each in approved}
    return Coverage(
        [service for service in lately.scalars() if service not in covered],
        [each for each in approved if each.expires_at is not None and each.expires_at <= now + SOON],
    )


_SERVICES_LATELY = text("""
    SELECT DISTINCT coalesce(service_stated, service) AS service
      FROM incident
     WHERE merged_into IS NULL
       AND test_stated IS NOT TRUE
       AND alert_class = 'service'
       AND began_at >= :since
     ORDER BY 1
""")
