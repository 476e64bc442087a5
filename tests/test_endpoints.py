"""endpoints.py: which files are the configuration's, what a reload does with them, and what is said of their dates.

A master that has been taken over is played by a forked child: it has started the monitor, lost root, and asks.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from forked import in_child
from pki import SERVER, common_name, issue, key_pem, pki, revocation_list, write_secret

from uwsgi_tls import certificates, config, endpoints, privileges, vhosts
from uwsgi_tls.endpoints import Endpoints
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.options import Config
from uwsgi_tls.passphrases import Passphrases
from uwsgi_tls.users import Identity

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to keep")

WWW = Identity("www-data", 33, 33, (33,))
NOT_NAMED = [errno.EPERM, "the configuration does not name it"]


@pytest.fixture
def own(own: Path) -> Path:
    """A directory of root's own with a site, one more in sni-dir, and files that are nobody's business."""
    (own / "sites").mkdir()
    issue(own, "s", common_name("server.lab"), pki().ca)
    issue(own / "sites", "first.lab", common_name("first.lab"), pki().ca)
    for file in ("ca.crt", "crl.pem", "passwords", "other.key", "sites/notes.txt", "sites/.hidden"):
        (own / file).write_text(f"content of {file}")
        os.chmod(own / file, 0o600)
    return own


def make(directory: Path, *more: str) -> Endpoints:
    """The endpoints of a configuration that names those files; none of them has a socket yet."""
    words = ["--https", f":0,{directory}/s.crt,{directory}/s.key,,{directory}/ca.crt", "--ssl-crl"]
    words += [f"{directory}/crl.pem", "--sni-dir", f"{directory}/sites"]
    words += ["--ssl-key-password-file", f"{directory}/passwords", *more]
    return Endpoints(config.load(words, {}), [])


# --- which files -------------------------------------------------------------------------------


def test_every_file_that_is_named(own: Path) -> None:
    found = {os.path.relpath(path, own) for path in make(own).paths()}
    sites = {"sites", "sites/first.lab.crt", "sites/first.lab.key"}
    assert found == {"s.crt", "s.key", "ca.crt", "crl.pem", "passwords", *sites}


def test_what_has_come_into_the_directory_and_gone(own: Path) -> None:
    served = make(own)
    before = served.paths()
    key, certificate = own / "sites" / "new.lab.key", own / "sites" / "new.lab.crt"
    key.touch()
    assert served.paths() == before  # it is no site's yet
    certificate.touch()
    assert served.paths() == before | {str(key), str(certificate)}
    certificate.unlink()
    assert served.paths() == before


def taken_over(own: Path, ask: Callable[[Callable[[str], object]], object]) -> Any:
    """What `ask` returns in a master that has lost root; it is given a way to ask the monitor for a path."""
    served = make(own)

    def child() -> object:
        served.start_monitor()
        privileges.drop(WWW)
        privileges.harden(no_new_privs=True)

        def asked(path: str) -> object:
            assert served.monitor is not None
            try:
                fd = served.monitor.open(path)
            except OSError as error:
                return [error.errno, error.strerror]
            status = os.fstat(fd)
            os.close(fd)
            return "opened" if (status.st_dev, status.st_ino) == known.get(path) else "another file"

        return ask(asked)

    known = {}
    for path in [*own.rglob("*"), own]:
        status = path.stat()
        known[str(path)] = (status.st_dev, status.st_ino)
    return in_child(child)


@needs_root
def test_a_master_that_was_taken_over_gets_what_it_had_anyway(own: Path) -> None:
    for suffix in ("crt", "key", "ca"):
        (own / "sites" / f"later.lab.{suffix}").write_text("as a name that is added")
    paths = [*make(own).paths()]
    assert taken_over(own, lambda asked: {path: asked(path) for path in paths}) == dict.fromkeys(paths, "opened")


OTHERS = [
    "/etc/shadow",
    "/root/.ssh/id_rsa",
    "{own}",
    "{own}/other.key",
    "{own}/./s.key",
    "{own}//s.key",
    "{own}/s.key/../other.key",
    "{own}/sites/..",
    "{own}/sites/../other.key",
    "{own}/sites/../s.key",
    "{own}/sites/notes.txt",
    "{own}/sites/.hidden",
    "{own}/sites/no-name-.key",
    "{own}/sites/no-name-.crt",
    "{own}/sites/alone.lab.key",
    "{own}/sites/alone.lab.ca",
    "{own}/sites/./first.lab.key",
    "{own}/sites/first.lab.key/../../other.key",
    "{own}/sites/sub/dir.key",
    "/proc/self/mem",
    "/proc/self/root{own}/s.key",
    "s.key",
    ".",
]


@needs_root
def test_and_nothing_else(own: Path) -> None:
    for file in ("no-name-.key", "no-name-.crt", "alone.lab.key", "alone.lab.ca"):
        (own / "sites" / file).write_text("nothing that a site has")
    (own / "sites" / "sub").mkdir()
    (own / "sites" / "sub" / "dir.key").write_text("one floor too deep")
    paths = [path.format(own=own) for path in OTHERS]
    answers = taken_over(own, lambda asked: [asked(path) for path in [*paths, f"{own}/s.key"]])
    assert answers == [NOT_NAMED] * len(paths) + ["opened"]


@needs_root
@pytest.mark.parametrize("name", ["s.key", "sites/first.lab.key", "sites/new.lab.key"])
@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "FIFO"])
def test_what_a_user_has_planted(own: Path, name: str, kind: str) -> None:
    """In a directory that is the user's (as a web server's account often owns its sni-dir), nothing is opened as root,
    be it what it was or a way to another file."""
    planted = own / name
    planted.unlink(missing_ok=True)
    planted.with_suffix(".crt").touch()
    match kind:
        case "symbolic link":
            planted.symlink_to("/etc/shadow")
        case "hard link":
            os.link(own / "other.key", planted)
        case "FIFO":
            os.mkfifo(planted, 0o600)
    os.chown(planted.parent, 33, 33)
    code, text = taken_over(own, lambda asked: asked(str(planted)))
    assert code == errno.EPERM
    assert f"others than root may change {planted.parent}" in text


@needs_root
@pytest.mark.parametrize("name", ["sites/fifo.key", "sites/dir.key", "sites/null.key"])
def test_what_is_no_file(own: Path, name: str) -> None:
    """Though it be root who put it there: to open a FIFO or a device may wait, or do something."""
    (own / name).with_suffix(".crt").touch()
    match name:
        case "sites/fifo.key":
            os.mkfifo(own / name)
        case "sites/null.key":
            (own / name).symlink_to("/dev/null")
        case "sites/dir.key":
            (own / name).mkdir()
    answer = taken_over(own, lambda asked: asked(str(own / name)))
    if name == "sites/dir.key":
        assert answer == "opened"  # its names, which are no keys
    else:
        assert answer == [errno.EPERM, "is neither a regular file nor a directory"]


# --- what is said of dates ----------------------------------------------------------------------


def expiring(directory: Path, days: float, since: float = -90) -> Endpoints:
    """A site whose certificate is good for so many days more, and has been for others."""
    site = issue(directory, "a", common_name("server.lab"), pki().ca, usage=[SERVER], days=(since, days))
    served = Endpoints(config.load(["--https", f":0,{site.crt},{site.key_file}"], {}), [])
    served.make(lambda text: None)
    return served


@pytest.mark.parametrize(
    ("since", "days", "said"),
    [
        (-60, 10, r"certificate .*/a\.crt: expires on 20\d\d-\d\d-\d\d \d\d:\d\d UTC"),
        (-90, 20.9, "expires on 20"),
        (-90, 21.1, ""),
        (-4.6, 1.4, "expires on 20"),
        (-4.4, 1.6, ""),
        (1, 7, ""),
        (-90, -1, "has expired on 20"),
    ],
)
def test_the_daily_reminder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: float, days: float, said: str
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(endpoints, "line", lines.append)
    expiring(tmp_path, days, since).remind()
    assert len(lines) == bool(said)
    assert not said or re.search(said, lines[0])


def test_a_reminder_comes_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For who is asked each hour; what has changed is said at once, and a new configuration does not begin anew."""
    lines: list[str] = []
    monkeypatch.setattr(endpoints, "line", lines.append)
    served = expiring(tmp_path, 2.0001, since=-90)
    begin, said = datetime.now(UTC), dict[int, str]()
    for hour in range(60):
        now = begin + timedelta(hours=hour)
        monkeypatch.setattr(endpoints, "datetime", SimpleNamespace(now=lambda zone, now=now: now))
        if hour == 30:
            served = Endpoints(served._config, [], before=served)
            served.make(lambda text: None)
        served.remind()
        if lines:
            said[hour] = lines.pop().split(" on ")[0].rpartition(": ")[2]
    assert said == {0: "expires", 24: "expires", 48: "expires", 49: "has expired"}
    assert lines == []


