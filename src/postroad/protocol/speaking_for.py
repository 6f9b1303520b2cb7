"""XCLIENT as we say it: which client a message came from, for a server that is to judge or log it as its own client.

Postfix's XCLIENT_README. The server answers as if that client had connected: with a greeting, after which EHLO is said
again. What always holds: a command is one line of at most 512 octets with its CRLF, and names every attribute that the
server takes, so that nothing of the client before stays; what is not known, or does not fit, is `[UNAVAILABLE]`.

Not here: when it is said (`deliver.smtp`), the server's side (`xclient`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from postroad.mail.address import is_ip_address
from postroad.mail.envelope import Envelope
from postroad.protocol.grammar import parse_domain, xtext_encode
from postroad.protocol.xclient import forwarded

_LINE_MAX: Final = 510  # RFC 5321 §4.5.3.1.4, without CRLF
_TEXT_MAX: Final = 255  # octets of an attribute
_UNKNOWN: Final = "[UNAVAILABLE]"


class SpokenFor(msgspec.Struct, frozen=True):
    """A client, as we name it to a server. `login`: the account that it has logged in as. "" or 0: not known."""

    address: str
    port: int = 0
    name: str = ""
    hello: str = ""
    protocol: str = "ESMTP"
    login: str = ""
    destination: str = ""
    destination_port: int = 0


def client_of(envelope: Envelope) -> SpokenFor | None:
    """The client from which the message came, or the one before it if we were told of that. None: there is none with an
    IP address, because the message was made here."""
    facts, peer = forwarded(envelope), envelope.peer
    if not is_ip_address(facts.address):
        return None
    protocol = "SMTP" if facts.protocol == "SMTP" else "ESMTP"
    if peer.forwarded is not None:
        return SpokenFor(facts.address, facts.port, facts.name, facts.hello, protocol)
    destination, port = ("", 0) if peer.via is None else (peer.via.destination, peer.via.destination_port)
    if not is_ip_address(destination):
        destination = ""
    return SpokenFor(facts.address, facts.port, facts.name, facts.hello, protocol, peer.identity, destination, port)


def xclient(client: SpokenFor, offered: str) -> bytes:
    """The command. `offered`: the attributes that the server takes, as its EHLO reply names them."""
    wanted = offered.upper().split()
    values = {
        "ADDR": _tagged(client.address), "PORT": str(client.port or ""), "PROTO": client.protocol,
        "LOGIN": client.login, "HELO": client.hello, "NAME": client.name, "DESTADDR": _tagged(client.destination),
        "DESTPORT": str(client.destination_port or ""),
    }  # fmt: skip
    told = {keyword: _encoded(value) for keyword, value in values.items() if keyword in wanted}
    for keyword in ("NAME", "HELO", "LOGIN"):
        if len(_line(told)) > _LINE_MAX and keyword in told:
            told[keyword] = _UNKNOWN
    return _line(told).encode("ascii") + b"\r\n"


def hello_of(client: SpokenFor, own: str) -> str:
    """By which name EHLO is said behind the command: the client's, if that can be one."""
    return client.hello if client.hello.isascii() and parse_domain(client.hello) is not None else own


def _line(told: dict[str, str]) -> str:
    return " ".join(("XCLIENT", *(f"{keyword}={value}" for keyword, value in told.items())))


def _encoded(value: str) -> str:
    return xtext_encode(value) if value and len(value.encode()) <= _TEXT_MAX else _UNKNOWN


def _tagged(address: str) -> str:
    return f"IPV6:{address}" if ":" in address else address
