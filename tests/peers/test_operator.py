"""`postroad queue` and `postroad trace`, while the node runs and while it is down, as text and as JSON."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.harness import dsn, maildir, ports
from tests.peers.harness.postroad import Node, local_domain, next_hop
from tests.peers.harness.process import until
from tests.peers.harness.remote import Dialog, Remote

_LATER = "450 4.2.0 come back later"


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    """Takes mail for good recipients and defers all others, until a test says otherwise."""
    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        return _LATER if verb == "RCPT" and "<good@" not in argument else None

    with Remote(rule, port=ports.port()) as remote:
        yield remote


@pytest.fixture(scope="module")
def node(place: Path, remote: Remote) -> Iterator[Node]:
    node = Node(place / "node", {
        "domain": [local_domain("example.test")],
        "next_hop": [next_hop("*", remote.port)],
        "queue": {"retry_first_s": 600, "retry_max_s": 600, "backoff_first_s": 600, "backoff_max_s": 600},
    })
    with node:
        yield node


def _send(node: Node, *to: str, subject: str) -> str:
    """Sends one message and waits until all its recipients had an attempt; its queue id, from the 250."""
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.mail("sender@example.test")
        for recipient in to:
            client.rcpt(recipient)
        head = f"Subject: {subject}\r\nMessage-ID: <{subject}@example.test>\r\n"
        code, text = client.data(f"{head}\r\nhello\r\n".encode())
    assert code == 250
    identifier = text.decode().split()[-1]
    for recipient in to:
        node.wait_log(f"{identifier} {'relayed' if recipient.startswith('good@') else 'deferred'} for")
    return identifier


def _waiting(node: Node, identifier: str) -> list[dict[str, Any]]:
    """What `queue show` says of the recipients that wait."""
    (shown,) = node.json("queue", "show", identifier)
    recipients: list[dict[str, Any]] = shown["message"]["recipients"]
    return recipients


def test_the_queue_is_listed_by_destination_and_by_message(node: Node, remote: Remote) -> None:
    identifier = _send(node, "slow@listed.example", "good@listed.example", subject="listed")
    (destination,) = node.json("queue")
    assert destination["destination"] == f"[127.0.0.1]:{remote.port}"
    assert destination["count"] >= 1 and destination["reason"] == _LATER
    (message,) = node.json("queue", "--messages", "--to", "@listed.example")
    assert message["id"] == identifier and message["reverse_path"] == "sender@example.test"
    (waiting,) = message["recipients"]
    assert waiting["recipient"] == "slow@listed.example" and waiting["attempts"] == 1
    assert waiting["next"] > waiting["last"] and waiting["reason"] == _LATER
    text = node.command("queue", "--messages")
    assert identifier in text and "slow@listed.example" in text and _LATER in text


def test_a_message_is_traced_by_each_of_its_names(node: Node) -> None:
    identifier = _send(node, "good@traced.example", "slow@traced.example", subject="traced")
    for name in (identifier, "<traced@example.test>"):
        (traced,) = node.json("trace", name)
        assert traced["id"] == identifier
        assert [event["kind"] for event in traced["events"]] == ["accepted", "attempted", "attempted"]
        assert {each["recipient"]: each["fate"] for each in traced["recipients"]} == {
            "good@traced.example": "relayed", "slow@traced.example": "waiting",
        }
    for address in ("slow@traced.example", "sender@example.test"):
        assert identifier in [each["id"] for each in node.json("trace", address)]
    text = node.command("trace", identifier)
    assert all(words in text for words in ("250 2.0.0 taken", _LATER, "127.0.0.1", "will be tried at"))


def test_all_is_read_and_held_while_the_node_is_down(node: Node) -> None:
    done = _send(node, "good@down.example", subject="done")
    waits = _send(node, "slow@down.example", subject="waits")
    node.stop()
    assert "250 2.0.0 taken" in node.command("trace", done)
    assert _waiting(node, waits)[0]["state"] == "waiting"
    node.command("queue", "hold", waits)
    node.start()
    assert _waiting(node, waits)[0]["state"] == "held"


def test_hold_release_and_retry(node: Node, remote: Remote) -> None:
    held = _send(node, "slow@hold.example", subject="held")
    waits = _send(node, "slow@wait.example", subject="waiting")
    node.command("queue", "hold", held)
    rule, remote.rule = remote.rule, lambda dialog, verb, argument: None
    try:
        (row,) = node.json("queue", "retry", waits)
        assert row["done"] and row["id"] == waits
        remote.wait_for(lambda each: b"Subject: waiting" in each.content)
        assert not any(b"Subject: held" in each.content for each in remote.transactions)
        node.command("queue", "release", held)
        remote.wait_for(lambda each: b"Subject: held" in each.content)
    finally:
        remote.rule = rule
    node.wait_log(f"{held} relayed for")
    kinds = [event["kind"] for event in node.json("trace", held)[0]["events"]]
    assert kinds == ["accepted", "attempted", "held", "released", "attempted"]


def test_remove_says_what_it_would_do_and_does_it_without_telling_the_sender(node: Node) -> None:
    identifiers = {_send(node, f"slow{number}@whole.example", subject=f"whole-{number}") for number in range(3)}
    would = node.json("queue", "remove", "@whole.example", "--dry-run")
    assert {row["id"] for row in would} == identifiers
    assert {each["id"] for each in node.json("queue", "--messages", "--to", "@whole.example")} == identifiers
    done = node.json("queue", "remove", "@whole.example", "--reason", "a test")
    assert {row["id"] for row in done if row["done"]} == identifiers
    assert node.json("queue", "--messages", "--to", "@whole.example") == []
    assert node.json("trace", identifiers.pop())[0]["recipients"][0]["fate"] == "removed"
    assert not [each for each in maildir.raw(node.maildir("sender@example.test")) if b"@whole.example" in each]


def test_fail_tells_the_sender(node: Node) -> None:
    identifier = _send(node, "slow@fail.example", subject="failed")
    node.command("queue", "fail", identifier)
    (report,) = dsn.wait(node.maildir("sender@example.test"), "slow@fail.example")
    assert report.recipients[0]["Action"] == "failed"


def test_what_is_unknown_is_said(node: Node) -> None:
    assert "no" in node.command("trace", "nobody@nowhere.example", code=1).lower()


def test_the_route_as_it_is_now_is_shown_beside_the_one_that_was_tried(node: Node) -> None:
    name = _send(node, "slow@route.example", subject="route")
    until(lambda: node.json("queue", "show", name)[0]["message"]["recipients"][0]["destination"], "it was tried")
    before = node.json("queue", "show", name)[0]["message"]["recipients"][0]
    assert before["route"] == before["destination"]
    hops = list(node.config["next_hop"])
    try:
        node.config["next_hop"] = [next_hop("route.example", 1), *hops]
        node.write()
        node.command("reload")
        now = node.json("queue", "show", name)[0]["message"]["recipients"][0]
        assert (now["destination"], now["route"]) == (before["destination"], "[127.0.0.1]:1")
        assert "the settings now send it to [127.0.0.1]:1" in node.command("trace", name)
        assert "goes to [127.0.0.1]:1 now" in node.command("queue", "--messages")
    finally:
        node.config["next_hop"] = hops
        node.write()
        node.command("reload")
        node.command("queue", "remove", name)
