"""Bytes that wait for their client: a spool of what was produced, or a file that is read as it is taken."""

import os
from typing import Protocol

from uwsgi_tls.logs import trace


class Source(Protocol):
    """Bytes that wait to be sent: a spool, or a file."""

    @property
    def size(self) -> int: ...

    def front(self, count: int) -> bytes | memoryview: ...

    def consume(self, count: int) -> None: ...

    def close(self) -> None: ...


class File(Protocol):
    """What a backend may have sent as a whole."""

    def fileno(self) -> int: ...

    def tell(self) -> int: ...

    def close(self) -> None: ...


class FileSource:
    """Some first bytes and then a file, from its position on, as a source that is read as the client takes it.

    It reads from a descriptor of its own: the file's object may be an application's code, and may be closed by it.
    """

    def __init__(self, first: bytes, file: File, size: int) -> None:
        self.size = len(first) + size
        self._file = file
        self._block = first
        self._position = file.tell()
        self._fd = os.dup(file.fileno())

    def front(self, count: int) -> bytes | memoryview:
        if not self._block:
            self._block = os.pread(self._fd, min(count, self.size), self._position)
            self._position += len(self._block)
            if not self._block:
                raise OSError("the file became shorter while it was sent")
        return self._block

    def consume(self, count: int) -> None:
        self._block = self._block[count:]
        self.size -= count

    def close(self) -> None:
        os.close(self._fd)
        try:
            self._file.close()
        except BaseException:  # an application's own code, which must not keep the connection from its end
            trace()
