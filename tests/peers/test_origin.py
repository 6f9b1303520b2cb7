"""SPF, DKIM, DMARC, ARC and iprev on the way in: a node with an mx listener, Knot as its DNS, real senders."""

from __future__ import annotations

import re
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record
from tests.peers.harness import maildir, ports
from tests.peers.harness.knot import Knot
from tests.peers.harness.postroad import Node, local_domain, mx_listener
from tests.peers.harness.process import folder, until
from tests.unit.trust.dkim_parts import ed25519, rsa

pytestmark = pytest.mark.peer

KEYS = (SigningKey("good.test", "r1", rsa()), SigningKey("good.test", "e1", ed25519()))


def _text(name: str, text: str) -> str:
    pieces = " ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200))
    return f"{name} IN TXT {pieces}"


def _key_lines() -> str:
    return "\n".join(_text(f"{each.selector}._domainkey", public_record(each.private)) for each in KEYS)


ZONES = {
    "good.test": f"""
        @ IN TXT "v=spf1 ip4:127.0.0.1 -all"
        _dmarc IN TXT "v=DMARC1; p=reject; rua=mailto:reports@good.test"
        {_key_lines()}
        """,
    "strict.test": """
        @ IN TXT "v=spf1 ip4:192.0.2.1 -all exp=why.strict.test"
        why IN TXT "see http://strict.test/%{i}"
        _dmarc IN TXT "v=DMARC1; p=reject"
        """,
    "soft.test": """
        @ IN TXT "v=spf1 ip4:192.0.2.1 ~all"
        _dmarc IN TXT "v=DMARC1; p=quarantine"
        """,
    "plain.test": "@ IN A 192.0.2.7",
    "0.0.127.in-addr.arpa": "1 IN PTR client.plain.test.\n9 IN PTR away.plain.test.",
}
"""client.plain.test has no address, so the name of 127.0.0.1 does not lead back to it."""


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with folder("origin") as made:
        yield made


@pytest.fixture(scope="module")
def knot(home: Path) -> Iterator[Knot]:
    with Knot(home / "knot", ZONES) as made:
        yield made


def settings(knot: Knot, **listener: Any) -> dict[str, Any]:
    return {
        "domain": [local_domain("ours.test")],
        "listener": [mx_listener(ports.port(), **listener)],
        "checks": {"exempt_networks": []},
        "dns": {"servers": [f"127.0.0.1:{knot.port}"], "timeout_s": 2, "total_s": 4},
    }


@pytest.fixture(scope="module")
def marking(home: Path, knot: Knot) -> Iterator[Node]:
    """The checks as they are if nothing is set."""
    with Node(home / "marking", settings(knot)) as made:
        yield made


@pytest.fixture(scope="module")
def enforcing(home: Path, knot: Knot) -> Iterator[Node]:
    checks = {"spf": "enforce", "dkim": "enforce", "dmarc": "enforce"}
    with Node(home / "enforcing", settings(knot, **checks)) as made:
        yield made


def message(author: str, subject: str, body: str = "Hello.\r\n", **fields: str) -> bytes:
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return (f"From: <ada@{author}>\r\nTo: bob@ours.test\r\nSubject: {subject}\r\nMessage-ID: <{subject}@{author}>\r\n"
            f"{more}\r\n{body}").encode()  # fmt: skip


def signed(content: bytes) -> bytes:
    return DkimSigner(KEYS, SigningOptions()).sign_content(content, int(time.time())) + content


def send(node: Node, sender: str, content: bytes, to: str = "bob@ours.test") -> str:
    """The last reply."""
    with smtplib.SMTP("127.0.0.1", node.port, timeout=60) as client:
        client.ehlo("client.plain.test")
        client.mail(sender)
        code, text = client.rcpt(to)
        if code == 250:
            code, text = client.data(content)
    return f"{code} {text.decode()}"


def delivered(node: Node, subject: str, to: str = "bob@ours.test") -> bytes:
    (octets,) = maildir.wait(node.maildir(to), of=f"Subject: {subject}\n")
    return octets


def results(octets: bytes) -> str:
    """The field Authentication-Results on top, on one line."""
    head = octets.decode().partition("\n\n")[0]
    top = head.partition("\nAuthentication-Results: ")[2] if not head.startswith("Auth") else head.partition(": ")[2]
    before = head[: head.index("Authentication-Results: ")]
    assert "Received:" not in before
    return re.split(r"\n(?=\S)", top)[0].replace("\n", "")


