"""Applies XCLIENT and XFORWARD to the facts of a client. Pure; an attribute that the command does not name stays as it
was.

XCLIENT makes the client another: address, port and account are those that it names. Its HELO and PROTO hold for the
trace fields of the sessions that follow, whatever the proxy's own EHLO says (the proxy speaks for itself there).
XFORWARD only tells from whom the message is. Postfix's XCLIENT_README and XFORWARD_README.
"""

from __future__ import annotations

from typing import Final

import msgspec

from postroad.mail.account import canonical_account
from postroad.mail.envelope import Forwarded, Peer, Via
from postroad.protocol.command import Xclient, Xforward

UNKNOWN: Final = "0.0.0.0"  # the address of a client whose address is not known


class XclientFacts(msgspec.Struct, frozen=True):
    """What XCLIENT said beside the facts that a session has itself; "" for nothing."""

    name: str = ""
    hello: str = ""
    protocol: str = ""


def facts_after(command: Xclient, before: XclientFacts | None) -> XclientFacts:
    """A client at another address has none of the names of the one before."""
    before = before if before is not None and command.address is None else XclientFacts()
    return XclientFacts(
        before.name if command.name is None else command.name,
        before.hello if command.hello is None else command.hello,
        before.protocol if command.protocol is None else command.protocol,
    )


def named(command: Xclient, before: Peer) -> Peer:
    """The client that XCLIENT names, known by the one that spoke."""
    via = before.via
    if via is None or via.protocol != "XCLIENT":
        via = Via("XCLIENT", before.address, before.port)
    if command.destination is not None:
        via = msgspec.structs.replace(via, destination=command.destination)
    if command.destination_port is not None:
        via = msgspec.structs.replace(via, destination_port=_number(command.destination_port))
    login = command.login
    if login is None:  # an account goes with the client that it is of
        login = before.identity if command.address is None else ""
    login = canonical_account(login)
    return msgspec.structs.replace(
        before,
        # An unknown address is no Unix socket's: it must not be trusted as one.
        address=before.address if command.address is None else command.address or UNKNOWN,
        port=_port(command, before.port),
        identity=login,
        via=via,
    )


def _port(command: Xclient, before: int) -> int:
    """Another address without a port has one that we do not know: that of before was another client's."""
    if command.port is not None:
        return _number(command.port)
    return before if command.address is None else 0


def forwarded(command: Xforward, before: Forwarded | None) -> Forwarded:
    """XFORWARD may come in several commands, which add up until the transaction is over."""
    facts = before or Forwarded()
    given = {name: value for name in command.__struct_fields__ if (value := getattr(command, name)) is not None}
    if "port" in given:
        given["port"] = _number(given["port"])
    return msgspec.structs.replace(facts, **given)


def _number(text: str) -> int:
    return int(text) if text else 0
