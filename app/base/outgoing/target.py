"""Parses the URLs that the service calls. Pure.

The rules are stricter than the standard's, so that no two programs read a URL differently.
"""

import re
from dataclasses import dataclass

from app.base.outgoing.addresses import Address, host_name, literal

URL_AT_MOST = 2000  # characters
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed URL. `host` is a name, or an address as the URL standard writes it; IPv6 without brackets."""

    scheme: str
    host: str
    port: int
    path: str  # with the query; may be empty
    address: Address | None  # if the host is an address

    @property
    def name(self) -> str | None:
        return self.host if self.address is None else None

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    @property
    def url(self) -> str:
        return self.origin + self.path


def parse(url: str) -> Target:
    """Raises ValueError, with the reason as message."""
    if len(url) > URL_AT_MOST:
        raise ValueError(f"the URL must have at most {URL_AT_MOST} characters")
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("must be a URL such as https://example.com:9093/path, in ASCII")
    scheme, authority, path = found["scheme"].lower(), found["authority"], found["path"] or ""
    if "@" in authority:
        raise ValueError("the URL must not contain a user name or password; use the fields for credentials")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise ValueError("the host must be a name or an IP address, and the port a number")
    port = int(parts["port"]) if parts["port"] else _PORTS[scheme]
    # Below 1024 other protocols have their ports, and some servers would execute parts of an HTTP request.
    if not (port in _PORTS.values() or 1024 <= port < 2**16):
        raise ValueError("the port must be 80, 443, or between 1024 and 65535")
    host = parts["host"]
    address = literal(host.removesuffix("."))
    name = None if address else host_name(host)
    if address is None and name is None:
        raise ValueError(
            "the host must be a name (international ones as `xn--…`), an IPv4 address of four decimal numbers, or an "
            "IPv6 address in brackets without a scope"
        )
    return Target(scheme, str(address) if address else str(name), port, path, address)


_ANY_CASE = re.ASCII | re.IGNORECASE
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#\\]+)(?P<path>[/?][!$-;=?-Z_a-z~%]*)?", _ANY_CASE)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>[1-9][0-9]{0,4}))?", _ANY_CASE)
