"""Statistics of a running server: what its clients did, as uwsgitop, Prometheus and uWSGI's own document have it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pki import Issued, pki
from prometheus_client.parser import text_string_to_metric_families

from .raw_client import PORT, Site, get, post, serving
from .server import USER, command, is_root, loopback, open_directory, real_uwsgi, uwsgi_tls, wait_until

SECONDS = 15.0
STATS_PORT, HTTP_PORT = 9191, 9192
APPLICATION = """
import os, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise ValueError
    if path == "/wait":
        os.read(os.open(environ["QUERY_STRING"], os.O_RDONLY), 1)
    size = int(environ["QUERY_STRING"] or 5) if path == "/big" else 5
    start_response("404 Not Found" if path == "/none" else "200 OK", [("Content-Length", str(size))])
    return [b"x" * size]
"""


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def ask(address: tuple[str, int] | str) -> dict[str, Any]:
    """The document that a plain socket gives."""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as sock:
        sock.settimeout(SECONDS)
        sock.connect(address)
        found: dict[str, Any] = json.loads(read_all(sock))
        return found


def scrape(host: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """All samples by name and values of labels."""
    with urllib.request.urlopen(f"http://{host}:{HTTP_PORT}/metrics", timeout=SECONDS) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {(sample.name, tuple(sample.labels.values())): sample.value for each in families for sample in each.samples}


@contextlib.contextmanager
def telling(*options: str, workers: int = 1, client_ca: str = "") -> Iterator[tuple[Site, str]]:
    """A server with the application above that tells of itself at all three kinds of socket; and its host."""
    with open_directory() as directory:
        (directory / "app.py").write_text(APPLICATION)
        host, identity = loopback(), pki().server_ec
        words = [*options, "--processes", str(workers), "--wsgi-file", "app.py"]
        words += ["--https", f"{host}:{PORT},{identity.crt},{identity.key_file},,{client_ca}".rstrip(",")]
        words += ["--stats", f"{host}:{STATS_PORT}", "--stats", "stats.sock", "--stats-http", f"{host}:{HTTP_PORT}"]
        with uwsgi_tls(*words, cwd=directory) as daemon:
            daemon.wait_for_workers(workers)
            yield Site(daemon, (host, PORT)), host


def wait_for(host: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The document, once it says so: workers tell twice a second."""
    found: dict[str, Any] = {}

    def said() -> bool:
        found.update(ask((host, STATS_PORT)))
        return condition(found)

    wait_until(said, SECONDS, lambda: json.dumps(found, indent=1))
    return found


def present(group: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in group.items() if count}


