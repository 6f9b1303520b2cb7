"""Target `bdat`: chunks of any octets and sizes, with commands between them, cut in any way (RFC 3030 §2).

The wire is well framed here, so what each octet is for is known beforehand: chunks are never commands, commands never
chunks, each has its reply, and the content is what the chunks held. `Scrutiny` of lines, NUL and size is compared with
what the rules say of the whole content. A hasty check takes one other cut of each wire, chosen by its octets.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from postroad.protocol.command import Content, Overflow
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from tests.fuzz import choices, framing
from tests.fuzz.choices import parted
from tests.fuzz.server import Player
from tests.unit.protocol.host import ALL

LIMITS = ProtocolLimits(
    text_line_max=80, size_max=500, header_size_max=500, header_fields_max=500, errors_max=1000, idle_commands_max=1000,
    piece_size=40, pipelining_strict=False,
)  # fmt: skip
CHUNKS_MAX = 16  # of one input: more find nothing new and take long
_BETWEEN = (b"", b"NOOP\r\n", b"VRFY x\r\n", b"DATA\r\n", b"MAIL FROM:<x@y>\r\n")
_MAIL = b"MAIL FROM:<a@b>%s\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n"


@dataclass(frozen=True)
class Chunk:
    octets: bytes
    last: bool
    between: bytes  # a command behind it, which changes nothing

    def written(self) -> bytes:
        return b"BDAT %d%s\r\n%s%s" % (len(self.octets), b" LAST" if self.last else b"", self.octets, self.between)


def _chunks(wire: bytes) -> list[Chunk]:
    """Each from one octet of size and one of switches; the wire's own octets fill them."""
    found: list[Chunk] = []
    at = 0
    while at + 2 <= len(wire) and len(found) < CHUNKS_MAX:
        size, switches = wire[at], wire[at + 1]
        octets = wire[at + 2 : at + 2 + size]
        found.append(Chunk(octets, switches & 7 == 7, _BETWEEN[(switches >> 3) % len(_BETWEEN)]))
        at += 2 + size
    return found


def check(data: bytes, *, hasty: bool = False) -> None:
    chosen = choices.read(data)
    binary, lmtp = chosen.on(1), chosen.on(0)
    limits = msgspec.structs.replace(LIMITS, piece_size=4_000 if chosen.on(2) else LIMITS.piece_size)
    mail = _MAIL % (b" BODY=BINARYMIME" if binary else b"")
    wire = (b"LHLO c.example\r\n" if lmtp else b"EHLO c.example\r\n") + mail
    contents: list[bytes] = []
    content = b""
    for chunk in _chunks(chosen.wire):
        wire += chunk.written()
        content += chunk.octets
        if chunk.last:
            wire += b"RSET\r\n" + mail  # a refusal of an earlier chunk ended the transaction
            contents.append(content)
            content = b""
    wire += b"NOOP\r\n"

    def player() -> Player:
        return Player(ALL, limits, Dialect.LMTP if lmtp else Dialect.SMTP, chunks_refused=chosen.on(3))

    by_line = player().through(wire.splitlines(keepends=True))
    answers = framing.replies(by_line.output)
    walk = framing.Walk(wire, answers, lmtp, limits).go()
    assert not walk.closed and answers[-1] == (250, b"250 2.0.0 Ok"), answers[-3:]
    taken = [command.octets for command in by_line.commands if isinstance(command, Content)]
    assert taken == walk.contents
    cuttings = [[], list(chosen.cuts(len(wire))), list(range(len(wire)))]
    for cuts in choices.sampled(cuttings, data) if hasty else cuttings:
        other = player().through(parted(wire, cuts))
        assert (other.said, other.seen) == (by_line.said, by_line.seen), cuts
    if not chosen.on(3):
        # Content that keeps to all rules is taken, and what breaks one is not.
        assert taken == [each for each in contents if _fits(each, limits, binary=binary)]
        refused = sum(isinstance(command, Overflow) for command in by_line.commands)
        assert refused - (len(contents) - len(taken)) in (0, 1), refused  # the one that was not ended may be refused


def _fits(content: bytes, limits: ProtocolLimits, *, binary: bool) -> bool:
    if len(content) > limits.size_max:
        return False
    stray = content.replace(b"\r\n", b"")
    *lines, rest = content.split(b"\r\n")
    fit = len(rest) <= limits.text_line_max and all(len(line) + 2 <= limits.text_line_max for line in lines)
    return binary or (fit and not set(stray) & set(b"\r\n\0"))
