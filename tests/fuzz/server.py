"""Target `server`: any octets from a client, cut in any way, to the server machine over SMTP and LMTP.

The wire is played line by line, in other cuts, whole, and octet by octet. What must hold: nothing raises; the host is
handed the same commands and the client told the same, however it was cut; the octets make exactly the commands that
`framing` finds in them, one reply each, and contents end where they end there; what is said is whole replies; what is
held is bounded. A hasty check takes one other cut of each wire, chosen by its octets.
"""

from __future__ import annotations

import msgspec

from postroad.mail.reply import reply
from postroad.protocol.command import Command, Content, Overflow, StartTls, TooManyErrors
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect, Offer
from tests.fuzz import choices, framing
from tests.fuzz.choices import parted
from tests.unit.protocol.host import ALL, Host

# Small limits, so that they are met; an end of a session for what was swallowed depends on how much came at once.
LIMITS = ProtocolLimits(
    command_line_max=200, auth_line_max=240, text_line_max=80, size_max=600, header_size_max=300, header_fields_max=8,
    recipients_max=3, errors_max=30, idle_commands_max=40, swallow_max=1_000_000, piece_size=60,
    pipelining_strict=False,
)  # fmt: skip
STRICT = msgspec.structs.replace(LIMITS, pipelining_strict=True)
REFUSED = ("nobody", "unknown")
# Which of several faults of one content is told may depend on where it was cut, nothing else.
FAULTS = (b"550 5.5.2 ", b"552 5.3.4 ", b"554 5.6.0 ")


class Player(Host):
    """Plays parts and looks at what is held after each; `handshakes`: after how many octets TLS started."""

    def __init__(self, offer: Offer, limits: ProtocolLimits, dialect: Dialect, *, chunks_refused: bool = False) -> None:
        answer = reply(452, "4.3.1", "full") if chunks_refused else reply(250, "2.0.0", "fine")
        super().__init__(offer, limits, dialect, refuse=REFUSED, chunk=answer)
        self.buffered_max = max(limits.command_line_max, limits.auth_line_max)
        self.held_max = limits.piece_size + limits.text_line_max
        self.limits = limits
        self.fed = 0
        self.handshakes: list[int] = []

    def _note(self, command: Command) -> None:
        super()._note(command)
        if isinstance(command, StartTls):
            self.handshakes.append(self.fed)

    def through(self, parts: list[bytes]) -> Player:
        self.play()
        for part in parts:
            self.fed += len(part)
            self.play(part)
            assert self.machine.buffered <= self.buffered_max
            held = getattr(self.machine._content, "_held", b"")
            assert len(held) <= self.held_max, held
            assert len(getattr(self.machine._content, "_passed", b"")) < self.limits.piece_size
        return self

    @property
    def seen(self) -> list[str]:
        """The commands in words, a refused content without its reason."""
        return ["Overflow" if isinstance(command, Overflow) else repr(command) for command in self.commands]

    @property
    def said(self) -> list[bytes]:
        """The replies, each fault of content as the same one."""
        return [b"fault" if line.startswith(FAULTS) else line for line in self.output.split(b"\r\n")]


def check(data: bytes, *, hasty: bool = False) -> None:
    chosen = choices.read(data)
    wire = chosen.wire
    dialect = Dialect.LMTP if chosen.on(0) else Dialect.SMTP
    offer = msgspec.structs.replace(ALL, tls_required=True) if chosen.on(1) else ALL
    hello = b"LHLO c.example\r\n" if dialect is Dialect.LMTP else b"EHLO c.example\r\n"
    wire = hello + wire if chosen.on(2) else wire

    def player(limits: ProtocolLimits) -> Player:
        return Player(offer, limits, dialect, chunks_refused=chosen.on(3))

    by_line = player(LIMITS).through(wire.splitlines(keepends=True))
    answers = framing.replies(by_line.output)
    walk = framing.Walk(wire, answers, dialect is Dialect.LMTP, LIMITS).go()
    contents = [command.octets for command in by_line.commands if isinstance(command, Content)]
    assert contents == walk.contents, (contents, walk.contents)
    _clean(by_line.commands)
    # What comes behind STARTTLS in one read is thrown away, so each cutting has a cut there.
    cuttings = [[], list(chosen.cuts(len(wire))), list(range(len(wire)))]
    for cuts in choices.sampled(cuttings, data) if hasty else cuttings:
        other = player(LIMITS).through(parted(wire, [*cuts, *by_line.handshakes]))
        assert other.said == by_line.said, (cuts, other.said, by_line.said)
        assert other.seen == by_line.seen, (cuts, other.seen, by_line.seen)
    _injected(player(LIMITS), wire, by_line)
    if not hasty or choices.lot(data, 4):
        strict = player(STRICT).through(parted(wire, [*cuttings[1], *by_line.handshakes]))
        assert len(framing.replies(strict.output)) <= len(answers)


def _injected(player: Player, wire: bytes, by_line: Player) -> None:
    """CVE-2011-0411: nothing that came with STARTTLS is answered, neither before the handshake nor behind it."""
    if by_line.handshakes:
        first = by_line.handshakes[0]
        player.through([wire])
        assert player.handshakes == [len(wire)] and player.machine.buffered == 0
        assert player.said[:-1] == by_line.said[: len(player.said) - 1]
        assert player.output.endswith(b"220 2.0.0 Ready to start TLS\r\n") and first <= len(wire)


def _clean(commands: list[Command]) -> None:
    """No text that a host is handed can break a line of anything."""
    for command in commands:
        if isinstance(command, TooManyErrors | Overflow):
            continue
        for value in msgspec.structs.astuple(command):
            if isinstance(value, str):
                assert not set(value) & set("\r\n\0"), command
