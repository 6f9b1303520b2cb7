"""AUTH: mechanisms, wrong passwords, the cache, the queue; and what may be sent afterwards."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from typing import Any, cast

import pytest

from postroad.accounts import accounts
from postroad.accounts.accounts import Accounts
from postroad.accounts.authenticate import USERS, Authenticator, AuthOptions, Tried
from postroad.accounts.exchange import OwnMechanisms
from postroad.accounts.users import Users
from postroad.mail.address import Address
from postroad.mail.event import Authenticated, Refused
from postroad.mail.policy import Role
from postroad.protocol.offer import Dialect
from postroad.protocol.sasl import scram_keys
from postroad.protocol.sasl.clients import Salting, ScramClient
from postroad.protocol.sasl.step import Hash
from postroad.receive.options import ListenerOptions, ReceiveOptions
from postroad.report.line import human_line
from tests.unit.accounts.test_accounts import HASHER, change
from tests.unit.receive.fakes import Client, House, Loop, opened
from tests.unit.receive.test_session import MESSAGE, content

PASSWORD = "opénsesame"


def authenticator(path: Path, loop: Loop, options: AuthOptions | None = None) -> Authenticator:
    users = path / "users"
    change(users, f"ann:{HASHER.hash(PASSWORD)}:ann@local.test\nbob:{HASHER.hash('x')}\n", 1)
    known = Accounts(users, lambda faults: None)
    return of_users(known, loop, options or AuthOptions())


def of_users(known: Accounts, loop: Loop, options: AuthOptions, *, bindable: bool = False) -> Authenticator:
    executor: Any = object()  # the stand-in loop computes by itself
    chance = random.Random(1)
    source = Users(known, options, cast(Any, loop), chance, b"secret", executor)
    return Authenticator({USERS: OwnMechanisms(source, chance)}, known, options, cast(Any, loop), bindable=bindable)


def house_of(path: Path, auth: AuthOptions | None = None, role: Role = Role.SUBMISSION, **more: Any) -> House:
    loop = Loop()
    known = authenticator(path, loop, auth)
    listener = ListenerOptions("submission", role, Dialect.SMTP, auth=True, auth_without_tls=True)
    return House(listener=listener, loop=loop, authenticator=known, owns=known.owns, **more)


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
    house = house_of(tmp_path, AuthOptions(queue_max=2, waiting_max=0))
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


@pytest.mark.parametrize(
    ("authenticated", "asserted", "kept"),
    [
        (True, "ann@local.test", "ann@local.test"),
        (True, "<>", "<>"),
        (True, "eve@x.test", "<>"),  # RFC 4954 §5: not sufficiently trusted to say so
        (True, "eve+2Bann@local.test", "<>"),
        (True, "ann+2Bnews@local.test", "ann+news@local.test"),  # whose a mailbox is, his are its extensions
        (False, "ann@local.test", "<>"),
    ],
)
def test_the_auth_parameter_counts_where_the_account_may_say_so(
    tmp_path: Path, authenticated: bool, asserted: str, kept: str
) -> None:
    house = house_of(tmp_path, role=Role.MX)
    client = opened(house)
    if authenticated:
        wait(client, PLAIN)
    lines = (f"MAIL FROM:<ann@local.test> AUTH={asserted}", "RCPT TO:<ann@local.test>", "DATA")
    assert client.codes(*lines)[-1] == "354 Send"
    client.say(MESSAGE + b".\r\n")
    assert house.spool.stored[0].envelope.parameters == (("AUTH", kept),)


@pytest.mark.parametrize(
    "asserted", ["a+0D+0Ab@x.test", "a+00@x.test", "a b@x.test", "a+ZZ@x.test", "no-mailbox", "a\x01@b"]
)
def test_no_octet_of_an_auth_parameter_leads_out_of_it(tmp_path: Path, asserted: str) -> None:
    client = opened(house_of(tmp_path, role=Role.MX))
    assert client.codes(f"MAIL FROM:<ann@local.test> AUTH={asserted}")[0][:1] == "5"


# ---- SCRAM, and what is told of authentications


def scram_house(path: Path, *lines: str, mechanisms: tuple[str, ...] = ()) -> House:
    loop = Loop()
    change(path / "users", "\n".join(lines) + "\n", 1)
    known = of_users(Accounts(path / "users", lambda faults: None), loop, AuthOptions(mechanisms=mechanisms))
    listener = ListenerOptions("submission", Role.SUBMISSION, Dialect.SMTP, auth=True, auth_without_tls=True)
    return House(listener=listener, loop=loop, authenticator=known, owns=known.owns)


def line_of(name: str, password: str, *hashes: Hash) -> str:
    keys = tuple(scram_keys.derive(hash, password, b"0123456789abcdef", 4096) for hash in hashes)
    return accounts.format_line(accounts.Account(name, HASHER.hash(password), ("ann@local.test",), keys))


def scram(client: Client, hash: Hash, name: str, password: str, mechanism: str = "") -> list[str]:
    """The server's answers to a whole exchange."""
    exchange = ScramClient(hash, name, "rOprNGfwEbeRWgbNEkqO")
    initial = base64.b64encode(exchange.initial).decode()
    answers = [client.say(f"AUTH {mechanism or f'SCRAM-{hash.value}'} {initial}\r\n")]
    if answers[0][:4] == "334 ":
        salting = exchange.server_first(base64.b64decode(answers[0][4:]))
        assert isinstance(salting, Salting)
        final = exchange.finish(scram_keys.salted(hash, password, salting.salt, salting.iterations))
        answers.append(wait_whole(client, base64.b64encode(final).decode()))
    if answers[-1][:4] == "334 ":
        assert exchange.server_final(base64.b64decode(answers[-1][4:])) == ""
        answers.append(wait_whole(client, ""))
    return answers


