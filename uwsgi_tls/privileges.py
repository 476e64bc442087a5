"""Which user the server becomes, becoming that user for good, and proof that root cannot come back.

Not here: what must be opened as root (listeners, certificates); the caller has done that before `drop`. The order of
the steps matters, credentials(7) and capabilities(7) say why. uWSGI (core/utils.c, uwsgi_as_root) keeps group root when
only `uid` is given and stays root when only `gid` is; here a user brings its own groups, and a group alone is an error.
prctl is imported with this module, so before the drop: the interpreter's library may be readable by root alone.
"""

import ctypes
import errno
import grp
import importlib
import os
import pwd
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import prctl

from uwsgi_tls.errors import ConfigError

EXIT_ORPHAN = 1  # status of a worker whose master died before it could ask to die with it; nobody is left to read it

DESCRIPTORS_MAX = 1 << 20  # beyond what one worker could serve; "unlimited" is no number to plan with

_ID_MAX = 2**32 - 2  # 2**32 - 1 is (uid_t) -1, "leave as it is" to setresuid(2)
_PR_CAPBSET_DROP = 24  # linux/prctl.h
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4  # python-prctl 1.8.1 has no ambient set
_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")

# What is imported or looked up only on first use, some of it deep inside the standard library.
_LATE_MODULES = (
    "_strptime",
    "encodings.idna",  # socket.connect() and getaddrinfo() with a host as str
    "encodings.punycode",
    "linecache",
    "stringprep",
    "tempfile",
    "traceback",
    "unicodedata",
)
_LATE_CODECS = ("ascii", "idna", "latin-1", "punycode", "unicode_escape", "utf-8")


class PrivilegeError(RuntimeError):
    """Privileges could not be given up, or not provably; the process must end without serving anyone."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom to become: a user (name or number as text), uid, gid, and all supplementary groups; nowhere root."""

    user: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def _to_stderr(text: str) -> None:
    print(f"uwsgi-tls: {text}", file=sys.stderr, flush=True)


