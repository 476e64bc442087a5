"""The application of the soak, in our worker and in the real uWSGI: each answer can be checked to the last byte."""

import hashlib
import importlib
import threading
from collections.abc import Callable, Iterable
from typing import Any

BLOCK = bytes(range(256)) * 64


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/ws":
        return echo(environ)
    if path == "/blocks":  # without a length, so in chunks
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return (BLOCK for _ in range(int(query)))
    if path == "/sum":
        digest = hashlib.sha256()
        while block := environ["wsgi.input"].read(65536):
            digest.update(block)
        body = digest.hexdigest().encode()
    elif path == "/wait":
        threading.Event().wait(float(query))
        body = b"waited"
    elif path == "/who":
        body = environ.get("HTTPS_DN", "").encode("latin-1")
    else:
        body = b"hello"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def echo(environ: dict[str, Any]) -> Iterable[bytes]:
    """A WebSocket that says what it hears; uWSGI alone has it."""
    uwsgi = importlib.import_module("uwsgi")  # which uWSGI makes within itself
    uwsgi.websocket_handshake(environ["HTTP_SEC_WEBSOCKET_KEY"], "")
    while True:
        uwsgi.websocket_send_binary(uwsgi.websocket_recv())
