"""The life of master and workers: signals, reloads, deaths, titles, and what must not be left behind.

Whoever sends requests meanwhile must not notice: a `Load` does so all the time in the tests of changes.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from pki import Issued, pki

from .server import USER, Daemon, Process, is_root, loopback, open_directory, uwsgi_tls, wait_for_end, wait_until
from .test_http_to import PORT, SECONDS, Client, Truncated, client_context

needs_root = pytest.mark.skipif(not is_root, reason="only root may look into processes that are not dumpable (proc(5))")

APPLICATION = """
import os, signal, threading

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/wait":
        threading.Event().wait(float(environ["QUERY_STRING"]))
    elif path == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif path == "/exit":
        os._exit(3)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@contextlib.contextmanager
def serving(*options: str | Path, application: str = APPLICATION) -> Iterator[tuple[Daemon, str]]:
    """Our server with the application above, all of its workers ready; and the host it listens on."""
    host, server = loopback(), pki().server_ec
    with open_directory() as directory:
        (directory / "app.py").write_text(application)
        app = ("--wsgi-file", directory / "app.py")
        with uwsgi_tls("--https", f"{host}:{PORT},{server.crt},{server.key_file}", *app, *USER, *options) as daemon:
            daemon.wait_for_line(r"generation 1 is serving")
            yield daemon, host


def workers(daemon: Daemon) -> list[Process]:
    """Those that serve now, in the order of their numbers."""
    found = {process.title(): process for process in daemon.tree()}
    return [found[title] for title in sorted(found) if re.search(r"worker \d+ .*serving", title)]


class Load:
    """Clients that ask again and again, each on new connections or on one that is kept; counts what went wrong.

    Each waits `pause` seconds before a request.
    """

    def __init__(self, host: str, clients: int = 4, pause: float = 0.0) -> None:
        self.host = host
        self._pause = pause
        self.failures: list[str] = []
        self.requests = 0
        self.answered_by: set[bytes] = set()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, keep: bool) -> None:
        context = client_context()
        while not self._end.is_set():
            try:
                with Client(self.host, context=context) as client:
                    stays = True
                    while stays and not self._end.wait(self._pause):
                        answer = client.get()
                        stays = keep and answer.stays
                        if answer.status != 200:
                            self.failures.append(f"status {answer.status}")
                        self.answered_by.add(answer.body)
                        self.requests += 1
            except (OSError, Truncated) as error:
                self.failures.append(repr(error))

    def wait_for_more(self, count: int = 20) -> None:
        """Until so many more requests have been answered, or something went wrong."""
        goal = self.requests + count
        wait_until(
            lambda: self.requests >= goal or bool(self.failures), SECONDS, lambda: f"only {self.requests} answers"
        )


# --- sharing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2])
def test_workers_take_turns(processes: int) -> None:
    """The kernel wakes the one who has waited for longest, so none has most of the connections while others rest, nor
    where another worker came later than the first.
    """
    with serving("--processes", str(processes)) as (daemon, host):
        if processes == 1:
            os.kill(daemon.pid, signal.SIGTTIN)
            daemon.wait_for_titles("worker .*serving", 2)
        found = Counter[bytes]()
        for _ in range(20):
            with Client(host) as client:
                found[client.get().body] += 1
        assert len(found) == 2
        assert min(found.values()) >= 7


# --- stopping ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_stop(number: signal.Signals) -> None:
    """The request under way is finished, its connection closed after it, nothing new is accepted."""
    with serving("--processes", "2") as (daemon, host):
        with Client(host) as busy, Client(host) as idle:
            assert idle.get().status == 200
            busy.send("GET", "/wait?1")
            assert not readable(busy, 0.3)
            os.kill(daemon.pid, number)
            daemon.wait_for_titles("master .*stopping", 1)
            wait_until(lambda: any("draining" in each.title() for each in daemon.tree()), 5, lambda: daemon.log)
            answer = busy.read_answer()
            assert (answer.status, answer.stays) == (200, False)
            assert busy.ended()
            started = time.monotonic()
            assert idle.ended()
        assert daemon.wait(10) == 0
        assert time.monotonic() - started < 5, "an idle connection held the stop up"
        assert daemon.lines[-1].endswith("goodbye to uwsgi-tls")


