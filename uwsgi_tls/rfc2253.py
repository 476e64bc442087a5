"""A distinguished name as text in the manner of RFC 2253, as mod_ssl and nginx hand it on: "CN=Client 01,O=Lab,C=IT".

It is read from DER here because no release of pyOpenSSL or cryptography writes this form: the most specific part first,
every byte that is not printable ASCII as backslash and two hex digits, and what is no text as the hex of its DER, so
that no value can pose as another part or hold a control character. X509_NAME_print_ex(3) with XN_FLAG_RFC2253 is the
judge. Encodings: X.690, 8.1; string types: RFC 5280, appendix A.
"""

from collections.abc import Iterator

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

Attribute = tuple[str, str | None, bytes]  # the type's numbers; its value, None where that is no text; the value's DER


def text(name: bytes) -> str:
    """The text of a DER Name, printable ASCII. Raises ValueError for what is not well formed."""
    return ",".join("+".join(map(_attribute, part)) for part in reversed(parts(name)))


def common_name(name: bytes) -> str:
    """The common name in the most specific part of a DER Name; "" where that has none, or two. Raises ValueError."""
    found = [value for kind, value, _ in (parts(name) or [[]])[-1] if kind == COMMON_NAME]
    return (found[0] or "") if len(found) == 1 else ""


def parts(name: bytes) -> list[list[Attribute]]:
    """The RelativeDistinguishedNames of a DER Name, the most general first. Raises ValueError."""
    ((_, _, sequence),) = _elements(name, _SEQUENCE)
    return [
        [_read_attribute(attribute) for _, _, attribute in _elements(members, _SEQUENCE)]
        for _, _, members in _elements(sequence, _SET)
    ]


def _read_attribute(data: bytes) -> Attribute:
    (kind, _, numbers), (tag, whole, content) = _elements(data)
    if kind != _OBJECT:
        raise ValueError("a name with an attribute without a type")
    codec = _CODECS.get(tag)
    return _dotted(numbers), None if codec is None else content.decode(codec), whole


def _elements(data: bytes, wanted: int = 0) -> Iterator[tuple[int, bytes, bytes]]:
    """The elements that `data` consists of: tag, all bytes, content. Raises ValueError, as for a tag not `wanted`."""
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise ValueError("a name that is cut off")
        tag, size, begin = data[at], data[at + 1], at + 2
        if size > 0x80:
            begin += size - 0x80
            size = int.from_bytes(data[at + 2 : begin], "big")
        end = begin + size
        if end > len(data) or data[at + 1] == 0x80 or (wanted and tag != wanted):
            raise ValueError("a name that is not DER")
        yield tag, data[at:end], data[begin:end]
        at = end


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
    out = ""
    last = len(value) - 1
    for at, character in enumerate(value):
        if character in ',+"\\<>;' or (character == " " and at in (0, last)) or (character == "#" and at == 0):
            out += "\\" + character
        elif " " <= character <= "~":
            out += character
        else:
            out += "".join(f"\\{byte:02X}" for byte in character.encode())
    return out
