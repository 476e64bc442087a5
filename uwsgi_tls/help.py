"""The option table as text: `--help` for a terminal and docs/options.md for readers, both made from the rows.

`python -m uwsgi_tls.help --markdown` prints docs/options.md; a test holds the file equal to it.
"""

import sys
import textwrap
from collections.abc import Iterator

from uwsgi_tls.options import ACTIONS, GROUPS, LISTENING, PROCESSES, ROWS, TLS, Row

USAGE = "uwsgi-tls [OPTION]... [FILE.ini[:SECTION]]..."
SUMMARY = (
    "Bind HTTPS sockets as root, give root up, and let forked workers end TLS and answer requests: from a backend that"
    " speaks the uwsgi protocol (http-to), from a WSGI application (module, wsgi-file), or with a built-in page."
)
WAYS = (
    "An option is written --name value, --name=value, name = value under [uwsgi] in an ini file, or"
    " UWSGI_NAME=value in the environment. Options marked with * may be repeated. A flag takes a value only as"
    " --name=false."
)
COMMANDS = (
    ("reload", "as HUP, to the server that --pidfile FILE names"),
    ("reopen-logs", "as USR1: open the log files again"),
    ("upgrade", "have it go on as the program that is installed by now"),
    ("stop", "as TERM, and wait for its end"),
    ("status", "how it is; exits with 0, 150 (something is wrong), or 1, 3, 4"),
    ("pki ...", "make certificates of your own; see uwsgi-tls pki --help"),
)
EXIT_STATUSES = (
    ("0", "a clean stop, or nothing wrong found by --check"),
    ("1", "a configuration, an address or a key that cannot be served"),
    ("22", "the application failed to load"),
    ("75", "no worker could start any more, see respawn-limit"),
)
SIGNALS = (
    ("TERM, INT", "stop gracefully, within reload-mercy seconds"),
    ("QUIT", "stop now"),
    ("HUP", "reload: start new workers, then retire the old ones"),
    ("USR1", "open the log files again"),
    ("USR2", "tell how all is, in FILE.status beside the pidfile FILE"),
    ("RTMIN", "go on as the program that is installed by now, if it can start"),
    ("TTIN, TTOU", "one worker more, one worker less"),
)
INI_NOTES = """\
Lines are `name = value` under `[uwsgi]`, or under `[section]` for `FILE.ini:section`; blanks around both go. A line
that begins with `;` or `#` is a comment; there is none after a value. Paths are relative to the directory in which the
program was started.

The environment is read first, then the command line with its `--ini` files in place, then the files named without an
option. The last of a single value wins; what is marked with * accumulates.

`%(name)` is the first value of that name in any source, also of a key that is no option, and `%(a b + 1)` joins and
calculates from left to right; `$(NAME)` is an environment variable and `@(file)` the contents of a file. In a file `%p`
is its path, `%d` its directory with a slash, `%s` its name, `%n` the name without and `%e` the extension, `%c` the last
directory, `%0` to `%9` the directories from the root, `%x` the section, `%o` the path as given, `%i` the inode, `%j` a
hash of the path, `%v` the working directory, `%h` the host's name, `%u` and `%U` the user, `%g` and `%G` the group,
`%t` and `%T` the time in seconds and microseconds, `%k` the number of CPUs, `%V` our version, `%[` an escape and `%%` a
per cent sign.

An option of uWSGI that has no effect here is named in the log and ignored, or refused with `strict`. An option that
would make the server more open if it were left out (`namespace`, `sni`, `route`, `immediate-uid` and their kin,
conditions and loops) is an error. An unknown name is an error too; as a `UWSGI_*` variable, a warning.
"""
GROUP_NOTES = {
    LISTENING: "ADDRESS is HOST:PORT, :PORT, [IPV6]:PORT, /PATH, @NAME or fd://N.",
    TLS: "ADDRESS may also be =N, the N-th shared socket, counted from 0.",
    PROCESSES: "SECONDS are whole numbers here and below.",
}
_HELP_INDENT = 8


