"""backends/nodes.py: what an address becomes, and whose turn it is."""

from __future__ import annotations

import socket

import pytest

from uwsgi_tls.addresses import FdAddress, SharedAddress, TcpAddress, UnixAddress
from uwsgi_tls.backends import nodes as nodes_module
from uwsgi_tls.backends.nodes import Node, Nodes
from uwsgi_tls.errors import ConfigError


def test_node() -> None:
    for address, name, family, where in (
        (UnixAddress("/run/a.sock"), "/run/a.sock", socket.AF_UNIX, "/run/a.sock"),
        (UnixAddress("\0name"), "@name", socket.AF_UNIX, "\0name"),
        (TcpAddress("127.0.0.1", 3031), "127.0.0.1:3031", socket.AF_INET, ("127.0.0.1", 3031)),
        (TcpAddress("::1", 3031), "[::1]:3031", socket.AF_INET6, ("::1", 3031, 0, 0)),
    ):
        node = nodes_module.node(address)
        assert (node.name, node.family, node.address, node.dead_until) == (name, family, where, 0.0)


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        (TcpAddress("no.such.host.invalid", 1), "cannot resolve the name"),
        (TcpAddress("x" * 64 + ".invalid", 1), "cannot resolve the name"),
        (SharedAddress(0), "not the address of a server"),
        (FdAddress(3), "not the address of a server"),
    ],
)
def test_bad_node(address: TcpAddress | SharedAddress | FdAddress, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause) as caught:
        nodes_module.node(address)
    assert caught.value.option == "http-to"
    with pytest.raises(ConfigError) as caught:
        nodes_module.node(address, "http-fallback")
    assert caught.value.option == "http-fallback"


NOW = 1000.0


def choices(dead: str, tried: str, rounds: int, fallback: str = "") -> str:
    """Whose turn it is, of the nodes a, b and c and these to fall back on, so many times."""
    each = {name: Node(name, socket.AF_UNIX, name, NOW + 30 if name in dead else 0.0) for name in f"abc{fallback}"}
    nodes = Nodes([each[name] for name in "abc"], [each[name] for name in fallback])
    chosen = [nodes.choose([each[name] for name in tried], NOW) for _ in range(rounds)]
    return "".join("-" if node is None else node.name for node in chosen)


@pytest.mark.parametrize(
    ("dead", "tried", "expected"),
    [
        pytest.param("", "", "abcabc", id="in turn"),
        pytest.param("b", "", "accacc", id="a dead one is passed over"),
        pytest.param("ab", "", "cccccc", id="one lives"),
        pytest.param("abc", "", "abcabc", id="none lives: any"),
        pytest.param("", "a", "bbcbbc", id="tried already"),
        pytest.param("b", "ac", "bbbbbb", id="only a dead one is left"),
        pytest.param("", "abc", "------", id="all tried"),
    ],
)
def test_choose(dead: str, tried: str, expected: str) -> None:
    assert choices(dead, tried, 6) == expected


@pytest.mark.parametrize(
    ("dead", "tried", "expected"),
    [
        pytest.param("", "", "abca", id="not needed"),
        pytest.param("ab", "", "cccc", id="one lives"),
        pytest.param("abc", "", "xxxx", id="none lives: the first, not in turn"),
        pytest.param("abcx", "", "yyyy", id="nor the first to fall back on"),
        pytest.param("", "abc", "xxxx", id="all tried just now"),
        pytest.param("", "abcx", "yyyy", id="and the first to fall back on"),
        pytest.param("bc", "a", "xxxx", id="one tried, the others passed over"),
        pytest.param("abcxy", "", "abca", id="nobody lives: any of the first choice"),
        pytest.param("xy", "abc", "xxxx", id="only dead ones to fall back on are left"),
        pytest.param("xy", "abcx", "yyyy", id="one of them"),
        pytest.param("", "abcxy", "----", id="all tried"),
    ],
)
def test_fall_back(dead: str, tried: str, expected: str) -> None:
    assert choices(dead, tried, 4, fallback="xy") == expected


def test_the_dead_live_again() -> None:
    node, other = Node("a", socket.AF_UNIX, "a", dead_until=NOW + 30), Node("b", socket.AF_UNIX, "b")
    nodes = Nodes([node], [other])
    assert [nodes.choose([], NOW) for _ in range(2)] == [other, other]
    assert [nodes.choose([], NOW + 30) for _ in range(2)] == [node, node]
