"""logger_option.py: from the text of `logger` to where lines go."""

import pytest

from uwsgi_tls.logger_option import JOURNAL_SOCKET, SYSLOG_SOCKET, Logger, parse_logger


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file:/var/log/a.log", ("file", "/var/log/a.log", "", 3)),
        ("file:relative, with a comma", ("file", "relative, with a comma", "", 3)),
        ("syslog", ("syslog", SYSLOG_SOCKET, "uwsgi-tls", 3)),
        ("syslog:", ("syslog", SYSLOG_SOCKET, "uwsgi-tls", 3)),
        ("syslog:shop", ("syslog", SYSLOG_SOCKET, "shop", 3)),
        ("syslog:shop,local6", ("syslog", SYSLOG_SOCKET, "shop", 22)),
        ("syslog:shop, LOG_AUTHPRIV", ("syslog", SYSLOG_SOCKET, "shop", 10)),
        ("syslog:,user,/run/other", ("syslog", "/run/other", "uwsgi-tls", 1)),
        ("journald", ("journald", JOURNAL_SOCKET, "uwsgi-tls", 3)),
        ("journald:shop,/run/j", ("journald", "/run/j", "shop", 3)),
    ],
)
def test_a_logger(text: str, expected: tuple[str, str, str, int]) -> None:
    logger = parse_logger(text)
    assert (logger.kind, logger.path, logger.name, logger.facility) == expected
    assert isinstance(logger, Logger)
    assert logger.text == text


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "no such kind of log; there are file:"),
        ("/var/log/a.log", "no such kind of log"),
        ("redislog", "no such kind of log"),
        ("file", "the syntax is file:FILE"),
        ("file:", "the syntax is file:FILE"),
        ("myid file:/x", "a logger's name serves log-route"),
        ("rsyslog:10.0.0.1:514,shop", "not supported: log to syslog, which can send it on"),
        ("socket:10.0.0.1:514", "not supported: log to syslog"),
        ("syslog:a b", "the name may have"),
        ("syslog:a:b", "the name may have"),
        ("syslog:" + "x" * 49, "the name may have"),
        ("syslog:shop,local8", "no such facility; there are kern "),
        ("syslog:shop,user,/dev/log,more", "the syntax is"),
        ("journald:shop,/run/j,more", "the syntax is"),
        ("journald:a\nb", "the name may have"),
    ],
)
def test_what_is_no_logger(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match="^" + cause):
        parse_logger(text)
