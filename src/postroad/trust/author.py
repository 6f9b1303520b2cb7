"""The author domains of a message: those of its From field, as real mail has it (RFC 9989 §5.3.1, §11.5). Pure.

A message should have one From field with one author. Those that do not might be shown with any of their authors, so all
domains count: of every From field, of every address in it, and of what is no address but has one in it. What always
holds: domains are canonical (lower-case A-labels), each is there once, in the order in which they stand; no exception
whatever the field. How it fails: `Authors.problem` says what is not as it should be; without any domain, DMARC cannot
say anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import msgspec

from postroad.mail.address import Address, canonical_domain
from postroad.mail.message import count, first, raw_fields
from postroad.protocol.mailboxes import VALUE_MAX, mailboxes

AUTHORS_MAX: Final = 4  # author domains that are looked at; RFC 9989 §11.5 wants a limit
SALVAGED_MAX: Final = 65_536  # characters of From fields that are searched if they are no lists of mailboxes
TRIES_MAX: Final = 200  # what may be a domain in them
_KEPT_MAX: Final = 1_000  # octets of a From field whose addresses are remembered
_FROM: Final = b"from"
# A quoted string or a comment; the last group is empty if it is not closed. What was looked at is not looked at again.
_APART: Final = re.compile(r'"(?:[^"\\]|\\.)*("?)|\((?:[^()\\]|\\.)*(\)?)', re.DOTALL)
_BEHIND_AT: Final = re.compile(r"@([^\s<>()\",;:@\\\[\]]{1,300})")


class Authors(msgspec.Struct, frozen=True):
    """`domains`: at most AUTHORS_MAX; `more`: whether there are others, or may be. `problem`: in what the message is
    not as RFC 5322 §3.6.2 demands; "": in nothing."""

    domains: tuple[str, ...] = ()
    more: bool = False
    problem: str = ""


def authors(section: bytes) -> Authors:
    """`section`: a header section."""
    values = _values(section)
    reader = _Reader()
    problems: list[str] = []
    if len(values) != 1:
        problems.append(f"the message has {len(values)} From fields" if values else "the message has no From field")
    for text in values[: AUTHORS_MAX * 2]:
        problems += reader.add(text)
    domains = reader.domains
    more = reader.is_cut or len(domains) > AUTHORS_MAX or len(values) > AUTHORS_MAX * 2
    if len(domains) > 1:
        problems.append(f"it names {len(domains)} author domains")
    return Authors(tuple(domains)[:AUTHORS_MAX], more, "; ".join(dict.fromkeys(problems)))


def addresses(field: bytes) -> tuple[Address, ...]:
    """The addresses of one From field, given whole, as far as they are mailboxes with a domain."""
    return _kept(field) if len(field) <= _KEPT_MAX else _read(field)


def _read(field: bytes) -> tuple[Address, ...]:
    text = field.partition(b":")[2].decode("utf-8", "backslashreplace").strip()
    found = (each for each in mailboxes(text) if each is not None and each.domain)
    return tuple(dict.fromkeys(each for each in found if not each.domain.startswith("[")))


_kept: Final = lru_cache(maxsize=4096)(_read)


def _values(section: bytes) -> list[str]:
    """The texts of all From fields."""
    if count(section, _FROM) == 1 and (only := first(section, _FROM)) is not None:
        return [only]  # the usual case, by two searches
    return [
        section[starts:ends].replace(b"\r\n", b"").decode("utf-8", "backslashreplace").strip()
        for name, _, starts, ends in raw_fields(section)
        if name == _FROM
    ]


class _Reader:
    """Gathers the domains of all From fields of a message, within limits. `is_cut`: some may be missing."""

    __slots__ = ("_left", "_salvaged_left", "_tries_left", "domains", "is_cut")

    def __init__(self) -> None:
        self.domains: dict[str, None] = {}
        self.is_cut = False
        self._left = VALUE_MAX  # characters that are read as a list of mailboxes
        self._salvaged_left = SALVAGED_MAX
        self._tries_left = TRIES_MAX

    def add(self, text: str) -> Iterator[str]:
        """Adds the domains of one field, and gives what is wrong with it."""
        found: list[Address | None] = [None]
        if len(text) <= self._left:
            self._left -= len(text)
            found = mailboxes(text)
        else:
            yield f"its From field has more than {VALUE_MAX} characters"
        before = len(self.domains)
        named = 0
        for address in found:
            if address is None:
                continue
            named += 1
            if address.domain and not address.domain.startswith("["):
                self.domains[address.domain] = None
        salvaged = dict.fromkeys(self._salvaged(text)) if None in found or not named else {}
        self.domains.update(salvaged)
        if None in found or salvaged:
            yield "its From field has something that is no address"
        if not named and len(self.domains) == before:
            yield "its From field names no domain"
        elif named and not self.domains:
            yield "its From field names no domain but an address literal"

    def _salvaged(self, text: str) -> Iterable[str]:
        """The domains in what is no list of mailboxes. Display names in quotes and comments are none."""
        if len(text) > self._salvaged_left:
            self.is_cut = True
        text = text[: self._salvaged_left]
        self._salvaged_left -= len(text)
        for found in _BEHIND_AT.finditer(_APART.sub(_if_open, text)):
            if not self._tries_left:
                self.is_cut = True
                return
            self._tries_left -= 1
            try:
                yield canonical_domain(found[1].strip("."))
            except ValueError:
                continue


def _if_open(apart: re.Match[str]) -> str:
    return " " if apart[1] or apart[2] else apart[0]
