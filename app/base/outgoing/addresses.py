"""Classifies IP addresses, and decides which of them the service may connect to.

Pure. An IPv4 address inside an IPv6 address is classified as that IPv4 address, because the packets go there.
"""

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Reach(Enum):
    """Which entry of AFTERMATH_OUTBOUND_ALLOW permits connections to an address. Ordered from open to closed."""

    PUBLIC = 0  # none needed
    PRIVATE = 1  # its host name, the address, or a network that contains it
    FORBIDDEN = 2  # only the address itself


@dataclass(frozen=True, slots=True)
class Kind:
    reach: Reach
    name: str  # for example `a link-local address`


PUBLIC = Kind(Reach.PUBLIC, "a public address")
_PRIVATE = Kind(Reach.PRIVATE, "a private address")
_METADATA = Kind(Reach.FORBIDDEN, "an address of a cloud's metadata service")
_UNSPECIFIED = Kind(Reach.FORBIDDEN, "an unspecified address")
_LOOPBACK = Kind(Reach.FORBIDDEN, "a loopback address")
_LINK_LOCAL = Kind(Reach.FORBIDDEN, "a link-local address")
_MULTICAST = Kind(Reach.FORBIDDEN, "a multicast address")
_BROADCAST = Kind(Reach.FORBIDDEN, "the broadcast address")
_DOCUMENTATION = Kind(Reach.FORBIDDEN, "an address for documentation")
_RESERVED = Kind(Reach.FORBIDDEN, "a reserved address")

# The first match counts. From IANA's registries of special-purpose addresses, and the documentation of the clouds.
_V4 = [
    (IPv4Network(network), kind)
    for network, kind in (
        ("169.254.169.254", _METADATA),  # AWS, Azure, Google Cloud and most others
        ("169.254.170.2", _METADATA),  # AWS ECS
        ("169.254.170.23", _METADATA),  # AWS EKS
        ("169.254.0.23", _METADATA),  # Tencent Cloud
        ("100.100.100.200", _METADATA),  # Alibaba Cloud
        ("168.63.129.16", _METADATA),  # Azure; otherwise it would be public
        ("192.0.0.192", _METADATA),  # Oracle Cloud
        ("0.0.0.0/8", _UNSPECIFIED),  # Linux connects to itself
        ("127.0.0.0/8", _LOOPBACK),
        ("169.254.0.0/16", _LINK_LOCAL),
        ("10.0.0.0/8", _PRIVATE),
        ("172.16.0.0/12", _PRIVATE),
        ("192.168.0.0/16", _PRIVATE),
        ("100.64.0.0/10", _PRIVATE),  # shared by carriers' customers; also used inside clusters
        ("192.0.2.0/24", _DOCUMENTATION),
        ("198.51.100.0/24", _DOCUMENTATION),
        ("203.0.113.0/24", _DOCUMENTATION),
        ("192.0.0.0/24", _RESERVED),
        ("192.88.99.0/24", _RESERVED),  # relays of 6to4
        ("198.18.0.0/15", _RESERVED),  # benchmarks
        ("224.0.0.0/4", _MULTICAST),
        ("255.255.255.255", _BROADCAST),
        ("240.0.0.0/4", _RESERVED),
    )
]
_V6 = [
    (IPv6Network(network), kind)
    for network, kind in (
        ("fd00:ec2::/32", _METADATA),  # AWS
        ("fd20:ce::254", _METADATA),  # Google Cloud
        ("fd00:c1::a9fe:a9fe", _METADATA),  # Oracle Cloud
        ("fd00:42::42", _METADATA),  # Scaleway
        ("::", _UNSPECIFIED),
        ("::1", _LOOPBACK),
        ("fe80::/10", _LINK_LOCAL),
        ("fc00::/7", _PRIVATE),
        ("ff00::/8", _MULTICAST),
        ("2001:db8::/32", _DOCUMENTATION),
        ("3fff::/20", _DOCUMENTATION),
        ("2001::/23", _RESERVED),  # IETF protocols; Teredo is handled before
        ("2000::/3", PUBLIC),
        ("::/0", _RESERVED),  # nothing else has been assigned
    )
]