def test_the_reminder_is_of_what_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload that fails leaves the certificate as it was, and so does the reminder; one that works silences it."""
    served = expiring(tmp_path, 10)
    lines: list[str] = []
    monkeypatch.setattr(endpoints, "line", lines.append)
    key = tmp_path / "a.key"
    good = key.read_bytes()
    issue(tmp_path, "a", common_name("server.lab"), pki().ca, usage=[SERVER])
    fresh = key.read_bytes()
    key.write_bytes(good)
    with pytest.raises(ConfigError, match="does not match"):
        served.make(print)
    served.remind()
    assert len(lines) == 1
    key.write_bytes(fresh)
    served.make(print)
    lines.clear()
    served.remind()
    assert lines == []


# --- what a reload does -------------------------------------------------------------------------


@dataclass
class Reloaded:
    """Endpoints with two pairs, a CA, a CRL and sni-dir, whose files can be closed to us."""

    directory: Path
    served: Endpoints
    loaded: list[vhosts.Loaded]
    lines: list[str]
    closed: set[str] = field(default_factory=set)

    @property
    def shown(self) -> dict[str, str]:
        """The certificate of each name, as the last load has it."""
        return {str(site): material.credentials[0].chain.decode() for site, material in self.loaded[-1].named}


@pytest.fixture
def reloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reloaded:
    for name in ("www", "shop", "bank"):
        issue(tmp_path, name, common_name(f"{name}.lab"), pki().ca, usage=[SERVER], sans=[x509.DNSName(f"{name}.lab")])
    (tmp_path / "names").mkdir()
    shutil.copyfile(pki().ca.crt, tmp_path / "ca.crt")
    (tmp_path / "crl.pem").write_bytes(revocation_list(pki().ca))
    d = tmp_path
    words = [
        "--https",
        f":0,{d}/www.crt,{d}/www.key,,{d}/ca.crt",
        "--ssl-crl",
        f"{d}/crl.pem",
        "--sni-dir",
        f"{d}/names",
    ]
    for name in ("shop", "bank"):
        words += ["--sni", f"{name}.lab {d}/{name}.crt,{d}/{name}.key"]
    found = Reloaded(tmp_path, Endpoints(config.load(words, {}), []), [], [])
    load, open_file = vhosts.load, certificates.open_file

    def loading(config: Config, reader: vhosts.Reader) -> vhosts.Loaded:
        found.loaded.append(load(config, reader))
        return found.loaded[-1]

    def opening(path: str) -> int:
        if os.path.relpath(path, tmp_path) in found.closed:
            raise PermissionError(errno.EACCES, "no")
        return open_file(path)

    monkeypatch.setattr(vhosts, "load", loading)
    monkeypatch.setattr(certificates, "open_file", opening)
    monkeypatch.setattr(endpoints, "line", found.lines.append)
    found.served.make(lambda text: None)
    return found


@pytest.mark.parametrize("closed", ["shop.key", "shop.crt"])
def test_a_pair_that_may_not_be_read_stays_as_it_was(reloaded: Reloaded, closed: str) -> None:
    """It alone: whatever else has changed is taken up, the list of who is shut out above all."""
    directory, before = reloaded.directory, reloaded.shown
    for _ in range(2):  # what has stayed once may stay again
        reloaded.closed = {closed}
        for name in ("shop", "bank"):
            issue(directory, name, common_name(f"{name}.lab"), pki().ca, sans=[x509.DNSName(f"{name}.lab")])
        (directory / "crl.pem").write_bytes(revocation_list(pki().ca, [pki().client]))
        reloaded.lines.clear()
        reloaded.served.make(reloaded.lines.append)
        assert reloaded.shown == {"shop.lab": before["shop.lab"], "bank.lab": (directory / "bank.crt").read_text()}
        assert reloaded.loaded[-1].listeners[0][1].crls == (directory / "crl.pem").read_bytes()
        (said,) = [each for each in reloaded.lines if "stay" in each]
        kind = {"key": "key", "crt": "certificate"}[closed[-3:]]
        assert said == (
            f"{kind} {directory}/{closed}: permission denied (read as uid {os.geteuid()}):"
            f" certificate {directory}/shop.crt and its key stay as they were"
        )
    reloaded.closed = set()
    reloaded.served.make(reloaded.lines.append)
    assert reloaded.shown["shop.lab"] == (directory / "shop.crt").read_text()


@pytest.mark.parametrize("closed", ["ca.crt", "crl.pem", "names", "names/new.lab.key"])
def test_what_else_may_not_be_read_is_a_failure(reloaded: Reloaded, closed: str) -> None:
    """A CA or CRL, the directory of names, and a pair that was not there before."""
    issue(reloaded.directory / "names", "new.lab", common_name("new.lab"), pki().ca, sans=[x509.DNSName("new.lab")])
    reloaded.closed = {closed}
    with pytest.raises(ConfigError, match=rf"{closed}: permission denied"):
        reloaded.served.make(reloaded.lines.append)
    reloaded.served.foretell()
    assert f"a reload will not read {reloaded.directory}/{closed} again: no" in reloaded.lines


def test_a_pair_that_was_put_together_anew_was_not_there_before(reloaded: Reloaded) -> None:
    """With a key of another path the certificate in memory is not what the configuration asks for."""
    material = reloaded.loaded[0].listeners[0][1]
    known = reloaded.loaded[0].known
    d = reloaded.directory
    assert known[f"{d}/www.crt", f"{d}/www.key"] is material.credentials[0]
    site = config.load(["--https", f":0,{d}/www.crt,{d}/other.key"], {}).listeners[0]
    reloaded.closed = {"other.key"}
    with pytest.raises(ConfigError, match=r"other\.key: permission denied"):
        certificates.load(site, partial(certificates.read_file, opened=certificates.open_file), known=known)


@pytest.mark.parametrize("change", ["garbled CRL", "garbled key", "gone"])
def test_a_fault_is_a_failure_beside_a_pair_that_stays(reloaded: Reloaded, change: str) -> None:
    reloaded.closed = {"shop.key"}
    match change:
        case "garbled CRL":
            (reloaded.directory / "crl.pem").write_text("garbled")
        case "garbled key":
            (reloaded.directory / "bank.key").write_text("garbled")
        case "gone":
            (reloaded.directory / "bank.crt").unlink()
    with pytest.raises(ConfigError):
        reloaded.served.make(reloaded.lines.append)


def test_nobody_is_asked_at_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By then there is no terminal, and no right to start a command."""
    served = expiring(tmp_path, 100)

    def ask(self: Passphrases, key: str) -> bytes:
        raise AssertionError("was asked")

    monkeypatch.setattr(Passphrases, "_run", ask)
    served._passphrases._command = "ask"
    write_secret(tmp_path / "a.key", key_pem(pki().client.key, b"secret"))
    with pytest.raises(ConfigError, match="the key is encrypted"):
        served.make(print)


