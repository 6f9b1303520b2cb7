"""AUTH: mechanisms, wrong passwords, the cache, the queue; and what may be sent afterwards."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from typing import Any, cast

import pytest

from postroad.mail.context import Role
from postroad.mail.event import Refused
from postroad.protocol.offer import Dialect
from postroad.receive import accounts
from postroad.receive.accounts import Accounts
from postroad.receive.authenticate import Authenticator, AuthOptions
from postroad.receive.options import ListenerOptions, ReceiveOptions
from tests.unit.receive.fakes import Client, House, Loop, opened
from tests.unit.receive.test_accounts import HASHER, change
from tests.unit.receive.test_session import MESSAGE, content

PASSWORD = "opénsesame"


def authenticator(path: Path, loop: Loop, options: AuthOptions | None = None) -> Authenticator:
    users = path / "users"
    change(users, f"ann:{HASHER.hash(PASSWORD)}:ann@local.test\nbob:{HASHER.hash('x')}\n", 1)
    known = Accounts(users, lambda faults: None)
    executor: Any = object()  # the stand-in loop computes by itself
    return Authenticator(known, options or AuthOptions(), cast(Any, loop), random.Random(1), executor)


def house_of(path: Path, auth: AuthOptions | None = None, role: Role = Role.SUBMISSION, **more: Any) -> House:
    loop = Loop()
    known = authenticator(path, loop, auth)
    listener = ListenerOptions("submission", role, Dialect.SMTP, auth=True, auth_without_tls=True)
    return House(listener=listener, loop=loop, authenticator=known, owns=known.accounts.owns, **more)


def base(*parts: str) -> str:
    return base64.b64encode("\0".join(parts).encode()).decode()


def wait(client: Client, line: str) -> str:
    """Say a line and wait for the thread and the delay of failures."""
    answer = client.say(line + "\r\n")
    if not answer:
        client.house.loop.pass_time(2)
        answer = client.heard().decode().replace("\r\n", "\n").removesuffix("\n")
    return answer[:9].rstrip()


PLAIN = "AUTH PLAIN " + base("", "ann", PASSWORD)


def test_plain_with_an_initial_response_then_mail(tmp_path: Path) -> None:
    house = house_of(tmp_path)
    client = opened(house)
    assert "AUTH PLAIN LOGIN" in client.say("EHLO client.test\r\n")
    assert wait(client, PLAIN) == "235 2.7.0"
    assert client.codes("MAIL FROM:<eve@local.test>") == ["553 5.7.1"]
    assert client.codes("MAIL FROM:<ann@local.test>", "RCPT TO:<x@elsewhere.test>", "DATA")[-1] == "354 Send"
    assert client.say(MESSAGE + b".\r\n").startswith("250 2.0.0")
    assert b" with ESMTPA id " in content(house)
    assert house.spool.stored[0].envelope.peer.identity == "ann"


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        (["AUTH PLAIN", base("", "ann", PASSWORD)], ["334", "235 2.7.0"]),
        (["AUTH PLAIN", base("ann", "ann", PASSWORD)], ["334", "235 2.7.0"]),
        (["AUTH PLAIN", base("bob", "ann", PASSWORD)], ["334", "535 5.7.8"]),
        (["AUTH LOGIN", base("ann"), base(PASSWORD)], ["334 VXNlc", "334 UGFzc", "235 2.7.0"]),
        (["AUTH LOGIN " + base("ann"), base(PASSWORD)], ["334 UGFzc", "235 2.7.0"]),
        (["AUTH LOGIN", base("ann"), base("wrong")], ["334 VXNlc", "334 UGFzc", "535 5.7.8"]),
        (["AUTH PLAIN " + base("", "nobody", PASSWORD)], ["535 5.7.8"]),
        (["AUTH PLAIN " + base("", "ann", PASSWORD + "\x07")], ["535 5.7.8"]),
        (["AUTH PLAIN " + base("", "ann", "y" * 1024)], ["535 5.7.8"]),
        (["AUTH PLAIN", "*"], ["334", "501 5.7.0"]),
        (["AUTH PLAIN", "!!!"], ["334", "501 5.5.2"]),
        (["AUTH PLAIN " + base("ann")], ["501 5.5.2"]),
        (["AUTH CRAM-MD5"], ["504 5.5.4"]),
        ([PLAIN, PLAIN], ["235 2.7.0", "503 5.5.1"]),
    ],
)
def test_exchanges(tmp_path: Path, lines: list[str], answers: list[str]) -> None:
    client = opened(house_of(tmp_path))
    assert [wait(client, line) for line in lines] == answers
    assert client.codes("NOOP") == ["250 2.0.0"]


def test_mechanisms_are_not_offered_without_tls_unless_told_to(tmp_path: Path) -> None:
    loop = Loop()
    listener = ListenerOptions("submission", Role.SUBMISSION, auth=True)
    client = opened(House(listener=listener, loop=loop, authenticator=authenticator(tmp_path, loop)))
    assert "AUTH" not in client.say("EHLO client.test\r\n")
    assert wait(client, PLAIN) == "538 5.7.1"


def test_wrong_passwords_end_the_session_and_are_told_late(tmp_path: Path) -> None:
    house = house_of(tmp_path, AuthOptions(failure_delay_s=5))
    client = opened(house)
    for expected in ("535 5.7.8", "535 5.7.8", "421 4.7.0"):
        assert client.say("AUTH PLAIN " + base("", "ann", "wrong") + "\r\n") == ""
        house.loop.pass_time(4)
        assert client.heard() == b""
        house.loop.pass_time(2)
        assert client.heard()[:9].decode() == expected
    assert client.transport.closed
    refused = [event for event in house.recorded if isinstance(event, Refused)]
    assert [(event.phase, event.reason) for event in refused] == [("AUTH", "ann")] * 3


def test_commands_behind_a_password_wait(tmp_path: Path) -> None:
    house = house_of(tmp_path)
    client = opened(house)
    assert client.say(PLAIN + "\r\n") == ""
    assert client.say("NOOP\r\n") == ""
    house.loop.pass_time(0)
    assert [line[:3] for line in client.heard().split(b"\r\n")] == [b"235", b"250", b""]


def test_a_client_that_goes_away_meanwhile(tmp_path: Path) -> None:
    house = house_of(tmp_path)
    client = opened(house)
    client.say(PLAIN + "\r\n")
    client.hang_up()
    house.loop.pass_time(10)
    assert house.listener.sessions == 0 and client.transport.written == b""


def test_a_full_queue_says_come_back(tmp_path: Path) -> None:
    house = house_of(tmp_path, AuthOptions(queue_max=2))
    clients = [opened(house) for _ in range(3)]
    answers = [client.say(PLAIN + "\r\n") for client in clients]
    assert [answer[:9] for answer in answers] == ["", "", "454 4.7.0"]
    house.loop.pass_time(0)
    assert [client.heard()[:3] for client in clients[:2]] == [b"235", b"235"]
    assert wait(clients[2], PLAIN) == "235 2.7.0"


def test_known_and_unknown_names_cost_the_same_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def matches(encoded: str, password: str) -> bool:
        asked.append((encoded.rsplit("$", 2)[0], password))
        return False

    monkeypatch.setattr(accounts, "matches", matches)
    house = house_of(tmp_path)
    for name in ("ann", "nobody", "x" * 300, "a\x07"):
        wait(opened(house), "AUTH PLAIN " + base("", name, "guess"))
    assert len(asked) == 4 and len({parameters for parameters, _ in asked}) == 1


def test_a_right_password_is_remembered_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[str] = []
    matches = accounts.matches

    def counted(encoded: str, password: str) -> bool:
        computed.append(password)
        return matches(encoded, password)

    monkeypatch.setattr(accounts, "matches", counted)
    house = house_of(tmp_path, AuthOptions(cache_s=60))
    assert wait(opened(house), PLAIN) == "235 2.7.0"
    assert opened(house).say(PLAIN + "\r\n").startswith("235"), "at once"
    for _ in range(2):  # what is wrong is not remembered
        assert wait(opened(house), "AUTH PLAIN " + base("", "ann", "wrong")) == "535 5.7.8"
    assert computed == [PASSWORD, "wrong", "wrong"]
    house.loop.pass_time(61)
    assert wait(opened(house), PLAIN) == "235 2.7.0"
    assert len(computed) == 4


def test_a_changed_password_is_forgotten_at_once(tmp_path: Path) -> None:
    house = house_of(tmp_path)
    assert wait(opened(house), PLAIN) == "235 2.7.0"
    change(tmp_path / "users", f"ann:{HASHER.hash('new')}:ann@local.test\n", 2)
    assert wait(opened(house), PLAIN) == "535 5.7.8"
    assert wait(opened(house), "AUTH PLAIN " + base("", "ann", "new")) == "235 2.7.0"


def test_an_authenticated_client_relays_on_an_mx_listener_that_has_auth(tmp_path: Path) -> None:
    house = house_of(tmp_path, role=Role.MX)
    client = opened(house)
    assert client.codes("MAIL FROM:<ann@local.test>", "RCPT TO:<x@elsewhere.test>", "RSET")[1] == "550 5.7.1"
    assert wait(client, PLAIN) == "235 2.7.0"
    assert client.codes("MAIL FROM:<ann@local.test>", "RCPT TO:<x@elsewhere.test>")[1] == "250 2.1.5"


@pytest.mark.parametrize(("authenticated", "expected"), [(True, "eve@x.test"), (False, "<>")])
def test_auth_parameter_of_strangers_counts_for_nothing(tmp_path: Path, authenticated: bool, expected: str) -> None:
    house = house_of(tmp_path, role=Role.MX)
    client = opened(house)
    if authenticated:
        wait(client, PLAIN)
    lines = ("MAIL FROM:<ann@local.test> AUTH=eve@x.test", "RCPT TO:<ann@local.test>", "DATA")
    assert client.codes(*lines)[-1] == "354 Send"
    client.say(MESSAGE + b".\r\n")
    assert house.spool.stored[0].envelope.parameters == (("AUTH", expected),)


# ---- RFC 6409 §8 over the dialog


def submitted(path: Path, octets: bytes, options: ReceiveOptions | None = None) -> bytes:
    house = house_of(path, options=options) if options else house_of(path)
    client = opened(house)
    wait(client, PLAIN)
    client.codes("MAIL FROM:<ann@local.test>", "RCPT TO:<bob@relay.test>", "DATA")
    assert client.say(octets + b".\r\n").startswith("250")
    stored = content(house)
    return stored[stored.index(b"+0000\r\n") + 7 :]


def test_a_submitted_message_is_mended(tmp_path: Path) -> None:
    mended = submitted(tmp_path, b"Subject: x\r\nBcc: hidden@x.test\r\n\r\nBody\r\n")
    head, _, rest = mended.partition(b"Subject")
    lines = head.split(b"\r\n")
    assert lines[0] == b"Date: Wed, 18 Nov 2026 11:06:40 +0000"
    assert lines[1].startswith(b"Message-ID: <") and lines[1].endswith(b"@mx.local.test>")
    assert lines[2:] == [b"From: <ann@local.test>", b""]
    assert rest == b": x\r\nBcc: hidden@x.test\r\n\r\nBody\r\n"


def test_a_sound_message_is_left_alone(tmp_path: Path) -> None:
    octets = b"From: ann@local.test\r\nDate: Mon, 23 Nov 2026 12:00:00 +0100\r\nMessage-Id: <a@b>\r\n\r\nBody\r\n"
    assert submitted(tmp_path, octets) == octets


def test_another_author_gets_a_sender_field(tmp_path: Path) -> None:
    octets = b"From: Boss <boss@local.test>\r\nDate: Mon, 23 Nov 2026 12:00:00 +0100\r\nMessage-Id: <a@b>\r\n\r\nx\r\n"
    assert submitted(tmp_path, octets) == b"Sender: <ann@local.test>\r\n" + octets


def test_nothing_is_mended_where_that_is_off(tmp_path: Path) -> None:
    octets = b"Subject: x\r\n\r\nBody\r\n"
    assert submitted(tmp_path, octets, ReceiveOptions(hostname="mx.local.test", repair=False)) == octets


def test_large_submitted_messages_are_mended_too(tmp_path: Path) -> None:
    house = house_of(tmp_path, options=ReceiveOptions(hostname="mx.local.test", memory_content_max=1_000))
    client = opened(house)
    wait(client, PLAIN)
    client.codes("MAIL FROM:<ann@local.test>", "RCPT TO:<bob@relay.test>", "DATA")
    assert client.say(b"Subject: x\r\n\r\n" + b"line\r\n" * 50_000 + b".\r\n").startswith("250")
    octets = house.spool.incomings[0].octets
    assert octets.count(b"\r\nDate: ") == 1 and octets.endswith(b"Subject: x\r\n\r\n" + b"line\r\n" * 50_000)
    assert house.spool.stored[0].envelope.message_id.endswith("@mx.local.test>")


def test_without_any_accounts_read_the_client_shall_come_back(tmp_path: Path) -> None:
    loop = Loop()
    known = authenticator(tmp_path, loop)
    listener = ListenerOptions("submission", Role.SUBMISSION, Dialect.SMTP, auth=True, auth_without_tls=True)
    client = opened(House(listener=listener, loop=loop, authenticator=known, owns=known.accounts.owns))
    client.say("EHLO client.test\r\n")
    faults: list[accounts.Fault] = []
    known.accounts = Accounts(tmp_path / "none", faults.extend)
    assert wait(client, PLAIN) == "454 4.7.0"
    assert [(fault.line, "no such file" in fault.text) for fault in faults] == [(0, True)]
