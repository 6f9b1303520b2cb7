"""`postroad user … --json`: each command answers with one object on standard output."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from postroad.cli.cli import group


def test_each_command_answers_programs_with_an_object(tmp_path: Path) -> None:
    def run(*arguments: str, text: str = "") -> object:
        file = str(tmp_path / "users")
        result = CliRunner().invoke(group({}), ["user", *arguments, "--json", "--file", file], input=text)
        assert result.exit_code == 0 and result.stderr == "", result.output
        return json.loads(result.stdout)

    first = {"name": "al", "addresses": ["al@example.org"]}
    second = {"name": "al", "addresses": ["*@example.net"]}
    assert run("add", "al", "-a", "Al@Example.org", text="x\n") == {"done": "added", **first}
    assert run("password", "al", text="y\n") == {"done": "password set", **first}
    assert run("addresses", "al", "*@example.net") == {"done": "addresses set", **second}
    assert run("list") == [second]
    assert run("remove", "al") == {"done": "removed", **second}
    assert run("list") == []
