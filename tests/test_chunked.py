"""Chunked bodies as bytes: what they hold, whatever the pieces in which they come, and what is refused."""

import time
from collections.abc import Callable, Iterable

import pytest

from uwsgi_tls import chunked
from uwsgi_tls.chunked import ChunkedDecoder
from uwsgi_tls.http import BadRequest

NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
MEGABYTE = 1 << 20


def linear(work: Callable[[], object]) -> None:
    """`work` takes milliseconds, or a second where coverage is measured; if it were quadratic, minutes."""
    begin = time.process_time()
    work()
    assert time.process_time() - begin < 10


def decode(pieces: Iterable[bytes]) -> tuple[bytes, bytes | None] | int:
    """The payload and the rest (None if the body is not finished), or the status."""
    decoder = ChunkedDecoder()
    try:
        payload = b"".join(decoder.feed(piece) for piece in pieces)
    except BadRequest as refusal:
        return refusal.status
    return payload, decoder.rest if decoder.done else None


def split(data: bytes, step: int) -> list[bytes]:
    return [data[start : start + step] for start in range(0, len(data), step)]


def body_outcome(data: bytes) -> tuple[bytes, bytes | None] | int:
    whole = decode([data])
    for step in (1, 2, 3, 5, 64):
        assert decode(split(data, step)) == whole, step
    return whole


EXTENSION = b";" + b"x" * (chunked.CHUNK_LINE_BYTES - len(b"\r\n1;\r\n"))
TRAILER = b"A: " + b"x" * (chunked.TRAILER_BYTES - len(b"A: \r\n\r\n")) + b"\r\n"

