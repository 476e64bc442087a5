"""log_opening.py: logs are opened as root, given to the user, and a mistake is one line that names the option."""

import os
from pathlib import Path
from typing import Any

import pytest

from uwsgi_tls import log_opening, logs
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.logger_option import parse_logger
from uwsgi_tls.options import Config
from uwsgi_tls.users import Identity

NOBODY = Identity("somebody", 12345, 12346, (12346,))


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_files", [])


def test_each_option_has_its_own(tmp_path: Path) -> None:
    loggers = [parse_logger(f"file:{tmp_path / name}") for name in "ab"]
    server, requests = log_opening.open_loggers(Config(logger=(loggers[0],), req_logger=(loggers[1],)), None)
    assert (len(server), len(requests)) == (1, 1)
    requests[0].write("x", 6, {})
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("", "x\n")


def test_a_new_file_is_the_users(tmp_path: Path) -> None:
    log_opening.open_loggers(Config(req_logger=(parse_logger(f"file:{tmp_path / 'a'}"),)), NOBODY)
    assert ((tmp_path / "a").stat().st_uid, (tmp_path / "a").stat().st_gid) == (12345, 12346)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("file:{}/missing/log", "No such file or directory"),
        ("file:{}", "Is a directory"),
        ("syslog:x,user,{}/nobody", "No such file or directory"),
        ("journald:x,{}/nobody", "No such file or directory"),
    ],
)
def test_a_log_that_cannot_be_opened(text: str, cause: str, tmp_path: Path) -> None:
    logger = parse_logger(text.format(tmp_path))
    for option in ("logger", "req_logger"):
        name = option.replace("_", "-")
        values: dict[str, Any] = {option: (logger,)}
        config = Config(**values, origins={name: "site.ini:3"})
        with pytest.raises(ConfigError) as caught:
            log_opening.open_loggers(config, None)
        assert (caught.value.option, caught.value.value, caught.value.cause) == (name, logger.text, cause)
        assert "site.ini:3" in str(caught.value)


@pytest.mark.parametrize("option", ["logto", "daemonize"])
def test_redirecting_blames_the_option(option: str, tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "log")
    values: dict[str, Any] = {option: path}
    with pytest.raises(ConfigError, match=f"^{option} = .*No such file"):
        log_opening.redirect(Config(**values), path, None)
    assert os.readlink("/proc/self/fd/2") != path
