"""A distinguished name as text in the manner of RFC 2253, as mod_ssl and nginx hand it on: "CN=Client 01,O=Lab,C=IT".

It is read from DER here because no release of pyOpenSSL or cryptography writes this form: the most specific part first,
every byte that is not printable ASCII as backslash and two hex digits, and what is no text as the hex of its DER, so
that no value can pose as another part or hold a control character. X509_NAME_print_ex(3) with XN_FLAG_RFC2253 is the
judge. Encodings: X.690, 8.1; string types: RFC 5280, appendix A.
"""

import re
from functools import lru_cache

COMMON_NAME = "2.5.4.3"

# OpenSSL's short names; RFC 4519. What is not here is written as numbers.
_SHORT_NAMES = {
    COMMON_NAME: "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "street",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.15": "businessCategory",
    "2.5.4.17": "postalCode",
    "2.5.4.20": "telephoneNumber",
    "2.5.4.41": "name",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.3": "mail",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.2.840.113549.1.9.2": "unstructuredName",
}
_SEQUENCE, _SET, _OBJECT = 0x30, 0x31, 0x06
_CODECS = {
    0x0C: "utf-8",  # UTF8String
    0x12: "latin-1",  # NumericString
    0x13: "latin-1",  # PrintableString
    0x14: "latin-1",  # T61String, which everybody takes for that
    0x16: "latin-1",  # IA5String
    0x1A: "latin-1",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
_SPECIAL = re.compile(r"""\A[ #]|[ ]\Z|[,+"\\<>;]|[^ -~]""")

Attribute = tuple[str, str | None, bytes]  # the type's numbers; its value, None where that is no text; the value's DER


@lru_cache(maxsize=128)  # one issuer has signed many, and most clients come again
def text(name: bytes) -> str:
    """The text of a DER Name, printable ASCII. Raises ValueError for what is not well formed."""
    return ",".join("+".join(map(_attribute, reversed(part))) for part in reversed(parts(name)))


@lru_cache(maxsize=128)
def is_plain(name: bytes) -> bool:
    r"""Whether X509_NAME_oneline(3) writes no other DER Name in the same way as this one.

    That prints the bytes of a value, whatever its type, and a backslash as it is. So two BMPString characters may look
    like the four letters of somebody else, and O=x\ with CN=admin like O=x/CN=admin.
    """
    try:
        return all(_is_plain(value, der) for part in parts(name) for _, value, der in part)
    except ValueError:
        return False


def _is_plain(value: str | None, der: bytes) -> bool:
    if value is None or "\\" in value:
        return False
    begin, _ = _element(der, 0, len(der))
    return der[begin:] == value.encode()


def common_name(name: bytes) -> str:
    """The most specific common name of a DER Name; "" where there is none, or two in one part. Raises ValueError."""
    for part in reversed(parts(name)):
        found = [value for kind, value, _ in part if kind == COMMON_NAME]
        if found:
            return (found[0] or "") if len(found) == 1 else ""
    return ""


def parts(name: bytes) -> list[list[Attribute]]:
    """The RelativeDistinguishedNames of a DER Name, the most general first. Raises ValueError."""
    found = []
    at, end = _element(name, 0, len(name), _SEQUENCE)
    if end != len(name):
        raise ValueError("more than a name")
    while at < end:
        begin, at = _element(name, at, end, _SET)
        found.append(_attributes(name, begin, at))
    return found


def _attributes(name: bytes, at: int, end: int) -> list[Attribute]:
    found = []
    while at < end:
        begin, at = _element(name, at, end, _SEQUENCE)
        numbers, value = _element(name, begin, at, _OBJECT)
        content, stop = _element(name, value, at)
        if stop != at:
            raise ValueError("an attribute with more than one value")
        codec = _CODECS.get(name[value])
        text = None if codec is None else name[content:stop].decode(codec)
        found.append((_dotted(name[numbers:value]), text, name[value:stop]))
    return found


def _element(data: bytes, at: int, end: int, wanted: int = 0) -> tuple[int, int]:
    """Where the content of the element at data[at] begins and ends. Raises ValueError, as for a tag not `wanted`."""
    if at + 2 > end:
        raise ValueError("a name that is cut off")
    size, begin = data[at + 1], at + 2
    if size > 0x80:
        begin += size - 0x80
        size = int.from_bytes(data[at + 2 : begin], "big")
    stop = begin + size
    if stop > end or data[at + 1] == 0x80 or (wanted and data[at] != wanted):
        raise ValueError("a name that is not DER")
    return begin, stop


def _dotted(numbers: bytes) -> str:
    """ "2.5.4.3" for the content of an OBJECT IDENTIFIER: X.690, 8.19."""
    values, value = [], 0
    for byte in numbers:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            values.append(value)
            value = 0
    if not values or numbers[-1] >= 0x80:
        raise ValueError("a name with a broken attribute type")
    first = min(values[0] // 40, 2)
    return ".".join(map(str, (first, values[0] - 40 * first, *values[1:])))


def _attribute(attribute: Attribute) -> str:
    kind, value, der = attribute
    short = _SHORT_NAMES.get(kind)
    if short is None or value is None:
        return f"{short or kind}=#{der.hex().upper()}"
    return f"{short}={_escaped(value)}"


def _escaped(value: str) -> str:
    """RFC 2253, 2.4, and what OpenSSL escapes beyond it."""
    return _SPECIAL.sub(_escape, value)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return "\\" + character if " " <= character <= "~" else "".join(f"\\{byte:02X}" for byte in character.encode())
