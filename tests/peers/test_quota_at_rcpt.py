"""Quota known at RCPT: a real Dovecot quota-status, maps, and our own Maildirs."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import need, ports
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.postroad import Node, local_domain, mx_listener
from tests.peers.harness.process import accepts, until

pytestmark = pytest.mark.peer

QUOTA_STATUS = """
service quota-status {{
  executable = quota-status -p postfix
  unix_listener {socket} {{
    mode = 0666
  }}
  client_limit = 1
}}
plugin {{
  quota_grace = 0
  quota_status_success = DUNNO
  quota_status_nouser = DUNNO
  quota_status_overquota = "552 5.2.2 Mailbox is full"
}}
"""


@pytest.fixture(scope="module")
def dovecot(place: Path) -> Iterator[Dovecot]:
    need.program("quota-status", "/usr/lib/dovecot/quota-status")
    made = Dovecot(
        place / "dovecot", users=["ada@imap.example"], full=["full@imap.example"],
        added=QUOTA_STATUS.format(socket=place / "quota-status"),
    )  # fmt: skip
    made.start()
    until(lambda: accepts(place / "quota-status"), "quota-status listens")
    yield made
    made.stop()


def _rcpt(node: Node, recipient: str, size: int = 0) -> tuple[int, str]:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=30) as client:
        client.ehlo()
        client.mail("sender@far.example", (f"size={size}",) if size else ())
        code, text = client.rcpt(recipient)
        return code, text.decode()


def test_dovecot_says_who_is_full(dovecot: Dovecot, place: Path) -> None:
    node = Node(place / "node", {
        "workers": 1, "listener": [mx_listener(ports.port(), tls="none")], "aliases": "aliases",
        "map": [{"name": "status", "kind": "policy", "url": f"unix:{place}/quota-status", "failures_max": 1,
                 "pause_s": 0}],
        "domain": [{"name": "imap.example", "deliver": "lmtp", "socket": str(dovecot.lmtp_path),
                    "recipients": ["ada", "full"], "quota_maps": ["status"]}],
    })  # fmt: skip
    (place / "node" / "aliases").write_text("team: ada\n")
    with node:
        assert _rcpt(node, "ada@imap.example", 1000)[0] == 250
        assert _rcpt(node, "full@imap.example", 1000) == (552, "5.2.2 <full@imap.example>: Mailbox is full")
        assert _rcpt(node, "Full+x@imap.example", 1000)[0] == 552
        assert _rcpt(node, "team@imap.example")[0] == 250  # an alias is no mailbox
        assert _rcpt(node, "nobody@imap.example")[0] == 550
        dovecot.stop()
        assert _rcpt(node, "full@imap.example", 2000)[0] == 250
        node.wait_log("recipients are accepted although nobody knows whether their mailboxes have room: map status")


def test_our_own_maildirs_and_maps(place: Path) -> None:
    folder = place / "own"
    folder.mkdir(parents=True)
    (folder / "room").write_text("over@mapped.example over\nfew@mapped.example 5000\nodd@mapped.example ?\n"
                                 "later@mapped.example 452 4.2.2 come back\nada@mapped.example OK\n")  # fmt: skip
    node = Node(folder, {
        "workers": 1, "listener": [mx_listener(ports.port(), tls="none")],
        "map": [{"name": "room", "kind": "text", "file": "room"}],
        "domain": [
            local_domain("here.example", ["ada", "new"], quota_size=20_000, quota_at_rcpt=True),
            local_domain("mapped.example", "any", quota_maps=["room"], over_quota="fail"),
        ],
    })  # fmt: skip
    with node:
        assert _rcpt(node, "new@here.example", 10_000)[0] == 250
        with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
            client.sendmail("a@far.example", ["ada@here.example"], "Subject: x\r\n\r\n" + "x" * 70 + "\r\n" * 6000)
        counts = node.maildir("ada@here.example") / "maildirsize"
        until(lambda: counts.exists() and " 1\n" in counts.read_text(), "it is delivered and counted")
        assert _rcpt(node, "ada@here.example", 1000)[0] == 250
        assert _rcpt(node, "ada@here.example", 19_000) == (452, "4.2.2 <ada@here.example>: the mailbox is full")
        names = ("over", "few", "odd", "later", "ada")
        codes = {name: _rcpt(node, f"{name}@mapped.example", 6000)[0] for name in names}
        assert codes == {"over": 552, "few": 552, "odd": 250, "later": 452, "ada": 250}
        assert _rcpt(node, "few@mapped.example", 4000)[0] == 250 and _rcpt(node, "few+x@mapped.example", 6000)[0] == 552
        node.wait_log("which has no meaning")
