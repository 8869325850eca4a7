"""The guarded client: which addresses it connects to, and that it connects to nothing else. With real servers on
loopback, and resolvers that answer what a test wants.
"""

import asyncio
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

import pytest

from app.base.outgoing import Answer, NoAnswer, NotAllowed, OutgoingClient, OutgoingSession, allowed, parse
from app.base.outgoing.addresses import Reach, kind_of
from app.base.outgoing.client import Resolve
from tests.processes import REPOSITORY
from tests.test_end_to_end import Quiet, serving

P, F, O = Reach.PRIVATE, Reach.FORBIDDEN, Reach.PUBLIC  # noqa: E741  open


# — addresses —


ADDRESSES = [
    ("93.184.216.34", O),
    ("1.1.1.1", O),
    ("9.255.255.255", O),
    ("11.0.0.0", O),
    ("100.63.255.255", O),
    ("100.128.0.0", O),
    ("172.15.255.255", O),
    ("172.32.0.0", O),
    ("192.167.255.255", O),
    ("223.255.255.255", O),
    ("2606:2800:220:1::1", O),
    ("10.0.0.0", P),
    ("10.255.255.255", P),
    ("172.16.0.1", P),
    ("172.31.255.255", P),
    ("192.168.1.1", P),
    ("100.64.0.1", P),
    ("100.127.255.255", P),
    ("fc00::1", P),
    ("fd12:3456:789a::1", P),
    ("0.0.0.0", F),
    ("0.1.2.3", F),
    ("127.0.0.1", F),
    ("127.255.255.254", F),
    ("169.254.169.254", F),
    ("169.254.170.2", F),
    ("169.254.1.1", F),
    ("100.100.100.200", F),
    ("168.63.129.16", F),
    ("192.0.0.192", F),
    ("192.0.0.8", F),
    ("192.0.2.1", F),
    ("198.51.100.7", F),
    ("203.0.113.9", F),
    ("192.88.99.1", F),
    ("198.18.0.1", F),
    ("198.19.255.255", F),
    ("224.0.0.1", F),
    ("239.255.255.255", F),
    ("240.0.0.1", F),
    ("255.255.255.255", F),
    ("::", F),
    ("::1", F),
    ("fe80::1", F),
    ("febf::1", F),
    ("fd00:ec2::254", F),
    ("fd00:ec2::23", F),
    ("fd20:ce::254", F),
    ("fd00:c1::a9fe:a9fe", F),
    ("fec0::1", F),
    ("ff02::1", F),
    ("100::1", F),
    ("2001:db8::1", F),
    ("3fff::1", F),
    ("2001:2::1", F),
    ("2001:20::1", F),
    ("64:ff9b:1::a00:1", F),
    ("5f00::1", F),
    ("4000::1", F),
    # IPv4 inside IPv6: mapped, translated, compatible, NAT64, 6to4, Teredo (server; client, inverted), ISATAP
    ("::ffff:127.0.0.1", F),
    ("::ffff:169.254.169.254", F),
    ("::ffff:10.0.0.1", P),
    ("::ffff:93.184.216.34", O),
    ("::ffff:0:127.0.0.1", F),
    ("::127.0.0.1", F),
    ("::192.168.0.1", P),
    ("64:ff9b::7f00:1", F),
    ("64:ff9b::a9fe:a9fe", F),
    ("64:ff9b::a00:1", P),
    ("64:ff9b::5db8:d822", O),
    ("2002:7f00:1::", F),
    ("2002:a9fe:a9fe::1", F),
    ("2002:c0a8:1::", P),
    ("2002:5db8:d822::", O),
    ("2001:0:7f00:1::a247:27dd", F),
    ("2001:0:5db8:d822::80ff:fffe", F),
    ("2001:0:5db8:d822::f5ff:fffe", P),
    ("2001:0:5db8:d822::a247:27dd", O),
    ("2606:2800::5efe:a9fe:a9fe", F),
    ("2606:2800::200:5efe:a00:1", P),
    ("fd00:1::5efe:5db8:d822", P),
]


@pytest.mark.parametrize(("address", "reach"), ADDRESSES)
def test_an_address_is_public_private_or_forbidden(address: str, reach: Reach) -> None:
    assert kind_of(ip_address(address)).reach is reach


