"""Senders that a node signs: SRS beside postsrsd, BATV beside Exim's prvs, reports that come back."""

from __future__ import annotations

import re
import smtplib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import maildir, need, ports
from tests.peers.harness.exim import CACHE
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop, relay_listener
from tests.peers.harness.process import Program, listens, replace, until
from tests.peers.harness.remote import Remote, Transaction

pytestmark = pytest.mark.peer

MESSAGE = b"Subject: hello\r\n\r\nhello\r\n"


@dataclass(frozen=True)
class World:
    node: Node
    remote: Remote
    mx: int
    forward: int  # ports of postsrsd
    back: int
    keys: Path


@pytest.fixture(scope="module")
def world(place: Path) -> Iterator[World]:
    folder = place / "node"
    folder.mkdir(parents=True)
    (folder / "aliases").write_text("fwd: bob@remote.example, carol\nown: bob@remote.example\n")
    keys = folder / "srs.keys"
    keys.write_text("the new key\nthe old key\n")
    keys.chmod(0o600)
    (folder / "batv.keys").write_text("2 batv-secret\n1 older-secret\n")
    (folder / "batv.keys").chmod(0o600)
    forward, back, mx = ports.port(), ports.port(), ports.port()
    postsrsd = Program(
        [need.program("postsrsd"), f"-s{keys}", "-dexample.test", f"-f{forward}", f"-r{back}", "-4"],
        place / "postsrsd.log",
    )
    with Remote() as remote:
        node = Node(folder, {
            "aliases": "aliases", "log": {"level": "info"},
            "listener": [mx_listener(mx), relay_listener(ports.port())],
            "domain": [
                local_domain("example.test", ["carol", "ada"]),
                local_domain("tagged.test", ["ada", "plain"], batv="require"),
                local_domain("signed.test", ["eve"], batv="sign"),
            ],
            "srs": {"domain": "example.test", "keys_file": "srs.keys", "excluded_domains": [".friend.example"]},
            "batv": {"keys_file": "batv.keys", "plain_to": ["lists.example"], "unsigned": ["plain@tagged.test"]},
            "next_hop": [next_hop(domain, remote.port) for domain in
                         ("remote.example", "far.example", "other.example", "lists.example")],
        })  # fmt: skip
        postsrsd.start()
        postsrsd.ready(lambda: listens("127.0.0.1", forward) and listens("127.0.0.1", back), "postsrsd listens")
        with node:
            yield World(node, remote, mx, forward, back, keys)
        postsrsd.stop()


def ask(port: int, key: str) -> str:
    """What postsrsd says of an address."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"get {key}\n".encode())
        return connection.makefile().readline().strip()


def send(port: int, sender: str, to: str | Sequence[str], content: bytes = MESSAGE) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.sendmail(sender, to, content)


def refused(port: int, sender: str, to: str) -> tuple[int, str]:
    """What RCPT is answered."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.helo("x.example")
        client.mail(sender)
        code, text = client.rcpt(to)
        return code, text.decode()


def path_of(transaction: Transaction) -> str:
    found = re.search("<(.*?)>", transaction.mail)
    assert found is not None
    return found[1]


def arrival(world: World, mark: str) -> Transaction:
    return world.remote.wait_for(lambda each: mark.encode() in each.content)


def subject(mark: str) -> bytes:
    return f"Subject: {mark}\r\n\r\nhello\r\n".encode()


# ---- SRS


def test_forwarded_mail_gets_the_sender_that_postsrsd_would_give(world: World) -> None:
    for number, sender in enumerate(("Eve@Far.example", "SRS0=AAAA=BB=first.example=eve@far.example",
                                     "SRS1=AAAA=first.example==AAAA=BB=x.example=eve@far.example")):  # fmt: skip
        mark = f"forwarded-{number}"
        send(world.mx, sender, "fwd@example.test", subject(mark))
        signed = path_of(arrival(world, mark))
        local_part, _, domain = sender.rpartition("@")
        assert ask(world.forward, f"{local_part}@{domain.lower()}") == f"200 {signed}"
    kept = maildir.wait(world.node.maildir("carol@example.test"), of="forwarded-0")[0]
    assert b"Return-Path: <Eve@far.example>" in kept  # mail that ends here keeps its sender


def test_what_postsrsd_has_signed_comes_back(world: World) -> None:
    signed = ask(world.forward, "Eve@far.example").removeprefix("200 ")
    for number, recipient in enumerate((signed, signed.lower())):
        mark = f"report-{number}"
        send(world.mx, "", recipient, subject(mark))
        found = arrival(world, mark)
        assert found.mail.startswith("FROM:<>")
        assert found.rcpt[0].split()[0].lower() == "to:<eve@far.example>"
    assert ask(world.back, signed.lower()) == "200 eve@far.example"
    twice = ask(world.forward, "SRS0=AAAA=BB=first.example=eve@other.example").removeprefix("200 ")
    send(world.mx, "", twice.lower(), subject("report-twice"))
    assert arrival(world, "report-twice").rcpt[0].startswith("TO:<SRS0=aaaa=bb=first.example=eve@other.example>")


