"""names.py: who answers for which name."""

import pytest

from uwsgi_tls.names import Names, is_address, of_host


@pytest.fixture
def names() -> Names[str]:
    found = Names("nobody")
    found.add(["exact.wild.lab", "a.lab"], "exact")
    found.add(["*.wild.lab"], "wild")
    found.add(["*.lab"], "lab")
    found.add_expression(r"^r[0-9]+\.re$", "expression")
    found.add_expression(r"\.re", "second")
    return found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.lab", "exact"),
        ("exact.wild.lab", "exact"),
        ("other.wild.lab", "wild"),
        ("wild.lab", "lab"),
        ("b.lab", "lab"),
        ("a.b.wild.lab", "nobody"),  # a wildcard is one label
        ("lab", "nobody"),
        ("r1.re", "expression"),
        ("rx.re", "second"),
        ("a.re.example", "second"),  # found anywhere, as in uWSGI
        ("a.example", "nobody"),
        ("", "nobody"),
    ],
)
def test_the_most_exact_counts(name: str, value: str, names: Names[str]) -> None:
    assert names.find(name) == value


def test_no_name_is_nobodys() -> None:
    names = Names("nobody")
    names.add_expression("", "everybody")
    assert (names.find(""), names.find("a")) == ("nobody", "everybody")


def test_the_first_of_a_name_stays(names: Names[str]) -> None:
    names.add(["a.lab", "*.wild.lab"], "later")
    assert (names.find("a.lab"), names.find("x.wild.lab")) == ("exact", "wild")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("A.Lab", "a.lab"),
        ("a.lab:443", "a.lab"),
        ("a.lab.:8443", "a.lab"),
        ("127.0.0.1:443", ""),
        ("[::1]:443", ""),
        ("", "localhost"),  # as an application is told
        ("\xe9.lab", ""),
        ("-a.lab", ""),
        ("%61.lab", ""),
    ],
)
def test_the_name_of_a_host(host: str, name: str) -> None:
    assert of_host(host) == name


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:443", True),
        ("[::1]", True),
        ("[::1]:443", True),
        ("127.0.0.1.", False),
        ("1.2.3", False),
        ("1.2.3.256", False),
        ("-a.lab", False),
        ("a.lab:443", False),
        ("", False),
    ],
)
def test_an_address_is_no_name(host: str, address: bool) -> None:
    assert is_address(host) is address
