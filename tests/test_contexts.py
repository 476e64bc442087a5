"""contexts.py and vhosts.py: what the words of a policy become, in real handshakes, and whose contexts are whose."""

import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from handshakes import (
    Client,
    both_versions,
    build_context,
    client_context,
    handshake,
    option,
    s_client,
    tcp_server,
)
from OpenSSL import SSL
from pki import SERVER, Issued, Pki, common_name, issue, revocation_list

from uwsgi_tls import certificates, contexts, policy, sites, tls, vhosts
from uwsgi_tls.client_allow import Rule
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import HttpsListener, Site, parse_sni, parse_sni2, parse_sni_regexp
from uwsgi_tls.options import Config

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def context_of(config: Config) -> SSL.Context:
    """The context of the one listener of a configuration."""
    (site,) = sites.of_listeners(config)
    return contexts.build_context(site, certificates.load(site), "")


# --- versions and suites -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({}, [TLS_1_2, TLS_1_3]),
        ({"tls_profile": "modern"}, [TLS_1_3]),
        ({"tls_min_version": "1.3"}, [TLS_1_3]),
        ({"tls_max_version": "1.2"}, [TLS_1_2]),
        ({"ssl_option": (policy.ssl_option("NO_TLSV1_3"),)}, [TLS_1_2]),
        ({"ssl_option": (policy.ssl_option("ALL"), policy.ssl_option("NO_TLSV1_2"))}, [TLS_1_3]),
    ],
)
def test_versions(options: dict[str, Any], allowed: list[ssl.TLSVersion], lab: Pki) -> None:
    context = context_of(Config(https=(option(lab.server),), **options))
    for version in (TLS_1_2, TLS_1_3):
        server, client = handshake(context, client_context(lab, version))
        refused = "" if version in allowed else "TLSV1_ALERT_PROTOCOL_VERSION"
        assert client.error == refused
        assert server.reason == ("the client offers no TLS version that is allowed here" if refused else "")


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"])
def test_ciphersuites(suite: str, lab: Pki) -> None:
    context = context_of(Config(https=(option(lab.server),), ssl_ciphersuites=suite))
    assert handshake(context, client_context(lab, TLS_1_3))[1].cipher == suite
    assert handshake(context, client_context(lab, TLS_1_2))[1].error == ""  # their own are others


def test_weak_suites_of_a_site(lab: Pki) -> None:
    def weak(ciphers: str, **options: Any) -> list[str]:
        (site,) = sites.of_listeners(Config(https=(option(lab.server, ciphers),), **options))
        return contexts.weak_suites(site)

    assert "AES128-SHA" in weak("HIGH")
    assert weak("") == weak("ECDHE+AESGCM") == weak("HIGH", tls_profile="modern") == []
    with pytest.raises(ConfigError, match="ciphers 'NOSUCH': no cipher match"):
        weak("NOSUCH")


# --- a pair of certificates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RSA", "EC"])
def test_each_of_a_pair_has_its_own_chain(kind: str, lab: Pki, tmp_path: Path) -> None:
    """SSL_CTX_add_extra_chain_cert would send one chain for both."""
    pair = []
    for name in ("RSA", "EC"):
        above = issue(tmp_path, f"above-{name}", common_name(f"{name} Intermediate"), lab.ca, authority=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048) if name == "RSA" else None
        sans = [x509.DNSName("server.lab")]
        pair.append(issue(tmp_path, name, common_name(name), above, key=key, usage=[SERVER], sans=sans))
    both = replace(option(pair[0]), certificates=tuple((each.crt, each.key_file) for each in pair))
    sigalgs = {"RSA": "RSA-PSS+SHA256", "EC": "ECDSA+SHA256"}[kind]
    with tcp_server(build_context(both)) as (where, _):
        said = s_client(
            where, "-tls1_3", "-sigalgs", sigalgs, "-CAfile", lab.ca.crt, "-verify_return_error", "-showcerts"
        )
    assert "Verify return code: 0 (ok)" in said
    assert [name for name in ("RSA", "EC") if f"CN = {name} Intermediate" in said] == [kind]


# --- sessions ------------------------------------------------------------------------------------------------


