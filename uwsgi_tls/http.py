"""HTTP/1.1 request heads as bytes: where one ends, and what it says.

Strict RFC 9112 (syntax and framing) and RFC 9110 (fields): what two parsers could read in two ways is refused, and the
connection with it. Any token is a method. Nothing here reads a socket or a clock, and nothing grows with what a client
sends but the head itself (`limit` of `head_end`) and a name table of fixed size.

A request meets `head_end`, then `parse_head`, then perhaps the `ChunkedDecoder` of `chunked`. What they refuse is a
`BadRequest`.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import NoReturn
from urllib.parse import unquote_to_bytes

CHUNKED = -1  # RequestHead.content_length of a chunked body


_LENGTH_DIGITS = 18  # below 2**63, so that no backend's integer can wrap
_NAMES_LEARNT = 512  # entries of the name table, the usual names among them
_NAME_LEARNT_CHARS = 40


class BadRequest(Exception):
    """A request that is refused: the status to answer before closing, and the reason for the log (no client bytes)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


@dataclass(slots=True)
class RequestHead:
    """What a request head says. Strings are latin-1, as PEP 3333 wants them."""

    method: str
    target: str  # as sent: REQUEST_URI
    path: str  # percent-decoded: PATH_INFO
    query: str
    protocol: str  # "HTTP/1.0" or "HTTP/1.1"
    minor: int  # 0 or 1
    host: str  # "" only in HTTP/1.0
    fields: dict[str, str]  # CGI name -> value, in the order of arrival
    content_length: int  # bytes; 0: no body; CHUNKED
    keep_alive: bool
    expect_continue: bool
    upgrade: str  # the Upgrade field if Connection names it, else ""


# RFC 9110 5.6.2: tchar. RFC 9110 5.5: field-value, with obs-text, without any control character but HTAB.
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
VALUE = r"[^\x00-\x08\x0a-\x1f\x7f]"

# RFC 9112 3: method SP request-target SP HTTP-version, exactly one SP each. Visible ASCII in the target without '#'
# (a fragment is never sent; HAProxy CVE-2023-45539). Possessive (++): a mismatch costs no second look.
_ORIGIN_FORM = re.compile(rf'(?:\r\n)?({TOKEN}++) ((/[!"$->@-~]*+)(?:\?([!"$-~]*+))?) HTTP/1\.([0-9])\r\n')
_ANY_FORM = re.compile(rf'(?:\r\n)?({TOKEN}++) ([!"$-~]++) HTTP/([0-9])\.([0-9])\r\n')
_ABSOLUTE_FORM = re.compile(r"https?://([^/?]*+)(/[^?]*+)?(?:\?(.*+))?", re.IGNORECASE)

# RFC 9112 5: field-line, no obs-fold, no blank before the colon. `^`, and as many matches as lines: none is skipped.
FIELD_LINE = re.compile(rf"^({TOKEN}++):[ \t]*+({VALUE}*+)\r\n", re.MULTILINE)

# RFC 9110 7.2: uri-host [":" port]; narrower than reg-name: the characters of DNS names and no empty label.
_HOST = re.compile(r"(?:[\w-]+(?:\.[\w-]+)*\.?|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?", re.ASCII)
_HOST_CHARS = 255 + len(":65535")

# RFC 9112 2.2: a control character that is no LF of a CRLF, and no CR but one with its LF or one that may still get it.
# The set comes first, so that the search skips all else at full speed.
STRAY_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f](?<!\r\n)(?:(?<!\r)|(?=[^\n]))")
_TOKENS = re.compile(f"{TOKEN}+")
_TOKEN_BYTE = re.compile(TOKEN.encode())
_CGI_SAFE = re.compile(r"[0-9A-Za-z-]+")
_OPTIONS = re.compile(r"[^, \t][^,]*(?<![ \t])")

