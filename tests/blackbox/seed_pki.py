"""The seed page's openssl commands, typed as a person types them.

Each command runs on a pseudo-terminal of its own, pass phrases and the questions of `openssl req` are answered when
openssl asks for them, and nothing is put on the command line that the page does not have there. An unexpected
question, a refused answer or a failing command is an error with everything that openssl said.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

COMMAND_SECONDS = 60.0  # a 4096-bit RSA key may take a while
SERVER_NAME = "foobar.example"
CA_PASSWORD = "the CA's own secret"
CLIENT_PASSWORD = "client key secret"
EXPORT_PASSWORD = "p12-secret"

# The page's commands, one list a section, and in this order.
SELF_SIGNED = """
openssl genrsa -out foobar.key 2048
openssl req -new -key foobar.key -out foobar.csr
openssl x509 -req -days 365 -in foobar.csr -signkey foobar.key -out foobar.crt
"""
CERTIFICATE_AUTHORITY = """
openssl genrsa -des3 -out ca.key 4096
openssl req -new -x509 -days 365 -key ca.key -out ca.crt
"""
SERVER = """
openssl genrsa -out foobar.key 2048
openssl req -new -key foobar.key -out foobar.csr
openssl x509 -req -days 365 -in foobar.csr -CA ca.crt -CAkey ca.key -set_serial 01 -out foobar.crt
"""
CLIENT = """
openssl genrsa -des3 -out client.key 2048
openssl req -new -key client.key -out client.csr
openssl x509 -req -days 365 -in client.csr -CA ca.crt -CAkey ca.key -set_serial 01 -out client.crt
openssl pkcs12 -export -in client.crt -inkey client.key -name "Client 01" -out client.p12
"""

# What openssl asks, as a pattern at the end of what it has printed, and which answer it wants.
QUESTIONS = {
    r"pass phrase for ca\.key:": "ca password",
    r"pass phrase for client\.key:": "client password",
    r"[Ee]nter PEM pass phrase:": "new password",
    r"Enter Export Password:": "export password",
    r"Country Name .*:": "country",
    r"State or Province Name .*:": "state",
    r"Locality Name .*:": "locality",
    r"Organization Name .*:": "organization",
    r"Organizational Unit Name .*:": "unit",
    r"Common Name .*:": "name",
    r"Email Address .*:": "email",
    r"A challenge password .*:": "challenge",
    r"An optional company name .*:": "company",
}
PEOPLE = {"ca": ("Seed CA", ""), "foobar": (SERVER_NAME, ""), "client": ("Client 01", "client@example.org")}


@dataclass(frozen=True, slots=True)
class SeedPki:
    """Where the page's files are; those of a section that was not typed are not on the disk."""

    directory: Path

    @property
    def certificate(self) -> Path:
        return self.directory / "foobar.crt"

    @property
    def key(self) -> Path:
        return self.directory / "foobar.key"

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def client_certificate(self) -> Path:
        return self.directory / "client.crt"

    @property
    def client_key(self) -> Path:
        return self.directory / "client.key"

    @property
    def client_p12(self) -> Path:
        return self.directory / "client.p12"

    @property
    def curl_server(self) -> tuple[str, ...]:
        """curl's options to trust this server; with the page's self-signed one, itself."""
        return ("--cacert", str(self.ca if self.ca.exists() else self.certificate))

    @property
    def curl_client(self) -> tuple[str, ...]:
        """curl's options to show the client's PKCS#12."""
        return ("--cert-type", "P12", "--cert", f"{self.client_p12}:{EXPORT_PASSWORD}")


def self_signed(directory: Path) -> SeedPki:
    """The page's first section: a self-signed foobar.crt with its foobar.key, in `directory`."""
    _type_all(SELF_SIGNED, directory)
    return SeedPki(directory)


def with_authority(directory: Path) -> SeedPki:
    """The page's section on client certificates: password-protected CA, server and client that it signed."""
    for commands in (CERTIFICATE_AUTHORITY, SERVER, CLIENT):
        _type_all(commands, directory)
    return SeedPki(directory)


def _type_all(commands: str, directory: Path) -> None:
    for line in commands.strip().splitlines():
        who = "client" if "client." in line else "foobar" if "foobar." in line else "ca"
        name, email = PEOPLE[who]
        type_command(
            shlex.split(line),
            directory,
            {
                "ca password": CA_PASSWORD,
                "client password": CLIENT_PASSWORD,
                # openssl 3 before 3.2 names no file when it asks for the pass phrase of a new key
                "new password": CA_PASSWORD if who == "ca" else CLIENT_PASSWORD,
                "export password": EXPORT_PASSWORD,
                "country": "IT",
                "state": "Lazio",
                "locality": "Roma",
                "organization": "Lab",
                "unit": "",
                "name": name,
                "email": email,
                "challenge": "",
                "company": "",
            },
        )


def type_command(command: list[str], directory: Path, answers: Mapping[str, str]) -> str:
    """Run `command` in `directory` on a terminal, answer its questions, return what the terminal showed.

    Raises AssertionError if the command asks something unknown, takes too long or fails.
    """
    master, slave = pty.openpty()
    # A session of its own has no controlling terminal, so openssl can't ask the person who runs the tests: it finds
    # that /dev/tty does not open and asks on its standard input, which is the pseudo-terminal.
    with subprocess.Popen(
        command, cwd=directory, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=_environment()
    ) as process:
        os.close(slave)
        try:
            said = _converse(process, master, answers)
        finally:
            process.kill()
            os.close(master)
    assert process.returncode == 0, f"{shlex.join(command)} failed:\n{said}"
    return said


def _converse(process: subprocess.Popen[bytes], terminal: int, answers: Mapping[str, str]) -> str:
    """Answer until the terminal hangs up; returns everything that was shown."""
    said, answered = "", 0
    deadline = time.monotonic() + COMMAND_SECONDS
    while True:
        readable, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert readable, f"openssl still asks or works after {COMMAND_SECONDS:.0f} s:\n{said}"
        try:
            data = os.read(terminal, 65536)
        except OSError:  # EIO: how a pseudo-terminal says that the other side is closed
            data = b""
        if not data:
            process.wait(COMMAND_SECONDS)
            return said
        said += data.decode(errors="replace")
        line = said[answered:].rpartition("\n")[2]
        for pattern, answer in QUESTIONS.items():
            if re.search(pattern + r"\s*$", line):
                os.write(terminal, answers[answer].encode() + b"\n")
                answered = len(said)
                break


def _environment() -> dict[str, str]:
    """The environment without what would make openssl take another configuration, or speak another language."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/", "LC_ALL": "C"}
