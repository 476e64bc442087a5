"""What stands for something else in a value: %d and its kin, $(VARIABLE), @(file) and %(name).

The order is uWSGI's (core/uwsgi.c): magic variables while a file is read, then the environment, then files, then the
values of other settings, wherever those are written. uWSGI leaves what it does not know as it stands, or drops it; here
that is an error, but only in a value that is used. What came out of an expansion is not looked at again: whoever may
set an environment variable that a value quotes does not choose, with an @(file) in it, which files root reads.
"""

import os
import pwd
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from grp import getgrgid

from uwsgi_tls import __version__

VALUE_CHARACTERS_MAX = 65536
FILE_BYTES_MAX = 1024 * 1024
DEPTH_MAX = 32

_MAGIC = re.compile(r"%(.)", re.DOTALL)
_ENVIRONMENT = re.compile(r"\$\(([^()]*)\)")
_FILE = re.compile(r"@\(([^()]*)\)")
_NAME = re.compile(r"%\(([^()]*)\)")
_FILLED_IN = re.compile(r"\0(\d+)\0")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_SYNTAX = "%("  # %% and %(: what they stand for may begin a %(name)
_OPERATORS = ("+", "-", "*", "/")


@dataclass(frozen=True, slots=True)
class Setting:
    """One `name = value` as written, with the magic variables of its file; a placeholder is never an option."""

    name: str
    value: str
    where: str
    magic: Mapping[str, str] | None = field(default=None, compare=False)
    placeholder: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """How configuration files are opened, and for whom: a reload reads them after the drop, to the same effect."""

    open: Callable[[str], int] = lambda path: os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    uid: int = field(default_factory=lambda: os.getuid())  # whose %u and %U are
    gid: int = field(default_factory=lambda: os.getgid())
    files: list[str] = field(default_factory=list)  # every one that was opened, as it was named

    def text(self, path: str) -> str:
        """A small text file; bytes that are not UTF-8 come back through os.fsencode. Raises OSError, ValueError."""
        self.files.append(path)
        fd = self.open(path)
        try:
            with open(fd, "rb", closefd=False) as file:
                data = file.read(FILE_BYTES_MAX + 1) or b""  # None: a FIFO that was opened without waiting
        finally:
            os.close(fd)
        if len(data) > FILE_BYTES_MAX:
            raise ValueError(f"the file is larger than {FILE_BYTES_MAX} bytes")
        if b"\0" in data:
            raise ValueError("the file contains NUL bytes: it is not a text file")
        return data.decode("utf-8", "surrogateescape")


def magic_variables(path: str, section: str, source: Source | None = None) -> Mapping[str, str]:
    """The values of %p, %d and so on for the configuration file at path, as config_magic_table_fill() sets them.

    section is "" for the default one. Raises OSError if the path cannot be followed.
    """
    source = Source() if source is None else source
    # A symbolic link keeps its name: one file may serve several names, and %n tells them apart.
    full = os.path.join(os.getcwd(), path) if os.path.islink(path) else os.path.realpath(path)
    directory, name = os.path.split(full)
    stem, dot, extension = name.rpartition(".")
    levels = [level for level in directory.split("/") if level]
    now = time.time()
    return {
        **{str(i): levels[i] if i < len(levels) else "" for i in range(10)},
        "%": "%",
        "(": "%(",
        "[": "\033",
        "c": os.path.basename(directory),
        "d": directory.rstrip("/") + "/",
        "e": extension if dot else "",
        "g": str(source.gid),
        "G": _name_of_group(source.gid),
        "h": os.uname().nodename,
        "i": str(_inode(full)),
        "j": _hash(full),
        "k": str(os.cpu_count() or 1),
        "n": stem if dot else name,
        "o": path,
        "p": full,
        "s": name,
        "t": str(int(now)),
        "T": str(int(now * 1_000_000)),
        "u": str(source.uid),
        "U": _name_of_user(source.uid),
        "v": os.getcwd(),
        "V": __version__,
        "x": section,
    }


def substitute_magic(text: str, magic: Mapping[str, str], fill_in: Callable[[str], str] = str) -> str:
    """The text with each %c replaced by magic["c"]; a "%" at the end stays. Raises ValueError for an unknown one.

    `fill_in` gives what is to stand for a value that is not part of the syntax.
    """

    def replace(match: re.Match[str]) -> str:
        value = magic.get(match[1])
        if value is None:
            raise ValueError(f"there is no magic variable %{match[1]}; a per cent sign is written %%")
        return value if match[1] in _SYNTAX else fill_in(value)

    return _MAGIC.sub(replace, text)


def references(settings: Iterable[Setting]) -> set[str]:
    """The names that stand in %(...) anywhere in the settings: a key of such a name is a placeholder, not a mistake."""
    return {word for setting in settings for inner in _NAME.findall(setting.value) for word in inner.split()}


