"""The C library's heap, which OpenSSL and Python take their memory from.

glibc gives each thread a heap of its own where it can (mallopt(3), M_ARENA_MAX), and what is freed in one is of no use
to the others. Which of the service threads leads is chance, so each of their heaps would in time become as large as the
largest crowd that the worker has had.
"""

import ctypes
import os

_M_ARENA_MAX = -8  # malloc.h


def share() -> None:
    """One heap for all threads that are still to come, unless the environment says how many there shall be."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and "MALLOC_ARENA_MAX" not in os.environ:
        libc.mallopt(_M_ARENA_MAX, 1)
