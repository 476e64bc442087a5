"""Lines for syslog, as syslog(3) sends them: "<PRIORITY>Mmm dd hh:mm:ss name[pid]: text" (RFC 3164, 4.1)."""

import os
import time

from uwsgi_tls.datagrams import Datagrams
from uwsgi_tls.log_text import Fields, ctime, cut

LINE_BYTES = 8192  # rsyslog's maxMessageSize; others cut off or part what is longer


class Syslog:
    """The system's log."""

    stamps = True
    takes_fields = False

    def __init__(self, path: str, name: str, facility: int) -> None:
        """`facility` is a number, as in RFC 5424, 6.2.1. Raises OSError."""
        self._name = name
        self._facility = facility << 3
        self._datagrams = Datagrams(path)

    def put(self, text: str, priority: int, fields: Fields) -> None:
        moment = ctime(time.time())[4:19]
        head = f"<{self._facility | priority}>{moment} {self._name}[{os.getpid()}]: ".encode()
        self._datagrams.send(head + cut(text, LINE_BYTES - len(head)))