@pytest.mark.parametrize(("address", "reach"), ADDRESSES)
async def test_only_the_right_entry_permits_an_address(address: str, reach: Reach) -> None:
    """By a name that resolves to it: with no entry, with the name, with every network, with the address."""
    entries = {"": O, "a.test, 0.0.0.0/1, 128.0.0.0/1, ::/1, 8000::/1": P}
    for allow, permitted in entries.items():
        await check("https://a.test", allow, [address], refused=reach.value > permitted.value)
    await check("https://a.test", "a.test", [address], refused=reach is F)
    await check("https://a.test", address, [address], refused=False)


async def test_the_scope_of_a_resolved_address_does_not_matter() -> None:
    assert "to fe80::1, a link-local" in str(await refusal("https://a.test", "", ["fe80::1%eth0"]))
    await check("https://a.test", "fe80::1", ["fe80::1%eth0"], refused=False)


async def test_all_addresses_of_a_name_are_checked() -> None:
    for position in range(3):
        answers = ["93.184.216.34", "1.1.1.1"]
        answers.insert(position, "10.0.0.7")
        assert "a.test resolves to 10.0.0.7, a private address" in str(await refusal("https://a.test", "", answers))
    await check("https://a.test", "1.1.1.1", ["93.184.216.34", "1.1.1.1"], refused=False)
    assert "http://" in str(await refusal("http://a.test", "1.1.1.1", ["1.1.1.1", "93.184.216.34"]))


async def test_a_refusal_names_the_address_and_the_entry() -> None:
    assert str(await refusal("https://a.test", "", ["10.0.0.7"])) == (
        "a.test resolves to 10.0.0.7, a private address. To permit it, add a.test, 10.0.0.7 or a network that contains "
        "it to AFTERMATH_OUTBOUND_ALLOW"
    )
    assert str(await refusal("http://[fd00:ec2::254]", "", [])) == (
        "the host is fd00:ec2::254, an address of a cloud's metadata service. Only the entry fd00:ec2::254 in "
        "AFTERMATH_OUTBOUND_ALLOW would permit it"
    )
    assert str(await refusal("http://a.test", "a.test", ["1.1.1.1"])) == (
        "http:// would send everything to a.test unencrypted: use https://, or permit its address (1.1.1.1) with "
        "AFTERMATH_OUTBOUND_ALLOW"
    )


@pytest.mark.parametrize(
    ("url", "allow", "answers"),
    [
        ("http://a.test:9093/prefix", "A.test.", ["10.0.0.7", "fd00::7"]),
        ("http://A.TEST.", "a.test", ["10.0.0.7"]),
        ("http://10.0.0.7:9093", "10.0.0.0/8", []),
        ("http://[FD00:0::7]", "fd00::/16", []),
        ("http://127.0.0.1.", "127.0.0.1/32", []),
        ("http://[::1]", "[::1]", []),
        ("http://1.1.1.1", "1.1.1.0/24", []),
        ("https://1.1.1.1", "", []),
        ("https://xn--mnchen-3ya.test", "", ["1.1.1.1"]),
        ("https://a.test", "", []),  # unresolvable: checked again by each session
    ],
)
async def test_what_is_permitted(url: str, allow: str, answers: Sequence[str]) -> None:
    await check(url, allow, answers, refused=False)


# — spellings —


