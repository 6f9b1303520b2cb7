"""Rewriting beside Postfix: the same tables and the same mail give the same envelopes and header fields."""

from __future__ import annotations

import contextlib
import re
import smtplib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.peers.harness import ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, relay_listener
from tests.peers.harness.process import NotReady, until
from tests.peers.harness.remote import Remote, Transaction

pytestmark = pytest.mark.peer

# By the name of Postfix's parameter: map or value.
MAPS = {
    "canonical_maps": [
        "a@h.example b@h.example", "b@h.example c@h.example", "@dom.example @new.example", "ext@h.example x@n.example",
        "bare short", "copy@h.example copied@h.example",
    ],
    "sender_canonical_maps": ["s@h.example sender@h.example"],
    "recipient_canonical_maps": ["r@h.example recip@h.example"],
    "recipient_bcc_maps": [
        "recip@h.example rbcc@h.example", "k@h.example kbcc@h.example", "@all.example all@h.example",
    ],
    "sender_bcc_maps": ["sender@h.example copy@h.example"],
}  # fmt: skip
MASQUERADE = {"masquerade_domains": ["!lab.m.example", "m.example"], "masquerade_exceptions": ["root"]}
ALWAYS = "always@h.example"
ADDED = re.compile(rb"(?:Received|X-Postroad-Loop|Message-Id|Date|Resent-Message-Id|Resent-Date)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def both(place: Path) -> Iterator[dict[str, tuple[int, Remote]]]:
    with Remote(port=ports.port()) as one, Remote(port=ports.port()) as other:
        inline = {
            name: "inline:{ " + " ".join(f"{{ {' = '.join(entry.split(None, 1))} }}" for entry in entries) + " }"
            for name, entries in MAPS.items()
            if entries
        }
        postfix = Postfix(place / "postfix", settings={
            **inline, **{name: " ".join(value) for name, value in MASQUERADE.items()}, "always_bcc": ALWAYS,
            "relayhost": f"[127.0.0.1]:{one.port}", "recipient_delimiter": "+",
            "local_header_rewrite_clients": "permit_mynetworks",
            "relocated_maps": "inline:{ { gone@rel.example = gone@new.example } { @old.example = the archive } }",
            "relay_domains": "rel.example old.example",
            "header_checks": f"regexp:{place}/header_checks",
            "smtp_header_checks": f"regexp:{place}/smtp_header_checks",
            "smtp_generic_maps": "inline:{ { g@gen.example = out@out.example } { @int.example = @ext.example } }",
        })  # fmt: skip
        (place / "postroad").mkdir()
        (place / "header_checks").write_text(
            "/^User-Agent:/ IGNORE\n/^Received: .*with ESMTP/ IGNORE\n/^X-A: (.*)/ REPLACE X-B: $1\n"
        )
        (place / "smtp_header_checks").write_text("/^X-Script:/ IGNORE\n/^X-Tool: (.*)/ REPLACE X-Agent: $1\n")
        port = ports.port()
        rewrite: dict[str, Any] = {name: [name] for name, entries in MAPS.items() if entries}
        node = Node(place / "postroad", {
            "rewrite": {
                **rewrite, **MASQUERADE, "always_bcc": ALWAYS, "relocated_maps": ["relocated"],
                "relocated_reply": "550",
            },
            "relay": {"domains": ["rel.example", "old.example"]},
            "map": [
                {"name": "relocated", "kind": "inline",
                 "entries": ["gone@rel.example gone@new.example", "@old.example the archive"]},
                {"name": "generic", "kind": "inline",
                 "entries": ["g@gen.example out@out.example", "@int.example @ext.example"]},
                *({"name": name, "kind": "inline", "entries": entries} for name, entries in MAPS.items()),
            ],
            "next_hop": [{
                "domain": "*", "host": "127.0.0.1", "port": other.port, "generic_maps": "generic",
                "remove_fields": "X-Script", "replace_fields": "/^X-Tool: (.*)/ X-Agent: $1",
            }],
            "listener": [relay_listener(
                port, remove_fields=["User-Agent", "/^Received: .*with ESMTP/"],
                replace_fields=["/^X-A: (.*)/ X-B: $1"],
            )],
        })  # fmt: skip
        with postfix, node:
            yield {"postfix": (postfix.port, one), "postroad": (node.port, other)}


def _sent(both: dict[str, tuple[int, Remote]], sender: str, recipients: Sequence[str], head: str) -> list[Any]:
    """What each of the two sends on: sender, recipients with NOTIFY, header fields but for those that it adds."""
    before = [len(remote.transactions) for _, remote in both.values()]
    for port, _ in both.values():
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.ehlo("localhost")
            assert client.sendmail(sender, recipients, head + "\r\nhello\r\n") == {}

    def came() -> list[list[Transaction]]:
        return [remote.transactions[count:] for (_, remote), count in zip(both.values(), before, strict=True)]

    def all_came() -> bool:
        ours, theirs = (sum(len(each.rcpt) for each in taken) for taken in came())
        return ours == theirs > 0

    with contextlib.suppress(NotReady):  # what differs is said below
        until(all_came, "all recipients of both", within_s=20)
    return [_seen(taken) for taken in came()]


def _seen(taken: Sequence[Transaction]) -> tuple[set[str], dict[str, str], bytes]:
    senders = {re.sub(r" .*", "", each.mail) for each in taken}
    recipients: dict[str, str] = {}
    for each in taken:
        for rcpt in each.rcpt:
            notify = re.search(r"NOTIFY=(\S+)", rcpt)
            recipients[rcpt.split()[0].removeprefix("TO:")] = notify[1] if notify else ""
    head = taken[0].content.partition(b"\r\n\r\n")[0]
    fields = re.split(rb"\r\n(?![ \t])", head)
    return senders, recipients, b"\r\n".join(each for each in fields if not ADDED.match(each))


EVERY = "".join(
    f"{name}: s@h.example, r@h.example, A <a@h.example>\r\n"
    for name in ("From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-To", "Resent-Sender",
                 "Resent-Reply-To", "Resent-Cc", "Errors-To", "Return-Receipt-To", "Mail-Followup-To", "Mail-Reply-To",
                 "Apparently-To", "Delivered-To", "X-To")
)  # fmt: skip


@pytest.mark.parametrize(("sender", "recipients", "head"), [
    ("s@h.example", ["r@h.example", "a@h.example", "ext+foo@h.example", "q@dom.example"], EVERY),
    ("x@y.example", ["k+lists@h.example"], "From: x@y.example\r\nTo: k+lists@h.example\r\n"),
    ("x@y.example", ["any@all.example", "k@h.example"], "From: =?utf-8?q?x?= \"q, u\" <u@host.m.example>\r\n"
     "To: Gr: a@h.example, b@h.example;, <u@x.lab.m.example>\r\nCc: root@a.m.example, root+x@a.m.example\r\n"),
    ("u@a.m.example", ["v@b.m.example"], "From: u@a.m.example (U)\r\nTo: v@b.m.example, Root@c.m.example\r\n"),
    ("g+1@gen.example", ["z@int.example", "g+e@gen.example"], "From: G (g@gen.example) <g+1@gen.example>\r\n"
     "To: z@int.example, g+e@gen.example\r\nReply-To: g@gen.example\r\nErrors-To: g@gen.example\r\n"
     "X-To: g@gen.example\r\nX-Script: x\r\nX-Tool: y\r\nReferences: <g@gen.example>\r\n"),
    ("ext+1@h.example", ["r+1@h.example"], "From: \"E, x\" <ext+1@h.example>\r\nTo: undisclosed-recipients:;\r\n"),
])  # fmt: skip
def test_the_same_as_postfix(
    both: dict[str, tuple[int, Remote]], sender: str, recipients: list[str], head: str
) -> None:
    theirs, ours = _sent(both, sender, recipients, head)
    assert ours == theirs


def test_fields_that_go_and_change(both: dict[str, tuple[int, Remote]]) -> None:
    head = "User-Agent: x\r\nX-A: 1\r\n 2\r\nFrom: a@h.example\r\nTo: z@y.example\r\nuser-agent: y\r\n"
    theirs, ours = _sent(both, "x@y.example", ["z@y.example"], head)
    assert ours == theirs
    assert theirs[2] == b"X-B: 1\r\n 2\r\nFrom: c@h.example\r\nTo: z@y.example"
    for _, remote in both.values():  # the field of the server itself goes, too
        assert b"with ESMTP" not in remote.transactions[-1].content


@pytest.mark.parametrize(("recipient", "words"), [
    ("gone@rel.example", b"User has moved to gone@new.example"), ("gone+x@rel.example", b"gone@new.example"),
    ("any@old.example", b"User has moved to the archive"),
])  # fmt: skip
def test_who_has_moved(both: dict[str, tuple[int, Remote]], recipient: str, words: bytes) -> None:
    for port, _ in both.values():
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.ehlo("localhost")
            client.mail("x@y.example")
            code, text = client.rcpt(recipient)
            assert (code, text[:5]) == (550, b"5.1.6")
            assert words in text
            assert client.rcpt("here@rel.example")[0] == 250
