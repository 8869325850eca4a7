"""Which connection makes room when all are in use, and the network of an address."""

from dataclasses import dataclass
from typing import Any

import pytest

from app.base.http.limits import clients
from app.base.http.limits.clients import RESERVED, Connections, network_of


@dataclass(eq=False)
class One:
    """A connection that records whether it was closed."""

    network: str
    idle: float | None = None
    is_evicted: bool = False

    def idle_since(self) -> float | None:
        return self.idle

    def evict(self) -> None:
        self.is_evicted = True


def full_of(*connections: One) -> Connections:
    """At time 100, with exactly these."""
    full = Connections(len(connections), clock=lambda: 100.0)
    assert [full.add(one) for one in connections] == [True] * len(connections)
    return full


def test_the_network_with_the_most_connections_makes_room() -> None:
    crowd, other = [One("crowd", idle=99.0 + number / 10) for number in range(4)], One("other", idle=1.0)
    full, new = full_of(other, *crowd), One("new")
    assert full.add(new)
    assert [one.is_evicted for one in (other, *crowd)] == [False, True, False, False, False]


def test_a_crowd_can_only_keep_out_itself() -> None:
    connections = full_of(*[One("crowd", idle=100.0) for _ in range(50)])
    others = [One(f"other {number}") for number in range(20)]
    assert all(connections.add(one) for one in others)
    for _ in range(1000):
        connections.add(One("crowd", idle=100.0))
    assert not any(one.is_evicted for one in others)


def test_connections_with_work_are_never_closed() -> None:
    busy = [One("crowd"), One("crowd"), One("crowd")]
    full = full_of(*busy)
    assert not full.add(One("new"))
    assert not any(one.is_evicted for one in busy)


@pytest.mark.parametrize(("idle", "makes_room"), [(98.0, True), (99.5, False)])
def test_a_network_replaces_its_own_connections_only_after_a_while(idle: float, makes_room: bool) -> None:
    mine = One("mine", idle=idle)
    assert full_of(mine).add(One("mine")) is makes_room
    assert mine.is_evicted is makes_room


def test_the_reserve_is_limited_too() -> None:
    full = full_of(One("crowd"))
    waiting = [One("crowd", idle=float(number)) for number in range(RESERVED)]
    assert not any(full.add(one) for one in waiting)
    assert not full.add(One("probe", idle=100.0))
    assert [one.is_evicted for one in waiting] == [True] + [False] * (RESERVED - 1)


def test_a_reserve_full_of_work_refuses() -> None:
    full = full_of(One("crowd"))
    for _ in range(RESERVED):
        full.add(One("crowd"))
    refused = One("crowd")
    assert not full.add(refused)
    assert refused.is_evicted


def test_a_closed_connection_leaves_room_once() -> None:
    first, second = One("a"), One("b")
    full = full_of(first, second)
    for _ in range(3):
        full.remove(first)
    assert full.add(One("a"))
    assert not full.add(One("a"))


@pytest.mark.parametrize(
    ("client", "network"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("::ffff:192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8::1", 1), "2001:db8::/64"),
        (("2001:db8::ffff:ffff:ffff:ffff", 1), "2001:db8::/64"),
        (("2001:db8:0:1::1", 1), "2001:db8:0:1::/64"),
        (("fe80::1%eth0", 1), "fe80::/64"),
        (None, ""),
        (("testclient", 1), ""),
    ],
)
def test_the_network_of_an_address(client: Any, network: str) -> None:
    assert network_of(client) == network


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "fits", "raised"),
    [
        (1024, 2**20, 1000, 1000, 1000 + 32 + 256 + 2048),
        (1024, 1024, 1000, 1024 - 32 - 256, None),
        (1024, 2048, 1000, 1000, 2048),
        (2**20, 2**20, 1000, 1000, None),
        (256, 256, 1000, 1, None),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_allowed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, fits: int, raised: int | None
) -> None:
    now = (soft, hard)

    def setrlimit(_: int, limits: tuple[int, int]) -> None:
        nonlocal now
        now = limits

    monkeypatch.setattr("resource.getrlimit", lambda _: now)
    monkeypatch.setattr("resource.setrlimit", setrlimit)
    assert clients.connections_within_file_limit(wanted) == fits
    assert now == (raised or soft, hard)
