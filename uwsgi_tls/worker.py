"""One worker process: the accept loop in its main thread, and the service threads behind it.

It is entered after the fork and the drop, with listening sockets and TLS contexts that the master made. It ends when
the master tells it to (SIGTERM: finish what is under way), when the master is gone, or with a status that says why it
could not start.
"""

import atexit
import faulthandler
import gc
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from uwsgi_tls import daemon, logs, peer, privileges, titles, wear
from uwsgi_tls.acceptor import Acceptor, Listener, Orphaned
from uwsgi_tls.access_log import AccessLog
from uwsgi_tls.backends import application
from uwsgi_tls.backends.http1 import HttpProtocol
from uwsgi_tls.backends.nodes import Node, Nodes
from uwsgi_tls.backends.proxy import NodeProtocol, Policy, ProxyBackend
from uwsgi_tls.backends.report import ReportBackend
from uwsgi_tls.backends.uwsgi import UwsgiProtocol
from uwsgi_tls.backends.wsgi import Application, WsgiBackend
from uwsgi_tls.calls import Calls
from uwsgi_tls.census import Census
from uwsgi_tls.farewell import LINGER_SECONDS
from uwsgi_tls.logs import line, trace
from uwsgi_tls.lounge import NEVER, Lounge
from uwsgi_tls.options import Config
from uwsgi_tls.scoreboard import Slot
from uwsgi_tls.service import Backend, Limits, Room, Service
from uwsgi_tls.spool import Disk
from uwsgi_tls.wear import Wear

EXIT_STOPPED = 0
EXIT_ORPHAN = 1
EXIT_DEFECT = 1
EXIT_NO_APPLICATION = 22  # as uWSGI with need-app

# What the master is told; where threads are is text, in which neither of the two can be.
READY = b"\x06"
WORN = b"\x18"  # a successor should come
# On this signal a worker that is to be killed says where its threads are. To look at them while they run may crash it
# (faulthandler), so it is none that anybody sends by mistake.
STACKS_SIGNAL = signal.SIGRTMIN + 8
TUNNEL_FAREWELL_SECONDS = LINGER_SECONDS + 1.0  # before the end of reload-mercy, for a sweep and for last words


@dataclass(frozen=True, slots=True)
class Task:
    """What the master hands to every worker."""

    config: Config
    listeners: Sequence[Listener]
    nodes: Sequence[Node]
    access_log: AccessLog | None
    master: int  # pid
    fallback: Sequence[Node] = ()

    @property
    def calls_application(self) -> bool:
        """Whether its workers run one."""
        return bool(self.config.wsgi_file or self.config.module)

    @property
    def harakiri(self) -> int:
        """Seconds that a call of the application may last; 0: as long as it likes, or there is none."""
        return self.config.harakiri if self.calls_application else 0


@dataclass(frozen=True, slots=True)
class Seat:
    """What one worker has for itself."""

    number: int
    generation: int
    channel: socket.socket  # to the master: READY and WORN go up; its end means that the master is gone
    slot: Slot  # of the scoreboard


