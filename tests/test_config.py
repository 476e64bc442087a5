"""Command line, environment and files become one Config, or one line that says what is wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uwsgi_tls import config, ignored
from uwsgi_tls.addresses import SharedAddress, TcpAddress, UnixAddress
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.options import BY_NAME, Config

LISTENER = ("--https", ":8443,a,b")


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(*argv: str, **environ: str) -> Config:
    return config.load((*LISTENER, *argv), environ)


def ini(text: str, name: str = "app.ini") -> str:
    Path(name).write_text(text)
    return name


def refusal(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.load(argv, environ or {})
    assert "\n" not in str(caught.value)
    return caught.value


# What the seed page shows


def test_the_command_line_of_the_page() -> None:
    loaded = config.load(
        [
            "--shared-socket",
            "0.0.0.0:443",
            "--uid",
            "roberto",
            "--gid",
            "roberto",
            "--https",
            "=0,foobar.crt,foobar.key",
        ],
        {},
    )
    assert [s.address for s in loaded.shared_socket] == [TcpAddress("0.0.0.0", 443)]
    assert (loaded.uid, loaded.gid) == ("roberto", "roberto")
    (listener,) = loaded.listeners
    assert (listener.address, listener.certificates) == (SharedAddress(0), (("foobar.crt", "foobar.key"),))
    assert (listener.option, listener.where) == ("https", "command line")


def test_the_ini_file_of_the_page() -> None:
    name = ini(
        "[uwsgi]\nmaster = true\nshared-socket = 0.0.0.0:443\nuid = www-data\ngid = www-data\n"
        "https = =0,foobar.crt,foobar.key,HIGH,!ca.crt\nhttp-to = /tmp/uwsgi.sock\n"
    )
    loaded = config.load([name], {})
    (listener,) = loaded.https
    assert (listener.ciphers, listener.client_ca, listener.client_required) == ("HIGH", "ca.crt", True)
    assert loaded.http_to == (UnixAddress("/tmp/uwsgi.sock"),)
    assert listener.where == "app.ini:6"
    assert loaded.shared_socket[0].where == "app.ini:3"
    assert loaded.origins == {
        "master": "app.ini:2",
        "shared-socket": "app.ini:3",
        "uid": "app.ini:4",
        "gid": "app.ini:5",
        "https": "app.ini:6",
        "http-to": "app.ini:7",
    }
    assert loaded.ignored == loaded.warnings == ()


# Ways to write an option

SPELLINGS: list[tuple[Sequence[str], str, Any]] = [
    (["--threads", "4"], "threads", 4),
    (["--threads=4"], "threads", 4),
    (["-p", "4"], "processes", 4),
    (["-p4"], "processes", 4),
    (["--workers", "4"], "processes", 4),
    (["--http-processes", "4"], "processes", 4),
    (["-t"], "check", True),
    (["-ML", "-t"], "disable_logging", True),
    (["-Mp4"], "processes", 4),
    (["-l", "7"], "listen", 7),
    (["-d", "/l"], "daemonize", "/l"),
    (["-b8192"], "buffer_size", 8192),
    (["-w", "a.b:c"], "module", "a.b:c"),
    (["--wsgi", "a"], "module", "a"),
    (["-H", "/v"], "virtualenv", "/v"),
    (["--venv=/v"], "virtualenv", "/v"),
    (["--master=false"], "master", False),
    (["--need-app=off"], "need_app", False),
    (["--strict", "--strict=0"], "strict", False),
    (["--http-keepalive"], "http_keepalive", 60),
    (["--http-keepalive=5"], "http_keepalive", 5),
    (["--uid", "--gid"], "uid", "--gid"),
    (["--stats", "127.0.0.1:1", "--stats-server=@s"], "stats", (TcpAddress("127.0.0.1", 1), UnixAddress("\0s"))),
    (["--stats-http", "true", "--stats-http", "/s"], "stats_http", (True, UnixAddress("/s"))),
    (["--stats-http=false"], "stats_http", (False,)),
    (["--http-var", "A=1", "--http-var=B=2"], "http_var", (("A", "1"), ("B", "2"))),
    (["--add-gid=a", "--add-gid=b"], "add_gid", ("a", "b")),
    (["--pp", "x", "--pythonpath", "y"], "pythonpath", ("x", "y")),
    (["--threads=1", "--threads=2"], "threads", 2),
    (["--set", "threads=3"], "threads", 3),
    (["-S", "threads=3"], "threads", 3),
    (["--set-ph", "threads=3"], "threads", 1),
    (["--set-placeholder", "n=3", "--threads=%(n)"], "threads", 3),
    (["--set", "n=3", "--threads=%(n)"], "threads", 3),
    (["--uid=$(WHO)"], "uid", "roberto"),
    (["--uid=%u"], "uid", "%u"),
    (["--undeferred-shared-socket", ":1", "--shared-socket", ":2"], "add_gid", ()),
    (["--log-format", "%(addr) %(status)"], "log_format", "%(addr) %(status)"),
    (["--http-timeout=9"], "http_body_timeout", 9),
]


@pytest.mark.parametrize(("argv", "field", "value"), SPELLINGS)
def test_an_option_can_be_written_so(argv: Sequence[str], field: str, value: Any) -> None:
    assert getattr(load(*argv, WHO="roberto"), field) == value


def test_both_names_of_shared_sockets_share_one_numbering() -> None:
    loaded = load("--undeferred-shared-socket", ":1", "--shared-socket", ":2")
    assert [s.text for s in loaded.shared_socket] == [":1", ":2"]


def test_all_three_https_options_are_listeners() -> None:
    loaded = load("--https2", "addr=:2,cert=a,key=b", "--https-socket", ":3,a,b")
    assert [(x.option, str(x.address)) for x in loaded.listeners] == [
        ("https", "0.0.0.0:8443"),
        ("https2", "0.0.0.0:2"),
        ("https-socket", "0.0.0.0:3"),
    ]


@pytest.mark.parametrize(("line", "value"), [("master", True), ("master = true", True), ("master = NO", False)])
def test_a_flag_in_a_file(line: str, value: bool) -> None:
    assert load(ini(f"[uwsgi]\n{line}\n")).master is value


def test_words_after_two_dashes_are_files() -> None:
    assert load("--", ini("[uwsgi]\nthreads = 2\n", "--x.ini")).threads == 2


# Sources and their order


def test_later_sources_win_and_lists_grow() -> None:
    first = ini("[uwsgi]\nprocesses = 3\nadd-gid = file\n")
    assert load(UWSGI_PROCESSES="7").processes == 7
    assert load("-p9", UWSGI_PROCESSES="7").processes == 9
    loaded = load(first, "-p9", "--add-gid=line", UWSGI_PROCESSES="7", UWSGI_ADD_GID="env")
    assert loaded.processes == 3
    assert loaded.add_gid == ("env", "line", "file")
    assert loaded.origins["processes"] == "app.ini:2"
    assert load("-p9", UWSGI_PROCESSES="7").origins["processes"] == "command line"
    assert load(UWSGI_PROCESSES="7").origins["processes"] == "environment UWSGI_PROCESSES"


def test_ini_on_the_command_line_counts_where_it_stands() -> None:
    name = ini("[uwsgi]\nprocesses = 3\n")
    assert load("-p9", "--ini", name).processes == 3
    assert load("--ini", name, "-p9").processes == 9
    assert load(UWSGI_INI=name).processes == 3


def test_sections() -> None:
    name = ini("[uwsgi]\nthreads = 1\n[web]\nthreads = 2\nuid = %x\n")
    assert load(f"{name}:web").threads == 2
    assert load("--ini", f"{name}:web").uid == "web"


def test_files_include_files() -> None:
    ini("[uwsgi]\nthreads = 4\npidfile = %n.pid\n", "inner.ini")
    name = ini("[uwsgi]\nthreads = 2\nini = %dinner.ini\nuid = %n\n")
    loaded = load(name)
    assert (loaded.threads, loaded.pidfile, loaded.uid) == (4, "inner.pid", "app")
    assert loaded.origins["threads"].endswith("inner.ini:2")
    assert load(ini("[uwsgi]\ninclude = inner.ini\n", "b.ini")).threads == 4
    assert load(ini("[uwsgi]\nini = c.ini:more\n[more]\nthreads = 8\n", "c.ini")).threads == 8


def test_keys_that_a_value_refers_to_are_placeholders() -> None:
    name = ini("[uwsgi]\nhttp-to = %(base)/app.sock\nbase = /run/%(site)\nsite = www\n")
    assert load(name).http_to == (UnixAddress("/run/www/app.sock"),)
    assert load("--uid=%(owner)", UWSGI_OWNER="web").uid == "web"


def test_a_cipher_list_keeps_its_bytes() -> None:
    name = ini("[uwsgi]\nhttps = :1,a,b,ECDHE+AESGCM:!aNULL:@SECLEVEL=1;#x,!c a.crt\n")
    listener = load(name).https[1]
    assert listener.ciphers == "ECDHE+AESGCM:!aNULL:@SECLEVEL=1;#x"
    assert listener.client_ca == "c a.crt"


def test_bytes_that_are_not_utf8_reach_a_path_unchanged() -> None:
    Path("app.ini").write_bytes(b"[uwsgi]\npidfile = /run/\xff.pid\n")
    assert load("app.ini").pidfile == "/run/\udcff.pid"


# uWSGI's own options


def test_uwsgi_options_without_meaning_are_collected() -> None:
    name = ini("[uwsgi]\nemperor = /etc/x\ncheaper = 30\ncheaper = %(nosuch)\nvacuum = true\n")
    assert load(name).ignored == ("emperor", "cheaper", "vacuum")


def test_their_arguments_are_swallowed_on_the_command_line() -> None:
    loaded = load("--cheaper", "30", "-s", ":3031", "-z4", "-C", "--vacuum", "--chmod-socket=660", "--threads", "2")
    assert loaded.ignored == ("cheaper", "socket", "socket-timeout", "chmod-socket", "vacuum")
    assert loaded.threads == 2


def test_what_is_always_on_is_no_word_worth_unless_it_is_turned_off() -> None:
    assert load("--enable-threads", "--no-orphans", "--strict").ignored == ()
    assert load("--enable-threads=false").ignored == ("enable-threads",)


def test_every_uwsgi_option_is_taken_or_refused_by_name() -> None:
    for name in sorted(ignored.NAMES - ignored.REFUSED.keys()):
        loaded = load(f"--{name}=x")
        assert loaded.ignored == (() if ignored.reason(name) == "always" else (name,))
    for name, cause in ignored.REFUSED.items():
        error = refusal([*LISTENER, f"--{name}=x"])
        assert (error.option, error.cause) == (name, cause)


def test_a_refused_flag_that_is_off_changes_nothing() -> None:
    assert load("--ssl-enable3=false").ignored == ("ssl-enable3",)


def test_unknown_environment_variables_are_one_warning() -> None:
    loaded = load(UWSGI_FOO="1", UWSGI_VERSION="2.0.31", UWSGI_RELOADS="1", UWSGI_EMPEROR_FD="3", HOME="/", UWSGI_="x")
    (warning,) = loaded.warnings
    assert warning.endswith("no option has their name: UWSGI_FOO, UWSGI_VERSION")


def test_callable_without_an_application_is_a_warning() -> None:
    assert load("--callable=app").warnings == ("callable has no effect without module or wsgi-file",)


@pytest.mark.parametrize(
    ("words", "names", "cause"),
    [
        (["--http-to=/n", "--http-fallback=/m", "--http-websockets", "--http-var=A=b", "--http-modifier1=5"], [], ""),
        (["--http-to=/n", "--http-backend-http", "--http-websockets", "--http-fallback=/m"], [], ""),
        (
            ["--http-to=/n", "--http-backend-http", "--http-var=A=b", "--http-modifier1=5", "--http-modifier2=6"],
            ["http-var", "http-modifier1", "http-modifier2"],
            "is of the uwsgi protocol: no effect with http-backend-http",
        ),
        (
            ["--http-fallback=/m", "--http-backend-http", "--http-websockets", "--http-var=A=b"],
            ["http-fallback", "http-backend-http", "http-websockets"],
            "has no effect without http-to",
        ),
        (["--http-websockets=off"], [], ""),
    ],
)
def test_what_reaches_no_backend_is_a_warning(words: Sequence[str], names: Sequence[str], cause: str) -> None:
    assert load(*words).warnings == tuple(f"{name} {cause}" for name in names)


# Bad configurations: the whole line that a user sees, for everything that is wrong before a file or socket is touched

BAD: list[tuple[str, Sequence[str], str]] = [
    ("", [], "https = : no HTTPS listener is given: ADDRESS,CERTIFICATE,KEY"),
    (
        "",
        ["--https", "=0,a"],
        "https = =0,a: the syntax is ADDRESS,CERTIFICATE,KEY[,CIPHERS[,[!]CLIENT_CA]] (command line)",
    ),
    (
        "",
        ["--https", "=-,a,b"],
        "https = =-,a,b: '=-' is not =N with the number N of a shared socket, nor =NAME (command line)",
    ),
    (
        "",
        ["--https", ":1,a,b,HIGH,!aNULL"],
        "https = :1,a,b,HIGH,!aNULL: '!aNULL' reads as part of the cipher list, not as a CA file: separate ciphers with"
        " ':' (command line)",
    ),
    (
        "",
        ["--https2", "addr==0,cert=a"],
        "https2 = addr==0,cert=a: key must be given: addr=ADDRESS,cert=FILE,key=FILE (command line)",
    ),
    (
        "[uwsgi]\nshared-socket = 256.0.0.1:443\n",
        ["app.ini"],
        "shared-socket = 256.0.0.1:443: '256.0.0.1' is not an IPv4 address (app.ini:2)",
    ),
    (
        "[uwsgi]\nshared-socket = 127.0.0.1:99999\n",
        ["app.ini"],
        "shared-socket = 127.0.0.1:99999: port 99999 is not between 0 and 65535 (app.ini:2)",
    ),
    (
        "[uwsgi]\nshared-socket = =0\n",
        ["app.ini"],
        "shared-socket = =0: '=0' names a shared socket, which only an https option can use (app.ini:2)",
    ),
    ("", ["--threads", "many"], "threads = many: not a whole number (command line)"),
    ("[uwsgi]\nprocesses = 2 ; two\n", ["app.ini"], "processes = 2 ; two: not a whole number (app.ini:2)"),
    ("", ["-p0"], "processes = 0: not between 1 and 1024 (command line)"),
    ("", ["--workers=-1"], "workers = -1: not between 1 and 1024 (command line)"),
    ("", ["--buffer-size=99"], "buffer-size = 99: not between 512 and 65536 (command line)"),
    ("", ["--http-timeout=0"], "http-timeout = 0: not between 1 and 2000000 (command line)"),
    (
        "[uwsgi]\nstrict = maybe\n",
        ["app.ini"],
        "strict = maybe: a flag is true or false (on/off, yes/no, 1/0) (app.ini:2)",
    ),
    ("[uwsgi]\nuid =\n", ["app.ini"], "uid = : the value is missing (app.ini:2)"),
    ("", ["--uid"], "--uid = : the value is missing (command line)"),
    ("", ["-p"], "-p = : the value is missing (command line)"),
    ("[uwsgi]\nprocesess = 4\n", ["app.ini"], "procesess = 4: no such option; did you mean processes? (app.ini:2)"),
    ("", ["--proc=4"], "--proc = 4: no such option; did you mean --processes? (command line)"),
    ("", ["--wsgi_file", "x"], "--wsgi_file = : no such option; did you mean --wsgi-file? (command line)"),
    ("[uwsgi]\nharakirri = 4\n", ["app.ini"], "harakirri = 4: no such option; did you mean harakiri? (app.ini:2)"),
    ("", ["--qqqqq"], "--qqqqq = : no such option (command line)"),
    ("", ["-Z"], "-Z = : no such option (command line)"),
    (
        "",
        ["--strict", "--cheaper=3"],
        "cheaper = 3: the option has no effect here, which strict refuses (command line)",
    ),
    (
        "",
        ["--ssl-enable3"],
        "ssl-enable3 = : SSLv3 is broken (RFC 7568) and gone from OpenSSL; take the option out (command line)",
    ),
    (
        "[uwsgi]\nif-env = HOME\nthreads = 2\nendif =\n",
        ["app.ini"],
        "if-env = HOME: conditions and loops in a configuration are not supported (app.ini:2)",
    ),
    (
        "[uwsgi]\nsni = www a,b,,!\n",
        ["app.ini"],
        "sni = www a,b,,!: the client CA is empty; take the last comma away to ask for no certificate (app.ini:2)",
    ),
    ("", ["none.ini"], "ini = none.ini: No such file or directory (command line)"),
    ("", ["app.yaml"], "configuration file = app.yaml: not FILE.ini or FILE.ini:SECTION (command line)"),
    (
        "",
        ["--master", "true"],
        "configuration file = true: not FILE.ini or FILE.ini:SECTION; a flag takes its value as in --master=false"
        " (command line)",
    ),
    ("", ["--ini", "."], "ini = .: this is a directory (command line)"),
    ("[uwsgi]\n", ["app.ini:web"], "ini = app.ini: the file has no section [web] (command line)"),
    (
        "threads = 2\n",
        ["app.ini"],
        "ini = threads = 2: the line stands before any [section], such as [uwsgi] (app.ini:1)",
    ),
    ("[uwsgi]\nini = app.ini\n", ["app.ini"], "ini = app.ini: the file includes itself (app.ini:2)"),
    (
        "[uwsgi]\nini = %z.ini\n",
        ["app.ini"],
        "ini = %z.ini: there is no magic variable %z; a per cent sign is written %% (app.ini:2)",
    ),
    ("[uwsgi]\nuid = %(user)\n", ["app.ini"], "uid = %(user): %(user): there is no such setting (app.ini:2)"),
    (
        "[uwsgi]\nuid = $(NONE)\n",
        ["app.ini"],
        "uid = $(NONE): $(NONE): there is no such environment variable (app.ini:2)",
    ),
    ("[uwsgi]\nuid = @(none)\n", ["app.ini"], "uid = @(none): @(none): No such file or directory (app.ini:2)"),
    ("", ["--set", "threads"], "set = threads: the syntax is NAME=VALUE (command line)"),
    (
        "",
        ["--http-to", "fd://3"],
        "http-to = fd://3: a backend is HOST:PORT or a UNIX socket, not a descriptor (command line)",
    ),
    ("", ["--http-var", "x"], "http-var = x: the syntax is NAME=VALUE (command line)"),
    (
        "",
        ["--module", "a/b.py"],
        "module = a/b.py: the syntax is PACKAGE.MODULE or PACKAGE.MODULE:CALLABLE; a file is given as"
        " wsgi-file (command line)",
    ),
    (
        "",
        [*LISTENER, "--http-to", ":1", "--module", "a"],
        "http-to = 0.0.0.0:1: requests go to module = a already (command line)",
    ),
    (
        "",
        [*LISTENER, "--http-to", ":1", "--wsgi-file", "a.py"],
        "http-to = 0.0.0.0:1: requests go to wsgi-file = a.py already (command line)",
    ),
    (
        "",
        [*LISTENER, "--file=a.py", "--module=a"],
        "module = a: wsgi-file = a.py names an application already (command line)",
    ),
    ("", [*LISTENER, "--module=a:b", "--callable=c"], "callable = c: module = a:b names another (command line)"),
    ("[uwsgi]\nhelp = true\n", ["app.ini"], "help = true: this belongs on the command line (app.ini:2)"),
]


@pytest.mark.parametrize(("text", "argv", "line"), BAD)
def test_a_bad_configuration_is_one_line(text: str, argv: Sequence[str], line: str) -> None:
    ini(text)
    assert str(refusal(argv)) == line


def test_strict_refuses_unknown_environment_variables() -> None:
    error = refusal([*LISTENER, "--strict"], {"UWSGI_FOO": "1"})
    assert str(error) == "foo = 1: no such option (environment UWSGI_FOO)"


def test_a_bad_value_in_the_environment_says_so() -> None:
    error = refusal(LISTENER, {"UWSGI_THREADS": "x"})
    assert str(error) == "threads = x: not a whole number (environment UWSGI_THREADS)"


def test_an_unknown_key_in_a_file_that_the_environment_names_is_an_error() -> None:
    error = refusal(LISTENER, {"UWSGI_INI": ini("[uwsgi]\nnosuchkey = 1\n")})
    assert error.where == "app.ini:2"


def test_two_files_that_include_each_other() -> None:
    ini("[uwsgi]\nini = b.ini\n", "a.ini")
    ini("[uwsgi]\nini = ./a.ini\n", "b.ini")
    assert refusal(["a.ini"]).cause == "the file includes itself"


def test_inclusion_has_an_end() -> None:
    for i in range(30):
        ini(f"[uwsgi]\nini = {i + 1}.ini\n", f"{i}.ini")
    assert "deeper than 16" in refusal(["0.ini"]).cause


# Whatever comes, a Config or a ConfigError


def outcome(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    try:
        return type(config.load(argv, environ)).__name__
    except ConfigError as error:
        return str(error)


ANY_WORD = st.one_of(
    st.text(max_size=20),
    st.sampled_from(sorted(BY_NAME)).map(lambda name: f"--{name}"),
    st.sampled_from(["--threads=2", "-p", "--", "-", "--https=:1,a,b", "--set=a=%(b)", "--set-ph=b=%(a)", "=0", "1"]),
)


@settings(deadline=None)
@given(st.lists(ANY_WORD, max_size=6), st.dictionaries(st.text(max_size=8).map("UWSGI_".__add__), st.text(max_size=8)))
def test_any_arguments_are_a_config_or_one_line(argv: list[str], environ: dict[str, str]) -> None:
    assert outcome(argv, environ).isprintable()


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted({*BY_NAME, "own", "for"})), st.text(max_size=20)), max_size=8),
    st.binary(max_size=40),
)
def test_any_file_is_a_config_or_one_line(lines: list[tuple[str, str]], tail: bytes) -> None:
    text = "[uwsgi]\n" + "".join(f"{name} = {value}\n" for name, value in lines)
    Path("fuzz.ini").write_bytes(text.encode("utf-8", "surrogatepass") + tail)
    assert outcome(["fuzz.ini"], {}).isprintable()
