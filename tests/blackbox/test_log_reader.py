"""Whoever reads our log may go away, as a killed `tee` behind a pipe does: the service goes on, and can be stopped."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess

from .seed_pki import SERVER_NAME, SeedPki
from .server import STOP_SECONDS, command, curl, loopback, uwsgi_tls


def test_reader_of_the_log_goes_away(self_signed: SeedPki) -> None:
    host = loopback()
    arguments = command("--https", f"{host}:8443,foobar.crt,foobar.key")
    with subprocess.Popen(arguments, cwd=self_signed.directory, stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        try:
            for line in server.stderr:
                if b"is serving" in line:
                    break
            server.stderr.close()
            server.send_signal(signal.SIGTTIN)  # one worker more, which the master logs, or would
            url = f"https://{SERVER_NAME}:8443/"
            answers = [curl(url, *self_signed.curl_server, host=host) for _ in range(3)]
            assert [answer.returncode for answer in answers] == [0, 0, 0], answers
            server.terminate()
            assert server.wait(STOP_SECONDS) == 0
        finally:
            server.kill()


def test_a_signal_that_a_pipe_sends_ends_nothing(self_signed: SeedPki) -> None:
    host = loopback()
    with uwsgi_tls("--https", f"{host}:8443,foobar.crt,foobar.key", cwd=self_signed.directory) as server:
        (worker,) = server.wait_for_workers()
        for process in (server, worker):
            os.kill(process.pid, signal.SIGPIPE)
        assert curl(f"https://{SERVER_NAME}:8443/", *self_signed.curl_server, host=host).returncode == 0
        assert server.wait_for_workers() == [worker]


def test_nobody_reads_the_log(self_signed: SeedPki) -> None:
    """A pipe that is full stops nobody; once it is read again, it says how much is missing."""
    host = loopback()
    arguments = command("--https", f"{host}:8443,foobar.crt,foobar.key")
    with subprocess.Popen(arguments, cwd=self_signed.directory, stderr=subprocess.PIPE, bufsize=0) as server:
        assert server.stderr is not None
        try:
            log = b""
            while b"is serving" not in log:
                log += server.stderr.read(4096)
            fcntl.fcntl(server.stderr, fcntl.F_SETPIPE_SZ, 4096)
            url = f"https://{SERVER_NAME}:8443/?{'x' * 2000}"
            for _ in range(10):
                answer = curl(url, *self_signed.curl_server, host=host, seconds=5)
                assert answer.returncode == 0, answer.stderr
            log = server.stderr.read(4096)
            assert log.count(b"GET /?xxx") >= 1
            assert curl(url, *self_signed.curl_server, host=host).returncode == 0
            while b"lines are missing here" not in log:
                log += server.stderr.read(4096)
            server.terminate()
            assert server.wait(STOP_SECONDS) == 0
        finally:
            server.kill()
