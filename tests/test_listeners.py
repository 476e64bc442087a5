"""listeners.py: what is bound, what is refused and why, and that nothing stays behind."""

import contextlib
import dataclasses
import fcntl
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from uwsgi_tls import sockets
from uwsgi_tls.addresses import FdAddress, SharedAddress, TcpAddress, UnixAddress
from uwsgi_tls.converters import SharedSocket, shared_socket
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import HttpsListener, parse_https
from uwsgi_tls.listeners import Bound, bind_all, check_all
from uwsgi_tls.options import Config
from uwsgi_tls.users import Identity

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can give files away and bind ports below 1024")


def config(shared: tuple[str, ...] = (), https: tuple[str, ...] = (), **more: Any) -> Config:
    return Config(
        shared_socket=tuple(shared_socket(text) for text in shared),
        https=tuple(parse_https(f"{text},x.crt,x.key") for text in https),
        **more,
    )


@contextlib.contextmanager
def bound_to(settings: Config, identity: Identity | None = None) -> Iterator[tuple[Bound, list[str]]]:
    lines: list[str] = []
    bound = bind_all(settings, lines.append, identity)
    try:
        yield bound, lines
    finally:
        bound.release()


def refusal(settings: Config, identity: Identity | None = None) -> ConfigError:
    """The error of bind_all()."""
    with pytest.raises(ConfigError) as caught:
        bind_all(settings, print, identity)
    assert "\n" not in str(caught.value)
    return caught.value


def refusals(settings: Config) -> set[str]:
    """The causes that bind_all() and check_all() give, which should be one."""
    with pytest.raises(ConfigError) as caught:
        check_all(settings)
    return {caught.value.cause, refusal(settings).cause}


def sockets_open() -> int:
    return sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in descriptors())


def descriptors() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]


def refuses(call: Callable[[], Any]) -> bool:
    try:
        call()
    except OSError:
        return True
    return False


# What is bound


def test_shared_sockets_come_first_and_references_find_them() -> None:
    settings = config(("127.0.0.1:0", "[::1]:0"), ("127.0.0.2:0", "=1", "=0"))
    with bound_to(settings) as (bound, lines):
        names = [shared.name for shared in bound.shared]
        fds = [shared.socket.fileno() for shared in bound.shared]
        direct = bound.https[0]
        assert names[0].startswith("127.0.0.1:")
        assert names[1].startswith("[::1]:")
        assert not any(name.endswith(":0") for name in names)  # the port that the kernel chose
        assert [https.shared for https in bound.https] == [None, 1, 0]
        assert [https.socket for https in bound.https[1:]] == [bound.shared[1].socket, bound.shared[0].socket]
        assert [https.port for https in bound.https] == [https.name.rpartition(":")[2] for https in bound.https]
        assert [https.option for https in bound.https] == list(settings.https)
        assert lines == [
            f"uwsgi shared socket 0 bound to TCP address {names[0]} fd {fds[0]}",
            f"uwsgi shared socket 1 bound to TCP address {names[1]} fd {fds[1]}",
            f"https listener 0 bound to TCP address {direct.name} fd {direct.socket.fileno()}",
            f"https listener 1 -> shared socket 1 ({names[1]}, fd {fds[1]})",
            f"https listener 2 -> shared socket 0 ({names[0]}, fd {fds[0]})",
        ]


def test_https2_and_https_socket_are_listeners_too() -> None:
    address = shared_socket("127.0.0.1:0").address
    https2 = HttpsListener(address=address, certificates=(("x.crt", "x.key"),), option="https2")
    with bound_to(Config(https=config((), ("127.0.0.1:0",)).https, https2=(https2,))) as (bound, _):
        assert [https.option.option for https in bound.https] == ["https", "https2"]


def test_what_accepted_sockets_inherit() -> None:
    with bound_to(config(("127.0.0.1:0",), ("=0",))) as (bound, _):
        listener = bound.https[0].socket
        assert listener.getblocking() is False
        assert not os.get_inheritable(listener.fileno())
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
        with socket.create_connection(listener.getsockname()[:2]), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_the_backlog_is_the_one_configured() -> None:
    with bound_to(config(("127.0.0.1:0",), ("=0",), listen=3)) as (bound, _), contextlib.ExitStack() as stack:
        where = bound.shared[0].socket.getsockname()
        waiting = 0
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.settimeout(0.05)
            try:
                client.connect(where)
            except TimeoutError:
                break
            waiting += 1
        assert waiting == 4  # Linux takes one more than the backlog


