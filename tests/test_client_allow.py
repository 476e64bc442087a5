"""client_allow.py: which rules there are, and whom each lets in."""

import base64
from dataclasses import replace

import pytest

from uwsgi_tls.client_allow import Identity, Rule, matches, parse

DIGEST = bytes(range(32))
HEX = DIGEST.hex()

ALICE = Identity(
    cn="Alice, of Lab",
    dns=("alice.lab", "*.wild.lab"),
    email=("Alice@mail.lab",),
    uri=("spiffe://lab/Alice",),
    spki=HEX,
    fingerprint="ff" * 32,
)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("cn:Alice, of Lab", Rule("cn", "Alice, of Lab")),
        (" CN : a:b ", Rule("cn", "a:b")),
        ("dns:Alice.LAB.", Rule("dns", "alice.lab")),
        ("dns:xn--bcher-kva.example", Rule("dns", "xn--bcher-kva.example")),
        ("dns:localhost", Rule("dns", "localhost")),
        ("dns:_sip.a-b.lab", Rule("dns", "_sip.a-b.lab")),
        ("email:Alice@MAIL.lab", Rule("email", "Alice@mail.lab")),
        ("uri:spiffe://lab/Alice", Rule("uri", "spiffe://lab/Alice")),
        ("uri:urn:uuid:0", Rule("uri", "urn:uuid:0")),
        (f"spki:{HEX}", Rule("spki", HEX)),
        (f"spki:{base64.b64encode(DIGEST).decode()}", Rule("spki", HEX)),
        (f"spki:sha256//{base64.b64encode(DIGEST).decode()}", Rule("spki", HEX)),  # curl's --pinnedpubkey
        (f"fingerprint:SHA256:{HEX.upper()}", Rule("fingerprint", HEX)),
        (f"fingerprint:{DIGEST.hex(':').upper()}", Rule("fingerprint", HEX)),  # openssl x509 -fingerprint -sha256
    ],
)
def test_parse(text: str, rule: Rule) -> None:
    assert parse(text) == rule
    assert parse(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "is not one of cn:NAME"),
        ("Alice", "is not one of"),
        ("cn=Alice", "is not one of"),
        ("ou:Lab", "is not one of"),
        ("ip:192.0.2.1", "is not one of"),
        ("cn:", "without a value"),
        ("dns: ", "without a value"),
        ("dns:*.lab", "no wildcard"),
        ("dns:*", "no wildcard"),
        ("dns:bücher.example", "xn--"),
        ("dns:a..b", "is no host name"),
        ("dns:-a.lab", "is no host name"),
        ("dns:a b", "is no host name"),
        ("dns:a.lab,dns:b.lab", "is no host name"),
        (f"dns:{'a.' * 127}lab", "is no host name"),
        ("email:alice", "is no address"),
        ("email:@lab", "is no address"),
        ("email:a b@lab", "is no address"),
        ("uri:nothing", "is no URI"),
        ("uri:a: b", "is no URI"),
        ("spki:abc", "is no SHA-256"),
        (f"spki:{HEX[:-2]}", "is no SHA-256"),
        (f"fingerprint:{HEX[:40]}", "is no SHA-256"),  # SHA-1, as nginx has it
        ("fingerprint:é", "is no SHA-256"),
    ],
)
def test_what_is_no_rule(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert cause in str(caught.value)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [
        ("cn:Alice, of Lab", True),
        ("cn:alice, of lab", False),
        ("cn:Alice", False),
        ("cn:alice.lab", False),  # a name of another kind
        ("dns:ALICE.lab", True),
        ("dns:lab", False),
        ("dns:a.alice.lab", False),
        ("dns:any.wild.lab", False),  # a certificate's wildcard admits nobody
        ("email:Alice@Mail.LAB", True),
        ("email:alice@mail.lab", False),
        ("uri:spiffe://lab/Alice", True),
        ("uri:spiffe://lab/alice", False),
        ("uri:spiffe://lab/", False),
        (f"spki:{HEX}", True),
        (f"spki:{'ff' * 32}", False),
        (f"fingerprint:{'FF' * 32}", True),
        (f"fingerprint:{HEX}", False),
    ],
)
def test_matches(rule: str, admitted: bool) -> None:
    assert matches(ALICE, [parse(rule)]) is admitted
    assert matches(ALICE, [parse("cn:Bob"), parse(rule)]) is admitted
    assert not matches(Identity(), [parse(rule)])


def test_one_of_many_names_is_enough() -> None:
    many = replace(ALICE, dns=(*(f"n{n}.lab" for n in range(60)), "last.lab"))
    assert matches(many, [parse("dns:last.lab")])


def test_nobody_matches_no_rules() -> None:
    """That no rules mean everybody is for the caller to say."""
    assert not matches(ALICE, [])
