"""A real list server behind a pipe: mlmmj, which an alias names, in a node that root starts. What it sends comes back
to the node by SMTP. Members are here, and at a Postfix elsewhere that does not know one of them.
"""

from __future__ import annotations

import os
import pwd
import re
import smtplib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import dsn, maildir, need, ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop, relay_listener
from tests.peers.harness.process import until
from tests.peers.harness.users import users

NODE, LISTS = "prnode", "prlists"
ALIASES = """
dev: "|{receive} -L {lists}/dev"
broken: "|{receive} -L {lists}/broken"
owner-broken: ada@members.example
gone: "|{lists}/no-such-program"
"""


@dataclass(frozen=True)
class Machine:
    node: Node
    postfix: Postfix
    lists: Path
    members: Path

    def members_of(self, name: str) -> list[str]:
        said = subprocess.run(
            [need.program("mlmmj-list"), "-L", str(self.lists / name)], capture_output=True, text=True, check=True
        )
        return said.stdout.split()

    def far(self, name: str) -> Path:
        return self.postfix.directory / "mail" / "far.example" / name


def make_list(lists: Path, name: str, port: int) -> None:
    """As the administrator does: the answers are domain, owner and language."""
    make = [need.program("mlmmj-make-ml"), "-L", name, "-s", str(lists)]
    subprocess.run(make, input="lists.example\nada@members.example\nen\n", text=True, check=True, capture_output=True)
    control = lists / name / "control"
    for file, text in (("smtpport", f"{port}\n"), ("relayhost", "127.0.0.1\n"), ("tocc", "")):
        (control / file).write_text(text)


