"""Maildir++ quota beside Courier's deliverquota and Dovecot, on the same folders."""

from __future__ import annotations

import re
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import dsn, maildir, need
from tests.peers.harness.dovecot import Dovecot
from tests.peers.harness.postroad import Node, local_domain
from tests.peers.harness.process import own_to, until

MESSAGE = b"Subject: x\r\n\r\n" + b"1234567\r\n" * 100
FULL = (75, 77)  # of Courier, of maildrop


@pytest.fixture(scope="module")
def node(place: Path) -> Iterator[Node]:
    with Node(place / "node", {"domain": [
        local_domain("wait.example", quota_size=5000, quota_messages=100),
        local_domain("fail.example", quota_size=5000, over_quota="fail", detail_folders=True),
        local_domain("sender.example"),
    ], "queue": {"retry_first_s": 3600}}) as made:  # no attempt while deliverquota counts
        yield made


def send(node: Node, *to: str, body: bytes = MESSAGE) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        for each in to:
            client.sendmail("sender@sender.example", [each], body)


def used(box: Path) -> tuple[str, int, int]:
    """The quota in `maildirsize`, and the octets and messages that it counts."""
    first, *lines = (box / "maildirsize").read_text().splitlines()
    return first, sum(int(line.split()[0]) for line in lines), sum(int(line.split()[1]) for line in lines)


def counted(box: Path, messages: int) -> None:
    """Waits until `maildirsize` counts that many messages: it is written when a message is in the folder already."""
    file = box / "maildirsize"
    until(lambda: file.exists() and used(box)[2] == messages, f"{messages} messages in {file}")


def deliverquota(box: Path, quota: str) -> int:
    command = [need.program("deliverquota"), str(box), quota]
    return subprocess.run(command, input=MESSAGE.replace(b"\r\n", b"\n"), check=False, timeout=20).returncode


def test_deliverquota_and_we_write_the_same_file(node: Node) -> None:
    box = node.maildir("both@wait.example")
    send(node, "both@wait.example")
    maildir.wait(box)
    counted(box, 1)  # else deliverquota counts what is there, and we count it once more
    assert deliverquota(box, "5000S,100C") == 0
    send(node, "both@wait.example")
    maildir.wait(box, 3)
    sizes = [len(octets) for octets in maildir.raw(box)]
    until(lambda: used(box) == ("5000S,100C", sum(sizes), 3), "the file counts three messages")
    lines = (box / "maildirsize").read_text().splitlines()
    assert len(lines) == 5, "nobody has counted anew"
    send(node, "both@wait.example")
    counted(box, 4)
    send(node, "both@wait.example", "both@wait.example")  # there is no room for these
    node.wait_log("the mailbox is full", 2)
    assert deliverquota(box, "5000S,100C") == 0  # 812 octets have room once
    assert deliverquota(box, "5000S,100C") in FULL
    size, messages = used(box)[1:]
    assert messages == len(maildir.raw(box)) and size <= 5000


def test_a_full_mailbox_is_told_to_the_sender(node: Node) -> None:
    send(node, *["ada@fail.example"] * 6)
    reports = dsn.wait(node.maildir("sender@sender.example"), "ada@fail.example")  # one for each that had no room
    assert {report.recipients[0]["Status"] for report in reports} == {"5.2.2"}


def test_a_folder_that_maildirmake_made(node: Node) -> None:
    """A message with an address extension, in a subfolder as Courier makes it."""
    send(node, "bob@fail.example")
    box = node.maildir("bob@fail.example")
    maildir.wait(box)
    counted(box, 1)
    subprocess.run([need.program("maildirmake"), "-f", "lists", str(box)], check=True, timeout=20)
    send(node, "bob+lists@fail.example", "bob+other@fail.example")
    maildir.wait(box / ".lists")
    maildir.wait(box, 2)
    counted(box, 3)


def test_dovecot_counts_the_same(place: Path) -> None:
    """Dovecot's own quota on the folder that we deliver into: the same file, the same sums, the same limit."""
    users = ["ada@quota.example"]
    dovecot = Dovecot(place / "dovecot", users=users, added=(
        "plugin {\n  quota_rule = *:storage=4K:messages=50\n  quota_rule2 = Trash:ignore\n}\n"
        "protocol lmtp {\n  mail_plugins = quota\n}\nprotocol imap {\n  mail_plugins = quota\n}\n"
    ))
    path = str(place / "dovecot" / "mail" / "{domain}" / "{local_part}")
    domain = {"name": "quota.example", "recipients": "any", "deliver": "maildir", "path": path, "quota_size": 4096,
              "quota_messages": 50}
    box = place / "dovecot" / "mail" / "quota.example" / "ada"
    with dovecot, Node(place / "node2", {"domain": [domain]}) as node:
        send(node, users[0])
        maildir.wait(box)
        counted(box, 1)
        for each in (box.parent, *box.parent.rglob("*")):
            own_to(each, "mail")
        with smtplib.LMTP("127.0.0.1", dovecot.lmtp_port) as client:
            client.sendmail("a@b.test", users, MESSAGE)
        maildir.wait(box, 2)
        sizes = [len(octets) for octets in maildir.raw(box)]
        until(lambda: used(box) == ("4096S,50C", sum(sizes), 2), "Dovecot has written our file")
        got = subprocess.run(
            [need.program("doveadm"), "-c", str(dovecot.config_path), "quota", "get", "-u", users[0]],
            capture_output=True, text=True, check=True, timeout=20,
        ).stdout
        assert re.search(r"MESSAGE +2 +50 ", got), got
