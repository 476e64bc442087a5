"""Which of several sites a server name belongs to: exact names, then wildcards of one label, then expressions.

A name is what `hello.host_name` makes of an SNI (RFC 6066, 3), and `of_host` of a Host field: lower case, no trailing
dot, "" for what no host can be called. A wildcard stands for one label (RFC 6125, 6.4.3). Looking up an exact name or a
wildcard costs two dictionary look-ups, however many there are.
"""

import re
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address
from typing import Generic, TypeVar

from uwsgi_tls import hello

EXPRESSION_FLAGS = re.ASCII | re.IGNORECASE
DEFAULT_HOST = "localhost"  # whom an HTTP/1.0 request means that has no Host; an application is told so too

T = TypeVar("T")


class Names(Generic[T]):
    """A value for each name."""

    __slots__ = ("_below", "_default", "_exact", "_expressions")

    def __init__(self, default: T) -> None:
        """`default` is the value of a name that none of the others fits, and of no name."""
        self._default = default
        self._exact: dict[str, T] = {}
        self._below: dict[str, T] = {}  # by what follows the first dot
        self._expressions: list[tuple[re.Pattern[str], T]] = []

    def add(self, patterns: Iterable[str], value: T) -> None:
        """Gives names and wildcards (*.example.com) a value. The first that is given for a name stays."""
        for pattern in patterns:
            first, _, rest = pattern.partition(".")
            if first == "*":
                self._below.setdefault(rest, value)
            else:
                self._exact.setdefault(pattern, value)

    def add_expression(self, expression: str, value: T) -> None:
        """Gives a value to names in which the expression is found. The first that fits counts."""
        self._expressions.append((re.compile(expression, EXPRESSION_FLAGS), value))

    def find(self, name: str) -> T:
        if name in self._exact:
            return self._exact[name]
        _, dot, parent = name.partition(".")
        if dot and parent in self._below:
            return self._below[parent]
        if name:
            for expression, value in self._expressions:
                if expression.search(name):
                    return value
        return self._default


def of_host(host: str) -> str:
    """The name in a Host field without its port; "" for an address, and for what `http` lets pass but is no name."""
    return hello.host_name((host or DEFAULT_HOST).partition(":")[0].encode("latin-1"))


def is_address(host: str) -> bool:
    """Whether a Host field, as `http` lets it pass, has an IP address instead of a name."""
    if host.startswith("["):
        return True
    try:
        IPv4Address(host.partition(":")[0])
    except AddressValueError:
        return False
    return True
