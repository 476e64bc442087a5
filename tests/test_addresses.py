"""Address forms: what each text means, and what is refused with which cause."""

import re

import pytest

from uwsgi_tls import addresses
from uwsgi_tls.addresses import Address, FdAddress, SharedAddress, TcpAddress, UnixAddress

GOOD: list[tuple[str, Address, str]] = [
    ("0.0.0.0:443", TcpAddress("0.0.0.0", 443), "0.0.0.0:443"),
    (":443", TcpAddress("0.0.0.0", 443), "0.0.0.0:443"),
    ("127.0.0.1:0", TcpAddress("127.0.0.1", 0), "127.0.0.1:0"),
    ("localhost:65535", TcpAddress("localhost", 65535), "localhost:65535"),
    ("a-b.example.org:8443", TcpAddress("a-b.example.org", 8443), "a-b.example.org:8443"),
    ("[::]:443", TcpAddress("::", 443), "[::]:443"),
    ("[::1]:443", TcpAddress("::1", 443), "[::1]:443"),
    ("[0:0:0:0:0:0:0:1]:443", TcpAddress("::1", 443), "[::1]:443"),
    ("[fe80::1%eth0]:443", TcpAddress("fe80::1%eth0", 443), "[fe80::1%eth0]:443"),
    ("/run/app.sock", UnixAddress("/run/app.sock"), "/run/app.sock"),
    ("/run/a:80", UnixAddress("/run/a:80"), "/run/a:80"),
    ("./a:80", UnixAddress("./a:80"), "./a:80"),
    ("uwsgi.sock", UnixAddress("uwsgi.sock"), "uwsgi.sock"),
    ("/" + "x" * 106, UnixAddress("/" + "x" * 106), "/" + "x" * 106),
    ("@app", UnixAddress("\0app"), "@app"),
    ("\\0app", UnixAddress("\0app"), "@app"),
    ("fd://3", FdAddress(3), "fd://3"),
    ("=0", SharedAddress(0), "=0"),
    ("=12", SharedAddress(12), "=12"),
    ("=web", SharedAddress("web"), "=web"),
    ("=uwsgi-tls@a.socket", SharedAddress("uwsgi-tls@a.socket"), "=uwsgi-tls@a.socket"),
    ("=my\\x2dsite.socket", SharedAddress("my\\x2dsite.socket"), "=my\\x2dsite.socket"),
]

BAD = [
    ("", "the address is empty"),
    ("443", "a port alone is written :443"),
    ("127.0.0.1", "the port is missing, as in 127.0.0.1:443"),
    ("localhost", "the port is missing"),
    ("127.0.0.1:99999", "port 99999 is not between 0 and 65535"),
    ("127.0.0.1:", "port '' is not a number"),
    ("127.0.0.1:https", "port 'https' is not a number"),
    ("127.0.0.1:-1", "port '-1' is not a number"),
    ("127.0.0.1: 443", "port ' 443' is not a number"),
    ("127.0.0.1:\u0664\u0664\u0663", "is not a number"),
    ("256.0.0.1:443", "'256.0.0.1' is not an IPv4 address"),
    ("127.0.0.*:443", "is not a host name or IP address"),
    ("*:443", "leave it out to listen on every IPv4 address"),
    ("-host:443", "is not a host name"),
    ("a b:443", "is not a host name"),
    ("x" * 64 + ":443", "is not a host name"),
    ("::1:443", "IPv6 is written [::1]:443"),
    ("::", "IPv6 is written"),
    ("[::1]", "IPv6 is written"),
    ("[::g]:443", "[::g] is not an IPv6 address"),
    ("[127.0.0.1]:443", "is not an IPv6 address"),
    ("[fe80::1%a b]:443", "names no network interface"),
    ("fd://", "is not fd://N"),
    ("fd://x", "is not fd://N"),
    ("fd://-1", "is not fd://N"),
    ("http://host:443", "no scheme but fd://"),
    ("@", "the abstract socket has no name"),
    ("/run/a\0b", "cannot contain a NUL byte"),
    ("/" + "x" * 107, "longer than 107 bytes"),
    ("/" + "é" * 54, "longer than 107 bytes"),
    ("=", "is not =N"),
    ("=-1", "is not =N"),
    ("=a b", "is not =N"),
    ("=a:b", "is not =N"),
    ("=" + "a" * 256, "is not =N"),
    ("=-web", "nor =NAME"),
    ("=0junk", "is not =N"),
    ("= 0", "is not =N"),
    ("=0 ", "is not =N"),
    ("=4294967296", "is not =N"),
]


@pytest.mark.parametrize(("text", "address", "canonical"), GOOD)
def test_an_address_is_read_and_written_back(text: str, address: Address, canonical: str) -> None:
    parsed = addresses.parse(text, shared_allowed=True)
    assert parsed == address
    assert str(parsed) == canonical
    assert addresses.parse(str(parsed), shared_allowed=True) == address


@pytest.mark.parametrize(("text", "cause"), BAD)
def test_nonsense_is_named(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cause)):
        addresses.parse(text, shared_allowed=True)


def test_a_shared_socket_is_refused_where_none_can_be_used() -> None:
    with pytest.raises(ValueError, match="only an https option can use"):
        addresses.parse("=0", shared_allowed=False)
