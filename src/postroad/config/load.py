"""From the configuration file to `Settings`, or to all of its problems at once.

What always holds: Settings with a contradiction never leave this room; every problem names file, line, key and remedy;
a consequence of a problem is not reported as another one. To find all problems at once, the wrong keys are left out and
the rest is checked again, as if they were not there.

A text that is no TOML has one problem only, since nothing after it can be understood. `load` reads files and touches
nothing else: whether a port is free shows when the node binds it (`at_listener` then gives the place to blame), or
if it is tried for an operator (`tried`).
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from postroad.config import doubts, exposure, files, former_names, locate, opendkim_names, postfix_names, schema, trial
from postroad.config.contradictions import checks, listeners
from postroad.config.finding import Finding, touches, written
from postroad.config.listening import UNIX
from postroad.config.problem import ConfigProblem
from postroad.config.settings import Settings
from postroad.world import problem as world
from postroad.world import system

FILE_MAX: Final = 16 * 1024 * 1024
_ROUNDS_MAX: Final = 8
_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def load(path: Path, *, files: bool = True, entries: bool = True) -> Settings | list[ConfigProblem]:
    """The settings in the file at `path`, or all its problems: those of a key by itself in the order of their lines,
    then those of keys that do not fit together and of files.

    `files`: also read the files that it names (certificates, users, aliases, recipients, passwords). `entries`: also
    aliases, recipients and maps, without which a node can start: mail that needs them waits.
    """
    text = _read(path)
    return text if isinstance(text, list) else parse(text, path, files=files, entries=entries)


def parse(text: str, path: Path, *, files: bool = True, entries: bool = True) -> Settings | list[ConfigProblem]:
    """The settings of a text that stands, or would stand, in the file at `path`."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return [_no_toml(text, path, error)]
    document = _Pruned(raw)
    settings, findings = _settle(document, path.absolute().parent)
    causes = len(findings)
    if settings is not None:
        findings += _further(settings, document, findings, check_files=files, entries=entries)
    if settings is not None and not findings:
        return settings
    lines = locate.locate(text)

    def line(finding: Finding) -> int:
        return locate.line_of(lines, finding.about[0])

    # What is wrong by itself comes first: it may be why other keys do not fit together.
    places = [*sorted(findings[:causes], key=line), *sorted(findings[causes:], key=line)]
    return [_problem(path, lines, finding) for finding in places]


def tried(path: Path, settings: Settings, *, running: bool) -> list[ConfigProblem]:
    """What shows only when it is tried (`trial`), in the order of the lines. `running`: a node has these settings'
    ports."""
    problems = [
        at_listener(path, settings, str(place), problem) for place, problem in trial.places(settings, running=running)
    ]
    findings = [
        *trial.program(settings),
        *trial.sources(settings),
        *trial.functions(settings),
        *trial.other_users(settings, running=running),
        *trial.own_forward_file(settings, running=running),
    ]
    problems += [at(path, each.about[0], each.text, each.remedy) for each in findings]
    return sorted(problems, key=lambda problem: problem.line)


def warnings(path: Path, settings: Settings, now_s: float) -> list[ConfigProblem]:
    """What is allowed in the settings of this file and yet hardly meant, in the order of its lines. `now_s`: seconds
    since 1970."""
    findings = [*doubts.find(settings, now_s), *exposure.own_secrets(settings, path)]
    content = _read(path) if findings else ""
    try:
        lines = locate.locate(content) if isinstance(content, str) else {}
    except tomllib.TOMLDecodeError:  # it was changed meanwhile
        lines = {}
    places = sorted(findings, key=lambda finding: locate.line_of(lines, finding.about[0]))
    return [_problem(path, lines, finding) for finding in places]


def at(path: Path, key: locate.Path, text: str, remedy: str) -> ConfigProblem:
    """A problem that showed later, such as a port that is taken, at the line of `key` in the file as it stands now."""
    content = _read(path)
    try:
        lines = {} if isinstance(content, list) else locate.locate(content)
    except tomllib.TOMLDecodeError:
        lines = {}
    return _problem(path, lines, Finding((key,), text, remedy))


