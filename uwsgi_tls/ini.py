"""Ini files in uWSGI's dialect (core/ini.c): lines of `name = value` in a [section].

Blanks around name and value go, the first "=" parts them, a name alone has an empty value, and a line that begins with
";" or "#" is a comment; there are no quotes, escapes, continuation lines or comments after a value. A missing section
or a line outside of any is an error here, which uWSGI passes over. Included files and placeholders are `config`'s part.
"""

from collections.abc import Iterator

from uwsgi_tls.errors import ConfigError
from uwsgi_tls.placeholders import Setting, Source, magic_variables

DEFAULT_SECTION = "uwsgi"

_BLANKS = " \t\r"
_OTHER_FORMATS = (".js", ".json", ".toml", ".xml", ".yaml", ".yml")


def split_name(text: str) -> tuple[str, str]:
    """FILE or FILE:SECTION, parted; the section is DEFAULT_SECTION if none is named. Raises ValueError."""
    path, colon, section = text.rpartition(":")
    if "://" in text or text == "-":
        raise ValueError("only files can be read")
    if not colon:
        path, section = text, DEFAULT_SECTION
    if not path:
        raise ValueError("the name of the file is missing")
    if not section:
        raise ValueError("the name of the section is missing after the colon")
    if path.lower().endswith(_OTHER_FORMATS):
        raise ValueError("only ini files are read")
    return path, section


def read(path: str, section: str, option: str, where: str, source: Source | None = None) -> list[Setting]:
    """The settings of one section, in order, placeholders as written.

    option and where say what asked for the file; ConfigErrors carry them, or the line that is wrong.
    """
    source = Source() if source is None else source
    try:
        text = source.text(path)
        magic = magic_variables(path, "" if section == DEFAULT_SECTION else section, source)
    except IsADirectoryError:
        raise ConfigError(option, path, "this is a directory", where) from None
    except OSError as error:
        raise ConfigError(option, path, error.strerror or str(error), where) from error
    except ValueError as error:
        raise ConfigError(option, path, str(error), where) from None
    settings, found = [], False
    current: str | None = None
    for number, line in _lines(text):
        place = f"{path}:{number}"
        try:
            if line[0] == "[":
                current = _section_name(line)
                found = found or current == section
            elif current is None:
                raise ValueError(f"the line stands before any [section], such as [{section}]")
            elif current == section:
                settings.append(Setting(*_name_and_value(line), place, magic))
        except ValueError as error:
            raise ConfigError(option, _excerpt(line), str(error), place) from None
    if not found:
        raise ConfigError(option, path, f"the file has no section [{section}]", where)
    return settings


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, with their numbers."""
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = raw.strip(_BLANKS)
        if line and line[0] not in ";#":
            yield number, line


def _section_name(line: str) -> str:
    if line[-1] != "]":
        raise ValueError("a section is [name], with nothing after it")
    return line[1:-1]


def _name_and_value(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    if not name.strip(_BLANKS):
        raise ValueError("the name before the equals sign is missing")
    return name.strip(_BLANKS), value.strip(_BLANKS)


def _excerpt(line: str) -> str:
    return line if len(line) <= 60 else line[:57] + "..."
