"""privileges.py: who we become, and that nothing leads back. The drops are real, each in a forked child."""

import ctypes
import grp
import importlib
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import prctl
import pytest
from forked import in_child

from uwsgi_tls import capabilities, privileges
from uwsgi_tls.privileges import PrivilegeError
from uwsgi_tls.users import Identity, resolve

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
not_as_root = pytest.mark.skipif(IS_ROOT, reason="what an ordinary user may ask for; run the tests as one too")

CAP_NET_BIND_SERVICE = 10
NOBODY_HERE = 4242424  # no passwd or group entry has it
WWW = Identity("www-data", 33, 33, (33,))
NO_CAPABILITY = {"CapInh": "0" * 16, "CapPrm": "0" * 16, "CapEff": "0" * 16, "CapBnd": "0" * 16, "CapAmb": "0" * 16}


def status(pid: int | str = "self") -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def refused(action: Callable[[], Any]) -> str:
    """The name of the exception that `action` raises, "" if it works."""
    try:
        action()
    except Exception as error:  # whatever it is, its name is the answer
        return type(error).__name__
    return ""


def dropped(identity: Identity = WWW) -> None:
    privileges.preload()
    privileges.drop(identity)
    privileges.harden(no_new_privs=True)


@not_as_root
def test_an_ordinary_user_cannot_drop() -> None:
    with pytest.raises(PrivilegeError, match="CAP_SETPCAP"):
        in_child_raising(lambda: privileges.drop(WWW))


def in_child_raising(action: Callable[[], Any]) -> None:
    """Run `action` in a child and raise here the PrivilegeError that it raised there."""

    def run() -> str:
        try:
            action()
        except PrivilegeError as error:
            return str(error)
        return ""

    text = in_child(run)
    if text:
        raise PrivilegeError(text)


# drop


@needs_root
@pytest.mark.parametrize(
    ("uid", "gid", "add_gid", "groups"),
    [
        ("www-data", "", (), [33]),
        ("www-data", "adm", ("4242",), [4, 4242]),
        (str(NOBODY_HERE), "4242", (), [4242]),
    ],
)
def test_the_kernel_agrees_about_the_drop(uid: str, gid: str, add_gid: tuple[str, ...], groups: list[int]) -> None:
    identity = resolve(uid, gid, add_gid, True)
    assert identity is not None

    def run() -> dict[str, str]:
        dropped(identity)
        return status()

    read = in_child(run)
    assert read["Uid"].split() == [str(identity.uid)] * 4
    assert read["Gid"].split() == [str(identity.gid)] * 4
    assert [int(group) for group in read["Groups"].split()] == groups
    assert {key: read[key] for key in NO_CAPABILITY} == NO_CAPABILITY
    assert read["NoNewPrivs"] == "1"


@needs_root
def test_root_and_its_files_are_out_of_reach(tmp_path: Path) -> None:
    key = tmp_path / "root.key"
    key.write_text("secret")
    key.chmod(0o600)
    os.chmod(tmp_path, 0o755)

    def attempts() -> dict[str, str]:
        dropped()
        return {
            "setuid": refused(lambda: os.setuid(0)),
            "setgid": refused(lambda: os.setgid(0)),
            "setgroups": refused(lambda: os.setgroups([0])),
            "capability": refused(lambda: setattr(prctl.cap_permitted, "setuid", True)),
            "ambient": refused(lambda: setattr(prctl.cap_inheritable, "net_bind_service", True)),
            "bind": refused(lambda: bind(443)),
            "key": refused(key.read_text),
            "no_new_privs": refused(lambda: prctl.set_no_new_privs(0)),
            "memory": refused(lambda: open("/proc/self/mem", "rb")),
            "own environment": refused(Path("/proc/self/environ").read_bytes),
            "chroot": refused(lambda: os.chroot("/")),
        }

    assert in_child(attempts) == {
        "setuid": "PermissionError",
        "setgid": "PermissionError",
        "setgroups": "PermissionError",
        "capability": "PermissionError",
        "ambient": "PermissionError",
        "bind": "PermissionError",
        "key": "PermissionError",
        "no_new_privs": "ValueError",  # EINVAL: it cannot be taken back
        "memory": "PermissionError",
        "own environment": "PermissionError",
        "chroot": "PermissionError",
    }


