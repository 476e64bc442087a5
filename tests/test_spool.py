"""spool.py against a plain bytes object, and what it leaves in memory, on the disk and among the descriptors."""

import errno
import io
import os
import resource
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uwsgi_tls import spool as module
from uwsgi_tls.spool import COMPACT_BYTES, Disk, Spool

LIMIT = 1000


def files_in(directory: Path) -> list[os.stat_result]:
    """The open files of this process that are in `directory`, whether or not they have a name there."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            if os.readlink(link).startswith(f"{directory}/"):
                found.append(link.stat())
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a full disk, a write that would pass `size` is cut short and the next one fails (setrlimit(2), EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(str(tmp_path), 1 << 30)


@pytest.fixture
def spool(tmp_path: Path, disk: Disk) -> Iterator[Spool]:
    spool = Spool(LIMIT, disk)
    yield spool
    assert disk.used == sum(status.st_size for status in files_in(tmp_path))
    spool.close()
    assert files_in(tmp_path) == []
    assert disk.used == 0


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 90)),
        st.tuples(st.just("consume"), st.integers(0, 90)),
        st.tuples(st.just("read"), st.integers(0, 90)),
        st.tuples(st.just("rewind"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(operations=OPERATIONS, limit=st.integers(0, 150), compact=st.integers(0, 100))
def test_it_is_a_queue_of_bytes(operations: list[tuple[str, int]], limit: int, compact: int) -> None:
    disk = Disk(limit=1 << 30)
    spool = Spool(limit, disk)
    kept, start, streaming, counter = b"", 0, False, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COMPACT_BYTES", compact)
        patch.setattr(module, "_BLOCK_BYTES", 7)
        for operation, count in operations:
            if operation == "append":
                streaming = streaming or start > 0
                data = bytes((counter + i) % 251 for i in range(count))
                counter += count
                kept += data
                spool.append(data)
            elif operation == "rewind" and streaming:
                with pytest.raises(ValueError, match="forgotten"):
                    spool.rewind()
            elif operation == "rewind":
                start = 0
                spool.rewind()
            else:
                rest = kept[start : start + count]
                assert spool.front(count) == rest
                start += len(rest)
                if operation == "read":
                    assert spool.read(count) == rest
                else:
                    spool.consume(len(rest))
            assert spool.size == len(kept) - start
            assert disk.used == (os.fstat(spool._file.fileno()).st_size if spool._file is not None else 0)
            assert spool.front(1 << 20) == kept[start:]
            if not streaming:
                assert spool.on_disk == (len(kept) > limit)
                with spool.file() as file:
                    assert file.read() == kept
    spool.close()
    assert disk.used == 0


def test_up_to_the_limit_it_stays_in_memory(spool: Spool, tmp_path: Path) -> None:
    spool.append(b"a" * (LIMIT - 1))
    spool.append(b"b")
    assert files_in(tmp_path) == []
    spool.append(b"c")
    assert spool.on_disk
    (status,) = files_in(tmp_path)
    assert (status.st_nlink, status.st_size, status.st_mode & 0o777) == (0, LIMIT + 1, 0o600)
    assert list(tmp_path.iterdir()) == []
    assert spool.read(LIMIT + 9) == b"a" * (LIMIT - 1) + b"bc"


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"xabcx")[1:4]])
def test_what_can_be_appended(spool: Spool, data: bytes | bytearray | memoryview) -> None:
    spool.append(data)
    spool.append(b"." * LIMIT)
    spool.append(data)
    assert spool.read(2 * LIMIT) == b"abc" + b"." * LIMIT + b"abc"


@pytest.mark.parametrize("count", [-1, 4])
def test_more_than_there_is_cannot_be_consumed(spool: Spool, count: int) -> None:
    spool.append(b"abc")
    with pytest.raises(ValueError, match=f"{count} bytes of 3"):
        spool.consume(count)
    assert spool.front(9) == b"abc"


@pytest.mark.parametrize("lines", [3, 300])
def test_a_body_is_a_file_and_may_be_read_again(spool: Spool, lines: int) -> None:
    body = b"".join(b"line %d\n" % number for number in range(lines))
    spool.append(body)
    for _ in range(2):
        assert spool.read(5) == b"line "
        with spool.file() as file:
            assert file.readline() == b"line 0\n"
            assert len(list(file)) == lines - 1
            assert file.read() == b""
        assert spool.front(2) == b"0\n"
        spool.rewind()
    assert spool.size == len(body)


@pytest.mark.parametrize("size", [10, 5000])
def test_the_file_outlives_the_spool(spool: Spool, tmp_path: Path, size: int) -> None:
    """What an application still holds must not read from a descriptor that has become someone else's."""
    spool.append(b"s" * size)
    with spool.file() as file:
        spool.close()
        with (tmp_path / "other").open("w+b") as other:
            other.write(b"secret" * 1000)
            other.flush()
            assert file.read() == b"s" * size