def at_listener(path: Path, settings: Settings, place: str, problem: world.Problem) -> ConfigProblem:
    """The same for a place to listen on that cannot be had: ``127.0.0.1:25``, ``[::1]:25`` or ``unix:/path``."""
    text = f"{place} {problem.text}"
    for index, listener in enumerate(settings.listener):
        if place in (listeners.shown(each) for each in listeners.places(listener)):
            key = "address" if place.startswith(UNIX) or system.blames_address(problem) else "port"
            return at(path, ("listener", index, key), text, problem.remedy)
    return at(path, ("listener",), text, problem.remedy)


def _read(path: Path) -> str | list[ConfigProblem]:
    try:
        with path.open("rb") as file:
            octets = file.read(FILE_MAX + 1)
    except FileNotFoundError:
        remedy = "Give the path by --config or POSTROAD_CONFIG. `postroad config example` prints a file to begin with"
        return [ConfigProblem(path, 0, "", "The file does not exist", remedy)]
    except OSError as error:
        where = "" if path.is_absolute() else f" ({path.absolute()})"
        text = f"The file cannot be read: {error.strerror}{where}"
        closed = isinstance(error, PermissionError)
        remedy = "Give this user the right to read the file" if closed else "Give the path of another file"
        return [ConfigProblem(path, 0, "", text, remedy)]
    if len(octets) > FILE_MAX:
        return [
            ConfigProblem(
                path, 0, "", f"The file is larger than {FILE_MAX} octets", "Check that this is the configuration"
            )
        ]
    try:
        return octets.decode("utf-8-sig").replace("\r\n", "\n")  # some editors of Windows begin a file with a mark
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        return [ConfigProblem(path, line, "", "This line is not in UTF-8", "Save the file in UTF-8, as TOML demands")]


def _no_toml(text: str, path: Path, error: tomllib.TOMLDecodeError) -> ConfigProblem:
    message = str(error)
    place = _TOML_PLACE.search(message)
    line = int(place[1]) if place and place[1] else text.count("\n") + 1
    reason = message[: place.start()] if place else message
    single = _single_brackets(text, line)
    if single is not None:
        header = schema.header(Settings, single[1])
        remedy = f"Write the header with double brackets: {header}"
        return ConfigProblem(
            path, single[0], "", f"{header} is an array of tables, and each table has its own header", remedy
        )
    text_of_line = text.split("\n")[line - 1] if line <= text.count("\n") + 1 else ""
    return ConfigProblem(path, line, "", *_in_plain_words(reason, text_of_line))


def _in_plain_words(reason: str, line: str) -> tuple[str, str]:
    """What is wrong with a line that is not TOML, and what to do. The usual mistakes of people who know `main.cf` have
    a text of their own."""
    key, _, value = (part.strip() for part in line.partition("="))
    if reason == "Cannot overwrite a value":
        return f"{key!r} is given twice", "Remove one of the two lines"
    if reason.startswith("Cannot declare"):
        return f"{line.strip()} is there twice", "Write all its keys under one header"
    if value.lower() in ("yes", "no", "on", "off", "true", "false"):
        return f"This is not TOML: {value} is not a value", f"Write {key} = true or {key} = false, in small letters"
    if (curly := _CURLY.sub('"', line)) != line:
        return "This is not TOML: typographic quotes", f"Write straight quotes: {curly.strip()}"
    if key and _BARE.fullmatch(value):
        return f"This is not TOML: {reason}", f'Write a text in quotes: {key} = "{value}"'
    return f"This is not TOML: {reason}", "Correct the line; https://toml.io explains TOML"


_CURLY: Final = re.compile("[\u201c\u201d\u201e]")  # quotes of word processors and web pages
_BARE: Final = re.compile(r"[^\s\"'\[\]{}=#,]+(?: ?[A-Za-z]+)?")  # a value without quotes or brackets


