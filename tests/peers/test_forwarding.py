"""XCLIENT and XFORWARD with Postfix, as client and as server, and with swaks; a filter between two of our listeners."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.postfix import Postfix, maildir_settings
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop, relay_listener
from tests.peers.harness.process import until
from tests.peers.harness.swaks import swaks


@dataclass(frozen=True)
class Pair:
    """`node` sends all mail for filter.example to `postfix`, a content filter: it hands the mail back to the listener
    `back`. Mail for pf.example ends in `mail` of postfix."""

    node: Node
    postfix: Postfix
    mail: Path
    back_port: int


@pytest.fixture(scope="module")
def pair(place: Path) -> Iterator[Pair]:
    relay_port, back_port, postfix_port, lmtp_port = (ports.port() for _ in range(4))
    mail = place / "mail"
    postfix = Postfix(place / "postfix", port=postfix_port, settings={
        **maildir_settings(mail, "pf.example", ["alice"]),
        "smtpd_authorized_xforward_hosts": "127.0.0.0/8",
        "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
        "smtp_send_xforward_command": "yes",
        "lmtp_send_xforward_command": "yes",
        "transport_maps": (
            f"inline:{{ {{ filter.example = smtp:[127.0.0.1]:{back_port} }}"
            f" {{ lmtp.example = lmtp:inet:[127.0.0.1]:{lmtp_port} }} }}"
        ),
    })
    node = Node(place / "node", {
        "listener": [
            relay_listener(relay_port, xclient_networks=["127.0.0.0/8"]),
            mx_listener(back_port, name="back", tls="none", xforward_networks=["127.0.0.0/8"]),
            mx_listener(lmtp_port, name="lmtp", protocol="lmtp", tls="none", xforward_networks=["127.0.0.0/8"]),
        ],
        "domain": [local_domain("lmtp.example")],
        "relay": {"domains": ["filter.example"]},
        "next_hop": [
            next_hop("pf.example", postfix_port, xforward=True),
            next_hop("filter.example", postfix_port, xforward=True),
            next_hop("lmtp.example", postfix_port, xforward=True),
        ],
        "log": {"format": "json"},
    })
    with postfix, node:
        yield Pair(node, postfix, mail, back_port)


def _send(pair: Pair, to: str, name: str, **more: Any) -> tuple[str, int]:
    with smtplib.SMTP("127.0.0.1", pair.node.port, timeout=20) as client:
        client.ehlo("client.test")
        assert client.sock is not None
        end: tuple[str, int] = client.sock.getsockname()
        client.sendmail(
            "eve@elsewhere.test", [to], f"Subject: {name}\r\nMessage-ID: <{name}@elsewhere.test>\r\n\r\nhello\r\n"
        )
    return end


def _lines(pair: Pair, kind: str, **fields: str) -> list[dict[str, Any]]:
    return pair.node.logged(kind, **fields)


def test_postfix_is_told_of_our_client(pair: Pair) -> None:
    end = _send(pair, "alice@pf.example", "told")
    maildir.wait(pair.mail / "alice", of="Subject: told")
    until(lambda: _lines(pair, "accepted", message_id="<told@elsewhere.test>"), "its line in the log")
    first = _lines(pair, "accepted", message_id="<told@elsewhere.test>")[0]
    log = pair.postfix.log_path.read_text
    # What XFORWARD said stands in Postfix's log line of the client.
    mark = rf"client=.*, orig_queue_id={first['id']}, orig_client=unknown\[{re.escape(end[0])}\](:{end[1]})?"
    until(lambda: re.search(mark, log()), mark + "\n" + pair.postfix.log())


def test_a_filter_hands_the_mail_back_with_the_first_client(pair: Pair) -> None:
    """Postroad → Postfix → Postroad: XFORWARD out, and in again as Postfix's client sends it."""
    end = _send(pair, "bob@filter.example", "around")
    until(lambda: len(_lines(pair, "accepted", message_id="<around@elsewhere.test>")) >= 2, "handed back")
    first, second = _lines(pair, "accepted", message_id="<around@elsewhere.test>")[:2]
    if first["client"]["listener"] != "relay":
        first, second = second, first
    forwarded = second["client"]["forwarded"]
    assert second["client"]["listener"] == "back" and first["client"]["forwarded"] is None
    assert (forwarded["address"], forwarded["hello"]) == (end[0], "client.test")
    assert forwarded["port"] in (0, end[1]) and forwarded["ident"] == first["id"]
    assert forwarded["protocol"] == "ESMTP" and forwarded["source"] in ("LOCAL", "REMOTE")
    traced = pair.node.command("trace", second["id"])
    assert "forwarded for " in traced and '"client.test"' in traced and first["id"] in traced, traced


