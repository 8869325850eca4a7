"""The command line: `aftermath serve | migrate | token … | demo | openapi | numbers`."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvloop
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from app import __version__
from app.base import db, postgres
from app.base.access import tokens as access_tokens
from app.base.access.tokens import Scope
from app.base.errors import Problem
from app.base.process import logs
from app.incidents.history import timeline
from app.ingest.receiver import alertmanager_receiver
from app.ingest.senders import SENDERS
from app.serve import STOP_SIGNALS, CannotServe, listen
from app.serve import serve as serve_on
from app.settings import Settings, WrongSettings, read_settings

KINDS = tuple(SENDERS)

log = logging.getLogger("aftermath")
cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
tokens = typer.Typer(no_args_is_help=True, help="Create, list and revoke tokens for senders and users.")
cli.add_typer(tokens, name="token")
out, err = Console(), Console(stderr=True)
T = TypeVar("T")


def _show_version(wanted: bool) -> None:  # noqa: FBT001  as typer calls it
    if wanted:
        out.print(f"aftermath {__version__}", highlight=False)
        raise typer.Exit


@cli.callback()
def aftermath(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Turn alerts into incidents and measure them. Configure with AFTERMATH_… environment variables."""


def _settings() -> Settings:
    try:
        return read_settings()
    except WrongSettings as error:
        raise _failed(*error.problems, status=2) from None


def _failed(*problems: str, status: int = 1) -> typer.Exit:
    """Prints each problem on its own line. Raise the returned exception."""
    for problem in problems:
        err.print(Text.assemble(("aftermath: ", "red"), problem), soft_wrap=True)
    return typer.Exit(status)


@cli.command()
def serve() -> None:
    """Run the service, with the built-in PostgreSQL unless AFTERMATH_DATABASE_URL is set.

    The first start creates the database and prints an admin token.
    """
    settings = _settings()
    logs.configure(settings.log_level)
    with suppress(asyncio.CancelledError):
        _run(_serve(settings))


async def _serve(settings: Settings) -> None:
    """Serves until a signal arrives. A signal during startup also stops PostgreSQL before this process exits."""
    this = asyncio.current_task()
    assert this is not None
    for number in STOP_SIGNALS:
        # Cancel only once: a second signal must not interrupt stopping PostgreSQL.
        asyncio.get_running_loop().add_signal_handler(number, lambda: this.cancelling() or this.cancel())
    async with AsyncExitStack() as at_stop:
        # Listen first: a port in use is detected at once, and senders can already connect and wait during startup.
        listening = at_stop.enter_context(listen(settings))
        settings = settings.model_copy(update={"port": listening.getsockname()[1]})
        if settings.database_url is None:
            url = await at_stop.enter_async_context(_built_in(settings))
            settings = settings.model_copy(update={"database_url": SecretStr(url)})
        assert settings.database_url is not None
        await _prepare(settings, settings.database_url.get_secret_value())
        log.info("serving on http://%s:%d", settings.host, settings.port)
        await serve_on(settings, listening)


@asynccontextmanager
async def _built_in(settings: Settings) -> AsyncIterator[str]:
    """Runs the built-in PostgreSQL during the block and yields the URL of the service's database."""
    async with await postgres.start(settings.data_dir) as built_in:
        yield await db.prepare_built_in(built_in.address)


async def _prepare(settings: Settings, url: str) -> None:
    """Migrates, renumbers a restored timeline and, on the first start, creates the tokens and prints them once."""
    engine = db.connect(url, pool_size=1, statement_seconds=None)
    try:
        with db.explained(url):
            await db.require_supported(engine)
            await db.migrate(engine)
            async with db.transaction(engine) as tx:
                if renumbered := await timeline.renumber_after_restore(tx):
                    log.info(
                        "the database was restored into another cluster; renumbered %d timeline entries", renumbered
                    )
            await _first_tokens(engine, settings)
    finally:
        await engine.dispose()


