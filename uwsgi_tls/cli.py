"""argv in, exit status out: help, versions, --check, the command pki, or the server itself.

Exit statuses are uWSGI's: 0 after a clean stop, 1 for a configuration that cannot be served, 22 for an application
that does not load (the master says that one). A ConfigError is one line on standard error, never a traceback.
"""

import os
import platform
import shutil
import sys
from collections.abc import Sequence

from uwsgi_tls import __version__, config, help, heritage
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.options import Config

CONFIGURATION_ERROR = 1
INTERRUPTED = 130  # as shells have it for SIGINT
HELP_COLUMNS_MIN = 40
HELP_COLUMNS_MAX = 80


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with the arguments argv (sys.argv if None) and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        heir = heritage.inherit(os.environ)
        if heir is not None:
            from uwsgi_tls import succession

            return succession.run(heir, words)
        if words and words[0] == "pki":
            from uwsgi_tls import pki

            return pki.run(words[1:])
        if words and words[0] in ("reload", "reopen-logs", "stop", "upgrade"):
            from uwsgi_tls import control

            return control.run(words)
        if words and words[0] == "status":
            from uwsgi_tls import status

            return status.run(words[1:])
        line = config.read_command_line(words)
        if line.asks("help"):
            columns = shutil.get_terminal_size().columns
            print(help.help_text(max(HELP_COLUMNS_MIN, min(HELP_COLUMNS_MAX, columns))), end="")
            return 0
        if line.asks("version"):
            print(version_text())
            return 0
        if line.asks("explain-privileges"):
            from uwsgi_tls import explain

            if pidfile := explain.pidfile_alone(line):
                return explain.run_of_pidfile(pidfile)
        return _run(config.load(words, os.environ), words)
    except ConfigError as error:
        print(f"uwsgi-tls: {error}", file=sys.stderr)
        return CONFIGURATION_ERROR
    except KeyboardInterrupt:  # before the master takes its signals itself
        return INTERRUPTED


def version_text() -> str:
    """Our version and those of what serves TLS."""
    import OpenSSL
    from OpenSSL import SSL

    library = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace").split()[1]
    return (
        f"uwsgi-tls {__version__} (pyOpenSSL {OpenSSL.__version__}, OpenSSL {library},"
        f" Python {platform.python_version()})"
    )


def _run(configuration: Config, words: Sequence[str]) -> int:
    # Imported late: --help and a mistake in an option need no OpenSSL.
    if configuration.check:
        from uwsgi_tls import check

        return check.run(configuration)
    if configuration.explain_privileges:
        from uwsgi_tls import explain

        return explain.run(configuration)
    from uwsgi_tls import master

    return master.run(configuration, words)