def test_a_request_on_its_way_is_still_answered() -> None:
    """An idle connection has a moment, for a request that crosses the stop's path."""
    with serving() as (daemon, host):
        with Client(host) as client:
            assert client.get().status == 200
            os.kill(daemon.pid, signal.SIGTERM)
            daemon.wait_for_titles("draining", 1)
            answer = client.get()
            assert (answer.status, answer.stays) == (200, False)
            assert client.ended()
        assert daemon.wait(5) == 0


def test_reload_mercy_bounds_a_stop() -> None:
    with serving("--reload-mercy", "1") as (daemon, host), Client(host) as client:
        client.send("GET", "/wait?60")
        assert not readable(client, 0.3)
        started = time.monotonic()
        os.kill(daemon.pid, signal.SIGTERM)
        assert daemon.wait(10) == 0
        assert 0.9 < time.monotonic() - started < 6
        assert not client.ended()  # no clean end: the client can tell


def test_a_second_signal_ends_the_wait() -> None:
    with serving() as (daemon, host), Client(host) as client:
        client.send("GET", "/wait?60")
        assert not readable(client, 0.3)
        os.kill(daemon.pid, signal.SIGTERM)
        daemon.wait_for_titles("draining", 1)
        started = time.monotonic()
        os.kill(daemon.pid, signal.SIGINT)
        assert daemon.wait(5) == 0
        assert time.monotonic() - started < 2


def test_quit_stops_at_once() -> None:
    with serving("--processes", "2") as (daemon, host), Client(host) as client:
        client.send("GET", "/wait?60")
        assert not readable(client, 0.3)
        started = time.monotonic()
        assert daemon.stop(signal.SIGQUIT) == 0
        assert time.monotonic() - started < 2


def test_a_stop_while_it_starts() -> None:
    """A worker that is still importing its application is not waited for."""
    slow = "import time\ntime.sleep(60)\n"
    host, server = loopback(), pki().server_ec
    with open_directory() as directory:
        (directory / "app.py").write_text(slow)
        listener = f"{host}:{PORT},{server.crt},{server.key_file}"
        with uwsgi_tls(
            "--https", listener, "--wsgi-file", directory / "app.py", "--reload-mercy", "1", *USER
        ) as daemon:
            daemon.wait_for_line("spawned uwsgi-tls worker 1")
            started = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - started < 6


@pytest.mark.parametrize("count", [1, 4])
def test_kill_of_the_master(count: int) -> None:
    """Nothing is left within two seconds, be a worker busy or idle or stopped, and the port is free."""
    with serving("--processes", str(count)) as (daemon, host):
        with Client(host) as client:
            client.send("GET", "/wait?60")
            assert not readable(client, 0.3)
            left = workers(daemon)
            assert len(left) == count
            os.kill(left[-1].pid, signal.SIGSTOP)  # which reads no channel: only the kernel can end it
            left = [process for process in daemon.tree() if process.pid != daemon.pid]  # the monitor, too
            assert len(left) == count + is_root
            os.kill(daemon.pid, signal.SIGKILL)
            deadline = time.monotonic() + 2
            assert all(wait_for_end(process.pid, deadline - time.monotonic()) for process in left)
        with socket.create_server((host, PORT)):
            pass
        assert daemon.wait(2) == -signal.SIGKILL


def readable(client: Client, seconds: float) -> bool:
    """Whether something comes within `seconds`: a pause that shows that a request is really under way."""
    client.sock.settimeout(seconds)
    try:
        client.sock.recv(1)
    except TimeoutError:
        return False
    finally:
        client.sock.settimeout(SECONDS)
    return True


# --- signals that mean nothing ----------------------------------------------------------------