def test_sendfile_takes_the_descriptor(spool: Spool) -> None:
    spool.append(b"0123456789" * LIMIT)
    reader, writer = socket.socketpair()
    with reader, writer, spool.file() as file:
        assert os.sendfile(writer.fileno(), file.fileno(), 5, 10) == 10
        assert reader.recv(100) == b"5678901234"
    assert spool.front(3) == b"012"


def test_a_body_in_memory_has_no_descriptor(spool: Spool) -> None:
    spool.append(b"abc")
    with spool.file() as file, pytest.raises(io.UnsupportedOperation):
        file.fileno()


def test_a_stream_has_no_beginning(spool: Spool) -> None:
    spool.append(b"abc")
    spool.consume(1)
    spool.append(b"d")
    with pytest.raises(ValueError, match="forgotten"):
        spool.rewind()
    with pytest.raises(ValueError, match="forgotten"):
        spool.file()
    assert spool.read(9) == b"bcd"


def test_a_drained_stream_leaves_the_disk_and_returns_to_memory(spool: Spool, tmp_path: Path) -> None:
    for _ in range(3):
        spool.append(b"a" * LIMIT)
        spool.append(b"a" * LIMIT)
        assert len(files_in(tmp_path)) == 1
        spool.consume(1)
        spool.append(b"b")
        spool.consume(2 * LIMIT)
        assert files_in(tmp_path) == []
        spool.append(b"c")
        assert not spool.on_disk
        assert spool.read(9) == b"c"


@pytest.mark.parametrize("backlog", [8, 32])
def test_a_stream_that_is_never_empty_does_not_fill_the_disk(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backlog: int
) -> None:
    written = 0
    pwrite = os.pwrite

    def counting(fd: int, data: memoryview, at: int) -> int:
        nonlocal written
        written += len(data)
        return pwrite(fd, data, at)

    monkeypatch.setattr(os, "pwrite", counting)
    block = bytes(range(256)) * 256
    spool.append(block * backlog)
    for _ in range(1000):
        spool.append(block)
        assert spool.read(len(block)) == block
        (status,) = files_in(tmp_path)
        assert status.st_size <= spool.size + max(spool.size, COMPACT_BYTES) + len(block)
    assert written <= 2 * (1000 + backlog) * len(block), "more was copied than went through"


def test_after_a_burst_the_disk_is_freed_before_the_stream_is_drained(spool: Spool, tmp_path: Path) -> None:
    spool.append(b"b" * (8 * COMPACT_BYTES))
    spool.consume(8 * COMPACT_BYTES - 100)
    spool.append(b"c")
    (status,) = files_in(tmp_path)
    assert status.st_size == 101
    assert spool.read(200) == b"b" * 100 + b"c"


def test_what_is_on_disk_is_not_in_memory_too() -> None:
    spool = Spool(1 << 20)
    tracemalloc.start()
    try:
        spool.append(bytes(1 << 20))
        spool.append(b"x")
        assert tracemalloc.get_traced_memory()[0] < 1 << 18
    finally:
        tracemalloc.stop()
        spool.close()


def test_a_stream_in_memory_frees_what_is_consumed() -> None:
    spool = Spool(1 << 20)
    block = b"m" * (1 << 16)
    spool.append(block * 4)
    tracemalloc.start()
    try:
        for _ in range(500):
            spool.append(block)
            spool.consume(len(block))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert not spool.on_disk
    assert spool.size == 4 * len(block)


