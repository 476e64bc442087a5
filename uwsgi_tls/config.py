"""Command line, environment and ini files in, one Config out; nothing else reads options.

The order is uWSGI's (core/uwsgi.c): environment, then the command line with its --ini files in place, then the files
named without an option. The last of a single value wins, lists grow. A name that nobody knows is an error, unless
some %(name) refers to it: such keys are placeholders. Every mistake is a ConfigError that says where it was written.
"""

import dataclasses
import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uwsgi_tls import ignored, ini
from uwsgi_tls.converters import FALSE_WORDS, TRUE_WORDS, SharedSocket
from uwsgi_tls.errors import ConfigError
from uwsgi_tls.https_option import Site
from uwsgi_tls.options import ACTIONS, BY_NAME, BY_SHORT, ROWS, Config, Row
from uwsgi_tls.placeholders import Placeholders, Setting, Source, references, substitute_magic

COMMAND_LINE = "command line"
INCLUDE_DEPTH_MAX = 16

_ENVIRONMENT = "environment "
_VARIABLE_PREFIX = "UWSGI_"
# Set by uWSGI for itself, not by people: parse_sys_envs() in core/utils.c.
_INTERNAL_VARIABLES = ("RELOADS", "VASSALS_DIR", "BROODLORD_NUM", "JAIL_PID", "ORIGINAL_PROC_NAME")
_INTERNAL_VARIABLE_PREFIX = "EMPEROR_"

_INI, _SET, _SET_PLACEHOLDER, _HELP, _VERSION = ACTIONS


@dataclass(frozen=True, slots=True)
class CommandLine:
    """argv, parted into options and the ini files named without one."""

    settings: tuple[Setting, ...]
    files: tuple[str, ...]

    def asks(self, name: str) -> bool:
        """Whether the action of that name, "help" or "version", stands among the options."""
        return any(setting.name in BY_NAME[name].names for setting in self.settings)


def load(argv: Sequence[str], environ: Mapping[str, str], source: Source | None = None) -> Config:
    """The configuration that argv (without the program's name) and environ ask for, its files opened by `source`.

    Raises ConfigError.
    """
    source = Source() if source is None else source
    line = read_command_line(argv)
    written = (*_environment_settings(environ), *line.settings, *_positional_settings(line.files))
    settings = tuple(inner for setting in written for inner in _unfold(setting, (), source))
    placeholders = references(settings)
    strangers = [s for s in settings if not _is_known(s) and s.name not in placeholders]
    for setting in strangers:
        if not setting.where.startswith(_ENVIRONMENT):
            raise _unknown(setting)
    values, origins = _convert(settings, environ, source)
    without_effect = _without_effect(settings)
    if values.get("strict"):
        _refuse_doubtful(strangers, without_effect)
    config = Config(
        **values,
        origins=origins,
        ignored=tuple(dict.fromkeys(s.name for s in without_effect)),
        warnings=_warnings(values, strangers),
        files=tuple(dict.fromkeys(source.files)),
    )
    _check(config)
    return config


def read_command_line(argv: Sequence[str]) -> CommandLine:
    """Part argv as getopt_long(3) does, but abbreviate nothing. Raises ConfigError for an unknown option."""
    settings: list[Setting] = []
    files: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            files += words
        elif word.startswith("--"):
            settings.append(_long_option(word[2:], words))
        elif word.startswith("-") and word != "-":
            settings += _short_options(word[1:], words)
        else:
            files.append(word)
    return CommandLine(tuple(settings), tuple(files))


def _long_option(text: str, words: Iterator[str]) -> Setting:
    name, equals, value = text.partition("=")
    argument = _argument_of(name)
    if argument is None:
        raise _unknown(Setting(f"--{name}", value, COMMAND_LINE))
    if argument == "required" and not equals:
        value = _next_word(f"--{name}", words)
    return Setting(name, value, COMMAND_LINE)


def _short_options(letters: str, words: Iterator[str]) -> Iterator[Setting]:
    """-p4, -p 4, -ML: flags may stand together, and the first option with a value takes the rest of the word."""
    for place, letter in enumerate(letters, 1):
        name = BY_SHORT[letter].name if letter in BY_SHORT else ignored.SHORTS.get(letter)
        if name is None:
            raise ConfigError(f"-{letter}", "", "no such option", COMMAND_LINE)
        rest = letters[place:]
        if _argument_of(name) == "none":
            yield Setting(name, "", COMMAND_LINE)
            continue
        if not rest and _argument_of(name) == "required":
            rest = _next_word(f"-{letter}", words)
        yield Setting(name, rest, COMMAND_LINE)
        return


