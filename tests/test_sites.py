"""sites.py: which sites a configuration has, and what the plain options fill in."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from uwsgi_tls import policy, sites
from uwsgi_tls.client_allow import Rule
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import SniSite, parse_https, parse_https2, parse_sni, parse_sni2, parse_sni_regexp
from uwsgi_tls.options import Config


def nobody(directory: str) -> Sequence[str]:
    raise AssertionError("no directory is to be read")


def one(text: str, **options: Any) -> SniSite:
    (site,) = sites.of_names(
        Config(sni2=(parse_sni2(f"name=a.lab,cert=a,key=b,{text}".rstrip(",")),), **options), nobody
    )
    return site


def test_the_defaults() -> None:
    (site,) = sites.of_listeners(Config(https=(parse_https("=0,a,b,,ca"),)))
    assert (site.profile, site.min_version, site.max_version) == ("intermediate", "1.2", "1.3")
    assert (site.verify_depth, site.session_seconds, site.options) == (4, 300, 0)
    assert (site.crl, site.crl_of_leaf_only, site.client_allow, site.ciphersuites) == ("", False, (), "")


def test_plain_options_are_the_defaults_of_all() -> None:
    config = Config(
        https=(parse_https("=0,a,b,,!ca"),),
        sni=(parse_sni("a.lab a,b,,ca"),),
        sni_regexp=(parse_sni_regexp("^b a,b"),),
        tls_min_version="1.3",
        ssl_ciphersuites="TLS_AES_256_GCM_SHA384",
        ssl_option=(policy.ssl_option("NO_TICKET"), policy.ssl_option("NO_TLSV1_2")),
        ssl_verify_depth=1,
        ssl_crl="x.crl",
        ssl_crl_check="leaf",
        client_allow=(Rule("cn", "x"),),
        ssl_session_timeout=60,
        https_session_context="text",
    )
    (listener,) = sites.of_listeners(config)
    asking, other = sites.of_names(config, nobody)
    for site in (listener, asking, other):
        assert (site.min_version, site.max_version, site.ciphersuites) == ("1.3", "1.3", "TLS_AES_256_GCM_SHA384")
        assert (site.options, site.session_seconds, site.session_context) == (1 << 14 | 1 << 27, 60, "text")
        assert site.verify_depth == 1
    for site in (listener, asking):
        assert (site.crl, site.crl_of_leaf_only, site.client_allow) == ("x.crl", True, (Rule("cn", "x"),))
    assert (other.crl, other.client_allow) == ("", ())  # nobody is asked there


def test_a_sites_own_word_counts() -> None:
    site = one(
        "clientca=ca,crl=own.crl,depth=0,allow=cn:own,min-version=1.2,max-version=1.2,ciphersuites=TLS_AES_128_GCM_SHA256",
        tls_min_version="1.3",
        ssl_crl="x.crl",
        ssl_verify_depth=9,
        client_allow=(Rule("cn", "x"),),
        ssl_ciphersuites="TLS_AES_256_GCM_SHA384",
    )
    assert (site.crl, site.verify_depth, site.client_allow) == ("own.crl", 0, (Rule("cn", "own"),))
    assert (site.min_version, site.max_version, site.ciphersuites) == ("1.2", "1.2", "TLS_AES_128_GCM_SHA256")


def test_a_profile_of_its_own_is_not_changed_by_the_others() -> None:
    assert one("profile=modern", tls_min_version="1.2", tls_max_version="1.2").min_version == "1.3"
    assert one("profile=intermediate", tls_profile="modern", tls_min_version="1.3").min_version == "1.2"
    assert one("", tls_profile="modern").min_version == "1.3"


@pytest.mark.parametrize(
    ("text", "options", "cause"),
    [
        ("min-version=1.3,max-version=1.2", {}, "no TLS version is left: from 1.3 to 1.2"),
        ("", {"ssl_option": (1 << 27 | 1 << 29,)}, "no TLS version is left"),
        ("profile=modern", {"ssl_option": (1 << 29,)}, "no TLS version is left"),
        ("profile=modern,max-version=1.2", {}, "no TLS version is left"),
        ("profile=modern,min-version=1.2", {}, "TLS 1.2 is none of the profile modern"),
        ("", {"tls_profile": "modern", "tls_min_version": "1.2"}, "TLS 1.2 is none of the profile modern"),
    ],
)
def test_contradictions(text: str, options: dict[str, Any], cause: str) -> None:
    with pytest.raises(ConfigError) as caught:
        one(text, **options)
    assert cause in caught.value.cause
    assert caught.value.option == "sni2"


# --- sni-dir ------------------------------------------------------------------------------------------------


def test_the_names_in_a_directory() -> None:
    there = [
        "b.lab.key",
        "b.lab.crt",
        "README",
        "b.lab.ca",
        "_.A.lab.crt",
        "_.A.lab.key",
        "*.c.lab.crt",
        "_wildcard.d.lab.crt",  # as the command pki writes it
        "d.key",
        "e.ca",
    ]
    config = Config(sni_dir="certs/", sni_dir_ciphers="HIGH", origins={"sni-dir": "x.ini:3"})
    found = sites.of_names(config, lambda directory: there if directory == "certs/" else nobody(directory))
    assert [site.names for site in found] == [("*.c.lab",), ("*.a.lab",), ("*.d.lab",), ("b.lab",)]
    assert found[2].certificates == (("certs/_wildcard.d.lab.crt", "certs/_wildcard.d.lab.key"),)
    assert found[3].certificates == (("certs/b.lab.crt", "certs/b.lab.key"),)
    assert (found[3].client_ca, found[3].client_required, found[1].client_ca) == ("certs/b.lab.ca", False, "")
    assert {(site.ciphers, site.option, site.text, site.where) for site in found} == {
        ("HIGH", "sni-dir", "certs/", "x.ini:3")
    }


def test_a_file_that_has_no_name_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"sni-dir = d: 127\.0\.0\.1\.crt: .* addresses are none"):
        sites.of_names(Config(sni_dir="d"), lambda _: ["127.0.0.1.crt"])


@pytest.mark.parametrize(
    ("first", "second"),
    [("ADMIN.lab", "admin.lab"), ("admin.lab.", "admin.lab"), ("*.a.lab", "_.a.lab"), ("_.a.lab", "_wildcard.A.lab")],
)
def test_two_files_for_one_name_are_an_error(first: str, second: str) -> None:
    """Which of them asks for certificates, only the order of their names would say."""
    there = [f"{second}.crt", f"{second}.ca", f"{first}.crt"]
    with pytest.raises(ConfigError) as caught:
        sites.of_names(Config(sni_dir="d"), lambda _: there)
    name = "*.a.lab" if "a.lab" in (first[2:], second[2:]) else "admin.lab"
    assert caught.value.cause == f"{second}.crt: {name} is given twice, also by {first}.crt"


def test_sni_counts_before_the_directory() -> None:
    config = Config(sni=(parse_sni("a.lab a,b,,!ca"),), sni_dir="d")
    (site,) = sites.of_names(config, lambda _: ["a.lab.crt", "a.lab.key"])
    assert site.option == "sni"


def test_a_name_twice_is_an_error() -> None:
    config = Config(sni=(parse_sni("*.a.lab a,b"),), sni2=(parse_sni2("name=b.lab,name=*.A.lab,cert=a,key=b"),))
    with pytest.raises(ConfigError, match=r"\*\.a\.lab is given twice"):
        sites.of_names(config, nobody)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("d", True),
        ("d/a.lab.crt", True),
        ("d/a.lab.key", True),
        ("d/a.lab.ca", True),
        ("d/_wildcard.a.lab.key", True),
        ("d/_.A.lab.key", True),
        ("d/b.lab.crt", True),
        ("d/b.lab.key", False),  # no site is there that would use it
        ("d/b.lab.ca", False),
        ("d/a b.crt", False),
        ("d/a b.key", False),
        ("d/.key", False),
        ("d/a.lab.txt", False),
        ("d/../etc/a.key", False),
        ("d/sub/a.key", False),
        ("e/a.key", False),
        ("/etc/shadow", False),
    ],
)
def test_what_belongs_to_the_directory(path: str, named: bool) -> None:
    there = {f"d/{stem}.crt" for stem in ("a.lab", "_wildcard.a.lab", "_.A.lab", "a b", "../etc/a", "sub/a", "")}
    for spelled in ("d", "d/"):
        config = Config(sni_dir=spelled)
        assert sites.is_in_directory(config, path, there.__contains__) is (path == spelled if path == "d" else named)
    assert not sites.is_in_directory(Config(), path, lambda _: True)


# --- options that limit clients -------------------------------------------------------------------------------


def test_limits_on_clients_that_nobody_asks() -> None:
    listeners = (parse_https2("addr==0,cert=a,key=b"),)
    for config in (Config(https2=listeners, ssl_crl="x"), Config(https2=listeners, client_allow=(Rule("cn", "x"),))):
        with pytest.raises(ConfigError, match="no client is asked for a certificate"):
            sites.check_client_options(config, sites.of_listeners(config))
    config = Config(https2=tuple(dataclasses.replace(each, client_ca="ca") for each in listeners), ssl_crl="x")
    sites.check_client_options(config, sites.of_listeners(config))
