"""A moment of each target of the fuzz, the same in every run; `bin/fuzz` goes on for as long as it may."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import http_judges
import pytest

from uwsgi_tls import hello, http, proxy_protocol, response
from uwsgi_tls.chunked import ChunkedDecoder

from .targets import TARGETS

RUNS = 3000  # with the seeds; a second or two
WHEEL = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.version_info >= (3, 15), reason="atheris has no wheel for it (pyproject.toml)"
)
TESTS = Path(__file__).parent.parent


def fuzz(target: str, directory: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, "-m", "fuzz", target, directory, *options]
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=100,
    )


@WHEEL
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found(target: str, tmp_path: Path) -> None:
    run = fuzz(target, tmp_path, f"-runs={RUNS}", "-seed=1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"Done {RUNS} runs" in run.stderr
    assert not list(tmp_path.glob("crash-*"))


@WHEEL
def test_a_find_is_kept_and_can_be_read_again(tmp_path: Path) -> None:
    """With a judge who reads nothing, so that everything is a find."""
    blind = "import http_judges, runpy; http_judges.JUDGES['h11'] = lambda stream: http_judges.Reading()"
    command: list[str | Path] = [
        sys.executable,
        "-c",
        f"{blind}; runpy.run_module('fuzz', alter_sys=True)",
        "requests",
        tmp_path,
    ]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    run = subprocess.run([*command, "-runs=10"], env=environment, capture_output=True, timeout=100)
    assert run.returncode == 77, run.stderr
    (find,) = tmp_path.glob("crash-*")
    assert subprocess.run([*command, find], env=environment, capture_output=True, timeout=100).returncode == 77
    assert fuzz("requests", tmp_path, find).returncode == 0


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKS = b"\x022\r\nab\r\n0\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
HELLO = TARGETS["hellos"].seeds[0]
PROXY = next(seed for seed in TARGETS["proxy-headers"].seeds if seed.startswith(proxy_protocol.SIGNATURE))


def shorter(raw: bytes, max_headers: int) -> http.RequestHead:
    return http.parse_head(raw.replace(b"5", b"4"), max_headers)


def never_in_pieces(buffer: bytes, limit: int, seen: int = 0) -> int:
    return -1 if seen else http.head_end(buffer, limit)


@pytest.mark.parametrize(
    ("target", "data", "module", "name", "defect"),
    [
        ("requests", POST, http_judges, "parse_head", shorter),
        ("requests", POST, http_judges, "head_end", never_in_pieces),
        ("chunked", CHUNKS, ChunkedDecoder, "feed", lambda self, data: b""),
        ("answers", ANSWER, response, "parse_response_head", lambda raw: ("404 Not Found", [])),
        ("answers", ANSWER, response, "_ACTIONS", {"a": "hop"}),
        ("hellos", HELLO, hello, "_server_name", lambda extension: "other.example"),
        ("hellos", HELLO, hello, "_protocols", lambda extension: ()),
        ("proxy-headers", PROXY, proxy_protocol, "_port", lambda *arguments: "1"),
    ],
)
def test_a_defect_is_found(
    monkeypatch: pytest.MonkeyPatch, target: str, data: bytes, module: object, name: str, defect: object
) -> None:
    """In bytes that are read rightly without it."""
    TARGETS[target].read(data)
    monkeypatch.setattr(module, name, defect)
    with pytest.raises(AssertionError):
        TARGETS[target].read(data)
