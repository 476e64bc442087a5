"""hello.py against real clients, hand-made bytes, and OpenSSL as the judge of the same bytes."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from uwsgi_tls.hello import HELLO_BYTES, HELLO_RECORDS, Hello, NotTls, Wanted, host_name, look, version_names

Answer = Hello | Wanted | NotTls

HTTP = NotTls("http")
JUNK = NotTls("junk")
NAMELESS = Hello(None, ())
BAD_NAME = Hello("", ())


def record(fragment: bytes, kind: int = 22, version: bytes = b"\3\1") -> bytes:
    return bytes([kind]) + version + len(fragment).to_bytes(2, "big") + fragment


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(content, 2)


def vector(content: bytes, length_bytes: int) -> bytes:
    return len(content).to_bytes(length_bytes, "big") + content


def server_name(raw: bytes) -> bytes:
    return extension(0, vector(b"\0" + vector(raw, 2), 2))


def alpn(*names: bytes) -> bytes:
    return extension(16, vector(b"".join(vector(name, 1) for name in names), 2))


def client_hello(*extensions: bytes, tail: bytes | None = None) -> bytes:
    """The handshake message; `tail` stands in the place of the extensions and their length."""
    body = b"\3\3" + bytes(range(32)) + vector(b"s" * 32, 1) + vector(b"\x13\x01\xc0\x2b", 2) + b"\1\0"
    return b"\1" + vector(body + (vector(b"".join(extensions), 2) if tail is None else tail), 3)


def python_hello(name: str | None, protocols: tuple[str, ...] = (), newest: ssl.TLSVersion | None = None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(protocols)
    if newest is not None:
        context.maximum_version = newest
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def captured(*command: str) -> bytes:
    """What a program sends first to a server at {port}, which reads no more than `look` wants."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        argv = [part.replace("{port}", str(listener.getsockname()[1])) for part in command]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet) as client:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20)
                data = b""
                while isinstance(answer := look(data), Wanted):
                    more = connection.recv(answer.bytes_total - len(data))
                    assert more, f"{argv} left after {data!r}"
                    data += more
            client.kill()
    return data


S_CLIENT = ("openssl", "s_client", "-connect", "127.0.0.1:{port}")
CURL = ("curl", "-sk", "--max-time", "20", "--resolve", "Shop.Example:{port}:127.0.0.1")
PYTHON = (
    "import socket, ssl, sys; context = ssl.create_default_context(); context.set_alpn_protocols(['http/1.1']);"
    "context.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1]))), server_hostname='py.example')"
)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ((*S_CLIENT, "-tls1_2", "-servername", "a.example"), Hello("a.example", ())),
        (
            (*S_CLIENT, "-tls1_3", "-servername", "A.Example", "-alpn", "h2,http/1.1"),
            Hello("a.example", ("h2", "http/1.1")),
        ),
        ((*S_CLIENT, "-noservername"), NAMELESS),
        ((*S_CLIENT, "-noservername", "-alpn", "http/1.1"), Hello(None, ("http/1.1",))),
        ((*S_CLIENT, "-servername", "b.example", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"), Hello("b.example", ())),
        ((*S_CLIENT, "-servername", "b.example", "-cipher", "ALL:@SECLEVEL=0", "-tls1_2"), Hello("b.example", ())),
        ((*CURL, "https://Shop.Example:{port}/"), Hello("shop.example", ("h2", "http/1.1"))),
        ((*CURL, "--http1.1", "https://127.0.0.1:{port}/"), Hello(None, ("http/1.1",))),
        ((*CURL, "http://127.0.0.1:{port}/"), HTTP),
        ((*CURL, "-X", "PROPFIND", "http://127.0.0.1:{port}/"), HTTP),
        ((sys.executable, "-c", PYTHON, "{port}"), Hello("py.example", ("http/1.1",))),
    ],
)
def test_a_real_client(command: tuple[str, ...], expected: Answer) -> None:
    assert shutil.which(command[0]), f"{command[0]} is not installed"
    assert look(captured(*command)) == expected


