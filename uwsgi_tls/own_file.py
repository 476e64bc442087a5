"""A file of this server's own (a pid file, a pipe) and its directory, both held open for as long as it runs.

The directory is what the file is removed from at the end: its path may lead elsewhere by then.
"""

import os
from collections.abc import Callable

from uwsgi_tls import heritage
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.trusted_path import open_directory


def open_own(path: str, kind: str, option: str, where: str, make: Callable[[int, str, bool], int]) -> tuple[int, int]:
    """Descriptors of the directory of `path` and of the file, which the program before us may have left open.

    Else `make` opens it, given the directory, the name in it, and whether root alone may change what is there. Raises
    ConfigError, of `option` as it stands in `where`.
    """
    place, name = os.path.split(path)
    names = f"directory of {path}", f"{kind} {path}"
    directory, fd = (heritage.left(each) for each in names)
    if directory is not None and fd is not None:
        return heritage.keep(names[0], directory), heritage.keep(names[1], fd)
    try:
        directory, trusted = open_directory(place)
        try:
            fd = heritage.keep(names[1], make(directory, name, trusted))
            return heritage.keep(names[0], directory), fd
        except OSError:
            os.close(directory)
            raise
    except OSError as error:
        raise ConfigError(option, path, error.strerror or str(error), where) from None
