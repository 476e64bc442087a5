"""Which files a configuration names, for the monitor: as it was at the start, and as it is now.

What root has started the server with is root's word. Before a reload the monitor reads the configuration again itself,
since the master may have been taken over, and believes it only where root alone can have written all of it: the ini
files, those that they include or quote, and the directories on the way. Else what is new is opened with the user's own
rights, or not at all. How much it reads is bounded, and no file can end it.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import replace

from uwsgi_tls import sites
from uwsgi_tls.options import Config
from uwsgi_tls.placeholders import Source
from uwsgi_tls.trusted_path import open_unalterable

FILES_MAX = 256  # of one configuration, of placeholders.FILE_BYTES_MAX at most


class Named:
    """The files that the monitor may open."""

    def __init__(self, config: Config, load: Callable[[Source], Config] | None = None) -> None:
        """`config` is that of the start; `load` reads what it has become, through what it is given."""
        self._configs = [config]
        self._load = load
        self._source = Source()

    def has(self, path: str) -> bool:
        """Whether the configuration names `path`, or sni-dir has it."""
        return any(
            path in config.files or path in named_files(config) or sites.is_in_directory(config, path, os.path.lexists)
            for config in self._configs
        )

    def read_again(self) -> None:
        """Takes up what has changed. Raises OSError or ConfigError, and then all stays as it was."""
        if self._load is None:
            return
        source = replace(self._source, open=self._open, files=[])
        self._files_left = FILES_MAX
        self._configs = [self._configs[0], self._load(source)]

    def _open(self, path: str) -> int:
        if self._files_left == 0:
            raise OSError(errno.E2BIG, f"the configuration has more than {FILES_MAX} files")
        self._files_left -= 1
        return open_unalterable(path)


def named_files(config: Config) -> frozenset[str]:
    """Every file that the TLS options name, as they are written there."""
    names = {config.ssl_key_password_file, config.ssl_crl, config.sni_dir}
    for site in (*config.listeners, *config.sni, *config.sni2, *config.sni_regexp):
        names |= set(site.files)
    return frozenset(names - {""})