@pytest.mark.parametrize(
    "url",
    [
        "https://2130706433",
        "https://0x7f000001",
        "https://0X7F.1",
        "https://017700000001",
        "https://0177.0.0.1",
        "https://127.1",
        "https://127.0.1",
        "https://127.0.0.1.1",
        "https://127.0.0.01",
        "https://0x7f.0x0.0x0.0x1",
        "https://127.0.0.1..",
        "https://a.test..",
        "https://a..test",
        "https://.a.test",
        "https://.",
        "https://1.1.1.256",
        "https://１２７.0.0.1",
        "https://①27.0.0.1",
        "https://127。0。0。1",
        "https://münchen.test",
        "https://%31%32%37.0.0.1",
        "https://a%2etest",
        "https://a.test%00.b.test",
        "https://user@a.test",
        "https://user:pass@a.test",
        "https://1.1.1.1@a.test",
        "https://a.test@",
        "https://a.test\\@b.test",
        "https://a.test\\.b.test",
        "https://[::1",
        "https://::1",
        "https://[::1%25lo]",
        "https://[fe80::1%25eth0]",
        "https://[fe80::1%eth0]",
        "https://[1.1.1.1]",
        "https://[::ffff:1.1.1.1.1]",
        "https://[v1.a]",
        "https://[]",
        "https://a.test:",
        "https://a.test:0",
        "https://a.test:00443",
        "https://a.test:+443",
        "https://a.test:22",
        "https://a.test:25",
        "https://a.test:65536",
        "https://a.test:443:443",
        "https://a.test:٤٤٣",
        "https:// a.test",
        "https://a.test /",
        "https://a.test\t/",
        "https://a.test/\r\nHost: b.test",
        "https://a.test\n",
        "https://a\x00.test",
        "https://a.test/#fragment",
        "https://a,b.test",
        "https://-a.test",
        "https://" + "a" * 64 + ".test",
        "https://" + "a." * 127 + "test",
        "https://a.test/" + "a" * 2000,
        "https:///a.test",
        "https:a.test",
        "//a.test",
        "a.test",
        "",
        "ftp://a.test",
        "file:///etc/passwd",
        "gopher://a.test",
        "unix:///run/docker.sock",
        "javascript:alert(1)",
        "httpss://a.test",
    ],
)
async def test_an_ambiguous_url_is_refused_before_its_name_is_resolved(url: str) -> None:
    """Even if everything is permitted."""
    asked: list[str] = []

    async def resolver(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["1.1.1.1"]

    with pytest.raises(NotAllowed):
        await OutgoingClient("a.test, localhost, 127.0.0.1, ::1", resolver=resolver).check(url)
    assert asked == []


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("HTTPS://A.Test:443", "https://a.test"),
        ("http://a.test.:80/x?y=z", "http://a.test/x?y=z"),
        ("https://[2606:2800:0:0::1]:8443/", "https://[2606:2800::1]:8443/"),
        ("https://alert_manager-0:9093", "https://alert_manager-0:9093"),
    ],
)
def test_a_url_has_one_spelling(url: str, parsed: str) -> None:
    assert parse(url).url == parsed


@pytest.mark.parametrize("entries", ["10.0.0.1/8", "127.1", "http://a.test", "*.test", "a.test:9093", "10.0.0.0/33"])
def test_an_entry_that_would_permit_nothing_is_an_error(entries: str) -> None:
    with pytest.raises(ValueError, match="must list host names"):
        allowed(f"a.test, {entries}")


# — connections —


@dataclass
class Host:
    port: int = 0
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path and Host header


@contextmanager
def a_host(answer: Callable[[BaseHTTPRequestHandler], None], tls: ssl.SSLContext | None = None) -> Iterator[Host]:
    host = Host()

    class Answering(Quiet):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            if tls:
                self.request = tls.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
            super().setup()

        def finish(self) -> None:
            with suppress(OSError):
                super().finish()
            self.request.close()

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the client refused the certificate or left
                self.close_connection = True

        def do_GET(self) -> None:  # noqa: N802  its name in http.server
            host.requests.append((self.path, self.headers["Host"]))
            answer(self)

    with serving(Answering) as host.port:
        yield host


def hello(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "5")
    handler.end_headers()
    handler.wfile.write(b"hello")


async def test_a_name_is_resolved_once_and_the_connection_goes_to_that_address() -> None:
    """The second answer of the name server would be the address of a metadata service."""
    asked = 0

    async def rebinding(_host: str, _port: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        return ["127.0.0.1"] if asked == 1 else ["169.254.169.254"]

    with a_host(hello) as host:
        outgoing = OutgoingClient("127.0.0.1", resolver=rebinding)
        async with session_of(outgoing, f"http://a.test:{host.port}/prefix/") as session:
            answers = [await session.get(path, at_most=5) for path in ("/x", "/y?z=1", "")]
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"hello")] * 3
        assert asked == 1
        paths = ["/prefix/x", "/prefix/y?z=1", "/prefix/"]
        assert host.requests == [(path, f"a.test:{host.port}") for path in paths]
        with pytest.raises(NotAllowed, match=r"a\.test resolves to 169\.254\.169\.254"):
            await get(outgoing, f"http://a.test:{host.port}")
        assert asked == 2
    assert len(host.requests) == 3


