"""SPF records read into values (RFC 7208 §4.5, §4.6.1, §5, §6). Pure; records read before are kept.

What always holds: a record is right as a whole, or there is a fault: nothing of it is evaluated (RFC 7208 §4.6). Names
of mechanisms and modifiers are taken in any case. Unknown modifiers are read and passed over.

How it fails: `parse` gives a SpfFault that says which term is wrong, and why.
"""

from __future__ import annotations

import enum
import re
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from postroad.trust.spf_macro import MacroFault, MacroString, domain_spec, macro_string

_KEPT_MAX: Final = 1024
_KEPT_TEXT_MAX: Final = 1024  # longer ones are read each time: one of 4096 characters may have 2000 terms
RECORD_MAX: Final = 8_192  # characters of a record; RFC 7208 §3.4 wants no more than 450

_VERSION: Final = "v=spf1"
_TERM: Final = re.compile(r"([-+?~]?)([A-Za-z][A-Za-z0-9_.-]*)(.*)", re.DOTALL | re.ASCII)
_DUAL_CIDR: Final = re.compile(r"(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?\Z", re.ASCII)
_IP4: Final = re.compile(r":([0-9.]+)(?:/(0|[1-9][0-9]?))?", re.ASCII)
_IP6: Final = re.compile(r":([0-9A-Fa-f:.]+)(?:/(0|[1-9][0-9]{0,2}))?", re.ASCII)
_QNUM: Final = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}", re.ASCII)
# How the resolver writes an octet that is not UTF-8.
_ESCAPED_OCTET: Final = re.compile(r"\\x[89a-f][0-9a-f]")
_SHOWN_MAX: Final = 100

IP4_BITS: Final = 32
IP6_BITS: Final = 128


class SpfMechanism(enum.Enum):
    ALL = "all"
    INCLUDE = "include"
    A = "a"
    MX = "mx"
    PTR = "ptr"
    IP4 = "ip4"
    IP6 = "ip6"
    EXISTS = "exists"


class SpfDirective(msgspec.Struct, frozen=True):
    """A mechanism with what it means if it matches. `text`: as the record has it. `domain`: None is the domain of the
    record. `ip4_length`, `ip6_length`: how many bits count. Of ip4 and ip6: `version`, `network` as a number, and
    `shift`, how many of its last bits do not count; else they are 0."""

    mechanism: SpfMechanism
    result: str
    text: str
    domain: MacroString | None = None
    network: int = 0
    ip4_length: int = IP4_BITS
    ip6_length: int = IP6_BITS
    version: int = 0
    shift: int = 0


class SpfRecord(msgspec.Struct, frozen=True):
    """A record. `redirect` is None if there is an `all` (RFC 7208 §5.1)."""

    directives: tuple[SpfDirective, ...]
    redirect: MacroString | None = None
    redirect_text: str = ""
    explanation: MacroString | None = None


class SpfFault(msgspec.Struct, frozen=True):
    """Why a text is no SPF record. `text`: for people."""

    text: str