def run(task: Task, seat: Seat) -> int:
    """The whole life of a worker; returns its exit status. Signals are still blocked when it is called."""
    privileges.die_with_parent(task.master)
    daemon.leave_terminal()
    _title(task, seat, "starting")
    seat.slot.enter("starting", os.getpid())
    _tell_stacks(seat.channel)
    wakeup = _take_signals()
    config = task.config
    disk = Disk(os.path.abspath(config.spool_dir) if config.spool_dir else None, config.spool_limit)
    if config.chdir:
        # Not in the master: the relative paths of certificates are read again there at a reload.
        os.chdir(config.chdir)
    calls_application = task.calls_application
    # One thread more than applications may occupy, for handshakes and heads; one for all where no application runs
    # here.
    threads = config.threads + 1 if calls_application else 1
    census = Census(
        seat.slot,
        [listener.socket for listener in task.listeners],
        Calls(seat.number, config.harakiri) if calls_application else None,
        Wear(wear.limits(config, seat.number), time.monotonic(), lambda reached: _ask_for_successor(seat, reached)),
    )
    lounge = Lounge(threads, census.beat)
    try:
        backend = _backend(task, lounge)
    except BaseException as error:  # an application's import may raise anything; the traceback is its author's to read
        if not isinstance(error, application.ApplicationError):
            trace()
        line(f"worker {seat.number}: unable to load the application: {type(error).__name__}: {error}")
        return EXIT_NO_APPLICATION
    service = Service(
        limits=_limits(config, connections=_room_for_connections(config)),
        lounge=lounge,
        backend=backend,
        room=Room(config.threads),
        trusted=config.proxy_protocol_trust if config.http_enable_proxy_protocol else None,
        export_cert=config.https_export_cert,
        worker=seat.number,
        pid=os.getpid(),
        access_log=task.access_log,
        disk=disk,
        server=config.server_header,
        hsts=f"max-age={config.hsts}" if config.hsts else "",
    )
    census.service = service
    gc.freeze()
    between = service.run_queued if calls_application else None
    for number in range(threads):
        threading.Thread(target=_serve, args=(lounge, between), name=f"service {number + 1}", daemon=True).start()
    if not calls_application:
        privileges.forbid_processes()  # after the threads, which it counts too
    _title(task, seat, "serving")
    seat.slot.enter("serving", service.pid)
    census.beat(time.monotonic())
    seat.channel.send(READY)
    status = _accept_and_drain(task, seat, service, wakeup)
    census.tell(service)
    service.failures.keep_time(NEVER)
    with suppress(Exception):
        atexit._run_exitfuncs()
    return status


def _ask_for_successor(seat: Seat, reached: str) -> None:
    """In a service thread. The master retires this worker once the successor is ready."""
    line(f"worker {seat.number} is to be replaced: {reached}")
    with suppress(OSError):  # the master is gone
        seat.channel.send(WORN)


def _serve(lounge: Lounge, between: Callable[[], None] | None) -> None:
    """The life of a service thread. If one ends, so does the worker, for the master to replace."""
    try:
        lounge.serve(between)
    finally:
        trace()
        line("a service thread has ended by a defect: so does the worker")
        os._exit(EXIT_DEFECT)


def _accept_and_drain(task: Task, seat: Seat, service: Service, wakeup: tuple[int, int]) -> int:
    """In the main thread, to the end: returns the exit status."""
    acceptor = Acceptor(task.listeners, service, seat.channel.fileno(), wakeup)
    try:
        acceptor.run()
        _title(task, seat, "draining")
        seat.slot.enter("draining", service.pid)
        began = time.monotonic()
        remaining = acceptor.drain(lambda: _left(task, seat, service, began))
    except Orphaned:
        return EXIT_ORPHAN
    if remaining:
        line(f"worker {seat.number} leaves {remaining} connections: its time is over (worker-reload-mercy)")
    return EXIT_STOPPED


def _left(task: Task, seat: Seat, service: Service, began: float) -> float:
    """Seconds until it must have ended; the master may shorten them with another signal. Tunnels end earlier."""
    end = seat.slot.ends or began + task.config.worker_reload_mercy
    service.ends = end - TUNNEL_FAREWELL_SECONDS
    return max(0.0, end - time.monotonic())


def _take_signals() -> tuple[int, int]:
    """Lets signals wake the main thread through a pipe; returns its two ends.

    Handlers that do nothing, rather than SIG_IGN, so that programs which an application starts get the defaults back
    (execve(2)). What is sent to the master's whole group is the master's to answer, and a terminal reaches nobody else.
    """
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGALRM,
        signal.SIGVTALRM,
        signal.SIGPROF,
        signal.SIGPWR,
        signal.SIGSTKFLT,
        signal.SIGIO,
        signal.SIGWINCH,
        *range(signal.SIGRTMIN, STACKS_SIGNAL),
        *range(STACKS_SIGNAL + 1, signal.SIGRTMAX + 1),
    ):
        signal.signal(number, _nothing)
    signal.signal(signal.SIGUSR1, _reopen_logs)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return read, write


