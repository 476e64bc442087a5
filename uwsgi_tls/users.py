"""Which user the server is to become: the options uid, gid, add-gid, cap and chroot, judged before anything is opened.

uWSGI (core/utils.c, uwsgi_as_root) keeps group root when only `uid` is given and stays root when only `gid` is; here a
user brings its own groups, and a group alone is an error.
"""

import grp
import os
import pwd
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from uwsgi_tls import capabilities
from uwsgi_tls.converters import CAPABILITY_NAMES
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.options import Config

_ID_MAX = 2**32 - 2  # 2**32 - 1 is (uid_t) -1, "leave as it is" to setresuid(2)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom to become: a user (name or number as text), uid, gid, and all supplementary groups; nowhere root.

    `keeps` are the capabilities that stay, and `root` is the directory that becomes "/"; "" leaves it.
    """

    user: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    keeps: tuple[int, ...] = ()
    root: str = ""


def _to_stderr(text: str) -> None:
    print(f"uwsgi-tls: {text}", file=sys.stderr, flush=True)


def identity(config: Config, warn: Callable[[str], None]) -> Identity | None:
    """Whom `config` wants the process to become, as `resolve` says it."""
    return resolve(config.uid, config.gid, config.add_gid, config.strict, warn, cap=config.cap, chroot=config.chroot)


def resolve(
    uid: str,
    gid: str,
    add_gid: Sequence[str],
    strict: bool,
    warn: Callable[[str], None] = _to_stderr,
    *,
    cap: Sequence[int] = (),
    chroot: str = "",
) -> Identity | None:
    """The options uid, gid, add-gid, cap and chroot as an Identity; None if there is nothing to drop.

    None means: not started as root and nothing else was asked than what the process already is, or started as root
    without uid, after a loud `warn`. Raises ConfigError for what is unknown, is root, or cannot be had.
    """
    is_root = os.geteuid() == 0
    if not uid:
        if is_root and strict:
            raise ConfigError("uid", "(not given)", "strict refuses to serve as root; name a user with uid")
        if gid or add_gid:
            option, value = ("gid", gid) if gid else ("add-gid", " ".join(add_gid))
            raise ConfigError(option, value, "needs a uid too: with a group alone a process started as root stays root")
        if is_root:
            if chroot:
                raise ConfigError("chroot", chroot, "needs a uid too: whoever stays root can leave it")
            if cap:
                raise ConfigError("cap", capability_names(cap), "needs a uid too: whoever stays root keeps all of them")
            warn("*** WARNING: serving as root: whoever breaks in owns this machine; name a user with uid ***")
            return None
    if chroot and not is_root:
        raise ConfigError("chroot", chroot, f"only root can change the root directory, and this is uid {os.getuid()}")
    _check_held(cap)
    if is_root:
        return replace(_identity(uid, gid, add_gid), keeps=tuple(cap), root=_new_root(chroot, warn))
    if uid:
        _check_already(uid, gid, add_gid)
    return None


def _new_root(chroot: str, warn: Callable[[str], None]) -> str:
    if chroot and not os.path.isdir(chroot):
        raise ConfigError("chroot", chroot, "no such directory")
    return os.path.abspath(chroot) if chroot else ""


def _check_held(cap: Sequence[int]) -> None:
    held = capabilities.held()
    missing = [each for each in cap if not held >> each & 1]
    if missing:
        raise ConfigError("cap", capability_names(cap), f"this process has no {capability_names(missing)} to keep")


def capability_names(cap: Sequence[int]) -> str:
    """As the option cap has them."""
    return ",".join(CAPABILITY_NAMES[each] for each in cap)


def _identity(uid: str, gid: str, add_gid: Sequence[str]) -> Identity:
    number, entry = _user(uid)
    if number == 0:
        raise ConfigError("uid", uid, "is root; name an unprivileged user")
    if gid:
        group = _unprivileged_group("gid", gid)
    elif entry is None:
        raise ConfigError("uid", uid, "has no entry in passwd, so no group of its own: give gid too")
    else:
        group = entry.pw_gid
        if group == 0:
            raise ConfigError("uid", uid, "has group 0 (root) as its own group: give another with gid")
    own = [group] if entry is None else os.getgrouplist(entry.pw_name, group)
    if 0 in own:
        raise ConfigError("uid", uid, "is a member of group 0 (root)")
    added = [_unprivileged_group("add-gid", name) for name in add_gid]
    # dict.fromkeys: each group once, in order. uWSGI's add-gid replaces the user's groups; the name says "add".
    return Identity(uid if entry is None else entry.pw_name, number, group, tuple(dict.fromkeys([*own, *added])))


def _user(text: str) -> tuple[int, pwd.struct_passwd | None]:
    """The uid of a name or number, and its passwd entry, which a number may lack. No number is taken for a name."""
    if _is_number(text):
        number = _number("uid", text)
        try:
            return number, pwd.getpwuid(number)
        except KeyError:
            return number, None
    try:
        entry = pwd.getpwnam(text)
    except (KeyError, ValueError):  # ValueError: a NUL in the name
        raise ConfigError("uid", text, "no such user") from None
    return entry.pw_uid, entry


def _group(option: str, text: str) -> int:
    try:
        return _number(option, text) if _is_number(text) else grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise ConfigError(option, text, "no such group") from None


def _unprivileged_group(option: str, text: str) -> int:
    number = _group(option, text)
    if number == 0:
        raise ConfigError(option, text, "is group root; name an unprivileged group")
    return number


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+", text) is not None  # "-1" and "+33" are no user names either


def _number(option: str, text: str) -> int:
    number = int(text) if re.fullmatch(r"[0-9]{1,10}", text) else -1
    if not 0 <= number <= _ID_MAX:
        raise ConfigError(option, text, f"is not a number between 1 and {_ID_MAX}")
    return number


def _check_already(uid: str, gid: str, add_gid: Sequence[str]) -> None:
    """Without root nothing can be changed, so what is asked must be what we are; uWSGI silently ignores names."""
    if set(os.getresuid()) != {_user(uid)[0]}:
        raise ConfigError("uid", uid, f"only root can become another user, and this is uid {os.getuid()}")
    if gid and set(os.getresgid()) != {_group("gid", gid)}:
        raise ConfigError("gid", gid, f"only root can change its group, and this is gid {os.getgid()}")
    held = {os.getgid(), *os.getgroups()}
    for name in add_gid:
        if _group("add-gid", name) not in held:
            raise ConfigError("add-gid", name, "only root can add a group to the process")
