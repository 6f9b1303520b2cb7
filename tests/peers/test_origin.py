"""SPF, DKIM, DMARC, ARC and iprev on the way in: a node with an mx listener, Knot as its DNS, real senders."""

from __future__ import annotations

import re
import shlex
import smtplib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroad.trust.dkim_sign import DkimSigner, SigningKey, SigningOptions, public_record
from tests.peers.harness import maildir, need, ports
from tests.peers.harness.exim import Exim
from tests.peers.harness.knot import Knot
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop
from tests.peers.harness.process import Program, folder, listens, until
from tests.peers.harness.remote import Remote
from tests.peers.harness.swaks import swaks
from tests.unit.trust.dkim_parts import ed25519, pem, rsa

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
    "test": "nothing IN A 192.0.2.8",
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


# ---- Real senders


def test_postfix_sends_and_hears_the_refusal(home: Path, enforcing: Node) -> None:
    settings = {"relayhost": f"[127.0.0.1]:{enforcing.port}", "smtp_helo_name": "client.plain.test"}
    with Postfix(home / "postfix", settings=settings) as postfix:
        swaks(postfix.port, "--from", "ada@good.test", "--to", "carol@ours.test", "--data",
              message("good.test", "by-postfix").decode())  # fmt: skip
        found = results(delivered(enforcing, "by-postfix", "carol@ours.test"))
        assert "spf=pass smtp.mailfrom=good.test" in found and "dmarc=pass header.from=good.test" in found
        swaks(postfix.port, "--from", "ada@plain.test", "--to", "carol@ours.test", "--data",
              message("strict.test", "refused").decode())  # fmt: skip
        until(lambda: "said: 550 5.7.1 DMARC: mail of strict.test" in postfix.log(), "Postfix has heard why")
        assert "status=bounced" in postfix.log()


def test_exim_signs_and_sends_in_chunks(home: Path, enforcing: Node) -> None:
    key = home / "exim.pem"
    key.write_bytes(pem(KEYS[0].private))
    key.chmod(0o644)
    remote = [
        "dkim_domain = good.test", "dkim_selector = r1", f"dkim_private_key = {key}", "hosts_try_chunking = *",
        "helo_data = client.plain.test",
    ]  # fmt: skip
    with Exim(home / "exim", next_port=enforcing.port, remote=remote) as exim:
        body = "A line of the body.\r\n" * 5_000
        for sender, subject in (("ada@good.test", "by-exim"), ("ada@plain.test", "by-exim-of-another")):
            with smtplib.SMTP("127.0.0.1", exim.port, timeout=60) as client:
                client.sendmail(sender, "dora@ours.test", message("good.test", subject, body))
            found = results(delivered(enforcing, subject, "dora@ours.test"))
            assert "dkim=pass header.d=good.test" in found and "dmarc=pass header.from=good.test" in found, exim.log()


def _free_address() -> str:
    for number in range(1, 250):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((f"127.89.0.{number}", 53))
            except OSError:
                continue
        return f"127.89.0.{number}"
    raise AssertionError("port 53 is taken everywhere")


def test_opendmarc_behind_us_comes_to_our_results(home: Path) -> None:
    """It is the milter of a Postfix to which the node relays, and takes SPF and DKIM from our field."""
    need.root()
    place = home / "opendmarc"
    place.mkdir()
    address = _free_address()
    (place / "resolv.conf").write_text(f"nameserver {address}\n")
    (place / "nobody").write_text("192.0.2.1\n")
    milter = ports.port()
    (place / "opendmarc.conf").write_text(
        "AuthservID opendmarc.test\nTrustedAuthservIDs postroad.test\nRejectFailures false\nSPFSelfValidate false\n"
        f"SPFIgnoreResults false\nIgnoreHosts {place}/nobody\nSocket inet:{milter}@127.0.0.1\nUserID root\n"
    )
    command = f"{need.program('opendmarc')} -f -c {place}/opendmarc.conf"
    script = f"mount --bind {shlex.quote(str(place / 'resolv.conf'))} /etc/resolv.conf && exec {command}"
    opendmarc = Program(["unshare", "--mount", "sh", "-c", script], place / "opendmarc.log")
    cases = {
        "both": ("ada@good.test", signed(message("good.test", "both")), "pass"),
        "by-spf": ("ada@good.test", message("good.test", "by-spf"), "pass"),
        "by-dkim": ("ada@plain.test", signed(message("good.test", "by-dkim")), "pass"),
        "neither": ("ada@plain.test", message("good.test", "neither"), "fail"),
    }
    with Knot(place / "knot", ZONES, address=address, port=53), Remote() as remote:
        opendmarc.start()
        try:
            opendmarc.ready(lambda: listens("127.0.0.1", milter), "opendmarc listens")
            postfix = Postfix(place / "postfix", settings={
                "smtpd_milters": f"inet:127.0.0.1:{milter}", "relayhost": f"[127.0.0.1]:{remote.port}",
            })  # fmt: skip
            node = Node(place / "node", {
                "relay": {"domains": ["behind.test"]}, "checks": {"exempt_networks": []},
                "next_hop": [next_hop("behind.test", postfix.port)], "dns": {"servers": [f"{address}:53"]},
                "listener": [mx_listener(ports.port())],
            })  # fmt: skip
            with postfix, node:
                for sender, content, _ in cases.values():
                    assert send(node, sender, content, "bob@behind.test").startswith("250")
                for subject, (_, _, result) in cases.items():
                    (sent,) = _with_subject(remote, len(cases), subject)
                    said = re.search(r"Authentication-Results: opendmarc\.test;\s+dmarc=(\w+)", sent)
                    assert said is not None and said[1] == result, sent
                    assert f"dmarc={result} header.from=good.test" in sent.replace("\r\n", "")
        finally:
            opendmarc.stop()


