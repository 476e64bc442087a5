"""capabilities.py: the sets of a real process, each change in a forked child."""

import os
from pathlib import Path

import pytest
from forked import in_child

from uwsgi_tls import capabilities
from uwsgi_tls.converters import CAPABILITY_NAMES

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give up")


def sets() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line[:6]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}


def test_a_mask_is_as_proc_shows_it() -> None:
    assert capabilities.mask([]) == 0
    assert capabilities.mask([0, 10, 10, 40]) == 0x10000000401


def test_what_is_held_is_what_proc_says() -> None:
    assert capabilities.held() == sets()["CapPrm"]


@needs_root
@pytest.mark.parametrize("kept", [(), (10,), (1, 10, 38, 40)])  # in both words of 32 bits
def test_what_is_kept(kept: tuple[int, ...]) -> None:
    def run() -> dict[str, int]:
        capabilities.keep(kept)
        return sets()

    found = in_child(run)
    assert found["CapPrm"] == found["CapEff"] == capabilities.mask(kept)
    assert found["CapInh"] == found["CapAmb"] == 0
    assert found["CapBnd"] == sets()["CapBnd"]


@needs_root
def test_what_is_not_there_is_not_kept() -> None:
    def run() -> list[int]:
        capabilities.keep([10])
        capabilities.keep([10, 12])
        return [capabilities.held()]

    assert in_child(run) == [1 << 10]


@needs_root
def test_the_bounding_set_is_emptied_without_proc_sys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit of systemd with ProcSubset=pid has no /proc/sys."""

    def run() -> dict[str, int]:
        monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("nothing is read"))
        capabilities.empty_bounding_set()
        monkeypatch.undo()
        return sets()

    assert in_child(run)["CapBnd"] == 0


@needs_root
def test_the_bounding_set_is_root_s_to_empty() -> None:
    def run() -> str:
        capabilities.keep([])
        try:
            capabilities.empty_bounding_set()
        except PermissionError as error:
            return str(error)
        return ""

    assert "CAP_SETPCAP" in in_child(run)


@needs_root
def test_an_empty_bounding_set_needs_nobody() -> None:
    """As a container may begin."""

    def run() -> int:
        capabilities.empty_bounding_set()
        capabilities.keep([])
        capabilities.empty_bounding_set()
        return sets()["CapBnd"]

    assert in_child(run) == 0


@pytest.mark.parametrize("wanted", [True, False])
@needs_root
def test_surviving_setuid(wanted: bool) -> None:
    def run() -> int:
        capabilities.survive_setuid(wanted)
        os.setresuid(33, 33, 33)
        return capabilities.held()

    assert (in_child(run) != 0) == wanted


def test_the_names_are_those_of_the_kernel() -> None:
    """As this kernel's last one has the last name, or a newer one's more."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert last >= len(CAPABILITY_NAMES) - 1
    assert (CAPABILITY_NAMES[0], CAPABILITY_NAMES[10], CAPABILITY_NAMES[21]) == (
        "chown",
        "net_bind_service",
        "sys_admin",
    )
    assert CAPABILITY_NAMES[40] == "checkpoint_restore"
