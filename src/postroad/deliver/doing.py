"""Says in words for operators what a connection is doing at this moment, or what its opening is waiting for.

This is asked for seldom, so nothing is kept only for this purpose. `place` names a hop.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from postroad.mail.route import Hop
from postroad.protocol.client import ClientMachine
from postroad.protocol.client_events import Step


@lru_cache(maxsize=1024)
def place(hop: Hop) -> str:
    """A hop for people: ``mx.example.org[192.0.2.1]:25``."""
    if hop.address.startswith("/"):
        return hop.address
    address = f"[{hop.address}]"
    return f"{address}:{hop.port}" if hop.name == hop.address else f"{hop.name}{address}:{hop.port}"


WAITS: Final = {
    Step.GREETING: "waits for the greeting",
    Step.HELLO: "waits for the answer to EHLO",
    Step.HELO: "waits for the answer to HELO",
    Step.STARTTLS: "waits for the answer to STARTTLS",
    Step.HANDSHAKE: "in the TLS handshake",
    Step.AUTH: "waits for the answer to AUTH",
    Step.RESPONSE: "makes its answer to AUTH",
    Step.RSET: "waits for the answer to RSET",
    Step.XFORWARD: "waits for the answer to XFORWARD",
    Step.XCLIENT: "waits for the answer to XCLIENT",
    Step.MAIL: "waits for the answer to MAIL",
    Step.RCPT: "waits for the answer to RCPT",
    Step.DATA: "waits for the answer to DATA",
    Step.CONTENT: "sends the content",
    Step.END: "waits for the answer to the end of the content",
    Step.DOT: "waits for the answer to the end of the content",
    Step.IDLE: "about to begin",
    Step.QUIT: "waits for the answer to QUIT",
    Step.CLOSED: "closes",
}


def carrying(hop: Hop, step: Step, took_s: float) -> str:
    """A transaction."""
    return f"{place(hop)}: in a transaction for {took_s:.0f} s, {WAITS[step]}"


class Trying:
    """The opening of a connection to the destination `key`: the hop it is at, None while hosts are looked up, since
    when, and the client machine once there is a connection. Times are those of the loop."""

    __slots__ = ("hop", "key", "machine", "since")

    def __init__(self, key: str, now: float) -> None:
        self.key = key
        self.hop: Hop | None = None
        self.since = now
        self.machine: ClientMachine | None = None

    def goes_to(self, hop: Hop, now: float) -> None:
        self.hop, self.since, self.machine = hop, now, None

    def in_words(self, now: float) -> str:
        seconds = f"for {now - self.since:.0f} s"
        if self.hop is None:
            return f"looks up the hosts {seconds}"
        what = "connects" if self.machine is None else WAITS[self.machine.step]
        return f"{place(self.hop)}: {what} {seconds}"