def _next_word(option: str, words: Iterator[str]) -> str:
    value = next(words, None)
    if value is None:
        raise ConfigError(option, "", "the value is missing", COMMAND_LINE)
    return value


def _argument_of(name: str) -> str | None:
    if name in BY_NAME:
        return BY_NAME[name].argument
    return ignored.argument(name) if name in ignored.NAMES else None


def _environment_settings(environ: Mapping[str, str]) -> Iterator[Setting]:
    for variable, value in environ.items():
        bare = variable.removeprefix(_VARIABLE_PREFIX)
        internal = bare in _INTERNAL_VARIABLES or bare.startswith(_INTERNAL_VARIABLE_PREFIX)
        if bare == variable or not bare or internal:
            continue
        yield Setting(bare.lower().replace("_", "-"), value, f"{_ENVIRONMENT}{variable}")


def _positional_settings(files: Iterable[str]) -> Iterator[Setting]:
    for text in files:
        path = text.rpartition(":")[0] if ":" in text else text
        if not path.endswith(".ini"):
            hint = "; a flag takes its value as in --master=false" if text.lower() in TRUE_WORDS | FALSE_WORDS else ""
            raise ConfigError("configuration file", text, f"not FILE.ini or FILE.ini:SECTION{hint}", COMMAND_LINE)
        yield Setting("ini", text, COMMAND_LINE)


# Actions that take place while settings are read


def _unfold(setting: Setting, open_files: tuple[tuple[str, str], ...], source: Source) -> Iterator[Setting]:
    """The settings that one stands for: the contents of an included file, what `set` sets, or itself."""
    if setting.placeholder:
        yield setting
    elif setting.name in _INI.names:
        for inner, files in _read_included(setting, open_files, source):
            yield from _unfold(inner, files, source)
    elif setting.name in _SET.names or setting.name in _SET_PLACEHOLDER.names:
        yield from _unfold(_set(setting), open_files, source)
    else:
        yield setting


def _read_included(
    setting: Setting, open_files: tuple[tuple[str, str], ...], source: Source
) -> Iterator[tuple[Setting, tuple[tuple[str, str], ...]]]:
    try:
        text = substitute_magic(setting.value, setting.magic) if setting.magic is not None else setting.value
        path, section = ini.split_name(text)
        opened = (os.path.realpath(path), section)
        if opened in open_files:
            raise ValueError("the file includes itself")
        if len(open_files) == INCLUDE_DEPTH_MAX:
            raise ValueError(f"files are included deeper than {INCLUDE_DEPTH_MAX}")
    except ValueError as error:
        raise ConfigError(setting.name, setting.value, str(error), setting.where) from None
    for inner in ini.read(path, section, setting.name, setting.where, source):
        yield inner, (*open_files, opened)


def _set(setting: Setting) -> Setting:
    """`set = name=value` sets an option, or a placeholder if none has the name; set-placeholder never an option."""
    name, equals, value = (part.strip() for part in setting.value.partition("="))
    if not equals or not name:
        raise ConfigError(setting.name, setting.value, "the syntax is NAME=VALUE", setting.where)
    is_option = setting.name in _SET.names and _argument_of(name) is not None
    return Setting(name, value, setting.where, setting.magic, placeholder=not is_option)


# From settings to values


def _is_known(setting: Setting) -> bool:
    """Whether the setting is a placeholder, one of our options or one of uWSGI's; refuses what cannot be."""
    name = setting.name
    if setting.placeholder:
        return True
    if name in _HELP.names or name in _VERSION.names:
        return setting.where == COMMAND_LINE  # UWSGI_VERSION stands in many a container
    if name in ignored.REFUSED and setting.value.lower() not in FALSE_WORDS:
        raise ConfigError(name, setting.value, ignored.REFUSED[name], setting.where)
    return name in BY_NAME or name in ignored.NAMES


def _unknown(setting: Setting) -> ConfigError:
    if setting.name in BY_NAME:
        return ConfigError(setting.name, setting.value, "this belongs on the command line", setting.where)
    bare = setting.name.lstrip("-").lower().replace("_", "-")
    names = [option for row in (*ROWS, *ACTIONS) for option in row.names]
    near = [option for option in names if len(bare) > 2 and option.startswith(bare)]
    others = ignored.NAMES - ignored.REFUSED.keys()
    near = near or difflib.get_close_matches(bare, names, 1) or difflib.get_close_matches(bare, others, 1)
    dashes = "--" if setting.name.startswith("--") else ""
    hint = f"; did you mean {dashes}{near[0]}?" if near else ""
    return ConfigError(setting.name, setting.value, f"no such option{hint}", setting.where)