def test_what_clients_did_is_counted() -> None:
    with telling() as (site, host):
        with site.connect() as client:
            sent = [get("/"), get("/none"), get("/raise"), post("/", b"x" * 1000), get("/big?70000")]
            bodies = [client.ask(request).body for request in sent]
        site.ask(get("/", "Connection: close"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pki().ca.crt)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        session = None
        for _ in range(2):
            with (
                socket.create_connection(site.address, SECONDS) as raw,
                context.wrap_socket(raw, server_hostname="server.lab", session=session) as tls,
            ):
                session = tls.session
                tls.sendall(get("/", "Connection: close"))
                read_all(tls)
        with socket.create_connection(site.address, SECONDS) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            read_all(plain)
        with socket.create_connection(site.address, SECONDS) as raw, pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(raw, server_hostname="server.lab")
        document = wait_for(
            host, lambda found: found["tls"]["requests"] == 8 and not present(found["tls"]["connections"])
        )
        ours = document["tls"]
        assert present(ours["responses"]) == {"2xx": 6, "4xx": 1, "5xx": 1}
        assert ours["exceptions"] == 1
        assert ours["handshakes"] == {"full": 3, "resumed": 1}
        assert (sum(ours["request_seconds"].values()), sum(ours["handshake_seconds"].values())) == (8, 4)
        assert ours["protocols"] == {"TLSv1.2": 2, "TLSv1.3": 2, "other": 0}
        assert sum(ours["ciphers"].values()) == 4
        assert "other" not in ours["ciphers"]
        assert present(ours["handshake_failures"]) == {"alert": 1, "not_tls": 1}
        assert present(ours["client_certificates"]) == {"none": 4}
        assert ours["accepted"] == 6
        received = sum(map(len, sent)) + 3 * len(get("/", "Connection: close"))
        assert ours["rx"] == received
        assert sum(map(len, bodies)) + 3 * 5 < ours["tx"] < sum(map(len, bodies)) + 3 * 5 + 8 * 400
        (worker,) = document["workers"]
        assert (worker["pid"], worker["requests"], worker["status"]) == (site.worker.pid, 8, "idle")
        assert (worker["exceptions"], worker["tx"], worker["respawn_count"]) == (1, ours["tx"], 1)
        assert worker["rss"] == pytest.approx(int(site.worker.status()["VmRSS"].split()[0]) * 1024, rel=0.3)
        assert 0 < worker["running_time"] < SECONDS * 1e6
        (sock,) = document["sockets"]
        assert (sock["name"], sock["proto"], sock["queue"]) == (f"{site.address[0]}:{PORT}", "https", 0)
        (certificate,) = ours["certificates"]
        assert certificate["file"] == str(pki().server_ec.crt)
        samples = scrape(host)
        assert samples["uwsgi_tls_requests_total", ()] == 8
        assert samples["uwsgi_tls_handshakes_total", ("resumed",)] == 1
        for name, count in (("request", 8), ("handshake", 4)):
            assert samples[f"uwsgi_tls_{name}_duration_seconds_bucket", ("+Inf",)] == count
            assert samples[f"uwsgi_tls_{name}_duration_seconds_count", ()] == count
        assert (
            samples["uwsgi_tls_certificate_not_after_seconds", (certificate["file"], certificate["subject"])]
            > time.time()
        )


def test_how_long_it_took(tmp_path: Path) -> None:
    """A client that is slow with its handshake, and an application that is slow with its answer."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki().ca.crt)
    with telling() as (site, host), socket.create_connection(site.address, SECONDS) as raw:
        wait_for(host, lambda found: found["tls"]["connections"]["arrival"] == 1)
        time.sleep(0.3)
        with context.wrap_socket(raw, server_hostname="server.lab") as tls:
            tls.sendall(get(f"/wait?{gate}", "Connection: close"))
            wait_for(host, lambda found: found["tls"]["connections"]["application"] == 1)
            time.sleep(0.3)
            gate.write_text("x")
            read_all(tls)
        told = wait_for(host, lambda found: found["tls"]["requests"] == 1)["tls"]
        for group, total in (("request_seconds", "running_time"), ("handshake_seconds", "handshake_time")):
            (bound,) = present(told[group])
            assert float(bound) >= 0.5, told[group]
            assert 300_000 <= told[total] < SECONDS * 1e6


def test_what_clients_have_shown() -> None:
    with telling(client_ca=pki().ca.crt) as (site, host):
        for certificate in (None, pki().client, pki().client):
            with site.connect(certificate=certificate) as client:
                assert client.ask(get("/")).status == 200
        for bad in (pki().client_expired, pki().client_other_ca, pki().client_self_signed):
            with contextlib.suppress(OSError), site.connect(certificate=bad) as client:
                client.ask(get("/"))
        document = wait_for(host, lambda found: sum(found["tls"]["client_certificates"].values()) == 6)
        assert document["tls"]["client_certificates"] == {"none": 1, "verified": 2, "refused": 3}
        assert present(document["tls"]["handshake_failures"]) == {"certificate": 3}


def test_what_each_connection_waits_for(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with telling() as (site, host), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(site.connect(receive_buffer_bytes=4096)) for _ in range(6)]
        head, body, idle, application, room, writing = clients
        writing.send(get("/big?30000000"))  # more than the kernel takes; done before the thread is taken
        wait_for(host, lambda found: found["tls"]["connections"]["writing"] == 1)
        head.send(b"GET / HT")
        body.send(b"POST / HTTP/1.1\r\nHost: server.lab\r\nContent-Length: 9\r\n\r\n123")
        assert idle.ask(get("/")).status == 200
        application.send(get(f"/wait?{gate}"))
        wait_for(host, lambda found: found["tls"]["connections"]["application"] == 1)
        room.send(get("/"))
        raw = [stack.enter_context(socket.create_connection(site.address, SECONDS)) for _ in range(2)]
        hello = ssl.MemoryBIO()
        shy = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="server.lab")
        with pytest.raises(ssl.SSLWantReadError):
            shy.do_handshake()
        raw[1].sendall(hello.read())
        each = ("arrival", "handshake", "head", "body", "idle", "room", "application", "writing")
        document = wait_for(host, lambda found: present(found["tls"]["connections"]) == dict.fromkeys(each, 1))
        (worker,) = document["workers"]
        assert worker["status"] == "busy"
        assert [core["in_request"] for core in worker["cores"]] == [1]
        assert "server.lab" not in json.dumps(worker), "nothing of a request is told"
        gate.write_text("x")
        wait_for(host, lambda found: found["workers"][0]["status"] == "idle")


def test_whose_time_was_over() -> None:
    with contextlib.ExitStack() as stack:
        options = ("--https-handshake-timeout", "1", "--http-timeout", "1", "--http-keepalive=2")
        site, host = stack.enter_context(telling(*options))
        silent = stack.enter_context(socket.create_connection(site.address, SECONDS))
        head, body, idle = (stack.enter_context(site.connect()) for _ in range(3))
        head.send(b"GET / HT")
        body.send(b"POST / HTTP/1.1\r\nHost: server.lab\r\nContent-Length: 9\r\n\r\n123")
        assert idle.ask(get("/")).status == 200
        expected = {"arrival": 1, "head": 1, "body": 1, "idle": 1}
        wait_for(host, lambda found: present(found["tls"]["deadlines"]) == expected)
        assert silent.recv(1) == b""


def test_the_same_keys_as_uwsgi(tmp_path: Path) -> None:
    """Whoever reads its document finds in ours what it looks for, and values of the same kind."""
    wsgi = tmp_path / "app.py"
    wsgi.write_text(APPLICATION)
    path = str(tmp_path / "stats")
    with real_uwsgi(wsgi, f"{loopback()}:0", "--stats", path) as uwsgi:
        uwsgi.wait_for_line("Stats server enabled")
        wait_until(lambda: ask(path)["workers"][0]["accepting"] == 1, SECONDS, lambda: uwsgi.log)
        theirs = ask(path)
    with telling() as (_, host):
        ours = ask((host, STATS_PORT))

    def compare(one: Any, other: Any, where: str) -> None:
        assert type(one) is type(other), where
        if isinstance(one, dict):
            assert not one.keys() - other.keys(), where
            for key in one:
                compare(one[key], other[key], f"{where}.{key}")
        elif isinstance(one, list) and one and where not in (".locks", ".workers.apps", ".workers.cores.vars"):
            compare(one[0], other[0], where)

    compare(theirs, ours, "")


@pytest.mark.parametrize("way", ["tcp", "unix", "http"])
def test_uwsgitop_shows_the_workers(way: str) -> None:
    with telling(workers=2) as (site, host):
        workers = [each.pid for each in site.daemon.wait_for_workers(2)]
        for _ in range(3):
            site.ask(get("/", "Connection: close"))
        wait_for(host, lambda found: found["tls"]["requests"] == 3)
        address = {
            "tcp": f"{host}:{STATS_PORT}",
            "unix": f"{os.readlink(f'/proc/{site.daemon.pid}/cwd')}/stats.sock",
            "http": f"http://{host}:{HTTP_PORT}",
        }[way]
        screen = run_on_a_terminal(
            [sys.executable, str(Path(sys.executable).with_name("uwsgitop")), address],
            lambda shown: shown.count(b"idle") >= 2,
        )
        assert "req: 3 " in screen
        assert f"masterpid: {site.daemon.pid}" in screen
        for pid in workers:
            assert str(pid) in screen
        assert screen.count("idle") >= 2


def run_on_a_terminal(words: list[str], until: Callable[[bytes], bool]) -> str:
    """What a curses program shows, until it is told to quit; without what moves the cursor."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", LINES="30", COLUMNS="200")
        try:
            os.execv(words[0], words)
        finally:
            os._exit(127)
    shown, asked = b"", False
    deadline = time.monotonic() + SECONDS
    try:
        with contextlib.suppress(OSError):  # EIO: it has ended
            while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
                shown += os.read(terminal, 65536)
                if not asked and until(shown):
                    os.write(terminal, b"q")
                    asked = True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if not asked else 0)
        status = os.waitpid(pid, 0)[1]
        os.close(terminal)
    text = re.sub(rb"\x1b[\[()][0-9;?]*[A-Za-z]?", b" ", shown).decode("utf-8", "replace")
    assert status == 0, text
    return text


