"""Mailboxes that have moved, beside Postfix: aliases, copies and clients that may send everywhere."""

from __future__ import annotations

import email
import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, relay_listener
from tests.peers.harness.remote import Remote, Transaction

pytestmark = pytest.mark.peer

ALIASES = [
    "two@va.example gone@rel.example, here@rel.example", "gone@va.example here@rel.example",
    "pair@va.example moved@far.example, gone@rel.example", "one@va.example gone@rel.example",
]  # fmt: skip
MOVED = [
    "gone@rel.example gone@new.example", "gone@va.example else@new.example", "moved@far.example the archive",
    "bcc@rel.example bcc@new.example",
]  # fmt: skip


@pytest.fixture(scope="module")
def both(place: Path) -> Iterator[dict[str, tuple[int, Remote]]]:
    def inline(entries: list[str]) -> str:
        return "inline:{ " + " ".join(f"{{ {' = '.join(entry.split(None, 1))} }}" for entry in entries) + " }"

    with Remote(port=ports.port()) as one, Remote(port=ports.port()) as other:
        postfix = Postfix(place / "postfix", settings={
            "relayhost": f"[127.0.0.1]:{one.port}", "relay_domains": "rel.example",
            "virtual_alias_domains": "va.example", "virtual_alias_maps": inline(ALIASES),
            "relocated_maps": inline(MOVED), "always_bcc": "bcc@rel.example",
        })  # fmt: skip
        (place / "postroad").mkdir()
        node = Node(place / "postroad", {
            "alias_maps": ["virtual"], "postmaster": "boss@rel.example",
            "domain": [{"name": "va.example", "deliver": "aliases"}],
            "relay": {"domains": ["rel.example"]},
            "rewrite": {"relocated_maps": ["relocated"], "relocated_reply": "550", "always_bcc": "bcc@rel.example"},
            "map": [
                {"name": "virtual", "kind": "inline", "entries": ALIASES},
                {"name": "relocated", "kind": "inline", "entries": MOVED},
            ],
            "next_hop": [{"domain": "*", "host": "127.0.0.1", "port": other.port}],
            "listener": [relay_listener(ports.port())],
        })  # fmt: skip
        with postfix, node:
            yield {"postfix": (postfix.port, one), "postroad": (node.port, other)}


@pytest.mark.parametrize(("recipient", "text"), [
    ("gone@rel.example", "User has moved to gone@new.example"), ("moved@far.example", "User has moved to the archive"),
    ("gone@va.example", ""), ("two@va.example", ""), ("pair@va.example", ""), ("here@rel.example", ""),
])  # fmt: skip
def test_the_same_at_rcpt(both: dict[str, tuple[int, Remote]], recipient: str, text: str) -> None:
    for port, _ in both.values():
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.ehlo("localhost")
            client.mail("x@y.example")
            code, said = client.rcpt(recipient)
            assert code == (550 if text else 250)
            assert text.encode() in said


def test_an_alias_with_one_target_is_refused_at_once(both: dict[str, tuple[int, Remote]]) -> None:
    """Postfix takes the mail and sends a report, to whatever sender the client named."""
    found = []
    for port, _ in both.values():
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.ehlo("localhost")
            client.mail("x@y.example")
            found.append(client.rcpt("one@va.example")[0])
    assert found == [250, 550]


def test_the_same_reports_and_deliveries(both: dict[str, tuple[int, Remote]]) -> None:
    """Two members have moved, one is there; a copy that fails is no news for the sender."""
    found = []
    for port, remote in both.values():
        before = len(remote.transactions)
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.ehlo("localhost")
            recipients = ["two@va.example", "pair@va.example"]
            assert client.sendmail("x@y.example", recipients, "Subject: x\r\n\r\nhello\r\n") == {}
        taken = remote.wait(before + 2)[before:]
        (report,) = [each for each in taken if "<>" in each.mail]
        others = [(rcpt.split()[0]) for each in taken if each is not report for rcpt in each.rcpt]
        found.append((others, report.rcpt[0].split()[0], _reported(report)))
    assert found[0] == found[1]
    assert found[0][0] == ["TO:<here@rel.example>"]
    assert len(found[0][2]) == 2


def _reported(report: Transaction) -> set[tuple[str, str]]:
    """Status and text of each recipient that the report tells of. (Postfix names the target of the alias, and we the
    recipient that the client named.)"""
    (part,) = [
        each for each in email.message_from_bytes(report.content).walk()
        if each.get_content_type() == "message/delivery-status"
    ]  # fmt: skip
    text = part.as_string()
    found = set()
    for block in text.split("\n\n"):
        status = re.search(r"Status: (\S+)", block)
        moved = re.search(r"User has moved to ([^\n]+)", block)
        if status is not None:
            found.add((status[1], moved[1] if moved else ""))
    return found
