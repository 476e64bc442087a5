"""`--explain-privileges`: what it says of a real tree is what /proc says, and what it foretells is what comes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from .seed_pki import SERVER_NAME, SeedPki
from .server import ROOT, Daemon, Process, command, curl, is_root, loopback, open_directory, uwsgi_tls

pytestmark = pytest.mark.skipif(not is_root, reason="there is nothing to drop without root")

USER = "www-data"
SETS = {
    "CapPrm": "permitted",
    "CapEff": "effective",
    "CapInh": "inheritable",
    "CapBnd": "bounding",
    "CapAmb": "ambient",
}
LIMITS = {"core": "Max core file size", "nproc": "Max processes", "nofile": "Max open files", "fsize": "Max file size"}
CAPABILITIES = {"none": 0, "net_bind_service": 1 << 10, "dac_read_search": 1 << 2}

# Starts a program that stays, and says which.
STARTS_A_PROGRAM = """
import subprocess

def application(environ, start_response):
    start_response("200 OK", [])
    return [str(subprocess.Popen(["sleep", "60"]).pid).encode()]
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """A server that runs, and what it was started with."""

    daemon: Daemon
    options: tuple[str, ...]
    pidfile: Path
    directory: Path


@pytest.fixture(scope="module")
def tree(self_signed: SeedPki) -> Iterator[Tree]:
    """Started as root with a user: a master, a monitor, two workers and a stats process."""
    host = loopback()
    with open_directory() as directory:
        pidfile = directory / "pid"
        options = (
            *("--shared-socket", f"{host}:443", "--https", "=0,foobar.crt,foobar.key", "--uid", USER),
            *("--processes", "2", "--stats", f"{host}:9191", "--pidfile", str(pidfile)),
        )
        with uwsgi_tls(*options, cwd=self_signed.directory) as daemon:
            daemon.wait_for_workers(2)
            daemon.wait_for_titles("uwsgi-tls stats", 1)
            yield Tree(daemon, options, pidfile, self_signed.directory)


