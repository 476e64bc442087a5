"""The payload of a chunked body (RFC 9112 7.1), of a request or of a backend's answer.

Strict as the head: a size, an extension or a line end that two parsers could read in two ways is a `BadRequest`.
Nothing here grows with what is sent but one unfinished line.
"""

import re

from uwsgi_tls.http import TOKEN, VALUE, BadRequest

CHUNK_LINE_BYTES = 256  # one chunk-size line, its extensions included
CHUNK_EXTENSIONS_BYTES = 16384  # all extensions of one body: nobody uses them but to keep a server busy
TRAILER_BYTES = 4096  # the whole trailer section, with its empty line

# RFC 9112 7.1, each seen from the CRLF that ends the chunk before it, so that data and size line can not drift apart.
# An extension may hold anything but controls; it is dropped.
_CHUNK_START = re.compile(rb"\r\n([0-9A-Fa-f]{1,16}+)(;[^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")
_CHUNK_START_PART = re.compile(rb"\r?|\r\n(?:[0-9A-Fa-f]{1,16}+(?:;[^\x00-\x08\x0a-\x1f\x7f]*+)?\r?)?")
_TRAILER_LINE = re.compile(rf"{TOKEN}++:{VALUE}*+\r\n".encode())
_TRAILER_LINE_PART = re.compile(rf"\r?|{TOKEN}++(?::{VALUE}*+\r?)?".encode())


class ChunkedDecoder:
    """Turns a chunked body (RFC 9112 7.1), fed in pieces of any size, into its payload.

    Extensions and trailers are checked and dropped. `done` becomes true with the end of the trailer section; `rest`
    then holds the bytes after it.
    """

    __slots__ = ("_extensions", "_in_trailer", "_left", "_pending", "_trailer", "done", "rest")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._left = 0  # bytes of the current chunk that are still to come
        self._pending = b"\r\n"  # an unfinished line, from the CRLF before it: as if an empty chunk had come first
        self._in_trailer = False
        self._extensions = 0  # bytes so far
        self._trailer = 0  # bytes so far

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the body, return the payload among them. Raises BadRequest."""
        if self.done:
            self.rest += data
            return b""
        if len(data) < self._left:
            self._left -= len(data)
            return data
        data = self._pending + data
        payload = []
        position = 0
        while not self._in_trailer:
            if self._left:
                piece = data[position : position + self._left]
                payload.append(piece)
                position += len(piece)
                self._left -= len(piece)
            start = _CHUNK_START.match(data, position)
            if start is None:
                self._wait(data[position:], _CHUNK_START_PART, CHUNK_LINE_BYTES)
                return b"".join(payload)
            position = start.end()
            self._left = int(start[1], 16)
            self._in_trailer = not self._left
            if start[2]:
                self._count_extension(len(start[0]), len(start[2]))
        self._read_trailer(data, position)
        return b"".join(payload)

    def _wait(self, part: bytes, allowed: re.Pattern[bytes], limit: int) -> None:
        """Keep an unfinished line for the next feed."""
        if len(part) > limit or not allowed.fullmatch(part):
            raise BadRequest(400, "malformed trailer" if self._in_trailer else "malformed chunk")
        self._pending = part

    def _count_extension(self, line: int, extension: int) -> None:
        self._extensions += extension
        if line > CHUNK_LINE_BYTES or self._extensions > CHUNK_EXTENSIONS_BYTES:
            raise BadRequest(400, "chunk extensions too long")

    def _read_trailer(self, data: bytes, position: int) -> None:
        while not data.startswith(b"\r\n", position):
            line = _TRAILER_LINE.match(data, position)
            if line is None:
                self._wait(data[position:], _TRAILER_LINE_PART, TRAILER_BYTES - self._trailer)
                return
            position = line.end()
            self._trailer += len(line[0])
            if self._trailer > TRAILER_BYTES - len(b"\r\n"):
                raise BadRequest(400, f"trailer over {TRAILER_BYTES} bytes")
        self.done = True
        self.rest = data[position + 2 :]