def test_the_page_and_its_numbers_come_by_http() -> None:
    with telling() as (_, host):
        request = urllib.request.Request(f"http://{host}:{HTTP_PORT}/", headers={"Accept": "text/html"})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            assert "script-src 'sha256-" in answer.headers["Content-Security-Policy"]
            assert b"<!doctype html>" in answer.read()
        with urllib.request.urlopen(f"http://{host}:{HTTP_PORT}/stats.json", timeout=SECONDS) as answer:
            assert json.load(answer)["tls"]["state"] == "serving"


def test_with_the_flag_of_uwsgi_the_one_socket_speaks_http(tmp_path: Path) -> None:
    host = loopback()
    options = ("--stats", f"{host}:{HTTP_PORT}", "--stats-http", "true")
    with (
        serving(tmp_path, "", *options),
        urllib.request.urlopen(f"http://{host}:{HTTP_PORT}/", timeout=SECONDS) as answer,
    ):
        assert json.load(answer)["workers"]


@pytest.mark.skipif(not is_root, reason="only root may look into processes that are not dumpable (proc(5))")
def test_the_process_has_nothing_but_its_sockets() -> None:
    with telling(*USER) as (site, host):
        (stats,) = site.daemon.wait_for_titles(r"uwsgi-tls stats$", 1)
        ask((host, STATS_PORT))

        def links() -> list[str]:
            return sorted(os.readlink(entry) for entry in Path(f"/proc/{stats.pid}/fd").iterdir())

        wait_until(lambda: len(links()) == 8, SECONDS, lambda: str(links()))  # once our own is closed
        found = links()
        assert found[:5] == ["/dev/null"] * 3 + ["anon_inode:[eventfd]", "anon_inode:[eventpoll]"]
        assert all(name.startswith("socket:") for name in found[5:])
        status = stats.status()
        assert status["Uid"] == site.worker.status()["Uid"]
        file = Path(f"/proc/{site.daemon.pid}/cwd/stats.sock").stat()
        assert (stat.S_IMODE(file.st_mode), str(file.st_uid)) == (0o600, status["Uid"].split()[0])
        assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        limits = Path(f"/proc/{stats.pid}/limits").read_text()
        assert re.search(r"Max processes +0 +0", limits)
        assert re.search(r"Max file size +0 +0", limits)
        for worker in site.daemon.wait_for_workers(1):
            names = [os.readlink(entry) for entry in Path(f"/proc/{worker.pid}/fd").iterdir()]
            assert not set(names) & set(found[5:]), "a worker has none of its sockets"


