"""Ini files and placeholders: uWSGI's dialect, its magic variables, and what is refused."""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uwsgi_tls import ini
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.placeholders import (
    FILE_BYTES_MAX,
    Placeholders,
    Setting,
    magic_variables,
    references,
    substitute_magic,
)

READ = [
    (b"[uwsgi]\na = b\n", [("a", "b")]),
    (b"[uwsgi]\na=b", [("a", "b")]),
    (b"[uwsgi]\r\n\t a \t=\t b c \t\r\n", [("a", "b c")]),
    (b"\xef\xbb\xbf[uwsgi]\na=b\n", [("a", "b")]),
    (b"[uwsgi]\nhttps = =0,a,b\nhttps==1,c,d\n", [("https", "=0,a,b"), ("https", "=1,c,d")]),
    (b"[uwsgi]\nmaster\nmaster =\n", [("master", ""), ("master", "")]),
    (b"[uwsgi]\n; a = 1\n# b = 2\n\n  # c\nd = 4 ; not a comment\n", [("d", "4 ; not a comment")]),
    (b'[uwsgi]\na = "b"\n', [("a", '"b"')]),
    (b"[uwsgi]\na = b\\\nc\n", [("a", "b\\"), ("c", "")]),
    (b"[other]\na = 1\n[uwsgi]\nb = 2\n[more]\nc = 3\n[uwsgi]\nd = 4\n", [("b", "2"), ("d", "4")]),
    (b"[uwsgi]\n", []),
    (b"[uwsgi]\na = \xff\xc3\xa9\n", [("a", "\udcffé")]),
    (b"[uwsgi]\na = %d $(X) @(y) %(z)\n", [("a", "%d $(X) @(y) %(z)")]),
]

REFUSED = [
    (b"", "the file has no section [uwsgi]"),
    (b"[other]\na = 1\n", "the file has no section [uwsgi]"),
    (b"a = 1\n[uwsgi]\n", "the line stands before any [section]"),
    (b"[uwsgi]\n= 1\n", "the name before the equals sign is missing"),
    (b"[uwsgi] ; main\na = 1\n", "a section is [name]"),
    (b"[uwsgi\na = 1\n", "a section is [name]"),
    (b"[uwsgi]\na = \0\n", "NUL bytes"),
    (b"[uwsgi]\n" + b"#" * FILE_BYTES_MAX, "larger than 1048576 bytes"),
]

NAMES = [
    ("a.ini", ("a.ini", "uwsgi")),
    ("a.ini:web", ("a.ini", "web")),
    ("a:b.ini:web", ("a:b.ini", "web")),
    ("conf", ("conf", "uwsgi")),
]

BAD_NAMES = [
    ("", "the name of the file is missing"),
    (":web", "the name of the file is missing"),
    ("a.ini:", "the name of the section is missing"),
    ("-", "only files"),
    ("http://host/a.ini", "only files"),
    ("a.yaml", "only ini files"),
    ("a.JSON", "only ini files"),
]


@pytest.mark.parametrize(("data", "settings"), READ)
def test_a_file_is_read(data: bytes, settings: list[tuple[str, str]], tmp_path: Path) -> None:
    file = tmp_path / "a.ini"
    file.write_bytes(data)
    assert [(s.name, s.value) for s in ini.read(str(file), "uwsgi", "ini", "")] == settings


def test_a_setting_knows_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.ini"
    file.write_text("# one\n[uwsgi]\n\na = 1\n")
    assert [s.where for s in ini.read(str(file), "uwsgi", "ini", "")] == [f"{file}:4"]


@pytest.mark.parametrize(("data", "cause"), REFUSED)
def test_a_bad_file_is_refused(data: bytes, cause: str, tmp_path: Path) -> None:
    file = tmp_path / "a.ini"
    file.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        ini.read(str(file), "uwsgi", "ini", "command line")
    assert cause in caught.value.cause
    assert str(file) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, cause in (
        (str(tmp_path / "none.ini"), "No such file or directory"),
        (str(tmp_path), "this is a directory"),
        ("a\0b", "null byte"),
        ("/dev/zero", "larger than"),
    ):
        with pytest.raises(ConfigError) as caught:
            ini.read(path, "uwsgi", "ini", "command line")
        assert cause in caught.value.cause
        assert "command line" in str(caught.value)


