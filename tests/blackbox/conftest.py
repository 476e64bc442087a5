"""Fixtures of the black-box tests: certificates as the seed page makes them, and directories that anyone may enter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import seed_pki
from .server import open_directory


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """An empty directory that every user may enter."""
    with open_directory() as directory:
        yield directory


@pytest.fixture
def directory(public_directory: Path) -> Path:
    """One in which every user may also make files: sockets, for example."""
    public_directory.chmod(0o777)
    return public_directory


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> seed_pki.SeedPki:
    """The page's first certificate, self-signed; its key has mode 0600, as openssl makes it."""
    return seed_pki.self_signed(tmp_path_factory.mktemp("self-signed"))


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> seed_pki.SeedPki:
    """The page's password-protected CA, and the server and client certificates that it signed."""
    return seed_pki.with_authority(tmp_path_factory.mktemp("pki"))
