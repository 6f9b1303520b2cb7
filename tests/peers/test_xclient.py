"""XCLIENT as we say it: Dovecot (LMTP) and Postfix treat our connection as that of the client a message came from."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.postfix import Postfix, maildir_settings
from tests.peers.harness.postroad import Node, local_domain, next_hop, relay_listener
from tests.peers.harness.process import own_to, until


@dataclass(frozen=True)
class World:
    node: Node
    dovecot: Dovecot
    postfix: Postfix
    mail: Path


@pytest.fixture(scope="module")
def world(place: Path, authority: Authority) -> Iterator[World]:
    chain, key = authority.certificate("localhost")
    for path in (chain, key):
        own_to(path, "root")
    dovecot = Dovecot(
        place / "dovecot", users=["ada@tls.example", "ada@plain.example", "ada@unix.example"],
        added=f"login_trusted_networks = 127.0.0.0/8\nssl = yes\nssl_cert = <{chain}\nssl_key = <{key}\n",
    )
    port, postfix_port = ports.port(), ports.port()
    mail = place / "mail"
    postfix = Postfix(place / "postfix", port=postfix_port, settings={
        **maildir_settings(mail, "pf.example", ["alice"]),
        "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
        "mynetworks": "127.0.0.0/8",
        "smtpd_client_restrictions": "check_client_access inline:{ { 192.0.2.66 = 550 not from there } }, permit",
        "smtpd_log_access_permit_actions": "static:all",
    })
    lmtp = {"recipients": "any", "deliver": "lmtp", "xclient": True}
    node = Node(place / "node", {
        "workers": 1, "listener": [relay_listener(
            port, xclient_networks=["127.0.0.0/8"], trusted_networks=["127.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"],
        )],
        "domain": [
            {"name": "tls.example", "host": "localhost", "port": dovecot.lmtp_port, "tls": "verify", **lmtp},
            {"name": "plain.example", "host": "127.0.0.1", "port": dovecot.lmtp_port, "tls": "never", **lmtp},
            {"name": "unix.example", "socket": str(dovecot.lmtp_path), **lmtp},
            local_domain("local.example"),
        ],
        "next_hop": [next_hop("pf.example", postfix_port, xclient=True), next_hop("*", postfix_port, xclient=True)],
        "outbound": {"tls": {"ca_file": str(authority.file)}},
    })
    with dovecot, postfix, node:
        yield World(node, dovecot, postfix, mail)


def send(world: World, to: str, subject: str, client: str = "", sender: str = "eve@local.example") -> None:
    """As the client of these attributes; "": as what we are."""
    with smtplib.SMTP("127.0.0.1", world.node.port, "here.test", timeout=20) as session:
        session.ehlo()
        if client:
            assert session.docmd("XCLIENT", client)[0] == 220
            session.ehlo()
        session.sendmail(sender, [to], f"Subject: {subject}\r\n\r\nhello\r\n".encode())


def first_received(message: Message) -> str:
    return re.sub(r"\s+", " ", str(message["Received"]))


@pytest.mark.parametrize("domain", ["tls.example", "plain.example"])
def test_dovecot_hears_of_each_client_on_one_connection(world: World, domain: str) -> None:
    """Of two, of the second one again, and of the node itself where a program of this machine has sent the mail."""
    clients = (
        ("first", "ADDR=192.0.2.7 PORT=4711 HELO=first.test PROTO=ESMTP", "from first.test ([192.0.2.7])"),
        ("second", "ADDR=IPV6:2001:db8::7 HELO=second.test", "from second.test ([2001:db8::7])"),
        ("again", "ADDR=IPV6:2001:db8::7 HELO=second.test", "from second.test ([2001:db8::7])"),
    )
    for name, client, shown in clients:
        subject = f"{name} at {domain}"
        send(world, f"ada@{domain}", subject, client)
        (message,) = world.dovecot.wait(f"ada@{domain}", of=f"Subject: {subject}")
        assert first_received(maildir.parse(message)).startswith(shown)
    world.node.command(
        "submit", "--from", "root@local.example", f"ada@{domain}", text="Subject: made here\n\nhello\n"
    )
    (message,) = world.dovecot.wait(f"ada@{domain}", of="Subject: made here")
    received = first_received(maildir.parse(message))
    assert received.startswith("from postroad.test ([127.0.0.1])"), received
    if domain == "tls.example":
        told = re.compile(r"delivered for <ada@tls.example>.*TLSv1")
        until(lambda: told.search(world.node.log()), "the log tells of TLS")


def test_a_server_that_takes_no_xclient_gets_the_mail_all_the_same(world: World) -> None:
    """Dovecot takes it from trusted addresses only; over a Unix socket there is none."""
    send(world, "ada@unix.example", "by socket", "ADDR=192.0.2.7 HELO=first.test")
    (message,) = world.dovecot.wait("ada@unix.example", of="by socket")
    assert "192.0.2.7" not in first_received(maildir.parse(message))


def test_an_unknown_mailbox_and_an_extension(world: World) -> None:
    send(world, "ada+lists@plain.example", "extended", "ADDR=192.0.2.8")
    assert world.dovecot.wait("ada@plain.example", of="extended")
    send(world, "nobody@plain.example", "for nobody", "ADDR=192.0.2.9", sender="x@local.example")
    assert maildir.wait(world.node.maildir("x@local.example"), of="5.1.1")


def test_postfix_judges_the_client(world: World) -> None:
    """What Postfix lets the node itself do, it does not let a client do that the node has named; and back again."""
    send(world, "alice@pf.example", "from a stranger", "NAME=c.test ADDR=192.0.2.7 PORT=77 HELO=c.test")
    text = maildir.wait(world.mail / "alice", of="from a stranger")[0]
    assert b"Received: from c.test (c.test [192.0.2.7])" in text
    send(world, "alice@pf.example", "refused", "NAME=bad.test ADDR=192.0.2.66 HELO=bad.test")
    assert maildir.wait(world.node.maildir("eve@local.example"), of="not from there")
    send(world, "x@elsewhere.example", "relayed", "ADDR=192.0.2.7")
    world.node.wait_log("<x@elsewhere.example>: Relay access denied")
    send(world, "alice@pf.example", "by itself")
    until(lambda: maildir.wait(world.mail / "alice", of="by itself"), "the message of the node's neighbour")
    text = maildir.wait(world.mail / "alice", of="by itself")[0]
    assert b"[127.0.0.1]" in text.partition(b"by ")[0]


def test_an_account_is_told_to_postfix(world: World) -> None:
    send(world, "alice@pf.example", "with an account", "ADDR=192.0.2.7 LOGIN=joe HELO=c.test", sender="")
    until(lambda: "sasl_username=joe" in world.postfix.log_path.read_text(), "the account in Postfix's log")
