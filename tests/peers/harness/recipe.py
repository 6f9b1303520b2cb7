"""A page of docs/recipes, played: its files and commands are taken from the page, so that page and truth stay one.

On a page, a file is a fenced block whose first line is a comment with the path of the file; commands are fenced blocks
`sh`, found by their heading. A test changes the page's text in one way only: it replaces ports, paths and host names
(`replaced`, in the files and in the commands; each text must stand on the page), and adds lines at the end of
postroad.toml that its world needs, such as its DNS server (`added`). Commands run in bash. `systemctl start|stop|reload
postroad` is done by the machine itself.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.peers.harness.need import ROOT
from tests.peers.harness.process import PATIENCE_S, Program, listens, until

RECIPES: Final = ROOT / "docs" / "recipes"
_BLOCK: Final = re.compile(r"^## (?P<heading>[^\n]+)$|^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_PATH: Final = re.compile(r"(?:#|//) (/\S+)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block: the heading above it, its language, its text."""

    heading: str
    kind: str
    text: str


class Page:
    """A page of docs/recipes by its name without .md."""

    def __init__(self, name: str) -> None:
        self.text = (RECIPES / f"{name}.md").read_text("utf-8")
        self.blocks: list[Block] = []
        heading = ""
        for found in _BLOCK.finditer(self.text):
            if found["heading"]:
                heading = found["heading"]
            else:
                self.blocks.append(Block(heading, found["kind"], found["text"]))

    def files(self) -> dict[str, str]:
        """Path → content, of all files that the page shows whole."""
        named = ((_PATH.match(block.text), block.text) for block in self.blocks if block.kind != "sh")
        return {found[1]: text for found, text in named if found is not None}

    def commands(self, heading: str) -> list[str]:
        """The commands below the heading, in order."""
        lines = [line for block in self.blocks if block.kind == "sh" and block.heading == heading
                 for line in block.text.splitlines()]
        commands = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        assert commands, f"no commands below {heading!r}"
        return commands

    def shown(self) -> list[tuple[str, str]]:
        """Each command that is alone in its block and followed by a block `text`: the command, and what that shows."""
        return [(first.text.strip(), second.text) for first, second in itertools.pairwise(self.blocks)
                if first.kind == "sh" and second.kind == "text" and first.heading == second.heading]

    def outputs(self, heading: str) -> list[str]:
        """The blocks `text` below the heading."""
        return [block.text for block in self.blocks if block.kind == "text" and block.heading == heading]


