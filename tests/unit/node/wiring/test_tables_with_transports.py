"""Transport maps in the tables of a node: destinations, refusals at RCPT, what a message demands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from postroad.config import options
from postroad.config.load import parse
from postroad.config.settings import Settings
from postroad.mail.address import Address
from postroad.mail.attempt import Attempt
from postroad.mail.envelope import Envelope, Peer, Recipient
from postroad.mail.policy import Question, Verdict
from postroad.mail.route import Destination
from postroad.mail.routing import key_of
from postroad.maps.face import MapSource, NotNow
from postroad.node.wiring.tables import Tables, build
from tests.unit.maps.fakes import Fixed, Waiting

SETTINGS = """
hostname = "mx.home.test"
state_dir = "state"
[routing]
transport_maps = ["routes"]
[[listener]]
name = "front"
role = "relay"
address = "127.0.0.1"
port = 2525
trusted_networks = ["192.0.2.1"]
[[domain]]
name = "box.test"
recipients = ["ada", "gone", "-x", "-y"]
path = "{folder}/{{domain}}/{{local_part}}"
[relay]
domains = ["behind.test"]
[[next_hop]]
name = "isp"
host = "isp.test"
username = "us"
password = "secret"
tls = "verify"
[[map]]
name = "routes"
kind = "static"
value = "x"
"""
VALUES: dict[str, str | NotNow | None] = {
    "far.test": "smtp:[one.test]",
    "gone@box.test": "error:5.1.6 moved to ada@new.test",
    "-y@box.test": "lmtp:unix:/run/lmtp",
    "gone@behind.test": "error:not here",
    "wait@behind.test": "retry:later",
    "odd@behind.test": "nothing:",
    "nobody@box.test": "smtp:[one.test]",
    "gone.test": "error:",
    "away.test": NotNow("map routes: away"),
    "isp.test": "next_hop:isp",
}


@pytest.fixture
def made(tmp_path: Path) -> Callable[[type[Fixed | Waiting]], tuple[Settings, Tables]]:
    def make(kind: type[Fixed | Waiting]) -> tuple[Settings, Tables]:
        settings = parse(SETTINGS.format(folder=tmp_path), tmp_path / "postroad.toml", files=False)
        assert not isinstance(settings, list), settings
        found = build(settings)
        assert not isinstance(found, str), found
        source: MapSource = kind(VALUES)  # type: ignore[assignment, arg-type]
        found.maps["routes"].source, found.maps["routes"].waits = source, source.waits
        return settings, found

    return make


Made = Callable[[type[Fixed | Waiting]], tuple[Settings, Tables]]


def rcpt(made: tuple[Settings, Tables], mailbox: str) -> str:
    settings, tables = made
    (listener,) = options.listener_options(settings)
    rule = tables.rules(options.policy_options(settings, settings.listener[0]), listener, lambda *_: False).rcpt
    assert rule is not None
    local_part, _, domain = mailbox.rpartition("@")
    verdict = rule(Question(Peer(address="192.0.2.1"), trusted=True, recipient=Address(local_part, domain)))
    assert isinstance(verdict, Verdict)
    return str(verdict.reply) if verdict.reply is not None else "ok"


@pytest.mark.parametrize(
    ("mailbox", "answer", "answer_if_waiting"),
    [
        ("ada@far.test", "ok", "ok"),
        ("ada@box.test", "ok", "ok"),
        ("nobody@box.test", "550 5.1.1", "550 5.1.1"),  # a map does not make a recipient
        ("gone@box.test", "550 5.1.6", "ok"),
        ("-x@box.test", "550 5.1.3", "ok"),  # no name for a Maildir; a map that waits may send it elsewhere
        ("-y@box.test", "ok", "ok"),
        ("gone@behind.test", "550 5.0.0", "ok"),
        ("x@gone.test", "550 5.0.0", "ok"),
        ("wait@behind.test", "ok", "ok"),
        ("odd@behind.test", "ok", "ok"),
        ("x@away.test", "ok", "ok"),
        ("postmaster@box.test", "ok", "ok"),
    ],
)
async def test_at_rcpt(made: Made, mailbox: str, answer: str, answer_if_waiting: str) -> None:
    assert rcpt(made(Fixed), mailbox).startswith(answer)
    assert rcpt(made(Waiting), mailbox).startswith(answer_if_waiting)


def test_the_reply_has_the_text_of_the_map(made: Made) -> None:
    assert "moved to ada@new.test" in rcpt(made(Fixed), "gone@box.test")


@pytest.mark.parametrize("kind", [Fixed, Waiting])
async def test_a_message_with_demands(made: Made, kind: type[Fixed | Waiting]) -> None:
    """REQUIRETLS goes with what a map says, also if it had to be waited for; nothing begins before."""
    _, tables = made(kind)
    envelope = Envelope(1, Address("a", "b.test"), (), 0, 0, Peer(), parameters=(("REQUIRETLS", ""),))
    answer = tables.destination(envelope, Recipient(Address("x", "far.test")))
    found = answer if isinstance(answer, Destination | Attempt) else await answer
    assert isinstance(found, Destination) and found.require_tls and found.key == "[one.test]:25/requiretls"
    key_of(tables.destination(envelope, Recipient(Address("x", "far.test"))))  # no coroutine is left behind


async def test_a_named_next_hop_has_its_account(made: Made) -> None:
    _, tables = made(Fixed)
    found = tables.destination(Envelope(1, None, (), 0, 0), Recipient(Address("x", "isp.test")))
    assert isinstance(found, Destination) and found.credentials in tables.credentials
    assert found.key == "[isp.test]:25/next_hop:isp"
    other = tables.destination(Envelope(1, None, (), 0, 0), Recipient(Address("x", "other.test")))
    assert key_of(other) == "other.test"  # a table that has only a name takes no other mail
