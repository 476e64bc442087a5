"""activation.py: what the variables of sd_listen_fds(3) make of a configuration."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import pytest

from uwsgi_tls import activation
from uwsgi_tls.activation import descriptors
from uwsgi_tls.addresses import FdAddress, TcpAddress
from uwsgi_tls.converters import SharedSocket, shared_socket
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import parse_https
from uwsgi_tls.options import Config

ME = str(os.getpid())


def config(*shared: str, https: tuple[str, ...] = ("=0",), **more: Any) -> Config:
    return Config(
        shared_socket=tuple(shared_socket(text) for text in shared),
        https=tuple(parse_https(f"{text},x.crt,x.key") for text in https),
        **more,
    )


def with_passed(before: Config, environ: dict[str, str], log: Callable[[str], None]) -> Config:
    return activation.with_passed(before, activation.passed(environ, log))


def quiet(text: str) -> None:
    pytest.fail(f"said {text!r}")


def passed(before: Config, environ: dict[str, str]) -> list[tuple[int, str]]:
    """Descriptor and name of the shared sockets that came from `environ`, of which nothing is left."""
    after = with_passed(before, environ, quiet)
    assert not environ
    count = len(after.shared_socket) - len(before.shared_socket)
    assert after.shared_socket[count:] == before.shared_socket
    return [
        (shared.address.fd, shared.name)
        for shared in after.shared_socket[:count]
        if isinstance(shared.address, FdAddress)
    ]


def test_they_come_first_and_in_order() -> None:
    before = config("0.0.0.0:443", processes=3)
    environ = {"LISTEN_PID": ME, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:admin"}
    after = with_passed(before, environ, quiet)
    assert [shared.address for shared in after.shared_socket] == [
        FdAddress(3),
        FdAddress(4),
        TcpAddress("0.0.0.0", 443),
    ]
    assert after.processes == 3
    assert environ == {}


@pytest.mark.parametrize(
    ("environ", "sockets"),
    [
        ({}, []),
        ({"LISTEN_FDS": ""}, []),
        ({"LISTEN_PID": ME, "LISTEN_FDS": "0"}, []),
        ({"LISTEN_PID": ME, "LISTEN_FDS": "1"}, [(3, "")]),
        ({"LISTEN_PID": ME, "LISTEN_FDS": "2", "LISTEN_FDNAMES": ":a.socket"}, [(3, ""), (4, "a.socket")]),
        ({"LISTEN_PID": ME, "LISTEN_FDS": "1", "LISTEN_PIDFDID": "77"}, [(3, "")]),
        ({"LISTEN_PID": "1", "LISTEN_FDNAMES": "left:over"}, []),
    ],
)
def test_the_variables(environ: dict[str, str], sockets: list[tuple[int, str]]) -> None:
    assert passed(config("0.0.0.0:443"), environ) == sockets


@pytest.mark.parametrize("pid", ["1", "", "x"])
def test_those_of_another_process_are_ignored(pid: str) -> None:
    said: list[str] = []
    before = config("0.0.0.0:443")
    environ = {"LISTEN_PID": pid, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "nonsense", "HOME": "/"}
    assert with_passed(before, environ, said.append) is before
    assert environ == {"HOME": "/"}
    assert said == [f"LISTEN_FDS = 2 is ignored: LISTEN_PID is {pid or 'not set'}, this process {ME}"]


def test_what_the_configuration_names_itself_is_not_counted() -> None:
    before = config("fd://4", https=("fd://3", "=0"))
    assert passed(before, {"LISTEN_PID": ME, "LISTEN_FDS": "4", "LISTEN_FDNAMES": "a:b:c:d"}) == [(5, "c"), (6, "d")]


@pytest.mark.parametrize(
    ("count", "names", "line"),
    [
        ("x", "", "LISTEN_FDS = x: is not a number of sockets up to 4096 (environment)"),
        ("-1", "", "LISTEN_FDS = -1: is not a number of sockets up to 4096 (environment)"),
        ("\u0663", "", "LISTEN_FDS = \u0663: is not a number of sockets up to 4096 (environment)"),
        ("9" * 6000, "", f"LISTEN_FDS = {'9' * 6000}: is not a number of sockets up to 4096 (environment)"),
        ("2", "a", "LISTEN_FDNAMES = a: has 1 names for 2 sockets (environment)"),
        ("1", "a:b", "LISTEN_FDNAMES = a:b: has 2 names for 1 sockets (environment)"),
    ],
)
def test_nonsense_is_one_line(count: str, names: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_passed(config(), {"LISTEN_PID": ME, "LISTEN_FDS": count, "LISTEN_FDNAMES": names}, quiet)
    assert str(caught.value) == line


def test_which_descriptors_a_configuration_names() -> None:
    named = config("fd://7", "127.0.0.1:0", https=("fd://9", "=1"))
    assert descriptors(named) == {FdAddress(7), FdAddress(9)}
    told = dataclasses.replace(named, stats=(FdAddress(11),), stats_http=(True, FdAddress(12)))
    assert descriptors(told) == {FdAddress(number) for number in (7, 9, 11, 12)}


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("web=0.0.0.0:443", "web", "0.0.0.0:443"),
        ("0.0.0.0:443", "", "0.0.0.0:443"),
        ("web=[::]:443", "web", "[::]:443"),
        ("web=fd://9", "web", "fd://9"),
        ("app=/run/a=b", "app", "/run/a=b"),
        ("/run/a=b", "", "/run/a=b"),
        ("./a=b", "", "./a=b"),
        ("@a=b", "", "@a=b"),
    ],
)
def test_a_shared_socket_may_have_a_name(text: str, name: str, address: str) -> None:
    shared = shared_socket(text)
    assert (shared.name, str(shared.address)) == (name, address)
    assert isinstance(shared, SharedSocket)
