"""`postroad queue` and `postroad trace`, while the node runs and while it is down."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.harness import maildir
from tests.peers.harness.postroad import Node, local_domain, next_hop
from tests.peers.harness.process import until
from tests.peers.harness.remote import Dialog, Remote


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    """Takes mail for good recipients, defers all others until a test says otherwise."""
    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        return "450 4.2.0 come back later" if verb == "RCPT" and "<good@" not in argument else None

    with Remote(rule) as remote:
        yield remote


@pytest.fixture(scope="module")
def node(place: Path, remote: Remote) -> Iterator[Node]:
    node = Node(place / "node", {
        "domain": [local_domain("example.test")],
        "next_hop": [next_hop("*", remote.port)],
        "queue": {"retry_first_s": 600, "retry_max_s": 600},
    })
    with node:
        yield node


def _send(node: Node, *to: str, subject: str = "hello") -> str:
    """Sends one message; its queue id, from the 250."""
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.mail("sender@example.test")
        for recipient in to:
            client.rcpt(recipient)
        head = f"Subject: {subject}\r\nMessage-ID: <{subject}@example.test>\r\n"
        code, text = client.data(f"{head}\r\nhello\r\n".encode())
    assert code == 250
    return text.decode().split()[-1]


def _trace(node: Node, what: str, *words: str) -> str:
    """The trace once it holds all `words`."""
    def found() -> str | None:
        text = node.command("trace", what, code=None)
        return text if all(word in text for word in words) else None

    text = until(found, f"{words} in the trace of {what}:\n{node.command('trace', what, code=None)}", pause_s=0.1)
    assert isinstance(text, str)
    return text


def test_the_queue_is_listed_by_destination_and_by_message(node: Node) -> None:
    identifier = _send(node, "a@one.example", "b@two.example", subject="listed")
    _trace(node, identifier, "one.example", "two.example", "450 4.2.0 come back later")
    for text in (node.command("queue"), node.command("queue", "show", identifier)):
        assert "come back later" in text or identifier in text
    shown: Any = node.json("queue", "show", identifier)
    assert "a@one.example" in str(shown) and "b@two.example" in str(shown) and "come back later" in str(shown)


@pytest.mark.parametrize("what", ["id", "message-id", "recipient", "sender"])
def test_a_message_is_traced_by_each_of_its_names(node: Node, what: str) -> None:
    identifier = _send(node, f"good@{what}.example", subject=f"traced-{what}")
    name = {"id": identifier, "message-id": f"<traced-{what}@example.test>", "recipient": f"good@{what}.example",
            "sender": "sender@example.test"}[what]
    text = _trace(node, name, identifier, f"good@{what}.example", "250 2.0.0 taken")
    assert "127.0.0.1" in text


def test_the_history_is_read_while_the_node_is_down(node: Node) -> None:
    done = _send(node, "good@down.example", subject="done")
    _trace(node, done, "250 2.0.0 taken")
    waits = _send(node, "slow@down.example", subject="waits")
    _trace(node, waits, "450 4.2.0 come back later")
    node.stop()
    assert "250 2.0.0 taken" in node.command("trace", done)
    assert waits in node.command("queue", "show", waits) and "slow@down.example" in node.command("queue", "show", waits)
    node.command("queue", "hold", waits)
    node.start()
    assert "held" in node.command("queue", "show", waits).lower()


def test_hold_release_retry(node: Node, remote: Remote) -> None:
    identifier = _send(node, "slow@hold.example", subject="held")
    _trace(node, identifier, "come back later")
    node.command("queue", "hold", identifier)
    assert "held" in node.command("queue", "show", identifier).lower()
    rule, remote.rule = remote.rule, lambda dialog, verb, argument: None
    try:
        node.command("queue", "retry", identifier, code=None)
        node.command("queue", "release", identifier)
        node.command("queue", "retry", identifier, code=None)
        remote.wait_for(lambda each: b"Subject: held" in each.content)
    finally:
        remote.rule = rule
    _trace(node, identifier, "250 2.0.0 taken")


def test_remove_says_what_it_would_do_and_does_it(node: Node) -> None:
    identifier = _send(node, "slow@remove.example", subject="removed")
    _trace(node, identifier, "come back later")
    node.command("queue", "remove", identifier, "--dry-run")
    assert identifier in node.command("queue", "show", identifier)
    node.command("queue", "remove", identifier)
    _trace(node, identifier, "removed")
    assert not [each for each in maildir.raw(node.maildir("sender@example.test")) if b"slow@remove.example" in each]


def test_fail_tells_the_sender(node: Node) -> None:
    identifier = _send(node, "slow@fail.example", subject="failed")
    _trace(node, identifier, "come back later")
    node.command("queue", "fail", identifier)
    report = maildir.wait(node.maildir("sender@example.test"), of="slow@fail.example")[0]
    assert b"Action: failed" in report


def test_a_whole_destination_is_removed_at_once(node: Node) -> None:
    identifiers = [_send(node, f"slow{number}@whole.example", subject=f"whole-{number}") for number in range(5)]
    for identifier in identifiers:
        _trace(node, identifier, "come back later")
    node.command("queue", "remove", "--recipient", "slow0@whole.example", code=None)
    for identifier in identifiers:
        node.command("queue", "remove", identifier, code=None)
    until(lambda: "whole.example" not in node.command("queue"), "nothing of whole.example waits", pause_s=0.2)


def test_what_is_unknown_is_said(node: Node) -> None:
    assert "no" in node.command("trace", "nobody@nowhere.example", code=1).lower()