# A second one would decide about framing, routing, access or a precondition: never joined. RFC 9110 5.3 allows no list.
_SINGLE = """
    Authorization Content-Length Content-Range Content-Type Expect Host If-Modified-Since If-Range If-Unmodified-Since
    Max-Forwards Origin Proxy-Authorization Range Sec-WebSocket-Key Sec-WebSocket-Version Transfer-Encoding
"""
# Fields of the connection, not of the request (RFC 9110 7.6.1); and Proxy, which a CGI program would take for the
# environment variable HTTP_PROXY (CVE-2016-5385). Client-Cert is the word of whoever ends TLS, so of us: RFC 9440 4.
_DROPPED = frozenset(("client-cert", "client-cert-chain", "keep-alive", "proxy", "proxy-connection", "te", "trailer"))
_CONNECTION_OPTIONS = frozenset(("CLOSE", "KEEP_ALIVE", "UPGRADE"))  # in the letters of CGI names

_USUAL = """
    Accept Accept-Charset Accept-Encoding Accept-Language Authorization Cache-Control Connection Content-Encoding
    Content-Length Content-Type Cookie DNT Date Expect Forwarded From Host If-Match If-Modified-Since If-None-Match
    If-Range If-Unmodified-Since Keep-Alive Origin Pragma Priority Range Referer Sec-CH-UA Sec-CH-UA-Mobile
    Sec-CH-UA-Platform Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Sec-GPC Sec-WebSocket-Extensions
    Sec-WebSocket-Key Sec-WebSocket-Protocol Sec-WebSocket-Version TE Trailer Transfer-Encoding Upgrade
    Upgrade-Insecure-Requests User-Agent Via X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Real-IP
    X-Request-ID X-Requested-With
"""


def _cgi_name(name: str) -> str:
    """Return the CGI variable of a field name, or "" for a field that is dropped.

    Only letters, digits and "-" make a variable, as in Apache httpd and nginx: "_" would let X_Y meet X-Y, and PHP
    reads "." as "_" too.
    """
    if not _CGI_SAFE.fullmatch(name) or name.lower() in _DROPPED:
        return ""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else "HTTP_" + key


_SINGLE_NAMES = frozenset(map(_cgi_name, _SINGLE.split()))
_USUAL_NAMES = {spelling: _cgi_name(name) for name in _USUAL.split() for spelling in (name, name.lower())}
_names = dict(_USUAL_NAMES)  # the only thing here that changes: never more than _NAMES_LEARNT entries


def _learn(name: str) -> str:
    key = _cgi_name(name)
    if len(name) <= _NAME_LEARNT_CHARS:
        if len(_names) >= _NAMES_LEARNT:
            # Forget rather than stop learning: a client that fills the table must not slow down the others for good.
            _names.clear()
            _names.update(_USUAL_NAMES)
        _names[name] = key
    return key


def head_end(buffer: bytes | bytearray, limit: int, seen: int = 0) -> int:
    """Return the index just past the first request head in `buffer`, or -1 if more bytes are needed.

    `limit` is the bytes that a head may have. `seen` is how many bytes of the same buffer an earlier call has looked
    at: with it, a head that comes byte by byte costs no more than one that comes whole. One empty line before the head
    belongs to it (RFC 9112 2.2).
    Raises BadRequest as soon as no further byte could make the head right; with -1 or an index, `parse_head` has the
    last word.
    """
    first = 2 if buffer[:2] == b"\r\n" else 0
    end = buffer.find(b"\r\n\r\n", max(first, seen - 3)) + 4
    if 3 < end <= limit:
        return end
    _check_unfinished(buffer, first, limit, seen)
    return -1


def _check_unfinished(buffer: bytes | bytearray, first: int, limit: int, seen: int) -> None:
    line_end = buffer.find(b"\r\n", first, limit)
    if line_end >= 0 and line_end + 2 > seen:
        _request_line(str(buffer[first : line_end + 2], "latin-1"))
    if len(buffer) > first and not _TOKEN_BYTE.match(buffer, first) and (first or buffer != b"\r"):
        raise BadRequest(400, "request does not begin with a method")
    if STRAY_CONTROL.search(buffer, max(first, seen - 1), limit):
        raise BadRequest(400, "control character or bare CR or LF in the request head")
    if len(buffer) >= limit:
        if line_end < 0:
            raise BadRequest(414, f"request line over {limit} bytes")
        raise BadRequest(431, f"request head over {limit} bytes")


