"""PEM (RFC 7468): what a file has in it, as far as labels tell."""

import re

_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")


def instead(data: bytes | bytearray, wanted: str) -> str:
    """Why there is no `wanted` ("certificate", "private key", "CRL") in a file: what it has instead."""
    labels = [label.decode("ascii") for label in dict.fromkeys(_LABEL.findall(data))]
    if any(label.endswith(wanted.upper()) for label in labels):
        return f"its {wanted} is cut off"
    if labels:
        return f"holds no {wanted} but {', '.join(labels)}"
    if data[:1] == b"\x30":  # an ASN.1 SEQUENCE
        return "is not PEM but looks like DER; convert it with openssl"
    return "is not PEM"
