"""The other end of the journal's native protocol, read as systemd documents it (JOURNAL_NATIVE_PROTOCOL)."""

import struct


def entry(datagram: bytes) -> dict[str, bytes]:
    """The fields of one entry; asserts that there is nothing else in it, and no field twice."""
    fields: dict[str, bytes] = {}
    at = 0
    while at < len(datagram):
        end = datagram.index(b"\n", at)
        name, equals, value = datagram[at:end].partition(b"=")
        at = end + 1
        if not equals:
            (size,) = struct.unpack_from("<Q", datagram, at)
            value = datagram[at + 8 : at + 8 + size]
            assert len(value) == size
            at += 8 + size
            assert datagram[at : at + 1] == b"\n"
            at += 1
        key = name.decode("ascii")
        assert key.replace("_", "").isalnum(), key
        assert key.isupper(), key
        assert not key.startswith("_"), key
        assert len(key) <= 64
        assert key not in fields
        fields[key] = value
    return fields
