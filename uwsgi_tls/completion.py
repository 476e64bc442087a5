"""The completion of `uwsgi-tls` in bash, made from the option table: `python -m uwsgi_tls.completion` prints it.

It needs nothing but bash, so that it also works where it is read by hand with `source`.
"""

import sys
from collections.abc import Iterable

from uwsgi_tls.options import ACTIONS, ROWS, Row

_VERBS = "reload reopen-logs upgrade stop status pki"
_PKI = "ca server client revoke crl"
# compgen(1) actions for the kinds of values; of the others nothing is known.
_ACTIONS = {"FILE": "-f", "FILE[:SECTION]": "-f", "LOG": "-f", "DIR": "-d", "USER": "-u", "GROUP": "-g"}

_SCRIPT = """\
# bash completion for uwsgi-tls; made from the option table.

_uwsgi_tls() {
    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} prefix= words= action=
    # bash takes --name=value for three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $option == = && $COMP_CWORD -gt 1 ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    COMPREPLY=()
    case $option in
@VALUES@
    esac
    case ${COMP_WORDS[1]} in
        reload | reopen-logs | upgrade | stop | status) words="--pidfile --help" ;;
        pki) words="@PKI@ --help --dir --days" ;;
        *)
            words="@OPTIONS@"
            [[ $COMP_CWORD -ne 1 ]] || words+=" @VERBS@"
            ;;
    esac
    if [[ $action ]]; then
        mapfile -t COMPREPLY < <(compgen "$action" -- "$word")
    elif [[ $word == -* || ${COMP_WORDS[1]} == pki || $COMP_CWORD -eq 1 && $word ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    fi
    # A file of options may stand anywhere.
    [[ ${#COMPREPLY[@]} -gt 0 || $word == -* ]] ||
        mapfile -t COMPREPLY < <(compgen -f -X '!*.ini' -- "$word"; compgen -d -- "$word")
}
complete -o filenames -F _uwsgi_tls uwsgi-tls
"""


def script() -> str:
    """The whole script."""
    rows = (*ROWS, *ACTIONS)
    parts = {
        "VALUES": "\n".join(f"        {' | '.join(names)}) action={action} ;;" for action, names in _by_action(rows)),
        "PKI": _PKI,
        "OPTIONS": " ".join(f"--{name}" for row in rows for name in row.names),
        "VERBS": _VERBS,
    }
    text = _SCRIPT
    for name, value in parts.items():
        text = text.replace(f"@{name}@", value)
    return text


def _by_action(rows: Iterable[Row]) -> list[tuple[str, list[str]]]:
    """The option names for each way to complete a value."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if action := _ACTIONS.get(row.metavar):
            short = [f"-{row.short}"] if row.short else []
            found.setdefault(action, []).extend([*short, *(f"--{name}" for name in row.names)])
    return list(found.items())


if __name__ == "__main__":
    sys.stdout.write(script())
