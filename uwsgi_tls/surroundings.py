"""What a worker will find where it will stand: in its root directory, with the rights of its user.

Nobody can tell but who has gone there, and from there is no way back. So a child goes, before the server does, looks
for the directories and files that the options name, and says what is wrong.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from uwsgi_tls import privileges
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.options import Config
from uwsgi_tls.privileges import PrivilegeError
from uwsgi_tls.users import Identity

COMPLAINT_BYTES = 16384  # more than a path and a cause have
NEEDED = ("/proc/self/fd", os.devnull)  # in a new root directory


def check_paths(config: Config, identity: Identity | None) -> None:
    """That what names a directory or a file of the application is there, that temporary files can be made in
    `spool-dir`, and that `chroot` has what every process needs. Raises ConfigError.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        complaint: tuple[str, ...] = ("uid", config.uid, "nobody could look what a worker will find")
        try:
            complaint = next(_complaints(config, identity), ())
        except (OSError, PrivilegeError) as error:
            complaint = ("chroot", config.chroot, str(error)) if config.chroot else ("uid", config.uid, str(error))
        finally:
            with suppress(OSError):
                os.write(theirs, "\0".join(complaint).encode("utf-8", "surrogateescape"))
            os._exit(0)
    os.close(theirs)
    said = os.read(ours, COMPLAINT_BYTES).decode("utf-8", "surrogateescape")
    os.close(ours)
    os.waitpid(child, 0)
    if said:
        option, value, cause = said.split("\0")
        raise ConfigError(option, value, cause, config.origins.get(option, ""))


def _complaints(config: Config, identity: Identity | None) -> Iterator[tuple[str, str, str]]:
    """In the child: option, value and cause of what is wrong."""
    inside = bool(identity is not None and identity.root)
    if identity is not None and inside:
        os.chroot(identity.root)
        os.chdir("/")
        yield from (
            ("chroot", config.chroot, f"there is no {path} in it") for path in NEEDED if not os.path.exists(path)
        )
    for option, path, there in (
        ("spool-dir", config.spool_dir, os.path.isdir),
        ("chdir", config.chdir, os.path.isdir),
        ("virtualenv", config.virtualenv and os.path.join(config.chdir, config.virtualenv), os.path.isdir),
        ("wsgi-file", config.wsgi_file and os.path.join(config.chdir, config.wsgi_file), os.path.isfile),
    ):
        if path and not there(path):
            kind = "file" if there is os.path.isfile else "directory"
            yield option, path, f"no such {kind}{f' in {config.chroot}' if inside else ''}"
    if config.spool_dir or inside:
        whom = identity.user if identity is not None else "this user"
        if identity is not None:
            privileges.drop(replace(identity, root=""))
        try:
            with tempfile.TemporaryFile(dir=config.spool_dir or None):
                pass
        except OSError as error:
            if config.spool_dir:
                yield "spool-dir", config.spool_dir, f"{whom} cannot make files there: {error.strerror}"
            else:
                yield "chroot", config.chroot, f"{whom} cannot make temporary files in it: it needs /tmp, or spool-dir"
