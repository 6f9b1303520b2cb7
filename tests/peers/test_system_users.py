"""Mailboxes of the users of this machine: who exists, Maildirs in homes."""

from __future__ import annotations

import os
import pwd
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import maildir
from tests.peers.harness.postroad import Node, local_domain
from tests.peers.harness.users import users

USERS = ("pruser1", "pruser2")
NODE = "prnode"


@pytest.fixture(scope="module")
def node(place: Path) -> Iterator[Node]:
    homes = {name: place / "home" / name for name in USERS}
    with users(*USERS, system=[NODE], homes=homes):
        yield from _running(place)


def _running(place: Path) -> Iterator[Node]:
    place.chmod(0o755)
    (place / "home").mkdir(mode=0o755)
    for name in USERS:
        (place / "home" / name).mkdir(mode=0o700)
        os.chown(place / "home" / name, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
    settings = {
        "user": NODE,
        "map": [{"name": "users", "kind": "users"}],
        "domain": [
            {
                "name": "host.example", "recipient_maps": ["users"], "deliver": "maildir", "path": "{home}/Maildir",
                "user": "{local_part}",
            },
            local_domain("sender.example", path=str(place / "sender" / "{local_part}")),
        ],
    }
    (place / "node").mkdir(mode=0o755)
    os.chown(place / "node", pwd.getpwnam(NODE).pw_uid, -1)
    (place / "sender").mkdir()
    os.chown(place / "sender", pwd.getpwnam(NODE).pw_uid, -1)
    with Node(place / "node", settings) as started:
        yield started


def home(node: Node, name: str) -> Path:
    return node.directory.parent / "home" / name


def send(node: Node, *to: str, sender: str = "s@sender.example") -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.sendmail(sender, to, b"Subject: x\r\n\r\nhello\r\n")


def test_a_user_has_a_maildir_in_his_home(node: Node) -> None:
    send(node, "pruser1@host.example", "PRuser2+lists@host.example")
    for name in USERS:
        (message,) = maildir.wait(home(node, name) / "Maildir", 1)
        assert b"\nhello\n" in message
        assert pwd.getpwuid((home(node, name) / "Maildir").stat().st_uid).pw_name == name


@pytest.mark.parametrize("name", ["no-such-user", "root", "daemon", "nobody", "a b", "../x"])
def test_who_is_no_user_is_refused_at_rcpt(node: Node, name: str) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.ehlo()
        client.mail("s@sender.example")
        quoted = f'"{name}"' if " " in name else name
        code, text = client.docmd(f"RCPT TO:<{quoted}@host.example>")
        assert (code, text[:5]) == (550, b"5.1.1"), text
