"""The WSGI application that every server runs: a short answer; with /bulk a file through wsgi.file_wrapper.

What is sent to it is read to the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any
from wsgiref.util import FileWrapper

HELLO = b"Hello, world!\n"
BLOCK_BYTES = 65536


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    if environ["PATH_INFO"] != "/bulk":
        if environ["REQUEST_METHOD"] == "POST":
            while environ["wsgi.input"].read(BLOCK_BYTES):
                pass
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(HELLO)))])
        return [HELLO]
    file = open(os.environ["BENCH_BULK_FILE"], "rb")  # noqa: SIM115 - the server closes it, PEP 3333
    size = os.fstat(file.fileno()).st_size
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))])
    wrapper = environ.get("wsgi.file_wrapper", FileWrapper)  # which a server may leave out (PEP 3333); granian does
    body: Iterable[bytes] = wrapper(file, BLOCK_BYTES)
    return body
