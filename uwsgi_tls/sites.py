"""Every site that the options ask for, with all that they leave open filled in by the plain options.

A listener's own site is for clients that ask for no name, or for one that nobody else has. Other sites have names, of
`sni`, `sni2`, `sni-regexp` or a file in `sni-dir`, on every listener. Nothing is opened here.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import TypeVar

from uwsgi_tls import policy
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import HttpsListener, Site, SniSite, server_name
from uwsgi_tls.options import Config

S = TypeVar("S", bound=Site)
NamesIn = Callable[[str], Sequence[str]]  # the names in a directory; raises ConfigError

_SUFFIXES = (".crt", ".key", ".ca")
# What stands for the label of a wildcard in a file's name, beside "*.": as programs write it that fetch certificates,
# and as the command pki does.
_WILDCARDS = ("_.", "_wildcard.")


def of_listeners(config: Config) -> tuple[HttpsListener, ...]:
    """Those of the https options, in their order. Raises ConfigError."""
    return tuple(_filled(listener, config) for listener in config.listeners)


def of_names(config: Config, names_in: NamesIn) -> tuple[SniSite, ...]:
    """Those with names, each name once, the likelier before. Raises ConfigError."""
    given = (*config.sni, *config.sni2)
    owners: dict[str, SniSite] = {}
    for site in given:
        for name in site.names:
            if name in owners:
                raise ConfigError(site.option, site.text, f"{name} is given twice", site.where)
            owners[name] = site
    found = [each for each in _in_directory(config, names_in) if each.names[0] not in owners]
    return tuple(_filled(site, config) for site in (*given, *found, *config.sni_regexp))


def check_client_options(config: Config, sites: Sequence[Site]) -> None:
    """That what limits clients limits somebody. Raises ConfigError."""
    if any(site.client_ca for site in sites):
        return
    cause = "no client is asked for a certificate: no https or sni has a client CA"
    for option, value in (
        ("client-allow", " ".join(f"{rule.kind}:{rule.value}" for rule in config.client_allow)),
        ("ssl-crl", config.ssl_crl),
    ):
        if value:
            raise ConfigError(option, value, cause, config.origins.get(option, ""))


def is_in_directory(config: Config, path: str, there: Callable[[str], bool]) -> bool:
    """Whether `path` is sni-dir, or a file that a site in it has: NAME.crt, and what is `there` beside a NAME.crt."""
    if not config.sni_dir or path == config.sni_dir:
        return bool(config.sni_dir)
    directory, file = os.path.split(path)
    stem, suffix = os.path.splitext(file)
    if directory != _directory(config) or suffix not in _SUFFIXES:
        return False
    try:
        _name_of(stem)
    except ValueError:
        return False
    return suffix == ".crt" or there(path.removesuffix(suffix) + ".crt")


def _in_directory(config: Config, names_in: NamesIn) -> list[SniSite]:
    """A site for each NAME.crt."""
    directory = config.sni_dir
    if not directory:
        return []
    where = config.origins.get("sni-dir", "")
    there = set(names_in(directory))
    sites = []
    owners: dict[str, str] = {}
    for file in sorted(name for name in there if name.endswith(".crt")):
        stem = file.removesuffix(".crt")
        try:
            name = _name_of(stem)
        except ValueError as error:
            raise ConfigError("sni-dir", directory, f"{file}: {error}", where) from None
        if name in owners:
            raise ConfigError("sni-dir", directory, f"{file}: {name} is given twice, also by {owners[name]}", where)
        owners[name] = file
        path = os.path.join(_directory(config), stem)
        sites.append(
            SniSite(
                names=(name,),
                certificates=((f"{path}.crt", f"{path}.key"),),
                ciphers=config.sni_dir_ciphers,
                client_ca=f"{path}.ca" if f"{stem}.ca" in there else "",
                text=directory,
                option="sni-dir",
                where=where,
            )
        )
    return sites


def _directory(config: Config) -> str:
    return config.sni_dir.rstrip("/") or "/"


def _name_of(stem: str) -> str:
    """The name that a file without its suffix is for. Raises ValueError."""
    for prefix in _WILDCARDS:
        if stem.startswith(prefix):
            return server_name("*." + stem.removeprefix(prefix))
    return server_name(stem)


def _filled(site: S, config: Config) -> S:
    name = site.profile or config.tls_profile or policy.DEFAULT_PROFILE
    profile = policy.PROFILES[name]
    # A profile of its own is not to be widened, or narrowed, by what was said for those that have none.
    own = bool(site.profile)
    least = site.min_version or ("" if own else config.tls_min_version) or profile.min_version
    most = site.max_version or ("" if own else config.tls_max_version) or profile.max_version
    options = reduce(or_, config.ssl_option, 0)
    if least < profile.min_version:
        raise ConfigError(site.option, site.text, f"TLS {least} is none of the profile {name}", site.where)
    if not policy.versions_left(least, most, options):
        raise ConfigError(site.option, site.text, f"no TLS version is left: from {least} to {most}", site.where)
    asked = bool(site.client_ca)
    return dataclasses.replace(
        site,
        profile=name,
        min_version=least,
        max_version=most,
        ciphersuites=site.ciphersuites or config.ssl_ciphersuites,
        crl=site.crl or (config.ssl_crl if asked else ""),
        crl_of_leaf_only=config.ssl_crl_check == "leaf",
        verify_depth=config.ssl_verify_depth if site.verify_depth is None else site.verify_depth,
        client_allow=site.client_allow or (config.client_allow if asked else ()),
        options=options,
        session_seconds=config.ssl_session_timeout,
        session_context=config.https_session_context,
    )
