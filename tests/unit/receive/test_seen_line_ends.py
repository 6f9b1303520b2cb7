"""Which content delivery need not look through again for stray CR and LF: what came and stays as it is."""

from __future__ import annotations

from postroad.mail.policy import ACCEPT, Prepend, Rules, Verdict
from postroad.receive.options import ExtensionOptions, ListenerOptions, ReceiveOptions, Role
from tests.unit.receive.fakes import House, opened

WHOLE = "From: a@b.example\r\nDate: Mon, 23 Nov 2026 12:00:00 +0100\r\nMessage-ID: <a@b>\r\n\r\nx\r\n.\r\n"
OPTIONS = ReceiveOptions(
    hostname="mx.local.test", default_domain="local.test",
    extensions=ExtensionOptions(binarymime=True, mt_priority_tunnel=True),
)  # fmt: skip


def seen(house: House, content: str = WHOLE, body: str = "") -> bool:
    client = opened(house)
    assert client.say(f"MAIL FROM:<a@b.example>{body}\r\n").startswith("250")
    assert client.say("RCPT TO:<ann@local.test>\r\n").startswith("250")
    if body:
        assert client.say(f"BDAT {len(content)} LAST\r\n{content}").startswith("250")
    else:
        assert client.say("DATA\r\n").startswith("354")
        assert client.say(content).startswith("250")
    return house.spool.stored[-1].only_crlf


def test_what_came_and_stays_as_it_is_was_seen() -> None:
    house = House()
    assert seen(house)
    assert [stored.only_crlf for stored in house.queued] == [True]
    assert seen(House(), "Subject: x\r\n\r\nno line end", " BODY=8BITMIME")


def test_binary_content_was_not_looked_at() -> None:
    assert not seen(House(options=OPTIONS), "Subject: x\r\n\r\na\nb\rc", " BODY=BINARYMIME")


def test_mended_content_is_another_one() -> None:
    listener = ListenerOptions("front", Role.MX, add_missing=True, trusted_networks=("192.0.2.0/24",))
    assert not seen(House(listener=listener), "Subject: x\r\n\r\nx\r\n.\r\n")
    assert seen(House(listener=listener))


def test_content_without_a_field_that_it_had_is_another_one() -> None:
    assert not seen(House(options=OPTIONS), "MT-Priority: 3\r\n" + WHOLE)


def test_content_that_a_rule_changes_is_another_one() -> None:
    changed = Verdict(ACCEPT.action, effects=(Prepend("X-Seen", b"yes"),))
    assert not seen(House(rules=Rules(message=lambda question: changed)))