@pytest.mark.parametrize(("text", "parts"), NAMES)
def test_a_file_name_is_parted(text: str, parts: tuple[str, str]) -> None:
    assert ini.split_name(text) == parts


@pytest.mark.parametrize(("text", "cause"), BAD_NAMES)
def test_a_bad_file_name_is_refused(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cause)):
        ini.split_name(text)


def test_magic_variables(tmp_path: Path) -> None:
    directory = tmp_path / "site"
    directory.mkdir()
    file = directory / "my.app.ini"
    file.write_text("[uwsgi]\n")
    magic = magic_variables(os.path.relpath(file), "web")
    parts = str(directory).strip("/").split("/")
    expected = {
        "p": str(file),
        "s": "my.app.ini",
        "n": "my.app",
        "e": "ini",
        "d": f"{directory}/",
        "c": "site",
        "x": "web",
        "o": os.path.relpath(file),
        "v": os.getcwd(),
        "h": os.uname().nodename,
        "u": str(os.getuid()),
        "i": str(file.stat().st_ino),
        "0": parts[0],
        "1": parts[1],
        "%": "%",
        "[": "\033",
    }
    assert {key: magic[key] for key in expected} == expected
    assert set("pvsdcnexijohVuUgGtTk0123456789%[(") <= magic.keys()


def test_ids_without_a_name_stand_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_001)
    monkeypatch.setattr("os.getgid", lambda: 4_000_000_002)
    magic = magic_variables("/etc/passwd", "")
    assert [magic[key] for key in "uUgG"] == ["4000000001", "4000000001", "4000000002", "4000000002"]


def test_a_symbolic_link_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "real.ini").write_text("[uwsgi]\n")
    (tmp_path / "link.ini").symlink_to("real.ini")
    assert magic_variables(str(tmp_path / "link.ini"), "")["n"] == "link"


def test_the_path_hash_is_uwsgis() -> None:
    # The function was held against uWSGI 2.0.31, which showed 2F26AD1C for a file of ours.
    assert magic_variables("/etc/passwd", "")["j"] == "D5E39B4C"


@pytest.mark.parametrize(
    ("text", "result"),
    [("%n.log", "app.log"), ("100%%", "100%"), ("%%n", "%n"), ("50%", "50%"), ("%(x) %n", "%(x) app"), ("é%n", "éapp")],
)
def test_magic_is_substituted(text: str, result: str) -> None:
    assert substitute_magic(text, {"n": "app", "%": "%", "(": "%("}) == result


def test_unknown_magic_is_named() -> None:
    with pytest.raises(ValueError, match="no magic variable %z"):
        substitute_magic("a%z", {"n": "app"})


def expand(value: str, settings: Mapping[str, str], environ: Mapping[str, str]) -> str:
    written = [Setting(name, text, "") for name, text in settings.items()]
    return Placeholders(written, environ).expand(Setting("", value, ""))


EXPANSIONS = [
    ("plain", "plain"),
    ("%(a)", "1"),
    ("x%(a)y%(a)", "x1y1"),
    ("%(chain)", "<1>"),
    ("$(HOME)", "/root"),
    ("$(EMPTY)|", "|"),
    ("%($(NAME))", "1"),
    ("%(a b)", "12"),
    ("%(a b + 2)", "14"),
    ("%(b - 5)", "-3"),
    ("%(b * 3)", "6"),
    ("%(minus / b)", "-3"),
    ("%(a ++)", "2"),
    ("%(a --)", "0"),
    ("$HOME @x ()", "$HOME @x ()"),
]

FAILURES = [
    ("%(nosuch)", "%(nosuch): there is no such setting"),
    ("%(a nosuch)", "%(nosuch): there is no such setting"),
    ("$(NOSUCH)", "$(NOSUCH): there is no such environment variable"),
    ("%(loop)", "refers to itself"),
    ("@(/nosuch)", "@(/nosuch): No such file or directory"),
    ("@(http://x)", "only files can be read"),
    ("@(/)", "Is a directory"),
    ("%(a / zero)", "division by zero"),
    ("%(word + 1)", "'w' is not a number"),
    ("%(n0)", "nested deeper"),
    ("%(long)%(long)", "longer than"),
    ("%(long long)", "longer than"),
    ("$(NUL)", "cannot contain a NUL byte"),
    ("@(/dev/zero)", "@(/dev/zero): the file is larger than"),
]