# --- what root opens at the start ---------------------------------------------------------------


def content_at_start(path: Path) -> str:
    fd = endpoints.open_at_start(str(path), WWW)
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory of root's own that the user can get to, with a key that he may not read."""
    with tempfile.TemporaryDirectory(dir="/run") as name:
        os.chmod(name, 0o755)
        site = issue(Path(name), "s", common_name("server.lab"), pki().ca)
        os.chmod(site.crt, 0o644)
        (Path(name) / "users").mkdir()
        os.chown(Path(name) / "users", WWW.uid, WWW.gid)
        yield Path(name)


@needs_root
def test_what_root_opens_for_the_user(public: Path) -> None:
    """Root's own files in root's own places; his own ones; and those that lie there for root alone, without a link."""
    assert content_at_start(public / "s.key").startswith("-----BEGIN")
    (public / "users" / "his.key").write_text("his")
    os.chown(public / "users" / "his.key", WWW.uid, WWW.gid)
    (public / "users" / "link.key").symlink_to("his.key")
    (public / "users" / "roots.key").write_text("root's")
    for file in ("his.key", "roots.key"):
        os.chmod(public / "users" / file, 0o600)
    assert [content_at_start(public / "users" / f"{name}.key") for name in ("his", "link", "roots")] == [
        "his",
        "his",
        "root's",
    ]
    assert (os.geteuid(), os.getegid()) == (0, 0)


