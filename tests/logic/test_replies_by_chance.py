"""A remote that answers by chance, and whose every reply names the message that it is for.

Codes, cuts and delays are random; behind a transaction comes a reply too many now and then, at once or so late that the
next MAIL is on its way already, or a piece of one. (A piece comes with the reply before it: what comes so late that it
becomes one line with the reply to MAIL cannot be told from it by anyone. Nor does who says too much answer RCPT with
354.) The couriers, and a queue of a few lines that does with outcomes as the real one does, bring messages to it.
Whatever happens, no message gets the reply of another: who fails was refused, in these words and by name; who counts as
relayed was taken.
"""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from postroad.deliver.courier_context import CourierContext, courier_context
from postroad.deliver.options import DeliverOptions
from postroad.deliver.smtp import SmtpCourier
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt, Outcome, Reach
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.job import Job
from postroad.mail.route import Destination, Transport
from postroad.protocol.sending import Security
from tests.unit.deliver.world import HOP, Clock, Loop

SEEDS = 400
MESSAGES = 12
REPLAYS_MAX = 3
CONTENT = b"Subject: x\r\n\r\nhello\r\n"
_NAMED = re.compile(r"for (m\d+)(?: (r\d+))?")
_MAIL = re.compile(r"MAIL FROM:<(m\d+)@")
_RCPT = re.compile(r"RCPT TO:<(r\d+)@")


class Line:
    """Both directions of a connection: what is written arrives later, in order, cut anywhere."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.courier: Any = None
        self.remote = Remote(world, self)
        self.closed = False
        self._lands = [world.loop.now, world.loop.now]  # towards the remote, towards us

    def _send(self, way: int, octets: bytes, receive: Any, delay_s: float, whole_at: int = -1) -> None:
        """`whole_at`: where it is not cut."""
        chance, loop = self.world.chance, self.world.loop
        at = chance.randrange(len(octets) + 1) if chance.random() < 0.3 else len(octets)
        at += at == whole_at
        for piece in (octets[:at], octets[at:]):
            if piece:
                self._lands[way] = max(self._lands[way], loop.now + delay_s) + 0.05 * chance.random()
                loop.call_at(self._lands[way], lambda piece=piece: None if self.closed else receive(piece))
            delay_s += chance.choice((0.0, 0.0, 0.5))

    def write(self, octets: bytes) -> None:
        assert not self.closed, "written to a connection that was given up"
        self._send(0, bytes(octets), self.remote.received, 0.0)

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def said(self, octets: bytes, delay_s: float, piece: bytes = b"") -> None:
        self._send(1, octets + piece, self.courier.data_received, delay_s, len(octets) if piece else -1)

    def hang_up(self, delay_s: float) -> None:
        def lose() -> None:
            if not self.closed:
                self.closed = True
                self.courier.connection_lost(None)

        self.world.loop.call_at(max(self._lands[1], self.world.loop.now + delay_s) + 0.01, lose)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> None:
        return None


class Remote:
    """One session. What it has taken and refused stands in the world's ledger."""

    def __init__(self, world: World, line: Line) -> None:
        self.world, self.line = world, line
        self.buffer = b""
        self.message = ""
        self.open = self.in_data = self.gone = False
        self.chunk = -1  # octets of the chunk that is being read; -1: none is
        self.recipients: list[str] = []

    def say(self, code: int, recipient: str = "", *, last: bool = False) -> None:
        """`last`: the transaction is over, and something too many may follow."""
        chance = self.world.chance
        named = f"for {self.message} {recipient}".rstrip() if self.message else "for nobody"
        words = f"{code // 100}.0.0 {named}"
        said = f"{code}-{words}\r\n{code} {words}\r\n" if chance.random() < 0.2 else f"{code} {words}\r\n"
        if code >= 400:
            self.world.refused.add((self.message, recipient, code))
        surplus = self.surplus() if last and chance.random() < self.world.surplus_share else b""
        whole = surplus.endswith(b"\r\n")
        self.line.said(said.encode(), chance.choice((0.0, 0.0, 0.1, 1.5)), b"" if whole else surplus)
        if whole:
            self.line.said(surplus, chance.choice((0.0, 0.0, 0.3, 1.0, 3.0)))

    def received(self, octets: bytes) -> None:
        self.buffer += octets
        while not self.gone:
            if self.chunk >= 0:
                if len(self.buffer) < self.chunk:
                    return
                self.buffer, self.chunk = self.buffer[self.chunk :], -1
                self.end()
                continue
            end = self.buffer.find(b"\r\n.\r\n") if self.in_data else self.buffer.find(b"\r\n")
            if end < 0:
                return
            line, self.buffer = self.buffer[:end], self.buffer[end + (5 if self.in_data else 2) :]
            if self.in_data:
                self.in_data = False
                self.end()
            else:
                self.command(line.decode())

    def command(self, line: str) -> None:
        chance = self.world.chance
        if chance.random() < 0.02:
            self.leave(chance.random() < 0.5)
        elif line.startswith("EHLO"):
            offered = ["mx", *["PIPELINING"] * self.world.pipelining, *["CHUNKING"] * self.world.chunking, "HELP"]
            self.line.said("".join(f"250{'- '[word == 'HELP']}{word}\r\n" for word in offered).encode(), 0.0)
        elif found := _MAIL.match(line):
            self.message, self.recipients = found[1], []
            code = chance.choices((250, 550, 451, 354), (70, 20, 8, 2))[0]
            self.open = code == 250
            self.say(code, last=not self.open and not self.world.pipelining)
        elif found := _RCPT.match(line):
            odd = 0 if self.world.surplus_share else 2
            code = chance.choices((250, 251, 550, 450, 452, 354), (60, 5, 20, 8, 5, odd))[0] if self.open else 503
            if code < 300:
                self.recipients.append(found[1])
            self.say(code, found[1])
        elif line == "DATA":
            self.data()
        elif line.startswith("BDAT "):
            self.chunk = int(line.split()[1])
        elif line == "RSET":
            self.open = False
            self.line.said(b"250 2.0.0 reset\r\n", 0.0)
        else:
            self.line.said(b"221 bye\r\n", 0.0)
            self.gone = True

    def data(self) -> None:
        code = self.world.chance.choices((354, 554, 451), (80, 12, 8))[0] if self.open and self.recipients else 503
        self.in_data = code == 354
        self.say(code, last=not self.in_data)

    def end(self) -> None:
        code = self.world.chance.choices((250, 554, 451), (70, 20, 10))[0]
        if not (self.open and self.recipients):
            code = 503  # BDAT without a transaction
        self.open = False
        if code == 250:
            self.world.taken.update((self.message, recipient) for recipient in self.recipients)
        self.say(code, last=True)

    def surplus(self) -> bytes:
        """A reply too many, or a piece of one."""
        chance = self.world.chance
        code = chance.choice((250, 550, 451, 354, 421))
        self.world.refused.add((self.message, "", code))  # it names the message that it is for
        said = f"{code} 4.3.2 closing\r\n" if code == 421 else f"{code} {code // 100}.0.0 late for {self.message}\r\n"
        if chance.random() < 0.4:
            said = said[: chance.randrange(1, len(said) - 1)]
        return said.encode()

    def leave(self, told: bool) -> None:
        self.gone = True
        if told:
            self.line.said(b"421 4.3.2 shutting down\r\n", 0.0)
        self.line.hang_up(0.0)


