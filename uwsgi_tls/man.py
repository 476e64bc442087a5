"""The manual pages uwsgi-tls(1) and uwsgi-tls.ini(5), made from the option table; their marks are those of man(7).

`python -m uwsgi_tls.man uwsgi-tls.1` prints the one, `... uwsgi-tls.ini.5` the other. What stands in backquotes here is
bold there.
"""

import re
import sys
from collections.abc import Callable, Iterator

from uwsgi_tls import __version__
from uwsgi_tls.help import (
    EXIT_STATUSES,
    GROUP_NOTES,
    INI_NOTES,
    SIGNALS,
    SUMMARY,
    WAYS,
    default_text,
    rows_of,
    value_text,
)
from uwsgi_tls.options import GROUPS, Row

_COMMANDS = (
    ("uwsgi-tls reload --pidfile FILE", "Sends HUP to the master that FILE names, and to no other process."),
    ("uwsgi-tls reopen-logs --pidfile FILE", "Has it open its log files again after a rotation, as with USR1."),
    (
        "uwsgi-tls upgrade --pidfile FILE [--wait SECONDS]",
        "Has the server that FILE names go on as the program that is installed by now, in the same process, and waits"
        " for its new workers. Exits with 1 if it goes on as it was; its log says why.",
    ),
    (
        "uwsgi-tls stop --pidfile FILE [--wait SECONDS]",
        "Sends TERM to the master that FILE names and waits for its end, 90 seconds if nothing else is said.",
    ),
    (
        "uwsgi-tls status --pidfile FILE",
        "Tells how the server is that FILE names: its processes, listeners and certificates, and what is wrong. Exits"
        " with 0 if it runs and all is well, 1 if it has died and left FILE, 3 if it is stopped, 4 if nobody can tell,"
        " and 150 if it runs, but something is wrong.",
    ),
    ("uwsgi-tls pki ca", "Makes an authority of your own: `ca.crt` and `ca.key`."),
    ("uwsgi-tls pki server NAME...", "Makes a certificate for a server with these names, signed by that authority."),
    ("uwsgi-tls pki client NAME", "Makes a client's certificate, its key, and both in a file for browsers."),
    ("uwsgi-tls pki revoke NAME|FILE|SERIAL", "Adds a certificate to the authority's list of revoked ones, `ca.crl`."),
    ("uwsgi-tls pki crl", "Renews that list. Each of these commands tells more about itself with `--help`."),
)
_ENVIRONMENT = (
    ("UWSGI_NAME", "The option name, in capitals and with `_` for `-`; read before the command line."),
    ("LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES", "Sockets that systemd has bound: the first shared sockets, in order."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC", "Where systemd is told that the server is ready, reloads and is alive."),
    ("TMPDIR", "Where temporary files for bodies are made if `spool-dir` is not given."),
)
_FILES = (
    ("/etc/uwsgi-tls/NAME.ini", "One server each, which the service of that name runs: uwsgi-tls.ini(5)."),
    ("/etc/default/uwsgi-tls", "Which of them start at boot, and options for all of them."),
    ("/run/uwsgi-tls/NAME.pid", "The process id of a server's master, where the init script has started it."),
    ("/var/log/uwsgi-tls/NAME.log", "Its log, likewise. Under systemd the log is in the journal."),
)
_SERVICE = """\
With Debian's package each `/etc/uwsgi-tls/NAME.ini` is a server of its own. One whose ini names no `uid` runs as the
user `uwsgi-tls`. Under an init that runs scripts, `service uwsgi-tls ACTION` acts on all of them, and
`/etc/init.d/uwsgi-tls ACTION NAME...` on those that are named. The actions are `start`, `stop`, `restart`, `reload`,
`force-reload`, `try-restart`, `status`, `configtest` and `rotate`.

Before it stops or reloads a server that runs, the script looks at the configuration as `--check` does, and leaves the
server alone if anything is wrong. A reload reads certificates, keys, CAs and CRLs again; an ini that was changed takes
effect with `restart`.

The exit status of `status` is 0 if all servers asked for run, 1 if one has died and left its pid file, 3 if one is
stopped. The others exit with 0, 1 after a failure, 3 for an unknown action, 6 for a configuration that cannot be
served, or 7 for a reload of what does not run.
"""
_EXAMPLES = (
    (
        "Port 443 as root, then never root again, with the application in a uWSGI of its own:",
        "uwsgi-tls --shared-socket 0.0.0.0:443 --uid www-data --https =0,/etc/ssl/site.crt,/etc/ssl/private/site.key"
        " --http-to /run/app/uwsgi.sock",
    ),
    ("The same from a file; first see what it would do:", "uwsgi-tls --check site.ini\nuwsgi-tls site.ini"),
    (
        "A port above 1023, without root, and a WSGI application in the workers:",
        "uwsgi-tls --https :8443,site.crt,site.key --module myproject.wsgi --processes auto --threads 8",
    ),
    (
        "Only clients with a certificate that ca.crt has signed:",
        "uwsgi-tls --https ':8443,site.crt,site.key,,!ca.crt' --http-to 127.0.0.1:3031",
    ),
    (
        "An authority, a server's and a client's certificate:",
        "uwsgi-tls pki ca\nuwsgi-tls pki server www.example.org\nuwsgi-tls pki client anna",
    ),
)
_INI_EXAMPLE = """\
[uwsgi]
; bound as root, before uid is taken on
shared-socket = 0.0.0.0:443
uid = www-data
gid = www-data
https = =0,/etc/ssl/site.crt,/etc/ssl/private/site.key
http-to = /run/app/uwsgi.sock
processes = auto
"""


def command_page() -> str:
    """uwsgi-tls(1) in roff."""
    return _page("uwsgi-tls", "1", "HTTPS front end in the manner of uWSGI", _command_sections())


def ini_page() -> str:
    """uwsgi-tls.ini(5) in roff."""
    return _page("uwsgi-tls.ini", "5", "configuration of uwsgi-tls", _ini_sections())


def _command_sections() -> Iterator[str]:
    yield _section("SYNOPSIS")
    yield from (".B uwsgi\\-tls", r"[\fIOPTION\fR]... [\fIFILE.ini\fR[:\fISECTION\fR]]...")
    for command, _ in _COMMANDS:
        yield from (".br", f"\\fB{_escaped(command)}\\fR")
    yield _section("DESCRIPTION")
    yield _text(SUMMARY)
    yield ".PP"
    yield _text(
        "Clients can be asked for certificates. No client and no backend, however slow, holds a thread; whoever waits"
        " is parked. A reload reads certificates and keys again, even such as only root may read, and loses no request."
    )
    yield _section("OPTIONS")
    yield _text(WAYS)
    yield from _options(lambda row: f"{f'-{row.short}, ' if row.short else ''}--{row.name}{value_text(row)}", "--")
    yield _section("COMMANDS")
    yield from _pairs(_COMMANDS)
    yield _section("SIGNALS")
    yield _text("To the master:")
    yield from _pairs(SIGNALS)
    yield _section("EXIT STATUS")
    yield from _pairs(EXIT_STATUSES)
    yield _section("THE SERVICE")
    yield _paragraphs(_SERVICE)
    yield _section("ENVIRONMENT")
    yield from _pairs(_ENVIRONMENT)
    yield _section("FILES")
    yield from _pairs(_FILES)
    yield _section("EXAMPLES")
    for number, (text, commands) in enumerate(_EXAMPLES):
        yield from ([".PP"] if number else [])
        yield from (_text(text), _literal(commands))
    yield _section("SEE ALSO")
    yield r"\fBuwsgi\-tls.ini\fR(5), \fBuwsgi\fR(1), \fBciphers\fR(1ssl), \fBsystemd.socket\fR(5)"


def _ini_sections() -> Iterator[str]:
    yield _section("SYNOPSIS")
    yield r"\fI/etc/uwsgi\-tls/NAME.ini\fR"
    yield _section("DESCRIPTION")
    yield _text(
        "Such a file holds options of uwsgi-tls(1), without their dashes. It may be one that was written for uWSGI."
    )
    yield ".PP"
    yield _paragraphs(INI_NOTES)
    yield _section("KEYS")
    yield _text("Keys marked with * may stand in several lines. A flag without a value is on; `false` turns it off.")
    yield from _options(lambda row: f"{row.name} = {row.metavar or 'true'}", "")
    yield _section("EXAMPLES")
    yield _text("Port 443, a key that only root can read, and the application in a uWSGI of its own:")
    yield _literal(_INI_EXAMPLE)
    yield ".PP"
    yield _text("Clients must show a certificate that `ca.crt` has signed and `ca.crl` does not revoke:")
    yield _literal(
        "https = =0,/etc/ssl/site.crt,/etc/ssl/private/site.key,,!/etc/ssl/ca.crt\nssl-crl = /etc/ssl/ca.crl"
    )
    yield _section("FILES")
    yield from _pairs(_FILES)
    yield _section("SEE ALSO")
    yield r"\fBuwsgi\-tls\fR(1)"


def _page(name: str, number: str, what: str, sections: Iterator[str]) -> str:
    head = (
        f'.TH {_escaped(name)} {number} "" "uwsgi\\-tls {__version__}"',
        ".nh",  # no hyphenation: names of options are looked for
        _section("NAME"),
        f"{_escaped(name)} \\- {what}",
    )
    return "\n".join((*head, *sections)) + "\n"


def _options(head: Callable[[Row], str], dashes: str) -> Iterator[str]:
    for group in GROUPS:
        yield f'.SS "{group}"'
        if group in GROUP_NOTES:
            yield _text(GROUP_NOTES[group])
        for row in rows_of(group):
            default = default_text(row)
            parts = [
                _sentence(row.help),
                f"The default is {default}." if default else "",
                f"Also {', '.join(f'`{dashes}{name}`' for name in row.aliases)}." if row.aliases else "",
                _sentence(row.note),
            ]
            yield ".TP"
            yield f"\\fB{_escaped(head(row))}\\fR{' *' if row.many else ''}"
            yield _text(" ".join(filter(None, parts)))


def _pairs(pairs: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, meaning in pairs:
        yield from (".TP", f"\\fB{_escaped(name)}\\fR", _text(_sentence(meaning)))


def _sentence(text: str) -> str:
    first = text[:1] if text.startswith("uWSGI") else text[:1].upper()
    return f"{first}{text[1:].removesuffix('.')}." if text else ""


def _section(title: str) -> str:
    return f".SH {title}"


def _paragraphs(text: str) -> str:
    return "\n.PP\n".join(_text(" ".join(each.split())) for each in text.strip().split("\n\n"))


def _literal(text: str) -> str:
    """Lines that are not filled."""
    return "\n".join((".PP", ".in +4n", ".EX", *map(_escaped, text.strip().split("\n")), ".EE", ".in"))


def _text(text: str) -> str:
    """A paragraph on one line: `bold`, and page(5) as man pages are named."""
    bold = re.sub(r"`([^`]*)`", "\\\\fB\\1\\\\fR", _escaped(text))
    return re.sub(r"([\w.\\-]+)\((\d)\)", "\\\\fB\\1\\\\fR(\\2)", bold)


def _escaped(text: str) -> str:
    """`text` so that roff prints it: a line that begins with . or ' would be a request, and - a typographic hyphen."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


PAGES = {"uwsgi-tls.1": command_page, "uwsgi-tls.ini.5": ini_page}

if __name__ == "__main__":
    sys.stdout.write(PAGES[sys.argv[1]]())
