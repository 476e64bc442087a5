"""users.py: who we are to become, and what is refused before anything is opened."""

import os
import pwd
from typing import Any

import prctl
import pytest
from forked import in_child

from uwsgi_tls import capabilities
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.users import Identity, resolve

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root has capabilities to give up")
not_as_root = pytest.mark.skipif(IS_ROOT, reason="what an ordinary user may ask for; run the tests as one too")

CAP_NET_BIND_SERVICE = 10
NOBODY_HERE = 4242424  # no passwd or group entry has it


def test_the_users_own_groups_come_without_gid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "getgrouplist", lambda user, group: [group, 4, 27])
    assert resolve("www-data", "", [], False) == Identity("www-data", 33, 33, (33, 4, 27))


@pytest.mark.parametrize(
    ("uid", "gid", "add_gid", "expected"),
    [
        ("www-data", "", (), Identity("www-data", 33, 33, (33,))),
        ("33", "", (), Identity("www-data", 33, 33, (33,))),
        ("www-data", "adm", (), Identity("www-data", 33, 4, (4,))),
        ("www-data", "4", (), Identity("www-data", 33, 4, (4,))),
        ("www-data", "", ("adm", "4242"), Identity("www-data", 33, 33, (33, 4, 4242))),
        ("www-data", "", ("www-data", "adm", "4"), Identity("www-data", 33, 33, (33, 4))),
        (str(NOBODY_HERE), "4", ("33",), Identity(str(NOBODY_HERE), NOBODY_HERE, 4, (4, 33))),
        (str(NOBODY_HERE), str(NOBODY_HERE), (), Identity(str(NOBODY_HERE), NOBODY_HERE, NOBODY_HERE, (NOBODY_HERE,))),
    ],
)
def test_root_becomes(
    uid: str, gid: str, add_gid: tuple[str, ...], expected: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert resolve(uid, gid, add_gid, False) == expected


@pytest.mark.parametrize(
    ("uid", "gid", "add_gid", "option", "cause"),
    [
        ("root", "", (), "uid", "is root"),
        ("0", "", (), "uid", "is root"),
        ("00", "", (), "uid", "is root"),
        ("-1", "", (), "uid", "is not a number between 1 and 4294967294"),
        ("+33", "", (), "uid", "is not a number between"),
        ("4294967295", "", (), "uid", "is not a number between"),  # (uid_t) -1
        ("4294967329", "", (), "uid", "is not a number between"),  # 33 in 32 bits
        ("99999999999999999999", "", (), "uid", "is not a number between"),
        ("nosuchuser", "", (), "uid", "no such user"),
        ("www-data\0", "", (), "uid", "no such user"),
        ("www-data ", "", (), "uid", "no such user"),
        (str(NOBODY_HERE), "", (), "uid", "has no entry in passwd"),
        ("www-data", "nosuchgroup", (), "gid", "no such group"),
        ("www-data", "root", (), "gid", "is group root"),
        ("www-data", "0", (), "gid", "is group root"),
        ("www-data", "-1", (), "gid", "is not a number between"),
        ("www-data", "", ("adm", "root"), "add-gid", "is group root"),
        ("www-data", "", ("nosuchgroup",), "add-gid", "no such group"),
        ("", "www-data", (), "gid", "needs a uid too"),
        ("", "", ("adm",), "add-gid", "needs a uid too"),
    ],
)
def test_root_is_told_what_is_wrong(
    uid: str, gid: str, add_gid: tuple[str, ...], option: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ConfigError) as caught:
        resolve(uid, gid, add_gid, False)
    assert caught.value.option == option
    assert cause in caught.value.cause
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "uid", "gid", "groups", "cause"),
    [
        ("toor", 0, 0, [0], "is root"),  # root by another name
        ("operator", 11, 0, [0], r"has group 0 \(root\) as its own group"),
        ("admin", 1000, 1000, [1000, 0], r"is a member of group 0"),
    ],
)
def test_root_in_disguise(
    name: str, uid: int, gid: int, groups: list[int], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", lambda _: pwd.struct_passwd((name, "x", uid, gid, "", "/", "/bin/false")))
    monkeypatch.setattr(os, "getgrouplist", lambda user, group: groups)
    with pytest.raises(ConfigError, match=cause):
        resolve(name, "", [], False)


def test_root_without_uid_is_warned_and_with_strict_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    warnings: list[str] = []
    assert resolve("", "", [], False, warnings.append) is None
    assert len(warnings) == 1
    assert "root" in warnings[0]
    assert resolve("", "", [], False) is None
    assert "WARNING" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="strict refuses"):
        resolve("", "", [], True)


