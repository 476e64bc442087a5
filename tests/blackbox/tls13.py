"""A TLS 1.3 client whose records are made by hand, to send what no library lets one send (RFC 8446).

Python's ssl shakes hands and reads the answers; what is sent after the handshake is encrypted here, with the secret
that ssl writes for debuggers (SSLContext.keylog_filename). It asks for nothing that would make the library answer.
"""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

SECONDS = 20.0  # what takes longer hangs
READ_BYTES = 65536
HANDSHAKE, APPLICATION_DATA = 22, 23  # ContentType: 5.1
NONCE_BYTES = 12
TAG_BYTES = 16
KEY_UPDATE = b"\x18\0\0\x01\0"  # update_not_requested: 4.6.3
KEY_UPDATE_REQUESTED = b"\x18\0\0\x01\1"  # the server is to send one, too
HALF_A_KEY_UPDATE = KEY_UPDATE[:4]  # all but its body


@dataclass(frozen=True, slots=True)
class Suite:
    """A cipher suite: appendix B.4."""

    hash: hashes.HashAlgorithm
    aead: type[AESGCM] | type[ChaCha20Poly1305]
    key_bytes: int


SUITES = {
    "TLS_AES_128_GCM_SHA256": Suite(hashes.SHA256(), AESGCM, 16),
    "TLS_AES_256_GCM_SHA384": Suite(hashes.SHA384(), AESGCM, 32),
    "TLS_CHACHA20_POLY1305_SHA256": Suite(hashes.SHA256(), ChaCha20Poly1305, 32),
}


class Sealer:
    """Encrypts one direction of a connection: sections 5.2, 5.3 and 7."""

    def __init__(self, suite: Suite, secret: bytes) -> None:
        self._suite = suite
        self._use(secret)

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = self._suite.aead(self._expand(b"key", self._suite.key_bytes))
        self._iv = int.from_bytes(self._expand(b"iv", NONCE_BYTES), "big")
        self._number = 0

    def _expand(self, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label with no context: 7.1."""
        info = struct.pack("!HB", length, 6 + len(label)) + b"tls13 " + label + b"\0"
        return HKDFExpand(self._suite.hash, length, info).derive(self._secret)

    def update(self) -> None:
        """The next keys: 7.2."""
        self._use(self._expand(b"traffic upd", self._suite.hash.digest_size))

    def record(self, content: bytes, kind: int) -> bytes:
        """The bytes of one record that holds `content` of the type `kind`."""
        header = struct.pack("!BHH", APPLICATION_DATA, 0x0303, len(content) + 1 + TAG_BYTES)
        nonce = (self._iv ^ self._number).to_bytes(NONCE_BYTES, "big")
        self._number += 1
        return header + self._aead.encrypt(nonce, content + bytes([kind]), header)


class Client:
    """One connection over the socket that it is given, which it closes. Its ClientHello is the caller's to begin."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(SECONDS)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each record leaves at once
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with tempfile.TemporaryDirectory() as directory:
            self._keys = Path(directory, "keys")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whom it talks to is not the point
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # Python sets it, and takes any end for a good one
            context.keylog_filename = str(self._keys)
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="server.lab")
            # OpenSSL keeps the file open, so its name is not needed longer than until it is open here, too.
            self._key_log = self._keys.open()
        self._sealer: Sealer | None = None
        assert not self._shakes_hands()
        self.hello = self._outgoing.read()  # a whole record, of which nothing has been sent

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._key_log.close()
        self.sock.close()

    def _shakes_hands(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def handshake(self, sent: int = 0) -> Client:
        """The whole handshake but the first `sent` bytes of the hello."""
        self.sock.sendall(self.hello[sent:])
        while not self._shakes_hands():
            self.sock.sendall(self._outgoing.read())
            self._feed()
        self.sock.sendall(self._outgoing.read())
        cipher = self._tls.cipher()
        assert cipher is not None
        (secret,) = (line.split()[2] for line in self._key_log if line.startswith("CLIENT_TRAFFIC_SECRET_0 "))
        self._sealer = Sealer(SUITES[cipher[0]], bytes.fromhex(secret))
        return self

    def _feed(self) -> None:
        data = self.sock.recv(READ_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    # What is sent.

    @property
    def sealer(self) -> Sealer:
        assert self._sealer is not None, "no handshake yet"
        return self._sealer

    def send(self, data: bytes) -> None:
        """Application data, in one record."""
        self.sock.sendall(self.sealer.record(data, APPLICATION_DATA))

    def send_handshake(self, message: bytes) -> None:
        """Any bytes of handshake messages, in one record. After a KeyUpdate's last byte `sealer.update` is due."""
        self.sock.sendall(self.sealer.record(message, HANDSHAKE))

    def key_updates(self, count: int, message: bytes = KEY_UPDATE) -> bytes:
        """The records of so many whole KeyUpdates, not sent yet; what is sent after them has the last one's keys."""
        records = []
        for _ in range(count):
            records.append(self.sealer.record(message, HANDSHAKE))
            self.sealer.update()
        return b"".join(records)

    # What comes.

    def receive(self) -> bytes:
        """Some application data; b"" for the end in due form. Raises SSLError and OSError for any other."""
        while True:
            try:
                return self._tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                self._feed()
            except ssl.SSLZeroReturnError:
                return b""

    def read_until(self, end: bytes) -> bytes:
        """What comes, `end` with it, which must be the last of it."""
        data = b""
        while not data.endswith(end):
            more = self.receive()
            assert more, f"an end in {data!r}"
            data += more
        return data
