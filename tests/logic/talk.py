"""A client in memory that counts: as many replies as its commands must have, no more and no fewer."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, cast

from postroad.accounts.accounts import Account
from postroad.accounts.authenticate import AuthOptions, OnOutcome, Right, SessionFacts, Wrong
from postroad.mail.message import ContentFile
from postroad.mail.policy import Rules
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from postroad.receive.options import ListenerOptions, ListenerTls, ReceiveOptions, Telling
from postroad.store.values import Stored
from tests.fuzz import framing
from tests.unit.receive.fakes import Client, House, Incoming

LIMITS = ProtocolLimits(
    size_max=30_000, header_size_max=1_500, header_fields_max=20, text_line_max=500, piece_size=300, recipients_max=20
)
RIGHT = base64.b64encode(b"\0ann\0right").decode()
WRONG = base64.b64encode(b"\0ann\0wrong").decode()
HELLOS = {Dialect.SMTP: "EHLO", Dialect.LMTP: "LHLO"}


class Accounts:
    """In place of an Authenticator: PLAIN, and the password is "right"."""

    options = AuthOptions()

    def mechanisms(self, *, bindable: bool, certificate: bool) -> tuple[str, ...]:
        return ("PLAIN",)

    def exchange(self, mechanism: str, facts: SessionFacts, failed: Callable[[str], None]) -> Accounts:
        self.failed = failed
        return self

    def begin(self, initial: bytes | None, told: OnOutcome) -> None:
        if initial == b"\0ann\0right":
            told(Right(Account("ann")))
        else:
            self.failed("ann")
            told(Wrong("ann"))

    def cancel(self) -> bool:
        """Nothing is under way."""
        return True


def house(dialect: Dialect, *, memory_content_max: int = 1_000_000, rules: Rules | None = None, **more: Any) -> House:
    """A listener that offers all that can be had in memory."""
    listener = ListenerOptions(
        "front", protocol=dialect, tls=ListenerTls.STARTTLS, auth=True, auth_without_tls=True, vrfy=Telling.ON,
        expn=Telling.TRUSTED, xclient_networks=("192.0.2.0/24",), xforward_networks=("192.0.2.0/24",),
        dsn_for_strangers=True,
    )  # fmt: skip
    options = ReceiveOptions(
        hostname="mx.local.test", default_domain="local.test", limits=LIMITS, memory_content_max=memory_content_max
    )
    return House(
        listener=listener, options=options, rules=rules, authenticator=Accounts(), tls_context=lambda asking: object(),
        **more,
    )


class Talk:
    """A session and what was said in it."""

    def __init__(self, place: House) -> None:
        self.house = place
        self.lmtp = place.listener.setup.lmtp
        self.hello = HELLOS[place.listener.setup.listener.protocol]
        self.client = Client(place, ("192.0.2.1", 50_000))
        self.client.heard()
        assert self.ask(f"{self.hello} client.test") == [250]

    def send(self, octets: bytes) -> list[tuple[int, bytes]]:
        """All replies to these octets, each with its last line."""
        self.client.heard()
        if not self.client.transport.closed:
            self.client.session.data_received(octets)
        return framing.replies(self.client.heard())

    def ask(self, *lines: str) -> list[int]:
        """Line by line: exactly one reply to each."""
        codes = []
        for line in lines:
            answers = self.send(line.encode() + b"\r\n")
            assert len(answers) == 1, (line, answers)
            codes.append(answers[0][0])
        return codes

    def shake_hands(self) -> None:
        """STARTTLS was answered 220: as if the handshake were done (there is no TLS in memory)."""
        session = self.client.session
        session._client_hello, session._early = None, []
        session.resume(session._secured)
        heard = self.client.heard()
        assert heard == b"", (heard, self.house.logged)
        assert self.ask(f"{self.hello} client.test") == [250]

    @property
    def is_open(self) -> bool:
        return not self.client.transport.closed


def content(place: House, stored: Stored) -> bytes:
    """What is stored of a message, behind our Received field."""
    octets = stored.content
    if isinstance(octets, ContentFile):
        octets = file_of(place, stored.envelope.id).octets
    head, mark, rest = cast(bytes, octets).partition(b"\r\nGood: ")
    assert head.startswith(b"Received: ") and mark, octets[:300]
    return b"Good: " + rest


def file_of(place: House, id: int) -> Incoming:
    (found,) = [each for each in place.spool.incomings if each.id == id]
    return found
