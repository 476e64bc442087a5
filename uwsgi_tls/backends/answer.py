"""A node's answer: what its head says, where its body ends, and whether the connection may serve again.

RFC 9112, 6.3 and 9.3, as strictly as for requests: what two readers could understand in two ways is a BadResponse.
Nothing here reads a socket.
"""

from collections.abc import Sequence
from typing import NamedTuple

from uwsgi_tls import response
from uwsgi_tls.chunked import ChunkedDecoder
from uwsgi_tls.response import BadResponse

HEAD_BYTES = 65536
INTERIM_HEADS = 64  # before an answer, of those that come at once
UNTIL_CLOSE = -1  # AnswerHead.length of a body that ends with the connection
CHUNKED = -2

_LENGTH_DIGITS = 18  # below 2**63
# Fields that say something here; the others are only passed on.
_OURS = frozenset(("connection", "content-length", "transfer-encoding", "upgrade"))
# In Connection, these name no field to take out: options, and what frames the body.
_STAYS = frozenset(("close", "keep-alive", "upgrade", "content-length"))


class AnswerHead(NamedTuple):
    """A head that is no interim one, or 101."""

    status: str  # "200 OK"
    headers: list[tuple[str, str]]  # those for the client, Content-Length among them
    length: int  # bytes of the body; UNTIL_CLOSE; CHUNKED
    persistent: bool  # another request may follow on this connection, once the body has been read to its end
    upgrade: str  # the protocol that it changes to, in lower case


def take_head(buffer: bytes, method: str) -> tuple[AnswerHead | None, bytes]:
    """The head that `buffer` begins with, in answer to a `method` request, and what follows; None: more must come.

    Interim answers (RFC 9110, 15.2) were meant for us and are left out, but for 101. Raises BadResponse.
    """
    for _ in range(INTERIM_HEADS + 1):
        end = response.response_head_end(buffer, HEAD_BYTES)
        if end < 0:
            return None, buffer
        status, headers = response.parse_response_head(buffer[:end])
        minor, buffer = buffer[7:8] != b"0", buffer[end:]
        if status[0] != "1" or status.startswith("101"):
            return _read(status, headers, minor, method), buffer
    raise BadResponse(f"more than {INTERIM_HEADS} interim answers at once")


def _read(status: str, headers: Sequence[tuple[str, str]], minor: bool, method: str) -> AnswerHead:
    length, coding, options, upgrade = UNTIL_CLOSE, "", "", ""
    passed = []
    for field in headers:
        name = field[0].lower()
        if name not in _OURS:
            passed.append(field)
        elif name == "content-length":
            passed.append(field)
            length = _one_length(length, field[1])
        elif name == "connection":
            options += f",{field[1].lower()}"
        elif name == "upgrade":
            upgrade = field[1].lower()
        elif coding or field[1].lower() != "chunked":
            raise BadResponse("a transfer coding other than chunked")
        else:
            coding = "chunked"
    named = {option.strip(" \t") for option in options.split(",")} if options else set()
    if not named <= _STAYS:
        # They speak of the way between the node and us (RFC 9110, 7.6.1).
        passed = [field for field in passed if field[0].lower() not in named - _STAYS]
    if method == "HEAD" or status.startswith(("101", "204", "304")):
        length = 0
    elif coding:
        if length >= 0:
            raise BadResponse("both Content-Length and Transfer-Encoding")
        if not minor:
            raise BadResponse("Transfer-Encoding in HTTP/1.0")  # RFC 9112, 6.1: its framing is not to be believed
        length = CHUNKED
    # Where no body is due a faulty node may send one all the same, and late: the next client would get it.
    persistent = minor and "close" not in named and length not in (0, UNTIL_CLOSE)
    return AnswerHead(status, passed, length, persistent, upgrade)


def _one_length(before: int, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > _LENGTH_DIGITS:
        raise BadResponse("invalid Content-Length")
    if before not in (UNTIL_CLOSE, int(value)):
        raise BadResponse("two different Content-Length")
    return int(value)


class AnswerBody:
    """Tells the body of an answer, of the length that its head says, from what comes after it."""

    __slots__ = ("_decoder", "_left", "chunked", "more", "whole")

    def __init__(self, length: int) -> None:
        self.chunked = length == CHUNKED
        self.whole = length == 0
        self.more = False  # the node has sent more than its answer, and whatever it meant, nobody asked for it
        self._left = length
        self._decoder = ChunkedDecoder() if self.chunked else None

    @property
    def until_close(self) -> bool:
        """Whether the end of the connection is its end, and no accident."""
        return self._left == UNTIL_CLOSE

    def feed(self, data: bytes) -> bytes:
        """Takes the next bytes, returns the payload among them. Raises http.BadRequest for bad chunks."""
        if self._decoder is not None:
            payload = self._decoder.feed(data)
            self.whole, self.more = self._decoder.done, bool(self._decoder.rest)
            return payload
        if self._left < 0:
            return data
        payload = data[: self._left]
        self.more = len(payload) < len(data)
        self._left -= len(payload)
        self.whole = self._left == 0
        return payload
