"""Options that every command has, and how a command gets its settings.

`--config FILE` names the configuration; without it, POSTROAD_CONFIG; without that, `postroad.toml` in the working
directory, then `/etc/postroad/postroad.toml`. If the configuration cannot be used, all its problems go to stderr
and the command ends with 78 (EX_CONFIG of sysexits.h). `config` is imported in the functions, not with the module:
`postroad --help` must not wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from postroad.config.problem import ConfigProblem
    from postroad.config.settings import Settings

EX_CONFIG: Final = 78
_HERE: Final = Path("postroad.toml")
_SYSTEM: Final = Path("/etc/postroad/postroad.toml")

_Command = TypeVar("_Command", bound=Callable[..., Any])


def config_option(command: _Command) -> _Command:
    """`--config FILE`, handed to the command as `config: Path | None`; see `config_path`."""
    return click.option(
        "--config",
        "-c",
        type=click.Path(path_type=Path, readable=False),  # its reading says what is wrong, with the whole path
        envvar="POSTROAD_CONFIG",
        metavar="FILE",
        help="Configuration file  [default: ./postroad.toml, then /etc/postroad/postroad.toml; env POSTROAD_CONFIG]",
    )(command)


def json_option(command: _Command) -> _Command:
    """`--json`, handed to the command as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _no_empty(context: click.Context, option: click.Parameter, value: str | None) -> str:
    """An empty filter would mean everything: more likely a variable of a script that is not set."""
    if value is None:
        return ""
    if not value.strip():
        raise click.UsageError(f"{option.opts[0]} is empty: give it a value, or leave it out.", context)
    return value


def filter_options(command: _Command) -> _Command:
    """Options that narrow a choice of messages: `destination`, `sender`, `recipient` ("" if not given), and `held`."""
    for option in (
        click.option("--held/--not-held", default=None, help="Only held mail, or only mail that is not held."),
        click.option(
            "--to", "recipient", callback=_no_empty, metavar="ADDRESS", help="Only this recipient, or @domain."
        ),
        click.option(
            "--from", "sender", callback=_no_empty, metavar="ADDRESS", help="Only from this sender, @domain or <>."
        ),
        click.option(
            "--destination", callback=_no_empty, metavar="DESTINATION", help="Only mail to this destination."
        ),
    ):
        command = option(command)
    return command


def config_path(given: Path | None) -> Path:
    """The configuration file to use: the one given, else the first of the usual places that exists.

    A command settles this once, with the rights of who called: after it has given up root's rights, it may not be
    allowed to look here any more.
    """
    if given is not None:
        return given
    settled = _kept()
    if _PATH not in settled:
        settled[_PATH] = _HERE if _is_there(_HERE) or not _is_there(_SYSTEM) else _SYSTEM
    path: Path = settled[_PATH]
    return path


_PATH: Final = "postroad.configuration"
_TEXT: Final = "postroad.configuration.text"


def _kept() -> dict[str, Any]:
    """What one run of a command keeps; nothing is kept outside of one."""
    context = click.get_current_context(silent=True)
    return {} if context is None else context.find_root().meta


def _is_there(path: Path) -> bool:
    """Whether there is such a file that may be looked at. In a working directory that is closed to us (`sudo -u` in a
    folder of root's) there is none; in the system's folder its reading says what is wrong."""
    try:
        return path.exists()
    except OSError:
        return path == _SYSTEM


def settings_of(given: Path | None, *, files: bool = False, entries: bool = True) -> Settings:
    """The settings, or the end of the command with 78 and all problems on stderr.

    `files`: also demand that the files named in it (keys, users, aliases) can be read. Commands that only look at the
    spool do not need them, and their user may not have the right to read them. `entries`: among these, also files of
    aliases, recipients and maps.
    """
    from postroad.config.load import load, parse

    path = config_path(given)
    kept: dict[Path, str] = _kept().get(_TEXT, {})
    if path in kept:
        found = parse(kept[path], path, files=files, entries=entries)
    else:
        found = load(path, files=files, entries=entries)
    if isinstance(found, list):
        end_with(with_both_places(given, found))
    return found


