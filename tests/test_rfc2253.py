"""rfc2253.py: names that are not well formed, and which common name counts. How names are written: test_peer.py."""

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from uwsgi_tls.rfc2253 import common_name, is_plain, parts, text

CN = NameOID.COMMON_NAME


def name(*rdns: list[tuple[x509.ObjectIdentifier, str]]) -> bytes:
    sets = [x509.RelativeDistinguishedName([x509.NameAttribute(*pair) for pair in rdn]) for rdn in rdns]
    return x509.Name(sets).public_bytes()


GOOD = name([(NameOID.COUNTRY_NAME, "IT")], [(CN, "a"), (NameOID.USER_ID, "b")])


@pytest.mark.parametrize(
    ("der", "expected"),
    [
        (name([(CN, "a")]), "a"),
        (name([(CN, "general")], [(CN, "specific")]), "specific"),
        (name([(CN, "a")], [(NameOID.EMAIL_ADDRESS, "a@lab")]), "a"),
        (name([(CN, "a"), (NameOID.USER_ID, "b")]), "a"),
        (name([(CN, "general")], [(CN, "a"), (CN, "b")]), ""),
        (name([(CN, "a\0b")]), "a\0b"),
        (name([(NameOID.USER_ID, "b")]), ""),
        (name(), ""),
        (name([(CN, "a")]).replace(b"\x0c\x01a", b"\x02\x01a"), ""),  # an INTEGER
    ],
)
def test_common_name(der: bytes, expected: str) -> None:
    assert common_name(der) == expected


@pytest.mark.parametrize(
    ("der", "expected"),
    [
        (GOOD, "UID=b+CN=a,C=IT"),
        (name([(CN, "a")]).replace(b"\x0c\x01a", b"\x02\x01a"), "CN=#020161"),
        (name([(CN, "#")], [(CN, " ")], [(CN, "a ")], [(CN, "#a#")]), "CN=\\#a#,CN=a\\ ,CN=\\ ,CN=\\#"),
        (name([(x509.ObjectIdentifier("2.999.1000000"), "x")]), "2.999.1000000=#0C0178"),
        (name([(NameOID.ORGANIZATION_NAME, "x" * 70000)]), "O=" + "x" * 70000),
    ],
)
def test_text(der: bytes, expected: str) -> None:
    assert text(der) == expected


@pytest.mark.parametrize(
    ("der", "expected"),
    [
        (GOOD, True),
        (name(), True),
        (name([(CN, "Zo\u00eb/\0 +")]), True),
        (name([(NameOID.ORGANIZATION_NAME, "x\\")], [(CN, "admin")]), False),
        (name([(CN, "admin\\x00")]), False),
        (name([(CN, "anna")]).replace(b"\x0c\x04anna", b"\x13\x04anna"), True),  # a PrintableString
        (name([(CN, "anna")]).replace(b"\x0c\x04anna", b"\x1e\x04anna"), False),  # a BMPString of two letters
        (name([(CN, "\0a")]).replace(b"\x0c\x02\0a", b"\x1e\x02\0a"), False),  # "a", which ends like its bytes
        (name([(CN, "\0\0\0a")]).replace(b"\x0c\x04", b"\x1c\x04"), False),  # a UniversalString
        (name([(CN, "\u00eb")]).replace(b"\x0c\x02", b"\x14\x02"), False),  # a T61String that looks like UTF-8
        (name([(CN, "anna")]).replace(b"\x0c\x04anna", b"\x04\x04anna"), False),  # an OCTET STRING
        (b"\x30", False),
    ],
)
def test_what_looks_like_nothing_else_in_one_line(der: bytes, expected: bool) -> None:
    assert is_plain(der) is expected


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30",
        b"\x31\x00",  # a SET
        b"\x30\x80\x00\x00",  # BER: no length
        b"\x30\x01\x31",
        b"\x30\x84\xff\xff\xff\xff",
        GOOD + GOOD,
        GOOD[:-1],
        GOOD.replace(b"\x06\x03", b"\x04\x03", 1),  # no type
        GOOD.replace(b"\x55\x04\x06", b"\x55\x04\x86"),  # a type that goes on
        name([(CN, "aaa")]).replace(b"aaa", b"a\xffa"),  # no UTF-8
    ],
)
def test_what_is_no_name(der: bytes) -> None:
    for function in (text, common_name, parts):
        with pytest.raises(ValueError, match=r"."):
            function(der)


@given(st.binary(max_size=200), st.integers(0, len(GOOD)))
@example(b"", 0)
def test_any_bytes(junk: bytes, at: int) -> None:
    """A text without control characters, or ValueError."""
    for der in (junk, GOOD[:at] + junk + GOOD[at:], GOOD[:at] + junk):
        try:
            found = text(der)
        except ValueError:
            continue
        assert found.isascii()
        assert found == "" or found.isprintable()
