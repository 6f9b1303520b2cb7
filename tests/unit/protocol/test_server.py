"""The server machine: limits, abuse, pipelining, STARTTLS, refusals. Whole dialogs are in tests/dialogs/server."""

from __future__ import annotations

import base64
import sys

import msgspec
import pytest

from postroad.mail.address import Address
from postroad.mail.reply import reply
from postroad.protocol.command import (
    AuthCancelled,
    Command,
    Connected,
    Content,
    Hello,
    Help,
    Mail,
    Overflow,
    Quit,
    Rcpt,
    StartTls,
    TooManyErrors,
)
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect, Offer
from postroad.protocol.server import ServerMachine
from postroad.protocol.state import BAD_ORDER, NEXT, State, Verb
from tests.unit.protocol.host import ALL, OK, Host, every_octet

EHLO = b"EHLO a.example\r\n"
TO_DATA = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n"
LAX = ProtocolLimits(pipelining_strict=False)


def kinds(host: Host) -> list[type[Command]]:
    return [type(command) for command in host.commands]


def last(host: Host) -> str:
    return host.replies[-1]


# ---- the table


def test_the_table_is_whole() -> None:
    for state in (State.GREETED, State.READY, State.MAIL, State.RCPT, State.CHUNKS):
        assert BAD_ORDER[state].code == 503
        for verb in (Verb.NOOP, Verb.RSET, Verb.QUIT, Verb.VRFY, Verb.EXPN, Verb.HELP, Verb.EHLO):
            assert (state, verb) in NEXT  # RFC 5321 §4.1.4: at any time
    for state in (State.CONNECTED, State.CONTENT, State.AUTH, State.TLS, State.CLOSED):
        assert not [pair for pair in NEXT if pair[0] is state]


# ---- greeting


def test_the_greeting_comes_first() -> None:
    machine = ServerMachine(Dialect.SMTP, Offer(), ProtocolLimits())
    assert machine.next_command() == Connected()
    assert machine.next_command() is None
    machine.reply(reply(220, "", "mx.example.org ready"))
    assert machine.take_output() == b"220 mx.example.org ready\r\n"
    assert machine.take_output() == b""
    assert machine.next_command() is None
    assert not machine.early_talker


def test_an_early_talker_is_noticed_and_then_heard() -> None:
    machine = ServerMachine(Dialect.SMTP, Offer(), ProtocolLimits())
    machine.feed(EHLO)
    assert machine.early_talker and machine.buffered == len(EHLO)
    assert machine.next_command() == Connected()
    assert machine.next_command() is None
    machine.reply(reply(220, "", "mx"))
    assert machine.next_command() == Hello("EHLO", "a.example")


def test_a_greeting_of_421_closes() -> None:
    machine = ServerMachine(Dialect.SMTP, Offer(), ProtocolLimits())
    machine.next_command()
    machine.reply(reply(421, "4.3.2", "mx.example.org too busy"))
    machine.feed(EHLO)
    assert machine.next_command() is None
    assert machine.state is State.CLOSED and machine.buffered == 0


# ---- lines


@pytest.mark.parametrize(
    "line", [b"", b" NOOP", b"N", b"NOO", b"NOOPX", b"MAILFROM:<>", b"STARTTLSX", b"X" * 500, b"\xff\xfe"]
)
def test_unknown_commands(line: bytes) -> None:
    host = Host().play(EHLO, line + b"\r\nNOOP\r\n")
    assert host.replies[-2:] == ["500 5.5.2 Command not recognized", "250 2.0.0 Ok"]


@pytest.mark.parametrize(
    "line", [b"NO\nOP", b"NOOP\rNOOP", b"NOOP \0", b"EHLO a\nb", b"\nNOOP", b"VRFY \x1b[1m", b"RSET\x07"]
)
def test_control_characters_in_lines(line: bytes) -> None:
    host = Host().play(EHLO, line + b"\r\n")
    assert last(host) == "500 5.5.2 Control characters in a command line"


@pytest.mark.parametrize(
    "line", [b"MAIL FROM:<a@b>\nRCPT TO:<c@d>", b"MAIL FROM:<a@b> SIZE=1\nX", b"MAIL FROM:<a@b>\0", b"MAIL FROM:<\r@b>"]
)
def test_line_ends_inside_mail(line: bytes) -> None:
    host = Host(ALL).play(EHLO, line + b"\r\n")
    assert last(host)[:3] == "501" and kinds(host) == [Hello]


