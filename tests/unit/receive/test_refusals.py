"""Every refusal of mail or of a log-in has an event, or is counted in one: for `trace`, the history and the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from postroad.accounts.authenticate import Authenticator, AuthOptions
from postroad.mail.event import Refused
from postroad.mail.policy import Role
from postroad.mail.reply import reply
from postroad.protocol.command import Declined
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.offer import Dialect
from postroad.receive.budget import Budget
from postroad.receive.intake import Intake
from postroad.receive.options import ExtensionOptions, ListenerOptions, ListenerTls, ReceiveOptions
from postroad.receive.refusal_notes import ALL_MAX, PAUSE_S, SEVERAL, RefusalNotes
from postroad.receive.refusals import path_of
from postroad.report.line import human_line
from tests.unit.receive.fakes import CLOSED, FULL, INVALID, IO, House, opened
from tests.unit.receive.test_auth import PLAIN, base, house_of, wait

MAIL, RCPT = "MAIL FROM:<a@b.test>", "RCPT TO:<ann@local.test>"
MESSAGE = "Subject: x\r\n\r\nhello\r\n.\r\n"


def refused(house: House) -> list[Refused]:
    return [event for event in house.recorded if isinstance(event, Refused)]


def told(event: Refused) -> tuple[str, str, str, str, tuple[str, ...]]:
    return event.phase, event.reply[:9], event.reverse_path, event.recipient, event.recipients


LIMITS = ProtocolLimits(size_max=100_000, recipients_max=2, recipient_domains_max=0)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f"{MAIL} SIZE=200000"], ("MAIL", "552 5.3.4", "a@b.test", "", ())),
        ([f"{MAIL} X=1"], ("MAIL", "555 5.5.4", "a@b.test", "", ())),
        (["MAIL FROM:<a b@c.test>"], ("MAIL", "501 5.1.7", "a b@c.test", "", ())),
        (["MAIL FROM:<ü@b.test>"], ("MAIL", "550 5.6.7", "ü@b.test", "", ())),
        ([MAIL, MAIL], ("MAIL", "503 5.5.1", "a@b.test", "", ())),
        (["MAIL FROM:<" + "x" * 600 + "@b.test> " + "y" * 20_000], ("MAIL", "500 5.5.2", "x" * 320, "", ())),
        ([MAIL, "RCPT TO:<ü@local.test>"], ("RCPT", "553 5.6.7", "a@b.test", "ü@local.test", ())),
        ([MAIL, f"{RCPT} X=>"], ("RCPT", "555 5.5.4", "a@b.test", "ann@local.test", ())),
        ([MAIL, RCPT, RCPT, "RCPT TO:<bob@local.test>"],
         ("RCPT", "452 4.5.3", "a@b.test", "bob@local.test", ())),
        ([RCPT], ("RCPT", "503 5.5.1", "", "ann@local.test", ())),
        ([MAIL, RCPT, "DATA x"], ("DATA", "501 5.5.4", "a@b.test", "", ())),
        ([f"{MAIL} BODY=BINARYMIME", RCPT, "DATA"], ("DATA", "503 5.5.1", "a@b.test", "", ())),
        (["BDAT 0 LAST"], ("BDAT", "503 5.5.1", "", "", ())),
        (["EHLO "], ("EHLO", "501 5.5.4", "", "", ())),
        (["LHLO x"], ("LHLO", "500 5.5.1", "", "", ())),
        (["AUTH PLAIN"], ("AUTH", "502 5.5.1", "", "", ())),
    ],
)  # fmt: skip
def test_what_the_machine_refuses(lines: list[str], expected: tuple[Any, ...]) -> None:
    extensions = ExtensionOptions(binarymime=True)
    house = House(options=ReceiveOptions(hostname="mx.local.test", limits=LIMITS, extensions=extensions))
    client = opened(house)
    client.codes(*lines)
    assert [told(event) for event in refused(house)] == [expected]


def test_what_follows_a_refusal_in_the_pipeline_is_no_refusal_of_its_own() -> None:
    house = House()
    client = opened(house)
    client.say(f"{MAIL} SIZE=999999999\r\n{RCPT}\r\n{RCPT}\r\nDATA\r\n")
    assert [event.phase for event in refused(house)] == ["MAIL"]


@pytest.mark.parametrize(
    ("tls", "auth", "status"), [(ListenerTls.REQUIRED, False, "530 5.7.0"), (ListenerTls.NONE, True, "530 5.7.0")]
)
def test_mail_before_tls_or_a_login(tmp_path: Path, tls: ListenerTls, auth: bool, status: str) -> None:
    if auth:
        house = house_of(tmp_path)
        expected = "530 5.7.0"
    else:
        house = House(listener=ListenerOptions("front", Role.MX, tls=tls), tls_context=lambda asking: object())
        expected = status
    opened(house).codes(MAIL)
    assert [told(event) for event in refused(house)] == [("MAIL", expected, "a@b.test", "", ())]


def test_no_memory_at_mail() -> None:
    budget = Budget(1_000)
    house = House(budget=budget)
    client = opened(house)
    budget.held = 2_000
    assert client.codes(MAIL) == ["452 4.3.1"]
    (event,) = refused(house)
    assert told(event) == ("MAIL", "452 4.3.1", "a@b.test", "", ())
    assert "content_memory_max" in event.reason and "content_memory_max" in human_line(event).decode()


def test_no_memory_in_the_midst_of_a_header() -> None:
    budget = Budget(1_000)
    house = House(
        budget=budget, options=ReceiveOptions(hostname="mx.local.test", limits=ProtocolLimits(piece_size=4_096))
    )
    client = opened(house)
    client.codes(MAIL, RCPT, "DATA")
    pieces = [client.say(("X-Long: " + "y" * 500 + "\r\n") * 10) for _ in range(8)]
    answer = "".join(pieces)
    assert answer.startswith("421 4.3.1")
    assert [told(event) for event in refused(house)] == [("DATA", "421 4.3.1", "a@b.test", "", ("ann@local.test",))]
    assert budget.held == 0 and client.transport.closed


@pytest.mark.parametrize(
    ("failure", "status"), [(FULL, "452 4.3.1"), (IO, "451 4.3.0"), (INVALID, "554 5.3.0"), (CLOSED, "421 4.3.2")]
)
@pytest.mark.parametrize("large", [False, True])
def test_what_cannot_be_stored(failure: Any, status: str, large: bool) -> None:
    house = House(options=ReceiveOptions(hostname="mx.local.test", memory_content_max=1_000))
    house.spool.failure = None if large else failure
    house.spool.file_failure = failure if large else None
    client = opened(house)
    client.codes(MAIL, RCPT, "RCPT TO:<bob@local.test>", "DATA")
    assert client.say("Subject: x\r\n\r\n" + "hello\r\n" * (3_000 if large else 1) + ".\r\n").startswith(status)
    (event,) = refused(house)
    assert told(event) == ("DATA", status, "a@b.test", "", ("ann@local.test", "bob@local.test"))
    assert failure.text in event.reason


def test_a_full_disk_does_not_fill_the_disk_with_its_refusals() -> None:
    house = House()
    house.spool.failure = FULL
    for _ in range(5):
        client = opened(house)
        for _ in range(20):
            client.codes(MAIL, RCPT, "DATA")
            client.say(MESSAGE)
    assert len(refused(house)) == SEVERAL
    house.loop.pass_time(PAUSE_S + 1)
    client = opened(house)
    client.codes(MAIL, RCPT, "DATA")
    client.say(MESSAGE)
    assert f"({100 - SEVERAL} more since" in refused(house)[-1].reason


def test_all_strangers_together_are_bounded_and_known_clients_are_not_left_out_for_them() -> None:
    turned = RefusalNotes(SEVERAL)
    found = [turned.left_out(str(number), "no space", 1000.0, names=10) for number in range(ALL_MAX)]
    assert sum(each is not None for each in found) == ALL_MAX // 10 + 1
    assert turned.left_out("own", "no space", 1000.0, stranger=False) == 0
    assert turned.left_out("9", "other", 1000.0 + PAUSE_S) == 0, "a minute later"


@pytest.mark.parametrize("ending", ["timeout", "shutdown", "bug"])
def test_a_message_that_we_break_off(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    client = opened(house)
    client.codes(MAIL, RCPT, "DATA")
    if ending == "timeout":
        house.loop.pass_time(house.options.data_block_s + 1)
    elif ending == "shutdown":
        client.session.break_off()
    else:
        monkeypatch.setattr(Intake, "end", lambda *about: 1 / 0)
        client.say(MESSAGE)
    (event,) = refused(house)
    assert event.reply.startswith("421") and told(event)[2:] == ("a@b.test", "", ("ann@local.test",))


def test_too_many_errors_in_the_midst_of_a_message() -> None:
    house = House(options=ReceiveOptions(hostname="mx.local.test", limits=ProtocolLimits(errors_max=2)))
    client = opened(house)
    assert client.codes(MAIL, RCPT, "X", "X", "X")[-1] == "421 4.7.0"
    (event,) = refused(house)
    assert told(event) == ("MAIL", "421 4.7.0", "a@b.test", "", ("ann@local.test",))


def test_mail_while_the_node_stops() -> None:
    house = House()
    client = opened(house)
    client.session.leaving = True
    answer = client.say(f"{MAIL}\r\n")
    assert answer.startswith("421 4.3.2")
    assert [told(event)[:3] for event in refused(house)] == [("MAIL", "421 4.3.2", "a@b.test")]


# ---- log-ins


def test_a_login_without_a_place(tmp_path: Path) -> None:
    house = house_of(tmp_path, AuthOptions(client_max=1, waiting_max=0))
    first, second = opened(house), opened(house)
    first.say(PLAIN + "\r\n")
    assert wait(second, PLAIN) == "454 4.7.0"
    (event,) = refused(house)
    assert (event.phase, event.reply[:9], event.reason) == ("AUTH", "454 4.7.0", "")
    assert "auth.client_max" in event.why and "auth.client_max" in human_line(event).decode()


def test_a_login_of_a_barred_account_names_it(tmp_path: Path) -> None:
    house = house_of(tmp_path)
    known = cast(Authenticator, house.doors.knowing.authenticator)
    known.barred = lambda name: name == "ann"
    assert wait(opened(house), PLAIN) == "454 4.7.0"
    (event,) = refused(house)
    assert event.reason == "ann" and "account_failures_max" in event.why
    assert 'account "ann"; the account is locked' in human_line(event).decode()


@pytest.mark.parametrize(
    ("line", "status"),
    [("AUTH X", "504 5.5.4"), ("AUTH PLAIN !", "501 5.5.2"), ("AUTH PLAIN " + base("ann"), "501 5.5.2")],
)
def test_a_login_that_breaks_the_rules(tmp_path: Path, line: str, status: str) -> None:
    house = house_of(tmp_path)
    assert wait(opened(house), line) == status
    assert [(event.phase, event.reply[:9]) for event in refused(house)] == [("AUTH", status)]


def test_a_login_that_the_client_cancels_is_not_refused(tmp_path: Path) -> None:
    house = house_of(tmp_path)
    client = opened(house)
    assert [wait(client, line) for line in ("AUTH PLAIN", "*")] == ["334", "501 5.7.0"]
    assert not refused(house)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (b"MAIL FROM:<a@b.test> SIZE=1", "a@b.test"), (b"MAIL FROM: a@b.test SIZE=1", "a@b.test"),
        (b"RCPT TO:<a b>", "a b"), (b"RCPT TO:<a@b.test> X=<>> Y=>", "a@b.test"), (b"RCPT TO:<a", "a"),
        (b"RCPT TO:<>", ""), (b"RCPT", ""), (b"RCPT TO:<\xff\x00>", "\ufffd\x00"),
        (b"RCPT TO:<" + b"x" * 999, "x" * 320),
    ],
)  # fmt: skip
def test_the_path_of_what_could_not_be_read(line: bytes, path: str) -> None:
    assert path_of(Declined("RCPT", line, reply(501, "5.5.4", "no"))) == path


def test_over_lmtp_too() -> None:
    house = House(Role.RELAY, Dialect.LMTP)
    house.spool.failure = FULL
    client = opened(house, "LHLO client.test")
    client.codes("MAIL FROM:<a@b.test> SIZE=999999999")
    client.codes(MAIL, "RCPT TO:<ann@local.test>", "RCPT TO:<bob@local.test>", "DATA")
    assert client.say(MESSAGE).count("452 4.3.1") == 2
    assert [event.phase for event in refused(house)] == ["MAIL", "DATA"], "one event for both recipients"