SETTINGS = {
    "a": "1",
    "b": "2",
    "minus": "-7",
    "zero": "0",
    "word": "w",
    "chain": "<%(a)>",
    "loop": "%(pool)",
    "pool": "%(loop)",
    "long": "x" * 60000,
    **{f"n{i}": f"%(n{i + 1})" for i in range(100)},
}
ENVIRON = {"HOME": "/root", "NUL": "a\0b", "EMPTY": "", "NAME": "a"}


@pytest.mark.parametrize(("value", "result"), EXPANSIONS)
def test_placeholders(value: str, result: str) -> None:
    assert expand(value, SETTINGS, ENVIRON) == result


@pytest.mark.parametrize(("value", "cause"), FAILURES)
def test_placeholders_that_lead_nowhere(value: str, cause: str) -> None:
    with pytest.raises(ValueError, match=re.escape(cause)):
        expand(value, SETTINGS, ENVIRON)


def test_a_file_as_value_loses_one_newline(tmp_path: Path) -> None:
    (tmp_path / "user").write_bytes(b"www-data\n\n")
    assert expand(f"@({tmp_path}/user)", {}, {}) == "www-data\n"


def test_the_first_setting_of_a_name_counts() -> None:
    settings = [Setting("a", "1", ""), Setting("a", "2", "")]
    assert Placeholders(settings, {}).expand(Setting("b", "%(a)", "")) == "1"


def test_log_formats_keep_names_that_nobody_set() -> None:
    placeholders = Placeholders([Setting("host", "here", "")], {})
    assert placeholders.expand(Setting("log-format", "%(addr) %(host)", ""), keep_unknown=True) == "%(addr) here"


def test_many_references_to_the_same_name_are_expanded_once() -> None:
    settings = {f"n{i}": f"%(n{i + 1})%(n{i + 1})" for i in range(30)} | {"n30": ""}
    assert expand("%(n0)", settings, {}) == ""


def test_references() -> None:
    settings = [Setting("a", "%(x) and %(y + 1)", ""), Setting("b", "$(z) @(w)", "")]
    assert references(settings) == {"x", "y", "+", "1"}


@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_settings_or_one_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.ini"
    file.write_bytes(b"[uwsgi]\n" + data)
    try:
        names = [s.name for s in ini.read(str(file), "uwsgi", "ini", "")]
    except ConfigError as error:
        names = [str(error)]
    assert all(name and name == name.strip(" \t\r") and "\n" not in name for name in names)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.text("%$@()abc +-*/19", max_size=20)))
def test_any_placeholders_end(settings: dict[str, str]) -> None:
    for name in settings:
        with contextlib.suppress(ValueError):
            assert isinstance(expand(f"%({name})", settings, {"a": "%(b)"}), str)


def test_what_came_from_the_environment_is_not_expanded(tmp_path: Path) -> None:
    """Whoever sets a variable that a configuration of root quotes chooses no file for root to read."""
    (tmp_path / "secret").write_text("root's own")
    (tmp_path / "quotes").write_text("%(a) $(HOME)")
    environ = {"X": f"@({tmp_path}/secret) %(a)", "NAME": "secret", "HOME": "/root"}
    settings = {"a": "1", "b": "$(X)", "c": "<%(b)>"}
    assert expand("$(X)", settings, environ) == environ["X"]
    assert expand("%(c)", settings, environ) == f"<{environ['X']}>"
    assert expand(f"@({tmp_path}/quotes)", settings, environ) == "%(a) $(HOME)"
    # What is written decides, and may say that the variable does.
    assert expand(f"@({tmp_path}/$(NAME)) %(a)", settings, environ) == "root's own 1"
    with pytest.raises(ValueError, match="NUL"):
        expand("\0000\000 $(X)", settings, environ)


def test_nor_what_is_in_the_name_of_the_directory(tmp_path: Path) -> None:
    magic = {"d": f"{tmp_path}/$(X)%(a)/", "%": "%", "(": "%("}
    setting = Setting("b", "%d %(a) %%(a)", "", magic)
    assert Placeholders([Setting("a", "1", ""), setting], {"X": "x"}).expand(setting) == f"{magic['d']} 1 1"
