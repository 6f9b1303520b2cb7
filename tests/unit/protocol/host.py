"""A host for the server machine that says yes: it answers every command, notes it, and joins the pieces of content."""

from __future__ import annotations

from collections.abc import Iterable

from postroad.mail.reply import Reply, reply
from postroad.protocol.command import (
    Auth,
    AuthResponse,
    Chunk,
    Command,
    Connected,
    Content,
    Data,
    Etrn,
    Hello,
    Help,
    Mail,
    Overflow,
    Rcpt,
    Reset,
    StartTls,
    Vrfy,
    Xclient,
    Xforward,
)
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect, Offer
from postroad.protocol.sasl.mechanisms import MECHANISMS, ExchangeContext
from postroad.protocol.sasl.step import Challenge, ExchangeRefused, Mechanism, Password, ProofFailed, Step
from postroad.protocol.server import ServerMachine

OK = reply(250, "2.0.0", "fine")
ALL = Offer(
    binarymime=True, starttls=True, auth=("PLAIN", "LOGIN"), vrfy=True, expn=True, etrn=True, limits=True,
    by_min_s=0, hold_max_s=3600, mt_priority="MIXER", rrvs=True, xverp=True, xclient=True, xforward=True,
)


USUAL = Offer()
LIMITS = ProtocolLimits()


class Host:
    """`refuse`: local-parts answered 550 at RCPT. `commands`: all but Connected and Data, content joined."""

    def __init__(
        self,
        offer: Offer = USUAL,
        limits: ProtocolLimits = LIMITS,
        dialect: Dialect = Dialect.SMTP,
        *,
        refuse: Iterable[str] = (),
        chunk: Reply = OK,
    ) -> None:
        self.machine = ServerMachine(dialect, offer, limits)
        self.commands: list[Command] = []
        self.pieces: list[bytes] = []  # of the message that is coming in
        self.output = b""
        self.refuse = frozenset(refuse)
        self.chunk = chunk
        self.accepted = 0
        self.mechanism: Mechanism | None = None

    def play(self, *parts: bytes) -> Host:
        """Feed the parts one after the other, answering all that comes."""
        self._work()
        for part in parts:
            self.machine.feed(part)
            self._work()
        return self

    @property
    def replies(self) -> list[str]:
        return self.output.decode("utf-8").split("\r\n")[:-1]

    @property
    def codes(self) -> list[int]:
        return [int(line[:3]) for line in self.replies if line[3:4] == " "]

    def _work(self) -> None:
        while (command := self.machine.next_command()) is not None:
            self._note(command)
            self._answer(command)
        self.output += self.machine.take_output()

    def _note(self, command: Command) -> None:
        match command:
            case Connected() | Data():
                pass
            case Content(octets, last):
                self.pieces.append(octets)
                if last:
                    self.commands.append(Content(b"".join(self.pieces), True))
                    self.pieces = []
            case _:
                if isinstance(command, Overflow | Reset | Hello):
                    self.pieces = []
                self.commands.append(command)

    def _answer(self, command: Command) -> None:
        machine = self.machine
        match command:
            case Connected():
                machine.reply(reply(220, "", "mx.example.org ESMTP"))
            case Hello():
                self.accepted = 0
                machine.reply(reply(250, "", "mx.example.org"))
            case Mail():
                self.accepted = 0
                machine.reply(OK)
            case Rcpt(forward_path=address):
                if address.local_part in self.refuse:
                    machine.reply(reply(550, "5.1.1", "unknown"))
                else:
                    self.accepted += 1
                    machine.reply(OK)
            case Data():
                machine.reply(reply(354, "", "go on"))
            case Content(last=True):
                count = self.accepted if machine.dialect is Dialect.LMTP else 1
                for _ in range(count):
                    machine.reply(OK)
            case Chunk():
                machine.reply(self.chunk)
            case StartTls():
                self.output += machine.take_output()
                machine.tls_started(Offer(tls=True))
            case Auth(mechanism, initial):
                self.mechanism = MECHANISMS[mechanism](ExchangeContext("nonce", lambda kind: None))
                self._step(self.mechanism.begin(initial))
            case AuthResponse(response):
                assert self.mechanism is not None
                self._step(self.mechanism.respond(response))
            case Xclient():
                machine.begin_anew("", reply(220, "", "mx.example.org ESMTP"), machine.offer)
            case Vrfy() | Help() | Etrn() | Xforward():
                machine.reply(OK)
            case _:
                pass  # answered by the machine, or nothing to answer

    def _step(self, step: Step) -> None:
        match step:
            case Challenge(octets):
                self.machine.challenge(octets)
            case Password(password="secret") as right:
                self.machine.authenticated(right.authcid, reply(235, "2.7.0", "welcome"), self.machine.offer)
            case Password() | ProofFailed():
                self.machine.reply(reply(535, "5.7.8", "no"))
            case ExchangeRefused(answer):
                self.machine.reply(answer)


def every_octet(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]
