"""`--explain-privileges`: what each process of a server may do, and which keys are in its memory.

Of a server that runs, which `pidfile` names, /proc tells it (powers.py), and nothing is asked of the server. Of one
that does not run, the configuration does. Which keys a process has in its memory is a matter of when it was forked,
and stands here: no /proc shows it.
"""

import os
import pwd
import re
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from uwsgi_tls import capabilities, control, powers, privileges, tree, users
from uwsgi_tls.addresses import SharedAddress
from uwsgi_tls.config import CommandLine
from uwsgi_tls.converters import CAPABILITY_NAMES
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.log_text import printable
from uwsgi_tls.options import Config
from uwsgi_tls.powers import UNLIMITED, Powers
from uwsgi_tls.users import Identity

COLUMN = 14  # of the texts
CAP_DAC_READ_SEARCH = 2

_ROLE = re.compile(r"uwsgi-tls (master|monitor|stats|worker \d+)")
_NOT_SHOWN = "shown to root alone"


@dataclass(frozen=True, slots=True)
class Account:
    """What is said of one process."""

    name: str
    role: str  # "master", "monitor", "stats", "worker", or "program" for what an application has started
    powers: Powers
    descriptors: str = ""  # those of one that does not run, in words


def pidfile_alone(line: CommandLine) -> str:
    """The file of `--explain-privileges --pidfile FILE`, which needs no configuration; "" if more or less is said."""
    values = {setting.name: setting.value for setting in line.settings}
    return values["pidfile"] if not line.files and values.keys() == {"explain-privileges", "pidfile"} else ""


def run_of_pidfile(pidfile: str) -> int:
    """Prints what the processes of the server may do that `pidfile` names. Raises ConfigError if there is none."""
    master = _master(pidfile)
    if master is None:
        raise ConfigError("pidfile", pidfile, "names no uwsgi-tls master that runs")
    _print(f"the server with the master {master}", _running(master), None)
    return 0


def run(config: Config) -> int:
    """The same of the running server of `config`, or of the one that would be started with it. Raises ConfigError."""
    master = _master(config.pidfile) if config.pidfile else None
    if master is not None:
        _print(f"the server with the master {master}", _running(master), config)
    else:
        warnings: list[str] = []
        identity = users.identity(config, warnings.append)
        for warning in warnings:
            print(warning)
        _print("the server does not run; it would have", _foretold(config, identity), config)
    return 0


def _master(pidfile: str) -> int | None:
    """The pid in it, if that is a master's. Raises ConfigError where it is not to be believed."""
    try:
        master = control.find(pidfile)
    except (control.Stopped, control.Dead):
        return None
    os.close(master.process)
    return master.pid


def _running(master: int) -> Iterator[Account]:
    """The master, and all that it and its children have started."""
    for process in tree.family(master):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            role = match[1] if (match := _ROLE.search(process.title)) else f"program of {process.parent}"
            yield Account(f"{role} (pid {process.pid})", role.split()[0], powers.of(process.pid))


def _foretold(config: Config, identity: Identity | None) -> Iterator[Account]:
    """As master.py, monitor.py, worker.py and stats/process.py make them."""
    now = powers.of(os.getpid())
    dropped = _dropped(config, identity, now)
    limits = dict(dropped.limits or {})
    addresses = [each.address for each in config.shared_socket] + [each.address for each in config.listeners]
    own = (each for each in addresses if not isinstance(each, SharedAddress))
    listeners = ", ".join(f"listening socket {address}" for address in own)
    yield Account("master", "master", dropped, f"{listeners}, its log, its pid file, a socket to each of its children")
    if identity is not None and not config.no_monitor:
        reads = capabilities.mask([CAP_DAC_READ_SEARCH]) & now.capabilities["permitted"]
        confined = replace(now, no_new_privs=True, umask=privileges.UMASK, limits={**limits, "fsize": "0"})
        yield Account("monitor", "monitor", _holding(confined, reads), "/dev/null, a socket to the master")
    for number in range(1, config.processes + 1):
        free = config.wsgi_file or config.module
        worker = dropped if free else replace(dropped, limits={**limits, "nproc": "0"})
        yield Account(
            f"worker {number}", "worker", worker, f"/dev/null, its log, {listeners}, a socket to the master, its own"
        )
    if config.stats_listeners:
        confined = replace(dropped, limits={**limits, "nproc": "0", "fsize": "0", "nofile": "as many as its clients"})
        sockets = ", ".join(f"listening socket {address}" for _, address, _ in config.stats_listeners)
        account = _holding(confined, 0) if now.uids[1] or identity else confined
        yield Account("stats", "stats", account, f"/dev/null, {sockets}")


