"""What pyOpenSSL alone takes for a connection: handshake, one request, one answer and the end, with no socket at all.

No server that is written with it can take less, so these figures stand beside those of ours. The client's part is not
counted.
"""

from __future__ import annotations

import ssl
import statistics
import time
from dataclasses import dataclass

from OpenSSL import SSL

from .load import Target, client_context
from .peers import Credential

CONNECTIONS = 400
WARM_UP = 40
BUFFER_BYTES = 65536
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nConnection: close\r\n\r\n"
ANSWER_BYTES = 150


@dataclass(slots=True)
class _Stopwatch:
    """CPU time of this thread, in the stretches between `go` and `stop`."""

    used_ns: int = 0
    begun_ns: int = 0

    def go(self) -> None:
        self.begun_ns = time.thread_time_ns()

    def stop(self) -> None:
        self.used_ns += time.thread_time_ns() - self.begun_ns


def connection_us(credential: Credential, *, resume: bool) -> float:
    """Microseconds of CPU that the server's side of one connection takes, the median of many."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(str(credential[0]))
    context.use_privatekey_file(str(credential[1]))
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"bench")
    client, session, took = client_context(Target(0)), None, []
    for _ in range(WARM_UP + CONNECTIONS):
        watch = _Stopwatch()
        ended = _talk(context, client, session, watch)
        session = ended if resume else None
        took.append(watch.used_ns / 1000)
    return statistics.median(took[WARM_UP:])


def _talk(
    context: SSL.Context, client: ssl.SSLContext, session: ssl.SSLSession | None, watch: _Stopwatch
) -> ssl.SSLSession | None:
    """One connection in memory; returns the client's session."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=session)
    try:
        theirs.do_handshake()
    except ssl.SSLWantReadError:
        hello = to_server.read()
    watch.go()
    ours = SSL.Connection(context, None)
    ours.set_accept_state()
    ours.bio_write(hello)
    try:
        ours.do_handshake()
    except SSL.WantReadError:
        flight = ours.bio_read(BUFFER_BYTES)
    watch.stop()
    to_client.write(flight)
    theirs.do_handshake()
    theirs.write(REQUEST)
    finished = to_server.read()
    watch.go()
    ours.bio_write(finished)
    ours.do_handshake()
    ours.recv(BUFFER_BYTES)
    ours.send(bytes(ANSWER_BYTES))
    ours.shutdown()
    answer = ours.bio_read(BUFFER_BYTES)
    del ours
    watch.stop()
    to_client.write(answer)
    theirs.read(BUFFER_BYTES)
    return theirs.session
