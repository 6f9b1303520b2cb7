"""Limits of what may be sent, on whole nodes: two workers, restarts, the postmaster, `postroad limits`."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import maildir, ports
from tests.peers.harness.postroad import Node, local_domain, next_hop, relay_listener, submission_listener
from tests.peers.harness.process import until
from tests.peers.harness.remote import Remote

pytestmark = pytest.mark.peer

MESSAGE = b"Subject: hello\r\n\r\nhello\r\n"


@dataclass(frozen=True)
class World:
    node: Node
    remote: Remote


@pytest.fixture(scope="module")
def world(place: Path) -> Iterator[World]:
    folder = place / "node"
    folder.mkdir(parents=True)
    (folder / "limits").write_text("bulk recipients_per_day=100\nheld messages_per_hour=1 over=hold held_max=1\n")
    with Remote() as remote:
        node = Node(folder, {
            "postmaster": "post@example.test",
            "listener": [
                relay_listener(ports.port()),
                submission_listener(ports.port(), auth_without_tls=True),
            ],
            "auth": {"users": "users"},
            "domain": [local_domain("example.test", ["post", "carol"])],
            "sending": {"limit_maps": ["limits"], "limit": [
                {"whose": "account", "messages_per_hour": 3, "recipients_per_day": 6},
                {"whose": "client", "messages_per_day": 4},
            ]},
            "map": [{"name": "limits", "kind": "text", "file": "limits"}],
            "next_hop": [next_hop("*", remote.port)],
        })  # fmt: skip
        for name in ("ada", "bulk", "held", "bob"):
            node.add_user(name, "secret", "*@example.test")
        with node:
            yield World(node, remote)


def send(node: Node, account: str, recipients: int = 1) -> str:
    """One message in a connection of its own, so that both workers get some; the first answer that is no 250."""
    with smtplib.SMTP("127.0.0.1", node.config["listener"][1 if account else 0]["port"], timeout=20) as client:
        client.ehlo("client.test")
        if account:
            client.login(account, "secret")
        code, text = client.mail(f"{account or 'host'}@example.test")
        for number in range(recipients):
            if code == 250:
                code, text = client.rcpt(f"to-{number}@far.example")
        if code == 250:
            code, text = client.data(MESSAGE)
        return f"{code} {text.decode().split()[0]}"


def counts(node: Node, name: str) -> tuple[int, int]:
    """Messages and recipients within a day, as the node tells."""
    rows = node.json("limits", "--of", name)
    return (rows[0]["messages_per_day"], rows[0]["recipients_per_day"]) if rows else (0, 0)


def sent(node: Node, account: str, recipients: int = 1) -> str:
    """The same, when the office has heard of the messages before."""
    before = counts(node, account)
    answer = send(node, account, recipients)
    if answer.startswith("250"):
        until(lambda: counts(node, account) == (before[0] + 1, before[1] + recipients), "the message is counted")
    return answer


def test_an_account_hears_of_its_limit_and_the_postmaster_once(world: World) -> None:
    node = world.node
    assert [sent(node, "ada") for _ in range(3)] == ["250 2.0.0"] * 3
    assert [send(node, "ada") for _ in range(6)] == ["450 4.7.1"] * 6
    assert counts(node, "ada") == (3, 3)
    notice = maildir.wait(node.maildir("post@example.test"), of="account ada")
    assert len(notice) == 1 and b"3 messages within an hour" in notice[0]
    assert b"Auto-Submitted: auto-generated" in notice[0]
    node.wait_log("450 4.7.1", 6)
    node.wait_log("the limit of the account ada is reached", 6)
    told = node.command("limits")
    assert "ada" in told and "RECIPIENTS/DAY" in told


def test_recipients_count_one_by_one(world: World) -> None:
    assert sent(world.node, "bob", 4) == "250 2.0.0"
    assert send(world.node, "bob", 3) == "450 4.7.1"
    assert sent(world.node, "bob", 2) == "250 2.0.0"
    assert counts(world.node, "bob") == (2, 6)


def test_the_map_has_limits_of_its_own(world: World) -> None:
    assert [send(world.node, "bulk", 20) for _ in range(4)] == ["250 2.0.0"] * 4
    assert [sent(world.node, "held"), send(world.node, "held")] == ["250 2.0.0"] * 2
    until(lambda: "the limit of the account held" in world.node.command("queue", "--messages"), "the message is held")
    assert counts(world.node, "held") == (1, 1)
    until(lambda: world.node.json("limits", "--of", "held")[0]["held_per_day"] == 1, "the held message is counted")
    assert [send(world.node, "held") for _ in range(4)] == ["450 4.7.1"] * 4
    assert len(world.node.json("queue", "--messages", "--held")) == 1


def test_a_trusted_client_has_a_limit(world: World) -> None:
    for number in range(4):
        assert send(world.node, "") == "250 2.0.0"
        until(lambda number=number: counts(world.node, "127.0.0.1")[0] == number + 1, "the message is counted")
    assert send(world.node, "") == "450 4.7.1"


def test_counts_survive_restarts_and_crashes_of_workers(world: World) -> None:
    node = world.node
    node.restart()
    assert counts(node, "ada") == (3, 3)
    assert send(node, "ada") == "450 4.7.1"
    node.renew_worker()
    assert [send(node, "ada") for _ in range(6)] == ["450 4.7.1"] * 6
    until(lambda: (node.state / "sending").exists(), "the counts are in their file")
    node.kill()
    node.start()
    assert send(node, "ada") == "450 4.7.1"
    assert sum(b"account ada" in each for each in maildir.raw(node.maildir("post@example.test"))) == 1


def test_an_operator_has_a_count_begin_anew(world: World) -> None:
    node = world.node
    assert "ada" in node.command("limits", "reset", "ada")
    assert counts(node, "ada") == (0, 0)
    until(lambda: send(node, "ada") == "250 2.0.0", "the account may send again")
    node.command("limits", "reset", "nobody", code=1)
