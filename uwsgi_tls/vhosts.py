"""Virtual hosts: the sites of a configuration with what their files hold, and the endpoint of each at a listener.

Every site with a name has a TLS context of its own at every listener: with ticket keys of its own, so that no session
that began elsewhere can be resumed there, whatever its client shows (CVE-2025-23419 is the name of that mistake).
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from uwsgi_tls import certificates, contexts, policy, sites
from uwsgi_tls.certificates import BadFile, CertificateInfo, Known, Material, Passphrases, Read
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import HttpsListener, Site, SniSite, server_name
from uwsgi_tls.names import Names
from uwsgi_tls.options import Config
from uwsgi_tls.service import Endpoint

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reader:
    """How files are read; the functions of certificates.py say what each takes and raises."""

    read: Read = certificates.read_file
    passphrases: Passphrases = certificates.no_passphrases
    names_in: Callable[[str, str], list[str]] = certificates.read_names
    known: Known = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Every site with its material: those of the listeners in their order, and those with names."""

    listeners: tuple[tuple[HttpsListener, Material], ...]
    named: tuple[tuple[SniSite, Material], ...]
    strict: bool

    @property
    def sites(self) -> tuple[tuple[Site, Material], ...]:
        return (*self.listeners, *self.named)

    @property
    def certificates(self) -> tuple[CertificateInfo, ...]:
        """Each certificate once."""
        infos = (each.info for _, material in self.sites for each in material.credentials)
        return tuple(dict.fromkeys(infos))

    @property
    def known(self) -> Known:
        """What a later load may fall back on."""
        return {
            files: credential
            for site, material in self.sites
            for files, credential in zip(site.certificates, material.credentials, strict=True)
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is doubtful about them, one line each."""
        lines = [warning for _, material in self.sites for warning in material.warnings]
        return tuple(dict.fromkeys([*lines, *_weak_ciphers(site for site, _ in self.sites)]))


def load(config: Config, reader: Reader = Reader()) -> Loaded:
    """Reads the files of every site. Raises ConfigError."""

    def names_in(directory: str) -> Sequence[str]:
        try:
            return reader.names_in(directory, "sni-dir")
        except BadFile as error:
            raise ConfigError("sni-dir", directory, str(error), config.origins.get("sni-dir", "")) from error

    listeners, named = sites.of_listeners(config), sites.of_names(config, names_in)
    sites.check_client_options(config, (*listeners, *named))
    return Loaded(
        tuple((site, certificates.load(site, reader.read, reader.passphrases, reader.known)) for site in listeners),
        tuple((site, certificates.load(site, reader.read, reader.passphrases, reader.known)) for site in named),
        config.sni_strict,
    )


def endpoint(loaded: Loaded, number: int, name: str, port: str) -> Endpoint:
    """What connections to the listener of that number get, and for each name what others get. Raises ConfigError."""
    own, material = loaded.listeners[number]
    default = contexts.client_policy(own, material)
    policies = [(site, contexts.client_policy(site, its)) for site, its in loaded.named]
    # Where all clients are asked the same, no Host can be the wrong one.
    hosts = _names(policies, default) if any(each != default for _, each in policies) else None

    def one(site: Site, its: Material, policy: bytes, label: str) -> Endpoint:
        context = contexts.build_context(site, its, f"{name} {label}")
        shown = f"{name}, {label}" if label else name
        return Endpoint(
            context,
            port,
            shown,
            client_allow=site.client_allow,
            trusted_until=its.trusted_until,
            client_policy=policy,
            hosts=hosts,
            by_name=bool(loaded.named) or loaded.strict,
        )

    others: list[tuple[SniSite, Endpoint | None]] = [
        (site, one(site, its, policy, str(site)))
        for (site, its), (_, policy) in zip(loaded.named, policies, strict=True)
    ]
    mine = one(own, material, default, "")
    names = _names(others, None) if others else None
    return replace(mine, names=names, own_names=_own_names(material) if loaded.strict else None)


def _names(pairs: Iterable[tuple[SniSite, T]], default: T) -> Names[T]:
    names = Names(default)
    for site, value in pairs:
        names.add(site.names, value)
        if site.expression:
            names.add_expression(site.expression, value)
    return names


def _own_names(material: Material) -> Names[bool]:
    """The names in a listener's own certificates, which are known without any sni."""
    names = Names(False)
    for name in (name for credential in material.credentials for name in credential.info.names):
        with suppress(ValueError):  # an address
            names.add([server_name(name)], True)
    return names


def _weak_ciphers(every: Iterable[Site]) -> Iterable[str]:
    for site in every:
        where = f"{site.option} = {site.text}"
        risk = policy.risk(site.ciphers)
        if risk:
            yield f"ciphers {site.ciphers} ({where}) allow {risk}, in the certificates of clients too (@SECLEVEL)"
        found = contexts.weak_suites(site)
        if found:
            which = f"{len(found)} TLS 1.2 suites without forward secrecy or in CBC mode, such as {found[0]}"
            yield f"ciphers {site.ciphers} ({where}) allow {which}; the profile {site.profile} does not"