def test_it_comes_back_and_nothing_is_forgotten() -> None:
    """Neither the death of the stats process nor a reload nor a worker's death makes a counter go back."""
    with telling(workers=2) as (site, host):
        site.ask(get("/", "Connection: close"))
        wait_for(host, lambda found: found["tls"]["requests"] == 1)
        (stats,) = site.daemon.wait_for_titles(r"uwsgi-tls stats$", 1)
        os.kill(stats.pid, signal.SIGKILL)
        site.daemon.wait_for_line(rf"the stats process \(pid: {stats.pid}\) has ended \(killed by signal 9\)")
        wait_for(host, lambda found: found["tls"]["requests"] == 1)
        os.kill(site.daemon.pid, signal.SIGHUP)
        site.daemon.wait_for_line("generation 2 is serving")
        document = wait_for(host, lambda found: found["tls"]["workers"] == {"serving": 2})
        assert document["tls"]["generation"] == 2
        assert document["tls"]["requests"] == 1
        assert {worker["respawn_count"] for worker in document["workers"]} == {2}
        os.kill(document["workers"][0]["pid"], signal.SIGKILL)
        document = wait_for(host, lambda found: found["tls"]["worker_deaths"] == 1 and len(found["workers"]) == 2)
        assert document["tls"]["requests"] == 1
        assert scrape(host)["uwsgi_tls_worker_deaths_total", ()] == 1


