"""The option table: each field of Config is the row of one option, and an option stands nowhere else.

A row holds the names, the converter from text, the default and the help of its option; `config` fills rows from argv,
environment and ini files, `help` prints them. Names and meanings are uWSGI's (core/uwsgi.c, plugins/http/http.c,
plugins/python/python_plugin.c) where uWSGI has the option; values are read strictly where uWSGI uses atoi().
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from uwsgi_tls import client_allow, policy
from uwsgi_tls.addresses import Address
from uwsgi_tls.client_allow import Rule
from uwsgi_tls.converters import (
    DESCRIPTORS_MAX,
    INT_MAX,
    KEEPALIVE_SECONDS,
    WAIT_SECONDS_MAX,
    Convert,
    Network,
    SharedSocket,
    backend_address,
    capabilities,
    crl_check,
    field_text,
    file_mode,
    file_mode_mask,
    flag,
    https_socket,
    integer,
    keepalive_seconds,
    network,
    process_count,
    shared_socket,
    stats_address,
    stats_http,
    variable,
    verify_depth,
    wsgi_module,
)
from uwsgi_tls.https_option import (
    DEPTH_MAX,
    HTTPS_SYNTAX,
    SNI_REGEXP_SYNTAX,
    SNI_SYNTAX,
    HttpsListener,
    SniSite,
    parse_https,
    parse_https2,
    parse_sni,
    parse_sni2,
    parse_sni_regexp,
)
from uwsgi_tls.logger_option import LOGGER_METAVAR, Logger, parse_logger

LISTENING = "Listening"
TLS = "TLS"
PRIVILEGES = "Privileges"
PROCESSES = "Processes"
ROUTING = "Where requests go"
HTTP = "HTTP"
LOGGING = "Logging"
STATISTICS = "Statistics"
CONFIGURATION = "Configuration"
GROUPS = (LISTENING, TLS, PRIVILEGES, PROCESSES, ROUTING, HTTP, LOGGING, STATISTICS, CONFIGURATION)

BODY_BYTES_MAX = 2**63 - 1
_AS_OTHER_OPTION = -1  # the default of an option is the value of another

Argument = Literal["none", "optional", "required"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known of one option. `argument` says whether a value must, may or need not follow it."""

    name: str = ""
    aliases: tuple[str, ...] = ()
    short: str = ""
    convert: Convert = str
    argument: Argument = "required"
    many: bool = False
    metavar: str = ""
    default: Any = ""
    default_text: str = ""
    group: str
    help: str
    note: str = ""
    keeps_placeholders: bool = False
    only_at_start: bool = False  # a reload that finds another value fails

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


# Rows: these return Any, as dataclasses.field() stands for a value of the field's type.


def _row(default: object, row: Row) -> Any:
    return field(default=default, metadata={"row": row})


def _flag(default: bool, group: str, help: str, **more: Any) -> Any:
    return _row(default, Row(group=group, help=help, convert=flag, argument="none", **more))


def _int(default: int, low: int, high: int, group: str, help: str, *, metavar: str = "N", **more: Any) -> Any:
    more.setdefault("convert", integer(low, high))
    return _row(default, Row(group=group, help=help, metavar=metavar, **more))


def _text(metavar: str, group: str, help: str, **more: Any) -> Any:
    return _row("", Row(group=group, help=help, metavar=metavar, **more))


def _list(metavar: str, convert: Convert, group: str, help: str, **more: Any) -> Any:
    return _row((), Row(group=group, help=help, convert=convert, metavar=metavar, many=True, **more))