HARMLESS = [
    *("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGURG", "SIGWINCH", "SIGPWR"),
    *("SIGCHLD", "SIGSTKFLT", "SIGXFSZ", "SIGRTMIN", "SIGRTMIN+1", "SIGRTMAX", "SIGCONT"),
]


def signal_number(name: str) -> int:
    base, _, offset = name.partition("+")
    return signal.Signals[base] + int(offset or 0)


def test_harmless_signals_to_the_master() -> None:
    with serving("--processes", "2") as (daemon, host):
        before = [process.pid for process in workers(daemon)]
        for name in HARMLESS:
            os.kill(daemon.pid, signal_number(name))
        for _ in range(200):
            os.kill(daemon.pid, signal.SIGUSR2)
        # Taken one by one; that one which it answers comes last.
        os.kill(daemon.pid, signal.SIGTTIN)
        daemon.wait_for_line("from 2 to 3 workers")
        assert len(daemon.wait_for_workers(3)) == 3
        assert {process.pid for process in workers(daemon)} >= set(before)
        with Client(host) as client:
            assert client.get().status == 200


def test_harmless_signals_to_a_worker() -> None:
    """What reaches the whole group from a terminal, or an operator by mistake, ends no worker and no request."""
    with serving() as (daemon, host), Client(host) as client:
        (worker,) = workers(daemon)
        client.send("GET", "/wait?1")
        assert not readable(client, 0.2)
        for name in (*HARMLESS, "SIGHUP", "SIGINT", "SIGQUIT", "SIGTTIN", "SIGTTOU"):
            os.kill(worker.pid, signal_number(name))
        answer = client.read_answer()
        assert (answer.status, answer.stays, answer.body) == (200, True, str(worker.pid).encode())
        assert client.get().body == str(worker.pid).encode()
        assert "died" not in daemon.log


# --- more and fewer workers -------------------------------------------------------------------


def test_one_more_and_one_fewer() -> None:
    with serving("--processes", "1") as (daemon, host), Load(host) as load:
        (first,) = workers(daemon)
        for expected in (2, 3):
            os.kill(daemon.pid, signal.SIGTTIN)
            assert len(daemon.wait_for_workers(expected)) == expected
        for expected in (2, 1):
            os.kill(daemon.pid, signal.SIGTTOU)
            assert len(daemon.wait_for_workers(expected)) == expected
        os.kill(daemon.pid, signal.SIGTTOU)
        daemon.wait_for_line("one is the least")
        load.wait_for_more()
        assert [process.pid for process in workers(daemon)] == [first.pid]
    assert not load.failures, load.failures
    assert daemon.log.count("ended (exit 0)") == 2 + 1  # and the last one at the end


# --- reloads ----------------------------------------------------------------------------------


def hang_up(daemon: Daemon, generation: int) -> None:
    """HUP, and until the new generation serves and the old one has gone."""
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.wait_for_line(rf"generation {generation} is serving")

    def old_ones_have_gone() -> bool:
        titles = [process.title() for process in daemon.tree()]
        of_it = all(f"generation {generation}" in title for title in titles if "monitor" not in title)
        return of_it and not zombies(daemon)

    wait_until(old_ones_have_gone, SECONDS, lambda: f"{[p.title() for p in daemon.tree()]}\n{daemon.log}")


def test_reload_without_a_failed_request() -> None:
    """Under requests without pause, on new and on kept connections, three times."""
    with serving("--processes", "2") as (daemon, host), Load(host, clients=6) as load:
        for generation in (2, 3, 4):
            before = {str(process.pid).encode() for process in workers(daemon)}
            hang_up(daemon, generation)
            load.answered_by.clear()
            load.wait_for_more(100)
            assert not load.answered_by & before
            assert len(workers(daemon)) == 2
    assert not load.failures, load.failures[:5]
    print(f"{load.requests} requests during 3 reloads")


