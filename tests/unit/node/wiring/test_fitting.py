"""A message counts as too large only if it is so for every destination that its recipients lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.config.load import parse
from postroad.config.settings import Settings
from postroad.mail.address import Address
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.policy import Question
from postroad.mail.size_limits import SizeLimits
from postroad.node.wiring.fitting import Fitting
from postroad.node.wiring.tables import build

SETTINGS = """
hostname = "mx.home.test"
state_dir = "state"
aliases = "{folder}/aliases"
[[listener]]
name = "front"
address = "127.0.0.1"
port = 2525
[[domain]]
name = "home.test"
recipients = ["bob"]
path = "{folder}/{{local_part}}"
[[next_hop]]
domain = "small.test"
host = "192.0.2.1"
[[next_hop]]
domain = "tiny.test"
host = "192.0.2.1"
"""
ALIASES = "one: ann@small.test\nboth: ann@small.test, bob\nall: ann@small.test, ann@tiny.test\n"
ALIASES += "wide: " + ", ".join(f"x{number}@small.test" for number in range(101)) + "\nover: wide\n"


@pytest.fixture
def fitting(tmp_path: Path) -> Fitting:
    (tmp_path / "aliases").write_text(ALIASES)
    made = parse(SETTINGS.format(folder=tmp_path), tmp_path / "postroad.toml")
    assert isinstance(made, Settings), made
    tables = build(made)
    assert not isinstance(tables, str), tables
    limits = SizeLimits(60.0)
    limits.note("[192.0.2.1]:25", 1000)
    return Fitting(limits, tables)


@pytest.mark.parametrize(
    ("recipient", "size", "limit"),
    [
        ("ann@small.test", 1001, 1000),
        ("ann@small.test", 1000, 0),
        ("ann@elsewhere.test", 1001, 0),
        ("bob@home.test", 1001, 0),
        ("one@home.test", 1001, 1000),
        ("both@home.test", 1001, 0),  # bob can have it
        ("all@home.test", 1001, 1000),
        ("nobody@home.test", 1001, 0),
        ("wide@home.test", 1001, 0),  # not followed: a client could make us do it again and again
        ("over@home.test", 1001, 0),
    ],
)
def test_at_rcpt_aliases_are_followed(fitting: Fitting, recipient: str, size: int, limit: int) -> None:
    local_part, _, domain = recipient.partition("@")
    assert fitting.at_rcpt(Question(Peer(), size=size, recipient=Address(local_part, domain))) == limit


def test_one_recipient_that_can_have_the_message_is_enough(fitting: Fitting) -> None:
    def exceeded(*recipients: str) -> int:
        found = tuple(Recipient(Address(*each.split("@"))) for each in recipients)
        return fitting.of_message(Envelope(1, None, found, 1001, 0))

    assert exceeded("ann@small.test", "eve@tiny.test") == 1000
    assert exceeded("ann@small.test", "bob@home.test") == 0