def resolve(
    uid: str, gid: str, add_gid: Sequence[str], strict: bool, warn: Callable[[str], None] = _to_stderr
) -> Identity | None:
    """The options uid, gid and add-gid as an Identity; None if there is nothing to drop.

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
            warn("*** WARNING: serving as root: whoever breaks in owns this machine; name a user with uid ***")
        return None
    if is_root:
        return _identity(uid, gid, add_gid)
    _check_already(uid, gid, add_gid)
    return None


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


@contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """Has root the rights of `identity` for a moment, to open a file. Before any thread is started. Raises OSError."""
    groups, gid, uid = os.getgroups(), os.getegid(), os.geteuid()
    try:
        os.setgroups(identity.groups)
        os.setegid(identity.gid)
        os.seteuid(identity.uid)
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


def drop(identity: Identity) -> None:
    """Become `identity` for good and prove it. Call it once, as root, before any thread exists and before any fork.

    Raises PrivilegeError on any doubt; the process may be half dropped then and must end.
    """
    if identity.uid <= 0 or identity.gid <= 0 or 0 in identity.groups:
        raise PrivilegeError(f"the identity is root: {identity}")
    try:
        # Capability sets belong to a thread; only the ids are spread over all threads, by glibc: nptl(7).
        if len(os.listdir("/proc/self/task")) != 1:
            raise PrivilegeError("privileges must be dropped before the first thread is started")
        _clear_ambient()
        _empty_bounding_set()  # first, since it needs CAP_SETPCAP, and set*id() below take the capabilities away
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        # setresuid emptied permitted and effective, unless a securebit that we inherited kept them; inheritable stays.
        prctl.set_caps((prctl.ALL_CAPS, prctl.ALL_FLAGS, False))
    except OSError as error:
        raise PrivilegeError(f"cannot become {identity.user}: {error}") from error
    prove(identity)


def _clear_ambient() -> None:
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def _empty_bounding_set() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    try:
        for capability in range(last + 1):
            if capability > prctl.CAP_LAST_CAP:  # younger than the headers python-prctl was compiled with
                _prctl(_PR_CAPBSET_DROP, capability)
            elif prctl.capbset_read(capability):
                prctl.capbset_drop(capability)
    except PermissionError:
        raise PermissionError(errno.EPERM, "emptying the bounding set needs CAP_SETPCAP") from None


def _prctl(option: int, argument: int) -> None:
    """prctl(2) itself, for what python-prctl does not offer."""
    zero = ctypes.c_ulong(0)
    if ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(argument), zero, zero, zero) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def prove(identity: Identity) -> None:
    """Check every id, every capability set and that no way back to root is open. Raises PrivilegeError on any doubt."""
    _expect("user ids", os.getresuid(), (identity.uid,) * 3)
    _expect("group ids", os.getresgid(), (identity.gid,) * 3)
    _expect("groups", sorted(set(os.getgroups())), sorted(set(identity.groups)))
    status = _status()
    _expect("Uid", status["Uid"].split(), [str(identity.uid)] * 4)  # the fourth is the file system's
    _expect("Gid", status["Gid"].split(), [str(identity.gid)] * 4)
    for name in _CAPABILITY_SETS:
        _expect(name, int(status[name], 16), 0)
    ways_back: tuple[tuple[str, Callable[[], None]], ...] = (
        ("setresuid(0, 0, 0)", lambda: os.setresuid(0, 0, 0)),
        ("seteuid(0)", lambda: os.seteuid(0)),
        ("setresgid(0, 0, 0)", lambda: os.setresgid(0, 0, 0)),
        ("setgroups(0)", lambda: os.setgroups([0])),
    )
    for name, way in ways_back:
        try:
            way()
        except PermissionError:
            continue
        except OSError as error:
            raise PrivilegeError(f"{name} failed for another reason than it should: {error}") from error
        raise PrivilegeError(f"{name} still works after the drop")


def _status() -> dict[str, str]:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as error:
        raise PrivilegeError(f"the drop cannot be proven: {error}") from error
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise PrivilegeError(f"after the drop {what} should be {wanted}, but found {found}")


def keep_only(capability: int) -> None:
    """For a process that stays root: no capability but this one, and none to gain. Raises PrivilegeError.

    Where it has been taken from root beforehand, as containers do, none is left; root's own files it may read all the
    same.
    """
    kept = int(_status()["CapPrm"], 16) & 1 << capability
    try:
        _clear_ambient()
        _empty_bounding_set()
        others = [each for each in prctl.ALL_CAPS if each != capability]
        prctl.set_caps((others, prctl.ALL_FLAGS, False), (capability, prctl.CAP_INHERITABLE, False))
    except OSError as error:
        raise PrivilegeError(f"cannot give capabilities up: {error}") from error
    status = _status()
    for name in _CAPABILITY_SETS:
        _expect(name, int(status[name], 16), kept if name in ("CapPrm", "CapEff") else 0)


def harden(no_new_privs: bool) -> None:
    """What we execute gains no privileges, no process of the same user may trace us, no core is dumped.

    The private key is in our memory, which all of these could show. Children inherit all three. Raises PrivilegeError
    if the kernel does not comply.
    """
    try:
        if no_new_privs:
            prctl.set_no_new_privs(1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        prctl.set_dumpable(0)
    except (OSError, ValueError) as error:
        raise PrivilegeError(f"cannot harden the process: {error}") from error
    if prctl.get_dumpable() or (no_new_privs and not prctl.get_no_new_privs()):
        raise PrivilegeError("the kernel did not take PR_SET_DUMPABLE or PR_SET_NO_NEW_PRIVS")


def close_inherited(keep: Collection[int]) -> None:
    """Closes every descriptor above 2 but those in `keep`: what root's shell had open stays open after the drop.

    Call it before anything is opened.
    """
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            with suppress(OSError):  # the one that listed them is closed already
                os.close(int(name))


def raise_descriptor_limit() -> None:
    """Makes the soft limit of descriptors the hard one: 1024, the usual one, is for the sake of select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # fs.nr_open may be lower than the hard limit: then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends; if `parent_pid` is not its parent any more, exit at once.

    Call it in the child, after any change of user: setresuid(2) clears the setting, see PR_SET_PDEATHSIG in prctl(2).
    """
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(EXIT_ORPHAN)  # the parent died before the call, so its signal would never come


def preload() -> None:
    """Import and look up what Python would look for only later, when its own files may not be readable any more."""
    for module in _LATE_MODULES:
        importlib.import_module(module)
    for codec in _LATE_CODECS:
        "".encode(codec)
    time.localtime()  # reads /etc/localtime, tzset(3)
