"""Programs, files, Maildirs and included files as targets of aliases, in a node of its own and as other users."""

from __future__ import annotations

import os
import pwd
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import dsn, maildir
from tests.peers.harness.postroad import Node, local_domain
from tests.peers.harness.process import replace, until
from tests.peers.harness.users import users

NODE = "prnode"
PROGRAM = """#!/bin/sh
{ id -un; printf '%s\\n' "$@"; env | sort; cat; } > "$1"
"""
ALIASES = """
list: "|{place}/program {place}/out/one -L 'a b'", |{place}/program\t
two: "|{place}/program {place}/out/first", "|{place}/program {place}/out/second", ada
archive: {place}/archive, {place}/kept/
null: /dev/null
root: list
members: :include:{place}/members
fails: "|/bin/sh -c 'exit 67'"
waits: "|/bin/sh -c 'exit 75'", ada
owned: erin, fails, "|{place}/program {place}/out/owned"
owner-owned: frank
one: frank
owner-one: erin
"""


@pytest.fixture(scope="module")
def node(place: Path) -> Iterator[Node]:
    place.chmod(0o755)
    (place / "out").mkdir()
    (place / "out").chmod(0o1777)
    program = place / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (place / "members").write_text("# members\nada, bob@example.org\n\ncarol\n")
    (place / "aliases").write_text(ALIASES.replace(", |{place}/program\t", "").format(place=place))
    settings = {
        "aliases": str(place / "aliases"),
        "alias_targets": {"programs": ["aliases"], "files": ["aliases"], "includes": ["aliases"]},
        "domain": [
            local_domain("example.org", path=str(place / "mail" / "{local_part}")),
            local_domain("sender.example", path=str(place / "sender" / "{local_part}")),
        ],
        "program": {"time_s": 30},
    }
    (place / "mail").mkdir()
    (place / "sender").mkdir()
    with Node(place / "node", settings) as made:
        yield made


def send(node: Node, *to: str) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.sendmail("s@sender.example", to, b"Subject: x\r\nMessage-ID: <1@x>\r\n\r\nFrom here\r\nhello\r\n")


def place_of(node: Node) -> Path:
    return node.directory.parent


def test_a_program_gets_words_and_no_shell(node: Node) -> None:
    send(node, "root+x@example.org")
    file = place_of(node) / "out" / "one"
    until(lambda: file.exists() and b"hello" in file.read_bytes(), "the program ran")
    lines = file.read_text().splitlines()
    assert lines[1:4] == [str(file), "-L", "a b"]
    assert "RECIPIENT=list@example.org" in lines and "SENDER=s@sender.example" in lines
    assert {"LOCAL=list", "EXTENSION=", "DOMAIN=example.org", "ORIGINAL_RECIPIENT=root+x@example.org"} <= {*lines}
    node.wait_trace("root+x@example.org", "expanded   <root+x@example.org> into <|", "was delivered to program:|")


def test_two_programs_of_an_alias_are_two_deliveries(node: Node) -> None:
    send(node, "two@example.org")
    files = [place_of(node) / "out" / name for name in ("first", "second")]
    until(lambda: all(file.exists() and b"hello" in file.read_bytes() for file in files), "both programs ran")
    maildir.wait(place_of(node) / "mail" / "ada", 1)
    until(lambda: node.command("trace", "two@example.org").count("was delivered to program:|") == 2, "two deliveries")


def test_files_maildirs_and_nothing(node: Node) -> None:
    send(node, "archive@example.org", "null@example.org")
    (kept,) = maildir.wait(place_of(node) / "kept", 1)
    assert b"Delivered-To: archive@example.org\n" in kept and b"Return-Path: <s@sender.example>\n" in kept
    file = place_of(node) / "archive"
    until(lambda: file.exists() and b"\n>From here\nhello\n" in file.read_bytes(), "mail in the file")
    node.wait_trace("null@example.org", "thrown away")


def test_an_included_file_is_read_again_and_a_broken_one_is_told(node: Node) -> None:
    place = place_of(node)
    send(node, "members@example.org")
    maildir.wait(place / "mail" / "carol", 1)
    replace(place / "members", "carol\n|/bin/true\n")
    node.wait_log(f"{place}/members:2: '|/bin/true': programs are not allowed here")
    node.wait_log("Its old targets stay in force")
    send(node, "members@example.org")
    maildir.wait(place / "mail" / "bob", 2)
    replace(place / "members", "dave\n")

    def is_read() -> bool:
        time.sleep(0.5)
        send(node, "members@example.org")
        return (place / "mail" / "dave").exists()

    until(is_read, "the changed file is in force", within_s=30)


def test_exit_codes_of_programs(node: Node) -> None:
    send(node, "fails@example.org", "waits@example.org")
    (report,) = dsn.wait(place_of(node) / "sender" / "s", "fails@example.org")
    assert (report.recipients[0]["Status"], report.recipients[0]["Final-Recipient"]) == (
        "5.1.1", "rfc822; fails@example.org"
    )  # fmt: skip
    until(lambda: "program:|/bin/sh" in node.command("queue"), "the program is tried again later")
    for told in (node.command("queue"), node.command("trace", "waits@example.org")):
        assert "settings now" not in told and "routes now" not in told, told


