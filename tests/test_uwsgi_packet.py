"""The uwsgi packet: variables in, bytes out, read back as a backend does."""

import struct

import pytest

from uwsgi_tls.uwsgi_packet import PAYLOAD_BYTES, PacketTooBig, packet, text


def encode(pairs: list[tuple[str, str]], modifier1: int, modifier2: int) -> bytes:
    return packet(text(pairs), modifier1, modifier2)


def decode(data: bytes) -> tuple[int, int, list[tuple[bytes, bytes]]]:
    """What uWSGI reads: modifiers and variables."""
    modifier1, size, modifier2 = struct.unpack_from("<BHB", data)
    assert len(data) == 4 + size
    texts = []
    offset = 4
    while offset < len(data):
        (length,) = struct.unpack_from("<H", data, offset)
        texts.append(data[offset + 2 : offset + 2 + length])
        assert len(texts[-1]) == length
        offset += 2 + length
    return modifier1, modifier2, list(zip(texts[::2], texts[1::2], strict=True))


def test_bytes() -> None:
    assert encode([("A", "bc"), ("DEF", "")], 5, 6) == b"\x05\x0e\x00\x06\x01\x00A\x02\x00bc\x03\x00DEF\x00\x00"
    assert encode([], 0, 0) == bytes(4)
    assert encode([("A", "b")], 0, 255) == b"\x00\x06\x00\xff\x01\x00A\x01\x00b"
    assert text([("A", "b")]) + text([("C", "d" * 5000)]) == text([("A", "b"), ("C", "d" * 5000)])


@pytest.mark.parametrize("length", [0, 1, 127, 128, 255, 256, 257, 511, 4095, 4096, 4097, 32768, 65535 - 11])
def test_lengths(length: int) -> None:
    value = "\xff" * length
    assert decode(encode([("A", "b"), ("C", value)], 0, 0)) == (0, 0, [(b"A", b"b"), (b"C", value.encode("latin-1"))])


def test_long_name_and_order() -> None:
    pairs = [
        ("N" * 5000, "v"),
        ("A", "1"),
        ("A", "2"),
        ("HTTPS_CLIENT_CERTIFICATE", bytes(range(256)).decode("latin-1")),
    ]
    assert decode(encode(pairs, 1, 2)) == (1, 2, [(name.encode(), value.encode("latin-1")) for name, value in pairs])


@pytest.mark.parametrize(
    ("pairs", "size"),
    [
        ([("A", "x" * (PAYLOAD_BYTES - 4))], PAYLOAD_BYTES + 1),
        ([("A", "x" * 65536)], 65541),
        ([("A", "x" * 70000)], 70005),
        ([("x" * 70000, "A")], 70005),
        ([("A", "x" * 2_000_000)], 2_000_005),
        ([("A", "x" * 100)] * 700, 73500),
    ],
)
def test_too_big(pairs: list[tuple[str, str]], size: int) -> None:
    with pytest.raises(PacketTooBig) as caught:
        encode(pairs, 0, 0)
    assert caught.value.size == size
    assert str(size) in str(caught.value)
    # One byte less than too many still goes.
    assert len(encode([("A", "x" * (PAYLOAD_BYTES - 5))], 0, 0)) == 4 + PAYLOAD_BYTES


def test_not_latin_1() -> None:
    with pytest.raises(ValueError, match="latin-1"):
        encode([("A", "\u20ac")], 0, 0)