def test_an_ipv6_wildcard_takes_ipv4_too() -> None:
    with bound_to(config((), ("[::]:0",))) as (bound, _):
        https = bound.https[0]
        assert https.name == f"[::]:{https.port}"
        socket.create_connection(("127.0.0.1", int(https.port))).close()
        socket.create_connection(("::1", int(https.port))).close()


def test_all_of_ipv4_and_one_of_ipv6_share_a_port() -> None:
    """They are two addresses, in either order."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for addresses in ((f"0.0.0.0:{port}", f"[::1]:{port}"), (f"[::1]:{port}", f":{port}")):
        with bound_to(config((), addresses)) as (bound, _):
            assert sorted(https.port for https in bound.https) == [str(port)] * 2
            socket.create_connection(("127.0.0.1", port)).close()
            socket.create_connection(("::1", port)).close()


def test_no_host_is_every_ipv4_address() -> None:
    with bound_to(config((":0",), ("=0",))) as (bound, _):
        assert bound.shared[0].name.startswith("0.0.0.0:")


def test_a_name_is_resolved_to_ipv4_first(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = socket.SOCK_STREAM
    answers: list[Any] = [
        (socket.AF_INET6, stream, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, stream, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: answers)
    with bound_to(config((), ("both.lab:0",))) as (bound, _):
        assert bound.https[0].name.startswith("127.0.0.1:")
    del answers[1]
    with bound_to(config((), ("six.lab:0",))) as (bound, _):
        assert bound.https[0].name.startswith("[::1]:")


@needs_root
def test_a_privileged_port() -> None:
    with bound_to(config(("127.0.0.78:443",), ("=0",))) as (bound, lines):
        assert bound.https[0].port == "443"
        assert lines[1] == f"https listener 0 -> shared socket 0 (127.0.0.78:443, fd {bound.shared[0].socket.fileno()})"


def test_an_unused_shared_socket_is_a_warning() -> None:
    with bound_to(config(("127.0.0.1:0", "127.0.0.2:0"), ("=1",))) as (_, lines):
        assert lines[-1] == "WARNING: shared socket 0 (127.0.0.1:0) is used by no https option"


# UNIX sockets


def test_a_unix_socket_and_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with bound_to(config((str(path),), ("=0",))) as (bound, lines):
        https = bound.https[0]
        assert (https.name, https.port) == (str(path), "")
        assert lines[0] == f"uwsgi shared socket 0 bound to UNIX address {path} fd {https.socket.fileno()}"
        assert stat.S_ISSOCK(path.stat().st_mode)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_a_relative_path_is_removed_wherever_we_are_by_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with bound_to(config((), ("x.sock",))):
        assert (tmp_path / "x.sock").exists()
        monkeypatch.chdir("/")
    assert not (tmp_path / "x.sock").exists()


def test_an_abstract_socket() -> None:
    with bound_to(config((), (f"@uwsgi-tls-test-{os.getpid()}",))) as (bound, _):
        assert (bound.https[0].name, bound.https[0].port) == (f"@uwsgi-tls-test-{os.getpid()}", "")


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
        left_behind.listen()
    with bound_to(config((), (str(path),))), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
@pytest.mark.parametrize("full", [False, True])
def test_a_live_socket_is_left_alone(kind: int, full: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX, kind) as alive, contextlib.ExitStack() as clients:
        alive.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            alive.listen(0)
        while full and kind != socket.SOCK_DGRAM:
            client = clients.enter_context(socket.socket(socket.AF_UNIX, kind))
            client.setblocking(False)
            if client.connect_ex(str(path)):
                break
        settings = config((), (str(path),))
        assert refusal(settings).cause == f"{path}: another process listens there"
        assert path.exists()
        check_all(settings)  # whoever asks may be about to reload the very server that listens there


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_socket_is_left_alone(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    make(path)
    assert refusals(config((), (str(path),))) == {f"{path}: a file that is not a socket has that name"}
    assert os.path.lexists(path)


def test_a_server_that_came_after_us_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as successor:
        with bound_to(config((), (str(path),))):
            os.rename(path, tmp_path / "old.sock")
            successor.bind(str(path))
        assert path.exists()


@needs_root
def test_unix_sockets_belong_to_whom_we_become(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with bound_to(config((str(path),), ("=0",)), Identity("www-data", 33, 4, (4,))):
        assert (path.stat().st_uid, path.stat().st_gid) == (33, 4)


@pytest.mark.parametrize(("option", "mode"), [({}, 0o600), ({"stats_chmod": 0o666}, 0o666)])
def test_permissions_of_sockets_for_statistics(option: dict[str, Any], mode: int, tmp_path: Path) -> None:
    """Whatever the umask; and never more than that, not even for a moment."""
    path, before = tmp_path / "x.sock", -1
    real_chmod, umask = os.chmod, os.umask(0o027)

    def chmod(name: str, wanted: int) -> None:
        nonlocal before
        before = stat.S_IMODE(path.stat().st_mode)
        real_chmod(name, wanted)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "chmod", chmod)
            with bound_to(config(stats=(UnixAddress(str(path)),), **option)):
                assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(umask)
    assert before == mode & ~0o027


@needs_root
@pytest.mark.parametrize("swap", [os.symlink, os.link, lambda prey, name: Path(name).touch()])
def test_only_our_own_socket_is_given_away(
    swap: Callable[[Path, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who can write to the directory puts root's file in the socket's place between bind and chown."""
    path, prey = tmp_path / "x.sock", tmp_path / "prey"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(prey))
        real_bind = sockets.bind_unix

        def bind_then_swap(name: str, backlog: int, mode: int | None) -> socket.socket:
            sock = real_bind(name, backlog, mode)
            os.unlink(name)
            swap(prey, name)
            return sock

        monkeypatch.setattr(sockets, "bind_unix", bind_then_swap)
        error = refusal(config((), (str(path),)), Identity("www-data", 33, 33, (33,)))
        assert "was replaced while it was being made" in error.cause
        assert prey.stat().st_uid == 0