class World:
    """Time, chance, what the remote did, and a queue of a few lines."""

    def __init__(self, seed: int, chunking: bool) -> None:
        self.chance = random.Random(seed)
        self.chunking = chunking
        self.loop = Loop()
        self.pipelining = seed % 2 == 0
        self.surplus_share = self.chance.choice((0.0, 0.2, 0.6, 1.0))
        self.taken: set[tuple[str, str]] = set()
        self.refused: set[tuple[str, str, int]] = set()
        self.courier: SmtpCourier | None = None
        self.carried = 0
        self.shared: CourierContext = courier_context(
            "me.test", DeliverOptions(bdat_size_min=1), Clock(), self.loop, None  # type: ignore[arg-type]
        )

    def connect(self) -> SmtpCourier:
        line = Line(self)
        courier = line.courier = SmtpCourier(self.shared, Transport.SMTP, HOP)
        courier.connection_made(line)  # type: ignore[arg-type]
        courier.data_received(b"220 mx\r\n")
        while not courier.machine.capabilities.pipelining and courier.machine.step.name != "IDLE":
            self.loop.advance(1)
            if courier.ended is not None:
                return self.connect()
        courier.release(Security(), 0, lambda courier: None)
        self.carried = 0
        return courier

    def bring(self, job: Job) -> tuple[Attempt, ...]:
        """As the queue does: at once on another connection where a kept one has failed and nothing else is known."""
        for _ in range(REPLAYS_MAX):
            if self.courier is None or not self.courier.usable:
                self.courier = self.connect()
            done: list[tuple[Attempt, ...]] = []
            self.courier.carry(job, lambda job, attempts, done=done: done.append(attempts))
            self.loop.run()
            while not done:
                self.loop.advance(1)
            (attempts,) = done
            again = all(each.outcome is Outcome.DEFERRED and each.reach is Reach.SESSION for each in attempts)
            self.carried += 1
            if self.courier.usable or not again or self.carried == 1:
                break
        return attempts


def job(name: str, count: int) -> Job:
    recipients = tuple(Recipient(Address(f"r{number}", "example.net")) for number in range(count))
    envelope = Envelope(int(name[1:]), Address(name, "example.org"), recipients, len(CONTENT), 1_700_000_000_000_000)
    destination = Destination("example.net", Transport.SMTP)
    return Job(envelope, tuple(range(count)), CONTENT, destination, envelope.reverse_path)


def faults(seed: int, chunking: bool) -> list[str]:
    world = World(seed, chunking)
    found = []
    for number in range(MESSAGES):
        name = f"m{number}"
        attempts = world.bring(job(name, world.chance.choice((1, 1, 2, 3))))
        for place, attempt in enumerate(attempts):
            wrong = _wrong(world, name, f"r{place}", attempt)
            if wrong:
                found.append(f"seed {seed}, {name} for r{place}: {wrong}: {attempt.outcome.value} {attempt.reason}")
        world.loop.advance(world.chance.choice((0.0, 0.0, 0.2, 2.0)))
    return found


def _wrong(world: World, message: str, recipient: str, attempt: Attempt) -> str:
    said = str(attempt.reply) if attempt.reply is not None else ""
    named = _NAMED.search(said)
    if named is not None and named[1] != message:
        return "the reply is for another message"
    if named is not None and named[2] and named[2] != recipient and not attempt.text.startswith("a reply that does"):
        return "the reply is for another recipient"
    match attempt.outcome:
        case Outcome.RELAYED:
            return "" if (message, recipient) in world.taken else "it was not taken"
        case Outcome.FAILED:
            code = attempt.reply.code if attempt.reply is not None else 0
            refused = {(message, recipient, code), (message, "", code)} & world.refused
            return "" if refused else "it was not refused"
        case _:
            return ""


@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("pipelining", [False, True])
def test_no_reply_is_taken_for_that_of_another_message(pipelining: bool, chunking: bool) -> None:
    found = [fault for seed in range(0 if pipelining else 1, SEEDS, 2) for fault in faults(seed, chunking)]
    assert not found, "\n".join(found[:20])