_RESULTS: Final = {"": "pass", "+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_MECHANISMS: Final = {mechanism.value: mechanism for mechanism in SpfMechanism}


def select(texts: Sequence[str]) -> list[str]:
    """The SPF records among the TXT records of a name (RFC 7208 §4.5)."""
    return [text for text in texts if text[:6].lower() == _VERSION and text[6:7] in ("", " ")]


def parse(text: str) -> SpfRecord | SpfFault:
    """A text that begins with v=spf1."""
    if len(text) > RECORD_MAX:
        return SpfFault(f"it has {len(text)} characters, more than {RECORD_MAX}")
    return _kept(text) if len(text) <= _KEPT_TEXT_MAX else _parse(text)


def octet_not_ascii(text: str) -> bool:
    """Whether a TXT record has anything that is not ASCII."""
    return not text.isascii() or _ESCAPED_OCTET.search(text) is not None


def _parse(text: str) -> SpfRecord | SpfFault:
    directives: list[SpfDirective] = []
    modifiers: dict[str, tuple[MacroString, str]] = {}
    for number, term in enumerate(filter(None, text[len(_VERSION) :].split(" ")), 1):
        read = _term(term)
        if isinstance(read, MacroFault):
            return SpfFault(f"term {number}, {_shown(term)}: {read.text}")
        if isinstance(read, SpfDirective):
            directives.append(read)
            continue
        name, value = read
        if name in modifiers and name in _KNOWN_MODIFIERS:
            return SpfFault(f"term {number}, {_shown(term)}: {name}= is there twice")
        modifiers[name] = value, term
    return _record(directives, modifiers)


_kept: Final = lru_cache(maxsize=_KEPT_MAX)(_parse)
_KNOWN_MODIFIERS: Final = ("redirect", "exp")


def _record(directives: list[SpfDirective], modifiers: dict[str, tuple[MacroString, str]]) -> SpfRecord:
    all_at = next((at for at, each in enumerate(directives) if each.mechanism is SpfMechanism.ALL), None)
    redirect, redirect_text = modifiers.get("redirect", (None, ""))
    if all_at is not None:
        del directives[all_at + 1 :]
        redirect = None
    explanation, _ = modifiers.get("exp", (None, ""))
    return SpfRecord(tuple(directives), redirect, redirect_text, explanation)


def _term(term: str) -> SpfDirective | tuple[str, MacroString] | MacroFault:
    if octet_not_ascii(term):
        return MacroFault("it has characters that are not ASCII")
    matched = _TERM.fullmatch(term)
    if matched is None:
        return MacroFault("it is neither a mechanism nor a modifier")
    qualifier, name, rest = matched[1], matched[2].lower(), matched[3]
    if rest.startswith("="):
        return _modifier(qualifier, name, rest[1:])
    mechanism = _MECHANISMS.get(name)
    if mechanism is None:
        return MacroFault(
            f'there is no mechanism "{name}"' if len(name) <= _SHOWN_MAX else "there is no such mechanism"
        )
    return _directive(mechanism, _RESULTS[qualifier], term, rest)


def _modifier(qualifier: str, name: str, value: str) -> tuple[str, MacroString] | MacroFault:
    if qualifier:
        return MacroFault(f'a modifier has no "{qualifier}" before it')
    read = domain_spec(value) if name in _KNOWN_MODIFIERS else macro_string(value)
    return read if isinstance(read, MacroFault) else (name, read)


def _directive(mechanism: SpfMechanism, result: str, term: str, rest: str) -> SpfDirective | MacroFault:
    match mechanism:
        case SpfMechanism.ALL:
            return (
                MacroFault(f"nothing may follow {mechanism.value}") if rest else SpfDirective(mechanism, result, term)
            )
        case SpfMechanism.IP4:
            return _ip4(mechanism, result, term, rest)
        case SpfMechanism.IP6:
            return _ip6(mechanism, result, term, rest)
        case SpfMechanism.A | SpfMechanism.MX:
            return _with_lengths(mechanism, result, term, rest)
        case SpfMechanism.INCLUDE | SpfMechanism.EXISTS | SpfMechanism.PTR:
            return _with_domain(mechanism, result, term, rest)


def _with_domain(mechanism: SpfMechanism, result: str, term: str, rest: str) -> SpfDirective | MacroFault:
    if not rest and mechanism is SpfMechanism.PTR:
        return SpfDirective(mechanism, result, term)
    if not rest.startswith(":"):
        return MacroFault(f'after {mechanism.value} there must be ":" and a domain')
    domain = domain_spec(rest[1:])
    return domain if isinstance(domain, MacroFault) else SpfDirective(mechanism, result, term, domain)


def _with_lengths(mechanism: SpfMechanism, result: str, term: str, rest: str) -> SpfDirective | MacroFault:
    lengths = _DUAL_CIDR.search(rest)
    assert lengths is not None  # it may be empty
    before = rest[: lengths.start()]
    ip4_length, ip6_length = _length(lengths[1], IP4_BITS), _length(lengths[2], IP6_BITS)
    if isinstance(ip4_length, MacroFault):
        return ip4_length
    if isinstance(ip6_length, MacroFault):
        return ip6_length
    if not before:
        return SpfDirective(mechanism, result, term, None, 0, ip4_length, ip6_length)
    if not before.startswith(":"):
        return MacroFault(f'after {mechanism.value} there may be only ":" and a domain, and "/" and a prefix length')
    domain = domain_spec(before[1:])
    if isinstance(domain, MacroFault):
        return domain
    return SpfDirective(mechanism, result, term, domain, 0, ip4_length, ip6_length)


def _ip4(mechanism: SpfMechanism, result: str, term: str, rest: str) -> SpfDirective | MacroFault:
    matched = _IP4.fullmatch(rest)
    if matched is None or not _QNUM.fullmatch(matched[1]):
        return MacroFault("after ip4 there must be an IPv4 address, and perhaps a prefix length")
    length = _length(matched[2], IP4_BITS)
    if isinstance(length, MacroFault):
        return length
    network = number_of(matched[1])
    if network is None:
        return MacroFault(f"{matched[1]} is no IPv4 address")
    return SpfDirective(mechanism, result, term, None, network, length, IP6_BITS, 4, IP4_BITS - length)


def _ip6(mechanism: SpfMechanism, result: str, term: str, rest: str) -> SpfDirective | MacroFault:
    matched = _IP6.fullmatch(rest)
    if matched is None or ":" not in matched[1]:
        return MacroFault("after ip6 there must be an IPv6 address, and perhaps a prefix length")
    length = _length(matched[2], IP6_BITS)
    if isinstance(length, MacroFault):
        return length
    network = number_of(matched[1])
    if network is None:
        return MacroFault(f"{matched[1][:_SHOWN_MAX]} is no IPv6 address")
    return SpfDirective(mechanism, result, term, None, network, IP4_BITS, length, 6, IP6_BITS - length)


def _length(text: str | None, bits: int) -> int | MacroFault:
    if text is None:
        return bits
    return int(text) if int(text) <= bits else MacroFault(f"the prefix length {text} is over {bits}")


def number_of(address: str) -> int | None:
    """An IP address as a number; None if it is none."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address), "big")
    except OSError:
        return None


def _shown(term: str) -> str:
    cut = term if len(term) <= _SHOWN_MAX else f"{term[:_SHOWN_MAX]}…"
    return ascii(cut) if not cut.isascii() or not cut.isprintable() else f'"{cut}"'