def explained(*options: str | Path, cwd: Path, user: str | None = None) -> dict[str, dict[str, str]]:
    """What it prints: the names of the processes, and of each what is said of it."""
    done = subprocess.run(
        command("--explain-privileges", *options),
        cwd=cwd,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    accounts: dict[str, dict[str, str]] = {}
    last = ""
    for line in done.stdout.splitlines():
        if line.startswith("  "):
            name, _, text = line.strip().partition(" ")
            accounts[last][name] = text.strip()
        elif line and not line.startswith("***") and not line.endswith(":"):
            last = line
            accounts[last] = {}
    return accounts


def assert_as_proc_says(said: dict[str, str], process: Process) -> None:
    """Each line, against what the kernel tells this test."""
    status = process.status()
    for name, field in (("uid", "Uid"), ("gid", "Gid")):
        assert {said[name].partition(" (")[0]} == set(status[field].split()), process.title()
    assert said["groups"].replace("none", "").split() == status["Groups"].split()
    for field, name in SETS.items():
        assert CAPABILITIES[said[name]] == int(status[field], 16), (process.title(), name)
    assert {"yes": "1", "no": "0"}[said["no_new_privs"]] == status["NoNewPrivs"]
    assert {"none": "0", "strict": "1", "filter": "2"}[said["seccomp"]] == status["Seccomp"]
    assert int(said["umask"], 8) == int(status["Umask"], 8)
    if status["Uid"].split()[1] != "0":
        assert said["dumpable"] == ("no" if os.stat(f"/proc/{process.pid}/mem").st_uid == 0 else "yes")
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    for name, title in LIMITS.items():
        assert re.search(rf"^{title} +\S+ +{said[name]} ", limits, re.MULTILINE), (process.title(), name)
    assert said["root"] == os.readlink(f"/proc/{process.pid}/root")
    held = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
    total, _, listed = said["descriptors"].partition(": ")
    assert int(total) == len(held), (listed, held)
    kinds = {name: int(count or 1) for count, name in re.findall(r"(?:(\d+) x )?([^,]+)(?:, |$)", listed)}
    assert kinds.get("/dev/null", 0) == held.count("/dev/null"), said
    sockets = sum(count for name, count in kinds.items() if re.search("socket|connection", name))
    assert sockets == sum(target.startswith("socket:") for target in held), said


def role(name: str) -> str:
    """As the title of the process has it."""
    return name.partition(" (")[0]


@pytest.mark.parametrize("words", [("--pidfile",), ()], ids=["pidfile alone", "its configuration"])
def test_what_it_says_is_what_proc_says(tree: Tree, words: tuple[str, ...]) -> None:
    options = ("--pidfile", str(tree.pidfile)) if words else tree.options
    said = explained(*options, cwd=tree.directory)
    processes = {process.pid: process for process in tree.daemon.tree()}
    assert {int(re.findall(r"\(pid (\d+)\)", name)[0]) for name in said} == processes.keys()
    assert [role(name) for name in said] == ["master", "monitor", "worker 1", "worker 2", "stats"]
    for name, lines in said.items():
        process = processes[int(re.findall(r"\(pid (\d+)\)", name)[0])]
        assert f"uwsgi-tls {role(name)}" in process.title()
        assert_as_proc_says(lines, process)
        assert ("foobar.key" in lines["keys"]) == (not words)


def test_what_root_has_given_up(tree: Tree) -> None:
    """Real, effective and saved ids, groups, capabilities, no_new_privs of each process, and whom it may start."""
    said = {role(name): lines for name, lines in explained("--pidfile", tree.pidfile, cwd=tree.directory).items()}
    monitor = said.pop("monitor")
    for lines in said.values():
        assert (lines["uid"], lines["gid"], lines["groups"]) == ("33 (www-data)", "33", "33")
        assert {lines[name] for name in SETS.values()} == {"none"}
        assert (lines["dumpable"], lines["umask"]) == ("no", "077")
    assert monitor["uid"] == "0 (root)"
    assert {name: monitor[name] for name in SETS.values() if monitor[name] != "none"} == {
        "permitted": "dac_read_search",
        "effective": "dac_read_search",
    }
    assert {name: lines["nproc"] for name, lines in said.items() if lines["nproc"] == "0"}.keys() == {
        *("worker 1", "worker 2", "stats")
    }
    for lines in (monitor, *said.values()):
        assert (lines["no_new_privs"], lines["core"]) == ("yes", "0")


def test_the_commands_of_the_page_show_what_it_says(tree: Tree) -> None:
    """docs/security.md: the loop over /proc, run as it stands there."""
    page = (ROOT / "docs" / "security.md").read_text()
    block = re.search(r"^    P=\$\(cat.*?done$", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    words = ["sh", "-euc", block[0].replace("/run/site.pid", str(tree.pidfile))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = re.split(r"^uwsgi-tls ", done.stdout, flags=re.MULTILINE)[1:]
    assert sorted(part.split()[0] for part in parts) == ["master", "monitor", "stats", "worker", "worker"]
    for part in parts:
        kind = part.split()[0]
        assert ("Uid:\t33\t33\t33\t33" in part) == (kind != "monitor")
        assert part.count("\t" + "0" * 16) == (3 if kind == "monitor" else 5)
        assert "NoNewPrivs:\t1" in part
        assert "memory belongs to root" in part
        assert bool(re.search(r"^Max processes +0 +0 ", part, re.MULTILINE)) == (kind in ("worker", "stats"))
        assert bool(re.search(r"^Max file size +0 +0 ", part, re.MULTILINE)) == (kind in ("monitor", "stats"))


def without_what_only_time_shows(said: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    kept = {role(name): dict(lines) for name, lines in said.items()}
    for name, lines in kept.items():
        del lines["descriptors"]
        if name == "stats":
            del lines["nofile"]
    return kept


@pytest.mark.parametrize(
    ("options", "user"),
    [
        pytest.param(("--uid", USER), None, id="root with a user"),
        pytest.param(
            (*("--uid", USER, "--add-gid", "adm", "--cap", "net_bind_service", "--umask", "027", "--no-monitor"),
             *("--rlimit-nofile", "300", "--wsgi-file", "app.py")),
            None,
            id="all that can be had otherwise",
        ),
        pytest.param((), None, id="root alone"),
        pytest.param((), USER, id="an ordinary user"),
    ],
)  # fmt: skip
def test_what_it_foretells_is_what_comes(
    self_signed: SeedPki, public_directory: Path, options: tuple[str, ...], user: str | None
) -> None:
    (public_directory / "app.py").write_text(STARTS_A_PROGRAM)
    for file in (self_signed.certificate, self_signed.key):
        (public_directory / file.name).write_bytes(file.read_bytes())
    host = loopback()
    everything = [
        *("--https", f"{host}:8443,foobar.crt,foobar.key", "--stats", f"{host}:9191"),
        *("--pidfile", "pid", *options),
    ]
    if user:
        os.chown(public_directory, 33, 33)
    with subprocess.Popen(["true"]) as process:  # nobody has its number when it has ended
        (public_directory / "pid").write_text(f"{process.pid}\n")
        (public_directory / "pid").chmod(0o644)
        if user:
            os.chown(public_directory / "pid", 33, 33)
    foretold = explained(*everything, cwd=public_directory, user=user)
    with uwsgi_tls(*everything, cwd=public_directory, user=user) as daemon:
        daemon.wait_for_workers(1)
        daemon.wait_for_titles("uwsgi-tls stats", 1)
        seen = explained(*everything, cwd=public_directory)
    assert without_what_only_time_shows(seen) == without_what_only_time_shows(foretold)


def holds(pid: int, secret: bytes) -> bool:
    """Whether these bytes are anywhere in the memory of a process, which only root may read."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, last = (int(number, 16) for number in line.split()[0].split("-"))
            if line.split()[1].startswith("rw"):
                memory.seek(first)
                if secret in memory.read(last - first):
                    return True
    return False


def test_the_keys_are_where_it_says(self_signed: SeedPki, public_directory: Path) -> None:
    """A fork has what its parent had, so all of them have the private key, and a program that was executed has not."""
    key = load_pem_private_key(self_signed.key.read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    prime = key.private_numbers().p
    secret = prime.to_bytes(prime.bit_length() // 8, "little")  # as OpenSSL has it: words, the lowest first
    (public_directory / "app.py").write_text(STARTS_A_PROGRAM)
    host = loopback()
    options = ["--https", f"{host}:443,foobar.crt,foobar.key", "--uid", USER, "--stats", f"{host}:9191"]
    options += ["--wsgi-file", str(public_directory / "app.py"), "--pidfile", str(public_directory / "pid")]
    with uwsgi_tls(*options, cwd=self_signed.directory) as daemon:
        daemon.wait_for_workers(1)
        daemon.wait_for_titles("uwsgi-tls stats", 1)
        program = int(curl(f"https://{SERVER_NAME}/", *self_signed.curl_server, host=host).stdout)
        try:
            said = explained(*options, cwd=self_signed.directory)
            assert len(said) == 5
            for name, lines in said.items():
                pid = int(re.findall(r"\(pid (\d+)\)", name)[0])
                assert ("foobar.key" in lines["keys"]) == holds(pid, secret) == (pid != program), name
            assert f"program of {daemon.wait_for_workers(1)[0].pid} (pid {program})" in said
        finally:
            os.kill(program, signal.SIGKILL)


def test_others_than_root_are_not_shown_all(tree: Tree) -> None:
    said = explained("--pidfile", tree.pidfile, cwd=Path("/"), user="daemon")
    master = next(lines for name, lines in said.items() if role(name) == "master")
    assert master["uid"] == "33 (www-data)"
    assert master["descriptors"] == master["root"] == "shown to root alone"


@pytest.mark.parametrize("content", [None, "", "x", "1", "999999999"], ids=["none", "empty", "text", "init", "nobody"])
def test_a_pidfile_of_no_server(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "pid").write_text(content)
    words = command("--explain-privileges", "--pidfile", tmp_path / "pid")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    cause = "holds no number" if content == "x" else "names no uwsgi-tls master that runs"
    assert done.stderr == f"uwsgi-tls: pidfile = {tmp_path}/pid: {cause}\n"


def test_root_believes_no_pidfile_of_another_user(tree: Tree) -> None:
    """As with `uwsgi-tls stop`."""
    with open_directory() as directory:
        pidfile = directory / "pid"
        pidfile.write_text(tree.pidfile.read_text())
        os.chown(pidfile, 65534, -1)
        os.chown(directory, 65534, -1)
        words = command("--explain-privileges", "--pidfile", pidfile)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "uid 65534 may write it, and names process" in done.stderr


def test_it_changes_nothing(self_signed: SeedPki) -> None:
    """No socket is bound and no file is made."""
    host = loopback()
    before = sorted(os.listdir(self_signed.directory))
    with socket.create_server((host, 443)):
        said = explained("--https", f"{host}:443,foobar.crt,foobar.key", "--pidfile", "pid", cwd=self_signed.directory)
    assert list(said) == ["master", "worker 1"]
    assert sorted(os.listdir(self_signed.directory)) == before
