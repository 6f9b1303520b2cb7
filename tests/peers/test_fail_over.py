"""Several hosts, fallbacks and addresses of ours, with real servers; beside a Postfix with the same transport table."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.peers.harness import ports
from tests.peers.harness.exim import Exim
from tests.peers.harness.postfix import Postfix
from tests.peers.harness.postroad import Node, next_hop, relay_listener
from tests.peers.harness.process import until
from tests.peers.harness.remote import Dialog, Remote

pytestmark = pytest.mark.peer

FIRST: Final = 5  # tries of which all must show the same


class Road(NamedTuple):
    """The same ways through Postroad and through Postfix. `first` and `second` are the hosts of a list; `relay` is the
    fallback of what cannot be reached."""

    node: Node
    postfix: Postfix
    first: Remote
    second: Remote
    relay: Remote
    answers: Answers  # of the first


class Answers:
    """What a remote says in its greeting and to RCPT, as a test sets it."""

    def __init__(self) -> None:
        self.greeting = ""
        self.rcpt = ""

    def __call__(self, dialog: Dialog, verb: str, argument: str) -> str | None:
        return {"CONNECT": self.greeting, "RCPT": self.rcpt}.get(verb) or None


@pytest.fixture(scope="module")
def road(place: Path) -> Iterator[Road]:
    answers = Answers()
    first, second, relay = Remote(answers), Remote(), Remote()
    listed = f"smtp:[127.0.0.1]:{first.port}, [127.0.0.1]:{second.port}"
    dead = f"smtp:[127.0.0.1]:{ports.port()}"
    folder = place / "node"
    folder.mkdir(parents=True)
    table = f"list.test {listed}\ndead.test {dead}\n"
    (folder / "transport").write_text(table)
    node = Node(folder, {
        "listener": [relay_listener(ports.port())],
        "routing": {"transport_maps": ["transport"], "tls": "never"},
        "map": [{"name": "transport", "kind": "text", "file": "transport"}],
        "next_hop": [
            {"name": "dead", "host": "127.0.0.1", "port": int(dead.rpartition(":")[2]), "tls": "never",
             "fallback": [f"127.0.0.1:{relay.port}"]},
        ],
        "outbound": {"messages_max": 1, "hop_memory_s": 0},
    })  # fmt: skip
    etc = place / "transport"
    etc.write_text(table)
    postfix = Postfix(place / "postfix", settings={
        "transport_maps": f"texthash:{etc}", "smtp_fallback_relay": f"[127.0.0.1]:{relay.port}",
    })  # fmt: skip
    with first, second, relay, node, postfix:
        yield Road(node, postfix, first, second, relay, answers)


def send(port: int, name: str, sender: str = "ada@remote.test") -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.sendmail(sender, [name], "Subject: x\r\n\r\nhello\r\n")


def took(remote: Remote, recipient: str) -> bool:
    return any(recipient in to for each in remote.transactions for to in each.rcpt)


def _goes_to(road: Road, remote: Remote, recipient: str) -> None:
    """The same way in both. `recipient`: its name gets that of the program in front."""
    for name, port in (("postroad", road.node.port), ("postfix", road.postfix.port)):
        address = f"{name}-{recipient}"
        send(port, address)
        until(lambda address=address: took(remote, address), f"{address} at the remote")  # type: ignore[misc]


def test_the_first_host_of_a_list_that_is_there(road: Road) -> None:
    for number in range(FIRST):
        _goes_to(road, road.first, f"first{number}@list.test")


def test_the_next_host_of_a_list_if_the_first_is_down(road: Road) -> None:
    road.first.stop()
    try:
        _goes_to(road, road.second, "down@list.test")
    finally:
        road.first.start()
    until(lambda: f":{road.second.port}" in road.node.command("trace", "postroad-down@list.test"), "the history")
    found = road.node.command("trace", "postroad-down@list.test")
    assert f"[127.0.0.1]:{road.second.port}" in found and f"[127.0.0.1]:{road.first.port}" in found


@pytest.mark.parametrize("greeting", ["421 4.3.2 busy", "450 4.7.1 later"])
def test_the_next_host_of_a_list_if_the_first_refuses_the_session(road: Road, greeting: str) -> None:
    road.answers.greeting = greeting
    try:
        _goes_to(road, road.second, f"busy{greeting[:3]}@list.test")
    finally:
        road.answers.greeting = ""


def test_a_recipient_who_is_deferred_waits_for_the_first_host(road: Road) -> None:
    """Here we differ from Postfix, which asks the next host at once: greylisting is an answer, not a host that is
    down."""
    road.answers.rcpt = "450 4.2.0 greylisted"
    try:
        send(road.postfix.port, "postfix-grey@list.test")
        until(lambda: took(road.second, "postfix-grey@list.test"), "mail of Postfix at the second host")
        send(road.node.port, "postroad-grey@list.test")
        until(lambda: "greylisted" in road.node.command("queue"), "the mail waits")
    finally:
        road.answers.rcpt = ""
    assert not took(road.second, "postroad-grey@list.test")


def test_mail_for_a_host_that_is_down_goes_to_the_fallback(road: Road) -> None:
    _goes_to(road, road.relay, "late@dead.test")


def test_mail_goes_from_the_addresses_of_its_next_hop(place: Path) -> None:
    """Real servers: Exim and Postfix say in their logs where a connection came from, and by what name."""
    exim = Exim(place / "exim", domain="exim.test", mailboxes=["ada"])
    postfix = Postfix(place / "target", settings={"default_transport": "discard:", "mynetworks": "127.0.0.0/8"})
    node = Node(place / "origin", {
        "listener": [relay_listener(ports.port())],
        "next_hop": [
            next_hop("exim.test", exim.port, source_ipv4=["127.0.0.7 seven.test", "127.0.0.8 eight.test"]),
            next_hop("postfix.test", postfix.port, source_ipv4="127.0.0.9"),
            next_hop("missing.test", postfix.port, source_ipv4="192.0.2.77"),
        ],
        "outbound": {"messages_max": 1, "hello": "usual.test"},
    })  # fmt: skip
    with exim, postfix, node:
        checked = node.command("check", code=None)
        assert "192.0.2.77 is not an address of this machine, so nothing can be sent from it" in checked
        for number in range(4):
            send(node.port, "ada@exim.test", f"s{number}@remote.test")
            until(lambda number=number: f"s{number}@remote.test" in exim.log(), "mail at Exim")  # type: ignore[misc]
        lines = [line for line in exim.log().splitlines() if " <= s" in line]
        for address, name in (("127.0.0.7", "seven.test"), ("127.0.0.8", "eight.test")):
            assert any(f"[{address}]" in line and name in line for line in lines), lines
        send(node.port, "ada@postfix.test")
        until(lambda: "[127.0.0.9]" in postfix.log(), "mail at Postfix")
        send(node.port, "ada@missing.test")
        until(lambda: "is not an address of this machine now" in node.command("queue"), "the mail waits")


def test_held_mail_large_mail_and_lifetimes_of_their_own(place: Path) -> None:
    """Mail that its next hop holds, two lines by size and class, and a table whose mail is given up after a second."""
    usual, other = Remote(), Remote()
    node = Node(place / "lines", {
        "listener": [relay_listener(ports.port())],
        "next_hop": [
            next_hop("*", usual.port),
            {"size_min": "20K", "host": "127.0.0.1", "port": other.port, "tls": "never"},
            {"classes": "bulk", "fields": "X-Campaign", "host": "127.0.0.1", "port": other.port, "tls": "never"},
            next_hop("partner.test", usual.port, action="hold:until Monday"),
            next_hop("short.test", ports.port(), lifetime_s=1, delay_notice_s=0, retry_first_s=1, retry_max_s=1),
        ],
    })  # fmt: skip
    with usual, other, node:
        _say(node, "small@lines.test", "Subject: x\r\n\r\nhello\r\n")
        _say(node, "large@lines.test", "Subject: x\r\n\r\n" + ("x" * 60 + "\r\n") * 500)
        _say(node, "list@lines.test", "List-Id: <l.test>\r\n\r\nhello\r\n")
        _say(node, "campaign@lines.test", "X-Campaign: spring\r\n\r\nhello\r\n")
        for name, remote in (("small", usual), ("large", other), ("list", other), ("campaign", other)):
            until(lambda name=name, remote=remote: took(remote, f"{name}@lines.test"), name)  # type: ignore[misc]
        _say(node, "ada@partner.test", "Subject: x\r\n\r\nhello\r\n")
        until(lambda: "until Monday" in node.command("queue", "--messages"), "the mail is held")
        assert "hold " in node.command("queue") and not took(usual, "ada@partner.test")
        node.command("queue", "release", "--destination", "hold")
        until(lambda: took(usual, "ada@partner.test"), "the released mail")
        found = node.command("trace", "ada@partner.test")
        assert "held" in found and "until Monday" in found and "released" in found
        _say(node, "ada@short.test", "Subject: x\r\n\r\nhello\r\n")
        until(lambda: took(usual, "ada@remote.test"), "the report of mail whose lifetime is over")
        assert "large@lines.test goes to [127.0.0.1]:" + str(other.port) in node.command(
            "route", "large@lines.test", "--size", "30000"
        )


def _say(node: Node, recipient: str, content: str) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
        client.sendmail("ada@remote.test", [recipient], content)
