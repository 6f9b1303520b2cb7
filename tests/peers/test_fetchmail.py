"""fetchmail fetches mail from Dovecot by IMAP and hands it to the node: with a listener that trusts it, and by LMTP.

What it fetches was delivered once already, so it has the fields of a delivery: Return-Path, Delivered-To, Received.
"""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.postroad import Node, local_domain, relay_listener

_USERS = ("plain@box.example", "lmtp@box.example", "same@example.test")


@dataclass
class Site:
    node: Node
    dovecot: Dovecot
    place: Path

    def log(self) -> str:
        return self.node.log() + self.dovecot.log()


@pytest.fixture(scope="module")
def site(place: Path) -> Iterator[Site]:
    dovecot = Dovecot(place / "dovecot", users=list(_USERS))
    node = Node(place / "node", {
        "listener": [relay_listener(ports.port()), relay_listener(ports.port(), name="lmtp", protocol="lmtp")],
        "domain": [local_domain("example.test")],
    })
    with dovecot, node:
        yield Site(node, dovecot, place)


def _put(site: Site, user: str, subject: str, body: bytes) -> None:
    """Into the user's mailbox, as a provider's server delivers."""
    message = f"From: a@b.test\r\nTo: {user}\r\nSubject: {subject}\r\nMessage-ID: <{subject}@b.test>\r\n\r\n"
    with smtplib.LMTP("127.0.0.1", site.dovecot.lmtp_port) as client:
        client.ehlo_or_helo_if_needed()
        client.sendmail("a@b.test", [user], message.encode() + body, ["BODY=8BITMIME"])


def _fetch(site: Site, user: str, to: str, port: int, *options: str) -> None:
    program = need.program("fetchmail")
    home = site.place / "fetchmail"
    home.mkdir(exist_ok=True)
    config = home / "fetchmailrc"
    config.write_text(
        f"poll 127.0.0.1 service {site.dovecot.imap_port} protocol imap auth password\n"
        f'  user "{user}" password "{site.dovecot.password}" sslproto ""\n'
        f'  smtphost "127.0.0.1/{port}" smtpname "{to}" fetchall {" ".join(options)}\n'
    )
    config.chmod(0o600)
    ran = subprocess.run(
        [program, "-f", str(config), "--nodetach", "--nosyslog", "-v", "--pidfile", str(home / "pid")],
        capture_output=True, check=False, timeout=60, env={"HOME": str(home), "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    assert ran.returncode == 0, f"{(ran.stdout + ran.stderr).decode()}\n{site.log()}"
    assert site.dovecot.messages(user) == [], "what the node has taken is gone from the mailbox"


_BODIES = {
    "dots": b".\r\n..\r\n.dot\r\n\r\n.\r\nend\r\n",
    "eight": "Grüße aus Köln\r\n".encode(),
    "long": b"x" * 990 + b"\r\n" + b"y" * 3000 + b"\r\n",
}


@pytest.mark.parametrize("name", _BODIES)
@pytest.mark.parametrize("protocol", ["smtp", "lmtp"])
def test_what_it_fetches_arrives(site: Site, protocol: str, name: str) -> None:
    subject = f"{protocol}-{name}"
    user, port = ("plain@box.example", site.node.port) if protocol == "smtp" else (
        "lmtp@box.example", int(site.node.config["listener"][1]["port"]))
    _put(site, user, subject, _BODIES[name])
    _fetch(site, user, f"{protocol}@example.test", port, *(["lmtp"] if protocol == "lmtp" else []))
    (octets,) = maildir.wait(site.node.maildir(f"{protocol}@example.test"), of=f"Subject: {subject}")
    assert octets.replace(b"\r\n", b"\n").partition(b"\n\n")[2] == _BODIES[name].replace(b"\r\n", b"\n")
    message = maildir.parse(octets)
    assert message["Return-Path"] == "<a@b.test>", "fetchmail hands on the sender that Return-Path names"


def test_mail_that_was_delivered_to_the_same_address_elsewhere_is_no_loop(site: Site) -> None:
    """The provider's mailbox has the user's address, so the mail says Delivered-To with it already."""
    _put(site, "same@example.test", "same", b"hello\r\n")
    (stored,) = site.dovecot.messages("same@example.test")
    assert b"Delivered-To: same@example.test" in stored
    _fetch(site, "same@example.test", "same@example.test", site.node.port)
    assert maildir.wait(site.node.maildir("same@example.test"), of="Subject: same")