def _single_brackets(text: str, line: int) -> tuple[int, tuple[str, ...]] | None:
    """Where TOML finds fault with the header in this line: the line of the first header in single brackets of a table
    of which there may be several, and its name."""
    lines = text.split("\n")
    faulty = _HEADER.match(lines[line - 1]) if line <= len(lines) else None
    if faulty is None or not schema.is_many(Settings, _parts(faulty[1])):
        return None
    for number, each in enumerate(lines, 1):
        found = _HEADER.match(each)
        if found and not each.lstrip().startswith("[[") and _parts(found[1]) == _parts(faulty[1]):
            return number, _parts(found[1])
    return None


_HEADER: Final = re.compile(r"\s*\[{1,2}\s*([A-Za-z0-9_.\s-]+?)\s*\]{1,2}\s*(?:#|$)")


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in name.split("."))


def _problem(path: Path, lines: dict[locate.Path, int], finding: Finding) -> ConfigProblem:
    place = finding.about[0]
    file, line = (path, locate.line_of(lines, place)) if finding.file is None else (finding.file, finding.line)
    return ConfigProblem(file, line, written(place), finding.text, finding.remedy)


# ---- what each key must be ------------------------------------------------------------------------------------------


def _settle(document: _Pruned, folder: Path) -> tuple[Settings | None, list[Finding]]:
    """The settings with all that is wrong left out of the document, and what that is. None if nothing is left that
    could be settings."""
    findings: list[Finding] = []
    faulty: list[locate.Path] = []
    for _ in range(_ROUNDS_MAX):
        try:
            return Settings.model_validate(document.value(), context={"folder": folder}), findings
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                path = document.original(detail["loc"])
                if not any(touches(path, other) for other in faulty):
                    findings.append(_finding(detail, path, document.get(path)))
                faulty.append(path)
                document.leave_out(path)
    return None, findings


# What stands for a key that must be there and is wrong or missing, so that all else can be looked at.
_STAND_INS: Final = {"hostname": "localhost", "state_dir": "."}