def test_a_message_is_marked_above_received(marking: Node) -> None:
    said = send(marking, "ada@good.test", signed(message("good.test", "marked")))
    assert said.startswith("250")
    found = results(delivered(marking, "marked"))
    assert found.startswith("postroad.test; spf=pass smtp.mailfrom=good.test;")
    assert found.count("dkim=pass header.d=good.test") == 2
    assert "dmarc=pass header.from=good.test" in found and "arc=none" in found and "iprev=fail" in found
    trace = marking.wait_trace(said.rpartition(" ")[2], "evaluated")
    assert "spf pass (good.test), dkim pass (good.test), dkim pass (good.test), dmarc pass (good.test)" in trace
    assert "good.test permits 127.0.0.1: ip4:127.0.0.1" in trace
    assert "DMARC passed: SPF for good.test and DKIM for good.test are aligned" in trace


def test_a_message_in_a_file_is_hashed_as_it_arrives(marking: Node) -> None:
    body = "0123456789 \t abc \r\n" * 150_000
    assert send(marking, "ada@good.test", signed(message("good.test", "large", body))).startswith("250")
    octets = delivered(marking, "large")
    assert results(octets).count("dkim=pass") == 2 and len(octets) > 2_000_000
    changed = signed(message("good.test", "altered", body))[:-3] + b"x\r\n"
    assert send(marking, "ada@good.test", changed).startswith("250")
    assert results(delivered(marking, "altered")).count("dkim=fail") == 2


def test_nothing_is_refused_by_default(marking: Node) -> None:
    assert send(marking, "ada@strict.test", message("strict.test", "forged")).startswith("250")
    found = results(delivered(marking, "forged"))
    assert "spf=fail smtp.mailfrom=strict.test" in found and "dkim=none" in found
    assert "dmarc=fail header.from=strict.test policy.dmarc=reject" in found


@pytest.mark.parametrize("count", [1, 60_000], ids=["in memory", "in a file"])
def test_forged_results_are_removed_and_others_stay(marking: Node, count: int) -> None:
    subject = f"forged-results-{count}"
    content = message("plain.test", subject, "0123456789" * 3 + "\r\n" * count)
    forged = (b"Authentication-Results: postroad.test; spf=pass smtp.mailfrom=good.test\r\n"
              b"Authentication-Results: other.test; spf=pass smtp.mailfrom=elsewhere.test\r\n"
              b"authentication-results : (a) POSTROAD.test 1;\r\n\tdkim=pass header.d=good.test\r\n")
    assert send(marking, "ada@plain.test", forged + content).startswith("250")
    octets = delivered(marking, subject)
    head = octets.decode().partition("\n\n")[0]
    assert head.lower().count("authentication-results") == 2 and head.lower().count("postroad.test;") == 1
    assert "other.test; spf=pass" in head and "good.test" not in head
    assert "spf=none smtp.mailfrom=plain.test" in results(octets)


def test_spf_is_enforced_at_rcpt(enforcing: Node) -> None:
    said = send(enforcing, "ada@strict.test", message("strict.test", "spf"))
    assert said.startswith("550 5.7.23 SPF validation failed: strict.test does not permit 127.0.0.1: -all")
    assert "strict.test explains: see http://strict.test/127.0.0.1" in said
    until(lambda: "strict.test does not permit" in enforcing.log(), "the refusal is in the log")
    assert send(enforcing, "ada@soft.test", message("plain.test", "soft")).startswith("250")


def test_dmarc_is_enforced(enforcing: Node) -> None:
    said = send(enforcing, "ada@plain.test", message("strict.test", "dmarc"))
    assert said.startswith("550 5.7.1 DMARC: mail of strict.test failed authentication, and its policy is reject")
    assert "p= at _dmarc.strict.test" in said
    enforcing.wait_log("what was done: reject")
    assert send(enforcing, "ada@plain.test", signed(message("good.test", "aligned by DKIM"))).startswith("250")


def test_quarantine_holds_the_message(enforcing: Node) -> None:
    said = send(enforcing, "ada@plain.test", message("soft.test", "held"))
    assert said.startswith("250")
    trace = enforcing.wait_trace(said.rpartition(" ")[2], "is held because")
    assert "the policy of soft.test is quarantine" in trace and "what was done: quarantine" in trace


def test_dkim_is_enforced(enforcing: Node) -> None:
    broken = signed(message("good.test", "broken")).replace(b"Hello", b"Goodbye")
    said = send(enforcing, "ada@plain.test", broken)
    assert said.startswith("550 5.7.20 DKIM validation failed: The DKIM signature of good.test")
