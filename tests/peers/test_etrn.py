"""ETRN: a relay domain whose Postfix was down has its queue started when it is back."""

from __future__ import annotations

import smtplib
from pathlib import Path

from tests.peers.harness import maildir, ports
from tests.peers.harness.postfix import Postfix, maildir_settings
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop
from tests.peers.harness.process import until


def test_the_queue_of_a_server_that_is_back(place: Path) -> None:
    mx_port, postfix_port = ports.port(), ports.port()
    mail = place / "mail"
    postfix = Postfix(
        place / "postfix", port=postfix_port, settings=maildir_settings(mail, "branch.example", ["alice"])
    )
    node = Node(place / "node", {
        "listener": [mx_listener(mx_port, trusted_networks=["127.0.0.1"], expn="trusted", vrfy="trusted")],
        "domain": [local_domain("example.test", ["ann", "bob"])],
        "aliases": "aliases",
        "relay": {
            "domains": ["branch.example", "other.example"],
            "etrn": [
                {"domains": ["branch.example"], "networks": ["127.0.0.0/8"]},
                {"domains": ["other.example"], "networks": ["192.0.2.0/24"]},
            ],
        },
        "next_hop": [next_hop("branch.example", postfix_port)],
        # By itself it would come much later than this test waits.
        "queue": {"retry_first_s": 3600, "backoff_first_s": 3600, "backoff_max_s": 3600},
    })
    (place / "node" / "aliases").write_text("staff: ann, bob, carol@elsewhere.test\n")
    with node:
        for number in range(3):
            with smtplib.SMTP("127.0.0.1", mx_port, timeout=20) as client:
                client.sendmail("eve@elsewhere.test", ["alice@branch.example"], f"Subject: n{number}\r\n\r\nhello\r\n")
        node.wait_log("deferred for <alice@branch.example>", 3)
        with postfix, smtplib.SMTP("127.0.0.1", mx_port, timeout=20) as client:
            client.ehlo("branch.example")
            assert client.has_extn("etrn")
            said = client.docmd("ETRN", "branch.example")
            assert said == (253, b"2.0.0 OK, 3 pending messages for node branch.example started")
            maildir.wait(mail / "alice", 3, of="hello")
            until(lambda: client.docmd("ETRN", "branch.example")[0] == 250, "nothing waits any more")
            assert client.docmd("ETRN", "@branch.example")[0] == 251
            assert client.docmd("ETRN", "#branch.example")[0] == 251
            assert client.docmd("ETRN", "other.example")[0] == 459
            assert client.docmd("ETRN", "example.test")[0] == 459
            assert client.docmd("ETRN", "x'; DROP TABLE message--")[0] == 501
            # While we are at it: what aliases lead to is told to those who are trusted here.
            assert client.docmd("EXPN", "staff")[0] == 250
            assert client.docmd("EXPN", "<staff@example.test>")[1].count(b"@") == 3
            assert client.docmd("VRFY", "ann@example.test")[0] == 250
            assert client.docmd("VRFY", "dave@example.test")[0] == 550
        node.wait_log("ETRN of 127.0.0.1")
