"""What the numbers of the scoreboard are about; it does not change before the next reload."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from uwsgi_tls.certificates import CertificateInfo
from uwsgi_tls.listeners import HttpsSocket
from uwsgi_tls.options import Config


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """One that workers accept from, in the order in which they tell its queue."""

    name: str
    queue_max: int  # connections that may wait
    shared: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """As the master knows them when it forks."""

    master: int  # pid
    threads: int  # calls of the application at once, in a worker
    directory: str  # that of the application
    sockets: Sequence[ListeningSocket]
    certificates: Sequence[CertificateInfo]
    minified: bool = False  # the JSON, as it is asked for
    public: bool = False  # others than users of this machine may read

    @property
    def uid(self) -> int:
        return os.getuid()

    @property
    def gid(self) -> int:
        return os.getgid()


def of(config: Config, sockets: Sequence[HttpsSocket], certificates: Sequence[CertificateInfo]) -> Facts:
    """In the master: the facts as they are now."""
    each = {https.socket: ListeningSocket(https.name, config.listen, https.shared is not None) for https in sockets}
    return Facts(
        master=os.getpid(),
        threads=config.threads,
        directory=os.path.abspath(config.chdir or "."),
        sockets=tuple(each.values()),
        certificates=tuple(certificates),
        minified=config.stats_minified,
        public=config.stats_public,
    )