def bind(port: int) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.77", port))


@needs_root
def test_bind_to_443_works_before_the_drop() -> None:
    bind(443)  # else the test above would prove nothing


@needs_root
def test_no_program_gives_root_back() -> None:
    """A set-user-ID root program, executed after the drop, stays ours: no_new_privs."""
    copy = f"/tmp/uwsgi-tls-test-{os.getpid()}"  # not a tmp_path: www-data cannot enter those

    def effective_uid() -> str:
        command = [copy, "-IS", "-c", "import os; print(os.geteuid())"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def after_setuid_alone() -> str:
        os.setresuid(33, 33, 33)
        return effective_uid()

    def after_the_drop() -> str:
        dropped()
        return effective_uid()

    try:
        shutil.copy(os.path.realpath(sys.executable), copy)
        os.chmod(copy, 0o4755)
        assert in_child(after_setuid_alone) == "0"
        assert in_child(after_the_drop) == "33"
    finally:
        os.unlink(copy)


@needs_root
def test_the_process_belongs_to_root_and_nobody_may_look_into_it() -> None:
    """PR_SET_DUMPABLE 0: proc(5) gives /proc/PID to root then, and ptrace(2) is refused to the same user."""
    ready, report = os.pipe()
    hold, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(release)
            dropped()
            os.write(report, b"x")
            os.read(hold, 1)
        finally:
            os._exit(0)
    os.close(report)
    os.close(hold)
    try:
        assert os.read(ready, 1) == b"x"
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0
        assert status(pid)["Uid"].split() == ["33"] * 4

        def same_user_looks() -> dict[str, str]:
            os.setgroups([33])
            os.setresgid(33, 33, 33)
            os.setresuid(33, 33, 33)
            return {
                "environ": refused(Path(f"/proc/{pid}/environ").read_bytes),
                "mem": refused(lambda: open(f"/proc/{pid}/mem", "rb")),
                "maps": refused(lambda: Path(f"/proc/{pid}/maps").read_text()),
                "fd": refused(lambda: os.listdir(f"/proc/{pid}/fd")),
            }

        assert set(in_child(same_user_looks).values()) == {"PermissionError"}
    finally:
        os.close(release)
        os.close(ready)
        os.waitpid(pid, 0)


@needs_root
def test_capabilities_that_somebody_passed_on_are_dropped_too() -> None:
    """Inheritable and ambient sets and the keep-caps flag survive a plain setuid()."""

    def run(give_up: Callable[[], None]) -> list[dict[str, str]]:
        prctl.set_caps(([CAP_NET_BIND_SERVICE], prctl.ALL_FLAGS, True))
        pr_cap_ambient, pr_cap_ambient_raise = 47, 2
        arguments = (pr_cap_ambient_raise, CAP_NET_BIND_SERVICE, 0, 0)
        assert ctypes.CDLL(None).prctl(pr_cap_ambient, *map(ctypes.c_ulong, arguments)) == 0
        prctl.securebits.keep_caps = True
        prctl.securebits.no_setuid_fixup = True
        before = status()
        give_up()
        return [before, status()]

    before, after = in_child(lambda: run(dropped))
    assert int(before["CapAmb"], 16) == 1 << CAP_NET_BIND_SERVICE
    assert {key: after[key] for key in NO_CAPABILITY} == NO_CAPABILITY
    _, after = in_child(lambda: run(lambda: capabilities.keep([CAP_NET_BIND_SERVICE])))  # of a process that stays root
    assert (int(after["CapAmb"], 16), int(after["CapInh"], 16)) == (0, 0)


@needs_root
def test_capabilities_younger_than_python_prctl_are_dropped_too() -> None:
    def run() -> dict[str, str]:
        prctl.ALL_CAPS, prctl.CAP_LAST_CAP = tuple(range(38)), 37
        dropped(replace(WWW, keeps=(10,)))
        return status()

    kept = f"{1 << 10:016x}"
    read = in_child(run)
    assert {key: read[key] for key in NO_CAPABILITY} == {**NO_CAPABILITY, "CapPrm": kept, "CapEff": kept}


@needs_root
def test_the_drop_is_proven_each_time() -> None:
    def run() -> None:
        os.setgroups([0, 4])
        os.setgroups = lambda groups: None
        privileges.drop(WWW)

    with pytest.raises(PrivilegeError, match="after the drop groups should be"):
        in_child_raising(run)


@needs_root
def test_without_the_power_to_empty_the_bounding_set_there_is_no_drop() -> None:
    def run() -> None:
        prctl.cap_effective.drop("setpcap")
        privileges.drop(WWW)

    with pytest.raises(PrivilegeError, match="CAP_SETPCAP"):
        in_child_raising(run)


@needs_root
def test_no_drop_while_another_thread_lives() -> None:
    def run() -> None:
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            privileges.drop(WWW)
        finally:
            stop.set()
            thread.join()

    with pytest.raises(PrivilegeError, match="before the first thread"):
        in_child_raising(run)


@pytest.mark.parametrize(("uid", "gid", "groups"), [(0, 33, ()), (33, 0, ()), (33, 33, (33, 0)), (-1, 33, ())])
def test_nobody_becomes_root_by_dropping(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    with pytest.raises(PrivilegeError, match="is root"):
        in_child_raising(lambda: privileges.drop(Identity("x", uid, gid, groups)))


# prove: each half-done drop is found out


def leave_root_saved() -> None:
    os.setresuid(33, 33, 0)


@needs_root
@pytest.mark.parametrize(
    ("steps", "doubt"),
    [
        ((), "user ids"),
        ((lambda: os.setgroups([33]), lambda: os.setresgid(33, 33, 33), leave_root_saved), "user ids"),
        ((lambda: os.setgroups([33]), lambda: os.setresuid(33, 33, 33)), "group ids"),
        ((lambda: os.setresgid(33, 33, 33), lambda: os.setresuid(33, 33, 33)), "groups"),
        (
            (lambda: os.setgroups([33]), lambda: os.setresgid(33, 33, 33), lambda: os.setresuid(33, 33, 33)),
            "CapBnd",
        ),
        (
            (
                capabilities.empty_bounding_set,
                lambda: os.setgroups([33]),
                lambda: os.setresgid(33, 33, 33),
                lambda: setattr(prctl.securebits, "keep_caps", True),
                lambda: os.setresuid(33, 33, 33),
            ),
            "CapPrm",
        ),
    ],
)
def test_a_half_done_drop_is_found_out(steps: tuple[Callable[[], Any], ...], doubt: str) -> None:
    def run() -> None:
        os.setgroups([0, 33])
        for step in steps:
            step()
        privileges.prove(WWW)

    with pytest.raises(PrivilegeError, match=f"after the drop {doubt}"):
        in_child_raising(run)


@needs_root
def test_a_way_back_is_found_out() -> None:
    """What prove() must catch even where ids and capabilities look right: here a setuid that works, by monkeypatch."""

    def run() -> None:
        dropped()
        os.seteuid = lambda uid: None
        privileges.prove(WWW)

    with pytest.raises(PrivilegeError, match=r"seteuid\(0\) still works"):
        in_child_raising(run)


# harden, die_with_parent, preload


def test_harden_needs_no_root() -> None:
    def run() -> list[Any]:
        privileges.harden(no_new_privs=False)
        first = [prctl.get_dumpable(), prctl.get_no_new_privs(), resource.getrlimit(resource.RLIMIT_CORE)]
        privileges.harden(no_new_privs=True)
        return [first, prctl.get_dumpable(), prctl.get_no_new_privs(), status()["NoNewPrivs"]]

    before = prctl.get_no_new_privs()
    assert in_child(run) == [[0, before, [0, 0]], 0, 1, "1"]


def test_a_worker_dies_with_its_master() -> None:
    """master and worker are child and grandchild; the pipe's end of file says that the worker is gone."""
    alive, worker_end = os.pipe()
    master = os.fork()
    if master == 0:
        try:
            os.close(alive)
            me = os.getpid()
            if os.fork() == 0:
                privileges.die_with_parent(me)
                os.write(worker_end, str(os.getpid()).encode())
                time.sleep(60)
            os.close(worker_end)
            time.sleep(60)
        finally:
            os._exit(0)
    os.close(worker_end)
    try:
        assert int(os.read(alive, 20)) > 0
        assert not select.select([alive], [], [], 0)[0]
        os.kill(master, signal.SIGKILL)
        os.waitpid(master, 0)
        assert select.select([alive], [], [], 10)[0]
        assert os.read(alive, 1) == b""
    finally:
        os.close(alive)


@needs_root
def test_the_death_signal_is_set_after_setuid_which_clears_it() -> None:
    def run() -> list[int]:
        parent = os.getppid()
        prctl.set_pdeathsig(signal.SIGKILL)
        privileges.drop(WWW)
        cleared = int(prctl.get_pdeathsig())
        privileges.die_with_parent(parent)
        return [cleared, int(prctl.get_pdeathsig())]

    assert in_child(run) == [0, signal.SIGKILL]


def test_an_orphan_leaves_at_once() -> None:
    pid = os.fork()
    if pid == 0:
        privileges.die_with_parent(os.getppid() + 1)
        os._exit(77)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == privileges.EXIT_ORPHAN


def test_preload_leaves_nothing_to_import_for_a_connect() -> None:
    """In a fresh interpreter: what a worker does first must not look for a file of Python's."""
    program = """
        import socket, sys
        from uwsgi_tls import capabilities, privileges
        privileges.preload()
        before = set(sys.modules)
        sys.path[:] = []
        sys.meta_path[:] = []
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", 9))
        sock.close()
        socket.getaddrinfo("localhost", 443)
        import time
        time.strptime("Mon Nov 23 09:48:39 2026")
        open("/proc/self/status", encoding="ascii").close()
        print(sorted(set(sys.modules) - before))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_what_preload_names_exists() -> None:
    for module in privileges._LATE_MODULES:
        assert importlib.import_module(module)
    assert grp.getgrgid(33).gr_name == "www-data"  # Debian's, which the tables above rely on


def test_what_was_open_is_closed_but_for_what_is_kept() -> None:
    def run() -> list[bool]:
        before = {int(name) for name in os.listdir("/proc/self/fd")}  # with the pipe of in_child
        opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
        privileges.close_inherited(before | {opened[1]} - {opened[0]})
        return [os.path.exists(f"/proc/self/fd/{fd}") for fd in (0, 1, 2, *opened[1:])]

    assert in_child(run) == [True, True, True, True, False, False]


def test_no_process_and_no_thread_after_the_last_one() -> None:
    """What is not root's may start neither; what runs goes on."""

    def run() -> list[str]:
        if IS_ROOT:
            dropped()
        thread = threading.Thread(target=threading.Event().wait, daemon=True)
        thread.start()
        privileges.forbid_processes()
        return [
            refused(os.fork),
            refused(threading.Thread(target=print).start),
            refused(lambda: subprocess.run(["true"], check=False)),
            str(thread.is_alive()),
        ]

    assert in_child(run) == ["BlockingIOError", "RuntimeError", "BlockingIOError", "True"]


def test_what_is_written_is_ours_alone(tmp_path: Path) -> None:
    def run() -> list[int]:
        os.umask(0o022)
        modes = []
        for mask in (privileges.UMASK, 0o027):
            privileges.harden(no_new_privs=False, umask=mask)
            file = tmp_path / f"{mask:o}"
            file.touch()
            modes.append(file.stat().st_mode & 0o777)
        return modes

    assert in_child(run) == [0o600, 0o640]


@pytest.mark.parametrize(
    ("wanted", "soft", "hard", "becomes"),
    [
        (0, 1024, 4096, (4096, 4096)),
        (0, 4096, 4096, (4096, 4096)),
        (0, 1024, resource.RLIM_INFINITY, (1 << 20, resource.RLIM_INFINITY)),
        (0, 1024, 1 << 30, (1 << 20, 1 << 30)),
        (0, 1 << 21, 1 << 30, (1 << 21, 1 << 30)),  # nothing is taken away
        (0, resource.RLIM_INFINITY, resource.RLIM_INFINITY, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)),
        (500, 1024, 4096, (500, 500)),
        (2000, 1024, 4096, (2000, 2000)),
        (8000, 1024, 4096, (4096, 4096)),
    ],
)
def test_the_limit_of_descriptors(
    wanted: int, soft: int, hard: int, becomes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [(soft, hard)]
    said: list[str] = []

    def set_limit(which: int, new: tuple[int, int]) -> None:
        if limits[-1][1] != resource.RLIM_INFINITY and new[1] > limits[-1][1]:
            raise ValueError("not allowed to raise maximum limit")
        limits.append(new)

    monkeypatch.setattr(resource, "getrlimit", lambda which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    privileges.limit_descriptors(wanted, said.append)
    assert limits[-1] == becomes
    assert said == (
        ["rlimit-nofile = 8000: this process may have no more than 4096 descriptors"] if wanted == 8000 else []
    )


# cap and chroot


@needs_root
def test_a_capability_that_is_kept_works_and_goes_no_further() -> None:
    """net_bind_service: a port below 1024 for the process and its threads, none for what it executes."""

    def run() -> dict[str, Any]:
        identity = resolve("www-data", "", [], True, cap=[CAP_NET_BIND_SERVICE])
        assert identity is not None
        dropped(identity)
        read = "print(*(line for line in open('/proc/self/status') if line.startswith('Cap')), sep='', end='')"
        program = subprocess.run([sys.executable, "-ISc", read], capture_output=True, text=True, check=True)
        return {
            "bind": refused(lambda: bind(443)),
            "setuid": refused(lambda: os.setuid(0)),
            "own": {key: value for key, value in status().items() if key in NO_CAPABILITY},
            "program": [line.split()[1] for line in program.stdout.splitlines()],
        }

    kept = f"{1 << CAP_NET_BIND_SERVICE:016x}"
    assert in_child(run) == {
        "bind": "",
        "setuid": "PermissionError",
        "own": {**NO_CAPABILITY, "CapPrm": kept, "CapEff": kept},
        "program": ["0" * 16] * 5,
    }


@needs_root
def test_what_an_ordinary_user_was_given_goes_but_for_what_is_kept() -> None:
    """As under User= with AmbientCapabilities=, systemd.exec(5)."""

    def run(cap: list[int]) -> list[str]:
        prctl.set_keepcaps(True)
        os.setgroups([])
        os.setresgid(33, 33, 33)
        os.setresuid(33, 33, 33)
        given = [CAP_NET_BIND_SERVICE, prctl.CAP_KILL]
        prctl.set_caps((given, [prctl.CAP_INHERITABLE, prctl.CAP_EFFECTIVE], True))
        for each in given:
            ambient = map(ctypes.c_ulong, (2, each, 0, 0))  # PR_CAP_AMBIENT_RAISE
            assert ctypes.CDLL(None).prctl(47, *ambient) == 0
        assert resolve("", "", [], True, cap=cap) is None
        privileges.keep_granted(cap)
        return [status()[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]

    none, kept = "0" * 16, f"{1 << CAP_NET_BIND_SERVICE:016x}"
    assert in_child(lambda: run([])) == [none] * 4
    assert in_child(lambda: run([CAP_NET_BIND_SERVICE])) == [none, kept, kept, none]


@needs_root
def test_a_new_root_directory(tmp_path: Path) -> None:
    """What is outside is gone; without /proc in it nothing can be proven, and so nobody is served."""
    (tmp_path / "inside").write_text("x")
    tmp_path.chmod(0o755)

    def run() -> list[Any]:
        prove, found = privileges.prove, []
        privileges.prove = lambda identity: found.append(sorted(os.listdir("/")))
        privileges.drop(replace(WWW, root=str(tmp_path)))
        return [found, os.getcwd(), refused(lambda: prove(WWW)), refused(lambda: os.chroot("/"))]

    assert in_child(run) == [[["inside"]], "/", "PrivilegeError", "PermissionError"]


# keep_only


@needs_root
def test_a_process_that_stays_root_keeps_one_capability() -> None:
    def child() -> list[str]:
        privileges.keep_only(prctl.CAP_DAC_READ_SEARCH)
        return [status()[name] for name in NO_CAPABILITY] + [refused(lambda: os.setuid(33))]

    read, none = f"{1 << prctl.CAP_DAC_READ_SEARCH:016x}", "0" * 16
    assert in_child(child)[:5] == [none, read, read, none, none]
    assert in_child(child)[5] == "PermissionError"
