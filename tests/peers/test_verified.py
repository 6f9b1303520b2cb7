"""Recipients that only the next hop knows: a node asks a real Postfix, and a server that a test makes odd."""

from __future__ import annotations

import smtplib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.harness import ports
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, mx_listener, next_hop
from tests.peers.harness.process import until
from tests.peers.harness.remote import DROP, Dialog, Remote

pytestmark = pytest.mark.peer

DOMAIN = "behind.example"


def _node(folder: Path, port: int, **verify: Any) -> Node:
    relayed = {"name": DOMAIN, "recipients": ["boss"], "verify": True}
    verify = {"wait_s": 25, **verify}
    return Node(folder, {
        "workers": 1, "listener": [mx_listener(ports.port(), tls="none")],
        "relay": {"domain": [relayed]}, "next_hop": [next_hop(DOMAIN, port)], "verify": verify,
    })  # fmt: skip


def _rcpt(node: Node, recipient: str) -> tuple[int, str]:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=40) as client:
        client.ehlo()
        client.mail("sender@far.example")
        code, text = client.rcpt(recipient)
        return code, text.decode()


@pytest.fixture
def postfix(place: Path) -> Iterator[Postfix]:
    made = Postfix(place / "postfix", settings={
        "virtual_mailbox_domains": DOMAIN, "virtual_mailbox_maps":
            "inline:{ada@behind.example=x, eve@behind.example=x}",
        "virtual_mailbox_base": str(place), "default_transport": "discard:", "virtual_transport": "discard:",
    })  # fmt: skip
    made.start()
    yield made
    made.stop()


def test_a_real_next_hop_says_who_exists(postfix: Postfix, place: Path) -> None:
    node = _node(place / "node1", postfix.port)
    with node:
        assert _rcpt(node, f"ada@{DOMAIN}")[0] == 250
        assert _rcpt(node, f"nobody@{DOMAIN}") == (550, f"5.1.1 <nobody@{DOMAIN}>: no such user here")
        node.wait_log("User unknown in virtual mailbox table")
        postfix.stop()
        assert _rcpt(node, f"Ada@{DOMAIN}")[0] == 250  # from memory
        assert _rcpt(node, f"nobody@{DOMAIN}")[0] == 550
        assert _rcpt(node, f"boss@{DOMAIN}")[0] == 250  # nobody need be asked
        code, text = _rcpt(node, f"eve@{DOMAIN}")
        assert code == 450 and "cannot be verified now" in text
        listed = {each["mailbox"]: each["found"] for each in node.json("verified")}
        assert listed == {f"ada@{DOMAIN}": True, f"nobody@{DOMAIN}": False}
        node.restart()
        assert _rcpt(node, f"ada@{DOMAIN}")[0] == 250  # from the disk
        assert _rcpt(node, f"nobody@{DOMAIN}")[0] == 550
        postfix.start()
        assert "1 answer forgotten" in node.command("verified", "forget", f"nobody@{DOMAIN}")
        assert _rcpt(node, f"eve@{DOMAIN}")[0] == 250
        assert _rcpt(node, f"nobody@{DOMAIN}")[0] == 550
        node.wait_log(f"<nobody@{DOMAIN}> does not exist")


def test_the_question_has_no_content_and_the_sender_that_is_set(place: Path) -> None:
    with Remote() as remote:
        node = _node(place / "node2", remote.port, sender="check@far.example")
        with node:
            assert _rcpt(node, f"ada@{DOMAIN}")[0] == 250
            until(lambda: "QUIT" in remote.counts, "the question has ended")
        assert remote.counts.get("DATA", 0) == 0 and remote.counts["RCPT"] == 1
        assert "check@far.example" in remote.dialogs[0].lines[1]


def test_what_is_no_answer_about_the_recipient_refuses_nobody(place: Path) -> None:
    said = {"MAIL": "250 2.1.0 ok", "RCPT": "250 2.1.5 ok", "CONNECT": "220 here"}

    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        return said.get(verb)

    with Remote(rule) as remote:
        node = _node(place / "node3", remote.port, not_known_s=0)
        with node:
            for verb, reply in (
                ("RCPT", "451 4.7.1 greylisted"), ("MAIL", "550 5.7.1 we do not like your sender"),
                ("CONNECT", "554 5.3.2 no service"), ("RCPT", DROP), ("CONNECT", DROP),
            ):  # fmt: skip
                before = said[verb]
                said[verb] = reply
                assert _rcpt(node, f"ada@{DOMAIN}")[0] == 450, (verb, reply)
                said[verb] = before
                node.restart()
            assert _rcpt(node, f"ada@{DOMAIN}")[0] == 250


def test_a_slow_next_hop_keeps_nobody_waiting_and_its_answer_counts_later(place: Path) -> None:
    gate = threading.Event()

    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        if verb == "RCPT":
            gate.wait(30)
        return None

    with Remote(rule) as remote:
        node = _node(place / "node4", remote.port, wait_s=0.2)
        with node:
            assert _rcpt(node, f"ada@{DOMAIN}")[0] == 450
            assert _rcpt(node, f"ada@{DOMAIN}")[0] == 450  # the same question
            gate.set()
            until(lambda: _rcpt(node, f"ada@{DOMAIN}")[0] == 250, "the answer has come", pause_s=0.2)
            assert remote.counts["RCPT"] == 1


@pytest.mark.parametrize(("not_known", "code"), [("defer", 450), ("accept", 250)])
def test_strangers_cannot_have_the_node_ask_without_end(place: Path, not_known: str, code: int) -> None:
    with Remote() as remote:
        node = _node(place / f"node5-{not_known}", remote.port, client_max=3, not_known=not_known)
        with node:
            codes = [_rcpt(node, f"user{number}@{DOMAIN}")[0] for number in range(6)]
            assert codes == [250, 250, 250, code, code, code]
            assert remote.counts["RCPT"] == 3


def test_a_real_lmtp_server_says_who_exists(place: Path) -> None:
    with Dovecot(place / "dovecot", users=["ada@imap.example"]) as dovecot:
        node = Node(place / "node6", {
            "workers": 1, "listener": [mx_listener(ports.port(), tls="none")],
            "domain": [{"name": "imap.example", "deliver": "lmtp", "socket": str(dovecot.lmtp_path), "verify": True}],
        })  # fmt: skip
        with node:
            assert _rcpt(node, "ada@imap.example")[0] == 250
            assert _rcpt(node, "nobody@imap.example")[0] == 550