def test_requests_under_way_outlive_a_reload() -> None:
    with serving() as (daemon, host):
        (old,) = workers(daemon)
        with Client(host) as client:
            client.send("GET", "/wait?2")
            assert not readable(client, 0.3)
            os.kill(daemon.pid, signal.SIGHUP)
            daemon.wait_for_line("generation 2 is serving")
            daemon.wait_for_titles("draining", 1)  # it accepts nothing more
            with Client(host) as other:
                assert other.get().body != str(old.pid).encode()
            answer = client.read_answer()
            assert (answer.status, answer.stays, answer.body) == (200, False, str(old.pid).encode())
        assert wait_for_end(old.pid)


def test_reload_mercy_bounds_a_reload() -> None:
    with serving("--reload-mercy", "1") as (daemon, host), Client(host) as client:
        (old,) = workers(daemon)
        client.send("GET", "/wait?60")
        assert not readable(client, 0.3)
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_for_line("generation 2 is serving")
        assert wait_for_end(old.pid, 5)
        with Client(host) as other:
            assert other.get().status == 200


def test_a_reload_that_fails_leaves_the_old_workers() -> None:
    """The application is broken: the old generation serves on, and the next reload, of a mended one, works."""
    with serving("--processes", "2") as (daemon, host), Load(host) as load:
        app = Path(daemon.command[daemon.command.index("--wsgi-file") + 1])
        before = [process.pid for process in workers(daemon)]
        app.write_text("raise RuntimeError('broken release')\n")
        for times in (1, 2):
            os.kill(daemon.pid, signal.SIGHUP)
            wait_until(
                lambda times=times: daemon.log.count("reload failed, generation 1 stays") == times,  # type: ignore[misc]
                SECONDS,
                lambda: daemon.log,
            )
            daemon.wait_for_titles(r"master \(generation 1, .*serving", 1)
        load.wait_for_more()
        assert [process.pid for process in workers(daemon)] == before
        assert "broken release" in daemon.log
        app.write_text(APPLICATION)
        hang_up(daemon, 2)
        load.wait_for_more()
        assert not {process.pid for process in workers(daemon)} & set(before)
    assert not load.failures, load.failures


def test_a_worker_that_dies_after_a_failed_reload_comes_back() -> None:
    with serving("--processes", "2") as (daemon, _):
        app = Path(daemon.command[daemon.command.index("--wsgi-file") + 1])
        app.write_text("raise RuntimeError('broken release')\n")
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_for_line("reload failed")
        app.write_text(APPLICATION)
        victim, other = workers(daemon)
        os.kill(victim.pid, signal.SIGKILL)
        assert wait_for_end(victim.pid)
        now = daemon.wait_for_workers(2)
        assert other.pid in {process.pid for process in now}
        assert all("generation 1" in process.title() for process in now)


def test_hang_ups_in_a_row() -> None:
    """Those that come while one is under way are taken up after it, as one; the end is one whole generation."""
    with serving("--processes", "2") as (daemon, host), Load(host) as load:
        for _ in range(10):
            os.kill(daemon.pid, signal.SIGHUP)
            load.wait_for_more(3)

        def master() -> Process:
            return next(process for process in daemon.tree() if process.pid == daemon.pid)

        def all_taken_up() -> bool:
            told = [line for line in daemon.lines if "SIGHUP: " in line]
            return "SIGHUP: reloading" in told[-1] and master().title().endswith("serving")

        wait_until(all_taken_up, SECONDS, lambda: daemon.log)
        daemon.wait_for_workers(2)
        assert "SIGHUP: taken up when this start or reload is done" in daemon.log
        reloads = daemon.log.count("SIGHUP: reloading")
        assert master().title().startswith(f"uwsgi-tls master (generation {1 + reloads}, ")
    assert not load.failures, load.failures


def test_a_hang_up_while_it_starts() -> None:
    """What it read may be out of date: it starts, and then reloads."""
    slow = "import time\ntime.sleep(1)\n" + APPLICATION
    host, server = loopback(), pki().server_ec
    with open_directory() as directory:
        (directory / "app.py").write_text(slow)
        listener = f"{host}:{PORT},{server.crt},{server.key_file}"
        with uwsgi_tls("--https", listener, "--wsgi-file", directory / "app.py", *USER) as daemon:
            daemon.wait_for_line("spawned uwsgi-tls worker 1")
            os.kill(daemon.pid, signal.SIGHUP)
            daemon.wait_for_line("SIGHUP: taken up when this start or reload is done")
            daemon.wait_for_line("generation 2 is serving")


