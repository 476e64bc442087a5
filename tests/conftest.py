"""What all tests share: nothing but how hypothesis behaves on a machine that others use too."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run, and no limit per example: a test must not fail because the machine was busy.
settings.register_profile("uwsgi-tls", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("uwsgi-tls")