@pytest.mark.parametrize("stray", [b"\r", b"\n", b"\n\r", b"\x0b", b"\x0c", b" \r", b"\0"])
@pytest.mark.parametrize("line", [b"MAIL FROM:<a@b>", b"MAIL FROM:<a@b> SIZE=1", b"RCPT TO:<c@d>", b"DATA", b"DATA "])
def test_no_stray_line_end_is_taken_for_white_space_behind_a_command(line: bytes, stray: bytes) -> None:
    """RFC 5321 §2.3.8: another server on the way may take it for the end of a line."""
    group = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
    before = b"" if line.startswith(b"MAIL") else group
    host = Host(limits=LAX).play(EHLO, before, line + stray + b"\r\n")
    assert host.codes[-1] in (500, 501) and not [command for command in host.commands if isinstance(command, Content)]


def test_only_crlf_ends_a_line() -> None:
    host = Host().play(EHLO, b"NOOP\nNOOP\rNOOP\r", b"\r")
    assert len(host.replies) == 10  # greeting and EHLO alone
    assert last(host.play(b"\n"))[:3] == "500"


def test_case_and_trailing_white_space() -> None:
    host = Host().play(
        b"ehlo a.example \r\n", b"mail from:<a@b.c> \r\n", b"Rcpt To:<a@b.c>\t\r\n", b"noop  \r\n", b"dAtA \t\r\n"
    )
    assert host.codes == [220, 250, 250, 250, 250, 354]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("length", [2_046, 2_047, 2_048, 5_000, 20_000])
def test_the_limit_of_a_command_line(length: int, split: bool) -> None:
    host = Host(limits=ProtocolLimits(errors_max=1))
    line = b"NOOP " + b"x" * (length - 5) + b"\r\n"
    host.play(EHLO, *(every_octet(line) if split else [line]), b"NOOP\r\n")
    expected = "250 2.0.0 Ok" if length <= 2_046 else "500 5.5.2 Command line too long"
    assert host.replies[-2:] == [expected, "250 2.0.0 Ok"]


def test_a_mail_command_of_the_length_that_extensions_may_make() -> None:
    line = b"MAIL FROM:<" + b"a" * 240 + b"@b.example> SIZE=10 RET=FULL ENVID=" + b"e" * 100 + b" AUTH=" + b"u" * 480
    host = Host(ALL).play(EHLO, line + b"@c.example BODY=8BITMIME SMTPUTF8\r\n")
    assert last(host)[:3] == "250" and len(line) > 512


def test_an_endless_line_is_not_kept_and_ends_the_session() -> None:
    host = Host(limits=ProtocolLimits(swallow_max=1_000_000)).play(EHLO)
    for _ in range(90):
        host.play(b"x" * 10_000)
        assert host.machine.buffered < 2_048
    host.play(*[b"y" * 10_000] * 20)
    assert last(host) == "421 4.7.0 mx.example.org Line without an end"
    assert isinstance(host.commands[-1], TooManyErrors)


@pytest.mark.parametrize("rest", [b"\x02\x00\x01\x00", b"\x02\r\n\x01", b"\x02" * 3000 + b"\r\nNOOP\r\n"])
def test_tls_on_a_plain_port(rest: bytes) -> None:
    record = b"\x16\x03\x01" + rest
    for parts in ([record], every_octet(record)):
        host = Host().play(*parts)
        assert host.codes == [220, 421]
        assert last(host) == "421 4.7.0 mx.example.org TLS is not spoken at once on this port"


@pytest.mark.parametrize("verb", [b"GET", b"POST", b"CONNECT", b"HEAD", b"PUT", b"OPTIONS", b"PRI", b"get"])
@pytest.mark.parametrize("before", [b"", EHLO])
def test_http(verb: bytes, before: bytes) -> None:
    host = Host().play(before, verb + b" / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<>\r\n")
    assert last(host) == "421 4.7.0 mx.example.org This is not an HTTP server"
    assert host.play(b"NOOP\r\n").replies[-1][:3] == "421"


# ---- limits