class _Pruned:
    """A TOML document without some of its keys; remembers where in the whole document each array element stood."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self._raw = raw
        self._out: set[locate.Path] = set()
        self._given: dict[str, str] = {}

    def leave_out(self, path: locate.Path) -> None:
        """Leaves out the key at `path`; if the key is missing, the table that misses it."""
        if len(path) == 1 and path[0] in _STAND_INS:
            self._given[str(path[0])] = _STAND_INS[str(path[0])]
            return
        kept = path
        while kept and (kept in self._out or not _there(self._raw, kept)):
            kept = kept[:-1]
        if kept and isinstance(kept[-1], int) and not isinstance(_get(self._raw, kept), dict):
            kept = kept[:-1]  # an element that is no table: the whole list
        self._out.add(kept)

    def value(self) -> dict[str, Any]:
        value: dict[str, Any] = self._copy(self._raw, ())
        return value | self._given

    def get(self, path: locate.Path) -> Any:
        """The value at a path in the whole document, None if there is none."""
        return _get(self._raw, path)

    def original(self, location: tuple[str | int, ...]) -> locate.Path:
        """The path in the whole document of a location in the pruned one."""
        path: locate.Path = ()
        for part in location:
            here = _get(self._raw, path)
            if isinstance(part, int) and isinstance(here, list):
                kept = [index for index in range(len(here)) if (*path, index) not in self._out]
                part = kept[part] if part < len(kept) else part
            path = (*path, part)
        return path

    def _copy(self, value: Any, path: locate.Path) -> Any:
        if isinstance(value, dict):
            pairs = ((key, (*path, key)) for key in value)
            return {key: self._copy(value[key], inner) for key, inner in pairs if inner not in self._out}
        if isinstance(value, list):
            inners = ((index, (*path, index)) for index in range(len(value)))
            return [self._copy(value[index], inner) for index, inner in inners if inner not in self._out]
        return value


def _get(value: Any, path: locate.Path) -> Any:
    for place, part in enumerate(path):
        match value:
            case dict() if part in value:
                value = value[part]
            case list() if isinstance(part, int) and part < len(value):
                value = value[part]
            case str() | int() | float() if part == 0 and place == len(path) - 1:
                return value  # a single value in the place of a list
            case _:
                return None
    return value


def _there(value: Any, path: locate.Path) -> bool:
    return _get(value, path) is not None


def _finding(detail: ErrorDetails, path: locate.Path, value: Any) -> Finding:
    context = detail.get("ctx", {})
    name = path[-1] if path else ""
    match detail["type"]:
        case "postroad":
            return Finding((path,), str(context["text"]), str(context["remedy"]))
        case "extra_forbidden":
            known = postfix_names.of_table(str(name)) if path[:1] == ("map",) else postfix_names.ours(str(name))
            known = known or opendkim_names.ours(str(name))
            remedy = former_names.advice(path) or known or schema.suggestion(Settings, path)
            meant = schema.meant(Settings, path)  # what is missing because of the slip is no problem of its own
            return Finding((path,) if meant is None else (path, meant), f"There is no setting {name!r}", remedy)
        case "missing":
            words = ", ".join(f'"{each}"' for each in schema.choices(Settings, path))
            possible = f". Possible values: {words}" if words else ""
            return Finding((path,), f"{name!r} is missing", f"Add a line: {name} = …{possible}")
        case "literal_error" | "enum":
            remedy = postfix_names.kind(value) if path[:1] == ("map",) and name == "kind" else ""
            text = f"{_shown(value)} is not a possible value"
            return Finding((path,), text, remedy or _chosen(path, value) or f"Write {context['expected']}")
        case "greater_than_equal":
            return Finding((path,), f"{_shown(value)} is too small", schema.bounds(Settings, path))
        case "less_than_equal":
            return Finding((path,), f"{_shown(value)} is too large", schema.bounds(Settings, path))
        case "too_short":
            return Finding((path,), "The list is too short", schema.bounds(Settings, path))
        case "tuple_type" if isinstance(value, dict) and schema.is_many(Settings, path):
            header = schema.header(Settings, path)
            text = f"{header} is an array of tables, and each table has its own header"
            return Finding((path,), text, f"Write the header with double brackets: {header}")
        case kind:
            return Finding((path,), f"{_shown(value)} is {_called(value)}", _REMEDIES.get(kind, detail["msg"]))


def _chosen(path: locate.Path, value: Any) -> str:
    """The remedy for ``deliver = "lmtp:unix:/run/lmtp"``, a word with its next hop as in master.cf; "" for others."""
    word, colon, rest = value.partition(":") if isinstance(value, str) else ("", "", "")
    if path[0] != "domain" or path[-1] != "deliver" or not colon or word not in schema.choices(Settings, path):
        return ""
    if word != "lmtp":
        return f'Write deliver = "{word}"'
    if rest.startswith("unix:/"):
        return f'Write deliver = "lmtp" and socket = "{rest[5:]}"'
    if rest.startswith("unix:"):
        return f'Write deliver = "lmtp" and socket = "/var/spool/postfix/{rest[5:]}", or where the socket is'
    return 'Write deliver = "lmtp", host and port'


_REMEDIES: Final = {
    "bool_type": "Write true or false, without quotes",
    "int_type": "Write a whole number, without quotes",
    "int_from_float": "Write a whole number",
    "float_type": "Write a number, without quotes",
    "string_type": "Write a text in quotes",
    "tuple_type": "Write a list in brackets, such as [ … , … ]",
    "model_type": "Write a table here, under a header in brackets",
    "model_attributes_type": "Write a table here, under a header in brackets",
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _called(value: Any) -> str:
    match value:
        case bool():
            return "of the wrong type: true or false"
        case int() | float():
            return "of the wrong type: a number"
        case str():
            return "of the wrong type: a text"
        case list():
            return "of the wrong type: a list"
        case dict():
            return "of the wrong type: a table"
    return "of the wrong type: a date or time"


# ---- what the keys must be together ---------------------------------------------------------------------------------


def _further(
    settings: Settings, document: _Pruned, before: list[Finding], *, check_files: bool, entries: bool
) -> list[Finding]:
    """Contradictions and unreadable files, but none that follow from what was found before."""
    found = [*checks.find(settings), *(files.find(settings, entries=entries) if check_files else ())]
    placed = [replace(each, about=tuple(map(document.original, each.about))) for each in found]
    faulty = [path for finding in before for path in finding.about]
    return [each for each in placed if not any(touches(path, other) for path in each.about for other in faulty)]