def test_trace_shows_both_names(world: World) -> None:
    signed = ask(world.forward, "eve@far.example").removeprefix("200 ")
    send(world.mx, "", signed, subject("traced"))
    arrival(world, "traced")
    told = world.node.command("trace", "eve@far.example")
    assert f"<{signed}>" in told and "eve@far.example" in told


@pytest.mark.parametrize(("key", "why"), [
    ("SRS0=AAAA=JU=far.example=eve@example.test", "hash is wrong"),
    ("SRS0=AAAA@example.test", "not complete"),
    ("srs1=AAAA=far.example==x@example.test", "hash is wrong"),
])  # fmt: skip
def test_what_nobody_here_has_signed_is_refused(world: World, key: str, why: str) -> None:
    code, text = refused(world.mx, "", key)
    assert code == 550 and text.startswith("5.1.1") and why in text


def test_keys_are_rotated_without_a_restart(world: World) -> None:
    before = ask(world.forward, "eve@far.example").removeprefix("200 ")
    replace(world.keys, "the newest key\nthe new key\n")
    mark = 0

    def signed() -> str:
        nonlocal mark
        mark += 1
        send(world.mx, "eve@far.example", "own@example.test", subject(f"rotated-{mark}"))
        return path_of(arrival(world, f"rotated-{mark}"))

    until(lambda: signed() != before, "the new key signs", within_s=40, pause_s=1.0)
    send(world.mx, "", before, subject("still right"))
    arrival(world, "still right")


def test_other_mail_keeps_its_sender(world: World) -> None:
    relay = world.node.config["listener"][1]["port"]
    for number, (sender, to) in enumerate((
        ("ada@example.test", "bob@remote.example"),  # ours
        ("x@a.friend.example", "bob@remote.example"),  # excluded
        ("", "bob@remote.example"),  # the null reverse-path
    )):
        send(relay, sender, to, subject(f"kept-{number}"))
        assert path_of(arrival(world, f"kept-{number}")) == sender


# ---- BATV


def exim(expression: str) -> str:
    """What Exim makes of an expansion."""
    binary = need.program("exim4", str(CACHE / "usr" / "sbin" / "exim4"))
    done = subprocess.run([binary, "-C", "/dev/null", "-be", expression], capture_output=True, text=True, timeout=30,
                          check=True)  # fmt: skip
    return done.stdout.strip()


def tagged(world: World, mark: str) -> str:
    send(world.node.config["listener"][1]["port"], "ada@tagged.test", "bob@remote.example", subject(mark))
    return path_of(arrival(world, mark))


def test_the_tag_is_the_one_of_exim(world: World) -> None:
    signed = tagged(world, "tagged-1")
    assert signed == exim("${prvs{ada@tagged.test}{batv-secret}{2}}")
    assert exim(f"${{prvscheck{{{signed}}}{{batv-secret}}{{$prvscheck_address $prvscheck_result}}}}") == (
        "ada@tagged.test 1"
    )  # fmt: skip


def test_a_report_comes_back_to_the_mailbox_with_its_tag_only(world: World) -> None:
    signed = tagged(world, "tagged-2")
    older = exim("${prvs{ada@tagged.test}{older-secret}{1}}")
    for number, recipient in enumerate((signed, signed.upper(), older)):
        send(world.mx, "", recipient, subject(f"about-{number}"))
        maildir.wait(world.node.maildir("ada@tagged.test"), of=f"about-{number}")
    for recipient in ("ada@tagged.test", "prvs=2000abcdef=ada@tagged.test", "ada+x@tagged.test"):
        code, text = refused(world.mx, "", recipient)
        assert code == 550 and text.startswith("5.7.1") and "tag" in text
    for recipient in ("postmaster@tagged.test", "plain@tagged.test"):
        assert refused(world.mx, "", recipient)[0] == 250
    send(world.mx, "x@far.example", "ada@tagged.test", subject("plain mail"))
    send(world.mx, "x@far.example", "prvs=2000abcdef=ada@tagged.test", subject("old tag"))
    for mark in ("plain mail", "old tag"):
        maildir.wait(world.node.maildir("ada@tagged.test"), of=mark)
    assert refused(world.mx, "", "prvs=2000abcdef=nobody@tagged.test")[0] == 550


def test_sign_only_notes_a_report_without_a_tag(world: World) -> None:
    send(world.mx, "", "eve@signed.test", subject("no tag"))
    maildir.wait(world.node.maildir("eve@signed.test"), of="no tag")
    world.node.wait_log("must have its tag")


def test_some_mail_keeps_the_plain_sender(world: World) -> None:
    relay = world.node.config["listener"][1]["port"]
    for number, (sender, to) in enumerate((
        ("ada@tagged.test", "post@lists.example"), ("plain@tagged.test", "bob@remote.example"),
        ("ada@example.test", "bob@remote.example"),
    )):  # fmt: skip
        send(relay, sender, to, subject(f"plain-{number}"))
        assert path_of(arrival(world, f"plain-{number}")) == sender


def test_nobody_has_a_forged_sender_signed(world: World) -> None:
    send(world.mx, "ada@tagged.test", "own@example.test", subject("forged"))
    assert path_of(arrival(world, "forged")) == "ada@tagged.test"