def _convert(
    settings: Sequence[Setting], environ: Mapping[str, str], source: Source
) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of our options by field name, and by option name where the last value of each was written."""
    placeholders = Placeholders(settings, environ, source)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in settings:
        row = BY_NAME.get(setting.name)
        if row is None or row in ACTIONS or setting.placeholder:
            continue
        value = _value(row, setting, placeholders)
        field = row.name.replace("-", "_")
        values[field] = (*values.get(field, ()), value) if row.many else value
        origins[row.name] = setting.where
    return values, origins


def _value(row: Row, setting: Setting, placeholders: Placeholders) -> Any:
    text = setting.value
    try:
        text = placeholders.expand(setting, keep_unknown=row.keeps_placeholders)
        if not text and row.argument == "required":
            raise ValueError("the value is missing")
        value = row.convert(text)
    except ValueError as error:
        raise ConfigError(setting.name, text, str(error), setting.where) from error
    if isinstance(value, Site | SharedSocket):
        return dataclasses.replace(value, where=setting.where)
    return value


def _without_effect(settings: Iterable[Setting]) -> list[Setting]:
    """The uWSGI options among the settings that change nothing here and are not simply always on."""
    found = [s for s in settings if not s.placeholder and s.name in ignored.NAMES and s.name not in BY_NAME]
    return [s for s in found if ignored.reason(s.name) != "always" or s.value.lower() in FALSE_WORDS]


def _refuse_doubtful(strangers: Sequence[Setting], without_effect: Sequence[Setting]) -> None:
    if strangers:
        raise _unknown(strangers[0])
    if without_effect:
        first = without_effect[0]
        raise ConfigError(first.name, first.value, "the option has no effect here, which strict refuses", first.where)


def _warnings(values: Mapping[str, Any], strangers: Sequence[Setting]) -> tuple[str, ...]:
    warnings = []
    if strangers:
        names = ", ".join(s.where.removeprefix(_ENVIRONMENT) for s in strangers)
        warnings.append(f"environment variables without effect, as no option has their name: {names}")
    if "callable" in values and not ("module" in values or "wsgi_file" in values):
        warnings.append("callable has no effect without module or wsgi-file")
    if values.get("ssl_enable_tlsv1"):
        warnings.append("ssl-enable-tlsv1 has no effect: TLS 1.0 and 1.1 are broken (RFC 8996) and stay off")
    warnings += _about_backends(values)
    return tuple(warnings)


def _about_backends(values: Mapping[str, Any]) -> list[str]:
    """What is said about backends and reaches none."""
    if "http_to" not in values:
        names = ("http_fallback", "http_backend_http", "http_websockets")
        return [f"{name.replace('_', '-')} has no effect without http-to" for name in names if values.get(name)]
    if not values.get("http_backend_http"):
        return []
    names = ("http_var", "http_modifier1", "http_modifier2")
    return [
        f"{name.replace('_', '-')} is of the uwsgi protocol: no effect with http-backend-http"
        for name in names
        if values.get(name)
    ]


def _check(config: Config) -> None:
    """What no option can see alone."""

    def error(option: str, value: str, cause: str) -> ConfigError:
        return ConfigError(option, value, cause, config.origins.get(option, ""))

    if not config.listeners:
        raise ConfigError("https", "", "no HTTPS listener is given: ADDRESS,CERTIFICATE,KEY")
    if config.module and config.wsgi_file:
        raise error("module", config.module, f"wsgi-file = {config.wsgi_file} names an application already")
    if config.http_to and config.wsgi_file:
        raise error("http-to", str(config.http_to[0]), f"requests go to wsgi-file = {config.wsgi_file} already")
    if config.http_to and config.module:
        raise error("http-to", str(config.http_to[0]), f"requests go to module = {config.module} already")
    if config.http_enable_proxy_protocol and not config.proxy_protocol_trust:
        raise error(
            "http-enable-proxy-protocol", "true", "proxy-protocol-trust must name the load balancers to believe"
        )
    if 0 < config.max_worker_lifetime <= config.min_worker_lifetime:
        cause = f"it must be more than min-worker-lifetime = {config.min_worker_lifetime}"
        raise error("max-worker-lifetime", str(config.max_worker_lifetime), cause)
    named = config.module.partition(":")[2]
    if named and config.callable and named != config.callable:
        raise error("callable", config.callable, f"module = {config.module} names another")