# Method, target, path (still percent-encoded), query, minor version, authority of an absolute-form target, end in the
# text. A plain tuple, which is taken apart at once and quicker to make than one with names.
_RequestLine = tuple[str, str, str, str, int, str | None, int]


def _request_line(text: str) -> _RequestLine:
    """Read the request line that `text` begins with. Raises BadRequest."""
    match = _ORIGIN_FORM.match(text)
    if match is None:
        return _other_request_line(text)
    method, target, path, query, minor = match.groups()
    if method == "CONNECT":
        raise BadRequest(501, "CONNECT")
    return method, target, path, query or "", 0 if minor == "0" else 1, None, match.end()


def _other_request_line(text: str) -> _RequestLine:
    match = _ANY_FORM.match(text)
    if match is None:
        raise BadRequest(400, "malformed request line")
    method, target, major, minor = match.groups()
    if major != "1":
        raise BadRequest(505, "HTTP version other than 1.x")
    if method == "CONNECT":
        # RFC 9110 9.3.6: a tunnel is what a proxy may offer; an origin server does not implement it.
        raise BadRequest(501, "CONNECT")
    number = 0 if minor == "0" else 1
    if target == "*":
        if method != "OPTIONS":
            raise BadRequest(400, "asterisk-form target without OPTIONS")
        return method, target, "*", "", number, None, match.end()
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        raise BadRequest(400, "malformed request target")
    authority, path, query = absolute.groups()
    if path is None:
        # RFC 9112 3.2.4: OPTIONS of a whole server, on its way through a proxy.
        path = "*" if method == "OPTIONS" and query is None else "/"
    _check_host(authority)
    return method, target, path, query or "", number, authority, match.end()


def parse_head(raw: bytes, max_headers: int) -> RequestHead:
    """Read a whole request head, `raw` up to the index that `head_end` returned, with at most `max_headers` fields.

    Raises BadRequest.
    """
    text = str(raw, "latin-1")
    method, target, path, query, minor, authority, start = _request_line(text)
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
        if "\0" in path:
            raise BadRequest(400, "%00 in the request target")
    lines = FIELD_LINE.findall(text, start)
    if len(lines) != text.count("\n", start) - 1:
        _refuse_fields(text, start)
    if len(lines) > max_headers:
        raise BadRequest(431, f"more than {max_headers} header fields")
    if " \r\n" in text or "\t\r\n" in text:
        lines = [(name, value.rstrip(" \t")) for name, value in lines]
    fields = _fields(lines)
    host = fields.get("HTTP_HOST")
    if host is not None:
        _check_host(host)
    elif minor:
        raise BadRequest(400, "no Host")
    if authority is not None:
        host = fields["HTTP_HOST"] = authority  # RFC 9112 3.2.2: the target wins
    length = _body_length(fields, minor)
    expect = fields.get("HTTP_EXPECT")
    if expect is not None and expect.lower() != "100-continue":
        raise BadRequest(417, "Expect other than 100-continue")
    expect_continue = expect is not None and minor > 0 and length != 0  # RFC 9110 10.1.1
    keep_alive, upgrade = _connection(fields, minor)
    protocol = "HTTP/1.1" if minor else "HTTP/1.0"
    return RequestHead(
        method, target, path, query, protocol, minor, host or "", fields, length, keep_alive, expect_continue, upgrade
    )