# --- certificates at a reload -----------------------------------------------------------------


def common_name_of(host: str) -> str:
    """Which certificate is shown to a client."""
    raw = ssl.get_server_certificate((host, PORT))
    return "rsa" if raw == pki().server.pem else "ec" if raw == pki().server_ec.pem else raw


@contextlib.contextmanager
def serving_files() -> Iterator[tuple[Daemon, str, Path]]:
    """The built-in page with a certificate whose files, in the given directory, the user may read."""
    host = loopback()
    with open_directory() as directory:
        install(pki().server_ec, directory)
        with uwsgi_tls("--https", f"{host}:{PORT},s.crt,s.key", *USER, cwd=directory) as daemon:
            daemon.wait_for_workers(1)
            assert common_name_of(host) == "ec"
            yield daemon, host, directory


def install(issued: Issued, directory: Path) -> None:
    """Puts a certificate and its key where the server finds them, readable by the user it becomes."""
    for source, name in ((issued.crt, "s.crt"), (issued.key_file, "s.key")):
        fresh = directory / f"{name}.new"
        shutil.copyfile(source, fresh)
        fresh.chmod(0o600)
        if is_root:
            shutil.chown(fresh, "www-data")
        fresh.rename(directory / name)


def test_reload_reads_new_certificates() -> None:
    with serving_files() as (daemon, host, directory):
        install(pki().server, directory)
        assert common_name_of(host) == "ec"
        hang_up(daemon, 2)
        assert common_name_of(host) == "rsa"


def break_key(directory: Path) -> None:
    (directory / "s.key").write_text("garbage")


def swap_key(directory: Path) -> None:
    shutil.copyfile(pki().client.key_file, directory / "s.key")


def remove_certificate(directory: Path) -> None:
    (directory / "s.crt").unlink()


def close_key(directory: Path) -> None:
    (directory / "s.key").chmod(0)
    if is_root:
        os.chown(directory / "s.key", 0, 0)


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        pytest.param(break_key, "key s.key: is not PEM", id="garbled key"),
        pytest.param(swap_key, "key s.key: does not match certificate s.crt", id="another's key"),
        pytest.param(remove_certificate, "certificate s.crt: no such file", id="no certificate"),
    ],
)
def test_reload_with_files_that_do_not_do(spoil: Callable[[Path], None], cause: str) -> None:
    """Nothing changes, not even the workers, and one line says why; mended files work next time."""
    with serving_files() as (daemon, host, directory), Load(host) as load:
        before = {worker.pid for worker in workers(daemon)}
        install(pki().server, directory)
        spoil(directory)
        os.kill(daemon.pid, signal.SIGHUP)
        reason = daemon.wait_for_line("reload failed, generation 1 stays: ")
        assert cause in reason
        assert common_name_of(host) == "ec"
        assert {worker.pid for worker in workers(daemon)} == before
        load.wait_for_more()
        install(pki().server, directory)
        hang_up(daemon, 2)
        assert common_name_of(host) == "rsa"
    assert not load.failures, load.failures[:5]
    assert "Traceback" not in daemon.log


def test_reload_with_a_key_that_may_not_be_read() -> None:
    """Nothing is known to be wrong with it: the workers are replaced, and the certificate in memory stays."""
    with serving_files() as (daemon, host, directory), Load(host) as load:
        install(pki().server, directory)
        close_key(directory)
        hang_up(daemon, 2)
        (reason,) = [line for line in daemon.lines if line.endswith("certificate s.crt and its key stay as they were")]
        assert "key s.key: " in reason
        if is_root:  # and the monitor does not either, where others may put a file
            assert "others than root may change /tmp" in reason
        assert common_name_of(host) == "ec"
        load.wait_for_more()
        install(pki().server, directory)
        hang_up(daemon, 3)
        assert common_name_of(host) == "rsa"
    assert not load.failures, load.failures[:5]


