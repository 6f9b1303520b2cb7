"""Addresses without a domain in header fields of SMTP clients, beside Postfix."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, relay_listener
from tests.peers.harness.remote import Remote

pytestmark = pytest.mark.peer

FIELDS = (
    "From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-To", "Resent-Sender", "Resent-Reply-To",
    "Resent-Cc", "Errors-To", "Return-Receipt-To", "Mail-Followup-To", "Apparently-To", "Delivered-To", "X-To",
)  # fmt: skip
EVERY = "".join(f"{name}: root\r\n" for name in FIELDS)
HEADS = [
    EVERY, "From: Root <root>\r\nTo: joe@host, <ann@host>, bob\r\nCc: a@b.example, c\r\n",
    "From: \"a@b\" <root>\r\nTo: Group: x, y@z.example;, w\r\n",
    "From: root@h.example\r\nTo: undisclosed-recipients:;\r\n",
    "From: root (the superuser)\r\nTo: \"quo ted\"\r\nSubject: root\r\n",
]  # fmt: skip
ADDED = re.compile(rb"(?:Received|X-Postroad-Loop|Message-Id|Date|Resent-Message-Id|Resent-Date)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def both(place: Path) -> Iterator[dict[str, tuple[dict[str, int], Remote]]]:
    """For mail of this machine, with and without dots, and for strangers: the port of each server."""
    with Remote(port=ports.port()) as one, Remote(port=ports.port()) as other:
        dots, strangers = ports.port(), ports.port()
        postfix = Postfix(
            place / "postfix",
            settings={"relayhost": f"[127.0.0.1]:{one.port}", "mydomain": "d.example", "myorigin": "o.example",
                      "remote_header_rewrite_domain": "domain.invalid"},
            services=[
                f"127.0.0.1:{dots} inet n - n - - smtpd -o cleanup_service_name=dots",
                f"127.0.0.1:{strangers} inet n - n - - smtpd -o local_header_rewrite_clients=",
                "dots unix n - n - 0 cleanup -o append_dot_mydomain=yes -o rewrite_service_name=rewrite-dots",
                "rewrite-dots unix - - n - - trivial-rewrite -o append_dot_mydomain=yes",
            ],
        )
        (place / "postroad").mkdir()
        ours = {"here": ports.port(), "dots": ports.port(), "strangers": ports.port()}
        node = Node(place / "postroad", {
            "next_hop": [{"domain": "*", "host": "127.0.0.1", "port": other.port}],
            "listener": [
                relay_listener(ours["here"], complete_domain="o.example"),
                relay_listener(
                    ours["dots"], name="dots", complete_domain="o.example", complete_hosts="d.example"
                ),
                relay_listener(
                    ours["strangers"], name="strangers", complete_clients="none", complete_others="domain.invalid"
                ),
            ],
        })  # fmt: skip
        with postfix, node:
            theirs = {"here": postfix.port, "dots": dots, "strangers": strangers}
            yield {"postfix": (theirs, one), "postroad": (ours, other)}


@pytest.mark.parametrize("kind", ["here", "dots", "strangers"])
@pytest.mark.parametrize("head", HEADS)
def test_the_same_as_postfix(both: dict[str, tuple[dict[str, int], Remote]], kind: str, head: str) -> None:
    found = []
    for listening, remote in both.values():
        before = len(remote.transactions)
        with smtplib.SMTP("127.0.0.1", listening[kind], timeout=20) as client:
            client.ehlo("localhost")
            assert client.sendmail("s@h.example", ["r@h.example"], head + "\r\nhello\r\n") == {}
        (taken,) = remote.wait(before + 1)[before:]
        fields = re.split(rb"\r\n(?![ \t])", taken.content.partition(b"\r\n\r\n")[0])
        found.append([each.replace(b"\r\n", b"").replace(b"  ", b" ") for each in fields if not ADDED.match(each)])
    assert found[1] == found[0]