def _tell_stacks(channel: socket.socket) -> None:
    """Has STACKS_SIGNAL tell the master where all threads are: in C, so that it answers whatever holds the GIL.

    Not in this thread, which would get an alternate stack from faulthandler (sigaltstack(2)), on which all handlers of
    Python run then: it is too small for as many signals as can come at once.
    """
    thread = threading.Thread(target=faulthandler.register, args=(STACKS_SIGNAL, channel.fileno()))
    thread.start()
    thread.join()


def _nothing(number: int, frame: FrameType | None) -> None:
    """The wakeup pipe has the number already."""


def _reopen_logs(number: int, frame: FrameType | None) -> None:
    """The master has done so; whatever the main thread is in the middle of."""
    logs.reopen()


def _backend(task: Task, lounge: Lounge) -> Backend:
    config = task.config
    if config.http_to:
        policy = Policy(
            connect=config.http_connect_timeout,
            answer=config.http_timeout,
            grace=config.http_gracetime,
            tunnel=config.http_tunnel_timeout,
            websockets=config.http_websockets,
        )
        return ProxyBackend(_protocol(config), Nodes(task.nodes, task.fallback), policy, lounge)
    if config.wsgi_file or config.module:
        return WsgiBackend(
            _application(config),
            multithread=config.threads > 1,
            multiprocess=config.processes > 1,
            extra=config.http_var,
        )
    return ReportBackend()


def _protocol(config: Config) -> NodeProtocol:
    if config.http_backend_http:
        return HttpProtocol(
            config.http_backend_keepalive, lambda exchange: peer.identity_fields(exchange.connection.variables)
        )
    return UwsgiProtocol(config.http_modifier1, config.http_modifier2, config.http_var)


def _application(config: Config) -> Application:
    """The application; without need-app, an error page in its stead where it cannot be loaded."""
    try:
        return application.load(config)
    except (Exception, SystemExit) as error:
        if config.need_app:
            raise
        if not isinstance(error, application.ApplicationError):
            trace()
        line(f"no application, every request gets a 500: {type(error).__name__}: {error}")
        return application.missing


def _room_for_connections(config: Config) -> int:
    """`worker-connections`, or how many the limit of descriptors allows, when that is less.

    A request may need one for a file beside its connection's, and one for a backend.
    """
    left = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(os.listdir("/proc/self/fd"))
    room = max(1, left // (3 if config.http_to else 2))
    if room < config.worker_connections and "worker-connections" in config.origins:
        line(f"the limit of descriptors (RLIMIT_NOFILE) allows {room} connections, not {config.worker_connections}")
    return min(room, config.worker_connections)


def _limits(config: Config, connections: int) -> Limits:
    return Limits(
        handshake=config.https_handshake_timeout,
        headers=config.http_headers_timeout,
        body=config.http_body_timeout,
        keepalive=config.http_keepalive,
        write=config.http_write_timeout,
        room=config.http_timeout,
        head_bytes=config.buffer_size,
        max_headers=config.http_max_headers,
        body_bytes=config.limit_post,
        memory_bytes=config.post_buffering,
        body_time=config.http_body_max_time,
        body_rate=config.http_body_min_rate,
        write_rate=config.http_write_min_rate,
        requests=config.max_requests_per_connection,
        connections=connections,
        handshakes=config.https_max_handshakes,
        per_client=config.connections_per_client,
    )


def _title(task: Task, seat: Seat, state: str) -> None:
    titles.set_title(task.config.procname_prefix, f"worker {seat.number} (generation {seat.generation}): {state}")


def leave(status: int) -> None:
    """Ends a forked process without unwinding what belongs to its parent."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