def test_a_list_with_an_owner_has_its_own_sender(node: Node) -> None:
    send(node, "owned@example.org", "gina@example.org")
    place = place_of(node)
    (member,) = maildir.wait(place / "mail" / "erin", 1)
    (direct,) = maildir.wait(place / "mail" / "gina", 1)
    assert b"Return-Path: <owner-owned@example.org>\n" in member and b"Return-Path: <s@sender.example>\n" in direct
    (report,) = dsn.wait(place / "mail" / "frank", "fails@example.org")
    assert report.recipients[0]["Status"] == "5.1.1"
    file = place / "out" / "owned"
    until(lambda: file.exists() and "SENDER=owner-owned@example.org" in file.read_text(), "the program ran")
    assert "the sender of the mail through a list is its owner <owner-owned@example.org>" in node.command(
        "trace", "owned@example.org"
    )
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.sendmail("", ["owned@example.org"], b"Subject: null\r\n\r\nx\r\n")
    (null,) = maildir.wait(place / "mail" / "erin", of="Subject: null")
    assert b"Return-Path: <>\n" in null
    assert len(maildir.wait(place / "mail" / "frank", 1)) == 1, "no report on a report"


def test_success_at_a_list_with_one_member_is_told_by_the_list(node: Node) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.sendmail("n@sender.example", ["one@example.org"], b"Subject: n\r\n\r\nx\r\n", [], ["NOTIFY=SUCCESS"])
    (report,) = dsn.wait(place_of(node) / "sender" / "n", "one@example.org")
    assert report.recipients[0]["Action"] == "delivered"
    maildir.wait(place_of(node) / "mail" / "frank", 1)


def test_what_is_not_allowed_is_said_with_its_line(node: Node, tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text('a: b@example.net\nlist: "|/bin/true", /var/archive\n')
    other = Node(tmp_path / "node", {"aliases": str(tmp_path / "aliases"), "domain": node.config["domain"]})
    said = other.command("check", code=78)
    assert f'{tmp_path}/aliases:2: ' in said and 'write programs = ["aliases"] under [alias_targets]' in said


@pytest.fixture(scope="module")
def as_others(place: Path) -> Iterator[Node]:
    """A node that has given up the rights of root, with aliases as `nobody` or as the owner of their file."""
    with users("prada", system=[NODE]):
        yield from _as_others(place / "others")


def _as_others(place: Path) -> Iterator[Node]:
    place.mkdir(mode=0o755)
    (place / "out").mkdir()
    (place / "out").chmod(0o1777)
    (place / "program").write_text(PROGRAM)
    (place / "program").chmod(0o755)
    text = f'{{name}}: "|{place}/program {place}/out/{{name}}", {place}/out/{{name}}.mbox, {place}/out/{{name}}.dir/\n'
    for name in ("root", "prada"):
        (place / f"{name}.aliases").write_text(text.format(name=f"of-{name}"))
        os.chown(place / f"{name}.aliases", pwd.getpwnam(name).pw_uid, -1)
    (place / "state").mkdir(mode=0o755)
    os.chown(place / "state", pwd.getpwnam(NODE).pw_uid, -1)
    settings = {
        "user": NODE,
        "aliases": str(place / "root.aliases"),
        "alias_maps": ["lists"],
        "map": [{"name": "lists", "kind": "aliases", "file": str(place / "prada.aliases")}],
        "alias_targets": {"programs": ["aliases"], "files": ["aliases"], "user": "nobody", "as_owner": True},
        "domain": [local_domain("example.org", path=str(place / "mail" / "{local_part}"))],
    }
    with Node(place / "state", settings) as node:
        yield node


def test_as_the_owner_of_the_file_or_a_set_user(as_others: Node) -> None:
    out = place_of(as_others) / "out"
    send(as_others, "of-root@example.org", "of-prada@example.org")
    for name, user in (("of-root", "nobody"), ("of-prada", "prada")):
        files = [out / name, out / f"{name}.mbox"]
        until(lambda files=files: all(file.exists() and b"hello" in file.read_bytes() for file in files), name)
        assert (out / name).read_text().splitlines()[0] == user
        assert {pwd.getpwuid(file.stat().st_uid).pw_name for file in files} == {user}
        assert f"USER={user}" in (out / name).read_text().splitlines()
        (kept,) = maildir.wait(out / f"{name}.dir", 1)
        assert b"hello" in kept


def test_who_uses_them_is_taken_at_start(as_others: Node) -> None:
    as_others.config["alias_targets"] = {**as_others.config["alias_targets"], "user": "prada"}
    as_others.reload()
    as_others.wait_log("a change of deliveries as other users needs a restart")
