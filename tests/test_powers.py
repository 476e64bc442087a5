"""powers.py: what is read of a process, against what that process knows of itself."""

import os
import resource
import select
import socket
from pathlib import Path

import pytest
from forked import in_child

from uwsgi_tls import powers, privileges


def test_of_this_process() -> None:
    found = powers.of(os.getpid())
    assert found.uids == (*os.getresuid(), os.geteuid())
    assert found.gids == (*os.getresgid(), os.getegid())
    assert set(found.groups) == set(os.getgroups())
    assert found.root == "/"
    mask = os.umask(0)
    os.umask(mask)
    assert found.umask == mask
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert found.limits is not None
    assert found.limits["nofile"] == str(hard)


def test_of_none() -> None:
    with pytest.raises(FileNotFoundError):
        powers.of(2**22 + 1)  # more than any pid


def test_kinds_of_descriptors(tmp_path: Path) -> None:
    def run() -> list[str]:
        before = powers.of(os.getpid()).descriptors
        listener, six = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET6)
        six.bind(("::1", 0))
        six.listen()
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(tmp_path / "sock"))
        unix.listen()
        client = socket.create_connection(listener.getsockname())
        pair, pipe = socket.socketpair(), os.pipe()
        made = [os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY), os.open(os.devnull, os.O_RDONLY)]
        poll = select.epoll()
        made.append(os.open(tmp_path / "gone", os.O_CREAT | os.O_WRONLY))
        os.unlink(tmp_path / "gone")
        after = powers.of(os.getpid()).descriptors
        assert before is not None
        assert after is not None
        names = {str(listener.getsockname()[1]): "PORT", str(six.getsockname()[1]): "PORT6"}
        new = list(after)
        for each in before:
            new.remove(each)
        for sock in (listener, six, unix, client, *pair):
            sock.close()
        for fd in (*pipe, *made):
            os.close(fd)
        poll.close()
        for number, name in names.items():
            new = [each.replace(f":{number}", f":{name}") for each in new]
        return sorted(new)

    assert in_child(run) == sorted(
        [
            "listening socket 127.0.0.1:PORT",
            "listening socket [::1]:PORT6",
            f"listening socket {tmp_path}/sock",
            "connection",
            *["UNIX socket"] * 2,
            *["pipe"] * 2,
            str(tmp_path / "file"),
            "/dev/null",
            "epoll",
            "file without a name",
        ]
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_a_process_does_not_let_others_see() -> None:
    def run() -> list[object]:
        os.setgroups([])
        os.setresgid(33, 33, 33)
        os.setresuid(33, 33, 33)
        before = powers.of(os.getpid()).dumpable
        privileges.harden(no_new_privs=True)
        own = powers.of(os.getpid())
        other = powers.of(1)
        return [before, own.dumpable, own.no_new_privs, other.dumpable, other.root, other.descriptors]

    assert in_child(run) == [False, False, True, None, None, None]
