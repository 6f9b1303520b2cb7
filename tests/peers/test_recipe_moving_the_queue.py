"""docs/recipes/moving-the-queue.md: one node's queue to another node, by SMTP and as files."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.harness import ports
from tests.peers.harness.process import folder
from tests.peers.harness.recipe import Machine, Page
from tests.peers.harness.remote import Remote

_TO = ("bob@far.example", "carol@local.example")


@pytest.fixture
def home() -> Iterator[Path]:
    with folder("moving") as path:
        yield path


def _before(port: int, dead: int, state: Path) -> str:
    """The old machine's configuration of the time before: neither destination can be reached."""
    return f"""
hostname = "old.example.org"
state_dir = "{state}"
postmaster = "ada@example.org"
[[listener]]
name = "local"
address = "127.0.0.1"
port = {port}
role = "relay"
trusted_networks = ["127.0.0.0/8"]
[[domain]]
name = "local.example"
recipients = ["carol"]
deliver = "lmtp"
host = "127.0.0.1"
port = {dead}
[[next_hop]]
domain = "*"
host = "127.0.0.1"
port = {dead}
"""


def _new(page: Page, home: Path, remote: Remote, port: int) -> Machine:
    """The new machine: the page's listener, and all mail goes to `remote`."""
    [listener] = [block.text for block in page.blocks if block.kind == "toml" and "[[listener]]" in block.text]
    machine = Machine(page, home / "new", {
        "/var/tmp/mail": str(home / "new/mail"), "192.0.2.2": "127.0.0.1", "192.0.2.1": "127.0.0.1",
        "port = 25\n": f"port = {port}\n",
    }, only=("",))  # fmt: skip
    machine.write("/etc/postroad/postroad.toml", f"""
hostname = "new.example.org"
state_dir = "{home / 'new/state'}"
{machine.replace(listener)}
[[next_hop]]
domain = "*"
host = "127.0.0.1"
port = {remote.port}
""")
    return machine


def _old(page: Page, home: Path, port_of_new: int) -> Machine:
    return Machine(page, home / "old", {
        "/var/lib/postroad": str(home / "old/state"), 'user = "postroad"\n': "",
        "port = 25\n": f"port = {port_of_new}\n",
        '"new.example.org"': '"127.0.0.1"', "/var/tmp/mail new.example.org:/var/tmp/mail":
            f"{home / 'old/mail'} {home / 'new/mail'}", "scp -r": "cp -r", "/var/tmp/mail": str(home / "old/mail"),
    })  # fmt: skip


def _filled(old: Machine) -> None:
    """The node runs with its configuration of before, and two messages wait."""
    port = ports.port()
    old.config.write_text(_before(port, ports.port(), old.path("state")))
    old.start()
    for to in _TO:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.sendmail("ada@example.org", [to], f"Subject: to {to}\r\n\r\nhello\r\n")
        old.until(f"postroad trace {to}", "deferred")


def _arrived(remote: Remote) -> None:
    taken = remote.wait(len(_TO))
    assert sorted(each.rcpt for each in taken) == [(f"TO:<{to}>",) for to in _TO]


def test_draining(home: Path) -> None:
    page = Page("moving-the-queue")
    port = ports.port()
    with Remote() as remote, _new(page, home, remote, port) as new, _old(page, home, port) as old:
        new.start()
        configuration = old.config.read_text()
        _filled(old)
        old.config.write_text(configuration)
        assert "listener" in old.run(page.commands("Draining")[0])  # the warning that the page names
        old.play("Draining")
        _arrived(remote)
        old.until("postroad queue", "The queue is empty.")
        for to in _TO:
            assert "relayed" in old.run(f"postroad trace {to}")


def test_files(home: Path) -> None:
    page = Page("moving-the-queue")
    commands = page.commands("Files")
    there = commands.index("systemctl stop postroad", 1)
    with Remote() as remote, _new(page, home, remote, ports.port()) as new, _old(page, home, 0) as old:
        _filled(old)
        for command in commands[:there]:
            old.run(command)
        old.play("Afterwards")
        assert not old.path("state").exists()
        new.start()
        assert "stop it first" in new.run(commands[there + 2], code=1)
        for command in commands[there:]:
            new.run(command)
        new.run("postroad queue retry --all")
        _arrived(remote)
        new.until("postroad queue", "The queue is empty.")
        for to in _TO:
            assert "import" in new.run(f"postroad trace {to}")