def as_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """uid and gid of www-data with group adm, as far as Python can see."""
    monkeypatch.setattr(os, "geteuid", lambda: 33)
    monkeypatch.setattr(os, "getuid", lambda: 33)
    monkeypatch.setattr(os, "getgid", lambda: 33)
    monkeypatch.setattr(os, "getresuid", lambda: (33, 33, 33))
    monkeypatch.setattr(os, "getresgid", lambda: (33, 33, 33))
    monkeypatch.setattr(os, "getgroups", lambda: [4])


@pytest.mark.parametrize(
    ("uid", "gid", "add_gid"),
    [("", "", ()), ("www-data", "", ()), ("33", "33", ()), ("www-data", "www-data", ("adm", "33"))],
)
@pytest.mark.parametrize("strict", [False, True])
def test_an_ordinary_user_may_name_itself(
    uid: str, gid: str, add_gid: tuple[str, ...], strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_ordinary_user(monkeypatch)
    assert resolve(uid, gid, add_gid, strict) is None


@pytest.mark.parametrize(
    ("uid", "gid", "add_gid", "cause"),
    [
        ("daemon", "", (), "only root can become another user, and this is uid 33"),
        ("root", "", (), "only root can become another user"),
        ("34", "", (), "only root can become another user"),
        ("nosuchuser", "", (), "no such user"),
        ("www-data", "adm", (), "only root can change its group, and this is gid 33"),
        ("www-data", "", ("daemon",), "only root can add a group"),
        ("", "www-data", (), "needs a uid too"),
    ],
)
def test_an_ordinary_user_cannot_become_another(
    uid: str, gid: str, add_gid: tuple[str, ...], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_ordinary_user(monkeypatch)
    with pytest.raises(ConfigError, match=cause):
        resolve(uid, gid, add_gid, False)


@not_as_root
def test_we_ourselves_by_name_and_by_number() -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    assert resolve(me, "", [], True) is None
    assert resolve(str(os.getuid()), str(os.getgid()), [], True) is None


@pytest.mark.parametrize(
    ("options", "option", "cause"),
    [
        ({"chroot": "/"}, "chroot", "needs a uid too"),
        ({"cap": [10]}, "cap", "needs a uid too"),
        ({"uid": "www-data", "chroot": "/nowhere"}, "chroot", "no such directory"),
    ],
)
def test_cap_and_chroot_of_root(
    options: dict[str, Any], option: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(ConfigError, match=cause) as caught:
        resolve(**{"uid": "", "gid": "", "add_gid": (), "strict": False, **options})
    assert caught.value.option == option


def test_an_ordinary_user_cannot_change_the_root_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    as_ordinary_user(monkeypatch)
    with pytest.raises(ConfigError, match="only root can change the root directory, and this is uid 33"):
        resolve("", "", (), False, chroot="/")


@needs_root
def test_a_capability_that_is_not_there_cannot_be_kept() -> None:
    def run() -> str:
        capabilities.keep([prctl.CAP_SETUID, prctl.CAP_SETGID, prctl.CAP_SETPCAP])
        try:
            resolve("www-data", "", [], True, cap=[CAP_NET_BIND_SERVICE])
        except ConfigError as error:
            return str(error)
        return ""

    assert "cap = net_bind_service: this process has no net_bind_service to keep" in in_child(run)