# Descriptors


def listening_fd() -> int:
    sock = socket.create_server(("127.0.0.1", 0))
    return sock.detach()


@pytest.mark.parametrize("shared", [False, True])
def test_an_inherited_descriptor(shared: bool) -> None:
    fd = listening_fd()
    os.set_inheritable(fd, True)
    settings = config((f"fd://{fd}",), ("=0",)) if shared else config((), (f"fd://{fd}",))
    with bound_to(settings) as (bound, lines):
        https = bound.https[0]
        assert https.socket.fileno() == fd
        owner = "uwsgi shared socket 0" if shared else "https listener 0"
        assert lines[0] == f"{owner} inherited TCP address {https.name} fd {fd}"
        assert not os.get_inheritable(fd)
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
        assert https.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        socket.create_connection(("127.0.0.1", int(https.port))).close()
    assert refuses(lambda: os.fstat(fd))


def test_an_inherited_descriptor_that_is_only_bound() -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    with bound_to(config((), (f"fd://{sock.detach()}",))) as (bound, _):
        socket.create_connection(("127.0.0.1", int(bound.https[0].port))).close()


def test_an_inherited_unix_socket_keeps_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    with bound_to(config((), (f"fd://{sock.detach()}",))) as (bound, lines):
        assert bound.https[0].name == str(path)
        assert "inherited UNIX address" in lines[0]
    assert path.exists()  # whoever made it removes it


def no_socket() -> int:
    return os.open("/dev/null", os.O_RDONLY)


def datagrams() -> int:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()


def unbound() -> int:
    return socket.socket().detach()


def unbound_unix() -> int:
    return socket.socket(socket.AF_UNIX).detach()


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (no_socket, "is not a socket"),
        (datagrams, "is not a TCP or UNIX stream socket"),
        (unbound, "is not bound to an address"),
        (unbound_unix, "is not bound to an address"),
        (lambda: 987654, "is not open"),
    ],
)
def test_an_unfit_descriptor(make: Callable[[], int], cause: str) -> None:
    fd = make()
    existed = not refuses(lambda: os.fstat(fd))
    assert refusals(config((), (f"fd://{fd}",))) == {f"fd://{fd}: descriptor {fd} {cause}"}
    assert refusals(config((f"fd://{fd}",))) == {f"fd://{fd}: descriptor {fd} {cause}"}
    if existed:
        os.close(fd)  # raises if we had closed what was not ours