HAND_MADE = {
    "no extensions field, as TLS 1.2 allows": (client_hello(tail=b""), NAMELESS),
    "no extensions": (client_hello(), NAMELESS),
    "name and protocols": (client_hello(server_name(b"a.b"), alpn(b"h2")), Hello("a.b", ("h2",))),
    "name last": (
        client_hello(extension(0x2A2A, b""), alpn(b"x", b"y"), server_name(b"a.b")),
        Hello("a.b", ("x", "y")),
    ),
    "GREASE protocol": (client_hello(alpn(b"\x8a\x8a", b"h2")), Hello(None, ("\x8a\x8a", "h2"))),
    "name of a type that does not exist": (client_hello(extension(0, vector(b"\1" + vector(b"a", 2), 2))), BAD_NAME),
    "two names": (client_hello(extension(0, vector((b"\0" + vector(b"a", 2)) * 2, 2))), BAD_NAME),
    "empty list of names": (client_hello(extension(0, vector(b"", 2))), BAD_NAME),
    "empty server_name": (client_hello(extension(0, b""), alpn(b"h2")), Hello("", ("h2",))),
    "empty name": (client_hello(server_name(b"")), BAD_NAME),
    "name shorter than it says": (client_hello(extension(0, b"\0\4\0\0\7a")), BAD_NAME),
    "name longer than it says": (client_hello(extension(0, b"\0\7\0\0\1aaaa")), BAD_NAME),
    "empty protocol": (client_hello(alpn(b"h2", b"")), NAMELESS),
    "empty list of protocols": (client_hello(alpn()), NAMELESS),
    "empty alpn": (client_hello(extension(16, b"")), NAMELESS),
    "protocol longer than the list": (client_hello(extension(16, b"\0\3\7h2")), NAMELESS),
    "list longer than alpn": (client_hello(extension(16, b"\0\7\2h2")), NAMELESS),
    "extension longer than the hello": (client_hello(tail=vector(b"\0\0\0\7\0\4\0\0\1a", 2)), NAMELESS),
    "extensions longer than the hello": (client_hello(tail=b"\xff\xff" + server_name(b"a")), NAMELESS),
    "extensions shorter than the hello": (client_hello(tail=b"\0\1" + server_name(b"a")), NAMELESS),
    "cut in the random": (b"\1" + vector(b"\3\3abc", 3), NAMELESS),
    "cut in the session id": (b"\1" + vector(bytes(34) + b"\x20abc", 3), NAMELESS),
    "cut in the cipher suites": (b"\1" + vector(bytes(34) + b"\0\0\xff", 3), NAMELESS),
    "empty body": (b"\1\0\0\0", NAMELESS),
    "another handshake message": (b"\2" + client_hello(server_name(b"a.b"))[1:], NAMELESS),
    "a second message in the record": (client_hello(server_name(b"a.b")) + b"\1\0\0\0", Hello("a.b", ())),
    "longer than a hello may be": (b"\1\1\0\0" + bytes(100), JUNK),
}


@pytest.mark.parametrize(("message", "expected"), HAND_MADE.values(), ids=HAND_MADE)
def test_a_message_made_by_hand(message: bytes, expected: Answer) -> None:
    assert look(record(message)) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", Wanted(5)),
        (b"\x16", Wanted(5)),
        (b"\x16\3\1\2", Wanted(5)),
        (b"\x16\3\1\2\0", Wanted(517)),
        (b"\x16\3\1\0\1\1", Wanted(6 + 5 + 3)),  # one byte of the message's header of four
        (b"\x16\3\xff\0\7abc", Wanted(12)),  # RFC 8446 5.1: the minor version is ignored
        (b"\x16\2\1\2\0", JUNK),
        (b"\x16\3\1\x40\1", NAMELESS),  # OpenSSL: data length too long
        (b"\x15\3\1\0\2\1\0", JUNK),  # an alert
        (b"\x80\x64\1\3\3", JUNK),  # SSL 2
        (b"\0", JUNK),
        (b"G", HTTP),
        (b"GET / HTTP/1.1\r\n\r\n", HTTP),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP),
        (b"M-SEARCH * HTTP/1.1\r\n", HTTP),
        (b"get / HTTP/1.0\r\n", HTTP),
        (b" GET / HTTP/1.1\r\n", JUNK),
        (b"GET\t/ HTTP/1.1\r\n", JUNK),
        (b"SSH-2.0-OpenSSH_9.2\r\n", JUNK),
        (b"\r\n", JUNK),
        (b"{}", JUNK),
        (b"\x03\0\0\x13", JUNK),  # RDP
        (b"G\xc9T /", JUNK),
    ],
)
def test_the_first_bytes(data: bytes, expected: Answer) -> None:
    assert look(data) == expected


MESSAGE = client_hello(server_name(b"split.example"), alpn(b"h2", b"http/1.1"))
WHOLE = Hello("split.example", ("h2", "http/1.1"))


def pieces(message: bytes, size: int) -> bytes:
    return b"".join(record(message[at : at + size]) for at in range(0, len(message), size))


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 50, len(MESSAGE) - 1, len(MESSAGE)])
def test_a_hello_in_several_records_grows_byte_by_byte(size: int) -> None:
    data = pieces(MESSAGE, size)
    for there in range(len(data)):
        answer = look(data[:there])
        assert isinstance(answer, Wanted)
        assert there < answer.bytes_total <= len(data), "it would wait for bytes that do not come, or not at all"
    assert look(data) == WHOLE
    assert look(data + b"early data") == WHOLE