def _with_subject(remote: Remote, count: int, subject: str) -> list[str]:
    found = [each.content.decode() for each in remote.wait(count)]
    return [each for each in found if f"Subject: {subject}\r\n" in each]


# ---- A DNS that does not answer, and clients that do not wait


@pytest.fixture(scope="module")
def silent() -> Iterator[Node]:
    """A node whose DNS server takes questions and never answers, with SPF enforced."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        made = {
            "domain": [local_domain("ours.test")],
            "listener": [mx_listener(ports.port(), spf="enforce", dmarc="enforce", temporary_failure="defer")],
            "checks": {"exempt_networks": [], "waiting_max_s": 2},
            "dns": {"servers": [f"127.0.0.1:{nobody.getsockname()[1]}"], "timeout_s": 5, "total_s": 15},
        }
        with folder("silent") as place, Node(place / "node", made) as node:
            yield node


def greeted(node: Node) -> socket.socket:
    """A connection on which EHLO was answered."""
    client = socket.create_connection(("127.0.0.1", node.port), 30)
    client.settimeout(30)
    client.sendall(b"EHLO client.plain.test\r\n")
    heard = b""
    while b"\r\n250 " not in heard:
        heard += client.recv(4096)
    return client


def say(node: Node, *commands: str) -> socket.socket:
    """A connection that has said all this at once."""
    client = greeted(node)
    client.sendall("".join(f"{each}\r\n" for each in commands).encode())
    return client


def test_the_dns_says_nothing(silent: Node) -> None:
    said = send(silent, "ada@good.test", message("good.test", "silent"))
    assert said.startswith("451 4.7.24 SPF validation cannot be done now")
    assert "longer than 2 s" in said


@pytest.mark.parametrize("end", ["gone", "RSET", "stop"])
def test_clients_and_the_node_may_go_while_the_dns_is_asked(silent: Node, end: str) -> None:
    begin = ("MAIL FROM:<ada@good.test>", "RCPT TO:<bob@ours.test>")
    clients = [say(silent, *begin, *(["RSET", "QUIT"] if end == "RSET" else [])) for _ in range(30)]
    if end == "RSET":
        for client in clients:
            said = b""
            while b"221" not in said and (more := client.recv(4096)):
                said += more
            assert b"451 4.7.24" in said and said.count(b"250 2") == 2, said  # MAIL and RSET
    elif end == "stop":
        silent.stop(within_s=30)
        silent.start()
    for client in clients:
        client.close()
    assert send(silent, "ada@good.test", message("good.test", "after")).startswith("451 4.7.24")
    log = silent.log()
    assert "Traceback" not in log and "broke" not in log and "never awaited" not in log


def test_pipelined_transactions_and_several_recipients(marking: Node) -> None:
    """All commands come in one piece; each message is judged by its own sender."""
    said = b""
    for author in ("good.test", "strict.test", "good.test"):
        begin = f"MAIL FROM:<ada@{author}>\r\nRCPT TO:<eve@ours.test>\r\nRCPT TO:<fay@ours.test>\r\n".encode()
        content = f"From: <ada@{author}>\r\nSubject: piped of {author}\r\n\r\nx".encode()
        said += begin + b"RSET\r\n" + begin + b"BDAT %d LAST\r\n" % len(content) + content
    heard = b""
    with greeted(marking) as client:
        client.sendall(said + b"QUIT\r\n")
        while more := client.recv(65_536):
            heard += more
    assert heard.count(b"queued as") == 3, heard.decode()
    for name in ("eve", "fay"):
        found = [results(each) for each in maildir.wait(marking.maildir(f"{name}@ours.test"), 3, of="piped of")]
        assert sum("spf=pass smtp.mailfrom=good.test" in each for each in found) == 2
        assert sum("spf=fail smtp.mailfrom=strict.test" in each for each in found) == 1


def test_many_sessions_at_a_time(marking: Node) -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        for turn in range(5):
            author = "good.test" if (number + turn) % 2 else "strict.test"
            said = send(marking, f"ada@{author}", signed(message(author, f"many-{number}-{turn}")), "gus@ours.test")
            if not said.startswith("250"):
                failures.append(said)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for octets in maildir.wait(marking.maildir("gus@ours.test"), 80):
        found = results(octets)
        of_good = b"From: <ada@good.test>" in octets
        assert ("spf=pass" in found) is of_good and found.count("dkim=pass") == 2
        assert f"dmarc={'pass' if of_good else 'fail'}" in found