def wait_whole(client: Client, line: str) -> str:
    answer = client.say(line + "\r\n")
    if not answer:
        client.house.loop.pass_time(2)
        answer = client.heard().decode().removesuffix("\r\n")
    return answer


def test_scram_is_offered_where_every_password_has_its_keys(tmp_path: Path) -> None:
    whole = scram_house(tmp_path, line_of("ann", PASSWORD, Hash.SHA_256), line_of("bob", "x", Hash.SHA_256, Hash.SHA_1))
    assert "AUTH SCRAM-SHA-256 PLAIN LOGIN" in opened(whole).say("EHLO client.test\r\n")
    half = scram_house(tmp_path, line_of("ann", PASSWORD, Hash.SHA_256), line_of("old", "x"), "cert::cert@local.test")
    assert "AUTH PLAIN LOGIN" in opened(half).say("EHLO client.test\r\n")
    named = scram_house(tmp_path, line_of("ann", PASSWORD, Hash.SHA_256), line_of("old", "x"),
                        mechanisms=("SCRAM-SHA-256",))  # fmt: skip
    assert "AUTH SCRAM-SHA-256\n" in opened(named).say("EHLO client.test\r\n")
    assert opened(named).codes("AUTH PLAIN") == ["504 5.5.4"]


@pytest.mark.parametrize("hash", list(Hash))
def test_scram(tmp_path: Path, hash: Hash) -> None:
    house = scram_house(tmp_path, line_of("ann", PASSWORD, *Hash))
    client = opened(house)
    assert scram(client, hash, "ann", PASSWORD)[-1] == "235 2.7.0 Authentication succeeded"
    assert client.codes("MAIL FROM:<ann@local.test>") == ["250 2.1.0"]
    [event] = [event for event in house.logged if isinstance(event, Authenticated)]
    assert (event.peer.identity, event.mechanism) == ("ann", f"SCRAM-{hash.value}")


def test_unknown_names_get_a_salt_that_stays_and_fail_like_wrong_passwords(tmp_path: Path) -> None:
    """RFC 5802 §9; CVE-2023-42114 and its kin."""
    house = scram_house(tmp_path, line_of("ann", PASSWORD, Hash.SHA_256))
    dialogs = []
    for name, password in (("ann", "wrong"), ("nobody", PASSWORD), ("nobody", PASSWORD), ("x" * 1000, "y")):
        first, *rest = scram(opened(house), Hash.SHA_256, name, password)
        salt = base64.b64decode(first[4:]).decode().partition(",s=")[2]
        dialogs.append((salt, rest))
    assert all(rest == ["535 5.7.8 Authentication credentials invalid"] for _, rest in dialogs)
    salts = [salt for salt, _ in dialogs]
    assert salts[1] == salts[2] and len({*salts}) == 3
    assert len({len(salt) for salt in salts}) == 1 and all(salt.endswith(",i=4096") for salt in salts)


