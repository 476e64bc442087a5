"""A file system for bodies and answers that is really full: a small tmpfs, filled by ourselves and by others.

Who needs room that is not there is told so, or cut where an answer has begun; nobody else notices.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pki import pki

from .raw_client import PORT, Site, get, post
from .server import is_root, loopback, open_directory, uwsgi_tls, wait_until
from .test_http_to import Call, Node

pytestmark = pytest.mark.skipif(not is_root, reason="only root may mount file systems")

ROOM_BYTES = 1 << 20
APPLICATION = """
def application(environ, start_response):
    size = int(environ["QUERY_STRING"] or 0)
    while block := environ["wsgi.input"].read(65536):
        size += len(block)
    start_response("200 OK", [])
    return [b"%d" % size] if environ["PATH_INFO"] != "/big" else (bytes(10000) for _ in range(size // 10000))
"""


def behave(call: Call) -> None:
    size = sum(map(len, call.blocks()))
    if call.variables["PATH_INFO"] != "/big":
        return call.answer(b"%d" % size)
    with contextlib.suppress(ConnectionError):  # what does not fit is not taken
        call.answer(bytes(int(call.variables["QUERY_STRING"])))
    return None


@dataclass(frozen=True, slots=True)
class Scene:
    site: Site
    spool: Path  # where the tmpfs is

    def used(self) -> int:
        found = os.statvfs(self.spool)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def wait_for_room(self) -> None:
        wait_until(lambda: self.used() == 0, 10.0, lambda: f"{self.used()} bytes used\n{self.site.daemon.log}")


@pytest.fixture(scope="module", params=["in the worker", "of a backend"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    host, identity = loopback(), pki().server_ec
    with open_directory() as directory, contextlib.ExitStack() as stack:
        spool = directory / "spool"
        spool.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={ROOM_BYTES},mode=1777"]
        subprocess.run(["mount", *options, "uwsgi-tls-test", spool], check=True)
        stack.callback(lambda: subprocess.run(["umount", "--lazy", spool], check=True))
        if request.param == "of a backend":
            backend = ["--http-to", str(stack.enter_context(Node(directory / "node", behave)).path)]
        else:
            (directory / "app.py").write_text(APPLICATION)
            backend = ["--wsgi-file", "app.py", "--threads", "3"]
        words = ["--https", f"{host}:{PORT},{identity.crt},{identity.key_file}", "--spool-dir", str(spool)]
        with uwsgi_tls(*words, "--uid", "www-data", "--post-buffering", "4096", *backend, cwd=directory) as daemon:
            daemon.wait_for_workers(1)
            yield Scene(Site(daemon, (host, PORT)), spool)
            assert "Traceback" not in daemon.log
            assert "defect" not in daemon.log
            assert "died" not in daemon.log


def test_a_body_that_does_not_fit(scene: Scene) -> None:
    with scene.site.connect() as other:
        for _ in range(3):
            assert other.ask(post("/", b"x" * 1000)).body == b"1000"
            with scene.site.connect() as client:
                client.send(post("/", bytes(3 * ROOM_BYTES)))
                answer = client.answer()
                assert (answer.status, answer.headers["connection"]) == (503, "close")
                assert "retry-after" in answer.headers
            scene.wait_for_room()
            assert other.ask(post("/", bytes(ROOM_BYTES // 2))).body == b"%d" % (ROOM_BYTES // 2)
    scene.site.daemon.wait_for_line("503: its body cannot be stored: No space left on device")


def test_others_fill_the_disk_meanwhile(scene: Scene) -> None:
    request = post("/", bytes(ROOM_BYTES // 2))
    half = len(request) // 2
    with scene.site.connect() as other, scene.site.connect() as client:
        client.send(request[:half])
        wait_until(lambda: scene.used() > half - 70_000, 10.0, lambda: f"{scene.used()}")
        filler = scene.spool / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        client.send(request[half:])
        assert client.answer().status == 503
        assert other.ask(post("/", b"x" * 1000)).body == b"1000", "what memory holds needs no disk"
        filler.unlink()
        scene.wait_for_room()
        assert other.ask(request).status == 200


def test_an_answer_that_does_not_fit(scene: Scene) -> None:
    with scene.site.connect() as other:
        with scene.site.connect(receive_buffer_bytes=4096) as client:
            client.send(get("/big?30000000"))
            client.peek()
            scene.site.daemon.wait_for_line("could not be stored: .*No space left on device")
            assert other.ask(get("/")).status == 200
            assert not client.ends_cleanly(), "half an answer must not pass for a whole one"
        scene.wait_for_room()
        assert other.ask(post("/", bytes(ROOM_BYTES // 2))).body == b"%d" % (ROOM_BYTES // 2)
