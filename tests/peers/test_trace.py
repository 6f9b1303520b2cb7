"""`postroad trace` of mail and log-ins that were refused, with swaks as the client."""

from __future__ import annotations

import json
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postroad import Node, local_domain, mx_listener, submission_listener
from tests.peers.harness.process import until
from tests.peers.harness.swaks import swaks

_PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def node(place: Path, authority: Authority) -> Iterator[Node]:
    chain, key = authority.certificate("postroad.test", "localhost", "127.0.0.1")
    node = Node(place / "node", {
        "listener": [mx_listener(ports.port()), submission_listener(ports.port())],
        "tls": {"certificate": str(chain), "key": str(key)},
        "auth": {"users": "users", "failure_delay_s": 0},
        "limits": {"size_max": 65_536, "header_size_max": 65_536},
        "domain": [{**local_domain("example.test"), "recipients": ["ada", "bob"]}],
    })
    node.add_user("ada", _PASSWORD, "ada@example.test")
    with node:
        yield node


def refusals(node: Node, what: str, count: int) -> list[Any]:
    """The events of what became no message, once there are `count` of them."""

    def found() -> list[Any]:
        trails = json.loads(node.command("trace", what, "--json", code=None).split("\n", 1)[0])
        events = [event for each in trails if not each["id"] for event in each["events"]]
        return events if len(events) >= count else []

    return until(found, f"{count} refusals of {what}\n{node.log()}", pause_s=0.2)


def test_a_recipient_that_does_not_exist(node: Node) -> None:
    ran = swaks(node.port, "--from", "stranger@else.test", "--to", "ghost@example.test")
    assert ran.code != 0
    for what in ("stranger@else.test", "ghost@example.test"):
        (event,) = refusals(node, what, 1)
        assert event["reply"].startswith("550 5.1.1 ") and event["phase"] == "RCPT"
        assert event["recipient"] == "ghost@example.test" and event["reverse_path"] == "stranger@else.test"
    shown = node.command("trace", "ghost@example.test")
    assert "No message" in shown and "a client that was answered 5xx does not try again" in shown


def test_content_that_is_refused_names_the_recipients(node: Node) -> None:
    body = "x" * 70 + "\n"
    ran = swaks(node.port, "--from", "big@else.test", "--to", "ada@example.test,bob@example.test",
                "--body", body * 1500)  # fmt: skip
    assert "552 5.3.4" in ran.transcript, ran.transcript
    (event,) = refusals(node, "big@else.test", 1)
    assert event["phase"] == "DATA" and event["recipients"] == ["ada@example.test", "bob@example.test"]
    node.wait_log("for <ada@example.test>, <bob@example.test>")
    assert refusals(node, "bob@example.test", 1) == [event]


def test_a_size_that_is_refused_at_mail(node: Node) -> None:
    """swaks does not announce a size; smtplib does."""
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo("client.test")
        assert client.mail("huge@else.test", ["SIZE=70000"])[0] == 552
    (event,) = refusals(node, "huge@else.test", 1)
    assert (event["phase"], event["reply"][:9]) == ("MAIL", "552 5.3.4")
    assert "552 5.3.4" in node.command("trace", "huge@else.test")


def test_a_log_in_that_fails_is_found_by_account_and_by_client(node: Node) -> None:
    port = int(node.config["listener"][1]["port"])
    login = ("--tls", "--auth", "PLAIN", "--auth-user", "ada", "--from", "ada@example.test", "--to", "bob@example.test")
    assert swaks(port, *login, "--auth-password", "wrong").code != 0
    (event,) = refusals(node, "ada", 1)
    assert event["phase"] == "AUTH" and event["reply"].startswith("535 ") and event["reason"] == "ada"
    assert event in refusals(node, "127.0.0.1", 1)
    ran = swaks(port, *login, "--auth-password", _PASSWORD)
    assert ran.code == 0, ran.transcript
    maildir.wait(node.maildir("bob@example.test"))
    node.wait_trace("ada", "delivered")
    accepted = [each for each in node.json("trace", "ada") if each["id"]]
    assert [each["recipients"][0]["recipient"] for each in accepted] == ["bob@example.test"]
    assert accepted == [each for each in node.json("trace", "127.0.0.1") if each["id"]]


def test_what_was_never_here(node: Node) -> None:
    said = node.command("trace", "nobody@nowhere.test", code=1)
    assert "Nothing is known about nobody@nowhere.test." in said and "`postroad trace IP-ADDRESS`" in said
