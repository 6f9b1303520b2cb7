"""Keys that sign, made, rotated and removed while a node runs, with a real DNS server (Knot)."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.harness.knot import Knot
from tests.peers.harness.postroad import Node, next_hop
from tests.peers.harness.process import until
from tests.peers.harness.remote import Dialog, Remote

pytestmark = pytest.mark.peer

ZONE = "signed.example"


@pytest.fixture
def knot(tmp_path: Path) -> Iterator[Knot]:
    with Knot(tmp_path / "knot", {ZONE: ""}, negative_s=0) as running:
        yield running


def _node(folder: Path, knot: Knot, **settings: Any) -> Node:
    return Node(folder / "node", {"dns": {"servers": [f"127.0.0.1:{knot.port}"], "ttl_min_s": 0}, **settings})


def _states(node: Node) -> dict[str, str]:
    return {each["selector"]: each["state"] for each in node.json("dkim", "list")}


def _wait_states(node: Node, **states: str) -> None:
    until(lambda: _states(node) == states, f"{states}, not {_states(node)}\n{node.log()}", within_s=60, pause_s=0.5)


def test_keys_sign_when_their_records_are_seen_and_old_ones_retire(tmp_path: Path, knot: Knot) -> None:
    with _node(tmp_path, knot) as node:
        first = node.command("dkim", "add", ZONE, "--selector", "a")
        node.wait_log("new key a-rsa of signed.example, made by")
        assert _states(node) == {"a-rsa": "waiting", "a-ed25519": "waiting"}
        until(
            lambda: all("there is no TXT record" in each["next"] for each in node.json("dkim", "list")),
            "a look found nothing", pause_s=0.5,
        )
        knot.change(ZONE, first)
        _wait_states(node, **{"a-rsa": "signing", "a-ed25519": "signing"})
        node.wait_log("the key a-rsa of signed.example signs from now on")
        assert node.json("status")["keys"]["signing"] == 2

        second = node.command("dkim", "rotate", ZONE, "--selector", "b")
        assert node.command("dkim", "rotate", ZONE) == second  # they wait already
        # The zone gets the new name with the old key first: that is not taken for it.
        wrong = first.replace("a-rsa._domainkey", "b-rsa._domainkey").replace("a-ed25519._domain", "b-ed25519._domain")
        knot.change(ZONE, first + wrong)
        until(
            lambda: sum("has another key" in each["next"] for each in node.json("dkim", "list")) == 2,
            "the wrong records were seen", within_s=60, pause_s=0.5,
        )
        assert _states(node)["a-rsa"] == "signing"
        node.restart()
        knot.change(ZONE, first + second)
        _wait_states(node, **{
            "a-rsa": "retired", "a-ed25519": "retired", "b-rsa": "signing", "b-ed25519": "signing",
        })
        node.wait_log("the key a-rsa of signed.example is out of use; leave its record in the DNS until")

        refused = node.command("dkim", "remove", ZONE, "b-rsa", "b-ed25519", code=1)
        assert "would not be signed any more" in refused
        node.command("dkim", "remove", ZONE, "b-ed25519")
        node.wait_log("key b-ed25519 of signed.example removed by")
        assert set(_states(node)) == {"a-rsa", "a-ed25519", "b-rsa"}


def test_what_happens_offline_is_taken_at_the_start(tmp_path: Path, knot: Knot) -> None:
    node = _node(tmp_path, knot)
    records = node.command("dkim", "add", ZONE, "--selector", "a", "--algorithm", "ed25519")
    knot.change(ZONE, records)
    assert _states(node) == {"a": "waiting"}
    with node:
        _wait_states(node, a="signing")
    assert _states(node) == {"a": "signing"}
    knot.change(ZONE, "")
    with node:  # the record is gone: the key signs on, and the log and the list say so
        node.wait_log("receivers cannot verify the mail of signed.example that a signs: there is no TXT record")
        [row] = node.json("dkim", "list")
        assert row["state"] == "signing"
        assert "there is no TXT record" in row["next"]
        assert "receivers cannot verify" in node.command("status")


def test_a_change_of_the_files_by_hand_is_found(tmp_path: Path, knot: Knot) -> None:
    with _node(tmp_path, knot) as node:
        other = _node(tmp_path / "other", knot)
        knot.change(ZONE, other.command("dkim", "add", ZONE, "--selector", "moved", "--algorithm", "ed25519"))
        (node.state / "dkim").mkdir(mode=0o700)
        moved = node.state / "dkim" / f"{ZONE}.json"
        moved.write_bytes((other.state / "dkim" / f"{ZONE}.json").read_bytes())
        moved.chmod(0o600)
        _wait_states(node, moved="signing")


def _selectors(content: bytes) -> set[str]:
    """Of the signatures on a message."""
    found = (each.split(b" s=")[1].split(b";")[0] for each in content.split(b"DKIM-Signature:")[1:])
    return {each.decode() for each in found}


def test_mail_has_the_signature_of_the_key_that_signs_now(tmp_path: Path, knot: Knot) -> None:
    busy = [True]

    def rule(dialog: Dialog, verb: str, argument: str) -> str | None:
        return "451 4.3.0 later" if verb == "RCPT" and "waits@" in argument and busy[0] else None

    with Remote(rule=rule) as remote:
        settings = {"next_hop": [next_hop("*", remote.port)], "queue": {"retry_first_s": 5}}
        with _node(tmp_path, knot, **settings) as node:
            assert _signed_by(node, remote, "1") == set()
            records = node.command("dkim", "add", ZONE, "--selector", "a", "--algorithm", "ed25519")
            assert _signed_by(node, remote, "2") == set()
            knot.change(ZONE, records)
            _wait_states(node, a="signing")
            assert _signed_by(node, remote, "3") == {"a"}
            _send(node, "late", to="waits@example.net")
            more = node.command("dkim", "rotate", ZONE, "--selector", "b")
            assert _signed_by(node, remote, "4") == {"a"}
            knot.change(ZONE, records + more)
            node.wait_log("the key b of signed.example signs from now on")
            busy[0] = False
            assert _signed_by(node, remote, "5") == {"b"}
            # The message that waited is signed at each attempt anew, and so has the new key.
            assert _selectors(_arrived(remote, "late")) == {"b"}
            node.command("dkim", "remove", ZONE, "--yes")
            assert _signed_by(node, remote, "6") == set()


def _signed_by(node: Node, remote: Remote, subject: str) -> set[str]:
    """Send a message, and wait until it has arrived."""
    _send(node, subject)
    return _selectors(_arrived(remote, subject))


def _send(node: Node, subject: str, to: str = "bob@example.net") -> None:
    text = f"From: <ada@{ZONE}>\r\nTo: <{to}>\r\nSubject: {subject}.\r\n\r\nHello\r\n"
    with smtplib.SMTP("127.0.0.1", node.port) as client:
        client.sendmail(f"ada@{ZONE}", [to], text)


def _arrived(remote: Remote, subject: str) -> bytes:
    return remote.wait_for(lambda each: f"Subject: {subject}.\r\n".encode() in each.content).content
