"""Where `uwsgi-tls pki` gets passwords: a file, a terminal, or made up; never argv, which ps(1) shows to all."""

import getpass
import os
import secrets
from pathlib import Path

from uwsgi_tls.certificate_authority import Refused

PASSWORD_BYTES_MAX = 1023  # openssl(1) reads no more
LETTERS = "23456789abcdefghijkmnpqrstuvwxyz"  # 32 that nobody takes for each other: 5 bits a letter


def from_file(path: str) -> bytes:
    """The first line of the file, which may be a pipe. Raises Refused; OSError for what the system says."""
    with open(path, "rb") as file:
        return _good(file.readline(PASSWORD_BYTES_MAX + 3).rstrip(b"\r\n"), f"password file {path}")


def from_terminal(prompt: str, otherwise: str) -> bytes:
    """What a person types. Raises Refused if there is no terminal: then the option `otherwise` is what is needed."""
    if not os.isatty(0):
        raise Refused(f"there is no terminal to ask for a password: {otherwise} names a file")
    try:
        return _good(getpass.getpass(prompt).encode(), "password")
    except (EOFError, UnicodeError):
        raise Refused("no password was given, or none that can be read") from None


def new_from_terminal(path: Path, otherwise: str) -> bytes:
    """The same, typed twice, for the new file `path`."""
    password = from_terminal(f"New password of {path}: ", otherwise)
    if from_terminal("Once more: ", otherwise) != password:
        raise Refused("the two passwords differ")
    return password


def made_up() -> bytes:
    """100 random bits in four groups that can be typed on a telephone."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(5)) for _ in range(4)).encode()


def _good(password: bytes, what: str) -> bytes:
    if not 0 < len(password) <= PASSWORD_BYTES_MAX:
        raise Refused(f"{what}: is empty, or has more than {PASSWORD_BYTES_MAX} bytes")
    return password
