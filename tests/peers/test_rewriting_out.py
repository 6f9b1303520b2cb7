"""Other addresses and header fields on the way from the program sendmail to Exim: large content, a map that is away."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.exim import Exim
from tests.peers.harness.postroad import Node, relay_listener
from tests.peers.harness.process import folder, until
from tests.peers.harness.sendmail import Sendmail

pytestmark = pytest.mark.peer

# A line of 60 octets, 3 MB in all: content in a file on both sides.
LARGE = b"".join(b"%07d %s\r\n" % (number, b"x" * 50) for number in range(50_000))


@dataclass
class Site:
    home: Path
    sendmail: Sendmail
    node: Node
    exim: Exim

    @property
    def gate(self) -> Path:
        return self.home / "gate"

    def arrived(self, subject: str, name: str = "alice", within_s: float = 30.0) -> bytes:
        return maildir.wait(self.exim.mailbox(name), of=subject, within_s=within_s)[0]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with folder("ro") as home:
        sendmail = Sendmail(home)
        exim = Exim(home / "exim", mailboxes=("alice", "bob", "archive", "quiet"))
        (home / "maps.py").write_text(
            "import pathlib\n"
            "def look_up(key):\n"
            f"    if not pathlib.Path({str(home / 'gate')!r}).exists():\n"
            "        raise OSError('the gate is closed')\n"
            "    return {'@host.local': '@example.test', 'www@host.local': 'no-reply@example.test'}.get(key)\n"
        )
        settings = {
            "hostname": "web.host.local",
            "postmaster": "postmaster@example.test",
            "listener": [relay_listener(ports.port())],
            "sendmail": {
                "folder": str(sendmail.folder), "domain": "host.local", "remove_fields": "X-Originating-Script",
                "add_fields": "X-Machine: web",
            },
            "rewrite": {
                "sender_canonical_maps": "senders", "always_bcc": "archive@exim.example",
                "recipient_bcc_maps": "copies",
            },
            "map": [
                {"name": "senders", "kind": "inline",
                 "entries": ["root hostmaster", "bob@host.local bob.b@host.local"]},
                {"name": "copies", "kind": "inline", "entries": "quiet@exim.example nobody@exim.example"},
                {"name": "out", "kind": "python", "function": f"{home}/maps.py:look_up", "cache_missing_s": 0.1,
                 "pause_s": 0.1, "failures_max": 1_000},
            ],
            "next_hop": [{
                "domain": "*", "host": "127.0.0.1", "port": exim.port, "tls": "never", "generic_maps": "out",
                "remove_fields": "/^Received: .*by web\\.host\\.local/",
                "replace_fields": "/^User-Agent: (.*)/ X-Agent: $1",
            }],
            "queue": {"retry_first_s": 1, "retry_max_s": 1},
        }  # fmt: skip
        with exim, Node(home / "n", settings) as node:
            (home / "gate").touch()
            yield Site(home, sendmail, node, exim)


def test_from_sendmail_to_another_server(site: Site) -> None:
    text = (
        "Subject: from the program\nFrom: The Root <root>\nTo: alice@exim.example\nReply-To: www@host.local\n"
        "Cc: Friends: ann@host.local, bob@exim.example;\nX-Originating-Script: 33:mail.php\nUser-Agent: shop 1.0\n\n"
        "root@host.local stays here\n"
    )
    ran = subprocess.run(
        [str(site.sendmail.path), "-t", "-i"], input=text.encode(), capture_output=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    octets = site.arrived("from the program")
    message = maildir.parse(octets)
    assert message["From"] == "The Root <hostmaster@example.test>"
    assert message["Reply-To"] == "no-reply@example.test"
    assert message["Cc"] == "Friends: ann@example.test, bob@exim.example;"
    assert (message["X-Agent"], message["X-Machine"]) == ("shop 1.0", "web")
    assert "X-Originating-Script" not in message and "User-Agent" not in message
    assert b"by web.host.local" not in octets
    assert b"root@host.local stays here" in octets
    assert message["Return-path"] == "<hostmaster@example.test>"
    assert site.arrived("from the program", "archive") and site.arrived("from the program", "bob")
    site.node.wait_trace(
        "alice@exim.example", "the sender <root@host.local> became <hostmaster@host.local>", "other addresses in From",
        "removed X-Originating-Script", "a copy for <archive@exim.example> (always_bcc)", "changed User-Agent",
        "sent from <hostmaster@example.test>",
    )  # fmt: skip


def _send(site: Site, subject: str, sender: str = "bob@host.local") -> None:
    head = f"Subject: {subject}\r\nFrom: bob@host.local\r\nTo: alice@exim.example\r\nUser-Agent: x\r\n\r\n"
    with smtplib.SMTP("127.0.0.1", site.node.port, timeout=60) as client:
        assert client.sendmail(sender, ["alice@exim.example"], head.encode() + LARGE) == {}


def test_large_content_is_sent_with_its_other_header_section(site: Site) -> None:
    _send(site, "large content")
    octets = site.arrived("large content", within_s=60)
    message = maildir.parse(octets[:4_000])
    assert (message["From"], message["X-Agent"]) == ("bob.b@example.test", "x")
    assert octets.replace(b"\r\n", b"\n").endswith(b"\n\n" + LARGE.replace(b"\r\n", b"\n"))
    assert "User-Agent" not in message


def test_mail_waits_while_the_map_is_away(site: Site) -> None:
    site.gate.unlink()
    _send(site, "the map is away", sender="late@host.local")
    until(lambda: "the gate is closed" in site.node.log(200), "the deferral")
    until(lambda: "the gate is closed" in site.node.command("queue"), "the queue tells of it")
    site.gate.touch()
    message = maildir.parse(site.arrived("the map is away", within_s=60)[:4_000])
    assert message["Return-path"] == "<late@example.test>"
    assert message["From"] == "bob.b@example.test"


def test_a_copy_that_fails_concerns_nobody_else(site: Site) -> None:
    with smtplib.SMTP("127.0.0.1", site.node.port, timeout=60) as client:
        client.sendmail("alice@exim.example", ["quiet@exim.example"], "Subject: with a bad copy\r\n\r\nhello\r\n")
    site.arrived("with a bad copy", "quiet")
    told = "not reported failed for <nobody@exim.example>: the sender asked not to be told"
    until(lambda: told in site.node.log(200), "the failure of the copy")
    assert "a copy for <nobody@exim.example> (recipient_bcc_maps)" in site.node.command("trace", "quiet@exim.example")
