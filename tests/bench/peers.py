"""The servers that are measured, and the uWSGI backend behind the proxies: their command lines, start and stop.

Each runs one worker from a temporary directory on its own 127.0.0.1 port, with access logging off, the same
certificate and the same application (nginx: the same bytes from a file). All else is as each has it by default. Each is
its own process group, which is what `Server.stop` ends; nothing is looked up by name.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .app import HELLO

APPLICATION = Path(__file__).with_name("app.py")
DEBIAN_PYTHON = Path(__file__).parents[2] / ".venv-distro/bin/python"
BULK_BYTES = 100_000_000
APP_THREADS = 4  # of ours, gunicorn and granian; uWSGI and nginx have one thread a process
START_SECONDS = 10.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.02
LOG_CHARS = 4000


class PeerError(Exception):
    """A server that is not installed or does not start; the text is for the user."""


Credential = tuple[Path, Path]  # certificate and key


@dataclass(frozen=True, slots=True)
class Site:
    """The files that the servers share: certificates, document root and the backend's socket."""

    directory: Path
    rsa: Credential  # RSA-2048
    p256: Credential
    client: Credential  # RSA-2048, of client_ca
    client_ca: Path
    documents: Path
    backend: Path


@dataclass(frozen=True, slots=True)
class Job:
    """How a server is to be started; the usual thing is one worker with an application and an RSA certificate."""

    proxy: bool = False  # to the backend, instead of an application of its own
    p256: bool = False
    asks_clients: bool = False  # for a certificate, and lets nobody in without one
    workers: int = 1
    keeps: bool = False  # connections stay open however long they are silent