def test_postfix_forwards_over_lmtp(pair: Pair) -> None:
    """Postfix as an LMTP client of ours, with XFORWARD."""
    with smtplib.SMTP("127.0.0.1", pair.postfix.port, timeout=20) as client:
        client.ehlo("lmtp-client.test")
        client.sendmail("eve@elsewhere.test", ["dave@lmtp.example", "ann@lmtp.example"],
                        "Subject: lmtp\r\nMessage-ID: <lmtp@elsewhere.test>\r\n\r\nhello\r\n")
    until(lambda: _lines(pair, "accepted", message_id="<lmtp@elsewhere.test>"), "the message over LMTP")
    client_facts = _lines(pair, "accepted", message_id="<lmtp@elsewhere.test>")[0]["client"]
    assert client_facts["protocol"] == "LMTP"
    assert client_facts["forwarded"]["hello"] == "lmtp-client.test"
    assert client_facts["forwarded"]["address"] == "127.0.0.1"


def test_swaks_speaks_for_a_client(pair: Pair) -> None:
    ran = swaks(
        pair.node.port, "--from", "eve@elsewhere.test", "--to", "alice@pf.example", "--xclient",
        "NAME=c.example ADDR=127.9.9.9 PORT=77 HELO=c.example", "--h-Message-Id", "<swaks@elsewhere.test>",
    )
    assert ran.code == 0 and any(line.startswith("220") for line in ran.replies()[1:]), ran.transcript
    until(lambda: _lines(pair, "accepted", message_id="<swaks@elsewhere.test>"), "the message of swaks")
    client = _lines(pair, "accepted", message_id="<swaks@elsewhere.test>")[0]["client"]
    assert (client["address"], client["port"], client["hello"], client["name"]) == (
        "127.9.9.9", 77, "c.example", "c.example"
    )
    assert client["via"]["protocol"] == "XCLIENT" and client["via"]["address"] == "127.0.0.1"
    text = maildir.wait(pair.mail / "alice", of="c.example")[0]
    assert b"Received: from c.example (c.example [127.9.9.9])" in text


def test_trust_is_that_of_the_client_that_swaks_names(pair: Pair) -> None:
    ran = swaks(pair.node.port, "--from", "eve@elsewhere.test", "--to", "x@other.example", "--xclient",
                "ADDR=192.0.2.1", "--quit-after", "RCPT")
    assert "relay" in ran.transcript.lower() and ran.code != 0, ran.transcript


def test_the_same_dialog_as_postfix(pair: Pair) -> None:
    """Replies of both servers to one dialog: the same codes."""
    dialog = [
        "EHLO proxy.test", "XCLIENT ADDR=127.0.0.2", "MAIL FROM:<a@b.test>", "EHLO proxy.test", "XCLIENT COLOUR=blue",
        "XCLIENT ADDR=1.2.3.400", "XCLIENT NAME=[UNAVAILABLE] ADDR=127.0.0.2", "EHLO c.test", "MAIL FROM:<a@b.test>",
        "XCLIENT ADDR=127.0.0.2",
    ]
    heard = []
    for port in (pair.node.port, pair.postfix.port):
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            codes = [client.docmd(line)[0] for line in dialog]
        heard.append(codes)
    ours, theirs = heard
    assert ours[2] == 503  # Postfix demands no EHLO; RFC 5321 §4.1.4 does
    assert ours[:2] + ours[3:7] == theirs[:2] + theirs[3:7]
    assert ours[9] == theirs[9] == 503


def test_who_was_named_may_not_name_others_as_with_postfix(pair: Pair) -> None:
    for port in (pair.node.port, pair.postfix.port):
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.ehlo("proxy.test")
            assert client.has_extn("xclient")
            assert client.docmd("XCLIENT", "ADDR=192.0.2.1")[0] == 220
            client.ehlo("proxy.test")
            assert not client.has_extn("xclient")
            assert client.docmd("XCLIENT", "ADDR=127.0.0.2")[0] in (500, 550)
