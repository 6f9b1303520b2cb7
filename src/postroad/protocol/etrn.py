"""ETRN: which queue a client wants to be started, and the replies (RFC 1985 §5).

Pure. What always holds: a name is either a domain in canonical form, or the name of a queue: a word of at most 255
characters that is safe in commands, files and queries.
"""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

from postroad.mail.reply import Reply, reply
from postroad.protocol.grammar import parse_domain

BAD_NODE: Final = reply(501, "5.5.4", "Syntax: ETRN node, @domain or #queue")
#   RFC 1985 §5.1: etrn = "ETRN" SP [ "@" / "#" ] node-name CRLF
_QUEUE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,254}|\[[A-Za-z0-9._:-]{1,253}\](?::[0-9]{1,5})?")


class EtrnKind(enum.Enum):
    NODE = "node"
    SUBDOMAINS = "subdomains"  # "@": a domain with all below it
    QUEUE = "queue"  # "#": by the name that the queue has here


class Wish(msgspec.Struct, frozen=True):
    kind: EtrnKind
    name: str

    @property
    def text(self) -> str:
        """As the client wrote it, but for the case."""
        return {EtrnKind.NODE: "", EtrnKind.SUBDOMAINS: "@", EtrnKind.QUEUE: "#"}[self.kind] + self.name


def parse(argument: str) -> Wish | Reply:
    """What stands behind ETRN."""
    if argument.startswith("#"):
        return Wish(EtrnKind.QUEUE, argument[1:].lower()) if _QUEUE.fullmatch(argument[1:]) else BAD_NODE
    kind = EtrnKind.SUBDOMAINS if argument.startswith("@") else EtrnKind.NODE
    written = argument.removeprefix("@")
    domain = parse_domain(written) if 0 < len(written) <= 255 and not written.startswith("[") else None
    return BAD_NODE if domain is None else Wish(kind, domain)


# RFC 1985 §5.3


def started(wish: Wish) -> Reply:
    """It is under way already."""
    return reply(250, "2.0.0", f"OK, queuing for node {wish.text} started")


def found(wish: Wish, count: int, *, exact: bool) -> Reply:
    """`count` messages wait for it and are tried now; `exact`: not more."""
    if count == 0:
        return reply(251, "2.0.0", f"OK, no messages waiting for node {wish.text}")
    if exact:
        return reply(253, "2.0.0", f"OK, {count} pending messages for node {wish.text} started")
    return reply(252, "2.0.0", f"OK, pending messages for node {wish.text} started")


def unable(wish: Wish) -> Reply:
    return reply(458, "4.3.0", f"Unable to queue messages for node {wish.text}")


def not_allowed(wish: Wish, why: str) -> Reply:
    return reply(459, "4.7.1", f"Node {wish.text} not allowed: {why}")