def test_too_many_errors() -> None:
    host = Host(limits=ProtocolLimits(errors_max=3)).play(EHLO, b"X\r\n" * 3)
    assert host.machine.errors == 3 and last(host)[:3] == "500"
    host.play(b"X\r\nNOOP\r\n")
    assert last(host) == "421 4.7.0 mx.example.org Too many errors"
    assert host.commands[-1] == TooManyErrors("Too many errors", True, reply(421, "4.7.0", "Too many errors"))
    assert host.machine.state is State.CLOSED and host.machine.errors == 4


def test_an_accepted_message_renews_the_budget() -> None:
    host = Host(limits=ProtocolLimits(errors_max=2)).play(EHLO)
    for _ in range(5):
        host.play(b"X\r\n", TO_DATA, b"x\r\n.\r\n")
    assert host.machine.errors == 5 and host.codes.count(421) == 0


def test_too_many_idle_commands() -> None:
    host = Host(limits=ProtocolLimits(idle_commands_max=10)).play(EHLO, b"NOOP\r\nRSET\r\nVRFY x\r\n" * 3)
    assert last(host)[:3] == "252"
    assert last(host.play(b"NOOP\r\n"))[:3] == "421"


def test_too_many_recipients() -> None:
    host = Host(limits=ProtocolLimits(recipients_max=2, errors_max=1)).play(
        EHLO, b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b.c>\r\n" * 5
    )
    assert host.replies[-3:] == ["452 4.5.3 Too many recipients"] * 3
    host.play(b"DATA\r\n", b"x\r\n.\r\n", TO_DATA)
    assert last(host)[:3] == "354" and kinds(host).count(Rcpt) == 3


def test_content_without_an_end_is_swallowed_up_to_a_limit() -> None:
    host = Host(limits=ProtocolLimits(size_max=100_000, swallow_max=1_000_000)).play(EHLO, TO_DATA)
    host.play(*[b"y" * 98 + b"\r\n"] * 20_000)
    assert last(host) == "421 4.7.0 mx.example.org Content without an end"
    assert kinds(host)[-1] is TooManyErrors


def test_too_big() -> None:
    host = Host(limits=ProtocolLimits(size_max=100_000)).play(
        EHLO, TO_DATA, *[b"y" * 98 + b"\r\n"] * 20_000, b".\r\nNOOP\r\n"
    )
    assert host.replies[-2:] == ["552 5.3.4 Message size exceeds the limit of 100000 octets", "250 2.0.0 Ok"]
    assert host.commands[-1] == Overflow(reply(552, "5.3.4", "Message size exceeds the limit of 100000 octets"))
    assert host.machine.state is State.READY


def test_a_long_path() -> None:
    host = Host().play(EHLO, b"MAIL FROM:<" + b"a" * 600 + b"@b.example>\r\n")
    assert last(host) == "501 5.1.7 Path too long"


# ---- pipelining (RFC 2920)


@pytest.mark.parametrize(
    ("group", "code"),
    [
        (EHLO + b"MAIL FROM:<>\r\n", 554),
        (TO_DATA + b"x\r\n.\r\n", 554),
        (b"AUTH PLAIN\r\nAAAA\r\n", 554),
        (b"NOOP\r\nMAIL FROM:<>\r\n", 250),
        (b"VRFY x\r\nRSET\r\n", 250),
        (b"RSET\r\n" + TO_DATA, 354),
        (b"QUIT\r\nMAIL FROM:<>\r\n", 221),
    ],
)
def test_what_may_stand_in_a_group(group: bytes, code: int) -> None:
    host = Host(Offer(auth=("PLAIN",))).play(EHLO, group)
    assert host.codes[-1] == code
    if code == 554:
        assert last(host) == "554 5.5.0 Improper command pipelining"
        assert kinds(host)[-1] is TooManyErrors and host.machine.state is State.CLOSED
        lax = Host(Offer(auth=("PLAIN",)), LAX).play(EHLO, group)
        assert lax.codes[-1] != 554


