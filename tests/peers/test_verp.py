"""XVERP beside Postfix: the same commands to both, and what a remote hears of each."""

from __future__ import annotations

import re
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, local_domain, mx_listener, next_hop, relay_listener
from tests.peers.harness.process import until
from tests.peers.harness.remote import Dialog, Remote

pytestmark = pytest.mark.peer

LONG = "x" * 60


@dataclass(frozen=True)
class Pair:
    node: Node
    postfix: Postfix
    remote: Remote
    mx: int


def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
    return "550 5.1.1 nobody here" if verb == "RCPT" and "<gone" in argument else None


@pytest.fixture(scope="module")
def pair(place: Path) -> Iterator[Pair]:
    mx = ports.port()
    folder = place / "node"
    folder.mkdir(parents=True)
    (folder / "aliases").write_text("team: ada@far.example, bob@far.example\n")
    with Remote(rule) as remote:
        postfix = Postfix(place / "postfix", settings={
            "relayhost": f"[127.0.0.1]:{remote.port}", "bounce_notice_recipient": "x@far.example",
            "recipient_delimiter": "+", "smtpd_authorized_verp_clients": "127.0.0.1",
        })  # fmt: skip
        node = Node(folder, {
            "aliases": "aliases",
            "listener": [relay_listener(ports.port()), mx_listener(mx)],
            "domain": [local_domain("example.test", ["list", "carol"])],
            "next_hop": [next_hop("*", remote.port)],
        })  # fmt: skip
        postfix.start()
        with node:
            yield Pair(node, postfix, remote, mx)
        postfix.stop()


def send(port: int, parameter: str, recipients: tuple[str, ...], mark: str, sender: str = "list@other.test") -> str:
    """The reply to MAIL; the message goes if it is 250."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("client.test")
        code, text = client.docmd("MAIL", f"FROM:<{sender}> {parameter}".rstrip())
        if code == 250:
            for each in recipients:
                assert client.rcpt(each)[0] == 250
            assert client.data(f"Subject: {mark}\r\n\r\nhello\r\n".encode())[0] == 250
        return f"{code} {text.decode().split()[0]}"


def heard(remote: Remote, mark: str, count: int) -> set[tuple[str, str]]:
    """Sender and recipient of each transaction with this mark."""
    def found() -> list[tuple[str, str]]:
        return [
            (_path(each.mail), " ".join(map(_path, each.rcpt)))
            for each in remote.transactions
            if mark.encode() in each.content and each.mail.split()[0] != "FROM:<>"
        ]

    until(lambda: len(found()) >= count, f"{count} messages {mark}")
    return set(found())


def _path(command: str) -> str:
    found = re.search("<(.*?)>", command)
    assert found is not None
    return found[1]


RECIPIENTS = ("ada@far.example", "A.b+c@other.example", f"{LONG}@far.example", '"a b"@far.example')


@pytest.mark.parametrize("parameter", ["XVERP", "XVERP=-=", "xverp=+="])
def test_the_remote_hears_the_same_senders_as_of_postfix(pair: Pair, parameter: str) -> None:
    told = {}
    for name, port in (("postfix", pair.postfix.port), ("postroad", pair.node.port)):
        mark = f"{name} {parameter}"
        assert send(port, parameter, RECIPIENTS, mark)[:3] == "250"
        told[name] = heard(pair.remote, mark, len(RECIPIENTS))
    assert told["postroad"] == told["postfix"]
    assert len(told["postroad"]) == len(RECIPIENTS)


@pytest.mark.parametrize(("parameter", "sender"), [("XVERP", ""), ("XVERP=ab", "l@x.test"), ("XVERP=+", "l@x.test")])
def test_what_postfix_refuses_is_refused(pair: Pair, parameter: str, sender: str) -> None:
    for port in (pair.postfix.port, pair.node.port):
        assert send(port, parameter, (), "refused", sender)[0] == "5"


def test_strangers_are_not_offered_it(pair: Pair) -> None:
    with smtplib.SMTP("127.0.0.1", pair.mx, timeout=20) as client:
        client.ehlo("client.test")
        assert not client.has_extn("xverp")
        assert client.docmd("MAIL", "FROM:<a@b.example> XVERP")[0] == 555
    with smtplib.SMTP("127.0.0.1", pair.node.port, timeout=20) as client:
        client.ehlo("client.test")
        assert client.has_extn("xverp")


def test_the_members_of_an_alias_have_the_sender_of_the_alias(pair: Pair) -> None:
    """As in Postfix: the list knows the address that it has sent to."""
    assert send(pair.node.port, "XVERP", ("team@example.test",), "to the team")[:3] == "250"
    (found,) = heard(pair.remote, "to the team", 1)
    assert found == ("list+team=example.test@other.test", "ada@far.example bob@far.example")


def test_reports_go_to_the_sender_of_each_recipient(pair: Pair) -> None:
    recipients = ("gone1@far.example", "gone2@far.example")
    assert send(pair.node.port, "XVERP", recipients, "failing", "list@example.test")[:3] == "250"
    reports = maildir.wait(pair.node.maildir("list@example.test"), 2, of="failing")
    assert {str(maildir.parse(each)["To"]) for each in reports} == {
        f"list+gone{number}=far.example@example.test" for number in (1, 2)
    }
    assert send(pair.postfix.port, "XVERP", recipients, "failing postfix", "list@other.test")[:3] == "250"
    pair.remote.wait_for(lambda each: b"failing postfix" in each.content and each.mail.startswith("FROM:<>"))
    bounces = {_path(each.rcpt[0]) for each in pair.remote.transactions if b"failing postfix" in each.content}
    assert bounces <= {f"list+gone{number}=far.example@other.test" for number in (1, 2)}


def test_commands_of_the_machine(pair: Pair) -> None:
    """`postroad submit --verp`; `sendmail -XV` goes the same way from the request on."""
    done = subprocess.run(
        [sys.executable, "-m", "postroad", "submit", "--config", str(pair.node.config_path), "-f", "list@example.test",
         "--verp", "--verp-delimiters", "-=", "ada@far.example", "carol@example.test"],
        input="Subject: submitted\n\nhello\n", text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert heard(pair.remote, "submitted", 1) == {("list-ada=far.example@example.test", "ada@far.example")}
    local = maildir.wait(pair.node.maildir("carol@example.test"), of="submitted")[0]
    assert b"Return-Path: <list-carol=example.test@example.test>" in local