async def test_an_address_that_does_not_answer_is_skipped() -> None:
    with a_host(hello) as host:
        outgoing = OutgoingClient("127.0.0.1,127.0.0.9", resolver=answering("127.0.0.9", "127.0.0.1"))
        assert (await get(outgoing, f"http://a.test:{host.port}")).body == b"hello"


async def test_a_redirect_is_an_answer() -> None:
    with a_host(hello) as secret:

        def redirect(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", f"http://127.0.0.1:{secret.port}/")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        with a_host(redirect) as host:
            answer = await get(OutgoingClient("127.0.0.1"), f"http://127.0.0.1:{host.port}")
    assert (answer.status, secret.requests) == (302, [])


async def test_a_request_for_another_host_is_not_sent() -> None:
    with a_host(hello) as host, a_host(hello) as other:
        async with session_of(OutgoingClient("127.0.0.1"), f"http://127.0.0.1:{host.port}") as session:
            with pytest.raises(NoAnswer):
                await session.get(f"@127.0.0.1:{other.port}/", at_most=5)
    assert (host.requests, other.requests) == ([], [])


async def test_the_environment_configures_no_proxy_and_no_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with a_host(hello) as proxy:
        for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        sent: list[str | None] = []

        def remember(handler: BaseHTTPRequestHandler) -> None:
            sent.append(handler.headers["Authorization"])
            hello(handler)

        with a_host(remember) as host:
            assert (await get(OutgoingClient("127.0.0.1"), f"http://127.0.0.1:{host.port}")).body == b"hello"
    assert (proxy.requests, sent) == ([], [None])


async def test_an_answer_is_bounded_in_size_and_time() -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 1000)

    def slow(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(50):
            handler.wfile.write(b"x")
            time.sleep(0.1)

    def many_headers(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        while True:
            handler.send_header("X", "x" * 1000)
            handler.flush_headers()

    for answer, message in ((endless, "sent more than 5000 bytes"), (slow, "in time"), (many_headers, "reached")):
        with a_host(answer) as host:
            began = time.monotonic()
            with pytest.raises(NoAnswer, match=message):
                await get(OutgoingClient("127.0.0.1"), f"http://127.0.0.1:{host.port}", seconds=1, at_most=5000)
            assert time.monotonic() - began < 4


async def test_a_slow_name_server_is_part_of_the_time() -> None:
    async def slow(_host: str, _port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return ["1.1.1.1"]

    with pytest.raises(NoAnswer, match="did not respond in time"):
        await get(OutgoingClient(resolver=slow), "https://a.test", seconds=0.2)


async def test_a_name_that_does_not_exist_is_no_answer() -> None:
    async def unknown(_host: str, _port: int) -> Sequence[str]:
        raise OSError("no such host")

    for resolver in (unknown, answering()):
        with pytest.raises(NoAnswer, match="cannot be resolved"):
            await get(OutgoingClient(resolver=resolver), "https://a.test")


async def test_the_system_resolves_localhost_to_loopback() -> None:
    with pytest.raises(NotAllowed, match=r"localhost resolves to (127\.0\.0\.1|::1), a loopback address"):
        await get(OutgoingClient("localhost"), "http://localhost:9093")


# — TLS —


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> "Authority":
    return Authority(tmp_path_factory.mktemp("authority"))


class Authority:
    """A certificate authority, by the openssl command."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._openssl("req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")

    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self._directory / "ca.pem"))

    def server(self, names: str) -> ssl.SSLContext:
        """With a certificate for `names`, for example `DNS:a.test`."""
        certificate, key = f"{names}.pem".replace(":", "-"), f"{names}.key".replace(":", "-")
        self._openssl(
            *("req", "-x509", *_KEY, "-keyout", key, "-out", certificate, "-subj", "/CN=server"),
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName={names}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._directory / certificate, self._directory / key)
        return context

    def _openssl(self, *arguments: str) -> None:
        command = ["openssl", *arguments]
        subprocess.run(command, cwd=self._directory, stdin=subprocess.DEVNULL, capture_output=True, check=True)


_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]


async def test_the_certificate_must_be_for_the_name_though_the_connection_goes_to_the_address(
    authority: Authority,
) -> None:
    asked: list[str | None] = []
    server = authority.server("DNS:a.test")
    server.sni_callback = lambda _socket, name, _context: asked.append(name)
    with a_host(hello, server) as host:
        outgoing = OutgoingClient("127.0.0.1", resolver=answering("127.0.0.1"), tls=authority.trusted())
        assert (await get(outgoing, f"https://a.test:{host.port}")).body == b"hello"
        assert (asked, host.requests) == (["a.test"], [("/", f"a.test:{host.port}")])
        for other in (f"https://b.test:{host.port}", f"https://127.0.0.1:{host.port}"):
            with pytest.raises(NoAnswer, match="cannot be reached"):
                await get(outgoing, other)
        with pytest.raises(NoAnswer, match="cannot be reached"):  # the authorities of the system do not include it
            await get(OutgoingClient("127.0.0.1", resolver=answering("127.0.0.1")), f"https://a.test:{host.port}")
    assert len(host.requests) == 1


async def test_a_certificate_may_be_for_an_address(authority: Authority) -> None:
    with a_host(hello, authority.server("IP:127.0.0.1")) as host:
        outgoing = OutgoingClient("127.0.0.1", tls=authority.trusted())
        assert (await get(outgoing, f"https://127.0.0.1:{host.port}")).body == b"hello"


# — a proxy —


async def test_listed_hosts_are_called_directly_and_others_through_the_proxy() -> None:
    """The proxy gets the name and may resolve it itself, but only after the addresses known here were checked."""
    tunnels: list[str] = []

    class Proxy(Quiet):
        def do_CONNECT(self) -> None:  # noqa: N802  its name in http.server
            tunnels.append(self.path)
            self.send_error(403)

    with serving(Proxy) as port, a_host(hello) as host:
        proxy = f"http://127.0.0.1:{port}"
        outgoing = OutgoingClient("127.0.0.1", proxy=proxy, resolver=answering("127.0.0.1"))
        assert (await get(outgoing, f"http://a.test:{host.port}")).body == b"hello"
        assert tunnels == []
        for answers in (["1.1.1.1"], []):
            with pytest.raises(NoAnswer):
                await get(OutgoingClient(proxy=proxy, resolver=answering(*answers)), "https://a.test")
        assert tunnels == ["a.test:443"] * 2
        for url in ("https://a.test", "https://10.0.0.7"):
            with pytest.raises(NotAllowed, match=r"10\.0\.0\.7"):
                await get(OutgoingClient(proxy=proxy, resolver=answering("10.0.0.7")), url)
        with pytest.raises(NoAnswer, match="cannot be resolved"):
            await get(OutgoingClient(proxy=proxy, resolver=answering()), "http://a.test")
    assert len(tunnels) == 2


# — one client —


@pytest.mark.parametrize(
    "statement",
    [
        "import httpx",
        "from httpx import AsyncClient",
        "import httpcore",
        "import urllib.request",
        "import http.client",
        "import smtplib",
        "from asyncio import open_connection",
        "from socket import create_connection",
    ],
)
def test_the_linter_refuses_another_way_out(statement: str) -> None:
    command = [
        str(Path(sys.executable).with_name("ruff")),
        "check",
        "--select=TID251",
        "--stdin-filename=app/x.py",
        "-",
    ]
    done = subprocess.run(command, cwd=REPOSITORY, input=f"{statement}\n", capture_output=True, text=True, check=False)
    assert (done.returncode, "app.base.outgoing" in done.stdout) == (1, True), done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------------------------


def answering(*addresses: str) -> Resolve:
    async def resolver(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return resolver


def session_of(
    outgoing: OutgoingClient, url: str, *, seconds: float = 10
) -> AbstractAsyncContextManager[OutgoingSession]:
    return outgoing.session(url, within=timedelta(seconds=seconds), headers={})


async def get(outgoing: OutgoingClient, url: str, *, seconds: float = 10, at_most: int = 1000) -> Answer:
    async with session_of(outgoing, url, seconds=seconds) as session:
        return await session.get(at_most=at_most)


async def check(url: str, allow: str, answers: Sequence[str], *, refused: bool) -> None:
    outgoing = OutgoingClient(allow, resolver=answering(*answers))
    if refused:
        with pytest.raises(NotAllowed, match="AFTERMATH_OUTBOUND_ALLOW"):
            await outgoing.check(url)
    else:
        await outgoing.check(url)


async def refusal(url: str, allow: str, answers: Sequence[str]) -> NotAllowed:
    with pytest.raises(NotAllowed) as refused:
        await OutgoingClient(allow, resolver=answering(*answers)).check(url)
    return refused.value