def _timeout(help: str) -> Any:
    return _int(_AS_OTHER_OPTION, 1, WAIT_SECONDS_MAX, HTTP, help, metavar="SECONDS", default_text="http-timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that the options say; a field whose default is a row is the option of its name."""

    shared_socket: tuple[SharedSocket, ...] = _list(
        "[NAME=]ADDRESS", shared_socket, LISTENING,
        "bind ADDRESS before privileges are dropped; https names the N-th as =N, or as =NAME; those that a service"
        " manager passes come first",
        aliases=("undeferred-shared-socket",), note="both names share one numbering; neither defers accept here",
        only_at_start=True,
    )  # fmt: skip
    http_enable_proxy_protocol: bool = _flag(
        False, LISTENING, "every connection begins with a load balancer's PROXY header (version 1 or 2), before TLS",
        note="uWSGI reads it inside TLS, where it is the client's own word",
    )  # fmt: skip
    proxy_protocol_trust: tuple[Network, ...] = _list(
        "NETWORK", network, LISTENING, "whose PROXY headers are believed; whoever else connects is turned away",
        note="not in uWSGI",
    )  # fmt: skip
    listen: int = _int(100, 1, INT_MAX, LISTENING, "connections that may wait in a listen queue", short="l")
    worker_connections: int = _int(
        16384, 1, INT_MAX, LISTENING, "connections of a worker; idle ones give way, then no more are accepted",
        note="not in uWSGI",
    )  # fmt: skip
    connections_per_client: int = _int(
        0, 0, INT_MAX, LISTENING, "connections of one address to a worker; more are told 429; 0: any number",
        note="not in uWSGI",
    )  # fmt: skip
    https: tuple[HttpsListener, ...] = _list(
        HTTPS_SYNTAX, parse_https, TLS,
        "serve HTTPS on ADDRESS (=N is the N-th shared socket, =NAME that of the name); CLIENT_CA asks clients for a"
        " certificate, !CLIENT_CA demands one",
    )  # fmt: skip
    https2: tuple[HttpsListener, ...] = _list(
        "KEY=VALUE,...", parse_https2, TLS,
        "the same with the keys addr, cert, key (both again for a second kind of key), ciphers, ciphersuites, clientca,"
        " crl, depth, allow (again for more), profile, min-version, max-version",
        note="an unknown key is an error",
    )  # fmt: skip
    https_socket: tuple[HttpsListener, ...] = _list(
        HTTPS_SYNTAX, https_socket, TLS, "the same as https: TLS always ends in a worker"
    )
    sni: tuple[SniSite, ...] = _list(
        SNI_SYNTAX, parse_sni, TLS,
        "what clients get that ask for NAME, at every https; *.NAME stands for one label more, exact names count first;"
        " where it asks clients for other certificates than the rest, it is not reached by another name (421)",
        note="matches without regard to case; a file that is missing is an error",
    )  # fmt: skip
    sni2: tuple[SniSite, ...] = _list(
        "KEY=VALUE,...", parse_sni2, TLS, "the same with the keys of https2, and name (again for more) instead of addr",
        note="not in uWSGI",
    )  # fmt: skip
    sni_regexp: tuple[SniSite, ...] = _list(
        SNI_REGEXP_SYNTAX, parse_sni_regexp, TLS,
        "for names in which the regular expression is found and that no sni has; the first one counts",
        note="an expression of Python; write ^ and $ for the whole name",
    )  # fmt: skip
    sni_dir: str = _text(
        "DIR", TLS,
        "every NAME.crt in DIR with its NAME.key is a sni; NAME.ca asks its clients for certificates; _.NAME.crt and"
        " _wildcard.NAME.crt are for *.NAME",
        note="read at start and reload, not when a client asks",
    )  # fmt: skip
    sni_dir_ciphers: str = _text("CIPHERS", TLS, "the ciphers of the names in sni-dir")
    sni_strict: bool = _flag(
        False, TLS,
        "refuse clients that ask for a name which is none of these and not in the listener's own certificate; who asks"
        " for none is served",
        note="not in uWSGI",
    )  # fmt: skip
    tls_profile: str = _text(
        "PROFILE", TLS, "Mozilla's modern (TLS 1.3 alone) or intermediate", convert=policy.profile,
        default_text=policy.DEFAULT_PROFILE, note="not in uWSGI",
    )  # fmt: skip
    tls_min_version: str = _text(
        "VERSION", TLS, "the oldest TLS version, 1.2 or 1.3", convert=policy.version, default_text="the profile's",
        note="not in uWSGI",
    )  # fmt: skip
    tls_max_version: str = _text(
        "VERSION", TLS, "the newest TLS version, 1.2 or 1.3", convert=policy.version, default_text="the profile's",
        note="not in uWSGI",
    )  # fmt: skip
    ssl_ciphersuites: str = _text(
        "SUITES", TLS, "the cipher suites of TLS 1.3, joined by ':'", convert=policy.ciphersuites,
        default_text="OpenSSL's", note="not in uWSGI",
    )  # fmt: skip
    ssl_option: tuple[int, ...] = _list(
        "OPTION", policy.ssl_option, TLS, "an SSL_OP_* of OpenSSL, by name or number; those that weaken TLS are refused"
    )
    ssl_verify_depth: int = _int(
        4, 0, DEPTH_MAX, TLS, "intermediate CAs that may stand between a client's certificate and a trusted one",
        argument="optional", convert=verify_depth, note="1 in uWSGI, and only for the https after it",
    )  # fmt: skip
    ssl_crl: str = _text(
        "FILE", TLS, "the CRLs of the client CAs; a client whose CA has none is refused", note="not in uWSGI"
    )
    ssl_crl_check: str = _text(
        "WHAT", TLS, "look for a CRL of every CA of a chain, or of the one that signed the client alone: chain or leaf",
        convert=crl_check, default_text="chain", note="not in uWSGI",
    )  # fmt: skip
    client_allow: tuple[Rule, ...] = _list(
        "KIND:VALUE", client_allow.parse, TLS,
        "let clients in whose certificate is this one: cn, dns, email, uri, spki or fingerprint; without it all that"
        " are verified",
        note="not in uWSGI",
    )  # fmt: skip
    ssl_session_timeout: int = _int(
        300, 1, 86400, TLS, "time for which a session can be resumed", metavar="SECONDS",
        aliases=("ssl-sessions-timeout",),
    )  # fmt: skip
    https_session_context: str = _text(
        "TEXT", TLS, "one thing more that a session must have in common with where it is resumed",
        note="in uWSGI the only thing",
    )  # fmt: skip
    hsts: int = _int(
        0, 0, INT_MAX, TLS, "Strict-Transport-Security for so long in responses that have none; 0: do not",
        metavar="SECONDS", note="not in uWSGI",
    )  # fmt: skip
    ssl_verbose: bool = _flag(True, TLS, "accepted; why a handshake failed is always in the log")
    ssl_enable_tlsv1: bool = _flag(
        False, TLS, "accepted with a warning; TLS 1.0 and 1.1 stay off (RFC 8996)", note="allows TLS 1.0 in uWSGI"
    )
    https_export_cert: bool = _flag(
        False, TLS, "pass a client's certificate on as HTTPS_CC and SSL_CLIENT_CERT, in PEM"
    )
    ssl_key_password_file: str = _text(
        "FILE", TLS, "passphrases of encrypted keys, one a line", note="uWSGI asks the terminal or reads stdin"
    )
    ssl_key_password_command: str = _text(
        "COMMAND", TLS, "what prints the passphrase of the key that UWSGI_TLS_KEY names; it is run once, at the start",
        note="not in uWSGI", only_at_start=True,
    )  # fmt: skip
    touch_reload_certs: bool = _flag(
        False, TLS, "reload when a file of a certificate, key, CA or CRL has changed", note="not in uWSGI"
    )
    https_handshake_timeout: int = _int(
        10, 1, WAIT_SECONDS_MAX, TLS, "time that a client has for its handshake", metavar="SECONDS", note="not in uWSGI"
    )
    https_max_handshakes: int = _int(
        4096, 1, INT_MAX, TLS, "handshakes under way in a worker; the oldest give way to more", note="not in uWSGI"
    )

    uid: str = _text("USER", PRIVILEGES, "run as USER, a name or a number", only_at_start=True)
    gid: str = _text(
        "GROUP", PRIVILEGES, "run with GROUP; without it with the groups of the user",
        note="uWSGI keeps group root when only uid is given", only_at_start=True,
    )  # fmt: skip
    add_gid: tuple[str, ...] = _list(
        "GROUP", str, PRIVILEGES, "one more supplementary group", note="uWSGI replaces the user's groups by these",
        only_at_start=True,
    )  # fmt: skip
    no_monitor: bool = _flag(
        False, PRIVILEGES, "leave no process root; a reload then reads only what the user may read",
        note="not in uWSGI", only_at_start=True,
    )  # fmt: skip
    cap: tuple[int, ...] = _row((), Row(
        group=PRIVILEGES, convert=capabilities, metavar="NAME,...", default_text="none",
        help="capabilities that master and workers keep, such as net_bind_service; what they execute has none",
        note="an unknown one is an error, and so are those that lead back to root", only_at_start=True,
    ))  # fmt: skip
    chroot: str = _text(
        "DIR", PRIVILEGES,
        "make DIR the root directory of master and workers once all is bound and read; it needs /proc, /dev/null and"
        " what the application imports; paths of application, backends and spool-dir are inside, all others outside",
        only_at_start=True,
    )  # fmt: skip
    umask: int = _row(0o077, Row(
        group=PRIVILEGES, convert=file_mode_mask, metavar="MASK", default_text="077",
        help="permissions that what the server and its application make never has; where it is given, sockets and logs"
        " too, which are otherwise made under the umask of the start",
        note="inherited in uWSGI, and 0 under daemonize", only_at_start=True,
    ))  # fmt: skip
    rlimit_nofile: int = _int(
        0, 64, DESCRIPTORS_MAX, PRIVILEGES, "descriptors that each process may have", aliases=("max-fd",),
        default_text="the hard limit", note="max-fd in uWSGI", only_at_start=True,
    )  # fmt: skip

    master: bool = _flag(True, PROCESSES, "accepted; a master always runs", short="M")
    processes: int = _int(
        1, 1, 1024, PROCESSES, "worker processes; auto is one a CPU", short="p",
        aliases=("workers", "http-processes", "http-workers"), convert=process_count,
        note="workers end TLS themselves, so uWSGI's http-processes are these too",
    )  # fmt: skip
    threads: int = _int(1, 1, 1024, PROCESSES, "requests that each worker's application may work on at once")
    die_on_term: bool = _flag(False, PROCESSES, "accepted; TERM always stops")
    reload_mercy: int = _int(
        60, 0, WAIT_SECONDS_MAX, PROCESSES, "time that open requests have at a stop", metavar="SECONDS"
    )
    worker_reload_mercy: int = _int(
        _AS_OTHER_OPTION, 0, WAIT_SECONDS_MAX, PROCESSES, "time that open requests have in a worker that is replaced",
        metavar="SECONDS", default_text="reload-mercy", note="at a stop too in uWSGI",
    )  # fmt: skip
    worker_start_timeout: int = _int(
        120, 0, WAIT_SECONDS_MAX, PROCESSES, "time that a worker has to load its application; 0 is any",
        metavar="SECONDS", note="not in uWSGI",
    )  # fmt: skip
    max_requests: int = _int(
        0, 0, INT_MAX, PROCESSES, "replace a worker that has answered N requests, or a few more; 0 is any number",
        short="R",
    )  # fmt: skip
    max_requests_delta: int = _int(0, 0, INT_MAX, PROCESSES, "N times a worker's number is added to its max-requests")
    max_worker_lifetime: int = _int(
        0, 0, WAIT_SECONDS_MAX, PROCESSES, "replace a worker that is so old; 0 is any age", metavar="SECONDS"
    )
    max_worker_lifetime_delta: int = _int(
        0, 0, WAIT_SECONDS_MAX, PROCESSES, "so much times a worker's number is added to its max-worker-lifetime",
        metavar="SECONDS",
    )  # fmt: skip
    min_worker_lifetime: int = _int(
        10, 0, WAIT_SECONDS_MAX, PROCESSES,
        "a younger worker is not replaced for max-requests, reload-on-rss and reload-on-as", metavar="SECONDS",
    )  # fmt: skip
    reload_on_rss: int = _int(
        0, 0, INT_MAX, PROCESSES, "replace a worker that has so much memory resident; 0 is any", metavar="MEGABYTES"
    )
    reload_on_as: int = _int(
        0, 0, INT_MAX, PROCESSES, "replace a worker that has so much address space; 0 is any", metavar="MEGABYTES"
    )
    harakiri: int = _int(
        0, 0, WAIT_SECONDS_MAX, PROCESSES,
        "kill a worker whose application works on one request for longer, with its stacks in the log; 0 is off",
        metavar="SECONDS",
    )  # fmt: skip
    forkbomb_delay: int = _int(
        30, 0, WAIT_SECONDS_MAX, PROCESSES,
        "longest pause before the successor of a worker that dies young again and again; 0: none at all",
        metavar="SECONDS", note="one pause of the whole master in uWSGI",
    )  # fmt: skip
    respawn_limit: int = _int(
        10, 0, INT_MAX, PROCESSES,
        "end with status 75 when nobody serves and each worker has failed to start N times; 0: try for ever",
        note="not in uWSGI",
    )  # fmt: skip
    auto_procname: bool = _flag(True, PROCESSES, "accepted; processes always say in their title what they are")
    procname_prefix: str = _text("TEXT", PROCESSES, "begin every process title with TEXT")
    procname_prefix_spaced: str = _text("TEXT", PROCESSES, "begin every process title with TEXT and a blank")
    touch_reload: tuple[str, ...] = _list(
        "FILE", str, PROCESSES, "reload when FILE has been touched or made anew",
        aliases=("touch-workers-reload", "touch-chain-reload"),
        note="all three mean the one kind of reload that there is here",
    )  # fmt: skip
    master_fifo: tuple[str, ...] = _list(
        "FILE", str, PROCESSES, "make the named pipe FILE and obey the letters written to it: r, q, Q, +, -, l, s",
        note="all of them at once, where uWSGI has one and slots", only_at_start=True,
    )  # fmt: skip
    pidfile: str = _text(
        "FILE", PROCESSES, "write the master's process id to FILE; FILE.status is for uwsgi-tls status",
        only_at_start=True,
    )  # fmt: skip
    daemonize: str = _text(
        "LOG", PROCESSES, "run in the background and log to the file LOG", short="d", only_at_start=True
    )

    http_to: tuple[Address, ...] = _list(
        "ADDRESS", backend_address, ROUTING, "pass requests to the uwsgi backend at ADDRESS; several take turns"
    )
    http_fallback: tuple[Address, ...] = _list(
        "ADDRESS", backend_address, ROUTING, "ask the backend at ADDRESS when none of http-to can be reached"
    )
    http_backend_http: bool = _flag(
        False, ROUTING, "speak HTTP/1.1, not the uwsgi protocol, to the backends", note="in uWSGI since 2.1"
    )
    http_backend_keepalive: int = _int(
        15, 0, WAIT_SECONDS_MAX, ROUTING, "keep idle connections to an HTTP backend so long; 0: one request each",
        metavar="SECONDS", note="not in uWSGI",
    )  # fmt: skip
    http_websockets: bool = _flag(False, ROUTING, "let a backend turn a request into a WebSocket")
    http_tunnel_timeout: int = _int(
        3600, 1, WAIT_SECONDS_MAX, ROUTING, "time that a WebSocket may be silent in both directions", metavar="SECONDS",
        note="http-timeout in uWSGI",
    )  # fmt: skip
    http_modifier1: int = _int(0, 0, 255, ROUTING, "modifier1 of the uwsgi packets")
    http_modifier2: int = _int(0, 0, 255, ROUTING, "modifier2 of the uwsgi packets")
    http_var: tuple[tuple[str, str], ...] = _list("NAME=VALUE", variable, ROUTING, "one more variable of every request")
    wsgi_file: str = _text("FILE", ROUTING, "serve the WSGI application in FILE", aliases=("file",))
    module: str = _text(
        "MODULE[:CALLABLE]", ROUTING, "serve the WSGI application in MODULE", short="w", aliases=("wsgi",),
        convert=wsgi_module,
    )  # fmt: skip
    callable: str = _text("NAME", ROUTING, "the application's name in its module", default_text="application")
    pythonpath: tuple[str, ...] = _list(
        "DIR", str, ROUTING, "look for modules in DIR first", aliases=("python-path", "pp")
    )
    virtualenv: str = _text(
        "DIR", ROUTING, "use the packages of the virtual environment DIR", short="H", aliases=("venv", "home", "pyhome")
    )
    chdir: str = _text("DIR", ROUTING, "change to DIR before the application is loaded")
    need_app: bool = _flag(True, ROUTING, "stop if the application cannot be loaded", note="off in uWSGI")

    http_timeout: int = _int(
        60, 1, WAIT_SECONDS_MAX, HTTP, "time that a client or backend may be silent", metavar="SECONDS"
    )
    http_headers_timeout: int = _timeout("time that a client has for a request head")
    http_body_timeout: int = _timeout("time between two pieces of a request body")
    http_body_max_time: int = _int(
        3600, 0, WAIT_SECONDS_MAX, HTTP, "time that a request body may take in all; 0: any", metavar="SECONDS",
        note="not in uWSGI",
    )  # fmt: skip
    http_body_min_rate: int = _int(
        240, 0, INT_MAX, HTTP, "bytes a second that a request body must bring on average; 0: any", metavar="BYTES",
        note="MinRate of httpd's mod_reqtimeout; not in uWSGI",
    )  # fmt: skip
    http_write_timeout: int = _timeout("time between two pieces of a response that a client takes")
    http_write_min_rate: int = _int(
        240, 0, INT_MAX, HTTP, "bytes a second that a client that is behind must take on average; 0: any",
        metavar="BYTES", note="not in uWSGI",
    )  # fmt: skip
    http_connect_timeout: int = _timeout("time that connecting to a backend may take")
    http_keepalive: int = _int(
        KEEPALIVE_SECONDS, 0, WAIT_SECONDS_MAX, HTTP, "keep idle connections so long; 0 or false: one request each",
        metavar="SECONDS", argument="optional", convert=keepalive_seconds, note="off in uWSGI; 1 is on, not a second",
    )  # fmt: skip
    max_requests_per_connection: int = _int(
        10000, 0, INT_MAX, HTTP, "requests that a connection may bring; 0: any number", note="not in uWSGI"
    )
    http_gracetime: int = _int(30, 0, WAIT_SECONDS_MAX, HTTP, "leave a failed backend out so long", metavar="SECONDS")
    buffer_size: int = _int(
        32768, 512, 65536, HTTP, "bytes that a request head may have", metavar="BYTES", short="b", note="4096 in uWSGI"
    )
    http_max_headers: int = _int(100, 1, 10000, HTTP, "header fields that a request may have", note="not in uWSGI")
    limit_post: int = _int(
        2**30, 0, BODY_BYTES_MAX, HTTP, "bytes that a request body may have; 0: any number", metavar="BYTES",
        note="no limit in uWSGI",
    )  # fmt: skip
    post_buffering: int = _int(
        65536, 0, INT_MAX, HTTP, "bytes of a body that are kept in memory; more goes to a file", metavar="BYTES"
    )

    spool_limit: int = _int(
        2**32, 0, BODY_BYTES_MAX, HTTP, "bytes that all files of a worker may hold; 0: any number", metavar="BYTES",
        note="not in uWSGI",
    )  # fmt: skip
    spool_dir: str = _text(
        "DIR", HTTP, "where these files are made; they have no name", aliases=("http-post-buffering-dir",),
        default_text="TMPDIR, or /tmp",
    )  # fmt: skip
    server_header: str = _text(
        "TEXT", HTTP, "the Server field of responses that have none; Date they always have", convert=field_text,
        note="not in uWSGI",
    )  # fmt: skip

    logto: str = _text("FILE", LOGGING, "write the log to FILE, not to standard error", only_at_start=True)
    logger: tuple[Logger, ...] = _list(
        LOGGER_METAVAR, parse_logger, LOGGING,
        "write the log there instead; what an application prints stays where it is",
        note="all that is printed goes there in uWSGI", only_at_start=True,
    )  # fmt: skip
    req_logger: tuple[Logger, ...] = _list(
        LOGGER_METAVAR, parse_logger, LOGGING, "write the lines for requests there", aliases=("logger-req",),
        only_at_start=True,
    )  # fmt: skip
    touch_logreopen: tuple[str, ...] = _list(
        "FILE", str, LOGGING, "open the log files again when FILE is touched, as USR1 does"
    )
    log_reopen: bool = _flag(False, LOGGING, "open the log files again at each reload, too")
    disable_logging: bool = _flag(False, LOGGING, "write no line for each request", short="L")
    log_format: str = _text(
        "FORMAT", LOGGING,
        "the line for a request, with uWSGI's %(names), and %(tls_version), %(sni), %(client_dn) and others of TLS",
        aliases=("logformat",), default_text="uWSGI's line", keeps_placeholders=True,
    )  # fmt: skip
    log_json: bool = _flag(False, LOGGING, "write every log line as a JSON object", note="not in uWSGI")

    stats: tuple[Address, ...] = _list(
        "ADDRESS", stats_address, STATISTICS,
        "tell whoever connects to ADDRESS how the server is, in uWSGI's JSON with a part of our own: for uwsgitop",
        aliases=("stats-server",), note="without the variables of requests",
    )  # fmt: skip
    stats_http: tuple[Address | bool, ...] = _list(
        "ADDRESS", stats_http, STATISTICS,
        "the same by HTTP: /metrics for Prometheus, / for a browser, /stats.json; true: the ADDRESS of stats does so",
        note="only a flag in uWSGI",
    )  # fmt: skip
    stats_public: bool = _flag(
        False, STATISTICS, "allow other than loopback addresses for these: whoever reaches them can read all of it",
        note="not in uWSGI",
    )  # fmt: skip

    stats_chmod: int = _row(0o600, Row(
        group=STATISTICS, convert=file_mode, metavar="MODE", default_text="600",
        help="permissions of the UNIX sockets of these, which belong to the user that the server becomes",
        note="chmod-socket in uWSGI", only_at_start=True,
    ))  # fmt: skip
    stats_minified: bool = _flag(False, STATISTICS, "no white space in the JSON of these", aliases=("stats-min",))

    check: bool = _flag(
        False, CONFIGURATION, "load everything, say what would be done, and exit", short="t",
        note="-t is harakiri in uWSGI",
    )  # fmt: skip
    explain_privileges: bool = _flag(
        False, CONFIGURATION,
        "say what each process of the server that pidfile names may do, or of the one that would be started, and exit",
        note="not in uWSGI",
    )  # fmt: skip
    strict: bool = _flag(
        False, CONFIGURATION,
        "refuse what is otherwise a warning: options without effect, unknown UWSGI_* variables, running as root",
    )  # fmt: skip

    # Not options: what `config` noticed on the way.
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=(), compare=False)  # that were read for it, as they were named

    def __post_init__(self) -> None:
        for name in ("http_headers_timeout", "http_body_timeout", "http_write_timeout", "http_connect_timeout"):
            if getattr(self, name) == _AS_OTHER_OPTION:
                object.__setattr__(self, name, self.http_timeout)
        if self.worker_reload_mercy == _AS_OTHER_OPTION:
            object.__setattr__(self, "worker_reload_mercy", self.reload_mercy)
        if self.procname_prefix_spaced and not self.procname_prefix:
            object.__setattr__(self, "procname_prefix", self.procname_prefix_spaced + " ")

    @property
    def listeners(self) -> tuple[HttpsListener, ...]:
        """Every HTTPS listener, whichever of the three options it came from."""
        return self.https + self.https2 + self.https_socket

    @property
    def stats_listeners(self) -> tuple[tuple[str, Address, bool], ...]:
        """Each socket for statistics: its option, its address and whether it speaks HTTP."""
        plain = tuple(("stats", address, True in self.stats_http) for address in self.stats)
        return plain + tuple(("stats-http", each, True) for each in self.stats_http if not isinstance(each, bool))


def _rows() -> Sequence[Row]:
    fields = (f for f in dataclasses.fields(Config) if "row" in f.metadata)
    return tuple(
        dataclasses.replace(f.metadata["row"], name=f.name.replace("_", "-"), default=f.default) for f in fields
    )


ROWS = _rows()

# Options that act while the options are read and leave nothing in Config.
ACTIONS = (
    Row(name="ini", aliases=("include",), metavar="FILE[:SECTION]", group=CONFIGURATION, help="read options from FILE"),
    Row(name="set", short="S", metavar="NAME=VALUE", group=CONFIGURATION, help="set an option or a placeholder"),
    Row(
        name="set-placeholder", aliases=("set-ph",), metavar="NAME=VALUE", group=CONFIGURATION, help="set a placeholder"
    ),
    Row(name="help", aliases=("usage",), short="h", argument="none", group=CONFIGURATION, help="show this text"),
    Row(name="version", argument="none", group=CONFIGURATION, help="show the versions in use"),
)

BY_NAME: Mapping[str, Row] = {name: row for row in (*ROWS, *ACTIONS) for name in row.names}
BY_SHORT: Mapping[str, Row] = {row.short: row for row in (*ROWS, *ACTIONS) if row.short}
