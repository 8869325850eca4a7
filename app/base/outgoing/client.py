"""The HTTP client for every request that leaves the service.

It connects only to permitted addresses. A name is resolved once per session; all of its addresses are checked, and the
connection goes to one of these addresses, so a later answer of the name server has no effect. The TLS handshake and the
Host header still have the name, and the certificate must be valid for it.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from ipaddress import ip_address

import httpx

from app.base.errors import Invalid
from app.base.outgoing.addresses import Address, Allowed, Reach, allowed, kind_of
from app.base.outgoing.target import Target, parse

RESOLVE_SECONDS = 5.0
CONNECT_SECONDS = 5.0  # for each address
ATTEMPTS = 4  # addresses of one name that are tried
SESSIONS = 16  # open at once, in one process
SETTING = "AFTERMATH_OUTBOUND_ALLOW"

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class NotAllowed(Invalid):
    """The service must not call this address. The message names the address and the setting that would permit it."""

    title = "Address not allowed"


class NoAnswer(Exception):
    """The host could not be reached, or did not respond in time. The message contains nothing the host sent."""


class NotResolved(NoAnswer):
    pass


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: bytes


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name according to the system. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(address[0]) for *_, address in found]


class OutgoingClient:
    """Makes requests to permitted addresses. `tls` replaces the certificate authorities of the system."""

    def __init__(
        self,
        allow: str = "",
        *,
        proxy: str | None = None,
        resolver: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed: Allowed = allowed(allow)
        self._proxy = proxy
        self._resolve = resolver
        self._tls = tls
        self._turns = asyncio.Semaphore(SESSIONS)

    async def check(self, url: str) -> None:
        """Raises NotAllowed. A name that cannot be resolved now is accepted, because each session checks again."""
        with suppress(NotResolved):
            await self._route(url)

    @asynccontextmanager
    async def session(
        self, url: str, *, within: timedelta, headers: Mapping[str, str]
    ) -> AsyncIterator["OutgoingSession"]:
        """Requests to one host, which share a connection, in a time limit for all of them.

        `headers` are sent with each. Raises NotAllowed and NoAnswer.
        """
        try:
            async with asyncio.timeout(within.total_seconds()), self._turns:
                route = await self._route(url)
                async with httpx.AsyncClient(
                    transport=self._transport(route),
                    # A compressed response could expand to a huge size.
                    headers={**headers, "Accept-Encoding": "identity"},
                    timeout=httpx.Timeout(within.total_seconds(), connect=CONNECT_SECONDS),
                    follow_redirects=False,
                    # Otherwise proxies and .netrc in the environment would receive requests or add credentials.
                    trust_env=False,
                ) as client:
                    yield OutgoingSession(client, route.target)
        except TimeoutError:
            raise NoAnswer("did not respond in time") from None

    async def _route(self, url: str) -> "_Route":
        """The only function that decides. Raises NotAllowed and NotResolved."""
        try:
            target = parse(url)
        except ValueError as error:
            raise NotAllowed(str(error)) from None
        if target.address is not None:
            addresses = [target.address]
        else:
            try:
                addresses = await self._addresses(target)
            except NotResolved:
                if self._proxy is None or target.host in self._allowed.names or target.scheme == "http":
                    raise
                return _Route(target, (), through_proxy=True)  # the proxy may be able to resolve it
        is_listed = True
        for address in addresses:
            is_permitted = self._allowed.permits(target.name, address)
            is_listed = is_listed and is_permitted
            kind = kind_of(address)
            if kind.reach is not Reach.PUBLIC and not is_permitted:
                raise NotAllowed(f"{_subject(target, address)}, {kind.name}. {_remedy(target, address, kind.reach)}")
        if target.scheme == "http" and not is_listed:
            raise NotAllowed(
                f"http:// would send everything to {target.host} unencrypted: use https://, or permit its address "
                f"({addresses[0]}) with {SETTING}"
            )
        return _Route(target, tuple(addresses), through_proxy=self._proxy is not None and not is_listed)

    async def _addresses(self, target: Target) -> list[Address]:
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            found = []
        if not found:
            raise NotResolved("its host name cannot be resolved")
        return [ip_address(one.partition("%")[0]) for one in dict.fromkeys(found)]

    def _transport(self, route: "_Route") -> "_ToRoute":
        proxy = self._proxy if route.through_proxy else None
        return _ToRoute(route, httpx.AsyncHTTPTransport(verify=self._tls or _trusted(), trust_env=False, proxy=proxy))


class OutgoingSession:
    """Requests to one host. Redirects are answers like any other and not followed."""

    def __init__(self, client: httpx.AsyncClient, target: Target) -> None:
        self._client = client
        self._target = target

    async def get(self, path: str = "", *, at_most: int) -> Answer:
        """The response from the session's URL with `path` appended. Raises NoAnswer, also if the body is longer than
        `at_most` bytes.
        """
        base = self._target.path.rstrip("/") if path else self._target.path
        try:
            async with self._client.stream("GET", self._target.origin + base + path) as response:
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > at_most:
                        raise NoAnswer(f"sent more than {at_most} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise NoAnswer(f"cannot be reached ({type(error).__name__})") from None
        return Answer(response.status_code, response.headers, bytes(body))


# — the connection —


@dataclass(frozen=True, slots=True)
class _Route:
    """A target whose addresses are all permitted."""

    target: Target
    addresses: tuple[Address, ...]
    through_proxy: bool


class _ToRoute(httpx.AsyncBaseTransport):
    """Sends requests to the addresses of a route, and to nothing else."""

    def __init__(self, route: _Route, inner: httpx.AsyncHTTPTransport) -> None:
        self._route = route
        self._inner = inner
        self._addresses = route.addresses[:ATTEMPTS]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = self._route.target
        if f"{request.url.scheme}://{request.url.netloc.decode()}" != target.origin:
            raise httpx.UnsupportedProtocol("the request is for another host than the session")
        if self._route.through_proxy:
            return await self._inner.handle_async_request(request)
        for address in self._addresses:
            try:
                response = await self._inner.handle_async_request(_pinned(request, target, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed = error
            else:
                self._addresses = (address,)
                return response
        raise failed

    async def aclose(self) -> None:
        await self._inner.aclose()


def _pinned(request: httpx.Request, target: Target, address: Address) -> httpx.Request:
    """The request with the address in its URL. The Host header was set before and stays; the extension is httpx's
    documented way to keep the name in the TLS handshake and to check the certificate for it.
    """
    extensions = dict(request.extensions)
    if target.name is not None:
        extensions["sni_hostname"] = target.name
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions=extensions,
    )


@cache
def _trusted() -> ssl.SSLContext:
    """The certificate authorities of the system, or those in SSL_CERT_FILE."""
    return ssl.create_default_context()


# — messages —


def _subject(target: Target, address: Address) -> str:
    return f"the host is {address}" if target.name is None else f"{target.name} resolves to {address}"


def _remedy(target: Target, address: Address, reach: Reach) -> str:
    if reach is Reach.FORBIDDEN:
        return f"Only the entry {address} in {SETTING} would permit it"
    entries = [*([target.name] if target.name else []), str(address)]
    return f"To permit it, add {', '.join(entries)} or a network that contains it to {SETTING}"
