"""The server machine under arbitrary octets: it never raises, and where the input is split changes nothing."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from postroad.mail.reply import reply
from postroad.protocol.command import Chunk, Command
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from tests.unit.protocol.host import ALL, Host, every_octet

LINES = [
    b"EHLO a.example\r\n", b"HELO a.example\r\n", b"LHLO a.example\r\n", b"MAIL FROM:<a@b.example>\r\n",
    b"MAIL FROM:<> SIZE=100 BODY=BINARYMIME\r\n", b"MAIL FROM:<a@b.example> SMTPUTF8 RET=FULL ENVID=x+2B\r\n",
    b"RCPT TO:<a@b.example>\r\n", b"RCPT TO:<nobody@b.example>\r\n",
    b'RCPT TO:<@x,@y:"a b"@[1.2.3.4]> NOTIFY=NEVER\r\n',
    b"DATA\r\n", b"BDAT 3\r\n", b"BDAT 7 LAST\r\n", b"BDAT 0 LAST\r\n", b"BDAT\r\n", b"BDAT 500\r\n",
    b"Subject: x\r\n\r\nbody\r\n", b".\r\n", b"\r\n.\r\n", b"..\r\n", b"\n.\n", b"\r\n.\n", b"\r.\r\n", b"\0",
    b"\r", b"\n",
    b"RSET\r\n", b"NOOP\r\n", b"VRFY x\r\n", b"EXPN x\r\n", b"HELP\r\n", b"ETRN x\r\n", b"QUIT\r\n",
    b"GET / HTTP/1.1\r\n",
    b"XCLIENT ADDR=192.0.2.1\r\n", b"XCLIENT ADDR=x\r\n", b"XFORWARD IDENT=a+2Bb SOURCE=LOCAL\r\n",
    b"AUTH PLAIN AHRpbQBzZWNyZXQ=\r\n", b"AUTH LOGIN\r\n", b"dGlt\r\n", b"*\r\n", b"AUTH PLAIN =\r\n", b"TURN\r\n",
    b"x" * 60, b"RCPT TO:<" + "ä".encode() + b"@b.example>\r\n", b"\xff\r\n", b" \r\n", b".",
]  # fmt: skip
# Small limits, so that they are met; pipelining is not judged, for there the split does matter.
LIMITS = ProtocolLimits(
    command_line_max=100, auth_line_max=120, text_line_max=50, size_max=300, header_size_max=200, header_fields_max=5,
    recipients_max=2, errors_max=8, idle_commands_max=10, swallow_max=600, piece_size=40, pipelining_strict=False,
)  # fmt: skip

dialogs = st.lists(st.one_of(st.sampled_from(LINES), st.binary(max_size=20)), max_size=25)
dialects = st.sampled_from(list(Dialect))


def observe(parts: list[bytes], dialect: Dialect, limits: ProtocolLimits = LIMITS) -> tuple[list[Command], bytes]:
    """What the host was handed, with content joined, and what was said. A TLS handshake is not part of this."""
    host = Host(ALL, limits, dialect, refuse=["nobody"]).play(*parts)
    return host.commands, host.output


@settings(max_examples=400, deadline=None)
@given(dialogs, dialects, st.integers(0, 1000), st.booleans())
@example(
    [b"EHLO a\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b>\r\n", b"DATA\r\n", b"\r\n.\n", b".\r\n"], Dialect.SMTP, 3, True
)
def test_splits_change_nothing(dialog: list[bytes], dialect: Dialect, cut: int, greeted: bool) -> None:
    dialog = ([b"LHLO a.b\r\n" if dialect is Dialect.LMTP else b"EHLO a.b\r\n"] if greeted else []) + dialog
    wire = b"".join(dialog)
    # The limit for what is swallowed is checked when octets come, so how many come at once moves it: set it apart.
    whole = observe([wire], dialect, LIMITS)
    ended_by_swallow = b"without an end" in whole[1] or b"Line without" in whole[1]
    cut %= len(wire) + 1
    for parts in (every_octet(wire), [wire[:cut], wire[cut:]], dialog):
        other = observe(parts, dialect)
        if ended_by_swallow or b"without an end" in other[1]:
            continue
        assert other == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=8), dialects)
def test_arbitrary_octets(parts: list[bytes], dialect: Dialect) -> None:
    host = Host(ALL, LIMITS, dialect).play(*parts)
    for line in host.output.split(b"\r\n")[:-1]:
        assert re.fullmatch(rb"[2-5]\d\d[ -][^\r\n\0]*", line) and len(line) <= 510


@settings(max_examples=300, deadline=None)
@given(dialogs, dialects)
def test_memory_is_bounded(dialog: list[bytes], dialect: Dialect) -> None:
    host = Host(ALL, LIMITS, dialect)
    for part in dialog:
        host.play(part)
        assert host.machine.buffered <= max(LIMITS.command_line_max, LIMITS.auth_line_max)
        content = host.machine._content
        assert len(getattr(content, "_held", b"")) <= LIMITS.piece_size + LIMITS.text_line_max


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"\0", b"a", b"MAIL FROM:<e@e>"]), max_size=14),
    st.data(),
)
def test_content_ends_at_its_true_end_and_nowhere_else(parts: list[bytes], data: st.DataObject) -> None:
    inside = b"".join(parts)
    wire = inside + b"\r\n.\r\nNOOP\r\n"
    end = (b"\r\n" + wire).index(b"\r\n.\r\n")  # the CRLF of DATA itself counts (RFC 5321 §4.1.1.4)
    body, behind = wire[:end], wire[end + 3 :]
    cut = data.draw(st.integers(0, len(wire)))
    host = Host(
        limits=ProtocolLimits(
            errors_max=100, pipelining_strict=False, piece_size=data.draw(st.sampled_from([1, 8, 65_536]))
        )
    )
    host.play(b"EHLO a\r\n", b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n", wire[:cut], wire[cut:])
    stray = body.replace(b"\r\n", b"")
    content = next(command for command in host.commands if type(command).__name__ in ("Content", "Overflow"))
    if b"\r" in stray or b"\n" in stray or b"\0" in body:
        assert type(content).__name__ == "Overflow"
    else:
        assert getattr(content, "octets", None) == (b"\r\n" + body).replace(b"\r\n.", b"\r\n")[2:]
    assert len(host.replies) - 13 == behind.count(b"\r\n") + 1  # each line behind is one command, and no more


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans(), st.integers(1, 50))
def test_chunks_hold_any_octets(chunks: list[bytes], refused: bool, split: int) -> None:
    wire = b"".join(
        b"BDAT %d%s\r\n%s" % (len(chunk), b" LAST" if number == len(chunks) - 1 else b"", chunk)
        for number, chunk in enumerate(chunks)
    )
    wire = b"MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<a@b>\r\n" + wire + b"NOOP\r\n"
    host = Host(
        ALL, ProtocolLimits(piece_size=32), chunk=reply(452, "4.3.1", "full") if refused else reply(250, "2.0.0", "ok")
    )
    host.play(b"EHLO a\r\n", *(wire[at : at + split] for at in range(0, len(wire), split)))
    # However a chunk is answered, its octets are never taken for commands: one reply for each command.
    assert len(host.codes) == 2 + 2 + len(chunks) + 1 and host.codes[-1] == 250
    if chunks and not (refused and len(chunks) > 1):
        assert getattr(host.commands[-1], "octets", None) == b"".join(chunks)
    assert sum(isinstance(command, Chunk) for command in host.commands) <= max(len(chunks) - 1, 0)