def test_pipelining_without_the_extension() -> None:
    assert Host().play(b"HELO a\r\n", b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n").codes[-1] == 554
    assert Host(Offer(pipelining=False)).play(EHLO, b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n").codes[-1] == 554
    assert (
        Host().play(b"HELO a\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b>\r\n", b"DATA\r\n", b".\r\nQUIT\r\n").codes[-1]
        == 221
    )


def test_content_that_comes_while_the_host_thinks_about_data() -> None:
    host = Host().play(EHLO)
    machine = host.machine
    machine.feed(TO_DATA)
    for answer in (OK, OK):
        assert machine.next_command()
        machine.reply(answer)
    assert machine.next_command()  # DATA
    machine.feed(b"smuggled\r\n")
    machine.reply(reply(354, "", "go on"))
    assert isinstance(machine.next_command(), TooManyErrors)
    assert machine.next_command() is None
    assert machine.take_output().endswith(b"554 5.5.0 Improper command pipelining\r\n")


def test_after_data_was_refused_the_transaction_stands() -> None:
    machine = Host().play(EHLO).machine
    machine.feed(TO_DATA)
    for answer in (OK, OK, reply(451, "4.3.0", "not now")):
        assert machine.next_command()
        machine.reply(answer)
    assert machine.next_command() is None and machine.state is State.RCPT
    machine.feed(b"DATA\r\n")
    assert machine.next_command()


def test_nothing_is_heard_after_quit() -> None:
    host = Host().play(EHLO, b"QUIT\r\n" + TO_DATA, TO_DATA)
    assert kinds(host) == [Hello, Quit] and host.machine.buffered == 0


# ---- STARTTLS (CVE-2011-0411)


@pytest.mark.parametrize("behind", [b"MAIL FROM:<evil@e>\r\n", b"EHLO evil\r\nRSET\r\n", b"\x16\x03\x01", b"MAIL FR"])
def test_octets_behind_starttls_are_gone(behind: bytes) -> None:
    machine = Host(Offer(starttls=True)).play(EHLO).machine
    machine.feed(b"STARTTLS\r\n" + behind)
    assert machine.next_command() == StartTls()
    assert machine.take_output() == b"220 2.0.0 Ready to start TLS\r\n"
    machine.feed(behind)  # another segment of plaintext, before the handshake
    assert machine.next_command() is None and machine.buffered == 0
    machine.tls_started(Offer(tls=True))
    assert machine.next_command() is None and machine.take_output() == b""
    assert (machine.hello, machine.esmtp, machine.identity, machine.state) == ("", False, "", State.GREETED)
    machine.feed(b"MAIL FROM:<>\r\n")
    assert machine.next_command() is None
    assert machine.take_output().startswith(b"503 ")


def test_starttls_renews_the_session_and_keeps_the_peer() -> None:
    host = Host(Offer(starttls=True, auth=("PLAIN",)))
    host.play(EHLO, b"X\r\n", b"AUTH PLAIN AHRpbQBzZWNyZXQ=\r\n")
    assert host.machine.identity == "tim"
    host.play(b"STARTTLS\r\n")
    assert host.machine.identity == "" and host.machine.errors == 1
    assert last(host.play(b"QUIT\r\n")).startswith("221 2.0.0 mx.example.org")


def test_no_starttls_in_a_transaction_or_where_it_is_not_offered() -> None:
    assert last(Host(Offer(starttls=True)).play(EHLO, b"MAIL FROM:<>\r\n", b"STARTTLS\r\n"))[:9] == "503 5.5.1"
    assert last(Host().play(EHLO, b"STARTTLS\r\n"))[:9] == "502 5.5.1"


# ---- AUTH


AUTH = Offer(auth=("PLAIN", "LOGIN"), tls=True)


def test_auth_line_limit() -> None:
    fits = base64.b64encode(b"\0tim\0" + b"p" * 9_000)
    assert last(Host(AUTH).play(EHLO, b"AUTH PLAIN " + fits + b"\r\n"))[:9] == "501 5.5.2"  # too long for a password
    assert last(Host(AUTH).play(EHLO, b"AUTH PLAIN\r\n", fits + b"\r\n"))[:9] == "501 5.5.2"
    megabyte = base64.b64encode(b"x" * 1_000_000)
    host = Host(AUTH).play(EHLO, b"AUTH PLAIN " + megabyte, b"\r\nNOOP\r\n")
    assert host.replies[-2:] == ["500 5.5.6 Authentication exchange line is too long", "250 2.0.0 Ok"]
    host = Host(AUTH).play(EHLO, b"AUTH LOGIN\r\n", megabyte, b"\r\n", b"NOOP\r\n")
    assert host.replies[-2:] == ["500 5.5.6 Authentication exchange line is too long", "250 2.0.0 Ok"]
    assert host.commands[-1] == AuthCancelled()


def test_other_lines_are_not_lengthened_by_auth() -> None:
    assert last(Host(AUTH).play(EHLO, b"NOOP " + b"x" * 5_000 + b"\r\n"))[:9] == "500 5.5.2"


@pytest.mark.parametrize(
    "response", [b"A", b"AA", b"A===", b"AAA=AAA=", b"A A=", b"=", b"====", b"AAAA\x00", b"\xff", b"*x", b"AA\nA"]
)
def test_bad_base64(response: bytes) -> None:
    host = Host(AUTH).play(EHLO, b"AUTH PLAIN\r\n", response + b"\r\n", b"NOOP\r\n")
    assert host.replies[-2:] == ["501 5.5.2 Not base64", "250 2.0.0 Ok"]
    assert host.commands[-1] == AuthCancelled()
    assert host.machine.identity == ""


def test_auth_failures_use_up_the_budget() -> None:
    host = Host(AUTH, ProtocolLimits(errors_max=3)).play(EHLO, *[b"AUTH PLAIN AGEAYg==\r\n"] * 4)
    assert host.codes[-2:] == [535, 421] and kinds(host)[-1] is TooManyErrors


def test_a_long_challenge_is_not_cut() -> None:
    machine = Host(AUTH).play(EHLO).machine
    machine.feed(b"AUTH PLAIN\r\n")
    assert machine.next_command()
    machine.challenge(b"c" * 3_000)
    assert base64.b64decode(machine.take_output()[4:-2]) == b"c" * 3_000


def test_auth_is_forgotten_by_no_ehlo_and_demanded_until_then() -> None:
    demanded = msgspec.structs.replace(AUTH, auth_required=True)
    host = Host(demanded).play(EHLO, b"MAIL FROM:<>\r\n")
    assert last(host) == "530 5.7.0 Authentication required"
    for line, code in ((b"NOOP", 250), (b"RSET", 250), (b"VRFY a", 530), (b"HELP", 530), (b"BDAT 1 LAST\r\nx", 530)):
        assert host.play(line + (b"" if line.startswith(b"BDAT") else b"\r\n")).codes[-1] == code
    host.play(b"AUTH PLAIN AHRpbQBzZWNyZXQ=\r\n", EHLO, b"MAIL FROM:<>\r\n")
    assert host.codes[-3:] == [235, 250, 250] and host.machine.identity == "tim"


# ---- BDAT


@pytest.mark.parametrize(
    "line", [b"BDAT", b"BDAT ", b"BDAT -1", b"BDAT x", b"BDAT 1 LAST x", b"BDAT 1LAST", b"BDAT 1\nLAST", b"BDAT 0x10",
             b"BDAT 1 2", b"BDAT " + b"9" * 21, b"BDAT +1", b"BDAT 1\0"],
)  # fmt: skip
def test_a_malformed_bdat_ends_the_session(line: bytes) -> None:
    host = Host().play(EHLO, b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n", line + b"\r\nMAIL FROM:<>\r\n")
    assert last(host)[:9] == "421 4.5.4" and kinds(host)[-1] is TooManyErrors


@pytest.mark.parametrize("spaces", [2_048, 20_000])
def test_the_octets_of_a_chunk_whose_command_is_too_long_are_no_commands(spaces: int) -> None:
    wire = b"BDAT" + b" " * spaces + b"6\r\nRSET\r\n"
    for parts in ([wire], every_octet(wire)):
        host = Host(limits=LAX).play(EHLO, b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", *parts)
        assert last(host) == "421 4.5.4 mx.example.org BDAT without a size"
        assert kinds(host)[-2:] == [Rcpt, TooManyErrors]


def test_a_huge_chunk() -> None:
    open_ = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n"
    host = Host().play(EHLO, open_, b"BDAT 99999999999999999999 LAST\r\nxxxx")
    assert last(host)[:9] == "421 4.5.4"
    host = Host(limits=ProtocolLimits(size_max=10)).play(EHLO, open_, b"BDAT 11\r\nRSET\r\nQUIT\rNOOP\r\n")
    assert host.replies[-2:] == ["552 5.3.4 Message size exceeds the limit of 10 octets", "250 2.0.0 Ok"]
    host = Host(limits=ProtocolLimits(size_max=10)).play(
        EHLO, open_, b"BDAT 6\r\nabcd\r\nBDAT 6 LAST\r\nefgh\r\nNOOP\r\n"
    )
    assert host.codes[-3:] == [250, 552, 250]


def test_where_bdat_is_not_offered_its_octets_are_swallowed() -> None:
    host = Host(Offer(chunking=False)).play(
        EHLO, b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n", b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"
    )
    assert host.replies[-2:] == ["502 5.5.1 Command not implemented", "250 2.0.0 Ok"]


@pytest.mark.parametrize("inside", [b"RSET\r\n", b"QUIT\r\n", b"\r\n.\r\n", b"BDAT 1\r\n"])
def test_commands_inside_a_chunk_are_content(inside: bytes) -> None:
    size = str(len(inside)).encode()
    wire = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT " + size + b"\r\n" + inside + b"BDAT " + size + b" LAST\r\n" + inside
    for parts in ([wire], every_octet(wire)):
        host = Host().play(EHLO, *parts)
        assert host.commands[-1] == Content(inside * 2, True)


def test_last_said_twice_is_out_of_order_and_its_octets_are_gone() -> None:
    wire = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 3 LAST\r\nabcBDAT 6 LAST\r\nRSET\r\nNOOP\r\n"
    for parts in ([wire], every_octet(wire)):
        host = Host().play(EHLO, *parts)
        assert host.codes[-5:] == [250, 250, 250, 503, 250]
        assert host.commands[-1] == Content(b"abc", True)


OPEN = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n"
STRAY = b"BDAT 3\r\nx\ny"


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_chunks_in_the_pipeline_behind_a_refused_one_hear_the_same_and_are_no_errors(size: int) -> None:
    """RFC 3030 §2: the receiver "MUST be prepared to accept and discard additional BDAT chunks already in the
    pipeline"."""
    chunk = b"BDAT %d\r\n" % size + b"y" * size
    wire = OPEN + STRAY + chunk * 50 + b"BDAT 3 LAST\r\nabc" + b"NOOP\r\n"
    host = Host(limits=ProtocolLimits(errors_max=1)).play(EHLO, wire)
    assert host.replies[-53:-1] == ["550 5.5.2 Bare CR or LF in content, lines must end with CRLF"] * 52
    assert host.replies[-1] == "250 2.0.0 Ok"
    assert host.machine.errors == 1 and kinds(host).count(Overflow) == 1


def test_behind_the_last_chunk_of_a_refused_row_bdat_is_out_of_order() -> None:
    host = Host().play(EHLO, OPEN + STRAY + b"BDAT 1 LAST\r\nx" + b"BDAT 1 LAST\r\nx")
    assert host.codes[-3:] == [550, 550, 503] and host.machine.errors == 2


@pytest.mark.parametrize("command", [b"RSET", b"EHLO a", b"MAIL FROM:<>", b"MAIL FROM:<a b>"])
def test_no_refusal_outlives_its_transaction(command: bytes) -> None:
    host = Host().play(EHLO, OPEN + STRAY, command + b"\r\n", b"BDAT 1\r\nx")
    assert last(host)[:9] == "503 5.5.1"


def test_a_new_message_behind_a_refused_chunk() -> None:
    host = Host().play(EHLO, OPEN + STRAY + b"BDAT 0\r\n" + OPEN + b"BDAT 3\r\nabcBDAT 0 LAST\r\n")
    assert host.codes[-6:] == [550, 550, 250, 250, 250, 250]
    assert host.commands[-1] == Content(b"abc", True)


def test_a_chunk_that_the_host_refuses_is_told_again() -> None:
    host = Host(chunk=reply(452, "4.3.1", "full")).play(EHLO, OPEN + b"BDAT 1\r\nx" * 30 + b"NOOP\r\n")
    assert host.codes[-31:] == [452] * 30 + [250] and host.machine.errors == 0


def test_lmtp_last_behind_a_refused_chunk_has_a_reply_for_each_recipient() -> None:
    """RFC 2033 §4.3: "one reply for each previously successful RCPT command in the mail transaction"."""
    host = Host(dialect=Dialect.LMTP, refuse=["c"])
    wire = b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\n" + STRAY + b"BDAT 0\r\nBDAT 0 LAST\r\n"
    host.play(b"LHLO a\r\n", wire + b"NOOP\r\n")
    assert host.codes[-5:] == [550, 550, 550, 550, 250]


@pytest.mark.parametrize("size", [0, 1, 8_192])
def test_chunks_behind_a_refused_one_are_bounded_together(size: int) -> None:
    """Each counts as 4,096 octets at least, so that empty ones are bounded, too."""
    host = Host(limits=ProtocolLimits(swallow_max=1_048_576)).play(EHLO, OPEN + STRAY)
    host.play(*[b"BDAT %d\r\n" % size + b"y" * size] * 300)
    assert last(host) == "421 4.5.4 mx.example.org Chunk too large"
    assert host.codes.count(550) == (128 if size > 4_096 else 256)


def test_commands_in_the_pipeline_behind_a_refused_mail_are_no_errors() -> None:
    """RFC 2920 §3.1: MAIL, RCPT and DATA of a message come as one group, before the client knows of the refusal."""
    group = b"MAIL FROM:<a b>\r\n" + b"RCPT TO:<a@b>\r\n" * 50
    for behind in (b"DATA\r\n", b"BDAT 1\r\nxBDAT 1 LAST\r\nx"):
        host = Host(limits=ProtocolLimits(errors_max=2)).play(EHLO, group + behind, group + behind + b"NOOP\r\n")
        assert host.machine.errors == 2 and last(host) == "250 2.0.0 Ok"
        assert set(host.codes[2:-1]) == {501, 503}


def test_commands_out_of_order_are_errors_beyond_that() -> None:
    host = Host(limits=ProtocolLimits(errors_max=2, recipients_max=100)).play(EHLO, b"MAIL FROM:<a b>\r\n")
    host.play(b"RCPT TO:<a@b>\r\n" * 101)
    assert host.machine.errors == 1
    host.play(b"RCPT TO:<a@b>\r\n" * 2)
    assert last(host) == "421 4.7.0 mx.example.org Too many errors"


@pytest.mark.parametrize("behind", [b"DATA\r\n", b"BDAT 3 LAST\r\nabc"])
def test_data_in_the_pipeline_behind_refused_recipients_is_no_error(behind: bytes) -> None:
    host = Host(refuse=["a"], limits=ProtocolLimits(errors_max=1)).play(EHLO, (OPEN + behind + b"RSET\r\n") * 30)
    assert host.codes[2:] == [250, 550, 554, 250] * 30 and host.machine.errors == 0


@pytest.mark.parametrize("chunk", [b"BDAT 3\r\nabc", b"BDAT 0\r\n"])
def test_data_and_bdat_are_not_mixed(chunk: bytes) -> None:
    host = Host().play(EHLO, b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n", chunk + b"DATA\r\nRSET\r\n")
    assert host.codes[-2:] == [503, 250]
    assert not any(isinstance(command, Content) and command.last for command in host.commands)


def test_large_chunks_come_in_pieces() -> None:
    line = b"x" * 98 + b"\r\n"
    host = Host().play(EHLO, b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n")
    machine = host.machine
    machine.feed(b"BDAT 200000\r\n" + line * 2_000 + b"BDAT 0 LAST\r\n")
    first = machine.next_command()
    assert first == Content(line * 2_000, False)
    chunk = machine.next_command()
    assert chunk is not None and type(chunk).__name__ == "Chunk"
    assert machine.next_command() is None
    machine.reply(OK)
    assert machine.next_command() == Content(b"", True)


# ---- LMTP


def test_lmtp_answers_for_each_recipient_when_the_content_is_too_big() -> None:
    host = Host(dialect=Dialect.LMTP, limits=ProtocolLimits(size_max=10), refuse=["c"])
    host.play(
        b"LHLO a\r\n",
        b"MAIL FROM:<>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\nDATA\r\n",
        b"0123456789\r\n.\r\n",
    )
    assert host.codes[-3:] == [354, 552, 552]
    assert kinds(host)[-1] is Overflow and host.machine.state is State.READY


def test_lmtp_verbs() -> None:
    host = Host(dialect=Dialect.LMTP).play(b"EHLO a\r\n", b"HELO a\r\n", b"LHLO a\r\n")
    assert host.codes == [220, 500, 500, 250] and host.machine.esmtp
    assert Host().play(b"LHLO a\r\n").codes == [220, 500]
    assert Host(ALL, dialect=Dialect.LMTP).play(b"LHLO a\r\n", b"ETRN x\r\n").codes[-1] == 502


# ---- the host


def test_refuse() -> None:
    host = Host().play(EHLO, TO_DATA)
    host.machine.refuse(reply(421, "4.4.2", "mx.example.org Timeout"))
    host.play(b"x\r\n.\r\n")
    assert last(host) == "421 4.4.2 mx.example.org Timeout"
    assert host.machine.state is State.CLOSED and kinds(host) == [Hello, Mail, Rcpt]


def test_refuse_before_the_greeting() -> None:
    machine = ServerMachine(Dialect.SMTP, Offer(), ProtocolLimits())
    machine.refuse(reply(421, "4.3.2", "down"))
    assert machine.next_command() is None and machine.take_output() == b"421 4.3.2 down\r\n"


def test_an_answer_that_was_not_asked_is_a_bug() -> None:
    machine = Host().play(EHLO).machine
    with pytest.raises(RuntimeError):
        machine.reply(OK)
    with pytest.raises(RuntimeError):
        machine.challenge(b"")
    with pytest.raises(RuntimeError):
        machine.authenticated("a", OK, Offer())


def test_a_refused_hello_changes_nothing() -> None:
    machine = Host().play(EHLO, b"MAIL FROM:<>\r\n").machine
    machine.feed(b"EHLO other\r\n")
    assert machine.next_command() == Hello("EHLO", "other")
    machine.reply(reply(550, "5.7.1", "not you"))
    assert machine.state is State.MAIL and machine.hello == "a.example"


def test_help_and_vrfy_as_set() -> None:
    host = Host(Offer(vrfy=True, expn=True, etrn=True)).play(
        EHLO, b"VRFY a b\r\n", b"EXPN l\r\n", b"HELP mail\r\n", b"ETRN @x\r\n"
    )
    assert [type(command).__name__ for command in host.commands[1:]] == ["Vrfy", "Vrfy", "Help", "Etrn"]
    assert host.commands[3] == Help("mail")
    host = Host(Offer(help=False)).play(EHLO, b"HELP\r\n", b"EXPN l\r\n", b"ETRN x\r\n", b"VRFY\r\n", b"VRFY \xff\r\n")
    assert host.codes[-5:] == [502, 502, 502, 501, 501]
    assert Host(Offer(etrn=True)).play(EHLO, b"ETRN\r\n", b"ETRN a b\r\n").codes[-2:] == [501, 501]


def test_enhanced_status_everywhere_but_greeting_ehlo_and_3yz() -> None:
    host = Host(ALL, LAX).play(
        EHLO,
        b"NOOP\r\nX\r\nMAIL FROM:<>\r\nRCPT TO:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nx\r\n.\r\nVRFY x\r\nSTARTTLS\r\n",
        b"QUIT\r\n",
    )
    for line in host.replies:
        if not line.startswith(("220 mx", "250-", "250 XFORWARD", "354")):
            assert line[4] == line[0] and line[5] == ".", line


@pytest.mark.parametrize(
    "local_part",
    ["a;rm -rf /", "`id`", "$(id)", "../../etc/passwd", "-oQ/tmp", "|/bin/sh", "a' OR 1=1--", "*)(uid=*", "a%b@c"],
)
def test_hostile_local_parts_are_only_values(local_part: str) -> None:
    quoted = '"' + local_part.replace("\\", "\\\\").replace('"', '\\"') + '"'
    host = Host().play(EHLO, b"MAIL FROM:<>\r\n", b"RCPT TO:<" + quoted.encode() + b"@b.example>\r\n")
    assert host.commands[-1] == Rcpt(Address(local_part, "b.example"))


def test_an_idle_session_is_small() -> None:
    host = Host().play(EHLO, TO_DATA, b"x" * 3_000 + b"\r\n.\r\n")
    machine = host.machine
    held = sum(
        sys.getsizeof(getattr(machine, name)) for name in machine.__slots__ if name not in ("_limits", "_session")
    )
    assert sys.getsizeof(machine) + held < 1_550
    assert machine.buffered == 0 and machine.unread == b"" and machine._transaction is None
