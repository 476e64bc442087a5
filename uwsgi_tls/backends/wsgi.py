"""A WSGI application in the worker (PEP 3333).

The application is called in a service thread, the only wait that a thread here ever has. Its request body is whole
before it is called; its response goes to the exchange, which keeps what the client does not take yet.
"""

import io
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from uwsgi_tls.backends.variables import of_request
from uwsgi_tls.exchange import Exchange
from uwsgi_tls.gone import Gone
from uwsgi_tls.logs import trace
from uwsgi_tls.response import BadResponse

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class FileWrapper:
    """`wsgi.file_wrapper`: a file that is sent as the client reads it, if its length can be known."""

    def __init__(self, file: Any, block_size: int = 65536) -> None:
        self.file = file
        self.block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(self.block_size), b"")

    def fileno(self) -> int:
        return cast(int, self.file.fileno())

    def tell(self) -> int:
        return cast(int, self.file.tell())

    def close(self) -> None:
        if hasattr(self.file, "close"):
            self.file.close()

    def remaining(self) -> int | None:
        """Bytes from the file's position to its end; None where that cannot be told.

        What Python itself makes on top of another file (gzip) has that file's descriptor, but other bytes.
        """
        try:
            if isinstance(self.file, io.IOBase) and not isinstance(getattr(self.file, "raw", self.file), io.FileIO):
                return None
            status = os.fstat(self.file.fileno())
            return max(0, status.st_size - cast(int, self.file.tell())) if stat.S_ISREG(status.st_mode) else None
        except (AttributeError, OSError, ValueError, TypeError):
            return None


class StartResponse:
    """The `start_response` of one call, and the state that PEP 3333 asks a server to keep of it."""

    __slots__ = ("begun", "exchange", "headers", "status")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.status = ""
        self.headers: Headers = []
        self.begun = False

    def __call__(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self.exchange.begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # the traceback holds this frame
        elif self.status:
            raise AssertionError("start_response was called twice without exc_info (PEP 3333)")
        self.status, self.headers, self.begun = status, headers, False
        return self.write

    def begin(self, length: int | None) -> None:
        """Fixes the head, with `length` as Content-Length where the application gave none and one can be."""
        if not self.status:
            raise AssertionError("the application did not call start_response (PEP 3333)")
        headers = self.headers
        if length is not None and not self.status.startswith(("204", "304")):
            for name, _ in headers:
                if name.lower() == "content-length":
                    break
            else:
                headers = [*headers, ("Content-Length", str(length))]
        self.begun = True
        self.exchange.start(self.status, headers)

    def write(self, block: bytes) -> None:
        if not self.begun:
            self.begin(None)
        self.exchange.write(block)


class WsgiBackend:
    """Calls one application."""

    blocking = True

    def __init__(
        self,
        application: Application,
        *,
        multithread: bool,
        multiprocess: bool,
        extra: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._application = application
        self._base: Environ = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": multiprocess,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
        }
        self._extra = extra

    def handle(self, exchange: Exchange) -> bool:
        environ = self._environ(exchange)
        start = StartResponse(exchange)
        try:
            result = self._application(environ, start)
            if isinstance(result, FileWrapper) and not start.begun and (size := result.remaining()) is not None:
                return self._send_file(start, result, size)
            try:
                self._send(start, result)
            finally:
                _close(result)
            return exchange.finish()
        except Gone:
            exchange.abandon()
            return False
        except BadResponse as bad:
            return exchange.fail(500, f"the application's response is not valid: {bad}")
        except BaseException as error:  # an application may raise anything, SystemExit too; it costs its request only
            trace()
            exchange.connection.service.tally.count("exceptions")
            return exchange.fail(500, f"the application raised {type(error).__name__}")
        finally:
            if exchange.body is not None:
                exchange.body.close()

    def _send_file(self, start: StartResponse, file: FileWrapper, size: int) -> bool:
        try:
            start.begin(size)
        except BaseException:  # of whatever kind, the file is closed
            _close(file)
            raise
        return start.exchange.send_file(file, size)

    def _send(self, start: StartResponse, result: Iterable[bytes]) -> None:
        exchange = start.exchange
        if isinstance(result, list | tuple) and len(result) == 1:
            block = _plain(result[0])
            if not start.begun:
                start.begin(len(block))
            exchange.write(block)
            return
        for each in result:
            block = _plain(each)
            if block:
                if not start.begun:
                    start.begin(None)
                exchange.write(block)
        if not start.begun:
            head = exchange.head
            start.begin(None if head is not None and head.method == "HEAD" else 0)

    def _environ(self, exchange: Exchange) -> Environ:
        first, fields = of_request(exchange)
        environ = self._base.copy()
        environ.update(first)
        environ.update(exchange.connection.variables)
        environ.update(fields)
        if self._extra:
            environ.update(self._extra)
        body = exchange.body
        environ["wsgi.input"] = io.BytesIO() if body is None else body.file()
        return environ


def _plain(block: bytes) -> bytes:
    """The bytes of a block: what others than plain bytes say of their length need not be theirs. Raises TypeError."""
    return block if type(block) is bytes else bytes(memoryview(block))


def _close(result: object) -> None:
    """PEP 3333's `close`; if it fails, the log says it, and the client has its response all the same."""
    close = getattr(result, "close", None)
    if close is not None:
        try:
            close()
        except BaseException:  # the application's own code again
            trace()
