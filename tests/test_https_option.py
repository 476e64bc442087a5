"""Values of https and https2: fields, client CA, and the slips that people make."""

import re
from dataclasses import replace

import pytest

from uwsgi_tls.addresses import Address, SharedAddress, TcpAddress
from uwsgi_tls.https_option import HttpsListener, parse_https, parse_https2

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
    ("=x,a,b", "is not =N"),
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