@needs_root
@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_nor_what_the_user_has_planted(public: Path, plant: Callable[[Path, Path], None]) -> None:
    plant(public / "s.key", public / "users" / "his.key")
    groups = os.getgroups()
    with pytest.raises(PermissionError) as caught:
        content_at_start(public / "users" / "his.key")
    assert caught.value.strerror == (
        f"{public}/users/his.key is a symbolic link (or has a second name) in a directory that others than"
        " root may change, so it is not read as root"
    )
    assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, 0, groups)


@needs_root
def test_what_the_user_may_read_by_his_groups(public: Path) -> None:
    """As Debian's group ssl-cert."""
    os.chmod(public / "users", 0o700)
    (public / "users" / "link.key").symlink_to(public / "s.key")
    os.chown(public / "s.key", 0, 4242)
    os.chmod(public / "s.key", 0o640)
    member = Identity("www-data", 33, 33, (33, 4242))
    assert os.read(endpoints.open_at_start(f"{public}/users/link.key", member), 7) == b"-----BE"
    with pytest.raises(PermissionError):
        endpoints.open_at_start(f"{public}/users/link.key", WWW)


@needs_root
def test_a_start_reads_no_key_of_roots_for_the_user(public: Path) -> None:
    """And says so in one line."""
    (public / "users" / "site.crt").symlink_to(public / "s.crt")
    (public / "users" / "site.key").symlink_to(public / "s.key")
    served = Endpoints(config.load(["--https", f":0,{public}/users/site.crt,{public}/users/site.key"], {}), [], WWW)
    with pytest.raises(ConfigError, match=r"^https = .*: key .*/site\.key: .*/site\.key is a symbolic link"):
        served.make(lambda text: None)
