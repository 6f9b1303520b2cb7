"""What a machine can judge of the whole: circles of files, unused requirements, the documents' words about the code."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import click

from postroad.cli.cli import COMMANDS
from postroad.config import schema
from postroad.config.settings import Settings
from tests.house import source

# Names on the package index that differ from the name that is imported.
_IMPORTED_AS = {"google-re2": "re2", "argon2-cffi": "argon2"}
# Libraries that come with one of the requirements and are imported by their own name.
_COMES_WITH = {"annotated_types": "pydantic", "pydantic_core": "pydantic"}


def test_no_files_import_each_other_in_a_circle() -> None:
    assert source.circles() == []


def test_each_public_class_name_stands_once() -> None:
    """Who meets a name knows which class it is. Names that begin with an underscore are a module's own."""
    twice = {name: modules for name, modules in source.classes().items() if len(modules) > 1}
    assert twice == {}


def _required(project: dict[str, Any]) -> list[str]:
    """What the package needs, and what single kinds of maps need, which are extras."""
    extras = project["optional-dependencies"].values()
    return [*project["dependencies"], *(each for extra in extras for each in extra)]


def test_each_requirement_is_used_and_each_import_is_required() -> None:
    project = tomllib.loads((source.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.split(r"[<>=~!\[; ]", each)[0] for each in _required(project)}
    required = {_IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}
    imported = {_COMES_WITH.get(name, name) for name in source.requirements()}
    assert required == imported


def test_each_command_and_option_is_explained() -> None:
    missing = []
    for name, place in COMMANDS.items():
        command = getattr(__import__(place.module, fromlist=[place.attribute]), place.attribute)
        missing += list(_unexplained(command, name))
    assert missing == []


def _unexplained(command: click.Command, name: str) -> list[str]:
    found = [] if command.help else [name]
    found += [f"{name} {each.opts[0]}" for each in command.params if isinstance(each, click.Option) and not each.help]
    if isinstance(command, click.Group):
        for inner, each in command.commands.items():
            found += _unexplained(each, f"{name} {inner}")
    return found


def test_each_command_stands_in_the_documents() -> None:
    pages = (source.ROOT / "README.md", *(source.ROOT / "docs").glob("*.md"))
    text = "\n".join(path.read_text("utf-8") for path in pages)
    assert [name for name in COMMANDS if f"postroad {name}" not in text] == []


def test_each_setting_is_described() -> None:
    short = [
        f"{table.header} {key.name}" for table in schema.tables(Settings) for key in table.keys
        if len(key.description) < 5
    ]  # fmt: skip
    assert short == []