def help_text(width: int = 80) -> str:
    """What --help prints: the options by group, exit statuses and signals, in lines of at most width columns."""
    return "\n".join(_help_lines(width)) + "\n"


def options_markdown() -> str:
    """The contents of docs/options.md."""
    return "\n".join(_markdown_lines()) + "\n"


def _help_lines(width: int) -> Iterator[str]:
    yield f"usage: {USAGE}"
    for paragraph in (SUMMARY, WAYS):
        yield ""
        yield from textwrap.wrap(paragraph, width)
    for group in GROUPS:
        yield ""
        yield f"{group}:"
        if group in GROUP_NOTES:
            yield from _indented(GROUP_NOTES[group], width, 2)
        for row in rows_of(group):
            yield from _option_lines(row, width)
    for title, pairs in (("Commands", COMMANDS), ("Exit status", EXIT_STATUSES), ("Signals to the master", SIGNALS)):
        yield ""
        yield f"{title}:"
        yield from (f"  {name:<12}{meaning}" for name, meaning in pairs)


def _option_lines(row: Row, width: int) -> Iterator[str]:
    head = f"  {f'-{row.short}, ' if row.short else ''}--{row.name}{value_text(row)}{' *' if row.many else ''}"
    default = default_text(row)
    text = row.help + (f" [{default}]" if default else "")
    if row.aliases:
        text += "; also " + ", ".join(f"--{name}" for name in row.aliases)
    yield head
    yield from _indented(text, width, _HELP_INDENT)


def _indented(text: str, width: int, columns: int) -> list[str]:
    indent = " " * columns
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def value_text(row: Row) -> str:
    """How a value follows the name of the option on a command line."""
    if row.argument == "none":
        return ""
    return f"[={row.metavar}]" if row.argument == "optional" else f" {row.metavar}"


def rows_of(group: str) -> Iterator[Row]:
    """The options of a group, in the order of the table."""
    return (row for row in (*ROWS, *ACTIONS) if row.group == group)


def default_text(row: Row) -> str:
    """The default as an administrator would write it; empty for what has none and for flags that are off."""
    if row.default_text or row.default is False or row.many:
        return row.default_text
    return "on" if row.default is True else str(row.default)


def _markdown_lines() -> Iterator[str]:
    yield "# Options"
    yield ""
    yield "This file is made from the option table: `python -m uwsgi_tls.help --markdown > docs/options.md`."
    yield ""
    yield from textwrap.wrap(WAYS, 120)
    yield ""
    yield "The notes say where an option differs from uWSGI's of the same name."
    for group in GROUPS:
        yield ""
        yield f"## {group}"
        yield ""
        if group in GROUP_NOTES:
            yield GROUP_NOTES[group]
            yield ""
        yield "| option | value | default | meaning |"
        yield "|---|---|---|---|"
        yield from (_markdown_row(row) for row in rows_of(group))
    yield ""
    yield "## Ini files and placeholders"
    yield ""
    yield from INI_NOTES.splitlines()
    for title, pairs in (("Commands", COMMANDS), ("Exit status", EXIT_STATUSES), ("Signals to the master", SIGNALS)):
        yield ""
        yield f"## {title}"
        yield ""
        yield f"| {title.split()[0].lower().removesuffix('s')} | meaning |"
        yield "|---|---|"
        yield from (f"| {name} | {meaning} |" for name, meaning in pairs)


def _markdown_row(row: Row) -> str:
    names = ", ".join(f"`{name}`" for name in (*((f"-{row.short}",) if row.short else ()), *row.names))
    value = "flag" if row.argument == "none" else f"`{row.metavar}`"
    more = " (optional)" if row.argument == "optional" else ""
    meaning = row.help + (f" ({row.note})" if row.note else "")
    default = default_text(row)
    cells = (names + (" *" if row.many else ""), value + more, f"`{default}`" if default else "", meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(options_markdown() if sys.argv[1:] == ["--markdown"] else help_text())
