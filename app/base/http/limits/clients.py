"""Fairness between clients: a limit of connections that no network can use up alone, and slower responses to a network
that presents wrong tokens.
"""

import asyncio
import ipaddress
import logging
import resource
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from app.base.errors import Overloaded

log = logging.getLogger("aftermath.http")

Clock = Callable[[], float]  # monotonic, in seconds
Sleep = Callable[[float], Awaitable[None]]


def network_of(client: Any) -> str:
    """The network by which limits count a client: its IPv4 address, or the first 64 bits of its IPv6 address.

    `client` is the `client` of an ASGI scope, a pair of address and port. Behind a proxy it is the proxy's.
    """
    try:
        address = ipaddress.ip_address(client[0])
    except (TypeError, ValueError, IndexError):
        return ""
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


# — connections —

RESERVED = 32  # connections for health checks, beyond the limit
OWN_FILES = 256  # for PostgreSQL, the spool and everything else that is not a client's connection
BURST_FILES = 2048  # connections that the kernel may hand over before the first of them can be refused
IDLE_SECONDS = 1.0  # a connection that has been idle for less is not closed in favor of one of its own network
REPORT_SECONDS = 60.0


class Connection(Protocol):
    """A client's connection."""

    network: str

    def idle_since(self) -> float | None:
        """When it began to wait for the client's next request or for the rest of it; None while it has work."""

    def evict(self) -> None:
        """Closes it at once."""


class Connections:
    """The connections of one process: at most `at_most`, and a few more for health checks only.

    When all are in use, a new connection takes the place of the one that has been idle for longest in the network with
    the most connections. So a client that opens many can only keep out itself.
    """

    def __init__(self, at_most: int, *, clock: Clock = time.monotonic) -> None:
        self.at_most = at_most
        self._clock = clock
        self._count = 0
        self._networks: dict[str, dict[Connection, None]] = {}
        self._reserved: dict[Connection, None] = {}
        self._evicted = self._refused = 0
        self._reported_at = -REPORT_SECONDS

    def add(self, one: Connection) -> bool:
        """Whether it may send any request; if not, it may only ask for the health of the process."""
        if self._count >= self.at_most and not self._make_room(one.network):
            self._refused += 1
            self._report()
            self._reserve(one)
            return False
        self._networks.setdefault(one.network, {})[one] = None
        self._count += 1
        return True

    def remove(self, one: Connection) -> None:
        self._reserved.pop(one, None)
        if (mine := self._networks.get(one.network)) and one in mine:
            del mine[one]
            self._count -= 1
            if not mine:
                del self._networks[one.network]

    def _make_room(self, network: str) -> bool:
        largest = max(self._networks.values(), key=len)
        found = None
        if len(largest) > len(self._networks.get(network, ())) + 1:
            found = _longest_idle(largest)
        if found is None:
            found = min(filter(None, map(_longest_idle, self._networks.values())), key=_idle_since, default=None)
            if found is not None and self._clock() - _idle_since(found) < IDLE_SECONDS:
                found = None
        if found is None:
            return False
        self._evicted += 1
        self._report()
        self.remove(found)
        found.evict()
        return True

    def _reserve(self, one: Connection) -> None:
        if len(self._reserved) >= RESERVED:
            replaced = _longest_idle(self._reserved) or one
            self.remove(replaced)
            replaced.evict()
            if replaced is one:
                return
        self._reserved[one] = None

    def _report(self) -> None:
        if self._clock() - self._reported_at < REPORT_SECONDS:
            return
        self._reported_at = self._clock()
        log.warning(
            "all %d connections (AFTERMATH_MAX_CONNECTIONS) are in use: idle ones closed since the last report: %d, "
            "new ones refused: %d",
            self.at_most,
            self._evicted,
            self._refused,
        )
        self._evicted = self._refused = 0


def _longest_idle(connections: dict[Connection, None]) -> Connection | None:
    idle = [one for one in connections if one.idle_since() is not None]
    return min(idle, key=_idle_since, default=None)


def _idle_since(one: Connection) -> float:
    since = one.idle_since()
    assert since is not None
    return since


def connections_within_file_limit(wanted: int) -> int:
    """Raises the limit of open files as far as `wanted` connections need it and the system allows; returns the number
    of connections that fit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    need = wanted + RESERVED + OWN_FILES + BURST_FILES
    if soft != unlimited and soft < need:
        soft = need if hard == unlimited else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    fit = wanted if soft == unlimited else max(1, min(wanted, soft - RESERVED - OWN_FILES))
    if fit < wanted:
        log.warning(
            "accepting up to %d connections, not %d: this process may only open %d files; raise its hard limit "
            "(LimitNOFILE= in systemd, ulimits in compose) or lower AFTERMATH_MAX_CONNECTIONS",
            *(fit, wanted, soft),
        )
    else:
        log.info("accepting up to %d connections; this process may open %s files", fit, soft)
    return fit


# — wrong tokens —

FREE_FAILURES = 20.0  # a network may present this many wrong tokens at once,
FORGOTTEN_PER_SECOND = 1.0  # and this many a second; further ones are answered later
LONGEST_DELAY_SECONDS = 3.0
DELAYED_AT_MOST = 50  # requests of a network that wait at the same time; further ones are answered 503
NETWORKS_AT_MOST = 10_000


class Failures:
    """Wrong tokens by network. Requests with valid tokens are not delayed, whatever else their network sends."""

    def __init__(self, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self._clock, self._sleep = clock, sleep
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()  # count and its time
        self._delayed: dict[str, int] = {}

    def note(self, client: Any) -> None:
        """Counts a wrong token."""
        network = network_of(client)
        self._counts[network] = (self._count(network) + 1, self._clock())
        self._counts.move_to_end(network)
        if len(self._counts) > NETWORKS_AT_MOST:
            self._counts.popitem(last=False)

    async def delay(self, client: Any) -> None:
        """Waits if the network has presented too many wrong tokens. Raises Overloaded if too many requests wait."""
        if not self._counts:
            return
        network = network_of(client)
        seconds = min((self._count(network) - FREE_FAILURES) / FORGOTTEN_PER_SECOND, LONGEST_DELAY_SECONDS)
        if seconds <= 0:
            return
        waiting = self._delayed.get(network, 0)
        if waiting >= DELAYED_AT_MOST:
            raise Overloaded("too many requests with wrong tokens from this address; retry later")
        self._delayed[network] = waiting + 1
        try:
            await self._sleep(seconds)
        finally:
            self._delayed[network] -= 1
            if not self._delayed[network]:
                del self._delayed[network]

    def _count(self, network: str) -> float:
        count, at = self._counts.get(network, (0.0, 0.0))
        return max(0.0, count - (self._clock() - at) * FORGOTTEN_PER_SECOND)