def with_both_places(given: Path | None, problems: list[ConfigProblem]) -> list[ConfigProblem]:
    """The problems. If no file was named and there is none, both places where it was looked for."""
    from msgspec.structs import replace

    if given is not None or _is_there(_HERE) or _is_there(_SYSTEM):
        return problems
    text = f"There is neither a postroad.toml in {Path.cwd()} nor {_SYSTEM}"
    return [replace(each, text=text, remedy=_NAME_IT) for each in problems]


_NAME_IT: Final = "Give the path by --config or POSTROAD_CONFIG. `postroad config example` prints a file to begin with"


def state_dir_of(given: Path | None) -> Path:
    """`state_dir` and nothing else of the file: what else it holds, and whether that is right, is not looked at.

    For commands that must work beside a node that runs on with the configuration it has, while the file is wrong; they
    do not wait for the reading of all settings either. If the file is no TOML, a line before its first table is
    enough, and a warning goes to stderr. If there is none, the command ends with 78 and all problems on stderr.
    """
    import tomllib

    path = config_path(given)
    value: object = None
    try:
        text = path.read_bytes().decode().replace("\r\n", "\n")
        _kept().setdefault(_TEXT, {})[path] = text
        try:
            value = tomllib.loads(text).get("state_dir")
        except tomllib.TOMLDecodeError as error:
            value = _state_dir_in(text)
            if value is not None:
                click.echo(f"{path}: this is not TOML; only state_dir could be read from it: {error}", err=True)
    except (OSError, UnicodeDecodeError):
        pass  # `settings_of` says why
    if isinstance(value, str) and value and "\0" not in value:
        return path.absolute().parent / value
    return settings_of(given).state_dir


def settings_if_any(given: Path | None) -> Settings | None:
    """The settings; None if no file was named, and none may be read at the usual places. For commands that also work on
    a machine without a node. A file that is wrong ends the command with 78."""
    import os

    path = config_path(given)
    if given is None and not os.access(path, os.R_OK):
        if _is_there(path):
            click.echo(f"{path} may not be read by you: it is left out, with its [dns] settings.", err=True)
        return None
    return settings_of(given)


def loaded_settings(given: Path | None) -> Settings | None:
    """The settings of the file, None if it has a problem: for what is shown beside something else."""
    from postroad.config.load import load, parse
    from postroad.config.settings import Settings

    path = config_path(given)
    kept: dict[Path, str] = _kept().get(_TEXT, {})
    found = parse(kept[path], path, files=False) if path in kept else load(path, files=False)
    return found if isinstance(found, Settings) else None


def text_at(given: Path | None, *key: str) -> str | None:
    """The text at one key of the file, such as ``"auth", "users"``, whatever else in the file is wrong; None if there
    is no such text, or the file cannot be read as TOML. For commands that need nothing else of the configuration."""
    value = value_at(given, *key)
    return value if isinstance(value, str) and value and "\0" not in value else None


def value_at(given: Path | None, *key: str) -> object:
    """The same for a value of any kind."""
    import tomllib

    try:
        value: object = tomllib.loads(config_path(given).read_bytes().decode().replace("\r\n", "\n"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    for each in key:
        value = value.get(each) if isinstance(value, dict) else None
    return value


def _state_dir_in(text: str) -> object:
    """The value of the line of `state_dir` before the first table of a text that is no TOML; None without one."""
    import tomllib

    for line in text.splitlines():
        if line.lstrip().startswith("["):
            break
        try:
            found = tomllib.loads(line) if line.lstrip().startswith("state_dir") else {}
        except tomllib.TOMLDecodeError:
            continue
        if "state_dir" in found:
            return found["state_dir"]
    return None


def end_with(problems: Iterable[ConfigProblem]) -> NoReturn:
    """Prints the problems, one paragraph each, and ends the process with 78."""
    for problem in problems:
        click.echo(str(problem), err=True)
    sys.exit(EX_CONFIG)