def test_the_last_request_of_a_worker_counts(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with telling() as (site, host), site.connect() as client:
        client.send(get(f"/wait?{gate}", "Connection: close"))
        wait_for(host, lambda found: found["tls"]["connections"]["application"] == 1)
        os.kill(site.daemon.pid, signal.SIGHUP)
        site.daemon.wait_for_line("generation 2 is serving")
        wait_for(host, lambda found: found["tls"]["workers"] == {"draining": 1, "serving": 1})
        gate.write_text("x")
        assert client.answer().status == 200
        client.tls.close()
        document = wait_for(host, lambda found: found["tls"]["workers"] == {"serving": 1})
        assert document["tls"]["requests"] == 1
        assert document["workers"][0]["requests"] == 0


def test_a_reload_tells_of_the_new_certificate(tmp_path: Path) -> None:
    host = loopback()
    crt, key = tmp_path / "crt", tmp_path / "key"

    def put(identity: Issued) -> None:
        shutil.copy(identity.crt, crt)
        shutil.copy(identity.key_file, key)

    put(pki().server_ec)
    with uwsgi_tls("--https", f"{host}:{PORT},{crt},{key}", "--stats", f"{host}:{STATS_PORT}") as daemon:
        daemon.wait_for_workers(1)
        assert ask((host, STATS_PORT))["tls"]["certificates"][0]["key"] == "EC secp256r1"
        put(pki().server)
        os.kill(daemon.pid, signal.SIGHUP)
        wait_for(host, lambda found: found["tls"]["certificates"][0]["key"] == "RSA 2048")


def test_clients_that_hold_on_hold_nobody() -> None:
    with telling() as (site, host), contextlib.ExitStack() as stack:
        for port in [STATS_PORT, HTTP_PORT] * 50:
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex((host, port))
        os.kill(site.daemon.pid, signal.SIGHUP)
        site.daemon.wait_for_line("generation 2 is serving")
        assert site.ask(get("/", "Connection: close")).status == 200
        wait_for(host, lambda found: found["tls"]["generation"] == 2)


def test_an_address_that_others_reach_needs_a_word(tmp_path: Path) -> None:
    identity = pki().server_ec
    base = (*USER, "--https", f"{loopback()}:0,{identity.crt},{identity.key_file}", "--stats", "0.0.0.0:0")
    for more in ((), ("--check",)):
        refused = subprocess.run(command(*base, *more), capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 1
        assert re.fullmatch(r"uwsgi-tls: .*stats.* = 0\.0\.0\.0:0.*stats-public.*\n", refused.stderr), refused.stderr
    with uwsgi_tls(*base, "--stats-public", cwd=tmp_path) as daemon:
        daemon.wait_for_workers(1)
        port = int(re.findall(r"stats bound to TCP address 0\.0\.0\.0:(\d+)", daemon.log)[0])
        assert ask(("127.0.0.1", port))["workers"]