# --- deaths -----------------------------------------------------------------------------------


def test_a_dead_worker_is_replaced_and_the_others_go_on() -> None:
    with serving("--processes", "3") as (daemon, host), contextlib.ExitStack() as stack:
        kept: dict[bytes, list[Client]] = {}
        context = client_context()
        pids = {str(process.pid).encode() for process in workers(daemon)}
        for process in workers(daemon):  # a kept connection to each of them
            with only(process, daemon):
                client = stack.enter_context(Client(host, context=context))
                kept.setdefault(client.get().body, []).append(client)
        assert set(kept) == pids
        victim = workers(daemon)[0]
        os.kill(victim.pid, signal.SIGKILL)
        daemon.wait_for_line(rf"worker 1 \(pid: {victim.pid}\) died \(killed by signal 9\)")
        assert len(daemon.wait_for_workers(3)) == 3
        for pid, clients in kept.items():
            for client in clients:
                if pid == str(victim.pid).encode():
                    assert not client.ended()
                else:
                    assert client.get().body == pid
        assert victim.pid not in {process.pid for process in workers(daemon)}


@contextlib.contextmanager
def only(chosen: Process, daemon: Daemon) -> Iterator[None]:
    """Has `chosen` accept all connections: the other workers are stopped meanwhile."""
    others = [process for process in workers(daemon) if process.pid != chosen.pid]
    for other in others:
        os.kill(other.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: all(state(other) == "T" for other in others), SECONDS, lambda: f"{others} did not stop")
        yield
    finally:
        for other in others:
            os.kill(other.pid, signal.SIGCONT)


def state(process: Process) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_application_that_kills_its_worker() -> None:
    """It costs the requests of that worker; the status or signal is in the log."""
    with serving("--processes", "1") as (daemon, host):
        for path, how in (("/exit", "exit 3"), ("/die", "killed by signal 9")):
            (worker,) = daemon.wait_for_workers(1)
            with Client(host) as client, pytest.raises(Truncated):
                client.get(path)
            daemon.wait_for_line(rf"worker 1 \(pid: {worker.pid}\) died \({how}\)")
        daemon.wait_for_workers(1)
        with Client(host) as client:
            assert client.get().status == 200


def test_back_off() -> None:
    """A worker that dies young again and again comes back ever later; the master answers all the while."""
    with serving("--processes", "1") as (daemon, host):
        for delay in ("0", "0.5", "1", "2"):
            (worker,) = daemon.wait_for_workers(1)
            os.kill(worker.pid, signal.SIGKILL)
            daemon.wait_for_line(rf"worker 1 \(pid: {worker.pid}\) died \(.*\); a new one comes in {delay} seconds")
        started = time.monotonic()
        os.kill(daemon.pid, signal.SIGTTIN)  # in the two seconds without a worker
        daemon.wait_for_workers(1)
        assert time.monotonic() - started < 1.5
        with Client(host) as client:
            assert client.get().status == 200
        daemon.wait_for_workers(2)
        assert time.monotonic() - started > 1.0


def test_back_off_does_not_delay_a_stop() -> None:
    with serving("--processes", "1") as (daemon, _):
        for _ in range(4):
            (worker,) = daemon.wait_for_workers(1)
            os.kill(worker.pid, signal.SIGKILL)
            daemon.wait_for_line(rf"\(pid: {worker.pid}\) died")
        started = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - started < 1


def test_thirty_random_deaths_under_load() -> None:
    """Workers are killed in every way there is, under load, with a reload in between; in the end all is back."""
    chance = random.Random(20)
    count = 8
    with serving("--processes", str(count)) as (daemon, host):
        with Load(host) as load:
            for number in range(30):
                wait_until(lambda: len(workers(daemon)) > 2, SECONDS, lambda: daemon.log)
                victim = chance.choice(workers(daemon))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim.pid, chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM]))
                threading.Event().wait(0.02)
                if number == 15:
                    os.kill(daemon.pid, signal.SIGHUP)
            assert len(daemon.wait_for_workers(count)) == count
        with Load(host) as calm:
            calm.wait_for_more(50)
        assert not calm.failures, calm.failures
        print(f"{load.requests} requests, {len(load.failures)} failed with their workers")
        assert load.requests > len(load.failures)
        assert zombies(daemon) == []
        assert not list(Path().glob("core*"))


