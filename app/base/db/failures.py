"""Explains to the user why a command could not use the database."""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from app.base.db.engine import is_unreachable, state_of, why_not_connected
from app.settings import database_address


class CannotUseDatabase(Exception):
    """The message has the host, port, database and cause, never the password."""


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turns failures to connect to the database, or to find the expected tables, into CannotUseDatabase."""
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
    """Host and port, or the directory of a socket; all of them if there are several hosts."""
    hosts = address.normalized_query.get("host", ()) or (address.host or "localhost",)
    places = []
    for host in hosts:
        name, _, port = host.partition(":")
        places.append(host if host.startswith("/") else f"{name}:{port or address.port or 5432}")
    return ", ".join(places)


def _cause(error: Exception, address: URL) -> str | None:
    """None if the error has an unrelated cause."""
    known = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if cause := _BY_STATE.get(state_of(error)):
        return cause.format(user=address.username, error=known)
    if isinstance(known, TypeError) and (unknown := re.search(r"unexpected keyword argument '(\w+)'", str(known))):
        return f"AFTERMATH_DATABASE_URL has the unsupported parameter {unknown[1]}"
    if isinstance(known, ssl.SSLError):
        return f"TLS failed ({known.reason or known})"
    return why_not_connected(known) if is_unreachable(error) else None


_BY_STATE = {
    "28P01": "the password of {user} is wrong; correct it in AFTERMATH_DATABASE_URL",
    "28000": "it rejected the user {user} ({error})",
    "42501": "the user {user} lacks a required privilege ({error})",
    "3D000": "the database does not exist; create it, or correct AFTERMATH_DATABASE_URL",
    "42P01": "it does not contain Aftermath's tables; run `aftermath migrate`",
    "42703": "its schema is older than this version; run `aftermath migrate`",
    "53300": "it has no free connections; raise max_connections, or stop other clients",
    "57P03": "it is starting up or shutting down; try again later",
    "25006": "it is read-only, probably a standby; set AFTERMATH_DATABASE_URL to the primary",
}
