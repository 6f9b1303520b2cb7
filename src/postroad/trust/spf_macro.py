"""Macros of SPF: ``%{ir}.%{v}._spf.%{d2}`` read and expanded (RFC 7208 §7). Pure.

What always holds: what was read is well-formed, so that expanding cannot fail. Names get at most NAME_MAX characters,
texts for people at most TEXT_MAX, however long the values are.

How it fails: `domain_spec`, `macro_string` and `explain_string` give a MacroFault that says what is wrong and where.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import msgspec

from postroad.trust.asking import NAME_MAX

TEXT_MAX: Final = 400

_LETTERS: Final = "slodiphv"
_LETTERS_OF_EXPLANATIONS: Final = _LETTERS + "crt"
_MACRO: Final = re.compile(r"%(?:\{([A-Za-z])([0-9]*)([rR]?)([-.+,/_=]*)\}|([%_-]))")
# RFC 7208 §7.1: domain-end, where it is no macro.
_DOMAIN_END: Final = re.compile(
    r"\.(?:[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])\.?", re.ASCII
)
_VISIBLE: Final = re.compile(r"[\x21-\x7e]*")
_VISIBLE_AND_SPACE: Final = re.compile(r"[\x20-\x7e]*")
_PLAIN: Final = {"%": "%", "_": " ", "-": "%20"}
_SHOWN_MAX: Final = 60
_DIGITS_MAX: Final = 3  # more parts than 999 no value has


class MacroFault(msgspec.Struct, frozen=True):
    """Why a text is no macro-string. `text`: for people."""

    text: str


class SpfMacro(msgspec.Struct, frozen=True):
    """One macro. `parts`: how many right-hand parts are used; 0: all. `split`: whether the value is split at all."""

    letter: str
    parts: int = 0
    reverse: bool = False
    delimiters: str = "."
    split: bool = False
    escape: bool = False

    def value(self, value: str) -> str:
        """What it makes of the value of its letter (RFC 7208 §7.3)."""
        if self.split:
            for delimiter in self.delimiters[1:]:
                value = value.replace(delimiter, self.delimiters[0])
            pieces = value.split(self.delimiters[0])
            if self.reverse:
                pieces.reverse()
            value = ".".join(pieces[-self.parts :])
        return quote(value, safe="") if self.escape else value


MacroString = tuple[str | SpfMacro, ...]
Values = Callable[[str], str]
"""The value of a macro letter, in lower case."""


def domain_spec(text: str) -> MacroString | MacroFault:
    """A name with macros. It ends in a macro or in a label that can be a top-level domain."""
    found = macro_string(text)
    if isinstance(found, MacroFault):
        return found
    if not text:
        return MacroFault("the domain is missing")
    end = 0
    for macro in _MACRO.finditer(text):
        end = macro.end()
    dot = text.rstrip(".").rfind(".", end) if text.endswith(".") else text.rfind(".", end)
    if end < len(text) and (dot < 0 or not _DOMAIN_END.fullmatch(text, dot)):
        return MacroFault(f"{_shown(text)} is no domain name with a top-level domain at its end")
    return found


def macro_string(text: str) -> MacroString | MacroFault:
    """Any visible text with macros."""
    return _read(text, _VISIBLE, _LETTERS)


def explain_string(text: str) -> MacroString | MacroFault:
    """The text of an explanation: spaces may be in it, and some letters more."""
    return _read(text, _VISIBLE_AND_SPACE, _LETTERS_OF_EXPLANATIONS)


def letters(string: MacroString) -> frozenset[str]:
    """The letters whose values it needs."""
    return frozenset(part.letter for part in string if not isinstance(part, str))


def expand_name(string: MacroString, values: Values) -> str:
    """The name that it stands for, without a dot at its end, cut at the left where it is too long (RFC 7208 §7.3)."""
    pieces: list[str] = []
    size = 0
    for part in reversed(string):
        piece = part if isinstance(part, str) else part.value(values(part.letter))
        pieces.append(piece)
        size += len(piece)
        if size > NAME_MAX + 1:
            break  # what stands further left is cut in any case
    pieces.reverse()
    return cut_name("".join(pieces).removesuffix("."))


def cut_name(name: str) -> str:
    """A name without the labels at its left that make it too long."""
    if len(name) <= NAME_MAX:
        return name
    dot = name.find(".", len(name) - NAME_MAX - 1)
    return name[dot + 1 :] if dot >= 0 else name[-NAME_MAX:]


def expand_text(string: MacroString, values: Values) -> str:
    """The text for people, cut at TEXT_MAX."""
    pieces: list[str] = []
    size = 0
    for part in string:
        piece = part if isinstance(part, str) else part.value(values(part.letter))
        pieces.append(piece)
        size += len(piece)
        if size >= TEXT_MAX:
            break
    return "".join(pieces)[:TEXT_MAX]


def _read(text: str, literal: re.Pattern[str], allowed: str) -> MacroString | MacroFault:
    if "%" not in text:
        if not literal.fullmatch(text):
            return _not_literal(text)
        return (text,) if text else ()
    found: list[str | SpfMacro] = []
    at = 0
    while at < len(text):
        percent = text.find("%", at)
        end = percent if percent >= 0 else len(text)
        if not literal.fullmatch(text, at, end):
            return _not_literal(text[at:end])
        if end > at:
            found.append(text[at:end])
        if percent < 0:
            break
        macro = _MACRO.match(text, percent)
        if macro is None:
            return MacroFault(f'"%" begins no macro in {_shown(text[percent:])}; a "%" alone is written "%%"')
        part = _macro(macro, allowed)
        if isinstance(part, MacroFault):
            return part
        found.append(part)
        at = macro.end()
    return tuple(found)


def _macro(macro: re.Match[str], allowed: str) -> str | SpfMacro | MacroFault:
    letter, digits, reverse, delimiters, plain = macro.groups()
    if plain is not None:
        return _PLAIN[plain]
    lowered = letter.lower()
    if lowered not in allowed:
        if lowered in _LETTERS_OF_EXPLANATIONS:
            return MacroFault(f"the macro {macro[0]} is allowed only in the text of an explanation")
        return MacroFault(f"there is no macro {_shown(macro[0])}")
    parts = int(digits.lstrip("0")[: _DIGITS_MAX + 1] or "0") if digits else 0
    if digits and not parts:
        return MacroFault(f"the macro {_shown(macro[0])} asks for 0 parts")
    split = bool(digits or reverse or delimiters)
    return SpfMacro(lowered, parts, bool(reverse), delimiters or ".", split, letter != lowered)


def _not_literal(text: str) -> MacroFault:
    return MacroFault(f"{_shown(text)} has characters that are not allowed")


def _shown(text: str) -> str:
    """For people, as one line of ASCII."""
    cut = text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…"
    return ascii(cut) if not cut.isascii() or not cut.isprintable() else f'"{cut}"'
