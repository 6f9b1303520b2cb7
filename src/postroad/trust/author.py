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
_KEPT_MAX: Final = 1_000  # octets of a From field whose addresses are remembered
_FROM: Final = b"from"
# A quoted string or a comment; the last group is empty if it is not closed. What was looked at is not looked at again.
_APART: Final = re.compile(r'"(?:[^"\\]|\\.)*("?)|\((?:[^()\\]|\\.)*(\)?)', re.DOTALL)
_BEHIND_AT: Final = re.compile(r"@([^\s<>()\",;:@\\\[\]]{1,300})")


class Authors(msgspec.Struct, frozen=True):
    """`domains`: at most AUTHORS_MAX; `more`: whether there were others. `problem`: in what the message is not as RFC
    5322 §3.6.2 demands; "": in nothing."""

    domains: tuple[str, ...] = ()
    more: bool = False
    problem: str = ""


def authors(section: bytes) -> Authors:
    """`section`: a header section."""
    values = _values(section)
    domains: dict[str, None] = {}
    problems: list[str] = []
    if len(values) != 1:
        problems.append(f"the message has {len(values)} From fields" if values else "the message has no From field")
    for text in values[: AUTHORS_MAX * 2]:
        problems += _add(text, domains)
    more = len(domains) > AUTHORS_MAX or len(values) > AUTHORS_MAX * 2
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


def _add(text: str, domains: dict[str, None]) -> Iterator[str]:
    """Adds the domains of one From field, and gives what is wrong with it."""
    if len(text) > VALUE_MAX:
        yield f"its From field has more than {VALUE_MAX} characters"
    found = mailboxes(text[:VALUE_MAX])
    before = len(domains)
    named = 0
    for address in found:
        if address is None:
            continue
        named += 1
        if address.domain and not address.domain.startswith("["):
            domains[address.domain] = None
    salvaged = dict.fromkeys(_salvaged(text[:VALUE_MAX])) if None in found or not named else {}
    domains.update(salvaged)
    if None in found or salvaged:
        yield "its From field has something that is no address"
    if not named and len(domains) == before:
        yield "its From field names no domain"
    elif named and not domains:
        yield "its From field names no domain but an address literal"


def _salvaged(text: str) -> Iterable[str]:
    """The domains in what is no list of mailboxes. Display names in quotes and comments are none."""
    for found in _BEHIND_AT.finditer(_APART.sub(_if_open, text)):
        try:
            yield canonical_domain(found[1].strip("."))
        except ValueError:
            continue


def _if_open(apart: re.Match[str]) -> str:
    return " " if apart[1] or apart[2] else apart[0]