def test_a_connection_is_no_listener() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        error = refusal(config((), (f"fd://{ours.fileno()}",)))
        assert error.cause.endswith("is a connection, not a listening socket")


# Names


def test_a_shared_socket_is_found_by_its_name() -> None:
    settings = config(("127.0.0.1:0", "web=127.0.0.2:0"), ("=web", "=0"))
    with bound_to(settings) as (bound, lines):
        name, fd = bound.shared[1].name, bound.shared[1].socket.fileno()
        assert [https.shared for https in bound.https] == [1, 0]
        assert bound.https[0].socket is bound.shared[1].socket
        assert lines[1] == f"uwsgi shared socket 1 (web) bound to TCP address {name} fd {fd}"
        assert lines[2] == f"https listener 0 -> shared socket 1 ({name}, fd {fd})"


@pytest.mark.parametrize(
    ("shared", "https", "cause"),
    [
        ((), ("=web",), "there is no shared socket web; none has a name"),
        (("127.0.0.1:0",), ("=web",), "there is no shared socket web; none has a name"),
        (("a=127.0.0.1:0", "b=127.0.0.1:0"), ("=A",), "there is no shared socket A; the names are a, b"),
        (("a=127.0.0.1:0", "a=127.0.0.2:0"), ("=a",), "2 shared sockets have that name; use =0 or =1"),
        (("a=127.0.0.1:0",), ("=0", "=a"), "=0 is already used by https = =0,x.crt,x.key"),
    ],
)
def test_a_name_that_means_no_socket_or_a_taken_one(
    shared: tuple[str, ...], https: tuple[str, ...], cause: str
) -> None:
    assert refusals(config(shared, https)) == {cause}


def test_a_passed_socket_that_is_none_is_the_manager_s_mistake() -> None:
    fd = no_socket()
    passed = SharedSocket(FdAddress(fd), "2, names web:log", "environment", name="log", option="LISTEN_FDS")
    error = refusal(Config(shared_socket=(passed,)))
    cause = f"fd://{fd}: descriptor {fd} is not a socket"
    assert str(error) == f"LISTEN_FDS = 2, names web:log: {cause} (environment)"
    assert refusals(Config(shared_socket=(passed,))) == {cause}
    os.close(fd)


# Refusals


@pytest.mark.parametrize(
    ("shared", "reference", "known"),
    [
        ((), "=0", "no shared-socket is given"),
        (("127.0.0.1:0",), "=1", "only 0 is given"),
        (("127.0.0.1:0", "127.0.0.2:0"), "=99", "0 to 1 are given"),
    ],
)
def test_a_reference_needs_its_shared_socket(shared: tuple[str, ...], reference: str, known: str) -> None:
    settings = config(shared, (reference,))
    assert refusals(settings) == {f"there is no shared socket {reference[1:]}; {known}"}
    assert refusal(settings).value == f"{reference},x.crt,x.key"


@pytest.mark.parametrize(
    ("shared", "https", "cause"),
    [
        (("127.0.0.1:0",), ("=0", "=0"), "=0 is already used by https = =0,x.crt,x.key"),
        ((), ("127.0.0.1:9", "127.0.0.1:9"), "127.0.0.1:9 is already used by https = 127.0.0.1:9,x.crt,x.key"),
        (("127.0.0.1:9", "127.0.0.1:9"), (), "127.0.0.1:9 is already used by shared-socket = 127.0.0.1:9"),
        (("/nowhere/x",), ("/nowhere/x",), "/nowhere/x is already used by shared-socket = /nowhere/x"),
        ((), ("fd://9", "fd://9"), "fd://9 is already used by https = fd://9,x.crt,x.key"),
    ],
)
def test_one_address_serves_once(shared: tuple[str, ...], https: tuple[str, ...], cause: str) -> None:
    assert refusals(config(shared, https)) == {cause}