def make_site(directory: Path) -> Site:
    """Writes the files of a run into `directory`."""
    documents = directory / "documents"
    documents.mkdir()
    (documents / "index.html").write_bytes(HELLO)
    with (documents / "bulk").open("wb") as file:
        block = os.urandom(1_000_000)
        for _ in range(BULK_BYTES // len(block)):
            file.write(block)
    authority = _credential(directory, "ca", "rsa:2048")
    return Site(
        directory,
        rsa=_credential(directory, "rsa", "rsa:2048"),
        p256=_credential(directory, "p256", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        client=_credential(directory, "client", "rsa:2048", "-CA", str(authority[0]), "-CAkey", str(authority[1])),
        client_ca=authority[0],
        documents=documents,
        backend=directory / "backend.sock",
    )


def _credential(directory: Path, name: str, kind: str, *more: str) -> Credential:
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", kind, *more, "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True, env=_environment())
    return certificate, key


def _environment() -> dict[str, str]:
    """Without what bin/bench has set for the client alone."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OPENSSL_CONF")}


def _installed(name: str) -> str:
    """The program's path: beside this interpreter, or on PATH, where Debian's sbin may be missing."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise PeerError(f"{name} is not installed: bin/setup --bench installs it")
    return found


def _own(site: Site, job: Job) -> Credential:
    return site.p256 if job.p256 else site.rsa


def _ours(site: Site, port: int, job: Job) -> list[str]:
    return [*_ours_logging(site, port, job), "--disable-logging"]


def _ours_debian(site: Site, port: int, job: Job) -> list[str]:
    """With Debian's own pyOpenSSL and OpenSSL, which the package uses, and nginx too."""
    _, *arguments = _ours(site, port, job)
    return [str(DEBIAN_PYTHON), *arguments]


def _ours_logging(site: Site, port: int, job: Job) -> list[str]:
    """With uWSGI's line for each request, in a file."""
    certificate, key = _own(site, job)
    ca = f",,!{site.client_ca}" if job.asks_clients else ""
    command = [sys.executable, "-P", "-m", "uwsgi_tls", "--https", f"127.0.0.1:{port},{certificate},{key}{ca}"]
    command += ["--processes", str(job.workers)]
    if job.keeps:
        command += ["--http-keepalive=600"]
    if job.proxy:
        return [*command, "--threads", "1", "--http-to", str(site.backend)]
    return [*command, "--threads", str(APP_THREADS), "--wsgi-file", str(APPLICATION)]


_NGINX = """\
daemon off;
worker_processes {workers};
worker_rlimit_nofile 20000;
{user}
pid {directory}/nginx-{port}.pid;
error_log stderr crit;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    ssl_protocols TLSv1.2 TLSv1.3;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        {clients}
        location / {{ {location} }}
    }}
}}
"""
_NGINX_PROXY = "include /etc/nginx/uwsgi_params; uwsgi_pass unix:{backend};"
_NGINX_CLIENTS = "ssl_client_certificate {ca}; ssl_verify_client on;"


def _nginx(site: Site, port: int, job: Job) -> list[str]:
    program = _installed("nginx")
    certificate, key = _own(site, job)
    text = _NGINX.format(
        workers=job.workers,
        user="user root;" if os.geteuid() == 0 else "",  # the temporary directory is closed to others
        directory=site.directory,
        port=port,
        certificate=certificate,
        key=key,
        clients=_NGINX_CLIENTS.format(ca=site.client_ca) if job.asks_clients else "",
        location=_NGINX_PROXY.format(backend=site.backend) if job.proxy else f"root {site.documents};",
    )
    config = site.directory / f"nginx-{port}.conf"
    config.write_text(text)
    return [program, "-p", str(site.directory), "-e", "stderr", "-c", str(config)]


def _uwsgi(site: Site, port: int, job: Job) -> list[str]:
    certificate, key = _own(site, job)
    command = [_installed("uwsgi"), "--master", "--die-on-term", "--disable-logging", "--http-keepalive"]
    command += ["--https", f"127.0.0.1:{port},{certificate},{key}"]
    if job.proxy:
        return [*command, "--http-to", str(site.backend)]
    return [*command, "--processes", "1", "--wsgi-file", str(APPLICATION)]


def _gunicorn(site: Site, port: int, job: Job) -> list[str]:
    certificate, key = _own(site, job)
    command = [_installed("gunicorn"), "--bind", f"127.0.0.1:{port}", "--workers", "1", "--worker-class", "gthread"]
    command += ["--threads", str(APP_THREADS), "--keep-alive", "60", "--log-level", "error"]
    command += ["--certfile", str(certificate), "--keyfile", str(key)]
    return [*command, "--chdir", str(APPLICATION.parent), "app:application"]


def _granian(site: Site, port: int, job: Job) -> list[str]:
    certificate, key = _own(site, job)
    command = [_installed("granian"), "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--http", "1", "--no-ws", "--log-level", "error", "--blocking-threads", str(APP_THREADS)]
    command += ["--ssl-certificate", str(certificate), "--ssl-keyfile", str(key)]
    return [*command, "--working-dir", str(APPLICATION.parent), "app:application"]


PEERS: dict[str, Callable[[Site, int, Job], list[str]]] = {
    "ours": _ours,
    "ours-log": _ours_logging,
    "ours-debian": _ours_debian,
    "nginx": _nginx,
    "uwsgi": _uwsgi,
    "gunicorn": _gunicorn,
    "granian": _granian,
}


class Server:
    """A running server: `pid` is the root of its process tree, `port` where it listens (0: the backend)."""

    def __init__(self, name: str, command: list[str], site: Site, port: int, cpus: Collection[int]) -> None:
        """Starts `command` pinned to `cpus` and returns once it accepts connections; raises PeerError."""
        self.name = name
        self.port = port
        self._log = site.directory / f"{name}-{port}.log"
        environment = {**_environment(), "BENCH_BULK_FILE": str(site.documents / "bulk")}
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cpus)  # inherited by the child; no code has to run between fork and exec
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    cwd=site.directory,
                    env=environment,
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        finally:
            os.sched_setaffinity(0, mine)
        self.pid = self._process.pid
        try:
            self._await(site)
        except BaseException:  # Ctrl-C as well: the child is ours to end
            self.stop()
            raise

    def said(self) -> str:
        """The end of what the server wrote to its standard output and error."""
        return self._log.read_text(errors="replace")[-LOG_CHARS:].strip()

    def stop(self) -> None:
        """TERM, then KILL for whatever is left of the process group."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"bench: {self.name} did not stop within {STOP_SECONDS:.0f} s of TERM: killed", file=sys.stderr)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _await(self, site: Site) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._listens(site):
            if self._process.poll() is not None or time.monotonic() > deadline:
                print(f"bench: what {self.name} said:\n{self.said()}", file=sys.stderr)
                raise PeerError(f"{self.name} did not start; its last line: {self.said().rpartition(chr(10))[2]}")
            time.sleep(POLL_SECONDS)

    def _listens(self, site: Site) -> bool:
        if self.port:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(site.backend)) == 0


def start(name: str, site: Site, job: Job, cpus: Collection[int]) -> Server:
    """Starts the named peer for a job."""
    port = _free_port()
    return Server(name, PEERS[name](site, port, job), site, port, cpus)


def start_backend(site: Site, cpus: Collection[int]) -> Server:
    """The real uWSGI that the proxies pass requests to; its CPU time is not counted."""
    command = [_installed("uwsgi"), "--master", "--die-on-term", "--disable-logging", "--processes", "1"]
    command += ["--socket", str(site.backend), "--wsgi-file", str(APPLICATION)]
    return Server("backend", command, site, 0, cpus)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
