"""The PROXY header, as a balancer sends it and as an attacker would."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uwsgi_tls.proxy_protocol import SIGNATURE, V1_BYTES, V2_BYTES, ProxyHeader, Wanted, look

NEXT = b"\x16\x03\x01"  # TLS begins


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(body)) + body


V4 = ipaddress.ip_address("192.0.2.7").packed + ipaddress.ip_address("10.0.0.1").packed + struct.pack("!HH", 40001, 443)
V6 = ipaddress.ip_address("2001:db8::7").packed + ipaddress.ip_address("::1").packed + struct.pack("!HH", 5, 443)
TLV = b"\x01\x00\x08http/1.1"

WHOLE = [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 40001 443\r\n", ("192.0.2.7", "40001")),
    (b"PROXY TCP6 2001:db8::7 ::1 5 443\r\n", ("2001:db8::7", "5")),
    (b"PROXY TCP6 2001:DB8:0:0:0:0:0:7 ::1 5 443\r\n", ("2001:db8::7", "5")),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 5 443\r\n", ("192.0.2.7", "5")),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    (v2(1, 0x11, V4), ("192.0.2.7", "40001")),
    (v2(1, 0x11, V4 + TLV), ("192.0.2.7", "40001")),
    (v2(1, 0x21, V6 + TLV), ("2001:db8::7", "5")),
    (v2(0, 0x00, b""), None),  # LOCAL
    (v2(0, 0x11, V4), None),  # LOCAL, whose addresses are to be discarded
    (v2(1, 0x00, TLV), None),  # UNSPEC
    (v2(1, 0x31, bytes(216)), None),  # UNIX
]

NO_HEADER = [
    b"\x16\x03\x01",
    b"GET / HTTP/1.1\r\n",
    b"PROXX TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
    b"PROXY TCP4 192.0.2.777 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
    b"PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 02\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 123456\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2x\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",  # a zone is no part of an address
    b"PROXY TCP4 192.0.2.07 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7\x00 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7  10.0.0.1 1 2\r\n",
    b"PROXY TCP4 \xff 10.0.0.1 1 2\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n",
    b"PROXY UNKNOWN" + b"x" * V1_BYTES,
    v2(2, 0x11, V4),  # no such command
    SIGNATURE + b"\x11\x11\x00\x0c" + V4,  # no such version
    v2(1, 0x11, V4[:-1]),
    v2(1, 0x21, V4),
    v2(1, 0x41, V4),  # no such family
    SIGNATURE + struct.pack("!BBH", 0x21, 0x11, V2_BYTES),  # longer than anybody waits for
]


@pytest.mark.parametrize(("header", "source"), WHOLE)
def test_whole(header: bytes, source: tuple[str, str] | None) -> None:
    assert look(header) == look(header + NEXT) == ProxyHeader(len(header), source)


@pytest.mark.parametrize(("header", "source"), WHOLE)
def test_in_pieces(header: bytes, source: tuple[str, str] | None) -> None:
    """Every beginning asks for more than there is, and never for more than the header."""
    for size in range(len(header)):
        seen = look(header[:size])
        assert isinstance(seen, Wanted)
        assert size < seen.bytes_total <= len(header)


@pytest.mark.parametrize("data", NO_HEADER)
def test_no_header(data: bytes) -> None:
    assert look(data) is None


@given(st.sampled_from([b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]), st.binary(max_size=200))
def test_any_bytes(start: bytes, more: bytes) -> None:
    """Whatever comes, the answer is one of three, and a header is never longer than what is there."""
    data = start + more
    seen = look(data)
    if isinstance(seen, ProxyHeader):
        assert seen.length <= len(data)
        if seen.source is not None:
            assert ipaddress.ip_address(seen.source[0])
            assert 0 <= int(seen.source[1]) <= 65535
    elif isinstance(seen, Wanted):
        assert len(data) < seen.bytes_total <= V2_BYTES
