"""Values of https and https2: fields, client CA, and the slips that people make."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from uwsgi_tls.addresses import Address, SharedAddress, TcpAddress
from uwsgi_tls.client_allow import Rule
from uwsgi_tls.https_option import (
    HttpsListener,
    SniSite,
    parse_https,
    parse_https2,
    parse_sni,
    parse_sni2,
    parse_sni_regexp,
    server_name,
)

ANY = TcpAddress("0.0.0.0", 8443)


def listener(
    address: Address, certificate: str, key: str, ciphers: str = "", client_ca: str = "", required: bool = False
) -> HttpsListener:
    files = ((certificate, key),)
    return HttpsListener(
        address=address, certificates=files, ciphers=ciphers, client_ca=client_ca, client_required=required
    )


GOOD_HTTPS = [
    ("0.0.0.0:8443,foobar.crt,foobar.key", listener(ANY, "foobar.crt", "foobar.key")),
    (":8443,a,b", listener(ANY, "a", "b")),
    ("=0,foobar.crt,foobar.key,HIGH", listener(SharedAddress(0), "foobar.crt", "foobar.key", "HIGH")),
    ("=0,a,b,HIGH,ca.crt", listener(SharedAddress(0), "a", "b", "HIGH", "ca.crt")),
    ("=0,a,b,HIGH,!ca.crt", listener(SharedAddress(0), "a", "b", "HIGH", "ca.crt", True)),
    ("=0,a,b,,!ca.crt", listener(SharedAddress(0), "a", "b", "", "ca.crt", True)),
    ("=0,a,b,", listener(SharedAddress(0), "a", "b")),
    ("=0,a,b,,ca,with,commas.crt", listener(SharedAddress(0), "a", "b", "", "ca,with,commas.crt")),
    ("=0,a,b,,!MD5.pem", listener(SharedAddress(0), "a", "b", "", "MD5.pem", True)),
    ("=0,a,b,,./MD5", listener(SharedAddress(0), "a", "b", "", "./MD5")),
    (
        "=0,a,b,ECDHE+AESGCM:!aNULL:@SECLEVEL=2",
        listener(SharedAddress(0), "a", "b", "ECDHE+AESGCM:!aNULL:@SECLEVEL=2"),
    ),
]

GOOD_HTTPS2 = [
    ("addr=0.0.0.0:8443,cert=a,key=b", listener(ANY, "a", "b")),
    ("addr==0,crt=a,key=b", listener(SharedAddress(0), "a", "b")),
    (
        "key=b,cert=a,addr==1,ciphers=HIGH:!MD5,clientca=!ca",
        listener(SharedAddress(1), "a", "b", "HIGH:!MD5", "ca", True),
    ),
    ("addr==0,cert=a,key=b,client_ca=ca", listener(SharedAddress(0), "a", "b", "", "ca")),
    ("addr==0,cert=a,key=b,ciphers=", listener(SharedAddress(0), "a", "b")),
]

BAD_HTTPS = [
    ("", "the syntax is ADDRESS,CERTIFICATE,KEY"),
    ("=0,foobar.crt", "the syntax is ADDRESS,CERTIFICATE,KEY"),
    (",a,b", "the address is empty"),
    ("=-x,a,b", "is not =N"),
    ("=0,,b", "the certificate file is empty"),
    ("=0,a,", "the key file is empty"),
    ("=0,a,b,HIGH,", "the client CA is empty"),
    ("=0,a,b,HIGH,!", "the client CA is empty"),
    ("=0,a,b,HIGH,!aNULL", "'!aNULL' reads as part of the cipher list"),
    ("=0,a,b,HIGH,!aNULL,!ca.crt", "'!aNULL' reads as part of the cipher list"),
    ("=0,a,b,HIGH,!aNULL:!MD5", "separate ciphers with ':'"),
    ("=0,a,b,ECDHE+AESGCM,-kRSA+AES,ca.crt", "'-kRSA+AES' reads as part of the cipher list"),
    ("=0,a,b,ca.crt", "two commas before the CA"),
    ("=0,a,b,!ca.pem", "two commas before the CA"),
    ("=0,a,b,/etc/ssl/ca", "two commas before the CA"),
]

BAD_HTTPS2 = [
    ("", "is not KEY=VALUE"),
    ("addr==0,cert=a", "key must be given"),
    ("ciphers=HIGH", "addr and cert and key must be given"),
    ("addr==0,cert=a,key=b,bogus=1", "'bogus=1' is not KEY=VALUE"),
    ("addr==0,cert=a,key=b,junk", "'junk' is not KEY=VALUE"),
    ("addr==0,cert=a,key=b,cert=c", "there are 2 cert and 1 key"),
    ("addr==0,cert=a,crt=c,key=b", "there are 2 cert and 1 key"),
    ("addr==0,cert=a,key=b,spdy=1", "spdy is gone"),
    ("addr==0,cert=a,key=b,clientca=", "clientca is empty"),
    ("addr==0,cert=a,key=b,clientca=!", "the client CA is empty"),
    ("addr==0,cert=,key=b", "cert is empty"),
    ("addr=,cert=a,key=b", "addr is empty"),
    ("addr==0,cert=a,key=b,ciphers=HIGH,!aNULL", "'!aNULL' reads as part of the cipher list"),
]


@pytest.mark.parametrize(("text", "expected"), GOOD_HTTPS)
def test_https(text: str, expected: HttpsListener) -> None:
    assert parse_https(text) == replace(expected, text=text, option="https")


@pytest.mark.parametrize(("text", "expected"), GOOD_HTTPS2)
def test_https2(text: str, expected: HttpsListener) -> None:
    assert parse_https2(text) == replace(expected, text=text, option="https2")


@pytest.mark.parametrize(("text", "cause"), BAD_HTTPS)
def test_https_nonsense_is_named(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cause)):
        parse_https(text)


@pytest.mark.parametrize(("text", "cause"), BAD_HTTPS2)
def test_https2_nonsense_is_named(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cause)):
        parse_https2(text)


# Every key


def test_every_key_of_https2() -> None:
    text = (
        "addr==0,cert=rsa.crt,key=rsa.key,cert=ec.crt,key=ec.key,ciphers=HIGH,clientca=!ca.crt,crl=ca.crl,depth=2,"
        "ciphersuites=TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256,profile=intermediate,min-version=TLSv1.2,"
        "max-version=1.3,allow=cn:Client 01,allow=dns:client.lab"
    )
    assert parse_https2(text) == HttpsListener(
        address=SharedAddress(0),
        certificates=(("rsa.crt", "rsa.key"), ("ec.crt", "ec.key")),
        ciphers="HIGH",
        ciphersuites="TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256",
        client_ca="ca.crt",
        client_required=True,
        crl="ca.crl",
        verify_depth=2,
        profile="intermediate",
        min_version="1.2",
        max_version="1.3",
        client_allow=(Rule("cn", "Client 01"), Rule("dns", "client.lab")),
        text=text,
        option="https2",
    )
    assert parse_https2(text).files == ("rsa.crt", "rsa.key", "ec.crt", "ec.key", "ca.crt", "ca.crl")


def test_pkcs12_has_its_key_in_it() -> None:
    pairs = (("a.p12", "a.p12"), ("b.crt", "b.key"), ("c.pfx", "c.pfx"))
    assert parse_https2("addr==0,cert=a.p12,cert=b.crt,key=b.key,cert=c.pfx").certificates == pairs
    assert parse_sni2("name=a.lab,cert=a.p12").certificates == pairs[:1]
    assert parse_sni("a.lab a.p12,").certificates == pairs[:1]
    with pytest.raises(ValueError, match="there are 1 cert and 1 key"):
        parse_sni2("name=a.lab,cert=a.p12,key=b")


BAD_KEYS = [
    ("key=c", "there are 1 cert and 2 key"),
    ("cert=c,key=d,cert=e", "there are 3 cert and 2 key"),
    ("crl=x", "crl has no effect without clientca"),
    ("depth=1", "depth has no effect without clientca"),
    ("allow=cn:x", "allow has no effect without clientca"),
    ("clientca=ca,depth=-1", "depth '-1' is not between 0 and 100"),
    ("clientca=ca,depth=101", "depth '101' is not between"),
    ("clientca=ca,depth=\u0661", "is not between"),
    ("clientca=ca,depth=1,depth=2", "depth is given twice"),
    ("clientca=ca,clientca=cb", "clientca is given twice"),
    ("clientca=ca,allow=x", "is not one of cn:NAME"),
    ("clientca=ca,crl=", "crl is empty"),
    ("profile=old", "gone from Mozilla's guidelines"),
    ("profile=paranoid", "'paranoid' is no profile; there are modern and intermediate"),
    ("min-version=1.1", "TLS 1.1 is broken (RFC 8996)"),
    ("max-version=1.4", "'1.4' is no TLS version"),
    ("ciphersuites=HIGH", "'HIGH' is no TLS 1.3 cipher suite"),
    ("ciphersuites=", "ciphersuites is empty"),
    ("name=a.lab", "'name=a.lab' is not KEY=VALUE"),
]


@pytest.mark.parametrize(("more", "cause"), BAD_KEYS)
def test_bad_keys_are_named(more: str, cause: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cause)):
        parse_https2(f"addr==0,cert=a,key=b,{more}")


# Names

GOOD_NAMES = [
    ("a.lab", "a.lab"),
    ("A.Lab.", "a.lab"),
    ("localhost", "localhost"),
    ("*.a.lab", "*.a.lab"),
    ("*.A.LAB.", "*.a.lab"),
    ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("_x.a.lab", "_x.a.lab"),
]
BAD_NAMES = [
    ("127.0.0.1", "addresses are none"),
    ("::1", "addresses are none"),
    ("b\u00fccher.example", "xn--"),
    ("*", "a wildcard is *.NAME"),
    ("*.*.lab", "a wildcard is *.NAME"),
    ("a*.lab", "a wildcard is *.NAME"),
    ("a.*.lab", "a wildcard is *.NAME"),
    ("*.", "a wildcard is *.NAME"),
    ("", "is no server name"),
    (".", "is no server name"),
    ("..", "is no server name"),
    ("a..lab", "is no server name"),
    ("../a.lab", "is no server name"),
    ("a.lab:443", "is no server name"),
    ('"a.lab"', "is no server name"),
    ("a" * 64 + ".lab", "is no server name"),
]


@pytest.mark.parametrize(("text", "name"), GOOD_NAMES)
def test_a_server_name(text: str, name: str) -> None:
    assert server_name(text) == name


@pytest.mark.parametrize(("text", "cause"), BAD_NAMES)
def test_what_is_no_server_name(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cause)):
        server_name(text)


def site(text: str, option: str, **more: Any) -> SniSite:
    return SniSite(text=text, option=option, **({"certificates": (("a", "b"),)} | more))


GOOD_SNI: list[tuple[Callable[[str], SniSite], SniSite]] = [
    (parse_sni, site("A.Lab a,b", "sni", names=("a.lab",))),
    (parse_sni, site("*.a.lab  \t a,b,HIGH", "sni", names=("*.a.lab",), ciphers="HIGH")),
    (parse_sni, site("a.lab a,b,,ca", "sni", names=("a.lab",), client_ca="ca")),
    (
        parse_sni,
        site("a.lab a,b,HIGH,!c,a", "sni", names=("a.lab",), ciphers="HIGH", client_ca="c,a", client_required=True),
    ),
    (parse_sni, site("a.lab a b,c d", "sni", names=("a.lab",), certificates=(("a b", "c d"),))),
    (
        parse_sni_regexp,
        site("^a[0-9]+ a,b,,!ca", "sni-regexp", expression="^a[0-9]+", client_ca="ca", client_required=True),
    ),
    (parse_sni2, site("name=A.lab,name=*.b.lab,name=a.lab.,cert=a,key=b", "sni2", names=("a.lab", "*.b.lab"))),
    (
        parse_sni2,
        site("cert=a,key=b,name=a.lab,clientca=ca,depth=0", "sni2", names=("a.lab",), client_ca="ca", verify_depth=0),
    ),
]

BAD_SNI: list[tuple[Callable[[str], SniSite], str, str]] = [
    (parse_sni, "", "the syntax is NAME CERTIFICATE,KEY"),
    (parse_sni, "a.lab", "the syntax is NAME CERTIFICATE,KEY"),
    (parse_sni, "a.lab,a,b", "the syntax is NAME CERTIFICATE,KEY"),
    (parse_sni, "a.lab a", "the syntax is NAME CERTIFICATE,KEY"),
    (parse_sni, "a.lab ,b", "the certificate file is empty"),
    (parse_sni, "a.lab a,", "the key file is empty"),
    (parse_sni, "a.lab a,b,HIGH,", "the client CA is empty"),
    (parse_sni, "a.lab a,b,ca.crt", "two commas before the CA"),
    (parse_sni, "127.0.0.1 a,b", "addresses are none"),
    (parse_sni, "~x a,b", "is no server name"),
    (parse_sni_regexp, "a.lab", "the syntax is EXPRESSION CERTIFICATE,KEY"),
    (parse_sni_regexp, "a[ a,b", "'a[' is no regular expression: unterminated character set"),
    (parse_sni2, "cert=a,key=b", "name must be given"),
    (parse_sni2, "name=a.lab", "cert and key must be given: name=NAME,cert=FILE,key=FILE"),
    (parse_sni2, "name=,cert=a,key=b", "name is empty"),
    (parse_sni2, "name=1.2.3.4,cert=a,key=b", "addresses are none"),
    (parse_sni2, "addr==0,name=a.lab,cert=a,key=b", "'addr==0' is not KEY=VALUE"),
]


@pytest.mark.parametrize(("parse", "expected"), GOOD_SNI)
def test_sni(parse: Callable[[str], SniSite], expected: SniSite) -> None:
    assert parse(expected.text) == expected


@pytest.mark.parametrize(("parse", "text", "cause"), BAD_SNI)
def test_sni_nonsense_is_named(parse: Callable[[str], SniSite], text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cause)):
        parse(text)