@both_versions
def test_without_tickets_nothing_is_resumed(version: ssl.TLSVersion, lab: Pki) -> None:
    context = context_of(Config(https=(option(lab.server),), ssl_option=(policy.ssl_option("NO_TICKET"),)))
    client = client_context(lab, version)
    session = handshake(context, client)[1].session
    assert handshake(context, client, session)[1].resumed is False


def test_the_time_of_a_session(lab: Pki) -> None:
    with tcp_server(context_of(Config(https=(option(lab.server),), ssl_session_timeout=77))) as (where, _):
        for version in ("-tls1_2", "-tls1_3"):
            assert "TLS session ticket lifetime hint: 77 (seconds)" in s_client(where, version)


def test_what_makes_a_client_policy_another(lab: Pki, tmp_path: Path) -> None:
    crl = tmp_path / "ca.crl"
    crl.write_bytes(revocation_list(lab.ca))
    asking = replace(option(lab.server, "", lab.ca.crt), verify_depth=4)
    different: list[HttpsListener] = [
        asking,
        replace(asking, client_required=True),
        replace(asking, client_ca=lab.ca_bundle),
        replace(asking, verify_depth=3),
        replace(asking, crl=str(crl)),
        replace(asking, crl=str(crl), crl_of_leaf_only=True),
        replace(asking, client_allow=(Rule("cn", "a"),)),
        replace(asking, client_allow=(Rule("cn", "a"), Rule("cn", "b"))),
    ]
    same = [
        replace(asking, ciphers="HIGH", min_version="1.3"),
        replace(asking, certificates=((lab.server_ec.crt, lab.server_ec.key_file),)),
        replace(asking, session_context="text"),
    ]

    def one(site: Site) -> bytes:
        return contexts.client_policy(site, certificates.load(site))

    assert len({one(site) for site in different}) == len(different)
    assert {one(site) for site in same} == {one(asking)}
    turned = replace(asking, client_allow=(Rule("cn", "b"), Rule("cn", "a")))
    assert one(turned) == one(different[-1])
    assert one(option(lab.server)) == b""
    ids = {contexts.session_id(site, certificates.load(site), scope) for site in (asking, same[2]) for scope in "ab"}
    assert len(ids) == 4


# --- the name that OpenSSL has read ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "right"), [(None, None), ("-a.lab", ""), ("x" * 64 + ".lab", ""), ("1.2.3", ""), ("A.lab", "a.lab")]
)
def test_no_name_and_what_is_none(asked: str | None, right: str | None, lab: Pki) -> None:
    server, client = SSL.Connection(build_context(option(lab.server_ec))), SSL.Connection(SSL.Context(SSL.TLS_METHOD))
    server.set_accept_state()
    client.set_connect_state()
    if asked is not None:
        client.set_tlsext_host_name(asked.encode())
    for one, other in ((client, server), (server, client), (client, server)):
        with suppress(SSL.WantReadError):
            one.do_handshake()
        with suppress(SSL.WantReadError):
            other.bio_write(one.bio_read(65536))
    server.do_handshake()
    for name in (None, "", "a.lab", "b.lab"):
        assert tls.has_asked_for(server, name) is (name == right)


@both_versions
def test_the_name_that_openssl_has_read(version: ssl.TLSVersion, lab: Pki) -> None:
    context, client = build_context(option(lab.server)), client_context(lab, version)
    session = None
    for resumed in (False, True):
        ours, theirs = socket.socketpair()
        seen = Client()
        with ours, theirs:
            thread = threading.Thread(target=seen.talk, args=(client, theirs, session))
            thread.start()
            conn = SSL.Connection(context, ours)
            conn.set_accept_state()
            conn.do_handshake()
            assert tls.resumed(conn) is resumed
            assert tls.has_asked_for(conn, "server.lab")
            # In TLS 1.2 a resumed session has no name, and is as good as its ticket's keys.
            blind = resumed and version == TLS_1_2
            assert tls.has_asked_for(conn, "other.lab") is blind
            assert tls.has_asked_for(conn, "") is blind
            assert tls.has_asked_for(conn, None) is blind
            conn.send(b"x")
            conn.shutdown()
            ours.shutdown(socket.SHUT_WR)
            thread.join()
        session = seen.session


