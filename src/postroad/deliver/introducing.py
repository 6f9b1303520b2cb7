"""For which client a connection speaks by XCLIENT (see `protocol.speaking_for`).

What always holds: on a connection that has named a client, no message of another client goes out before that other one
is named; a message that was made here is then this machine's own. A server that refuses to hear of a client gets the
message all the same, as ours, if no other client was named before. Some servers (Postfix) take XCLIENT from the named
client only if that one has the right to it, too: then the connection is for one message (`again`).
"""

from __future__ import annotations

import asyncio

from postroad.mail.envelope import Envelope
from postroad.protocol.capability import Capabilities
from postroad.protocol.speaking_for import SpokenFor, client_of, hello_of, xclient


class Introductions:
    """Of one connection. `own`: our name, for EHLO."""

    __slots__ = ("_attributes", "_current", "_own", "_refused", "_wanted")

    def __init__(self, own: str) -> None:
        self._own = own
        self._current: SpokenFor | None = None  # None: ourselves, as the connection has it
        self._wanted: SpokenFor | None = None
        self._refused = False
        self._attributes: str | None = None  # those that the server takes, None: it takes no XCLIENT

    def next(
        self, envelope: Envelope, offered: Capabilities, transport: asyncio.Transport | None
    ) -> tuple[bytes, str] | None:
        """The command to say before this message, and the name for EHLO behind it. None: nothing is to be said."""
        self._attributes = offered.keywords.get("XCLIENT", self._attributes)
        if self._refused or self._attributes is None:
            return None
        wanted = client_of(envelope)
        if wanted is None and self._current is not None:
            wanted = SpokenFor(_own_address(transport), hello=self._own)
        if wanted == self._current:
            return None
        self._wanted = wanted
        assert wanted is not None
        return xclient(wanted, self._attributes), hello_of(wanted, self._own)

    def taken(self) -> None:
        """The server has taken the last one."""
        self._current = self._wanted

    @staticmethod
    def again(offered: Capabilities) -> bool:
        """Whether the server, as it is after the last one, takes another one."""
        return "XCLIENT" in offered.keywords

    def refused(self) -> bool:
        """It has not; it is not asked again. Whether the message may go all the same."""
        self._refused = True
        return self._current is None


def _own_address(transport: asyncio.Transport | None) -> str:
    """By which address the server knows us; over a Unix socket it is on this machine."""
    name = transport.get_extra_info("sockname") if transport is not None else None
    return str(name[0]) if isinstance(name, tuple) else "127.0.0.1"