def test_an_account_without_a_password_has_none_that_is_right(tmp_path: Path) -> None:
    house = scram_house(tmp_path, "cert::cert@local.test", mechanisms=("PLAIN", "SCRAM-SHA-256"))
    assert wait(opened(house), "AUTH PLAIN " + base("", "cert", "-")) == "535 5.7.8"
    assert scram(opened(house), Hash.SHA_256, "cert", "")[-1][:9] == "535 5.7.8"


@pytest.mark.parametrize(
    "name",
    ['"', "'; DROP TABLE users; --", "*)(uid=*", "ann\tuser=root", "ann\nuser=root", "../ann", "ann:x", "\U0001f600"],
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
def test_identities_that_want_to_be_more(tmp_path: Path, name: str, mechanism: str) -> None:
    """CVE-2025-26794 and its kin: a name is looked up as it is, and no log line breaks."""
    house = scram_house(tmp_path, line_of("ann", PASSWORD, Hash.SHA_256))
    client = opened(house)
    match mechanism:
        case "PLAIN":
            assert wait(client, "AUTH PLAIN " + base("", name, PASSWORD)) == "535 5.7.8"
        case "LOGIN":
            assert wait(client, "AUTH LOGIN " + base(name)) == "334 UGFzc"
            assert wait(client, base(PASSWORD)) == "535 5.7.8"
        case _:
            assert scram(client, Hash.SHA_256, name, PASSWORD)[-1][:9] == "535 5.7.8"
    [event] = [event for event in house.recorded if isinstance(event, Refused)]
    assert human_line(event).decode().isprintable()


def test_a_megabyte_of_base64(tmp_path: Path) -> None:
    client = opened(scram_house(tmp_path, line_of("ann", PASSWORD, Hash.SHA_256)))
    for start in ("AUTH PLAIN ", "AUTH SCRAM-SHA-256 "):
        assert client.say(start + "A" * 1_000_000 + "\r\n")[:9] == "500 5.5.6"
        assert client.say(start + "\r\n")[:3] == "334"
        assert client.say("A" * 1_000_000 + "\r\n")[:9] == "500 5.5.6"
    assert scram(client, Hash.SHA_256, "ann", PASSWORD)[-1][:9] == "235 2.7.0"


@pytest.mark.parametrize("at", [1, 2, 3])
def test_scram_is_cancelled_at_any_step(tmp_path: Path, at: int) -> None:
    client = opened(scram_house(tmp_path, line_of("ann", PASSWORD, Hash.SHA_256)))
    exchange = ScramClient(Hash.SHA_256, "ann", "n")
    answer = client.say("AUTH SCRAM-SHA-256\r\n")
    for step in range(1, at):
        if step == 1:
            said = exchange.initial
        else:
            salting = exchange.server_first(base64.b64decode(answer[4:]))
            assert isinstance(salting, Salting)
            said = exchange.finish(scram_keys.salted(Hash.SHA_256, PASSWORD, salting.salt, salting.iterations))
        answer = client.say(base64.b64encode(said) + b"\r\n")
    assert answer[:4] == "334 "
    assert client.codes("*") == ["501 5.7.0"]
    assert client.codes("NOOP") == ["250 2.0.0"]
    assert scram(client, Hash.SHA_256, "ann", PASSWORD)[-1][:9] == "235 2.7.0"


def test_each_end_of_an_authentication_is_told_once(tmp_path: Path) -> None:
    house = scram_house(tmp_path, line_of("ann", PASSWORD, Hash.SHA_256))
    told: list[Tried] = []
    known = house.doors.knowing.authenticator
    assert known is not None
    known.noted = told.append
    known.delay_s = lambda tried: 7.0
    client = opened(house)
    client.codes("AUTH PLAIN", "*", "AUTH PLAIN", "!!!")
    assert client.say("AUTH PLAIN " + base("", "eve", "wrong") + "\r\n") == ""
    house.loop.pass_time(6)
    assert client.heard() == b""
    house.loop.pass_time(2)
    assert client.heard()[:3] == b"535"
    wait(client, PLAIN)
    assert told == [Tried("192.0.2.1", "eve", "PLAIN", False), Tried("192.0.2.1", "ann", "PLAIN", True)]


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
    sent = b"Subject: x\r\n\r\n" + b"line\r\n" * 50_000
    assert house.spool.incomings[0].octets == sent, "the file holds what the client sent, and nothing else"
    octets = house.spool.message()
    assert octets.startswith(b"Received: ") and octets.count(b"\r\nDate: ") == 1 and octets.endswith(b"\r\n" + sent)
    assert house.spool.stored[0].envelope.message_id.endswith("@mx.local.test>")


def test_without_any_accounts_read_the_client_shall_come_back(tmp_path: Path) -> None:
    loop = Loop()
    faults: list[accounts.UsersFileFault] = []
    known = of_users(Accounts(tmp_path / "none", faults.extend), loop, AuthOptions())
    listener = ListenerOptions("submission", Role.SUBMISSION, Dialect.SMTP, auth=True, auth_without_tls=True)
    client = opened(House(listener=listener, loop=loop, authenticator=known, owns=known.owns))
    client.say("EHLO client.test\r\n")
    assert wait(client, PLAIN) == "454 4.7.0"
    assert [(fault.line, "no such file" in fault.text) for fault in faults] == [(0, True)]


def test_a_barred_account_gets_one_answer_for_right_and_wrong(tmp_path: Path) -> None:
    """Else the ban would tell who guesses which password is right."""
    house = house_of(tmp_path)
    known = cast(Authenticator, house.doors.knowing.authenticator)
    known.barred = lambda name: name == "ann"
    client = opened(house)
    right, wrong = base("", "ann", PASSWORD), base("", "ann", "no")
    assert [wait(client, f"AUTH PLAIN {each}")[:9] for each in (right, wrong)] == ["454 4.7.0"] * 2
    assert wait(client, f"AUTH PLAIN {base('', 'bob', 'x')}").startswith("235")


def test_the_delay_of_failures_is_what_the_counts_say(tmp_path: Path) -> None:
    house = house_of(tmp_path)
    known = cast(Authenticator, house.doors.knowing.authenticator)
    known.delay_s = lambda tried: house.clients.failed(tried.address, tried.name)
    client = opened(house)
    for delay_s in (1, 2):
        assert client.say(f"AUTH PLAIN {base('', 'ann', 'no')}\r\n") == ""
        house.loop.pass_time(delay_s - 0.1)
        assert client.heard() == b""
        house.loop.pass_time(0.2)
        assert client.heard().startswith(b"535")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("written", ["Ann@Local.Test", "ann@LOCAL.test", "ANN@local.test"])
def test_names_that_are_addresses_have_no_case(tmp_path: Path, mechanism: str, written: str) -> None:
    """At log-in, as the owner of senders, and in the log, whoever writes it how."""
    house = scram_house(tmp_path, line_of("Ann@local.test", PASSWORD, Hash.SHA_256))
    tried: list[Tried] = []
    known = house.doors.knowing.authenticator
    assert known is not None
    known.noted = tried.append
    client = opened(house)
    match mechanism:
        case "PLAIN":
            assert wait(client, "AUTH PLAIN " + base(written, written, PASSWORD)) == "235 2.7.0"
        case "LOGIN":
            client.say("AUTH LOGIN\r\n")
            client.say(base64.b64encode(written.encode()).decode() + "\r\n")
            assert wait(client, base64.b64encode(PASSWORD.encode()).decode()) == "235 2.7.0"
        case _:
            assert scram(client, Hash.SHA_256, written, PASSWORD)[-1].startswith("235")
    identity = client.session._dialog.client.identity if client.session._dialog is not None else ""
    owns = house.doors.knowing.owns
    owned = [owns(identity, Address(each, "local.test")) for each in ("ann", "ANN", "Ann+news", "bob")]
    assert owned == [True, True, True, False]
    assert [(each.name, each.right) for each in tried] == [("ann@local.test", True)]
    authenticated = [event for event in client.house.logged if isinstance(event, Authenticated)]
    assert [event.peer.identity for event in authenticated] == ["ann@local.test"]


def test_a_name_that_is_no_address_has_case(tmp_path: Path) -> None:
    client = opened(house_of(tmp_path))
    assert wait(client, "AUTH PLAIN " + base("", "Ann", PASSWORD)) == "535 5.7.8"


def test_a_failed_log_in_is_told_by_one_name(tmp_path: Path) -> None:
    house = house_of(tmp_path)
    client = opened(house)
    for written in ("Eve@Local.Test", "eve@local.test"):
        assert wait(client, "AUTH PLAIN " + base("", written, "wrong")) == "535 5.7.8"
    assert {event.reason for event in house.recorded if isinstance(event, Refused)} == {"eve@local.test"}
