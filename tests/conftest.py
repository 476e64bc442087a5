"""What all tests share: how hypothesis behaves on a busy machine, files that others may read, and an orderly end.

And two fixtures: the laboratory's certificates, and a directory that is nobody else's.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from pki import Pki, pki

# The same examples in every run, and no limit per example: a test must not fail because the machine was busy.
settings.register_profile("uwsgi-tls", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("uwsgi-tls")

# The server becomes another user, who must be able to read the applications that tests write.
os.umask(0o022)

# In the background of a script a shell has SIGINT ignored, and so would be all that tests start and press Ctrl-C for.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A run that is given up is told so by TERM. As with Ctrl-C, tests then end the servers that they have started.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def lab() -> Pki:
    """The laboratory's certificates."""
    return pki()


@pytest.fixture
def own() -> Iterator[Path]:
    """A directory that nobody else may change, which /tmp is not for root."""
    with tempfile.TemporaryDirectory(dir="/root" if os.geteuid() == 0 else None) as name:
        yield Path(name)