# --- what each process is called --------------------------------------------------------------


def test_titles() -> None:
    with serving("--processes", "2", "--procname-prefix", "my ") as (daemon, host):
        titles = [process.title() for process in daemon.tree()]
        assert sorted(titles) == [
            "my uwsgi-tls master (generation 1, workers 2): serving",
            *(["my uwsgi-tls monitor (reads certificates and keys at a reload)"] if is_root else []),
            "my uwsgi-tls worker 1 (generation 1): serving",
            "my uwsgi-tls worker 2 (generation 1): serving",
        ]
        hang_up(daemon, 2)
        daemon.wait_for_titles(r"^my uwsgi-tls worker \d \(generation 2\): serving$", 2)
        for process in daemon.tree():
            comm = Path(f"/proc/{process.pid}/comm")
            assert comm.read_text() == "uwsgi-tls\n"  # what init scripts look for
        with Client(host) as client:
            client.send("GET", "/wait?1")
            assert not readable(client, 0.2)
            os.kill(daemon.pid, signal.SIGTERM)
            daemon.wait_for_titles(r"^my uwsgi-tls worker \d \(generation 2\): draining$", 1)
            daemon.wait_for_titles(r"^my uwsgi-tls master .*: stopping$", 1)
        assert daemon.wait(5) == 0


def test_the_command_line_is_not_on_show() -> None:
    """Titles replace the arguments, which name files and variables."""
    with serving("--http-var", "SECRET=swordfish") as (daemon, _):
        for process in daemon.tree():
            assert b"swordfish" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()


# --- sessions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_resumes_in_every_worker(version: str, tmp_path: Path) -> None:
    """A ticket of one worker is good in all four."""
    with serving("--processes", "4") as (daemon, host):
        tickets = tmp_path / "session.pem"

        def connect(*options: str) -> tuple[bool, int]:
            request = "GET / HTTP/1.1\r\nHost: server.lab\r\nConnection: close\r\n\r\n"
            s_client = ["openssl", "s_client", "-connect", f"{host}:{PORT}", version, "-ign_eof", *options]
            done = subprocess.run(s_client, input=request, capture_output=True, text=True, timeout=SECONDS, check=False)
            pid = re.search(r"\n\r?\n(\d+)", done.stdout)  # a body without an end of line
            assert pid is not None, done.stdout
            return "\nReused, " in done.stdout, int(pid[1])

        first, *_ = all_workers = workers(daemon)
        with only(first, daemon):
            assert connect("-sess_out", str(tickets)) == (False, first.pid)
        for worker in all_workers:
            with only(worker, daemon):
                assert connect("-sess_in", str(tickets)) == (True, worker.pid)
        # And in one that was born later.
        os.kill(first.pid, signal.SIGKILL)
        assert wait_for_end(first.pid)
        (fresh,) = {process.pid for process in daemon.wait_for_workers(4)} - {process.pid for process in all_workers}
        with only(next(process for process in workers(daemon) if process.pid == fresh), daemon):
            assert connect("-sess_in", str(tickets)) == (True, fresh)


# --- nothing is left behind -------------------------------------------------------------------


