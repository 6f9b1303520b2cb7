"""A message that is larger than the next server takes (RFC 1870): refused while its client is there."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.exim import Exim
from tests.peers.harness.postfix import Postfix, maildir_settings
from tests.peers.harness.postroad import Node, local_domain, next_hop

LIMIT = 50_000
LARGE = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 6_000  # 72,018 octets


@dataclass(frozen=True)
class Servers:
    """`node` relays to a Postfix and an Exim that take `LIMIT` octets; `inboxes`: the Maildirs behind them."""

    node: Node
    inboxes: dict[str, Path]


@pytest.fixture(scope="module")
def servers(place: Path) -> Iterator[Servers]:
    settings = {**maildir_settings(place / "mail", "pf.example", ["alice"]), "message_size_limit": str(LIMIT)}
    postfix = Postfix(place / "postfix", port=ports.port(), settings=settings)
    exim = Exim(place / "exim", mailboxes=("alice",), size_max=str(LIMIT))
    node = Node(place / "node", {
        "workers": 1,  # each worker remembers what its own connections have heard
        "domain": [local_domain("example.test")],
        "next_hop": [next_hop("pf.example", postfix.port), next_hop("exim.example", exim.port)],
    })
    with postfix, exim, node:
        yield Servers(node, {"pf.example": place / "mail" / "alice", "exim.example": exim.mailbox("alice")})


def _answers(node: Node, to: str, content: bytes, declared: int) -> tuple[int, int, bytes]:
    """The codes of RCPT and of the content, and the text of the last answer. `declared`: SIZE=, 0 for none."""
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.mail("sender@example.test", [f"SIZE={declared}"] if declared else [])
        code, text = client.rcpt(to)
        if code != 250:
            return code, 0, text
        end, text = client.data(content)
        return code, end, text


@pytest.mark.parametrize("domain", ["pf.example", "exim.example"])
def test_a_message_that_the_next_server_does_not_take_is_refused_at_once(servers: Servers, domain: str) -> None:
    node = servers.node
    to = f"alice@{domain}"
    assert _answers(node, to, b"Subject: small\r\n\r\nhello\r\n", 30)[:2] == (250, 250)
    maildir.wait(servers.inboxes[domain], of="small")  # the node has heard EHLO's answer by now

    code, _, text = _answers(node, to, LARGE, len(LARGE))
    assert code == 552 and text.startswith(b"5.3.4 ") and str(LIMIT).encode() in text

    code, end, text = _answers(node, to, LARGE, 0)  # without SIZE it shows at the end only
    assert (code, end) == (250, 552) and text.startswith(b"5.3.4 ")

    # The domain of our own has no such limit: one recipient who can have the message is enough.
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        refused = client.sendmail("sender@example.test", [to, "bob@example.test"], LARGE)
    assert list(refused) == [to]
    maildir.wait(node.maildir("bob@example.test"), of="large")

    node.wait_trace(to, f"takes {LIMIT} at most")
    assert not any((node.maildir("sender@example.test") / "new").glob("*"))  # no report
