"""docs/operations.md and docs/security.md say what the code does: options and defaults, letters, lines of the log."""

import re
from pathlib import Path

import pytest

from uwsgi_tls import config, control, converters, fifo, journald, log_targets, log_text, respawn, syslog
from uwsgi_tls.failures import LINES_OF_A_KIND, PERIOD_SECONDS, Failure
from uwsgi_tls.options import BY_NAME, Config
from uwsgi_tls.tally import SOCKETS

DOCS = Path(__file__).parent.parent / "docs"
OPERATIONS, SECURITY = ((DOCS / f"{name}.md").read_text() for name in ("operations", "security"))
TEXT = " ".join(OPERATIONS.split())
NO_OPTIONS = {"uwsgi-tls", "control-group"}  # names of a program, and of a word for systemd
LINE = re.compile(r"^ {4}([a-z-]+) = (.*)$", re.MULTILINE)


@pytest.mark.parametrize("page", [OPERATIONS, SECURITY], ids=["operations", "security"])
def test_options_exist(page: str) -> None:
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", page)) | set(re.findall(r"`([a-z-]+) = [^`]*`", page))
    assert len(named) > 10
    assert named - NO_OPTIONS <= BY_NAME.keys()


def test_settings_can_be_written_so() -> None:
    settings = [(name, value) for name, value in LINE.findall(OPERATIONS) if name != "failregex"]
    assert len(settings) > 10
    for name, value in settings:
        words = (f"--{name}", value)
        config.load([*words, *(() if name == "https" else ("--https", ":443,a,b"))], {})


def test_defaults() -> None:
    stated = re.findall(r"`([a-z]+(?:-[a-z]+)+)` \((\d+)(?: seconds)?\)", TEXT)
    assert len(stated) >= 4
    for name, number in stated:
        assert getattr(Config(), name.replace("-", "_")) == int(number), name
    assert f"The default, {Config().worker_start_timeout} seconds, is long" in TEXT
    assert f"waits, up to --wait seconds ({control.UPGRADE_SECONDS})" in TEXT
    assert control.STOP_SECONDS == control.UPGRADE_SECONDS, "likewise"
    assert f"**`umask`**: {Config().umask:03o} by default" in SECURITY


def test_letters_of_the_fifo() -> None:
    rows = re.findall(r"^\| ((?:`.`|, | |also)+) \| ([A-Z0-9, ]*?) ?\|", OPERATIONS, re.MULTILINE)
    told = {
        letter: signals[number if len(signals) > 1 else 0]
        for letters, names in rows
        for signals in [names.split(", ")]
        for number, letter in enumerate(re.findall("`(.)`", letters))
    }
    assert told == {**{letter: f"{number.name[3:]}" for letter, number in fifo.COMMANDS.items()}, fifo.TELL: ""}
    assert "there are four looks a second" in TEXT
    assert fifo.PAUSE_SECONDS == 1 / 4


def test_pauses_of_workers_that_die_young() -> None:
    again = respawn.Respawn(Config().forkbomb_delay)
    # One that served has died, then as many successors as there may be; the last of them ends it.
    pauses = [again.died(1, age, 0.0) for age in (1000.0, *[0.5] * (Config().respawn_limit - 1))]
    assert pauses[:4] == [0, 0.5, 1, 2]
    assert "replaced at once, and if it was younger than 10 seconds again, after 0.5, 1, 2 … seconds" in TEXT
    assert respawn.YOUNG_SECONDS == 10
    assert round(sum(pauses) / 60) == 2
    assert "takes two minutes with the default pauses" in TEXT


def test_how_long_lines_are() -> None:
    assert f"no line longer than {log_targets.PIPE_LINE_BYTES >> 10} KiB is written" in TEXT
    assert f"to syslog none longer than {syslog.LINE_BYTES >> 10} KiB" in TEXT
    assert f"to the journal no value longer than {journald.VALUE_BYTES >> 10} KiB" in TEXT
    assert f"at most {60 / log_targets.REPORT_SECONDS:.0f} times a minute".replace("2 times", "twice") in TEXT


def test_lines_about_handshakes() -> None:
    """The two examples, as the code writes them; the first one is broken there, for its length."""
    failure = Failure(
        "client certificate refused: it expired on 2026-11-22 18:25:03 UTC: /CN=anja", "certificate",
        ("192.0.2.1", "50514"), "0.0.0.0:443", "sent: certificate_expired", "shop.example", b"\3\4\3\3",
    )  # fmt: skip
    assert str(failure) in TEXT
    other = Failure("what was sent is not TLS", "not_tls", ("192.0.2.7", "41022"), "0.0.0.0:443")
    assert other.text(f"37 more like this in the last {PERIOD_SECONDS:.0f} s") in TEXT
    assert f"says the first {('one', 'two', 'three')[LINES_OF_A_KIND - 1]} in a minute" in TEXT
    assert f"the values `{' '.join(failure.fields())}`" in TEXT


def test_our_stamp_is_what_the_pattern_for_the_journal_allows() -> None:
    optional = re.search(r"\(\?:(\\w\{3\}.*?\\\]) \)\?", OPERATIONS)
    assert optional is not None
    assert re.fullmatch(optional[1], log_text.stamped("", {}).rstrip())


def test_sockets_whose_queues_are_told() -> None:
    assert f"the first {SOCKETS} of them" in TEXT


def test_capabilities_that_cannot_be_kept() -> None:
    sentence = re.search(
        r"inherits them\. (.*?) and (\w+) cannot be kept\. [^:]*: ([^.]*)\.", " ".join(SECURITY.split())
    )
    assert sentence is not None
    assert (*sentence[1].split(", "), sentence[2]) == ("setuid", "setgid", "setpcap", "setfcap")
    for name in (*sentence[1].split(", "), sentence[2]):
        with pytest.raises(ValueError, match=name):
            converters.capabilities(name)
    for name in sentence[3].split(", "):
        assert converters.capabilities(name)


def test_names_that_mean_the_same() -> None:
    for name in ("touch-workers-reload", "touch-chain-reload"):
        assert f"`{name}`" in OPERATIONS
        assert config.load((f"--{name}", "/x", "--https", ":443,a,b"), {}).touch_reload == ("/x",)