def test_a_taken_port_is_named_and_all_else_released(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    before = sockets_open()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        error = refusal(config((str(path), "127.0.0.1:0"), ("=0", "=1", taken)))
        assert error.option == "https"
        assert error.value == f"{taken},x.crt,x.key"
        assert error.cause == f"{taken}: the address is in use; is another instance running?"
    assert not path.exists()
    assert sockets_open() == before


def test_where_it_was_written_is_said() -> None:
    shared = SharedSocket(shared_socket("192.0.2.1:443").address, "192.0.2.1:443", "site.ini:7")
    error = refusal(Config(shared_socket=(shared,)))
    assert str(error) == (
        "shared-socket = 192.0.2.1:443: 192.0.2.1:443: no interface of this machine has that address (site.ini:7)"
    )


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **more: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    cause = "nosuchhost.invalid:443: cannot resolve 'nosuchhost.invalid': Name or service not known"
    assert refusals(config((), ("nosuchhost.invalid:443",))) == {cause}


def test_a_name_that_cannot_be_one() -> None:
    (cause,) = refusals(Config(shared_socket=(SharedSocket(TcpAddress("x" * 64, 443), "x"),)))
    assert "cannot resolve" in cause
    assert "not a host name" in cause


@pytest.mark.skipif(IS_ROOT, reason="root may bind any port; run the tests as an ordinary user too")
def test_an_ordinary_user_cannot_bind_443() -> None:
    error = refusal(config((), ("127.0.0.79:443",)))
    assert f"permission denied; uid {os.geteuid()} may not bind port 443, start as root" in error.cause


def test_refused_permission_names_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: object, backlog: int) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sockets, "bind_tcp", refuse)
    assert "may not bind port 443, start as root" in refusal(config((), (":443",))).cause


def test_a_directory_that_does_not_exist() -> None:
    assert refusals(config((), ("/nowhere/at/all.sock",))) == {
        "/nowhere/at/all.sock: its directory does not exist",
        "/nowhere/at/all.sock: no such file or directory",
    }


def test_a_backlog_that_the_kernel_would_cut() -> None:
    limit = int(Path("/proc/sys/net/core/somaxconn").read_text())
    settings = config(("127.0.0.1:0",), ("=0",), listen=limit + 1, origins={"listen": "site.ini:3"})
    error = refusal(settings)
    assert (error.option, error.value, error.where) == ("listen", str(limit + 1), "site.ini:3")
    assert refusals(settings) == {f"is more than net.core.somaxconn allows ({limit}); raise that with sysctl"}
    with bound_to(config(("127.0.0.1:0",), ("=0",), listen=limit)):
        pass


def test_a_shared_socket_cannot_be_a_reference() -> None:
    shared = SharedSocket(SharedAddress(0), "=0")
    assert "cannot itself be =0" in refusal(Config(shared_socket=(shared,))).cause


# Statistics


STATS = (TcpAddress("127.0.0.1", 0), UnixAddress("\0uwsgi-tls-stats-test"))


@pytest.mark.parametrize(("http", "kinds"), [((), [False, False]), ((True,), [True, True]), ((False,), [False, False])])
def test_sockets_for_statistics(http: tuple[bool, ...], kinds: list[bool]) -> None:
    settings = config((), ("127.0.0.1:0",), stats=STATS, stats_http=(*http, TcpAddress("localhost", 0)))
    with bound_to(settings) as (bound, lines):
        assert [each.http for each in bound.stats] == [*kinds, True]
        assert bound.stats[1].name == "@uwsgi-tls-stats-test"
        assert [line.partition(" bound")[0] for line in lines[1:]] == ["stats", "stats", "stats-http"]
        assert all(each.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for each in bound.stats)
    assert all(each.socket.fileno() == -1 for each in bound.stats)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_statistics_for_all_need_a_word(host: str) -> None:
    settings = config((), ("127.0.0.1:0",), stats_http=(TcpAddress(host, 0),))
    before = sockets_open()
    for attempt in (lambda: bind_all(settings, print), lambda: check_all(settings)):
        with pytest.raises(ConfigError, match="stats-public") as caught:
            attempt()
        assert caught.value.option == "stats-http"
    assert sockets_open() == before
    public = dataclasses.replace(settings, stats_public=True)
    with bound_to(public) as (bound, _):
        assert len(bound.stats) == 1
    assert check_all(public)[-1] == f"stats-http: {TcpAddress(host, 0)} (HTTP)"