def test_the_wait_grows_with_what_was_announced() -> None:
    """One look a record would let a client buy a look for six bytes."""
    message = client_hello(server_name(b"a.b"), extension(21, bytes(1000)))
    data = b"".join(record(message[at : at + 20]) for at in range(0, len(message), 20))
    looks = there = 0
    while isinstance(answer := look(data[:there]), Wanted):
        there = answer.bytes_total
        looks += 1
    assert answer == Hello("a.b", ())
    assert there == len(data)
    assert looks <= 10 < len(data) // 25


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (record(b"") + record(MESSAGE), WHOLE),  # RFC 8446 5.1 forbids it, OpenSSL lets it pass
        (record(MESSAGE[:9]) + record(b"") + record(MESSAGE[9:]), WHOLE),
        (record(MESSAGE[:9]) + record(MESSAGE[9:], version=b"\3\3"), WHOLE),
        (record(MESSAGE[:9]) + record(MESSAGE[9:], version=b"\2\1"), JUNK),
        (record(MESSAGE[:9]) + record(b"\1\0", kind=21) + record(MESSAGE[9:]), JUNK),
        (record(MESSAGE[:9]) + record(b"\1", kind=20) + record(MESSAGE[9:]), JUNK),
        (pieces(MESSAGE[:6], 1) + record(MESSAGE[6:]), WHOLE),
        (pieces(MESSAGE, 1), JUNK),
        (record(b"") * HELLO_RECORDS + record(MESSAGE), JUNK),
        (record(b"") * (HELLO_RECORDS - 1) + record(MESSAGE), WHOLE),
        (record(b"\1\0\xff\xff" + bytes(10)), JUNK),
    ],
)
def test_records(data: bytes, expected: Answer) -> None:
    assert look(data) == expected


def test_the_largest_hello() -> None:
    fixed = len(client_hello(server_name(b"a.b"), extension(21, b"")))
    spare = HELLO_BYTES - 4 * 5 - fixed
    data = pieces(client_hello(server_name(b"a.b"), extension(21, bytes(spare))), 16384)
    assert len(data) == HELLO_BYTES
    assert look(data) == Hello("a.b", ())
    assert look(data[: 3 * 16389]) == Wanted(HELLO_BYTES)
    assert look(pieces(client_hello(server_name(b"a.b"), extension(21, bytes(spare + 1))), 16384)) == JUNK


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"example.com", "example.com"),
        (b"WWW.Example.COM.", "www.example.com"),
        (b"localhost", "localhost"),
        (b"a_b._tcp.example", "a_b._tcp.example"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"1.example", "1.example"),
        (b"x" * 63 + b".example", "x" * 63 + ".example"),
        (b"x" * 64 + b".example", ""),
        ((b"x" * 49 + b".") * 5 + b"abc", ("x" * 49 + ".") * 5 + "abc"),
        ((b"x" * 49 + b".") * 5 + b"abcd", ""),
        (b"y" * 255, ""),
        (b"y" * 300, ""),
        (b"", ""),
        (b".", ""),
        (b".a", ""),
        (b"a..b", ""),
        (b"a..", ""),
        (b"*.example.com", ""),
        (b"-a.example", ""),
        (b"a-.example", ""),
        (b"127.0.0.1", ""),
        (b"::1", ""),
        (b"a b", ""),
        (b"a\0.example", ""),
        (b"a.example\0", ""),
        (b"a.example\n", ""),
        (b"../../etc/passwd", ""),
        (b"a.example:443", ""),
        ("bücher.example".encode(), ""),
        (b"\xff\xfe", ""),
        ("\u212a.example".encode(), ""),  # the Kelvin sign, whose lower case is an ASCII k
    ],
)
def test_a_host_name(raw: bytes, name: str) -> None:
    assert host_name(raw) == name
    assert look(record(client_hello(server_name(raw)))) == Hello(name, ())


REQ = (
    "openssl",
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-subj",
    "/CN=judge",
)