class Placeholders:
    """Expands values; the first setting of a name gives the value of %(name), as in uWSGI."""

    def __init__(self, settings: Iterable[Setting], environ: Mapping[str, str], source: Source | None = None) -> None:
        self._environ = environ
        self._source = Source() if source is None else source
        self._settings: dict[str, Setting] = {}
        self._expanded: dict[str, str] = {}
        for setting in settings:
            self._settings.setdefault(setting.name, setting)

    def expand(self, setting: Setting, *, keep_unknown: bool = False) -> str:
        """The value with everything filled in; an unknown %(name) may be kept, as log formats are made of these.

        Raises ValueError with the cause.
        """
        return self._expand(setting, keep_unknown, ())

    def _expand(self, setting: Setting, keep_unknown: bool, open_names: tuple[str, ...]) -> str:
        text, filled = setting.value, list[str]()
        if "\0" in text:
            raise ValueError("a value cannot contain a NUL byte")

        def fill_in(value: str) -> str:
            """What stands for `value` until the last of them is found, and holds nothing that could be one."""
            filled.append(value)
            return f"\0{len(filled) - 1}\0"

        def whole(text: str) -> str:
            return _FILLED_IN.sub(lambda match: filled[int(match[1])], text)

        if setting.magic is not None:
            text = substitute_magic(text, setting.magic, fill_in)
        text = _ENVIRONMENT.sub(lambda match: fill_in(self._variable(whole(match[1]))), text)
        text = _FILE.sub(lambda match: fill_in(_file_text(whole(match[1]), self._source)), text)
        text = _NAME.sub(lambda match: fill_in(self._value(whole(match[1]), keep_unknown, open_names)), text)
        text = whole(text)
        if "\0" in text:
            raise ValueError("a value cannot contain a NUL byte")
        if len(text) > VALUE_CHARACTERS_MAX:
            raise ValueError(f"the value is longer than {VALUE_CHARACTERS_MAX} characters")
        return text

    def _variable(self, name: str) -> str:
        if name not in self._environ:
            raise ValueError(f"$({name}): there is no such environment variable")
        return self._environ[name]

    def _value(self, inner: str, keep_unknown: bool, open_names: tuple[str, ...]) -> str:
        words = inner.split()
        if len(words) > 1:
            return _calculate(words, lambda name: self._named(name, open_names))
        if keep_unknown and inner not in self._settings:
            return f"%({inner})"
        return self._named(inner, open_names)

    def _named(self, name: str, open_names: tuple[str, ...]) -> str:
        if name in self._expanded:
            return self._expanded[name]
        if name not in self._settings:
            raise ValueError(f"%({name}): there is no such setting")
        if name in open_names:
            raise ValueError(f"%({name}) refers to itself")
        if len(open_names) == DEPTH_MAX:
            raise ValueError(f"%({name}) is nested deeper than {DEPTH_MAX}")
        self._expanded[name] = self._expand(self._settings[name], False, (*open_names, name))
        return self._expanded[name]


def _file_text(path: str, source: Source) -> str:
    if "://" in path:
        raise ValueError(f"@({path}): only files can be read")
    try:
        return source.text(path).removesuffix("\n")
    except OSError as error:
        raise ValueError(f"@({path}): {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"@({path}): {error}") from None


def _calculate(words: Iterable[str], value_of: Callable[[str], str]) -> str:
    """%(a b + 2): left to right, numbers and names, joined as text unless an operator stands between them."""
    result, operator = "", ""
    for word in words:
        if word in _OPERATORS:
            operator = word
        elif word in ("++", "--"):
            result = str(_number(result) + (1 if word == "++" else -1))
            operator = ""
        else:
            operand = word if _INTEGER.fullmatch(word) else value_of(word)
            result = str(_apply(_number(result), operator, _number(operand))) if operator else result + operand
            operator = ""
        if len(result) > VALUE_CHARACTERS_MAX:
            raise ValueError(f"the value is longer than {VALUE_CHARACTERS_MAX} characters")
    return result


def _apply(left: int, operator: str, right: int) -> int:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        raise ValueError("division by zero in a placeholder")
    quotient = abs(left) // abs(right)  # C's division, towards zero
    return quotient if (left < 0) == (right < 0) else -quotient


def _number(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text!r} is not a number to calculate with")
    return int(text)


def _hash(text: str) -> str:
    """uWSGI's %j: Bernstein's hash over the path, its four bytes in memory order as hexadecimal (djb33x_hash)."""
    value = 5381
    for byte in os.fsencode(text):
        value = (value * 33 ^ byte) & 0xFFFFFFFF
    return value.to_bytes(4, "little").hex().upper()


def _inode(path: str) -> int:
    """0 where only the monitor can look, after the drop, or outside of chroot."""
    try:
        return os.lstat(path).st_ino
    except OSError:
        return 0


def _name_of_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _name_of_group(gid: int) -> str:
    try:
        return getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