def test_statistics_have_an_address_of_their_own() -> None:
    settings = config((), ("127.0.0.1:443",), stats=(TcpAddress("127.0.0.1", 443),))
    assert "already used by https" in refusal(settings).cause


# --check


def test_check_says_what_would_be_bound_and_binds_nothing(tmp_path: Path) -> None:
    before = sockets_open()
    fd = listening_fd()
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(stale))
    settings = config(("127.0.0.1:443", f"fd://{fd}", "@name"), ("=1", "localhost:8443", str(stale), "=0"))
    assert check_all(settings) == [
        "shared socket 0: 127.0.0.1:443",
        f"shared socket 1: fd://{fd}",
        "shared socket 2: @name",
        f"https listener 0 -> shared socket 1 (fd://{fd})",
        "https listener 1: localhost:8443",
        f"https listener 2: {stale}",
        "https listener 3 -> shared socket 0 (127.0.0.1:443)",
        "WARNING: shared socket 2 (@name) is used by no https option",
    ]
    assert stale.exists()
    os.close(fd)
    assert sockets_open() == before


def test_release_may_be_called_twice() -> None:
    bound = bind_all(config(("127.0.0.1:0",), ("=0", "127.0.0.1:0")), print)
    bound.release()
    bound.release()
    assert bound.shared[0].socket.fileno() == -1


# Before a reload, and for another program


def test_a_descriptor_that_only_a_reload_brings() -> None:
    """What has its number by now is the master's own."""
    before = bind_all(config((), ("127.0.0.1:0",)), print)
    fd = before.https[0].socket.fileno()
    with pytest.raises(ConfigError, match=f"fd://{fd}: was not there at the start"):
        bind_all(config((), (f"fd://{fd}",)), print, before=before)
    assert before.https[0].socket.getsockname()
    before.release()


def test_what_is_bound_already_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    before = bind_all(config(("127.0.0.1:0",), ("=0", "127.0.0.1:0", "127.0.0.1:0", str(path))), print)
    lines: list[str] = []
    after = bind_all(config(("127.0.0.1:0",), ("=0", str(path), "127.0.0.1:0")), lines.append, before=before)
    assert after.shared[0].socket is before.shared[0].socket
    assert [each.socket for each in after.https] == [
        before.https[0].socket,
        before.https[3].socket,
        before.https[1].socket,
    ]
    assert lines == []
    before.release(keep=after)
    assert [sock.fileno() >= 0 for sock in (each.socket for each in before.https)] == [True, True, False, True]
    assert path.exists()
    after.release()
    assert not path.exists()
    assert all(each.socket.fileno() == -1 for each in after.https)


def test_what_has_come_goes_again(tmp_path: Path) -> None:
    """And with it its file, as when one of them cannot be bound."""
    old, new = tmp_path / "old.sock", tmp_path / "new.sock"
    with bound_to(config((), (str(old),))) as (before, _):
        count = sockets_open()
        after = bind_all(config((), (str(old), str(new))), print, before=before)
        assert new.exists()
        after.release(keep=before)
        with pytest.raises(ConfigError):
            bind_all(config((), (str(old), str(new), "192.0.2.1:1")), print, before=before)
        assert (old.exists(), new.exists(), sockets_open()) == (True, False, count)
        assert before.https[0].socket.fileno() >= 0


def test_the_backlog_may_change() -> None:
    with bound_to(config((), ("127.0.0.1:0",), listen=1)) as (before, _):
        after = bind_all(config((), ("127.0.0.1:0",), listen=50), print, before=before)
        with contextlib.ExitStack() as clients:
            for _ in range(20):
                client = clients.enter_context(socket.socket())
                client.settimeout(5)
                client.connect(after.https[0].socket.getsockname())


def test_what_another_program_takes_over(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    before = bind_all(config(("127.0.0.1:0",), (str(path), "=0")), print)
    left = [dataclasses.replace(each, fd=os.dup(each.fd)) for each in before.inheritance]
    names = [each.name for each in before.https]
    for sock in before.sockets:
        sock.close()
    taken = Bound(left)
    after = bind_all(config(("127.0.0.1:0",), (str(path), "=0")), print, before=taken)
    assert [each.name for each in after.https] == names
    taken.release(keep=after)
    assert path.exists()
    after.release()
    assert not path.exists()
