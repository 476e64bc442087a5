"""access_log.py: what a line about a request looks like, and that no client writes one of its own."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from uwsgi_tls import access_log
from uwsgi_tls.access_log import AccessLog, AccessRecord
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.log_targets import INFO, Stream, Target
from uwsgi_tls.log_text import Fields

START = 1795427319.884  # Mon Nov 23 09:48:39 2026 in UTC
COMBINED = '%(addr) - %(user) [%(ltime)] "%(method) %(uri) %(proto)" %(status) %(rsize) "%(referer)" "%(uagent)"'

RECORD = AccessRecord(
    pid=7394,
    wid=3,
    requests=1,
    addr="127.0.0.1",
    port="50514",
    user="",
    vars=32,
    pktsize=347,
    start=START,
    method="GET",
    uri="/a%20b/c?x=1&y=2",
    proto="HTTP/1.1",
    status=200,
    rsize=627,
    headers=2,
    hsize=66,
    micros=2_345_678,
    host="server.lab",
    content_length=12,
    fields={"HTTP_USER_AGENT": "curl/7.88.1", "HTTP_X_FORWARDED_FOR": "10.1.2.3"},
    connection={
        "HTTPS": "on",
        "SSL_TLS_SNI": "shop.lab",
        "SSL_PROTOCOL": "TLSv1.3",
        "SSL_CIPHER": "TLS_AES_256_GCM_SHA384",
        "SSL_SESSION_RESUMED": "Initial",
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_S_DN": "CN=Client 01,O=Lab,C=IT",
        "SSL_CLIENT_I_DN": "CN=Lab CA",
        "SSL_CLIENT_M_SERIAL": "0ABC",
        "SSL_CLIENT_V_END": "Jan 31 23:59:59 2027 GMT",
        "SSL_CLIENT_FINGERPRINT": "00ff",
    },
    core=0,
    switches=1,
)


def changed(**values: Any) -> AccessRecord:
    return cast(AccessRecord, {**RECORD, **values})


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def logged(record: AccessRecord, format: str = "", *, json: bool = False) -> str:
    """The one line that is written, without its end."""
    reader, writer = os.pipe()
    try:
        AccessLog(format, json, [Target(Stream(writer))]).write(record)
        text = os.read(reader, 1 << 16).decode()
    finally:
        os.close(reader)
        os.close(writer)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return text[:-1]


def test_the_default_line_is_that_of_uwsgi() -> None:
    assert logged(changed(micros=999)) == (
        "[pid: 7394|app: 0|req: 1/1] 127.0.0.1 () {32 vars in 347 bytes} [Mon Nov 23 09:48:39 2026] GET"
        " /a%20b/c?x=1&y=2 => generated 627 bytes in 0 msecs (HTTP/1.1 200) 2 headers in 66 bytes"
        " (1 switches on core 0)"
    )


def test_the_combined_format() -> None:
    assert logged(RECORD, COMBINED) == (
        '127.0.0.1 - - [23/Nov/2026:09:48:39 +0000] "GET /a%20b/c?x=1&y=2 HTTP/1.1" 200 627 "-" "curl/7.88.1"'
    )


PLACEHOLDERS = {
    "uri": "/a%20b/c?x=1&y=2",
    "method": "GET",
    "user": "-",
    "addr": "127.0.0.1",
    "host": "server.lab",
    "proto": "HTTP/1.1",
    "uagent": "curl/7.88.1",
    "referer": "-",
    "port": "50514",
    "cl": "12",
    "tls_version": "TLSv1.3",
    "tls_cipher": "TLS_AES_256_GCM_SHA384",
    "tls_resumed": "no",
    "sni": "shop.lab",
    "client_verify": "SUCCESS",
    "client_dn": "CN=Client 01,O=Lab,C=IT",
    "client_issuer": "CN=Lab CA",
    "client_serial": "0ABC",
    "client_fingerprint": "00ff",
    "client_not_after": "Jan 31 23:59:59 2027 GMT",
    "status": "200",
    "rsize": "627",
    "hsize": "66",
    "size": "693",
    "headers": "2",
    "vars": "32",
    "pktsize": "347",
    "micros": "2345678",
    "msecs": "2345",
    "secs": "2",
    "time": "1795427319",
    "tmsecs": "1795427319884",
    "tmicros": str(int(START * 1_000_000)),
    "ctime": "Mon Nov 23 09:48:39 2026",
    "ltime": "23/Nov/2026:09:48:39 +0000",
    "ftime": "23/Nov/2026:09:48:39 +0000",
    "pid": "7394",
    "wid": "3",
    "core": "0",
    "requests": "1",
    "switches": "1",
}


@pytest.mark.parametrize(("name", "text"), PLACEHOLDERS.items())
def test_a_placeholder(name: str, text: str) -> None:
    assert logged(RECORD, f"<%({name})>") == f"<{text}>"


def test_epoch_is_the_time_of_writing() -> None:
    before = int(time.time())
    assert before <= int(logged(RECORD, "%(epoch)")) <= time.time()


def test_every_placeholder_is_tested() -> None:
    assert {*PLACEHOLDERS, "epoch"} == access_log._PLACEHOLDERS


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("100% of %(method)", "100% of GET"),
        ("%s %d %% %", "%s %d %% %"),
        ("%(method)%(method)", "GETGET"),
        ("é %(status)", "é 200"),
        ("\udcff", "\\udcff"),
        ("nothing", "nothing"),
        ("(%(core))", "(0)"),
    ],
)
def test_what_is_no_placeholder_stays(format: str, text: str) -> None:
    assert logged(RECORD, format) == text


@pytest.mark.parametrize(
    ("format", "cause"),
    [
        ("%(methd)", "unknown placeholder %(methd)"),
        ("%(method) %()", "unknown placeholder %()"),
        ("%( method)", "unknown placeholder %( method)"),
        ("%(var.)", "unknown placeholder %(var.)"),
        ("%(var.HTTP COOKIE)", "unknown placeholder"),
        ("%(metric.worker)", "unknown placeholder"),
        ("%(method", "no closing parenthesis"),
        ("%(method %(uri)", "no closing parenthesis"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_format(format: str, cause: str, as_json: bool) -> None:
    with pytest.raises(ConfigError) as caught:
        AccessLog(format, as_json)
    assert (caught.value.option, caught.value.value) == ("log-format", format)
    assert cause in caught.value.cause


@pytest.mark.parametrize(
    ("value", "in_line", "in_quotes"),
    [
        ("/plain?a=b&c=%22", "/plain?a=b&c=%22", "/plain?a=b&c=%22"),
        ('/"', '/"', r"/\x22"),
        ("/\\x0a", r"/\x5Cx0a", r"/\x5Cx0a"),
        ("/a\nb\r\t\0\x1b[31m\x7f", r"/a\x0Ab\x0D\x09\x00\x1B[31m\x7F", r"/a\x0Ab\x0D\x09\x00\x1B[31m\x7F"),
        ("/\xe9\x85\xa0", r"/\xE9\x85\xA0", r"/\xE9\x85\xA0"),
        ("%s%(uri)", "%s%(uri)", "%s%(uri)"),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        *sorted((access_log._TEXTS.keys() | access_log._TEXTS_AS_THEY_ARE) - {"tls_resumed"}),
        "var.HTTP_REFERER",
        "var.SSL_CLIENT_S_DN",
    ],
)
def test_what_a_client_sends_is_escaped(name: str, value: str, in_line: str, in_quotes: str) -> None:
    plain: dict[str, Any] = dict.fromkeys(("addr", "port", "user", "method", "uri", "proto", "host"), value)
    record = changed(
        **plain,
        fields=dict.fromkeys(("HTTP_USER_AGENT", "HTTP_REFERER"), value),
        connection=dict.fromkeys(RECORD["connection"], value),
    )
    assert logged(record, f"%({name})|") == in_line + "|"
    assert logged(record, f'"%({name})"') == f'"{in_quotes}"'
    assert json.loads(logged(record, f"%({name})", json=True)) == {name: value}


def test_the_default_line_escapes() -> None:
    text = logged(changed(uri="/\n[pid: 1|app: 0", user="\xe9"))
    assert r" (\xE9) {" in text
    assert r" GET /\x0A[pid: 1|app: 0 => " in text


def test_json_has_every_field() -> None:
    assert json.loads(logged(RECORD, json=True)) == {
        "time": "2026-11-23T09:48:39.884Z",
        "pid": 7394,
        "wid": 3,
        "core": 0,
        "requests": 1,
        "addr": "127.0.0.1",
        "user": "",
        "method": "GET",
        "uri": "/a%20b/c?x=1&y=2",
        "proto": "HTTP/1.1",
        "host": "server.lab",
        "uagent": "curl/7.88.1",
        "referer": "",
        "status": 200,
        "rsize": 627,
        "hsize": 66,
        "headers": 2,
        "vars": 32,
        "pktsize": 347,
        "micros": 2345678,
        "tls_version": "TLSv1.3",
        "tls_cipher": "TLS_AES_256_GCM_SHA384",
        "tls_resumed": "no",
        "sni": "shop.lab",
        "client_verify": "SUCCESS",
        "client_dn": "CN=Client 01,O=Lab,C=IT",
        "client_serial": "0ABC",
    }


def test_a_format_chooses_the_json_keys() -> None:
    record = changed(fields={"HTTP_USER_AGENT": '"\n\\\xe9'})
    text = logged(record, '%(time) "%(uagent)" %(status) %(msecs) %(status)', json=True)
    assert text.isascii()
    assert list(json.loads(text).items()) == [
        ("time", "2026-11-23T09:48:39.884Z"),
        ("uagent", '"\n\\\xe9'),
        ("status", 200),
        ("msecs", 2345),
    ]


def test_the_time_follows_the_requests_back_and_forth() -> None:
    formats = {False: "%(ctime) %(ltime)", True: ""}
    for second, clock in ((START, "09:48:39"), (START + 1, "09:48:40"), (START, "09:48:39")):
        for as_json, format in formats.items():
            assert logged(changed(start=second), format, json=as_json).count(clock) == (1 if as_json else 2)


def test_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    record = changed(start=START + 86400 * 12)
    assert logged(record, "%(ltime)|%(ctime)") == "05/Dec/2026:15:18:39 +0530|Sat Dec  5 15:18:39 2026"
    assert json.loads(logged(record, json=True))["time"] == "2026-12-05T09:48:39.884Z"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("var.HTTP_X_FORWARDED_FOR", "10.1.2.3"),
        ("var.HTTP_COOKIE", "-"),
        ("var.SSL_PROTOCOL", "TLSv1.3"),
        ("var.HTTPS", "on"),
        ("var.SSL_CLIENT_CERT", "-"),
    ],
)
def test_a_variable(name: str, text: str) -> None:
    assert logged(RECORD, f"%({name})") == text
    assert json.loads(logged(RECORD, f"%({name})", json=True)) == {name: text.replace("-", "")}


def test_a_resumed_session() -> None:
    assert logged(changed(connection={"SSL_SESSION_RESUMED": "Resumed"}), "%(tls_resumed)") == "yes"


def test_nothing_is_known_of_a_client_that_proved_nothing() -> None:
    record = changed(connection={}, fields={}, content_length=-1)
    assert logged(record, "%(tls_version) %(client_dn) %(uagent) %(cl)") == "- - - 0"


class Kept:
    """A log that keeps values apart, or not."""

    stamps = True

    def __init__(self, takes_fields: bool) -> None:
        self.takes_fields = takes_fields
        self.got: list[tuple[str, int, Fields]] = []

    def put(self, text: str, priority: int, fields: Fields) -> None:
        self.got.append((text, priority, fields))


def test_each_target_gets_what_it_takes() -> None:
    apart, text = Kept(True), Kept(False)
    AccessLog("%(method) %(status) %(sni)", True, [Target(apart), Target(text)]).write(RECORD)
    fields = {"method": "GET", "status": 200, "sni": "shop.lab"}
    assert apart.got == [("GET 200 shop.lab", INFO, fields)]
    assert text.got == [(json.dumps(fields, separators=(",", ":")), INFO, {})]


def test_without_a_target_nothing_is_written() -> None:
    AccessLog("", False).write(RECORD)


def test_every_placeholder_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
    for name in (*PLACEHOLDERS, "epoch", "var.NAME"):
        assert f"%({name})" in text
    for name in access_log._KEYS:
        assert re.search(rf"\b{name}\b", text.partition("`log-json` makes every line")[2].partition("###")[0]), name
