"""VRFY, EXPN, HELP, NOOP and ETRN in a session: as a listener is set, and to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Peer
from postroad.mail.event import Refused
from postroad.mail.policy import Role
from postroad.mail.reply import Reply
from postroad.maps.face import NotNow
from postroad.protocol import etrn
from postroad.protocol.command import Vrfy
from postroad.protocol.etrn import EtrnKind, Wish
from postroad.protocol.offer import Dialect
from postroad.receive import verifying
from postroad.receive.doors import Members
from postroad.receive.options import ListenerOptions, ReceiveOptions, Telling
from tests.unit.receive.fakes import House, opened

FRIENDS = ("192.0.2.0/24",)
OPTIONS = ReceiveOptions(hostname="mx.local.test", default_domain="local.test", help="Ask the postmaster")


def house(vrfy: Telling, expn: Telling, *, role: Role = Role.MX, trusted: bool = False, **more: object) -> House:
    listener = ListenerOptions("front", role, trusted_networks=FRIENDS if trusted else (), vrfy=vrfy, expn=expn)
    return House(listener=listener, options=OPTIONS, **more)  # type: ignore[arg-type]


LINES = ("VRFY ann@local.test", "VRFY <no@local.test>", "VRFY x@elsewhere.test", "VRFY ann", "VRFY Ann Smith",
         "EXPN staff", "EXPN <staff@local.test>", "EXPN nobody", "EXPN a b")  # fmt: skip
VRFY_TOLD = ["250 2.1.5", "550 5.1.1", "252 2.5.2", "250 2.1.5", "252 2.5.2"]
EXPN_TOLD = ["250 2.1.5", "250 2.1.5", "550 5.1.1", "550 5.1.1"]
OFF, AMBIGUOUS, TRUSTED, ON = Telling


@pytest.mark.parametrize(
    ("telling", "trusted", "vrfy", "expn"),
    [
        (OFF, True, ["502 5.5.1"] * 5, ["502 5.5.1"] * 4),
        (AMBIGUOUS, True, ["252 2.0.0"] * 5, ["252 2.5.2"] * 4),
        (TRUSTED, False, ["252 2.5.2"] * 5, ["550 5.7.2"] * 4),
        (TRUSTED, True, VRFY_TOLD, EXPN_TOLD),
        (ON, False, VRFY_TOLD, EXPN_TOLD),
    ],
)
def test_as_set(telling: Telling, trusted: bool, vrfy: list[str], expn: list[str]) -> None:
    assert opened(house(telling, telling, trusted=trusted)).codes(*LINES) == vrfy + expn


def test_by_default_nothing_is_told() -> None:
    client = opened(House())
    assert client.codes("VRFY ann", "VRFY <ann@local.test>", "EXPN staff", "ETRN local.test") == [
        "252 2.0.0", "252 2.0.0", "502 5.5.1", "502 5.5.1",
    ]  # fmt: skip
    hello = House().client().say("EHLO a.test\r\n")
    assert "VRFY" not in hello and "EXPN" not in hello and "ETRN" not in hello


def test_members_are_told_a_line_each() -> None:
    answer = opened(house(OFF, ON)).say("EXPN staff\r\n")
    assert answer == "250-2.1.5 <ann@local.test>\n250 2.1.5 <bob@local.test>"


def test_strangers_of_a_submission_listener_learn_nothing() -> None:
    client = opened(house(ON, ON, role=Role.SUBMISSION))
    assert client.codes("VRFY ann", "EXPN staff") == ["252 2.5.2", "550 5.7.2"]


def test_a_list_that_is_too_long_is_not_told() -> None:
    many = [Address(f"a{number}", "local.test") for number in range(verifying.MEMBERS_MAX + 1)]
    client = opened(house(OFF, ON, members=lambda address: many))
    assert client.codes("EXPN staff") == ["252 2.5.2"]


def test_utf8_is_told_to_those_who_ask_for_it() -> None:
    client = opened(house(ON, ON, known=lambda address: True, members=lambda address: [Address("grün", "local.test")]))
    assert client.codes("VRFY grün@local.test", "EXPN all") == ["252 2.5.2", "252 2.5.2"]
    assert client.say("VRFY grün@local.test SMTPUTF8\r\n") == "250 2.1.5 <grün@local.test>"
    assert client.say("EXPN all SMTPUTF8\r\n") == "250 2.1.5 <grün@local.test>"


def test_a_mailbox_that_must_be_looked_up_outside() -> None:
    def known(address: Address) -> bool | None:
        return None

    assert opened(house(ON, OFF, known=known)).codes("VRFY ann@local.test") == ["252 2.5.2"]


NOT_NOW = NotNow("the map is away")
LISTS: list[tuple[Members, str]] = [
    ([Address("ann", "local.test")], "250 2.1.5"), (NOT_NOW, "450 4.3.0"), (None, "550 5.1.1"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "code"), LISTS)
def test_a_list_that_must_be_looked_up_outside(members: Members, code: str) -> None:
    assert opened(house(OFF, ON, members=lambda address: members)).codes("EXPN staff") == [code]


@pytest.mark.parametrize(("members", "code"), LISTS)
def test_a_list_that_must_be_waited_for(members: Members, code: str) -> None:
    async def later() -> Members:
        return members

    async def expn() -> str:
        place = house(OFF, ON, members=lambda address: later())
        answer = verifying.answer(place.listener.setup, Vrfy("EXPN", "staff"), trusted=False, identity="")
        assert not isinstance(answer, Reply)
        told = (await answer).reply
        assert told is not None
        return f"{told.code} {told.status}"

    assert asyncio.run(expn()) == code


@pytest.mark.parametrize("line", ["VRFY", "EXPN", "VRFY \x01", "EXPN a\x00b"])
def test_no_argument_and_control_octets(line: str) -> None:
    assert opened(house(ON, ON)).codes(line)[0].startswith(("501", "500"))


def test_help_and_noop() -> None:
    client = opened(house(ON, ON))
    assert client.say("HELP\r\n") == client.say("help mail\r\n") == "214 2.0.0 Ask the postmaster"
    assert client.codes("NOOP", "NOOP with words", "noop") == ["250 2.0.0"] * 3
    client.codes("MAIL FROM:<a@b.test>")
    assert client.codes("NOOP", "HELP", "VRFY ann", "RCPT TO:<ann@local.test>") == [
        "250 2.0.0", "214 2.0.0", "250 2.1.5", "250 2.1.5",
    ]  # fmt: skip


# ---- ETRN


@pytest.mark.parametrize(
    ("argument", "wish"),
    [
        ("example.org", Wish(EtrnKind.NODE, "example.org")),
        ("EXAMPLE.org", Wish(EtrnKind.NODE, "example.org")),
        ("@Example.org", Wish(EtrnKind.SUBDOMAINS, "example.org")),
        ("#example.org", Wish(EtrnKind.QUEUE, "example.org")),
        ("#[Mail.Example.org]:25", Wish(EtrnKind.QUEUE, "[mail.example.org]:25")),
        *((bad, None) for bad in (
            "", "@", "#", "##a", "@@a", "@#a", "[192.0.2.1]", "a b", "a'b", "a;b", "$(id)", "`id`", "../x", "a/b", "*",
            "a*", "'; DROP TABLE message--", "*)(uid=*", "a\tb", "#../x", "#a'b", "#-x", "x" * 256, "#" + "x" * 256,
            "a..b", ".a", "a.", "@.a", "@*",
        )),
    ],
)  # fmt: skip
def test_what_etrn_names(argument: str, wish: Wish | None) -> None:
    parsed = etrn.parse(argument)
    assert parsed == (wish if wish is not None else etrn.BAD_NODE)
    if wish is not None:
        assert etrn.parse(wish.text) == wish


class Starter:
    def __init__(self) -> None:
        self.asked: list[tuple[str, Wish]] = []
        self.waiting: list[Callable[[Reply], None]] = []

    def __call__(self, peer: Peer, wish: Wish, done: Callable[[Reply], None]) -> None:
        self.asked.append((peer.address, wish))
        self.waiting.append(done)


def test_etrn_does_not_hold_up_what_comes_behind_and_keeps_the_order() -> None:
    start = Starter()
    client = opened(House(etrn=start))
    assert client.say("ETRN relay.test\r\nNOOP\r\n") == ""
    start.waiting.pop()(etrn.found(start.asked[0][1], 3, exact=True))
    assert client.heard() == b"253 2.0.0 OK, 3 pending messages for node relay.test started\r\n250 2.0.0 Ok\r\n"
    assert start.asked == [("192.0.2.1", Wish(EtrnKind.NODE, "relay.test"))]


def test_etrn_of_a_client_that_has_gone() -> None:
    start = Starter()
    client = opened(House(etrn=start))
    client.say("ETRN relay.test\r\n")
    client.hang_up()
    start.waiting.pop()(etrn.unable(start.asked[0][1]))


def test_etrn_refused_is_told_and_counted() -> None:
    def start(peer: Peer, wish: Wish, done: Callable[[Reply], None]) -> None:
        done(etrn.not_allowed(wish, "not for this client"))

    served = House(etrn=start)
    client = opened(served)
    assert client.say("ETRN @relay.test\r\n") == "459 4.7.1 Node @relay.test not allowed: not for this client"
    assert [event.phase for event in served.recorded if isinstance(event, Refused)] == ["ETRN"]


def test_etrn_in_its_place_only() -> None:
    served = House(etrn=Starter())
    client = served.client()
    assert client.codes("ETRN relay.test", "HELO a", "ETRN relay.test") == [
        "503 5.5.1", "250 mx.local.test", "503 5.5.1",
    ]  # fmt: skip
    client = opened(served)
    assert client.codes("MAIL FROM:<>", "ETRN relay.test", "RSET", "ETRN '", "ETRN a b") == [
        "250 2.1.0", "503 5.5.1", "250 2.0.0", "501 5.5.4", "501 5.5.4",
    ]  # fmt: skip
    lmtp = House(dialect=Dialect.LMTP, etrn=Starter())
    assert opened(lmtp, "LHLO a").codes("ETRN relay.test") == ["502 5.5.1"]