def zombies(daemon: Daemon) -> list[str]:
    """Dead children that the master has not buried."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            letter, parent = entry.read_text().rpartition(")")[2].split()[:2]
            if letter in "ZX" and int(parent) == daemon.pid:
                found.append(entry.parent.name)
    return found


def descriptors(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    return sorted(os.readlink(f"{folder}/{name}") for name in os.listdir(folder))


@needs_root
def test_twenty_reloads_leave_nothing() -> None:
    """Neither descriptors, in master and worker, nor zombies, nor memory to speak of; contexts made anew each time."""
    with serving_files() as (daemon, host, directory):
        (master,) = daemon.wait_for_titles("master", 1)
        # The listener, standard streams, the log, the memory for signs of life, the channels of the monitor and of one
        # worker: that of the one before is closed just after its worker's end.
        wait_until(lambda: len(descriptors(master.pid)) == 8, 5, lambda: f"{descriptors(master.pid)}")
        held = len(descriptors(workers(daemon)[0].pid))
        memory = int(master.status()["VmRSS"].split()[0])
        for generation in range(2, 22):
            install(pki().server_ec if generation % 2 else pki().server, directory)
            hang_up(daemon, generation)
        wait_until(lambda: len(descriptors(master.pid)) == 8, 5, lambda: f"{descriptors(master.pid)}")
        growth = int(master.status()["VmRSS"].split()[0]) - memory
        print(f"the master has grown by {growth} kB in 20 reloads")
        assert common_name_of(host) == "ec"
        (worker,) = workers(daemon)  # it still has our last connection, for a moment
        wait_until(lambda: len(descriptors(worker.pid)) == held, 5, lambda: f"{descriptors(worker.pid)}")
        assert growth < 4096
        assert zombies(daemon) == []


@needs_root
def test_what_a_worker_holds(tmp_path: Path) -> None:
    """Its own channel and no sibling's, no pid file, no way to the command that started the daemon."""
    pidfile = tmp_path / "pid"
    with serving("--processes", "3", "--pidfile", pidfile) as (daemon, _):
        hang_up(daemon, 2)
        os.kill(daemon.pid, signal.SIGTTIN)
        daemon.wait_for_workers(4)
        channels = []
        for worker in workers(daemon):
            held = descriptors(worker.pid)
            kinds = [re.sub(r"\[\d+\]", "", name) for name in held]
            assert str(pidfile) not in held
            sockets = [name for name in held if name.startswith("socket:")]
            channels.append(set(sockets))
            # stdin; stdout, stderr and the log, which are the test's pipe; the epoll of the lounge and the two of the
            # accept loop; the wakeup pipe's two ends; the listener and the channel to the master.
            assert sorted(kinds) == sorted(
                ["/dev/null", *["pipe:"] * 5, *["anon_inode:[eventpoll]"] * 3, *["socket:"] * 2]
            ), held
        shared = set.intersection(*channels)
        assert len(shared) == 1, "the listener is the only socket that workers share"
        master = descriptors(daemon.pid)
        assert len([name for name in master if name.startswith("socket:")]) == 1 + 4 + 1, "listener, workers, monitor"
        assert str(pidfile) in master


def test_descriptors_of_the_server_do_not_reach_programs() -> None:
    """What an application starts inherits standard streams only, and default signals."""
    application = """
import subprocess

def application(environ, start_response):
    start_response("200 OK", [])
    look = "ls /proc/self/fd | wc -l; grep -E '^Sig(Blk|Ign)' /proc/self/status"
    return [subprocess.run(look, shell=True, capture_output=True, close_fds=False).stdout]
"""
    with serving(application=application) as (_, host), Client(host) as client:
        count, blocked, ignored = client.get().body.decode().splitlines()
        assert int(count) == 4, "standard streams and the directory that ls reads"
        assert int(blocked.split()[1], 16) == 0
        # CPython ignores SIGPIPE and SIGXFSZ; subprocess restores them. 32 and 33 are glibc's own.
        assert int(ignored.split()[1], 16) & ~0x180000000 == 0


def test_the_listener_does_not_block() -> None:
    """Two workers are woken for one connection now and then: the late one must not hang in accept(2)."""
    with serving("--processes", "4") as (daemon, host):
        for _ in range(30):
            with contextlib.ExitStack() as stack:
                for _ in range(8):
                    stack.enter_context(socket.create_connection((host, PORT)))
        with Client(host) as client:
            assert client.get().status == 200
        assert len(workers(daemon)) == 4
