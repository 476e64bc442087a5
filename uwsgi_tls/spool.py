"""Bytes that wait: a queue that stays in memory up to a limit and goes on in an unlinked temporary file.

A request body is appended whole and then read, as a file or piece by piece, perhaps a second time for another backend.
A response that its client is slow to read is appended at the end while it is consumed at the front, for hours if
need be. A spool has no lock, one thread at a time owns it; it has no limit of its own, who appends watches `size`.

The file has no name (open(2), O_TMPFILE). It is read and written at offsets (pread(2)), so that its position belongs
to the reader that `file` hands out. What all files may hold together is the `Disk`'s to say.
"""

import errno
import io
import os
import tempfile
import threading
from typing import BinaryIO

COMPACT_BYTES = 1 << 20  # below that a file is not worth tidying
_BLOCK_BYTES = 1 << 18


class Disk:
    """Where the files of spools are made, and how many bytes all of them may hold. Any thread may ask."""

    def __init__(self, directory: str | None = None, limit: int = 0) -> None:
        """`directory`: by default where tempfile says; `limit`: in bytes, 0 for any number."""
        self.directory = directory
        self.used = 0
        self.refused = 0  # times
        self._limit = limit
        self._lock = threading.Lock()

    def fits(self, count: int) -> bool:
        """Whether `count` more bytes have room at this moment."""
        return not self._limit or self.used + count <= self._limit

    def take(self, count: int) -> None:
        """Before so many bytes are written. Raises OSError, as a disk does whose owner has used up his share."""
        with self._lock:
            if not self.fits(count):
                self.refused += 1
                raise OSError(errno.EDQUOT, "spool-limit is reached")
            self.used += count

    def give(self, count: int) -> None:
        """So many bytes are freed."""
        with self._lock:
            self.used -= count


_ANY_DISK = Disk()


class Spool:
    """A FIFO of bytes. A full or broken disk raises OSError, and then nothing has been added and nothing is lost.

    As long as there is a file, the disk is charged with its length, which is `_end`.

    Everything is kept, and `rewind` goes back to the beginning, until the first `append` after a `consume`. From then
    on the spool is a stream: what is consumed is forgotten, in memory and on the disk.
    """

    __slots__ = ("_disk", "_end", "_file", "_memory", "_memory_limit", "_start", "_streaming")

    def __init__(self, memory_limit: int, disk: Disk = _ANY_DISK) -> None:
        """`memory_limit`: bytes kept in memory; `disk`: what the file belongs to."""
        self._memory_limit = memory_limit
        self._disk = disk
        self._memory = bytearray()
        self._file: io.FileIO | None = None
        self._start = self._end = 0  # what is not consumed, as offsets into the memory or the file
        self._streaming = False

    @property
    def size(self) -> int:
        """Bytes that are not consumed."""
        return self._end - self._start

    @property
    def on_disk(self) -> bool:
        """Whether `file` has a descriptor, for os.sendfile."""
        return self._file is not None

    def has_room(self, count: int) -> bool:
        """Whether `count` more bytes can be stored."""
        if self._file is not None:
            return self._disk.fits(count)
        return self._end + count <= self._memory_limit or self._disk.fits(self._end + count)

    def append(self, data: bytes | bytearray | memoryview, *, anyway: bool = False) -> None:
        """Adds `data` at the end; `anyway`: rather keeps too much in memory than begin a file that has no room."""
        if self._start:
            self._streaming = True
            self._forget()
        if (
            self._file is None
            and self._end + len(data) > self._memory_limit
            and not (anyway and not self._disk.fits(self._end + len(data)))
        ):
            self._file = self._spill()
        if self._file is None:
            self._memory += data
        else:
            self._write_on(self._file, data)
        self._end += len(data)

    def front(self, limit: int) -> bytes:
        """The first bytes, at most `limit`, without consuming them; b"" only when the spool is empty."""
        stop = min(self._start + limit, self._end)
        if self._file is None:
            with memoryview(self._memory) as view:
                return bytes(view[self._start : stop])
        return os.pread(self._file.fileno(), stop - self._start, self._start)

    def consume(self, count: int) -> None:
        """Moves past the first `count` bytes."""
        if not 0 <= count <= self.size:
            raise ValueError(f"{count} bytes of {self.size} cannot be consumed")
        self._start += count
        if self._streaming and self._start == self._end:
            self._forget()

    def read(self, limit: int) -> bytes:
        """Consumes the first bytes, at most `limit`, and returns them; b"" only when the spool is empty."""
        data = self.front(limit)
        self.consume(len(data))
        return data

    def rewind(self) -> None:
        """Makes all that was ever appended unconsumed again; ValueError if some of it is forgotten."""
        self._refuse_stream()
        self._start = 0

    def file(self) -> BinaryIO:
        """All that was ever appended, as a binary file that the caller closes; it may outlive the spool.

        ValueError if some of it is forgotten. One reader at a time: on disk two would share one position.
        """
        self._refuse_stream()
        if self._file is None:
            return io.BytesIO(self._memory)
        # A descriptor of its own: an application that reads on after the spool is closed must not meet a descriptor
        # that has become another client's connection.
        reader = os.fdopen(os.dup(self._file.fileno()), "rb")
        reader.seek(0)
        return reader

    def close(self) -> None:
        """Forgets everything and frees the disk. The spool is then as new."""
        self._start = self._end
        self._forget()
        self._streaming = False

    def _refuse_stream(self) -> None:
        if self._streaming:
            raise ValueError("the beginning of a stream is forgotten")

    def _spill(self) -> io.FileIO:
        """Moves what is in memory to a new file."""
        self._disk.take(self._end)
        try:
            file = tempfile.TemporaryFile(buffering=0, dir=self._disk.directory)  # noqa: SIM115 as long as the spool
            try:
                _write(file, self._memory, 0)
            except OSError:
                file.close()
                raise
        except OSError:
            self._disk.give(self._end)
            raise
        self._memory = bytearray()
        return file

    def _write_on(self, file: io.FileIO, data: bytes | bytearray | memoryview) -> None:
        self._disk.take(len(data))
        try:
            _write(file, data, self._end)
        except OSError:
            file.truncate(self._end)  # a reader of the file must not meet the part that was written
            self._disk.give(len(data))
            raise

    def _forget(self) -> None:
        """Frees what is consumed, and copies no more than that."""
        size = self.size
        if size == 0:
            if self._file is not None:
                self._file.close()
                self._file = None
                self._disk.give(self._end)
            self._memory = bytearray()
        elif self._file is None:
            del self._memory[: self._start]  # CPython moves the beginning, not the bytes
        elif self._start >= max(size, COMPACT_BYTES):
            # The consumed part is large enough to take the rest: nothing overlaps, a failure leaves all as it was.
            for at in range(0, size, _BLOCK_BYTES):
                block = os.pread(self._file.fileno(), min(_BLOCK_BYTES, size - at), self._start + at)
                _write(self._file, block, at)
            self._file.truncate(size)
            self._disk.give(self._end - size)
        else:
            return
        self._start, self._end = 0, size


def _write(file: io.FileIO, data: bytes | bytearray | memoryview, at: int) -> None:
    """pwrite(2) may write less than it is given, and does so before it reports a full disk."""
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            written += os.pwrite(file.fileno(), view[written:], at + written)
