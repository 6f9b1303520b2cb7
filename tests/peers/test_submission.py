"""Users hand in mail with swaks and with Python's smtplib: STARTTLS, implicit TLS, AUTH, sender addresses, repairs."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.postroad import Node, local_domain, mx_listener, submission_listener
from tests.peers.harness.swaks import swaks

_PASSWORD = "correct horse"
_LOGIN = ("--auth-user", "alice", "--auth-password", _PASSWORD)


@pytest.fixture(scope="module")
def node(place: Path, authority: Authority) -> Iterator[Node]:
    chain, key = authority.certificate("postroad.test", "localhost", "127.0.0.1")
    node = Node(place / "node", {
        "listener": [
            submission_listener(ports.port()),
            submission_listener(ports.port(), name="submissions", tls="implicit"),
            mx_listener(ports.port()),
        ],
        "tls": {"certificate": str(chain), "key": str(key)},
        "auth": {"users": "users", "failure_delay_s": 0},
        "domain": [local_domain("example.test")],
    })
    node.add_user("alice", _PASSWORD, "alice@example.test", "sales@example.test")
    with node:
        yield node


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_submits_with_starttls_and_auth(node: Node, mechanism: str) -> None:
    ran = swaks(
        node.port, "--tls", "--tls-verify", "--tls-ca-path", str(_authority_file(node)), "--auth", mechanism, *_LOGIN,
        "--from", "alice@example.test", "--to", f"swaks-{mechanism.lower()}@example.test", "--h-Subject", "from swaks",
    )
    assert ran.code == 0, ran.transcript
    message = maildir.parse(maildir.wait(node.maildir(f"swaks-{mechanism.lower()}@example.test"))[0])
    assert message["Subject"] == "from swaks"
    # RFC 3848: ESMTPSA for a session with TLS and authentication.
    assert " with ESMTPSA id " in message["Received"]
    assert message["Return-Path"] == "<alice@example.test>"


def _authority_file(node: Node) -> Path:
    return Path(node.config["tls"]["certificate"]).parent.parent / "authority.pem"


def test_smtplib_submits_with_starttls_and_login(node: Node, authority: Authority) -> None:
    with smtplib.SMTP("localhost", node.port, timeout=20) as client:
        client.ehlo("client.test")
        assert not client.has_extn("AUTH"), "AUTH is offered under TLS only"
        client.starttls(context=authority.client_context())
        client.login("alice", _PASSWORD)
        content = "Subject: smtplib\r\n\r\nhello\r\n.dot\r\n..dots\r\n"
        client.sendmail("sales@example.test", ["lib@example.test"], content)
    octets = maildir.wait(node.maildir("lib@example.test"))[0]
    assert octets.replace(b"\r\n", b"\n").endswith(b"\n\nhello\n.dot\n..dots\n")


def test_smtplib_submits_over_implicit_tls_and_many_on_one_connection(node: Node, authority: Authority) -> None:
    port = node.config["listener"][1]["port"]
    with smtplib.SMTP_SSL("localhost", port, context=authority.client_context(), timeout=20) as client:
        client.login("alice", _PASSWORD)
        for number in range(20):
            client.sendmail("alice@example.test", ["many@example.test"], f"Subject: {number}\r\n\r\nhello\r\n")
    found = maildir.wait(node.maildir("many@example.test"), 20)
    assert sorted(int(maildir.parse(each)["Subject"]) for each in found) == list(range(20))


def test_a_submitted_message_gets_the_fields_that_it_lacks(node: Node, authority: Authority) -> None:
    """RFC 6409 §8: Date, Message-ID and From may be added."""
    with smtplib.SMTP("localhost", node.port, timeout=20) as client:
        client.starttls(context=authority.client_context())
        client.login("alice", _PASSWORD)
        client.sendmail("alice@example.test", ["bare@example.test"], "Subject: bare\r\n\r\nno more\r\n")
    message = maildir.parse(maildir.wait(node.maildir("bare@example.test"))[0])
    assert message["Date"].datetime is not None
    assert message["From"].addresses[0].addr_spec == "alice@example.test"
    assert message["Message-ID"].endswith("@postroad.test>")


@pytest.mark.parametrize(
    ("arguments", "reply"),
    [
        (("--tls", "--auth", "PLAIN", "--auth-user", "alice", "--auth-password", "wrong"), "535 5.7.8"),
        (("--tls", "--auth", "PLAIN", "--auth-user", "nobody", "--auth-password", "wrong"), "535 5.7.8"),
        (("--tls",), "530 5.7.0"),  # RFC 4954 §6: authentication required
        ((), "530 5.7.0"),
        (("--tls", "--auth", "LOGIN", *_LOGIN, "--from", "boss@example.test"), "5.7.1"),  # not alice's address
    ],
)
def test_what_a_user_may_not_do_is_refused(node: Node, arguments: tuple[str, ...], reply: str) -> None:
    defaults = () if "--from" in arguments else ("--from", "alice@example.test")
    ran = swaks(node.port, *arguments, *defaults, "--to", "lib@example.test")
    assert ran.code != 0
    assert any(reply in line and line[0] == "5" for line in ran.replies()), ran.transcript


def test_an_mx_listener_takes_only_mail_for_our_domains(node: Node) -> None:
    port = node.config["listener"][2]["port"]
    assert swaks(port, "--tls", "--from", "a@b.test", "--to", "in@example.test").code == 0
    refused = swaks(port, "--from", "a@b.test", "--to", "x@elsewhere.test")
    assert any(line.startswith("550 5.7.1") for line in refused.replies()), refused.transcript
    # An mx listener changes nothing but adds trace fields (RFC 5321 §6.4).
    message = maildir.parse(maildir.wait(node.maildir("in@example.test"))[0])
    assert " with ESMTPS id " in message["Received"] and "for <in@example.test>" in message["Received"]


def test_an_account_added_while_the_node_runs_may_submit_at_once(node: Node, authority: Authority) -> None:
    node.add_user("bob@example.test", "bobs")
    with smtplib.SMTP("localhost", node.port, timeout=20) as client:
        client.starttls(context=authority.client_context())
        client.login("bob@example.test", "bobs")
        client.sendmail("bob@example.test", ["new@example.test"], "Subject: new\r\n\r\nhello\r\n")
    assert maildir.wait(node.maildir("new@example.test"))
    assert {entry["name"] for entry in node.json("user", "list")} == {"alice", "bob@example.test"}
