"""Other addresses and copies, applied to a message that is accepted: in memory and in a file, with its events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from postroad.check.policy import PolicyOptions
from postroad.mail.address import Address
from postroad.mail.envelope import Notify, Peer, Recipient
from postroad.mail.event import Expanded, Refused, Rewritten
from postroad.mail.expansion import Expansion, Passed
from postroad.mail.loop import Marks
from postroad.mail.policy import Action, Role, Rules, SetField, SetReversePath, Verdict
from postroad.mail.rewriting import Rewriting
from postroad.receive.options import ListenerOptions, ReceiveOptions
from tests.unit.receive.fakes import House, opened

MARKS = Marks(b"the node's secret")
COPY = Address("archive", "local.test")
ANN = Address("ann", "local.test")
HEAD = b"Message-ID: <1@x.test>\r\nFrom: Ada <ada@host.test>\r\nTo: old@local.test\r\n"
BODY = b"\r\nada@host.test\r\n"
BIG = b"\r\n" + b"ada@host.test\r\n" * 20
NEW = b"countess@new.test"


def rewrite(
    peer: Peer, reverse_path: Address | None, recipients: tuple[Recipient, ...], sections: tuple[bytes, ...]
) -> Rewriting:
    return Rewriting(
        Address("countess", "new.test"),
        tuple([Recipient(ANN, each.notify, each.orcpt, each.address) for each in recipients]),
        tuple([section.replace(b"ada@host.test", NEW) for section in sections]),
        ((COPY, "always_bcc"), (ANN, "recipient_bcc_maps")),
        ("other addresses in From",),
    )


def house(role: Role = Role.MX, asks: Any = rewrite, **more: Any) -> House:
    return House(role, marks=MARKS, rewrite=asks, **more)


def sent(house: House, octets: bytes, *to: str) -> str:
    client = opened(house)
    client.codes("MAIL FROM:<ada@host.test>", *(f"RCPT TO:<{name}>" for name in to or ("bob@local.test",)), "DATA")
    answer: str = client.say(octets + b".\r\n")
    return answer


@pytest.mark.parametrize("body", [BODY, BIG])
def test_envelope_header_and_copies(body: bytes) -> None:
    node = house(options=ReceiveOptions(memory_content_max=200))
    assert sent(node, HEAD + body).startswith("250")
    (stored,) = node.spool.stored
    envelope = stored.envelope
    assert str(envelope.reverse_path) == "countess@new.test"
    assert envelope.recipients == (
        Recipient(ANN, given=Address("bob", "local.test")), Recipient(COPY, Notify.NEVER),
    )  # fmt: skip
    message = node.spool.message()
    assert message.endswith(HEAD.replace(b"ada@host.test", NEW) + body)
    assert b"for <bob@local.test>" in message.partition(b"From:")[0]  # as the client named it; no copy is told
    assert envelope.size == len(message)
    (rewritten,) = [event for event in node.spool.events if isinstance(event, Rewritten)]
    assert rewritten.changes == (
        "other addresses in From", "a copy for <archive@local.test> (always_bcc)",
        "a copy for <ann@local.test> (recipient_bcc_maps)",
    )  # fmt: skip
    assert rewritten.sender == "ada@host.test"
    (expanded,) = [event for event in node.spool.events if isinstance(event, Expanded)]
    assert (expanded.recipient, expanded.into) == ("bob@local.test", ("ann@local.test",))


@pytest.mark.parametrize("body", [BODY, BIG])
def test_after_a_rule_has_changed_the_header(body: bytes) -> None:
    rules = Rules(message=lambda question: Verdict(Action.ACCEPT, effects=(SetField("To", b"ada@host.test"),)))
    node = house(rules=rules, options=ReceiveOptions(memory_content_max=200))
    assert sent(node, HEAD + body).startswith("250")
    changed = HEAD.replace(b"ada@host.test", NEW).replace(b"To: old@local.test", b"To: " + NEW)
    assert node.spool.message().endswith(changed + body)


@pytest.mark.parametrize("body", [BODY, BIG])
def test_fields_that_were_added_are_rewritten_too(body: bytes) -> None:
    node = house(Role.SUBMISSION, policy_options=PolicyOptions(trust_network=True), listener=ListenerOptions(
        "front", Role.SUBMISSION, trusted_networks=("192.0.2.0/24",)
    ), options=ReceiveOptions(memory_content_max=100))  # fmt: skip
    assert sent(node, b"Subject: x\r\n" + body).startswith("250")
    assert b"From: <countess@new.test>\r\n" in node.spool.message()
    assert node.spool.message().endswith(b"Subject: x\r\n" + body)


def test_two_recipients_that_become_one_are_one() -> None:
    node = house()
    assert sent(node, HEAD + BODY, "ann@local.test", "bob@local.test").startswith("250")
    assert [str(each.address) for each in node.spool.stored[0].envelope.recipients] == [
        "ann@local.test", "archive@local.test",
    ]  # fmt: skip


def test_two_recipients_that_become_one_ask_for_what_both_asked_for() -> None:
    node = house(listener=ListenerOptions("front", dsn_for_strangers=True))
    client = opened(node)
    client.codes(
        "MAIL FROM:<ada@host.test>", "RCPT TO:<ann@local.test> NOTIFY=NEVER", "RCPT TO:<bob@local.test> NOTIFY=FAILURE",
        "DATA",
    )  # fmt: skip
    assert client.say(HEAD + BODY + b".\r\n").startswith("250")
    assert [each.notify for each in node.spool.stored[0].envelope.recipients] == [Notify.FAILURE, Notify.NEVER]


def test_an_alias_tells_of_the_way_from_what_the_client_named() -> None:
    def expand(id: int, now_us: int, recipients: tuple[Recipient, ...], passed: Passed | None = None) -> Expansion:
        assert [each.address for each in recipients] == [ANN, COPY]
        event = Expanded(now_us, id, str(recipients[0].given), ("x@y.test", "z@y.test"))
        return Expansion((Recipient(Address("x", "y.test")), Recipient(Address("z", "y.test"))), (event,))

    node = house(expand=expand)
    assert sent(node, HEAD + BODY).startswith("250")
    (expanded,) = [event for event in node.spool.events if isinstance(event, Expanded)]
    assert (expanded.recipient, expanded.into) == ("bob@local.test", ("x@y.test", "z@y.test"))


def test_a_message_that_comes_back_makes_no_second_copy() -> None:
    node = house()
    assert sent(node, HEAD + BODY).startswith("250")
    again = node.spool.message()
    assert again.count(b"X-Postroad-Loop") == 1
    assert sent(node, again).startswith("250")
    assert [each.address for each in node.spool.stored[1].envelope.recipients] == [ANN]
    # The marks mean nothing in another message.
    assert sent(node, again.replace(b"<1@x.test>", b"<2@x.test>")).startswith("250")
    assert len(node.spool.stored[2].envelope.recipients) == 2


def test_nobody_left_gets_no_copy() -> None:
    rules = Rules(rcpt=lambda question: Verdict(Action.DISCARD, reason="let go"))
    node = house(rules=rules)
    assert sent(node, HEAD + BODY).startswith("250")
    assert not node.spool.stored


@pytest.mark.parametrize(("made", "code"), [
    (Rewriting(None, (), not_now="the map is away"), "451 4.3.0"),
    (Rewriting(None, (), excess="its header has too many"), "554 5.6.0"),
])  # fmt: skip
@pytest.mark.parametrize("waits", [False, True])
def test_what_cannot_be_rewritten_is_refused_and_nothing_is_stored(made: Rewriting, code: str, waits: bool) -> None:
    def asks(*question: Any) -> Rewriting | Awaitable[Rewriting]:
        async def later() -> Rewriting:
            await asyncio.sleep(0)
            return made

        return later() if waits else made

    async def talk() -> tuple[House, str]:
        node = house(asks=asks)
        client = opened(node)
        client.codes("MAIL FROM:<ada@host.test>", "RCPT TO:<bob@local.test>", "DATA")
        answer = client.say(HEAD + BODY + b".\r\n")
        for _ in range(5):
            await asyncio.sleep(0)
        return node, answer + client.heard().decode()

    node, answer = asyncio.run(talk())
    assert answer.startswith(code)
    assert not node.spool.stored
    (refused,) = [event for event in node.recorded if isinstance(event, Refused)]
    assert refused.reason in (made.not_now, made.excess)


def test_an_answer_that_breaks_defers() -> None:
    async def talk() -> str:
        async def later() -> Rewriting:
            raise RuntimeError("a bug")

        node = house(asks=lambda *question: later())
        client = opened(node)
        client.codes("MAIL FROM:<ada@host.test>", "RCPT TO:<bob@local.test>", "DATA")
        answer = client.say(HEAD + BODY + b".\r\n")
        for _ in range(5):
            await asyncio.sleep(0)
        assert not node.spool.stored
        return answer + client.heard().decode()

    assert asyncio.run(talk()).startswith("451 4.3.0")


@pytest.mark.parametrize("asks", [None, rewrite])
def test_aliases_that_break_defer_and_lose_nothing(asks: Any) -> None:
    async def talk() -> tuple[House, str]:
        async def later() -> Expansion:
            raise RuntimeError("a bug")

        node = house(asks=asks, expand=lambda *question: later())
        client = opened(node)
        client.codes("MAIL FROM:<ada@host.test>", "RCPT TO:<bob@local.test>", "DATA")
        answer = client.say(HEAD + BODY + b".\r\n")
        for _ in range(5):
            await asyncio.sleep(0)
        return node, answer + client.heard().decode()

    node, answer = asyncio.run(talk())
    assert answer.startswith("451 4.3.0")
    assert not node.spool.stored


def test_an_address_that_only_smtputf8_can_carry() -> None:
    def asks(
        peer: Peer, reverse_path: Address | None, recipients: tuple[Recipient, ...], sections: tuple[bytes, ...]
    ) -> Rewriting:
        new = "adé@host.test".encode()
        return Rewriting(reverse_path, recipients, tuple([each.replace(b"ada@host.test", new) for each in sections]))

    node = house(asks=asks)
    assert sent(node, HEAD + BODY).startswith("250")
    envelope = node.spool.stored[0].envelope
    assert envelope.smtputf8
    assert envelope.body.value == "8BITMIME"


@pytest.mark.parametrize("body", [BODY, BIG])
def test_rules_for_the_fields_of_a_listener(body: bytes) -> None:
    listener = ListenerOptions(
        "front", remove_fields=("User-Agent", "/^Received: .*with ESMTP/"), replace_fields=("/^X-A: (.*)/ X-B: $1",),
        add_fields=("Reply-To: help@local.test", "From: nobody@local.test"),
    )  # fmt: skip
    node = House(listener=listener, options=ReceiveOptions(memory_content_max=200), marks=MARKS)
    head = b"User-Agent: x\r\nX-A: 1\r\n" + HEAD
    assert sent(node, head + body).startswith("250")
    assert node.spool.message() == b"Reply-To: help@local.test\r\nX-B: 1\r\n" + HEAD + body
    (rewritten,) = [event for event in node.spool.events if isinstance(event, Rewritten)]
    assert rewritten.changes == ("removed User-Agent", "changed X-A", "added Reply-To", "removed Received")
    assert node.spool.stored[0].envelope.size == len(node.spool.message())


def test_a_message_that_loses_all_its_fields() -> None:
    node = House(listener=ListenerOptions("front", remove_fields=("/./",)), marks=MARKS)
    assert sent(node, HEAD + BODY).startswith("250")
    assert node.spool.message() == BODY


def test_rules_for_fields_come_before_other_addresses() -> None:
    listener = ListenerOptions("front", replace_fields=("/^X-From: (.*)/ Reply-To: $1",))
    node = House(listener=listener, marks=MARKS, rewrite=rewrite)
    assert sent(node, b"X-From: ada@host.test\r\n" + HEAD + BODY).startswith("250")
    assert b"Reply-To: countess@new.test\r\n" in node.spool.message()
    (rewritten,) = [event for event in node.spool.events if isinstance(event, Rewritten)]
    assert rewritten.changes[:2] == ("changed X-From", "other addresses in From")


@pytest.mark.parametrize("by_rule", [False, True])
def test_what_is_sent_counts_for_the_sender_that_limits_are_asked_about(by_rule: bool) -> None:
    counted: list[tuple[str, int, int]] = []
    effects = (SetReversePath(Address("ruled", "new.test")),)
    rules = Rules(message=lambda question: Verdict(Action.ACCEPT, effects=effects if by_rule else ()))
    node = house(
        rules=rules, sent=lambda peer, sender, recipients, messages: counted.append((str(sender), recipients, messages))
    )
    assert sent(node, HEAD + BODY).startswith("250")
    assert str(node.spool.stored[0].envelope.reverse_path) == "countess@new.test"
    assert counted == [("ada@host.test", 1, 1)]
