"""Senders that were signed, where they meet domains by map and reports of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroad.config import options
from postroad.config.load import parse
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.policy import Action, Question, Verdict
from postroad.mail.route import Destination, Transport
from postroad.maps.face import NotNow
from postroad.node.wiring.tables import Tables, build
from postroad.route import batv, srs
from postroad.world.clock import SystemClock
from tests.unit.maps.fakes import Waiting

SETTINGS = """
hostname = "mx.home.test"
state_dir = "state"
postmaster = "ada@plain.test"
aliases = "{folder}/aliases"
[srs]
domain = "srs.test"
keys_file = "{folder}/srs"
[batv]
keys_file = "{folder}/batv"
[[listener]]
name = "front"
address = "127.0.0.1"
port = 2525
[[domain]]
name = "plain.test"
recipients = ["ada"]
batv = "sign"
path = "{folder}/{{domain}}/{{local_part}}"
[[domain]]
domain_maps = ["boxes"]
recipients = ["info"]
path = "{folder}/{{domain}}/{{local_part}}"
[[map]]
name = "boxes"
kind = "inline"
entries = ["x y"]
"""
FAR = Destination("far.test", Transport.SMTP, domain="far.test")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    (tmp_path / "srs").write_text("secret\n")
    (tmp_path / "batv").write_text("1 secret\n")
    (tmp_path / "aliases").write_text("sales@plain.test: ada\n")
    settings = parse(SETTINGS.format(folder=tmp_path), tmp_path / "postroad.toml", files=False)
    assert not isinstance(settings, list), settings
    found = build(settings)
    assert not isinstance(found, str), found
    found.maps["boxes"].source = Waiting({"shop.test": "1", "away.test": NotNow("it is away")})
    found.maps["boxes"].waits = True
    rules = found.rules(
        options.policy_options(settings, settings.listener[0]), options.listener_options(settings)[0],
        lambda account, address: False,
    )
    found.front = rules  # type: ignore[attr-defined]
    return found


def signed(address: Address) -> Address:
    return srs.forward(address, srs.SrsOptions("srs.test"), b"secret", SystemClock().now_us())


@pytest.mark.parametrize(("sender", "named"), [("info@shop.test", "info@shop.test"), ("eve@far.test", "SRS0=")])
async def test_a_sender_of_ours_by_map_is_not_forwarded_mail(tables: Tables, sender: str, named: str) -> None:
    recipient = Recipient(Address("bob", "remote.test"))
    envelope = Envelope(1, Address(*sender.split("@")), (recipient,), 0, 0, Peer("192.0.2.1", trusted=True))
    found = tables.destination(envelope, recipient)
    assert not isinstance(found, Destination | Attempt)
    assert isinstance(await found, Destination)
    assert tables.outbound is not None
    assert str(tables.outbound(envelope, recipient, FAR).reverse_path).startswith(named)


async def test_mail_waits_while_nobody_knows_whether_its_sender_is_ours(tables: Tables) -> None:
    recipient = Recipient(Address("bob", "remote.test"))
    found = tables.destination(Envelope(1, Address("x", "away.test"), (recipient,), 0, 0), recipient)
    assert not isinstance(found, Destination | Attempt)
    attempt = await found
    assert isinstance(attempt, Attempt) and "away.test is ours is not known" in attempt.text


@pytest.mark.parametrize(
    ("meant", "code"), [("info@shop.test", 0), ("nobody@shop.test", 550), ("x@away.test", 451), ("eve@far.test", 0)]
)
async def test_what_an_srs_address_means_is_looked_up_first(tables: Tables, meant: str, code: int) -> None:
    recipient = signed(Address(*meant.split("@")))
    verdict = tables.front.rcpt(Question(Peer("192.0.2.1"), False, recipient=recipient))  # type: ignore[attr-defined]
    found = verdict if isinstance(verdict, Verdict) else await verdict
    assert (0 if found.action is Action.ACCEPT else found.reply and found.reply.code) == code, found


async def test_a_report_to_a_signed_sender_goes_to_who_is_meant(tables: Tables) -> None:
    tagged = batv.sign(Address("sales", "plain.test"), (1, b"secret"), 7, SystemClock().now_us())
    for sender, meant in ((tagged, "ada@plain.test"), (signed(Address("eve", "far.test")), "eve@far.test")):
        found = tables.expand_at_once(1, 0, (Recipient(sender),))
        assert found is not None
        assert [str(each.address) for each in found.recipients] == [meant]
        assert next(event.recipient for event in found.events if hasattr(event, "recipient")) == str(sender)
    assert tables.expand_at_once(1, 0, (Recipient(Address("bob", "remote.test")),)).events == ()  # type: ignore[union-attr]
