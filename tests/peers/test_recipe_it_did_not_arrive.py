"""docs/recipes/it-did-not-arrive.md: what the commands on the page print is what the page shows."""

from __future__ import annotations

import contextlib
import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import ports
from tests.peers.harness.knot import Knot
from tests.peers.harness.postroad import Node, local_domain, relay_listener
from tests.peers.harness.process import until
from tests.peers.harness.recipe import Machine, Page, assert_shown
from tests.peers.harness.remote import Dialog, Remote

PAGE = Page("it-did-not-arrive")
_ENDS = {"bob@example.net": "relayed", "carol@example.com": "deferred", "dave@example.com": "delivered",
         "erin@example.edu": "deferred"}  # fmt: skip


def _answer(dialog: Dialog, verb: str, argument: str) -> str | None:
    match verb:
        case "RCPT" if "carol" in argument:
            return "450 4.2.0 <carol@example.com>: greylisted, try again in 5 minutes"
        case "RCPT" if "dave" in argument:
            return "550 5.1.1 <dave@example.com>: no such user"
        case ".":
            return "250 2.0.0 Ok: queued as 4C7xYz1"
    return None


@pytest.fixture(scope="module")
def machine(place: Path) -> Iterator[Machine]:
    """A node to which the five messages of the page were sent."""
    port = ports.port()
    taking, dead = ports.address(), ports.address()
    zones = {name: f"@ IN MX 10 mx\nmx IN A {address}"
             for name, address in (("example.net", taking), ("example.com", taking), ("example.edu", dead))}
    with Knot(place / "knot", zones) as knot, Remote(_answer, address=taking, port=port):
        node = Node(place / "node", {
            "hostname": "mail.example.org", "state_dir": "state", "workers": 1, "postmaster": "ada@example.org",
            "listener": [relay_listener(ports.port())], "domain": [local_domain("example.org", ["ada"])],
            "dns": {"servers": [f"127.0.0.1:{knot.port}"]}, "routing": {"mx_port": port}, "mx": {"loopback": True},
            "queue": {"backoff_first_s": 1000}, "outbound": {"idle_s": 1000},
        }, defaults={})  # fmt: skip
        with node:
            with smtplib.SMTP("127.0.0.1", node.port, local_hostname="client.example", timeout=20) as client:
                for to in (*_ENDS, "zoe@example.org"):
                    content = f"Subject: x\r\nMessage-ID: <{to.replace('@', '.')}@example.org>\r\n\r\nhello\r\n"
                    with contextlib.suppress(smtplib.SMTPRecipientsRefused):
                        client.sendmail("ada@example.org", [to], content)
            for to, end in _ENDS.items():
                until(lambda to=to, end=end: end in node.command("trace", to), f"{to} {end}", pause_s=0.3)
            until(lambda: "refused" in node.command("trace", "zoe@example.org", code=None), "zoe", pause_s=0.3)
            [shown] = {each for command, _ in PAGE.shown() for each in re.findall(r"\b[0-9a-z]{10}00\b", command)}
            real = node.command("trace", "carol@example.com").split()[1]
            yield Machine(PAGE, place / "machine", {shown: real, "journalctl -u postroad": f"cat {node.log_path}"},
                          environment={"POSTROAD_CONFIG": str(node.config_path)})  # fmt: skip


@pytest.mark.parametrize(("command", "shown"), PAGE.shown(), ids=[command for command, _ in PAGE.shown()])
def test_the_page_shows_what_is_printed(machine: Machine, command: str, shown: str) -> None:
    assert_shown(shown, machine.run(command, code=None))


def test_the_page_has_all_questions() -> None:
    assert len(PAGE.shown()) >= 9