def test_until_when_sessions_are_believed(lab: Pki, tmp_path: Path) -> None:
    """What has ended already lets nobody in, and must not end the sessions of everybody else."""

    def ends(*authorities: Issued, crls: bytes = b"") -> float:
        (tmp_path / "cas").write_text("".join(each.pem for each in authorities))
        (tmp_path / "crls").write_bytes(crls)
        listener = option(lab.server_ec, "", str(tmp_path / "cas") if authorities else "")
        config = Config(https=(listener,), ssl_crl=str(tmp_path / "crls") if crls else "")
        endpoint = vhosts.endpoint(vhosts.load(config), 0, "first", "443")
        assert endpoint.resumes() is True
        return round((endpoint.trusted_until - time.time()) / 86400, 2)

    short = issue(tmp_path, "short", common_name("Short"), authority=True, days=(-1, 5))
    ended = issue(tmp_path, "ended", common_name("Ended"), authority=True, days=(-9, -1))
    lists = revocation_list(lab.ca, days=(-9, -1)) + revocation_list(short, days=(-1, 3))
    assert ends() == float("inf")
    assert ends(lab.ca) == 365
    assert ends(ended) == float("inf")
    assert ends(lab.ca, short, ended) == 5
    assert ends(lab.ca, short, crls=lists) == 3
    assert ends(lab.ca, crls=revocation_list(lab.ca)) == 30


def test_an_endpoint_whose_ca_has_ended_resumes_nothing(lab: Pki) -> None:
    loaded = vhosts.load(Config(https=(option(lab.server_ec, "", lab.ca.crt),)))
    endpoint = vhosts.endpoint(loaded, 0, "first", "443")
    assert replace(endpoint, trusted_until=time.time() - 1).resumes() is False


# --- virtual hosts -------------------------------------------------------------------------------------------------


def vhost_config(server: Issued, lab: Pki, own: str = "", **options: Any) -> Config:
    files = f"{server.crt},{server.key_file}"
    return Config(
        https=(option(server, "", own, bool(own)),),
        sni=(parse_sni(f"open.lab {files}"), parse_sni(f"*.secret.lab {files},,!{lab.ca.crt}")),
        sni2=(parse_sni2(f"name=may.lab,cert={server.crt},key={server.key_file},clientca={lab.ca.crt}"),),
        sni_regexp=(parse_sni_regexp(f"^r[0-9] {files},,!{lab.ca.crt}"),),
        **options,
    )


def test_every_name_has_a_context_of_its_own(lab: Pki) -> None:
    loaded = vhosts.load(vhost_config(lab.server_ec, lab, sni_strict=True))
    mine, again = vhosts.endpoint(loaded, 0, "first", "443"), vhosts.endpoint(loaded, 0, "second", "444")
    assert mine.names is not None
    assert again.names is not None
    found = [mine, again]
    for names in (mine.names, again.names):
        for name in ("open.lab", "a.secret.lab", "may.lab", "r1.lab"):
            endpoint = names.find(name)
            assert endpoint is not None
            assert endpoint.by_name
            found.append(endpoint)
        assert names.find("unknown.lab") is None
    assert len({id(each.context) for each in found}) == len(found) == 10
    assert (mine.by_name, mine.port, found[2].name) == (True, "443", "first, open.lab")
    assert mine.own_names is not None
    assert [mine.own_names.find(name) for name in ("server.lab", "localhost", "x.lab")] == [True, True, False]


@pytest.mark.parametrize(
    ("at", "host", "misdirected"),
    [
        ("", "open.lab", False),
        ("", "a.secret.lab", True),
        ("", "A.Secret.Lab.:443", True),
        ("", "may.lab", True),
        ("", "r1", True),
        ("", "unknown.lab", False),
        ("", "", False),
        ("", "-a.secret.lab", True),  # no name, so what an application makes of it is nobody's guess
        ("", "a-.secret.lab", True),
        ("", "x" * 64 + ".secret.lab", True),
        ("", ("x" * 49 + ".") * 5 + "abc.lab", True),
        ("", "1.2.3", True),
        ("", "127.0.0.1:443", False),
        ("", "[::1]", False),
        ("a.secret.lab", "-b.secret.lab", True),
        ("open.lab", "b.secret.lab", True),
        ("may.lab", "b.secret.lab", True),
        ("may.lab", "open.lab", False),
        ("a.secret.lab", "b.secret.lab", False),
        ("a.secret.lab", "r1", False),
        ("a.secret.lab", "may.lab", True),
    ],
)
def test_which_host_is_misdirected(at: str, host: str, misdirected: bool, lab: Pki) -> None:
    loaded = vhosts.load(vhost_config(lab.server_ec, lab))
    endpoint = vhosts.endpoint(loaded, 0, "x", "443")
    if at:
        assert endpoint.names is not None
        named = endpoint.names.find(at)
        assert named is not None
        endpoint = named
    assert endpoint.is_misdirected(host) is misdirected


