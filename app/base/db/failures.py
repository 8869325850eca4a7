"""Why a command could not work with the database, in a sentence for the person who started it."""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from app.base.db.engine import is_unreachable, state_of, why_not_connected
from app.settings import database_address


class CannotUseDatabase(Exception):
    """Names host, port, database and cause, never the password."""


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Failures to connect to the database of `url`, or to find our tables in it, become CannotUseDatabase."""
    try:
        yield
    except Exception as error:
        address = database_address(url)
        if cause := _cause(error, address):
            raise CannotUseDatabase(
                f"cannot use the database {address.database} at {_place(address)}: {cause}"
            ) from error
        raise


def _place(address: URL) -> str:
    """Host and port; of a socket its directory; of several hosts all."""
    hosts = address.normalized_query.get("host", ()) or (address.host or "localhost",)
    places = []
    for host in hosts:
        name, _, port = host.partition(":")
        places.append(host if host.startswith("/") else f"{name}:{port or address.port or 5432}")
    return ", ".join(places)


def _cause(error: Exception, address: URL) -> str | None:
    """None if the error is about something else."""
    known = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if cause := _BY_STATE.get(state_of(error)):
        return cause.format(user=address.username, error=known)
    if isinstance(known, TypeError) and (unknown := re.search(r"unexpected keyword argument '(\w+)'", str(known))):
        return f"AFTERMATH_DATABASE_URL has the parameter {unknown[1]}, which is not supported"
    if isinstance(known, ssl.SSLError):
        return f"TLS failed ({known.reason or known})"
    return why_not_connected(known) if is_unreachable(error) else None


_BY_STATE = {
    "28P01": "the password of {user} is wrong; correct it in AFTERMATH_DATABASE_URL",
    "28000": "it refused the user {user} ({error})",
    "42501": "the user {user} lacks a privilege there ({error})",
    "3D000": "there is no database of that name; create it, or correct AFTERMATH_DATABASE_URL",
    "42P01": "it has no tables of Aftermath; run `aftermath migrate`",
    "42703": "its schema is older than this version; run `aftermath migrate`",
    "53300": "it has no connection left; raise max_connections, or stop other clients",
    "57P03": "it is starting up or shutting down; try again",
    "25006": "it is read-only, like a standby; name the primary in AFTERMATH_DATABASE_URL",
}
