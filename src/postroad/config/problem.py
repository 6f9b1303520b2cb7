"""One problem of the configuration, in words that let the operator mend it at once."""

from __future__ import annotations

from pathlib import Path

import msgspec


class ConfigProblem(msgspec.Struct, frozen=True):
    """`line` counts from 1, 0 if no line is to blame (the file itself). `key` is written as in the file's tables,
    such as ``limits.command_s`` or ``listener[2].port``, "" for the file as a whole. `text` says what is wrong,
    `remedy` what to do."""

    file: Path
    line: int
    key: str
    text: str
    remedy: str

    def __str__(self) -> str:
        """``postroad.toml:12: limits.command_s: what is wrong. What to do.``"""
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        subject = f"{self.key}: " if self.key else ""
        return f"{place}: {subject}{_sentence(self.text)} {_sentence(self.remedy)}"


def _sentence(text: str) -> str:
    ended = text if text.endswith((".", "?", "!")) else f"{text}."
    return ended[:1].upper() + ended[1:]
