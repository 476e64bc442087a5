"""Finds the WSGI application that `wsgi-file` or `module` names, as uWSGI's Python plugin does.

It runs in a worker, after the drop: the application's code never runs as root, and a reload imports it anew.
"""

import importlib
import importlib.machinery
import importlib.util
import os
import site
import sys
from collections.abc import Callable, Iterable
from typing import Any, cast

from uwsgi_tls.backends.wsgi import Application, Environ
from uwsgi_tls.options import Config

DEFAULT_CALLABLE = "application"  # PEP 3333 names none; uWSGI and mod_wsgi agree on this one
SCRIPT_MODULE = "uwsgi_tls_wsgi_file"


class ApplicationError(Exception):
    """There is no application where the configuration says. Exceptions of its own code come through as they are."""


def load(config: Config) -> Application:
    """The application, with its search path set. Raises ApplicationError, or whatever its import raises."""
    _prepare_path(config)
    if config.wsgi_file:
        return _callable(_run_file(config.wsgi_file), config.callable or DEFAULT_CALLABLE, config.wsgi_file)
    name, _, attribute = config.module.partition(":")
    return _callable(_import(name), config.callable or attribute or DEFAULT_CALLABLE, config.module)


def missing(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What uWSGI serves without need-app when there is no application."""
    start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
    return [b"no application\n"]


def _prepare_path(config: Config) -> None:
    if config.virtualenv:
        libraries = os.path.join(
            config.virtualenv, "lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages"
        )
        if not os.path.isdir(libraries):
            raise ApplicationError(f"virtualenv {config.virtualenv} has no {libraries}")
        before = list(sys.path)
        site.addsitedir(libraries)
        # What the environment brings goes before what the server itself was installed with.
        sys.path[:] = [path for path in sys.path if path not in before] + before
        sys.prefix = os.path.abspath(config.virtualenv)
    # As with `python3 -m`, modules beside the working directory can be named.
    for path in reversed([*config.pythonpath, "."]):
        if path not in sys.path:
            sys.path.insert(0, os.path.abspath(path))


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ApplicationError(f"there is no module {error.name} in {sys.path}") from None
        raise  # another one, that it imports: its author wants to see where


def _run_file(path: str) -> object:
    spec = importlib.util.spec_from_file_location(SCRIPT_MODULE, os.path.abspath(path))
    if spec is None or spec.loader is None:
        # A name without .py, such as django's old `app.wsgi`, is Python all the same.
        loader = importlib.machinery.SourceFileLoader(SCRIPT_MODULE, os.path.abspath(path))
        spec = importlib.util.spec_from_loader(SCRIPT_MODULE, loader)
        assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT_MODULE] = module
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def _callable(module: object, name: str, where: str) -> Application:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ApplicationError(f"{where} has no callable {name}")
    return cast(Application, found)