def subscribe(lists: Path, name: str, member: str) -> None:
    subprocess.run(
        [need.program("mlmmj-sub"), "-L", str(lists / name), "-a", member, "-s"], check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def machine(place: Path) -> Iterator[Machine]:
    receive = need.program("mlmmj-receive")
    with users(system=[NODE, LISTS]):
        yield from _running(place, receive)


def _running(place: Path, receive: str) -> Iterator[Machine]:
    place.chmod(0o755)
    back = ports.port()
    lists, members = place / "lists", place / "members"
    lists.mkdir(mode=0o755)
    make_list(lists, "dev", back)
    for member in ("ada@members.example", "carol@far.example", "nobody@far.example"):
        subscribe(lists, "dev", member)
    subprocess.run(["chown", "-R", LISTS, str(lists)], check=True)
    for folder in (members, place / "node"):
        folder.mkdir(mode=0o755)
        os.chown(folder, pwd.getpwnam(NODE).pw_uid, -1)
    (place / "node" / "aliases").write_text(ALIASES.format(receive=receive, lists=lists))
    far = {
        "virtual_mailbox_domains": "far.example", "virtual_mailbox_base": str(place / "far/mail"),
        "virtual_mailbox_maps": "inline:{carol@far.example=far.example/carol/, dave@far.example=far.example/dave/}",
        "virtual_uid_maps": f"static:{pwd.getpwnam('nobody').pw_uid}", "virtual_gid_maps": "static:65534",
        "virtual_minimum_uid": "1", "recipient_delimiter": "",
    }  # fmt: skip
    (place / "far" / "mail" / "far.example").mkdir(parents=True)
    os.chown(place / "far" / "mail" / "far.example", pwd.getpwnam("nobody").pw_uid, -1)
    with Postfix(place / "far", settings=far) as postfix, Node(place / "node", {
        "user": NODE, "aliases": "aliases", "postmaster": "ada@members.example",
        "alias_targets": {"programs": ["aliases"], "user": LISTS},
        "listener": [mx_listener(ports.port(), tls="none"), relay_listener(back)],
        "domain": [
            {"name": "lists.example", "deliver": "aliases"},
            local_domain("members.example", ["ada", "bob"], path=str(members / "{local_part}")),
        ],
        "next_hop": [next_hop("far.example", postfix.port)],
    }) as node:  # fmt: skip
        yield Machine(node, postfix, lists, members)


def send(port: int, sender: str, to: str, subject: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        content = f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\nhello\r\n"
        client.sendmail(sender, [to], content.encode())


def test_a_post_comes_to_members_here_and_elsewhere(machine: Machine) -> None:
    send(machine.node.port, "ada@members.example", "dev@lists.example", "first")
    (here,) = maildir.wait(machine.members / "ada", 1, of="Subject: first")
    (there,) = maildir.wait(machine.far("carol"), 1, of="Subject: first")
    assert b"Return-Path: <dev+bounces-1-ada=members.example@lists.example>" in here
    assert b"Return-Path: <dev+bounces-1-carol=far.example@lists.example>" in there
    # The report on the third member comes back to the program, which finds there whom it concerns.
    bounced = machine.lists / "dev" / "bounce" / "nobody=far.example"
    until(lambda: bounced.exists() and bounced.read_text().startswith("1:"), "mlmmj has noted the bounce")


def test_somebody_subscribes_by_mail(machine: Machine) -> None:
    port = int(machine.node.config["listener"][0]["port"])
    send(port, "dave@far.example", "dev+subscribe@lists.example", "subscribe")
    (asked,) = maildir.wait(machine.far("dave"), 1, of="dev+confsub-")
    found = re.search(rb"dev\+confsub-[0-9a-f]+-dave=far\.example@lists\.example", asked)
    assert found is not None, asked
    assert "dave@far.example" not in machine.members_of("dev")
    send(port, "dave@far.example", found[0].decode(), "Re: confirm")
    until(lambda: "dave@far.example" in machine.members_of("dev"), "dave is a member")
    maildir.wait(machine.far("dave"), 2)
    send(port, "dave@far.example", "dev@lists.example", "of-dave")
    maildir.wait(machine.members / "ada", 1, of="Subject: of-dave")
    send(port, "dave@far.example", "dev+unsubscribe@lists.example", "unsubscribe")
    (asked,) = maildir.wait(machine.far("dave"), 1, of="dev+confunsub-")
    found = re.search(rb"dev\+confunsub-[0-9a-f]+-dave=far\.example@lists\.example", asked)
    assert found is not None, asked
    send(port, "dave@far.example", found[0].decode(), "Re: confirm")
    until(lambda: "dave@far.example" not in machine.members_of("dev"), "dave has left")


def test_the_program_sees_for_which_address_it_is_run(machine: Machine) -> None:
    """Delivered-To counts, not what a stranger has written into To."""
    port = int(machine.node.config["listener"][0]["port"])
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        content = b"From: dave@far.example\r\nTo: dev+subscribe@lists.example\r\nSubject: other\r\n\r\nx\r\n"
        client.sendmail("dave@far.example", ["dev+help@lists.example"], content)
    (said,) = maildir.wait(machine.far("dave"), 1, of="dev+unsubscribe@")
    assert b"dev+confsub-" not in said


def test_one_message_for_all_members_and_the_node_makes_the_senders(machine: Machine) -> None:
    verp = machine.lists / "dev" / "control" / "verp"
    verp.write_text("postfix\n")
    send(machine.node.port, "ada@members.example", "dev@lists.example", "by-xverp")
    (there,) = maildir.wait(machine.far("carol"), 1, of="Subject: by-xverp")
    (here,) = maildir.wait(machine.members / "ada", 1, of="Subject: by-xverp")
    found = re.search(rb"Return-Path: <dev\+bounces-(\d+)-carol=far\.example@lists\.example>", there)
    assert found is not None and b"Return-Path: <dev+bounces-%b-ada=members.example@" % found[1] in here, (here, there)
    bounced = machine.lists / "dev" / "bounce" / "nobody=far.example"
    until(lambda: bounced.read_text().count("\n") == 2, "mlmmj has noted the second bounce")
    verp.unlink()


def test_who_hears_of_a_list_that_is_broken(machine: Machine) -> None:
    send(machine.node.port, "bob@members.example", "broken@lists.example", "to-a-broken-list")
    (report,) = dsn.wait(machine.members / "ada", "broken@lists.example")
    assert report.recipients[0]["Action"] == "failed" and not (machine.members / "bob").exists()
    send(machine.node.port, "bob@members.example", "gone@lists.example", "waits")
    until(lambda: "could not be started" in machine.node.command("trace", "gone@lists.example"), "it waits")