def test_the_listeners_own_policy_counts_for_unknown_hosts(lab: Pki) -> None:
    endpoint = vhosts.endpoint(vhosts.load(vhost_config(lab.server_ec, lab, lab.other_ca.crt)), 0, "x", "443")
    assert endpoint.names is not None
    named = endpoint.names.find("open.lab")
    assert named is not None
    for host in ("unknown.lab", "[::1]:443", ""):
        assert named.is_misdirected(host)
        assert not endpoint.is_misdirected(host)


def test_where_all_ask_the_same_no_host_is_looked_up(lab: Pki) -> None:
    files = f"{lab.server_ec.crt},{lab.server_ec.key_file}"
    for ca in ("", f",,!{lab.ca.crt}"):
        own = option(lab.server_ec, "", lab.ca.crt if ca else "", bool(ca))
        loaded = vhosts.load(Config(https=(own,), sni=(parse_sni(f"a.lab {files}{ca}"),)))
        assert vhosts.endpoint(loaded, 0, "x", "443").hosts is None
    plain = vhosts.endpoint(vhosts.load(Config(https=(option(lab.server_ec),))), 0, "x", "443")
    assert (plain.hosts, plain.names, plain.own_names, plain.by_name) == (None, None, None, False)


def test_what_is_said_once(lab: Pki) -> None:
    """A certificate that many sites have is named once; weak ciphers with the option that allows them."""
    files = f"{lab.server_ec.crt},{lab.server_ec.key_file}"
    loaded = vhosts.load(
        Config(https=(option(lab.server_ec, "HIGH"),), sni=tuple(parse_sni(f"{name}.lab {files}") for name in "ab"))
    )
    assert [info.file for info in loaded.certificates] == [lab.server_ec.crt]
    issuers = [line for line in loaded.warnings if "its issuer" in line]
    assert len(issuers) == 1
    assert not [line for line in loaded.warnings if "SECLEVEL" in line]
    (weak,) = [line for line in loaded.warnings if "suites" in line]
    assert weak.startswith(f"ciphers HIGH (https = =0,{files}) allow ")
    assert "without forward secrecy or in CBC mode" in weak


def test_a_request_without_a_host_is_for_localhost(lab: Pki) -> None:
    """As SERVER_NAME says to an application."""
    files = f"{lab.server_ec.crt},{lab.server_ec.key_file}"
    site = parse_sni(f"localhost {files},,!{lab.ca.crt}")
    endpoint = vhosts.endpoint(vhosts.load(Config(https=(option(lab.server_ec),), sni=(site,))), 0, "x", "443")
    assert endpoint.names is not None
    named = endpoint.names.find("localhost")
    assert named is not None
    for host in ("", "localhost:443"):
        assert endpoint.is_misdirected(host)
        assert not named.is_misdirected(host)


@pytest.mark.parametrize(
    ("ciphers", "words"),
    [
        ("ECDHE+AESGCM:@SECLEVEL=0", "keys of any size and signatures of any kind, "),
        ("ECDHE+AESGCM:@SECLEVEL=2:@SECLEVEL=1", "RSA keys of 1024 bits"),  # the last one counts
        ("ECDHE+AESGCM:@SECLEVEL=1:@SECLEVEL=2", ""),
        ("ECDHE+AESGCM", ""),
    ],
)
@pytest.mark.parametrize("profile", ["modern", "intermediate"])
def test_a_security_level_below_the_usual_one(ciphers: str, words: str, profile: str, lab: Pki) -> None:
    """It holds in TLS 1.3 too, where the ciphers themselves mean nothing."""
    warnings = vhosts.load(Config(https=(option(lab.server_ec, ciphers),), tls_profile=profile)).warnings
    found = [line for line in warnings if "SECLEVEL" in line]
    assert len(found) == (1 if words else 0)
    assert words in "".join(found)
    assert all("in the certificates of clients too" in line for line in found)