def _fields(lines: list[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in lines:
        key = _names.get(name)
        if key is None:
            key = _learn(name)
        if not key:
            continue
        if key in fields:
            if key in _SINGLE_NAMES:
                raise BadRequest(400, f"repeated {key}")
            value = f"{fields[key]}{'; ' if key == 'HTTP_COOKIE' else ', '}{value}"
        fields[key] = value
    return fields


def _check_host(host: str) -> None:
    """Refuse what is no uri-host [":" port]; an empty one too, as an https URI must have a host (RFC 9110 4.2.2)."""
    match = _HOST.fullmatch(host) if len(host) <= _HOST_CHARS else None
    if match is None:
        raise BadRequest(400, "invalid Host")
    if match.lastindex:
        ipv6, port = match.groups()
        if port and int(port) > 65535:
            raise BadRequest(400, "invalid port in Host")
        if ipv6 is not None:
            try:
                IPv6Address(ipv6)
            except AddressValueError:
                raise BadRequest(400, "invalid IPv6 address in Host") from None


def _body_length(fields: dict[str, str], minor: int) -> int:
    """Return the length of the body (RFC 9112 6), CHUNKED for a chunked one; normalise CONTENT_LENGTH."""
    coding = fields.pop("HTTP_TRANSFER_ENCODING", None)
    length = fields.get("CONTENT_LENGTH")
    if coding is not None:
        if length is not None:
            raise BadRequest(400, "both Content-Length and Transfer-Encoding")
        if not minor:
            raise BadRequest(400, "Transfer-Encoding in HTTP/1.0")
        if coding.lower() != "chunked":
            _refuse_coding(coding)
        return CHUNKED
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()):
        raise BadRequest(400, "invalid Content-Length")
    if len(length) > _LENGTH_DIGITS:
        raise BadRequest(413, f"Content-Length of more than {_LENGTH_DIGITS} digits")
    number = int(length)
    fields["CONTENT_LENGTH"] = str(number)  # "010" is not for a backend to read as octal
    return number


def _refuse_coding(value: str) -> NoReturn:
    """RFC 9112 6.3: 400 if chunked is not the last coding or comes twice; 6.1: 501 for a coding that we do not know."""
    codings = [coding.strip(" \t") for coding in value.lower().split(",")]
    known_length = codings[-1] == "chunked" and codings.count("chunked") == 1
    if known_length and all(_TOKENS.fullmatch(coding) for coding in codings):
        raise BadRequest(501, "transfer coding other than chunked")
    raise BadRequest(400, "invalid Transfer-Encoding")


def _connection(fields: dict[str, str], minor: int) -> tuple[bool, str]:
    """Take Connection and what it names (RFC 9110 7.6.1) out of `fields`; return (keep alive, protocol to upgrade to).

    What framing and routing stand on stays, whatever a client names.
    """
    value = fields.pop("HTTP_CONNECTION", None)
    upgrade = fields.pop("HTTP_UPGRADE", "")
    if value is None:
        return minor > 0, ""
    options = set(_OPTIONS.findall(value.upper().replace("-", "_")))
    keep_alive = "CLOSE" not in options and (minor > 0 or "KEEP_ALIVE" in options)
    if not options <= _CONNECTION_OPTIONS:
        for key in [key for key in fields if key.startswith("HTTP_") and key[5:] in options]:
            if key != "HTTP_HOST":
                del fields[key]
    return keep_alive, upgrade if minor and "UPGRADE" in options else ""


def _refuse_fields(text: str, start: int) -> NoReturn:
    for line in text[start:].split("\r\n"):
        if line and not FIELD_LINE.match(line + "\r\n"):
            name, colon, _ = line.partition(":")
            if line[0] in " \t":
                raise BadRequest(400, "folded header field")
            if not colon:
                raise BadRequest(400, "header field without a colon")
            if name[-1:] in (" ", "\t"):
                raise BadRequest(400, "blank before the colon of a header field")
            if not _TOKENS.fullmatch(name):
                raise BadRequest(400, "invalid header field name")
            raise BadRequest(400, "control character in a header field")
    raise BadRequest(400, "malformed header fields")