def kind_of(address: Address) -> Kind:
    """The most restrictive kind of the address and the IPv4 addresses inside it."""
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _V4 if address in network), PUBLIC)
    if whole := _whole(address):
        return max(map(kind_of, whole), key=lambda kind: kind.reach.value)
    outer = next(kind for network, kind in _V6 if address in network)
    inner = [kind_of(one) for one in _isatap(address)]
    return max(outer, *inner, key=lambda kind: kind.reach.value) if inner else outer


def _whole(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for, empty if it stands for itself."""
    bits = int(address)
    low = IPv4Address(bits & 0xFFFFFFFF)
    if any(address in network for network in _WITH_IPV4_AT_THE_END) and bits > 1:  # not :: and ::1
        return [low]
    if address.sixtofour:
        return [address.sixtofour]
    if address.teredo:
        return [*address.teredo]  # server and client
    return []


_WITH_IPV4_AT_THE_END = [
    IPv6Network("::ffff:0:0/96"),  # mapped
    IPv6Network("::ffff:0:0:0/96"),  # translated
    IPv6Network("::/96"),  # compatible
    IPv6Network("64:ff9b::/96"),  # NAT64
]


def _isatap(address: IPv6Address) -> list[IPv4Address]:
    """ISATAP has an IPv4 address at the end of any prefix."""
    bits = int(address)
    return [IPv4Address(bits & 0xFFFFFFFF)] if (bits >> 32) & 0xFCFFFFFF == 0x00005EFE else []


# — the allow list —


@dataclass(frozen=True, slots=True)
class Allowed:
    """AFTERMATH_OUTBOUND_ALLOW: addresses, networks and host names."""

    networks: frozenset[Network] = frozenset()
    names: frozenset[str] = frozenset()

    def permits(self, name: str | None, address: Address) -> bool:
        """Whether an entry permits the address. `name` is the host name it was resolved from.

        A host name permits private addresses only, because its DNS records could be changed to point anywhere.
        """
        reach = kind_of(address).reach
        if any(network.prefixlen == network.max_prefixlen for network in self._around(address)):
            return True
        if reach is Reach.FORBIDDEN:
            return False
        return bool(self._around(address)) or (reach is Reach.PRIVATE and name in self.names)

    def _around(self, address: Address) -> list[Network]:
        return [network for network in self.networks if network.version == address.version and address in network]


def allowed(entries: str) -> Allowed:
    """Parses entries separated by commas. Raises ValueError."""
    networks, names = set(), set()
    for entry in filter(None, map(str.strip, entries.split(","))):
        try:
            networks.add(ip_network(entry.removeprefix("[").removesuffix("]")))
        except ValueError:
            name = host_name(entry)
            if name is None:
                message = "must list host names, IP addresses and networks such as 10.0.0.0/8"
                raise ValueError(message) from None
            names.add(name)
    return Allowed(frozenset(networks), frozenset(names))


# — hosts —


def host_name(text: str) -> str | None:
    """The name in lower case without a trailing dot, or None if it is not a host name.

    A name whose last label is a number is none: resolvers read `127.1`, `0x7f000001` and `2130706433` as 127.0.0.1.
    """
    name = text.removesuffix(".").lower()
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or _NUMBER.fullmatch(labels[-1]):
        return None
    return name


# Underscores are not allowed in host names, but services of Docker Compose may have them.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


def literal(text: str) -> Address | None:
    """The address that `text` writes out, IPv6 in brackets; None if it writes none, or one with a scope."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ip_address(inner)
    except ValueError:
        return None
    is_bracketed = inner is not text
    if is_bracketed != (address.version == 6) or (isinstance(address, IPv6Address) and address.scope_id):
        return None
    return address