class Judge:
    """OpenSSL as a server: which name and which protocols its callbacks see in the same bytes."""

    def __init__(self, directory: Path) -> None:
        key, certificate = str(directory / "judge.key"), str(directory / "judge.crt")
        subprocess.run((*REQ, "-keyout", key, "-out", certificate), check=True, capture_output=True)
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.use_privatekey_file(key)
        self.context.use_certificate_file(certificate)
        self.context.set_tlsext_servername_callback(self._name)
        self.context.set_alpn_select_callback(self._protocols)
        self.heard = False  # the name, if any
        self.name: bytes | None = None
        self.protocols: tuple[str, ...] | None = None

    def _name(self, connection: SSL.Connection) -> None:
        self.heard, self.name = True, connection.get_servername()

    def _protocols(self, connection: SSL.Connection, protocols: list[bytes]) -> bytes:
        self.protocols = tuple(protocol.decode("latin-1") for protocol in protocols)
        return protocols[0]

    def hears(self, data: bytes) -> None:
        self.heard, self.name, self.protocols = False, None, None
        connection = SSL.Connection(self.context, None)
        connection.set_accept_state()
        connection.bio_write(data)
        with contextlib.suppress(SSL.Error):
            connection.do_handshake()


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge(tmp_path_factory.mktemp("judge"))


SEEDS = [
    python_hello("fuzz.example", ("h2", "http/1.1")),
    python_hello("fuzz.example", ("http/1.1",), ssl.TLSVersion.TLSv1_2),
    python_hello(None),
    pieces(python_hello("fuzz.example", ("h2",))[5:], 60),
    record(b"") + record(python_hello("fuzz.example")[5:]),
]


@st.composite
def damaged_hellos(draw: st.DrawFn) -> bytes:
    """A real hello of which some bytes, most of them in the lengths near the start or the end, are other ones."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data) - 1))
        cut = draw(st.integers(0, 2))
        data[at : at + cut] = draw(st.binary(min_size=0, max_size=3))
        if not data:
            break
    return bytes(data)


@settings(max_examples=400, deadline=None)
@given(data=damaged_hellos())
def test_openssl_never_sees_a_name_that_we_do_not(judge: Judge, data: bytes) -> None:
    """Otherwise a client could have its handshake done in the context of one name and be taken for another."""
    judge.hears(data)
    answer = look(data)
    if judge.heard:
        assert isinstance(answer, Hello)
        assert answer.sni == (None if judge.name is None else host_name(judge.name))
    if judge.protocols is not None:
        assert isinstance(answer, Hello)
        assert answer.alpn == judge.protocols


@pytest.mark.parametrize("data", SEEDS)
def test_the_judge_accepts_the_seeds(judge: Judge, data: bytes) -> None:
    judge.hears(data)
    answer = look(data)
    assert isinstance(answer, Hello)
    assert judge.heard
    assert judge.name == (None if answer.sni is None else answer.sni.encode())
    assert (judge.protocols or ()) == answer.alpn


@settings(max_examples=300, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(record), damaged_hellos()))
def test_whatever_comes_has_an_answer(data: bytes) -> None:
    answer = look(data)
    assert isinstance(answer, Hello | Wanted | NotTls)
    if isinstance(answer, Wanted):
        assert len(data) < answer.bytes_total <= HELLO_BYTES


# --- what versions it offers --------------------------------------------------------------------------


def supported_versions(*versions: int) -> bytes:
    return extension(43, vector(b"".join(version.to_bytes(2, "big") for version in versions), 1))


@pytest.mark.parametrize(
    ("extensions", "names"),
    [
        ([supported_versions(0x0304, 0x0303)], ["TLSv1.3", "TLSv1.2"]),
        ([server_name(b"a.b"), supported_versions(0x0304), alpn(b"h2")], ["TLSv1.3"]),
        ([supported_versions(0x2A2A, 0x0304, 0x0303, 0x0302, 0x0301)], ["TLSv1.3", "TLSv1.2", "TLSv1.1", "TLSv1"]),
        ([supported_versions(0x0304, 0x7F1C, 0x0304)], ["TLSv1.3", "0x7f1c"]),
        ([], ["TLSv1.2"]),
        ([supported_versions()], []),
        ([extension(43, b"")], []),
        ([extension(43, b"\3\3\4\3")], ["TLSv1.3"]),
        ([supported_versions(*range(0x7F00, 0x7F70))], [f"0x7f{number:02x}" for number in range(8)]),
    ],
)
def test_versions(extensions: list[bytes], names: list[str]) -> None:
    answer = look(record(client_hello(*extensions)))
    assert isinstance(answer, Hello)
    assert version_names(answer.versions) == names


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_of_a_real_client(newest: ssl.TLSVersion) -> None:
    answer = look(python_hello("a.example", newest=newest))
    assert isinstance(answer, Hello)
    names = version_names(answer.versions)
    assert names[0] == newest.name.replace("_", ".")
    assert "TLSv1.2" in names


def test_of_what_is_malformed_nothing_is_said() -> None:
    answer = look(record(client_hello(tail=b"\0\5")))
    assert isinstance(answer, Hello)
    assert version_names(answer.versions) == []
