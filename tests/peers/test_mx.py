"""Routing by MX against a real DNS server (Knot), to remotes on one port of several loopback addresses (§5.1)."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.harness import dsn, maildir, ports
from tests.peers.harness.certificates import Authority
from tests.peers.harness.knot import Knot
from tests.peers.harness.postroad import Node, local_domain
from tests.peers.harness.remote import Dialog, Remote
from tests.peers.harness.validating import Validating


@dataclass(frozen=True)
class World:
    node: Node
    first: Remote
    second: Remote
    busy: Remote


def _busy(dialog: Dialog, verb: str, argument: str) -> str | None:
    return "421 4.3.2 too busy" if verb == "CONNECT" else None


def _ending(dialog: Dialog, verb: str, argument: str) -> str | None:
    """Ends each session in its middle."""
    return "421 4.3.2 going down" if verb == "MAIL" else None


@pytest.fixture(scope="module")
def world(place: Path) -> Iterator[World]:
    port = ports.port()  # of all mail exchangers, in place of 25
    first, second, busy, ending, dead = (ports.address() for _ in range(5))
    zones = {
        "several.example": f"""
            @ IN MX 10 dead
            @ IN MX 20 busy
            @ IN MX 30 first
            @ IN MX 40 second
            dead IN A {dead}
            busy IN A {busy}
            first IN A {first}
            second IN A {second}""",
        "midway.example": f"""
            @ IN MX 10 ending
            @ IN MX 20 second.several.example.
            ending IN A {ending}""",
        "equal.example": f"""
            @ IN MX 10 first
            @ IN MX 10 second
            first IN A {first}
            second IN A {second}""",
        "implicit.example": f"@ IN A {second}",
        "addresses.example": f"""
            @ IN MX 10 mx
            mx IN A {dead}
            mx IN A {first}""",
        "null.example": "@ IN MX 0 .",
        "alias.example": f"""
            @ IN MX 10 mx
            mail IN CNAME several.example.
            mx IN A {first}""",
        "xn--bcher-kva.example": f"""
            @ IN MX 10 mx
            mx IN A {first}""",
        "ourselves.example": "@ IN MX 10 postroad.test.",
        "nowhere.example": "@ IN MX 10 missing.nowhere.example.",
        "broken.example": "@ IN MX 10 mx.lame.test.",
    }
    knot = Knot(place / "knot", zones)
    with knot, Remote(address=first, port=port) as one, Remote(address=second, port=port) as two, \
            Remote(_busy, address=busy, port=port) as three, Remote(_ending, address=ending, port=port):
        node = Node(place / "node", {
            "dns": {"servers": [f"127.0.0.1:{knot.port}"], "timeout_s": 3, "total_s": 6},
            "routing": {"mx_port": port},
            "mx": {"loopback": True},
            "domain": [local_domain("example.test")],
        })
        with node:
            yield World(node, one, two, three)


def _send(world: World, to: str) -> str:
    """Sends one message; its Subject, by which it is found again."""
    subject = f"for {to.encode().hex()}"
    with smtplib.SMTP("127.0.0.1", world.node.port, timeout=20) as client:
        client.sendmail("sender@example.test", [to], f"Subject: {subject}\r\n\r\nhello\r\n")
    return subject


def _arrived(remote: Remote, subject: str) -> bool:
    return any(subject.encode() in transaction.content for transaction in remote.transactions)


def _report(world: World, subject: str) -> tuple[str, str]:
    """Action and status of the DSN that came for it."""
    (report,) = dsn.wait(world.node.maildir("sender@example.test"), subject)
    (fields,) = report.recipients
    return fields["Action"], fields["Status"]


def test_the_next_host_takes_what_a_dead_and_a_busy_one_did_not(world: World) -> None:
    world.node.restart()  # no connection is kept, and no host remembered
    before = world.busy.counts.get("CONNECT", 0)
    subject = _send(world, "a@several.example")
    world.first.wait_for(lambda each: subject.encode() in each.content)
    assert not _arrived(world.second, subject)
    assert world.busy.counts["CONNECT"] > before


def test_the_next_host_takes_at_once_what_a_host_that_ended_the_session_did_not(world: World) -> None:
    """RFC 5321 §5.1: each of the addresses is tried, wherever the attempt failed; and `trace` tells of both."""
    subject = _send(world, "a@midway.example")
    world.second.wait_for(lambda each: subject.encode() in each.content)
    world.node.wait_log("421 4.3.2 going down")


def test_equal_preferences_share_the_mail(world: World) -> None:
    """RFC 5321 §5.1: chosen among equals at random. Connections are kept, so several rounds are made."""
    for number in range(60):
        _send(world, f"a{number}@equal.example")
        if all(any("@equal.example" in each.rcpt[0] for each in remote.transactions)
               for remote in (world.first, world.second)):
            return
        if number % 5 == 4:
            world.node.restart()
    pytest.fail("one of two equal hosts never got a message")


@pytest.mark.parametrize(("to", "to_second"), [
    ("a@implicit.example", True),  # no MX: the domain's own address
    ("a@addresses.example", False),  # the second address of the one host
    ("a@mail.alias.example", False),  # a CNAME is followed
    ("a@bücher.example", False),  # looked up by its A-label
])
def test_the_host_is_found(world: World, to: str, to_second: bool) -> None:
    subject = f"for {to.encode().hex()}"
    with smtplib.SMTP("127.0.0.1", world.node.port, timeout=20) as client:
        client.ehlo("client.test")
        client.command_encoding = "utf-8"
        client.sendmail("sender@example.test", [to], f"Subject: {subject}\r\n\r\nhello\r\n",
                        [] if to.isascii() else ["SMTPUTF8"])
    remote = world.second if to_second else world.first
    found = remote.wait_for(lambda each: subject.encode() in each.content)
    assert found.rcpt[0].startswith("TO:<a@")


@pytest.mark.parametrize(("to", "status"), [
    ("a@null.example", "5.1.10"),  # RFC 7505 §4.1
    ("a@absent.several.example", "5.1.2"),  # NXDOMAIN
    ("a@ourselves.example", "5.4.6"),  # §5.1: we are the best MX, yet it is no domain of ours
    ("a@nowhere.example", "5.4.4"),  # RFC 5321 §5.1: MX whose host has no address
])
def test_what_can_be_delivered_nowhere_fails_at_once(world: World, to: str, status: str) -> None:
    assert _report(world, _send(world, to)) == ("failed", status)


def test_an_error_of_the_dns_defers(world: World) -> None:
    """Knot refuses to answer for zones that it does not have: no proof that the domain is not there."""
    before = len(maildir.raw(world.node.maildir("sender@example.test")))
    _send(world, "a@lame.test")
    world.node.wait_log("4.4.3")
    assert len(maildir.raw(world.node.maildir("sender@example.test"))) == before


def test_mail_that_requires_tls_goes_to_mail_servers_that_dnssec_has_proved(place: Path, authority: Authority) -> None:
    """RFC 8689 §4.2.1: the MX records proved, the certificate for the name that they give, and REQUIRETLS behind it."""
    port, good, wrong = ports.port(), ports.address(), ports.address()
    zones = {
        "signed.example": f"""
            @ IN MX 10 mx
            mx IN A {good}""",
        "plain.example": "@ IN MX 10 mx.signed.example.",
        "wrong.example": f"""
            @ IN MX 10 mx
            mx IN A {wrong}""",
    }
    chain, key = authority.certificate("postroad.test", "127.0.0.1")
    offers = ("PIPELINING", "ENHANCEDSTATUSCODES", "REQUIRETLS")
    context = authority.server_context("mx.signed.example")
    with (
        Knot(place / "signing", zones) as knot,
        Validating(knot.port, ("signed.example", "wrong.example")) as resolver,
        Remote(address=good, port=port, extensions=offers, context=context) as remote,
        Remote(address=wrong, port=port, extensions=offers, context=context) as other,
        Node(place / "requiring", {
            "tls": {"certificate": str(chain), "key": str(key)},
            "dns": {
                "servers": [f"127.0.0.1:{resolver.port}"], "validating": True, "timeout_s": 5, "total_s": 10,
            },
            "routing": {"mx_port": port},
            "mx": {"loopback": True},
            "outbound": {"tls": {"ca_file": str(authority.file)}},
            "domain": [local_domain("example.test")],
        }) as node,
    ):
        for domain in ("signed.example", "plain.example", "wrong.example"):
            with smtplib.SMTP("127.0.0.1", node.port, timeout=20) as client:
                client.starttls(context=authority.client_context())
                content = f"Subject: to {domain}\r\n\r\nhello\r\n"
                client.sendmail("sender@example.test", [f"a@{domain}"], content, ["REQUIRETLS"])
        taken = remote.wait_for(lambda each: b"to signed.example" in each.content)
        assert taken.tls and taken.mail.endswith(" REQUIRETLS")
        for domain in ("plain.example", "wrong.example"):
            (report,) = dsn.wait(node.maildir("sender@example.test"), f"to {domain}")
            (fields,) = report.recipients
            assert (fields["Action"], fields["Status"]) == ("failed", "5.7.10"), fields
        assert len(remote.transactions) == 1 and not other.transactions