def _dropped(config: Config, identity: Identity | None, now: Powers) -> Powers:
    """What the master is after the drop; `now` is what this process is, which would start it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    descriptors = str(config.rlimit_nofile or (UNLIMITED if hard == resource.RLIM_INFINITY else hard))
    limits = {**dict.fromkeys(powers.LIMITS, UNLIMITED), **(now.limits or {}), "core": "0", "nofile": descriptors}
    after = replace(now, umask=config.umask, limits=limits, dumpable=False if now.uids[1] else None, descriptors=None)
    if identity is None:
        return after if now.uids[1] == 0 else _holding(after, capabilities.mask(config.cap))
    return _holding(
        replace(
            after,
            uids=(identity.uid,) * 4,
            gids=(identity.gid,) * 4,
            groups=tuple(sorted(identity.groups)),
            capabilities={**now.capabilities, "bounding": 0},
            no_new_privs=True,
            dumpable=False,
            root=identity.root or now.root,
        ),
        capabilities.mask(identity.keeps),
    )


def _holding(process: Powers, kept: int) -> Powers:
    """With no other capabilities than `kept`; root's bounding set is emptied, others cannot."""
    sets = {**dict.fromkeys(powers.SETS, 0), "permitted": kept, "effective": kept}
    bounding = process.capabilities["bounding"] if process.uids[1] else 0
    return replace(process, capabilities={**sets, "bounding": bounding})


# In words


def _print(title: str, accounts: Iterator[Account], config: Config | None) -> None:
    print(f"{title}:")
    for account in accounts:
        print(f"\n{account.name}")
        for name, text in _lines(account, config):
            print(f"  {name:<{COLUMN}}  {printable(text)}")


def _lines(account: Account, config: Config | None) -> Iterator[tuple[str, str]]:
    may = account.powers
    yield "uid", f"{_ids(may.uids)} ({_user(may.uids[1])})"
    yield "gid", _ids(may.gids)
    yield "groups", " ".join(map(str, may.groups)) or "none"
    for name in powers.SETS:
        yield name, _capabilities(may.capabilities[name])
    yield "no_new_privs", "yes" if may.no_new_privs else "no"
    yield "dumpable", "not told of a process of root" if may.dumpable is None else "yes" if may.dumpable else "no"
    yield "seccomp", ("none", "strict", "filter")[may.seccomp]
    yield "umask", f"{may.umask:03o}"
    for name in powers.LIMITS:
        yield name, may.limits[name] if may.limits is not None else _NOT_SHOWN
    yield "root", may.root if may.root is not None else _NOT_SHOWN
    yield "descriptors", account.descriptors or _counted(may.descriptors)
    yield "keys", _keys(account.role, config)


def _ids(ids: tuple[int, ...]) -> str:
    """Real, effective, saved and the file system's; one number if they are all the same."""
    return str(ids[0]) if len(set(ids)) == 1 else " ".join(map(str, ids))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "no name"


def _capabilities(held: int) -> str:
    names = [
        CAPABILITY_NAMES[bit] if bit < len(CAPABILITY_NAMES) else str(bit)
        for bit in range(capabilities.CAPABILITIES_MAX)
        if held >> bit & 1
    ]
    return " ".join(names) or "none"


def _counted(kinds: tuple[str, ...] | None) -> str:
    """Of what there is more than one, how many."""
    if kinds is None:
        return _NOT_SHOWN
    each = (f"{count} x {kind}" if count > 1 else kind for kind, count in Counter(kinds).items())
    return f"{len(kinds)}: {', '.join(each)}"


def _keys(role: str, config: Config | None) -> str:
    """Which are in its memory. Whoever was forked from the master has what the master had by then, used or not."""
    if role == "program":
        return "none, if it has executed another program; else those of its worker"
    if config is None:
        private = "the private keys of all certificates that are served"
    else:
        sites = (*config.listeners, *config.sni, *config.sni2, *config.sni_regexp)
        names = list(dict.fromkeys(key for site in sites for _, key in site.certificates))
        private = " ".join(names + ([os.path.join(config.sni_dir, "*.key")] if config.sni_dir else []))
    use = {"master": "for its workers", "worker": "in use"}.get(role, "as they were when it was forked, unused")
    return f"{private} ({use}); passphrases that have opened them; the keys of session tickets"
