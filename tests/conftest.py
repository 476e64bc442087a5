"""What all tests share: how hypothesis behaves on a machine that others use too, and files that others may read."""

from __future__ import annotations

import os

from hypothesis import settings

# The same examples in every run, and no limit per example: a test must not fail because the machine was busy.
settings.register_profile("uwsgi-tls", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("uwsgi-tls")

# The server becomes another user, who must be able to read the applications that tests write.
os.umask(0o022)
