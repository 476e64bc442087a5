"""The TLS side of each https listener, made from files: as root at the start, and after the drop at each reload.

After the drop a file is opened as the user that we are; where that user may not, the monitor is asked. What a reload
cannot read or use makes it fail as a whole, so that no half of a change is ever served.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from uwsgi_tls import certificates, monitor, privileges, tls
from uwsgi_tls.certificates import Passphrases as ForKey
from uwsgi_tls.certificates import Read
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.listeners import HttpsSocket
from uwsgi_tls.logs import line
from uwsgi_tls.options import Config
from uwsgi_tls.passphrases import Passphrases
from uwsgi_tls.service import Endpoint
from uwsgi_tls.worker import Listener


class Endpoints:
    """Those of one configuration."""

    def __init__(self, config: Config, sockets: Sequence[HttpsSocket]) -> None:
        self.monitor: monitor.Monitor | None = None
        self.paths = named_files(config)
        self._sockets = sockets
        self._prefix = config.procname_prefix
        self._read = partial(certificates.read_file, opened=self.open_file)
        self._passphrases = Passphrases(config.ssl_key_password_file, config.ssl_key_password_command)

    def make(self, warn: Callable[[str], None]) -> list[Listener]:
        """Reads all files and builds all contexts, at the start. Raises ConfigError."""
        served = open_endpoints(self._sockets, warn, self._read, self._for_key)
        self._passphrases.may_ask = False
        return served

    def remake(self, present: Sequence[Listener]) -> Sequence[Listener]:
        """The same for a reload. Raises ConfigError, and then the `present` ones go on."""
        try:
            return open_endpoints(self._sockets, line, self._read, self._for_key)
        except ConfigError as error:
            if self.monitor is not None or not isinstance(error.__cause__, certificates.Unreadable):
                raise
            # Nobody has promised that they could be read again, and an application may be reloaded all the same.
            line(f"certificates and keys stay as they were at the start, since there is no monitor: {error}")
            return present

    def start_monitor(self) -> None:
        """Leaves a process root that opens the named files for us from now on. Raises PrivilegeError."""
        try:
            self.monitor = monitor.start(self.paths.__contains__, self._prefix)
        except OSError as error:
            raise privileges.PrivilegeError(f"no monitor could be started: {error}") from None
        line(f"the monitor (pid: {self.monitor.pid}) stays root, to read certificates and keys at a reload")

    def open_file(self, path: str) -> int:
        """A descriptor for reading of a named file. Raises OSError."""
        try:
            return certificates.open_file(path)
        except PermissionError:
            if self.monitor is None:
                raise
            return self.monitor.open(path)

    def remind(self) -> None:
        """Says which certificates are about to expire."""

    def _for_key(self, key: str) -> Iterable[bytes]:
        return self._passphrases.for_key(key, self._read)


def open_endpoints(
    sockets: Sequence[HttpsSocket],
    warn: Callable[[str], None],
    read: Read = certificates.read_file,
    passphrases: ForKey = certificates.no_passphrases,
) -> list[Listener]:
    """Reads certificates and keys and builds the TLS context of each https listener. Raises ConfigError.

    `read` and `passphrases` are those of `certificates.load`.
    """
    served = []
    for https in sockets:
        material = certificates.load(https.option, read, passphrases)
        for warning in material.warnings:
            warn(warning)
        context = tls.build_context(https.option, material, https.name)
        endpoint = Endpoint(context=context, port=https.port, name=https.name)
        served.append(Listener(https.socket, endpoint, int(https.socket.family)))
    return served


def named_files(config: Config) -> frozenset[str]:
    """Every file that the TLS options name, as they are written there."""
    names = {config.ssl_key_password_file}
    for site in config.listeners:
        names |= {site.client_ca, site.crl}
        for pair in site.certificates:
            names |= set(pair)
    return frozenset(names - {""})
