"""The capability sets of this process, as capabilities(7) has them: what is kept, and that nothing can come back.

capset(2) and prctl(2) are called themselves: python-prctl 1.8.1 has no ambient set, and of capabilities that are
younger than the headers it was compiled with it does not know. Nothing here reads /proc/sys, which a unit of systemd
with ProcSubset=pid does not have.
"""

import ctypes
import errno
import os
from collections.abc import Collection

CAPABILITIES_MAX = 64  # bits of a set

_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3, linux/capability.h: two words of 32 bits
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24  # linux/prctl.h, here and below
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_PR_SET_KEEPCAPS = 8

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def held() -> int:
    """The permitted set, a bit for each capability. Raises OSError."""
    words = (_Word * 2)()
    _check(_libc.capget(ctypes.byref(_Header(_VERSION_3, 0)), words))
    return int(words[0].permitted | words[1].permitted << 32)


def keep(capabilities: Collection[int]) -> None:
    """Permitted and effective become those of `capabilities` that are permitted now, and what is executed gets none.

    Raises OSError.
    """
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    kept = mask(capabilities) & held()
    now, words = (_Word * 2)(), (_Word * 2)()
    _check(_libc.capget(ctypes.byref(_Header(_VERSION_3, 0)), now))
    for word, bits in zip(words, (kept & 0xFFFFFFFF, kept >> 32), strict=True):
        word.effective = word.permitted = bits
    if bytes(now) != bytes(words):  # who has none may not be allowed to say so: SystemCallFilter= in systemd.exec(5)
        _check(_libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), words))


def survive_setuid(wanted: bool) -> None:
    """Whether the permitted set outlives a setresuid(2) that gives root up. Raises OSError."""
    _prctl(_PR_SET_KEEPCAPS, int(wanted))


def empty_bounding_set() -> None:
    """No program that is executed from here on can bring a capability. Raises OSError, EPERM without CAP_SETPCAP."""
    for capability in range(CAPABILITIES_MAX):
        try:
            if _prctl(_PR_CAPBSET_READ, capability):
                _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:  # this kernel has no more
                return
            raise PermissionError(errno.EPERM, "emptying the bounding set needs CAP_SETPCAP") from None


def mask(capabilities: Collection[int]) -> int:
    """A set as /proc/PID/status shows it: the bit 1 << N for capability N."""
    return sum(1 << capability for capability in set(capabilities))


def _prctl(option: int, argument: int) -> int:
    zero = ctypes.c_ulong(0)
    return _check(_libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero))


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