def test_a_write_that_is_cut_short_goes_on(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, bytes(data[:100]), at))
    body = bytes(range(256)) * 10
    spool.append(body[:900])
    spool.append(body[900:])
    assert spool.read(5000) == body


def test_a_full_disk_while_the_file_grows(spool: Spool, tmp_path: Path) -> None:
    spool.append(b"a" * 2000)
    with largest_file(4096), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        spool.append(b"b" * 3000)
    assert spool.size == 2000
    with spool.file() as file:
        assert file.read() == b"a" * 2000
    spool.append(b"c")
    assert spool.read(5000) == b"a" * 2000 + b"c"


def test_a_full_disk_while_memory_is_moved(spool: Spool, tmp_path: Path) -> None:
    spool.append(b"a" * 900)
    with largest_file(500), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        spool.append(b"b" * 200)
    assert files_in(tmp_path) == []
    assert (spool.on_disk, spool.size) == (False, 900)
    spool.append(b"c" * 200)
    assert spool.read(5000) == b"a" * 900 + b"c" * 200


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    spool = Spool(3, disk := Disk(str(tmp_path / "missing")))
    spool.append(b"abc")
    with pytest.raises(FileNotFoundError):
        spool.append(b"d")
    assert spool.read(9) == b"abc"
    assert disk.used == 0


def test_a_closed_spool_is_as_new(spool: Spool, tmp_path: Path) -> None:
    spool.append(b"a" * 2000)
    spool.consume(1)
    spool.append(b"b")
    spool.close()
    spool.close()
    assert (spool.size, spool.front(9), spool.on_disk) == (0, b"", False)
    assert files_in(tmp_path) == []
    spool.append(b"abc")
    spool.consume(3)
    spool.rewind()
    assert spool.read(9) == b"abc"


# --- the disk and its limit -------------------------------------------------------------------


def test_files_share_one_limit(tmp_path: Path) -> None:
    """It is reached by all together; what did not fit is not there, what is freed is the others'."""
    disk = Disk(str(tmp_path), 5000)
    one, other = Spool(LIMIT, disk), Spool(LIMIT, disk)
    one.append(b"1" * 3000)
    other.append(b"2" * LIMIT)
    assert disk.used == 3000, "what is in memory does not count"
    assert other.has_room(1000)
    assert not other.has_room(1001)
    with pytest.raises(OSError, match="spool-limit"):
        other.append(b"3" * 1001)
    other.append(b"3" * 1000)
    assert disk.used == 5000
    assert not one.has_room(1)
    with pytest.raises(OSError, match="spool-limit") as full:
        one.append(b"4")
    assert full.value.errno == errno.EDQUOT
    assert disk.refused == 2
    assert one.read(9000) == b"1" * 3000
    one.close()
    assert disk.used == 2000
    assert other.read(9000) == b"2" * LIMIT + b"3" * 1000
    other.append(b"5" * 5000)
    assert disk.used == 5000
    other.close()
    assert disk.used == 0
    assert files_in(tmp_path) == []


def test_without_a_limit_there_is_room() -> None:
    assert Disk().fits(1 << 60)


def test_rather_too_much_in_memory_than_a_file_that_has_no_room(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path), 3000)
    spool = Spool(LIMIT, disk)
    spool.append(b"a" * 3001, anyway=True)
    assert (spool.on_disk, disk.used) == (False, 0)
    assert not spool.has_room(1)
    spool.consume(2000)
    spool.append(b"b", anyway=True)
    assert (spool.on_disk, disk.used) == (True, 1002)
    assert spool.read(9000) == b"a" * 1001 + b"b"
    spool.close()


def test_a_full_disk_is_not_charged(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path))
    spool = Spool(LIMIT, disk)
    with largest_file(500), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        spool.append(b"a" * 2000)
    assert disk.used == 0 == sum(status.st_size for status in files_in(tmp_path))
    spool.append(b"a" * 2000)
    with largest_file(4096), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        spool.append(b"b" * 3000)
    assert disk.used == 2000 == files_in(tmp_path)[0].st_size
    spool.close()
    assert disk.used == 0


def test_threads_share_the_disk(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path), 1 << 30)

    def work() -> None:
        spool = Spool(0, disk)
        for _ in range(300):
            spool.append(b"x" * 100)
            spool.read(70)
        spool.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert disk.used == 0
