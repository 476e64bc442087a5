"""backends/application.py: where an application is found, and what is said when it is not."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from uwsgi_tls.backends.application import ApplicationError, load
from uwsgi_tls.options import Config

MODULE = """
def application(environ, start_response):
    return [b"application of " + __name__.encode()]

def other(environ, start_response):
    return [b"other of " + __name__.encode()]

class Holder:
    @staticmethod
    def inner(environ, start_response):
        return [b"inner of " + __name__.encode()]

number = 1
"""


@pytest.fixture(autouse=True)
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with modules, a package and a virtual environment; leaves the interpreter as it was."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = tmp_path / "venv" / "lib" / version / "site-packages"
    libraries.mkdir(parents=True)
    for directory in ("elsewhere", "package_ut", "linked", "empty"):
        (tmp_path / directory).mkdir()
    for file in ("app_ut.py", "app.wsgi", "elsewhere/far_ut.py", "package_ut/__init__.py", "package_ut/web.py"):
        (tmp_path / file).write_text(MODULE)
    (tmp_path / "elsewhere" / "twin_ut.py").write_text(MODULE.replace("application of", "elsewhere"))
    (tmp_path / "twin_ut.py").write_text(MODULE)
    (libraries / "inside_ut.py").write_text(MODULE)
    (libraries / "link.pth").write_text(str(tmp_path / "linked") + "\n")
    (tmp_path / "linked" / "linked_ut.py").write_text(MODULE)
    (tmp_path / "needs_ut.py").write_text("import missing_ut\n")
    (tmp_path / "raises_ut.py").write_text("raise RuntimeError('on purpose')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "prefix", sys.prefix)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


SCRIPT = "uwsgi_tls_wsgi_file"


@pytest.mark.parametrize(
    ("config", "answer"),
    [
        (Config(wsgi_file="app_ut.py"), f"application of {SCRIPT}"),
        (Config(wsgi_file="app.wsgi"), f"application of {SCRIPT}"),
        (Config(wsgi_file="elsewhere/far_ut.py"), f"application of {SCRIPT}"),
        (Config(wsgi_file="app_ut.py", callable="other"), f"other of {SCRIPT}"),
        (Config(wsgi_file="app_ut.py", callable="Holder.inner"), f"inner of {SCRIPT}"),
        (Config(module="app_ut"), "application of app_ut"),
        (Config(module="app_ut:other"), "other of app_ut"),
        (Config(module="app_ut:Holder.inner"), "inner of app_ut"),
        (Config(module="app_ut:application", callable="other"), "other of app_ut"),
        (Config(module="package_ut"), "application of package_ut"),
        (Config(module="package_ut.web"), "application of package_ut.web"),
        (Config(module="far_ut", pythonpath=("elsewhere",)), "application of far_ut"),
        (Config(module="far_ut", pythonpath=("nowhere", "elsewhere")), "application of far_ut"),
        (Config(module="twin_ut", pythonpath=("elsewhere",)), "elsewhere twin_ut"),  # before the working directory
        (Config(module="twin_ut"), "application of twin_ut"),
        (Config(module="inside_ut", virtualenv="venv"), "application of inside_ut"),
        (Config(module="linked_ut", virtualenv="venv"), "application of linked_ut"),  # what a .pth names
    ],
)
def test_found(config: Config, answer: str) -> None:
    assert list(load(config)({}, print)) == [answer.encode()]


@pytest.mark.parametrize(
    ("config", "cause"),
    [
        (Config(wsgi_file="app_ut.py", callable="missing"), "app_ut.py has no callable missing"),
        (Config(wsgi_file="app_ut.py", callable="number"), "app_ut.py has no callable number"),
        (Config(wsgi_file="app_ut.py", callable="number.inner"), "app_ut.py has no callable number.inner"),
        (Config(module="app_ut:missing"), "app_ut:missing has no callable missing"),
        (Config(module="missing_ut"), "there is no module missing_ut in "),
        (Config(module="missing_ut.web"), "there is no module missing_ut in "),
        (Config(module="package_ut.missing"), "there is no module package_ut.missing in "),
        (Config(module="app_ut", virtualenv="empty"), "virtualenv empty has no empty/lib/python"),
    ],
)
def test_not_found(config: Config, cause: str) -> None:
    with pytest.raises(ApplicationError, match="^" + cause.replace(".", r"\.")):
        load(config)


@pytest.mark.parametrize(("name", "kind"), [("needs_ut", ModuleNotFoundError), ("raises_ut", RuntimeError)])
def test_its_own_exceptions_come_through(name: str, kind: type[Exception]) -> None:
    """Their traceback tells the author where; also of a missing module that is not the one that was asked for."""
    with pytest.raises(kind):
        load(Config(module=name))
    with pytest.raises(kind):
        load(Config(wsgi_file=f"{name}.py"))


def test_a_virtualenv_goes_before_the_servers_own_packages(tree: Path) -> None:
    before = list(sys.path)
    load(Config(module="inside_ut", virtualenv="venv"))
    new = [path for path in sys.path if path not in before]
    assert sys.path[: len(new)] == new
    assert str(tree) == sys.path[0]
    assert sys.prefix == str(tree / "venv")


def test_the_path_is_absolute(tree: Path) -> None:
    """The application may change its directory and import more afterwards."""
    load(Config(module="far_ut", pythonpath=("elsewhere",)))
    assert str(tree / "elsewhere") in sys.path
    assert all(os.path.isabs(path) for path in sys.path if path)
