"""Becoming another user for good, proof that root cannot come back, and what else a process takes upon itself.

Not here: what must be opened as root (listeners, certificates); the caller has done that before `drop`. The order of
the steps matters, credentials(7) and capabilities(7) say why. prctl is imported with this
module, so before the drop: the interpreter's library may be readable by root alone.
"""

import codecs
import importlib
import os
import resource
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import prctl

from uwsgi_tls import capabilities
from uwsgi_tls.converters import DESCRIPTORS_MAX
from uwsgi_tls.users import Identity

EXIT_ORPHAN = 1  # status of a worker whose master died before it could ask to die with it; nobody is left to read it

UMASK = 0o077  # of the options' default: what is written is the user's alone

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
        if identity.root:
            os.chroot(identity.root)
            os.chdir("/")  # else the working directory would still be outside, chroot(2)
        capabilities.empty_bounding_set()  # needs CAP_SETPCAP, and set*id() below take the capabilities away
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        if identity.keeps:
            capabilities.survive_setuid(True)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        # setresuid emptied permitted and effective, unless a securebit that we inherited kept them; inheritable stays.
        capabilities.keep(identity.keeps)
        if identity.keeps:
            capabilities.survive_setuid(False)
    except OSError as error:
        raise PrivilegeError(f"cannot become {identity.user}: {error}") from error
    prove(identity)


def prove(identity: Identity) -> None:
    """Check every id, every capability set and that no way back to root is open. Raises PrivilegeError on any doubt."""
    _expect("user ids", os.getresuid(), (identity.uid,) * 3)
    _expect("group ids", os.getresgid(), (identity.gid,) * 3)
    _expect("groups", sorted(set(os.getgroups())), sorted(set(identity.groups)))
    status = _status()
    _expect("Uid", status["Uid"].split(), [str(identity.uid)] * 4)  # the fourth is the file system's
    _expect("Gid", status["Gid"].split(), [str(identity.gid)] * 4)
    kept = capabilities.mask(identity.keeps)
    for name in _CAPABILITY_SETS:
        _expect(name, int(status[name], 16), kept if name in ("CapPrm", "CapEff") else 0)
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
    try:
        capabilities.empty_bounding_set()
        capabilities.keep([capability])
        kept = capabilities.held()
    except OSError as error:
        raise PrivilegeError(f"cannot give capabilities up: {error}") from error
    status = _status()
    for name in _CAPABILITY_SETS:
        _expect(name, int(status[name], 16), kept if name in ("CapPrm", "CapEff") else 0)


def keep_granted(cap: Collection[int]) -> None:
    """For a process that was started as an ordinary user: of the capabilities that whoever started it has given it
    (AmbientCapabilities in systemd.exec(5)), only `cap` stay, and nothing that it executes has any.

    As root it does nothing. The bounding set is not an ordinary user's to change. Raises PrivilegeError.
    """
    if os.geteuid() == 0:
        return
    try:
        capabilities.keep(cap)
    except OSError as error:
        raise PrivilegeError(f"cannot give capabilities up: {error}") from error


def harden(no_new_privs: bool, umask: int = UMASK) -> None:
    """What we execute gains no privileges, no process of the same user may trace us, no core is dumped, and what we
    write is nobody else's.

    The private key is in our memory, which the first three could show. Children inherit all of it. Raises
    PrivilegeError if the kernel does not comply.
    """
    os.umask(umask)
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


def forbid_processes() -> None:
    """This process may start no other, and no thread, from here on: RLIMIT_NPROC in getrlimit(2).

    Root, and who keeps CAP_SYS_RESOURCE or CAP_SYS_ADMIN, is not bound by it. What it executes in its own place is.
    """
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def limit_descriptors(wanted: int, warn: Callable[[str], None]) -> None:
    """Makes `wanted` the soft and the hard limit of descriptors, or comes as near as this process may; 0: as many as it
    may have, since 1024, the usual soft limit, is for the sake of select(2).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (OSError, ValueError):  # only root may raise the hard limit, and nobody beyond fs.nr_open
            warn(f"rlimit-nofile = {wanted}: this process may have no more than {most} descriptors")
            limit_descriptors(0, warn)
    elif soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # fs.nr_open may be lower than the hard limit: then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


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
        codecs.lookup(codec)  # "".encode() takes a short cut past it
    time.localtime()  # reads /etc/localtime, tzset(3)
