"""Next hops by sender, account and recipient, with two real smart hosts: Postfix, whose accounts Dovecot keeps."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.peers.harness import ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, next_hop, relay_listener, submission_listener
from tests.peers.harness.process import until
from tests.peers.harness.swaks import swaks

_PASSWORD = "correct horse"


class Road(NamedTuple):
    node: Node
    alpha: Postfix
    beta: Postfix


@pytest.fixture(scope="module")
def road(place: Path, authority: Authority) -> Iterator[Road]:
    """Alpha's mail goes to its provider, Beta's to another one, both with their own passwords; the rest to neither."""
    chain, key = authority.certificate("localhost", "127.0.0.1")
    users = ["us@alpha.test", "us@beta.test"]
    with Dovecot(place / "dovecot", users=users) as dovecot:
        alpha, beta = (
            Postfix(place / name, settings={
                "default_transport": "discard:", "smtpd_tls_security_level": "encrypt",
                "myhostname": f"{name}.provider.test", "smtpd_tls_chain_files": f"{key}, {chain}",
                "smtpd_sasl_auth_enable": "yes", "smtpd_sasl_type": "dovecot",
                "smtpd_sasl_path": str(dovecot.auth_path), "mynetworks": "192.0.2.1",
                "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
                "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
            })
            for name in ("alpha", "beta")
        )  # fmt: skip

        def smart(postfix: Postfix, user: str) -> dict[str, object]:
            hop = next_hop("*", postfix.port, tls="verify", username=user, password=Dovecot.password)
            del hop["domain"]
            return hop

        node = Node(place / "node", {
            "workers": 1,
            "listener": [relay_listener(ports.port()), submission_listener(ports.port(), name="login")],
            "tls": {"certificate": str(chain), "key": str(key)},
            "auth": {"users": "users"},
            "next_hop": [
                {**smart(alpha, "us@alpha.test"), "senders": ["alpha.test"],
                 "generic": ["cron@alpha.test robot@example.com", "old@far.test new@far.test"]},
                {**smart(beta, "us@beta.test"), "senders": ["beta.test", "boss@gamma.test"]},
                {**smart(beta, "us@beta.test"), "accounts": ["carol"]},
                {**smart(alpha, "us@alpha.test"), "recipients": ["desk@far.test"]},
            ],
            "outbound": {"tls": {"ca_file": str(authority.file)}},
        })  # fmt: skip
        node.add_user("carol", _PASSWORD, "carol@alpha.test")
        with alpha, beta, node:
            yield Road(node, alpha, beta)


def _send(road: Road, sender: str, recipient: str) -> None:
    with smtplib.SMTP("127.0.0.1", road.node.port, timeout=20) as client:
        client.sendmail(sender, [recipient], "Subject: x\r\n\r\nhello\r\n")


@pytest.mark.parametrize(
    ("sender", "recipient", "provider"),
    [
        ("ada@alpha.test", "one@far.test", "alpha"),
        ("bob@beta.test", "two@far.test", "beta"),
        ("Boss+sales@gamma.test", "three@far.test", "beta"),
        ("bob@beta.test", "desk+q@far.test", "alpha"),  # the recipient counts before the sender
    ],
)
def test_mail_takes_the_smart_host_of_its_sender(road: Road, sender: str, recipient: str, provider: str) -> None:
    _send(road, sender, recipient)
    postfix = road.alpha if provider == "alpha" else road.beta
    user = f"us@{provider}.test"
    road.node.wait_log(f"relayed for <{recipient}>")
    taken = until(lambda: f"to=<{recipient}>" in postfix.log_path.read_text(), f"{recipient} at {provider}")
    assert taken and f"sasl_username={user}" in postfix.log_path.read_text()
    other = road.beta if provider == "alpha" else road.alpha
    assert f"to=<{recipient}>" not in other.log_path.read_text()
    shown = road.node.command("trace", recipient)
    assert f"[127.0.0.1]:{postfix.port}/" in shown, shown
    events = road.node.json("trace", recipient)
    keys = {event["destination"] for event in events[0]["events"] if event.get("destination")}
    assert len(keys) == 1 and next(iter(keys)).startswith(f"[127.0.0.1]:{postfix.port}/"), events


def test_the_account_counts_before_the_sender(road: Road) -> None:
    """A sender can be forged; who has logged in cannot."""
    port = road.node.config["listener"][1]["port"]
    ran = swaks(port, "--tls", "--auth", "PLAIN", "--auth-user", "carol", "--auth-password", _PASSWORD,
                "--from", "carol@alpha.test", "--to", "four@far.test")  # fmt: skip
    assert ran.code == 0, ran.transcript
    until(lambda: "to=<four@far.test>" in road.beta.log_path.read_text(), "four at beta")
    assert "to=<four@far.test>" not in road.alpha.log_path.read_text()


def test_the_provider_hears_other_names_and_the_history_says_so(road: Road) -> None:
    _send(road, "cron+daily@alpha.test", "five@far.test")
    _send(road, "ada@alpha.test", "old@far.test")
    road.node.wait_log("relayed for <five@far.test>")
    road.node.wait_log("relayed for <old@far.test>")
    until(lambda: "from=<robot@example.com>" in road.alpha.log_path.read_text(), "the new sender at alpha")
    until(lambda: "to=<new@far.test>" in road.alpha.log_path.read_text(), "the new recipient at alpha")
    log = road.alpha.log_path.read_text()
    assert "from=<cron" not in log and "to=<old@far.test>" not in log
    assert "sent from <robot@example.com>" in road.node.command("trace", "five@far.test")
    assert "sent to <new@far.test>" in road.node.command("trace", "old@far.test")


def test_what_waits_says_where_it_would_go_by_its_own_sender(road: Road) -> None:
    """The route as it is now is that of the message, not of the recipient alone."""
    road.alpha.stop()
    try:
        _send(road, "ada@alpha.test", "later@far.test")
        until(lambda: "later@far.test" in road.node.command("queue", "--messages"), "the queue")

        def tried() -> bool:
            return ", the last " in road.node.command("queue", "show", "later@far.test", code=None)

        until(tried, "the first attempt")
        shown = road.node.command("queue", "show", "later@far.test")
        assert "with the settings as they are now" not in shown, shown
    finally:
        road.alpha.start()
    road.node.command("queue", "retry", "later@far.test", code=None)  # it may have been tried by itself
    road.node.wait_log("relayed for <later@far.test>")
