"""The TLS side of each https listener, made from files: as root at the start, and after the drop at each reload.

After the drop a file is opened as the user that we are; where that user may not, the monitor is asked. What a reload
cannot use makes it fail as a whole, so that no half of a change is ever served. Only a certificate and its key that
nobody may open for us stay as they were: whoever can close his own files must not keep others' clients from being
revoked.
"""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from uwsgi_tls import certificates, privileges, sites, vhosts
from uwsgi_tls.acceptor import Listener
from uwsgi_tls.certificates import CertificateInfo
from uwsgi_tls.listeners import HttpsSocket
from uwsgi_tls.logs import line
from uwsgi_tls.monitor import Monitor, start
from uwsgi_tls.named import Named, named_files
from uwsgi_tls.options import Config
from uwsgi_tls.passphrases import Passphrases
from uwsgi_tls.placeholders import Source
from uwsgi_tls.trusted_path import open_unlinked
from uwsgi_tls.users import Identity
from uwsgi_tls.vhosts import Reader

REMINDER = timedelta(hours=23.5)  # a day, for who asks each hour, and never later


class Endpoints:
    """Those of one configuration."""

    def __init__(
        self,
        config: Config,
        sockets: Sequence[HttpsSocket],
        identity: Identity | None = None,
        before: "Endpoints | None" = None,
        monitor: Monitor | None = None,
        may_ask: bool = True,
    ) -> None:
        """`identity` is whom root becomes after the start, if anybody; `before` are those of the configuration as it
        was until now, which know passphrases, and keys that may not be read again; `monitor` reads what we may not;
        `may_ask`: passphrases may be asked for.
        """
        self.monitor = monitor
        self._named = named_files(config)
        self._in_directory: frozenset[str] = frozenset()  # what sni-dir had in it when it was last read
        self.certificates: Sequence[CertificateInfo] = ()  # those that are served
        self.kept: Sequence[str] = ()  # those of them, by file, that could not be read the last time
        self._known: certificates.Known = before._known if before is not None else {}  # with their keys
        self._reminded: dict[str, datetime] = before._reminded if before is not None else {}  # of what, and when
        self._config = config
        self._identity = identity
        self._sockets = sockets
        self._prefix = config.procname_prefix
        self._read = partial(certificates.read_file, opened=self.open_file)
        self._passphrases = Passphrases(config.ssl_key_password_file, config.ssl_key_password_command)
        if before is not None:
            self._passphrases.remember(before._passphrases)
        self._passphrases.may_ask = may_ask
        self._reader = Reader(self._read, self._for_key, partial(certificates.read_names, opened=self.open_file))

    def make(self, warn: Callable[[str], None]) -> list[Listener]:
        """Reads all files and builds all contexts; a certificate and key that were read before and may not be read now
        stay as they were. Raises ConfigError.
        """
        served = self._open(warn)
        self._passphrases.may_ask = False
        return served

    def start_monitor(self, load: Callable[[Source], Config] | None = None) -> Monitor:
        """Leaves a process root that opens the named files for us from now on, and what `load` finds named later.

        Raises PrivilegeError.
        """
        named = Named(self._config, load)
        try:
            self.monitor = start(named.has, named.read_again, self._prefix)
        except OSError as error:
            raise privileges.PrivilegeError(f"no monitor could be started: {error}") from None
        line(f"the monitor (pid: {self.monitor.pid}) stays root, to read certificates and keys at a reload")
        return self.monitor

    def foretell(self) -> None:
        """After the drop: says which files a reload will not be able to read."""
        for path in sorted({*self.paths(), *self._config.files}):
            try:
                os.close(self.open_file(path))
            except OSError as error:
                line(f"a reload will not read {path} again: {error.strerror}")

    def paths(self) -> frozenset[str]:
        """Every file that the TLS options name, and what sni-dir has in it now."""
        directory = self._config.sni_dir
        with suppress(certificates.BadFile):  # it is told when the certificates are read
            paths = {os.path.join(directory, name) for name in self._reader.names_in(directory, "sni-dir")}
            self._in_directory = frozenset(
                path for path in paths if sites.is_in_directory(self._config, path, paths.__contains__)
            )
        return self._named | self._in_directory

    def open_file(self, path: str) -> int:
        """A descriptor for reading of a named file. Raises OSError."""
        if os.geteuid() == 0:
            return open_at_start(path, self._identity)
        return open_as_user(path, self.monitor, outside=bool(self._config.chroot))

    def remind(self) -> None:
        """Says which certificates are about to expire, or have; of each the same at most once a day."""
        now, before = datetime.now(UTC), self._reminded
        self._reminded = {}
        for info in self.certificates:
            if now >= info.expiry_warning:
                verb = "has expired" if info.not_after <= now else "expires"
                text = f"certificate {info.file}: {verb} on {info.not_after:%Y-%m-%d %H:%M} UTC"
                last = before.get(text)
                if last is None or not timedelta() <= now - last < REMINDER:  # the clock may have been set back
                    line(text)
                    last = now
                self._reminded[text] = last

    def _open(self, warn: Callable[[str], None]) -> list[Listener]:
        loaded = vhosts.load(self._config, replace(self._reader, known=self._known))
        served = []
        for number, https in enumerate(self._sockets):
            endpoint = vhosts.endpoint(loaded, number, https.name, https.port)
            served.append(Listener(https.socket, endpoint, int(https.socket.family)))
        before, self._known = self._known, loaded.known
        self.kept = sorted({files[0] for files, pair in loaded.known.items() if before.get(files) is pair})
        self.certificates = loaded.certificates
        for text in (*map(str, loaded.certificates), *loaded.warnings):
            warn(text)
        return served

    def _for_key(self, key: str) -> Iterable[bytes]:
        return self._passphrases.for_key(key, self._read)


def open_as_user(path: str, monitor: Monitor | None, outside: bool = False) -> int:
    """A descriptor for reading, after the drop; `outside`: the file is not in our root directory. Raises OSError."""
    try:
        if outside:  # what has that name inside is another file
            raise PermissionError(errno.EPERM, "it lies outside of chroot, and there is no monitor")
        return certificates.open_file(path)
    except PermissionError:
        if monitor is None:
            raise
        return monitor.open(path)


def open_at_start(path: str, identity: Identity | None) -> int:
    """A descriptor for reading, opened by root, who is about to become `identity`. Raises OSError.

    It is opened with the rights of that user, or he could choose what root reads for him; what he may not read, by root
    if nobody else can have put it there, or no link of anybody else's leads to it.
    """
    if identity is None:
        return certificates.open_file(path)
    with suppress(PermissionError), privileges.acting_as(identity):
        return certificates.open_file(path)
    return open_unlinked(path)
