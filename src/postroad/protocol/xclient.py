"""XCLIENT and XFORWARD: reads and writes the attributes of a client for whom another client speaks.

Postfix's XCLIENT_README and XFORWARD_README. What always holds: a parse gives a command or the Reply to send; its
values hold no control octets and are bounded; a line that we write has at most 512 octets with its CRLF. How it fails:
with 501, if a value is bad, or if an attribute is unknown or there twice.

Not here: who may use them, and what they change (`receive.dialog`).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Final

from postroad.mail import identifier
from postroad.mail.envelope import Envelope, Forwarded, Peer
from postroad.mail.reply import Reply, reply
from postroad.protocol.command import Xclient, Xforward
from postroad.protocol.grammar import xtext_decode, xtext_encode

_LINE_MAX: Final = 510  # RFC 5321 §4.5.3.1.4, without CRLF
_TEXT_MAX: Final = 255  # octets of an attribute, as XFORWARD_README has it
_UNKNOWN: Final = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")

NO_ATTRIBUTES: Final = reply(501, "5.5.4", "Attributes must follow, as NAME=value")

#   xclient-command = XCLIENT 1*( SP attribute-name "=" attribute-value ); xforward-command likewise
_ATTRIBUTE: Final = re.compile(r"([A-Za-z]{1,20})=([!-~]{1,1024})")
_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,254})")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_WORD: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


def _text(value: str) -> str | None:
    return value if value.isprintable() and len(value.encode()) <= _TEXT_MAX else None


def _hello(value: str) -> str | None:
    return value if value.isascii() and value.isprintable() and " " not in value and len(value) <= _TEXT_MAX else None


def _name(value: str) -> str | None:
    return value if _NAME.fullmatch(value) else None


def _address(value: str) -> str | None:
    """An IPv4 address, or ``IPV6:`` and an IPv6 one (with or without its tag)."""
    try:
        parsed = ipaddress.ip_address(value[5:] if value[:5].upper() == "IPV6:" else value)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.scope_id is not None:
            return None
        return str(parsed.ipv4_mapped or parsed)
    return str(parsed)


def _port(value: str) -> str | None:
    return str(int(value)) if _PORT.fullmatch(value) and int(value) < 65_536 else None


def _word(value: str) -> str | None:
    return value.upper() if _WORD.fullmatch(value) else None


def _one_of(*words: str) -> Callable[[str], str | None]:
    return lambda value: value.upper() if value.upper() in words else None


# attribute: (field of the command, what its value must be)
_Rules = dict[str, tuple[str, Callable[[str], str | None]]]
_XCLIENT: Final[_Rules] = {
    "NAME": ("name", _name),
    "ADDR": ("address", _address),
    "PORT": ("port", _port),
    "PROTO": ("protocol", _one_of("SMTP", "ESMTP")),
    "HELO": ("hello", _hello),
    "LOGIN": ("login", _text),
    "DESTADDR": ("destination", _address),
    "DESTPORT": ("destination_port", _port),
}
_XFORWARD: Final[_Rules] = {
    "NAME": ("name", _name),
    "ADDR": ("address", _address),
    "PORT": ("port", _port),
    "PROTO": ("protocol", _word),
    "HELO": ("hello", _hello),
    "IDENT": ("ident", _text),
    "SOURCE": ("source", _one_of("LOCAL", "REMOTE")),
}
XCLIENT_LINE: Final = " ".join(("XCLIENT", *_XCLIENT))
XFORWARD_LINE: Final = " ".join(("XFORWARD", *_XFORWARD))


def parse_xclient(argument: bytes) -> Xclient | Reply:
    """What stands behind XCLIENT."""
    found = _attributes(argument, _XCLIENT)
    return found if isinstance(found, Reply) else Xclient(**found)


def parse_xforward(argument: bytes) -> Xforward | Reply:
    """What stands behind XFORWARD."""
    found = _attributes(argument, _XFORWARD)
    return found if isinstance(found, Reply) else Xforward(**found)


def _attributes(argument: bytes, rules: _Rules) -> dict[str, str] | Reply:
    """The fields that were told; "" for what is not known (to the server, or for now)."""
    if not argument.isascii():
        return NO_ATTRIBUTES
    found: dict[str, str] = {}
    for word in argument.decode("ascii").split():
        parts = _ATTRIBUTE.fullmatch(word)
        if parts is None:
            return NO_ATTRIBUTES
        keyword = parts[1].upper()
        if keyword not in rules:
            return reply(501, "5.5.4", f"Unknown attribute {keyword}")
        field, rule = rules[keyword]
        value = "" if parts[2].upper() in _UNKNOWN else _decoded(parts[2], rule)
        if value is None or field in found:
            return reply(501, "5.5.4", f"Bad value of attribute {keyword}, or given twice")
        found[field] = value
    return found or NO_ATTRIBUTES


def _decoded(value: str, rule: Callable[[str], str | None]) -> str | None:
    text = xtext_decode(value)
    return rule(text) if text else None


# ---- the client's side


def xforward(envelope: Envelope, offered: str) -> list[bytes]:
    """XFORWARD commands with their CRLF for the client from which we have the message, or the one before it if we
    were told of that. `offered`: the attributes that the server takes, as its EHLO reply names them."""
    facts = forwarded(envelope)
    wanted = offered.upper().split()
    words = [f"{keyword}={value}" for keyword, value in _told(facts) if keyword in wanted]
    lines: list[bytes] = []
    line = "XFORWARD"
    for word in words:
        if len(line) + 1 + len(word) > _LINE_MAX:
            lines.append(line.encode("ascii") + b"\r\n")
            line = "XFORWARD"
        line += f" {word}"
    if line != "XFORWARD":
        lines.append(line.encode("ascii") + b"\r\n")
    return lines


def forwarded(envelope: Envelope) -> Forwarded:
    """The facts to pass on."""
    peer, ident = envelope.peer, identifier.text(envelope.id)
    before = peer.forwarded
    if before is None:
        source = "REMOTE" if peer.address and not peer.identity else "LOCAL"
        return Forwarded(peer.name, peer.address, peer.port, _dialect(peer), peer.hello, ident, source)
    return Forwarded(
        before.name, before.address, before.port, before.protocol, before.hello, before.ident or ident, before.source
    )


def _dialect(peer: Peer) -> str:
    """``SMTP``, ``ESMTP`` or ``LMTP`` of a ``with`` type (RFC 3848, RFC 6531 §4.3)."""
    if not peer.protocol or peer.protocol == "SMTP":
        return peer.protocol
    return "LMTP" if "LMTP" in peer.protocol else "ESMTP"


def _told(facts: Forwarded) -> Iterator[tuple[str, str]]:
    address = f"IPV6:{facts.address}" if ":" in facts.address else facts.address
    port = str(facts.port) if facts.port else ""
    for keyword, value in (
        ("NAME", facts.name), ("ADDR", address), ("PORT", port), ("PROTO", facts.protocol), ("HELO", facts.hello),
        ("IDENT", facts.ident), ("SOURCE", facts.source),
    ):  # fmt: skip
        encoded = xtext_encode(value) if value and len(value) <= _TEXT_MAX else ""
        # Some receivers take an encoded value for longer than it is: what does not fit a line is not told.
        yield keyword, encoded if encoded and len(encoded) <= 400 else _UNKNOWN[0]