class Machine:
    """A machine that has the page's files below `directory`; / of the page is this folder.

    `only` names the files that this machine has; all of the page by default.
    """

    def __init__(
        self, page: Page, directory: Path, replaced: Mapping[str, str], *, added: str = "", only: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.page = page
        self.directory = directory
        self._replaced = dict(replaced)
        unknown = [text for text in self._replaced if text not in page.text]
        assert unknown == [], f"not on the page: {unknown}"
        self.config = directory / "etc/postroad/postroad.toml"
        (directory / "bin").mkdir(parents=True)
        directory.chmod(0o755)
        self.environment = {
            "POSTROAD_CONFIG": str(self.config), "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
            **(environment or {}),
        }
        wrapper = directory / "bin/postroad"
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m postroad "$@"\n')
        wrapper.chmod(0o755)
        for path, text in page.files().items():
            if not only or path in only:
                end = added if path == "/etc/postroad/postroad.toml" else ""
                self.write(path, self.replace(text) + end)
        self._program: Program | None = None

    def path(self, name: str) -> Path:
        """Where this machine has the absolute path `name`."""
        return self.directory / name.lstrip("/")

    def write(self, name: str, text: str) -> Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def replace(self, text: str) -> str:
        """The page's text as this machine has it."""
        longest_first = sorted(self._replaced, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)) or "(?!)", lambda found: self._replaced[found[0]], text)

    def play(self, heading: str) -> list[str]:
        """Runs all commands below the heading, in order; each must succeed. What they printed."""
        return [self.run(command) for command in self.page.commands(heading)]

    def run(self, command: str, *, code: int | None = 0) -> str:
        """Runs one command of the page; what it printed."""
        command = self.replace(command)
        if command.startswith("systemctl "):
            verb, name = command.split()[1:3]
            assert name == "postroad", command
            return {"start": self.start, "stop": self.stop, "reload": self.reload}[verb]()
        ran = subprocess.run(
            ["bash", "-c", command], env={**os.environ, **self.environment}, cwd=self.directory, capture_output=True,
            text=True, check=False, timeout=120,
        )
        said = ran.stdout + ran.stderr
        assert code is None or ran.returncode == code, f"{command}: {ran.returncode}\n{said}\n{self.log()}"
        return said

    def until(self, command: str, text: str, within_s: float = PATIENCE_S) -> str:
        """Runs the command again and again until it prints `text`; what it printed."""
        return str(until(lambda: said if text in (said := self.run(command, code=None)) else "",
                         f"{text!r} from {command}\n{self.log()}", within_s=within_s, pause_s=0.3))  # fmt: skip

    def start(self) -> str:
        self._program = Program(
            [sys.executable, "-m", "postroad", "serve"], self.directory / "postroad.log", environment=self.environment,
            directory=self.directory,
        )
        self._program.start()
        ports = [int(each["port"]) for each in tomllib.loads(self.config.read_text()).get("listener", ())]
        self._program.ready(
            lambda: all(listens("127.0.0.1", port) for port in ports)
            and "not running" not in self.run("postroad status", code=None),
            "the node listens", within_s=60,
        )
        return ""

    def stop(self) -> str:
        if self._program is not None:
            if self._program.running:
                self._program.signal(signal.SIGTERM)
                self._program.wait()
            self._program.stop()
        return ""

    def reload(self) -> str:
        return self.run("postroad reload")

    def log(self) -> str:
        return self._program.log() if self._program is not None else ""

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


# What differs from run to run, and what stands for it when outputs are compared.
_VARIES: Final = tuple((re.compile(pattern), by) for pattern, by in (
    (r"\b[0-9a-z]{10}00\b", "ID"),
    (r"(, connecting| \+) [\d.]+ m?s( to connect)?", ""),
    (r"\d{4}-\d\d-\d\d", "DATE"),
    (r"begins on DATE\. It has", "has"),  # said as soon as there is a file of the history
    (r"\d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    (r"\b\d+(\.\d+)? (ms|s|min|h)\b", "SPAN"),
    (r"\b\d+(\.\d+)? K?B\b", "SIZE"),
    (r"\d+\.\d+\.\d+\.\d+", "ADDRESS"),
    (r"(?<=ADDRESS)\]?:\d+", "PORT"),
    (r"\b(process|pid) \d+", "PROCESS"),
    (r"\b\d+/\d+\b", "CONN"),
    (r"(?<= )/\S+", "PATH"),
    (r"[ \t]+", " "),
))  # fmt: skip


def shape(text: str) -> str:
    """The output without what differs from run to run: times, queue ids, addresses, ports, paths, widths of columns."""
    for pattern, by in _VARIES:
        text = pattern.sub(by, text)
    return "\n".join(line.strip() for line in text.strip().splitlines())


def assert_shown(shown: str, real: str) -> None:
    """`real` is what the page shows, but for what differs from run to run. A line … stands for any lines."""
    rest = shape(real) + "\n"
    parts = [part.lstrip("\n") for part in f"{shape(shown)}\n".split("…\n")]
    for place, part in enumerate(parts):
        at = rest.find(part) if 0 < place < len(parts) - 1 else 0 if place == 0 else len(rest) - len(part)
        assert rest[at:].startswith(part), f"the page shows\n{part}\nbut it is\n{rest}\n{real}"
        rest = rest[at + len(part) :]
    assert not rest.strip(), f"the page does not show\n{rest}"