BODIES: list[tuple[bytes, tuple[bytes, bytes | None] | int]] = [
    (b"0\r\n\r\n", (b"", b"")),
    (b"0\r\n\r\n" + NEXT, (b"", NEXT)),
    (b"3\r\nabc\r\n0\r\n\r\n", (b"abc", b"")),
    (b"3\r\nabc\r\n4\r\n\r\n0\r\r\n0\r\n\r\nrest", (b"abc\r\n0\r", b"rest")),
    (b"b\r\nhello world\r\n00\r\n\r\n", (b"hello world", b"")),
    (b"0B\r\nhello world\r\n0\r\n\r\n", (b"hello world", b"")),
    (b"0000000000000003\r\nabc\r\n0000000000000000\r\n\r\n", (b"abc", b"")),
    (b"a0\r\n" + b"x" * 160 + b"\r\n0\r\n\r\n", (b"x" * 160, b"")),
    (b"1\r\na\r\n" * 40 + b"0\r\n\r\n", (b"a" * 40, b"")),
    (b"1;a\r\nx\r\n0\r\n\r\n", (b"x", b"")),
    (b'1;a=b;c="d e";\tf\r\nx\r\n0;g\r\n\r\n', (b"x", b"")),
    (b"1;\xff\r\nx\r\n0\r\n\r\n", (b"x", b"")),
    (b"1" + EXTENSION + b"\r\nx\r\n0\r\n\r\n", (b"x", b"")),
    (b"0\r\nA: b\r\n\r\nrest", (b"", b"rest")),
    (b"0\r\nA: b\r\nContent-Length: 5\r\nTransfer-Encoding:\r\n\r\n", (b"", b"")),
    (b"0\r\n" + TRAILER + b"\r\n", (b"", b"")),
    # Unfinished
    (b"", (b"", None)),
    (b"3", (b"", None)),
    (b"3;", (b"", None)),
    (b"3\r", (b"", None)),
    (b"3\r\n", (b"", None)),
    (b"3\r\nab", (b"ab", None)),
    (b"3\r\nabc", (b"abc", None)),
    (b"3\r\nabc\r", (b"abc", None)),
    (b"3\r\nabc\r\n", (b"abc", None)),
    (b"0\r\n", (b"", None)),
    (b"0\r\n\r", (b"", None)),
    (b"0\r\nA", (b"", None)),
    (b"0\r\nA: b\r\n", (b"", None)),
    # Sizes
    (b"\r\n", 400),
    (b"\n", 400),
    (b" ", 400),
    (b" 3\r\nabc\r\n0\r\n\r\n", 400),
    (b"3 \r\nabc\r\n0\r\n\r\n", 400),
    (b"3\t\r\nabc\r\n0\r\n\r\n", 400),
    (b"3 ;a\r\nabc\r\n0\r\n\r\n", 400),
    (b"+3\r\nabc\r\n0\r\n\r\n", 400),
    (b"-3\r\nabc\r\n0\r\n\r\n", 400),
    (b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    (b"g\r\n", 400),
    (b"3_0\r\n", 400),
    (b"3,\r\n", 400),
    (b"\xb2\r\n", 400),
    (b";a\r\nabc\r\n", 400),
    (b"00000000000000003\r\nabc\r\n0\r\n\r\n", 400),
    (b"10000000000000003\r\nabc\r\n0\r\n\r\n", 400),  # 3 modulo 2**64
    # Line ends
    (b"3\nabc\r\n0\r\n\r\n", 400),
    (b"3\rabc\r\n0\r\n\r\n", 400),
    (b"3\r\rabc\r\n0\r\n\r\n", 400),
    (b"3\r\nabc\n0\r\n\r\n", 400),
    (b"3\r\nabc\r0\r\n\r\n", 400),
    (b"3\r\nabc0\r\n\r\n", 400),
    (b"3\r\nabcd\r\n0\r\n\r\n", 400),
    (b"3\r\nabcXX0\r\n\r\n", 400),
    (b"3\r\nab\r\n0\r\n\r\n", 400),
    (b"3\r\nabc\r\n\r\n0\r\n\r\n", 400),
    (b"3\r\nabc\r\n0\n\r\n", 400),
    (b"3\r\nabc\r\n0\r\n\n", 400),
    (b"3\r\nabc\r\n0\r\n\r\r\n", 400),
    (b"0\r\n\rX", 400),
    # Extensions: no bare line end may hide in one (TERM.EXT, EXT.TERM), nor may they be long
    (b"3;a\nabc\r\n0\r\n\r\n", 400),
    (b"3;a\rabc\r\n0\r\n\r\n", 400),
    (b"3;\n0\r\n\r\nabc", 400),
    (b"3;a=\x00\r\nabc\r\n0\r\n\r\n", 400),
    (b'3;a="\r\n"\r\nabc\r\n0\r\n\r\n', 400),
    (b"1" + EXTENSION + b"x\r\nx\r\n0\r\n\r\n", 400),
    (b"1;" + b"x" * 10000, 400),
    ((b"1" + EXTENSION + b"\r\nx\r\n") * 100, 400),
    (b"1;\r\nx\r\n" * chunked.CHUNK_EXTENSIONS_BYTES + b"0\r\n\r\n", (b"x" * chunked.CHUNK_EXTENSIONS_BYTES, b"")),
    (b"1;\r\nx\r\n" * chunked.CHUNK_EXTENSIONS_BYTES + b"1;\r\n", 400),
    # Trailers
    (b"0\r\n A: b\r\n\r\n", 400),
    (b"0\r\nA : b\r\n\r\n", 400),
    (b"0\r\nA\r\n\r\n", 400),
    (b"0\r\n: b\r\n\r\n", 400),
    (b"0\r\nA: b\n\r\n", 400),
    (b"0\r\nA: \x00\r\n\r\n", 400),
    (b"0\r\nA: b\r\n c\r\n\r\n", 400),
    (b"0\r\nGET / HTTP/1.1\r\n\r\n", 400),
    (b"0\r\n" + b"x" + TRAILER + b"\r\n", 400),
    (b"0\r\nA: b\r\n" + TRAILER + b"\r\n", 400),
    (b"0\r\n" + TRAILER + b"A: b\r\n\r\n", 400),
    (b"0\r\n" + b"A: b\r\n" * 1000, 400),
]


@pytest.mark.parametrize(("data", "expected"), BODIES, ids=range(len(BODIES)))
def test_chunked_body(data: bytes, expected: tuple[bytes, bytes | None] | int) -> None:
    assert body_outcome(data) == expected


def test_every_cut_of_a_chunked_body_in_two() -> None:
    data = b"3;a=b\r\nabc\r\n1\r\nd\r\n0\r\nA: b\r\n\r\n" + NEXT
    for cut in range(len(data)):
        assert decode([data[:cut], data[cut:]]) == (b"abcd", NEXT)


def test_what_comes_after_the_end_is_kept() -> None:
    decoder = ChunkedDecoder()
    assert (decoder.done, decoder.rest) == (False, b"")
    assert decoder.feed(b"0\r\n\r\nab") == b""
    assert decoder.done
    assert decoder.feed(b"cd") == b""
    assert decoder.rest == b"abcd"


@pytest.mark.parametrize("chunk", [1, 16, 65536, 1 << 20])
def test_chunked_body_costs_linear_time(chunk: int) -> None:
    count = MEGABYTE // 32 // chunk or 1
    data = (b"%x\r\n" % chunk + b"x" * chunk + b"\r\n") * count + b"0\r\n\r\n"
    linear(lambda: decode([data]))
    linear(lambda: decode(split(data, 1)))


def test_decoder_keeps_no_more_than_a_line() -> None:
    data = (b"1" + EXTENSION + b"\r\nx\r\n") * 50 + b"fffff\r\n" + b"x" * 0xFFFFF + b"\r\n0\r\n" + TRAILER + b"\r\n"
    decoder = ChunkedDecoder()
    for piece in split(data, 100):
        decoder.feed(piece)
        assert len(decoder._pending) <= chunked.TRAILER_BYTES
    assert decoder.done


def test_large_pieces_are_not_copied() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"fffff\r\n")
    piece = b"x" * 16384
    assert decoder.feed(piece) is piece
