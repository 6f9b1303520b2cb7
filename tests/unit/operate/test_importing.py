"""Mail for programs and files that an alias of another node has named: exported with its target, imported held."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Recipient
from postroad.mail.route import Destination, Transport
from postroad.operate import mailfiles
from postroad.operate.importing import _rows
from postroad.store.values import Waiting

NOW_US = 1_764_000_000_000_001
ANN = Address("ann", "home.test")


def _destination(key: str) -> Destination | None:
    return Destination(key, Transport.PROGRAM, domain="aliases", outlet=key.partition(":")[2]) if key else None


@pytest.mark.parametrize(
    ("key", "held"),
    [
        ("program:|/usr/bin/list sales", True),
        ("program:includes:|/usr/bin/list", True),
        ("mbox:/var/mail/archive", True),
        ("maildir:forward:/home/ann/Maildir", True),
        ("", False),
    ],
)
def test_a_target_of_an_alias_is_held_at_import(tmp_path: Path, key: str, held: bool) -> None:
    envelope = Envelope(1 << 20, None, (Recipient(ANN, destination=_destination(key)),), 2, 1_764_000_000_000_000)
    back = mailfiles.read(mailfiles.write(tmp_path, envelope, (), b"\r\n"))
    rows = _rows(lambda envelope, recipient: Destination("maildir:home.test", Transport.MAILDIR), back, NOW_US)
    assert [row.held for row in rows] == ([True] if held else [])
    if held:
        assert key in rows[0].text and rows[0].destination == "maildir:home.test"


@pytest.mark.parametrize(
    "key", ["maildir:home.test", "program:home.test", "mbox:home.test", "[192.0.2.1]:25", "x.test"]
)
def test_destinations_of_domains_are_not_held(tmp_path: Path, key: str) -> None:
    envelope = Envelope(1 << 20, None, (Recipient(ANN, destination=_destination(key)),), 2, 1_764_000_000_000_000)
    back = mailfiles.read(mailfiles.write(tmp_path, envelope, (), b"\r\n"))
    assert _rows(lambda envelope, recipient: Destination("maildir:home.test", Transport.MAILDIR), back, NOW_US) == ()


def test_the_owner_of_a_list_stays_the_sender_of_its_members(tmp_path: Path) -> None:
    recipients = (Recipient(ANN, sender=Address("owner-list", "home.test")), Recipient(Address("bob", "home.test")))
    back = mailfiles.read(mailfiles.write(tmp_path, Envelope(1 << 20, ANN, recipients, 2, NOW_US), (), b"\r\n"))
    assert back.envelope.recipients == recipients


def test_what_was_released_and_what_kind_of_mail_it_is(tmp_path: Path) -> None:
    envelope = Envelope(1 << 20, ANN, (Recipient(ANN),), 2, NOW_US, classes=("bulk", "precedence: list"))
    waiting = (Waiting(0, NOW_US - 1, "x.test", released=True),)
    back = mailfiles.read(mailfiles.write(tmp_path, envelope, waiting, b"\r\n"))
    assert back.envelope.classes == envelope.classes
    rows = _rows(lambda envelope, recipient: Destination("maildir:home.test", Transport.MAILDIR), back, NOW_US)
    assert [row.released for row in rows] == [True]
