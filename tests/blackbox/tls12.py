"""The records of a TLS 1.2 client made by hand, as those of 1.3 in tls13.py: this one may ask for renegotiation.

Python's ssl shakes hands; what is sent after that is encrypted here (RFC 5246 and 5288). Nothing is decrypted.
"""

from __future__ import annotations

import hmac
import socket
import ssl
import struct
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HANDSHAKE = 22  # ContentType: RFC 5246, 6.2.1
CLIENT_HELLO = b"\x01\0\0\0"  # of no length; its type alone asks for renegotiation
SUITE = "ECDHE-ECDSA-AES128-GCM-SHA256"
KEY_BYTES, SALT_BYTES, NONCE_BYTES, TAG_BYTES = 16, 4, 8, 16
RANDOM = slice(11, 43)  # of the first record that the server sends: headers of record and message, version, random
ALERT_BYTES = 5 + NONCE_BYTES + 2 + TAG_BYTES  # a record that holds an alert
READ_BYTES = 65536


class Sealer:
    """Encrypts what the client sends: RFC 5288, 3."""

    def __init__(self, key: bytes, salt: bytes) -> None:
        self._aead = AESGCM(key)
        self._salt = salt
        self._number = 1  # the first record was Finished

    def record(self, content: bytes, kind: int) -> bytes:
        """The bytes of one record that holds `content` of the type `kind`."""
        number = self._number.to_bytes(NONCE_BYTES, "big")
        self._number += 1
        associated = number + struct.pack("!BHH", kind, 0x0303, len(content))
        header = struct.pack("!BHH", kind, 0x0303, NONCE_BYTES + len(content) + TAG_BYTES)
        return header + number + self._aead.encrypt(self._salt + number, content, associated)


def handshake(sock: socket.socket) -> Sealer:
    """Shakes hands over a socket that blocks, and reads all that the server has to say."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    first = b""
    with tempfile.TemporaryDirectory() as directory:
        keys = Path(directory, "keys")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(SUITE)
        context.keylog_filename = str(keys)
        tls = context.wrap_bio(incoming, outgoing)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                data = sock.recv(READ_BYTES)
                assert data, "the server has ended the connection"
                first = first or data
                incoming.write(data)
        ((_, client_random, secret),) = (
            line.split() for line in keys.read_text().splitlines() if line.startswith("CLIENT_RANDOM ")
        )
    block = _pseudo_random(
        bytes.fromhex(secret),
        b"key expansion" + first[RANDOM] + bytes.fromhex(client_random),
        2 * KEY_BYTES + SALT_BYTES,
    )
    return Sealer(block[:KEY_BYTES], block[2 * KEY_BYTES :])


def _pseudo_random(secret: bytes, seed: bytes, length: int) -> bytes:
    """P_SHA256: RFC 5246, 5."""
    a, out = seed, b""
    while len(out) < length:
        a = hmac.digest(secret, a, "sha256")
        out += hmac.digest(secret, a + seed, "sha256")
    return out[:length]