async def _first_tokens(engine: AsyncEngine, settings: Settings) -> None:
    now = datetime.now(UTC)
    async with db.session(engine) as session:
        await (await session.connection()).execute(_ONE_AT_A_TIME)  # replicas may start together
        scopes = {known.bearer.scope for known in await access_tokens.list_tokens(session)}
        if settings.admin_token is None and Scope.ADMIN not in scopes:
            admin = await access_tokens.create_token(session, "first admin", Scope.ADMIN, now=now)
            out.print(f"\n[bold]Your admin token, shown only once:[/] {admin}", highlight=False, soft_wrap=True)
            out.print(f"Open {_address(settings)} and sign in with this token.\n", highlight=False, soft_wrap=True)
        if Scope.INGEST not in scopes:
            ingest_token = await access_tokens.create_token(
                session, "first alertmanager", Scope.INGEST, now=now, source_name="alertmanager", kind="alertmanager"
            )
            out.print("[bold]Paste this into alertmanager.yml[/] (shown only once):\n", highlight=False)
            receiver = alertmanager_receiver(_address(settings), ingest_token)
            out.print(receiver, highlight=False, markup=False, soft_wrap=True)


_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('aftermath.first tokens'))")


def _address(settings: Settings) -> str:
    """Where browsers and senders on this machine, or outside if there is a public URL, reach the service."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  listens on all addresses
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


@cli.command()
def migrate() -> None:
    """Migrate the schema of an existing database. `serve` also does this when it starts."""
    _with_database(db.migrate)
    out.print("The schema is up to date.")


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="Purpose of the token, for example prometheus")],
    scope: Annotated[
        Scope, typer.Option(help="ingest: post to the webhook of one source; read, write, admin: use the API")
    ] = Scope.READ,
    source: Annotated[str | None, typer.Option(help="With scope ingest: name of the source")] = None,
    kind: Annotated[str | None, typer.Option(help=f"With ingest: {', '.join(KINDS)}")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Write the token to this file instead; if the file already has a valid token, none is created"
        ),
    ] = None,
) -> None:
    """Create a token and print it. It cannot be shown again."""
    if scope is Scope.INGEST and (not source or kind not in KINDS):
        raise _failed(f"an ingest token requires --source NAME and --kind, one of: {', '.join(KINDS)}", status=2)
    if scope is not Scope.INGEST and (source or kind):
        raise _failed("--source and --kind are only valid with --scope ingest", status=2)

    presented = _read_token(file) if file else ""

    async def create(engine: AsyncEngine) -> str:
        async with db.session(engine) as session:
            if file and await _is_valid(session, presented, name, scope, source):
                return f"{file} already has a valid token; none was created."
            token = await access_tokens.create_token(
                session,
                name,
                scope,
                now=datetime.now(UTC),
                source_name=source,
                kind=kind or "",
                alphanumeric=kind in KINDS and SENDERS[kind].alphanumeric_tokens,
            )
            if file is None:
                return token
            _write_token(file, token)  # before the commit: if it fails, no token is left behind
            return f"Wrote the token to {file}."

    out.print(_with_database(create), highlight=False, markup=False, soft_wrap=True)


async def _is_valid(session: AsyncSession, presented: str, name: str, scope: Scope, source: str | None) -> bool:
    """Whether it is a token with these properties that is not revoked."""
    public = access_tokens.id_of(presented)
    known = await access_tokens.find_token(session, public) if public else None
    if known is None or not known.is_valid(datetime.now(UTC)) or not access_tokens.matches(known, presented):
        return False
    return (known.bearer.name, known.bearer.scope, known.bearer.source) == (name, scope, source)


def _read_token(file: Path) -> str:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise _failed(f"cannot read {file}: {error}") from None


def _write_token(file: Path, token: str) -> None:
    """Replaces the file in one step. Its owner and group can read it."""
    staging = file.with_name(f".{file.name}.new")
    try:
        staging.unlink(missing_ok=True)
        with os.fdopen(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(token)
            os.fchmod(opened.fileno(), 0o640)
            os.fsync(opened.fileno())
        staging.rename(file)
    except OSError as error:
        raise _failed(f"cannot write {file}: {error}") from None


@tokens.command("list")
def list_tokens() -> None:
    """List tokens, without their secrets."""

    async def known(engine: AsyncEngine) -> list[access_tokens.KnownToken]:
        async with db.session(engine) as session:
            return await access_tokens.list_tokens(session)

    def shown(at: datetime | None) -> str:
        return f"{at:%Y-%m-%d %H:%M}" if at else ""

    table = Table("id", "name", "scope", "source", "created", "last used", "expires", "revoked")
    for one in _with_database(known):
        table.add_row(
            one.row.id,
            one.row.name,
            one.bearer.scope,
            one.bearer.source or "",
            *map(shown, (one.row.created_at, one.row.last_used_at, one.row.expires_at, one.row.revoked_at)),
        )
    out.print(table)


@tokens.command("revoke")
def revoke_token(
    token: Annotated[
        str, typer.Argument(help="Id of a token from `aftermath token list`, or the name of one or more tokens")
    ],
) -> None:
    """Revoke a token, or all with this name. Running processes may accept it for a few more seconds."""

    async def revoke(engine: AsyncEngine) -> None:
        async with db.session(engine) as session:
            named = {one.row.name for one in await access_tokens.list_tokens(session) if not one.row.revoked_at}
            if token in named:
                await access_tokens.revoke_tokens(session, token, now=datetime.now(UTC))
            else:
                await access_tokens.revoke_token(session, token, now=datetime.now(UTC))

    _with_database(revoke)
    out.print(f"Revoked {token}.", highlight=False, markup=False)


@cli.command()
def openapi(
    file: Annotated[Path | None, typer.Argument(help="File to write; default: standard output")] = None,
) -> None:
    """Write the OpenAPI document as YAML."""
    _settings()  # reports invalid settings as usual
    from app.openapi import as_yaml

    document = as_yaml(openapi_document())
    if file:
        file.write_text(document)
    else:
        sys.stdout.write(document)


@cli.command()
def numbers(
    file: Annotated[Path, typer.Argument(help="Page in which the reference is replaced")] = Path("docs/numbers.md"),
) -> None:
    """Update the reference of all numbers in the documentation. Needs a source checkout."""
    from app.metrics.reference import REFERENCE_BEGINS, reference

    if not file.exists():
        raise _failed(f"{file} does not exist: run this in a source checkout, or pass the path of the page", status=2)
    prose, _, _ = file.read_text().partition(REFERENCE_BEGINS)
    file.write_text(prose + reference())


def openapi_document() -> dict[str, Any]:
    """The document as the app serves it, independent of settings."""
    return json.loads(_openapi_json())  # type: ignore[no-any-return]


@cache
def _openapi_json() -> str:
    from app.main import create_api

    return json.dumps(create_api(Settings()).openapi())


@cli.command()
def demo(
    *,
    url: Annotated[str | None, typer.Option(help="Address of the service; default: from its settings")] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the random incidents; a different seed creates different incidents")
    ] = 1906,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the demo, and nothing else")] = False,
) -> None:
    """Load a quarter of sample incidents, deployments and actions into the running service, in about a minute.

    Everything it creates has a name that begins with `demo`. It refuses to run if such a name is already in use.
    """
    from app import demo as the_demo

    if remove:
        removed = _with_database(the_demo.remove)
        out.print(f"Removed the demo: {removed.incidents} incidents and {removed.deployments} deployments.")
        return
    settings = _settings()
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104  listens on all
    address = url or f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    _with_database(lambda engine: the_demo.play(engine, address, out, seed=seed))


# — running —


@asynccontextmanager
async def _database() -> AsyncIterator[AsyncEngine]:
    """The database of the service. The built-in one is started for the block if necessary, but never created."""
    settings = _settings()
    async with AsyncExitStack() as at_stop:
        started = False
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
        elif running := postgres.running(settings.data_dir):
            url = running.service_url(db.DATABASE)
        elif postgres.has_cluster(settings.data_dir):
            url, started = await at_stop.enter_async_context(_built_in(settings)), True
        else:
            raise NoData(settings.data_dir)
        engine = db.connect(url, pool_size=1)
        at_stop.push_async_callback(engine.dispose)
        with db.explained(url):
            await db.require_supported(engine)
            if started:
                await db.migrate(engine)
            yield engine


class NoData(Exception):
    """There is no database yet. The message explains how to configure or create one."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            f"there is no database in {data_dir.absolute()}: set AFTERMATH_DATA_DIR or AFTERMATH_DATABASE_URL as for "
            "the service, or start the service once (`aftermath serve` creates the database)"
        )


def _with_database(action: Callable[[AsyncEngine], Awaitable[T]]) -> T:
    async def act() -> T:
        async with _database() as engine:
            return await action(engine)

    return _run(act())


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Prints expected errors as one line with the remedy instead of a traceback."""
    try:
        return uvloop.run(coroutine)
    except (
        postgres.CannotStart,
        db.UnsupportedServer,
        db.CannotUseDatabase,
        CannotServe,
        NoData,
        Problem,
    ) as error:
        raise _failed(str(error)) from None
